//! `scope`: shows and changes what the agents may do.
//!
//! The operator's file decides, so it is written first, then the policy that follows from it: no
//! moment is wider than what was granted before or is granted after.

mod edit;

use std::{fs::File, io, process::ExitCode, time::SystemTime};

use admin_api::QubeName;
use clap::{Args, Subcommand};
use contract::Power;
use policy::{Grant, Powers, Scope, Target, TcpRule, Until, render_deny_all, render_policy};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use self::edit::Edit;
pub(crate) use self::edit::{EditError, deciding_line, shown_target};
use super::{OperatorError, Place, qubesd, shown, when::When};
use crate::{
    journal, pause,
    replace::replace_file,
    scope_file::{ScopeFileError, read_scope_text},
    services,
    tcp_policy::withdraw_ended,
};

/// What to do with the scope.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show every grant: agent, target, powers, end, and whether it has ended.
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
        agent: OneAgent,
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
        agent: OneAgent,
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
        agent: OneAgent,
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
        agent: OneAgent,
    },
    /// Set when a grant ends.
    Until {
        /// A qube, or @tag:TAG.
        #[arg(value_parser = target)]
        target: Target,
        /// As 2026-12-01T18:00:00Z, or from now on, as +90m, +8h or +7d, or never.
        time: When,
        #[command(flatten)]
        agent: OneAgent,
    },
    /// Write policy again from the scope, and remove what ended grants leave behind.
    Refresh,
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

/// Keeps two commands that change the same files apart, as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "its being open is the lock")] File);

impl Lock {
    /// Waits for other commands to end.
    pub(crate) fn take(place: &Place) -> io::Result<Self> {
        let folder = File::open(place.paths.root().join("etc/qubes"))?;
        flock(&folder, FlockOperation::LockExclusive)?;
        Ok(Self(folder))
    }
}

/// Runs one command.
pub(crate) fn run(command: Command, place: &Place) -> Result<ExitCode, OperatorError> {
    let now = SystemTime::now();
    let (agent, target, change, force) = match command {
        Command::Show { agent, json } => return show(place, agent.agent.as_ref(), json, now),
        Command::Refresh => return refresh(place, now),
        Command::Add { target, powers, until, agent, force } => {
            let until = until.and_then(|until| until.moment(now));
            (agent, target, Edit::Add(powers.unwrap_or_else(Powers::bare), until), force)
        }
        Command::Remove { target, agent } => (agent, target, Edit::Remove, false),
        Command::Grant { target, powers, agent } => (agent, target, Edit::Grant(powers), false),
        Command::Revoke { target, powers, agent } => {
            let powers: Vec<Power> = powers.iter().map(|(power, _)| power).collect();
            (agent, target, Edit::Revoke(powers), false)
        }
        Command::Until { target, time, agent } => {
            (agent, target, Edit::Until(time.moment(now)), false)
        }
    };
    change_file(place, agent.agent, &target, &change, force, now)?;
    Ok(ExitCode::SUCCESS)
}

fn change_file(
    place: &Place,
    agent: Option<QubeName>,
    target: &Target,
    change: &Edit,
    force: bool,
    now: SystemTime,
) -> Result<(), OperatorError> {
    use ScopeCommandError as E;
    let _lock = Lock::take(place).map_err(|error| E::Write("/etc/qubes", error))?;
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
    let withdrawn = follow(place, &after, now)?;
    let left = after.block(&agent).and_then(|block| {
        block.grants().iter().find(|grant| grant.target == *target).map(Grant::render)
    });
    let target = shown_target(target);
    let mut told = match left {
        Some(line) => format!("{agent}: {line}\n"),
        None => format!("{agent}: {target} is not granted any more\n"),
    };
    for rule in withdrawn {
        told += &format!("removed: {rule}\n");
    }
    shown::show_text(&told)
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

/// Lets policy follow the scope; the `qubes.ConnectTCP` rules that ended with a grant.
pub(crate) fn follow(
    place: &Place,
    scope: &Scope,
    now: SystemTime,
) -> Result<Vec<TcpRule>, OperatorError> {
    use ScopeCommandError as E;
    if place.paths.install_journal().exists() {
        return Err(E::Unfinished.into());
    }
    write_policy(place, scope, now).map_err(|error| E::Write("the policy file", error))?;
    match qubesd::wait_for(withdraw_ended(&place.host()))? {
        Ok(withdrawn) => Ok(withdrawn),
        Err(error) => {
            journal::say(&format!(
                "qubes.ConnectTCP rules could not be looked at; run `saltbridged scope refresh` \
                 later: {}",
                crate::error::chain(&error)
            ));
            Ok(Vec::new())
        }
    }
}

/// Writes the policy that the scope means now; the one that denies everything while paused.
pub(crate) fn write_policy(place: &Place, scope: &Scope, now: SystemTime) -> io::Result<()> {
    if !pause::is_paused(&place.paths) {
        return write_real_policy(place, scope, now);
    }
    let text = render_deny_all(&services::lines());
    replace_file(&place.paths.services_policy(), text.as_bytes(), 0o644)
}

/// Writes the policy that the scope means now, paused or not.
pub(crate) fn write_real_policy(place: &Place, scope: &Scope, now: SystemTime) -> io::Result<()> {
    let text = render_policy(scope, &services::lines(), now);
    replace_file(&place.paths.services_policy(), text.as_bytes(), 0o644)
}

fn refresh(place: &Place, now: SystemTime) -> Result<ExitCode, OperatorError> {
    use ScopeCommandError as E;
    let _lock = Lock::take(place).map_err(|error| E::Write("/etc/qubes", error))?;
    let (_, scope) = match read(place) {
        Ok(read) => read,
        Err(error) => {
            // The daemon refuses everything; policy need not wait for a call to do so.
            let text = render_deny_all(&services::lines());
            replace_file(&place.paths.services_policy(), text.as_bytes(), 0o644)
                .map_err(|error| E::Write("the policy file", error))?;
            return Err(error.into());
        }
    };
    for rule in follow(place, &scope, now)? {
        shown::show_text(&format!("removed: {rule}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line of the table.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    agent: String,
    target: String,
    powers: String,
    until: Option<String>,
    ended: bool,
}

/// Every grant of the scope.
pub(crate) fn rows(scope: &Scope, now: SystemTime) -> Vec<Row> {
    let of_block = |block: &policy::Block| {
        let agent = block.agent().to_string();
        let row = |grant: &Grant| Row {
            agent: agent.clone(),
            target: shown_target(&grant.target),
            powers: grant.powers.to_string(),
            until: grant.until.as_ref().map(Until::to_string),
            ended: grant.has_ended(now),
        };
        block.grants().iter().map(row).collect::<Vec<_>>()
    };
    scope.blocks().iter().flat_map(of_block).collect()
}

fn show(
    place: &Place,
    agent: Option<&QubeName>,
    json: bool,
    now: SystemTime,
) -> Result<ExitCode, OperatorError> {
    let (_, scope) = read(place)?;
    let mut rows = rows(&scope, now);
    rows.retain(|row| agent.is_none_or(|agent| row.agent == agent.as_str()));
    shown::show_rows(json, &["agent", "target", "powers", "until", "state"], &rows, |row| {
        let until = row.until.clone().unwrap_or_else(|| "-".into());
        let state = if row.ended { "ended" } else { "granted" };
        vec![row.agent.clone(), row.target.clone(), row.powers.clone(), until, state.into()]
    })?;
    Ok(ExitCode::SUCCESS)
}
