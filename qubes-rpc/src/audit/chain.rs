//! The chain: every line holds the hash of the line before it, and the head names the last one.
//! No files here.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A SHA-256, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hash([u8; 32]);

impl Hash {
    /// What the first line of all has in the place of the hash before it.
    pub(crate) const NONE: Self = Self([0; 32]);

    /// The hash of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 lower-case hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        if pairs.len() != hash.len() {
            return None;
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(hash))
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a SHA-256"))
    }
}

/// How far the chain goes, and from where it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The number of the last line, which is how many were ever written.
    pub(crate) count: u64,
    /// The hash of the last line with its newline.
    pub(crate) hash: Hash,
    /// The number of the first line that is kept.
    pub(crate) first: u64,
    /// What that line has as the hash of the line before it.
    pub(crate) before: Hash,
}

/// Why the head cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not what Salt Bridge writes")]
pub(crate) struct HeadError;

impl Head {
    /// The head of a chain without lines.
    pub(crate) const EMPTY: Self =
        Self { count: 0, hash: Hash::NONE, first: 1, before: Hash::NONE };

    /// The head after one more line, which is given with its newline.
    pub(crate) fn after(self, line: &[u8]) -> Self {
        Self { count: self.count + 1, hash: Hash::of(line), ..self }
    }

    /// One line of always the same length, below the size of a disk's sector, so that it can be
    /// written over the one before.
    pub(crate) fn render(&self) -> String {
        let Self { count, hash, first, before } = self;
        let facts = format!("{count:020} {hash} {first:020} {before}");
        let proof = Hash::of(facts.as_bytes());
        format!("{facts} {proof}\n")
    }

    /// Reads that line.
    pub(crate) fn parse(text: &str) -> Result<Self, HeadError> {
        let mut words = text.trim_ascii_end().split(' ');
        let mut word = || words.next().ok_or(HeadError);
        let head = Self {
            count: word()?.parse().map_err(|_| HeadError)?,
            hash: Hash::parse(word()?).ok_or(HeadError)?,
            first: word()?.parse().map_err(|_| HeadError)?,
            before: Hash::parse(word()?).ok_or(HeadError)?,
        };
        if head.render() == text { Ok(head) } else { Err(HeadError) }
    }
}

/// The part of a line that makes it a link of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Link {
    /// The line's number, from 1.
    pub(crate) seq: u64,
    /// The hash of the line before it.
    pub(crate) prev: Hash,
}

impl Link {
    /// Reads it from a line without its newline.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

/// Reads whatever it is given; what is a head is so byte by byte.
#[cfg(test)]
pub(crate) fn fuzz_head(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(head) = Head::parse(text) {
        assert_eq!(head.render(), text, "a head does not survive a round trip");
    }
    assert!(Link::parse(input).is_none_or(|link| link.seq > 0 || text.contains('0')));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "00000000000000000001 \
        9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0 \
        00000000000000000001 \
        0000000000000000000000000000000000000000000000000000000000000000 ";

    #[test]
    fn a_head_names_the_last_line_by_its_hash() {
        let head = Head::EMPTY.after(b"aaa");
        assert!(head.render().starts_with(HEAD), "{}", head.render());
        assert_eq!(Head::parse(&head.render()), Ok(head));
        assert!(head.render().len() < 512);
    }

    #[test]
    fn a_head_with_one_byte_changed_is_none() {
        let text = Head::EMPTY.after(b"aaa").render();
        for place in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[place] ^= 1;
            assert_eq!(Head::parse(&String::from_utf8(bytes).unwrap()), Err(HeadError), "{place}");
        }
        assert_eq!(Head::parse(""), Err(HeadError));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_head(&input);
        }
    }
}
