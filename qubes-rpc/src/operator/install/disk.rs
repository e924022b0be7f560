//! The files of dom0 as an installation changes them: each change whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
        symlink,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::OFlags,
    rand::{GetRandomFlags, getrandom},
};

use super::{
    gate::{Gate, Operation},
    machine::Machine,
    state::{Goal, State},
};

/// What a temporary file's name ends with, after its own name and 16 hexadecimal digits.
const NEW: &str = ".new";
/// The largest file that is kept for undo, in bytes.
const KEPT_BYTES: u64 = 256 << 20;

/// Why a file could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    /// The system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Neither file, folder nor symbolic link.
    #[error("{} is neither a file, a folder nor a symbolic link; remove it first", .0.display())]
    Kind(PathBuf),
    /// Too large to be kept for undo.
    #[error("{} is too large to be replaced; remove it first", .0.display())]
    TooLarge(PathBuf),
    /// A link whose target is no text.
    #[error("{} links to a name that is not UTF-8; remove it first", .0.display())]
    Target(PathBuf),
}

/// The files below one root, and the machine that they are of.
#[derive(Debug)]
pub(super) struct Disk<'a> {
    root: &'a Path,
    trusted: u32,
    gate: &'a dyn Gate,
    machine: &'a dyn Machine,
}

/// Turns the system's word into an error that says what was tried.
fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + 'a {
    move |source| DiskError::Io { action, path: path.to_owned(), source }
}

/// Nothing is there, or no folder on the way to it.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

impl<'a> Disk<'a> {
    /// The files below this root, owned by this user, on this machine.
    pub(super) const fn new(
        root: &'a Path,
        trusted: u32,
        gate: &'a dyn Gate,
        machine: &'a dyn Machine,
    ) -> Self {
        Self { root, trusted, gate, machine }
    }

    /// Who has to own what is trusted.
    pub(super) const fn trusted(&self) -> u32 {
        self.trusted
    }

