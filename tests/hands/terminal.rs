//! The agent's commands, as a person or a script starts them.
#![expect(clippy::disallowed_methods, reason = "tests start the programs under test")]

use std::{path::Path, process::Stdio};

use tokio::process::{Child, Command};

use super::machine::{Machine, Told};

/// Starts a command of the agent in a folder.
pub(crate) fn start(machine: &Machine, folder: &Path, arguments: &[&str]) -> Child {
    let layout = machine.host.layout();
    let mut command = Command::new(layout.program("salt-bridge"));
    command.args(arguments).arg("--qrexec-client-vm").arg(layout.program("qrexec-client-vm"));
    command.current_dir(folder).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Runs a command of the agent to its end.
pub(crate) async fn run(machine: &Machine, folder: &Path, arguments: &[&str]) -> Told {
    start(machine, folder, arguments).wait_with_output().await.unwrap().into()
}
