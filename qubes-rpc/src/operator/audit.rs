//! `audit`: what the agents asked for, and whether the log still says all of it.

use std::{
    fs::OpenOptions,
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt,
    process::ExitCode,
    thread::sleep,
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use policy::Until;

use super::{OperatorError, Place, shown, when::Past};
use crate::audit::{self, Phase, Stored, VerifyError};

/// The pause between two looks for new lines.
const LOOK: Duration = Duration::from_millis(300);

/// What to do with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the last calls.
    Tail {
        /// How many.
        #[arg(short = 'n', default_value_t = 20)]
        number: usize,
        /// Go on showing calls as they end, until interrupted.
        #[arg(short, long)]
        follow: bool,
        /// Print JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show the calls that match every filter.
    Show {
        #[command(flatten)]
        filter: Filter,
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
    /// Calls with this outcome, as ok, Refused or Failed.
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
    fn lets(&self, line: &Stored, since: Option<&str>, until: Option<&str>) -> bool {
        let is = |wanted: &Option<String>, text: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(text))
        };
        let service = self.service.as_ref().map(|service| {
            service.strip_prefix(contract::SERVICE_PREFIX).unwrap_or(service).to_owned()
        });
        is(&self.qube, &line.entry.qube)
            && is(&service, &line.entry.service)
            && is(&self.agent, &line.entry.agent)
            && is(&self.outcome, &line.entry.outcome)
            && since.is_none_or(|since| line.time.as_str() >= since)
            && until.is_none_or(|until| line.time.as_str() < until)
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
}

/// Runs one command.
pub(crate) fn run(command: Command, place: &Place) -> Result<ExitCode, OperatorError> {
    match command {
        Command::Tail { number, follow, json } => tail(place, number, follow, json)?,
        Command::Show { filter, json } => {
            let now = SystemTime::now();
            let moment = |past: Option<Past>| {
                past.and_then(|past| past.moment(now)).map(|at: Until| {
                    // The first millisecond of the second, as lines write it.
                    at.to_string().replace('Z', ".000Z")
                })
            };
            let (since, until) = (moment(filter.since), moment(filter.until));
            let mut lines = Vec::new();
            let take = |line: Stored| {
                if filter.lets(&line, since.as_deref(), until.as_deref()) {
                    lines.push(line);
                }
            };
            audit::read_all(&audit::places(&place.paths), take).map_err(AuditError::Read)?;
            show(&lines, json)?;
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

fn tail(place: &Place, number: usize, follow: bool, json: bool) -> Result<(), OperatorError> {
    let lines = last(place, number).map_err(AuditError::Read)?;
    show(&lines, json)?;
    if follow { follow_from(place, lines.last().map_or(0, |line| line.seq), json) } else { Ok(()) }
}

/// Shows lines behind this one as they are written, in whichever file that is.
fn follow_from(place: &Place, mut seen: u64, json: bool) -> Result<(), OperatorError> {
    let path = place.paths.audit_log();
    let mut open: Option<(u64, BufReader<std::fs::File>)> = None;
    let mut piece = Vec::new();
    loop {
        if let Some((_, reader)) = &mut open {
            while reader.read_until(b'\n', &mut piece).map_err(AuditError::Read)? > 0
                && piece.ends_with(b"\n")
            {
                if let Some(line) = Stored::parse(&piece).filter(|line| line.seq > seen) {
                    seen = line.seq;
                    show_one(&line, json)?;
                }
                piece.clear();
            }
        }
        // Another file may grow by now.
        let now = path.symlink_metadata().map(|status| status.ino()).ok();
        match now {
            Some(now) if open.as_ref().is_none_or(|(inode, _)| *inode != now) => {
                let file = audit::open_to_read(&path, OpenOptions::new().read(true));
                open = Some((now, BufReader::new(file.map_err(AuditError::Read)?)));
                piece.clear();
            }
            Some(_) | None => sleep(LOOK),
        }
    }
}

fn show_one(line: &Stored, json: bool) -> Result<(), OperatorError> {
    if json {
        return show(std::slice::from_ref(line), json);
    }
    let cells: Vec<String> = cells(line);
    shown::show_text(&(cells.join("  ").trim_end().to_owned() + "\n"))
}

fn show(lines: &[Stored], json: bool) -> Result<(), OperatorError> {
    if json {
        let mut text = String::new();
        for line in lines {
            text += &serde_json::to_string(line).unwrap_or_default();
            text.push('\n');
        }
        return shown::show_text(&text);
    }
    let headings = ["time", "agent", "service", "qube", "outcome", "took", "what"];
    shown::show_rows(false, &headings, lines, cells)
}

/// A line as the cells of a table.
pub(crate) fn cells(line: &Stored) -> Vec<String> {
    let entry = &line.entry;
    let outcome = match entry.phase {
        Phase::Intent => "begins".to_owned(),
        Phase::Done => entry.outcome.clone(),
        Phase::Dropped => format!("{} more refused", entry.dropped),
        Phase::HeadLost => "HEAD FILE LOST".to_owned(),
    };
    let took = entry.duration_ms.map(|time| format!("{time:.1} ms")).unwrap_or_default();
    let mut what: Vec<String> =
        entry.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !entry.detail.is_empty() {
        what.push(entry.detail.clone());
    }
    [
        line.time.clone(),
        entry.agent.clone(),
        entry.service.clone(),
        entry.qube.clone(),
        outcome,
        took,
        cut(&what.join(" ")),
    ]
    .map(|cell| printable(&cell))
    .into()
}

/// As much as fits beside the rest.
fn cut(text: &str) -> String {
    const CHARACTERS: usize = 100;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned() + "…",
        None => text.to_owned(),
    }
}

/// The text without what could move the cursor or turn the direction of writing: agents chose it.
pub(crate) fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Entry;

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
        let lets = |line: &Stored| filter.lets(line, Some(at), Some("2026-12-02T00:00:00.000Z"));
        assert!(lets(&line("work", "VmExec", "2026-12-01T18:00:00.000Z")));
        assert!(!lets(&line("work", "VmExec", "2026-12-01T17:59:59.999Z")));
        assert!(!lets(&line("work", "VmExec", "2026-12-02T00:00:00.000Z")));
        assert!(!lets(&line("dev", "VmExec", at)));
        assert!(!lets(&line("work", "VmList", at)));
    }

    #[test]
    fn what_an_agent_wrote_cannot_move_the_cursor() {
        assert_eq!(
            printable("a\u{1b}[2J\u{202e}\u{9b}b\n"),
            "a\u{fffd}[2J\u{fffd}\u{fffd}b\u{fffd}"
        );
        let mut odd = line("work", "VmExec", "t");
        odd.entry.args.insert("command".into(), "\u{202e}x".repeat(200).into());
        assert!(cells(&odd).iter().all(|cell| !cell.contains('\u{202e}')));
    }
}
