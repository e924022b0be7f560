//! Files, folders, links and sockets: whether they are there, whose they are and who may write.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use contract::SERVICE_PREFIX;
use policy::QMCP_SERVICES;

use super::{report::Report, users::Owners};
use crate::{paths::Paths, services};

const AREA: &str = "files";
/// Where services link to, as qrexec sees it.
pub(super) const SERVICE_SOCKET: &str = "/run/salt-bridge/qrexec.sock";
/// Where the program may be: installed by hand, or by a package.
pub(super) const PROGRAMS: [&str; 2] = ["usr/local/bin/saltbridged", "usr/bin/saltbridged"];
/// Folders in which qrexec looks for a service before `/etc/qubes-rpc`.
const EARLIER_SERVICES: [&str; 2] = ["run/qubes-rpc", "usr/local/etc/qubes-rpc"];
/// Folders that change how qrexec runs a service.
const SERVICE_SETTINGS: [&str; 3] =
    ["run/qubes/rpc-config", "usr/local/etc/qubes/rpc-config", "etc/qubes/rpc-config"];

/// What there has to be at a path.
struct Wanted {
    path: PathBuf,
    kind: Kind,
    owner: u32,
    group: Option<u32>,
    /// Permission bits that nobody may have.
    never: u32,
    /// What makes it when it is missing; none when it may be missing.
    made_by: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Socket,
}

const INSTALL: &str = "run: saltbridged install";
const START: &str = "run: systemctl restart salt-bridge.socket salt-bridge-tcp-policy.socket";

/// Looks at everything that is neither unit nor policy's content.
pub(super) fn inspect(paths: &Paths, owners: Owners, speaks_qmcp: bool, report: &mut Report) {
    for wanted in wanted(paths, owners) {
        if let Err((what, mend)) = wanted.compare() {
            report.wrong(AREA, what, mend);
        }
    }
    inspect_programs(paths, owners, report);
    inspect_links(paths, speaks_qmcp, report);
    inspect_overrides(paths, report);
    if !paths.qrexec_client().iter().any(|path| path.exists()) {
        let mend = "it comes with qubes-core-qrexec: run: qubes-dom0-update qubes-core-qrexec-dom0";
        report.wrong(AREA, "there is no qrexec-client", mend);
    }
}

fn wanted(paths: &Paths, owners: Owners) -> Vec<Wanted> {
    let Owners { trusted, daemon, group } = owners;
    let daemon = daemon.unwrap_or(trusted);
    let at = |path: &str| paths.root().join(path);
    let root = |path, kind, never, made_by| Wanted {
        path,
        kind,
        owner: trusted,
        group: None,
        never,
        made_by,
    };
    // Whoever is in the group qubes rules all qubes anyway, and Qubes lets it write policy.
    vec![
        root(paths.policy(), Kind::Folder, 0o002, Some("reinstall qubes-core-qrexec-dom0")),
        root(paths.services(), Kind::Folder, 0o022, Some("reinstall qubes-core-dom0")),
        root(paths.services_policy(), Kind::File, 0o002, Some(INSTALL)),
        root(paths.tcp_policy(), Kind::File, 0o002, None),
        root(at("etc/salt-bridge"), Kind::Folder, 0o022, None),
        root(at("etc/salt-bridge/settings.toml"), Kind::File, 0o022, None),
        root(at("var/lib/salt-bridge"), Kind::Folder, 0o022, Some(INSTALL)),
        root(at("var/lib/salt-bridge/receipt"), Kind::File, 0o022, None),
        Wanted { owner: daemon, ..root(paths.firewall_history(), Kind::Folder, 0o077, None) },
        Wanted { owner: daemon, ..root(at("var/log/salt-bridge"), Kind::Folder, 0o027, None) },
        root(at("run/salt-bridge"), Kind::Folder, 0o022, Some(START)),
        Wanted { group, ..root(paths.qrexec_socket(), Kind::Socket, 0o007, Some(START)) },
        Wanted {
            owner: daemon,
            ..root(paths.tcp_policy_socket(), Kind::Socket, 0o077, Some(START))
        },
    ]
}

impl Wanted {
    /// What is wrong and how to mend it, if anything is.
    fn compare(&self) -> Result<(), (String, String)> {
        let path = self.path.display();
        let status = match fs::symlink_metadata(&self.path) {
            Ok(status) => status,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.made_by.map_or(Ok(()), |made_by| {
                    Err((format!("{path} is missing"), made_by.to_owned()))
                });
            }
            Err(error) => {
                return Err((format!("cannot look at {path}: {error}"), "run this as root".into()));
            }
        };
        if !self.kind.fits(&status) {
            let kind = self.kind.word();
            return Err((
                format!("{path} is not {kind}"),
                format!("remove it, then {}", self.made_by.unwrap_or(INSTALL)),
            ));
        }
        let (owner, mode) = (status.uid(), status.mode() & 0o7777);
        if owner != self.owner {
            let wanted = self.owner;
            return Err((
                format!("{path} belongs to uid {owner}, not to uid {wanted}"),
                format!("run: chown {wanted} {path}"),
            ));
        }
        if self.group.is_some_and(|group| group != status.gid()) {
            return Err((
                format!("{path} belongs to gid {}, not to the group qubes", status.gid()),
                format!("run: chgrp qubes {path}"),
            ));
        }
        if mode & self.never != 0 {
            return Err((
                format!("{path} has the mode {mode:04o}, which lets too many in"),
                format!("run: chmod {:04o} {path}", mode & !self.never),
            ));
        }
        Ok(())
    }
}

