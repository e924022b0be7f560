//! Keeps the beginning and the end of a stream, and counts what lies between.

use bytes::{Bytes, BytesMut};

/// The most bytes one UTF-8 character takes.
const CHARACTER_BYTES: usize = 4;

/// Lets the first half of a limit through at once and holds back the last half until the end.
///
/// The limit counts UTF-8 characters; a byte that continues a character counts nothing.
#[derive(Debug)]
pub struct Cut {
    head_left: usize,
    tail_limit: usize,
    tail: BytesMut,
    total: u64,
    passed: u64,
    last_passed: Option<u8>,
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
        let tail_limit = limit / 2;
        Self {
            head_left: limit - tail_limit,
            tail_limit: tail_limit.min(byte_limit / (2 * CHARACTER_BYTES) * CHARACTER_BYTES),
            tail: BytesMut::new(),
            total: 0,
            passed: 0,
            last_passed: None,
        }
    }

    /// How many bytes came.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Takes bytes and gives back those that may go on at once.
    pub fn take(&mut self, mut bytes: Bytes) -> Bytes {
        self.total = self.total.saturating_add(length(&bytes));
        let mut through = 0;
        if self.tail.is_empty() {
            for byte in bytes.iter() {
                let continues = continues(*byte) && self.last_passed.is_some();
                if !continues && self.head_left == 0 {
                    break;
                }
                self.head_left -= usize::from(!continues);
                self.last_passed = Some(*byte);
                through += 1;
            }
        }
        let head = bytes.split_to(through);
        self.passed += length(&head);
        self.tail.extend_from_slice(&bytes);
        let kept = self.tail_limit.saturating_mul(CHARACTER_BYTES);
        // Dropped in large steps, so that a long stream is not moved byte by byte.
        if self.tail.len() > kept.saturating_mul(2).max(64 * 1024) {
            let surplus = self.tail.len() - kept;
            self.tail = BytesMut::from(self.tail.split_off(surplus).as_ref());
        }
        head
    }

    /// The end of the stream.
    pub fn finish(&mut self) -> Tail {
        let tail = std::mem::take(&mut self.tail);
        let mut start = tail.len();
        let mut characters = 0;
        for (index, byte) in tail.iter().enumerate().rev() {
            if !continues(*byte) {
                if characters == self.tail_limit {
                    break;
                }
                characters += 1;
                start = index;
            }
        }
        let whole = self.passed + length(&tail) == self.total && characters < self.tail_limit;
        let bytes = tail.freeze().split_off(if whole { 0 } else { start });
        Tail { omitted: self.total - self.passed - length(&bytes), bytes }
    }
}

fn continues(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
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
}
