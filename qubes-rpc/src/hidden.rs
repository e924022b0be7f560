//! Which names of qubes a caller may know. Whatever qubesd says of a qube passes through here
//! before it reaches an answer; a name that is not in the caller's scope never does.

use std::{collections::HashMap, rc::Rc};

use admin_api::{QubeName, call::property::PropertyValue};
use contract::{Fault, Power};
use policy::{Address, ManagedQube};
use serde_json::Value;

use crate::{
    error::Error,
    handle::Handle,
    host::{Found, Host},
    scope_file::read_granted,
    service::Effect,
    view::View,
};

/// What stands for the name of a qube that the caller may not know.
pub(crate) const OUT_OF_SCOPE: &str = "<out-of-scope>";

/// Decides for every name whether one caller may know it, by what qubesd says of that qube now.
///
/// An answer is remembered for as long as this value lives: no longer than one call that looks
/// once, and a moment where a call goes on watching.
#[derive(Debug)]
pub(crate) struct Names<'h> {
    host: &'h Host,
    /// None when the caller sees nothing at all.
    view: Option<View>,
    /// The class of those that it may know.
    known: HashMap<String, Option<String>>,
}

impl<'h, E: Effect> Handle<'h, E> {
    /// The names that the agent which was admitted to this qube may know.
    pub(crate) fn names(self, qube: &ManagedQube) -> Names<'h> {
        self.host.names(qube.agent())
    }
}

impl Host {
    /// The names that this agent may know.
    pub(crate) fn names(&self, agent: &QubeName) -> Names<'_> {
        let scope = read_granted(&self.paths, self.trusted).ok();
        let view =
            scope.and_then(|scope| View::admit(Rc::new(scope), agent, Power::See, self.now()).ok());
        Names { host: self, view, known: HashMap::new() }
    }

    /// Authority over a qube that a request names in its text. Whether there is no such qube, or
    /// it is out of scope, or the power is held as `ask` only, is not told apart.
    pub(crate) async fn named_in_text(
        &self,
        agent: &QubeName,
        name: &str,
        power: Power,
    ) -> Result<(ManagedQube, Found), Error> {
        let refused = || Error::Fault(Fault::Refused {});
        let name = name.parse::<QubeName>().map_err(|_| refused())?;
        let scope = read_granted(&self.paths, self.trusted).map_err(|_| Fault::Refused {})?;
        let caller = scope.caller(agent).map_err(|_| refused())?;
        let claim = caller.claim_in_text(&name, power, self.now()).map_err(|_| refused())?;
        let with_tags = !claim.wanted_tags().is_empty();
        let found = self.find(&name, with_tags).await?.ok_or_else(refused)?;
        let qube = claim.manage(found.live.clone()).map_err(|_| refused())?;
        Ok((qube, found))
    }
}

impl Names<'_> {
    /// Whether the caller may know this name. What is no name of a qube, dom0's above all, is not.
    pub(crate) async fn knows(&mut self, name: &str) -> Result<bool, Error> {
        Ok(self.class_of(name).await?.is_some())
    }

    /// The class of a qube, when the caller may know its name.
    pub(crate) async fn class_of(&mut self, name: &str) -> Result<Option<String>, Error> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let class = match name.parse() {
            Ok(name) => self.sees(&name).await?.map(|found| found.class),
            Err(_) => None,
        };
        self.known.insert(name.to_owned(), class.clone());
        Ok(class)
    }

    /// The name, or what stands for one that the caller may not know.
    pub(crate) async fn show(&mut self, name: &str) -> Result<String, Error> {
        let known = self.knows(name).await?;
        Ok(if known { name } else { OUT_OF_SCOPE }.to_owned())
    }

    /// A qube that the caller sees now, asked for anew.
    pub(crate) async fn sees(&self, name: &QubeName) -> Result<Option<Found>, Error> {
        let Some(view) = &self.view else { return Ok(None) };
        let Ok(caller) = view.caller() else { return Ok(None) };
        if name == caller.agent() {
            return Ok(None);
        }
        let listed = caller.listed(view.now()).any(|(listed, _)| listed == name);
        let by_tag = caller.tags(view.now()).next().is_some();
        if !listed && !by_tag {
            return Ok(None);
        }
        let Some(found) = self.host.find(name, !listed).await? else { return Ok(None) };
        Ok(caller.visible(found.live.clone(), view.now()).map(|_| found))
    }

    /// Whether this qube is listed, so that its direct netvm may be known.
    pub(crate) fn lists(&self, name: &str) -> bool {
        let caller = self.view.as_ref().and_then(|view| Some((view.caller().ok()?, view.now())));
        caller.is_some_and(|(caller, now)| {
            caller.listed(now).any(|(listed, _)| listed.as_str() == name)
        })
    }

    /// A property of a qube as its agent may read it. A value of a type that this program does not
    /// know may hold anything, and is not shown.
    pub(crate) async fn property(
        &mut self,
        of: &ManagedQube,
        name: &str,
        value: &PropertyValue,
    ) -> Result<Value, Error> {
        Ok(match value {
            PropertyValue::Str(text) | PropertyValue::Label(text) => text.clone().into(),
            PropertyValue::Int(number) => (*number).into(),
            PropertyValue::Bool(truth) => (*truth).into(),
            PropertyValue::Vm(None) => Value::Null,
            PropertyValue::Vm(Some(netvm)) if name == "netvm" && shows_netvm(of) => {
                netvm.clone().into()
            }
            PropertyValue::Vm(Some(qube)) => self.show(qube).await?.into(),
            PropertyValue::Other { .. } => OUT_OF_SCOPE.into(),
        })
    }
}

/// The properties that name a qube.
pub(crate) const NAME_A_QUBE: [&str; 7] =
    ["audiovm", "default_dispvm", "guivm", "management_dispvm", "netvm", "relayvm", "template"];

/// Whether the agent may know the direct netvm of this qube, whatever it is: that of a listed
/// qube, which the operator named one by one.
fn shows_netvm(qube: &ManagedQube) -> bool {
    match qube.address() {
        Address::Argument => true,
        Address::Target => false,
    }
}

/// The netvm of a qube as its agent may read it, where all names that it may know are at hand.
pub(crate) fn shown_netvm(qube: &ManagedQube, netvm: &str, names: &[&QubeName]) -> String {
    if shows_netvm(qube) { netvm.to_owned() } else { shown_name(netvm, names) }
}

/// The name of a qube as an agent may read it, where all names that it may know are at hand.
pub(crate) fn shown_name(name: &str, names: &[&QubeName]) -> String {
    let known = names.iter().any(|known| known.as_str() == name);
    if known { name } else { OUT_OF_SCOPE }.to_owned()
}
