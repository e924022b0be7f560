//! Finds the host that a program belongs to, and the qube it is called from.

use std::{
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::ProgramError;
use crate::{
    layout::{HOST_SOCKET, QUBES},
    population::AGENT,
    wire::{self, Answer, Call},
};

/// Where a program lies.
#[derive(Debug)]
pub(super) struct Home {
    program: PathBuf,
    dir: PathBuf,
}

impl Home {
    /// The home of the program started as `argv0`: the nearest folder above it with a host's
    /// socket. Links are not followed, because all programs are links to one file.
    pub(super) fn of(argv0: &OsStr) -> Result<Self, ProgramError> {
        let program = located(argv0);
        let dir = program
            .ancestors()
            .skip(1)
            .find(|dir| dir.join(HOST_SOCKET).exists())
            .map(Path::to_path_buf);
        match dir {
            Some(dir) => Ok(Self { program, dir }),
            None => Err(ProgramError::NoHost(program)),
        }
    }

    /// The qube whose program this is: the one of `DIR/qubes/NAME/bin`, else the agent.
    pub(super) fn source(&self) -> String {
        let inside = self.program.strip_prefix(self.dir.join(QUBES)).ok();
        let name = inside.and_then(|path| path.iter().next()).and_then(OsStr::to_str);
        name.unwrap_or(AGENT).to_owned()
    }

    /// Hands the host a call and waits for its answer.
    pub(super) fn ask(&self, call: &Call) -> Result<(Answer, Vec<OwnedFd>), ProgramError> {
        self.exchange(call).map_err(ProgramError::Host)
    }

    fn exchange(&self, call: &Call) -> std::io::Result<(Answer, Vec<OwnedFd>)> {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(self.dir.join(HOST_SOCKET))?)?;
        wire::send(&socket, call, &[])?;
        wire::receive(&socket, &mut Vec::new())?
            .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// The program's path: `argv0` itself, or the entry of `PATH` that it was found through.
fn located(argv0: &OsStr) -> PathBuf {
    let named = PathBuf::from(argv0);
    if argv0.as_bytes().contains(&b'/') {
        return std::path::absolute(&named).unwrap_or(named);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "a program started by its bare name has no other way to learn where it lies"
    )]
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(&named))
        .find(|candidate| candidate.exists())
        .unwrap_or(named)
}
