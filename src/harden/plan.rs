//! What hardening consists of: files, each with its content, mode and reason.

use std::path::{Path, PathBuf};

/// The folder whose content bind-dirs puts in its place when the qube starts.
const KEPT: &str = "rw/bind-dirs";
/// The receipt, from which `--undo` works.
pub(super) const RECEIPT: &str = "rw/config/salt-bridge-harden.json";

/// One file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Where, from the root.
    pub(super) path: &'static str,
    /// Its permissions.
    pub(super) mode: u32,
    /// Its content.
    pub(super) content: &'static str,
    /// What it does.
    pub(super) why: &'static str,
    /// Whether it lies where a restart of an AppVM loses it, so that a copy is kept.
    pub(super) kept: bool,
    /// Whether its content is the person's to change afterwards.
    pub(super) grows: bool,
}

impl Item {
    /// The places of this file beneath a root.
    pub(super) fn places(self, root: &Path) -> Vec<PathBuf> {
        let kept = self.kept.then(|| root.join(KEPT).join(self.path));
        std::iter::once(root.join(self.path)).chain(kept).collect()
    }
}

/// All of them, in the order in which they are written.
pub(super) const ITEMS: [Item; 8] = [
    Item {
        path: "etc/sysusers.d/salt-bridge-mcp.conf",
        mode: 0o644,
        content: include_str!("files/sysusers.conf"),
        why: "the server and SSH clients have a user of their own",
        kept: true,
        grows: false,
    },
    Item {
        path: "etc/sudoers.d/zz-salt-bridge-mcp",
        mode: 0o440,
        content: include_str!("files/sudoers"),
        why: "that user cannot become root",
        kept: true,
        grows: false,
    },
    Item {
        path: "etc/systemd/system/salt-bridge-mcp.service",
        mode: 0o644,
        content: include_str!("files/salt-bridge-mcp.service"),
        why: "the server runs confined, on a Unix socket, without a network",
        kept: true,
        grows: false,
    },
    Item {
        path: "etc/systemd/system/salt-bridge-mcp.socket",
        mode: 0o644,
        content: include_str!("files/salt-bridge-mcp.socket"),
        why: "its own user alone connects, until `onion setup` lets tor's in",
        kept: true,
        grows: false,
    },
    Item {
        path: "etc/ssh/salt-bridge_authorized_keys",
        mode: 0o644,
        content: include_str!("files/authorized_keys"),
        why: "the keys of SSH clients, none at first",
        kept: true,
        grows: true,
    },
    Item {
        path: "etc/ssh/sshd_config.d/10-salt-bridge.conf",
        mode: 0o644,
        content: include_str!("files/sshd.conf"),
        why: "sshd takes keys only and runs salt-bridge, nothing else, for nobody else",
        kept: true,
        grows: false,
    },
    Item {
        path: "rw/config/qubes-bind-dirs.d/40-salt-bridge.conf",
        mode: 0o644,
        content: include_str!("files/bind-dirs.conf"),
        why: "all of this outlives a restart of the qube",
        kept: false,
        grows: false,
    },
    Item {
        path: "rw/config/rc.local.d/40-salt-bridge.rc",
        mode: 0o755,
        content: include_str!("files/start.rc"),
        why: "the user is made and the server started when the qube starts",
        kept: false,
        grows: false,
    },
];

/// What hardening is no help against.
pub(super) const LIMITS: &str = "\
This binds remote clients and mistakes. It does not protect from whoever has root in this qube, or \
runs as another user of the group qubes: they reach qrexec themselves, with all powers that dom0 \
grants this qube. It does not encrypt: use SSH or an onion service. dom0 decides every call as before.";
