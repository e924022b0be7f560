//! The network of a new qube: its source's, else the agent's, else the operator's egress, and only
//! what is in scope. Never one that it did not get so.

use admin_api::{Destination, PropertyName, QubeName, call};
use contract::{Fault, limits};

use super::{Source, parse_named};
use crate::{error::Error, handle::Handle, service::Effect, settings::Sandbox, view::View};

/// The network of a new qube.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// It has none.
    Offline,
    /// The qube that gives it its network.
    Netvm(QubeName),
}

impl Network {
    /// As qubesd takes it; empty for none.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Offline => "",
            Self::Netvm(name) => name.as_str(),
        }
    }

    /// The name, if it has a network.
    pub(crate) fn name(&self) -> Option<String> {
        match self {
            Self::Offline => None,
            Self::Netvm(name) => Some(name.to_string()),
        }
    }
}

/// What the agent asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// No network at all, which is always allowed.
    pub(crate) offline: bool,
    /// The network that it expects.
    pub(crate) netvm: Option<&'a str>,
}

impl<E: Effect> Handle<'_, E> {
    /// The network of what is made from this source.
    pub(crate) async fn network(
        self,
        view: &View,
        source: &Source,
        settings: &Sandbox,
        asked: Asked<'_>,
    ) -> Result<Network, Error> {
        if asked.offline && asked.netvm.is_some() {
            return Err(Fault::bad_request("give offline or netvm, not both").into());
        }
        if asked.offline {
            return Ok(Network::Offline);
        }
        let wanted = asked.netvm.map(|netvm| parse_named("netvm", netvm)).transpose()?;
        if let Some(wanted) = &wanted
            && !self.sees(view, wanted).await?
        {
            return Err(Fault::Refused {}.into());
        }
        let network = self.inherited(view, source, settings).await?;
        match wanted {
            Some(wanted) if network != Network::Netvm(wanted.clone()) => {
                let rule = "a new qube has the network of what it is made from, or offline=true";
                Err(Fault::bad_request(format!("netvm cannot be {wanted}: {rule}")).into())
            }
            Some(_) | None => Ok(network),
        }
    }

    async fn inherited(
        self,
        view: &View,
        source: &Source,
        settings: &Sandbox,
    ) -> Result<Network, Error> {
        let of_source = source.names("netvm");
        if let Some(netvm) = &of_source
            && self.sees(view, netvm).await?
        {
            return Ok(Network::Netvm(netvm.clone()));
        }
        // A template's own network is for updates; what else has none, or a foreign one, decides.
        if source.class != "TemplateVM" {
            return match of_source {
                None => Ok(Network::Offline),
                Some(_) => Err(no_network().into()),
            };
        }
        let of_agent = self.netvm_of(view.agent()).await?;
        for netvm in of_agent.into_iter().chain([settings.egress.clone()]) {
            if self.sees(view, &netvm).await? {
                return Ok(Network::Netvm(netvm));
            }
        }
        Err(no_network().into())
    }

    async fn netvm_of(self, agent: &QubeName) -> Result<Option<QubeName>, Error> {
        let netvm: PropertyName = "netvm".parse().map_err(|_| Error::Stored("no such property"))?;
        let get = call::property::get(Destination::Qube(agent.clone()), &netvm);
        let found = self.host.qubesd.call(get, limits::QUBESD).await?;
        Ok(found.value.as_vm().and_then(|name| name.parse().ok()))
    }
}

fn no_network() -> Fault {
    Fault::bad_request("no network in your scope can be inherited; ask with offline=true")
}
