//! What follows from the operator's file: policy, the timer of the ends, and tunnels.

use std::{fs, fs::File, io, path::Path, time::SystemTime};

use policy::{Scope, TcpRule, render_deny_all};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::Serialize;

use super::ScopeCommandError;
use crate::{
    error::chain,
    journal,
    operator::{OperatorError, Place, expiry, jobs, qubesd},
    pause,
    replace::replace_file,
    services,
    settings::read_settings,
    tcp_policy::withdraw_ended,
};

/// Keeps two commands that change the same files apart, as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "its being open is the lock")] File);

impl Lock {
    /// Waits for other commands to end, and says so when it has to.
    pub(crate) fn take(place: &Place) -> io::Result<Self> {
        let folder = File::open(place.paths.root().join("etc/qubes"))?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                journal::say("waiting for another saltbridged command to end");
                flock(&folder, FlockOperation::LockExclusive)?;
            }
            taken => taken?,
        }
        Ok(Self(folder))
    }
}

/// What had to change.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Followed {
    /// Whether policy was written.
    pub(crate) policy: bool,
    /// Whether the timer was written or removed.
    pub(crate) timer: bool,
    /// The `qubes.ConnectTCP` rules that ended with a grant.
    pub(crate) removed_rules: Vec<String>,
    /// The jobs that ended with a grant.
    pub(crate) stopped_jobs: Vec<String>,
}

/// Lets everything else follow the scope. What is so already is not written.
pub(crate) fn follow(
    place: &Place,
    scope: &Scope,
    now: SystemTime,
) -> Result<Followed, OperatorError> {
    use ScopeCommandError as E;
    if place.paths.install_journal().exists() {
        return Err(E::Unfinished.into());
    }
    let policy =
        write_policy(place, scope, now).map_err(|error| E::Write("the policy file", error))?;
    let timer = expiry::follow(place, scope, now)
        .map_err(|error| E::Write("the timer of grants that end", error))?;
    let removed_rules = match qubesd::wait_for(withdraw_ended(&place.host()))? {
        Ok(removed) => removed.iter().map(TcpRule::to_string).collect(),
        Err(error) => {
            journal::say(&format!(
                "qubes.ConnectTCP rules could not be looked at; run `saltbridged scope refresh` \
                 later: {}",
                chain(&error)
            ));
            Vec::new()
        }
    };
    Ok(Followed { policy, timer, removed_rules, stopped_jobs: Vec::new() })
}

impl Followed {
    /// Stops the jobs that have lost their grants. A qube may let that take minutes, in which no
    /// other command has to wait.
    pub(crate) fn stop_jobs(self, place: &Place, lock: Lock) -> Result<Self, OperatorError> {
        drop(lock);
        Ok(Self { stopped_jobs: jobs::stop_ended(place)?, ..self })
    }
}

/// Writes the policy that the scope means now; the one that denies everything while paused.
fn write_policy(place: &Place, scope: &Scope, now: SystemTime) -> io::Result<bool> {
    if pause::is_paused(&place.paths) {
        deny_all(place)
    } else {
        write_real_policy(place, scope, now)
    }
}

/// Writes the policy that the scope means now, paused or not; whether it was another one.
pub(crate) fn write_real_policy(place: &Place, scope: &Scope, now: SystemTime) -> io::Result<bool> {
    let settings = read_settings(&place.paths, place.trusted);
    write(&place.paths.services_policy(), &services::render_granted(scope, settings, now))
}

/// Writes the policy that denies everything; whether it was another one.
pub(crate) fn deny_all(place: &Place) -> io::Result<bool> {
    write(&place.paths.services_policy(), &render_deny_all(&services::lines()))
}

fn write(path: &Path, text: &str) -> io::Result<bool> {
    let is_so = fs::symlink_metadata(path).is_ok_and(|status| status.is_file())
        && fs::read(path).is_ok_and(|there| there == text.as_bytes());
    if !is_so {
        replace_file(path, text.as_bytes(), 0o644)?;
    }
    Ok(!is_so)
}
