//! Carries plans out, and back.
//!
//! The journal is written before the first change and removed after the last. While it is there,
//! policy denies everything, or everything is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{
    disk::{Disk, DiskError},
    plan::{POLICY, Plan, SCOPE, Step, TCP_POLICY},
    record::{
        FOLDER, JOURNAL, Journal, Noted, RECEIPT, Receipt, RecordError, read_journal, read_receipt,
        write_journal,
    },
    state::{Goal, State},
    system::{SystemAction, SystemError, Waiting, reload},
};
use crate::services;

/// The folder of the audit, which stays.
const LOG: &str = "/var/log/salt-bridge";
/// Folders that hold nothing but what this program keeps.
const OWN_FOLDERS: [&str; 2] = ["/etc/salt-bridge", "/run/salt-bridge"];
/// Where units lie that other commands write.
const UNIT_FOLDERS: [&str; 2] = ["/etc/systemd/system/timers.target.wants", "/etc/systemd/system"];

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// It failed, and all is as it was.
    #[error("nothing was changed, since a step failed")]
    Reverted(#[source] ChangeError),
    /// It failed, and so did the way back. Everything is refused.
    #[error(
        "a step failed, and so did its undoing ({undo}); every call is refused until \
         `saltbridged recover` or another `saltbridged install` succeeds"
    )]
    Stuck {
        /// Why it failed.
        #[source]
        source: ChangeError,
        /// Why the way back failed.
        undo: Box<ChangeError>,
    },
    /// Going back or away failed half-way. Everything is refused.
    #[error(
        "it could not be finished; mend the cause and run `saltbridged recover`, \
         until then every call is refused"
    )]
    Unfinished(#[source] ChangeError),
}

/// Why one change failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// A file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The system.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// What became of an interrupted change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovered {
    /// There was none.
    Nothing,
    /// An installation had been finished but for the last word.
    Finished,
    /// An installation was reverted.
    Reverted,
    /// The undoing was brought to its end.
    Uninstalled,
}

/// Carries a plan out. What fails half-way is reverted.
pub(crate) fn apply(disk: &Disk<'_>, plan: &Plan, waiting: Waiting) -> Result<(), ApplyError> {
    let noted: Vec<Noted> = plan.folders.iter().chain(&plan.steps).map(Step::noted).collect();
    let failed = |source, undone| match undone {
        Ok(()) => ApplyError::Reverted(source),
        Err(undo) => ApplyError::Stuck { source, undo: Box::new(undo) },
    };
    prepare(disk, plan, &noted, waiting).map_err(|source| failed(source, forget(disk, &noted)))?;
    carry_out(disk, plan, waiting)
        .map_err(|source| failed(source, roll_back(disk, &noted, waiting)))
}

/// What changes nothing for anybody: folders, and the journal.
fn prepare(
    disk: &Disk<'_>,
    plan: &Plan,
    noted: &[Noted],
    waiting: Waiting,
) -> Result<(), ChangeError> {
    for step in &plan.folders {
        step.execute(disk, waiting)?;
    }
    Ok(write_journal(disk, &Journal::Install(noted.to_vec()))?)
}

fn carry_out(disk: &Disk<'_>, plan: &Plan, waiting: Waiting) -> Result<(), ChangeError> {
    for step in &plan.steps {
        step.execute(disk, waiting)?;
    }
    Ok(disk.make(JOURNAL, &Goal::Absent)?)
}

impl Step {
    fn noted(&self) -> Noted {
        match self {
            Self::System(action) => Noted::System(*action),
            Self::Path { path, before, goal } => {
                Noted::Path { path: path.clone(), before: before.clone(), after: goal.digest() }
            }
        }
    }

    fn execute(&self, disk: &Disk<'_>, waiting: Waiting) -> Result<(), ChangeError> {
        match self {
            Self::System(action) => Ok(action.execute(waiting)?),
            Self::Path { path, goal, .. } => Ok(disk.make(path, goal)?),
        }
    }
}

