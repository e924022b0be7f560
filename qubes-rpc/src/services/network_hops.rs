//! The netvms between a qube and the world, as far as its agent may know them.

use std::net::IpAddr;

use admin_api::{
    Destination, QubeName,
    call::{self, property::PropertyValue, vm::PowerState},
    firewall::{Proto, Rule},
};
use contract::{Power, limits};
use futures_util::future::join_all;
use policy::ManagedQube;
use serde::Serialize;

use crate::{
    error::Error,
    handle::Reader,
    services::{
        firewall_decision::{DNS_PORT, Decision, Goal, decide},
        network_diagnose::{Connection, connection},
        network_verdict::Held,
    },
};

/// The longest chain of netvms that is walked; qubesd lets none be circular.
const HOPS: usize = 16;

/// A qube on the way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hop {
    /// Its name; `<out-of-scope>` when you may not know it.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub name: String,
    /// Its power state; null when you may not know it.
    pub state: Option<String>,
    /// The qube that gives it its network; null when it has none, or you may not know.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub netvm: Option<String>,
    /// Whether you see it, so that its state and netvm are told.
    pub in_scope: bool,
    /// Whether it gives network to others; null for the qube itself, and when you may not know.
    pub provides_network: Option<bool>,
    /// What its own firewall rules, which its netvm applies to all that comes through it, do with the
    /// connection; null for the qube itself, and when you may not know.
    pub firewall: Option<Vec<Decision>>,
    /// What became of a connection to the port from this netvm itself, with the power exec over it;
    /// null when it was not tried.
    pub connection: Option<Connection>,
}

/// What the firewalls are asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// The host's name, if it was named by one.
    pub(crate) name: Option<&'a str>,
    /// Its addresses; one that is not known where nobody resolved the name.
    pub(crate) addresses: &'a [Option<IpAddr>],
    /// The TCP port.
    pub(crate) port: u16,
    /// The time, in seconds since 1970.
    pub(crate) now: u64,
}

impl Asked<'_> {
    /// What these rules do with the connection, and with questions to the first name server where a
    /// name has to be resolved.
    pub(crate) fn judge(
        self,
        rules: &[Rule],
        nameservers: &[IpAddr],
    ) -> (Vec<Decision>, Option<Decision>) {
        let Self { name, addresses, port, now } = self;
        let decided = |name, address, proto, port| {
            decide(rules, Goal { name, address, proto, port, nameservers, now })
        };
        let firewall =
            addresses.iter().map(|address| decided(name, *address, Proto::Tcp, port)).collect();
        let resolver = nameservers.first().filter(|_| name.is_some());
        (firewall, resolver.map(|at| decided(None, Some(*at), Proto::Udp, DNS_PORT)))
    }
}

/// A netvm that the agent sees outright.
#[derive(Debug)]
pub(crate) struct Netvm {
    /// Which hop it is.
    at: usize,
    qube: ManagedQube,
    is_running: bool,
    rules: Vec<Rule>,
    nameservers: Vec<IpAddr>,
    /// What its rules do with the connection.
    pub(crate) firewall: Vec<Decision>,
    /// What they do with questions to its name servers.
    pub(crate) by_dns: Option<Decision>,
}

impl Netvm {
    /// What the agent may do to it.
    pub(crate) fn held(&self) -> Held<'_> {
        Held::of(&self.qube)
    }
}

/// The way out of a qube.
#[derive(Debug)]
pub(crate) struct Way {
    /// The qube, and what comes behind it.
    pub(crate) hops: Vec<Hop>,
    /// Of the netvms those that the agent sees outright.
    pub(crate) netvms: Vec<Netvm>,
}

impl Way {
    /// Tries the connection from each running netvm over which the agent holds exec, all at once.
    pub(crate) async fn try_from_netvms(&mut self, name: &str, port: u16, host: Reader<'_>) {
        let tried = self.netvms.iter().map(|netvm| async move {
            if !netvm.is_running || !netvm.qube.holds(Power::Exec) {
                return None;
            }
            // A netvm that cannot be asked says nothing about the connection.
            let reached = host.reach(&netvm.qube, name, port).await.ok()?;
            Some((netvm.at, connection(&reached)))
        });
        for (at, found) in join_all(tried).await.into_iter().flatten() {
            if let Some(hop) = self.hops.get_mut(at) {
                hop.connection = Some(found);
            }
        }
    }

