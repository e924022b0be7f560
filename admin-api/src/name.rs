//! Names as Qubes spells them. A value of one of these types is well formed, nothing more.

use std::fmt;
use std::str::FromStr;

/// A text that is no name of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No character at all.
    #[error("a {kind} cannot be empty")]
    Empty {
        /// What it was to be.
        kind: &'static str,
    },
    /// More characters than its kind has.
    #[error("a {kind} has at most {max} characters")]
    TooLong {
        /// What it was to be.
        kind: &'static str,
        /// The limit, in characters (all are ASCII).
        max: usize,
    },
    /// A first character with which its kind does not begin.
    #[error("a {kind} cannot begin with {found:?}")]
    Start {
        /// What it was to be.
        kind: &'static str,
        /// The character.
        found: char,
    },
    /// A character that its kind does not have.
    #[error("a {kind} cannot contain {found:?}")]
    Character {
        /// What it was to be.
        kind: &'static str,
        /// The character.
        found: char,
    },
    /// A name that Qubes keeps for itself.
    #[error("this {kind} is reserved")]
    Reserved {
        /// What it was to be.
        kind: &'static str,
    },
    /// Not of the form that its kind has.
    #[error("a {kind} has the form {form}")]
    Form {
        /// What it was to be.
        kind: &'static str,
        /// The form.
        form: &'static str,
    },
}

/// What a kind of name is made of.
struct Grammar {
    kind: &'static str,
    max: usize,
    start: fn(char) -> bool,
    inner: fn(char) -> bool,
    reserved: fn(&str) -> bool,
}

impl Grammar {
    fn parse(&self, text: &str) -> Result<(), NameError> {
        let kind = self.kind;
        let first = text.chars().next().ok_or(NameError::Empty { kind })?;
        if let Some(found) = text.chars().find(|found| !(self.inner)(*found)) {
            return Err(NameError::Character { kind, found });
        }
        if !(self.start)(first) {
            return Err(NameError::Start { kind, found: first });
        }
        if text.len() > self.max {
            return Err(NameError::TooLong { kind, max: self.max });
        }
        if (self.reserved)(text) {
            return Err(NameError::Reserved { kind });
        }
        Ok(())
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $grammar:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            const GRAMMAR: Grammar = $grammar;

            /// Reads a name.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                Self::GRAMMAR.parse(text).map(|()| Self(text.into()))
            }

            /// The name as it travels.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{}({:?})", stringify!($name), self.0)
            }
        }
    )*};
}

fn word(found: char) -> bool {
    found.is_ascii_alphanumeric() || matches!(found, '_' | '.' | '-')
}

fn no_dot(found: char) -> bool {
    found.is_ascii_alphanumeric() || matches!(found, '_' | '-')
}

fn identifier(found: char) -> bool {
    found.is_ascii_alphanumeric() || found == '_'
}

fn port(found: char) -> bool {
    word(found) || matches!(found, '*' | '@' | ',' | '~' | '#')
}

fn identity(found: char) -> bool {
    found.is_ascii_graphic() && !matches!(found, '\'' | '"' | '\\')
}

fn plain_value(found: char) -> bool {
    word(found) || matches!(found, ':' | ',' | '/')
}

fn identifier_start(found: char) -> bool {
    found.is_ascii_alphabetic() || found == '_'
}

fn letter(found: char) -> bool {
    found.is_ascii_alphabetic()
}

fn nothing(_: &str) -> bool {
    false
}

/// `qubes/vm/__init__.py` refuses four names and the suffix of stub domains; dom0 and every other
/// spelling of the four are refused here as well, because they can only be meant to deceive.
fn reserved_qube(text: &str) -> bool {
    ["dom0", "domain-0", "none", "default"].iter().any(|name| text.eq_ignore_ascii_case(name))
        || text.ends_with("-dm")
}

/// Longer than any argument of a request that qubesd takes (65,536 bytes) need not be told apart.
const UNLIMITED: usize = 65_536;

names! {
    /// The name of a qube, never dom0's: a letter, then letters, digits, `_`, `.`, `-`; at most 31.
    QubeName: Grammar { kind: "qube name", max: 31, start: letter, inner: word, reserved: reserved_qube };
    /// A tag: letters, digits, `-`, `_`.
    Tag: Grammar { kind: "tag", max: UNLIMITED, start: no_dot, inner: no_dot, reserved: nothing };
    /// The name of a label (a colour): letters, digits, `-`, `_`, `.`.
    LabelName: Grammar { kind: "label", max: UNLIMITED, start: word, inner: word, reserved: nothing };
    /// The name of a property: letters, digits, `_`.
    PropertyName: Grammar { kind: "property name", max: UNLIMITED, start: identifier_start, inner: identifier, reserved: nothing };
    /// The name of a feature: letters, digits, `_`, `.`, `-`.
    FeatureName: Grammar { kind: "feature name", max: UNLIMITED, start: word, inner: word, reserved: nothing };
    /// The class of a device, such as `block`, `usb`, `mic`, `pci`.
    DeviceClass: Grammar { kind: "device class", max: UNLIMITED, start: identifier_start, inner: identifier, reserved: nothing };
    /// Where a device is plugged in at its backend, such as `sda`, `2-1`, `00_1f.6`.
    PortId: Grammar { kind: "port", max: UNLIMITED, start: port, inner: port, reserved: nothing };
    /// Which device it is that is plugged in at a port, such as `0781:5580::u080650`; `*` is any.
    DeviceId: Grammar { kind: "device identity", max: UNLIMITED, start: identity, inner: identity, reserved: nothing };
    /// The name of an option of an attached device, such as `read-only`.
    OptionName: Grammar { kind: "option name", max: UNLIMITED, start: word, inner: word, reserved: nothing };
    /// The value of an option of an attached device: what needs no quotes.
    OptionValue: Grammar { kind: "option value", max: UNLIMITED, start: plain_value, inner: plain_value, reserved: nothing };
    /// The name of a storage pool: letters, digits, `-`, `_`, `.`.
    PoolName: Grammar { kind: "pool name", max: UNLIMITED, start: word, inner: word, reserved: nothing };
    /// The name of a volume of a qube, such as `private`.
    VolumeName: Grammar { kind: "volume name", max: UNLIMITED, start: word, inner: word, reserved: nothing };
    /// The name of a revision of a volume: letters, digits, `:`, `-`, `_`, `.`.
    Revision: Grammar { kind: "revision", max: UNLIMITED, start: revision, inner: revision, reserved: nothing };
}

