//! What a test or a person may do to a host from outside.

use std::sync::{Arc, mpsc};

use super::{Consent, Host, HostError, Shared};
use crate::{
    qube::descendants,
    qubesd::{Failure, Fault, Hold, PowerState, Qube, device, lifecycle, tag},
};

/// A qube as qubesd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QubeState {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its class.
    pub class: &'static str,
    /// Its tags.
    pub tags: Vec<String>,
    /// All that can be changed of it, to be compared.
    pub all: String,
}

impl From<Failure> for HostError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Exception(exception) => {
                Self::Refused { kind: exception.kind, message: exception.message }
            }
            Failure::Empty => Self::Refused { kind: String::new(), message: String::new() },
        }
    }
}

impl Host {
    /// Does something on the thread of the host, and waits for it.
    pub(super) fn on_thread<T, F>(
        &self,
        work: impl FnOnce(Arc<Shared>) -> F + Send,
    ) -> Result<T, HostError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, HostError>> + Send + 'static,
    {
        let (tell, told) = mpsc::sync_channel(1);
        let work = work(Arc::clone(&self.shared));
        drop(self.runtime.spawn(async move { drop(tell.send(work.await)) }));
        told.recv().map_err(|_| HostError::Gone)?
    }

    /// Starts a qube and waits until it runs.
    pub fn start_qube(&self, name: &str) -> Result<(), HostError> {
        let name = name.to_owned();
        self.on_thread(|shared| async move { Ok(lifecycle::start(&shared, &name).await?) })
    }

    /// Shuts a qube down and waits until it is halted.
    pub fn shut_down_qube(&self, name: &str) -> Result<(), HostError> {
        let name = name.to_owned();
        self.on_thread(|shared| async move {
            Ok(lifecycle::shutdown(&shared, &name, true, true).await?)
        })
    }

    /// Kills a qube.
    pub fn kill_qube(&self, name: &str) -> Result<(), HostError> {
        let name = name.to_owned();
        self.on_thread(|shared| async move { Ok(lifecycle::kill(&shared, &name).await?) })
    }

    /// The state of a qube.
    pub fn power_state(&self, name: &str) -> Result<PowerState, HostError> {
        let system = self.shared.system();
        let qube = system.get(name).ok_or_else(|| HostError::NoQube(name.to_owned()))?;
        Ok(qube.power)
    }

    /// The UUID of a qube.
    pub fn uuid(&self, name: &str) -> Result<String, HostError> {
        let system = self.shared.system();
        let qube = system.get(name).ok_or_else(|| HostError::NoQube(name.to_owned()))?;
        Ok(qube.uuid.clone())
    }

    /// Makes a qube ignore a shutdown, or heed it again.
    pub fn set_stubborn(&self, name: &str, stubborn: bool) -> Result<(), HostError> {
        let mut system = self.shared.system();
        let qube = system.get_mut(name).ok_or_else(|| HostError::NoQube(name.to_owned()))?;
        qube.stubborn = stubborn;
        Ok(())
    }

    /// Attaches a device, as the operator does.
    pub fn attach_device(
        &self,
        to: &str,
        class: &str,
        backend: &str,
        port: &str,
    ) -> Result<(), HostError> {
        let mut system = self.shared.system();
        Ok(device::attach_by_operator(&mut system, to, class, (backend, port))?)
    }

    /// Gives a qube a tag.
    pub fn set_tag(&self, name: &str, tag: &str) -> Result<(), HostError> {
        let mut system = self.shared.system();
        system.get(name).ok_or_else(|| HostError::NoQube(name.to_owned()))?;
        tag::add_tag(&mut system, name, tag);
        Ok(())
    }

    /// Takes a tag from a qube.
    pub fn remove_tag(&self, name: &str, tag: &str) -> Result<(), HostError> {
        let mut system = self.shared.system();
        let qube = system.get_mut(name).ok_or_else(|| HostError::NoQube(name.to_owned()))?;
        if qube.tags.remove(tag) {
            system.emit(name, format!("domain-tag-delete:{tag}"), &[("tag", tag)]);
        }
        Ok(())
    }

    /// The processes that run in a qube, beside its first one, by their ids on this machine.
    pub fn processes(&self, name: &str) -> Result<Vec<i32>, HostError> {
        let system = self.shared.system();
        let qube = system.get(name).ok_or_else(|| HostError::NoQube(name.to_owned()))?;
        let pid = qube.running.as_ref().and_then(|running| running.pid());
        let all = pid.map(descendants).unwrap_or_default();
        Ok(match self.mode() {
            crate::Mode::Plain => all,
            // The first descendant of `unshare` is the init itself.
            crate::Mode::Root | crate::Mode::UserNamespace => all.into_iter().skip(1).collect(),
        })
    }

    /// Takes qubesd's socket away, or puts it back: while it is away, nobody can connect.
    pub fn set_qubesd_present(&self, present: bool) -> Result<(), HostError> {
        let here = self.layout().qubesd_socket();
        let away = here.with_extension("away");
        let (from, to) = if present { (away, here) } else { (here, away) };
        std::fs::rename(from, to).map_err(HostError::Socket)
    }

    /// Decides what a person at the screen answers when policy says `ask`.
    pub fn set_consent(&self, consent: Consent) {
        self.shared.set_consent(consent);
    }

    /// Never answers the call of qubesd before which so many come from now on, whether what it asks
    /// for is `done` or not.
    pub fn hold_call(&self, before: usize, done: bool) {
        self.shared.faults.hold(Some(Hold { left: before, done, held: false }));
    }

    /// Whether the call to hold has come.
    pub fn is_holding(&self) -> bool {
        self.shared.faults.is_held()
    }

    /// Holds no call any more.
    pub fn hold_none(&self) {
        self.shared.faults.hold(None);
    }

    /// Every qube but dom0, as qubesd has it now.
    pub fn qubes(&self) -> Vec<QubeState> {
        let system = self.shared.system();
        let state = |qube: &Qube| {
            let firewall = self.shared.settings(qube).join("firewall.xml");
            let firewall = std::fs::read_to_string(firewall).unwrap_or_default();
            let Qube { power, properties, tags, features, notes, volumes, .. } = qube;
            QubeState {
                name: qube.name.clone(),
                uuid: qube.uuid.clone(),
                class: qube.class.as_str(),
                tags: tags.iter().cloned().collect(),
                all: format!(
                    "{power} {properties:?} {tags:?} {features:?} {notes} {volumes:?} {firewall}"
                ),
            }
        };
        system.all().filter(|qube| !qube.is_admin()).map(state).collect()
    }

    /// Lets qubesd fail at every call whose method begins like this (the empty text means all), or
    /// no longer.
    pub fn set_fault(&self, method: &str, fault: Option<Fault>) {
        self.shared.faults.set(method, fault);
    }

    /// How many calls such faults have met since the host was started.
    pub fn faults_met(&self) -> usize {
        self.shared.faults.met()
    }
}
