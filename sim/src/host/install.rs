//! Salt Bridge on a simulated host: the operator's file, policy, and links to the daemon.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::SystemTime,
};

use policy::{Scope, render_policy};
use qubes_rpc::{paths::Paths, services};

use super::{Daemon, Host, HostError};

/// What the agent of a host made to try things may do: three qubes by name, and those with a tag.
pub const DEFAULT_SCOPE: &str = "\
@agent salt-bridge
work
dev
test
@tag:ai-managed
";
/// Where services link to, as on a real machine.
const SERVICE_SOCKET: &str = "/run/salt-bridge/qrexec.sock";

impl Host {
    /// Installs Salt Bridge with this text as the operator's file, and starts its daemons.
    pub fn install(&self, scope: &str) -> Result<(), HostError> {
        self.set_scope(scope)?;
        let folder = Paths::below(self.root()).services();
        let speaks_qmcp = Scope::parse(scope)?.blocks().iter().any(policy::Block::speaks_qmcp);
        let qmcp = policy::QMCP_SERVICES.into_iter().filter(|_| speaks_qmcp).map(str::to_owned);
        for name in services::names().chain(qmcp) {
            let link = folder.join(name);
            match symlink(SERVICE_SOCKET, link) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(HostError::Install(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        for daemon in Daemon::ALL {
            self.start_daemon(daemon, &[])?;
        }
        Ok(())
    }

    /// Replaces the operator's file, and the policy that it means.
    pub fn set_scope(&self, text: &str) -> Result<(), HostError> {
        let scope = Scope::parse(text)?;
        let paths = Paths::below(self.root());
        let policy = render_policy(&scope, &services::lines(), SystemTime::now());
        replace(&paths.scope(), text).map_err(HostError::Install)?;
        replace(&paths.services_policy(), &policy).map_err(HostError::Install)
    }

    /// Puts a policy file beside the others, for example `30-user.policy`.
    pub fn set_policy(&self, file: &str, text: &str) -> Result<(), HostError> {
        replace(&Paths::below(self.root()).policy().join(file), text).map_err(HostError::Install)
    }
}

/// Writes a file that its owner alone may write, whole or not at all.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
    fs::rename(&new, path)
}
