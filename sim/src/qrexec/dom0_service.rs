//! Services of dom0: programs, and links to sockets.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::{
    Connection,
    answer::{self},
    from_qube::Asked,
};
use crate::{host::Shared, spawn};

/// Where services lie in dom0, in the order in which they are looked for.
const FOLDERS: [&str; 3] = ["run/qubes-rpc", "usr/local/etc/qubes-rpc", "etc/qubes-rpc"];
/// The exit code for what is there but cannot be executed.
const PROBLEM: u8 = 125;
/// The exit code for a service that is not there.
const NOT_FOUND: u8 = 127;

enum Service {
    Program(PathBuf),
    Socket(PathBuf),
    Unusable,
}

/// Connects a call that policy let through.
pub(super) async fn connect(shared: &Arc<Shared>, asked: &Asked<'_>) -> Connection {
    let connected = match find(&shared.layout.root(), &asked.service) {
        None => return Connection::exit(NOT_FOUND, ""),
        Some(Service::Unusable) => return Connection::exit(PROBLEM, ""),
        Some(Service::Program(program)) => execute(shared, &program, asked),
        Some(Service::Socket(socket)) => open(&socket, asked).await,
    };
    connected.unwrap_or_else(|_error| Connection::exit(PROBLEM, ""))
}

/// Looks for `SERVICE+ARGUMENT`, then for `SERVICE`, in each folder.
fn find(root: &Path, service: &str) -> Option<Service> {
    let base = service.split_once('+').map_or(service, |(base, _)| base);
    let names = [service, base].into_iter();
    let paths = names.flat_map(|name| FOLDERS.map(|folder| root.join(folder).join(name)));
    paths.filter_map(|path| follow(root, &path)).find_map(|path| {
        let metadata = fs::metadata(&path).ok()?;
        Some(if metadata.file_type().is_socket() {
            Service::Socket(path)
        } else if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            Service::Program(path)
        } else {
            Service::Unusable
        })
    })
}

/// Follows links as a process of this dom0 would see them: an absolute target lies beneath its
/// root, or, where nothing is there, is meant as it stands. `None`: nothing, or a dangling link.
fn follow(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else {
            return path.symlink_metadata().is_ok().then_some(path);
        };
        let beneath = target.strip_prefix("/").ok().map(|inner| root.join(inner));
        path = match beneath {
            Some(beneath) if !target.starts_with(root) && beneath.symlink_metadata().is_ok() => {
                beneath
            }
            _ => path.parent()?.join(target),
        };
    }
    None
}

/// What a service learns about the target that was asked for.
fn requested(target: &str) -> (&'static str, &'static str, &str) {
    match target.strip_prefix('@') {
        Some(keyword) => ("keyword", "QREXEC_REQUESTED_TARGET_KEYWORD", keyword),
        None if target.is_empty() => ("keyword", "QREXEC_REQUESTED_TARGET_KEYWORD", "default"),
        None => ("name", "QREXEC_REQUESTED_TARGET", target),
    }
}

fn execute(shared: &Shared, program: &Path, asked: &Asked<'_>) -> io::Result<Connection> {
    let (kind, variable, target) = requested(&asked.target);
    let argument = asked.service.split_once('+').map_or("", |(_, argument)| argument);
    let environment = [
        ("QREXEC_REMOTE_DOMAIN", asked.source),
        ("QREXEC_REQUESTED_TARGET_TYPE", kind),
        (variable, target),
        ("QREXEC_SERVICE_FULL_NAME", &asked.service),
        ("QREXEC_SERVICE_ARGUMENT", argument),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let ([stdin, stdout, stderr, end], caller) = answer::pipes()?;
    // dom0's second stream goes to its own log, never to the caller.
    drop(stderr);
    let log = fs::File::options().append(true).create(true).open(shared.layout.service_log())?;
    let argument = Some(argument).filter(|argument| !argument.is_empty());
    let streams = [stdin, stdout, OwnedFd::from(log)];
    let mut child = spawn::dom0_service(program, argument, &environment, streams)?;
    tokio::spawn(async move {
        if let Ok(status) = child.wait().await {
            // The caller may be gone.
            let _ = rustix::io::write(end, &[spawn::exit_code(status)]);
        }
    });
    Ok(Connection::pipes(caller))
}

async fn open(socket: &Path, asked: &Asked<'_>) -> io::Result<Connection> {
    #[expect(clippy::disallowed_methods, reason = "qrexec opens the sockets of services")]
    let mut service = UnixStream::connect(socket).await?;
    let (kind, _, target) = requested(&asked.target);
    let line = format!("{} {} {kind} {target}\0", asked.service, asked.source);
    service.write_all(line.as_bytes()).await?;
    let service = service.into_std()?;
    service.set_nonblocking(false)?;
    Ok(Connection::socket(service.into()))
}
