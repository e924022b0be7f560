//! Which qubes an agent sees, asked from qubesd for as few qubes as possible.

use std::rc::Rc;

use admin_api::{
    Destination, PropertyName, QubeName,
    call::{
        self,
        property::PropertyValue,
        vm::{ListedQube, PowerState},
    },
};
use contract::{Fault, Power, limits};
use futures_util::{StreamExt, TryStreamExt, stream};
use policy::ManagedQube;

use crate::{error::Error, handle::Handle, scope_file::read_granted, service::Effect, view::View};

/// A qube that the agent sees.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The authority over it.
    pub(crate) qube: ManagedQube,
    /// Its class, as qubesd names it.
    pub(crate) class: String,
    /// Its power state.
    pub(crate) state: PowerState,
}

impl<E: Effect> Handle<'_, E> {
    /// The qubes that this agent sees. Where nothing is granted by tag only the listed qubes are
    /// asked about, so that a machine with many others costs nothing.
    pub(crate) async fn visible(self, view: &View) -> Result<Vec<Seen>, Error> {
        let Ok(caller) = view.caller() else { return Ok(Vec::new()) };
        let by_tag =
            caller.tags(view.now()).any(|(_, powers)| powers.consent(Power::See).is_some());
        let listed: Vec<QubeName> =
            caller.listed(view.now()).map(|(name, _)| name.clone()).collect();
        let names = if by_tag {
            self.all_qubes().await?
        } else {
            listed.iter().map(|name| (name.clone(), None)).collect()
        };
        let (agent, listed, caller) = (caller.agent(), &listed, &caller);
        let others = names.into_iter().filter(|(name, _)| name != agent);
        let seen: Vec<Option<Seen>> = stream::iter(others)
            .map(|(name, qube)| async move {
                let (name, tagged) = (&name, !listed.contains(&name));
                let _turn = self.host.questions.acquire().await;
                let found = match qube {
                    Some(qube) => self.host.complete(name, qube, tagged).await?,
                    None => self.host.find(name, tagged).await?,
                };
                let Some(found) = found else { return Ok(None) };
                let qube = caller.visible(found.live, view.now());
                Ok::<_, Error>(qube.map(|qube| Seen {
                    qube,
                    class: found.class,
                    state: found.state,
                }))
            })
            .buffered(limits::QUESTIONS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(seen.into_iter().flatten().collect())
    }

    /// All qubes but dom0, with the line that says more of each, so that none is asked for twice.
    async fn all_qubes(self) -> Result<Vec<(QubeName, Option<ListedQube>)>, Error> {
        let all = self.host.qubesd.call(call::vm::list(Destination::Dom0), limits::QUBESD).await?;
        Ok(all.into_iter().filter_map(|line| line.qube().map(|name| (name, Some(line)))).collect())
    }

    /// Refuses what would cut a qube outside the agent's scope off its network.
    pub(crate) async fn spare_strangers(self, qube: &ManagedQube) -> Result<(), Error> {
        if self.serves_strangers(qube).await? { Err(Fault::Refused {}.into()) } else { Ok(()) }
    }

    /// Whether a running qube outside the agent's scope gets its network from this one.
    async fn serves_strangers(self, qube: &ManagedQube) -> Result<bool, Error> {
        let provides = self.properties(qube).await?.into_iter().any(|(name, value)| {
            name == "provides_network" && value == PropertyValue::Bool(Some(true))
        });
        if !provides {
            return Ok(false);
        }
        let scope = read_granted(&self.host.paths, self.host.trusted);
        let view = scope.ok().and_then(|scope| {
            View::admit(Rc::new(scope), qube.agent(), Power::See, self.host.now()).ok()
        });
        let known = match view {
            Some(view) => self.visible(&view).await?,
            None => Vec::new(),
        };
        let all = self.host.qubesd.call(call::vm::list(Destination::Dom0), limits::QUBESD).await?;
        let netvm: PropertyName = "netvm".parse().map_err(|_| Error::Stored("no such property"))?;
        for other in all.iter().filter(|other| other.state != PowerState::Halted) {
            let Some(name) = other.qube() else { continue };
            if known.iter().any(|seen| *seen.qube.name() == name) {
                continue;
            }
            let get = call::property::get(Destination::Qube(name), &netvm);
            let found = self.host.qubesd.call(get, limits::QUBESD).await?;
            if found.value.as_vm() == Some(qube.name().as_str()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
