//! A call that is connected: both directions, the second stream, and the end.

use std::{
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    thread,
};

use rustix::{event::PollFlags, io::read, stdio};

use super::pump::{Filter, pump, wait};
use crate::wire::Answer;

/// The exit code of a call whose far side vanished before it told its own.
const GONE: u8 = 255;

/// Where the caller's bytes come from and go to.
pub(super) struct Ends {
    /// Read until its end.
    pub(super) source: OwnedFd,
    /// Written, and closed at the far side's end of output.
    pub(super) sink: Sink,
    /// For the main stream.
    pub(super) stdout: Filter,
    /// For the second stream.
    pub(super) stderr: Filter,
}

/// Where the main stream goes.
pub(super) enum Sink {
    /// The program's own standard output.
    Stdout,
    /// The standard input of a local program.
    Pipe(OwnedFd),
}

impl Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stdout => stdio::stdout(),
            Self::Pipe(pipe) => pipe.as_fd(),
        }
    }

    /// Lets the reader of the main stream see its end, before the program itself ends.
    fn close(self) {
        match self {
            Self::Stdout => {
                if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
                    let _ = stdio::dup2_stdout(null);
                }
            }
            Self::Pipe(pipe) => drop(pipe),
        }
    }
}

/// Runs the call to its end and gives its exit code. `None`: the answer lacks its descriptors.
pub(super) fn run(answer: &Answer, descriptors: Vec<OwnedFd>, ends: Ends) -> Option<u8> {
    let mut descriptors = descriptors.into_iter();
    let first = descriptors.next()?;
    match answer {
        Answer::Exit { code, .. } => Some(*code),
        Answer::Socket => Some(socket(UnixStream::from(first), ends)),
        Answer::Pipes => {
            Some(pipes(first, descriptors.next()?, descriptors.next()?, &descriptors.next()?, ends))
        }
    }
}

fn pipes(stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd, end: &OwnedFd, ends: Ends) -> u8 {
    let Ends { source, sink, stdout: filter, stderr: second } = ends;
    thread::spawn(move || pump(source, stdin, Filter::None));
    let errors = thread::spawn(move || pump(stderr, stdio::stderr(), second));
    pump(stdout, sink.as_fd(), filter);
    sink.close();
    // A thread that cannot be joined has panicked and has nothing more to bring.
    drop(errors.join());
    let mut code = [0];
    loop {
        match read(end, &mut code) {
            Ok(1) => return code[0],
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return GONE,
        }
    }
}

fn socket(service: UnixStream, ends: Ends) -> u8 {
    let Ends { source, sink, stdout: filter, .. } = ends;
    let Ok(far) = service.try_clone() else { return GONE };
    thread::spawn(move || {
        pump(source, &far, Filter::None);
        // The service may be gone already.
        drop(far.shutdown(Shutdown::Write));
    });
    pump(&service, sink.as_fd(), filter);
    sink.close();
    // The call lasts until the caller's side has ended too, or the service has hung up.
    wait(service.as_fd(), PollFlags::empty());
    0
}
