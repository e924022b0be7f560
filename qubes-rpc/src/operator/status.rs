//! `status`: everything at one look.

use std::{fs, path::Path, process::ExitCode, time::SystemTime};

use admin_api::{Destination, call};
use clap::Args;
use contract::limits;
use serde::Serialize;

use super::{OperatorError, Place, audit as calls, pause, qubesd, shown};
use crate::{audit, error::chain, scope_file::read_granted};

/// How many calls are shown.
const LAST: usize = 5;

/// Show what is in force: version, pause, agents, daemons, qubesd, audit log, and the last calls.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Shown {
    version: &'static str,
    paused_since: Option<String>,
    agents: Vec<Agent>,
    /// Why the operator's file grants nothing.
    scope_error: Option<String>,
    daemon_listens: bool,
    tcp_policy_listens: bool,
    qubes: Option<usize>,
    audit_lines: u64,
    audit_hash: Option<String>,
    last_calls: Vec<audit::Stored>,
}

#[derive(Debug, Serialize)]
struct Agent {
    name: String,
    qubes: usize,
    tags: usize,
    ended: usize,
}

/// Runs the command: done when agents can be served, or nothing but a pause keeps them from it.
pub(crate) fn run(asked: &Status, place: &Place) -> Result<ExitCode, OperatorError> {
    let status = collect(place)?;
    let works = status.scope_error.is_none() && status.daemon_listens && status.qubes.is_some();
    if asked.json {
        shown::show_json(&status)?;
    } else {
        shown::show_text(&text(&status))?;
        let rows = &status.last_calls;
        let headings = ["time", "agent", "service", "qube", "outcome", "took", "what"];
        if !rows.is_empty() {
            shown::show_rows(false, &headings, rows, calls::cells)?;
        }
    }
    Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn collect(place: &Place) -> Result<Shown, OperatorError> {
    let paths = &place.paths;
    let scope = read_granted(paths, place.trusted);
    let host = place.host();
    let list = call::vm::list(Destination::Dom0);
    let qubes = qubesd::wait_for(host.qubesd.call(list, limits::QUBESD))?;
    let head = audit::read_head(&audit::places(paths));
    Ok(Shown {
        version: env!("CARGO_PKG_VERSION"),
        paused_since: pause::read(place).map(|paused| paused.since),
        agents: scope.as_ref().map(agents).unwrap_or_default(),
        scope_error: scope.as_ref().err().map(|error| chain(error)),
        daemon_listens: listens(&paths.qrexec_socket()),
        tcp_policy_listens: listens(&paths.tcp_policy_socket()),
        qubes: qubes.ok().map(|qubes| qubes.len()),
        audit_lines: head.map_or(0, |head| head.count),
        audit_hash: head.map(|head| head.hash.to_string()),
        last_calls: calls::last(place, LAST).map_err(calls::AuditError::Read)?,
    })
}

fn agents(scope: &policy::Scope) -> Vec<Agent> {
    let now = SystemTime::now();
    let of_block = |block: &policy::Block| {
        let mut agent = Agent { name: block.agent().to_string(), qubes: 0, tags: 0, ended: 0 };
        for grant in block.grants() {
            match &grant.target {
                _ if grant.has_ended(now) => agent.ended += 1,
                policy::Target::Qube(_) => agent.qubes += 1,
                policy::Target::Tag(_) => agent.tags += 1,
            }
        }
        agent
    };
    scope.blocks().iter().map(of_block).collect()
}

fn text(status: &Shown) -> String {
    let listens = |listens| if listens { "listens" } else { "DOES NOT LISTEN" };
    let mut text = format!("saltbridged {}\n", status.version);
    let mut line = |name: &str, value: String| text += &format!("{name:<12} {value}\n");
    line(
        "paused",
        status.paused_since.as_ref().map_or_else(|| "no".into(), |at| format!("SINCE {at}")),
    );
    for Agent { name, qubes, tags, ended } in &status.agents {
        line("agent", format!("{name}: {qubes} qubes, {tags} tags, {ended} ended"));
    }
    if let Some(error) = &status.scope_error {
        line("scope", format!("GRANTS NOTHING: {error}"));
    }
    line("daemon", listens(status.daemon_listens).into());
    line("tcp-policy", listens(status.tcp_policy_listens).into());
    let qubes = status.qubes.map(|qubes| format!("knows {qubes} qubes"));
    line("qubesd", qubes.unwrap_or_else(|| "DOES NOT ANSWER".into()));
    let hash = status.audit_hash.as_deref().unwrap_or("no head");
    line("audit", format!("{} lines, {hash}", status.audit_lines));
    text
}

/// Whether a socket takes connections, asked of the kernel: a connection that says nothing would
/// be a call of its own.
fn listens(socket: &Path) -> bool {
    const LISTENING: &str = "00010000";
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    // Units name sockets below /run, which /var/run is a link to.
    let path = socket.to_string_lossy();
    sockets.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        fields.nth(3) == Some(LISTENING) && fields.nth(3) == Some(&path)
    })
}
