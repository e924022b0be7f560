//! `connect_tcp_policy`.

use std::num::NonZeroU16;

use admin_api::QubeName;
use contract::{Fault, Power};
use policy::TcpRule;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Writer,
    service::{Change, Service},
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct ConnectTcpPolicy;

/// What to do with the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Action {
    /// Show the rules.
    List,
    /// Allow source to connect to a TCP port of target.
    Add,
    /// Take that back.
    Remove,
}

/// A rule, and what to do with it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// What to do.
    pub action: Action,
    /// The qube that connects. Not for list.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub source: String,
    /// The qube it connects to. Not for list.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub target: String,
    /// The TCP port, 1 to 65535. Not for list.
    #[serde(default)]
    pub port: u32,
}

/// A qube may connect to a port of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShownRule {
    /// The TCP port.
    pub port: u16,
    /// The qube that connects.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "subject")))]
    pub source: String,
    /// The qube it connects to.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "subject")))]
    pub target: String,
}

impl From<&TcpRule> for ShownRule {
    fn from(rule: &TcpRule) -> Self {
        Self {
            port: rule.port.get(),
            source: rule.source.to_string(),
            target: rule.target.to_string(),
        }
    }
}

/// The rules after the change.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The rules between qubes of your scope.
    pub rules: Vec<ShownRule>,
    /// False when the rule stood already, or was not there to be removed.
    pub changed: bool,
}

impl Service for ConnectTcpPolicy {
    const NAME: &str = "ConnectTcpPolicy";
    const TOOL: Option<&str> = Some("connect_tcp_policy");
    const TITLE: &str = "TCP connections between qubes";
    const SUMMARY: &str = "List, add or remove rules that let one qube (virtual machine) connect to a TCP port of another through qubes.ConnectTCP, without a network between them. In the source qube: qvm-connect-tcp LOCALPORT:TARGET:PORT. Both qubes must be in your scope with the power net.";
    const POWER: Power = Power::Net;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = true;
    type On = View;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    async fn handle(view: View, request: Request, host: Writer<'_>) -> Result<Response, Error> {
        let changed = match request.action {
            Action::List => false,
            Action::Add => host.add_tcp_rule(&view, &rule(&request)?).await?,
            Action::Remove => host.remove_tcp_rule(&view, &rule(&request)?).await?,
        };
        let rules = host.tcp_rules(&view).await?;
        Ok(Response { rules: rules.iter().map(ShownRule::from).collect(), changed })
    }
}

fn rule(request: &Request) -> Result<TcpRule, Fault> {
    // dom0 and the other words of qrexec are answered as the names of strangers are.
    let word = |c: char| c.is_ascii_alphanumeric() || "_-.@:".contains(c);
    let name = |field: &str, text: &str| {
        text.parse::<QubeName>().map_err(|_| match !text.is_empty() && text.chars().all(word) {
            true => Fault::Refused {},
            false => Fault::bad_request(format!("{field} must be the name of a qube")),
        })
    };
    let port = u16::try_from(request.port).ok().and_then(NonZeroU16::new);
    Ok(TcpRule {
        port: port.ok_or_else(|| Fault::bad_request("port must be 1 to 65535"))?,
        source: name("source", &request.source)?,
        target: name("target", &request.target)?,
    })
}
