//! `create_disposable`.

use contract::{Fault, Power};
use serde::{Deserialize, Serialize};

use crate::{
    births::{Asked, parse_named},
    error::Error,
    handle::Writer,
    service::{Change, Service},
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct DisposableCreate;

/// What to make it from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The qube of your scope to make it from: one of class DispVMTemplate (create_vm).
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub template: String,
}

/// The disposable, running.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// Its name.
    pub name: String,
    /// What you may do to it.
    pub powers: Vec<String>,
}

impl Service for DisposableCreate {
    const NAME: &str = "DisposableCreate";
    const TOOL: Option<&str> = Some("create_disposable");
    const TITLE: &str = "Make a disposable qube";
    const SUMMARY: &str = "Make a disposable qube (virtual machine) from a template for disposables of your scope, and start it. It lives until it is shut down or killed; then it is gone with everything in it. For one command run_in_disposable is simpler.";
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
        let template = parse_named("template", &request.template)?;
        let source = host.source(&view, &template, Power::Shape).await?;
        if !source.qube.holds(Power::Lifecycle) {
            return Err(Fault::Refused {}.into());
        }
        if !source.is_for_disposables() {
            return Err(Fault::bad_request("template must be a DispVMTemplate").into());
        }
        let asked = Asked { offline: false, netvm: None };
        let _inherited = host.network(&view, &source, &settings, asked).await?;
        let disposable = host.disposable(&view, &source, &birth, &settings).await?;
        let qube = host.keep(disposable)?;
        Ok(Response {
            name: qube.name().to_string(),
            powers: qube.powers().iter().map(|(power, _)| power.to_string()).collect(),
        })
    }
}
