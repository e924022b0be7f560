//! Lines of ours within a stream of somebody else's bytes, told apart by a number that nobody knows.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// The longest line of ours, in bytes with its newline.
const LINE_BYTES: usize = 256;

/// A number of 128 bits from the operating system, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// Draws a number.
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut bytes = [0_u8; 16];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a stream is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Somebody else's bytes, never empty.
    Bytes(Bytes),
    /// A line of ours, without the mark at its beginning and without its newline.
    Line(Bytes),
}

/// A line of ours is longer than any that our scripts write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a line of the frame is too long")]
pub(super) struct LineTooLong;

/// Takes a stream apart. Holds back at most what may still become a line of ours.
#[derive(Debug)]
pub(super) struct Markers {
    finder: memmem::Finder<'static>,
}

impl Markers {
    /// Lines of ours are those that begin with these bytes, wherever in the stream they stand.
    pub(super) fn new(mark: &[u8]) -> Self {
        Self { finder: memmem::Finder::new(mark).into_owned() }
    }

    /// The next piece, or nothing until more bytes have arrived.
    pub(super) fn next(&self, buffer: &mut BytesMut) -> Result<Option<Piece>, LineTooLong> {
        match self.finder.find(buffer) {
            Some(0) => self.line(buffer),
            Some(at) => Ok(Some(Piece::Bytes(buffer.split_to(at).freeze()))),
            None => {
                let ready = buffer.len() - self.held_back(buffer);
                Ok((ready > 0).then(|| Piece::Bytes(buffer.split_to(ready).freeze())))
            }
        }
    }

    /// What is left when the stream has ended. An unfinished line of ours is dropped.
    pub(super) fn rest(&self, buffer: &mut BytesMut) -> Option<Bytes> {
        let rest = buffer.split().freeze();
        (!rest.is_empty() && !rest.starts_with(self.finder.needle())).then_some(rest)
    }

    fn line(&self, buffer: &mut BytesMut) -> Result<Option<Piece>, LineTooLong> {
        let Some(end) = memchr::memchr(b'\n', buffer) else {
            return if buffer.len() < LINE_BYTES { Ok(None) } else { Err(LineTooLong) };
        };
        let mut line = buffer.split_to(end + 1).freeze();
        let line = line.split_off(self.finder.needle().len());
        Ok(Some(Piece::Line(Bytes::copy_from_slice(line.trim_ascii()))))
    }

    /// The length of the longest end of `buffer` with which a mark may begin.
    fn held_back(&self, buffer: &[u8]) -> usize {
        let mark = self.finder.needle();
        let longest = buffer.len().min(mark.len().saturating_sub(1));
        (1..=longest)
            .rev()
            .find(|&length| {
                buffer.get(buffer.len() - length..).is_some_and(|end| mark.starts_with(end))
            })
            .unwrap_or(0)
    }
}

/// Takes any bytes apart, in one read and byte by byte, and asserts that both give the same.
pub fn fuzz_markers(input: &[u8]) {
    let markers = Markers::new(b"ab");
    let collect = |reads: &mut dyn Iterator<Item = &[u8]>| {
        let (mut buffer, mut bytes, mut lines) = (BytesMut::new(), Vec::new(), Vec::new());
        for read in reads {
            buffer.extend_from_slice(read);
            loop {
                match markers.next(&mut buffer) {
                    Ok(Some(Piece::Bytes(piece))) => bytes.extend_from_slice(&piece),
                    Ok(Some(Piece::Line(line))) => lines.push((bytes.len(), line)),
                    Ok(None) => break,
                    Err(LineTooLong) => return None,
                }
            }
        }
        bytes.extend_from_slice(&markers.rest(&mut buffer).unwrap_or_default());
        Some((bytes, lines))
    };
    let whole = collect(&mut std::iter::once(input));
    let single = collect(&mut input.chunks(1));
    assert!(whole == single || whole.is_none() || single.is_none(), "the split of reads shows");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(reads: &[&[u8]]) -> (Vec<u8>, Vec<Bytes>) {
        let markers = Markers::new(b"\x1eK");
        let (mut buffer, mut bytes, mut lines) = (BytesMut::new(), Vec::new(), Vec::new());
        for read in reads {
            buffer.extend_from_slice(read);
            while let Some(piece) = markers.next(&mut buffer).unwrap() {
                match piece {
                    Piece::Bytes(piece) => bytes.extend_from_slice(&piece),
                    Piece::Line(line) => lines.push(line),
                }
            }
        }
        bytes.extend_from_slice(&markers.rest(&mut buffer).unwrap_or_default());
        (bytes, lines)
    }

    #[test]
    fn lines_of_ours_are_found_without_a_newline_before_them_and_across_reads() {
        let expected = (b"abc".to_vec(), vec![Bytes::from("ready"), Bytes::from("exit 3")]);
        assert_eq!(pieces(&[b"\x1eK ready\nabc\x1eK exit 3\n"]), expected);
        assert_eq!(pieces(&[b"\x1eK rea", b"dy\nab", b"c\x1e", b"K exit 3", b"\n"]), expected);
    }

    #[test]
    fn what_only_looks_like_ours_is_passed_on() {
        assert_eq!(
            pieces(&[b"\x1eX exit 0\n", b"K exit 0\n\x1e"]).0,
            b"\x1eX exit 0\nK exit 0\n\x1e"
        );
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut buffer = BytesMut::from(&b"\x1eK "[..]);
        buffer.extend_from_slice(&[b'x'; LINE_BYTES]);
        assert_eq!(Markers::new(b"\x1eK").next(&mut buffer), Err(LineTooLong));
    }

    #[test]
    fn two_numbers_differ() {
        let (one, two) = (Token::random().unwrap(), Token::random().unwrap());
        assert_eq!(one.as_str().len(), 32);
        assert_ne!(one, two);
    }

    proptest! {
        #[test]
        fn any_bytes_split_anywhere_give_the_same_pieces(input in "[ab\nc]{0,300}") {
            fuzz_markers(input.as_bytes());
        }
    }
}
