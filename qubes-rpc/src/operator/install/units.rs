//! The files that come with the program, and where they go.

use super::state::Goal;

/// Where the program goes; `/usr/bin` belongs to packages.
pub(crate) const PROGRAM: &str = "/usr/local/bin/saltbridged";
/// Where a package puts the program.
pub(crate) const PACKAGED: &str = "/usr/bin/saltbridged";
/// Where the script goes that installs again without any qube.
pub(crate) const UPDATER: &str = "/usr/local/sbin/salt-bridge-update.sh";
/// The file from which systemd makes the daemon's user.
pub(crate) const USERS: &str = "/etc/sysusers.d/salt-bridge.conf";
/// The daemon's user.
pub(crate) const USER: &str = "salt-bridge";
/// Where services link to: the socket of `salt-bridge.socket`.
pub(crate) const SERVICE_SOCKET: &str = "/run/salt-bridge/qrexec.sock";
/// The sockets that systemd listens on.
pub(crate) const SOCKETS: [&str; 2] = ["salt-bridge.socket", "salt-bridge-tcp-policy.socket"];
/// What systemd starts when something arrives there.
pub(crate) const DAEMONS: [&str; 2] = ["salt-bridge.service", "salt-bridge-tcp-policy.service"];

const FOLDER: &str = "/etc/systemd/system";
const PACKAGED_FOLDER: &str = "/usr/lib/systemd/system";

const SYSUSERS: &str = include_str!("../../../../packaging/sysusers.d/salt-bridge.conf");

/// A unit, its text, and what pulls it in.
struct Unit {
    name: &'static str,
    text: &'static str,
    wanted_by: Option<&'static str>,
}

macro_rules! units {
    ($($name:literal $(wanted by $target:literal)?,)*) => {
        const UNITS: &[Unit] = &[$(Unit {
            name: $name,
            text: include_str!(concat!("../../../../packaging/systemd/", $name)),
            wanted_by: units!(@ $($target)?),
        },)*];
    };
    (@) => { None };
    (@ $target:literal) => { Some($target) };
}

units! {
    "salt-bridge.socket" wanted by "sockets.target",
    "salt-bridge.service",
    "salt-bridge-tcp-policy.socket" wanted by "sockets.target",
    "salt-bridge-tcp-policy.service",
    "salt-bridge-recover.service" wanted by "multi-user.target",
    "salt-bridge-expire.service" wanted by "multi-user.target",
}

/// Units, the user's file, and the links that enable; of a package's only the latter.
pub(crate) fn unit_files(is_packaged: bool) -> Vec<(String, Goal)> {
    let folder = if is_packaged { PACKAGED_FOLDER } else { FOLDER };
    let mut files = Vec::new();
    if !is_packaged {
        files.push((USERS.to_owned(), Goal::text(SYSUSERS)));
        files.extend(UNITS.iter().map(|unit| {
            (format!("{FOLDER}/{}", unit.name), Goal::text(unit.text.replace(PACKAGED, PROGRAM)))
        }));
    }
    for unit in UNITS {
        if let Some(target) = unit.wanted_by {
            let link = format!("{FOLDER}/{target}.wants/{}", unit.name);
            files.push((link, Goal::Link { target: format!("{folder}/{}", unit.name) }));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_hand_made_installation_start_its_own_program() {
        for (path, goal) in unit_files(false) {
            if let Goal::File { content, .. } = goal {
                let text = String::from_utf8(content).unwrap();
                assert!(!text.contains(PACKAGED), "{path}");
                if path.ends_with(".service") {
                    assert!(text.contains(&format!("ExecStart={PROGRAM} ")), "{path}");
                }
            }
        }
    }

    #[test]
    fn a_package_brings_its_units_itself() {
        assert!(unit_files(true).iter().all(|(_, goal)| matches!(goal, Goal::Link { .. })));
    }

    #[test]
    fn links_and_socket_are_the_same_place() {
        let socket = UNITS.iter().find(|unit| unit.name == "salt-bridge.socket").unwrap();
        assert!(socket.text.contains(&format!("ListenStream={SERVICE_SOCKET}\n")));
    }
}
