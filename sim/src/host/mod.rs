//! A simulated host: one folder, one thread, and the processes that belong to them.

mod control;
mod daemons;
mod error;
mod install;
mod shared;

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use tokio::sync::oneshot;

use crate::{
    layout::{DOM0, Layout, PROGRAMS, QUBES},
    population::Population,
    qrexec,
    qube::{Mode, Running, Setup, StartError},
    qubesd::{self, EventLog, lifecycle},
    role,
};

pub use control::QubeState;
pub use daemons::Daemon;
pub(crate) use daemons::Daemons;
pub use error::HostError;
pub use install::DEFAULT_SCOPE;
pub use shared::Consent;
pub(crate) use shared::Shared;

/// The policy that decides last.
const DEFAULT_POLICY: &str = include_str!("default.policy");

/// What a host is made of.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Its folder, which must be empty or not exist. A short path, since sockets lie in it.
    pub dir: PathBuf,
    /// The executable behind all its programs: `salt-bridge-sim` itself.
    pub program: PathBuf,
    /// How its qubes are kept apart; the best that this machine allows, unless given.
    pub mode: Option<Mode>,
    /// Its qubes.
    pub population: Population,
}

impl HostOptions {
    /// A host in this folder whose programs are links to this executable.
    pub fn new(dir: impl Into<PathBuf>, program: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            program: program.into(),
            mode: None,
            population: Population::default(),
        }
    }
}

/// A simulated host. Everything that belongs to it ends when it is dropped; its folder stays.
#[derive(Debug)]
pub struct Host {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Makes the folder, and starts everything that runs from the start.
    pub fn start(options: HostOptions) -> Result<Self, HostError> {
        let dir = std::path::absolute(&options.dir).map_err(HostError::Folder)?;
        let layout = Layout::new(dir);
        lay_out(&layout, &options.program).map_err(HostError::Folder)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(HostError::Runtime)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (tell, started) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("host".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    match boot(layout, options).await {
                        Ok(shared) => {
                            let keep = Arc::clone(&shared);
                            if tell.send(Ok(shared)).is_ok() {
                                // An error means that the host was dropped, which is the same.
                                drop(stopped.await);
                            }
                            keep.end().await;
                        }
                        Err(error) => drop(tell.send(Err(error))),
                    }
                });
                runtime.shutdown_background();
            })
            .map_err(HostError::Runtime)?;
        let shared = started.recv().map_err(|_| HostError::Gone)??;
        Ok(Self { shared, runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// dom0's root folder.
    pub fn root(&self) -> PathBuf {
        self.layout().root()
    }

    /// How the qubes are kept apart.
    pub fn mode(&self) -> Mode {
        self.shared.mode
    }

    /// Every event since the start.
    pub fn events(&self) -> EventLog {
        self.shared.system().events.clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to end.
            drop(thread.join());
        }
    }
}

/// Folders, and the programs as links to one executable.
fn lay_out(layout: &Layout, program: &Path) -> io::Result<()> {
    let dir = layout.dir();
    for folder in [
        "bin",
        QUBES,
        "dom0/run/qubes",
        "dom0/run/salt-bridge",
        "dom0/var/lib/qubes/appvms",
        "dom0/var/lib/qubes/vm-templates",
        "dom0/var/lib/salt-bridge",
        "dom0/var/log/salt-bridge",
        "dom0/etc/qubes/policy.d",
        "dom0/etc/qubes/policy.d/include",
        "dom0/etc/qubes-rpc",
        "dom0/usr/bin",
    ] {
        fs::create_dir_all(dir.join(folder))?;
    }
    let program = fs::canonicalize(program)?;
    for name in PROGRAMS.into_iter().chain([role::INIT]) {
        symlink(&program, layout.program(name))?;
    }
    for method in qubesd::methods() {
        symlink("../../var/run/qubesd.sock", layout.root().join("etc/qubes-rpc").join(method))?;
    }
    fs::write(layout.root().join("etc/qubes/policy.d/90-default.policy"), DEFAULT_POLICY)?;
    symlink("../run", layout.root().join("var/run"))?;
    symlink(&program, dir.join(DOM0).join("usr/bin/qrexec-client"))
}

async fn boot(layout: Layout, options: HostOptions) -> Result<Arc<Shared>, HostError> {
    let modes = options.mode.map_or_else(Mode::candidates, |mode| vec![mode]);
    let mut reason = None;
    for mode in modes {
        let shared = Arc::new(Shared::new(layout.clone(), mode, &options.population));
        shared.write_qubes().map_err(HostError::Folder)?;
        let first = options.population.running().next();
        match probe(&shared, first).await {
            Ok(()) => {
                qubesd::serve(&shared, &layout.qubesd_socket()).map_err(HostError::Socket)?;
                qrexec::serve(&shared, &layout.host_socket()).map_err(HostError::Socket)?;
                for name in options.population.running() {
                    lifecycle::assume_running(&shared, name)?;
                }
                return Ok(shared);
            }
            Err(error) => reason = Some(error),
        }
    }
    Err(reason.map_or(HostError::Gone, HostError::Qube))
}

/// Tries whether this machine allows the mode, with the first qube that is to run.
async fn probe(shared: &Arc<Shared>, name: Option<&str>) -> Result<(), StartError> {
    let setup = name.and_then(|name| {
        let system = shared.system();
        system.get(name).map(|qube| Setup { network: None, ..shared.setup(&system, qube) })
    });
    match setup {
        Some(setup) => Running::start(shared.layout.init(), setup).await.map(drop),
        None => Ok(()),
    }
}
