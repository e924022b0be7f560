//! What a new qube is made from, with the authority over it.

use admin_api::{
    QubeName, Tag,
    call::{
        self,
        property::{Property, PropertyValue},
        vm::PowerState,
    },
};
use contract::{Fault, Power, limits};
use policy::ManagedQube;

use crate::{error::Error, handle::Handle, host::destination, service::Effect, view::View};

/// A qube in scope that something is made from.
#[derive(Debug)]
pub(crate) struct Source {
    /// The authority over it.
    pub(crate) qube: ManagedQube,
    /// Its class, as qubesd names it.
    pub(crate) class: String,
    /// Its power state.
    pub(crate) state: PowerState,
    /// Its tags.
    pub(crate) tags: Vec<Tag>,
    /// Its properties.
    pub(crate) properties: Vec<(String, Property)>,
}

impl Source {
    /// A property's value.
    pub(crate) fn value(&self, name: &str) -> Option<&PropertyValue> {
        self.properties.iter().find(|(known, _)| known == name).map(|(_, found)| &found.value)
    }

    /// The name that a property holds of another qube.
    pub(crate) fn names(&self, property: &str) -> Option<QubeName> {
        self.value(property).and_then(PropertyValue::as_vm)?.parse().ok()
    }

    /// Whether disposables are made from it.
    pub(crate) fn is_for_disposables(&self) -> bool {
        self.value("template_for_dispvms") == Some(&PropertyValue::Bool(Some(true)))
    }
}

/// A qube's name in a request's text. dom0 and the other words of qrexec are answered as the names
/// of strangers are.
pub(crate) fn parse_named(field: &str, text: &str) -> Result<QubeName, Fault> {
    let word = |c: char| c.is_ascii_alphanumeric() || "_-.@:".contains(c);
    text.parse().map_err(|_| match !text.is_empty() && text.chars().all(word) {
        true => Fault::Refused {},
        false => Fault::bad_request(format!("{field} must be the name of a qube")),
    })
}

impl<E: Effect> Handle<'_, E> {
    /// A qube that is named in a request's text, if the agent holds this power over it.
    pub(crate) async fn source(
        self,
        view: &View,
        name: &QubeName,
        power: Power,
    ) -> Result<Source, Error> {
        let refused = |_| Error::Fault(Fault::Refused {});
        let claim = view.caller().map_err(refused)?.claim_in_text(name, power, view.now());
        let claim = claim.map_err(refused)?;
        let found = self.host.find(name, true).await?.ok_or(Fault::Refused {})?;
        let tags = found.live.tags.clone();
        let qube = claim.manage(found.live).map_err(refused)?;
        let all = call::property::get_all(destination(&qube));
        let all = self.host.qubesd.call(all, limits::QUBESD).await?;
        let properties = all.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Ok(Source { qube, class: found.class, state: found.state, tags, properties })
    }

    /// Whether the agent sees a qube.
    pub(crate) async fn sees(self, view: &View, name: &QubeName) -> Result<bool, Error> {
        let Ok(caller) = view.caller() else { return Ok(false) };
        let Ok(claim) = caller.claim_in_text(name, Power::See, view.now()) else {
            return Ok(false);
        };
        let found = self.host.find(name, true).await?;
        Ok(found.is_some_and(|found| claim.manage(found.live).is_ok()))
    }
}
