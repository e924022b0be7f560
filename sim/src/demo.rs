//! `salt-bridge-sim demo`: every tool, called by a real MCP client, on a fresh host.

use std::process::ExitCode;

use crate::{Host, HostError};

/// Shows every tool on this host.
pub fn run(host: &Host) -> Result<ExitCode, HostError> {
    let _ = host;
    Ok(ExitCode::FAILURE)
}
