//! What a program gets for its call: descriptors, or an exit code at once.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::wire::{self, Answer};

/// The size of a pipe of a call, in bytes. A machine may allow less.
const PIPE_BYTES: usize = 1024 * 1024;

/// A call that is answered.
#[derive(Debug)]
pub(crate) struct Connection {
    answer: Answer,
    descriptors: Vec<OwnedFd>,
}

impl Connection {
    /// Nothing to connect to.
    pub(crate) fn exit(code: u8, stderr: impl Into<String>) -> Self {
        let answer = Answer::Exit { code, stderr: stderr.into() };
        Self { answer, descriptors: Vec::new() }
    }

    /// A process behind four pipes.
    pub(super) fn pipes(ends: [OwnedFd; 4]) -> Self {
        Self { answer: Answer::Pipes, descriptors: ends.into() }
    }

    /// A service behind a socket.
    pub(super) fn socket(socket: OwnedFd) -> Self {
        Self { answer: Answer::Socket, descriptors: vec![socket] }
    }

    /// Hands it over.
    pub(super) fn send(&self, program: impl AsFd) -> io::Result<()> {
        let descriptors: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
        wire::send(program, &self.answer, &descriptors)
    }
}

/// Four pipes: what the process gets (stdin, stdout, stderr, its end), and what the caller gets.
pub(super) fn pipes() -> io::Result<([OwnedFd; 4], [OwnedFd; 4])> {
    let large = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        // A smaller pipe is only slower.
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Ok((read, write))
    };
    let (stdin, to_stdin) = large()?;
    let (from_stdout, stdout) = large()?;
    let (from_stderr, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let (told, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok(([stdin, stdout, stderr, tell], [to_stdin, from_stdout, from_stderr, told]))
}