    /// Judges the rules of all netvms.
    pub(crate) fn judge(&mut self, asked: Asked<'_>) {
        for netvm in &mut self.netvms {
            let (firewall, by_dns) = asked.judge(&netvm.rules, &netvm.nameservers);
            if let Some(hop) = self.hops.get_mut(netvm.at) {
                hop.firewall = Some(firewall.clone());
            }
            netvm.firewall = firewall;
            netvm.by_dns = by_dns;
        }
    }
}

/// The name servers that Qubes gives a qube.
pub(crate) fn nameservers(properties: &[(String, PropertyValue)]) -> Vec<IpAddr> {
    let dns = value(properties, "dns");
    let text = dns.map_or(String::new(), PropertyValue::to_string);
    text.split_whitespace().filter_map(|address| address.parse().ok()).collect()
}

fn value<'p>(properties: &'p [(String, PropertyValue)], name: &str) -> Option<&'p PropertyValue> {
    properties.iter().find(|(found, _)| found == name).map(|(_, value)| value)
}

/// Follows the netvms. What the caller does not see ends the chain.
pub(crate) async fn walk(
    qube: &ManagedQube,
    state: &PowerState,
    properties: &[(String, PropertyValue)],
    host: Reader<'_>,
) -> Result<Way, Error> {
    let mut names = host.names(qube);
    let netvm = value(properties, "netvm");
    let mut next = netvm.and_then(PropertyValue::as_vm).map(str::to_owned);
    let mut shown = match netvm {
        Some(value) => names.property(qube, "netvm", value).await?.as_str().map(str::to_owned),
        None => None,
    };
    let own = Hop { netvm: shown.clone(), ..seen(qube.name().as_str(), state) };
    let mut way = Way { hops: vec![own], netvms: Vec::new() };
    while let (Some(real), Some(name), true) = (next.take(), shown.take(), way.hops.len() < HOPS) {
        let found = match real.parse::<QubeName>() {
            Ok(name) => names.sees(&name).await?,
            Err(_) => None,
        };
        let Some(found) = found else {
            way.hops.push(Hop {
                name,
                state: None,
                netvm: None,
                in_scope: false,
                provides_network: None,
                firewall: None,
                connection: None,
            });
            break;
        };
        let uuid = || Destination::Uuid(found.live.uuid.clone());
        let all = host.host.qubesd.call(call::property::get_all(uuid()), limits::QUBESD).await?;
        let properties: Vec<(String, PropertyValue)> =
            all.into_iter().map(|(name, property)| (name.to_string(), property.value)).collect();
        next = value(&properties, "netvm").and_then(PropertyValue::as_vm).map(str::to_owned);
        shown = match &next {
            Some(netvm) if names.lists(&real) => Some(netvm.clone()),
            Some(netvm) => Some(names.show(netvm).await?),
            None => None,
        };
        let provides = value(&properties, "provides_network");
        let provides = provides.map(|value| *value == PropertyValue::Bool(Some(true)));
        // Where it asks, nobody was asked.
        if let Ok((qube, _)) = host.host.named_in_text(qube.agent(), &real, Power::See).await {
            let rules = host.rules(&qube).await?;
            way.netvms.push(Netvm {
                at: way.hops.len(),
                qube,
                is_running: found.state == PowerState::Running,
                rules,
                nameservers: nameservers(&properties),
                firewall: Vec::new(),
                by_dns: None,
            });
        }
        way.hops.push(Hop {
            netvm: shown.clone(),
            provides_network: provides,
            ..seen(&name, &found.state)
        });
    }
    Ok(way)
}

fn seen(name: &str, state: &PowerState) -> Hop {
    Hop {
        name: name.to_owned(),
        state: Some(state.to_string()),
        netvm: None,
        in_scope: true,
        provides_network: None,
        firewall: None,
        connection: None,
    }
}
