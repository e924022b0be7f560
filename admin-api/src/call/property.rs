//! Properties of qubes and of the system: `admin.vm.property.*`, `admin.property.*`.

use std::fmt;
use std::str::FromStr;

use super::{Call, ReplyError, boolean, lines, nothing, number, owned_text, text};
use crate::{Destination, PropertyName, Request};

/// A property's value and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// True when nobody set it.
    pub default: bool,
    /// Its value.
    pub value: PropertyValue,
}

/// A property's value, by its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyValue {
    /// `type=str`; empty also where it does not apply.
    Str(String),
    /// `type=int`; none where it does not apply.
    Int(Option<i64>),
    /// `type=bool`; none where it does not apply.
    Bool(Option<bool>),
    /// `type=label`: the name of a label.
    Label(String),
    /// `type=vm`: the name of a qube or `dom0`; none is "no qube".
    Vm(Option<String>),
    /// A type that this program does not know.
    Other {
        /// The type.
        kind: String,
        /// The value as it came.
        text: String,
    },
}

impl PropertyValue {
    /// The type as qubesd names it.
    pub fn kind(&self) -> &str {
        match self {
            Self::Str(_) => "str",
            Self::Int(_) => "int",
            Self::Bool(_) => "bool",
            Self::Label(_) => "label",
            Self::Vm(_) => "vm",
            Self::Other { kind, .. } => kind,
        }
    }

    /// The name of the qube, when this is one.
    pub fn as_vm(&self) -> Option<&str> {
        if let Self::Vm(Some(name)) = self { Some(name) } else { None }
    }

    /// Reads `type=TYPE VALUE`.
    fn parse(found: &str) -> Result<Self, ReplyError> {
        let typed = found.strip_prefix("type=").ok_or(ReplyError::Missing { key: "type" })?;
        let (kind, text) = typed.split_once(' ').ok_or(ReplyError::Missing { key: "value" })?;
        let some = Some(text).filter(|text| !text.is_empty());
        Ok(match kind {
            "str" => Self::Str(text.to_owned()),
            "int" => Self::Int(some.map(|text| number("a number", text)).transpose()?),
            "bool" => Self::Bool(some.map(|text| boolean("True or False", text)).transpose()?),
            "label" => Self::Label(text.to_owned()),
            "vm" => Self::Vm(some.map(str::to_owned)),
            _ => Self::Other { kind: kind.to_owned(), text: text.to_owned() },
        })
    }
}

/// The value as it travels; empty for none.
impl fmt::Display for PropertyValue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text)
            | Self::Label(text)
            | Self::Other { text, .. }
            | Self::Vm(Some(text)) => out.write_str(text),
            Self::Int(Some(number)) => number.fmt(out),
            Self::Bool(Some(true)) => out.write_str("True"),
            Self::Bool(Some(false)) => out.write_str("False"),
            Self::Int(None) | Self::Bool(None) | Self::Vm(None) => Ok(()),
        }
    }
}

impl FromStr for Property {
    type Err = ReplyError;

    /// Reads `default=True|False type=TYPE VALUE`.
    fn from_str(found: &str) -> Result<Self, ReplyError> {
        let rest = found.strip_prefix("default=").ok_or(ReplyError::Missing { key: "default" })?;
        let (default, typed) = rest.split_once(' ').ok_or(ReplyError::Missing { key: "type" })?;
        Ok(Self { default: boolean("default", default)?, value: PropertyValue::parse(typed)? })
    }
}

/// The property as it travels.
impl fmt::Display for Property {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = if self.default { "True" } else { "False" };
        write!(out, "default={default} type={} {}", self.value.kind(), self.value)
    }
}

/// One line of `GetAll`, without its end.
pub fn render_line(name: &PropertyName, property: &Property) -> String {
    format!("{name} {}", property.to_string().replace('\\', r"\\").replace('\n', r"\n"))
}

fn parse_all(content: &[u8]) -> Result<Vec<(PropertyName, Property)>, ReplyError> {
    let line = |line: &str| {
        let (name, property) =
            line.split_once(' ').ok_or(ReplyError::Missing { key: "default" })?;
        Ok((PropertyName::parse(name)?, unescape(property).parse()?))
    };
    text(content)?.split_terminator('\n').map(line).collect()
}

