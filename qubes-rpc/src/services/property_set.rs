//! `set_vm_property`.

use std::ops::RangeInclusive;

use admin_api::{
    LabelName,
    call::{
        property::PropertyValue,
        vm::{Class, ListedQube},
    },
};
use contract::{Fault, Power, limits};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    service::{Change, Service},
};

/// The service.
#[derive(Debug)]
pub struct PropertySet;

/// The properties that an agent may set; no other one, whatever a later release adds.
///
/// Left out on purpose: `default_user`, which would make every command run as root without the
/// power root; `provides_network`, which would make a second way out; `autostart`,
/// `include_in_backups` and `debug`, which act in dom0; `kernel`, `kernelopts`, `virt_mode`,
/// `bootmode` and `stubdom_mem`, from which dom0 builds what it starts; `guivm`, `audiovm` and
/// `management_dispvm`, which hand the qube to another; `ip` and `mac`, by which its netvm knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Settable {
    /// The colour: the name of a label.
    Label,
    /// Memory at its start, in MiB.
    Memory,
    /// The most memory it may get, in MiB; 0 keeps it out of memory balancing.
    Maxmem,
    /// Virtual processors.
    Vcpus,
    /// The template: the name of a qube in your scope. The qube must be halted.
    Template,
    /// Its network: only null, which takes the qube off the network.
    Netvm,
    /// The template of the disposables that it opens: the name of a qube in your scope, or null.
    DefaultDispvm,
    /// Whether disposables can be made from it.
    TemplateForDispvms,
}

impl Settable {
    /// The name that qubesd uses.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Memory => "memory",
            Self::Maxmem => "maxmem",
            Self::Vcpus => "vcpus",
            Self::Template => "template",
            Self::Netvm => "netvm",
            Self::DefaultDispvm => "default_dispvm",
            Self::TemplateForDispvms => "template_for_dispvms",
        }
    }
}

/// A value, by its type.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Given {
    /// Nothing at all: null.
    Nothing,
    /// A truth.
    Flag(bool),
    /// A number.
    Number(i64),
    /// A name.
    Text(String),
}

/// What to set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The property.
    pub property: Settable,
    /// Its new value: a string for label, template and default_dispvm, a number for memory, maxmem
    /// and vcpus, true or false for template_for_dispvms, null for netvm.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = serde_json::json!({"property": crate::hidden::NAME_A_QUBE}))))]
    pub value: Given,
}

/// The property as Qubes has it now.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The property.
    pub property: Settable,
    /// Its value as Qubes has it now.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "text")))]
    pub value: Value,
    /// False when it had that value already.
    pub changed: bool,
}

impl Service for PropertySet {
    const NAME: &str = "PropertySet";
    const TOOL: Option<&str> = Some("set_vm_property");
    const TITLE: &str = "Set a property of a qube";
    const SUMMARY: &str = "Set a property of a qube (virtual machine): label, memory, maxmem, vcpus, template, default_dispvm, template_for_dispvms, or take it off the network with netvm null. Putting it on another network is the operator's.";
    const POWER: Power = Power::Shape;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = true;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _: &Host) -> Result<(), Fault> {
        plain_value(request).map(|_| ())
    }

    async fn handle(
        qube: ManagedQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        let property = request.property;
        let value = plain_value(&request)?;
        if property == Settable::Netvm {
            leaves_the_network(&qube, host).await?;
        }
        let other = other_qube(&qube, property, &value, host).await?;
        let before = host.property(&qube, property).await?;
        host.set_property(&qube, property, &value).await?;
        if let Some(other) = other {
            // qubesd was told a name. What is in use can be neither removed nor replaced, so a look
            // from now on tells for good which qube that is, and whether it is still in scope.
            let still = other_qube(&qube, property, &value, host).await;
            if !matches!(&still, Ok(Some(now)) if now.uuid() == other.uuid()) {
                host.set_property(&qube, property, &before.to_string()).await?;
                return Err(still.err().unwrap_or(Error::Fault(Fault::Refused {})));
            }
        }
        let after = host.property(&qube, property).await?;
        if after.to_string() != value {
            return Err(Error::Stored("Qubes keeps another value than the one that was set"));
        }
        let shown = host.names(&qube).property(&qube, property.as_str(), &after).await?;
        Ok(Response { property, value: shown, changed: before != after })
    }
}

