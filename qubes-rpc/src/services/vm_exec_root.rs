//! `exec_in_vm_root`.

use contract::{Fault, Power};

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    run::User,
    service::{Body, Bytes, Change, RunningQube, Service},
    services::{
        command::STDIN,
        vm_exec::{OUTPUT, Request, Response, examine, exec},
    },
};

/// The service.
#[derive(Debug)]
pub struct VmExecRoot;

impl Service for VmExecRoot {
    const NAME: &str = "VmExecRoot";
    const TOOL: Option<&str> = Some("exec_in_vm_root");
    const BATCH: Option<&str> = Some("exec_in_vms_root");
    const TITLE: &str = "Run a command in a qube as root";
    const SUMMARY: &str = "Run a shell command in a qube (virtual machine) as root, without sudo, and return its exit code, standard output and standard error. Otherwise as exec_in_vm. In a qube that is based on a template, changes outside /home, /usr/local and /rw are gone after its next shutdown.";
    const POWER: Power = Power::Root;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = false;
    const OPEN_WORLD: bool = true;
    const LONG: bool = true;
    const BODY: Option<Body> = Some(STDIN);
    const BYTES: &[Bytes] = OUTPUT;
    type On = RunningQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, host: &Host) -> Result<(), Fault> {
        examine(request, host.ceiling)
    }

    async fn handle(
        on: RunningQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        exec(&on, User::Root, request, host).await
    }
}
