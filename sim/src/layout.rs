//! Where everything lies beneath the folder of a simulated host.

use std::path::{Path, PathBuf};

/// The name of the host's own socket, by which the programs in `bin` find their host.
pub const HOST_SOCKET: &str = "host.sock";
/// The folder of dom0.
pub const DOM0: &str = "dom0";
/// The folder of the qubes.
pub const QUBES: &str = "qubes";
/// qubesd's socket beneath dom0's folder. `var/run` is a link to `run`, so both paths lead to it.
pub const QUBESD_SOCKET: &str = "run/qubesd.sock";
/// The programs that a host puts into its folder, all links to one executable.
pub const PROGRAMS: [&str; 4] = ["salt-bridge", "saltbridged", "qrexec-client", "qrexec-client-vm"];

/// The paths of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The layout of the host in this folder, which should be absolute.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program of the agent's qube or of dom0.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// The program of the in-qube side.
    pub fn init(&self) -> PathBuf {
        self.dir.join("bin").join(crate::role::INIT)
    }

    /// dom0's root folder: what `--root` of `saltbridged` takes.
    pub fn root(&self) -> PathBuf {
        self.dir.join(DOM0)
    }

    /// qubesd's socket.
    pub fn qubesd_socket(&self) -> PathBuf {
        self.root().join(QUBESD_SOCKET)
    }

    /// The socket of the host process.
    pub fn host_socket(&self) -> PathBuf {
        self.dir.join(HOST_SOCKET)
    }

    /// What services of dom0 say on their second stream.
    pub fn service_log(&self) -> PathBuf {
        self.dir.join("services.log")
    }

    /// What dom0's daemons say.
    pub fn daemon_log(&self) -> PathBuf {
        self.dir.join("saltbridged.log")
    }

    /// A qube's folder, with `bin/qrexec-client-vm` of that qube.
    pub fn qube(&self, name: &str) -> PathBuf {
        self.dir.join(QUBES).join(name)
    }

    /// What a qube sees as `/`, with `home/user` in it.
    pub fn qube_root(&self, name: &str) -> PathBuf {
        self.qube(name).join("root")
    }
}
