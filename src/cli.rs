//! The command line, and the one thread on which everything runs.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};

use crate::{
    agent::Agent,
    catalogue::{CatalogueError, Tools},
    commands::{self, call, doctor, topology, transfer},
    confinement::Writes,
    harden, http, log, onion,
    principals::command as token,
    qrexec::Qrexec,
    server::Server,
    stdio,
    transfer::Transfers,
};

const AFTER_HELP: &str = "\
Speaks MCP (revisions 2026-07-28, 2025-11-25 and older) on standard input and output; log lines \
go to standard error. Every call crosses qrexec into dom0, and dom0 alone decides.

Add it to Claude Code, in the qube where both run:
  claude mcp add --scope user salt-bridge -- salt-bridge
or as .mcp.json:
  {\"mcpServers\": {\"salt-bridge\": {\"command\": \"salt-bridge\"}}}";

/// MCP server that lets an AI agent manage other qubes of this Qubes OS machine.
///
/// Without a command it serves one client on standard input and output.
#[derive(Debug, Parser)]
#[command(name = "salt-bridge", version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    calls: Calls,
    #[command(subcommand)]
    command: Option<Command>,
}

/// How calls to dom0 are made; the same for every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Calls {
    /// The program that makes qrexec calls
    #[arg(long, global = true, value_name = "PATH", default_value = "qrexec-client-vm")]
    qrexec_client_vm: PathBuf,
    /// Offer tools that move files between qubes and this folder of the agent's own qube
    #[arg(long, global = true, value_name = "DIR")]
    transfer_dir: Option<PathBuf>,
    /// Serve without Landlock, for a qube where qrexec does not work under it
    #[arg(long, global = true)]
    unconfined: bool,
}

impl Calls {
    /// The program that makes qrexec calls.
    pub(crate) fn program(&self) -> &Path {
        &self.qrexec_client_vm
    }

    /// What a process that serves so may still write to.
    pub(crate) fn writes(&self) -> Writes {
        Writes { transfers: self.transfer_dir.clone(), is_off: self.unconfined }
    }

    /// Whether files of this qube are offered.
    pub(crate) fn has_transfers(&self) -> bool {
        self.transfer_dir.is_some()
    }

    /// The agent that makes its calls so.
    pub(crate) fn agent(self) -> Result<Arc<Agent>, AgentError> {
        let agent = Agent::new(Tools::compiled()?, Qrexec::new(self.qrexec_client_vm));
        let Some(path) = self.transfer_dir else { return Ok(Arc::new(agent)) };
        let transfers =
            Transfers::open(&path).map_err(|source| AgentError::Folder { path, source })?;
        Ok(Arc::new(agent.with_transfers(transfers)))
    }

    /// A server of that agent.
    pub(crate) fn server(self) -> Result<Server, AgentError> {
        Ok(Server::new(self.agent()?))
    }
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    /// The catalogue is of no use.
    #[error("the catalogue of services compiled into this program cannot be used")]
    Catalogue(#[from] CatalogueError),
    /// The folder of `--transfer-dir` cannot be opened.
    #[error("cannot open the folder {}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// One row for each command. Its module has the `Arguments` and
/// `run(Arguments, Calls) -> Result<ExitCode, Error>`; an [`Error`] here keeps its own.
#[derive(Debug, Subcommand)]
enum Command {
    /// Call a tool and show its result
    Call(call::Arguments),
    /// Find out whether calls reach dom0 and what they may do, and what to do if not
    Doctor(doctor::Arguments),
    /// Send a file or a folder into a qube
    Upload(transfer::Upload),
    /// Fetch a file or a folder from a qube
    Download(transfer::Download),
    /// Confine what serves remote clients in this qube: shows a plan, asks, and can undo it
    Harden(harden::Arguments),
    /// Set up tor onion services for sshd and `serve`, with keys for their clients
    Onion(onion::Arguments),
    /// Serve MCP over HTTP, on a loopback port or a Unix socket
    Serve(http::Arguments),
    /// Serve what the conformance suite asks for
    #[cfg(feature = "conformance")]
    Conformance(http::conformance::Arguments),
    /// Give tokens for `serve` to others, and take them back
    Token(token::Arguments),
    /// Show the qubes in scope and who gets the network from whom
    Topology(topology::Arguments),
}

/// The command line, for manual pages and completions.
pub fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Runs the program with these arguments, of which the first is its own name.
///
/// Returns with 0 when standard input ends or a signal asks for it, or with what a command says;
/// with 1 when it could not serve, with 2 when the arguments are wrong.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to tell when the terminal is gone.
            drop(error.print());
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let Arguments { calls, command } = arguments;
    let outcome = match command {
        None => serve(calls),
        Some(Command::Call(arguments)) => call::run(arguments, calls).map_err(Error::from),
        Some(Command::Doctor(arguments)) => doctor::run(arguments, calls).map_err(Error::from),
        Some(Command::Upload(arguments)) => transfer::upload(arguments, calls).map_err(Error::from),
        Some(Command::Download(arguments)) => {
            transfer::download(arguments, calls).map_err(Error::from)
        }
        Some(Command::Harden(arguments)) => harden::run(&arguments).map_err(Error::from),
        Some(Command::Onion(arguments)) => onion::run(arguments).map_err(Error::from),
        Some(Command::Serve(arguments)) => http::run(arguments, calls).map_err(Error::from),
        #[cfg(feature = "conformance")]
        Some(Command::Conformance(arguments)) => {
            http::conformance::run(&arguments).map_err(Error::from)
        }
        Some(Command::Token(arguments)) => token::run(arguments).map_err(Error::from),
        Some(Command::Topology(arguments)) => topology::run(&arguments, calls).map_err(Error::from),
    };
    outcome.unwrap_or_else(|error| {
        log::error(&error);
        ExitCode::FAILURE
    })
}

/// Why the program could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("no event loop")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    Session(#[from] stdio::SessionError),
    #[error(transparent)]
    Command(#[from] commands::CommandError),
    #[error(transparent)]
    Harden(#[from] harden::HardenError),
    #[error(transparent)]
    Onion(#[from] onion::OnionError),
    #[error(transparent)]
    Serve(#[from] http::ServeError),
    #[error(transparent)]
    Token(#[from] token::TokenCommandError),
}

fn serve(calls: Calls) -> Result<ExitCode, Error> {
    let writes = calls.writes();
    let server = calls.server()?;
    // Before there is a thread that would stay unconfined.
    writes.confine(None);
    on_one_thread(stdio::serve(server)).map_err(Error::Runtime)??;
    Ok(ExitCode::SUCCESS)
}

/// Runs this, and the tasks that it starts, on the one thread of the program. An error means that
/// there is no event loop.
pub(crate) fn on_one_thread<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A thread may still be blocked in reading standard input.
    runtime.shutdown_background();
    Ok(outcome)
}
