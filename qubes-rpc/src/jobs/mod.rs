//! The rules for jobs: who may see which, how many there may be, and that none outlives its grant.

mod standing;
mod start;
mod text;
mod watch;

use std::time::Duration;

use admin_api::{QubeName, call::vm::PowerState};
use contract::{Fault, Power, limits};
use futures_util::{StreamExt, stream};
use policy::ManagedQube;

use self::{standing::Standing, text::Text};
use crate::{
    error::Error,
    handle::{Handle, Writer},
    host::Host,
    journal,
    ledger::{Job, KnownEnd},
    run::{JobEnd, JobRange, JobRead, JobState, Place, User},
    service::Effect,
    times::seconds_since_1970,
};

/// For so long after it was written down a job may be about to begin.
const YOUNG: Duration = Duration::from_secs(2 * limits::JOB_LOOK.as_secs());
/// The qubes that are asked at once, or in which jobs are stopped at once.
const QUBES_AT_ONCE: usize = 16;

impl Job {
    fn user(&self) -> User {
        if self.root { User::Root } else { User::Default }
    }

    /// The power over its qube on which it rests.
    fn power(&self) -> Power {
        if self.root { Power::Root } else { Power::Exec }
    }

    /// How qrexec-client is told where it runs.
    fn qrexec_name(&self) -> String {
        format!("uuid:{}", self.uuid)
    }

    /// Whether it may be about to begin.
    fn is_young(&self) -> bool {
        seconds_since_1970().saturating_sub(self.started) < YOUNG.as_secs()
    }

    /// Whether it ended so long ago that it is forgotten.
    fn is_forgotten(&self) -> bool {
        let kept_since = seconds_since_1970().saturating_sub(limits::JOB_KEPT.as_secs());
        self.ended.is_some_and(|(_, at)| at < kept_since)
    }
}

/// What the ledger remembers of a state.
pub(crate) fn known_end(state: JobState) -> Option<(KnownEnd, u64)> {
    match state {
        JobState::Running => None,
        JobState::Ended(JobEnd::Exit(code), at) => Some((KnownEnd::Exit(code), at)),
        JobState::Ended(JobEnd::TimedOut, at) => Some((KnownEnd::Timeout, at)),
        JobState::Ended(JobEnd::Stopped, at) => Some((KnownEnd::Stopped, at)),
        JobState::Lost => Some((KnownEnd::Lost, seconds_since_1970())),
    }
}

/// The refusal for every handle that is not the caller's own, known or not.
fn no_such_job() -> Error {
    let message = "you have no job with this handle in this qube; list_jobs shows yours";
    Fault::bad_request(message).into()
}

impl<E: Effect> Handle<'_, E> {
    /// The job of this handle, if it is the caller's own and in this very qube.
    pub(crate) fn job(self, qube: &ManagedQube, handle: &str) -> Result<Job, Error> {
        let own =
            |job: &Job| job.agent == qube.agent().as_str() && job.uuid == qube.uuid().as_str();
        let job = self.host.ledger.read(handle).filter(own).ok_or_else(no_such_job)?;
        // Root's work stays root's, whatever is left of the grant. Where root asks, somebody was
        // asked when the job began.
        let holds_root = || qube.powers().iter().any(|(power, _)| *power == Power::Root);
        if job.root && !holds_root() {
            return Err(Fault::Refused {}.into());
        }
        Ok(job)
    }

    /// Reads a range of a job's output, which goes to the caller as the main stream. Nothing when
    /// the qube knows no such job.
    pub(crate) async fn read_job(
        self,
        job: &Job,
        range: JobRange<'_>,
    ) -> Result<(Option<JobRead>, u64), Error> {
        let name = job.qrexec_name();
        let place = Place { qube: &name, user: job.user(), deadline: limits::JOB_LOOK };
        let mut text = Text::new(self.call, range);
        let gone = &self.call.gone;
        let read = self.host.runner.read_job(place, range, &mut text, gone).await;
        if gone.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let read = read?;
        text.finish(read.is_some_and(|read| read.state != JobState::Running)).await?;
        if let Some(read) = read.filter(|read| read.state != JobState::Lost) {
            self.host.learn(job, read.state);
        }
        let read =
            read.map(|read| JobRead { begin: read.begin.saturating_add(text.skipped), ..read });
        Ok((read, text.sent))
    }

    /// All jobs of an agent, with what running qubes over which it holds the power outright say.
    pub(crate) async fn jobs(
        self,
        agent: &QubeName,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<(Job, Option<JobRead>)> {
        let host = self.host;
        let jobs: Vec<Job> = (host.ledger.all().into_iter())
            .filter(|job| job.agent == agent.as_str() && wanted(&job.qube))
            .filter(|job| !job.is_forgotten() && host.claim(job, host.now()).is_some())
            .take(limits::JOBS_PER_AGENT * 2)
            .collect();
        let mut places: Vec<(&str, bool)> =
            jobs.iter().map(|job| (job.uuid.as_str(), job.root)).collect();
        places.sort_unstable();
        places.dedup();
        let states: Vec<_> = stream::iter(places)
            .map(|(uuid, root)| {
                let here: Vec<&Job> =
                    jobs.iter().filter(|job| job.uuid == uuid && job.root == root).collect();
                async move {
                    let Some(first) = here.first() else { return Vec::new() };
                    // Nobody was asked for this, where the power is held as `ask`.
                    if !host.looks_outright(first) {
                        return Vec::new();
                    }
                    match host.standing(first, host.now()).await {
                        Standing::Granted => host.look_at(&here, limits::JOB_LIST_LOOK).await,
                        Standing::Over | Standing::Gone | Standing::Unknown => Vec::new(),
                    }
                }
            })
            .buffer_unordered(QUBES_AT_ONCE)
            .collect()
            .await;
        let states: Vec<(String, JobRead)> = states.into_iter().flatten().collect();
        let of = |job: &Job| states.iter().find(|(mark, _)| *mark == job.mark).map(|found| found.1);
        jobs.into_iter()
            .map(|job| (host.ledger.read(&job.handle).unwrap_or_else(|| job.clone()), of(&job)))
            .collect()
    }
}

