//! Decides calls with the policy that is installed: those that are granted, and some that are not.

use std::time::SystemTime;

use admin_api::{QubeName, Tag};
use contract::{Aim, SERVICE_PREFIX};
use policy::{
    Block, Consent, Powers, Scope, ServiceLine, Target,
    evaluate::{Decision, Denial, Evaluation, Policy, Request, System, SystemQube},
};

use super::report::Report;
use crate::{paths::Paths, services};

const AREA: &str = "calls";
const DOM0: &str = "dom0";
/// A qube that stands for every one with a tag, where there is none. No name of a real one.
const TAGGED: &str = "any.tagged";
/// How many qubes outside the scope are tried.
const STRANGERS: usize = 8;
/// How many wrong decisions are told one by one.
const TOLD: usize = 10;
/// Calls to the qubes themselves or to qubesd that would pass by Salt Bridge.
const BYPASSES: [&str; 8] = [
    "qubes.VMShell",
    "qubes.VMExec+true",
    "qubes.VMRootShell",
    "qubes.Filecopy",
    "admin.vm.Start",
    "admin.vm.Kill",
    "admin.vm.property.Set+netvm",
    "admin.vm.firewall.Set",
];

/// Decides all of it.
pub(super) fn inspect(
    policy: &Policy,
    scope: &Scope,
    system: &System,
    paths: &Paths,
    report: &mut Report,
) {
    let mut calls = Calls {
        policy,
        system: system.clone(),
        file: paths.services_policy().file_name().map(|n| n.to_string_lossy().into_owned()),
        now: SystemTime::now(),
        granted: 0,
        forbidden: 0,
        wrong: Vec::new(),
    };
    calls.add_examples(scope);
    for block in scope.blocks() {
        calls.try_grants(block);
        calls.try_forbidden(block, scope);
    }
    calls.try_foreign_callers(scope);
    calls.tell(report);
    for block in scope.blocks() {
        calls.tell_bypasses(block, report);
    }
}

struct Calls<'a> {
    policy: &'a Policy,
    system: System,
    /// The name of our policy file.
    file: Option<String>,
    now: SystemTime,
    granted: usize,
    forbidden: usize,
    wrong: Vec<(String, String)>,
}

/// A service as qrexec knows it, with an argument.
fn called(service: &ServiceLine<'_>, argument: &str) -> String {
    format!("{SERVICE_PREFIX}{}+{argument}", service.name)
}

/// The line that decided.
fn place(evaluation: &Evaluation) -> String {
    evaluation.place.as_ref().map_or_else(|| "no line".into(), ToString::to_string)
}

