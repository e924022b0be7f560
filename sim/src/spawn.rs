//! The one place of this crate that starts processes.
#![expect(
    clippy::disallowed_methods,
    reason = "the simulated host starts qubes, services, daemons and local programs, and only here"
)]

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::stdio;

use crate::{
    qube::{Mode, Setup},
    wire,
};

/// Set for the daemons of a host: they end with it.
pub(crate) const CHILD_OF_HOST: &str = "SALT_BRIDGE_SIM_CHILD";
/// The search path of everything that runs in a qube or as a service of dom0.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// How qrexec tells the end of a process: its code, or 128 and the signal's number.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Starts the program at the caller's end of a call, which finds the caller's own standard input
/// and output as the descriptors `SAVED_FD_0` and `SAVED_FD_1`.
pub(crate) fn local_program(program: &Path, arguments: &[OsString]) -> io::Result<Child> {
    let (input, output) = (rustix::io::dup(stdio::stdin())?, rustix::io::dup(stdio::stdout())?);
    let number = |fd: &OwnedFd| std::os::fd::AsRawFd::as_raw_fd(fd).to_string();
    Command::new(program)
        .arg0(program.file_name().unwrap_or(program.as_os_str()))
        .args(arguments)
        .env("SAVED_FD_0", number(&input))
        .env("SAVED_FD_1", number(&output))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
}

/// Starts the first process of a qube, with its end of the host's socket as standard input.
pub(crate) fn init(
    program: &Path,
    setup: &Setup,
    socket: OwnedFd,
) -> io::Result<tokio::process::Child> {
    let mut command = match setup.mode {
        Mode::Plain => Command::new(program),
        Mode::Root | Mode::UserNamespace => {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net"]);
            if setup.mode == Mode::UserNamespace {
                command.args(["--user", "--map-root-user"]);
            }
            command.arg("--").arg(program);
            command
        }
    };
    command.arg(serde_json::to_string(setup)?).stdin(socket).stdout(Stdio::null());
    command.stderr(Stdio::null()).process_group(0);
    tokio::process::Command::from(command).kill_on_drop(true).spawn()
}

/// Whom a command runs as, and where.
#[derive(Debug)]
pub(crate) struct Login<'a> {
    /// The name.
    pub(crate) name: &'a str,
    /// The numeric user and group, if they are to be changed.
    pub(crate) id: Option<u32>,
    /// The home folder.
    pub(crate) home: &'a Path,
    /// The folder of the programs that Qubes would have in the qube.
    pub(crate) programs: &'a Path,
    /// Where temporary files go, if not to `/tmp`.
    pub(crate) temporary: Option<&'a Path>,
}

/// Starts a command in the qube that this process is the init of, and gives its process id.
pub(crate) fn in_qube(
    login: &Login<'_>,
    run: &wire::Command,
    [stdin, stdout, stderr]: [OwnedFd; 3],
) -> io::Result<u32> {
    let Some((program, arguments)) = run.argv.split_first() else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(run.environment.iter().cloned());
    let own = login.programs.to_string_lossy();
    command
        .env("PATH", format!("{SEARCH_PATH}:{own}"))
        .env("HOME", login.home)
        .env("SHELL", "/bin/bash");
    command.env("USER", login.name).env("LOGNAME", login.name).env("LANG", "C.UTF-8");
    if let Some(temporary) = login.temporary {
        command.env("TMPDIR", temporary);
    }
    if let Some(id) = login.id {
        command.uid(id).gid(id);
    }
    command.current_dir(login.home).process_group(0);
    Ok(command.stdin(stdin).stdout(stdout).stderr(stderr).spawn()?.id())
}

/// Runs the program `ip` on these lines, unheard. It stops at the first that fails.
pub(crate) fn ip(lines: &str) -> io::Result<ExitStatus> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .env("PATH", SEARCH_PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that stopped early says so with its exit code.
        drop(stdin.write_all(lines.as_bytes()));
    }
    child.wait()
}

/// Starts an executable service of dom0.
pub(crate) fn dom0_service(
    program: &Path,
    argument: Option<&str>,
    environment: &[(String, String)],
    [stdin, stdout, stderr]: [OwnedFd; 3],
) -> io::Result<tokio::process::Child> {
    let mut command = Command::new(program);
    command.args(argument).envs(environment.iter().cloned()).process_group(0);
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    tokio::process::Command::from(command).spawn()
}

/// Starts a daemon of dom0 that ends with the host.
pub(crate) fn daemon(
    program: &Path,
    arguments: &[&OsStr],
    log: &std::fs::File,
) -> io::Result<tokio::process::Child> {
    let mut command = Command::new(program);
    command.args(arguments).env(CHILD_OF_HOST, "1").stdin(Stdio::null()).process_group(0);
    command.stdout(log.as_fd().try_clone_to_owned()?).stderr(log.as_fd().try_clone_to_owned()?);
    tokio::process::Command::from(command).kill_on_drop(true).spawn()
}

/// Starts the agent's MCP server on this process' own standard streams.
pub(crate) fn shim(program: &Path, arguments: &[OsString]) -> io::Result<tokio::process::Child> {
    let mut command = Command::new(program);
    command.args(arguments);
    tokio::process::Command::from(command).kill_on_drop(true).spawn()
}

/// Starts the agent's MCP server for a client in this process.
pub(crate) fn agent(program: &Path, qrexec_client_vm: &Path) -> io::Result<tokio::process::Child> {
    let mut command = Command::new(program);
    command.arg("--qrexec-client-vm").arg(qrexec_client_vm);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    tokio::process::Command::from(command).kill_on_drop(true).spawn()
}
