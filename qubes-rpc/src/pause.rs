//! Whether everything is paused: a file that the daemon looks for at every call, and cannot remove.

use std::io;

use crate::paths::Paths;

/// Whether everything is refused. Where that cannot be told, it is.
pub(crate) fn is_paused(paths: &Paths) -> bool {
    match paths.paused().symlink_metadata() {
        Err(error) => error.kind() != io::ErrorKind::NotFound,
        Ok(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn whatever_stands_there_pauses() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::below(folder.path());
        assert!(!is_paused(&paths));
        fs::create_dir_all(folder.path().join("etc/salt-bridge")).unwrap();
        assert!(!is_paused(&paths));
        std::os::unix::fs::symlink("nowhere", paths.paused()).unwrap();
        assert!(is_paused(&paths));
        fs::remove_dir_all(folder.path().join("etc/salt-bridge")).unwrap();
        fs::write(folder.path().join("etc/salt-bridge"), "no folder").unwrap();
        assert!(is_paused(&paths));
    }
}
