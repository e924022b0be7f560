//! Devices: `admin.vm.device.CLASS.*` and `admin.deviceclass.List`.
//!
//! What a device says about itself comes from its backend and is not to be believed.

use std::fmt;

use super::{Call, ReplyError, lines, nothing, text, text_lines};
use crate::{Destination, DeviceClass, DeviceId, OptionName, OptionValue, PortId, Request, Source};

/// A device that is named in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceAddress {
    /// Where it is plugged in.
    pub backend: Source,
    /// The port there.
    pub port: PortId,
    /// Which device it has to be; none is whatever is plugged in.
    pub device_id: Option<DeviceId>,
}

impl fmt::Display for DeviceAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}+{}", self.backend, self.port)?;
        self.device_id.as_ref().map_or(Ok(()), |device_id| write!(out, ":{device_id}"))
    }
}

/// How a device that is assigned comes to its qube.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignmentMode {
    /// By hand: it is attached, not assigned.
    Manual,
    /// Whenever both are there.
    AutoAttach,
    /// After asking.
    AskToAttach,
    /// The qube does not start without it.
    Required,
}

impl AssignmentMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Manual, Self::AutoAttach, Self::AskToAttach, Self::Required];

    /// The word that qubesd uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::AutoAttach => "auto-attach",
            Self::AskToAttach => "ask-to-attach",
            Self::Required => "required",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }
}

/// A device in a reply: one that is there, or one that is attached or assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The name of the qube where it is plugged in, or `dom0`.
    pub backend: String,
    /// The port there; `*` is any.
    pub port: String,
    /// Which device it is; `*` is any.
    pub device_id: String,
    /// Keys and values in their order, those that name the device among them; keys of options
    /// begin with `_`.
    pub properties: Vec<(String, String)>,
}

impl Device {
    /// The first value of this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.properties.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// The value of this option, named without its `_`.
    pub fn option(&self, name: &str) -> Option<&str> {
        let mut options =
            self.properties.iter().filter_map(|(key, value)| Some((key.strip_prefix('_')?, value)));
        options.find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    /// How it comes to its qube, when it is attached or assigned.
    pub fn mode(&self) -> Option<AssignmentMode> {
        self.get("mode").and_then(AssignmentMode::parse)
    }

    /// The name of the qube to which it is attached or assigned.
    pub fn frontend(&self) -> Option<&str> {
        self.get("frontend_domain")
    }

    fn parse(line: &str) -> Result<Self, ReplyError> {
        let (identity, serialised) = line.split_once(' ').unwrap_or((line, ""));
        let properties = parse_properties(serialised)
            .ok_or_else(|| ReplyError::value("properties of a device", serialised))?;
        let mut device = Self {
            backend: String::new(),
            port: String::new(),
            device_id: String::new(),
            properties,
        };
        // The identity is BACKEND+PORT:DEVICE for what is attached, PORT:DEVICE for what is there.
        let (backend, place) = identity.split_once('+').unwrap_or(("", identity));
        let (port, device_id) = place.split_once(':').unwrap_or((place, ""));
        let own = |key, told: &str| device.get(key).unwrap_or(told).to_owned();
        let (backend, port, device_id) =
            (own("backend_domain", backend), own("port_id", port), own("device_id", device_id));
        if port.is_empty() {
            return Err(ReplyError::value("a device", line));
        }
        (device.backend, device.port, device.device_id) = (backend, port, device_id);
        Ok(device)
    }
}

/// Reads `KEY='VALUE' KEY='VALUE'`. qubesd writes `'` within a value as `\'`, but leaves `\` as it
/// is, so a quote after `\` ends a value only where no other reading is left.
fn parse_properties(mut rest: &str) -> Option<Vec<(String, String)>> {
    let mut properties = Vec::new();
    rest = rest.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once("='")?;
        let (value, next) = split_value(after)?;
        properties.push((key.trim().to_owned(), value.replace(r"\'", "'")));
        rest = next;
    }
    Some(properties)
}

fn split_value(text: &str) -> Option<(&str, &str)> {
    let ends = |next: &str| next.is_empty() || next.strip_prefix(' ').is_some_and(begins_with_key);
    let quotes = || {
        text.match_indices('\'').filter_map(|(at, _)| {
            let (value, next) = text.split_at_checked(at)?;
            Some((value, next.strip_prefix('\'')?))
        })
    };
    let plain = quotes().find(|(value, _)| !value.ends_with('\\'));
    plain.filter(|(_, next)| ends(next)).or_else(|| quotes().find(|(_, next)| ends(next)))
}

fn begins_with_key(text: &str) -> bool {
    text.split_once("='").is_some_and(|(key, _)| {
        !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    })
}

