//! How a plan is shown: a line for each step, and with `--dry-run` what each file becomes.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    plan::{Plan, SCOPE, Step},
    state::{Goal, State, sha256},
};

/// A step for a program.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    step: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

/// What was done or would be, for a program.
#[derive(Debug, Serialize)]
pub(super) struct Outcome<'a> {
    /// Whether anything was changed.
    pub(super) changed: bool,
    /// Whether this was a question only.
    pub(super) dry_run: bool,
    steps: Vec<Shown<'a>>,
    notes: &'a [String],
}

impl<'a> Outcome<'a> {
    /// The outcome of a plan.
    pub(super) fn of(plan: &'a Plan, dry_run: bool) -> Self {
        let steps = plan.folders.iter().chain(&plan.steps).map(Shown::of).collect();
        Self { changed: !dry_run && !plan.is_empty(), dry_run, steps, notes: &plan.notes }
    }
}

impl<'a> Shown<'a> {
    fn of(step: &'a Step) -> Self {
        let shown = Self { step: step.describe(), path: None, sha256: None, text: None };
        match step {
            Step::System(_) | Step::Created(_) => shown,
            Step::Path { path, goal: Goal::File { content, .. }, .. } => Self {
                path: Some(path),
                sha256: Some(sha256(content)),
                text: readable(content),
                ..shown
            },
            Step::Path { path, .. } => Self { path: Some(path), ..shown },
        }
    }
}

/// The plan for a person: with `whole` every file, without it the list of qubes alone.
pub(super) fn render_plan(plan: &Plan, whole: bool) -> String {
    let mut text = String::new();
    for note in &plan.notes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "Note: {note}");
    }
    for step in plan.folders.iter().chain(&plan.steps) {
        let _ = writeln!(text, "* {}", step.describe());
        if let Step::Path { path, before, goal } = step
            && (whole || path == SCOPE)
        {
            text.push_str(&render_change(before, goal));
        }
    }
    text
}

/// What a file loses and gains.
fn render_change(before: &State, goal: &Goal) -> String {
    let old = match before {
        State::File { content, .. } => content.as_slice(),
        State::Absent | State::Link { .. } | State::Folder { .. } => &[],
    };
    let new = match goal {
        Goal::File { content, .. } => content.as_slice(),
        Goal::Absent | Goal::Link { .. } | Goal::Folder => &[],
    };
    match (readable(old), readable(new)) {
        (Some(old), Some(new)) => render_lines(old, new),
        (None | Some(_), _) => {
            let sum = |bytes: &[u8]| format!("{} bytes, SHA-256 {}", bytes.len(), sha256(bytes));
            let lost = if old.is_empty() { String::new() } else { format!("  - {}\n", sum(old)) };
            lost + &format!("  + {}\n", sum(new))
        }
    }
}

/// Texts are shown; programs, and scripts that hold one, are not.
fn readable(content: &[u8]) -> Option<&str> {
    const MOST: usize = 256 * 1024;
    if content.len() > MOST || content.contains(&0) { None } else { str::from_utf8(content).ok() }
}

/// The lines that differ, without those that both have at the beginning and at the end.
fn render_lines(old: &str, new: &str) -> String {
    let (mut old, mut new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    drop((old.drain(..same), new.drain(..same)));
    let same = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    old.truncate(old.len() - same);
    new.truncate(new.len() - same);
    let mut text = String::new();
    for (sign, lines) in [('-', old), ('+', new)] {
        for line in lines {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {sign} {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_between_the_common_ones_are_shown() {
        assert_eq!(render_lines("a\nb\nc\n", "a\nx\ny\nc\n"), "  - b\n  + x\n  + y\n");
        assert_eq!(render_lines("", "a\n"), "  + a\n");
        assert_eq!(render_lines("a\na\n", "a\n"), "  - a\n");
        assert_eq!(render_lines("a\n", "a\n"), "");
    }
}
