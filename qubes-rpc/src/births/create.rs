//! Making a qube, step by step, and looking at what came of it.

use std::{rc::Rc, time::Duration};

use admin_api::{
    Destination, LabelName, PropertyName, QubeName, Source as Requester, Tag, Uuid, VolumeName,
    call::{self, Call, create::Pools, property::PropertyValue, vm::Class},
};
use contract::{Fault, Power, limits};
use policy::{Birth, ManagedQube};

use super::{Entry, Network, Source, tier};
use crate::{
    error::Error, handle::Writer, host::Found, scope_file::read_granted, settings::Sandbox,
    view::View,
};

/// What can be made from a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewClass {
    /// An AppVM.
    App,
    /// An AppVM from which disposables are made.
    DisposableTemplate,
    /// A disposable with a name that is kept until it is removed.
    Disposable,
    /// A qube with a root volume of its own; only as a copy.
    Standalone,
    /// A template; only as a copy.
    Template,
}

impl NewClass {
    fn class(self) -> Class {
        match self {
            Self::App | Self::DisposableTemplate => Class::AppVm,
            Self::Disposable => Class::DispVm,
            Self::Standalone => Class::StandaloneVm,
            Self::Template => Class::TemplateVm,
        }
    }
}

/// A qube that is to be made, with everything decided.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Its name, in the operator's prefix.
    pub(crate) name: QubeName,
    /// What it is to be.
    pub(crate) class: NewClass,
    /// Its template, as qubesd is told; none for those with a root volume of their own.
    pub(crate) template: Option<QubeName>,
    /// Its label.
    pub(crate) label: LabelName,
    /// Its network.
    pub(crate) network: Network,
    /// What it is made from.
    pub(crate) source: &'a Source,
    /// The authority to make it.
    pub(crate) birth: Birth,
    /// How many bytes its persistent volumes will have.
    pub(crate) bytes: u64,
}

/// A qube that is not whole yet. No call but the one that makes it knows it.
#[derive(Debug)]
pub(crate) struct Newborn {
    pub(super) name: QubeName,
    pub(super) uuid: Uuid,
    pub(super) tags: Vec<Tag>,
}

impl Newborn {
    pub(super) fn place(&self) -> Destination {
        Destination::Uuid(self.uuid.clone())
    }
}

/// The name of a property of ours.
pub(super) fn property(name: &str) -> Result<PropertyName, Error> {
    name.parse().map_err(|_| Error::Stored("no such property"))
}