/// The other qube that a value names, if it is in scope and fit to be named there.
async fn other_qube(
    qube: &ManagedQube,
    property: Settable,
    value: &str,
    host: Writer<'_>,
) -> Result<Option<ManagedQube>, Error> {
    match property {
        Settable::Template => {}
        Settable::DefaultDispvm if !value.is_empty() => {}
        Settable::DefaultDispvm
        | Settable::Label
        | Settable::Memory
        | Settable::Maxmem
        | Settable::Netvm
        | Settable::Vcpus
        | Settable::TemplateForDispvms => return Ok(None),
    }
    let (other, found) = host.host.named_in_text(qube.agent(), value, Power::Shape).await?;
    gives_no_more(qube, &other)?;
    if property == Settable::Template {
        fits_as_template(qube, &found.class, host).await?;
    }
    Ok(Some(other))
}

/// A qube from which others get their network stays where the operator put it: whoever could cut
/// it off or move it would decide about the network of all of them.
async fn leaves_the_network(qube: &ManagedQube, host: Writer<'_>) -> Result<(), Error> {
    let provides = host.all_properties(qube).await?.into_iter().any(|(name, property)| {
        name == "provides_network" && property.value == PropertyValue::Bool(Some(true))
    });
    if provides {
        let message = "the netvm of a network-providing qube is the operator's";
        return Err(Fault::bad_request(message).into());
    }
    Ok(())
}

/// What runs from another qube's disk shows it: over this one no more may be held than over that.
fn gives_no_more(qube: &ManagedQube, other: &ManagedQube) -> Result<(), Fault> {
    let no_more = Power::ALL.into_iter().all(|power| other.holds(power) || !qube.holds(power));
    if no_more { Ok(()) } else { Err(Fault::Refused {}) }
}

/// A template is of the class of the one that it replaces.
async fn fits_as_template(qube: &ManagedQube, class: &str, host: Writer<'_>) -> Result<(), Error> {
    let listed: ListedQube = host.listed(qube).await?;
    let wanted = match listed.class {
        Class::AppVm => Class::TemplateVm,
        Class::DispVm => Class::AppVm,
        Class::AdminVm
        | Class::RemoteVm
        | Class::StandaloneVm
        | Class::TemplateVm
        | Class::Other(_) => {
            let message = format!("a qube of class {} has no template", listed.class);
            return Err(Fault::bad_request(message).into());
        }
    };
    if wanted.as_str() != class {
        let message = format!("the template must be a qube of class {wanted}");
        return Err(Fault::bad_request(message).into());
    }
    Ok(())
}

