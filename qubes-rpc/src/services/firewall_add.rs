//! `firewall_add`.

use contract::{Fault, Power};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Writer,
    service::{Change, Service},
    services::rules::{RuleAction, ShownRule, parse_rule, shown},
    times::seconds_since_1970,
};

/// The service.
#[derive(Debug)]
pub struct FirewallAdd;

/// The rule, and where it goes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// What the rule does with what it matches.
    pub action: RuleAction,
    /// What it matches: words key=value with the keys dsthost, dst4, dst6, proto (tcp, udp, icmp),
    /// dstports (443 or 8000-8080), icmptype, specialtarget (dns), expire (+300 for five minutes
    /// from now), comment. For example "dsthost=example.org proto=tcp dstports=443". Empty matches
    /// everything.
    #[serde(default)]
    pub args: String,
    /// The number that the rule gets, from 0; later rules move down. Without it the rule goes
    /// before the first rule that would make it void, else to the end.
    #[serde(default)]
    pub position: Option<usize>,
}

/// The rules after the change.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The number of the new rule.
    pub number: usize,
    /// The number of an earlier rule that matches all that the new one does, so that the new one
    /// has no effect; null when there is none.
    pub shadowed_by: Option<usize>,
    /// The rules as they are now.
    pub rules: Vec<ShownRule>,
}

impl Service for FirewallAdd {
    const NAME: &str = "FirewallAdd";
    const TOOL: Option<&str> = Some("firewall_add");
    const TITLE: &str = "Add a firewall rule";
    const SUMMARY: &str = "Add an outgoing firewall rule to a qube (virtual machine). Says where the rule landed and whether an earlier rule makes it void. A fresh qube has one rule that accepts everything, so to allow only some destinations add the accepts, then remove that rule.";
    const POWER: Power = Power::Net;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = false;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    async fn handle(
        qube: ManagedQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        let rule = parse_rule(request.action, &request.args, seconds_since_1970())?;
        let ((number, shadowed_by), rules) = host
            .change_rules(&qube, |rules| {
                let void_behind = rules.iter().position(|earlier| earlier.shadows(&rule));
                let number = request.position.or(void_behind).unwrap_or(rules.len());
                if number > rules.len() {
                    let most = rules.len();
                    return Err(Fault::bad_request(format!("position must be 0 to {most}")));
                }
                let shadowed_by = void_behind.filter(|earlier| *earlier < number);
                rules.insert(number, rule.clone());
                Ok((number, shadowed_by))
            })
            .await?;
        Ok(Response { number, shadowed_by, rules: shown(&rules) })
    }
}
