//! The qubes in scope, as `VmList` tells them.

use serde::{Deserialize, Serialize};

/// The result of the service.
#[derive(Debug, Deserialize)]
pub(crate) struct Listing {
    /// The qubes, by name.
    pub(crate) vms: Vec<Vm>,
}

/// One qube. What a later version adds is dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Vm {
    /// Its name.
    pub(crate) name: String,
    /// Its power state.
    pub(crate) state: String,
    /// Its class.
    pub(crate) class: String,
    /// The qube that gives it its network, or the sign for one that may not be known.
    pub(crate) netvm: Option<String>,
    /// Its IPv4 address.
    pub(crate) ip: Option<String>,
    /// The colour of its label.
    pub(crate) label: String,
    /// The powers over it.
    pub(crate) powers: Vec<String>,
}
