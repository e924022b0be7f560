//! What a copy takes over from its source besides what every new qube has.

use admin_api::{
    FeatureName, PropertyName,
    call::{self, property::PropertyValue},
};
use contract::limits;

use super::{Newborn, Source, create::property};
use crate::{error::Error, handle::Writer, host::destination, view::View};

/// Properties that a copy has from its making, or that are the operator's to decide.
const NOT_COPIED: [&str; 16] = [
    "auto_cleanup",
    "autostart",
    "backup_timestamp",
    "dispid",
    "installed_by_rpm",
    "ip",
    "ip6",
    "label",
    "mac",
    "name",
    "netvm",
    "provides_network",
    "qid",
    "template",
    "template_for_dispvms",
    "uuid",
];
/// Features with which qubesd does things to other qubes.
const NOT_COPIED_FEATURES: [&str; 2] = ["tag-created-vm-with", "preload-dispvm"];

/// What a copy takes over.
#[derive(Debug)]
pub(crate) struct Copied {
    properties: Vec<(PropertyName, String)>,
    features: Vec<(FeatureName, String)>,
}

impl Writer<'_> {
    /// Looks what a copy of this source will take over: what was set, without the names of
    /// strangers.
    pub(crate) async fn to_copy(self, view: &View, source: &Source) -> Result<Copied, Error> {
        let mut properties = Vec::new();
        for (name, found) in &source.properties {
            if found.default || NOT_COPIED.contains(&name.as_str()) {
                continue;
            }
            if let PropertyValue::Vm(Some(other)) = &found.value {
                let Ok(other) = other.parse() else { continue };
                if !self.sees(view, &other).await? {
                    continue;
                }
            }
            properties.push((property(name)?, found.value.to_string()));
        }
        Ok(Copied { properties, features: self.features_to_copy(source).await? })
    }

    async fn features_to_copy(self, source: &Source) -> Result<Vec<(FeatureName, String)>, Error> {
        let place = || destination(&source.qube);
        let mut features = Vec::new();
        for name in self.step(call::feature::list(place()), limits::QUBESD).await? {
            if NOT_COPIED_FEATURES.iter().any(|start| name.as_str().starts_with(start)) {
                continue;
            }
            let value = self.step(call::feature::get(place(), &name), limits::QUBESD).await?;
            features.push((name, value));
        }
        Ok(features)
    }

    /// Makes a newborn a copy of its source: properties, features, firewall, volumes. No devices.
    pub(crate) async fn copy(
        self,
        newborn: &Newborn,
        source: &Source,
        copied: &Copied,
    ) -> Result<(), Error> {
        self.set_properties(newborn, &copied.properties).await?;
        for (name, value) in &copied.features {
            let set = call::feature::set(newborn.place(), name, value);
            self.step(set, limits::QUBESD).await?;
        }
        let from = destination(&source.qube);
        let rules = self.step(call::firewall::get(from.clone()), limits::QUBESD).await?;
        let set = call::firewall::set(newborn.place(), &rules);
        self.step(set, limits::QUBESD).await?;
        for (volume, info) in self.host.volumes(newborn.place()).await? {
            if info.save_on_stop {
                let token = call::volume::clone_from(from.clone(), &volume);
                let token = self.step(token, limits::QUBESD).await?;
                let to = call::volume::clone_to(newborn.place(), &volume, &token);
                self.step(to, limits::COPY_VOLUME).await?;
            }
        }
        Ok(())
    }
}
