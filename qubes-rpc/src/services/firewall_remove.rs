//! `firewall_remove`.

use admin_api::firewall::Rule;
use contract::{Fault, Power};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Writer,
    service::{Change, Service},
    services::rules::{ShownRule, shown},
};

/// The service.
#[derive(Debug)]
pub struct FirewallRemove;

/// Which rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The number of the rule, from 0, as firewall_list gives it.
    pub rule_number: usize,
    /// The `rule` text that firewall_list gives for it. If another rule stands there now, nothing
    /// is removed.
    #[serde(default)]
    pub expect: Option<String>,
}

/// The rules after the change.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The rules as they are now.
    pub rules: Vec<ShownRule>,
}

impl Service for FirewallRemove {
    const NAME: &str = "FirewallRemove";
    const TOOL: Option<&str> = Some("firewall_remove");
    const TITLE: &str = "Remove a firewall rule";
    const SUMMARY: &str = "Remove one outgoing firewall rule of a qube (virtual machine) by its number from firewall_list. Give `expect` so that a list that changed meanwhile does no harm.";
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
        let number = request.rule_number;
        let expected = request.expect.as_deref().map(Rule::parse_line).transpose();
        let expected = expected.map_err(|error| Fault::bad_request(format!("expect: {error}")))?;
        let ((), rules) = host
            .change_rules(&qube, |rules| {
                let Some(found) = rules.get(number) else {
                    let count = rules.len();
                    let message = format!("there is no rule {number}; there are {count} rules");
                    return Err(Fault::bad_request(message));
                };
                if let Some(expected) = &expected
                    && expected.render_line() != found.render_line()
                {
                    let found = found.render_line();
                    let message = format!("rule {number} is not the expected one but \"{found}\"");
                    return Err(Fault::bad_request(message));
                }
                if rules.len() == 1 {
                    let message = "the last rule cannot be removed; add another one first";
                    return Err(Fault::bad_request(message));
                }
                rules.remove(number);
                Ok(())
            })
            .await?;
        Ok(Response { rules: shown(&rules) })
    }
}
