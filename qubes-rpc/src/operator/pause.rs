//! `pause` and `resume`: stops everything at once, and lets it go on.
//!
//! The daemon needs no message: it looks for the pause file at every call and, for calls under
//! way, twice a second. So a pause holds without a daemon, with several, and after a restart.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
use contract::limits;
use policy::{TcpRule, TcpRules};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{OperatorError, Place, jobs, qubesd, scope, shown};
use crate::{
    audit::open_to_read,
    error::Error,
    journal,
    pause::is_paused,
    replace::{make_folder_of, remove_file, replace_file},
    scope_file::{ScopeFileError, read_scope},
    tcp_policy::{put_back, withdraw_all},
    times::now_with_milliseconds,
};

/// The pause between two looks whether calls are still under way.
const LOOK: Duration = Duration::from_millis(50);

/// Refuse every call of every agent, and stop the calls that are under way.
///
/// Policy denies everything, the daemon refuses everything, and the qubes.ConnectTCP rules that
/// agents made are withdrawn, until `saltbridged resume`, also after a restart.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Let the agents do again what the scope grants them.
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why a pause did not begin or end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PauseError {
    /// The pause file cannot be written; policy denies everything, if only until it is written.
    #[error("cannot write {0}")]
    Write(&'static str, #[source] io::Error),
    /// Rules cannot be withdrawn or put back.
    #[error("cannot change the qubes.ConnectTCP rules")]
    Tcp(#[source] Error),
    /// Rules that were withdrawn cannot be put back; they are kept.
    #[error("still paused, since the qubes.ConnectTCP rules cannot be put back")]
    PutBack(#[source] Error),
    /// The operator's file is void.
    #[error("still paused, since the operator's file grants nothing")]
    Scope(#[source] ScopeFileError),
    /// Calls under way did not end.
    #[error("paused, but a call is still under way; it may be waiting for qubesd")]
    UnderWay,
}

/// What the pause file says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Paused {
    /// Since when.
    pub(crate) since: String,
    /// The rules that were withdrawn, as a policy file holds them.
    pub(crate) tcp: String,
}

/// What the pause file says; nothing when nothing is paused.
pub(crate) fn read(place: &Place) -> Option<Paused> {
    if !is_paused(&place.paths) {
        return None;
    }
    let text = fs::read_to_string(place.paths.paused()).unwrap_or_default();
    Some(serde_json::from_str(&text).unwrap_or_default())
}

/// Pauses.
pub(crate) fn pause(asked: &Pause, place: &Place) -> Result<ExitCode, OperatorError> {
    use PauseError as E;
    // Before the lock, which another command may hold for long. Under it all is written again.
    let ahead = refuse_ahead(place);
    let lock = scope::Lock::take(place);
    if let Err(error) = ahead {
        journal::say(&format!("calls may not be refused yet: {error}"));
    }
    let policy = scope::deny_all(place);
    // Each of the two refuses everything, so the second is tried even if the first failed.
    let mut paused = read(place).unwrap_or_default();
    if paused.since.is_empty() {
        paused.since = now_with_milliseconds();
    }
    let host = place.host();
    let mut rules = TcpRules::parse(&paused.tcp).unwrap_or_default();
    let standing = host.read_tcp_rules();
    merge(&mut rules, standing.as_ref().map(TcpRules::rules).unwrap_or_default());
    let flag = write(place, &mut paused, &rules);
    let withdrawn = withdraw_all(&host).map_err(E::Tcp);
    policy.map_err(|error| E::Write("the policy file", error))?;
    flag.map_err(|error| E::Write("/etc/salt-bridge/paused", error))?;
    drop(lock.map_err(|error| E::Write("/etc/qubes", error))?);
    // One that came between the two looks.
    if merge(&mut rules, &withdrawn?) {
        write(place, &mut paused, &rules)
            .map_err(|error| E::Write("/etc/salt-bridge/paused", error))?;
    }
    end_everything(place)?;
    if asked.json {
        shown::show_json(&serde_json::json!({ "paused": true, "since": paused.since }))?;
    } else {
        let since = paused.since;
        shown::show_text(&format!(
            "paused since {since}: every call is refused and none is under way\n\
             `saltbridged resume` ends it\n"
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses every call, as far as that can be done beside another command.
fn refuse_ahead(place: &Place) -> io::Result<()> {
    let policy = scope::deny_all(place).map(drop);
    let path = place.paths.paused();
    make_folder_of(&path)?;
    // One that is there may hold rules to put back.
    match OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path) {
        Ok(mut file) => {
            let since = now_with_milliseconds();
            file.write_all(
                serde_json::to_string(&Paused { since, ..Paused::default() })?.as_bytes(),
            )?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    policy
}

/// Refuses every call from now on, and stops all jobs: nothing new can begin meanwhile. What refuses
/// is the file of a pause, which `resume` or the end of an uninstallation takes away.
pub(crate) fn stop_everything(place: &Place) -> Result<(), OperatorError> {
    if !is_paused(&place.paths) {
        let mut paused = Paused { since: now_with_milliseconds(), ..Paused::default() };
        write(place, &mut paused, &TcpRules::default())
            .map_err(|error| PauseError::Write("/etc/salt-bridge/paused", error))?;
    }
    end_everything(place)
}

/// Waits for the calls under way, and stops the jobs: only then can no call start another.
fn end_everything(place: &Place) -> Result<(), OperatorError> {
    let ended =
        wait_for_calls(place).map_err(|error| PauseError::Write("the lock of calls", error))?;
    jobs::stop_ended(place)?;
    if ended { Ok(()) } else { Err(PauseError::UnderWay.into()) }
}

/// Resumes.
pub(crate) fn resume(asked: &Resume, place: &Place) -> Result<ExitCode, OperatorError> {
    use PauseError as E;
    let _lock = scope::Lock::take(place).map_err(|error| E::Write("/etc/qubes", error))?;
    let scope = read_scope(&place.paths.scope(), place.trusted).map_err(E::Scope)?;
    let paused = read(place);
    let was = paused.is_some();
    if place.paths.install_journal().exists() {
        return Err(scope::ScopeCommandError::Unfinished.into());
    }
    scope::write_real_policy(place, &scope, SystemTime::now())
        .map_err(|error| E::Write("the policy file", error))?;
    let rules = paused.and_then(|paused| TcpRules::parse(&paused.tcp).ok()).unwrap_or_default();
    if !rules.rules().is_empty() {
        let put = qubesd::wait_for(put_back(&place.host(), rules.rules().to_vec()))?;
        if let Err(error) = put {
            // Without the pause file nobody knew these rules any more, so that the pause goes on.
            scope::deny_all(place).map_err(|error| E::Write("the policy file", error))?;
            return Err(E::PutBack(error).into());
        }
    }
    // Last: until here the daemon refuses everything.
    remove_file(&place.paths.paused())
        .map_err(|error| E::Write("/etc/salt-bridge/paused", error))?;
    if asked.json {
        shown::show_json(&serde_json::json!({ "paused": false }))?;
    } else if was {
        shown::show_text("resumed: the scope is in force again\n")?;
    } else {
        shown::show_text("nothing was paused; policy was written again from the scope\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn merge(rules: &mut TcpRules, more: &[TcpRule]) -> bool {
    let before = rules.rules().len();
    for rule in more {
        rules.add(rule.clone());
    }
    rules.rules().len() > before
}

fn write(place: &Place, paused: &mut Paused, rules: &TcpRules) -> io::Result<()> {
    paused.tcp = rules.render();
    let path = place.paths.paused();
    make_folder_of(&path)?;
    // Readable, because the daemon has to see that it is there.
    replace_file(&path, serde_json::to_string(paused)?.as_bytes(), 0o644)
}

/// Waits until no call is under way; false when one does not end. Each call holds this lock.
fn wait_for_calls(place: &Place) -> io::Result<bool> {
    let lock: File = match open_to_read(&place.paths.calls_lock(), OpenOptions::new().read(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        opened => opened?,
    };
    let start = Instant::now();
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < limits::KILL * 3 => sleep(LOOK),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_refuses_while_another_command_holds_the_lock() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/qubes/policy.d")).unwrap();
        let place = || Place {
            paths: crate::paths::Paths::below(root.path()),
            trusted: rustix::process::getuid().as_raw(),
            leaves_jobs: false,
        };
        let held = scope::Lock::take(&place()).unwrap();
        std::thread::scope(|threads| {
            let command = threads.spawn(|| pause(&Pause { json: true }, &place()).is_ok());
            let began = Instant::now();
            let refuses = || {
                let policy = fs::read_to_string(place().paths.services_policy());
                is_paused(&place().paths) && policy.is_ok_and(|text| !text.contains("allow"))
            };
            while !refuses() {
                assert!(began.elapsed() < Duration::from_secs(60), "it waits for the lock");
                std::thread::yield_now();
            }
            drop(held);
            assert!(command.join().unwrap());
        });
        assert!(!read(&place()).unwrap().since.is_empty());
    }
}
