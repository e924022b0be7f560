//! What qrexec-client itself writes to standard error while work runs, told apart from the work's bytes.
//!
//! It logs to the stream that carries the work's standard error, in lines that name dom0's clock and its own
//! process: `2026-11-21 23:58:08.522 qrexec-client[21416]: FILE:LINE:FUNCTION: TEXT`. Work in a qube does not
//! know that number, and could by guessing it only hide lines of its own.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// The time before the name, where `0` stands for a digit.
const TIME: &[u8] = b"0000-00-00 00:00:00.000 ";
/// The longest line that is dropped, in bytes; what follows is the work's.
const LINE_BYTES: usize = 4096;

/// Drops the lines of one qrexec-client from a stream. Holds back at most what may become one.
#[derive(Debug)]
pub(super) struct OwnLines {
    /// What stands behind the time.
    name: memmem::Finder<'static>,
    held: BytesMut,
}

impl OwnLines {
    /// For the qrexec-client with this process id; without one nothing is dropped.
    pub(super) fn of(pid: Option<u32>) -> Option<Self> {
        let name = format!("qrexec-client[{}]: ", pid?);
        let name = memmem::Finder::new(name.as_bytes()).into_owned();
        Some(Self { name, held: BytesMut::new() })
    }

    /// Takes bytes of the stream, and returns those that are not such lines.
    pub(super) fn pass(&mut self, bytes: Bytes) -> Bytes {
        if self.held.is_empty() && self.begin(&bytes).is_none() {
            return bytes;
        }
        self.held.extend_from_slice(&bytes);
        let mut rest = BytesMut::new();
        while let Some(at) = self.begin(&self.held) {
            rest.extend_from_slice(&self.held.split_to(at));
            let whole = self.held.len() >= self.length();
            match memchr::memchr(b'\n', &self.held) {
                Some(end) if whole => drop(self.held.split_to(end + 1)),
                None if whole && self.held.len() >= LINE_BYTES => self.held.clear(),
                Some(_) | None => return rest.freeze(),
            }
        }
        rest.extend_from_slice(&self.held.split());
        rest.freeze()
    }

    /// What is left at the end of the stream: an unfinished line of its own is dropped.
    pub(super) fn finish(&mut self) -> Bytes {
        let whole = self.held.len() >= self.length();
        let held = self.held.split().freeze();
        if whole { Bytes::new() } else { held }
    }

    /// Of the time and the name.
    fn length(&self) -> usize {
        TIME.len() + self.name.needle().len()
    }

    /// Where the first line of its own begins, or may begin at the end of these bytes.
    fn begin(&self, bytes: &[u8]) -> Option<usize> {
        let own = |byte: u8, at: usize| match TIME.get(at) {
            Some(b'0') => byte.is_ascii_digit(),
            Some(expected) => byte == *expected,
            None => self.name.needle().get(at - TIME.len()).is_none_or(|name| byte == *name),
        };
        let fits = |begin: &usize| {
            let line = bytes.get(*begin..).unwrap_or_default();
            line.iter().take(self.length()).enumerate().all(|(at, byte)| own(*byte, at))
        };
        let names = self.name.find_iter(bytes).filter_map(|at| at.checked_sub(TIME.len()));
        let end = bytes.len().saturating_sub(self.length() - 1)..bytes.len();
        names.chain(end).find(fits)
    }
}

/// Whether a line is one that this qrexec-client wrote.
pub(super) fn is_own_line(line: &str, pid: Option<u32>) -> bool {
    OwnLines::of(pid).is_some_and(|own| {
        let whole = line.len() >= own.length();
        whole && own.begin(line.as_bytes()) == Some(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: &str =
        "2026-11-22 07:14:11.123 qrexec-client[4711]: process_io.c:99:process_io: vchan closed\n";

    fn passed(pieces: &[&[u8]]) -> String {
        let mut own = OwnLines::of(Some(4711)).unwrap();
        let mut all = Vec::new();
        for piece in pieces {
            all.extend_from_slice(&own.pass(Bytes::copy_from_slice(piece)));
        }
        all.extend_from_slice(&own.finish());
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn its_lines_are_dropped_wherever_they_stand_and_however_they_are_read() {
        for text in [format!("half{LINE}rest\n"), format!("a\n{LINE}{LINE}b"), LINE.into()] {
            let expected = text.replace(LINE, "");
            assert_eq!(passed(&[text.as_bytes()]), expected);
            let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(passed(&single), expected);
        }
        assert_eq!(passed(&[b"a\n", LINE.trim_end().as_bytes()]), "a\n");
    }

    #[test]
    fn lines_of_others_and_beginnings_of_lines_are_the_works() {
        let other = LINE.replace("4711", "4712");
        for text in [other.as_str(), "2026-11-22 07:14:11.123 qrexec-client[47", "2026-1", "7"] {
            assert_eq!(passed(&[text.as_bytes()]), text);
        }
        assert!(is_own_line(LINE, Some(4711)));
        assert!(!is_own_line(LINE, Some(1)) && !is_own_line("2026-", Some(4711)));
    }

    #[test]
    fn a_line_without_an_end_is_not_held_for_ever() {
        let long = format!("{}{}", LINE.trim_end(), "x".repeat(LINE_BYTES));
        assert_eq!(passed(&[long.as_bytes(), b"after"]), "after");
    }

    proptest! {
        #[test]
        fn any_bytes_without_its_number_pass_whole(
            input in proptest::collection::vec("[0-9: .\\n-]{0,9}|2026-11-22 07:14:11.123 ", 0..20),
        ) {
            let pieces: Vec<&[u8]> = input.iter().map(String::as_bytes).collect();
            prop_assert_eq!(passed(&pieces), input.concat());
        }
    }
}
