//! Writing a file in a qube, whole or not at all; moving one to its place; making a directory.

use bytes::Bytes;
use contract::{Stream, limits};
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use super::{
    Body, FileFailure, Output, OutputGone, Place, RunError, Runner, Script, failure::Report,
};

/// Which file is to be written, and how.
#[derive(Clone, Copy, Debug)]
pub struct FileWrite<'a> {
    /// Any bytes but NUL. A relative path is relative to the user's home. Missing parents are created.
    pub path: &'a [u8],
    /// The mode bits it is to have. Without them a new file has what the user's umask leaves, and a
    /// replaced one keeps its own.
    pub mode: Option<u32>,
    /// The content goes behind what is there.
    pub append: bool,
    /// Fails with [`FileFailure::Exists`] where anything, even a dangling symlink, is at the path.
    pub create_only: bool,
    /// Fails with [`FileFailure::Changed`] unless this is the SHA-256 of the present content, in
    /// hexadecimal digits.
    pub if_sha256: Option<&'a str>,
    /// Fails with [`FileFailure::Length`] unless the present content has this many bytes; looked at
    /// right before the content goes there.
    pub if_length: Option<u64>,
    /// The time of change it is to have, in seconds since 1970.
    pub modified: Option<i64>,
}

/// Which file is to be moved where.
#[derive(Clone, Copy, Debug)]
pub struct FileMove<'a> {
    /// A plain file, no symlink.
    pub from: &'a [u8],
    /// Where it is to stand: as [`FileWrite::path`], on the same file system.
    pub to: &'a [u8],
    /// As [`FileWrite::mode`], but a new file keeps the mode it has.
    pub mode: Option<u32>,
    /// Fails with [`FileFailure::Exists`] where anything is at its place.
    pub create_only: bool,
    /// The time of change it is to have, in seconds since 1970. Without it a file that replaces
    /// another gets the present time, and a new one keeps its own.
    pub modified: Option<i64>,
}

/// Which directory is to be there.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryMake<'a> {
    /// As [`FileWrite::path`].
    pub path: &'a [u8],
    /// The mode bits it is to have, also where it is there already.
    pub mode: Option<u32>,
    /// Fails with [`FileFailure::Exists`] where anything is at the path.
    pub create_only: bool,
    /// The time of change it is to have, in seconds since 1970.
    pub modified: Option<i64>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileWritten {
    /// The absolute path of the file or directory, behind symlinks.
    pub path: Vec<u8>,
    /// How many bytes the content had.
    pub bytes: u64,
    /// It was not there before.
    pub created: bool,
}

impl Runner {
    /// Writes the body to a file.
    ///
    /// A plain file is replaced at once by one with the same owner, mode, ACL and extended attributes;
    /// a body that is cut short changes nothing and leaves nothing. A symlink stays one, and its target
    /// is written. What cannot be replaced is written in place: files of others that the user may write,
    /// files in directories that he may not write, devices, pipes, `/proc` and `/sys`. Other hard links
    /// to a replaced file keep the old content. Work that is killed while it appends may leave a beginning
    /// of what was to be appended. Cancellation as in [`Self::command`].
    pub async fn write_file<R: AsyncRead + Unpin>(
        &self,
        place: Place<'_>,
        file: FileWrite<'_>,
        body: Body<R>,
        cancel: &CancellationToken,
    ) -> Result<FileWritten, FileFailure> {
        let (mode, modified) = (octal(file.mode), decimal(file.modified));
        let length = decimal(file.if_length);
        let digest = file.if_sha256.unwrap_or_default().to_ascii_lowercase();
        let script = Script {
            text: concat!(include_str!("place.sh"), include_str!("write_file.sh")),
            variables: &[
                ("path", file.path),
                ("mode", mode.as_bytes()),
                ("append", flag(file.append)),
                ("create_only", flag(file.create_only)),
                ("digest", digest.as_bytes()),
                ("offset", length.as_bytes()),
                ("modified", modified.as_bytes()),
            ],
        };
        self.written(place, script, body, cancel).await
    }

    /// Moves a finished file to its place by one rename, so that the place never holds part of it.
    ///
    /// What stood there before gives its owner, mode and other attributes to the file. The content is on
    /// the disk before the name is. A failure leaves both where they were. Cancellation as in
    /// [`Self::command`].
    pub async fn move_file(
        &self,
        place: Place<'_>,
        file: FileMove<'_>,
        cancel: &CancellationToken,
    ) -> Result<FileWritten, FileFailure> {
        let (mode, modified) = (octal(file.mode), decimal(file.modified));
        let script = Script {
            text: concat!(include_str!("place.sh"), include_str!("move_file.sh")),
            variables: &[
                ("path", file.from),
                ("target", file.to),
                ("mode", mode.as_bytes()),
                ("create_only", flag(file.create_only)),
                ("modified", modified.as_bytes()),
            ],
        };
        self.written(place, script, Body::empty(), cancel).await
    }

    /// Makes a directory, with what is missing above it. One that is there already is no failure.
    pub async fn make_directory(
        &self,
        place: Place<'_>,
        directory: DirectoryMake<'_>,
        cancel: &CancellationToken,
    ) -> Result<FileWritten, FileFailure> {
        let (mode, modified) = (octal(directory.mode), decimal(directory.modified));
        let script = Script {
            text: concat!(include_str!("place.sh"), include_str!("make_directory.sh")),
            variables: &[
                ("path", directory.path),
                ("mode", mode.as_bytes()),
                ("create_only", flag(directory.create_only)),
                ("modified", modified.as_bytes()),
            ],
        };
        self.written(place, script, Body::empty(), cancel).await
    }

    /// Runs a script that notes whether something was there before, and prints where.
    pub(super) async fn written<R: AsyncRead + Unpin>(
        &self,
        place: Place<'_>,
        script: Script<'_>,
        body: Body<R>,
        cancel: &CancellationToken,
    ) -> Result<FileWritten, FileFailure> {
        let (mut path, bytes) = (Path(Vec::new()), body.length);
        let mut report = Report::new(&mut path);
        let ended = self.script(place, script, body, &mut report, cancel).await;
        report.conclude(ended)?;
        let existed = report.note("written").ok_or(RunError::Garbled)?;
        let created = existed.trim() == "0";
        Ok(FileWritten { path: path.0, bytes, created })
    }
}

/// A variable that is set or empty.
pub(super) const fn flag(set: bool) -> &'static [u8] {
    if set { b"1" } else { b"" }
}

fn octal(mode: Option<u32>) -> String {
    mode.map(|mode| format!("{mode:04o}")).unwrap_or_default()
}

/// A number, or nothing.
pub(super) fn decimal(number: Option<impl ToString>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// Collects the path that the script prints.
#[derive(Debug)]
struct Path(Vec<u8>);

impl Output for Path {
    async fn bytes(&mut self, _stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        // A symlink may lead to a path longer than one that can be asked for.
        let room = (2 * limits::PATH_BYTES).saturating_sub(self.0.len());
        self.0.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
        Ok(())
    }
}
