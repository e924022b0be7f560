//! Which program this executable is, told by the name it was started under.

use std::{ffi::OsStr, path::Path};

/// The name of the in-qube side.
pub(crate) const INIT: &str = "qube-init";

/// What sends files out of a qube.
pub(crate) const QFILE_AGENT: &str = "qfile-agent";
/// What takes files into a qube.
pub(crate) const QFILE_UNPACKER: &str = "qfile-unpacker";

/// A program that this executable can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The host's own command line.
    Sim,
    /// The agent's MCP server.
    SaltBridge,
    /// dom0's daemon.
    Saltbridged,
    /// dom0's way into qubes.
    QrexecClient,
    /// A qube's way to services.
    QrexecClientVm,
    /// Sends files out of a qube.
    QfileAgent,
    /// Takes files into a qube.
    QfileUnpacker,
    /// The first process of a qube.
    QubeInit,
}

impl Role {
    /// The role that belongs to `argv[0]`.
    pub fn of(argv0: &OsStr) -> Self {
        match Path::new(argv0).file_name().and_then(OsStr::to_str) {
            Some("salt-bridge") => Self::SaltBridge,
            Some("saltbridged") => Self::Saltbridged,
            Some("qrexec-client") => Self::QrexecClient,
            Some("qrexec-client-vm") => Self::QrexecClientVm,
            Some(QFILE_AGENT) => Self::QfileAgent,
            Some(QFILE_UNPACKER) => Self::QfileUnpacker,
            Some(INIT) => Self::QubeInit,
            Some(_) | None => Self::Sim,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_and_an_unknown_name_is_the_host() {
        assert_eq!(Role::of(OsStr::new("/d/bin/saltbridged")), Role::Saltbridged);
        assert_eq!(Role::of(OsStr::new("qrexec-client-vm")), Role::QrexecClientVm);
        assert_eq!(Role::of(OsStr::new("/t/salt-bridge-sim")), Role::Sim);
        assert_eq!(Role::of(OsStr::new("")), Role::Sim);
    }
}
