//! Commands and services in a qube.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::Path,
    sync::Arc,
};

use tokio::{io::Interest, net::unix::pipe, sync::watch};

use super::{
    Connection,
    answer::{self},
};
use crate::{
    host::Shared,
    qube::Running,
    qubesd::{PowerState, lifecycle},
    wire::{Command, Order, User},
};

/// The exit code for what cannot be executed.
const PROBLEM: u8 = 125;
/// The exit code for a service that is not there.
const NOT_FOUND: u8 = 127;

/// Who calls a service in a qube, and what exactly.
#[derive(Debug)]
pub(super) struct Origin<'a> {
    /// The caller.
    pub(super) source: &'a str,
    /// `SERVICE+ARG`, or `SERVICE` alone.
    pub(super) service: &'a str,
}

/// `qrexec-client -d TARGET USER:COMMAND`. It does not start a qube.
pub(super) async fn from_dom0(shared: &Arc<Shared>, target: &str, line: &str) -> Connection {
    let name = {
        let system = shared.system();
        let uuid = target.strip_prefix("uuid:");
        let found = match uuid {
            Some(uuid) => system.all().find(|qube| qube.uuid == uuid),
            None => system.get(target),
        };
        let running =
            found.filter(|qube| qube.running.is_some() && qube.power != PowerState::Transient);
        match running {
            Some(qube) => qube.name.clone(),
            None => return not_connected(target),
        }
    };
    let Some((user, command)) = line.split_once(':') else {
        return Connection::exit(PROBLEM, format!("qrexec-client: no colon in '{line}'\n"));
    };
    let command = command.strip_prefix("nogui:").unwrap_or(command);
    match command.strip_prefix("QUBESRPC ") {
        Some(call) => {
            let (service, source) = call.split_once(' ').unwrap_or((call, "dom0"));
            let source = source.split(' ').next().unwrap_or("dom0");
            run_service(shared, &name, user, &Origin { source, service }, false).await
        }
        None => {
            let Some(user) = parse_user(user) else { return no_user(user) };
            let argv = ["/bin/bash", "-l", "-c", command].map(str::to_owned).into();
            run(shared, &name, Command { user, argv, environment: Vec::new() }, false).await
        }
    }
}

/// Runs a service in a qube that runs. A disposable made for the call ends with it.
pub(super) async fn run_service(
    shared: &Arc<Shared>,
    name: &str,
    user: &str,
    origin: &Origin<'_>,
    ends_with_it: bool,
) -> Connection {
    let Some(user) = parse_user(user) else { return no_user(user) };
    let (base, argument) = match origin.service.split_once('+') {
        Some((base, argument)) => (base, Some(argument)),
        None => (origin.service, None),
    };
    let shell = || vec!["/bin/bash".to_owned()];
    let (user, argv) = match base {
        "qubes.VMShell" => (user, shell()),
        "qubes.VMRootShell" => (User::Root, shell()),
        "qubes.VMExec" | "qubes.VMRootExec" => {
            let Some(argv) = parse_vmexec(argument.unwrap_or_default()) else {
                return Connection::exit(1, "qubes.VMExec: the argument cannot be decoded\n");
            };
            (if base == "qubes.VMExec" { user } else { User::Root }, argv)
        }
        "qubes.WaitForSession" | "qubes.WaitForRunningSystem" => (user, vec!["true".to_owned()]),
        _ => match installed(shared, name, origin.service, base) {
            Installed::Program(program) => {
                let argv = std::iter::once(program).chain(argument.map(str::to_owned));
                (user, argv.collect())
            }
            Installed::NotExecutable => return Connection::exit(PROBLEM, ""),
            Installed::Missing => return Connection::exit(NOT_FOUND, ""),
        },
    };
    let full = if argument.is_some() { origin.service.to_owned() } else { format!("{base}+") };
    let environment = vec![
        ("QREXEC_REMOTE_DOMAIN".to_owned(), origin.source.to_owned()),
        ("QREXEC_SERVICE_FULL_NAME".to_owned(), full),
        ("QREXEC_SERVICE_ARGUMENT".to_owned(), argument.unwrap_or_default().to_owned()),
    ];
    run(shared, name, Command { user, argv, environment }, ends_with_it).await
}

