//! `unpause_vm`.

use admin_api::call::{lifecycle, vm::PowerState};
use contract::{Fault, Power, limits};
use policy::ManagedQube;
use serde::Serialize;

use crate::{
    error::Error,
    handle::Writer,
    host::destination,
    service::{Change, Nothing, Service},
};

/// The service.
#[derive(Debug)]
pub struct VmUnpause;

/// What became of the qube.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The power state now, for example "Running".
    pub state: String,
    /// False when the qube ran already.
    pub changed: bool,
}

impl Service for VmUnpause {
    const NAME: &str = "VmUnpause";
    const TOOL: Option<&str> = Some("unpause_vm");
    const TITLE: &str = "Let a paused qube go on";
    const SUMMARY: &str = "Let a paused qube (virtual machine) go on. A qube that runs already is left alone, which is success.";
    const POWER: Power = Power::Lifecycle;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Nothing;
    type Response = Response;

    async fn handle(qube: ManagedQube, _: Nothing, host: Writer<'_>) -> Result<Response, Error> {
        let state = host.state(&qube).await?;
        if state == PowerState::Running {
            return Ok(Response { state: state.to_string(), changed: false });
        }
        if state != PowerState::Paused {
            return Err(Fault::NotRunning { state: state.to_string() }.into());
        }
        host.order(lifecycle::unpause(destination(&qube)), limits::QUBESD).await?;
        Ok(Response { state: host.state(&qube).await?.to_string(), changed: true })
    }
}
