//! Changes of the operator's file as text: one line changes, every other byte stays.

use std::time::SystemTime;

use admin_api::QubeName;
use contract::Power;
use policy::{Block, Consent, Grant, LineError, Powers, Scope, ScopeError, Target, Until};

/// What is to change about one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Let it be granted with these powers; it is not yet.
    Add(Powers, Option<Until>),
    /// Let it not be granted.
    Remove,
    /// Let these powers be held besides those that are, in this way.
    Grant(Powers),
    /// Let these powers not be held.
    Revoke(Vec<Power>),
    /// Let the grant end then, or not by itself.
    Until(Option<Until>),
}

/// Why the file is not changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EditError {
    /// The agent has no block.
    #[error("{0} is no agent of the operator's file")]
    NoAgent(QubeName),
    /// The target has a line already.
    #[error("{0} is granted already; use scope grant, revoke or until to change that")]
    Granted(String),
    /// The target has no line.
    #[error("{target} is not granted to {agent}; use scope add")]
    NotGranted {
        /// The agent.
        agent: QubeName,
        /// The target.
        target: String,
    },
    /// The end lies in the past.
    #[error("{0} has passed already")]
    Passed(Until),
    /// The line cannot stand in the file.
    #[error("this cannot be granted")]
    Line(#[source] LineError),
    /// The file as it would be cannot be read.
    #[error("the file would not be readable then")]
    Result(#[source] ScopeError),
    /// The change would have changed more than it should.
    #[error("the file cannot be changed line by line; edit it by hand")]
    Surprise,
}

/// The file's text after the change, and what it means.
pub(crate) fn edit(
    text: &str,
    agent: &QubeName,
    target: &Target,
    change: &Edit,
    now: SystemTime,
) -> Result<(String, Scope), EditError> {
    let before = Scope::parse(text).map_err(EditError::Result)?;
    let old = before
        .block(agent)
        .map(|block| block.grants().iter().find(|grant| grant.target == *target));
    let new = changed(agent, old, target, change, now)?;
    let wanted = expected(before.clone(), agent, target, new.clone())?;
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    match (old, &new) {
        (None, Some(grant)) => {
            end_line(&mut lines);
            lines.push(format!("@agent {agent}\n"));
            lines.push(grant.render() + "\n");
        }
        (Some(None), Some(grant)) => {
            let place = lines_of(&lines, agent).last().map_or(lines.len(), |place| place + 1);
            if place == lines.len() {
                end_line(&mut lines);
            }
            lines.insert(place, grant.render() + "\n");
        }
        (Some(Some(_)), new) => {
            let place = lines_of(&lines, agent).find(|place| is_of(lines.get(*place), target));
            let place = place.ok_or(EditError::Surprise)?;
            let line = lines.get(place).map(|line| {
                new.as_ref().map(|grant| with_statement(line, &grant.render())).unwrap_or_default()
            });
            lines.splice(place..=place, line);
        }
        (None | Some(None), None) => return Err(EditError::Surprise),
    }
    let text = lines.concat();
    let after = Scope::parse(&text).map_err(EditError::Result)?;
    if after != wanted {
        return Err(EditError::Surprise);
    }
    Ok((text, after))
}

/// The grant as it will be.
fn changed(
    agent: &QubeName,
    old: Option<Option<&Grant>>,
    target: &Target,
    change: &Edit,
    now: SystemTime,
) -> Result<Option<Grant>, EditError> {
    let shown = shown_target(target);
    let until = match change {
        Edit::Add(_, until) | Edit::Until(until) => *until,
        Edit::Remove | Edit::Grant(_) | Edit::Revoke(_) => None,
    };
    if let Some(until) = until.filter(|until| until.has_passed(now)) {
        return Err(EditError::Passed(until));
    }
    let standing = match (change, old) {
        (Edit::Add(powers, until), None | Some(None)) => {
            let (target, powers) = (target.clone(), powers.clone());
            return Ok(Some(Grant { target, powers, until: *until }));
        }
        (Edit::Add(..), Some(Some(_))) => return Err(EditError::Granted(shown)),
        (_, None) => return Err(EditError::NoAgent(agent.clone())),
        (_, Some(None)) => {
            return Err(EditError::NotGranted { agent: agent.clone(), target: shown });
        }
        (_, Some(Some(standing))) => standing.clone(),
    };
    let held = || standing.powers.iter();
    Ok(match change {
        Edit::Add(..) | Edit::Remove => None,
        Edit::Grant(more) => {
            let stay = held().filter(|(power, _)| more.consent(*power).is_none());
            let powers = collect(stay.chain(more.iter()));
            powers.map(|powers| Grant { powers, ..standing.clone() })
        }
        Edit::Revoke(less) => {
            let powers = collect(held().filter(|(power, _)| !less.contains(power)));
            powers.map(|powers| Grant { powers, ..standing.clone() })
        }
        Edit::Until(until) => Some(Grant { until: *until, ..standing }),
    })
}

fn collect(powers: impl Iterator<Item = (Power, Consent)>) -> Option<Powers> {
    let words: Vec<String> = powers
        .map(|(power, consent)| match consent {
            Consent::Standing => power.to_string(),
            Consent::Ask => format!("{power}:ask"),
        })
        .collect();
    // No word at all is no list of powers: nothing is held any more.
    Powers::parse(&words.join(",")).ok()
}

/// What the whole file has to mean after the change.
fn expected(
    before: Scope,
    agent: &QubeName,
    target: &Target,
    new: Option<Grant>,
) -> Result<Scope, EditError> {
    let mut block = Block::new(agent.clone());
    let mut new = new;
    for grant in before.block(agent).map(Block::grants).unwrap_or_default() {
        let stays = if grant.target == *target { new.take() } else { Some(grant.clone()) };
        if let Some(grant) = stays {
            block.add_grant(grant).map_err(EditError::Line)?;
        }
    }
    if let Some(grant) = new {
        block.add_grant(grant).map_err(EditError::Line)?;
    }
    let mut after = before;
    after.replace_block(block);
    Ok(after)
}

/// The words of a line before its comment.
fn statement(line: &str) -> Vec<&str> {
    line.split('#').next().unwrap_or_default().split_ascii_whitespace().collect()
}

/// The numbers of the lines with a statement in this agent's block, its first line among them.
fn lines_of(lines: &[String], agent: &QubeName) -> impl Iterator<Item = usize> {
    let mut within = false;
    let mut numbers = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        match statement(line).as_slice() {
            ["@agent", name] => within = *name == agent.as_str(),
            [] => continue,
            [_, ..] => {}
        }
        if within {
            numbers.push(number);
        }
    }
    numbers.into_iter()
}

