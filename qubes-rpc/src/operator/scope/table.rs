//! The grants of the scope as they are shown.

use std::{process::ExitCode, time::SystemTime};

use admin_api::QubeName;
use policy::{Grant, Scope, Until};
use serde::Serialize;

use super::shown_target;
use crate::operator::{OperatorError, Place, shown};

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    agent: String,
    target: String,
    powers: String,
    until: Option<String>,
    ended: bool,
    /// As it stands in the file.
    #[serde(skip)]
    pub(super) line: String,
}

impl Row {
    /// A grant of this agent.
    pub(super) fn of(agent: &QubeName, grant: &Grant, now: SystemTime) -> Self {
        Self {
            agent: agent.to_string(),
            target: shown_target(&grant.target),
            powers: grant.powers.to_string(),
            until: grant.until.as_ref().map(Until::to_string),
            ended: grant.has_ended(now),
            line: grant.render(),
        }
    }
}

/// Every grant of the scope.
pub(super) fn rows(scope: &Scope, now: SystemTime) -> Vec<Row> {
    let of_block = |block: &policy::Block| {
        let rows = block.grants().iter().map(|grant| Row::of(block.agent(), grant, now));
        rows.collect::<Vec<_>>()
    };
    scope.blocks().iter().flat_map(of_block).collect()
}

/// Shows them, or those of one agent.
pub(super) fn show(
    place: &Place,
    agent: Option<&QubeName>,
    json: bool,
    now: SystemTime,
) -> Result<ExitCode, OperatorError> {
    let (_, scope) = super::read(place)?;
    let mut rows = rows(&scope, now);
    rows.retain(|row| agent.is_none_or(|agent| row.agent == agent.as_str()));
    shown::show_rows(json, &["agent", "target", "powers", "until", "state"], &rows, |row| {
        let until = row.until.clone().unwrap_or_else(|| "-".into());
        let state = if row.ended { "ended" } else { "granted" };
        vec![row.agent.clone(), row.target.clone(), row.powers.clone(), until, state.into()]
    })?;
    Ok(ExitCode::SUCCESS)
}