fn parse_devices(content: &[u8]) -> Result<Vec<Device>, ReplyError> {
    text(content)?.lines().map(Device::parse).collect()
}

fn request(class: &DeviceClass, verb: &str, destination: Destination) -> Request {
    Request::new(format!("admin.vm.device.{class}.{verb}"), destination)
}

fn render_options(options: &[(OptionName, OptionValue)]) -> Vec<String> {
    options.iter().map(|(name, value)| format!("_{name}='{value}'")).collect()
}

/// The classes of devices that this system knows.
pub fn classes() -> Call<Vec<DeviceClass>> {
    Call::new(Request::new("admin.deviceclass.List", Destination::Dom0), lines)
}

/// The devices that a qube offers; of one port alone when it is given.
pub fn available(
    class: &DeviceClass,
    backend: Destination,
    port: Option<&PortId>,
) -> Call<Vec<Device>> {
    let port = port.map(PortId::as_str).unwrap_or_default();
    Call::new(request(class, "Available", backend).argument(port), parse_devices)
}

/// The devices that are attached to a running qube now.
pub fn attached(class: &DeviceClass, destination: Destination) -> Call<Vec<Device>> {
    Call::new(request(class, "Attached", destination), parse_devices)
}

/// The devices that come to a qube by themselves. New in R4.3.
pub fn assigned(class: &DeviceClass, destination: Destination) -> Call<Vec<Device>> {
    Call::new(request(class, "Assigned", destination), parse_devices)
}

/// Attaches a device to a running qube, until it is detached or the qube halts.
pub fn attach(
    class: &DeviceClass,
    destination: Destination,
    device: &DeviceAddress,
    options: &[(OptionName, OptionValue)],
) -> Call<()> {
    let request = request(class, "Attach", destination).argument(device.to_string());
    Call::new(request.payload(render_options(options).join(" ")), nothing)
}

/// Detaches a device from a qube.
pub fn detach(class: &DeviceClass, destination: Destination, device: &DeviceAddress) -> Call<()> {
    Call::new(request(class, "Detach", destination).argument(device.to_string()), nothing)
}

/// Makes a device come to a qube by itself. New in R4.3.
pub fn assign(
    class: &DeviceClass,
    destination: Destination,
    device: &DeviceAddress,
    mode: AssignmentMode,
    options: &[(OptionName, OptionValue)],
) -> Call<()> {
    let request = request(class, "Assign", destination).argument(device.to_string());
    let mode = format!("mode='{}'", mode.as_str());
    let words: Vec<String> = [mode].into_iter().chain(render_options(options)).collect();
    Call::new(request.payload(words.join(" ")), nothing)
}

/// Changes how an assigned device comes to its qube. New in R4.3.
pub fn set_assignment(
    class: &DeviceClass,
    destination: Destination,
    device: &DeviceAddress,
    mode: AssignmentMode,
) -> Call<()> {
    let request = request(class, "Set.assignment", destination).argument(device.to_string());
    Call::new(request.payload(mode.as_str()), nothing)
}

/// Ends an assignment; an attached device stays attached. New in R4.3.
pub fn unassign(class: &DeviceClass, destination: Destination, device: &DeviceAddress) -> Call<()> {
    Call::new(request(class, "Unassign", destination).argument(device.to_string()), nothing)
}

/// The interfaces of devices that may never come to a qube, such as `u03****`. New in R4.3.
pub fn denied(destination: Destination) -> Call<Vec<String>> {
    Call::new(Request::new("admin.vm.device.denied.List", destination), text_lines)
}

