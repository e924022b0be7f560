//! Starting a job: room for it, its entry in the ledger, and then its process.

use std::time::Duration;

use bytes::Bytes;
use contract::{Fault, Stream, limits};
use policy::ManagedQube;

use super::standing::Standing;
use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    ledger::Job,
    run::{Body, Ended, JobStart, Output, OutputGone, Place, RunError, Token},
    service::RunningQube,
    services::command::ParsedCommand,
    times::seconds_since_1970,
};

/// The characters of a command that the ledger keeps.
const COMMAND_CHARS: usize = 200;

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
            doomed: false,
        };
        self.host.ledger.write(&job).map_err(Error::File)?;
        let begun = self.begin_job(&job, command, deadline).await;
        let standing = match begun {
            Ok(()) => self.host.standing(&job, self.host.now()).await,
            Err(_) => Standing::Over,
        };
        match (begun, standing) {
            (Ok(()), Standing::Granted | Standing::Unknown) => Ok(job),
            (begun, _) => {
                // It may run whatever was answered, and then must not. What cannot be stopped now is
                // stopped by whoever watches.
                let job = Job { doomed: true, ..job };
                self.host.ledger.write(&job).map_err(Error::File)?;
                if self.host.stop(&job, true).await.is_ok() {
                    self.host.ledger.remove(&job.handle).map_err(Error::File)?;
                }
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
}

impl Host {
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
                if let Some(first) = open.first()
                    && self.standing(first, self.now()).await == Standing::Granted
                {
                    self.look_at(&open, limits::JOB_LIST_LOOK).await;
                }
            }
            jobs = own();
            if open_here(&jobs).len() >= limits::JOBS_PER_QUBE {
                let most = limits::JOBS_PER_QUBE;
                let message =
                    format!("{most} jobs of yours run in this qube already; stop_job ends one");
                return Err(Fault::TooLarge { message }.into());
            }
        }
        let (mut left, surplus) = (jobs.len(), limits::JOBS_PER_AGENT);
        for job in jobs.iter().filter(|job| job.ended.is_some()) {
            if left >= surplus || job.is_forgotten() {
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