enum Installed {
    Program(String),
    NotExecutable,
    Missing,
}

/// A service that somebody put into the qube's own `/etc/qubes-rpc`.
fn installed(shared: &Shared, name: &str, service: &str, base: &str) -> Installed {
    let root = shared.layout.qube_root(name);
    for file in [service, base] {
        let inside = Path::new("etc/qubes-rpc").join(file);
        let Ok(metadata) = root.join(&inside).metadata() else { continue };
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return Installed::NotExecutable;
        }
        let path = match shared.mode {
            crate::Mode::Plain => root.join(inside),
            crate::Mode::Root | crate::Mode::UserNamespace => Path::new("/").join(inside),
        };
        return Installed::Program(path.to_string_lossy().into_owned());
    }
    Installed::Missing
}

/// Runs a command in a qube that runs.
async fn run(shared: &Arc<Shared>, name: &str, command: Command, ends_with_it: bool) -> Connection {
    let running = shared.system().get(name).and_then(|qube| qube.running.clone());
    let Some(running) = running else { return not_connected(name) };
    match hand_over(&running, command).await {
        Ok((connection, end)) => {
            if ends_with_it {
                let ended = running.ended();
                tokio::spawn(kill_at_end(Arc::clone(shared), name.to_owned(), end, ended));
            }
            connection
        }
        Err(error) => Connection::exit(PROBLEM, format!("qrexec-agent: {error}\n")),
    }
}

/// The connection, and a descriptor that hangs up when the caller is gone or has its answer.
async fn hand_over(running: &Running, command: Command) -> std::io::Result<(Connection, OwnedFd)> {
    let (process, caller) = answer::pipes()?;
    running.order(&Order::Run(command), &process.each_ref().map(AsFd::as_fd)).await?;
    let [.., end] = process;
    Ok((Connection::pipes(caller), end))
}

/// Kills a disposable when nobody waits for the end of its call any more.
async fn kill_at_end(
    shared: Arc<Shared>,
    name: String,
    end: OwnedFd,
    mut ended: watch::Receiver<bool>,
) {
    if let Ok(end) = pipe::Sender::from_owned_fd(end) {
        let unread = async {
            while end.ready(Interest::ERROR).await.is_ok_and(|ready| !ready.is_error()) {}
        };
        tokio::select! {
            () = unread => {}
            _ = ended.wait_for(|ended| *ended) => {}
        }
    }
    // It may have ended by itself.
    drop(lifecycle::kill(&shared, &name).await);
}

fn parse_user(user: &str) -> Option<User> {
    match user {
        "root" => Some(User::Root),
        "user" | "DEFAULT" => Some(User::User),
        _ => None,
    }
}

fn no_user(user: &str) -> Connection {
    let line = format!("qrexec-agent: qrexec-agent.c:189:do_exec: user {user} does not exist\n");
    Connection::exit(PROBLEM, line)
}

/// What the real program says when no qrexec-daemon runs for the qube.
fn not_connected(target: &str) -> Connection {
    let line = format!(
        "qrexec-client: qrexec-daemon-common.c:268:connect_unix_socket: \
         connect /var/run/qubes/qrexec.{target}: No such file or directory\n"
    );
    Connection::exit(PROBLEM, line)
}

/// The arguments of `qubes.VMExec`: joined by `+`, `--` is a dash, `-HH` any byte.
fn parse_vmexec(encoded: &str) -> Option<Vec<String>> {
    encoded.split('+').map(parse_vmexec_word).collect()
}

fn parse_vmexec_word(word: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'-' => match rest.next()? {
                b'-' => bytes.push(b'-'),
                high => bytes.push(hexadecimal(high)? * 16 + hexadecimal(rest.next()?)?),
            },
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.') => bytes.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vmexec_arguments_are_decoded_as_recorded() {
        let words = |text| parse_vmexec(text).map(|words| words.join("|"));
        assert_eq!(words("id"), Some("id".to_owned()));
        assert_eq!(words("echo+-2Fa-20b--c"), Some("echo|/a b-c".to_owned()));
        assert_eq!(words("a-2fb"), None);
        assert_eq!(words("a-2"), None);
        assert_eq!(words("a/b"), None);
    }
}
