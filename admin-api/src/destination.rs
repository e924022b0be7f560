//! Whom a request is aimed at, and in whose name it is made.

use std::fmt;

use crate::{NameError, QubeName, Uuid};

/// How qubesd calls the qube in which it runs.
pub const DOM0: &str = "dom0";

const UUID_PREFIX: &str = "uuid:";

/// Whom a request is aimed at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// dom0: the system as a whole.
    Dom0,
    /// The qube that has this name now.
    Qube(QubeName),
    /// The qube with this UUID, whatever its name has become. Not known to R4.2.
    Uuid(Uuid),
}

impl Destination {
    /// Reads `dom0`, `uuid:UUID` or the name of a qube.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix(UUID_PREFIX) {
            Some(uuid) => Uuid::parse(uuid).map(Self::Uuid),
            None if text == DOM0 => Ok(Self::Dom0),
            None => QubeName::parse(text).map(Self::Qube),
        }
    }
}

impl From<QubeName> for Destination {
    fn from(name: QubeName) -> Self {
        Self::Qube(name)
    }
}

impl From<Uuid> for Destination {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dom0 => out.pad(DOM0),
            Self::Qube(name) => name.fmt(out),
            Self::Uuid(uuid) => write!(out, "{UUID_PREFIX}{uuid}"),
        }
    }
}

/// In whose name a request is made. qubesd stamps what is created with it, and filters lists and
/// events by that qube's policy unless it is dom0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// dom0, which may do everything.
    Dom0,
    /// A qube.
    Qube(QubeName),
}

impl Source {
    /// Reads `dom0` or the name of a qube.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == DOM0 { Ok(Self::Dom0) } else { QubeName::parse(text).map(Self::Qube) }
    }
}

impl From<QubeName> for Source {
    fn from(name: QubeName) -> Self {
        Self::Qube(name)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dom0 => out.pad(DOM0),
            Self::Qube(name) => name.fmt(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_dom0_a_name_or_a_uuid() {
        for text in ["dom0", "work", "uuid:731881c4-00db-4f7d-b875-47a0ea7bad96"] {
            assert_eq!(Destination::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "DOM0", "uuid:1", "@adminvm", "a b", "uuid:UUID"] {
            assert!(Destination::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Source::parse("dom0"), Ok(Source::Dom0));
        let name = QubeName::parse("work").unwrap();
        assert_eq!(Destination::parse("work"), Ok(name.clone().into()));
        assert_eq!(Source::parse("work"), Ok(name.into()));
        let uuid = Uuid::parse("731881c4-00db-4f7d-b875-47a0ea7bad96").unwrap();
        assert_eq!(Destination::parse(&format!("uuid:{uuid}")), Ok(uuid.into()));
        assert!(Source::parse("uuid:731881c4-00db-4f7d-b875-47a0ea7bad96").is_err());
    }
}
