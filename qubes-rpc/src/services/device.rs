//! What the services about devices share: which classes there are for an agent, and how a device
//! is named.

use admin_api::{DeviceClass, DeviceId, PortId, Source, call::device::DeviceAddress};
use contract::{Fault, Power};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};

use crate::{error::Error, handle::Writer};

/// The classes of devices that an agent may see and attach. Never `pci`: such a device reaches
/// the memory of the whole machine where the IOMMU does not keep it from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Class {
    /// Disks, partitions, images.
    Block,
    /// USB devices.
    Usb,
    /// The microphone.
    Mic,
}

impl Class {
    /// The class as qubesd names it.
    pub(crate) fn for_qubesd(self) -> Result<DeviceClass, Error> {
        let name = match self {
            Self::Block => "block",
            Self::Usb => "usb",
            Self::Mic => "mic",
        };
        name.parse().map_err(|_| Error::Stored("no such class of devices"))
    }
}

/// A device as a request names it, its backend not yet looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) backend: &'a str,
    pub(super) port: &'a str,
    pub(super) device_id: Option<&'a str>,
}

/// Reads the port and the identity. The port must be one, not a pattern.
pub(super) fn place(
    port: &str,
    device_id: Option<&str>,
) -> Result<(PortId, Option<DeviceId>), Fault> {
    let wrong = || Fault::bad_request("port must be a port as list_devices gives it");
    let short = |text: &str| text.len() <= 255;
    let port = Some(port).filter(|port| short(port) && *port != "*").ok_or_else(wrong)?;
    let device_id = device_id
        .map(|text| {
            let wrong = || Fault::bad_request("device_id must be one that list_devices gives");
            Some(text)
                .filter(|text| short(text))
                .and_then(|text| text.parse().ok())
                .ok_or_else(wrong)
        })
        .transpose()?;
    Ok((port.parse().map_err(|_| wrong())?, device_id))
}

/// The device of which both ends are in scope with the power shape: that end where it goes by
/// admission, and this one, where it is, by what qubesd says now.
pub(super) async fn both_ends(
    frontend: &ManagedQube,
    named: Named<'_>,
    host: Writer<'_>,
) -> Result<(DeviceAddress, ManagedQube), Error> {
    let (port, device_id) = place(named.port, named.device_id)?;
    let agent = frontend.agent();
    let (backend, _) = host.host.named_in_text(agent, named.backend, Power::Shape).await?;
    if backend.uuid() == frontend.uuid() {
        let message = "a device cannot be attached to the qube that offers it";
        return Err(Fault::bad_request(message).into());
    }
    let source = Source::Qube(backend.name().clone());
    Ok((DeviceAddress { backend: source, port, device_id }, backend))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_port_and_breaks_no_frame() {
        for good in ["sda", "2-1", "dm-0", "mic"] {
            assert!(place(good, None).is_ok(), "{good}");
        }
        for bad in ["", "*", "sda sdb", "a+b", "a:b", "a\nb", "a'b", "\u{e9}", &"x".repeat(300)] {
            assert!(place(bad, None).is_err(), "{bad}");
        }
        assert!(place("2-1", Some("0781:5580::u080650")).is_ok());
        for bad in ["a b", "a'b", "", "a\\b"] {
            assert!(place("sda", Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_class_but_the_three_can_be_named() {
        for bad in ["pci", "PCI", "webcam", "mouse", ""] {
            assert!(serde_json::from_value::<Class>(bad.into()).is_err(), "{bad}");
        }
    }
}