    /// What there is besides files.
    pub(super) const fn machine(&self) -> &'a dyn Machine {
        self.machine
    }

    /// Where a path of dom0's is.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// What is there. Links are not followed.
    pub(super) fn state(&self, path: &str) -> Result<State, DiskError> {
        let at = self.at(path);
        let status = match fs::symlink_metadata(&at) {
            Ok(status) => status,
            Err(error) if is_missing(&error) => return Ok(State::Absent),
            Err(error) => return Err(failed("look at", &at)(error)),
        };
        let (mode, uid, gid) = (status.mode() & 0o7777, status.uid(), status.gid());
        if status.is_symlink() {
            let target = fs::read_link(&at).map_err(failed("read", &at))?;
            let target = target.into_os_string().into_string();
            return Ok(State::Link { target: target.map_err(|_| DiskError::Target(at))? });
        }
        if status.is_dir() {
            return Ok(State::Folder { mode, uid, gid });
        }
        if !status.is_file() {
            return Err(DiskError::Kind(at));
        }
        if status.len() > KEPT_BYTES {
            return Err(DiskError::TooLarge(at));
        }
        let flags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();
        let mut content = Vec::new();
        OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&at)
            .and_then(|file| file.take(KEPT_BYTES).read_to_end(&mut content))
            .map_err(failed("read", &at))?;
        Ok(State::File { content, mode, uid, gid })
    }

    /// The text of a file of the trusted owner's that nobody else may write; nothing when missing.
    pub(super) fn text(&self, path: &str) -> Result<Option<String>, DiskError> {
        match self.state(path)? {
            State::File { content, .. } => String::from_utf8(content)
                .map(Some)
                .map_err(|error| failed("read", &self.at(path))(io::Error::other(error))),
            State::Absent => Ok(None),
            State::Link { .. } | State::Folder { .. } => Err(DiskError::Kind(self.at(path))),
        }
    }

    /// The names in a folder, sorted; none when it is missing.
    pub(super) fn names(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        let at = self.at(folder);
        let entries = match fs::read_dir(&at) {
            Ok(entries) => entries,
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &at)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed("list", &at))?.file_name();
            names.extend(name.into_string());
        }
        names.sort();
        Ok(names)
    }

    /// Makes a path what an installation wants it to be.
    pub(super) fn make(&self, path: &str, goal: &Goal) -> Result<(), DiskError> {
        let group = (self.trusted == 0).then_some(0);
        match goal {
            Goal::Absent => self.remove(path),
            Goal::Folder => self.folder(path, 0o755, self.trusted, group),
            Goal::Link { target } => self.link(path, target),
            Goal::File { content, mode } => self.file(path, content, *mode, self.trusted, group),
        }
    }

    /// Makes a path what it was.
    pub(super) fn restore(&self, path: &str, state: &State) -> Result<(), DiskError> {
        match state {
            State::Absent => self.remove(path),
            State::Folder { mode, uid, gid } => self.folder(path, *mode, *uid, Some(*gid)),
            State::Link { target } => self.link(path, target),
            State::File { content, mode, uid, gid } => {
                self.file(path, content, *mode, *uid, Some(*gid))
            }
        }
    }

    /// Removes a file, or a folder and everything in it.
    pub(super) fn remove_all(&self, path: &str) -> Result<(), DiskError> {
        let at = self.at(path);
        if !fs::symlink_metadata(&at).is_ok_and(|status| status.is_dir()) {
            return self.remove(path);
        }
        self.gate.pass(Operation::Change).map_err(failed("remove", &at))?;
        match fs::remove_dir_all(&at) {
            Err(error) if !is_missing(&error) => Err(failed("remove", &at)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes what interrupted changes of this path left beside it.
    pub(super) fn sweep(&self, path: &str) -> Result<(), DiskError> {
        let Some((folder, name)) = path.rsplit_once('/') else { return Ok(()) };
        for found in self.names(folder)? {
            let middle = found
                .strip_prefix('.')
                .and_then(|rest| rest.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(NEW));
            let is_ours = |middle: &str| {
                middle.len() == 16 && middle.bytes().all(|byte| byte.is_ascii_hexdigit())
            };
            if middle.is_some_and(is_ours) {
                self.remove(&format!("{folder}/{found}"))?;
            }
        }
        Ok(())
    }

    /// Gives everything in a folder to this user.
    pub(super) fn give(&self, folder: &str, uid: u32) -> Result<(), DiskError> {
        for name in self.names(folder)? {
            let at = self.at(folder).join(name);
            std::os::unix::fs::lchown(&at, Some(uid), None).map_err(failed("own", &at))?;
        }
        match std::os::unix::fs::lchown(self.at(folder), Some(uid), None) {
            Err(error) if !is_missing(&error) => Err(failed("own", &self.at(folder))(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let at = self.at(path);
        let removed = match fs::symlink_metadata(&at) {
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => Err(error),
            Ok(status) => self.gate.pass(Operation::Change).and_then(|()| {
                if status.is_dir() { fs::remove_dir(&at) } else { fs::remove_file(&at) }
            }),
        };
        match removed {
            // A folder that holds something of somebody else's stays.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(error) => Err(failed("remove", &at)(error)),
            Ok(()) => self.sync_folder(&at),
        }
    }

    fn folder(&self, path: &str, mode: u32, uid: u32, gid: Option<u32>) -> Result<(), DiskError> {
        let at = self.at(path);
        if !fs::symlink_metadata(&at).is_ok_and(|status| status.is_dir()) {
            let made = self
                .gate
                .pass(Operation::Change)
                .and_then(|()| DirBuilder::new().mode(mode).create(&at));
            made.map_err(failed("create the folder", &at))?;
        }
        File::open(&at)
            .and_then(|folder| {
                own(&folder, uid, gid)?;
                folder.set_permissions(Permissions::from_mode(mode))
            })
            .map_err(failed("set the owner of", &at))?;
        self.sync_folder(&at)
    }

    fn link(&self, path: &str, target: &str) -> Result<(), DiskError> {
        let at = self.at(path);
        let new = beside(&at).map_err(failed("name a link beside", &at))?;
        let made = self
            .gate
            .pass(Operation::Change)
            .and_then(|()| symlink(target, &new))
            .and_then(|()| self.gate.pass(Operation::Change))
            .and_then(|()| fs::rename(&new, &at));
        self.settle(made, "link", &at, &new)
    }

    fn file(
        &self,
        path: &str,
        content: &[u8],
        mode: u32,
        uid: u32,
        gid: Option<u32>,
    ) -> Result<(), DiskError> {
        let at = self.at(path);
        let new = beside(&at).map_err(failed("name a file beside", &at))?;
        let written = || {
            self.gate.pass(Operation::Change)?;
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            self.gate.pass(Operation::Write)?;
            file.write_all(content)?;
            own(&file, uid, gid)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            self.gate.sync(&file)?;
            self.gate.pass(Operation::Change)?;
            fs::rename(&new, &at)
        };
        self.settle(written(), "write", &at, &new)
    }

    /// Ends a change; one that failed leaves nothing behind, unless that fails too.
    fn settle(
        &self,
        done: io::Result<()>,
        action: &'static str,
        at: &Path,
        new: &Path,
    ) -> Result<(), DiskError> {
        if done.is_err() && self.gate.pass(Operation::Change).is_ok() {
            drop(fs::remove_file(new));
        }
        done.map_err(failed(action, at))?;
        self.sync_folder(at)
    }

    /// Makes a new or a removed name last.
    fn sync_folder(&self, at: &Path) -> Result<(), DiskError> {
        let folder = at.parent().unwrap_or(at);
        let saved = File::open(folder).and_then(|folder| self.gate.sync(&folder));
        saved.map_err(failed("save", folder))
    }
}

/// A name in the same folder that nobody can guess.
fn beside(at: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    getrandom(&mut random, GetRandomFlags::empty())?;
    let name = at.file_name().unwrap_or_default().to_string_lossy();
    Ok(at.with_file_name(format!(".{name}.{:016x}{NEW}", u64::from_ne_bytes(random))))
}

/// Changes owner and group where they differ, since only root may.
fn own(file: &File, uid: u32, gid: Option<u32>) -> io::Result<()> {
    let status = file.metadata()?;
    let uid = Some(uid).filter(|uid| *uid != status.uid());
    let gid = gid.filter(|gid| *gid != status.gid());
    if uid.is_none() && gid.is_none() { Ok(()) } else { fchown(file, uid, gid) }
}
