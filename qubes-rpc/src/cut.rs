//! Keeps the beginning and the end of a stream, and counts what lies between.

use bytes::{Bytes, BytesMut};

/// The most bytes one UTF-8 character takes.
const CHARACTER_BYTES: usize = 4;

/// Lets the first half of a limit through at once and holds back the last half until the end.
///
/// The limit counts UTF-8 characters; a byte that continues a character counts nothing, but no
/// more than three in a row do that, so that a stream of them alone does not pass unlimited.
#[derive(Debug)]
pub struct Cut {
    head_characters: usize,
    head_bytes: usize,
    tail_characters: usize,
    byte_limit: usize,
    tail: BytesMut,
    total: u64,
    passed: usize,
    /// The bytes of the last character that passed.
    run: usize,
}

/// What a [`Cut`] held back.
#[derive(Debug, PartialEq, Eq)]
pub struct Tail {
    /// How many bytes lie between the beginning and this end, and are lost.
    pub omitted: u64,
    /// The end of the stream.
    pub bytes: Bytes,
}

impl Cut {
    /// A cut at this many characters, of which no more than `byte_limit` bytes are kept.
    pub fn new(limit: usize, byte_limit: usize) -> Self {
        let tail_characters = limit / 2;
        Self {
            head_characters: limit - tail_characters,
            head_bytes: byte_limit.div_ceil(2) + CHARACTER_BYTES - 1,
            tail_characters,
            byte_limit,
            tail: BytesMut::new(),
            total: 0,
            passed: 0,
            run: 0,
        }
    }

    /// How many bytes came.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Takes bytes and gives back those that may go on at once.
    pub fn take(&mut self, mut bytes: Bytes) -> Bytes {
        self.total = self.total.saturating_add(length(&bytes));
        let through = if self.tail.is_empty() { self.pass(&bytes) } else { 0 };
        let head = bytes.split_to(through);
        self.tail.extend_from_slice(&bytes);
        let kept = self.tail_bytes() + CHARACTER_BYTES;
        // Dropped in steps, so that a long stream is not moved byte by byte.
        if self.tail.len() > kept + (kept / 8).max(64 * 1024) {
            let surplus = self.tail.len() - kept;
            self.tail = BytesMut::from(self.tail.split_off(surplus).as_ref());
        }
        head
    }

    /// How many of these bytes may go on at once.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut through = 0;
        for byte in bytes {
            if !goes_on(self.run, *byte) {
                if self.head_characters == 0 || self.head_bytes < CHARACTER_BYTES {
                    break;
                }
                self.head_characters -= 1;
                self.run = 0;
            }
            self.run += 1;
            self.head_bytes -= 1;
            through += 1;
        }
        self.passed += through;
        through
    }

    /// The most bytes that the end may have.
    fn tail_bytes(&self) -> usize {
        let characters = self.tail_characters.saturating_mul(CHARACTER_BYTES);
        characters.min(self.byte_limit.saturating_sub(self.passed))
    }

    /// The end of the stream.
    pub fn finish(&mut self) -> Tail {
        let tail = std::mem::take(&mut self.tail).freeze();
        let surplus = starts(&tail).count().saturating_sub(self.tail_characters);
        let most = self.tail_bytes();
        let start = starts(&tail).skip(surplus).find(|start| tail.len() - start <= most);
        let bytes = tail.slice(start.unwrap_or(tail.len())..);
        let kept = u64::try_from(self.passed + bytes.len()).unwrap_or(u64::MAX);
        Tail { omitted: self.total.saturating_sub(kept), bytes }
    }
}

/// Where the characters begin.
fn starts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut run = 0;
    bytes.iter().enumerate().filter_map(move |(at, byte)| {
        let begins = !goes_on(run, *byte);
        run = if begins { 1 } else { run + 1 };
        begins.then_some(at)
    })
}

/// Whether this byte continues a character of which so many bytes have come.
fn goes_on(run: usize, byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000 && (1..CHARACTER_BYTES).contains(&run)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(limit: usize, pieces: &[&str]) -> (String, u64, String) {
        let mut cut = Cut::new(limit, 1 << 20);
        let mut head = Vec::new();
        for piece in pieces {
            head.extend_from_slice(&cut.take(Bytes::copy_from_slice(piece.as_bytes())));
        }
        let tail = cut.finish();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (text(&head), tail.omitted, text(&tail.bytes))
    }

    #[test]
    fn a_short_stream_passes_whole() {
        assert_eq!(cut(10, &["hello"]), ("hello".into(), 0, String::new()));
        assert_eq!(cut(10, &["hello", "world"]), ("hello".into(), 0, "world".into()));
    }

    #[test]
    fn a_long_stream_keeps_its_beginning_and_its_end() {
        assert_eq!(cut(6, &["abcdefghij"]), ("abc".into(), 4, "hij".into()));
        assert_eq!(cut(6, &["a", "bcdefg", "hi", "j"]), ("abc".into(), 4, "hij".into()));
        assert_eq!(cut(0, &["abc"]), (String::new(), 3, String::new()));
    }

    #[test]
    fn characters_are_never_split() {
        assert_eq!(cut(4, &["äöüßéè"]), ("äö".into(), 4, "éè".into()));
        assert_eq!(cut(2, &["€", "€", "€"]), ("€".into(), 3, "€".into()));
    }

    #[test]
    fn a_very_long_stream_is_held_in_bounded_memory() {
        let mut cut = Cut::new(100, 1 << 20);
        for _ in 0..1000 {
            let head = cut.take(Bytes::from(vec![b'x'; 10_000]));
            assert!(head.len() <= 50 && cut.tail.capacity() < 200_000);
        }
        let tail = cut.finish();
        assert_eq!((tail.omitted, tail.bytes.len(), cut.total()), (9_999_900, 50, 10_000_000));
    }

    #[test]
    fn neither_odd_bytes_nor_wide_characters_pass_the_limit() {
        let mut cut = Cut::new(8, 1 << 20);
        let head = cut.take(Bytes::from(vec![0x80; 100_000]));
        let tail = cut.finish();
        assert_eq!((head.len(), tail.bytes.len(), tail.omitted), (16, 16, 99_968));
        let mut cut = Cut::new(1 << 20, 64);
        let head = cut.take(Bytes::from("\u{1f600}".repeat(50_000)));
        let tail = cut.finish();
        assert_eq!((head.len(), tail.bytes.len(), tail.omitted), (32, 32, 199_936));
    }

    #[test]
    fn a_stream_of_exactly_the_limit_passes_whole() {
        for limit in [7, 64, 1001] {
            let mut cut = Cut::new(limit, limit);
            let head = cut.take(Bytes::from(vec![b'x'; limit]));
            let tail = cut.finish();
            assert_eq!((head.len() + tail.bytes.len(), tail.omitted), (limit, 0), "{limit}");
        }
    }
}
