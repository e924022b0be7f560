//! `list_vms`.

use admin_api::{QubeName, call::property::PropertyValue};
use contract::{Power, limits};
use futures_util::{StreamExt, TryStreamExt, stream};
use policy::Address;
use serde::Serialize;

use crate::{
    error::Error,
    handle::Reader,
    hidden::{shown_name, shown_netvm},
    service::{Nothing, Observe, Service},
    view::View,
    visible::Seen,
};

/// The service.
#[derive(Debug)]
pub struct VmList;

/// The qubes you may see.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// One entry for each qube in your scope, by name. Other qubes are not shown and cannot be used.
    pub vms: Vec<Vm>,
}

/// One qube.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Vm {
    /// Its name, which every other tool takes as vm_name.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "subject")))]
    pub name: String,
    /// Its power state: "Running", "Halted", "Paused", "Transient", "Halting".
    pub state: String,
    /// Its class, for example "AppVM" or "TemplateVM".
    pub class: String,
    /// The qube it is based on; null when it is based on none, `<out-of-scope>` when you may not
    /// know.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub template: Option<String>,
    /// The qube that gives it its network; null when it has none, `<out-of-scope>` when you may
    /// not know.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub netvm: Option<String>,
    /// Its IPv4 address; null when it has none.
    pub ip: Option<String>,
    /// The colour of its label.
    pub label: String,
    /// What you may do to it; "exec:ask" is a power for which the operator is asked every time.
    pub powers: Vec<String>,
    /// How a call names it on the wire: "argument" or "target".
    pub address: String,
}

impl Service for VmList {
    const NAME: &str = "VmList";
    const TOOL: Option<&str> = Some("list_vms");
    const TITLE: &str = "List qubes";
    const SUMMARY: &str = "List the qubes (virtual machines) in your scope with state, class, network, IP address, label and the powers you hold over each. Call this first: qubes that it does not show do not exist for you.";
    const POWER: Power = Power::See;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    type On = View;
    type Effect = Observe;
    type Request = Nothing;
    type Response = Response;

    async fn handle(view: View, _: Nothing, host: Reader<'_>) -> Result<Response, Error> {
        let mut seen = host.visible(&view).await?;
        seen.sort_by(|a, b| a.qube.name().cmp(b.qube.name()));
        let names: Vec<&QubeName> = seen.iter().map(|seen| seen.qube.name()).collect();
        let vms = stream::iter(&seen)
            .map(|seen| describe(seen, &names, host))
            .buffered(limits::QUESTIONS_AT_ONCE)
            .try_filter_map(|vm| std::future::ready(Ok(vm)))
            .try_collect()
            .await?;
        Ok(Response { vms })
    }
}

/// The entry of a qube; nothing when it was removed meanwhile.
async fn describe(seen: &Seen, names: &[&QubeName], host: Reader<'_>) -> Result<Option<Vm>, Error> {
    let qube = &seen.qube;
    let _turn = host.host.questions.acquire().await;
    let properties = match host.properties(qube).await {
        Ok(properties) => properties,
        Err(Error::Qubesd(admin_api::Error::Exception(_) | admin_api::Error::Empty)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let property = |name: &str| properties.iter().find(|(key, _)| key == name).map(|(_, v)| v);
    let text = |name: &str| property(name).map(ToString::to_string).filter(|v| !v.is_empty());
    let netvm = property("netvm").and_then(PropertyValue::as_vm);
    let template = property("template").and_then(PropertyValue::as_vm);
    Ok(Some(Vm {
        template: template.map(|template| shown_name(template, names)),
        name: qube.name().to_string(),
        state: seen.state.to_string(),
        class: seen.class.clone(),
        netvm: netvm.map(|netvm| shown_netvm(qube, netvm, names)),
        ip: text("ip"),
        label: text("label").unwrap_or_default(),
        powers: qube
            .powers()
            .into_iter()
            .map(|(power, asks)| if asks { format!("{power}:ask") } else { power.to_string() })
            .collect(),
        address: match qube.address() {
            Address::Argument => "argument".into(),
            Address::Target => "target".into(),
        },
    }))
}
