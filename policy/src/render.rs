//! The qrexec policy that a scope means, as text.

use std::{fmt::Write as _, time::SystemTime};

use admin_api::{QubeName, Tag};
use contract::{Aim, Power, SERVICE_PREFIX};

use crate::{
    compat::compat_lines,
    powers::{Consent, Powers},
    scope::{Block, Scope, Target},
    tier::{DUMP_TAG, SANDBOX_TAG, Tier},
};

const HEADER: &str = "\
# Made by Salt Bridge from the operator's list of agents and qubes; changes made here are lost.
# The list itself is read again at every call, so this file alone grants nothing.
";

/// One service, as far as policy is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLine<'a> {
    /// The name without [`SERVICE_PREFIX`], for example `VmExec`.
    pub name: &'a str,
    /// The power that a call needs.
    pub power: Power,
    /// What a call is aimed at.
    pub aim: Aim,
}

/// The file `30-salt-bridge.policy`: what the scope grants now, and a denial of everything else.
pub fn render_policy(scope: &Scope, services: &[ServiceLine<'_>], now: SystemTime) -> String {
    let mut text = HEADER.to_owned();
    for block in scope.blocks() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n# {}", block.agent());
        for line in block_lines(block, services, scope.rules().default_tier, now) {
            text.push_str(&line);
            text.push('\n');
        }
        for line in compat_lines(block, scope.rules(), now) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    push_denials(&mut text, services);
    text
}

/// The same file while nothing at all is granted: during installation and while paused.
pub fn render_deny_all(services: &[ServiceLine<'_>]) -> String {
    let mut text = HEADER.to_owned();
    push_denials(&mut text, services);
    text
}

/// Denies what no line above allows. `*` as a target is dom0 and keywords too, which `@anyvm` is
/// not; `notify=no` keeps an agent that probes from flooding the desktop.
fn push_denials(text: &mut String, services: &[ServiceLine<'_>]) {
    text.push_str("\n# Everything else\n");
    for service in services {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{SERVICE_PREFIX}{} * * * deny notify=no", service.name);
    }
}

fn block_lines(
    block: &Block,
    services: &[ServiceLine<'_>],
    default_tier: Tier,
    now: SystemTime,
) -> Vec<String> {
    let (mut listed, mut tags) = (Vec::new(), Vec::new());
    for grant in block.running(now) {
        match &grant.target {
            Target::Qube(name) => listed.push((name, &grant.powers)),
            Target::Tag(tag) => tags.push((tag, &grant.powers)),
        }
    }
    // Lines by tier deny as well, so what other tags grant comes before them.
    tags.sort_by_key(|(tag, _)| tag.as_str() == SANDBOX_TAG);
    let mut lines = scope_wide_lines(block, services, now);
    for (name, powers) in listed {
        lines.extend(listed_lines(block.agent(), name, powers, services));
    }
    let by_tag: Vec<ServiceLine<'_>> = services
        .iter()
        .filter(|service| service.aim == Aim::Qube)
        .filter(|service| tags.iter().any(|(_, powers)| powers.holds(service.power)))
        .copied()
        .collect();
    if !by_tag.is_empty() {
        lines.push("# No tag makes these a target".into());
        lines.extend(untaggable_lines(block, &by_tag));
        lines.push("# Tagged qubes are a target".into());
    }
    for (tag, powers) in tags {
        if tag.as_str() == SANDBOX_TAG {
            lines.extend(tier_lines(block.agent(), powers, default_tier, &by_tag));
        } else {
            lines.extend(tag_lines(block.agent(), tag, powers, &by_tag));
        }
    }
    lines
}

/// Services without a qube of their own: the argument is empty.
fn scope_wide_lines(block: &Block, services: &[ServiceLine<'_>], now: SystemTime) -> Vec<String> {
    services
        .iter()
        .filter(|service| service.aim == Aim::Scope)
        .filter_map(|service| {
            let action = action(block.scope_wide(service.power, now)?);
            Some(format!("{SERVICE_PREFIX}{} + {} @adminvm {action}", service.name, block.agent()))
        })
        .collect()
}

/// A listed qube is the argument of a call to dom0.
fn listed_lines(
    agent: &QubeName,
    target: &QubeName,
    powers: &Powers,
    services: &[ServiceLine<'_>],
) -> Vec<String> {
    services
        .iter()
        .filter(|service| service.aim == Aim::Qube)
        .filter_map(|service| {
            let action = action(powers.consent(service.power)?);
            Some(format!("{SERVICE_PREFIX}{} +{target} {agent} @adminvm {action}", service.name))
        })
        .collect()
}

/// A tagged qube is the target of a call without an argument. With any other argument than the
/// empty one, a call could name a listed qube there and slip past that qube's own lines.
fn tag_lines(
    agent: &QubeName,
    tag: &Tag,
    powers: &Powers,
    services: &[ServiceLine<'_>],
) -> Vec<String> {
    services
        .iter()
        .filter(|service| powers.holds(service.power))
        .map(|service| {
            format!("{SERVICE_PREFIX}{} + {agent} @tag:{tag} allow target=@adminvm", service.name)
        })
        .collect()
}

/// The qubes of the sandbox, by tier. Where no tag changes the answer one line says it. A line
/// for a tier's tag cannot ask for `ai-managed` as well: the daemon does.
fn tier_lines(
    agent: &QubeName,
    powers: &Powers,
    default_tier: Tier,
    services: &[ServiceLine<'_>],
) -> Vec<String> {
    let mut lines = Vec::new();
    for service in services.iter().filter(|service| powers.holds(service.power)) {
        let mut tags: Vec<(&str, bool)> = Tier::TAGGED
            .into_iter()
            .filter_map(|tier| Some((tier.tag()?, tier.gives(service.power))))
            .collect();
        let by_default = default_tier.gives(service.power);
        if by_default && tags.iter().all(|(_, gives)| *gives) {
            tags.clear();
        }
        tags.push((SANDBOX_TAG, by_default));
        // What nothing allowed follows is denied by the last lines of the file.
        while tags.last().is_some_and(|(_, gives)| !gives) {
            tags.pop();
        }
        lines.extend(tags.into_iter().map(|(tag, gives)| {
            let action = if gives { "allow target=@adminvm" } else { "deny notify=no" };
            format!("{SERVICE_PREFIX}{} + {agent} @tag:{tag} {action}", service.name)
        }));
    }
    lines
}

/// dom0, the agent, its listed qubes, ended ones too, and qubes that take nothing but copies are no
/// targets, whatever other tags they carry.
fn untaggable_lines(block: &Block, services: &[ServiceLine<'_>]) -> Vec<String> {
    let listed = block.grants().iter().filter_map(|grant| match &grant.target {
        Target::Qube(name) => Some(name.as_str()),
        Target::Tag(_) => None,
    });
    let dump = format!("@tag:{DUMP_TAG}");
    ["@adminvm", block.agent().as_str()]
        .into_iter()
        .chain(listed)
        .chain([dump.as_str()])
        .flat_map(|name| services.iter().map(move |service| (name, service)))
        .map(|(name, service)| {
            format!("{SERVICE_PREFIX}{} + {} {name} deny notify=no", service.name, block.agent())
        })
        .collect()
}

/// The prompt offers the targets that lines for this call allow, which is dom0 alone; naming it
/// as the default saves the operator from choosing it.
const fn action(consent: Consent) -> &'static str {
    match consent {
        Consent::Standing => "allow",
        Consent::Ask => "ask default_target=@adminvm",
    }
}
