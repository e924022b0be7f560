//! `job_output`.

use std::time::Duration;

use admin_api::call::vm::PowerState;
use contract::{Fault, Power, Stream, limits};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Reader,
    host::Host,
    jobs::known_end,
    ledger::{Job, KnownEnd},
    run::{JobRange, JobRead as Read, JobState},
    service::{Bytes, Observe, Service},
    times::time_of,
};

/// The service.
#[derive(Debug)]
pub struct JobRead;

/// One of a job's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Which {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which part of the output, and whether to wait for it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The job, as start_job or list_jobs gave it.
    pub handle: String,
    /// The stream to show: "stdout" or "stderr".
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("type" = "string", "enum" = ["stdout", "stderr"])))]
    pub stream: Which,
    /// The byte at which to begin: 0 is the beginning, next of an earlier answer goes on there.
    /// Negative, that many bytes before the end.
    #[serde(default)]
    pub from: i64,
    /// Wait so long, up to 300, until there is output behind from; with a negative from until the
    /// job has ended.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(max = 300)))]
    pub wait_seconds: u64,
    /// How many bytes to return at most, up to 2097152.
    #[serde(default = "default_output")]
    #[cfg_attr(feature = "schema", schemars(range(min = 4, max = 2_097_152)))]
    pub max_output: u64,
}

fn default_output() -> u64 {
    limits::OUTPUT_DEFAULT_CHARS
}

/// How the job is, and the part of its output.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// "running", "ended", or "lost": the qube was shut down, or what watched over the job died.
    pub state: String,
    /// What the job returned; null while it runs, and when it was stopped or killed.
    pub exit_code: Option<i32>,
    /// It was killed at its time limit.
    pub timed_out: bool,
    /// It was stopped, by stop_job or because your power over the qube ended.
    pub stopped: bool,
    /// When it ended.
    pub ended: Option<String>,
    /// How many bytes it wrote to standard output so far.
    pub stdout_bytes: u64,
    /// How many bytes it wrote to standard error so far.
    pub stderr_bytes: u64,
    /// The byte of the stream at which output begins. After the from that was asked for where the
    /// bytes between are not kept any more.
    pub from: u64,
    /// The from that goes on behind this output.
    pub next: u64,
    /// The call that goes on from here; null when all of the stream was shown and nothing follows.
    pub hint: Option<String>,
}

impl Service for JobRead {
    const NAME: &str = "JobRead";
    const TOOL: Option<&str> = Some("job_output");
    const TITLE: &str = "Output of a job";
    const SUMMARY: &str = "Show the state of a job that start_job began in a qube (virtual machine), and a part of one stream of its output: from 0 the beginning, from a negative number the end, from next what came since. With wait_seconds it waits for news instead of being asked again and again. Works after the job has ended, for a week. A job of start_job_root needs the power root too.";
    const POWER: Power = Power::Exec;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    const BYTES: &[Bytes] = &[Bytes {
        stream: Stream::Stdout,
        field: "output",
        about: "This part of the stream.",
        encoding: "output_encoding",
        always: false,
    }];
    type On = ManagedQube;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _: &Host) -> Result<(), Fault> {
        if Duration::from_secs(request.wait_seconds) > limits::JOB_WAIT {
            let most = limits::JOB_WAIT.as_secs();
            return Err(Fault::bad_request(format!("wait_seconds must be at most {most}")));
        }
        if !(4..=limits::OUTPUT_BYTES).contains(&request.max_output) {
            let most = limits::OUTPUT_BYTES;
            return Err(Fault::bad_request(format!("max_output must be 4 to {most}")));
        }
        if request.from < -i64::MAX / 2 || request.from > i64::MAX / 2 {
            return Err(Fault::bad_request("from is beyond any output"));
        }
        Ok(())
    }

    async fn handle(
        qube: ManagedQube,
        request: Request,
        host: Reader<'_>,
    ) -> Result<Response, Error> {
        let job = host.job(&qube, &request.handle)?;
        match host.state(&qube).await? {
            PowerState::Running => {}
            PowerState::Halted => {
                return Ok(asleep(&job, "start_vm the qube: its files may be there"));
            }
            state @ (PowerState::Transient
            | PowerState::Paused
            | PowerState::Suspended
            | PowerState::Halting
            | PowerState::Dying
            | PowerState::Crashed
            | PowerState::Unknown
            | PowerState::Other(_)) => {
                return Err(Fault::NotRunning { state: state.to_string() }.into());
            }
        }
        let range = JobRange {
            mark: &job.mark,
            stream: match request.stream {
                Which::Stdout => Stream::Stdout,
                Which::Stderr => Stream::Stderr,
            },
            from: request.from,
            length: request.max_output,
            wait: Duration::from_secs(request.wait_seconds),
        };
        let (read, sent) = host.read_job(&job, range).await?;
        Ok(match read {
            Some(read) => describe(&job, &request, read, sent),
            None => asleep(&job, "the qube has forgotten the job and its output"),
        })
    }
}

/// How a job ended, in the words of the result.
pub(crate) fn end_of(ended: Option<(KnownEnd, u64)>) -> (String, Option<i32>, Option<String>) {
    let Some((end, at)) = ended else { return ("running".into(), None, None) };
    let at = time_of(at).map(|at| at.to_string());
    match end {
        KnownEnd::Exit(code) => ("ended".into(), Some(code), at),
        KnownEnd::Timeout | KnownEnd::Stopped => ("ended".into(), None, at),
        KnownEnd::Lost => ("lost".into(), None, None),
    }
}

fn answer(ended: Option<(KnownEnd, u64)>) -> Response {
    let (state, exit_code, at) = end_of(ended);
    let was = |end: KnownEnd| ended.is_some_and(|(how, _)| how == end);
    Response {
        state,
        exit_code,
        timed_out: was(KnownEnd::Timeout),
        stopped: was(KnownEnd::Stopped),
        ended: at,
        stdout_bytes: 0,
        stderr_bytes: 0,
        from: 0,
        next: 0,
        hint: None,
    }
}

/// What is known of a job of which its qube says nothing.
fn asleep(job: &Job, hint: &str) -> Response {
    let ended = job.ended.unwrap_or((KnownEnd::Lost, 0));
    Response { hint: Some(hint.into()), ..answer(Some(ended)) }
}

fn describe(job: &Job, request: &Request, read: Read, sent: u64) -> Response {
    let (name, total) = match request.stream {
        Which::Stdout => ("stdout", read.stdout_bytes),
        Which::Stderr => ("stderr", read.stderr_bytes),
    };
    let next = read.begin.saturating_add(sent);
    let wait = match (next < total, read.state) {
        (true, _) => Some(String::new()),
        (false, JobState::Running) => Some(", wait_seconds=60".into()),
        (false, JobState::Ended(..) | JobState::Lost) => None,
    };
    let (qube, handle) = (&job.qube, &job.handle);
    let hint = wait.map(|wait| {
        format!("job_output(vm_name={qube:?}, handle={handle:?}, stream={name:?}, from={next}{wait}) goes on")
    });
    Response {
        stdout_bytes: read.stdout_bytes,
        stderr_bytes: read.stderr_bytes,
        from: read.begin,
        next,
        hint,
        ..answer(known_end(read.state))
    }
}
