//! The rules for jobs: who may see which, how many there may be, and that none outlives its grant.

use std::time::{Duration, SystemTime};

use admin_api::{
    Destination, QubeName, Uuid,
    call::{self, vm::PowerState},
};
use bytes::Bytes;
use contract::{Fault, Power, Stream, limits};
use futures_util::{StreamExt, stream};
use policy::{Address, ManagedQube, Scope};
use tokio::time::{Instant, sleep};

use crate::{
    error::{Error, chain},
    handle::{Call, Handle, Writer},
    host::Host,
    journal,
    ledger::{Job, KnownEnd},
    pause::is_paused,
    run::{
        Body, Ended, JobEnd, JobRange, JobRead, JobStart, JobState, Output, OutputGone, Place,
        RunError, Token, User,
    },
    scope_file::read_granted,
    service::{Effect, RunningQube},
    services::command::ParsedCommand,
    times::seconds_since_1970,
};

/// For so long after it was written down a job may be about to begin.
const YOUNG: Duration = Duration::from_secs(2 * limits::JOB_LOOK.as_secs());
/// The jobs that are stopped at once.
const STOPS_AT_ONCE: usize = 8;
/// The characters of a command that the ledger keeps.
const COMMAND_CHARS: usize = 200;

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
        // Root's work stays root's, whatever is left of the grant.
        if job.root && !qube.holds(Power::Root) {
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
        if let Some(read) = read {
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
            .filter(|job| host.claim(job, SystemTime::now()).is_some())
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
                    // Nobody was asked for this, where the power is held as `ask`.
                    let outright = here.first().is_some_and(|job| host.claims_outright(job));
                    if outright { host.look_at(&here).await } else { Vec::new() }
                }
            })
            .buffer_unordered(STOPS_AT_ONCE)
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
    /// Starts a command that outlives the call. It is in the ledger before it can run.
    pub(crate) async fn start_job(
        self,
        on: &RunningQube,
        root: bool,
        command: &ParsedCommand,
        deadline: Duration,
    ) -> Result<Job, Error> {
        let RunningQube(qube) = on;
        self.host.make_room(qube, root).await?;
        let random = || Token::random().map(|token| token.as_str().to_owned()).map_err(Error::File);
        let job = Job {
            handle: random()?,
            mark: random()?,
            agent: qube.agent().to_string(),
            qube: qube.name().to_string(),
            uuid: qube.uuid().to_string(),
            root,
            command: command.shown(COMMAND_CHARS),
            started: seconds_since_1970(),
            ended: None,
        };
        self.host.ledger.write(&job).map_err(Error::File)?;
        let begun = self.begin_job(&job, command, deadline).await;
        let standing = match begun {
            Ok(()) => self.host.standing(&job, SystemTime::now()).await,
            Err(_) => Standing::Over,
        };
        match (begun, standing) {
            (Ok(()), Standing::Granted | Standing::Unknown) => Ok(job),
            (begun, _) => {
                // It may run whatever was answered, and then must not.
                self.host.stop(&job, true).await?;
                self.host.ledger.remove(&job.handle).map_err(Error::File)?;
                Err(begun.err().unwrap_or(Error::Cancelled))
            }
        }
    }

    async fn begin_job(
        self,
        job: &Job,
        command: &ParsedCommand,
        deadline: Duration,
    ) -> Result<(), Error> {
        let name = job.qrexec_name();
        let place = Place { qube: &name, user: job.user(), deadline: limits::JOB_LOOK };
        let stdin = self.body();
        let length = u64::try_from(stdin.len()).unwrap_or(u64::MAX);
        let body = Body { length, bytes: stdin.as_ref() };
        let command_of = command.as_command();
        let start = JobStart { mark: &job.mark, command: &command_of, deadline };
        let (mut said, gone) = (Said::default(), &self.call.gone);
        let ended = self.host.runner.start_job(place, start, body, &mut said, gone).await;
        match (ended, said.no_folder) {
            (Err(RunError::Unready { .. }), Some(reason)) => Err(command.no_folder(&reason)),
            (Ok(Ended::Exit(0)), _) => Ok(()),
            (Ok(Ended::Cancelled), _) => Err(Error::Cancelled),
            (Ok(Ended::Exit(_) | Ended::TimedOut), _) => {
                let message = String::from_utf8_lossy(&said.stderr).trim().to_owned();
                Err(RunError::Unready { message }.into())
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Stops a job. With `forget` its output and its handle are gone too.
    pub(crate) async fn stop_job(self, job: &Job, forget: bool) -> Result<Job, Error> {
        self.host.stop(job, forget).await?;
        let stopped = self.host.ledger.read(&job.handle).unwrap_or_else(|| job.clone());
        if forget {
            self.host.ledger.remove(&job.handle).map_err(Error::File)?;
        }
        Ok(stopped)
    }
}

/// Whether a job still rests on a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does.
    Granted,
    /// It does not, and has to be stopped.
    Over,
    /// Its qube was removed, and the job with it.
    Gone,
    /// qubesd cannot be asked.
    Unknown,
}

/// What a job rests on in this scope.
fn claim_in(scope: &Scope, job: &Job, now: SystemTime) -> Option<policy::Claim> {
    let (agent, qube) = (job.agent.parse().ok()?, job.qube.parse().ok()?);
    let caller = scope.caller(&agent).ok()?;
    [Address::Argument, Address::Target]
        .into_iter()
        .find_map(|address| caller.claim(address, &qube, job.power(), now).ok())
}

impl Host {
    /// Whether the operator's file, and so far as asked qubesd, still allows a job.
    fn claim(&self, job: &Job, now: SystemTime) -> Option<policy::Claim> {
        claim_in(&self.granted()?, job, now)
    }

    /// What jobs may rest on now; nothing while everything is paused.
    fn granted(&self) -> Option<Scope> {
        if is_paused(&self.paths) { None } else { read_granted(&self.paths, self.trusted).ok() }
    }

    /// Whether the power that a job rests on is held without a question.
    fn claims_outright(&self, job: &Job) -> bool {
        let scope = read_granted(&self.paths, self.trusted).ok();
        let (Some(scope), Ok(agent), Ok(qube)) = (scope, job.agent.parse(), job.qube.parse())
        else {
            return false;
        };
        let caller = scope.caller(&agent).ok();
        caller.is_some_and(|caller| {
            caller.claim_in_text(&qube, job.power(), SystemTime::now()).is_ok()
        })
    }

    async fn standing(&self, job: &Job, now: SystemTime) -> Standing {
        let Some(claim) = self.claim(job, now) else { return Standing::Over };
        let with_tags = !claim.wanted_tags().is_empty();
        match self.find(&claim.target().clone(), with_tags).await {
            Err(_) => Standing::Unknown,
            Ok(None) => Standing::Gone,
            Ok(Some(found)) if found.live.uuid.as_str() != job.uuid => Standing::Over,
            Ok(Some(found)) => match claim.manage(found.live) {
                Ok(_) => Standing::Granted,
                Err(_) => Standing::Over,
            },
        }
    }

    /// The state of a job's qube; nothing when there is none.
    async fn state_of(&self, job: &Job) -> Result<Option<PowerState>, Error> {
        let uuid = Uuid::parse(&job.uuid).map_err(|_| Error::Stored("no UUID"))?;
        let call = call::vm::current_state(Destination::Uuid(uuid));
        match self.qubesd.call(call, limits::QUBESD).await {
            Ok(found) => Ok(Some(found.power_state)),
            Err(admin_api::Error::Exception(_) | admin_api::Error::Empty) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

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

    /// Stops a job, as dom0 itself: whether it may be stopped is decided by whoever calls.
    async fn stop(&self, job: &Job, forget: bool) -> Result<(), Error> {
        match self.state_of(job).await? {
            None | Some(PowerState::Halted) => self.learn(job, JobState::Lost),
            Some(PowerState::Running) => {
                let name = job.qrexec_name();
                let place = Place { qube: &name, user: job.user(), deadline: limits::JOB_LOOK };
                let stopped = self.runner.stop_job(place, &job.mark, forget).await?;
                self.learn(job, stopped.state);
            }
            Some(state) => return Err(Fault::NotRunning { state: state.to_string() }.into()),
        }
        Ok(())
    }

    /// How jobs of one user in one qube are; nothing where that cannot be told now.
    async fn look_at(&self, jobs: &[&Job]) -> Vec<(String, JobRead)> {
        let Some(first) = jobs.first() else { return Vec::new() };
        let granted = self.standing(first, SystemTime::now()).await == Standing::Granted;
        if !granted || !matches!(self.state_of(first).await, Ok(Some(PowerState::Running))) {
            return Vec::new();
        }
        let name = first.qrexec_name();
        let place = Place { qube: &name, user: first.user(), deadline: limits::JOB_LOOK };
        let marks: Vec<String> = jobs.iter().map(|job| job.mark.clone()).collect();
        let states = self.runner.job_states(place, &marks).await.unwrap_or_default();
        for (mark, read) in &states {
            let Some(job) = jobs.iter().find(|job| job.mark == *mark) else { continue };
            // One that is just being started has not got its folder yet.
            let is_young = seconds_since_1970().saturating_sub(job.started) < YOUNG.as_secs();
            if read.state != JobState::Lost || !is_young {
                self.learn(job, read.state);
            }
        }
        states
    }

    /// Makes room in the ledger for one more job, or says that there is none.
    async fn make_room(&self, qube: &ManagedQube, root: bool) -> Result<(), Error> {
        let own = || -> Vec<Job> {
            let agent = qube.agent().as_str();
            self.ledger.all().into_iter().filter(|job| job.agent == agent).collect()
        };
        let open_here = |jobs: &[Job]| -> Vec<Job> {
            let here = |job: &&Job| job.ended.is_none() && job.uuid == qube.uuid().as_str();
            jobs.iter().filter(here).cloned().collect()
        };
        let mut jobs = own();
        if open_here(&jobs).len() >= limits::JOBS_PER_QUBE {
            for user in [root, !root] {
                let open = open_here(&jobs);
                let open: Vec<&Job> = open.iter().filter(|job| job.root == user).collect();
                self.look_at(&open).await;
            }
            jobs = own();
            if open_here(&jobs).len() >= limits::JOBS_PER_QUBE {
                let most = limits::JOBS_PER_QUBE;
                let message =
                    format!("{most} jobs of yours run in this qube already; stop_job ends one");
                return Err(Fault::TooLarge { message }.into());
            }
        }
        let old = seconds_since_1970().saturating_sub(limits::JOB_KEPT.as_secs());
        let (mut left, surplus) = (jobs.len(), limits::JOBS_PER_AGENT);
        for job in jobs.iter().filter(|job| job.ended.is_some()) {
            if left >= surplus || job.ended.is_some_and(|(_, at)| at < old) {
                self.ledger.remove(&job.handle).map_err(Error::File)?;
                left -= 1;
            }
        }
        if left >= surplus {
            let message = format!("{surplus} jobs of yours run already; stop_job ends one");
            return Err(Fault::TooLarge { message }.into());
        }
        Ok(())
    }

    /// Stops the jobs whose grant has ended, and those of a pause. What was stopped, for people, and
    /// what could not be.
    pub(crate) async fn stop_ended_jobs(&self) -> Vec<Result<String, String>> {
        let stops = self.ledger.open().into_iter().map(|job| async move {
            match self.standing(&job, SystemTime::now()).await {
                Standing::Granted | Standing::Unknown => return None,
                Standing::Gone => {
                    self.learn(&job, JobState::Lost);
                    return None;
                }
                Standing::Over => {}
            }
            let what = format!("job of {} in {}: {}", job.agent, job.qube, job.command);
            Some(match self.stop(&job, false).await {
                Ok(()) => Ok(what),
                Err(error) => Err(format!("{what}: {}", chain(&error))),
            })
        });
        let stopped: Vec<_> = stream::iter(stops).buffer_unordered(STOPS_AT_ONCE).collect().await;
        stopped.into_iter().flatten().collect()
    }

    /// Whether a job may be running.
    pub(crate) fn has_open_jobs(&self) -> bool {
        !self.ledger.open().is_empty()
    }

    /// Watches over the jobs as long as the daemon runs: none outlives its grant.
    pub(crate) async fn watch_jobs(&self) {
        let mut looked: Option<Instant> = None;
        loop {
            let open = self.ledger.open();
            let due = looked.is_none_or(|last| last.elapsed() >= limits::JOB_STATES);
            // The files are read once for all jobs.
            let granted = if open.is_empty() { None } else { self.granted() };
            let rests = |job: &Job| claim_in(granted.as_ref()?, job, SystemTime::now());
            if !open.is_empty() && (due || open.iter().any(|job| rests(job).is_none())) {
                for stopped in self.stop_ended_jobs().await {
                    journal::say(&match stopped {
                        Ok(what) => format!("stopped, since its grant has ended: {what}"),
                        Err(what) => format!("cannot be stopped: {what}"),
                    });
                }
                if due {
                    self.look_at_all().await;
                    looked = Some(Instant::now());
                }
            }
            sleep(limits::JOB_GRANTS).await;
        }
    }

    async fn look_at_all(&self) {
        let open = self.ledger.open();
        let mut places: Vec<_> =
            open.iter().map(|job| (job.agent.as_str(), job.uuid.as_str(), job.root)).collect();
        places.sort_unstable();
        places.dedup();
        for (agent, uuid, root) in places {
            let here = |job: &&Job| job.agent == agent && job.uuid == uuid && job.root == root;
            let here: Vec<&Job> = open.iter().filter(here).collect();
            let halted = match here.first() {
                Some(first) => {
                    matches!(self.state_of(first).await, Ok(None | Some(PowerState::Halted)))
                }
                None => false,
            };
            if halted {
                here.iter().for_each(|job| self.learn(job, JobState::Lost));
            } else {
                self.look_at(&here).await;
            }
        }
    }
}

/// What a script says that starts a job.
#[derive(Debug, Default)]
struct Said {
    stderr: Vec<u8>,
    no_folder: Option<String>,
}

impl Output for Said {
    async fn bytes(&mut self, _stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        let room = limits::MESSAGE_BYTES.saturating_sub(self.stderr.len());
        self.stderr.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
        Ok(())
    }

    fn note(&mut self, _stream: Stream, line: &[u8]) {
        if let Some(reason) = line.strip_prefix(b"cwd ") {
            self.no_folder = Some(String::from_utf8_lossy(reason).into_owned());
        }
    }
}

/// Passes a range on, and lets it neither begin nor end within a character.
struct Text<'h> {
    call: &'h Call,
    /// Bytes that continue a character may be skipped at the beginning.
    skips: bool,
    /// How many were.
    skipped: u64,
    /// How many bytes may still come, whatever the qube sends.
    most: usize,
    /// What may be a character of which the rest has not come.
    held: Vec<u8>,
    sent: u64,
}

impl<'h> Text<'h> {
    fn new(call: &'h Call, range: JobRange<'_>) -> Self {
        let most = usize::try_from(range.length).unwrap_or(usize::MAX);
        Self { call, skips: range.from < 0, skipped: 0, most, held: Vec::new(), sent: 0 }
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), OutputGone> {
        self.sent += u64::try_from(bytes.len()).unwrap_or(0);
        self.call.answer.bytes(Stream::Stdout, bytes).await.map_err(|_| OutputGone)
    }

    /// Sends what was held back where nothing can follow it.
    async fn finish(&mut self, is_end: bool) -> Result<(), Error> {
        if is_end || self.sent == 0 {
            let held = std::mem::take(&mut self.held);
            self.send(held.into()).await.map_err(|_| Error::Cancelled)?;
        }
        Ok(())
    }
}

/// How many bytes at the end may be the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    let start = bytes.len().saturating_sub(3);
    let last = bytes.get(start..).unwrap_or_default();
    let whole = |byte: u8| match byte {
        0b1100_0000..=0b1101_1111 => 2,
        0b1110_0000..=0b1110_1111 => 3,
        0b1111_0000..=0b1111_0111 => 4,
        _ => 1,
    };
    let begins = last.iter().rposition(|byte| byte & 0b1100_0000 != 0b1000_0000);
    begins.map_or(0, |at| {
        let length = last.len() - at;
        if last.get(at).is_some_and(|byte| whole(*byte) > length) { length } else { 0 }
    })
}

impl Output for Text<'_> {
    async fn bytes(&mut self, _stream: Stream, mut bytes: Bytes) -> Result<(), OutputGone> {
        bytes.truncate(self.most);
        self.most -= bytes.len();
        while self.skips && self.skipped < 3 && bytes.first().is_some_and(|b| b & 0xc0 == 0x80) {
            drop(bytes.split_to(1));
            self.skipped += 1;
        }
        self.skips &= bytes.is_empty();
        if !self.held.is_empty() {
            self.held.extend_from_slice(&bytes);
            bytes = std::mem::take(&mut self.held).into();
        }
        let held = bytes.split_off(bytes.len() - unfinished(&bytes));
        self.held = held.to_vec();
        self.send(bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_character_is_found_at_the_end() {
        for (bytes, expected) in [
            (&b""[..], 0),
            (b"abc", 0),
            ("é".as_bytes(), 0),
            (b"a\xc3", 1),
            (b"\xe2\x82", 2),
            ("€".as_bytes(), 0),
            (b"\xf0\x9f\x98", 3),
            ("😀".as_bytes(), 0),
            (b"\x80\x80\x80", 0),
            (b"\xff", 0),
        ] {
            assert_eq!(unfinished(bytes), expected, "{bytes:?}");
        }
    }
}
