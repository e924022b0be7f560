//! dom0's daemons: the same `saltbridged` as on a real machine, started on this host's files.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::Child,
    time::{sleep, timeout},
};

use super::{Host, HostError, Shared};
use crate::spawn;

/// The longest a daemon may take until it listens.
const LISTEN: Duration = Duration::from_secs(10);
/// The longest a daemon may take to end when it is asked to.
const END: Duration = Duration::from_secs(10);
/// The pause between two looks whether it listens.
const LOOK: Duration = Duration::from_millis(2);

/// One of dom0's daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    /// `saltbridged serve`.
    Serve,
    /// `saltbridged tcp-policy`.
    TcpPolicy,
}

impl Daemon {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Serve, Self::TcpPolicy];

    const fn command(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::TcpPolicy => "tcp-policy",
        }
    }

    fn socket(self, shared: &Shared) -> PathBuf {
        let paths = qubes_rpc::paths::Paths::below(shared.layout.root());
        match self {
            Self::Serve => paths.qrexec_socket(),
            Self::TcpPolicy => paths.tcp_policy_socket(),
        }
    }
}

/// The daemons that run.
#[derive(Debug, Default)]
pub(crate) struct Daemons(Mutex<BTreeMap<Daemon, Child>>);

impl Daemons {
    fn take(&self, daemon: Daemon) -> Option<Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&daemon)
    }

    fn put(&self, daemon: Daemon, child: Child) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(daemon, child);
    }

    fn pid(&self, daemon: Daemon) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&daemon)?.id()
    }

    /// Ends all of them.
    pub(super) async fn end(&self) {
        for daemon in Daemon::ALL {
            stop(self, daemon, Signal::TERM).await;
        }
    }
}

async fn stop(daemons: &Daemons, daemon: Daemon, signal: Signal) {
    let Some(mut child) = daemons.take(daemon) else { return };
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
    if timeout(END, child.wait()).await.is_err() {
        drop(child.kill().await);
    }
}

async fn start(shared: &Shared, daemon: Daemon, more: &[String]) -> Result<(), HostError> {
    let failed = |error| HostError::Daemon(daemon.command(), error);
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(shared.layout.daemon_log())
        .map_err(failed)?;
    let (root, socket) = (shared.layout.root(), daemon.socket(shared));
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let mut arguments: Vec<&OsStr> = vec![
        OsStr::new("--root"),
        root.as_os_str(),
        OsStr::new(daemon.command()),
        OsStr::new("--listen"),
        socket.as_os_str(),
    ];
    arguments.extend(more.iter().map(OsStr::new));
    let program = shared.layout.program("saltbridged");
    let mut child = spawn::daemon(&program, &arguments, &log).map_err(failed)?;
    let listening = async {
        while !listens(&socket) {
            if let Ok(Some(_)) = child.try_wait() {
                return Err(failed(io::ErrorKind::BrokenPipe.into()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    };
    timeout(LISTEN, listening).await.map_err(|_| failed(io::ErrorKind::TimedOut.into()))??;
    shared.daemons.put(daemon, child);
    Ok(())
}

/// Whether a socket of this path takes connections, asked of the kernel: a connection that says
/// nothing would be a call of its own.
fn listens(socket: &Path) -> bool {
    /// The flag of a socket that listens, as `/proc/net/unix` writes it.
    const LISTENING: &str = "00010000";
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let path = socket.to_string_lossy();
    sockets.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        fields.nth(3) == Some(LISTENING) && line.ends_with(path.as_ref())
    })
}

impl Host {
    /// Starts a daemon, with these arguments besides its usual ones, and waits until it listens. One
    /// that runs already is ended first.
    pub fn start_daemon(&self, daemon: Daemon, arguments: &[&str]) -> Result<(), HostError> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        self.on_thread(move |shared| async move {
            stop(&shared.daemons, daemon, Signal::TERM).await;
            start(&shared, daemon, &arguments).await
        })
    }

    /// Asks a daemon to end, and waits for it.
    pub fn stop_daemon(&self, daemon: Daemon) -> Result<(), HostError> {
        self.on_thread(move |shared| async move {
            stop(&shared.daemons, daemon, Signal::TERM).await;
            Ok(())
        })
    }

    /// Kills a daemon without a warning.
    pub fn kill_daemon(&self, daemon: Daemon) -> Result<(), HostError> {
        self.on_thread(move |shared| async move {
            stop(&shared.daemons, daemon, Signal::KILL).await;
            Ok(())
        })
    }

    /// The process of a daemon, if it was started.
    pub fn daemon_pid(&self, daemon: Daemon) -> Option<u32> {
        self.shared.daemons.pid(daemon)
    }
}
