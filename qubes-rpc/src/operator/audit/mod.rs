//! `audit`: what the agents asked for, and whether the log still says all of it.

mod denials;
mod policy_log;
mod table;

use std::{
    fs::OpenOptions,
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::ExitCode,
    thread::sleep,
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use policy::Until;

pub use self::denials::fuzz_denial;
pub(crate) use self::table::cells;
use self::{
    policy_log::{PolicyLog, PolicyLogError},
    table::{Line, merge, show, show_one},
};
use super::{OperatorError, Place, shown, when::Past};
use crate::audit::{self, Entry, Stored, VerifyError};

/// The pause between two looks for new lines.
const LOOK: Duration = Duration::from_millis(300);

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the last calls, those that qrexec's policy denied among them.
    Tail {
        /// How many.
        #[arg(short = 'n', default_value_t = 20)]
        number: usize,
        /// Go on showing calls as they end, until interrupted.
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        policy: PolicyLog,
        /// Print JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show the calls that match every filter, those that qrexec's policy denied among them.
    Show {
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        policy: PolicyLog,
        /// Print JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Find the first line that was changed, taken out or moved, and a cut end.
    Verify {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Which calls are shown.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Calls on this qube.
    #[arg(long)]
    qube: Option<String>,
    /// Calls of this service, as VmExec.
    #[arg(long)]
    service: Option<String>,
    /// Calls by this agent.
    #[arg(long)]
    agent: Option<String>,
    /// Calls with this outcome, as ok, Refused or Failed; Denied by policy.
    #[arg(long)]
    outcome: Option<String>,
    /// Calls from this time on, as 2026-12-01T18:00:00Z, or -90m, -8h, -7d.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<Past>,
    /// Calls before this time.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<Past>,
}

impl Filter {
    /// Whether a line is shown. Times compare as text, since all of them are written alike.
    fn lets(&self, time: &str, entry: &Entry, since: Option<&str>, until: Option<&str>) -> bool {
        let is = |wanted: &Option<String>, text: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(text))
        };
        let service = self.service.as_ref().map(|service| {
            service.strip_prefix(contract::SERVICE_PREFIX).unwrap_or(service).to_owned()
        });
        is(&self.qube, &entry.qube)
            && is(&service, &entry.service)
            && is(&self.agent, &entry.agent)
            && is(&self.outcome, &entry.outcome)
            && since.is_none_or(|since| time >= since)
            && until.is_none_or(|until| time < until)
    }
}

/// Why an audit command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// The log cannot be read.
    #[error("cannot read the audit log")]
    Read(#[source] io::Error),
    /// It does not hold, or cannot be read.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Policy's denials cannot be read where the operator said.
    #[error(transparent)]
    Policy(#[from] PolicyLogError),
}

/// Runs one command.
pub(crate) fn run(command: Command, place: &Place) -> Result<ExitCode, OperatorError> {
    match command {
        Command::Tail { number, follow, policy, json } => {
            tail(place, number, follow, &policy, json)?;
        }
        Command::Show { filter, policy, json } => {
            let now = SystemTime::now();
            let moment = |past: Option<Past>| {
                past.and_then(|past| past.moment(now)).map(|at: Until| {
                    // The first millisecond of the second, as lines write it.
                    at.to_string().replace('Z', ".000Z")
                })
            };
            let (since, until) = (moment(filter.since), moment(filter.until));
            let lets = |time: &str, entry: &Entry| {
                filter.lets(time, entry, since.as_deref(), until.as_deref())
            };
            let mut calls = Vec::new();
            let take = |line: Stored| {
                if lets(&line.time, &line.entry) {
                    calls.push(line);
                }
            };
            audit::read_all(&audit::places(&place.paths), take).map_err(AuditError::Read)?;
            let denials = policy
                .last(place, usize::MAX, |denial| lets(&denial.time, &denial.entry))
                .map_err(AuditError::Policy)?;
            show(&merge(calls, denials), json)?;
        }
        Command::Verify { json } => return verify(place, json),
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(place: &Place, json: bool) -> Result<ExitCode, OperatorError> {
    match audit::verify(&audit::places(&place.paths)) {
        Ok(whole) if json => shown::show_json(&serde_json::json!({ "whole": whole }))?,
        Ok(whole) if whole.lines == 0 => shown::show_text("nothing is logged yet\n")?,
        Ok(whole) => shown::show_text(&format!(
            "the audit log is whole: lines {} to {}, the last with hash {}\n",
            whole.first, whole.last, whole.hash
        ))?,
        Err(VerifyError::Broken(broken)) if json => {
            let told = broken.to_string();
            shown::show_json(&serde_json::json!({ "broken": broken, "message": told }))?;
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(AuditError::Verify(error).into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The last lines of the log.
pub(crate) fn last(place: &Place, number: usize) -> io::Result<Vec<Stored>> {
    let mut lines = std::collections::VecDeque::new();
    audit::read_all(&audit::places(&place.paths), |line| {
        lines.push_back(line);
        if lines.len() > number {
            lines.pop_front();
        }
    })?;
    Ok(lines.into())
}

fn tail(
    place: &Place,
    number: usize,
    follow: bool,
    policy: &PolicyLog,
    json: bool,
) -> Result<(), OperatorError> {
    // From before the look back, so that what comes in between is shown twice rather than never.
    let following = if follow { policy.follow(place) } else { None };
    let calls = last(place, number).map_err(AuditError::Read)?;
    let seen = calls.last().map_or(0, |line| line.seq);
    let denials = policy.last(place, number, |_| true).map_err(AuditError::Policy)?;
    let lines = merge(calls, denials);
    show(lines.get(lines.len().saturating_sub(number)..).unwrap_or_default(), json)?;
    if !follow {
        return Ok(());
    }
    let mut growing = Growing::of(place, seen);
    loop {
        growing.show(json)?;
        for denial in following.iter().flat_map(policy_log::Following::new_ones) {
            show_one(&Line::Denial(denial), json)?;
        }
        sleep(LOOK);
    }
}

/// The audit log as it grows, in whichever file that is.
struct Growing {
    path: PathBuf,
    seen: u64,
    open: Option<(u64, BufReader<std::fs::File>)>,
    piece: Vec<u8>,
}

impl Growing {
    fn of(place: &Place, seen: u64) -> Self {
        Self { path: place.paths.audit_log(), seen, open: None, piece: Vec::new() }
    }

    /// Shows the lines that were written since the last look.
    fn show(&mut self, json: bool) -> Result<(), OperatorError> {
        loop {
            if let Some((_, reader)) = &mut self.open {
                while reader.read_until(b'\n', &mut self.piece).map_err(AuditError::Read)? > 0
                    && self.piece.ends_with(b"\n")
                {
                    let line = Stored::parse(&self.piece).filter(|line| line.seq > self.seen);
                    self.piece.clear();
                    if let Some(line) = line {
                        self.seen = line.seq;
                        show_one(&Line::Call(line), json)?;
                    }
                }
            }
            // Another file may grow by now.
            let now = self.path.symlink_metadata().map(|status| status.ino()).ok();
            match now {
                Some(now) if self.open.as_ref().is_none_or(|(inode, _)| *inode != now) => {
                    let file = audit::open_to_read(&self.path, OpenOptions::new().read(true));
                    self.open = Some((now, BufReader::new(file.map_err(AuditError::Read)?)));
                    self.piece.clear();
                }
                Some(_) | None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(qube: &str, service: &str, time: &str) -> Stored {
        let entry = Entry {
            agent: "salt-bridge".into(),
            qube: qube.into(),
            service: service.into(),
            outcome: "ok".into(),
            ..Entry::default()
        };
        Stored { seq: 1, time: time.into(), entry }
    }

    #[test]
    fn filters_let_through_what_matches_all_of_them() {
        let filter = Filter {
            qube: Some("work".into()),
            service: Some("saltbridge.VmExec".into()),
            outcome: Some("OK".into()),
            ..Filter::default()
        };
        let at = "2026-12-01T18:00:00.000Z";
        let end = "2026-12-02T00:00:00.000Z";
        let lets = |line: &Stored| filter.lets(&line.time, &line.entry, Some(at), Some(end));
        assert!(lets(&line("work", "VmExec", "2026-12-01T18:00:00.000Z")));
        assert!(!lets(&line("work", "VmExec", "2026-12-01T17:59:59.999Z")));
        assert!(!lets(&line("work", "VmExec", "2026-12-02T00:00:00.000Z")));
        assert!(!lets(&line("dev", "VmExec", at)));
        assert!(!lets(&line("work", "VmList", at)));
    }

    #[test]
    fn what_an_agent_wrote_cannot_move_the_cursor() {
        let mut odd = line("work", "VmExec", "t");
        odd.entry.args.insert("command".into(), "\u{202e}x".repeat(200).into());
        assert!(cells(&odd).iter().all(|cell| !cell.contains('\u{202e}')));
    }
}
