//! How calls are shown: those that the daemon wrote down, and those that policy denied.

use serde::Serialize;

use super::denials::Denial;
use crate::{
    audit::{Entry, Phase, Stored},
    operator::{OperatorError, shown},
    terminal::{escape_json, printable},
};

/// A line that is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Line {
    /// Of the audit log.
    Call(Stored),
    /// Of policy.
    Denial(Denial),
}

impl Line {
    /// When it was written, as RFC 3339 with milliseconds.
    pub(super) fn time(&self) -> &str {
        match self {
            Self::Call(call) => &call.time,
            Self::Denial(denial) => &denial.time,
        }
    }

    fn cells(&self) -> Vec<String> {
        match self {
            Self::Call(call) => cells(call),
            Self::Denial(denial) => entry_cells(&denial.time, &denial.entry),
        }
    }
}

/// Both in the order of time. Times compare as text, since all of them are written alike.
pub(super) fn merge(calls: Vec<Stored>, denials: Vec<Denial>) -> Vec<Line> {
    let calls = calls.into_iter().map(Line::Call);
    let mut lines: Vec<Line> = calls.chain(denials.into_iter().map(Line::Denial)).collect();
    lines.sort_by(|first, second| first.time().cmp(second.time()));
    lines
}

/// Shows one line.
pub(super) fn show_one(line: &Line, json: bool) -> Result<(), OperatorError> {
    if json {
        return show(std::slice::from_ref(line), json);
    }
    shown::show_text(&(line.cells().join("  ").trim_end().to_owned() + "\n"))
}

/// Shows lines as a table, or as objects, a line each.
pub(super) fn show(lines: &[Line], json: bool) -> Result<(), OperatorError> {
    if json {
        let mut text = String::new();
        for line in lines {
            text += &escape_json(&serde_json::to_string(line).unwrap_or_default());
            text.push('\n');
        }
        return shown::show_text(&text);
    }
    let headings = ["time", "agent", "service", "qube", "outcome", "took", "what"];
    shown::show_rows(false, &headings, lines, Line::cells)
}

/// A line as the cells of a table.
pub(crate) fn cells(line: &Stored) -> Vec<String> {
    entry_cells(&line.time, &line.entry)
}

fn entry_cells(time: &str, entry: &Entry) -> Vec<String> {
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
        time.to_owned(),
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
