//! None outlives its grant: who looks after that, and how no qube keeps another waiting.
//!
//! Grants and states are looked at apart. Each qube has its own bounded time for either, and many
//! qubes have theirs at once, so one that hangs delays nothing but itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    time::Duration,
};

use contract::limits;
use futures_util::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{
    QUBES_AT_ONCE,
    standing::{Standing, claim_in},
};
use crate::{error::chain, host::Host, journal, ledger::Job, run::JobState};

/// The jobs that are stopped at once in one qube.
const STOPS_AT_ONCE: usize = 4;
/// The longest pause before what could not be stopped is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What became of a job that had to be stopped, for people.
type Stop = Result<String, String>;
/// Work in one qube, named by its UUID.
type Round<'a, T> = Pin<Box<dyn Future<Output = (String, T)> + 'a>>;

/// A qube in which a job could not be stopped.
#[derive(Debug)]
struct Trouble {
    /// When it is tried again.
    next: Instant,
    /// The pause after the next failure.
    pause: Duration,
    /// What was said of it.
    said: Vec<String>,
}

/// What is known between two looks. Everything is by the UUID of a qube but the last.
#[derive(Debug, Default)]
struct Known {
    stopping: BTreeSet<String>,
    looking: BTreeSet<String>,
    looked: BTreeMap<String, Instant>,
    trouble: BTreeMap<String, Trouble>,
    /// The handles of jobs whose grant is over by what qubesd says.
    over: BTreeSet<String>,
}

fn by_qube(jobs: Vec<Job>) -> BTreeMap<String, Vec<Job>> {
    let mut qubes: BTreeMap<String, Vec<Job>> = BTreeMap::new();
    for job in jobs {
        qubes.entry(job.uuid.clone()).or_default().push(job);
    }
    qubes
}

impl Known {
    /// Forgets what is about no job that may run.
    fn prune(&mut self, open: &BTreeMap<String, Vec<Job>>) {
        let handles: BTreeSet<&str> =
            open.values().flatten().map(|job| job.handle.as_str()).collect();
        self.over.retain(|handle| handles.contains(handle.as_str()));
        self.looked.retain(|uuid, _| open.contains_key(uuid));
        self.trouble.retain(|uuid, _| open.contains_key(uuid));
    }

    /// The qubes whose turn it is to be looked at, those that wait longest first.
    fn due<'a>(&self, open: &'a BTreeMap<String, Vec<Job>>) -> Vec<&'a String> {
        let due = |uuid: &&String| {
            let last = self.looked.get(*uuid);
            !self.looking.contains(*uuid)
                && last.is_none_or(|last| last.elapsed() >= limits::JOB_STATES)
        };
        let mut due: Vec<_> = open.keys().filter(due).collect();
        due.sort_by_key(|uuid| self.looked.get(*uuid));
        due.truncate(QUBES_AT_ONCE.saturating_sub(self.looking.len()));
        due
    }

    /// The qubes in which a job has to be stopped now, those without trouble first.
    fn overdue(
        &self,
        open: &BTreeMap<String, Vec<Job>>,
        is_over: impl Fn(&Job) -> bool,
    ) -> Vec<(String, Vec<Job>)> {
        let now = Instant::now();
        let mut qubes: Vec<(String, Vec<Job>)> = (open.iter())
            .filter(|(uuid, _)| !self.stopping.contains(*uuid))
            .filter(|(uuid, _)| self.trouble.get(*uuid).is_none_or(|trouble| trouble.next <= now))
            .map(|(uuid, jobs)| (uuid.clone(), jobs.iter().filter(|job| is_over(job)).cloned()))
            .map(|(uuid, jobs)| (uuid, jobs.collect::<Vec<_>>()))
            .filter(|(_, jobs)| !jobs.is_empty())
            .collect();
        qubes.sort_by_key(|(uuid, _)| self.trouble.get(uuid).map(|trouble| trouble.next));
        qubes.truncate(QUBES_AT_ONCE.saturating_sub(self.stopping.len()));
        qubes
    }

    /// Takes what became of stopping jobs in a qube, and tells what was not told before.
    fn stopped(&mut self, uuid: String, stops: Vec<Stop>) {
        self.stopping.remove(&uuid);
        let mut failed = Vec::new();
        for stop in stops {
            match stop {
                Ok(what) => journal::say(&format!("stopped, since its grant has ended: {what}")),
                Err(what) => failed.push(what),
            }
        }
        if failed.is_empty() {
            self.trouble.remove(&uuid);
            return;
        }
        failed.sort();
        let last = self.trouble.remove(&uuid);
        let said = last.as_ref().map_or(&[][..], |trouble| &trouble.said);
        for what in failed.iter().filter(|what| !said.contains(what)) {
            journal::say(&format!("cannot be stopped: {what}"));
        }
        let pause = last.map_or(limits::JOB_GRANTS, |trouble| trouble.pause);
        let next = Instant::now() + pause;
        let pause = (pause * 2).min(LONGEST_PAUSE);
        self.trouble.insert(uuid, Trouble { next, pause, said: failed });
    }
}