fn is_of(line: Option<&String>, target: &Target) -> bool {
    let words = line.map(|line| statement(line)).unwrap_or_default();
    words.first().is_some_and(|word| Target::parse(word).as_ref() == Ok(target))
}

/// The line with another statement; its comment stays, and stays where it stood if there is room.
fn with_statement(line: &str, statement: &str) -> String {
    let end = line.trim_end_matches(['\r', '\n']).len();
    let (line, newline) = line.split_at_checked(end).unwrap_or((line, ""));
    let comment = line.find('#').and_then(|place| line.split_at_checked(place));
    match comment {
        Some((before, comment)) => {
            let width = before.chars().count().max(statement.chars().count() + 1);
            format!("{statement:width$}{comment}{newline}")
        }
        None => format!("{statement}{newline}"),
    }
}

fn end_line(lines: &mut [String]) {
    if let Some(last) = lines.last_mut().filter(|line| !line.ends_with('\n')) {
        last.push('\n');
    }
}

/// The number, from 1, of the line about this target in the agent's block, or else of the block's
/// first line.
pub(crate) fn deciding_line(
    text: &str,
    agent: &QubeName,
    target: Option<&QubeName>,
) -> Option<usize> {
    let lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let target = target.map(|name| Target::Qube(name.clone()));
    let listed = lines_of(&lines, agent)
        .find(|place| target.as_ref().is_some_and(|target| is_of(lines.get(*place), target)));
    listed.or_else(|| lines_of(&lines, agent).next()).map(|place| place + 1)
}

