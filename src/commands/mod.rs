//! What people do with the agent from a terminal. A module for each command.

pub(crate) mod call;
pub(crate) mod doctor;
mod progress;
mod table;
pub(crate) mod topology;
pub(crate) mod transfer;

use std::io::{self, Write};

use crate::{cli::AgentError, qrexec::CallError};

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// There is no agent.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// There is no event loop.
    #[error("no event loop")]
    Runtime(#[source] io::Error),
    /// The arguments cannot be read.
    #[error("cannot read the arguments of the tool from standard input")]
    Input(#[source] io::Error),
    /// They are no JSON object.
    #[error("the arguments of a tool are a JSON object, such as {{\"vm_name\": \"work\"}}")]
    Json(#[source] serde_json::Error),
    /// No tool has this name.
    #[error("there is no tool {name:?}; there are: {known}")]
    Tool {
        /// The name.
        name: String,
        /// All names.
        known: String,
    },
    /// The folder of a transfer cannot be opened.
    #[error("cannot open the folder {path}")]
    Folder {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Writes to standard output. That nobody reads any more is no error: `| head` does that.
fn print(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    drop(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Writes to standard error.
fn complain(bytes: &[u8]) {
    drop(io::stderr().write_all(bytes));
}