/// The value as qubesd writes it, when its type is that of the property and it is within bounds.
/// Names of qubes are only read as text here; whether they are in scope is another question.
fn plain_value(request: &Request) -> Result<String, Fault> {
    let property = request.property;
    let wrong = |expected: &str| {
        Err(Fault::bad_request(format!("{} must be {expected}", property.as_str())))
    };
    let number = |range: RangeInclusive<i64>, unit: &str| match &request.value {
        Given::Number(number) if range.contains(number) => Ok(number.to_string()),
        Given::Nothing | Given::Flag(_) | Given::Number(_) | Given::Text(_) => {
            let (first, last) = (range.start(), range.end());
            wrong(&format!("a number from {first} to {last}{unit}"))
        }
    };
    match (property, &request.value) {
        (Settable::Label, Given::Text(label)) if LabelName::parse(label).is_ok() => {
            Ok(label.clone())
        }
        (Settable::Label, _) => wrong("the name of a label"),
        (Settable::Memory, _) => number(limits::MEMORY_MIB, " (MiB)"),
        (Settable::Maxmem, Given::Number(0)) => Ok("0".into()),
        (Settable::Maxmem, _) => number(limits::MEMORY_MIB, " (MiB), or 0"),
        (Settable::Vcpus, _) => number(limits::VCPUS, ""),
        (Settable::Template | Settable::DefaultDispvm, Given::Text(name)) if !name.is_empty() => {
            Ok(name.clone())
        }
        (Settable::Template, _) => wrong("the name of a qube"),
        (Settable::DefaultDispvm | Settable::Netvm, Given::Nothing) => Ok(String::new()),
        (Settable::DefaultDispvm, _) => wrong("the name of a qube, or null"),
        (Settable::Netvm, _) => {
            let message = "only the operator puts a qube on another network; null takes it off";
            Err(Fault::bad_request(message))
        }
        (Settable::TemplateForDispvms, Given::Flag(true)) => Ok("True".into()),
        (Settable::TemplateForDispvms, Given::Flag(false)) => Ok("False".into()),
        (Settable::TemplateForDispvms, _) => wrong("true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(property: &str, value: Value) -> Result<String, String> {
        let request = json!({"property": property, "value": value});
        let request: Request =
            serde_json::from_value(request).map_err(|error| error.to_string())?;
        plain_value(&request).map_err(|fault| fault.sentence())
    }

    #[test]
    fn a_value_has_the_type_of_its_property_and_is_within_bounds() {
        for (property, value, written) in [
            ("label", json!("green"), "green"),
            ("memory", json!(500), "500"),
            ("maxmem", json!(0), "0"),
            ("vcpus", json!(2), "2"),
            ("template", json!("ai-debian-13"), "ai-debian-13"),
            ("netvm", json!(null), ""),
            ("default_dispvm", json!(null), ""),
            ("default_dispvm", json!("ai-dvm"), "ai-dvm"),
            ("template_for_dispvms", json!(true), "True"),
        ] {
            assert_eq!(read(property, value).as_deref(), Ok(written), "{property}");
        }
        for (property, value) in [
            ("label", json!(1)),
            ("label", json!("red\nroot")),
            ("label", json!("")),
            ("memory", json!("x")),
            ("memory", json!(0)),
            ("memory", json!(1_i64 << 40)),
            ("memory", json!(null)),
            ("memory", json!(400.5)),
            ("vcpus", json!(0)),
            ("vcpus", json!(1000)),
            ("template", json!(null)),
            ("template", json!("")),
            ("default_dispvm", json!("")),
            ("netvm", json!("sys-firewall")),
            ("netvm", json!("")),
            ("template_for_dispvms", json!("true")),
        ] {
            assert!(read(property, value.clone()).is_err(), "{property} {value}");
        }
    }

    #[test]
    fn nothing_that_acts_in_dom0_or_raises_a_power_can_be_set() {
        for property in [
            "default_user",
            "provides_network",
            "autostart",
            "kernel",
            "kernelopts",
            "virt_mode",
            "debug",
            "guivm",
            "audiovm",
            "management_dispvm",
            "include_in_backups",
            "mac",
            "ip",
            "name",
            "qid",
            "bootmode",
            "stubdom_mem",
            "devices_denied",
            "installed_by_rpm",
            "backup_timestamp",
            "qrexec_timeout",
            "shutdown_timeout",
            "keyboard_layout",
            "Netvm",
            "netvm ",
            "",
        ] {
            assert!(read(property, json!("x")).is_err(), "{property}");
        }
        let missing: Result<Request, _> = serde_json::from_value(json!({"property": "netvm"}));
        assert!(missing.is_err(), "a value that is left out takes no qube off its network");
    }
}
