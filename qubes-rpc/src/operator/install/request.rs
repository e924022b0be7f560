//! What the operator asks for, held against the grammar and against qubesd before anything changes.

use admin_api::{
    Client, Destination, QubeName, Tag,
    call::{self, vm::ListedQube},
};
use contract::limits;
use policy::{Block, Grant, LineError, Powers, Target};

use crate::paths::Paths;

/// Why nothing is installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The list of targets contradicts itself.
    #[error("{target} cannot be granted to {agent}")]
    Grant {
        /// The agent.
        agent: QubeName,
        /// The target.
        target: String,
        /// Why not.
        #[source]
        source: LineError,
    },
    /// qubesd did not answer.
    #[error("cannot ask qubesd which qubes there are; run this in dom0, with qubesd running")]
    Qubesd(#[source] admin_api::Error),
    /// tokio did not start.
    #[error("cannot start")]
    Runtime(#[source] std::io::Error),
    /// Qubes that are named but not there.
    #[error("there is no qube named {}; nothing was changed", .0.join(", nor one named "))]
    Missing(Vec<String>),
}

/// Reads `NAME` or `NAME:POWERS`.
pub(crate) fn parse_target(word: &str) -> Result<Grant, LineError> {
    let (name, powers) = split(word)?;
    let name =
        QubeName::parse(name).map_err(|error| LineError::Name { word: name.into(), error })?;
    let target = Target::Qube(name);
    let powers = powers.unwrap_or_else(|| target.bare());
    Ok(Grant { target, powers, until: None })
}

/// Reads `TAG` or `TAG:POWERS`.
pub(crate) fn parse_tag(word: &str) -> Result<Grant, LineError> {
    let (tag, powers) = split(word)?;
    let tag = Tag::parse(tag).map_err(|error| LineError::Tag { word: tag.into(), error })?;
    let target = Target::Tag(tag);
    let powers = powers.unwrap_or_else(|| target.bare());
    Ok(Grant { target, powers, until: None })
}

fn split(word: &str) -> Result<(&str, Option<Powers>), LineError> {
    match word.split_once(':') {
        Some((name, powers)) => Ok((name, Some(Powers::parse(powers)?))),
        None => Ok((word, None)),
    }
}

/// The block of the operator's file that is asked for.
pub(crate) fn block(agent: &QubeName, grants: &[Grant]) -> Result<Block, RequestError> {
    let mut block = Block::new(agent.clone());
    for grant in grants {
        block.add_grant(grant.clone()).map_err(|source| RequestError::Grant {
            agent: agent.clone(),
            target: match &grant.target {
                Target::Qube(name) => name.to_string(),
                Target::Tag(tag) => format!("@tag:{tag}"),
            },
            source,
        })?;
    }
    Ok(block)
}

/// Holds the named qubes against those that are there. Gives what the operator should think about.
pub(crate) fn existing(block: &Block, paths: &Paths) -> Result<Vec<String>, RequestError> {
    let listed = list(paths)?;
    let named = || {
        std::iter::once(block.agent()).chain(block.grants().iter().filter_map(|grant| {
            match &grant.target {
                Target::Qube(name) => Some(name),
                Target::Tag(_) => None,
            }
        }))
    };
    let is_there = |name: &QubeName| listed.iter().any(|qube| qube.name == name.as_str());
    let missing: Vec<String> =
        named().filter(|name| !is_there(name)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        return Err(RequestError::Missing(missing));
    }
    let is_template = |name: &QubeName| {
        let is_it = |qube: &ListedQube| qube.name == name.as_str();
        listed.iter().any(|qube| is_it(qube) && qube.class.as_str() == "TemplateVM")
    };
    Ok(named()
        .filter(|name| *name != block.agent() && is_template(name))
        .map(|name| {
            format!("{name} is a template: what changes there reaches every qube built from it")
        })
        .collect())
}

fn list(paths: &Paths) -> Result<Vec<ListedQube>, RequestError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let client = Client::new(paths.qubesd());
    let call = client.call(call::vm::list(Destination::Dom0), limits::QUBESD);
    runtime.map_err(RequestError::Runtime)?.block_on(call).map_err(RequestError::Qubesd)
}
