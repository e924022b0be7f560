//! Carries plans out, and back.
//!
//! The journal is written before the first change and removed after the last. While it is there,
//! policy denies everything, or everything is done.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    disk::{Disk, DiskError},
    machine::MachineError,
    plan::{Plan, SCOPE, Step},
    record::{JOURNAL, Journal, Noted, RecordError, read_journal, read_receipt, write_journal},
    state::{Goal, State},
    system::Waiting,
    undo::{deny_all, take_away},
};

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
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
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
            Self::Created(change) => Noted::Created(change.clone()),
            Self::Path { path, before, goal } => {
                Noted::Path { path: path.clone(), before: before.clone(), after: goal.digest() }
            }
        }
    }

    fn execute(&self, disk: &Disk<'_>, waiting: Waiting) -> Result<(), ChangeError> {
        match self {
            Self::System(action) => Ok(action.execute(disk, waiting)?),
            Self::Created(change) => Ok(change.execute(disk.machine())?),
            Self::Path { path, goal, .. } => Ok(disk.make(path, goal)?),
        }
    }
}

/// Undoes the steps, the last first. Done twice it is the same, so that it may be interrupted.
fn roll_back(disk: &Disk<'_>, noted: &[Noted], waiting: Waiting) -> Result<(), ChangeError> {
    let undo = if is_untouched(disk, noted)? { &[] } else { noted };
    for step in undo.iter().rev().filter(|step| !is_folder(step)) {
        match step {
            Noted::System(action) => action.revert(disk, waiting)?,
            Noted::Created(change) => change.revert(disk.machine())?,
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

/// Whether every path is what it was before the first step for it. What qubesd has been told may
/// have come first, so that then nothing is known to be untouched.
fn is_untouched(disk: &Disk<'_>, noted: &[Noted]) -> Result<bool, DiskError> {
    if noted.iter().any(|step| matches!(step, Noted::Created(_))) {
        return Ok(false);
    }
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

/// Makes a path what it was, if it is not.
pub(super) fn put_back(disk: &Disk<'_>, path: &str, before: &State) -> Result<(), DiskError> {
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
            Noted::System(_) | Noted::Created(_) => None,
        })
        .collect();
    for (path, after) in last {
        if disk.state(path)?.digest() != after {
            return Ok(false);
        }
    }
    Ok(true)
}