impl Writer<'_> {
    /// Stops a job. With `forget` its output and its handle are gone too.
    pub(crate) async fn stop_job(self, job: &Job, forget: bool) -> Result<Job, Error> {
        let state = self.host.stop(job, forget).await?;
        self.host.learn(job, state);
        let stopped = self.host.ledger.read(&job.handle).unwrap_or_else(|| job.clone());
        if forget {
            self.host.ledger.remove(&job.handle).map_err(Error::File)?;
        }
        Ok(stopped)
    }
}

impl Host {
    /// Remembers how a job ended; or that it runs after all, where it seemed to be lost.
    fn learn(&self, job: &Job, state: JobState) {
        let Some(job) = self.ledger.read(&job.handle) else { return };
        let ended = match (job.ended, known_end(state)) {
            (None | Some((KnownEnd::Lost, _)), end) => end,
            (known @ Some(_), _) => known,
        };
        let both_lost = matches!((job.ended, ended), (Some(_), Some((KnownEnd::Lost, _))));
        if ended == job.ended || both_lost {
            return;
        }
        if let Err(error) = self.ledger.write(&Job { ended, ..job }) {
            journal::say(&format!("ledger: {error}"));
        }
    }

    /// Stops a job, as dom0 itself: whether it may be stopped is decided by whoever calls. How it is
    /// then.
    async fn stop(&self, job: &Job, forget: bool) -> Result<JobState, Error> {
        match self.qube_of(job).await?.map(|qube| qube.state) {
            None | Some(PowerState::Halted) => Ok(JobState::Lost),
            Some(PowerState::Running) => {
                let name = job.qrexec_name();
                let place = Place { qube: &name, user: job.user(), deadline: limits::JOB_LOOK };
                Ok(self.runner.stop_job(place, &job.mark, forget).await?.state)
            }
            Some(state) => Err(Fault::NotRunning { state: state.to_string() }.into()),
        }
    }

    /// How jobs of one user in one qube are; nothing where that cannot be told now. That a running
    /// qube knows nothing of a job does not end it: its processes may have removed what is known.
    async fn look_at(&self, jobs: &[&Job], patience: Duration) -> Vec<(String, JobRead)> {
        let Some(first) = jobs.first() else { return Vec::new() };
        match self.qube_of(first).await.map(|qube| qube.map(|qube| qube.state)) {
            Ok(Some(PowerState::Running)) => {}
            Ok(None | Some(PowerState::Halted)) => {
                jobs.iter().for_each(|job| self.learn(job, JobState::Lost));
                return Vec::new();
            }
            Ok(Some(_)) | Err(_) => return Vec::new(),
        }
        let name = first.qrexec_name();
        let place = Place { qube: &name, user: first.user(), deadline: patience };
        let marks: Vec<String> = jobs.iter().map(|job| job.mark.clone()).collect();
        let states = self.runner.job_states(place, &marks).await.unwrap_or_default();
        for (mark, read) in &states {
            let Some(job) = jobs.iter().find(|job| job.mark == *mark) else { continue };
            if read.state != JobState::Lost {
                self.learn(job, read.state);
            }
        }
        states
    }
}
