//! Why a file could not be read or written, from what the tools in the qube said.

use bytes::Bytes;
use contract::{Stream, limits};

use super::{Ended, Output, OutputGone, RunError};

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileFailure {
    /// There is no such file, or no such directory on the way.
    #[error("no such file or directory")]
    NotFound,
    /// The qube's user may not do this.
    #[error("permission denied")]
    PermissionDenied,
    /// The path is that of a directory.
    #[error("is a directory")]
    IsDirectory,
    /// Something on the way is no directory.
    #[error("not a directory")]
    NotDirectory,
    /// The file exists, and was to be created.
    #[error("the file exists")]
    Exists,
    /// The file system is full, or the quota used up.
    #[error("no space left on device")]
    NoSpace,
    /// The file system is mounted read-only.
    #[error("read-only file system")]
    ReadOnly,
    /// The file is not the one that was to be replaced.
    #[error("the file has changed")]
    Changed {
        /// SHA-256 of what is there, in hexadecimal digits; nothing when there is no file.
        actual: Option<String>,
    },
    /// The file does not have the length that it was to have.
    #[error("the file has another length")]
    Length {
        /// Its length in bytes; nothing when there is no plain file.
        actual: Option<u64>,
    },
    /// A move in one step is not possible between these two places.
    #[error("the two places are on different file systems")]
    OtherFileSystem,
    /// The pattern of a search is none.
    #[error("the pattern is not a regular expression: {reason}")]
    Pattern {
        /// As the tool in the qube gave it.
        reason: String,
    },
    /// Any other reason.
    #[error("{message}")]
    Other {
        /// As the tool in the qube gave it, at most [`limits::MESSAGE_BYTES`].
        message: String,
    },
    /// It took too long.
    #[error("timed out")]
    TimedOut,
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The work could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl FileFailure {
    /// From what was said on stderr. The reason stands behind the last colon, whatever the path holds.
    pub(super) fn parse_message(said: &str) -> Self {
        let line = said.trim_end();
        let reason = line.rsplit(": ").next().unwrap_or(line);
        match reason {
            "No such file or directory" => Self::NotFound,
            "Permission denied" | "Operation not permitted" => Self::PermissionDenied,
            "Is a directory" => Self::IsDirectory,
            // The second is what mkdir says of a file that stands where a parent should.
            "Not a directory" | "File exists" => Self::NotDirectory,
            "cannot overwrite existing file" => Self::Exists,
            "No space left on device" | "Disk quota exceeded" => Self::NoSpace,
            "Read-only file system" => Self::ReadOnly,
            "Invalid cross-device link" => Self::OtherFileSystem,
            _ => Self::Other { message: reason.to_owned() },
        }
    }
}

/// Keeps what scripts for files say besides their output.
#[derive(Debug)]
pub(super) struct Report<'a, O> {
    stdout: &'a mut O,
    said: Vec<u8>,
    notes: Vec<String>,
}

impl<'a, O> Report<'a, O> {
    pub(super) const fn new(stdout: &'a mut O) -> Self {
        Self { stdout, said: Vec::new(), notes: Vec::new() }
    }

    /// The words behind the first note that begins with this one.
    pub(super) fn note(&self, word: &str) -> Option<&str> {
        self.notes.iter().find_map(|note| {
            note.strip_prefix(word).filter(|rest| rest.is_empty() || rest.starts_with(' '))
        })
    }

    /// Nothing when the script returned 0.
    pub(super) fn conclude(&self, ended: Result<Ended, RunError>) -> Result<(), FileFailure> {
        let ended = match ended {
            Err(RunError::Unready { message }) => return Err(self.failure(&message)),
            ended => ended?,
        };
        match ended {
            Ended::Exit(0) => Ok(()),
            Ended::Exit(_) => Err(self.failure(&String::from_utf8_lossy(&self.said))),
            Ended::TimedOut => Err(FileFailure::TimedOut),
            Ended::Cancelled => Err(FileFailure::Cancelled),
        }
    }

    fn failure(&self, said: &str) -> FileFailure {
        if self.note("directory").is_some() {
            FileFailure::IsDirectory
        } else if self.note("exists").is_some() {
            FileFailure::Exists
        } else if let Some(digest) = self.note("digest") {
            let digest = digest.trim();
            FileFailure::Changed { actual: (!digest.is_empty()).then(|| digest.to_owned()) }
        } else if let Some(length) = self.note("length") {
            FileFailure::Length { actual: length.trim().parse().ok() }
        } else {
            FileFailure::parse_message(said)
        }
    }
}

impl<O: Output> Output for Report<'_, O> {
    async fn bytes(&mut self, stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        match stream {
            Stream::Stdout => self.stdout.bytes(stream, bytes).await,
            Stream::Stderr => {
                let room = limits::MESSAGE_BYTES.saturating_sub(self.said.len());
                self.said.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
                Ok(())
            }
        }
    }

    fn note(&mut self, _stream: Stream, line: &[u8]) {
        if self.notes.len() < 16 {
            self.notes.push(String::from_utf8_lossy(line).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_behind_whatever_path() {
        let parse = FileFailure::parse_message;
        assert!(matches!(
            parse("bash: line 3: /a: b\nc: No such file or directory\n"),
            FileFailure::NotFound
        ));
        assert!(matches!(parse("cat: write error: No space left on device"), FileFailure::NoSpace));
        assert!(matches!(
            parse("mv: cannot move 'a' to 'b': Device or resource busy\n"),
            FileFailure::Other { message } if message == "Device or resource busy"
        ));
    }
}
