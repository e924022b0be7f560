//! Looks at the files of the plan, writes them with a receipt, and takes them back.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use data_encoding::{BASE64, HEXLOWER};
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    HardenError,
    plan::{ITEMS, Item, RECEIPT},
};

/// How a file is, against how it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// As it should be.
    InPlace,
    /// Not there, or its copy is not.
    Missing,
    /// Another content.
    Differs,
    /// Others may write it, or its mode is another.
    Open,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::InPlace => "in place",
            Self::Missing => "missing",
            Self::Differs => "differs",
            Self::Open => "open",
        }
    }
}

/// What was found out about one file.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) item: Item,
    pub(super) state: State,
}

impl Finding {
    pub(super) fn is_in_place(&self) -> bool {
        self.state == State::InPlace
    }
}

/// Looks at a file and its copy. All must belong to the owner of the root.
pub(super) fn find(item: Item, root: &Path) -> Finding {
    let states = item.places(root).into_iter().map(|place| state(item, root, &place));
    let worst = states.fold(State::InPlace, |worst, state| match worst {
        State::InPlace => state,
        State::Missing | State::Differs | State::Open => worst,
    });
    Finding { item, state: worst }
}

fn state(item: Item, root: &Path, place: &Path) -> State {
    let (Ok(data), Ok(owner)) = (fs::symlink_metadata(place), fs::metadata(root)) else {
        return State::Missing;
    };
    if !data.is_file() || data.mode() & 0o7777 != item.mode || data.uid() != owner.uid() {
        return State::Open;
    }
    match fs::read(place) {
        Ok(content) if content == item.content.as_bytes() => State::InPlace,
        // The person's own lines come behind what was written.
        Ok(content) if item.grows && content.starts_with(item.content.as_bytes()) => State::InPlace,
        Ok(_) => State::Differs,
        Err(_) => State::Missing,
    }
}

/// What was there before, and what was written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Receipt {
    files: Vec<Written>,
    /// The folders that were made, from the root, outer ones first.
    #[serde(default)]
    folders: Vec<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// From the root.
    path: PathBuf,
    /// What was written.
    sha256: String,
    /// Content as base64 and mode of what was there.
    before: Option<(String, u32)>,
}

/// A file that undoing left alone.
#[derive(Debug, Serialize)]
pub(super) struct Kept {
    /// From the root.
    pub(super) path: String,
}

/// Writes every file of the plan, each named in the receipt before it is touched.
pub(super) fn write(root: &Path) -> Result<(), HardenError> {
    let mut receipt = match read_receipt(root) {
        Err(HardenError::NoReceipt(path)) => {
            Receipt { files: Vec::new(), folders: missing_folders(root, &path) }
        }
        other => other?,
    };
    for item in ITEMS {
        for place in item.places(root) {
            if state(item, root, &place) == State::InPlace {
                continue;
            }
            let path = beneath(root, &place);
            receipt.folders.extend(missing_folders(root, &place));
            let sha256 = digest(item.content.as_bytes());
            match receipt.files.iter_mut().find(|written| written.path == path) {
                Some(written) => written.sha256 = sha256,
                None => {
                    let before = before(&place)?;
                    receipt.files.push(Written { path, sha256, before });
                }
            }
            write_receipt(root, &receipt)?;
            put(&place, item.content.as_bytes(), item.mode)?;
        }
    }
    Ok(())
}

/// Takes back what the receipt names, last first, except what somebody has changed since.
pub(super) fn undo(root: &Path) -> Result<Vec<Kept>, HardenError> {
    let receipt = read_receipt(root)?;
    let mut kept = Vec::new();
    for written in receipt.files.iter().rev() {
        let place = root.join(&written.path);
        match fs::read(&place) {
            Ok(content) if digest(&content) != written.sha256 => {
                kept.push(Kept { path: written.path.display().to_string() });
                continue;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(HardenError::Io { path: place, source }),
        }
        match &written.before {
            Some((content, mode)) => {
                put(&place, &BASE64.decode(content.as_bytes()).unwrap_or_default(), *mode)?;
            }
            None => unbound(&place, || fs::remove_file(&place)).map_err(named(&place))?,
        }
    }
    let path = root.join(RECEIPT);
    fs::remove_file(&path).map_err(named(&path))?;
    for folder in receipt.folders.iter().rev() {
        // One in which somebody has put something stays.
        drop(fs::remove_dir(root.join(folder)));
    }
    Ok(kept)
}

fn beneath(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_path_buf()
}

/// The folders that have to be made for this place, outer ones first.
fn missing_folders(root: &Path, place: &Path) -> Vec<PathBuf> {
    let folders = place.ancestors().skip(1).take_while(|folder| !folder.exists());
    let mut folders: Vec<_> = folders.map(|folder| beneath(root, folder)).collect();
    folders.reverse();
    folders
}

/// Does this to a file, after taking away what bind-dirs has mounted over it if that is in the way:
/// the copy beneath `/rw` is written and removed by itself.
fn unbound(place: &Path, work: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match work() {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            unmount(place, UnmountFlags::DETACH)?;
            work()
        }
        outcome => outcome,
    }
}

