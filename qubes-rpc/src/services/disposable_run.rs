//! `run_in_disposable`.

use std::{collections::BTreeMap, pin::pin};

use contract::{Fault, Power};
use serde::Deserialize;

use crate::{
    births::{Asked, parse_named},
    error::Error,
    handle::Writer,
    host::Host,
    run::User,
    service::{Body, Bytes, Change, RunningQube, Service},
    services::{
        command::STDIN,
        vm_exec::{self, OUTPUT, Response, default_output, default_timeout, exec},
    },
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct DisposableRun;

/// The command, and what to make the disposable from.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The qube of your scope to make the disposable from: one of class DispVMTemplate.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub template: String,
    /// A command line for bash. May have several lines. Give this or argv.
    #[serde(default)]
    pub command: Option<String>,
    /// A program and its arguments, which reach it exactly as they are: no shell reads them. Give
    /// this or command.
    #[serde(default)]
    pub argv: Option<Vec<String>>,
    /// The folder in which the command begins; the user's home when left out.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Environment variables of the command, as {"NAME": "value"}.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// After this many seconds the command is killed; starting the disposable does not count.
    #[serde(default = "default_timeout")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub timeout_seconds: u64,
    /// How many characters of each stream to return, up to 2097152. Of more, the beginning and
    /// the end are kept.
    #[serde(default = "default_output")]
    #[cfg_attr(feature = "schema", schemars(range(max = 2_097_152)))]
    pub max_output: u64,
}

impl Request {
    fn parts(&self) -> vm_exec::Request {
        vm_exec::Request {
            command: self.command.clone(),
            argv: self.argv.clone(),
            cwd: self.cwd.clone(),
            env: self.env.clone(),
            timeout_seconds: self.timeout_seconds,
            max_output: self.max_output,
        }
    }
}

impl Service for DisposableRun {
    const NAME: &str = "DisposableRun";
    const TOOL: Option<&str> = Some("run_in_disposable");
    const TITLE: &str = "Run a command in a fresh disposable";
    const SUMMARY: &str = "Make a disposable qube (virtual machine) from a template for disposables of your scope, run a shell command in it as its ordinary user, return exit code and output, and destroy it, whatever happens. Nothing of it is left. Otherwise as exec_in_vm.";
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
        run(&view, &request, User::Default, Power::Exec, host).await
    }
}

/// Refuses what no command can be.
pub(crate) fn examine(request: &Request, host: &Host) -> Result<(), Fault> {
    vm_exec::examine(&request.parts(), host.ceiling)
}

/// Makes a disposable, runs the command in it as this user, and destroys it.
pub(crate) async fn run(
    view: &View,
    request: &Request,
    user: User,
    power: Power,
    host: Writer<'_>,
) -> Result<Response, Error> {
    let settings = host.sandbox()?;
    let refused = |_| Error::Fault(Fault::Refused {});
    let birth = view.caller().and_then(|c| c.birth(view.now())).map_err(refused)?;
    let template = parse_named("template", &request.template)?;
    let source = host.source(view, &template, Power::Shape).await?;
    if !(source.qube.holds(power) && source.qube.holds(Power::Lifecycle)) {
        return Err(Fault::Refused {}.into());
    }
    if !source.is_for_disposables() {
        return Err(Fault::bad_request("template must be a DispVMTemplate").into());
    }
    let asked = Asked { offline: false, netvm: None };
    let _inherited = host.network(view, &source, &settings, asked).await?;
    let disposable = host.disposable(view, &source, &birth, &settings).await?;
    let ended = if disposable.qube.holds(power) {
        let on = RunningQube(disposable.qube.clone());
        let mut work = pin!(exec(&on, user, request.parts(), host));
        tokio::select! {
            ended = &mut work => ended,
            () = host.birthright_ends(view) => {
                host.gone().cancel();
                work.await
            }
        }
    } else {
        Err(Fault::Refused {}.into())
    };
    host.discard(disposable).await;
    ended
}
