//! Landlock, where the kernel has it: the process that serves, and the `qrexec-client-vm` that it
//! starts, can write to no file but devices and the folders that were named, and use no TCP port.
//!
//! What is read and started is not limited: `qrexec-client-vm` and its libraries lie in many places.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, path_beneath_rules,
};

/// The newest rights that are limited: those of Linux 6.7. An older kernel limits what it knows.
const RIGHTS: ABI = ABI::V4;

/// What `qrexec-client-vm` writes to: the devices of Xen.
const DEVICES: [&str; 2] = ["/dev", "/proc/xen"];

/// How far it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confinement {
    /// All that was asked for holds.
    Full,
    /// The kernel knows a part of it.
    Partial,
    /// The kernel has no Landlock, or it is switched off.
    None,
    /// The user wants none of it.
    Off,
}

/// What a process that serves may still write to.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// The folder for transfers.
    pub(crate) transfers: Option<PathBuf>,
    /// To anything it likes.
    pub(crate) is_off: bool,
}

impl Writes {
    /// Confines this thread, and all threads and programs that it starts from now on, for good, to
    /// the folder for transfers and another one. What is open stays open. A kernel that cannot do it
    /// is no error.
    pub(crate) fn confine(&self, other: Option<&Path>) -> Confinement {
        if self.is_off {
            return Confinement::Off;
        }
        let writable: Vec<&Path> = self.transfers.as_deref().into_iter().chain(other).collect();
        confine(&writable)
    }
}

fn confine(writable: &[&Path]) -> Confinement {
    match restrict(writable) {
        Ok(RulesetStatus::FullyEnforced) => Confinement::Full,
        Ok(RulesetStatus::PartiallyEnforced) => Confinement::Partial,
        Ok(RulesetStatus::NotEnforced) | Err(_) => Confinement::None,
    }
}

fn restrict(writable: &[&Path]) -> Result<RulesetStatus, RulesetError> {
    let writes = AccessFs::from_write(RIGHTS);
    let ruleset = Ruleset::default()
        .handle_access(writes)?
        .handle_access(AccessNet::from_all(RIGHTS))?
        .create()?
        .add_rules(path_beneath_rules(DEVICES, writes))?
        .add_rules(path_beneath_rules(writable, writes))?;
    Ok(ruleset.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::ErrorKind,
        net::TcpListener,
    };

    use super::*;

    #[test]
    #[expect(clippy::print_stderr, reason = "what is not tested must be seen")]
    fn a_confined_thread_writes_only_where_it_may() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("old"), "x").unwrap();
        // Confined is a thread, so that the other tests are not.
        let work = || {
            let confinement = confine(&[own.path()]);
            if confinement == Confinement::None {
                eprintln!("SKIPPED: this kernel has no Landlock, so nothing was confined");
                return;
            }
            let denied = |outcome: std::io::Result<()>| {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            denied(fs::write(other.path().join("new"), "x"));
            denied(fs::write(other.path().join("old"), "y"));
            denied(fs::remove_file(other.path().join("old")));
            denied(fs::create_dir(other.path().join("folder")));
            denied(std::os::unix::fs::symlink("/", other.path().join("link")));
            assert_eq!(fs::read(other.path().join("old")).unwrap(), b"x");
            fs::write(own.path().join("new"), "x").unwrap();
            fs::remove_file(own.path().join("new")).unwrap();
            File::options().write(true).open("/dev/null").unwrap();
            if confinement == Confinement::Full {
                denied(TcpListener::bind("127.0.0.1:0").map(drop));
            }
        };
        std::thread::scope(|scope| scope.spawn(work).join().unwrap());
    }
}
