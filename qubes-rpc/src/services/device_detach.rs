//! `detach_device`.

use contract::{Fault, Power};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    service::{Change, Service},
    services::device::{Class, Named, both_ends, place},
};

/// The service.
#[derive(Debug)]
pub struct DeviceDetach;

/// Which device.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The class of the device.
    pub class: Class,
    /// The qube that offers the device; it must be in your scope with the power shape.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub backend_vm: String,
    /// The port of the device there, as list_devices gives it.
    pub port: String,
    /// Which device it has to be, as list_devices gives it; whatever is at the port when left out.
    #[serde(default)]
    pub device_id: Option<String>,
}

/// The device is detached.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// True: the device was attached and is not any more.
    pub detached: bool,
}

impl Service for DeviceDetach {
    const NAME: &str = "DeviceDetach";
    const TOOL: Option<&str> = Some("detach_device");
    const TITLE: &str = "Detach a device from a qube";
    const SUMMARY: &str = "Detach a device from a qube (virtual machine). What the qube has not yet written to a block device is lost: unmount it in the qube first.";
    const POWER: Power = Power::Shape;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = false;
    const LONG: bool = true;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _: &Host) -> Result<(), Fault> {
        place(&request.port, request.device_id.as_deref()).map(|_| ())
    }

    async fn handle(
        qube: ManagedQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        let class = request.class.for_qubesd()?;
        let named = Named {
            backend: &request.backend_vm,
            port: &request.port,
            device_id: request.device_id.as_deref(),
        };
        let (address, _) = both_ends(&qube, named, host).await?;
        host.detach(&qube, &class, &address).await?;
        Ok(Response { detached: true })
    }
}