fn before(place: &Path) -> Result<Option<(String, u32)>, HardenError> {
    match fs::metadata(place) {
        Ok(data) => {
            let content = fs::read(place).map_err(named(place))?;
            Ok(Some((BASE64.encode(&content), data.mode() & 0o7777)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HardenError::Io { path: place.into(), source }),
    }
}

/// Puts a file into its place in one step, in folders that are made where they are missing.
fn put(place: &Path, content: &[u8], mode: u32) -> Result<(), HardenError> {
    let folder = place.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(folder).map_err(named(folder))?;
    let new = || -> io::Result<()> {
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(content)?;
        new.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        new.as_file().sync_all()?;
        new.persist(place).map_err(|error| error.error)?;
        Ok(())
    };
    unbound(place, new).map_err(named(place))
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> HardenError {
    let path = path.to_path_buf();
    move |source| HardenError::Io { path, source }
}

fn digest(content: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(content))
}

fn read_receipt(root: &Path) -> Result<Receipt, HardenError> {
    let path = root.join(RECEIPT);
    match fs::read(&path) {
        Ok(content) => {
            serde_json::from_slice(&content).map_err(|source| HardenError::Receipt { path, source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(HardenError::NoReceipt(path)),
        Err(source) => Err(HardenError::Io { path, source }),
    }
}

fn write_receipt(root: &Path, receipt: &Receipt) -> Result<(), HardenError> {
    let path = root.join(RECEIPT);
    let content = serde_json::to_vec_pretty(receipt)
        .map_err(|source| HardenError::Receipt { path: path.clone(), source })?;
    put(&path, &content, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_in_place(root: &Path) -> bool {
        ITEMS.iter().all(|item| find(*item, root).is_in_place())
    }

    #[test]
    fn hardening_is_found_by_the_check_and_undone_without_a_trace() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let theirs = root.join("etc/ssh/sshd_config.d/10-salt-bridge.conf");
        put(&theirs, b"Port 2222\n", 0o640).unwrap();
        assert!(!all_in_place(root));
        write(root).unwrap();
        assert!(all_in_place(root));
        write(root).unwrap();
        assert!(undo(root).unwrap().is_empty());
        assert_eq!(fs::read(&theirs).unwrap(), b"Port 2222\n");
        assert_eq!(fs::metadata(&theirs).unwrap().mode() & 0o7777, 0o640);
        assert!(!root.join(RECEIPT).exists());
        assert!(matches!(undo(root), Err(HardenError::NoReceipt(_))));
        for item in ITEMS.iter().filter(|item| root.join(item.path) != theirs) {
            assert!(item.places(root).iter().all(|place| !place.exists()), "{}", item.path);
        }
        let left = |folder: &str| fs::read_dir(root.join(folder)).unwrap().count();
        assert_eq!((left(""), left("etc"), left("etc/ssh")), (1, 1, 1), "no folder is left");
    }

    #[test]
    fn what_somebody_changed_is_told_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root).unwrap();
        let keys = root.join("etc/ssh/salt-bridge_authorized_keys");
        let mut content = fs::read(&keys).unwrap();
        content.extend_from_slice(b"ssh-ed25519 AAAA laptop\n");
        put(&keys, &content, 0o644).unwrap();
        assert!(all_in_place(root), "keys are the person's to add");
        let sudoers = root.join("etc/sudoers.d/zz-salt-bridge-mcp");
        put(&sudoers, b"salt-bridge-mcp ALL=(ALL) NOPASSWD: ALL\n", 0o440).unwrap();
        assert_eq!(find(ITEMS[1], root).state, State::Differs);
        let kept: Vec<String> = undo(root).unwrap().into_iter().map(|kept| kept.path).collect();
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(keys.exists() && sudoers.exists());
    }

    #[test]
    fn a_file_that_others_may_write_is_not_in_place() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root).unwrap();
        let unit = root.join("etc/systemd/system/salt-bridge-mcp.service");
        fs::set_permissions(&unit, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(!all_in_place(root));
        write(root).unwrap();
        assert!(all_in_place(root));
    }

    #[test]
    fn what_must_outlive_a_restart_is_bound() {
        let binds = |item: &&Item| item.path.contains("bind-dirs.d");
        let binds = ITEMS.iter().find(binds).unwrap().content;
        for item in ITEMS.iter().filter(|item| item.kept) {
            assert!(binds.contains(&format!("'/{}'", item.path)), "{}", item.path);
        }
    }
}
