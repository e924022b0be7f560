//! What qrexec knows of the qubes when it decides (`internal.GetSystemInfo`).

use std::collections::BTreeMap;

pub(super) const DOM0: &str = "dom0";
pub(super) const ADMIN_VM: &str = "@adminvm";
const DOM0_UUID: &str = "uuid:00000000-0000-0000-0000-000000000000";

/// The prefix of a UUID that stands where a name could.
pub(super) const UUID_PREFIX: &str = "uuid:";

/// Every qube of the system by its name, dom0 among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    qubes: BTreeMap<String, SystemQube>,
}

/// One qube, as far as policy looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemQube {
    /// The class, for example `AppVM`.
    pub class: String,
    /// The UUID, without prefix.
    pub uuid: String,
    /// The tags.
    pub tags: Vec<String>,
    /// Whether disposables may be made from it.
    pub template_for_dispvms: bool,
    /// The disposable template that `@dispvm` means for calls of this qube.
    pub default_dispvm: Option<String>,
    /// Whether its power state is `Running`.
    pub running: bool,
    /// The qube on whose screen it is asked about this qube's calls; without one `ask` refuses.
    pub guivm: Option<String>,
    /// Whether it is kept out of lists and prompts.
    pub internal: bool,
}

impl System {
    /// A system without qubes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a qube, or replaces the one of this name.
    pub fn insert(&mut self, name: impl Into<String>, qube: SystemQube) {
        self.qubes.insert(name.into(), qube);
    }

    /// The qube of this name, or of this UUID behind `uuid:`, with its name.
    pub fn get(&self, name_or_uuid: &str) -> Option<(&str, &SystemQube)> {
        match name_or_uuid.strip_prefix(UUID_PREFIX) {
            Some(uuid) => self.iter().find(|(_, qube)| qube.uuid == uuid),
            None => {
                self.qubes.get_key_value(name_or_uuid).map(|(name, qube)| (name.as_str(), qube))
            }
        }
    }

    /// Every qube with its name, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SystemQube)> {
        self.qubes.iter().map(|(name, qube)| (name.as_str(), qube))
    }

    /// Whether two texts, each a name or a UUID, mean the same qube, as qrexec compares them.
    pub(super) fn same(&self, one: &str, other: &str) -> bool {
        let is = |uuid: &str, name: &str| self.get(name).is_some_and(|(_, qube)| qube.uuid == uuid);
        match (one.strip_prefix(UUID_PREFIX), other.strip_prefix(UUID_PREFIX)) {
            (Some(uuid), None) => is(uuid, other),
            (None, Some(uuid)) => is(uuid, one),
            (Some(_), Some(_)) | (None, None) => one == other,
        }
    }
}

impl<N: Into<String>> FromIterator<(N, SystemQube)> for System {
    fn from_iter<I: IntoIterator<Item = (N, SystemQube)>>(qubes: I) -> Self {
        Self { qubes: qubes.into_iter().map(|(name, qube)| (name.into(), qube)).collect() }
    }
}

/// Whether the text is one of the spellings that qrexec takes for dom0.
pub(super) fn is_dom0(text: &str) -> bool {
    [ADMIN_VM, DOM0, DOM0_UUID].contains(&text)
}
