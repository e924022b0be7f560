//! `create_vm`.

use admin_api::{LabelName, QubeName};
use contract::{Fault, Power};
use serde::{Deserialize, Serialize};

use crate::{
    births::{Asked, NewClass, Plan, parse_named},
    error::Error,
    handle::Writer,
    service::{Change, Service},
    settings::Sandbox,
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct VmCreate;

/// The kinds of qubes that can be made from a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Class {
    /// A qube with a home of its own, based on a template.
    #[default]
    AppVM,
    /// The same, from which disposables can be made.
    DispVMTemplate,
    /// A disposable with a name; template is then a qube of class DispVMTemplate.
    DispVM,
}

/// What to make.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// Its name, which must begin with the reserved prefix ("ai-" unless the operator chose
    /// another); at most 31 characters.
    pub name: String,
    /// The qube of your scope to base it on: a TemplateVM, or for class DispVM a template for
    /// disposables.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub template: String,
    /// What kind of qube to make.
    #[serde(default)]
    pub class: Class,
    /// The colour of its label: red, orange, yellow, green, gray, blue, purple or black.
    #[serde(default = "default_label")]
    pub label: String,
    /// Give it no network. Otherwise it gets that of its template, or else of your own qube, or
    /// the sandbox's network qube.
    #[serde(default)]
    pub offline: bool,
    /// The network you expect it to get; the call fails when it would be another.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub netvm: Option<String>,
    /// The size of its private volume (its home) in bytes; 2 GiB when left out. See disk_budget.
    #[serde(default)]
    pub private_size: Option<u64>,
}

fn default_label() -> String {
    "gray".into()
}

/// The new qube, halted.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// Its name.
    pub name: String,
    /// What kind it is.
    pub class: Class,
    /// The qube it is based on.
    pub template: String,
    /// The qube that gives it its network; null when it has none.
    pub netvm: Option<String>,
    /// What you may do to it.
    pub powers: Vec<String>,
}

/// The labels that every Qubes has.
const LABELS: [&str; 8] = ["red", "orange", "yellow", "green", "gray", "blue", "purple", "black"];
/// What the private volume of a new qube has, in bytes, unless another size is asked for.
pub(crate) const PRIVATE_BYTES: u64 = 2 << 30;

impl Service for VmCreate {
    const NAME: &str = "VmCreate";
    const TOOL: Option<&str> = Some("create_vm");
    const TITLE: &str = "Create a qube";
    const SUMMARY: &str = "Create a qube (virtual machine) in your sandbox, based on a template of your scope. It is not started. Either the whole qube is there afterwards and in your scope, or nothing is. You can do no more to it than to its template.";
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
        let label = parse_label(&request.label)?;
        let bytes = request.private_size.unwrap_or(PRIVATE_BYTES);
        within_cap(bytes, &settings)?;
        let template = parse_named("template", &request.template)?;
        let source = host.source(&view, &template, Power::Shape).await?;
        let class = match (request.class, source.class.as_str(), source.is_for_disposables()) {
            (Class::AppVM, "TemplateVM", _) => NewClass::App,
            (Class::DispVMTemplate, "TemplateVM", _) => NewClass::DisposableTemplate,
            (Class::DispVM, _, true) => NewClass::Disposable,
            (Class::AppVM | Class::DispVMTemplate, _, _) => {
                return Err(Fault::bad_request("template must be a TemplateVM").into());
            }
            (Class::DispVM, _, false) => {
                return Err(Fault::bad_request("template must be a DispVMTemplate").into());
            }
        };
        let asked = Asked { offline: request.offline, netvm: request.netvm.as_deref() };
        let network = host.network(&view, &source, &settings, asked).await?;
        let plan = Plan {
            name,
            class,
            template: Some(template),
            label,
            network,
            source: &source,
            birth,
            // Smaller than that no volume is made.
            bytes: bytes.max(PRIVATE_BYTES),
        };
        let size = request.private_size;
        let qube = host.make(&view, &plan, &settings, async |newborn| match size {
            Some(bytes) => host.enlarge(newborn, bytes).await,
            None => Ok(()),
        });
        let qube = qube.await?;
        Ok(Response {
            name: qube.name().to_string(),
            class: request.class,
            template: request.template,
            netvm: plan.network.name(),
            powers: qube.powers().iter().map(|(power, _)| power.to_string()).collect(),
        })
    }
}

/// A name for a new qube. Refused by its shape alone, so that no name outside the prefix is ever
/// looked up.
pub(crate) fn parse_new_name(text: &str, settings: &Sandbox) -> Result<QubeName, Fault> {
    let prefix = &settings.name_prefix;
    let rest = text.strip_prefix(prefix.as_str()).filter(|rest| !rest.is_empty());
    rest.and_then(|_| text.parse().ok()).ok_or_else(|| {
        let rule = "then letters, digits, `_`, `.` and `-`, at most 31 characters in all";
        Fault::bad_request(format!("name must begin with {prefix}, {rule}"))
    })
}

/// A label that every Qubes has.
pub(crate) fn parse_label(text: &str) -> Result<LabelName, Fault> {
    let known = LABELS.contains(&text).then(|| text.parse().ok()).flatten();
    known.ok_or_else(|| Fault::bad_request(format!("label must be one of {}", LABELS.join(", "))))
}

/// Refuses a private volume above the operator's cap.
pub(crate) fn within_cap(bytes: u64, settings: &Sandbox) -> Result<(), Fault> {
    if bytes <= settings.private_cap {
        return Ok(());
    }
    let most = settings.private_cap;
    let message = format!("the private volume of a qube may have at most {most} bytes");
    Err(Fault::TooLarge { message })
}
