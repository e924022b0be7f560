//! A simulated qube: a folder, and processes that really run in it.

mod init;
mod network;
mod process;
mod root;
mod running;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use init::run as run_init;
pub(crate) use process::descendants;
pub(crate) use running::Running;
pub use running::StartError;

/// The numeric id of a qube's default user.
pub(crate) const USER_ID: u32 = 1000;

/// How the qubes of a host are kept apart. None of these is a security boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Namespaces, made with the power of root: `root` and `user` are two users.
    Root,
    /// Namespaces inside a user namespace: `root` and `user` are the same user.
    UserNamespace,
    /// Plain processes: no namespaces, every path is the machine's own, and `HOME` is the qube's.
    Plain,
}

impl Mode {
    /// What is to be tried on this machine, the best first.
    pub(crate) fn candidates() -> Vec<Self> {
        if rustix::process::geteuid().is_root() {
            vec![Self::Root, Self::Plain]
        } else {
            vec![Self::UserNamespace, Self::Plain]
        }
    }

    /// One sentence for the person who starts a host.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Root => "Qubes run in namespaces of their own (mounts, processes, network).",
            Self::UserNamespace => {
                "Qubes run in user namespaces of their own; in them, root and user are the same id."
            }
            Self::Plain => {
                "Qubes run as plain processes, because this machine allows no namespaces: \
                 commands see the machine's own files, and only HOME is the qube's."
            }
        }
    }
}

/// What the init of a qube is told at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The qube's name.
    pub(crate) name: String,
    /// The folder that becomes its `/`.
    pub(crate) root: PathBuf,
    /// How it is kept apart.
    pub(crate) mode: Mode,
    /// Its address and its gateway, if it has a network.
    pub(crate) network: Option<(String, String)>,
}

/// What an init tells its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The qube is set up and takes orders.
    Ready,
    /// It cannot be set up.
    Failed(String),
}
