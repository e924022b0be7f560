//! How handlers read and change what a qube is: its properties, features and devices.

use admin_api::{DeviceClass, OptionName, OptionValue};
use admin_api::{
    FeatureName, PropertyName, Tag,
    call::{
        self, Call,
        device::{Device, DeviceAddress},
        property::{Property, PropertyValue},
        vm::ListedQube,
    },
};
use contract::{Fault, limits};
use policy::ManagedQube;

use crate::{
    error::Error,
    handle::{Handle, Writer},
    host::destination,
    service::Effect,
    services::property_set::Settable,
};

impl<E: Effect> Handle<'_, E> {
    async fn ask<T>(self, call: Call<T>) -> Result<T, admin_api::Error> {
        self.host.qubesd.call(call, limits::QUBESD).await
    }

    /// All properties of a qube, by name, with where they come from.
    pub(crate) async fn all_properties(
        self,
        qube: &ManagedQube,
    ) -> Result<Vec<(String, Property)>, Error> {
        let all = self.ask(call::property::get_all(destination(qube))).await?;
        Ok(all.into_iter().map(|(name, property)| (name.to_string(), property)).collect())
    }

    /// One of the properties that can be set.
    pub(crate) async fn property(
        self,
        qube: &ManagedQube,
        property: Settable,
    ) -> Result<PropertyValue, Error> {
        let call = call::property::get(destination(qube), &name(property)?);
        match self.ask(call).await {
            Err(error) if error.kind() == Some("QubesNoSuchPropertyError") => {
                let message = format!("this qube has no property {}", property.as_str());
                Err(Fault::bad_request(message).into())
            }
            answer => Ok(answer?.value),
        }
    }

    /// The line of the list of qubes that is about this one.
    pub(crate) async fn listed(self, qube: &ManagedQube) -> Result<ListedQube, Error> {
        let lines = self.ask(call::vm::list(destination(qube))).await?;
        lines.into_iter().next().ok_or(Error::Qubesd(admin_api::Error::Empty))
    }

    /// All tags of a qube.
    pub(crate) async fn tags(self, qube: &ManagedQube) -> Result<Vec<Tag>, Error> {
        Ok(self.ask(call::tag::list(destination(qube))).await?)
    }

    /// The names of all features of a qube itself.
    pub(crate) async fn features(self, qube: &ManagedQube) -> Result<Vec<FeatureName>, Error> {
        Ok(self.ask(call::feature::list(destination(qube))).await?)
    }

    /// A feature of a qube itself; nothing when it has none of this name.
    pub(crate) async fn feature(
        self,
        qube: &ManagedQube,
        feature: &FeatureName,
    ) -> Result<Option<String>, Error> {
        match self.ask(call::feature::get(destination(qube), feature)).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == Some("QubesFeatureNotFoundError") => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The devices that a qube offers to others.
    pub(crate) async fn devices_offered(
        self,
        qube: &ManagedQube,
        class: &DeviceClass,
    ) -> Result<Vec<Device>, Error> {
        Ok(self.ask(call::device::available(class, destination(qube), None)).await?)
    }

    /// The devices that are attached to a qube now.
    pub(crate) async fn devices_attached(
        self,
        qube: &ManagedQube,
        class: &DeviceClass,
    ) -> Result<Vec<Device>, Error> {
        Ok(self.ask(call::device::attached(class, destination(qube))).await?)
    }
}

impl Writer<'_> {
    /// Sets a property to a value as qubesd writes it; empty is none.
    pub(crate) async fn set_property(
        self,
        qube: &ManagedQube,
        property: Settable,
        value: &str,
    ) -> Result<(), Error> {
        let call = call::property::set(destination(qube), &name(property)?, value);
        self.ask(call).await.map_err(|error| told(error, property.as_str()))
    }

    /// Sets a feature, or removes it; one that is not there is removed already.
    pub(crate) async fn set_feature(
        self,
        qube: &ManagedQube,
        feature: &FeatureName,
        value: Option<&str>,
    ) -> Result<(), Error> {
        let call = match value {
            Some(value) => call::feature::set(destination(qube), feature, value),
            None => call::feature::remove(destination(qube), feature),
        };
        match self.ask(call).await {
            Err(error) if error.kind() == Some("QubesFeatureNotFoundError") => Ok(()),
            answer => answer.map_err(|error| told(error, feature.as_str())),
        }
    }

    /// Attaches a device to a running qube, until it is detached or the qube halts.
    pub(crate) async fn attach(
        self,
        frontend: &ManagedQube,
        class: &DeviceClass,
        device: &DeviceAddress,
        options: &[(OptionName, OptionValue)],
    ) -> Result<(), Error> {
        let call = call::device::attach(class, destination(frontend), device, options);
        self.ask(call).await.map_err(|error| told(error, device.port.as_str()))
    }

    /// Detaches a device.
    pub(crate) async fn detach(
        self,
        frontend: &ManagedQube,
        class: &DeviceClass,
        device: &DeviceAddress,
    ) -> Result<(), Error> {
        let call = call::device::detach(class, destination(frontend), device);
        self.ask(call).await.map_err(|error| told(error, device.port.as_str()))
    }
}

fn name(property: Settable) -> Result<PropertyName, Error> {
    property.as_str().parse().map_err(|_| Error::Stored("no such property"))
}

/// What a caller may know of a change that qubesd refused. qubesd's own words name other qubes, so
/// none of them is passed on: `about` is what the caller itself has sent.
fn told(error: admin_api::Error, about: &str) -> Error {
    let message = match error.kind() {
        Some("QubesValueError" | "QubesPropertyValueError" | "QubesLabelNotFoundError") => {
            format!("Qubes does not take this value for {about}")
        }
        Some("QubesVMNotHaltedError") => format!("the qube must be halted to change {about}"),
        Some("QubesVMNotRunningError" | "QubesVMNotStartedError") => {
            "the qube must be running".into()
        }
        Some("DeviceAlreadyAttached") => format!("{about} is attached already"),
        Some("DeviceNotAssigned" | "DeviceNotAttached") => format!("{about} is not attached"),
        Some("USBProxyNotInstalled") => "the qube lacks the package qubes-usb-proxy".into(),
        Some(_) | None => return Error::Qubesd(error),
    };
    Fault::bad_request(message).into()
}
