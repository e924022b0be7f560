//! `firewall_list`.

use contract::Power;
use policy::ManagedQube;
use serde::Serialize;

use crate::{
    error::Error,
    handle::Reader,
    service::{Nothing, Observe, Service},
    services::rules::{ShownRule, shown},
};

/// The service.
#[derive(Debug)]
pub struct FirewallList;

/// The rules.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The rules in the order in which they are tried. What no rule matches is dropped.
    pub rules: Vec<ShownRule>,
    /// The file in which qubesd keeps the rules holds other ones, so that they change when qubesd
    /// starts again: tell the operator. Null when that file cannot be read.
    pub drift: Option<bool>,
}

impl Service for FirewallList {
    const NAME: &str = "FirewallList";
    const TOOL: Option<&str> = Some("firewall_list");
    const TITLE: &str = "List firewall rules";
    const SUMMARY: &str = "List the outgoing firewall rules of a qube (virtual machine), numbered from 0, every field. The first rule that matches decides; what none matches is dropped.";
    const POWER: Power = Power::See;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    type On = ManagedQube;
    type Effect = Observe;
    type Request = Nothing;
    type Response = Response;

    async fn handle(qube: ManagedQube, _: Nothing, host: Reader<'_>) -> Result<Response, Error> {
        let rules = host.rules(&qube).await?;
        Ok(Response { drift: host.drifts(&qube, &rules).ok(), rules: shown(&rules) })
    }
}
