//! `scope`: shows and changes what the agents may do.
//!
//! The operator's file decides, so it is written first, then the policy that follows from it: no
//! moment is wider than what was granted before or is granted after.

mod edit;
mod follow;
mod table;

use std::{io, process::ExitCode, time::SystemTime};

use admin_api::QubeName;
use clap::{Args, Subcommand};
use contract::Power;
use policy::{Powers, Scope, Target};
use serde::Serialize;

use self::{
    edit::Edit,
    follow::{Followed, follow},
    table::{Row, rows, show},
};
pub(crate) use self::{
    edit::{EditError, deciding_line, shown_target},
    follow::{Lock, deny_all, write_real_policy},
};
use super::{OperatorError, Place, jobs, qubesd, shown, when::When};
use crate::{
    replace::replace_file,
    scope_file::{ScopeFileError, read_scope_text},
    terminal::printable,
};

/// What to do with the scope.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show every grant: agent, target, powers, end, and whether it has ended.
    #[command(visible_alias = "list")]
    Show {
        #[command(flatten)]
        agent: OneAgent,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Grant a qube, or every qube with a tag, that is not granted yet.
    Add {
        /// A qube, or @tag:TAG.
        #[arg(value_parser = target)]
        target: Target,
        /// The powers, as see,exec,files:ask; all but shape when left out.
        #[arg(value_parser = Powers::parse)]
        powers: Option<Powers>,
        /// When it ends, as 2026-12-01T18:00:00Z, or from now on, as +90m, +8h or +7d.
        #[arg(long, value_name = "TIME")]
        until: Option<When>,
        #[command(flatten)]
        to: To,
        /// Also when qubesd does not know the qube, or cannot be asked.
        #[arg(long)]
        force: bool,
    },
    /// Take a qube or a tag out of the scope.
    Remove {
        /// A qube, or @tag:TAG.
        #[arg(value_parser = target)]
        target: Target,
        #[command(flatten)]
        to: To,
    },
    /// Add powers to a grant. A power given as POWER:ask is asked for from now on.
    Grant {
        /// A qube, or @tag:TAG.
        #[arg(value_parser = target)]
        target: Target,
        /// The powers, as exec,files:ask.
        #[arg(value_parser = Powers::parse)]
        powers: Powers,
        #[command(flatten)]
        to: To,
    },
    /// Take powers from a grant; without any power left it is removed.
    Revoke {
        /// A qube, or @tag:TAG.
        #[arg(value_parser = target)]
        target: Target,
        /// The powers, as exec,root.
        #[arg(value_parser = Powers::parse)]
        powers: Powers,
        #[command(flatten)]
        to: To,
    },
    /// Set when a grant ends.
    Until {
        /// A qube, or @tag:TAG.
        #[arg(value_parser = target)]
        target: Target,
        /// As 2026-12-01T18:00:00Z, or from now on, as +90m, +8h or +7d, or never.
        time: When,
        #[command(flatten)]
        to: To,
    },
    /// Let policy and the timer follow the scope, and remove what ended grants leave behind.
    Refresh {
        /// Leave the jobs of ended grants to the daemon, as a unit does that may not read which
        /// there are.
        #[arg(long)]
        leave_jobs: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Whose scope changes, and how that is told.
#[derive(Debug, Args)]
pub(crate) struct To {
    #[command(flatten)]
    agent: OneAgent,
    /// Print JSON: what changed, and the scope after it.
    #[arg(long)]
    json: bool,
}

/// Whose scope it is.
#[derive(Debug, Args)]
pub(crate) struct OneAgent {
    /// The agent; may be left out where there is only one.
    #[arg(long, value_name = "QUBE", value_parser = name)]
    agent: Option<QubeName>,
}

fn name(text: &str) -> Result<QubeName, String> {
    text.parse().map_err(|_| "not the name of a qube".to_owned())
}

fn target(text: &str) -> Result<Target, String> {
    Target::parse(text).map_err(|error| error.to_string())
}

/// Why a scope command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScopeCommandError {
    /// The operator's file cannot be read.
    #[error("the operator's file grants nothing")]
    File(#[source] ScopeFileError),
    /// It has several agents.
    #[error("the operator's file has several agents; say which one with --agent: {0}")]
    WhichAgent(String),
    /// The change cannot be made.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// qubesd does not know the qube.
    #[error("there is no qube {0}; --force grants it all the same")]
    NoSuchQube(QubeName),
    /// qubesd cannot be asked.
    #[error("qubesd cannot be asked whether {0} exists; --force grants it all the same")]
    Unasked(QubeName, #[source] admin_api::Error),
    /// An installation was interrupted.
    #[error("an installation is unfinished; run `saltbridged recover` first")]
    Unfinished,
    /// A file cannot be written or locked.
    #[error("{0} cannot be written")]
    Write(&'static str, #[source] io::Error),
}

/// Runs one command.
pub(crate) fn run(command: Command, place: &Place) -> Result<ExitCode, OperatorError> {
    let now = SystemTime::now();
    let (to, target, edit, force) = match command {
        Command::Show { agent, json } => return show(place, agent.agent.as_ref(), json, now),
        Command::Refresh { leave_jobs, json } => {
            let place = Place { leaves_jobs: leave_jobs, ..place.clone() };
            return refresh(&place, json, now);
        }
        Command::Add { target, powers, until, to, force } => {
            let until = until.and_then(|until| until.moment(now));
            let powers = powers.unwrap_or_else(|| target.bare());
            (to, target, Edit::Add(powers, until), force)
        }
        Command::Remove { target, to } => (to, target, Edit::Remove, false),
        Command::Grant { target, powers, to } => (to, target, Edit::Grant(powers), false),
        Command::Revoke { target, powers, to } => {
            let powers: Vec<Power> = powers.iter().map(|(power, _)| power).collect();
            (to, target, Edit::Revoke(powers), false)
        }
        Command::Until { target, time, to } => (to, target, Edit::Until(time.moment(now)), false),
    };
    let changed = change_file(place, to.agent.agent, &target, &edit, force, now)?;
    if to.json {
        shown::show_json(&changed)?;
    } else {
        shown::show_text(&changed.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a command changed.
#[derive(Debug, Serialize)]
struct Changed {
    agent: String,
    target: String,
    before: Option<Row>,
    after: Option<Row>,
    #[serde(flatten)]
    followed: Followed,
    scope: Vec<Row>,
}

impl Changed {
    fn text(&self) -> String {
        let Self { agent, target, after, .. } = self;
        let mut told = match after {
            Some(row) => format!("{agent}: {}\n", row.line),
            None => format!("{agent}: {target} is not granted any more\n"),
        };
        told += &removed(&self.followed);
        told
    }
}

fn removed(followed: &Followed) -> String {
    let rules = followed.removed_rules.iter().map(|rule| format!("removed: {rule}\n"));
    rules
        .chain(followed.stopped_jobs.iter().map(|job| format!("stopped: {}\n", printable(job))))
        .collect()
}

fn change_file(
    place: &Place,
    agent: Option<QubeName>,
    target: &Target,
    change: &Edit,
    force: bool,
    now: SystemTime,
) -> Result<Changed, OperatorError> {
    use ScopeCommandError as E;
    let lock = Lock::take(place).map_err(|error| E::Write("/etc/qubes", error))?;
    let (text, before) = read(place)?;
    let agent = match agent {
        Some(agent) => agent,
        None => only_agent(&before)?,
    };
    let (text, after) = edit::edit(&text, &agent, target, change, now).map_err(E::Edit)?;
    if let (Edit::Add(..), false) = (change, force) {
        let is_new = before.block(&agent).is_none().then_some(&agent);
        let named = match target {
            Target::Qube(name) => Some(name),
            Target::Tag(_) => None,
        };
        for name in is_new.into_iter().chain(named) {
            must_exist(place, name)?;
        }
    }
    replace_file(&place.paths.scope(), text.as_bytes(), 0o644)
        .map_err(|error| E::Write("the operator's file", error))?;
    let followed = follow(place, &after, now)?.stop_jobs(place, lock)?;
    let row = |scope: &Scope| {
        let grant = scope.block(&agent)?.grants().iter().find(|grant| grant.target == *target)?;
        Some(Row::of(&agent, grant, now))
    };
    Ok(Changed {
        agent: agent.to_string(),
        target: shown_target(target),
        before: row(&before),
        after: row(&after),
        followed,
        scope: rows(&after, now),
    })
}

fn read(place: &Place) -> Result<(String, Scope), ScopeCommandError> {
    read_scope_text(&place.paths.scope(), place.trusted).map_err(ScopeCommandError::File)
}

fn only_agent(scope: &Scope) -> Result<QubeName, ScopeCommandError> {
    match scope.blocks() {
        [block] => Ok(block.agent().clone()),
        blocks => {
            let agents: Vec<String> = blocks.iter().map(|b| b.agent().to_string()).collect();
            Err(ScopeCommandError::WhichAgent(agents.join(", ")))
        }
    }
}

fn must_exist(place: &Place, name: &QubeName) -> Result<(), OperatorError> {
    let host = place.host();
    match qubesd::wait_for(host.find(name, false))? {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(ScopeCommandError::NoSuchQube(name.clone()).into()),
        Err(error) => Err(ScopeCommandError::Unasked(name.clone(), error).into()),
    }
}

/// Lets everything follow the scope as it is.
fn refresh(place: &Place, json: bool, now: SystemTime) -> Result<ExitCode, OperatorError> {
    use ScopeCommandError as E;
    let lock = Lock::take(place).map_err(|error| E::Write("/etc/qubes", error))?;
    let (_, scope) = match read(place) {
        Ok(read) => read,
        Err(error) => {
            // The daemon refuses everything; policy need not wait for a call to do so.
            deny_all(place).map_err(|error| E::Write("the policy file", error))?;
            drop(lock);
            jobs::stop_ended(place)?;
            return Err(error.into());
        }
    };
    let followed = follow(place, &scope, now)?.stop_jobs(place, lock)?;
    if json {
        shown::show_json(&Refreshed { followed, scope: rows(&scope, now) })?;
    } else {
        shown::show_text(&removed(&followed))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a refresh changed.
#[derive(Debug, Serialize)]
struct Refreshed {
    #[serde(flatten)]
    followed: Followed,
    scope: Vec<Row>,
}
