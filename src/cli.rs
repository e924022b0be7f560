//! The command line, and the one thread on which everything runs.

use std::{ffi::OsString, io::Write, path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::task::LocalSet;

use crate::{
    catalogue::{CatalogueError, Tools},
    qrexec::Qrexec,
    server::Server,
    stdio,
};

const AFTER_HELP: &str = "\
Speaks MCP (revisions 2026-07-28, 2025-11-25 and older) on standard input and output; log lines \
go to standard error. Every call crosses qrexec into dom0, and dom0 alone decides.

Add it to Claude Code, in the qube where both run:
  claude mcp add --scope user salt-bridge -- salt-bridge
or as .mcp.json:
  {\"mcpServers\": {\"salt-bridge\": {\"command\": \"salt-bridge\"}}}";

/// MCP server that lets an AI agent manage other qubes of this Qubes OS machine.
#[derive(Debug, Parser)]
#[command(name = "salt-bridge", version, after_help = AFTER_HELP)]
struct Arguments {
    /// The program that makes qrexec calls
    #[arg(long, value_name = "PATH", default_value = "qrexec-client-vm")]
    qrexec_client_vm: PathBuf,
}

/// Runs the program with these arguments, of which the first is its own name.
///
/// Returns when standard input ends or a signal asks for it, with 0; with 1 when it could not
/// serve, with 2 when the arguments are wrong.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to tell when the terminal is gone.
            drop(error.print());
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log(&error);
            ExitCode::FAILURE
        }
    }
}

/// Why the program could not serve.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the catalogue of services compiled into this program cannot be used")]
    Catalogue(#[from] CatalogueError),
    #[error("no event loop")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Session(#[from] stdio::SessionError),
}

fn serve(arguments: Arguments) -> Result<(), StartError> {
    let tools = Tools::compiled()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let server = Server::new(tools, Qrexec::new(arguments.qrexec_client_vm));
    let outcome = LocalSet::new().block_on(&runtime, stdio::serve(server));
    // A thread may still be blocked in reading standard input.
    runtime.shutdown_background();
    Ok(outcome?)
}

/// Writes a line to standard error, with the causes of the error behind it.
fn log(error: &dyn std::error::Error) {
    let mut line = format!("salt-bridge: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    drop(writeln!(std::io::stderr(), "{line}"));
}
