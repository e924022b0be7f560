//! What a property may be set to, and how the value is kept.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    Class, Failure, PowerState,
    property::Holder,
    property_table::{Kind, Property, Setter},
    request::legal,
    value::truth,
};
use crate::population::KERNEL;

type Value = Result<String, Failure>;

fn property_value(message: impl Into<String>) -> Failure {
    Failure::new("QubesPropertyValueError", message)
}

/// Reads a payload by the type of the property, in the order in which qubesd complains.
pub(super) fn canonical(holder: Holder<'_>, property: Property, payload: &[u8]) -> Value {
    let text = str::from_utf8(payload).ok().filter(|text| text.is_ascii());
    let text = text.ok_or_else(|| match property.kind {
        Kind::Vm => Failure::value(""),
        Kind::Str | Kind::Int | Kind::Bool | Kind::Label => {
            Failure::value("Non-ASCII bytes in property value")
        }
    })?;
    let value = match property.kind {
        Kind::Int => number(property.name, text)?,
        Kind::Bool => boolean(holder, property.name, text)?,
        Kind::Label => label(holder, text)?,
        Kind::Vm => qube(holder, property.name, text)?,
        Kind::Str => string(property.name, text)?,
    };
    match property.setter {
        Setter::ReadOnly => {
            let class = holder.qube.map_or("Qubes", |qube| qube.class.as_str());
            let message = format!("property '{}' on {class} instance cannot be set", property.name);
            Err(property_value(message))
        }
        Setter::Plain | Setter::Never => Ok(value),
    }
}

fn number(name: &str, text: &str) -> Value {
    let number: i64 =
        text.trim().parse().map_err(|_| Failure::value("Failed to parse property value as int"))?;
    match name {
        "memory" | "vcpus" if number <= 0 => {
            Err(property_value(format!("{name} must be positive")))
        }
        "maxmem" if number < 0 => Err(property_value("maxmem must be positive or zero")),
        _ => Ok(number.to_string()),
    }
}

fn boolean(holder: Holder<'_>, name: &str, text: &str) -> Value {
    let value = match text.to_ascii_lowercase().as_str() {
        "0" | "no" | "false" | "off" => false,
        "1" | "yes" | "true" | "on" => true,
        _ => {
            let message = format!("Invalid literal for boolean property: '{text}'");
            return Err(Failure::value(message));
        }
    };
    if name == "provides_network" && !value {
        let mut others = holder.system.all().filter(|qube| !qube.is_admin());
        if others.any(|qube| holder.system.value(qube, "netvm") == holder.name()) {
            let message = "The qube is still used by other qubes, change theirs 'netvm' first";
            return Err(Failure::value(message));
        }
    }
    Ok(truth(value))
}

fn label(holder: Holder<'_>, text: &str) -> Value {
    match holder.system.label(text) {
        Some(label) => Ok(label.name.clone()),
        None => {
            Err(Failure::new("QubesLabelNotFoundError", format!("Label does not exist: {text}")))
        }
    }
}

fn string(name: &str, text: &str) -> Value {
    let address = |ok: bool, kind: &str| {
        let message = || format!("Failed to parse property value as {kind}");
        if ok { Ok(text.to_owned()) } else { Err(Failure::value(message())) }
    };
    match name {
        "ip" => address(text.parse::<Ipv4Addr>().is_ok(), "IPv4Address"),
        "ip6" => address(text.parse::<Ipv6Addr>().is_ok(), "IPv6Address"),
        "kernel" | "default_kernel" if !["", KERNEL].contains(&text) => {
            Err(property_value(format!("Kernel '{text}' not installed")))
        }
        "virt_mode" => match text.to_ascii_lowercase().as_str() {
            mode @ ("hvm" | "pv" | "pvh") => Ok(mode.to_owned()),
            _ => Err(property_value("Invalid virtualization mode, supported values: hvm, pv, pvh")),
        },
        "mac" => {
            let mut parts = text.split(':');
            let pair =
                |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if text.len() == 17 && parts.all(pair) {
                Ok(text.to_ascii_lowercase())
            } else {
                Err(Failure::Empty)
            }
        }
        _ if text.chars().any(|found| found.is_ascii_control() && !found.is_ascii_whitespace()) => {
            Err(Failure::value("Invalid characters in property value"))
        }
        _ => Ok(text.to_owned()),
    }
}

fn qube(holder: Holder<'_>, property: &str, name: &str) -> Value {
    if name.is_empty() {
        return match property {
            "template" | "default_template" => Err(property_value(format!(
                "Invalid value None for property '{property}' of {}",
                holder.name()
            ))),
            _ => Ok(String::new()),
        };
    }
    legal(name)?;
    let system = holder.system;
    let found = system.get(name).ok_or_else(|| {
        property_value(format!("Can't set {property} to non-existing qube {name}"))
    })?;
    match (property, holder.qube) {
        ("template" | "default_template", owner) => {
            let disposable = owner.is_some_and(|owner| owner.class == Class::Disposable);
            if !disposable && found.class != Class::Template {
                let class = found.class.as_str();
                let message = format!(
                    "wrong VM class: domains['{name}'] is of type {class} and not TemplateVM"
                );
                return Err(property_value(message));
            }
            if owner.is_some_and(|owner| owner.power != PowerState::Halted) {
                let message = "Cannot change template while qube is running";
                return Err(Failure::new("QubesVMNotHaltedError", message));
            }
        }
        ("netvm", Some(owner)) => {
            if system.value(found, "provides_network") != "True" {
                return Err(Failure::value(format!("The {name} qube does not provide network")));
            }
            if name == owner.name || reaches(holder, name, &owner.name) {
                return Err(Failure::value("Loops in network are unsupported"));
            }
            if owner.running.is_some() {
                running(found)?;
            }
        }
        ("default_netvm", None) => running(found)?,
        ("default_dispvm", owner) if system.value(found, "template_for_dispvms") != "True" => {
            let holder = owner.map_or("system", |owner| &owner.name);
            let message = format!(
                "Cannot set invalid property to {holder}, default_dispvm '{name}' has \
                 template_for_dispvms set to False"
            );
            return Err(property_value(message));
        }
        (_, _) => {}
    }
    Ok(name.to_owned())
}

fn running(qube: &super::Qube) -> Result<(), Failure> {
    if qube.running.is_some() {
        return Ok(());
    }
    let message = format!("Cannot dynamically attach to stopped qube {}", qube.name);
    Err(Failure::new("QubesVMNotStartedError", message))
}

/// Whether one qube's way to the network leads through the other.
fn reaches(holder: Holder<'_>, from: &str, through: &str) -> bool {
    let mut name = from.to_owned();
    for _ in 0..32 {
        if name == through {
            return true;
        }
        let Some(qube) = holder.system.get(&name) else { return false };
        name = holder.system.value(qube, "netvm");
    }
    true
}
