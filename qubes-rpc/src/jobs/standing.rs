//! What a job rests on: the operator's file, and what qubesd says of its qube.

use std::time::SystemTime;

use admin_api::{
    Destination, Uuid,
    call::{self, vm::ListedQube},
};
use contract::{Power, limits};
use policy::{Address, Claim, Scope};

use crate::{error::Error, host::Host, ledger::Job, pause::is_paused, scope_file::read_granted};

/// Whether a job still rests on a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does.
    Granted,
    /// It does not, and has to be stopped.
    Over,
    /// Its qube was removed, and the job with it.
    Gone,
    /// That cannot be told now.
    Unknown,
}

/// What a job rests on in this scope.
pub(super) fn claim_in(scope: &Scope, job: &Job, now: SystemTime) -> Option<Claim> {
    let (agent, qube) = (job.agent.parse().ok()?, job.qube.parse().ok()?);
    let caller = scope.caller(&agent).ok()?;
    [Address::Argument, Address::Target]
        .into_iter()
        .find_map(|address| caller.claim(address, &qube, job.power(), now).ok())
        .filter(|_| !job.doomed)
}

impl Host {
    /// What a job rests on in the operator's file now.
    pub(super) fn claim(&self, job: &Job, now: SystemTime) -> Option<Claim> {
        claim_in(&self.granted()?, job, now)
    }

    /// What jobs may rest on now; nothing while everything is paused.
    pub(super) fn granted(&self) -> Option<Scope> {
        if is_paused(&self.paths) { None } else { read_granted(&self.paths, self.trusted).ok() }
    }

    /// Whether a job's qube may be asked without anybody's word: the power to look at jobs is held
    /// there without a question.
    pub(super) fn looks_outright(&self, job: &Job) -> bool {
        let (Some(scope), Ok(agent), Ok(qube)) =
            (self.granted(), job.agent.parse(), job.qube.parse())
        else {
            return false;
        };
        let caller = scope.caller(&agent).ok();
        caller.is_some_and(|caller| caller.claim_in_text(&qube, Power::Exec, self.now()).is_ok())
    }

    /// Whether a job still rests on a grant, by the operator's file and by qubesd.
    pub(super) async fn standing(&self, job: &Job, now: SystemTime) -> Standing {
        let Some(claim) = self.claim(job, now) else { return Standing::Over };
        let listed = match self.qube_of(job).await {
            Ok(Some(listed)) => listed,
            Ok(None) => return Standing::Gone,
            Err(_) => return Standing::Unknown,
        };
        if listed.name != job.qube {
            return Standing::Over;
        }
        let name = claim.target().clone();
        match self.complete(&name, listed, !claim.wanted_tags().is_empty()).await {
            // qubesd does not tell the tags, or the qube is just going: the next look shows.
            Err(_) | Ok(None) => Standing::Unknown,
            Ok(Some(found)) => match claim.manage(found.live) {
                Ok(_) => Standing::Granted,
                Err(_) => Standing::Over,
            },
        }
    }

    /// A job's qube as qubesd lists it; nothing only where the list of all qubes has its UUID no
    /// more. An answer that may be a refusal is none.
    pub(super) async fn qube_of(&self, job: &Job) -> Result<Option<ListedQube>, Error> {
        let uuid = Uuid::parse(&job.uuid).map_err(|_| Error::Stored("no UUID"))?;
        let one = call::vm::list(Destination::Uuid(uuid.clone()));
        match self.qubesd.call(one, limits::QUBESD).await {
            Ok(lines) => {
                let found = lines.into_iter().find(|line| line.uuid.as_ref() == Some(&uuid));
                if found.is_some() {
                    return Ok(found);
                }
            }
            Err(admin_api::Error::Exception(_) | admin_api::Error::Empty) => {}
            Err(error) => return Err(error.into()),
        }
        self.listed(&uuid).await
    }
}