impl Calls<'_> {
    /// Adds qubes that are granted but not there, so that their lines are tried as well.
    fn add_examples(&mut self, scope: &Scope) {
        let qube = |tags: Vec<String>| SystemQube {
            class: "AppVM".into(),
            tags,
            running: true,
            guivm: Some(DOM0.into()),
            ..SystemQube::default()
        };
        for block in scope.blocks() {
            let listed = block.grants().iter().filter_map(|grant| match &grant.target {
                Target::Qube(name) => Some(name),
                Target::Tag(_) => None,
            });
            for name in listed.chain([block.agent()]) {
                if self.system.get(name.as_str()).is_none() {
                    self.system.insert(name.as_str(), qube(Vec::new()));
                }
            }
            for tag in tags(block) {
                self.system.insert(format!("{TAGGED}.{tag}"), qube(vec![tag.to_string()]));
            }
        }
    }

    fn decide(&self, call: &str, source: &str, target: &str) -> Evaluation {
        self.policy.evaluate(&Request::of(call, source, target), &self.system)
    }

    /// Every call that the block grants now has to reach dom0.
    fn try_grants(&mut self, block: &Block) {
        let agent = block.agent().as_str();
        for service in services::lines() {
            let running = || block.grants().iter().filter(|grant| !grant.has_ended(self.now));
            let mut wanted: Vec<(String, String, Consent)> = Vec::new();
            match service.aim {
                Aim::Scope => {
                    let consent = running().filter_map(|g| g.powers.consent(service.power)).min();
                    wanted.extend(consent.map(|how| (called(&service, ""), DOM0.into(), how)));
                }
                Aim::Qube => {
                    for grant in running() {
                        let Some(how) = grant.powers.consent(service.power) else { continue };
                        wanted.push(match &grant.target {
                            Target::Qube(name) => {
                                (called(&service, name.as_str()), DOM0.into(), how)
                            }
                            Target::Tag(tag) => {
                                (called(&service, ""), format!("{TAGGED}.{tag}"), how)
                            }
                        });
                    }
                }
            }
            for (call, target, how) in wanted {
                self.expect_granted(&call, agent, &target, how);
            }
        }
    }

    fn expect_granted(&mut self, call: &str, agent: &str, target: &str, how: Consent) {
        self.granted += 1;
        let evaluation = self.decide(call, agent, target);
        let reaches = match (&evaluation.decision, how) {
            (Decision::Allow { target, .. }, Consent::Standing) => target == DOM0,
            (Decision::Ask { targets, .. }, Consent::Ask) => targets == &[DOM0.to_owned()],
            (Decision::Allow { .. } | Decision::Ask { .. } | Decision::Deny { .. }, _) => false,
        };
        if !reaches {
            let word = word(&evaluation.decision);
            self.wrong.push((
                format!("{call} from {agent} to {target} is granted, but qrexec {word} it"),
                format!("decided by {}; a line of another file comes first", place(&evaluation)),
            ));
        }
    }

    /// A sample of what the block does not grant has to be denied, and by our own file, since
    /// without that a later file could allow it.
    fn try_forbidden(&mut self, block: &Block, scope: &Scope) {
        let agent = block.agent().as_str();
        let listed = |name: &str| QubeName::parse(name).is_ok_and(|n| block.listed(&n).is_some());
        let strangers: Vec<String> = (self.system.iter())
            .filter(|(name, _)| *name != agent && *name != DOM0 && !listed(name))
            .filter(|(_, qube)| !tags(block).any(|tag| carries(qube, tag)))
            .map(|(name, _)| name.to_owned())
            .take(STRANGERS)
            .chain(["no-such-qube".to_owned()])
            .collect();
        for service in services::lines() {
            if service.aim == Aim::Scope {
                if self.scope_wide(block, &service).is_none() {
                    self.expect_denied(&called(&service, ""), agent, DOM0);
                }
                continue;
            }
            for name in [DOM0, "@adminvm", agent].into_iter().chain(strangers.iter().map(|n| &**n))
            {
                self.expect_denied(&called(&service, name), agent, DOM0);
                self.expect_denied(&called(&service, ""), agent, name);
            }
            for grant in block.grants() {
                let Target::Qube(name) = &grant.target else { continue };
                // A listed qube is named by the argument alone.
                self.expect_denied(&called(&service, ""), agent, name.as_str());
                let holds = grant.powers.consent(service.power).is_some();
                if !holds || grant.has_ended(self.now) {
                    self.expect_denied(&called(&service, name.as_str()), agent, DOM0);
                }
            }
        }
        let others = scope.agents().filter(|other| other.as_str() != agent);
        for other in others.map(ToString::to_string).collect::<Vec<_>>() {
            for grant in block.grants() {
                let Target::Qube(name) = &grant.target else { continue };
                let theirs = QubeName::parse(&other).ok().and_then(|name| scope.block(&name));
                self.try_other_agent(&other, theirs, name, &grant.powers);
            }
        }
    }

    /// What one agent was granted is nothing to another.
    fn try_other_agent(
        &mut self,
        other: &str,
        theirs: Option<&Block>,
        name: &QubeName,
        powers: &Powers,
    ) {
        let granted = theirs.and_then(|block| block.listed(name)).map(|grant| &grant.powers);
        for service in services::lines().iter().filter(|service| service.aim == Aim::Qube) {
            let held = granted.is_some_and(|theirs| theirs.consent(service.power).is_some());
            if powers.consent(service.power).is_some() && !held {
                self.expect_denied(&called(service, name.as_str()), other, DOM0);
            }
        }
    }

    /// Nobody but agents may call.
    fn try_foreign_callers(&mut self, scope: &Scope) {
        let callers: Vec<String> = (self.system.iter())
            .map(|(name, _)| name.to_owned())
            .filter(|name| name != DOM0 && !scope.agents().any(|agent| agent.as_str() == name))
            .take(STRANGERS)
            .collect();
        let targets: Vec<String> = (scope.blocks().iter())
            .flat_map(|block| block.grants())
            .filter_map(|grant| match &grant.target {
                Target::Qube(name) => Some(name.to_string()),
                Target::Tag(_) => None,
            })
            .take(STRANGERS)
            .collect();
        for caller in &callers {
            for service in services::lines() {
                self.expect_denied(&called(&service, ""), caller, DOM0);
                for target in targets.iter().filter(|_| service.aim == Aim::Qube) {
                    self.expect_denied(&called(&service, target), caller, DOM0);
                }
            }
        }
    }

    fn scope_wide(&self, block: &Block, service: &ServiceLine<'_>) -> Option<Consent> {
        let running = block.grants().iter().filter(|grant| !grant.has_ended(self.now));
        running.filter_map(|grant| grant.powers.consent(service.power)).min()
    }

    fn expect_denied(&mut self, call: &str, source: &str, target: &str) {
        self.forbidden += 1;
        let evaluation = self.decide(call, source, target);
        let by_us = evaluation
            .place
            .as_ref()
            .is_some_and(|place| place.file.rsplit('/').next() == self.file.as_deref());
        match &evaluation.decision {
            Decision::Deny { reason: Denial::Rule, .. } if by_us => {}
            // Such a target exists nowhere in qrexec, whatever the lines say.
            Decision::Deny { reason: Denial::NotATarget, .. } => {}
            Decision::Deny { reason: Denial::NoRule, .. } => self.wrong.push((
                format!("{call} from {source} to {target} is denied by no line"),
                "a broader line in a later file would allow it; run: saltbridged scope refresh"
                    .into(),
            )),
            Decision::Deny { .. } => {}
            Decision::Allow { .. } | Decision::Ask { .. } => self.wrong.push((
                format!(
                    "{call} from {source} to {target} is not granted, but qrexec {} it",
                    word(&evaluation.decision)
                ),
                format!("remove or narrow {}", place(&evaluation)),
            )),
        }
    }

    fn tell(&self, report: &mut Report) {
        let Self { granted, forbidden, wrong, .. } = self;
        for (what, mend) in wrong.iter().take(TOLD) {
            report.wrong(AREA, what, mend);
        }
        match wrong.len() {
            0 => report.good(
                AREA,
                format!("qrexec's policy admits all {granted} calls that are granted and denies {forbidden} that are not"),
            ),
            all if all > TOLD => {
                report.wrong(AREA, format!("{} more of the same kind", all - TOLD), "");
            }
            _ => {}
        }
    }

    /// What the agent may do without Salt Bridge, by the operator's other lines.
    fn tell_bypasses(&self, block: &Block, report: &mut Report) {
        let agent = block.agent().as_str();
        let targets = self.system.iter().map(|(name, _)| name);
        let targets: Vec<&str> = targets
            .filter(|name| *name != agent && !name.starts_with(TAGGED))
            .take(4 * STRANGERS)
            .collect();
        for call in BYPASSES {
            let open = targets.iter().filter_map(|target| {
                let evaluation = self.decide(call, agent, target);
                let allowed = matches!(evaluation.decision, Decision::Allow { .. });
                allowed.then(|| (*target, place(&evaluation)))
            });
            let open: Vec<(&str, String)> = open.collect();
            if let Some((target, place)) = open.first() {
                let others = match open.len() - 1 {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                report.note(
                    AREA,
                    format!("{agent} may call {call} on {target}{others}, past Salt Bridge"),
                    format!("{place} allows it; remove the line if that is not meant"),
                );
            }
        }
    }
}

fn tags(block: &Block) -> impl Iterator<Item = &Tag> {
    block.grants().iter().filter_map(|grant| match &grant.target {
        Target::Tag(tag) => Some(tag),
        Target::Qube(_) => None,
    })
}

fn carries(qube: &SystemQube, tag: &Tag) -> bool {
    qube.tags.iter().any(|carried| carried == tag.as_str())
}

const fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Allow { .. } => "allows",
        Decision::Ask { .. } => "asks about",
        Decision::Deny { .. } => "denies",
    }
}
