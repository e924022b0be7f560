//! `run_in_disposable_root`.

use contract::{Fault, Power};

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    run::User,
    service::{Body, Bytes, Change, Service},
    services::{
        command::STDIN,
        disposable_run::{Request, examine, run},
        vm_exec::{OUTPUT, Response},
    },
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct DisposableRunRoot;

impl Service for DisposableRunRoot {
    const NAME: &str = "DisposableRunRoot";
    const TOOL: Option<&str> = Some("run_in_disposable_root");
    const TITLE: &str = "Run a command in a fresh disposable as root";
    const SUMMARY: &str = "Make a disposable qube (virtual machine), run a shell command in it as root, and destroy it. Otherwise as run_in_disposable.";
    const POWER: Power = Power::Shape;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = false;
    const OPEN_WORLD: bool = true;
    const LONG: bool = true;
    const BODY: Option<Body> = Some(STDIN);
    const BYTES: &[Bytes] = OUTPUT;
    type On = View;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, host: &Host) -> Result<(), Fault> {
        examine(request, host)
    }

    async fn handle(view: View, request: Request, host: Writer<'_>) -> Result<Response, Error> {
        run(&view, &request, User::Root, Power::Root, host).await
    }
}
