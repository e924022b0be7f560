//! `clone_vm`.

use admin_api::call::vm::PowerState;
use contract::{Fault, Power};
use serde::{Deserialize, Serialize};

use crate::{
    births::{Asked, NewClass, Plan, parse_named},
    error::Error,
    handle::Writer,
    host::destination,
    service::{Change, Service},
    services::vm_create::{parse_label, parse_new_name, within_cap},
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct VmClone;

/// What to copy.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The qube of your scope to copy. Halt it first, so that its disk is at rest.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub source: String,
    /// The name of the copy, which must begin with the reserved prefix ("ai-" unless the operator
    /// chose another); at most 31 characters.
    pub name: String,
    /// Give the copy no network. Otherwise it gets that of its source.
    #[serde(default)]
    pub offline: bool,
}

/// The copy, halted.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// Its name.
    pub name: String,
    /// Its class, for example "AppVM" or "TemplateVM".
    pub class: String,
    /// The qube that gives it its network; null when it has none.
    pub netvm: Option<String>,
    /// True when the source was running: the copy then has its disk as it was at its last shutdown.
    pub source_was_running: bool,
    /// What you may do to it.
    pub powers: Vec<String>,
}

impl Service for VmClone {
    const NAME: &str = "VmClone";
    const TOOL: Option<&str> = Some("clone_vm");
    const TITLE: &str = "Copy a qube";
    const SUMMARY: &str = "Copy a qube (virtual machine) of your scope into your sandbox: properties, features, firewall rules and disk, no devices. It is not started. Either the whole copy is there afterwards, or nothing is. You can do no more to it than to its source.";
    const POWER: Power = Power::Shape;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = false;
    const LONG: bool = true;
    type On = View;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    async fn handle(view: View, request: Request, host: Writer<'_>) -> Result<Response, Error> {
        let settings = host.sandbox()?;
        let refused = |_| Error::Fault(Fault::Refused {});
        let birth = view.caller().and_then(|c| c.birth(view.now())).map_err(refused)?;
        let name = parse_new_name(&request.name, &settings)?;
        let from = parse_named("source", &request.source)?;
        let source = host.source(&view, &from, Power::Shape).await?;
        let class = match (source.class.as_str(), source.is_for_disposables()) {
            ("AppVM", false) => NewClass::App,
            ("AppVM", true) => NewClass::DisposableTemplate,
            ("StandaloneVM", _) => NewClass::Standalone,
            ("TemplateVM", _) => NewClass::Template,
            (other, _) => {
                return Err(Fault::bad_request(format!("a {other} cannot be copied")).into());
            }
        };
        let template = match class {
            NewClass::Standalone | NewClass::Template => None,
            NewClass::App | NewClass::DisposableTemplate | NewClass::Disposable => {
                Some(source.names("template").ok_or(Error::Stored("an AppVM without template"))?)
            }
        };
        let volumes = host.host.volumes(destination(&source.qube)).await?;
        let mut bytes: u64 = 0;
        for (volume, info) in volumes.iter().filter(|(_, info)| info.save_on_stop) {
            bytes = bytes.saturating_add(info.size);
            if volume.as_str() == "private" {
                within_cap(info.size, &settings)?;
            }
        }
        let asked = Asked { offline: request.offline, netvm: None };
        let network = host.network(&view, &source, &settings, asked).await?;
        let copied = host.to_copy(&view, &source).await?;
        let label = source.value("label").map(ToString::to_string).unwrap_or_default();
        let label = parse_label(&label).or_else(|_| parse_label("gray"))?;
        let plan = Plan { name, class, template, label, network, source: &source, birth, bytes };
        let copy = async |newborn: &_| host.copy(newborn, &source, &copied).await;
        let qube = host.make(&view, &plan, &settings, copy).await?;
        Ok(Response {
            name: qube.name().to_string(),
            class: source.class.clone(),
            netvm: plan.network.name(),
            source_was_running: source.state != PowerState::Halted,
            powers: qube.powers().iter().map(|(power, _)| power.to_string()).collect(),
        })
    }
}
