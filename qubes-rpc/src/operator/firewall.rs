//! `firewall`: the rule sets that were in force before each change, and the way back to one.

use std::{fs, io, path::Path, process::ExitCode};

use admin_api::{
    Destination, QubeName, call,
    firewall::Rule,
    firewall_xml::{self, FirewallXmlError},
};
use clap::Subcommand;
use contract::limits;
use policy::Until;
use serde::Serialize;

use super::{OperatorError, Place, qubesd, shown};
use crate::{
    error::Error,
    firewall::in_force,
    terminal::printable,
    times::{seconds_since_1970, time_of},
};

/// What to do with firewalls.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the rule sets that were in force before each change of a qube's firewall.
    History {
        /// The qube.
        #[arg(value_parser = name)]
        qube: QubeName,
        /// Print JSON, with the rules.
        #[arg(long)]
        json: bool,
    },
    /// Put a rule set back, after showing what would change.
    Restore {
        /// The qube.
        #[arg(value_parser = name)]
        qube: QubeName,
        /// The rule set, as history shows it.
        id: String,
        /// Apply it; without this the difference is shown and nothing is changed.
        #[arg(long)]
        yes: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

fn name(text: &str) -> Result<QubeName, String> {
    text.parse().map_err(|_| "not the name of a qube".to_owned())
}

/// Why a firewall command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirewallError {
    /// The kept rule sets cannot be read or written.
    #[error("cannot use the kept rule sets")]
    Kept(#[source] io::Error),
    /// The rules in force cannot be kept, and so are not replaced.
    #[error("cannot keep the rules that are in force, and so does not replace them")]
    Keep(#[source] Error),
    /// There is none of this name.
    #[error("no rule set {id} is kept of {qube}; `saltbridged firewall history {qube}` lists them")]
    NoSuchSet {
        /// The qube.
        qube: QubeName,
        /// What was asked for.
        id: String,
    },
    /// The rule set is damaged.
    #[error("the kept rule set cannot be read")]
    Xml(#[source] FirewallXmlError),
    /// qubesd did not do as asked.
    #[error("qubesd")]
    Qubesd(#[source] admin_api::Error),
    /// What is in force is not what was asked for.
    #[error("somebody else changed the firewall meanwhile; look at it again")]
    Changed,
}

/// A rule set that is kept.
#[derive(Debug, Serialize)]
struct Kept {
    id: String,
    time: String,
    call: String,
    /// How the rules read as qubesd writes them.
    rules: Vec<String>,
}

/// Runs one command.
pub(crate) fn run(command: Command, place: &Place) -> Result<ExitCode, OperatorError> {
    match command {
        Command::History { qube, json } => {
            let folder = place.paths.firewall_history().join(qube.as_str());
            let kept = history(&folder)?;
            shown::show_rows(json, &["id", "until", "call", "rules"], &kept, |kept| {
                let rules = kept.rules.len().to_string();
                vec![kept.id.clone(), kept.time.clone(), kept.call.clone(), rules]
            })?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Restore { qube, id, yes, json } => restore(place, &qube, &id, yes, json),
    }
}

fn history(folder: &Path) -> Result<Vec<Kept>, OperatorError> {
    let mut kept = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
        entries => entries.map_err(FirewallError::Kept)?,
    };
    for entry in entries {
        let name = entry.map_err(FirewallError::Kept)?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".xml")) else { continue };
        let (seconds, call) = id.split_once('-').unwrap_or((id, ""));
        let time = seconds
            .parse()
            .ok()
            .and_then(time_of)
            .map_or_else(|| "-".into(), |at: Until| at.to_string());
        let rules = read(&folder.join(&name))?;
        let rules = rules.iter().map(Rule::render_line).map(|line| printable(&line)).collect();
        kept.push(Kept { id: printable(id), time, call: printable(call), rules });
    }
    kept.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(kept)
}

fn read(path: &Path) -> Result<Vec<Rule>, FirewallError> {
    let text = fs::read_to_string(path).map_err(FirewallError::Kept)?;
    firewall_xml::parse(&text).map_err(FirewallError::Xml)
}

fn restore(
    place: &Place,
    qube: &QubeName,
    id: &str,
    yes: bool,
    json: bool,
) -> Result<ExitCode, OperatorError> {
    use FirewallError as E;
    let folder = place.paths.firewall_history().join(qube.as_str());
    // The name comes from the list, so that no path can be slipped in.
    let known = history(&folder)?.iter().any(|kept| kept.id == id);
    if !known {
        return Err(E::NoSuchSet { qube: qube.clone(), id: id.into() }.into());
    }
    let mut wanted = read(&folder.join(format!("{id}.xml")))?;
    let now = seconds_since_1970();
    wanted.retain(|rule| !rule.has_expired(now));
    let host = place.host();
    let to = || Destination::Qube(qube.clone());
    let get = || qubesd::wait_for(host.qubesd.call(call::firewall::get(to()), limits::QUBESD));
    let before = get()?.map_err(E::Qubesd)?;
    let (old, new): (Vec<_>, Vec<_>) = (in_force(&before).collect(), in_force(&wanted).collect());
    let lines = diff(&old, &new);
    if old != new && yes {
        qubesd::wait_for(host.keep_rules(qube, &before, "operator"))?.map_err(E::Keep)?;
        let set = call::firewall::set(to(), &wanted);
        qubesd::wait_for(host.qubesd.call(set, limits::QUBESD))?.map_err(E::Qubesd)?;
        let after = get()?.map_err(E::Qubesd)?;
        if !in_force(&after).eq(new.iter().cloned()) {
            return Err(E::Changed.into());
        }
    }
    let (same, applied) = (old == new, old != new && yes);
    if json {
        shown::show_json(&serde_json::json!({ "diff": lines, "same": same, "applied": applied }))?;
    } else {
        let told = match (same, applied) {
            (true, _) => "these rules are in force already",
            (false, true) => "restored",
            (false, false) => "nothing was changed; --yes applies this",
        };
        let lines: String = lines.iter().map(|line| line.clone() + "\n").collect();
        shown::show_text(&format!("{lines}{told}\n"))?;
    }
    Ok(if same || applied { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The rules of both sets in order: those that go with `-`, those that come with `+`, others with a
/// space, by the longest common subsequence.
fn diff(old: &[String], new: &[String]) -> Vec<String> {
    let mut lengths = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    let at = |lengths: &[Vec<usize>], i: usize, j: usize| {
        lengths.get(i).and_then(|row| row.get(j)).copied().unwrap_or_default()
    };
    for (i, gone) in old.iter().enumerate().rev() {
        for (j, come) in new.iter().enumerate().rev() {
            let length = if gone == come {
                at(&lengths, i + 1, j + 1) + 1
            } else {
                at(&lengths, i + 1, j).max(at(&lengths, i, j + 1))
            };
            if let Some(cell) = lengths.get_mut(i).and_then(|row| row.get_mut(j)) {
                *cell = length;
            }
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    loop {
        let line = match (old.get(i), new.get(j)) {
            (Some(gone), Some(come)) if gone == come => {
                i += 1;
                j += 1;
                format!("  {gone}")
            }
            (Some(gone), come)
                if come.is_none() || at(&lengths, i + 1, j) >= at(&lengths, i, j + 1) =>
            {
                i += 1;
                format!("- {gone}")
            }
            (_, Some(come)) => {
                j += 1;
                format!("+ {come}")
            }
            (Some(_) | None, None) => return lines,
        };
        lines.push(printable(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split_ascii_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_difference_keeps_the_order_of_both() {
        assert_eq!(diff(&lines("a b c"), &lines("a c d")), ["  a", "- b", "  c", "+ d"]);
        assert_eq!(diff(&lines("a"), &lines("b")), ["- a", "+ b"]);
        assert_eq!(diff(&lines(""), &lines("")), Vec::<String>::new());
        assert_eq!(diff(&lines("a"), &lines("")), ["- a"]);
    }
}
