//! The command line: tells the programs apart by their name, and runs the host's own commands.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    DEFAULT_SCOPE, Host, HostError, HostOptions, Mode, demo, program, qube, role::Role, spawn,
};

/// A Qubes host in one process, to try and to test Salt Bridge without Qubes.
#[derive(Debug, Parser)]
#[command(name = "salt-bridge-sim", version)]
struct Arguments {
    /// Run qubes as plain processes, also where namespaces are allowed.
    #[arg(long, global = true)]
    plain: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell a story of tool calls on a fresh host, made by a real MCP client.
    Demo,
    /// Serve MCP on standard input and output, against a fresh host that vanishes at the end.
    Mcp {
        /// Put the host into this folder, and leave it there.
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Take this file as the operator's, instead of one that lists work, dev and test.
        #[arg(long, value_name = "FILE")]
        scope: Option<PathBuf>,
    },
    /// Run a host until interrupted.
    Host {
        /// The folder of the host, which must be empty or not exist.
        #[arg(long)]
        dir: PathBuf,
        /// Take this file as the operator's, instead of one that lists work, dev and test.
        #[arg(long, value_name = "FILE")]
        scope: Option<PathBuf>,
    },
}

/// Runs whatever program this process was started as.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let argv0 = arguments.next().unwrap_or_default();
    match Role::of(&argv0) {
        Role::QrexecClient => program::qrexec_client(&argv0, arguments),
        Role::QrexecClientVm => program::qrexec_client_vm(&argv0, arguments),
        Role::QfileAgent => program::qfile_agent(arguments),
        Role::QfileUnpacker => program::qfile_unpacker(arguments),
        Role::QubeInit => qube::run_init(arguments),
        Role::SaltBridge => salt_bridge::run(std::iter::once(argv0).chain(arguments)),
        Role::Saltbridged => {
            end_with_host();
            qubes_rpc::run(std::iter::once(argv0).chain(arguments))
        }
        Role::Sim => command_line(std::iter::once(argv0).chain(arguments)),
    }
}

/// A daemon that a host started ends with its host, however that ends.
fn end_with_host() {
    #[expect(clippy::disallowed_methods, reason = "part of the main function")]
    let child = std::env::var_os(spawn::CHILD_OF_HOST).is_some();
    if child {
        // Without it the daemon of a killed host stays, which does no harm.
        let _ =
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
}

fn command_line(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match execute(arguments.command, arguments.plain.then_some(Mode::Plain)) {
        Ok(code) => code,
        Err(error) => {
            let mut line = format!("salt-bridge-sim: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                line.push_str(&format!(": {error}"));
                cause = error.source();
            }
            tell(&line);
            ExitCode::FAILURE
        }
    }
}

/// One line on standard error: standard output may carry a protocol.
fn tell(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

fn execute(command: Command, mode: Option<Mode>) -> Result<ExitCode, HostError> {
    let program = std::env::current_exe().map_err(HostError::Runtime)?;
    match command {
        Command::Demo => {
            let (_folder, host) = fresh(None, program, mode, None)?;
            demo::run(&host)
        }
        Command::Mcp { dir, scope } => {
            let signals = Signals::new().map_err(HostError::Runtime)?;
            let (_folder, host) = fresh(dir, program, mode, scope)?;
            tell(host.mode().sentence());
            let shim = host.layout().program("salt-bridge");
            let client = host.layout().program("qrexec-client-vm").into_os_string();
            let arguments = ["--qrexec-client-vm".into(), client];
            signals.serve(&shim, &arguments).map_err(HostError::Runtime)
        }
        Command::Host { dir, scope } => {
            let signals = Signals::new().map_err(HostError::Runtime)?;
            let (_folder, host) = fresh(Some(dir), program, mode, scope)?;
            tell(host.mode().sentence());
            tell("Simulated qubes are no security boundary.");
            let client = host.layout().program("qrexec-client-vm");
            tell(
                "The agent's way to dom0 (a name in its PATH, or --qrexec-client-vm of the agent):",
            );
            tell(&format!("  {} dom0 saltbridge.VmList", client.display()));
            tell("The agent, as an MCP server on standard input and output:");
            let agent = host.layout().program("salt-bridge");
            tell(&format!("  {} --qrexec-client-vm {}", agent.display(), client.display()));
            tell(&format!("dom0 is {}", host.root().display()));
            signals.wait();
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What asks this process to end, from before there is anything to end.
struct Signals {
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (interrupt, terminate) = {
            let _context = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        Ok(Self { runtime, interrupt, terminate })
    }

    /// Waits until this process is asked to end.
    fn wait(mut self) {
        self.runtime.block_on(async {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
        });
    }

    /// Serves MCP by the agent until it ends, or until this process is asked to end.
    fn serve(mut self, program: &Path, arguments: &[OsString]) -> io::Result<ExitCode> {
        let status = self.runtime.block_on(async {
            let mut agent = spawn::shim(program, arguments)?;
            tokio::select! {
                status = agent.wait() => return status,
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
            }
            agent.kill().await?;
            agent.wait().await
        });
        Ok(ExitCode::from(spawn::exit_code(status?)))
    }
}

/// A host in this folder, or in one of its own that vanishes with the first half of the pair.
fn fresh(
    dir: Option<PathBuf>,
    program: PathBuf,
    mode: Option<Mode>,
    scope: Option<PathBuf>,
) -> Result<(Option<tempfile::TempDir>, Host), HostError> {
    let scope = match scope {
        Some(file) => std::fs::read_to_string(file).map_err(HostError::Install)?,
        None => DEFAULT_SCOPE.to_owned(),
    };
    let (folder, dir) = match dir {
        Some(dir) => (None, dir),
        None => {
            let folder = tempfile::Builder::new()
                .prefix("salt-bridge-")
                .tempdir()
                .map_err(HostError::Folder)?;
            let dir = folder.path().to_owned();
            (Some(folder), dir)
        }
    };
    let options = HostOptions::new(dir, program);
    let population = options.population.clone().with_sandbox();
    let host = Host::start(HostOptions { mode, population, ..options })?;
    host.install(&scope)?;
    Ok((folder, host))
}
