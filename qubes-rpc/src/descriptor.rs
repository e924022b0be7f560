//! The line with which qrexec announces a call to a socket service.
//!
//! `SERVICE+ARGUMENT SOURCE name TARGET\0`, or `keyword KEYWORD` where the caller asked for one.
//! Recorded from qrexec 4.4.2; policy has admitted the call when it arrives.

use admin_api::QubeName;

use contract::{SERVICE_PREFIX, limits};
use policy::QMCP_SERVICES;

/// Whom the caller asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// dom0, by name or as `@adminvm`.
    Dom0,
    /// A qube, by name.
    Qube(QubeName),
}

/// One call as qrexec announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The service without our prefix; with its own where it is one of qubes-mcp's.
    pub service: String,
    /// What stands behind the first `+`; empty when there is none.
    pub argument: String,
    /// The calling qube. qrexec vouches for it.
    pub source: QubeName,
    /// Whom the caller asked for.
    pub target: Target,
}

/// The announcement is not of the form that qrexec sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a service descriptor of qrexec")]
pub struct DescriptorError;

impl Descriptor {
    /// The qube that the call names, as far as it names one. Not proven to be a name.
    pub fn untrusted_qube(&self) -> &str {
        match &self.target {
            Target::Dom0 => &self.argument,
            Target::Qube(name) => name.as_str(),
        }
    }

    /// Reads an announcement without its NUL.
    pub fn parse(untrusted: &[u8]) -> Result<Self, DescriptorError> {
        if untrusted.len() > limits::DESCRIPTOR_BYTES {
            return Err(DescriptorError);
        }
        let line = str::from_utf8(untrusted).map_err(|_| DescriptorError)?;
        let mut words = line.split(' ');
        let (Some(call), Some(source), Some(kind), Some(target), None) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
        else {
            return Err(DescriptorError);
        };
        let (service, argument) = call.split_once('+').unwrap_or((call, ""));
        let service = match service.strip_prefix(SERVICE_PREFIX) {
            Some(service) => service,
            None if QMCP_SERVICES.contains(&service) => service,
            None => return Err(DescriptorError),
        };
        let target = match (kind, target) {
            ("name", "dom0") | ("keyword", "adminvm") => Target::Dom0,
            ("name", name) => Target::Qube(name.parse().map_err(|_| DescriptorError)?),
            _ => return Err(DescriptorError),
        };
        Ok(Self {
            service: service.into(),
            argument: argument.into(),
            source: source.parse().map_err(|_| DescriptorError)?,
            target,
        })
    }
}

/// Reads whatever it is given; nothing may panic, and what is read holds only proven names.
pub fn fuzz_descriptor(input: &[u8]) {
    if let Ok(descriptor) = Descriptor::parse(input) {
        assert!(!descriptor.service.contains(['+', ' ', '\0']) || input.contains(&0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Descriptor, DescriptorError> {
        Descriptor::parse(line.as_bytes())
    }

    #[test]
    fn the_recorded_announcements_are_read() {
        let listed = parse("saltbridge.VmExec+work salt-bridge name dom0").unwrap();
        assert_eq!((listed.service.as_str(), listed.argument.as_str()), ("VmExec", "work"));
        assert_eq!((listed.source.as_str(), listed.target), ("salt-bridge", Target::Dom0));
        let keyword = parse("saltbridge.VmList+ salt-bridge keyword adminvm").unwrap();
        assert_eq!((keyword.argument.as_str(), keyword.target), ("", Target::Dom0));
        let tagged = parse("saltbridge.VmExec+ salt-bridge name ai-vm-1").unwrap();
        assert_eq!(tagged.target, Target::Qube("ai-vm-1".parse().unwrap()));
    }

    #[test]
    fn anything_else_is_no_announcement() {
        for line in [
            "",
            "saltbridge.VmExec+work salt-bridge name",
            "saltbridge.VmExec+work salt-bridge name dom0 more",
            "saltbridge.VmExec+work  name dom0",
            "other.VmExec+work salt-bridge name dom0",
            "saltbridge.VmExec+work salt-bridge keyword default",
            "saltbridge.VmExec+work dom0 name dom0",
            "saltbridge.VmExec+work salt-bridge name @adminvm",
        ] {
            assert_eq!(parse(line), Err(DescriptorError), "{line}");
        }
        assert!(Descriptor::parse(b"saltbridge.VmExec+\xff a name dom0").is_err());
        assert!(Descriptor::parse(&[b'a'; limits::DESCRIPTOR_BYTES + 1]).is_err());
    }
    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(pieces in prop::collection::vec(prop::sample::select(vec![
            "saltbridge.", "VmExec", "qmcp.", "+", "work", " ", "name", "keyword", "dom0", "adminvm",
            " salt-bridge name dom0", "\0", "é",
        ]), 0..9)) {
            fuzz_descriptor(pieces.concat().as_bytes());
            fuzz_descriptor(format!("saltbridge.VmExec+{}", pieces.concat()).as_bytes());
        }
    }
}