fn unescape(escaped: &str) -> String {
    let mut characters = escaped.chars();
    let mut plain = String::with_capacity(escaped.len());
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

fn request(method: &'static str, destination: Destination, name: &PropertyName) -> Request {
    Request::new(method, destination).argument(name.as_str())
}

fn parse_one(content: &[u8]) -> Result<Property, ReplyError> {
    text(content)?.parse()
}

fn parse_default(content: &[u8]) -> Result<Option<PropertyValue>, ReplyError> {
    match text(content)? {
        "" => Ok(None),
        found => PropertyValue::parse(found).map(Some),
    }
}

/// The names of all properties of a qube.
pub fn list(destination: Destination) -> Call<Vec<PropertyName>> {
    Call::new(Request::new("admin.vm.property.List", destination), lines)
}

/// One property of a qube.
pub fn get(destination: Destination, name: &PropertyName) -> Call<Property> {
    Call::new(request("admin.vm.property.Get", destination, name), parse_one)
}

/// All properties of a qube, sorted by name.
pub fn get_all(destination: Destination) -> Call<Vec<(PropertyName, Property)>> {
    Call::new(Request::new("admin.vm.property.GetAll", destination), parse_all)
}

/// What a property would be if nobody set it; none when it has no default.
pub fn get_default(destination: Destination, name: &PropertyName) -> Call<Option<PropertyValue>> {
    Call::new(request("admin.vm.property.GetDefault", destination, name), parse_default)
}

/// What a property means, in a sentence.
pub fn help(destination: Destination, name: &PropertyName) -> Call<String> {
    Call::new(request("admin.vm.property.Help", destination, name), owned_text)
}

/// Sets a property of a qube; for one that names a qube, empty means none.
pub fn set(destination: Destination, name: &PropertyName, value: &str) -> Call<()> {
    let request = request("admin.vm.property.Set", destination, name);
    Call::new(request.payload(value.to_owned()), nothing)
}

/// Sets a property of a qube back to its default.
pub fn reset(destination: Destination, name: &PropertyName) -> Call<()> {
    Call::new(request("admin.vm.property.Reset", destination, name), nothing)
}

/// The names of all properties of the system.
pub fn global_list() -> Call<Vec<PropertyName>> {
    Call::new(Request::new("admin.property.List", Destination::Dom0), lines)
}

/// One property of the system.
pub fn global_get(name: &PropertyName) -> Call<Property> {
    Call::new(request("admin.property.Get", Destination::Dom0, name), parse_one)
}

/// All properties of the system, sorted by name.
pub fn global_get_all() -> Call<Vec<(PropertyName, Property)>> {
    Call::new(Request::new("admin.property.GetAll", Destination::Dom0), parse_all)
}

/// What a property of the system would be if nobody set it; none when it has no default.
pub fn global_get_default(name: &PropertyName) -> Call<Option<PropertyValue>> {
    Call::new(request("admin.property.GetDefault", Destination::Dom0, name), parse_default)
}

/// What a property of the system means, in a sentence.
pub fn global_help(name: &PropertyName) -> Call<String> {
    Call::new(request("admin.property.Help", Destination::Dom0, name), owned_text)
}

/// Sets a property of the system.
pub fn global_set(name: &PropertyName, value: &str) -> Call<()> {
    let request = request("admin.property.Set", Destination::Dom0, name);
    Call::new(request.payload(value.to_owned()), nothing)
}

/// Sets a property of the system back to its default.
pub fn global_reset(name: &PropertyName) -> Call<()> {
    Call::new(request("admin.property.Reset", Destination::Dom0, name), nothing)
}

/// Reads whatever it is given as `GetAll` and asserts that what was read is printed as it came.
pub fn fuzz_properties(input: &[u8]) {
    let Ok(properties) = parse_all(input) else { return };
    let lines: String =
        properties.iter().map(|(name, property)| render_line(name, property) + "\n").collect();
    assert!(
        parse_all(lines.as_bytes()) == Ok(properties),
        "properties do not survive a round trip"
    );
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, work};
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> PropertyName {
        PropertyName::parse(text).unwrap()
    }

    #[test]
    fn methods_of_a_qube_carry_the_property_as_argument() {
        let netvm = name("netvm");
        for (bytes, expected) in [
            (sent(&list(work())), "List+ dom0 name work\0"),
            (sent(&get(work(), &netvm)), "Get+netvm dom0 name work\0"),
            (sent(&get_all(work())), "GetAll+ dom0 name work\0"),
            (sent(&get_default(work(), &netvm)), "GetDefault+netvm dom0 name work\0"),
            (sent(&help(work(), &netvm)), "Help+netvm dom0 name work\0"),
            (sent(&set(work(), &netvm, "sys-net")), "Set+netvm dom0 name work\0sys-net"),
            (sent(&reset(work(), &netvm)), "Reset+netvm dom0 name work\0"),
        ] {
            assert_eq!(bytes, format!("admin.vm.property.{expected}"));
        }
    }

    #[test]
    fn methods_of_the_system_are_aimed_at_dom0() {
        let netvm = name("default_netvm");
        for (bytes, expected) in [
            (sent(&global_list()), "List+ dom0 name dom0\0"),
            (sent(&global_get(&netvm)), "Get+default_netvm dom0 name dom0\0"),
            (sent(&global_get_all()), "GetAll+ dom0 name dom0\0"),
            (sent(&global_get_default(&netvm)), "GetDefault+default_netvm dom0 name dom0\0"),
            (sent(&global_help(&netvm)), "Help+default_netvm dom0 name dom0\0"),
            (sent(&global_set(&netvm, "")), "Set+default_netvm dom0 name dom0\0"),
            (sent(&global_reset(&netvm)), "Reset+default_netvm dom0 name dom0\0"),
        ] {
            assert_eq!(bytes, format!("admin.property.{expected}"));
        }
    }

    #[test]
    fn a_value_has_the_type_that_the_reply_names() {
        use PropertyValue as V;
        for (text, default, value) in [
            ("default=True type=bool False", true, V::Bool(Some(false))),
            ("default=True type=int ", true, V::Int(None)),
            ("default=False type=int 400", false, V::Int(Some(400))),
            (
                "default=True type=str 10.139.1.1 10.139.1.2",
                true,
                V::Str("10.139.1.1 10.139.1.2".into()),
            ),
            ("default=False type=label blue", false, V::Label("blue".into())),
            ("default=False type=vm sys-net", false, V::Vm(Some("sys-net".into()))),
            ("default=False type=vm ", false, V::Vm(None)),
            (
                "default=False type=new x y",
                false,
                V::Other { kind: "new".into(), text: "x y".into() },
            ),
        ] {
            let property = get(work(), &name("p")).answer(format!("0\0{text}").as_bytes()).unwrap();
            assert_eq!(property, Property { default, value });
            assert_eq!(property.to_string(), text);
        }
        for bad in [
            "",
            "default=True",
            "default=maybe type=str x",
            "default=True type=int x",
            "type=str x",
        ] {
            assert!(
                get(work(), &name("p")).answer(format!("0\0{bad}").as_bytes()).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn get_all_escapes_newlines_and_backslashes() {
        let reply = b"0\0dns default=True type=str a\\nb\\\\n\nnetvm default=False type=vm \n";
        let all = get_all(work()).answer(reply).unwrap();
        assert_eq!(all[0].1.value, PropertyValue::Str("a\nb\\n".into()));
        assert_eq!(
            all[1],
            (name("netvm"), Property { default: false, value: PropertyValue::Vm(None) })
        );
        assert_eq!(render_line(&all[0].0, &all[0].1), "dns default=True type=str a\\nb\\\\n");
    }

    #[test]
    fn a_property_without_default_has_an_empty_one() {
        let call = get_default(work(), &name("name"));
        assert_eq!(call.answer(b"0\0").unwrap(), None);
        assert_eq!(call.answer(b"0\0type=int 400").unwrap(), Some(PropertyValue::Int(Some(400))));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(
            input in "([a-z]{1,3} default=(True|False|x) type=(str|int|bool|vm|z) [ -~\u{e9}]{0,12}\n){0,4}[ -~]{0,9}",
        ) {
            fuzz_properties(input.as_bytes());
        }
    }
}
