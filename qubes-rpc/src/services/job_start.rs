//! `start_job`.

use std::{collections::BTreeMap, time::Duration};

use contract::{Fault, Power, limits};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    service::{Body, Change, RunningQube, Service},
    services::command::{ParsedCommand, STDIN},
};

/// The service.
#[derive(Debug)]
pub struct JobStart;

/// The command, and how long it may run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// A command line for bash, for example "make -j4 && make install". Give this or argv.
    #[serde(default)]
    pub command: Option<String>,
    /// A program and its arguments, which reach it exactly as they are. Give this or command.
    #[serde(default)]
    pub argv: Option<Vec<String>>,
    /// The folder in which the job begins; the user's home when left out. Where it cannot be
    /// entered, nothing is started.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Environment variables of the job, as {"NAME": "value"}.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// After this many seconds the job is killed with its children. Up to 604800, which is also
    /// the limit when it is left out.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 604_800)))]
    pub timeout_seconds: Option<u64>,
}

/// The job that was started.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// What job_output and stop_job take, together with vm_name.
    pub handle: String,
    /// The call that waits for the job's end and shows the end of its output.
    pub hint: String,
}

impl Service for JobStart {
    const NAME: &str = "JobStart";
    const TOOL: Option<&str> = Some("start_job");
    const TITLE: &str = "Start a long command in a qube";
    const SUMMARY: &str = "Start a command in a qube (virtual machine) as its ordinary user, and return at once with a handle. The job goes on when this call, the session and the connection end. Read its output with job_output, also after it has ended; list_jobs finds it again; stop_job ends it. It is stopped when your power over the qube ends. Of each stream the first 2 MiB and the last 12 MiB or more are kept. The qube is started first if you may do that.";
    const POWER: Power = Power::Exec;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = false;
    const OPEN_WORLD: bool = true;
    const LONG: bool = true;
    const BODY: Option<Body> = Some(STDIN);
    type On = RunningQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _: &Host) -> Result<(), Fault> {
        examine(request)
    }

    async fn handle(
        on: RunningQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        start(&on, false, &request, host).await
    }
}

fn parse(request: &Request) -> Result<ParsedCommand, Fault> {
    let Request { command, argv, cwd, env, .. } = request;
    ParsedCommand::parse(command.as_deref(), argv.as_deref(), cwd.as_deref(), env)
}

/// Refuses what no job can be.
pub(crate) fn examine(request: &Request) -> Result<(), Fault> {
    let ceiling = limits::JOB_CEILING.as_secs();
    if request.timeout_seconds.is_some_and(|seconds| !(1..=ceiling).contains(&seconds)) {
        return Err(Fault::bad_request(format!("timeout_seconds must be 1 to {ceiling}")));
    }
    parse(request).map(|_| ())
}

/// Starts the job as this user.
pub(crate) async fn start(
    on: &RunningQube,
    root: bool,
    request: &Request,
    host: Writer<'_>,
) -> Result<Response, Error> {
    let command = parse(request)?;
    let deadline = request.timeout_seconds.map_or(limits::JOB_CEILING, Duration::from_secs);
    let job = host.start_job(on, root, &command, deadline).await?;
    let (qube, handle) = (&job.qube, &job.handle);
    let hint = format!(
        "job_output(vm_name={qube:?}, handle={handle:?}, from=-8000, wait_seconds=60) waits for the end"
    );
    Ok(Response { handle: job.handle, hint })
}
