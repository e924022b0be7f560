//! A qube that runs, as the host holds it.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::Signal,
};
use tokio::{net::UnixStream, sync::watch, time::timeout};

use super::{
    Mode, Report, Setup,
    process::{descendants, signal},
    root,
};
use crate::{
    spawn,
    wire::{self, Order},
};

/// The longest a qube may take until it takes orders.
const READY: Duration = Duration::from_secs(20);

/// A qube did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its folder cannot be made.
    #[error("cannot make the folder of the qube")]
    Folder(#[source] io::Error),
    /// Its first process does not start.
    #[error("cannot start the first process of the qube")]
    Spawn(#[source] io::Error),
    /// Its first process ended or said nothing in time.
    #[error("the first process of the qube does not answer")]
    Silent(#[source] io::Error),
    /// Its first process could not set it up.
    #[error("the qube cannot be set up: {0}")]
    Setup(String),
}

/// A running qube. Its processes end when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    socket: OwnedFd,
    mode: Mode,
    pid: i32,
    ended: watch::Receiver<bool>,
}

impl Running {
    /// Starts the init of a qube and waits until it takes orders.
    pub(crate) async fn start(program: &Path, setup: &Setup) -> Result<Self, StartError> {
        root::create(setup).map_err(StartError::Folder)?;
        let spawn_error = |error: rustix::io::Errno| StartError::Spawn(error.into());
        let (socket, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(spawn_error)?;
        let mut child = spawn::init(program, setup, far).map_err(StartError::Spawn)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        let socket = wire::registered(socket).map_err(StartError::Spawn)?;
        match timeout(READY, report(&socket)).await {
            Ok(Ok(Report::Ready)) => {}
            Ok(Ok(Report::Failed(reason))) => return Err(StartError::Setup(reason)),
            Ok(Err(error)) => return Err(StartError::Silent(error)),
            Err(_elapsed) => return Err(StartError::Silent(io::ErrorKind::TimedOut.into())),
        }
        let (tell, ended) = watch::channel(false);
        tokio::spawn(async move {
            // However it ended, it has.
            drop(child.wait().await);
            let _ = tell.send(true);
        });
        let socket = socket.into_std().map_err(StartError::Spawn)?;
        socket.set_nonblocking(false).map_err(StartError::Spawn)?;
        Ok(Self { socket: socket.into(), mode: setup.mode, pid, ended })
    }

    /// Gives an order, with the descriptors that belong to it.
    pub(crate) fn order(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        wire::send(&self.socket, order, descriptors)
    }

    /// Ends every process at once, without asking.
    pub(crate) fn kill(&self) {
        if *self.ended.borrow() {
            return;
        }
        let mut all = descendants(self.pid);
        match self.mode {
            // The end of the init is that of its process namespace, and is over when all are gone.
            Mode::Root | Mode::UserNamespace => all.truncate(1),
            Mode::Plain => all.insert(0, self.pid),
        }
        signal(&all, Signal::KILL);
    }

    /// Becomes true when the first process has ended.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.clone()
    }

    /// The process that this host started for the qube.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }
}

async fn report(socket: &UnixStream) -> io::Result<Report> {
    let message = wire::next(socket, &mut Vec::new()).await?;
    message.map(|(report, _)| report).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
