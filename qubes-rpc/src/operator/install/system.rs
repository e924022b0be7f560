//! What an installation asks of systemd. Done on the machine itself only.

use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{
    disk::Disk,
    machine::{Machine, MachineError},
    state::State,
    units::{DAEMONS, SOCKETS, USER, USERS},
};
use crate::operator::{expiry, systemd::SYSTEMCTL};

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
    pub(super) fn execute(self, disk: &Disk<'_>, waiting: Waiting) -> Result<(), MachineError> {
        let machine = disk.machine();
        match self {
            Self::Resume => Ok(()),
            Self::User => machine.run("/usr/bin/systemd-sysusers", &[USERS]),
            Self::Start => {
                reload(machine)?;
                // A daemon of the former program ends; the sockets start the new one.
                systemctl(machine, "try-restart", &DAEMONS, waiting)?;
                systemctl(machine, "restart", &SOCKETS, waiting)?;
                follow_timer(disk, waiting)
            }
        }
    }

    /// Undoes it.
    pub(super) fn revert(self, disk: &Disk<'_>, waiting: Waiting) -> Result<(), MachineError> {
        let machine = disk.machine();
        match self {
            Self::Resume => {
                reload(machine)?;
                systemctl(machine, "restart", &SOCKETS, waiting)?;
                follow_timer(disk, waiting)
            }
            Self::User if user_exists(disk).unwrap_or(true) => {
                machine.run("/usr/sbin/userdel", &[USER])
            }
            Self::User => Ok(()),
            Self::Start => {
                // Units that are not loaded cannot be stopped, nor need they be.
                drop(systemctl(machine, "stop", &[expiry::TIMER], waiting));
                drop(systemctl(machine, "stop", &SOCKETS, waiting));
                drop(systemctl(machine, "stop", &DAEMONS, waiting));
                Ok(())
            }
        }
    }
}

/// Lets systemd forget units that are gone.
pub(super) fn reload(machine: &dyn Machine) -> Result<(), MachineError> {
    machine.run(SYSTEMCTL, &["daemon-reload"])
}

/// Whether the daemon's user is there already.
pub(super) fn user_exists(disk: &Disk<'_>) -> io::Result<bool> {
    let text = fs::read_to_string(disk.at("/etc/passwd"))?;
    Ok(text.lines().any(|line| line.split(':').next() == Some(USER)))
}

/// The timer runs when there is one; an end that has moved is looked at anew.
fn follow_timer(disk: &Disk<'_>, waiting: Waiting) -> Result<(), MachineError> {
    let machine = disk.machine();
    if disk.state(expiry::TIMER_FILE).is_ok_and(|state| state != State::Absent) {
        return systemctl(machine, "restart", &[expiry::TIMER], waiting);
    }
    // One that is not loaded cannot be stopped, nor need it be.
    drop(systemctl(machine, "stop", &[expiry::TIMER], waiting));
    Ok(())
}

fn systemctl(
    machine: &dyn Machine,
    verb: &str,
    units: &[&str],
    waiting: Waiting,
) -> Result<(), MachineError> {
    let mut arguments = match waiting {
        Waiting::Done => Vec::new(),
        Waiting::Queued => vec!["--no-block"],
    };
    arguments.push(verb);
    arguments.extend(units);
    machine.run(SYSTEMCTL, &arguments)
}
