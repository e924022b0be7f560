//! `start_vm`.

use contract::Power;
use policy::ManagedQube;
use serde::Serialize;

use admin_api::call::vm::PowerState;

use crate::{
    error::Error,
    handle::Writer,
    service::{Change, Nothing, Service},
};

/// The service.
#[derive(Debug)]
pub struct VmStart;

/// What became of the qube.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The power state now, for example "Running".
    pub state: String,
    /// False when the qube ran already.
    pub changed: bool,
}

impl Service for VmStart {
    const NAME: &str = "VmStart";
    const TOOL: Option<&str> = Some("start_vm");
    const TITLE: &str = "Start a qube";
    const SUMMARY: &str = "Start a qube (virtual machine) and wait until it runs. A qube that runs already is left alone, which is success.";
    const POWER: Power = Power::Lifecycle;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Nothing;
    type Response = Response;

    async fn handle(qube: ManagedQube, _: Nothing, host: Writer<'_>) -> Result<Response, Error> {
        let changed = host.state(&qube).await? != PowerState::Running;
        if changed {
            host.start(&qube).await?;
        }
        Ok(Response { state: host.state(&qube).await?.to_string(), changed })
    }
}
