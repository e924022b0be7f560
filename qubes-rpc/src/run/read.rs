//! Reading a file in a qube, whole or a range of it.

use bytes::Bytes;
use contract::Stream;
use tokio_util::sync::CancellationToken;

use super::{
    Body, FileFailure, Output, OutputGone, Place, RunError, Runner, Script,
    failure::Report,
    write::{decimal, flag},
};

/// The type of file within the mode bits of `stat`, and the one that says "regular".
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const PERMISSIONS: u32 = 0o7777;

/// Which bytes of which file.
#[derive(Clone, Copy, Debug)]
pub struct FileRange<'a> {
    /// Any bytes but NUL. A relative path is relative to the user's home.
    pub path: &'a [u8],
    /// The first byte, counted from 0.
    pub offset: u64,
    /// How many bytes at most; all that are left without it.
    pub length: Option<u64>,
    /// Not the bytes, but their SHA-256 is wanted.
    pub digest: bool,
    /// It is to be told whether the file changed meanwhile.
    pub watch: bool,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRead {
    /// The size that the file system gives, in bytes. Files of `/proc` have size 0 and content.
    pub size: u64,
    /// It is a regular file, no device or pipe.
    pub regular: bool,
    /// How many bytes were passed on.
    pub bytes: u64,
    /// Nothing is left behind these bytes; of a digest it says nothing.
    pub eof: bool,
    /// The permission bits.
    pub mode: u32,
    /// When the content was changed, in seconds since 1970.
    pub modified: i64,
    /// The SHA-256 of the range in hexadecimal digits, where it was wanted.
    pub sha256: Option<String>,
    /// The file changed while it was read, where that was to be told.
    pub changed: bool,
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
        let length = decimal(range.length.filter(|length| *length <= most));
        let script = Script {
            text: include_str!("read_file.sh"),
            variables: &[
                ("path", range.path),
                ("offset", offset.as_bytes()),
                ("length", length.as_bytes()),
                ("digest", flag(range.digest)),
                ("attributes", flag(range.watch)),
            ],
        };
        let ended = self.script(place, script, Body::empty(), &mut report, cancel).await;
        report.conclude(ended)?;
        let stat = report.note("stat").and_then(Stat::parse).ok_or(RunError::Garbled)?;
        let changed = report.note("changed").is_some();
        let sha256 = match report.note("sha256").map(str::trim) {
            Some(sum) if is_sha256(sum) => Some(sum.to_owned()),
            None if !range.digest => None,
            Some(_) | None => return Err(RunError::Garbled.into()),
        };
        let Stat { size, mode, modified } = stat;
        let regular = mode & FILE_TYPE == REGULAR;
        let bytes = counted.bytes;
        let passed = if range.digest { range.length.unwrap_or(u64::MAX) } else { bytes };
        let short = range.length.is_none_or(|length| passed < length);
        let eof = short || (regular && size > 0 && range.offset.saturating_add(passed) >= size);
        let mode = mode & PERMISSIONS;
        Ok(FileRead { size, regular, bytes, eof, mode, modified, sha256, changed })
    }
}

/// What the file system says of an open file.
struct Stat {
    size: u64,
    mode: u32,
    modified: i64,
}

impl Stat {
    /// Size in bytes, the mode in hexadecimal digits, seconds since 1970.
    fn parse(note: &str) -> Option<Self> {
        let mut words = note.split_ascii_whitespace();
        let size = words.next()?.parse().ok()?;
        let mode = u32::from_str_radix(words.next()?, 16).ok()?;
        let modified = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Self { size, mode, modified })
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
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
