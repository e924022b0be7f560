//! `attach_device`.

use admin_api::{OptionName, OptionValue};
use contract::{Fault, Power};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    service::{Change, Service},
    services::{
        device::{Class, Named, both_ends, place},
        device_list::{Attached, attached},
    },
};

/// The service.
#[derive(Debug)]
pub struct DeviceAttach;

/// Which device, and how.
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
    /// Attach it so that it can only be read. Only for block devices.
    #[serde(default)]
    pub read_only: bool,
}

/// The device as it is attached.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The device as the qube has it now.
    pub device: Attached,
}

impl Service for DeviceAttach {
    const NAME: &str = "DeviceAttach";
    const TOOL: Option<&str> = Some("attach_device");
    const TITLE: &str = "Attach a device to a qube";
    const SUMMARY: &str = "Attach a block device, USB device or microphone, which another qube of your scope offers, to a running qube (virtual machine), until it is detached or the qube halts.";
    const POWER: Power = Power::Shape;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = false;
    const LONG: bool = true;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _: &Host) -> Result<(), Fault> {
        if request.read_only && request.class != Class::Block {
            return Err(Fault::bad_request("read_only is for block devices only"));
        }
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
        let (address, backend) = both_ends(&qube, named, host).await?;
        let there = host.devices_offered(&backend, &class).await?.into_iter().any(|device| {
            device.port == address.port.as_str()
                && address.device_id.as_ref().is_none_or(|id| device.device_id == id.as_str())
        });
        if !there {
            return Err(Fault::bad_request("the qube offers no such device").into());
        }
        let word = |name: &str, value: &str| {
            let option = name.parse::<OptionName>().ok().zip(value.parse::<OptionValue>().ok());
            option.ok_or(Error::Stored("no such option"))
        };
        let options = match request.read_only {
            true => vec![word("read-only", "yes")?],
            false => Vec::new(),
        };
        host.attach(&qube, &class, &address, &options).await?;
        let mut names = host.names(&qube);
        let now = host.devices_attached(&qube, &class).await?.into_iter().find(|device| {
            device.backend == backend.name().as_str() && device.port == address.port.as_str()
        });
        let Some(now) = now else {
            return Err(Error::Stored("the device is not attached, although Qubes said so"));
        };
        let device = attached(&now, &mut names).await?;
        if request.read_only && !device.read_only {
            host.detach(&qube, &class, &address).await?;
            return Err(Error::Stored("Qubes attached the device for writing; it is detached"));
        }
        Ok(Response { device })
    }
}
