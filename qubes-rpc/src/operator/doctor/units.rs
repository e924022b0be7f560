//! systemd's units: whether they are there, started at boot, and still confine the daemon.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{files::SERVICE_SOCKET, report::Report, users::Owners};
use crate::paths::Paths;

const AREA: &str = "units";
const INSTALL: &str = "install anew: saltbridged install, or the package";
/// Where units lie that were installed by hand, which come first, and those of packages.
const FOLDERS: [&str; 3] =
    ["etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system"];

/// A unit, what starts it at boot, and lines that it cannot do without.
struct Unit {
    name: &'static str,
    wanted_by: Option<&'static str>,
    lines: &'static [&'static str],
}

const UNITS: [Unit; 6] = [
    Unit {
        name: "salt-bridge.socket",
        wanted_by: Some("sockets.target"),
        lines: &["SocketUser=root", "SocketGroup=qubes", "SocketMode=0660"],
    },
    Unit {
        name: "salt-bridge.service",
        wanted_by: None,
        lines: &[
            "User=salt-bridge",
            "SupplementaryGroups=qubes",
            "CapabilityBoundingSet=",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "DevicePolicy=closed",
            "PrivateNetwork=yes",
            "RestrictAddressFamilies=AF_UNIX",
            "SystemCallFilter=@system-service",
        ],
    },
    Unit {
        name: "salt-bridge-tcp-policy.socket",
        wanted_by: Some("sockets.target"),
        lines: &["SocketUser=salt-bridge", "SocketMode=0600"],
    },
    Unit {
        name: "salt-bridge-tcp-policy.service",
        wanted_by: None,
        lines: &[
            "CapabilityBoundingSet=",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ReadWritePaths=/etc/qubes/policy.d",
            "PrivateNetwork=yes",
        ],
    },
    Unit {
        name: "salt-bridge-recover.service",
        wanted_by: Some("multi-user.target"),
        lines: &["Type=oneshot", "NoNewPrivileges=yes", "PrivateNetwork=yes"],
    },
    Unit {
        name: "salt-bridge-expire.service",
        wanted_by: Some("multi-user.target"),
        lines: &[
            "Wants=salt-bridge.service",
            "Type=oneshot",
            "CapabilityBoundingSet=",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "ReadWritePaths=/etc/qubes/policy.d /etc/systemd/system",
            "PrivateNetwork=yes",
        ],
    },
];

/// Looks at all units.
pub(super) fn inspect(paths: &Paths, owners: Owners, report: &mut Report) {
    let root = paths.root();
    let mut faults = Vec::new();
    for unit in &UNITS {
        match find(root, unit.name) {
            Some(path) => {
                inspect_file(&path, unit, owners, root, &mut faults);
                inspect_start(root, unit, &path, &mut faults);
            }
            None => faults.push((format!("the unit {} is missing", unit.name), INSTALL.into())),
        }
        inspect_changes(root, unit, report);
    }
    if faults.is_empty() {
        report.good(AREA, format!("all {} units are there and start at boot", UNITS.len()));
    }
    for (what, mend) in faults {
        report.wrong(AREA, what, mend);
    }
}

/// The file that systemd reads for a unit.
fn find(root: &Path, name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| root.join(folder).join(name)).find(|p| p.symlink_metadata().is_ok())
}

fn inspect_file(
    path: &Path,
    unit: &Unit,
    owners: Owners,
    root: &Path,
    faults: &mut Vec<(String, String)>,
) {
    let shown = path.display();
    let read = fs::symlink_metadata(path).and_then(|status| {
        if !status.is_file() {
            return Err(io::Error::other("it is no regular file, or masked"));
        }
        Ok((status, fs::read_to_string(path)?))
    });
    let (status, text) = match read {
        Ok(read) => read,
        Err(error) => return faults.push((format!("{shown}: {error}"), INSTALL.into())),
    };
    if status.uid() != owners.trusted || status.mode() & 0o022 != 0 {
        faults.push((
            format!("{shown} can be changed by others than root"),
            format!("run: chown {} {shown}; chmod 0644 {shown}", owners.trusted),
        ));
    }
    let missing: Vec<&str> =
        unit.lines.iter().copied().filter(|line| !text.lines().any(|l| l == *line)).collect();
    if !missing.is_empty() {
        faults.push((format!("{shown} lacks {}", missing.join(" and ")), INSTALL.into()));
    }
    if unit.name == "salt-bridge.socket"
        && !text.contains(&format!("ListenStream={SERVICE_SOCKET}\n"))
    {
        faults.push((format!("{shown} does not listen on {SERVICE_SOCKET}"), INSTALL.into()));
    }
    let program = text.lines().find_map(|line| line.strip_prefix("ExecStart="));
    let program = program.and_then(|line| line.split(' ').next());
    if let Some(program) = program
        && !root.join(program.trim_start_matches('/')).is_file()
    {
        faults.push((format!("{shown} starts {program}, which is not there"), INSTALL.into()));
    }
}

fn inspect_start(root: &Path, unit: &Unit, path: &Path, faults: &mut Vec<(String, String)>) {
    let Some(target) = unit.wanted_by else { return };
    let link = root.join(format!("etc/systemd/system/{target}.wants/{}", unit.name));
    let aim = Path::new("/").join(path.strip_prefix(root).unwrap_or(path));
    if fs::read_link(&link).is_ok_and(|to| to == aim) {
        return;
    }
    faults.push((
        format!("{} does not start at boot, or from another place", unit.name),
        format!("run: systemctl reenable {}", unit.name),
    ));
}

/// What an operator put beside a unit to change it.
fn inspect_changes(root: &Path, unit: &Unit, report: &mut Report) {
    for folder in FOLDERS.iter().copied().chain(["run/systemd/system"]) {
        let folder = root.join(folder).join(format!("{}.d", unit.name));
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let changes = entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "conf"));
        if changes.count() > 0 {
            let what = format!("{} changes the unit", folder.display());
            report.note(AREA, what, format!("see: systemctl cat {}", unit.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_demanded_of_a_unit_is_in_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
        for unit in &UNITS {
            let text = fs::read_to_string(folder.join(unit.name)).unwrap();
            for line in unit.lines {
                assert!(text.lines().any(|l| l == *line), "{}: {line}", unit.name);
            }
            if let Some(target) = unit.wanted_by {
                assert!(text.contains(&format!("WantedBy={target}\n")), "{}", unit.name);
            }
        }
    }
}
