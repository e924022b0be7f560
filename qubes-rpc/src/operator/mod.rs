//! The operator's console: what a person in dom0 does with Salt Bridge.
//!
//! Nothing here is reached by a call of an agent.

mod audit;
mod doctor;
mod expiry;
mod explain;
mod firewall;
mod install;
mod jobs;
mod pause;
mod qubesd;
mod scope;
mod shown;
mod status;
mod systemd;
mod when;

use std::process::ExitCode;

use clap::Subcommand;
use contract::limits;

pub use self::audit::fuzz_denial;
use crate::{host::Host, paths::Paths};

/// The operator's commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Doctor(doctor::Doctor),
    Install(install::Install),
    Uninstall(install::Uninstall),
    Recover(install::Recover),
    /// Show or change what the agents may do.
    #[command(subcommand)]
    Scope(scope::Command),
    Explain(explain::Explain),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Status(status::Status),
    /// Show or restore the firewall rules that were in force before each change.
    #[command(subcommand)]
    Firewall(firewall::Command),
    /// Show what the agents asked for, and verify that nothing of it is missing.
    #[command(subcommand)]
    Audit(audit::Command),
}

/// Where the commands work.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The files of dom0.
    pub(crate) paths: Paths,
    /// Who has to own what is trusted.
    pub(crate) trusted: u32,
    /// Whether the jobs of ended grants are left to the daemon.
    pub(crate) leaves_jobs: bool,
}

impl Place {
    /// The same dom0, to ask qubesd about it.
    pub(crate) fn host(&self) -> Host {
        Host::new(self.paths.clone(), self.trusted, limits::COMMAND_CEILING, None)
    }
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorError {
    /// Standard output is closed.
    #[error("cannot write the answer")]
    Output(#[source] std::io::Error),
    /// No thread can be had to wait for qubesd.
    #[error("cannot start")]
    Runtime(#[source] std::io::Error),
    /// The jobs that may have to be stopped cannot be read.
    #[error("cannot read the ledger of jobs, so that none was stopped")]
    Ledger(#[source] std::io::Error),
    /// A scope command was not done.
    #[error(transparent)]
    Scope(#[from] scope::ScopeCommandError),
    /// A call cannot be explained.
    #[error(transparent)]
    Explain(#[from] explain::ExplainError),
    /// A pause did not begin or end.
    #[error(transparent)]
    Pause(#[from] pause::PauseError),
    /// A firewall command was not done.
    #[error(transparent)]
    Firewall(#[from] firewall::FirewallError),
    /// An audit command was not done.
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
    /// An installation did not happen.
    #[error(transparent)]
    Install(#[from] install::InstallError),
}

/// Runs one command.
pub(crate) fn run(command: Command, place: &Place) -> Result<ExitCode, OperatorError> {
    match command {
        Command::Doctor(asked) => doctor::doctor(&asked, place),
        Command::Install(asked) => install::install(&asked, place),
        Command::Uninstall(asked) => install::uninstall(&asked, place),
        Command::Recover(asked) => install::recover(&asked, place),
        Command::Scope(command) => scope::run(command, place),
        Command::Explain(asked) => explain::run(&asked, place),
        Command::Pause(asked) => pause::pause(&asked, place),
        Command::Resume(asked) => pause::resume(&asked, place),
        Command::Status(asked) => status::run(&asked, place),
        Command::Firewall(command) => firewall::run(command, place),
        Command::Audit(command) => audit::run(command, place),
    }
}
