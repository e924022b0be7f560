//! Writing a file in a qube, whole or not at all.

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
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileWritten {
    /// The absolute path of the file, behind symlinks.
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
    /// to a replaced file keep the old content. Cancellation as in [`Self::command`].
    pub async fn write_file<R: AsyncRead + Unpin>(
        &self,
        place: Place<'_>,
        file: FileWrite<'_>,
        body: Body<R>,
        cancel: &CancellationToken,
    ) -> Result<FileWritten, FileFailure> {
        let flag = |set: bool| if set { &b"1"[..] } else { &b""[..] };
        let mode = file.mode.map(|mode| format!("{mode:04o}")).unwrap_or_default();
        let digest = file.if_sha256.unwrap_or_default().to_ascii_lowercase();
        let script = Script {
            text: include_str!("write_file.sh"),
            variables: &[
                ("path", file.path),
                ("mode", mode.as_bytes()),
                ("append", flag(file.append)),
                ("create_only", flag(file.create_only)),
                ("digest", digest.as_bytes()),
            ],
        };
        let (mut path, bytes) = (Path(Vec::new()), body.length);
        let mut report = Report::new(&mut path);
        let ended = self.script(place, script, body, &mut report, cancel).await;
        report.conclude(ended)?;
        let existed = report.note("written").ok_or(RunError::Garbled)?;
        let created = existed.trim() == "0";
        Ok(FileWritten { path: path.0, bytes, created })
    }
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
