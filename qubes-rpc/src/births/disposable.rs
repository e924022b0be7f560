//! Disposables: made, started, and removed whatever happens.

use admin_api::{
    Destination, Source as Requester, Tag, Uuid,
    call::{self, vm::Class},
};
use contract::{Fault, Power, limits};
use policy::{Birth, ManagedQube};
use tokio::time::sleep;

use super::{Entry, Newborn, Source, tier};
use crate::{
    error::Error, handle::Writer, host::destination, scope_file::read_granted, settings::Sandbox,
    view::View,
};

/// A disposable that runs, and that no other call knows.
#[derive(Debug)]
pub(crate) struct Disposable {
    /// The authority over it.
    pub(crate) qube: ManagedQube,
}

impl Writer<'_> {
    /// Makes a disposable of a template in scope and starts it, or leaves nothing. Until
    /// [`Self::keep`] or [`Self::discard`] it stands in the ledger.
    pub(crate) async fn disposable(
        self,
        view: &View,
        source: &Source,
        birth: &Birth,
        settings: &Sandbox,
    ) -> Result<Disposable, Error> {
        // It inherits its template's tags: what may be done to that may be done to it.
        let bytes = self.host.volumes(destination(&source.qube)).await?;
        let private = bytes.iter().find(|(name, _)| name.as_str() == "private");
        let bytes = private.map_or(0, |(_, info)| info.size);
        tier::outlasts(&source.qube, birth)?;
        self.bear(source, birth, bytes, settings).await?;
        let id = self.call.id.clone();
        let started = async {
            let newborn = self.look_at(&id).await?;
            self.forget_tcp_rules(&newborn.name).await?;
            let found = self.found(&newborn).await?;
            if found.live.class != policy::Class::DispVm {
                return Err(Error::Stored("the new qube is no disposable"));
            }
            let refused = |_| Error::Fault(Fault::Refused {});
            let caller = view.caller().map_err(refused)?;
            let claim = caller.claim_in_text(&newborn.name, Power::See, view.now());
            let qube = claim.and_then(|claim| claim.manage(found.live)).map_err(refused)?;
            let above = |power| qube.holds(power) && !settings.birth_tier.gives(power);
            let too_much = Power::ALL.into_iter().any(above);
            if too_much || !tier::gains_nothing(&qube, &source.qube) {
                return Err(Fault::Refused {}.into());
            }
            self.step(call::lifecycle::start(newborn.place()), limits::START).await?;
            // Starting takes time, in which a grant can end.
            let source = self.source_again(&self.renewed(view)?, source).await?;
            if !tier::gains_nothing(&qube, &source.qube) {
                return Err(Fault::Refused {}.into());
            }
            Ok(Disposable { qube })
        };
        let started = started.await;
        if started.is_err() {
            self.host.undo_or_abandon(&id, false).await;
        }
        started
    }

    /// Gives the disposable to the agent: it lives until it is shut down, killed or removed.
    pub(crate) fn keep(self, disposable: Disposable) -> Result<ManagedQube, Error> {
        self.host.births.end(&self.call.id).map_err(Error::File)?;
        Ok(disposable.qube)
    }

    /// Kills and removes it.
    pub(crate) async fn discard(self, _disposable: Disposable) {
        self.host.undo_or_abandon(&self.call.id, false).await;
    }

    /// Resolves when the agent may not make qubes any more.
    pub(crate) async fn birthright_ends(self, view: &View) {
        let granted = || {
            let scope = read_granted(&self.host.paths, self.host.trusted).ok()?;
            scope.caller(view.agent()).ok()?.birth(self.host.now()).ok()
        };
        while granted().is_some() {
            sleep(limits::AUTHORITY).await;
        }
    }

    /// Under the turn of births, so that only one disposable at a time is looked for by what is new.
    async fn bear(
        self,
        source: &Source,
        birth: &Birth,
        bytes: u64,
        settings: &Sandbox,
    ) -> Result<(), Error> {
        let (births, id) = (&self.host.births, &self.call.id);
        let _turn = births.turn.lock().await;
        self.make_room(bytes, settings).await?;
        let known = self.own_disposables(birth).await?;
        if self.gone().is_cancelled() {
            return Err(Error::Cancelled);
        }
        let entry = Entry::of_disposable(birth.agent(), source.qube.uuid(), &known, bytes);
        births.begin(id, entry).map_err(Error::File)?;
        let create = call::create::disposable_by_uuid(destination(&source.qube))
            .source(Requester::Qube(birth.agent().clone()));
        match self.host.qubesd.call(create, limits::CREATE).await {
            Ok(uuid) => {
                let resolved = births.resolve(id, &uuid).map_err(Error::File);
                if resolved.is_err() {
                    self.host.undo_or_abandon(id, false).await;
                }
                resolved
            }
            Err(error) => {
                use admin_api::Error as E;
                let refused = matches!(error, E::Exception(_) | E::Empty | E::Unreachable(_));
                self.host.undo_or_abandon(id, refused).await;
                Err(error.into())
            }
        }
    }

    /// The disposables that qubesd says this agent has.
    async fn own_disposables(self, birth: &Birth) -> Result<Vec<Uuid>, Error> {
        let all = self.host.qubesd.call(call::vm::list(Destination::Dom0), limits::QUBESD).await?;
        let mut own = Vec::new();
        for uuid in
            all.into_iter().filter(|line| line.class == Class::DispVm).filter_map(|q| q.uuid)
        {
            if self.host.carries(&uuid, "disp-created-by-", birth.agent().as_str()).await? {
                own.push(uuid);
            }
        }
        Ok(own)
    }

    async fn look_at(self, id: &str) -> Result<Newborn, Error> {
        let gone = Error::Stored("the new disposable is not there");
        let entry = self.host.births.get(id);
        let uuid = entry.and_then(|entry| Uuid::parse(entry.uuid.as_deref()?).ok());
        let Some(uuid) = uuid else { return Err(gone) };
        let lines =
            self.step(call::vm::list(Destination::Uuid(uuid.clone())), limits::QUBESD).await?;
        let mut lines = lines.into_iter().filter(|line| line.uuid.as_ref() == Some(&uuid));
        let name = lines.next().and_then(|line| line.qube());
        let Some(name) = name else { return Err(gone) };
        let tags: Vec<Tag> = Vec::new();
        Ok(Newborn { name, uuid, tags })
    }
}
