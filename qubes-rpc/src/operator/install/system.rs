//! What an installation asks of the running system, besides files. Done on the machine itself only.

use std::{
    fs, io,
    process::{Command, ExitStatus, Stdio},
};

use serde::{Deserialize, Serialize};

use super::units::{DAEMONS, SOCKETS, USER, USERS};

const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// One thing asked of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SystemAction {
    /// Nothing yet; undone by starting again what ran before.
    Resume,
    /// Create the daemon's user.
    User,
    /// Let systemd read the units and listen.
    Start,
}

/// Why the system did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemError {
    /// The program could not be started.
    #[error("cannot run {0}")]
    Run(&'static str, #[source] io::Error),
    /// The program failed; it has said why itself.
    #[error("{program} {arguments} ended with {status}")]
    Status {
        /// The program.
        program: &'static str,
        /// Its arguments.
        arguments: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// The list of users could not be read.
    #[error("cannot read /etc/passwd")]
    Users(#[source] io::Error),
}

/// How to ask systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Until units are started or stopped.
    Done,
    /// Not at all, since one of its own units is asking.
    Queued,
}

impl SystemAction {
    /// What it does, for a person.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Resume => "keep the running units until then",
            Self::User => "create the user salt-bridge (systemd-sysusers)",
            Self::Start => "load the units and listen (systemctl)",
        }
    }

    /// Does it.
    pub(super) fn execute(self, waiting: Waiting) -> Result<(), SystemError> {
        match self {
            Self::Resume => Ok(()),
            Self::User => run("/usr/bin/systemd-sysusers", &[USERS]),
            Self::Start => {
                run(SYSTEMCTL, &["daemon-reload"])?;
                // A daemon of the former program ends; the sockets start the new one.
                systemctl("try-restart", &DAEMONS, waiting)?;
                systemctl("restart", &SOCKETS, waiting)
            }
        }
    }

    /// Undoes it.
    pub(super) fn revert(self, waiting: Waiting) -> Result<(), SystemError> {
        match self {
            Self::Resume => {
                run(SYSTEMCTL, &["daemon-reload"])?;
                systemctl("restart", &SOCKETS, waiting)
            }
            Self::User if user_exists()? => run("/usr/sbin/userdel", &[USER]),
            Self::User => Ok(()),
            Self::Start => {
                // Units that are not loaded cannot be stopped, nor need they be.
                drop(systemctl("stop", &SOCKETS, waiting));
                drop(systemctl("stop", &DAEMONS, waiting));
                Ok(())
            }
        }
    }
}

/// Lets systemd forget units that are gone.
pub(super) fn reload() -> Result<(), SystemError> {
    run(SYSTEMCTL, &["daemon-reload"])
}

/// Whether the daemon's user is there already.
pub(super) fn user_exists() -> Result<bool, SystemError> {
    let text = fs::read_to_string("/etc/passwd").map_err(SystemError::Users)?;
    Ok(text.lines().any(|line| line.split(':').next() == Some(USER)))
}

fn systemctl(verb: &str, units: &[&str], waiting: Waiting) -> Result<(), SystemError> {
    let mut arguments = match waiting {
        Waiting::Done => Vec::new(),
        Waiting::Queued => vec!["--no-block"],
    };
    arguments.push(verb);
    arguments.extend(units);
    run(SYSTEMCTL, &arguments)
}

fn run(program: &'static str, arguments: &[&str]) -> Result<(), SystemError> {
    #[expect(clippy::disallowed_methods, reason = "systemd's own tools, as the operator asked")]
    let mut command = Command::new(program);
    let status = command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| SystemError::Run(program, error))?;
    if status.success() {
        return Ok(());
    }
    Err(SystemError::Status { program, arguments: arguments.join(" "), status })
}