fn revision(found: char) -> bool {
    word(found) || found == ':'
}

/// The UUID of a qube, in the one form that qubesd accepts and prints: 8-4-4-4-12 lower-case hex.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(Box<str>);

impl Uuid {
    /// Reads a UUID, without the prefix `uuid:`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let groups = text.split('-').map(str::len);
        let hex = |found: char| matches!(found, '0'..='9' | 'a'..='f' | '-');
        if groups.eq([8, 4, 4, 4, 12]) && text.chars().all(hex) {
            return Ok(Self(text.into()));
        }
        Err(NameError::Form { kind: "UUID", form: "8-4-4-4-12 of lower-case hexadecimal digits" })
    }

    /// The UUID as it travels, without the prefix `uuid:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Uuid {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Uuid({:?})", self.0)
    }
}

/// Parses whatever it is given as every kind of name and asserts that names print as they were read.
pub fn fuzz_names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(name) = QubeName::parse(text) {
        assert!(name.as_str() == text && text.len() <= 31, "a qube name changed");
        assert!(!text.eq_ignore_ascii_case("dom0"), "dom0 is no qube");
    }
    for printed in [
        Tag::parse(text).map(|name| name.to_string()),
        PropertyName::parse(text).map(|name| name.to_string()),
        PortId::parse(text).map(|name| name.to_string()),
        Uuid::parse(text).map(|name| name.to_string()),
    ] {
        assert!(printed.is_err() || printed.as_deref() == Ok(text), "a name changed");
        assert!(
            printed.is_err() || !text.contains([' ', '\0', '\n', '+']),
            "a name breaks a frame"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn qube_names_are_those_of_qubes_without_the_reserved_ones() {
        for good in ["work", "A", "new.dot", "new_us", "sys-net", "disp12", &"a".repeat(31)] {
            let name = QubeName::parse(good).unwrap();
            assert_eq!((name.as_str(), name.as_ref()), (good, good));
            assert_eq!(format!("{name:?}"), format!("QubeName({good:?})"));
        }
        let uuid: Uuid = "731881c4-00db-4f7d-b875-47a0ea7bad96".parse().unwrap();
        assert_eq!(format!("{uuid:?}"), format!("Uuid(\"{uuid}\")"));
        let kind = "qube name";
        assert_eq!(QubeName::parse(""), Err(NameError::Empty { kind }));
        assert_eq!(QubeName::parse(&"a".repeat(32)), Err(NameError::TooLong { kind, max: 31 }));
        for (bad, found) in [("1new", '1'), ("-a", '-'), ("_a", '_'), (".a", '.')] {
            assert_eq!(QubeName::parse(bad), Err(NameError::Start { kind, found }));
        }
        for (bad, found) in [("a b", ' '), ("a\n", '\n'), ("néw", 'é'), ("a/b", '/'), ("a+b", '+')]
        {
            assert_eq!(QubeName::parse(bad), Err(NameError::Character { kind, found }));
        }
    }

    #[test]
    fn no_spelling_of_dom0_or_of_a_keyword_is_a_qube_name() {
        for bad in
            ["dom0", "DOM0", "Dom0", "Domain-0", "domain-0", "none", "None", "default", "x-dm"]
        {
            assert_eq!(QubeName::parse(bad), Err(NameError::Reserved { kind: "qube name" }));
        }
        for bad in ["@adminvm", "uuid:731881c4-00db-4f7d-b875-47a0ea7bad96", "$adminvm", "@tag:x"] {
            assert!(QubeName::parse(bad).is_err());
        }
    }

    #[test]
    fn a_tag_has_no_dot_and_may_begin_with_a_digit() {
        assert_eq!(Tag::parse("1digit").unwrap().as_str(), "1digit");
        assert_eq!(Tag::parse("dot.dot"), Err(NameError::Character { kind: "tag", found: '.' }));
        assert_eq!(Tag::parse(&"a".repeat(300)).unwrap().as_str().len(), 300);
    }

    #[test]
    fn a_uuid_has_five_groups_of_lower_case_hex() {
        let text = "731881c4-00db-4f7d-b875-47a0ea7bad96";
        assert_eq!(Uuid::parse(text).unwrap().to_string(), text);
        let upper = text.to_uppercase();
        for bad in
            ["", "731881c4-00db-4f7d-b875-47a0ea7bad9", upper.as_str(), &text.replace('c', "g")]
        {
            assert!(Uuid::parse(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(input in prop::collection::vec(any::<u8>(), 0..60)) {
            fuzz_names(&input);
        }

        #[test]
        fn whatever_qubes_would_accept_is_a_name(text in "[a-zA-Z][a-zA-Z0-9_.-]{0,30}") {
            fuzz_names(text.as_bytes());
            prop_assert_eq!(QubeName::parse(&text).is_err(), reserved_qube(&text));
        }
    }
}
