//! Removing what was half made: found by the ledger alone, at once or when the daemon starts again.

use std::{rc::Rc, time::Duration};

use admin_api::{
    Destination, PropertyName, QubeName, Tag, Uuid,
    call::{
        self,
        vm::{Class, ListedQube, PowerState},
    },
};
use contract::limits;
use tokio::time::{Instant, sleep};

use super::Entry;
use crate::{
    error::{Error, chain},
    host::Host,
    journal,
    times::seconds_since_1970,
};

/// The time between two attempts to remove something.
const PAUSE: Duration = Duration::from_millis(100);
/// The time between two rounds over what is left.
const ROUND: Duration = Duration::from_secs(1);
/// The time in which a qube that was killed is gone.
const GONE: Duration = Duration::from_secs(20);

/// Removes what nobody works on any more, as long as the daemon runs.
pub(crate) async fn reap(host: Rc<Host>) {
    loop {
        let left = host.births.left();
        for id in &left {
            match host.undo(id, false).await {
                Ok(true) => journal::say(&format!("call {id}: what it had half made is gone")),
                Ok(false) => {}
                Err(error) => {
                    journal::say(&format!(
                        "call {id}: cannot remove what it made: {}",
                        chain(&error)
                    ));
                }
            }
        }
        if left.is_empty() {
            host.births.abandoned.notified().await;
        } else {
            sleep(ROUND).await;
        }
    }
}

impl Host {
    /// Removes what an entry stands for, and then the entry; false when it cannot be found yet.
    /// `refused` says that qubesd has answered that it made nothing.
    pub(crate) async fn undo(&self, id: &str, refused: bool) -> Result<bool, Error> {
        let Some(entry) = self.births.get(id) else { return Ok(true) };
        let uuid = match &entry.uuid {
            Some(uuid) => Uuid::parse(uuid).ok(),
            None => self.trace(&entry).await?,
        };
        let Some(uuid) = uuid else {
            // qubesd goes on with what it was asked for when the caller is gone. A qube with a name
            // is there as soon as it has read the request, a disposable when that is done.
            let age = seconds_since_1970().saturating_sub(entry.since);
            let longest = if entry.name.is_some() { limits::QUBESD } else { limits::CREATE };
            let over = refused || age > longest.as_secs();
            if over {
                self.births.end(id).map_err(Error::File)?;
            }
            return Ok(over);
        };
        if entry.uuid.is_none() {
            self.births.resolve(id, &uuid).map_err(Error::File)?;
        }
        self.destroy(&uuid).await?;
        self.tcp_rules_due.notify_one();
        self.births.end(id).map_err(Error::File)?;
        Ok(true)
    }

    /// The same for a call that failed: what cannot be removed now is left to [`reap`].
    pub(crate) async fn undo_or_abandon(&self, id: &str, refused: bool) {
        match self.undo(id, refused).await {
            Ok(true) => {}
            Ok(false) => self.births.abandon(id),
            Err(error) => {
                journal::say(&format!("call {id}: cannot remove what it made: {}", chain(&error)));
                self.births.abandon(id);
            }
        }
    }

    /// Kills and removes a qube of ours, and looks that it is gone.
    pub(super) async fn destroy(&self, uuid: &Uuid) -> Result<(), Error> {
        let end = Instant::now() + GONE;
        let qube = || Destination::Uuid(uuid.clone());
        let mut last = admin_api::Error::TimedOut;
        loop {
            let Some(found) = self.listed(uuid).await? else { return Ok(()) };
            if Instant::now() >= end {
                return Err(last.into());
            }
            if found.state != PowerState::Halted {
                // One that has just ended cannot be killed; the next look tells.
                if let Err(error) =
                    self.qubesd.call(call::lifecycle::kill(qube()), limits::START).await
                {
                    last = error;
                }
            }
            match self.qubesd.call(call::vm::remove(qube()), limits::CREATE).await {
                Ok(()) => continue,
                // Not halted yet, or gone by itself, as disposables go.
                Err(error) => last = error,
            }
            sleep(PAUSE).await;
        }
    }

    /// A qube as the list of all has it, which cannot be mistaken for a refusal.
    pub(crate) async fn listed(&self, uuid: &Uuid) -> Result<Option<ListedQube>, Error> {
        let all = self.qubesd.call(call::vm::list(Destination::Dom0), limits::QUBESD).await?;
        Ok(all.into_iter().find(|line| line.uuid.as_ref() == Some(uuid)))
    }

    /// The qube that was made under an entry without a UUID, by what qubesd wrote on it.
    async fn trace(&self, entry: &Entry) -> Result<Option<Uuid>, Error> {
        let all = self.qubesd.call(call::vm::list(Destination::Dom0), limits::QUBESD).await?;
        for line in all {
            let Some(uuid) = line.uuid.clone() else { continue };
            let made = match &entry.name {
                Some(name) => {
                    line.name == *name && self.carries(&uuid, "created-by-", &entry.agent).await?
                }
                None => {
                    line.class == Class::DispVm
                        && !entry.known.contains(&uuid.to_string())
                        && self.carries(&uuid, "disp-created-by-", &entry.agent).await?
                        && self.is_made_from(&uuid, entry.template.as_deref()).await?
                }
            };
            if made {
                return Ok(Some(uuid));
            }
        }
        Ok(None)
    }

    /// Whether qubesd says that this agent made a qube.
    pub(super) async fn carries(
        &self,
        uuid: &Uuid,
        stamp: &str,
        agent: &str,
    ) -> Result<bool, Error> {
        let tags = call::tag::list(Destination::Uuid(uuid.clone()));
        match self.qubesd.call(tags, limits::QUBESD).await {
            Ok(tags) => {
                Ok(tags.iter().any(|tag: &Tag| tag.as_str().strip_prefix(stamp) == Some(agent)))
            }
            // Gone in between.
            Err(admin_api::Error::Exception(_) | admin_api::Error::Empty) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the template of a qube is the one with this UUID.
    pub(super) async fn is_made_from(
        &self,
        uuid: &Uuid,
        template: Option<&str>,
    ) -> Result<bool, Error> {
        let name: PropertyName =
            "template".parse().map_err(|_| Error::Stored("no such property"))?;
        let get = call::property::get(Destination::Uuid(uuid.clone()), &name);
        let found = match self.qubesd.call(get, limits::QUBESD).await {
            Ok(found) => found,
            Err(admin_api::Error::Exception(_) | admin_api::Error::Empty) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(name) = found.value.as_vm().and_then(|name| name.parse::<QubeName>().ok()) else {
            return Ok(false);
        };
        let listed =
            self.qubesd.call(call::vm::list(Destination::Qube(name)), limits::QUBESD).await;
        Ok(listed.is_ok_and(|lines| {
            lines.iter().any(|line| line.uuid.as_ref().map(Uuid::as_str) == template)
        }))
    }
}
