//! `vm_properties`.

use std::collections::BTreeMap;

use contract::{Fault, Power, limits};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::Error,
    handle::Reader,
    service::{Observe, Service},
};

/// The service.
#[derive(Debug)]
pub struct PropertyGet;

/// Which properties.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The names of the properties wanted, such as "memory", "template", "power_state" or "tags";
    /// all when left out.
    #[serde(default)]
    pub names: Option<Vec<String>>,
}

/// The properties of the qube.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The values by name: strings, numbers, booleans, null for none. A qube outside your scope is
    /// `<out-of-scope>`; of the tags only ai-managed is shown.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "text")))]
    pub properties: BTreeMap<String, Value>,
    /// The names of those that somebody set; the others have their defaults.
    pub set: Vec<String>,
}

/// What is read besides qubesd's own properties.
const POWER_STATE: &str = "power_state";
/// The tags, of which an agent sees only the one that is its boundary.
const TAGS: &str = "tags";
/// The tag that is the boundary of the sandbox.
pub(crate) const SHOWN_TAG: &str = "ai-managed";

/// qubesd's properties that are shown. One that a later release adds is not, until somebody has
/// looked at what it can hold.
pub(crate) const READABLE: [&str; 52] = [
    "appvm_default_bootmode",
    "audiovm",
    "auto_cleanup",
    "autostart",
    "backup_timestamp",
    "bootmode",
    "debug",
    "default_dispvm",
    "default_user",
    "devices_denied",
    "dispid",
    "dns",
    "gateway",
    "gateway6",
    "guivm",
    "icon",
    "include_in_backups",
    "installed_by_rpm",
    "ip",
    "ip6",
    "is_preload",
    "kernel",
    "kernelopts",
    "keyboard_layout",
    "klass",
    "label",
    "mac",
    "management_dispvm",
    "maxmem",
    "memory",
    "name",
    "netvm",
    "provides_network",
    "qid",
    "qrexec_timeout",
    "shutdown_timeout",
    "start_time",
    "stubdom_mem",
    "stubdom_uuid",
    "stubdom_xid",
    "template",
    "template_for_dispvms",
    "updateable",
    "uuid",
    "vcpus",
    "virt_mode",
    "visible_gateway",
    "visible_gateway6",
    "visible_ip",
    "visible_ip6",
    "visible_netmask",
    "xid",
];

impl Service for PropertyGet {
    const NAME: &str = "PropertyGet";
    const TOOL: Option<&str> = Some("vm_properties");
    const TITLE: &str = "Properties of a qube";
    const SUMMARY: &str = "Read the properties of a qube (virtual machine): class, template, label, memory, network, timeouts and so on, and its power state. Give names to get only those.";
    const POWER: Power = Power::See;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    type On = ManagedQube;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    async fn handle(
        qube: ManagedQube,
        request: Request,
        host: Reader<'_>,
    ) -> Result<Response, Error> {
        let wanted = |name: &str| {
            request.names.as_ref().is_none_or(|names| names.iter().any(|wanted| wanted == name))
        };
        let most = limits::PROPERTY_NAMES;
        if request.names.as_ref().is_some_and(|names| names.len() > most) {
            return Err(Fault::bad_request(format!("names may hold at most {most} names")).into());
        }
        let mut response = Response { properties: BTreeMap::new(), set: Vec::new() };
        let mut names = host.names(&qube);
        for (name, property) in host.all_properties(&qube).await? {
            if !READABLE.contains(&name.as_str()) || !wanted(&name) {
                continue;
            }
            let value = names.property(&qube, &name, &property.value).await?;
            if !property.default {
                response.set.push(name.clone());
            }
            response.properties.insert(name, value);
        }
        if wanted(POWER_STATE) {
            let state = host.state(&qube).await?.to_string();
            response.properties.insert(POWER_STATE.into(), state.into());
        }
        if wanted(TAGS) {
            let mut tags = host.tags(&qube).await?;
            tags.retain(|tag| tag.as_str() == SHOWN_TAG);
            let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
            response.properties.insert(TAGS.into(), tags.into());
        }
        let missing = request.names.iter().flatten();
        match missing.into_iter().find(|name| !response.properties.contains_key(*name)) {
            Some(name) => {
                let message = format!("property {name:?} does not exist on this qube");
                Err(Fault::bad_request(message).into())
            }
            None => Ok(response),
        }
    }
}