/// Reads whatever it is given as a reply with devices; nothing but not panicking is asked.
pub fn fuzz_devices(input: &[u8]) {
    let Ok(devices) = parse_devices(input) else { return };
    assert!(devices.iter().all(|device| !device.port.is_empty()), "a device without a port");
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, work};
    use super::*;
    use proptest::prelude::*;

    fn block() -> DeviceClass {
        DeviceClass::parse("block").unwrap()
    }

    fn sda(device_id: Option<&str>) -> DeviceAddress {
        DeviceAddress {
            backend: Source::parse("sys-usb").unwrap(),
            port: PortId::parse("sda").unwrap(),
            device_id: device_id.map(|text| DeviceId::parse(text).unwrap()),
        }
    }

    #[test]
    fn device_methods_carry_the_class_in_their_name_and_the_device_as_argument() {
        let read_only =
            [(OptionName::parse("read-only").unwrap(), OptionValue::parse("yes").unwrap())];
        let mode = AssignmentMode::AutoAttach;
        for (bytes, expected) in [
            (sent(&available(&block(), work(), None)), "Available+ dom0 name work\0"),
            (
                sent(&available(&block(), work(), Some(&sda(None).port))),
                "Available+sda dom0 name work\0",
            ),
            (sent(&attached(&block(), work())), "Attached+ dom0 name work\0"),
            (sent(&assigned(&block(), work())), "Assigned+ dom0 name work\0"),
            (
                sent(&attach(&block(), work(), &sda(None), &[])),
                "Attach+sys-usb+sda dom0 name work\0",
            ),
            (
                sent(&attach(&block(), work(), &sda(Some(":None")), &read_only)),
                "Attach+sys-usb+sda::None dom0 name work\0_read-only='yes'",
            ),
            (sent(&detach(&block(), work(), &sda(None))), "Detach+sys-usb+sda dom0 name work\0"),
            (
                sent(&assign(&block(), work(), &sda(Some("*")), mode, &read_only)),
                "Assign+sys-usb+sda:* dom0 name work\0mode='auto-attach' _read-only='yes'",
            ),
            (
                sent(&set_assignment(&block(), work(), &sda(None), AssignmentMode::Required)),
                "Set.assignment+sys-usb+sda dom0 name work\0required",
            ),
            (
                sent(&unassign(&block(), work(), &sda(None))),
                "Unassign+sys-usb+sda dom0 name work\0",
            ),
        ] {
            assert_eq!(bytes, format!("admin.vm.device.block.{expected}"));
        }
        assert_eq!(&sent(&denied(work()))[..], b"admin.vm.device.denied.List+ dom0 name work\0");
        assert_eq!(&sent(&classes())[..], b"admin.deviceclass.List+ dom0 name dom0\0");
        assert_eq!(classes().answer(b"0\0usb\nblock\n").unwrap().len(), 2);
    }

    #[test]
    fn a_device_that_is_there_tells_what_it_is() {
        let reply = b"0\0sda::None device_id=':None' port_id='sda' devclass='block' backend_domain='work' serial='USB Flash Drive' interfaces='b******'\n";
        let devices = available(&block(), work(), None).answer(reply).unwrap();
        let device = &devices[0];
        assert_eq!(
            (device.backend.as_str(), device.port.as_str(), device.device_id.as_str()),
            ("work", "sda", ":None")
        );
        assert_eq!(device.get("serial"), Some("USB Flash Drive"));
        assert_eq!((device.mode(), device.frontend()), (None, None));
        assert!(available(&block(), work(), None).answer(b"0\0sda::None serial='x\n").is_err());
    }

    #[test]
    fn an_attached_device_tells_where_it_went_and_how() {
        let reply = b"0\0work+sda::None device_id=':None' port_id='sda' devclass='block' backend_domain='work' mode='manual' frontend_domain='dev' _read-only='no' _frontend-dev='xvdi'\n";
        let devices = attached(&block(), work()).answer(reply).unwrap();
        assert_eq!(devices[0].mode(), Some(AssignmentMode::Manual));
        assert_eq!(devices[0].frontend(), Some("dev"));
        assert_eq!((devices[0].option("read-only"), devices[0].option("x")), (Some("no"), None));
        let bare = attached(&block(), work()).answer(b"0\0work+sda:*\n").unwrap();
        assert_eq!((bare[0].backend.as_str(), bare[0].device_id.as_str()), ("work", "*"));
    }

    #[test]
    fn quotes_and_backslashes_in_what_a_device_says_do_not_break_the_others() {
        for (serialised, expected) in [
            (r"a='it\'s' b='2'", vec![("a", "it's"), ("b", "2")]),
            (r"a='evil\' b='2'", vec![("a", r"evil\"), ("b", "2")]),
            (r"a='x=' b='2'", vec![("a", "x="), ("b", "2")]),
            (r"a='x\' b=' c='3'", vec![("a", "x' b="), ("c", "3")]),
            (r"a='' b='='", vec![("a", ""), ("b", "=")]),
            ("", vec![]),
        ] {
            let found = parse_properties(serialised).unwrap();
            let found: Vec<(&str, &str)> =
                found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{serialised}");
        }
        for bad in ["a", "a='", "a='x", "a='x' b"] {
            assert_eq!(parse_properties(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(input in "([a-z+:]{0,5}( [a-z_]{0,2}='[a-z'\\\\= ]{0,5}'){0,3}\n?){0,3}") {
            fuzz_devices(input.as_bytes());
        }

        #[test]
        fn values_without_a_final_backslash_are_read_as_they_were(values in prop::collection::vec("[a-z'= ]{0,8}", 1..4)) {
            let words: Vec<String> = values.iter().map(|value| format!("k='{}'", value.replace('\'', r"\'"))).collect();
            let read = parse_properties(&words.join(" ")).unwrap();
            prop_assert_eq!(read.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), values);
        }
    }
}
