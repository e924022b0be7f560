//! `stop_job`.

use contract::Power;
use policy::ManagedQube;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Writer,
    service::{Change, Service},
    services::job_read::end_of,
};

/// The service.
#[derive(Debug)]
pub struct JobStop;

/// Which job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The job, as start_job or list_jobs gave it.
    pub handle: String,
    /// Also remove its output and forget the handle.
    #[serde(default)]
    pub forget: bool,
}

/// How the job is now.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// "ended", or "lost" when nobody knows how it ended.
    pub state: String,
    /// What the job returned where it had ended by itself; else null.
    pub exit_code: Option<i32>,
    /// True when it ran until now, as far as was known.
    pub changed: bool,
}

impl Service for JobStop {
    const NAME: &str = "JobStop";
    const TOOL: Option<&str> = Some("stop_job");
    const TITLE: &str = "Stop a job";
    const SUMMARY: &str = "Stop a job that start_job began in a qube (virtual machine), with all its children: SIGTERM, and SIGKILL after a second. Its output stays readable unless forget is given. A job that has ended already is a success. A job of start_job_root needs the power root too.";
    const POWER: Power = Power::Exec;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = ManagedQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    async fn handle(
        qube: ManagedQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        let job = host.job(&qube, &request.handle)?;
        let before = job.ended;
        let stopped = host.stop_job(&job, request.forget).await?;
        let (state, exit_code, _) = end_of(stopped.ended);
        Ok(Response { state, exit_code, changed: before.is_none() && exit_code.is_none() })
    }
}
