//! Reading a file in a qube, whole or a range of it.

use bytes::Bytes;
use contract::Stream;
use tokio_util::sync::CancellationToken;

use super::{
    Body, FileFailure, Output, OutputGone, Place, RunError, Runner, Script, failure::Report,
};

/// The type of file within the mode bits of `stat`, and the one that says "regular".
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// Which bytes of which file.
#[derive(Clone, Copy, Debug)]
pub struct FileRange<'a> {
    /// Any bytes but NUL. A relative path is relative to the user's home.
    pub path: &'a [u8],
    /// The first byte, counted from 0.
    pub offset: u64,
    /// How many bytes at most; all that are left without it.
    pub length: Option<u64>,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRead {
    /// The size that the file system gives, in bytes. Files of `/proc` have size 0 and content.
    pub size: u64,
    /// It is a regular file, no device or pipe.
    pub regular: bool,
    /// How many bytes were passed on.
    pub bytes: u64,
    /// Nothing is left behind these bytes.
    pub eof: bool,
}

impl Runner {
    /// Passes the bytes of a range to `output` as stdout, and nothing else.
    ///
    /// Symlinks are followed. A pipe without a writer waits until the deadline. What was passed on before
    /// an error is part of the file. Cancellation as in [`Self::command`].
    pub async fn read_file<O: Output>(
        &self,
        place: Place<'_>,
        range: FileRange<'_>,
        output: &mut O,
        cancel: &CancellationToken,
    ) -> Result<FileRead, FileFailure> {
        let mut counted = Counted { output, bytes: 0 };
        let mut report = Report::new(&mut counted);
        // dd counts in signed numbers; no file reaches this far.
        let most = i64::MAX.unsigned_abs();
        let offset = range.offset.min(most).to_string();
        let length = range.length.filter(|length| *length <= most).map(|length| length.to_string());
        let script = Script {
            text: include_str!("read_file.sh"),
            variables: &[
                ("path", range.path),
                ("offset", offset.as_bytes()),
                ("length", length.as_deref().unwrap_or_default().as_bytes()),
            ],
        };
        let ended = self.script(place, script, Body::empty(), &mut report, cancel).await;
        report.conclude(ended)?;
        let (size, mode) = report.note("stat").and_then(parse_stat).ok_or(RunError::Garbled)?;
        let regular = mode & FILE_TYPE == REGULAR;
        let bytes = counted.bytes;
        let short = range.length.is_none_or(|length| bytes < length);
        let eof = short || (regular && size > 0 && range.offset.saturating_add(bytes) >= size);
        Ok(FileRead { size, regular, bytes, eof })
    }
}

/// Size in bytes, and the mode in hexadecimal digits.
fn parse_stat(note: &str) -> Option<(u64, u32)> {
    let (size, mode) = note.trim().split_once(' ')?;
    Some((size.parse().ok()?, u32::from_str_radix(mode, 16).ok()?))
}

/// Counts what passes.
#[derive(Debug)]
struct Counted<'a, O> {
    output: &'a mut O,
    bytes: u64,
}

impl<O: Output> Output for Counted<'_, O> {
    async fn bytes(&mut self, stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.output.bytes(stream, bytes).await
    }
}
