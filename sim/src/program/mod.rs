//! The programs that the simulated host puts into `DIR/bin`: small, blocking, without a runtime.

mod client;
mod client_vm;
mod home;
mod pump;
mod qfile;
mod session;

use std::{ffi::OsString, io::Write as _, process::ExitCode};

pub(crate) use client::qrexec_client;
pub(crate) use client_vm::qrexec_client_vm;
pub(crate) use qfile::{qfile_agent, qfile_unpacker};

/// A program could not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// The arguments are not those of the program.
    #[error("{0}")]
    Usage(&'static str),
    /// There is no host above the program's folder.
    #[error("no simulated host above {}", .0.display())]
    NoHost(std::path::PathBuf),
    /// The host does not answer.
    #[error("the simulated host does not answer")]
    Host(#[source] std::io::Error),
    /// The local program does not start.
    #[error("cannot execute {}", .0.display())]
    Local(std::path::PathBuf, #[source] std::io::Error),
}

impl ProgramError {
    /// Says it on standard error, with its cause, and gives the exit code of the real programs.
    fn report(&self, program: &str) -> ExitCode {
        let cause = std::error::Error::source(self).map(|cause| format!(": {cause}"));
        let line = format!("{program}: {self}{}\n", cause.unwrap_or_default());
        drop(std::io::stderr().write_all(line.as_bytes()));
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::NoHost(_) | Self::Host(_) => ExitCode::from(1),
            Self::Local(..) => ExitCode::from(255),
        }
    }
}

/// An argument as text. What is no UTF-8 cannot name anything here.
fn text(argument: OsString) -> String {
    argument.to_string_lossy().into_owned()
}
