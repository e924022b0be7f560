//! `pause_vm`.

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
pub struct VmPause;

/// What became of the qube.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The power state now, for example "Paused".
    pub state: String,
    /// False when the qube was paused already.
    pub changed: bool,
}

impl Service for VmPause {
    const NAME: &str = "VmPause";
    const TOOL: Option<&str> = Some("pause_vm");
    const TITLE: &str = "Pause a qube";
    const SUMMARY: &str = "Make a running qube (virtual machine) stand still until unpause_vm; its memory is kept. A qube that is paused already is left alone, which is success.";
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
        if state == PowerState::Paused {
            return Ok(Response { state: state.to_string(), changed: false });
        }
        if state != PowerState::Running {
            return Err(Fault::NotRunning { state: state.to_string() }.into());
        }
        host.spare_strangers(&qube).await?;
        host.order(lifecycle::pause(destination(&qube)), limits::QUBESD).await?;
        Ok(Response { state: host.state(&qube).await?.to_string(), changed: true })
    }
}
