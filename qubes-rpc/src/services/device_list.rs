//! `list_devices`.

use admin_api::call::device::Device;
use contract::Power;
use policy::ManagedQube;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Reader,
    hidden::Names,
    service::{Observe, Service},
    services::device::Class,
};

/// The service.
#[derive(Debug)]
pub struct DeviceList;

/// Which devices.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The class of the devices.
    pub class: Class,
}

/// A device that the qube offers.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Offered {
    /// The port, which attach_device and detach_device take.
    pub port: String,
    /// Which device it is.
    pub device_id: String,
    /// What the qube says of it: name, product, vendor, serial. Written by the qube itself.
    pub description: String,
    /// What it can be used as, for example "b******" for a block device.
    pub interfaces: String,
    /// The qube to which it is attached; null when it is to none, `<out-of-scope>` when you may
    /// not know.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub attached_to: Option<String>,
}

/// A device that is attached to the qube.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attached {
    /// The qube that offers it; `<out-of-scope>` when you may not know.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub backend_vm: String,
    /// The port there.
    pub port: String,
    /// Which device it is; null when its qube is out of your scope.
    pub device_id: Option<String>,
    /// True when it can only be read.
    pub read_only: bool,
    /// The name of the device in the qube, for example "xvdi"; null when Qubes does not say.
    pub frontend_device: Option<String>,
}

/// The devices of the qube.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// What the qube offers to others.
    pub offered: Vec<Offered>,
    /// What is attached to the qube; nothing while it does not run.
    pub attached: Vec<Attached>,
    /// How many devices are left out, as only the first 200 of each list are shown.
    pub left_out: u64,
}

impl Service for DeviceList {
    const NAME: &str = "DeviceList";
    const TOOL: Option<&str> = Some("list_devices");
    const TITLE: &str = "Devices of a qube";
    const SUMMARY: &str = "List the devices of one class (block, usb or mic) that a qube (virtual machine) offers to others, and those that are attached to it.";
    const POWER: Power = Power::See;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    type On = ManagedQube;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    async fn handle(
        qube: ManagedQube,
        request: Request,
        host: Reader<'_>,
    ) -> Result<Response, Error> {
        let class = request.class.for_qubesd()?;
        let mut names = host.names(&qube);
        let mut response = Response { offered: Vec::new(), attached: Vec::new(), left_out: 0 };
        let mut all = host.devices_offered(&qube, &class).await?;
        response.left_out += shorten(&mut all);
        for device in all {
            response.offered.push(offered(&device, &mut names).await?);
        }
        let mut all = host.devices_attached(&qube, &class).await?;
        response.left_out += shorten(&mut all);
        for device in all {
            response.attached.push(attached(&device, &mut names).await?);
        }
        Ok(response)
    }
}

/// The most devices of one list, as a qube may offer as many as it likes.
const DEVICES: usize = 200;

/// Leaves out what is too many, and says how much that is.
fn shorten(devices: &mut Vec<Device>) -> u64 {
    let left_out = devices.len().saturating_sub(DEVICES);
    devices.truncate(DEVICES);
    u64::try_from(left_out).unwrap_or(u64::MAX)
}

/// The keys under which a device says what it is.
const DESCRIBED: [&str; 5] = ["vendor", "product", "manufacturer", "name", "serial"];
/// The most characters of what a qube says of its device.
const DESCRIPTION_CHARS: usize = 200;

async fn offered(device: &Device, names: &mut Names<'_>) -> Result<Offered, Error> {
    let attached_to = match device.get("attachment") {
        Some(name) if !name.is_empty() => Some(names.show(name).await?),
        Some(_) | None => None,
    };
    let words: Vec<&str> = DESCRIBED.iter().filter_map(|key| device.get(key)).collect();
    Ok(Offered {
        port: printable(&device.port),
        device_id: printable(&device.device_id),
        description: printable(&words.join(", ")),
        interfaces: printable(device.get("interfaces").unwrap_or_default()),
        attached_to,
    })
}

pub(super) async fn attached(device: &Device, names: &mut Names<'_>) -> Result<Attached, Error> {
    let known = names.knows(&device.backend).await?;
    Ok(Attached {
        backend_vm: names.show(&device.backend).await?,
        port: printable(&device.port),
        device_id: known.then(|| printable(&device.device_id)),
        read_only: matches!(device.option("read-only"), Some("yes" | "True" | "1")),
        frontend_device: device.option("frontend-dev").map(printable),
    })
}

/// What a qube wrote, without characters that could act on a terminal, and not endless.
pub(crate) fn printable(untrusted: &str) -> String {
    let plain = |found: char| if found.is_control() { '_' } else { found };
    untrusted.chars().take(DESCRIPTION_CHARS).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_devices_of_a_qube_that_offers_very_many_are_asked_about() {
        let device = |port: usize| Device {
            backend: "ai-one".into(),
            port: port.to_string(),
            device_id: "*".into(),
            properties: Vec::new(),
        };
        let mut few = vec![device(0)];
        assert_eq!((shorten(&mut few), few.len()), (0, 1));
        let mut many: Vec<Device> = (0..DEVICES + 3).map(device).collect();
        assert_eq!((shorten(&mut many), many.len()), (3, DEVICES));
        assert_eq!(many.first().map(|first| first.port.as_str()), Some("0"));
    }
}
