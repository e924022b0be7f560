//! `shutdown_vm`.

use std::time::Duration;

use admin_api::call::vm::PowerState;
use contract::{Fault, Power, limits};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::{
    error::Error,
    handle::Writer,
    service::{Change, Service},
};

/// The service.
#[derive(Debug)]
pub struct VmShutdown;

/// How to shut down.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// How many seconds to wait until the qube is halted, 1 to 600.
    #[serde(default = "default_timeout")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 600)))]
    pub timeout_seconds: u64,
    /// Shut down even though running qubes get their network from this one. Refused when one of
    /// them is outside your scope.
    #[serde(default)]
    pub force: bool,
}

fn default_timeout() -> u64 {
    limits::SHUTDOWN_DEFAULT.as_secs()
}

/// What became of the qube.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The power state now: "Halted".
    pub state: String,
    /// False when the qube was halted already.
    pub changed: bool,
}

/// The time between two looks at the state: short at first, because most qubes take seconds.
const LOOK: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(250)];

impl Service for VmShutdown {
    const NAME: &str = "VmShutdown";
    const TOOL: Option<&str> = Some("shutdown_vm");
    const TITLE: &str = "Shut a qube down";
    const SUMMARY: &str = "Shut a qube (virtual machine) down and wait until it is halted. Unsaved work in it is lost. A qube that is halted already is left alone, which is success.";
    const POWER: Power = Power::Lifecycle;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    async fn handle(
        qube: ManagedQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        if !(1..=limits::SHUTDOWN_CEILING.as_secs()).contains(&request.timeout_seconds) {
            let most = limits::SHUTDOWN_CEILING.as_secs();
            return Err(Fault::bad_request(format!("timeout_seconds must be 1 to {most}")).into());
        }
        let deadline = Instant::now() + Duration::from_secs(request.timeout_seconds);
        if host.state(&qube).await? == PowerState::Halted {
            return Ok(Response { state: PowerState::Halted.to_string(), changed: false });
        }
        if request.force {
            host.spare_strangers(&qube).await?;
        }
        host.shutdown(&qube, request.force).await?;
        let [mut pause, longest] = LOOK;
        loop {
            let state = host.state_when_stopped(&qube).await?;
            if state == PowerState::Halted {
                return Ok(Response { state: state.to_string(), changed: true });
            }
            if Instant::now() >= deadline {
                let seconds = request.timeout_seconds;
                let message = format!(
                    "the qube was asked to shut down and is still {state} after {seconds} s; \
                     call shutdown_vm again to go on waiting"
                );
                return Err(Fault::TimedOut { message }.into());
            }
            tokio::select! {
                () = host.gone().cancelled() => return Err(Fault::Refused {}.into()),
                () = sleep(pause.min(deadline - Instant::now())) => {}
            }
            pause = (pause * 2).min(longest);
        }
    }
}
