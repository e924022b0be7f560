//! systemd's own programs, as the operator's commands run them.

use std::{
    io,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

/// The program that speaks to systemd.
pub(crate) const SYSTEMCTL: &str = "/usr/bin/systemctl";

/// Why the system did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemError {
    /// The program could not be started.
    #[error("cannot run {0}")]
    Run(&'static str, #[source] io::Error),
    /// The program failed; it has said why itself.
    #[error("{program} {arguments} ended with {status}")]
    Status {
        /// The program.
        program: &'static str,
        /// Its arguments.
        arguments: String,
        /// How it ended.
        status: ExitStatus,
    },
}

/// Whether this root is the machine itself, so that its systemd is meant too.
pub(crate) fn is_meant(root: &Path) -> bool {
    root == Path::new("/")
}

/// Runs a program to its end.
pub(crate) fn run(program: &'static str, arguments: &[&str]) -> Result<(), SystemError> {
    let status = command(program, arguments)
        .stdout(Stdio::null())
        .status()
        .map_err(|error| SystemError::Run(program, error))?;
    if status.success() {
        return Ok(());
    }
    Err(SystemError::Status { program, arguments: arguments.join(" "), status })
}

/// What a program prints, however it ends.
pub(crate) fn output(program: &'static str, arguments: &[&str]) -> Result<Vec<u8>, SystemError> {
    let output = command(program, arguments).stderr(Stdio::null()).output();
    Ok(output.map_err(|error| SystemError::Run(program, error))?.stdout)
}

/// A child that inherits nothing but standard error.
pub(crate) fn command(program: &'static str, arguments: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "systemd's own tools, as the operator asked")]
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin").stdin(Stdio::null());
    command
}
