//! What all parts of a host share.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Daemons;
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
    pub(crate) daemons: Daemons,
    system: Mutex<System>,
    consent: Mutex<Consent>,
}

/// What a person at the screen answers when policy says `ask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Nobody is there, or they refuse.
    Refused,
    /// They agree, to what is chosen already or to the first choice.
    Given,
}

impl Shared {
    pub(super) fn new(layout: Layout, mode: Mode, population: &Population) -> Self {
        let mut system = System::new(EventLog::new());
        population.settle(&mut system);
        Self {
            layout,
            mode,
            faults: Faults::default(),
            daemons: Daemons::default(),
            system: Mutex::new(system),
            consent: Mutex::new(Consent::Refused),
        }
    }

    /// What is answered to `ask`.
    pub(crate) fn consent(&self) -> Consent {
        *self.consent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides what is answered to `ask`.
    pub(super) fn set_consent(&self, consent: Consent) {
        *self.consent.lock().unwrap_or_else(PoisonError::into_inner) = consent;
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
        for folder in ["home/user", "etc/qubes-rpc"] {
            fs::create_dir_all(self.layout.qube_root(&qube.name).join(folder))?;
        }
        fs::create_dir_all(self.settings(qube))
    }

    /// Takes a qube out of the system, with all that it had.
    pub(crate) fn forget(&self, system: &mut System, name: &str) {
        if let Some(qube) = system.remove(name) {
            // What cannot be removed now goes with the folder of the host.
            drop(fs::remove_dir_all(self.settings(&qube)));
            drop(fs::remove_dir_all(self.layout.qube(name)));
        }
    }

    /// The folder of a qube's settings in dom0.
    pub(crate) fn settings(&self, qube: &Qube) -> std::path::PathBuf {
        self.layout.root().join("var/lib/qubes").join(qube.folder())
    }

    /// Ends the daemons and every qube.
    pub(super) async fn end(&self) {
        self.daemons.end().await;
        let running: Vec<_> = self.system().all().filter_map(|qube| qube.running.clone()).collect();
        for qube in &running {
            // One that takes no orders has ended.
            drop(qube.order(&Order::Shutdown, &[]).await);
        }
        for qube in running {
            let mut ended = qube.ended();
            let wait = ended.wait_for(|ended| *ended);
            if tokio::time::timeout(std::time::Duration::from_secs(2), wait).await.is_err() {
                qube.kill();
            }
        }
    }
}

fn link_once(target: &Path, link: &Path) -> io::Result<()> {
    match symlink(target, link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
