//! The operator's console: what a person in dom0 does with Salt Bridge.
//!
//! Nothing here is reached by a call of an agent.

mod install;
mod shown;

use std::process::ExitCode;

use clap::Subcommand;

use crate::paths::Paths;

/// The operator's commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Install(install::Install),
    Uninstall(install::Uninstall),
    Recover(install::Recover),
}

/// Where the commands work.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The files of dom0.
    pub(crate) paths: Paths,
    /// Who has to own what is trusted.
    pub(crate) trusted: u32,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorError {
    /// Standard output is closed.
    #[error("cannot write the answer")]
    Output(#[source] std::io::Error),
    /// An installation did not happen.
    #[error(transparent)]
    Install(#[from] install::InstallError),
}

/// Runs one command.
pub(crate) fn run(command: Command, place: &Place) -> Result<ExitCode, OperatorError> {
    match command {
        Command::Install(asked) => install::install(&asked, place),
        Command::Uninstall(asked) => install::uninstall(&asked, place),
        Command::Recover(asked) => install::recover(&asked, place),
    }
}
