//! A qube that runs, as the host holds it.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    process::Signal,
};
use tokio::{
    net::UnixStream,
    sync::{OnceCell, watch},
    time::timeout,
};

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
    program: PathBuf,
    setup: Setup,
    process: OnceCell<Process>,
    ended: watch::Sender<bool>,
}

#[derive(Debug)]
struct Process {
    socket: OwnedFd,
    pid: i32,
}

impl Running {
    /// A qube that counts as running. Its init starts with the first order, because most qubes of
    /// a host are never given one.
    pub(crate) fn idle(program: PathBuf, setup: Setup) -> Self {
        Self { program, setup, process: OnceCell::new(), ended: watch::Sender::new(false) }
    }

    /// Starts the init of a qube and waits until it takes orders.
    pub(crate) async fn start(program: PathBuf, setup: Setup) -> Result<Self, StartError> {
        let running = Self::idle(program, setup);
        running.process().await?;
        Ok(running)
    }

    async fn process(&self) -> Result<&Process, StartError> {
        let boot = || boot(&self.program, &self.setup, self.ended.clone());
        self.process.get_or_try_init(boot).await
    }

    /// Gives an order, with the descriptors that belong to it.
    pub(crate) async fn order(
        &self,
        order: &Order,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        if *order == Order::Shutdown && !self.process.initialized() {
            self.ended.send_replace(true);
            return Ok(());
        }
        let process = self.process().await.map_err(io::Error::other)?;
        wire::send(&process.socket, order, descriptors)
    }

    /// Ends every process at once, without asking.
    pub(crate) fn kill(&self) {
        let Some(process) = self.process.get() else {
            self.ended.send_replace(true);
            return;
        };
        if *self.ended.borrow() {
            return;
        }
        let mut all = descendants(process.pid);
        match self.setup.mode {
            // The end of the init is that of its process namespace, and is over when all are gone.
            Mode::Root | Mode::UserNamespace => all.truncate(1),
            Mode::Plain => all.insert(0, process.pid),
        }
        signal(&all, Signal::KILL);
    }

    /// Becomes true when the first process has ended.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// The process that this host started for the qube, if it had to.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.get().map(|process| process.pid)
    }
}

async fn boot(
    program: &Path,
    setup: &Setup,
    ended: watch::Sender<bool>,
) -> Result<Process, StartError> {
    root::create(setup).map_err(StartError::Folder)?;
    let flags = SocketFlags::CLOEXEC;
    let (socket, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(|error| StartError::Spawn(error.into()))?;
    let mut child = spawn::init(program, setup, far).map_err(StartError::Spawn)?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
    let socket = wire::registered(socket).map_err(StartError::Spawn)?;
    match timeout(READY, report(&socket)).await {
        Ok(Ok(Report::Ready)) => {}
        Ok(Ok(Report::Failed(reason))) => return Err(StartError::Setup(reason)),
        Ok(Err(error)) => return Err(StartError::Silent(error)),
        Err(_elapsed) => return Err(StartError::Silent(io::ErrorKind::TimedOut.into())),
    }
    tokio::spawn(async move {
        // However it ended, it has.
        drop(child.wait().await);
        ended.send_replace(true);
    });
    let socket = socket.into_std().map_err(StartError::Spawn)?;
    socket.set_nonblocking(false).map_err(StartError::Spawn)?;
    Ok(Process { socket: socket.into(), pid })
}

async fn report(socket: &UnixStream) -> io::Result<Report> {
    let message = wire::next(socket, &mut Vec::new()).await?;
    message.map(|(report, _)| report).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
