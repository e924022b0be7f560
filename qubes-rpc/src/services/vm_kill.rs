//! `kill_vm`.

use admin_api::call::{lifecycle, vm::PowerState};
use contract::{Power, limits};
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
pub struct VmKill;

/// What became of the qube.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The power state now, for example "Halted".
    pub state: String,
    /// False when the qube was halted already.
    pub changed: bool,
}

impl Service for VmKill {
    const NAME: &str = "VmKill";
    const TOOL: Option<&str> = Some("kill_vm");
    const TITLE: &str = "Stop a qube at once";
    const SUMMARY: &str = "Stop a qube (virtual machine) at once, as if its power were cut: unsaved work and what was not yet written to its disk are lost. Prefer shutdown_vm. A qube that is halted already is left alone, which is success. A disposable is gone afterwards.";
    const POWER: Power = Power::Lifecycle;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Nothing;
    type Response = Response;

    async fn handle(qube: ManagedQube, _: Nothing, host: Writer<'_>) -> Result<Response, Error> {
        if host.state(&qube).await? == PowerState::Halted {
            return Ok(Response { state: PowerState::Halted.to_string(), changed: false });
        }
        host.spare_strangers(&qube).await?;
        host.order(lifecycle::kill(destination(&qube)), limits::START).await?;
        let state = host.state_when_stopped(&qube).await?;
        Ok(Response { state: state.to_string(), changed: true })
    }
}
