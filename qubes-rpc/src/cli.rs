//! The command line of `saltbridged`.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    time::{Duration, SystemTime},
};

use clap::{Parser, Subcommand};
use contract::limits;
use rustix::{
    fs::{Mode, fchmod},
    net,
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::chain, host::Host, journal, operator, paths::Paths, relay::relay,
    scope_file::read_granted, serve::serve, services, settings::read_settings,
    tcp_policy::serve_tcp_policy,
};

/// dom0's side of Salt Bridge: decides what an agent in one qube may do to other qubes, and does it.
#[derive(Debug, Parser)]
#[command(name = "saltbridged", version)]
struct Arguments {
    /// Use the files below this folder instead of /; its owner is then trusted instead of root.
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve calls that qrexec delivers on a socket.
    Serve {
        /// Listen on this socket. Without it the socket comes from systemd, and the daemon ends
        /// when it is idle for a minute.
        #[arg(long, value_name = "PATH")]
        listen: Option<PathBuf>,
        /// Use this program to reach qubes.
        #[arg(long, value_name = "PATH")]
        qrexec_client: Option<PathBuf>,
        /// The longest time that a command may take.
        #[arg(long, value_name = "SECONDS", default_value_t = limits::COMMAND_CEILING.as_secs(),
            value_parser = clap::value_parser!(u64).range(1..=604_800))]
        command_ceiling: u64,
    },
    /// Write qubes.ConnectTCP policy for the daemon. Runs as root, apart from it.
    TcpPolicy {
        /// Listen on this socket. Without it the socket comes from systemd.
        #[arg(long, value_name = "PATH")]
        listen: Option<PathBuf>,
        /// The user as whom the daemon runs; nobody else is listened to.
        #[arg(long, value_name = "UID")]
        peer_uid: Option<u32>,
        /// The same by name, as /etc/passwd has it.
        #[arg(long, value_name = "NAME", conflicts_with = "peer_uid")]
        peer_user: Option<String>,
    },
    /// Forward one call to the daemon, and turn its answer into output and exit code.
    ///
    /// The request, a JSON object of parameters, comes from standard input. Run by qrexec as an
    /// executable service it takes caller and target from the environment.
    Call {
        /// The service and the qube, as VmExec+work. Taken from the environment when left out.
        service: Option<String>,
        /// The calling qube. Taken from the environment when left out.
        #[arg(long, value_name = "QUBE")]
        source: Option<String>,
    },
    /// Print the qrexec policy that the operator's file stands for.
    Policy {
        /// Print the policy that denies everything instead.
        #[arg(long)]
        deny_all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the names of all services, a line each.
    Services {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    Operator(operator::Command),
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    #[error("cannot listen")]
    Listen(#[source] io::Error),
    #[error("cannot read the folder given with --root")]
    Root(#[source] io::Error),
    #[error("systemd passed no socket; start it with systemd or give --listen PATH")]
    NoSocket,
    #[error("the operator's file grants nothing")]
    Scope(#[source] crate::scope_file::ScopeFileError),
    #[error("cannot read /etc/passwd")]
    Users(#[source] io::Error),
    #[error("there is no user {0} in /etc/passwd")]
    NoUser(String),
    #[error("cannot write")]
    Output(#[source] io::Error),
    #[error(transparent)]
    Operator(#[from] operator::OperatorError),
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs one command: 0 done, 1 not done, 2 wrong usage.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let wrong = error.use_stderr();
            drop(error.print());
            return if wrong { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(arguments) {
        Ok(code) => code,
        Err(Failure::Operator(error)) => {
            tell_operator(&chain(&error));
            ExitCode::FAILURE
        }
        Err(failure) => {
            journal::say(&chain(&failure));
            ExitCode::FAILURE
        }
    }
}

/// Tells a person; what a terminal would obey is escaped.
fn tell_operator(sentence: &str) {
    let shown = |found: char| {
        let escaped = found.is_control().then(|| found.escape_default());
        escaped.map_or_else(|| found.to_string(), |escaped| escaped.to_string())
    };
    let sentence: String = sentence.chars().map(shown).collect();
    drop(io::Write::write_all(&mut io::stderr().lock(), format!("error: {sentence}\n").as_bytes()));
}

fn dispatch(arguments: Arguments) -> Result<ExitCode, Failure> {
    let trusted = match &arguments.root {
        Some(root) => fs::metadata(root).map_err(Failure::Root)?.uid(),
        None => 0,
    };
    let paths = Paths::below(arguments.root.unwrap_or_else(|| PathBuf::from("/")));
    let ceiling = |seconds| Duration::from_secs(seconds);
    match arguments.command {
        Command::Serve { listen, qrexec_client, command_ceiling } => {
            let host = Host::new(paths, trusted, ceiling(command_ceiling), qrexec_client);
            if let Err(error) = read_settings(&host.paths, trusted) {
                journal::say(&format!("{}; every call is refused", chain(&error)));
            }
            // A daemon that systemd can start again need not wait for work.
            let idle = listen.is_none().then_some(limits::IDLE);
            on_one_thread(listen, |listener, stop| serve(Rc::new(host), listener, idle, stop))
        }
        Command::TcpPolicy { listen, peer_uid, peer_user } => {
            let named = peer_user.map(|name| uid_of(&paths, &name)).transpose()?;
            let host = Host::new(paths, trusted, limits::COMMAND_CEILING, None);
            let peer = peer_uid.or(named).unwrap_or(trusted);
            on_one_thread(listen, |listener, stop| {
                serve_tcp_policy(Rc::new(host), listener, peer, stop)
            })
        }
        Command::Call { service, source } => {
            runtime()?.block_on(relay(&paths, service, source)).map_err(Failure::Output)
        }
        Command::Policy { deny_all, json } => {
            let lines = services::lines();
            let text = if deny_all {
                policy::render_deny_all(&lines)
            } else {
                let scope = read_granted(&paths, trusted).map_err(Failure::Scope)?;
                policy::render_policy(&scope, &lines, SystemTime::now())
            };
            if json { print_json(&serde_json::json!({ "policy": text })) } else { print(&text) }
        }
        Command::Operator(command) => {
            Ok(operator::run(command, &operator::Place { paths, trusted, leaves_jobs: false })?)
        }
        Command::Services { json: true } => {
            print_json(&services::names().collect::<Vec<_>>().into())
        }
        Command::Services { json: false } => {
            print(&services::names().map(|name| name + "\n").collect::<String>())
        }
    }
}

/// The user's number, from the file alone: a static program cannot ask for more.
fn uid_of(paths: &Paths, name: &str) -> Result<u32, Failure> {
    let text = fs::read_to_string(paths.root().join("etc/passwd")).map_err(Failure::Users)?;
    text.lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .find_map(|rest| rest.split(':').nth(1)?.parse().ok())
        .ok_or_else(|| Failure::NoUser(name.into()))
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    io::Write::write_all(&mut io::stdout().lock(), text.as_bytes()).map_err(Failure::Output)?;
    Ok(ExitCode::SUCCESS)
}

fn print_json(value: &serde_json::Value) -> Result<ExitCode, Failure> {
    print(&format!("{value:#}\n"))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)
}

fn on_one_thread<F: Future<Output = ()>>(
    listen: Option<PathBuf>,
    serve: impl FnOnce(UnixListener, CancellationToken) -> F,
) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = match &listen {
            Some(path) => bind(path).map_err(Failure::Listen)?,
            None => inherited()?,
        };
        let stop = CancellationToken::new();
        tokio::task::spawn_local(stop_on_signal(stop.clone()));
        serve(listener, stop).await;
        if let Some(path) = &listen {
            // Another daemon may have taken the place already.
            drop(fs::remove_file(path));
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens on a path of our own; a socket that a dead daemon left is taken over, and nothing else.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = net::socket_with(
        net::AddressFamily::UNIX,
        net::SocketType::STREAM,
        net::SocketFlags::CLOEXEC | net::SocketFlags::NONBLOCK,
        None,
    )?;
    // Before it has a name, so that not even for a moment others may connect.
    fchmod(&socket, Mode::from_raw_mode(0o660))?;
    net::bind(&socket, &net::SocketAddrUnix::new(path)?)?;
    // The group, which the umask may have taken away.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

fn inherited() -> Result<UnixListener, Failure> {
    let listener = listenfd::ListenFd::from_env()
        .take_unix_listener(0)
        .map_err(Failure::Listen)?
        .ok_or(Failure::NoSocket)?;
    listener.set_nonblocking(true).map_err(Failure::Listen)?;
    UnixListener::from_std(listener).map_err(Failure::Listen)
}

async fn stop_on_signal(stop: CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return journal::say("cannot listen to signals");
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command without commands of its own, with the words that lead to it.
    fn leaves(command: &clap::Command, words: &str, found: &mut Vec<(String, clap::Command)>) {
        if !command.has_subcommands() {
            found.push((words.to_owned(), command.clone()));
        }
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            leaves(inner, &format!("{words} {}", inner.get_name()), found);
        }
    }

    #[test]
    fn every_command_says_what_it_does_and_those_for_operators_answer_in_json() {
        let mut found = Vec::new();
        leaves(&command(), "", &mut found);
        assert!(found.len() > 20, "{found:?}");
        // What systemd and qrexec start.
        let machines = [" serve", " tcp-policy", " call"];
        for (words, command) in found {
            assert!(command.get_about().is_some(), "{words}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{words} {}", argument.get_id());
            }
            let has_json = command.get_arguments().any(|argument| argument.get_id() == "json");
            assert_eq!(has_json, !machines.contains(&words.as_str()), "{words}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_taken_over_and_any_other_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(bind(&path).unwrap());
        let _listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let file = folder.path().join("f");
        fs::write(&file, "precious").unwrap();
        assert!(bind(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
