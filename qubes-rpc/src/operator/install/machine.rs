//! The running machine, as far as an installation changes it besides files.

use std::{fmt::Debug, io, path::Path};

use admin_api::{Client, Destination, FeatureName, NameError, QubeName, call::feature};
use contract::limits;

use crate::operator::systemd::{self, SystemError};

/// The feature of a creating qube whose tags qubesd gives to what is created.
const CREATED_TAGS: &str = "tag-created-vm-with";

/// Why the machine did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MachineError {
    /// A program failed.
    #[error(transparent)]
    System(#[from] SystemError),
    /// qubesd failed.
    #[error("qubesd does not tell or set the feature {CREATED_TAGS} of {0}")]
    Feature(QubeName, #[source] admin_api::Error),
    /// The feature's name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// tokio did not start.
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

/// What an installation asks of the machine.
pub(super) trait Machine: Debug {
    /// Whether systemd runs what is installed here.
    fn has_systemd(&self) -> bool;

    /// Runs one of systemd's programs, or one that changes users.
    fn run(&self, program: &'static str, arguments: &[&str]) -> Result<(), MachineError>;

    /// The tags, one after another, of all that a qube creates; nothing when that is not set, or
    /// the qube is gone.
    fn created_tags(&self, qube: &QubeName) -> Result<Option<String>, MachineError>;

    /// Sets these tags, or lets nothing be set.
    fn set_created_tags(&self, qube: &QubeName, tags: Option<&str>) -> Result<(), MachineError>;
}

/// The dom0 with this root.
#[derive(Debug)]
pub(super) struct Dom0 {
    has_systemd: bool,
    qubesd: Client,
}

impl Dom0 {
    /// The dom0 whose files lie below this root, and whose qubesd listens there.
    pub(super) fn new(root: &Path, qubesd: Client) -> Self {
        Self { has_systemd: systemd::is_meant(root), qubesd }
    }
}

fn wait_for<T>(answer: impl Future<Output = T>) -> Result<T, MachineError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(MachineError::Runtime)?.block_on(answer))
}

impl Machine for Dom0 {
    fn has_systemd(&self) -> bool {
        self.has_systemd
    }

    fn run(&self, program: &'static str, arguments: &[&str]) -> Result<(), MachineError> {
        Ok(systemd::run(program, arguments)?)
    }

    fn created_tags(&self, qube: &QubeName) -> Result<Option<String>, MachineError> {
        let name = FeatureName::parse(CREATED_TAGS)?;
        let get = feature::get(Destination::Qube(qube.clone()), &name);
        match wait_for(self.qubesd.call(get, limits::QUBESD))? {
            Ok(tags) => Ok(Some(tags)),
            // Of a qube that is gone qubesd says either, depending on its release.
            Err(admin_api::Error::Exception(_) | admin_api::Error::Empty) => Ok(None),
            Err(error) => Err(MachineError::Feature(qube.clone(), error)),
        }
    }

    fn set_created_tags(&self, qube: &QubeName, tags: Option<&str>) -> Result<(), MachineError> {
        let (name, destination) =
            (FeatureName::parse(CREATED_TAGS)?, Destination::Qube(qube.clone()));
        let call = match tags {
            Some(tags) => feature::set(destination, &name, tags),
            None => feature::remove(destination, &name),
        };
        wait_for(self.qubesd.call(call, limits::QUBESD))?
            .map_err(|error| MachineError::Feature(qube.clone(), error))
    }
}