/// The target as it stands in the file.
pub(crate) fn shown_target(target: &Target) -> String {
    match target {
        Target::Qube(name) => name.to_string(),
        Target::Tag(tag) => format!("@tag:{tag}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "\
# what the agents may do
@agent salt-bridge   # the first
work                 # all but shape
  dev\tsee,exec
# about test

# about helper
@agent helper
work see
@tag:ai-managed see";

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn done(text: &str, agent: &str, target: &str, change: &Edit) -> Result<String, EditError> {
        let target = Target::parse(target).unwrap();
        edit(text, &agent.parse().unwrap(), &target, change, now()).map(|(text, _)| text)
    }

    fn powers(text: &str) -> Powers {
        Powers::parse(text).unwrap()
    }

    #[test]
    fn a_new_grant_stands_below_the_others_of_its_agent() {
        let add = Edit::Add(powers("see"), Until::parse("2030-01-01T00:00:00Z").ok());
        assert_eq!(
            done(FILE, "salt-bridge", "test", &add).unwrap(),
            FILE.replace("see,exec\n", "see,exec\ntest see until=2030-01-01T00:00:00Z\n")
        );
        let add = Edit::Add(Powers::bare(), None);
        assert_eq!(done(FILE, "helper", "test", &add).unwrap(), format!("{FILE}\ntest\n"));
        assert_eq!(
            done(FILE, "third", "test", &add).unwrap(),
            format!("{FILE}\n@agent third\ntest\n")
        );
        assert!(matches!(done(FILE, "helper", "work", &add), Err(EditError::Granted(_))));
        assert!(matches!(done(FILE, "helper", "helper", &add), Err(EditError::Line(_))));
    }

    #[test]
    fn a_changed_grant_keeps_its_comment_and_its_place() {
        let revoke = Edit::Revoke(vec![Power::Root, Power::Net]);
        assert_eq!(
            done(FILE, "salt-bridge", "work", &revoke).unwrap(),
            FILE.replace("work                 #", "work see,lifecycle,exec,files #")
        );
        let grant = Edit::Grant(powers("exec:ask,files"));
        assert_eq!(
            done(FILE, "salt-bridge", "dev", &grant).unwrap(),
            FILE.replace("  dev\tsee,exec", "dev see,exec:ask,files")
        );
        let until = Edit::Until(Until::parse("2030-01-01T00:00:00Z").ok());
        let ended = done(FILE, "helper", "@tag:ai-managed", &until).unwrap();
        assert!(ended.ends_with("\n@tag:ai-managed see until=2030-01-01T00:00:00Z"));
        let never = done(&ended, "helper", "@tag:ai-managed", &Edit::Until(None));
        assert_eq!(never.unwrap(), FILE);
    }

    #[test]
    fn a_removed_grant_takes_its_line_with_it_and_nothing_else() {
        let gone = FILE.replace("  dev\tsee,exec\n", "");
        assert_eq!(done(FILE, "salt-bridge", "dev", &Edit::Remove).unwrap(), gone);
        let all = Edit::Revoke(vec![Power::See, Power::Exec]);
        assert_eq!(done(FILE, "salt-bridge", "dev", &all).unwrap(), gone);
    }

    #[test]
    fn what_is_not_there_cannot_be_changed() {
        let see = || Edit::Grant(powers("see"));
        assert!(matches!(done(FILE, "helper", "dev", &see()), Err(EditError::NotGranted { .. })));
        assert!(matches!(done(FILE, "third", "dev", &see()), Err(EditError::NoAgent(_))));
        assert!(matches!(done("work\n", "third", "dev", &see()), Err(EditError::Result(_))));
        let past = Edit::Until(Until::parse("2001-01-01T00:00:00Z").ok());
        assert!(matches!(done(FILE, "helper", "work", &past), Err(EditError::Passed(_))));
    }

    proptest! {
        #[test]
        fn every_byte_outside_of_the_line_stays(lines in prop::collection::vec(
            prop::sample::select(vec!["\n", "# a\n", "  \n", "b\n", "c see # x\n", "@tag:t\r\n",
                "@agent y\n", "d see,exec   # @agent z\n"]), 0..12), agent in "[xy]",
            target in "[bcd]", which in 0..4) {
            let text = format!("@agent x\n{}", lines.concat());
            let change = match which {
                0 => Edit::Add(powers("see"), None),
                1 => Edit::Remove,
                2 => Edit::Grant(powers("files")),
                _ => Edit::Revoke(vec![Power::See]),
            };
            if let Ok(after) = done(&text, &agent, &target, &change) {
                let before: Vec<&str> = text.split_inclusive('\n').collect();
                let same = after.split_inclusive('\n').filter(|line| before.contains(line)).count();
                prop_assert!(same + 1 >= before.len(), "{text:?} became {after:?}");
                prop_assert!(after.matches("# ").count() + 1 >= text.matches("# ").count());
            }
        }
    }
}
