//! What can go wrong within a call. `serve` alone turns it into what the caller is told.

use std::io;

use contract::Fault;

use crate::{answer::CallerGone, run::RunError, settings::SettingsError};

/// Why a handler has no response.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "the one error of this crate's handlers")]
pub enum Error {
    /// The handler's own word for the caller.
    #[error("{}", .0.sentence())]
    Fault(Fault),
    /// qubesd did not do as asked.
    #[error("qubesd")]
    Qubesd(#[from] admin_api::Error),
    /// Running something in the qube failed.
    #[error("running in the qube")]
    Run(#[from] RunError),
    /// The caller went away.
    #[error(transparent)]
    CallerGone(#[from] CallerGone),
    /// A file of dom0's could not be used.
    #[error("file of dom0")]
    File(#[source] io::Error),
    /// The audit log cannot be written, so that nothing was changed.
    #[error("audit log")]
    Audit(#[source] io::Error),
    /// The operator's settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The helper that writes `qubes.ConnectTCP` policy did not do as asked.
    #[error("the policy helper")]
    TcpPolicy(#[source] io::Error),
    /// qubesd stored something else than what was asked.
    #[error("what qubesd stored is not what was asked: {0}")]
    Stored(&'static str),
    /// The work was stopped, because nobody waits for it or nobody may any more.
    #[error("stopped: the caller hung up, the grant ended, or the daemon ends")]
    Cancelled,
    /// The system gives the daemon no other thread.
    #[error("no thread can be started")]
    Thread(#[source] io::Error),
    /// The handler panicked.
    #[error("the handler panicked")]
    Panicked,
    /// The response is no JSON.
    #[error("response")]
    Encoding(#[source] serde_json::Error),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// An error and all its causes in one line, for the journal.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
