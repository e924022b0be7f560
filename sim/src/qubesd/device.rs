//! `admin.vm.device.CLASS.*`: devices that qubes offer, and to which others they are attached.

use std::fmt::Write as _;

use super::{Failure, Qube, System, request::Asked};

type Answer = Result<String, Failure>;

/// A device that a qube offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) class: &'static str,
    pub(crate) port: String,
    /// What the qube says of it, as `KEY='VALUE'` words.
    pub(crate) about: String,
}

/// A device that is attached to a qube, for as long as the qube runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) class: String,
    pub(crate) backend: String,
    pub(crate) port: String,
    pub(crate) read_only: bool,
    /// The run of the qube to which it belongs.
    pub(crate) xid: u32,
}

const CLASSES: [&str; 4] = ["block", "usb", "mic", "pci"];

fn class(asked: &Asked) -> Result<&'static str, Failure> {
    let word = asked.method.split('.').nth(3).unwrap_or_default();
    let unknown = || Failure::protocol(format!("no such method: '{}'", asked.method));
    CLASSES.into_iter().find(|class| *class == word).ok_or_else(unknown)
}

/// The identity that qubesd gives to a device that tells nothing of itself.
const DEVICE_ID: &str = ":None";

/// Whether an attachment stands: its qube still runs as it did.
fn stands(qube: &Qube, attachment: &Attachment) -> bool {
    qube.running.is_some() && qube.xid == attachment.xid
}

/// The qube to which a device is attached now.
fn attached_to<'a>(system: &'a System, class: &str, backend: &str, port: &str) -> Option<&'a Qube> {
    let it =
        |found: &Attachment| found.class == class && found.backend == backend && found.port == port;
    system.all().find(|qube| qube.attachments.iter().any(|found| it(found) && stands(qube, found)))
}

pub(super) fn available(system: &mut System, asked: &Asked) -> Answer {
    let class = class(asked)?;
    let backend = system.require(&asked.destination)?;
    let mut text = String::new();
    for offer in backend.offers.iter().filter(|offer| offer.class == class) {
        let Offer { port, about, .. } = offer;
        if !asked.argument.is_empty() && asked.argument != *port {
            continue;
        }
        let name = &backend.name;
        let attachment = attached_to(system, class, name, port);
        let attachment = attachment.map(|to| format!(" attachment='{}'", to.name));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{port}:{DEVICE_ID} device_id='{DEVICE_ID}' port_id='{port}' devclass='{class}' \
             backend_domain='{name}' {about}{} interfaces='b******'",
            attachment.unwrap_or_default(),
        );
    }
    Ok(text)
}

pub(super) fn attached(system: &mut System, asked: &Asked) -> Answer {
    let class = class(asked)?;
    let qube = system.require(&asked.destination)?;
    let mut text = String::new();
    for found in qube.attachments.iter().filter(|found| found.class == class) {
        if !stands(qube, found) {
            continue;
        }
        let Attachment { backend, port, .. } = found;
        let read_only = if found.read_only { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "{backend}+{port}:{DEVICE_ID} device_id='{DEVICE_ID}' port_id='{port}' \
             devclass='{class}' backend_domain='{backend}' mode='manual' \
             frontend_domain='{}' _read-only='{read_only}' _frontend-dev='xvdi'",
            qube.name,
        );
    }
    Ok(text)
}

/// Nothing comes to a qube by itself.
pub(super) fn assigned(system: &mut System, asked: &Asked) -> Answer {
    system.require(&asked.destination).map(|_| String::new())
}

/// The backend and the port that an argument names.
fn named(system: &System, asked: &Asked) -> Result<(String, String), Failure> {
    let (backend, place) = asked.argument.split_once('+').ok_or(Failure::Empty)?;
    let port = place.split_once(':').map_or(place, |(port, _)| port);
    let backend = system.get(backend).ok_or(Failure::Empty)?;
    Ok((backend.name.clone(), port.to_owned()))
}

pub(super) fn attach(system: &mut System, asked: &Asked) -> Answer {
    let class = class(asked)?;
    let (backend, port) = named(system, asked)?;
    let to = &asked.destination;
    if system.require(to)?.running.is_none() {
        let message = "VM not running, cannot attach device, do you mean `assign`?";
        return Err(Failure::new("QubesVMNotRunningError", message));
    }
    let offered = system.require(&backend)?.offers.iter();
    if !offered.clone().any(|offer| offer.class == class && offer.port == port) {
        return Err(Failure::protocol(format!("Cannot attach ambiguous {class} device.")));
    }
    if let Some(holder) = attached_to(system, class, &backend, &port) {
        let message = format!(
            "'device {backend}:{port}:{DEVICE_ID} of class {class} already attached to {}'",
            holder.name
        );
        return Err(Failure::new("DeviceAlreadyAttached", message));
    }
    let words = String::from_utf8_lossy(&asked.payload).into_owned();
    let qube = system.require_mut(to)?;
    qube.attachments.push(Attachment {
        class: class.to_owned(),
        backend: backend.clone(),
        port: port.clone(),
        read_only: words.contains("_read-only='yes'"),
        xid: qube.xid,
    });
    let device = format!("{backend}:{port}:{DEVICE_ID}");
    system.emit(to, format!("device-attach:{class}"), &[("device", &device), ("options", &words)]);
    Ok(String::new())
}

/// The same, asked by a person at dom0.
pub(crate) fn attach_by_operator(
    system: &mut System,
    to: &str,
    class: &str,
    (backend, port): (&str, &str),
) -> Result<(), Failure> {
    let asked = Asked {
        method: format!("admin.vm.device.{class}.Attach"),
        argument: format!("{backend}+{port}"),
        source: "dom0".to_owned(),
        destination: to.to_owned(),
        payload: Vec::new(),
    };
    attach(system, &asked).map(drop)
}

pub(super) fn detach(system: &mut System, asked: &Asked) -> Answer {
    let class = class(asked)?;
    let (backend, port) = named(system, asked)?;
    let from = &asked.destination;
    let qube = system.require_mut(from)?;
    let (xid, runs) = (qube.xid, qube.running.is_some());
    let it = |found: &Attachment| {
        found.class == class && found.backend == backend && found.port == port && found.xid == xid
    };
    if !runs || !qube.attachments.iter().any(it) {
        let message = format!("'{class} device {port} not attached to {from}'");
        return Err(Failure::new("DeviceNotAssigned", message));
    }
    qube.attachments.retain(|found| !it(found));
    let device = format!("{backend}:{port}:{DEVICE_ID}");
    system.emit(from, format!("device-detach:{class}"), &[("device", &device)]);
    Ok(String::new())
}
