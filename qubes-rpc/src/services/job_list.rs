//! `list_jobs`.

use contract::Power;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Reader,
    jobs::known_end,
    service::{Observe, Service},
    services::job_read::end_of,
    times::time_of,
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct JobList;

/// Which jobs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// Only the jobs in this qube.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub vm_name: Option<String>,
}

/// Your jobs.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// One entry for each job that you started, the oldest first. Ended ones are forgotten after a
    /// week, or earlier when there are more than 64.
    pub jobs: Vec<ShownJob>,
}

/// One job.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShownJob {
    /// What job_output and stop_job take, together with vm_name.
    pub handle: String,
    /// Its qube.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "subject")))]
    pub vm_name: String,
    /// Whether it runs as root.
    pub root: bool,
    /// The beginning of its command.
    pub command: String,
    /// "running", "ended" or "lost"; "unknown" where its qube cannot be asked now.
    pub state: String,
    /// What it returned; null while it runs, and when it was stopped or killed.
    pub exit_code: Option<i32>,
    /// When it was started.
    pub started: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// How many bytes it wrote to standard output; null where its qube cannot be asked now.
    pub stdout_bytes: Option<u64>,
    /// How many bytes it wrote to standard error; null where its qube cannot be asked now.
    pub stderr_bytes: Option<u64>,
}

impl Service for JobList {
    const NAME: &str = "JobList";
    const TOOL: Option<&str> = Some("list_jobs");
    const TITLE: &str = "List jobs";
    const SUMMARY: &str = "List the jobs that you started with start_job and start_job_root in all qubes (virtual machines) of your scope, also in earlier sessions, with their state, exit code and the size of their output.";
    const POWER: Power = Power::Exec;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = View;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    async fn handle(view: View, request: Request, host: Reader<'_>) -> Result<Response, Error> {
        let wanted = |name: &str| request.vm_name.as_deref().is_none_or(|only| only == name);
        let jobs = host.jobs(view.agent(), wanted).await;
        let jobs = jobs.into_iter().map(|(job, read)| {
            let ended = job.ended.or_else(|| read.and_then(|read| known_end(read.state)));
            let (state, exit_code, at) = match (ended, read) {
                (None, None) => ("unknown".into(), None, None),
                (ended, _) => end_of(ended),
            };
            ShownJob {
                handle: job.handle,
                vm_name: job.qube,
                root: job.root,
                command: job.command,
                state,
                exit_code,
                started: time_of(job.started).map(|at| at.to_string()),
                ended: at,
                stdout_bytes: read.map(|read| read.stdout_bytes),
                stderr_bytes: read.map(|read| read.stderr_bytes),
            }
        });
        Ok(Response { jobs: jobs.collect() })
    }
}
