//! Takes an installation away again, from its receipt. Only the audit log stays.

use std::path::Path;

use super::{
    apply::{ApplyError, ChangeError, put_back},
    created::CreatedTags,
    disk::{Disk, DiskError},
    plan::{POLICY, TCP_POLICY},
    record::{FOLDER, JOURNAL, Journal, Kept, RECEIPT, Receipt, write_journal},
    state::{Goal, State},
    system::{SystemAction, Waiting, reload},
};
use crate::services;

/// The folder of the audit, which stays.
const LOG: &str = "/var/log/salt-bridge";
/// Folders that hold nothing but what this program keeps.
const OWN_FOLDERS: [&str; 2] = ["/etc/salt-bridge", "/run/salt-bridge"];
/// Where units lie that other commands write.
const UNIT_FOLDERS: [&str; 2] = ["/etc/systemd/system/timers.target.wants", "/etc/systemd/system"];

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
pub(super) fn deny_all(disk: &Disk<'_>) -> Result<(), DiskError> {
    let has_folder = disk.at(POLICY).parent().is_some_and(Path::is_dir);
    let goal = Goal::text(policy::render_deny_all(&services::lines()));
    if has_folder { disk.make(POLICY, &goal) } else { Ok(()) }
}

/// Brings the undoing to its end, however far it has come.
pub(super) fn take_away(
    disk: &Disk<'_>,
    receipt: Option<&Receipt>,
    waiting: Waiting,
) -> Result<(), ChangeError> {
    let kept = receipt.map_or(&[][..], |receipt| &receipt.paths);
    if receipt.is_some() {
        deny_all(disk)?;
        if disk.machine().has_systemd() {
            SystemAction::Start.revert(disk, waiting)?;
        }
    }
    forget_tags(disk, receipt.map_or(&[][..], |receipt| &receipt.created))?;
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
            // With a dot: what an interrupted change of the timer left.
            if name.trim_start_matches('.').starts_with("salt-bridge-") && !is_kept {
                disk.make(&path, &Goal::Absent)?;
            }
        }
    }
    if disk.machine().has_systemd() {
        reload(disk.machine())?;
        if receipt.user {
            // Its number may be given to another user.
            disk.give(LOG, disk.trusted())?;
            SystemAction::User.revert(disk, Waiting::Done)?;
        }
    }
    Ok(())
}

/// What the agents create gets no tag any more.
fn forget_tags(disk: &Disk<'_>, created: &[CreatedTags]) -> Result<(), ChangeError> {
    for change in created {
        if let Some(change) = change.withdrawn(disk.machine())? {
            change.execute(disk.machine())?;
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
fn remove_folders(disk: &Disk<'_>, kept: &[Kept]) -> Result<(), DiskError> {
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
