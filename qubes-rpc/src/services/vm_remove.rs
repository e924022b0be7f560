//! `remove_vm`.

use admin_api::call::{self, vm::PowerState};
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
pub struct VmRemove;

/// What was removed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The name of the qube that is gone.
    pub removed: String,
}

impl Service for VmRemove {
    const NAME: &str = "VmRemove";
    const TOOL: Option<&str> = Some("remove_vm");
    const TITLE: &str = "Remove a qube";
    const SUMMARY: &str = "Remove a halted qube (virtual machine) with its disk: everything in it is gone for good. Halt it first with shutdown_vm. Refused for the sandbox's network qube.";
    const POWER: Power = Power::Shape;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = false;
    const LONG: bool = true;
    const CONFIRM: bool = true;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Nothing;
    type Response = Response;

    async fn handle(qube: ManagedQube, _: Nothing, host: Writer<'_>) -> Result<Response, Error> {
        if host.sandbox()?.egress == *qube.name() {
            return Err(Fault::Refused {}.into());
        }
        let not_halted = |state: PowerState| {
            let message = format!("the qube is {state}; only a halted qube can be removed");
            Error::Fault(Fault::bad_request(message))
        };
        let state = host.state(&qube).await?;
        if state != PowerState::Halted {
            return Err(not_halted(state));
        }
        match host.order(call::vm::remove(destination(&qube)), limits::CREATE).await {
            Ok(()) => {
                // What stays of them is refused at the next birth of this name.
                drop(host.forget_tcp_rules(qube.name()).await);
                host.host.tcp_rules_due.notify_one();
                Ok(Response { removed: qube.name().to_string() })
            }
            Err(Error::Qubesd(error)) => Err(match error.kind() {
                Some("QubesVMNotHaltedError") => not_halted(PowerState::Running),
                Some("QubesVMInUseError") => {
                    let uses = "template, network or default disposable template";
                    Fault::bad_request(format!("the qube is in use as {uses} of something")).into()
                }
                Some(_) | None => error.into(),
            }),
            Err(error) => Err(error),
        }
    }
}
