//! `salt-bridge harden`: confines what serves remote clients in the agent qube. It shows its plan,
//! writes a receipt, and undoes from that.

mod apply;
mod plan;

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use serde_json::json;

use self::{
    apply::{Finding, Kept, find, undo, write},
    plan::{ITEMS, LIMITS},
};

/// What to do by hand after files have changed, where the qube runs.
const AFTER: &str = "\
Now, or by restarting the qube:
  sh /rw/config/rc.local.d/40-salt-bridge.rc
Keys of SSH clients go into /rw/bind-dirs/etc/ssh/salt-bridge_authorized_keys, tokens are given with
  runuser -u salt-bridge-mcp -- salt-bridge token --token-file /var/lib/salt-bridge-mcp/token add NAME
";

/// What `harden` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The root of the file system to harden
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Only report what is in place; fails unless all is
    #[arg(long, conflicts_with_all = ["undo", "yes"])]
    check: bool,
    /// Take everything back, as the receipt says
    #[arg(long)]
    undo: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HardenError {
    /// A file or folder.
    #[error("{}", .path.display())]
    Io {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to undo.
    #[error("there is no receipt at {}: nothing was hardened here", .0.display())]
    NoReceipt(PathBuf),
    /// The receipt is spoilt.
    #[error("the receipt at {} cannot be read", .path.display())]
    Receipt {
        /// It.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Nobody said yes.
    #[error("nothing was done: say yes, or use --yes")]
    Declined,
    /// The answer cannot be written.
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
}

/// Does it.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, HardenError> {
    let root = arguments.root.as_path();
    if arguments.undo {
        let kept = undo(root)?;
        say(&if arguments.json {
            json!({ "kept": kept }).to_string() + "\n"
        } else {
            told(&kept)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let findings: Vec<Finding> = ITEMS.iter().map(|item| find(*item, root)).collect();
    let missing = findings.iter().any(|finding| !finding.is_in_place());
    say(&if arguments.json { render_json(&findings) } else { render(&findings) })?;
    if arguments.check {
        return Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    if !missing {
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.yes && !is_wanted()? {
        return Err(HardenError::Declined);
    }
    write(root)?;
    if !arguments.json {
        say(AFTER)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn say(text: &str) -> Result<(), HardenError> {
    io::stdout().write_all(text.as_bytes()).map_err(HardenError::Output)
}

fn is_wanted() -> Result<bool, HardenError> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    say("Write this? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(HardenError::Output)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

fn render(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let Finding { item, state } = finding;
        format!("{:<9} /{} ({})\n", state.word(), item.path, item.why)
    };
    findings.iter().map(line).chain([format!("\n{LIMITS}\n")]).collect()
}

fn render_json(findings: &[Finding]) -> String {
    let row = |finding: &Finding| {
        let Finding { item, state } = finding;
        json!({"path": format!("/{}", item.path), "why": item.why, "state": state.word()})
    };
    let items: Vec<_> = findings.iter().map(row).collect();
    let passed = findings.iter().all(Finding::is_in_place);
    json!({"passed": passed, "items": items, "not_defended": LIMITS}).to_string() + "\n"
}

fn told(kept: &[Kept]) -> String {
    let line = |one: &Kept| format!("left as it is, because it was changed since: {}\n", one.path);
    kept.iter().map(line).chain(["undone\n".to_owned()]).collect()
}
