//! Runs things in a qube, by `qrexec-client` and the service `qubes.VMShell`. Nothing else starts children.
//!
//! **The command line** is `qrexec-client -d QUBE USER:QUBESRPC qubes.VMShell dom0`, where `DEFAULT` as the
//! user is qrexec's word for the qube's default user. Without `nogui:` the agent may use the fork server of
//! the user's session, which is faster and has the session's environment; nothing waits for a session, as
//! `qubes.VMShell` does not ask for one. There is no shell in dom0.
//!
//! **Standard input** is one block of script (`supervise.sh` and the work's own text), then the body where it
//! is too long to stand in the script, then nothing: the pipe stays open until the call ends, and its end is
//! what tells the qube that the caller is gone. The deadline is kept in the qube, and by dom0 [`limits::KILL`]
//! later.
//!
//! **Both output streams** begin and end with a line that starts with a random number. Before the first line
//! is what login scripts said, after the last what escaped processes say: both are dropped. The agent in the
//! qube reads stdout and stderr in no fixed order, so only an end on each stream proves that all bytes written
//! before the end have arrived; no waiting for end of file, which a detached child could hold back for ever.
//! The number stands in no environment and no command line, so the command cannot end its own call. The mark
//! by which the command's processes are found is another number.
//!
//! **Killing**: the session, the processes with the mark, and the descendants of both get SIGTERM, after
//! [`limits::KILL_GRACE`] SIGKILL. What the qube's user may not kill (a command under sudo) is killed by a
//! second call as root. After a normal end only the command's process group is emptied: what called `setsid`
//! stays.

use std::{io, time::Duration};

use bytes::Bytes;
use contract::Stream;
#[cfg(doc)]
use contract::limits;

mod bash;
mod call;
mod child;
mod command;
mod copy;
mod failure;
mod job;
mod list;
mod marker;
mod network;
mod own_lines;
mod reach;
mod read;
mod runner;
mod search;
#[cfg(test)]
mod tests;
mod write;

pub use bash::NulByte;
pub use command::{Command, Program};
pub use copy::{COPY_STEP, CopyFailure, FileCopied, FileCopy};
pub use failure::FileFailure;
pub(crate) use job::{JobEnd, JobRange, JobRead, JobStart, JobState};
pub use list::{DirectoryEntry, DirectoryList, DirectoryListing, fuzz_directory_records};
pub(crate) use marker::Token;
pub use marker::fuzz_markers;
pub use network::{Part, PartName};
pub use reach::Reached;
pub use read::{FileRange, FileRead};
pub use runner::Runner;
pub use search::{FileSearch, Found, FoundLine, fuzz_found_lines};
pub use write::{DirectoryMake, FileMove, FileWrite, FileWritten};

/// Whom the work runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The qube's default user.
    Default,
    /// root, without sudo.
    Root,
}

impl User {
    /// As qrexec spells it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "DEFAULT",
            Self::Root => "root",
        }
    }
}

/// Where work runs, as whom, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The qube as qrexec-client's `-d` takes it (`uuid:…`). Proven to be managed by whoever calls.
    pub qube: &'a str,
    /// Whom it runs as.
    pub user: User,
    /// After this time the work is killed.
    pub deadline: Duration,
}

/// A script of our own.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// Text that defines a function `job`, and may define `prepare`, `receive` and `tidy` (`supervise.sh`).
    /// `note WORD…` sends a line to [`Output::note`]; what `job` returns is the exit code; stdin is the body.
    pub text: &'static str,
    /// Variables that the text reads: any bytes but NUL.
    pub variables: &'a [(&'static str, &'a [u8])],
}

/// Bytes of the caller that the work gets, counted.
#[derive(Debug)]
pub struct Body<R> {
    /// How many there are.
    pub length: u64,
    /// Where they come from. Nothing beyond `length` is read.
    pub bytes: R,
}

impl Body<tokio::io::Empty> {
    /// No bytes.
    pub fn empty() -> Self {
        Self { length: 0, bytes: tokio::io::empty() }
    }
}

/// Nobody takes the output any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody takes the output any more")]
pub struct OutputGone;

/// Takes what comes out of the work while it runs.
pub trait Output {
    /// Takes bytes of one stream, in order. Nothing is read while this waits; an error ends the work.
    ///
    /// Dropped half-way when the call is cancelled.
    fn bytes(
        &mut self,
        stream: Stream,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), OutputGone>>;

    /// Takes a line that one of our scripts wrote with `note`, on the stream on which it stood.
    fn note(&mut self, _stream: Stream, _line: &[u8]) {}
}

/// How work that was started ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It returned this code, 0 to 255. What a signal ended has 128 and the signal's number.
    Exit(i32),
    /// It was killed at its deadline.
    TimedOut,
    /// It was killed because it was cancelled or because nobody took its output.
    Cancelled,
}

/// Why there is no end to report. Messages are what other programs wrote, at most
/// [`limits::MESSAGE_BYTES`], from the qube: for the journal, not for callers.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// qrexec-client could not be started.
    #[error("qrexec-client cannot be started")]
    NotStarted(#[source] io::Error),
    /// qrexec refused the call (126).
    #[error("qrexec refused the call: {message}")]
    Refused {
        /// What was on stderr.
        message: String,
    },
    /// The qube has no `qubes.VMShell` (127).
    #[error("the qube has no such service: {message}")]
    NotFound {
        /// What was on stderr.
        message: String,
    },
    /// qrexec could not run the service: no such or no running qube, no such user (125).
    #[error("qrexec cannot run the service: {message}")]
    CannotExecute {
        /// What was on stderr.
        message: String,
    },
    /// The streams ended without the last line: the qube went away, or something killed the frame.
    #[error("the work vanished (status {status:?}): {message}")]
    Vanished {
        /// qrexec-client's own exit code, unless a signal ended it.
        status: Option<i32>,
        /// What was on stderr before the work began.
        message: String,
    },
    /// Neither end nor death was reported in time.
    #[error("the qube does not answer")]
    Stalled,
    /// A process of the work could not be killed, not even by root.
    #[error("a process of the work could not be killed")]
    Unkillable,
    /// The qube wrote a line of ours that none of our scripts writes.
    #[error("the qube answered in a form that is not ours")]
    Garbled,
    /// The caller's bytes ended before their announced number. Nothing was run.
    #[error("the body ended before its announced length")]
    BodyCut,
    /// The qube could not take the body, or a script refused before its work. Nothing was run.
    #[error("the qube did not begin: {message}")]
    Unready {
        /// What was on stderr.
        message: String,
    },
    /// A command or a variable holds a NUL.
    #[error(transparent)]
    NulByte(#[from] NulByte),
    /// Reading from or writing to qrexec-client or the caller failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
