//! `vm_network_info`.

use std::collections::BTreeMap;

use admin_api::call::{property::PropertyValue, vm::PowerState};
use contract::Power;
use policy::ManagedQube;
use serde::Serialize;

use crate::{
    error::Error,
    handle::Reader,
    run::{Part, PartName},
    service::{Nothing, Observe, Service},
    services::network::{
        Chain, Dns, Interface, Route, WireGuard, chains, dns, interfaces, routes, wireguard,
    },
};

/// The service.
#[derive(Debug)]
pub struct VmNetworkInfo;

/// The network as dom0 sees it, and as the qube sees it.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// What Qubes gave the qube.
    pub properties: Properties,
    /// Network interfaces in the qube.
    pub interfaces: Vec<Interface>,
    /// Routes in the qube.
    pub routes: Vec<Route>,
    /// Name servers in the qube.
    pub dns: Dns,
    /// Chains of iptables and nftables in the qube.
    pub firewall: Vec<Chain>,
    /// WireGuard interfaces in the qube.
    pub wireguard: Vec<WireGuard>,
    /// What the tools in the qube printed, by tool.
    pub raw: BTreeMap<String, String>,
    /// Why the part from inside the qube is missing; null when it is there.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "text")))]
    pub note: Option<String>,
}

/// What Qubes gave the qube.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Properties {
    /// The qube that gives it its network; null when it has none, `<out-of-scope>` when you may
    /// not know.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub netvm: Option<String>,
    /// Its IPv4 address.
    pub ip: Option<String>,
    /// The IPv4 address that it believes to have.
    pub visible_ip: Option<String>,
    /// The name servers that Qubes gives it.
    pub dns: Vec<String>,
    /// Whether it gives others a network.
    pub provides_network: bool,
}

/// The characters of each tool's output that a framed answer holds.
const RAW_CHARS: usize = 8 * 1024;

impl Service for VmNetworkInfo {
    const NAME: &str = "VmNetworkInfo";
    const TOOL: Option<&str> = Some("vm_network_info");
    const TITLE: &str = "Network of a qube";
    const SUMMARY: &str = "Show the network of a qube (virtual machine): netvm, IP addresses and DNS as Qubes has them, and from inside a running qube interfaces, routes, DNS, iptables, nftables and WireGuard, parsed and as printed. The part from inside needs the power exec.";
    const POWER: Power = Power::See;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = ManagedQube;
    type Effect = Observe;
    type Request = Nothing;
    type Response = Response;

    async fn handle(qube: ManagedQube, _: Nothing, host: Reader<'_>) -> Result<Response, Error> {
        let inside = async {
            let state = host.state(&qube).await?;
            let note = if state != PowerState::Running {
                format!("the qube is not running (its state is {state})")
            } else if !qube.holds(Power::Exec) {
                "you do not hold the power exec over this qube".to_owned()
            } else {
                return Ok((host.network_state(&qube).await?, None));
            };
            Ok::<_, Error>((Vec::new(), Some(note)))
        };
        // Both to their ends: what runs in a qube is not left behind when dom0 has no answer.
        let (properties, inside) = tokio::join!(properties(&qube, host), inside);
        let (properties, (parts, note)) = (properties?, inside?);
        Ok(describe(properties, &parts, note, host.is_plain()))
    }
}

async fn properties(qube: &ManagedQube, host: Reader<'_>) -> Result<Properties, Error> {
    let mut found = Properties::default();
    for (name, value) in host.properties(qube).await? {
        let text = Some(value.to_string()).filter(|text| !text.is_empty());
        match name.as_str() {
            "netvm" => {
                let shown = host.names(qube).property(qube, "netvm", &value).await?;
                found.netvm = shown.as_str().map(str::to_owned);
            }
            "ip" => found.ip = text,
            "visible_ip" => found.visible_ip = text,
            "dns" => {
                found.dns = value.to_string().split_whitespace().map(str::to_owned).collect();
            }
            "provides_network" => {
                found.provides_network = value == PropertyValue::Bool(Some(true));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn describe(properties: Properties, parts: &[Part], note: Option<String>, whole: bool) -> Response {
    let text = |name: PartName| {
        parts.iter().find(|part| part.name == name).map_or("", |part| part.text.as_str())
    };
    let mut firewall = chains("nat", text(PartName::IptablesNat));
    firewall.extend(chains("filter", text(PartName::IptablesFilter)));
    firewall.extend(chains("nftables", text(PartName::Nftables)));
    let mut all_routes = routes(text(PartName::RoutesJson));
    all_routes.extend(routes(text(PartName::Routes6Json)));
    let shown = [
        PartName::Interfaces,
        PartName::Routes,
        PartName::Dns,
        PartName::WireGuard,
        PartName::IptablesNat,
        PartName::IptablesFilter,
        PartName::Nftables,
    ];
    let most = if whole { usize::MAX } else { RAW_CHARS };
    let raw = shown
        .into_iter()
        .filter(|name| !text(*name).is_empty())
        .map(|name| (name.as_str().to_owned(), text(name).chars().take(most).collect()))
        .collect();
    Response {
        properties,
        interfaces: interfaces(text(PartName::InterfacesJson)),
        routes: all_routes,
        dns: dns(text(PartName::Dns)),
        firewall,
        wireguard: wireguard(text(PartName::WireGuard)),
        raw,
        note,
    }
}
