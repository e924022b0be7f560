//! A range of a job's output on its way to the caller, whole characters at a time.

use bytes::Bytes;
use contract::Stream;

use crate::{
    error::Error,
    handle::Call,
    run::{JobRange, Output, OutputGone},
};

/// Passes a range on, and lets it neither begin nor end within a character.
pub(super) struct Text<'h> {
    call: &'h Call,
    /// Bytes that continue a character may be skipped at the beginning.
    skips: bool,
    /// How many were.
    pub(super) skipped: u64,
    /// How many bytes may still come, whatever the qube sends.
    most: usize,
    /// What may be a character of which the rest has not come.
    held: Vec<u8>,
    pub(super) sent: u64,
}

impl<'h> Text<'h> {
    pub(super) fn new(call: &'h Call, range: JobRange<'_>) -> Self {
        let most = usize::try_from(range.length).unwrap_or(usize::MAX);
        Self { call, skips: range.from < 0, skipped: 0, most, held: Vec::new(), sent: 0 }
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), OutputGone> {
        self.sent += u64::try_from(bytes.len()).unwrap_or(0);
        self.call.answer.bytes(Stream::Stdout, bytes).await.map_err(|_| OutputGone)
    }

    /// Sends what was held back where nothing can follow it.
    pub(super) async fn finish(&mut self, is_end: bool) -> Result<(), Error> {
        if is_end || self.sent == 0 {
            let held = std::mem::take(&mut self.held);
            self.send(held.into()).await.map_err(|_| Error::Cancelled)?;
        }
        Ok(())
    }
}

/// How many bytes at the end may be the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let start = bytes.len().saturating_sub(3);
    let last = bytes.get(start..).unwrap_or_default();
    let whole = |byte: u8| match byte {
        0b1100_0000..=0b1101_1111 => 2,
        0b1110_0000..=0b1110_1111 => 3,
        0b1111_0000..=0b1111_0111 => 4,
        _ => 1,
    };
    let begins = last.iter().rposition(|byte| byte & 0b1100_0000 != 0b1000_0000);
    begins.map_or(0, |at| {
        let length = last.len() - at;
        if last.get(at).is_some_and(|byte| whole(*byte) > length) { length } else { 0 }
    })
}

impl Output for Text<'_> {
    async fn bytes(&mut self, _stream: Stream, mut bytes: Bytes) -> Result<(), OutputGone> {
        bytes.truncate(self.most);
        self.most -= bytes.len();
        while self.skips && self.skipped < 3 && bytes.first().is_some_and(|b| b & 0xc0 == 0x80) {
            drop(bytes.split_to(1));
            self.skipped += 1;
        }
        self.skips &= bytes.is_empty();
        if !self.held.is_empty() {
            self.held.extend_from_slice(&bytes);
            bytes = std::mem::take(&mut self.held).into();
        }
        let held = bytes.split_off(bytes.len() - unfinished(&bytes));
        self.held = held.to_vec();
        self.send(bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_character_is_found_at_the_end() {
        for (bytes, expected) in [
            (&b""[..], 0),
            (b"abc", 0),
            ("é".as_bytes(), 0),
            (b"a\xc3", 1),
            (b"\xe2\x82", 2),
            ("€".as_bytes(), 0),
            (b"\xf0\x9f\x98", 3),
            ("😀".as_bytes(), 0),
            (b"\x80\x80\x80", 0),
            (b"\xff", 0),
        ] {
            assert_eq!(unfinished(bytes), expected, "{bytes:?}");
        }
    }
}
