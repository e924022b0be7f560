//! Why a host does not do what it was asked.

use std::io;

use crate::qube::StartError;

/// A host, or something on it, failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its folder cannot be made. It must be empty or not exist.
    #[error("cannot make the folder of the host")]
    Folder(#[source] io::Error),
    /// A socket cannot be opened.
    #[error("cannot open a socket of the host (its path may be too long)")]
    Socket(#[source] io::Error),
    /// Its thread or its runtime cannot be started.
    #[error("cannot start the host")]
    Runtime(#[source] io::Error),
    /// A qube does not start.
    #[error(transparent)]
    Qube(#[from] StartError),
    /// qubesd refuses.
    #[error("{kind}: {message}")]
    Refused {
        /// The class of the exception; empty where qubesd answers nothing.
        kind: String,
        /// What it says.
        message: String,
    },
    /// There is no such qube.
    #[error("there is no qube {0}")]
    NoQube(String),
    /// The operator's file does not parse.
    #[error("the scope cannot be read")]
    Scope(#[from] policy::ScopeError),
    /// A file cannot be installed.
    #[error("cannot install")]
    Install(#[source] io::Error),
    /// A daemon does not start.
    #[error("the daemon {0} does not start")]
    Daemon(&'static str, #[source] io::Error),
    /// The host has ended.
    #[error("the host has ended")]
    Gone,
}
