//! What all parts of a host share.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    layout::Layout,
    population::Population,
    qube::{Mode, Setup},
    qubesd::{EventLog, Faults, Qube, System},
    wire::Order,
};

/// The state of a host. No lock is held across a wait.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) mode: Mode,
    pub(crate) faults: Faults,
    system: Mutex<System>,
}

impl Shared {
    pub(super) fn new(layout: Layout, mode: Mode, population: &Population) -> Self {
        let mut system = System::new(EventLog::new());
        population.settle(&mut system);
        Self { layout, mode, faults: Faults::default(), system: Mutex::new(system) }
    }

    /// qubesd's state.
    pub(crate) fn system(&self) -> MutexGuard<'_, System> {
        self.system.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the init of a qube is told.
    pub(crate) fn setup(&self, system: &System, qube: &Qube) -> Setup {
        let (address, gateway) =
            (system.value(qube, "visible_ip"), system.value(qube, "visible_gateway"));
        let known = !address.is_empty() && !gateway.is_empty();
        Setup {
            name: qube.name.clone(),
            root: self.layout.qube_root(&qube.name),
            mode: self.mode,
            network: known.then_some((address, gateway)),
        }
    }

    /// Gives every qube its folders: the one with its programs, and the one of its settings.
    pub(super) fn write_qubes(&self) -> io::Result<()> {
        let system = self.system();
        system.all().filter(|qube| !qube.is_admin()).try_for_each(|qube| self.write_qube(qube))
    }

    /// Gives one qube its folders.
    pub(crate) fn write_qube(&self, qube: &Qube) -> io::Result<()> {
        let programs = self.layout.qube(&qube.name).join("bin");
        fs::create_dir_all(&programs)?;
        let program = fs::read_link(self.layout.program("qrexec-client-vm"))?;
        link_once(&program, &programs.join("qrexec-client-vm"))?;
        fs::create_dir_all(self.settings(qube))
    }

    /// The folder of a qube's settings in dom0.
    pub(crate) fn settings(&self, qube: &Qube) -> std::path::PathBuf {
        self.layout.root().join("var/lib/qubes").join(qube.folder())
    }

    /// Ends every qube.
    pub(super) async fn end(&self) {
        let running: Vec<_> = self.system().all().filter_map(|qube| qube.running.clone()).collect();
        for qube in &running {
            // One that takes no orders has ended.
            drop(qube.order(&Order::Shutdown, &[]));
        }
        for qube in running {
            let mut ended = qube.ended();
            let wait = ended.wait_for(|ended| *ended);
            if tokio::time::timeout(std::time::Duration::from_secs(2), wait).await.is_err() {
                qube.kill();
            }
            drop(Arc::clone(&qube));
        }
    }
}

fn link_once(target: &Path, link: &Path) -> io::Result<()> {
    match symlink(target, link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