impl Host {
    /// Watches over the jobs as long as the daemon runs.
    pub(crate) async fn watch_jobs(&self) {
        let mut known = Known::default();
        let mut stops: FuturesUnordered<Round<'_, Vec<Stop>>> = FuturesUnordered::new();
        let mut looks: FuturesUnordered<Round<'_, Vec<String>>> = FuturesUnordered::new();
        let mut clock = interval(limits::JOB_GRANTS);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clock.tick() => self.next_rounds(&mut known, &mut stops, &mut looks),
                Some((uuid, done)) = stops.next(), if !stops.is_empty() => {
                    known.stopped(uuid, done);
                }
                Some((uuid, over)) = looks.next(), if !looks.is_empty() => {
                    known.looking.remove(&uuid);
                    known.looked.insert(uuid, Instant::now());
                    known.over.extend(over);
                }
            }
        }
    }

    /// Begins what is due. The files are read once for all jobs.
    fn next_rounds<'h>(
        &'h self,
        known: &mut Known,
        stops: &mut FuturesUnordered<Round<'h, Vec<Stop>>>,
        looks: &mut FuturesUnordered<Round<'h, Vec<String>>>,
    ) {
        let open = by_qube(self.ledger.open());
        known.prune(&open);
        if open.is_empty() {
            return;
        }
        let (granted, now) = (self.granted(), self.now());
        let rests = |job: &Job| granted.as_ref().and_then(|scope| claim_in(scope, job, now));
        let is_over = |job: &Job| rests(job).is_none() || known.over.contains(&job.handle);
        for (uuid, jobs) in known.overdue(&open, is_over) {
            known.stopping.insert(uuid.clone());
            stops.push(Box::pin(async move { (uuid, self.stop_in_qube(&jobs).await) }));
        }
        for uuid in known.due(&open).into_iter().cloned().collect::<Vec<_>>() {
            let jobs = open.get(&uuid).cloned().unwrap_or_default();
            known.looking.insert(uuid.clone());
            looks.push(Box::pin(async move { (uuid, self.look_in_qube(&jobs).await) }));
        }
    }

    /// Stops jobs in one qube, within a bounded time.
    async fn stop_in_qube(&self, jobs: &[Job]) -> Vec<Stop> {
        let mut done = Vec::new();
        let round = async {
            let mut stops = stream::iter(jobs.iter().map(|job| self.end_job(job)))
                .buffer_unordered(STOPS_AT_ONCE);
            while let Some(stop) = stops.next().await {
                done.push(stop);
            }
        };
        let whole = timeout(limits::JOB_ROUND, round).await.is_ok();
        let mut done: Vec<Stop> = done.into_iter().flatten().collect();
        if let (false, Some(job)) = (whole, jobs.first()) {
            done.push(Err(format!("jobs in {}: the qube takes too long", job.qube)));
        }
        done
    }

    /// Stops a job without a grant. Nothing where there is nothing to tell.
    async fn end_job(&self, job: &Job) -> Option<Stop> {
        let what = format!("job of {} in {}: {}", job.agent, job.qube, job.command);
        let state = match self.stop(job, job.doomed).await {
            Ok(state) => state,
            Err(error) => return Some(Err(format!("{what}: {}", chain(&error)))),
        };
        // One that may be about to begin is stopped again until it cannot be any more.
        if state == JobState::Lost && job.is_young() {
            return None;
        }
        self.learn(job, state);
        let forgotten = if job.doomed { self.ledger.remove(&job.handle) } else { Ok(()) };
        Some(forgotten.map(|()| what).map_err(|error| format!("ledger: {error}")))
    }

    /// Looks at all jobs in one qube, within a bounded time: the handles of those whose grant is
    /// over.
    async fn look_in_qube(&self, jobs: &[Job]) -> Vec<String> {
        let mut groups: BTreeMap<(&str, &str, bool), Vec<&Job>> = BTreeMap::new();
        for job in jobs.iter().filter(|job| !job.doomed) {
            groups.entry((&job.agent, &job.qube, job.root)).or_default().push(job);
        }
        let mut over = Vec::new();
        let round = async {
            for group in groups.values() {
                let Some(first) = group.first() else { continue };
                match self.standing(first, self.now()).await {
                    Standing::Over => over.extend(group.iter().map(|job| job.handle.clone())),
                    Standing::Gone => group.iter().for_each(|job| self.learn(job, JobState::Lost)),
                    Standing::Granted => self.look_at_group(group).await,
                    Standing::Unknown => {}
                }
            }
        };
        // What is not known in time is looked at in the next round.
        let _in_time = timeout(limits::JOB_ROUND, round).await.is_ok();
        over
    }

    /// Looks at the jobs of one user in one qube, and ends those that nobody there watches over.
    async fn look_at_group(&self, jobs: &[&Job]) {
        let states = self.look_at(jobs, limits::JOB_LOOK).await;
        for (mark, read) in states {
            // One that is just being started has not got its folder yet.
            let lost = |job: &&&Job| job.mark == mark && !job.is_young();
            let Some(job) = jobs.iter().find(lost).filter(|_| read.state == JobState::Lost) else {
                continue;
            };
            if let Ok(state) = self.stop(job, false).await {
                self.learn(job, state);
            }
        }
    }

    /// Stops the jobs whose grant has ended, and those of a pause. What was stopped, for people, and
    /// what could not be.
    pub(crate) async fn stop_ended_jobs(&self) -> Vec<Stop> {
        let qubes = by_qube(self.ledger.open()).into_values().map(|jobs| async move {
            let mut over = Vec::new();
            for job in jobs {
                match self.standing(&job, self.now()).await {
                    Standing::Over => over.push(job),
                    Standing::Gone => self.learn(&job, JobState::Lost),
                    Standing::Granted | Standing::Unknown => {}
                }
            }
            self.stop_in_qube(&over).await
        });
        let stopped: Vec<_> = stream::iter(qubes).buffer_unordered(QUBES_AT_ONCE).collect().await;
        stopped.into_iter().flatten().collect()
    }

    /// Whether a job may be running.
    pub(crate) fn has_open_jobs(&self) -> bool {
        !self.ledger.open().is_empty()
    }
}
