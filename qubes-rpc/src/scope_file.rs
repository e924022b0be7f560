//! Reads the operator's file, and trusts it only as far as its owner and mode go.

use std::{fs::File, io::Read, path::Path};

use contract::limits::SCOPE_BYTES;
use policy::{Scope, ScopeError};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use crate::{
    paths::Paths,
    settings::{SettingsError, read_settings},
};

/// Why the operator's file grants nothing. Each of these refuses every call.
#[derive(Debug, thiserror::Error)]
pub enum ScopeFileError {
    /// Missing, a symbolic link, or not readable.
    #[error("cannot open it (missing, a symbolic link, or unreadable)")]
    Open(#[source] rustix::io::Errno),
    /// Reading failed.
    #[error("cannot read it")]
    Read(#[source] std::io::Error),
    /// A folder, a pipe or a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// Owned by somebody whom dom0 does not trust.
    #[error("it is owned by uid {owner}, not by uid {trusted}")]
    Owner {
        /// Whose it is.
        owner: u32,
        /// Whose it has to be.
        trusted: u32,
    },
    /// Others may write to it.
    #[error("its mode {mode:o} lets others than its owner write")]
    Mode {
        /// The permission bits.
        mode: u32,
    },
    /// Larger than 256 KiB.
    #[error("it is larger than {SCOPE_BYTES} bytes")]
    TooLarge,
    /// Not text.
    #[error("it is not UTF-8")]
    Encoding,
    /// The operator's settings, which say what tags mean, cannot be used.
    #[error("the operator's settings cannot be used")]
    Settings(#[source] SettingsError),
    /// A line that grants nothing clear.
    #[error(transparent)]
    Scope(#[from] ScopeError),
}

/// Reads the file, which has to be a regular one of `trusted`'s that nobody else may write.
pub fn read_scope(path: &Path, trusted: u32) -> Result<Scope, ScopeFileError> {
    read_scope_text(path, trusted).map(|(_, scope)| scope)
}

/// The scope of a dom0 under the operator's rules for tags.
///
/// # Errors
/// The operator's file or the operator's settings cannot be used.
pub fn read_granted(paths: &Paths, trusted: u32) -> Result<Scope, ScopeFileError> {
    let scope = read_scope(&paths.scope(), trusted)?;
    let settings = read_settings(paths, trusted).map_err(ScopeFileError::Settings)?;
    Ok(scope.under(settings.rules()))
}

/// The same with the text, for those who change it.
pub(crate) fn read_scope_text(
    path: &Path,
    trusted: u32,
) -> Result<(String, Scope), ScopeFileError> {
    let text = read_trusted_text(path, trusted)?;
    let scope = Scope::parse(&text)?;
    Ok((text, scope))
}

/// Reads the text of a regular file of `trusted`'s that nobody else may write.
pub(crate) fn read_trusted_text(path: &Path, trusted: u32) -> Result<String, ScopeFileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = open(path, flags, Mode::empty()).map_err(ScopeFileError::Open)?;
    let status = fstat(&file).map_err(ScopeFileError::Open)?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(ScopeFileError::NotAFile);
    }
    if status.st_uid != trusted {
        return Err(ScopeFileError::Owner { owner: status.st_uid, trusted });
    }
    let mode = status.st_mode & 0o7777;
    if mode & 0o022 != 0 {
        return Err(ScopeFileError::Mode { mode });
    }
    let mut text = Vec::new();
    // One byte more tells a file at the limit from one above it.
    let most = u64::try_from(SCOPE_BYTES + 1).unwrap_or(u64::MAX);
    File::from(file).take(most).read_to_end(&mut text).map_err(ScopeFileError::Read)?;
    if text.len() > SCOPE_BYTES {
        return Err(ScopeFileError::TooLarge);
    }
    String::from_utf8(text).map_err(|_| ScopeFileError::Encoding)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs as unix};

    use super::*;

    const GOOD: &str = "@agent salt-bridge\nwork\n";

    fn uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    #[test]
    fn only_a_plain_file_of_its_trusted_owner_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed");
        assert!(matches!(read_scope(&path, uid()), Err(ScopeFileError::Open(_))));
        fs::create_dir(&path).unwrap();
        assert!(matches!(read_scope(&path, uid()), Err(ScopeFileError::NotAFile)));
        fs::remove_dir(&path).unwrap();
        fs::write(&path, GOOD).unwrap();
        chmod(&path, 0o644);
        assert!(read_scope(&path, uid()).is_ok());
        assert!(matches!(read_scope(&path, uid() + 1), Err(ScopeFileError::Owner { .. })));
        let link = folder.path().join("link");
        unix::symlink(&path, &link).unwrap();
        assert!(matches!(read_scope(&link, uid()), Err(ScopeFileError::Open(_))));
        for mode in [0o664, 0o646, 0o666] {
            chmod(&path, mode);
            assert!(
                matches!(read_scope(&path, uid()), Err(ScopeFileError::Mode { .. })),
                "{mode:o}"
            );
        }
    }

    #[test]
    fn a_file_that_is_too_large_or_not_text_or_without_agent_grants_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed");
        fs::write(&path, format!("{GOOD}{}", "#\n".repeat(200_000))).unwrap();
        chmod(&path, 0o600);
        assert!(matches!(read_scope(&path, uid()), Err(ScopeFileError::TooLarge)));
        fs::write(&path, b"@agent a\nwork\n#\xff\n").unwrap();
        assert!(matches!(read_scope(&path, uid()), Err(ScopeFileError::Encoding)));
        for text in ["", "work\n", "# nothing\n"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(read_scope(&path, uid()), Err(ScopeFileError::Scope(_))), "{text:?}");
        }
    }

    fn chmod(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}