/// Undoes the steps, the last first. Done twice it is the same, so that it may be interrupted.
fn roll_back(disk: &Disk<'_>, noted: &[Noted], waiting: Waiting) -> Result<(), ChangeError> {
    let undo = if is_untouched(disk, noted)? { &[] } else { noted };
    for step in undo.iter().rev().filter(|step| !is_folder(step)) {
        match step {
            Noted::System(action) => action.revert(waiting)?,
            Noted::Path { path, before, after } => {
                let now = disk.state(path)?;
                if path == SCOPE && now != *before && now.digest() != *after {
                    // The operator has changed it in between.
                    disk.restore(&format!("{SCOPE}.kept"), &now)?;
                }
                put_back(disk, path, before)?;
            }
        }
    }
    forget(disk, noted)
}

/// Whether every path is what it was before the first step for it.
fn is_untouched(disk: &Disk<'_>, noted: &[Noted]) -> Result<bool, DiskError> {
    let mut seen = BTreeSet::new();
    for step in noted.iter().filter(|step| !is_folder(step)) {
        if let Noted::Path { path, before, .. } = step
            && seen.insert(path)
            && disk.state(path)? != *before
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Undoes what changes nothing for anybody.
fn forget(disk: &Disk<'_>, noted: &[Noted]) -> Result<(), ChangeError> {
    for step in noted {
        if let Noted::Path { path, .. } = step {
            disk.sweep(path)?;
        }
    }
    disk.sweep(JOURNAL)?;
    disk.make(JOURNAL, &Goal::Absent)?;
    for step in noted.iter().rev().filter(|step| is_folder(step)) {
        if let Noted::Path { path, .. } = step {
            disk.make(path, &Goal::Absent)?;
        }
    }
    Ok(())
}

fn is_folder(noted: &Noted) -> bool {
    matches!(noted, Noted::Path { after, .. } if *after == Goal::Folder.digest())
}

fn put_back(disk: &Disk<'_>, path: &str, before: &State) -> Result<(), DiskError> {
    if disk.state(path)? == *before { Ok(()) } else { disk.restore(path, before) }
}

/// Finishes or reverts what was interrupted.
pub(crate) fn recover(disk: &Disk<'_>, waiting: Waiting) -> Result<Recovered, ApplyError> {
    resume(disk, waiting).map_err(ApplyError::Unfinished)
}

fn resume(disk: &Disk<'_>, waiting: Waiting) -> Result<Recovered, ChangeError> {
    let journal = match read_journal(disk) {
        Ok(None) => return Ok(Recovered::Nothing),
        Ok(Some(journal)) => journal,
        Err(error) => {
            deny_all(disk)?;
            return Err(error.into());
        }
    };
    match journal {
        Journal::Install(noted) if is_finished(disk, &noted)? => {
            for noted in &noted {
                if let Noted::Path { path, .. } = noted {
                    disk.sweep(path)?;
                }
            }
            disk.make(JOURNAL, &Goal::Absent)?;
            Ok(Recovered::Finished)
        }
        Journal::Install(noted) => {
            roll_back(disk, &noted, waiting)?;
            Ok(Recovered::Reverted)
        }
        Journal::Uninstall => {
            take_away(disk, read_receipt(disk)?.as_ref(), waiting)?;
            Ok(Recovered::Uninstalled)
        }
    }
}

/// Whether every path is what the last step for it makes it.
fn is_finished(disk: &Disk<'_>, noted: &[Noted]) -> Result<bool, DiskError> {
    let last: BTreeMap<&str, &str> = noted
        .iter()
        .filter_map(|noted| match noted {
            Noted::Path { path, after, .. } => Some((path.as_str(), after.as_str())),
            Noted::System(_) => None,
        })
        .collect();
    for (path, after) in last {
        if disk.state(path)?.digest() != after {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Undoes everything that the receipt tells of. Only the audit stays.
pub(crate) fn uninstall(
    disk: &Disk<'_>,
    receipt: &Receipt,
    waiting: Waiting,
) -> Result<(), ApplyError> {
    write_journal(disk, &Journal::Uninstall)
        .map_err(ChangeError::from)
        .map_err(ApplyError::Reverted)?;
    take_away(disk, Some(receipt), waiting).map_err(ApplyError::Unfinished)
}

/// Denies everything, unless there is no policy at all.
fn deny_all(disk: &Disk<'_>) -> Result<(), DiskError> {
    let has_folder = disk.at(POLICY).parent().is_some_and(Path::is_dir);
    let goal = Goal::text(policy::render_deny_all(&services::lines()));
    if has_folder { disk.make(POLICY, &goal) } else { Ok(()) }
}

fn take_away(
    disk: &Disk<'_>,
    receipt: Option<&Receipt>,
    waiting: Waiting,
) -> Result<(), ChangeError> {
    let kept = receipt.map_or(&[][..], |receipt| &receipt.paths);
    if receipt.is_some() {
        deny_all(disk)?;
        if disk.is_real() {
            SystemAction::Start.revert(waiting)?;
        }
    }
    // What grants goes first, then policy; last what a person needs to try again.
    let is_machinery = |path: &str| {
        ["/etc/systemd/", "/etc/sysusers.d/", "/usr/"].iter().any(|place| path.starts_with(place))
    };
    let is_folder = |path: &str| matches!(disk.state(path), Ok(State::Folder { .. }));
    let files = || kept.iter().rev().filter(|kept| !is_folder(&kept.path));
    for kept in files().filter(|kept| !is_machinery(&kept.path) && kept.path != POLICY) {
        disk.sweep(&kept.path)?;
        put_back(disk, &kept.path, &kept.before)?;
    }
    if receipt.is_some() {
        let find = |path| kept.iter().find(|kept| kept.path == path).map(|kept| &kept.before);
        disk.sweep(TCP_POLICY)?;
        put_back(disk, TCP_POLICY, find(TCP_POLICY).unwrap_or(&State::Absent))?;
        disk.sweep(POLICY)?;
        put_back(disk, POLICY, find(POLICY).unwrap_or(&State::Absent))?;
    }
    for kept in files().filter(|kept| is_machinery(&kept.path)) {
        disk.sweep(&kept.path)?;
        put_back(disk, &kept.path, &kept.before)?;
    }
    if let Some(receipt) = receipt {
        forget_units(disk, receipt)?;
    }
    for folder in OWN_FOLDERS {
        disk.remove_all(folder)?;
    }
    remove_folders(disk, kept)?;
    forget_records(disk)?;
    Ok(remove_folders(disk, kept)?)
}

/// Removes the units that other commands wrote, and the user.
fn forget_units(disk: &Disk<'_>, receipt: &Receipt) -> Result<(), ChangeError> {
    for folder in UNIT_FOLDERS {
        for name in disk.names(folder)? {
            let path = format!("{folder}/{name}");
            let is_kept = receipt.paths.iter().any(|kept| kept.path == path);
            if name.starts_with("salt-bridge-") && !is_kept {
                disk.make(&path, &Goal::Absent)?;
            }
        }
    }
    if disk.is_real() {
        reload()?;
        if receipt.user {
            // Its number may be given to another user.
            disk.give(LOG, disk.trusted())?;
            SystemAction::User.revert(Waiting::Done)?;
        }
    }
    Ok(())
}

/// Removes what is kept, the receipt and the journal last.
fn forget_records(disk: &Disk<'_>) -> Result<(), ChangeError> {
    for name in disk.names(FOLDER)? {
        let path = format!("{FOLDER}/{name}");
        if path != RECEIPT && path != JOURNAL {
            disk.remove_all(&path)?;
        }
    }
    disk.make(RECEIPT, &Goal::Absent)?;
    disk.make(JOURNAL, &Goal::Absent)?;
    Ok(disk.make(FOLDER, &Goal::Absent)?)
}

/// Removes the folders that an installation created, the innermost first, if they are empty.
fn remove_folders(disk: &Disk<'_>, kept: &[super::record::Kept]) -> Result<(), DiskError> {
    let mut folders: Vec<&str> = kept
        .iter()
        .filter(|kept| kept.before == State::Absent)
        .map(|kept| kept.path.as_str())
        .filter(|path| matches!(disk.state(path), Ok(State::Folder { .. })))
        .collect();
    folders.sort_unstable_by_key(|path| std::cmp::Reverse(path.len()));
    for folder in folders {
        disk.make(folder, &Goal::Absent)?;
    }
    Ok(())
}
