//! Files that only their owner may read: tokens and keys.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, Mode, OFlags};

/// The bits of a mode that let anybody but the owner do anything, or make it a program.
const FOREIGN: u32 = 0o177;

/// Why a secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretFileError {
    /// It cannot be opened, read or written.
    #[error("{}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is a directory, a pipe or the like.
    #[error("{} is not an ordinary file", .0.display())]
    Kind(PathBuf),
    /// It belongs to somebody else.
    #[error("{} belongs to user {owner}, and this program runs as user {own}", .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// Ours.
        own: u32,
    },
    /// Others may read or write it.
    #[error("{} has mode {mode:o}, and must have mode 600", .path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is longer than it may be.
    #[error("{} is longer than {limit} bytes", .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most bytes that it may have.
        limit: u64,
    },
}

impl SecretFileError {
    fn io(path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { path: path.into(), source: source.into() }
    }

    /// Whether there is no such file.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The state of the file now; none where there is no file or it cannot be looked at.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let data = fs::symlink_metadata(path).ok()?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// Reads a file of this user that nobody else may read. Links are not followed.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, SecretFileError> {
    // Opening a pipe must not wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| SecretFileError::io(path, error))?;
    let file = File::from(file);
    let data = file.metadata().map_err(|error| SecretFileError::io(path, error))?;
    if !data.is_file() {
        return Err(SecretFileError::Kind(path.into()));
    }
    let (owner, own) = (data.uid(), rustix::process::geteuid().as_raw());
    if owner != own {
        return Err(SecretFileError::Owner { path: path.into(), owner, own });
    }
    let mode = data.mode() & 0o7777;
    if mode & FOREIGN != 0 {
        return Err(SecretFileError::Mode { path: path.into(), mode });
    }
    let mut content = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|error| SecretFileError::io(path, error))?;
    match u64::try_from(content.len()) {
        Ok(length) if length <= limit => Ok(content),
        Ok(_) | Err(_) => Err(SecretFileError::TooLong { path: path.into(), limit }),
    }
}

/// Makes a file with mode 600 that was not there, and its directory with mode 700. False where
/// there is such a file already.
pub(crate) fn create(path: &Path, content: &[u8]) -> Result<bool, SecretFileError> {
    let folder = make_folder(path)?;
    let named = |source| SecretFileError::io(path, source);
    let new = write_beside(folder, content).map_err(named)?;
    match new.persist_noclobber(path) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(named(error.error)),
    }
}

/// Puts a file with mode 600 into the place of what is there, in one step.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    let folder = make_folder(path)?;
    let named = |source| SecretFileError::io(path, source);
    let new = write_beside(folder, content).map_err(named)?;
    new.persist(path).map_err(|error| named(error.error))?;
    Ok(())
}

/// Holds this file's folder for itself until it is dropped, so that two changes come one after the
/// other.
pub(crate) fn lock(path: &Path) -> Result<File, SecretFileError> {
    let folder = make_folder(path)?;
    let named = |source: io::Error| SecretFileError::io(folder, source);
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(OFlags::DIRECTORY.bits()).unwrap_or_default())
        .open(folder)
        .map_err(named)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| named(error.into()))?;
    Ok(file)
}

fn make_folder(path: &Path) -> Result<&Path, SecretFileError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| SecretFileError::io(folder, error))?;
    Ok(folder)
}

/// tempfile makes its files with mode 600.
fn write_beside(folder: &Path, content: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(".salt-bridge-").tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/token");
        assert!(create(&path, b"one").unwrap());
        assert!(!create(&path, b"two").unwrap());
        assert_eq!(read(&path, 3).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        let before = Stamp::of(&path);
        replace(&path, b"three").unwrap();
        assert_ne!(Stamp::of(&path), before);
        assert_eq!(read(&path, 99).unwrap(), b"three");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_others_may_read_or_a_link_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        create(&path, b"content").unwrap();
        assert!(matches!(read(&path, 6), Err(SecretFileError::TooLong { .. })));
        for mode in [0o640, 0o604, 0o620, 0o700] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path, 99).unwrap_err();
            assert!(matches!(error, SecretFileError::Mode { mode: told, .. } if told == mode));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read(&path, 99).is_ok());
        symlink(&path, folder.path().join("link")).unwrap();
        assert!(matches!(read(&folder.path().join("link"), 99), Err(SecretFileError::Io { .. })));
        assert!(read(&folder.path().join("none"), 99).unwrap_err().is_missing());
        assert!(matches!(read(folder.path(), 99), Err(SecretFileError::Kind(_))));
    }
}
