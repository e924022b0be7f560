//! What an installation writes down: the receipt, from which all of it is undone, and the journal,
//! from which one that was interrupted is.

use serde::{Deserialize, Serialize};

use super::{
    created::CreatedTags,
    disk::{Disk, DiskError},
    state::{Goal, State},
    system::SystemAction,
};

/// Where both lie, with what the daemon keeps.
pub(crate) const FOLDER: &str = "/var/lib/salt-bridge";
/// The receipt.
pub(crate) const RECEIPT: &str = "/var/lib/salt-bridge/receipt";
/// The journal. Nothing is under way when it is missing.
pub(crate) const JOURNAL: &str = "/var/lib/salt-bridge/journal";

/// What was at the places of an installation before the first one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Receipt {
    /// The program's version.
    pub(crate) version: String,
    /// Whether a package brought program and units.
    pub(crate) packaged: bool,
    /// Whether the daemon's user was created.
    pub(crate) user: bool,
    /// The places, in the order in which they were changed.
    pub(crate) paths: Vec<Kept>,
    /// What was changed of the tags that agents' creations get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) created: Vec<CreatedTags>,
}

/// One place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    /// Where, in dom0.
    pub(crate) path: String,
    /// What was there.
    pub(crate) before: State,
}

/// What is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Journal {
    /// An installation, with its steps in order.
    Install(Vec<Noted>),
    /// The undoing of everything in the receipt.
    Uninstall,
}

/// One step of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Noted {
    /// A path changes.
    Path {
        /// Where, in dom0.
        path: String,
        /// What was there.
        before: State,
        /// What [`Goal::digest`] says of what is to come.
        after: String,
    },
    /// The system is asked.
    System(SystemAction),
    /// qubesd is told which tags an agent's creations get.
    Created(CreatedTags),
}

/// Why a record could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// Reading or writing it failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is not what this program writes.
    #[error("{path} cannot be understood; it may be of a newer version")]
    Format {
        /// Which.
        path: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// Somebody else than the trusted owner could have written it.
    #[error("{0} is not the trusted owner's alone, so that it is not believed")]
    Owner(&'static str),
}

/// Reads the receipt; nothing when nothing is installed.
pub(crate) fn read_receipt(disk: &Disk<'_>) -> Result<Option<Receipt>, RecordError> {
    read(disk, RECEIPT)
}

/// Reads the journal; nothing when nothing is under way.
pub(super) fn read_journal(disk: &Disk<'_>) -> Result<Option<Journal>, RecordError> {
    read(disk, JOURNAL)
}

/// Writes the journal, before what it tells of is done.
pub(super) fn write_journal(disk: &Disk<'_>, journal: &Journal) -> Result<(), RecordError> {
    Ok(disk.make(JOURNAL, &goal(JOURNAL, journal)?)?)
}

/// The receipt as a file.
pub(super) fn receipt_file(receipt: &Receipt) -> Result<Goal, RecordError> {
    goal(RECEIPT, receipt)
}

fn goal<T: Serialize>(path: &'static str, record: &T) -> Result<Goal, RecordError> {
    let mut content =
        serde_json::to_vec_pretty(record).map_err(|source| RecordError::Format { path, source })?;
    content.push(b'\n');
    Ok(Goal::File { content, mode: 0o600 })
}

fn read<T: for<'de> Deserialize<'de>>(
    disk: &Disk<'_>,
    path: &'static str,
) -> Result<Option<T>, RecordError> {
    match disk.state(path)? {
        State::Absent => Ok(None),
        State::File { content, mode, uid, .. } if uid == disk.trusted() && mode & 0o022 == 0 => {
            serde_json::from_slice(&content)
                .map(Some)
                .map_err(|source| RecordError::Format { path, source })
        }
        State::File { .. } | State::Link { .. } | State::Folder { .. } => {
            Err(RecordError::Owner(path))
        }
    }
}
