//! `exec_in_vm`.

use std::{collections::BTreeMap, time::Duration};

use contract::{Fault, Power, Stream, limits};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    run::{Ended, User},
    service::{Body, Bytes, Change, RunningQube, Service},
    services::command::{ParsedCommand, STDIN},
};

/// The service.
#[derive(Debug)]
pub struct VmExec;

/// The command, and how much of it to wait for and to show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// A command line for bash, for example "ls -l /tmp | head". May have several lines. Give this
    /// or argv.
    #[serde(default)]
    pub command: Option<String>,
    /// A program and its arguments, which reach it exactly as they are, for example
    /// ["ls", "-l", "a b"]: no shell reads them. Give this or command.
    #[serde(default)]
    pub argv: Option<Vec<String>>,
    /// The folder in which the command begins; the user's home when left out. A relative one is
    /// relative to that. Where it cannot be entered, nothing is run.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Environment variables of the command, as {"NAME": "value"}.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// After this many seconds the command and all its children are killed, and what it printed
    /// so far is returned with timed_out. For longer work use start_job.
    #[serde(default = "default_timeout")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub timeout_seconds: u64,
    /// How many characters of each stream to return, up to 2097152. Of more, the beginning and
    /// the end are kept.
    #[serde(default = "default_output")]
    #[cfg_attr(feature = "schema", schemars(range(max = 2_097_152)))]
    pub max_output: u64,
}

pub(crate) fn default_timeout() -> u64 {
    limits::COMMAND_DEFAULT.as_secs()
}

pub(crate) fn default_output() -> u64 {
    limits::OUTPUT_DEFAULT_CHARS
}

/// How the command ended.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// What the command returned; null when it was killed at the time limit.
    pub exit_code: Option<i32>,
    /// The time limit was reached, and the command was killed with its children.
    pub timed_out: bool,
    /// Part of the output was left out.
    pub truncated: bool,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// How many bytes the command wrote to standard output.
    pub stdout_bytes: u64,
    /// How many bytes the command wrote to standard error.
    pub stderr_bytes: u64,
    /// What to do to get the rest; absent when the command ended and nothing was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The two streams of a command, as fields of the result.
pub(crate) const OUTPUT: &[Bytes] = &[
    Bytes {
        stream: Stream::Stdout,
        field: "stdout",
        about: "What the command wrote to standard output.",
        encoding: "stdout_encoding",
        always: false,
    },
    Bytes {
        stream: Stream::Stderr,
        field: "stderr",
        about: "What the command wrote to standard error.",
        encoding: "stderr_encoding",
        always: false,
    },
];

impl Service for VmExec {
    const NAME: &str = "VmExec";
    const TOOL: Option<&str> = Some("exec_in_vm");
    const BATCH: Option<&str> = Some("exec_in_vms");
    const TITLE: &str = "Run a command in a qube";
    const SUMMARY: &str = "Run a shell command in a qube (virtual machine) as its ordinary user, and return its exit code, standard output and standard error. A command that returns another code than 0 is no error of the tool. The qube is started first if you may do that. The command is killed with its children at its time limit; what it detached itself with setsid goes on after a normal end.";
    const POWER: Power = Power::Exec;
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
        exec(&on, User::Default, request, host).await
    }
}

/// Refuses what no command can be, and limits beyond the highest.
pub(crate) fn examine(request: &Request, ceiling: Duration) -> Result<(), Fault> {
    let ceiling = ceiling.as_secs();
    if !(1..=ceiling).contains(&request.timeout_seconds) {
        return Err(Fault::bad_request(format!("timeout_seconds must be 1 to {ceiling}")));
    }
    if request.max_output > limits::OUTPUT_BYTES {
        let most = limits::OUTPUT_BYTES;
        return Err(Fault::bad_request(format!("max_output must be at most {most}")));
    }
    parse(request).map(|_| ())
}

fn parse(request: &Request) -> Result<ParsedCommand, Fault> {
    let Request { command, argv, cwd, env, .. } = request;
    ParsedCommand::parse(command.as_deref(), argv.as_deref(), cwd.as_deref(), env)
}

/// Runs the command as this user.
pub(crate) async fn exec(
    on: &RunningQube,
    user: User,
    request: Request,
    host: Writer<'_>,
) -> Result<Response, Error> {
    let command = parse(&request)?;
    host.keep_ends(request.max_output);
    let started = Instant::now();
    let deadline = Duration::from_secs(request.timeout_seconds);
    let exit_code = match host.command(on, user, &command, deadline).await? {
        Ended::Exit(code) => Some(code),
        Ended::TimedOut => None,
        Ended::Cancelled => return Err(Error::Cancelled),
    };
    let (bytes, truncated) = host.finish_streams().await?;
    Ok(Response {
        exit_code,
        timed_out: exit_code.is_none(),
        truncated,
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        stdout_bytes: bytes.stdout,
        stderr_bytes: bytes.stderr,
        hint: hint(on, user, &request, exit_code.is_none(), truncated, host),
    })
}

/// The next call for who wants more than this one could give.
fn hint(
    on: &RunningQube,
    user: User,
    request: &Request,
    timed_out: bool,
    truncated: bool,
    host: Writer<'_>,
) -> Option<String> {
    let RunningQube(qube) = on;
    let job = match user {
        User::Default => "start_job",
        User::Root => "start_job_root",
    };
    let job = format!("{job}(vm_name={:?}, …)", qube.name().as_str());
    let most = host.host.ceiling.as_secs();
    let seconds = request.timeout_seconds;
    if timed_out {
        Some(format!(
            "killed after {seconds} s, with what it printed until then; {job} runs it without \
             this limit, or give timeout_seconds up to {most}"
        ))
    } else if truncated {
        let most = limits::OUTPUT_BYTES;
        Some(format!(
            "give max_output up to {most}, or run it by {job} and read ranges with job_output"
        ))
    } else {
        None
    }
}
