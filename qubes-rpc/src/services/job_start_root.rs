//! `start_job_root`.

use contract::{Fault, Power};

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    service::{Body, Change, RunningQube, Service},
    services::{
        command::STDIN,
        job_start::{Request, Response, examine, start},
    },
};

/// The service.
#[derive(Debug)]
pub struct JobStartRoot;

impl Service for JobStartRoot {
    const NAME: &str = "JobStartRoot";
    const TOOL: Option<&str> = Some("start_job_root");
    const TITLE: &str = "Start a long command in a qube as root";
    const SUMMARY: &str = "Start a command in a qube (virtual machine) as root, and return at once with a handle. Otherwise as start_job. Reading and stopping the job need both powers, exec and root.";
    const POWER: Power = Power::Root;
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
        start(&on, true, &request, host).await
    }
}
