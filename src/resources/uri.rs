//! The addresses of resources: `qubes://…`.

use std::fmt::{self, Write as _};

use crate::arguments::QubeName;

/// The template of a qube's resource.
pub(crate) const QUBE_TEMPLATE: &str = "qubes://vm/{name}";
/// The template of a qube's firewall rules.
pub(crate) const FIREWALL_TEMPLATE: &str = "qubes://vm/{name}/firewall";
/// The template of a file in a qube.
pub(crate) const FILE_TEMPLATE: &str = "qubes://vm/{name}/file/{+path}";

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// All qubes in scope.
    Vms,
    /// The picture, in both forms.
    Topology,
    /// What is known of a qube.
    Qube(QubeName),
    /// Its firewall rules.
    Firewall(QubeName),
    /// A file in it, by the bytes of its path.
    File(QubeName, Vec<u8>),
}

impl Place {
    /// Reads an address. Nothing when there can be no such resource.
    pub(crate) fn parse(uri: &str) -> Option<Self> {
        let path = uri.strip_prefix("qubes://")?;
        match path {
            "vms" => return Some(Self::Vms),
            "topology" => return Some(Self::Topology),
            _ => {}
        }
        let path = path.strip_prefix("vm/")?;
        let (name, rest) = match path.split_once('/') {
            Some((name, rest)) => (name, Some(rest)),
            None => (path, None),
        };
        let name = QubeName::parse(name).ok()?;
        match rest {
            None => Some(Self::Qube(name)),
            Some("firewall") => Some(Self::Firewall(name)),
            Some(rest) => {
                let path = decode(rest.strip_prefix("file/")?)?;
                (!path.is_empty()).then_some(Self::File(name, path))
            }
        }
    }

    /// Whether a change of this qube may change the resource.
    pub(crate) fn shows(&self, qube: &str) -> bool {
        match self {
            Self::Vms | Self::Topology => true,
            Self::Qube(name) | Self::Firewall(name) | Self::File(name, _) => name.as_str() == qube,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vms => f.write_str("qubes://vms"),
            Self::Topology => f.write_str("qubes://topology"),
            Self::Qube(name) => write!(f, "qubes://vm/{}", name.as_str()),
            Self::Firewall(name) => write!(f, "qubes://vm/{}/firewall", name.as_str()),
            Self::File(name, path) => {
                write!(f, "qubes://vm/{}/file/", name.as_str())?;
                path.iter().try_for_each(|byte| encode(*byte, f))
            }
        }
    }
}

/// Writes a byte of a path as an address holds it (RFC 3986).
fn encode(byte: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match byte {
        b'/' | b'-' | b'.' | b'_' | b'~' => f.write_char(char::from(byte)),
        byte if byte.is_ascii_alphanumeric() => f.write_char(char::from(byte)),
        byte => write!(f, "%{byte:02X}"),
    }
}

/// The bytes of a path. Nothing when a percent sign is not followed by two hexadecimal digits.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_leads_to_the_place_that_it_came_from() {
        for uri in [
            "qubes://vms",
            "qubes://topology",
            "qubes://vm/work",
            "qubes://vm/work/firewall",
            "qubes://vm/work/file/notes.txt",
            "qubes://vm/work/file//etc/hosts",
            "qubes://vm/work/file//a%20b%25%FF",
        ] {
            assert_eq!(Place::parse(uri).unwrap().to_string(), uri);
        }
        let file = Place::parse("qubes://vm/work/file//a%20b%ff").unwrap();
        let name = QubeName::parse("work").unwrap();
        assert_eq!(file, Place::File(name, b"/a b\xff".into()));
    }

    #[test]
    fn what_is_no_resource_has_no_place() {
        for uri in [
            "",
            "vms",
            "qubes://",
            "qubes://vm/",
            "qubes://vm/1x",
            "qubes://vm/@adminvm",
            "qubes://vm/work/",
            "qubes://vm/work/file/",
            "qubes://vm/work/nope",
            "qubes://vm/work/file/%f",
            "qubes://vm/work/file/%zz",
            "file:///etc/passwd",
        ] {
            assert_eq!(Place::parse(uri), None, "{uri}");
        }
    }
}
