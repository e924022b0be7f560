//! `qrexec-client`: dom0's way into a qube.

use std::{ffi::OsString, io::Write as _, process::ExitCode};

use rustix::stdio;

use super::{
    ProgramError,
    home::Home,
    pump::Filter,
    session::{self, Ends, Sink},
    text,
};
use crate::wire::{Answer, Call};

const NAME: &str = "qrexec-client";
const USAGE: &str = "usage: qrexec-client [-w SECONDS] [-e] [-E] [-t] [-T] -d QUBE USER:COMMAND";

struct Options {
    target: String,
    command: String,
    just_exec: bool,
    no_exit_code: bool,
    stdout: Filter,
    stderr: Filter,
}

/// Runs the program with the arguments behind `argv[0]`.
pub(crate) fn qrexec_client(
    argv0: &OsString,
    arguments: impl Iterator<Item = OsString>,
) -> ExitCode {
    match parse_options(arguments.map(text)).and_then(|options| call(argv0, options)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => error.report(NAME),
    }
}

fn parse_options(mut arguments: impl Iterator<Item = String>) -> Result<Options, ProgramError> {
    let mut options = Options {
        target: String::new(),
        command: String::new(),
        just_exec: false,
        no_exit_code: false,
        stdout: Filter::None,
        stderr: Filter::None,
    };
    let mut words = false;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(ProgramError::Usage(USAGE));
        match argument.as_str() {
            "--" if !words => words = true,
            "-d" if !words => options.target = value()?,
            "-w" if !words => drop(value()?),
            "-e" if !words => options.just_exec = true,
            "-E" | "--no-exit-code" if !words => options.no_exit_code = true,
            "-t" if !words => options.stdout = Filter::Terminal,
            "-T" if !words => options.stderr = Filter::Terminal,
            flag if flag.starts_with('-') && !words => return Err(ProgramError::Usage(USAGE)),
            command if options.command.is_empty() => options.command = command.to_owned(),
            _ => return Err(ProgramError::Usage(USAGE)),
        }
    }
    if options.target.is_empty() || options.command.is_empty() {
        return Err(ProgramError::Usage(USAGE));
    }
    Ok(options)
}

fn call(argv0: &OsString, options: Options) -> Result<u8, ProgramError> {
    let home = Home::of(argv0)?;
    let call = Call::FromDom0 { target: options.target, command: options.command };
    let (answer, descriptors) = home.ask(&call)?;
    if let Answer::Exit { code, stderr } = &answer {
        drop(std::io::stderr().write_all(stderr.as_bytes()));
        return Ok(*code);
    }
    if options.just_exec {
        return Ok(0);
    }
    let host = |error: rustix::io::Errno| ProgramError::Host(error.into());
    let ends = Ends {
        source: rustix::io::fcntl_dupfd_cloexec(stdio::stdin(), 3).map_err(host)?,
        sink: Sink::Stdout,
        stdout: options.stdout,
        stderr: options.stderr,
    };
    let code = session::run(&answer, descriptors, ends)
        .ok_or_else(|| ProgramError::Host(std::io::ErrorKind::InvalidData.into()))?;
    Ok(if options.no_exit_code { 0 } else { code })
}