impl Kind {
    fn fits(self, status: &Metadata) -> bool {
        match self {
            Self::File => status.is_file(),
            Self::Folder => status.is_dir(),
            Self::Socket => status.file_type().is_socket(),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::File => "a regular file",
            Self::Folder => "a folder",
            Self::Socket => "a socket",
        }
    }
}

/// The program, and every folder on the way to it.
fn inspect_programs(paths: &Paths, owners: Owners, report: &mut Report) {
    let programs: Vec<PathBuf> =
        PROGRAMS.map(|path| paths.root().join(path)).into_iter().filter(|p| p.exists()).collect();
    match programs.as_slice() {
        [] => return report.wrong(AREA, "saltbridged is not installed", INSTALL),
        [program] => report.good(AREA, format!("the program is {}", program.display())),
        [first, second, ..] => report.wrong(
            AREA,
            format!("both {} and {} are there", first.display(), second.display()),
            "a package and an installation by hand meet; uninstall one of them",
        ),
    }
    for program in &programs {
        let steps = program.ancestors().take_while(|step| step.starts_with(paths.root()));
        for (number, step) in steps.enumerate() {
            let kind = if number == 0 { Kind::File } else { Kind::Folder };
            let path = fs::canonicalize(step).unwrap_or_else(|_| step.to_owned());
            let wanted = Wanted {
                path,
                kind,
                owner: owners.trusted,
                group: None,
                never: 0o022,
                made_by: Some(INSTALL),
            };
            if let Err((what, mend)) = wanted.compare() {
                report.wrong(AREA, what, mend);
            }
        }
    }
}

/// Each service is a link to the daemon's socket, and nothing else bears our prefix. Those of
/// qubes-mcp are links only where a block of the operator's file says so.
fn inspect_links(paths: &Paths, speaks_qmcp: bool, report: &mut Report) {
    let folder = paths.services();
    let mut faulty = 0;
    let adapters = || QMCP_SERVICES.into_iter().map(str::to_owned);
    let wanted: Vec<String> = services::names().chain(adapters().filter(|_| speaks_qmcp)).collect();
    for name in &wanted {
        let link = folder.join(name);
        let link = link.as_path();
        let what = match fs::read_link(link) {
            Ok(target) if target == Path::new(SERVICE_SOCKET) => continue,
            Ok(target) => format!("{} links to {}", link.display(), target.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("{} is missing, so that qrexec does not find the service", link.display())
            }
            Err(_) => format!("{} is no link to the daemon's socket", link.display()),
        };
        faulty += 1;
        let mend = format!("run: ln -sfn {SERVICE_SOCKET} {}", link.display());
        report.wrong(AREA, what, mend);
    }
    if faulty == 0 {
        report.good(AREA, format!("all {} services link to the daemon", wanted.len()));
    }
    for name in ours(&folder).filter(|name| !services::names().any(|known| known == *name)) {
        let path = folder.join(name);
        let mend = format!("it may be of an older program; run: rm {}", path.display());
        report.wrong(AREA, format!("{} is no service of this version", path.display()), mend);
    }
    let is_link = |path: &Path| fs::read_link(path).is_ok_and(|to| to == Path::new(SERVICE_SOCKET));
    for name in adapters().filter(|_| !speaks_qmcp) {
        let path = folder.join(name);
        if is_link(&path) {
            let what = format!("{} is left of --compat qmcp", path.display());
            report.wrong(AREA, what, format!("run: rm {}", path.display()));
        }
    }
}

/// What would make qrexec run something else, or otherwise, than what is installed.
fn inspect_overrides(paths: &Paths, report: &mut Report) {
    let at = |folder: &&str| paths.root().join(folder);
    for (folders, what) in [
        (EARLIER_SERVICES.iter(), "is found by qrexec before the daemon"),
        (SERVICE_SETTINGS.iter(), "changes how qrexec talks to the daemon"),
    ] {
        for folder in folders.map(at) {
            for name in ours(&folder) {
                let path = folder.join(name);
                let mend = format!("run: rm {}", path.display());
                report.wrong(AREA, format!("{} {what}", path.display()), mend);
            }
        }
    }
}

/// The names of our services in a folder, sorted; none when it is missing. In the folder of services
/// those of qubes-mcp may be its own.
fn ours(folder: &Path) -> impl Iterator<Item = String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(SERVICE_PREFIX))
        .collect();
    names.sort();
    names.into_iter()
}
