//! `qrexec-client-vm`: a qube's way to services of dom0 and of other qubes.

use std::{ffi::OsString, io::Write as _, os::fd::OwnedFd, path::PathBuf, process::ExitCode};

use rustix::stdio;

use super::{
    ProgramError,
    home::Home,
    pump::Filter,
    session::{self, Ends, Sink},
    text,
};
use crate::{
    spawn,
    wire::{Answer, Call},
};

const NAME: &str = "qrexec-client-vm";
const USAGE: &str =
    "usage: qrexec-client-vm [options] target_vmname program_ident [local_program [arguments]]";

struct Options {
    target: String,
    service: String,
    local: Option<(PathBuf, Vec<OsString>)>,
    stdout: Filter,
    stderr: Filter,
}

/// Runs the program with the arguments behind `argv[0]`.
pub(crate) fn qrexec_client_vm(
    argv0: &OsString,
    arguments: impl Iterator<Item = OsString>,
) -> ExitCode {
    match parse_options(arguments).and_then(|options| call(argv0, options)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => error.report(NAME),
    }
}

fn parse_options(mut arguments: impl Iterator<Item = OsString>) -> Result<Options, ProgramError> {
    let (mut stdout, mut stderr) = (terminal(stdio::stdout()), terminal(stdio::stderr()));
    let target = loop {
        let argument = text(arguments.next().ok_or(ProgramError::Usage(USAGE))?);
        match argument.as_str() {
            "-t" | "--filter-escape-chars-stdout" => stdout = Filter::Terminal,
            "-T" | "--filter-escape-chars-stderr" => stderr = Filter::Terminal,
            "--no-filter-escape-chars-stdout" => stdout = Filter::None,
            "--no-filter-escape-chars-stderr" => stderr = Filter::None,
            "-s" | "--source-qube" | "--buffer-size" => drop(arguments.next()),
            "--" => break text(arguments.next().ok_or(ProgramError::Usage(USAGE))?),
            option if option.starts_with("--buffer-size=") => {}
            option if option.starts_with("--source-qube=") => {}
            option if option.starts_with('-') => return Err(ProgramError::Usage(USAGE)),
            _ => break argument,
        }
    };
    let service = text(arguments.next().ok_or(ProgramError::Usage(USAGE))?);
    let local = arguments.next().map(|program| (program.into(), arguments.collect()));
    if local.is_some() {
        stdout = Filter::None;
    }
    // Old programs write keywords with a dollar sign.
    Ok(Options { target: target.replace('$', "@"), service, local, stdout, stderr })
}

fn terminal(descriptor: std::os::fd::BorrowedFd<'_>) -> Filter {
    if rustix::termios::isatty(descriptor) { Filter::Terminal } else { Filter::None }
}

fn call(argv0: &OsString, options: Options) -> Result<u8, ProgramError> {
    let home = Home::of(argv0)?;
    let Options { target, service, local, stdout, stderr } = options;
    let call = Call::FromQube { source: home.source(), target, service };
    let (answer, descriptors) = home.ask(&call)?;
    if let Answer::Exit { code, stderr } = &answer {
        drop(std::io::stderr().write_all(stderr.as_bytes()));
        return Ok(*code);
    }
    let (source, sink, child) = match local {
        None => {
            let source = rustix::io::fcntl_dupfd_cloexec(stdio::stdin(), 3)
                .map_err(|error| ProgramError::Host(error.into()))?;
            (source, Sink::Stdout, None)
        }
        Some((program, arguments)) => {
            let mut child = spawn::local_program(&program, &arguments)
                .map_err(|error| ProgramError::Local(program, error))?;
            match (child.stdout.take(), child.stdin.take()) {
                (Some(output), Some(input)) => {
                    (OwnedFd::from(output), Sink::Pipe(input.into()), Some(child))
                }
                (_, _) => return Err(ProgramError::Usage(USAGE)),
            }
        }
    };
    let code = session::run(&answer, descriptors, Ends { source, sink, stdout, stderr })
        .ok_or_else(|| ProgramError::Host(std::io::ErrorKind::InvalidData.into()))?;
    match child {
        Some(mut child) if code == 0 => {
            let status = child.wait().map_err(ProgramError::Host)?;
            Ok(spawn::exit_code(status))
        }
        Some(_) | None => Ok(code),
    }
}
