//! The folder of the agent's own qube beneath which transfers may read and write, and nothing else.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps,
};

/// A folder, opened once: what it is called later does not matter.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

/// A path beneath the folder: no `..`, not absolute, not empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Inside(PathBuf);

impl Inside {
    /// The path.
    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }

    /// The last name of it.
    pub(crate) fn name(&self) -> &OsStr {
        self.0.file_name().unwrap_or_default()
    }

    /// This path with another last name.
    pub(crate) fn beside(&self, name: impl AsRef<OsStr>) -> Self {
        Self(self.0.with_file_name(name.as_ref()))
    }

    /// A path beneath this one, by the bytes that a qube gave: nothing when it leads out of it.
    pub(crate) fn below(&self, path: &[u8]) -> Option<Self> {
        let path = Path::new(OsStr::from_bytes(path));
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        (plain && !path.as_os_str().is_empty()).then(|| Self(self.0.join(path)))
    }
}

/// One entry of a folder.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where it is.
    pub(crate) path: Inside,
    /// What it is; links are not followed.
    pub(crate) kind: FileType,
}

impl Folder {
    /// Opens the folder.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let path = path.canonicalize()?;
        Ok(Self { fd: rustix::fs::open(&path, flags, Mode::empty())?, path })
    }

    /// The folder's path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that a caller gave, relative to the folder or absolute and beneath it.
    pub(crate) fn inside(&self, text: &str) -> Option<Inside> {
        let path = Path::new(text);
        let path = if path.is_absolute() { path.strip_prefix(&self.path).ok()? } else { path };
        let mut inside = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => inside.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        (!inside.as_os_str().is_empty() && !text.contains('\0')).then_some(Inside(inside))
    }

    fn open_at(&self, path: &Path, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        // The kernel follows links only as far as they stay beneath the folder.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::openat2(&self.fd, path, flags, Mode::from_raw_mode(mode), resolve)?)
    }

    /// Opens a file for reading. A pipe or a device is opened without waiting, and refused later.
    pub(crate) fn read(&self, path: &Inside) -> io::Result<File> {
        self.open_at(&path.0, OFlags::RDONLY | OFlags::NONBLOCK, 0).map(File::from)
    }

    /// Opens a file for reading and writing, made when it is not there. A link is not followed.
    pub(crate) fn write(&self, path: &Inside) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        self.open_at(&path.0, flags, 0o600).map(File::from)
    }

    /// Makes a folder and those above it. One that is there is no error.
    pub(crate) fn make(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut made = PathBuf::new();
        for part in path.components() {
            made.push(part);
            let (parent, name) = self.parent(&made)?;
            let mode = if made == path { mode } else { 0o755 };
            // Writable while it is being filled.
            match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(mode | 0o700)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, 0).map(drop)
    }

    /// Makes the folders above a path.
    pub(crate) fn make_parents(&self, path: &Inside) -> io::Result<()> {
        match path.0.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.make(parent, 0o755),
            Some(_) | None => Ok(()),
        }
    }

    /// The folder above a path, opened, and the last name.
    fn parent(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        Ok((self.open_at(parent, OFlags::PATH | OFlags::DIRECTORY, 0)?, name))
    }

    /// Moves a file beside its place into it, in one step.
    pub(crate) fn rename(&self, from: &Inside, to: &Inside, replace: bool) -> io::Result<()> {
        let (parent, to) = self.parent(&to.0)?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        Ok(rustix::fs::renameat_with(&parent, from.name(), &parent, &to, flags)?)
    }

    /// Removes a file.
    pub(crate) fn remove(&self, path: &Inside) -> io::Result<()> {
        let (parent, name) = self.parent(&path.0)?;
        Ok(rustix::fs::unlinkat(&parent, &name, AtFlags::empty())?)
    }

    /// What is at a path, a link not followed; nothing when there is nothing.
    pub(crate) fn kind(&self, path: &Inside) -> io::Result<Option<FileType>> {
        let found = self.parent(&path.0).and_then(|(parent, name)| {
            Ok(rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?)
        });
        match found {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a folder holds, by name.
    pub(crate) fn entries(&self, path: &Inside) -> io::Result<Vec<Entry>> {
        let fd = self.open_at(&path.0, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(fd.as_fd())? {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name == "." || name == ".." {
                continue;
            }
            let stat = rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            entries.push(Entry { path: Inside(path.0.join(name)), kind });
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(entries)
    }
}

/// Gives an open file these permission bits and this time of change, in seconds since 1970.
pub(crate) fn set_attributes(file: &File, mode: u32, modified: i64) -> io::Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o777))?;
    let time = Timespec { tv_sec: modified, tv_nsec: 0 };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn only_paths_beneath_the_folder_are_taken() {
        let outer = tempfile::tempdir().unwrap();
        let folder = Folder::open(outer.path()).unwrap();
        let given = |text: &str| folder.inside(text).map(|inside| inside.0);
        assert_eq!(given("a/./b"), Some("a/b".into()));
        let absolute = folder.path().join("x");
        assert_eq!(given(absolute.to_str().unwrap()), Some("x".into()));
        for text in
            ["", ".", "..", "a/../b", "/etc/passwd", "a\0b", folder.path().to_str().unwrap()]
        {
            assert_eq!(given(text), None, "{text:?}");
        }
        let inside = folder.inside("a").unwrap();
        assert_eq!(inside.below(b"b/c").unwrap().0, Path::new("a/b/c"));
        for path in [&b""[..], b"/x", b"../x", b"b/../../x"] {
            assert_eq!(inside.below(path), None);
        }
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("in")).unwrap();
        fs::write(outer.path().join("secret"), "s").unwrap();
        fs::write(outer.path().join("in/plain"), "p").unwrap();
        symlink("../secret", outer.path().join("in/up")).unwrap();
        symlink("..", outer.path().join("in/parent")).unwrap();
        symlink("plain", outer.path().join("in/ok")).unwrap();
        let folder = Folder::open(&outer.path().join("in")).unwrap();
        let at = |text: &str| folder.inside(text).unwrap();
        assert!(folder.read(&at("ok")).is_ok());
        for path in ["up", "parent/secret"] {
            assert!(folder.read(&at(path)).is_err(), "{path}");
            assert!(folder.write(&at(path)).is_err(), "{path}");
        }
        assert!(folder.write(&at("ok")).is_err());
        assert!(folder.make(Path::new("parent/new"), 0o755).is_err());
        assert!(!outer.path().join("new").exists());
        assert_eq!(fs::read(outer.path().join("secret")).unwrap(), b"s");
    }

    #[test]
    fn nothing_is_overwritten_unless_asked() {
        let outer = tempfile::tempdir().unwrap();
        let folder = Folder::open(outer.path()).unwrap();
        let at = |text: &str| folder.inside(text).unwrap();
        for name in ["from", "to"] {
            fs::write(outer.path().join(name), name).unwrap();
        }
        let error = folder.rename(&at("from"), &at("to"), false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        folder.rename(&at("from"), &at("to"), true).unwrap();
        assert_eq!(fs::read(outer.path().join("to")).unwrap(), b"from");
        folder.make(Path::new("d/e"), 0o750).unwrap();
        fs::write(outer.path().join("d/f"), "").unwrap();
        let names: Vec<_> = folder.entries(&at("d")).unwrap().into_iter().map(|e| e.kind).collect();
        assert_eq!(names, [FileType::Directory, FileType::RegularFile]);
        folder.remove(&at("d/f")).unwrap();
        assert_eq!(folder.kind(&at("d/f")).unwrap(), None);
    }
}