impl Writer<'_> {
    /// One step, unless nobody waits for it any more.
    pub(super) async fn step<T>(self, call: Call<T>, deadline: Duration) -> Result<T, Error> {
        if self.gone().is_cancelled() {
            return Err(Error::Cancelled);
        }
        Ok(self.host.qubesd.call(call, deadline).await?)
    }

    /// Makes a qube, does the rest with it, and looks that it is whole and in scope; or removes it.
    pub(crate) async fn make(
        self,
        view: &View,
        plan: &Plan<'_>,
        settings: &Sandbox,
        rest: impl AsyncFnOnce(&Newborn) -> Result<(), Error>,
    ) -> Result<ManagedQube, Error> {
        let id = self.call.id.clone();
        self.create(view, plan, settings).await?;
        let made = async {
            let newborn = self.look(&id, plan).await?;
            let tags = tier::birth_tags(plan.source, &plan.birth, settings)?;
            self.tag(&newborn, &tags, &plan.birth, plan.class).await?;
            self.settle(&newborn, plan).await?;
            rest(&newborn).await?;
            let source = self.judge_anew(view, plan, settings, &tags).await?;
            self.prove(view, &newborn, plan, (&source, &tags)).await
        };
        let proven = match made.await {
            Ok(qube) => self.host.births.end(&id).map_err(Error::File).map(|()| qube),
            Err(error) => Err(error),
        };
        if proven.is_err() {
            self.host.undo_or_abandon(&id, false).await;
        }
        proven
    }

    /// Under the turn of births: room is made, the name is free, the entry stands, qubesd creates.
    async fn create(self, view: &View, plan: &Plan<'_>, settings: &Sandbox) -> Result<(), Error> {
        let births = &self.host.births;
        let (id, name, birth) = (&self.call.id, &plan.name, &plan.birth);
        let turn = births.turn.lock().await;
        self.is_free(view, name).await?;
        self.make_room(plan.bytes, settings).await?;
        if self.gone().is_cancelled() {
            return Err(Error::Cancelled);
        }
        let entry = Entry::of_name(birth.agent(), name, plan.bytes);
        births.begin(id, entry).map_err(Error::File)?;
        drop(turn);
        let template = plan.template.as_ref();
        let create =
            call::create::create(&plan.class.class(), template, name, &plan.label, &Pools::Default)
                .source(Requester::Qube(birth.agent().clone()));
        let created = self.host.qubesd.call(create, limits::CREATE).await;
        if let Err(error) = created {
            use admin_api::Error as E;
            let refused = matches!(error, E::Exception(_) | E::Empty | E::Unreachable(_));
            self.host.undo_or_abandon(id, refused).await;
            return Err(error.into());
        }
        Ok(())
    }

    /// Refuses a name that is taken. Of a stranger's no more is said than of a stranger.
    async fn is_free(self, view: &View, name: &QubeName) -> Result<(), Error> {
        let taken = || Fault::bad_request(format!("there is a qube {name} already"));
        match self.host.births.maker_of(name) {
            Some(agent) if agent == view.agent().as_str() => return Err(taken().into()),
            Some(_) => return Err(Fault::Refused {}.into()),
            None => {}
        }
        let list = call::vm::list(Destination::Dom0);
        let all = self.host.qubesd.call(list, limits::QUBESD).await?;
        if !all.iter().any(|line| line.name == name.as_str()) {
            return Ok(());
        }
        let seen = self.sees(view, name).await?;
        Err(if seen { taken() } else { Fault::Refused {} }.into())
    }

    /// The UUID of what was just made, written down before anything else is done to it.
    async fn look(self, id: &str, plan: &Plan<'_>) -> Result<Newborn, Error> {
        let list = call::vm::list(Destination::Qube(plan.name.clone()));
        let lines = self.step(list, limits::QUBESD).await?;
        let line = lines.into_iter().find(|line| line.name == plan.name.as_str());
        let uuid = line.filter(|line| line.class == plan.class.class()).and_then(|line| line.uuid);
        let uuid = uuid.ok_or(Error::Stored("the new qube is not there"))?;
        let agent = plan.birth.agent().as_str();
        if !self.host.carries(&uuid, "created-by-", agent).await? {
            return Err(Error::Stored("the new qube is another one"));
        }
        self.host.births.resolve(id, &uuid).map_err(Error::File)?;
        // Rules that name a qube which had this name before are not for this one.
        self.forget_tcp_rules(&plan.name).await?;
        let tags = self.step(call::tag::list(Destination::Uuid(uuid.clone())), limits::QUBESD);
        let tags = tags.await?;
        Ok(Newborn { name: plan.name.clone(), uuid, tags })
    }

    /// Gives it our tags, and takes those of tiers that it inherited and is not to have.
    async fn tag(
        self,
        newborn: &Newborn,
        tags: &[Tag],
        birth: &Birth,
        class: NewClass,
    ) -> Result<(), Error> {
        let has = |tag: &Tag| newborn.tags.contains(tag);
        // qubesd writes this on disposables without a name alone.
        let own = Tag::parse(&birth.own_disposable_tag()).ok();
        let own = own.filter(|_| class == NewClass::Disposable);
        for tag in tags.iter().chain(&own).filter(|tag| !has(tag)) {
            self.step(call::tag::set(newborn.place(), tag), limits::QUBESD).await?;
        }
        for tag in newborn.tags.iter().filter(|tag| tier::is_ours(tag) && !tags.contains(tag)) {
            self.step(call::tag::remove(newborn.place(), tag), limits::QUBESD).await?;
        }
        Ok(())
    }

    /// Its network, and no way to disposables that nobody granted.
    async fn settle(self, newborn: &Newborn, plan: &Plan<'_>) -> Result<(), Error> {
        let netvm = property("netvm")?;
        let set = call::property::set(newborn.place(), &netvm, plan.network.as_str());
        self.step(set, limits::QUBESD).await?;
        let set = call::property::set(newborn.place(), &property("default_dispvm")?, "");
        self.step(set, limits::QUBESD).await?;
        if plan.class == NewClass::DisposableTemplate {
            let name = property("template_for_dispvms")?;
            let set = call::property::set(newborn.place(), &name, "True");
            self.step(set, limits::QUBESD).await?;
        }
        Ok(())
    }

    /// Makes the private volume as large as asked.
    pub(crate) async fn enlarge(self, newborn: &Newborn, bytes: u64) -> Result<(), Error> {
        let private: VolumeName = "private".parse().map_err(|_| Error::Stored("no such volume"))?;
        let info = self.step(call::volume::info(newborn.place(), &private), limits::QUBESD).await?;
        if bytes > info.size {
            let resize = call::volume::resize(newborn.place(), &private, bytes);
            self.step(resize, limits::CREATE).await?;
        }
        Ok(())
    }

    /// Sets properties that were parsed already.
    pub(crate) async fn set_properties(
        self,
        newborn: &Newborn,
        properties: &[(PropertyName, String)],
    ) -> Result<(), Error> {
        for (name, value) in properties {
            let set = call::property::set(newborn.place(), name, value);
            self.step(set, limits::QUBESD).await?;
        }
        Ok(())
    }

    /// The source as the operator's file and qubesd have it now, if a qube could still be made from
    /// it with the same tags. Making one takes time, in which a grant can end.
    async fn judge_anew(
        self,
        view: &View,
        plan: &Plan<'_>,
        settings: &Sandbox,
        tags: &[Tag],
    ) -> Result<Source, Error> {
        let now = self.renewed(view)?;
        let source = self.source_again(&now, plan.source).await?;
        let refused = |_| Error::Fault(Fault::Refused {});
        let birth = now.caller().and_then(|caller| caller.birth(now.now())).map_err(refused)?;
        let same = tier::birth_tags(&source, &birth, settings)? == tags;
        let reachable = match &plan.network {
            Network::Offline => true,
            Network::Netvm(netvm) => self.sees(&now, netvm).await?,
        };
        if same && reachable { Ok(source) } else { Err(Fault::Refused {}.into()) }
    }

    /// What the agent may do by the operator's file as it is now.
    pub(super) fn renewed(self, view: &View) -> Result<View, Error> {
        let refused = || Error::Fault(Fault::Refused {});
        let scope = read_granted(&self.host.paths, self.host.trusted).map_err(|_| refused())?;
        View::admit(Rc::new(scope), view.agent(), Power::Shape, self.host.now())
            .map_err(|_| refused())
    }

    /// The same qube again, if it is still a source.
    pub(super) async fn source_again(self, view: &View, source: &Source) -> Result<Source, Error> {
        let again = self.source(view, source.qube.name(), Power::Shape).await?;
        let same = again.qube.uuid() == source.qube.uuid();
        if same { Ok(again) } else { Err(Fault::Refused {}.into()) }
    }

    /// Reads back what was made: its name, tags and network, and that nobody gained a power by it.
    async fn prove(
        self,
        view: &View,
        newborn: &Newborn,
        plan: &Plan<'_>,
        (source, tags): (&Source, &[Tag]),
    ) -> Result<ManagedQube, Error> {
        let found = self.found(newborn).await?;
        let ours: Vec<&Tag> = found.live.tags.iter().filter(|tag| tier::is_ours(tag)).collect();
        if ours.iter().any(|tag| !tags.contains(tag))
            || tags.iter().any(|tag| !found.live.tags.contains(tag))
        {
            return Err(Error::Stored("the tags of the new qube are not what was asked"));
        }
        // The template was admitted by UUID, and qubesd was told its name.
        let template = plan.template.as_ref().filter(|name| *name == plan.source.qube.name());
        let uuid = Some(plan.source.qube.uuid().as_str());
        if template.is_some() && !self.host.is_made_from(&newborn.uuid, uuid).await? {
            return Err(Error::Stored("the new qube is based on another template"));
        }
        let get = call::property::get(newborn.place(), &property("netvm")?);
        let netvm = self.step(get, limits::QUBESD).await?.value;
        let same = match (&plan.network, netvm) {
            (Network::Offline, PropertyValue::Vm(None)) => true,
            (Network::Netvm(name), PropertyValue::Vm(Some(found))) => found == name.as_str(),
            (_, _) => false,
        };
        if !same {
            return Err(Error::Stored("the network of the new qube is not what was asked"));
        }
        let refused = |_| Error::Fault(Fault::Refused {});
        let caller = view.caller().map_err(refused)?;
        let claim = caller.claim_in_text(&newborn.name, Power::See, view.now()).map_err(refused)?;
        let qube = claim.manage(found.live).map_err(refused)?;
        if tier::gains_nothing(&qube, &source.qube) {
            Ok(qube)
        } else {
            Err(Fault::Refused {}.into())
        }
    }

    /// The newborn as qubesd has it now.
    pub(super) async fn found(self, newborn: &Newborn) -> Result<Found, Error> {
        let lines = self.step(call::vm::list(newborn.place()), limits::QUBESD).await?;
        let line = lines.into_iter().find(|line| line.uuid.as_ref() == Some(&newborn.uuid));
        let line = line.filter(|line| line.name == newborn.name.as_str());
        let line = line.ok_or(Error::Stored("the new qube is not there"))?;
        let found = self.host.complete_newborn(&newborn.name, line).await?;
        found.ok_or(Error::Stored("the new qube is not there"))
    }
}
