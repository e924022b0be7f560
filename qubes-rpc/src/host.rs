//! What all calls share: qubesd, the runner, and the locks that put changes in order.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use admin_api::{
    Client, Destination, QubeName, Tag,
    call::{
        self,
        vm::{ListedQube, PowerState},
    },
};
use contract::{Fault, Power, limits};
use policy::{Live, ManagedQube};
use tokio::sync::{Mutex, Notify, Semaphore};

use crate::{
    audit::Audit,
    births::Births,
    error::Error,
    ledger::Ledger,
    paths::Paths,
    run::Runner,
    times::{GrantClock, seconds_since_1970},
};

/// One dom0.
#[derive(Debug)]
pub struct Host {
    /// Where its files are.
    pub(crate) paths: Paths,
    /// Who has to own what is trusted.
    pub(crate) trusted: u32,
    /// The longest time a command may take.
    pub(crate) ceiling: Duration,
    pub(crate) qubesd: Client,
    pub(crate) runner: Runner,
    /// The jobs that agents started.
    pub(crate) ledger: Ledger,
    /// Says what every call asked for and what became of it.
    pub(crate) audit: Audit,
    /// Held while a rule set is read, changed and read again.
    pub(crate) firewall: Mutex<()>,
    /// Bounds what lists ask at once, so that they leave descriptors to other calls.
    pub(crate) questions: Semaphore,
    /// What is being made, and what is left of what was.
    pub(crate) births: Births,
    /// Told when `qubes.ConnectTCP` rules may have lost their grant, or are new.
    pub(crate) tcp_rules_due: Notify,
    /// How many calls of each agent watch its scope.
    pub(crate) watches: RefCell<BTreeMap<String, usize>>,
    clock: GrantClock,
    born: u64,
    calls: Cell<u64>,
}

impl Host {
    /// The dom0 whose files lie below these paths and whose trusted owner is this user.
    pub fn new(paths: Paths, trusted: u32, ceiling: Duration, client: Option<PathBuf>) -> Self {
        let program = client.unwrap_or_else(|| {
            let [first, second] = paths.qrexec_client();
            if first.exists() { first } else { second }
        });
        let born = seconds_since_1970();
        Self {
            qubesd: Client::new(paths.qubesd()),
            runner: Runner::new(program),
            audit: Audit::of(&paths),
            ledger: Ledger::of(&paths),
            births: Births::new(paths.births()),
            paths,
            trusted,
            ceiling,
            firewall: Mutex::new(()),
            questions: Semaphore::new(limits::QUESTIONS),
            tcp_rules_due: Notify::new(),
            watches: RefCell::default(),
            clock: GrantClock::new(),
            born,
            calls: Cell::new(0),
        }
    }

    /// The time by which grants end.
    pub(crate) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    /// A number for a call that no other call of this daemon or of an earlier one has.
    pub(crate) fn call_id(&self) -> String {
        let number = self.calls.get() + 1;
        self.calls.set(number);
        format!("{:x}-{number}", self.born)
    }

    /// What qubesd says of a qube right now; nothing when there is none of this name.
    pub(crate) async fn find(
        &self,
        name: &QubeName,
        with_tags: bool,
    ) -> Result<Option<Found>, admin_api::Error> {
        let call = call::vm::list(Destination::Qube(name.clone()));
        let listed = match self.qubesd.call(call, limits::QUBESD).await {
            Ok(listed) => listed,
            // qubesd says so in either way, depending on its release.
            Err(admin_api::Error::Exception(_) | admin_api::Error::Empty) => {
                if with_tags {
                    // A missing qube takes as long as a foreign one, whose tags are looked at.
                    self.tags(Destination::Qube(name.clone())).await?;
                }
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match listed.into_iter().find(|qube| qube.name == name.as_str()) {
            Some(qube) => self.complete(name, qube, with_tags).await,
            None => Ok(None),
        }
    }

    /// What else is to be known of a qube that qubesd has just listed; nothing when it is gone, or
    /// not whole yet.
    pub(crate) async fn complete(
        &self,
        name: &QubeName,
        qube: ListedQube,
        with_tags: bool,
    ) -> Result<Option<Found>, admin_api::Error> {
        if self.births.hides(name.as_str(), qube.uuid.as_ref()) {
            return Ok(None);
        }
        self.complete_listed(name, qube, with_tags).await
    }

    /// The same for the call that makes a qube, which no other call may know yet.
    pub(crate) async fn complete_newborn(
        &self,
        name: &QubeName,
        qube: ListedQube,
    ) -> Result<Option<Found>, admin_api::Error> {
        self.complete_listed(name, qube, true).await
    }

    async fn complete_listed(
        &self,
        name: &QubeName,
        qube: ListedQube,
        with_tags: bool,
    ) -> Result<Option<Found>, admin_api::Error> {
        let Some(uuid) = qube.uuid else { return Ok(None) };
        let tags = if with_tags {
            match self.tags(Destination::Uuid(uuid.clone())).await? {
                Some(tags) => tags,
                // It was removed in between, which must look as if it had never been there.
                None => return Ok(None),
            }
        } else {
            Vec::new()
        };
        let class = policy::Class::of(qube.class.as_str());
        let live = Live { name: name.clone(), uuid, class, tags };
        Ok(Some(Found { live, class: qube.class.to_string(), state: qube.state }))
    }

    /// The tags of a qube; nothing when there is no such qube.
    async fn tags(&self, qube: Destination) -> Result<Option<Vec<Tag>>, admin_api::Error> {
        match self.qubesd.call(call::tag::list(qube), limits::QUBESD).await {
            Ok(tags) => Ok(Some(tags)),
            Err(admin_api::Error::Exception(_) | admin_api::Error::Empty) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The power state of a qube.
    pub(crate) async fn state(&self, qube: &ManagedQube) -> Result<PowerState, Error> {
        let call = call::vm::current_state(destination(qube));
        Ok(self.qubesd.call(call, limits::QUBESD).await?.power_state)
    }

    /// Starts a qube and waits until it runs.
    pub(crate) async fn start(&self, qube: &ManagedQube) -> Result<(), Error> {
        let call = call::lifecycle::start(destination(qube));
        Ok(self.qubesd.call(call, limits::START).await?)
    }

    /// Makes sure that a qube runs: starts it if the caller may do that.
    pub(crate) async fn make_running(
        &self,
        qube: &ManagedQube,
        state: PowerState,
    ) -> Result<(), Error> {
        if state == PowerState::Running {
            return Ok(());
        }
        if state == PowerState::Paused || !qube.holds(Power::Lifecycle) {
            return Err(Fault::NotRunning { state: state.to_string() }.into());
        }
        self.start(qube).await
    }
}

/// A qube as qubesd lists it right now.
#[derive(Debug)]
pub(crate) struct Found {
    /// What decides about authority.
    pub(crate) live: Live,
    /// Its class, as qubesd names it.
    pub(crate) class: String,
    /// Its power state.
    pub(crate) state: PowerState,
}

/// How qubesd is told which qube is meant: by UUID, so that no other qube of that name is hit.
pub(crate) fn destination(qube: &ManagedQube) -> Destination {
    Destination::Uuid(qube.uuid().clone())
}
