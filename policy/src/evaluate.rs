//! What qrexec decides, from its policy files: for `explain`, the simulated host and tests.
//!
//! Follows the parser of qubes-core-qrexec 4.4. Left out: calls that a relay makes for a RemoteVM.

mod load;
mod rule;
mod system;
mod token;

use std::collections::BTreeSet;

pub use load::{PolicyError, PolicyFiles, PolicyProblem};
pub use rule::{Place, RuleError};
pub use system::{System, SystemQube};
pub use token::Column;

use rule::{Action, Options, Rule};
use system::{ADMIN_VM, DOM0, is_dom0};
use token::{DISPVM_OF, Token, default_template};

/// The rules of all files, in order. The first that matches a call decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The service, without its argument.
    pub service: &'a str,
    /// The argument with its `+`; only `+` when there is none.
    pub argument: &'a str,
    /// The calling qube's name.
    pub source: &'a str,
    /// What the caller named: a qube, `uuid:…`, a keyword, or nothing.
    pub target: &'a str,
}

impl<'a> Request<'a> {
    /// A call of `SERVICE`, `SERVICE+` or `SERVICE+ARGUMENT`.
    pub fn of(call: &'a str, source: &'a str, target: &'a str) -> Self {
        let end = call.find('+').unwrap_or(call.len());
        let (service, argument) = call.split_at_checked(end).unwrap_or((call, ""));
        Self { service, argument: if argument.is_empty() { "+" } else { argument }, source, target }
    }
}

/// A decision, and the line that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// What happens with the call.
    pub decision: Decision,
    /// The line that matched; none when no line did.
    pub place: Option<Place>,
}

/// What happens with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes to the target. qrexec still refuses it when target and source are one.
    Allow {
        /// The qube's name or `uuid:…` as it was asked for, `dom0`, or `@dispvm:NAME`.
        target: String,
        /// The user to run as; none for the target's default.
        user: Option<String>,
        /// Whether a halted target is started.
        autostart: bool,
        /// Whether the operator is told.
        notify: bool,
    },
    /// The operator is asked, on the screen of the source's [`SystemQube::guivm`].
    Ask {
        /// What the operator may choose, in the order of the names.
        targets: Vec<String>,
        /// What is chosen already.
        default_target: Option<String>,
        /// The user to run as; none for the target's default.
        user: Option<String>,
        /// Whether a halted target is started.
        autostart: bool,
        /// Whether the operator is told.
        notify: bool,
    },
    /// It is refused.
    Deny {
        /// Why.
        reason: Denial,
        /// Whether the operator is told.
        notify: bool,
    },
}

/// Why qrexec refuses a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// The line says so.
    #[error("denied by the line")]
    Rule,
    /// No line matches.
    #[error("no line matches")]
    NoRule,
    /// What the caller named cannot be a target.
    #[error("what was called cannot be a target")]
    NotATarget,
    /// A disposable of a qube that is no disposable template.
    #[error("not a disposable template")]
    NotADisposableTemplate,
    /// The line allows, but neither caller nor line names a qube that exists.
    #[error("allowed, but no target exists")]
    NoTarget,
    /// The line allows a disposable, but the source has no disposable template.
    #[error("allowed, but the source has no disposable template")]
    NoDisposableTemplate,
    /// The line allows running targets only.
    #[error("allowed, but the target does not run and may not be started")]
    NeedsAutostart,
    /// The line asks, but nothing is there to choose.
    #[error("to be asked, but there is no target to choose")]
    NothingToChoose,
}

impl Policy {
    /// Reads all files.
    ///
    /// # Errors
    /// The first fault; qrexec then refuses every call.
    pub fn parse(files: &PolicyFiles) -> Result<Self, PolicyError> {
        load::load(files).map(|rules| Self { rules })
    }

    /// Decides one call.
    pub fn evaluate(&self, request: &Request<'_>, system: &System) -> Evaluation {
        let named = if request.target.is_empty() { "@default" } else { request.target };
        let Some(target) = Token::parse(named, Column::Intended) else {
            return refused(Denial::NotATarget, true, None);
        };
        let Some(target) = target.verified(system) else {
            return refused(Denial::NotADisposableTemplate, true, None);
        };
        let matching = |rule: &&Rule| {
            rule.matches_but_target(request, system)
                && rule.target.matches_target(&target, request.source, system)
        };
        let Some(rule) = self.rules.iter().find(matching) else {
            return refused(Denial::NoRule, true, None);
        };
        match &rule.action {
            Action::Deny { notify } => refused(Denial::Rule, *notify, Some(rule)),
            Action::Allow(options) => allow(rule, options, target, request, system),
            Action::Ask { options, default_target } => {
                self.ask(rule, options, default_target.as_ref(), request, system)
            }
        }
    }

    fn ask(
        &self,
        rule: &Rule,
        options: &Options,
        default_target: Option<&Token>,
        request: &Request<'_>,
        system: &System,
    ) -> Evaluation {
        let mut targets: Vec<String> = match &options.target {
            Some(target) if is_dom0(&target.text()) => vec![DOM0.into()],
            Some(target) => vec![target.text()],
            None => self.targets_to_ask(request, system).into_iter().collect(),
        };
        if !options.autostart {
            targets.retain(|target| needs_no_start(target, system));
        }
        if targets.is_empty() {
            return refused(Denial::NothingToChoose, true, Some(rule));
        }
        let default_target = default_target
            .and_then(|target| match target.text() {
                _ if *target == Token::DispVm => dispvm_of_default(request.source, system),
                text if is_dom0(&text) => Some(DOM0.into()),
                text => Some(text),
            })
            .filter(|target| targets.contains(target));
        Evaluation {
            decision: Decision::Ask {
                targets,
                default_target,
                user: options.user.clone(),
                autostart: options.autostart,
                notify: options.notify,
            },
            place: Some(rule.place.clone()),
        }
    }

    /// All that lines for this call allow or ask about and no earlier line denies.
    fn targets_to_ask(&self, request: &Request<'_>, system: &System) -> BTreeSet<String> {
        let mut targets = BTreeSet::new();
        let about = self.rules.iter().rev().filter(|rule| rule.matches_but_target(request, system));
        for rule in about {
            let expansion = rule.action.redirect().unwrap_or(&rule.target).expand(system);
            match rule.action {
                Action::Deny { .. } => targets.retain(|target| !expansion.contains(target)),
                Action::Allow(_) | Action::Ask { .. } => targets.extend(expansion),
            }
        }
        if targets.remove("@dispvm") {
            targets.extend(dispvm_of_default(request.source, system));
        }
        if targets.remove(ADMIN_VM) {
            targets.insert(DOM0.into());
        }
        targets.retain(|target| {
            let name = target.strip_prefix(DISPVM_OF).unwrap_or(target);
            let internal = system.get(name).is_some_and(|(_, qube)| qube.internal);
            !internal && !system.same(target, request.source)
        });
        targets
    }
}

impl Rule {
    fn matches_but_target(&self, request: &Request<'_>, system: &System) -> bool {
        self.service.as_ref().is_none_or(|service| service == request.service)
            && self.argument.as_ref().is_none_or(|argument| argument == request.argument)
            && self.source.matches_source(request.source, system)
    }
}

fn allow(
    rule: &Rule,
    options: &Options,
    target: Token,
    request: &Request<'_>,
    system: &System,
) -> Evaluation {
    let target = options.target.clone().unwrap_or(target);
    let Some(target) = target.verified(system) else {
        return refused(Denial::NotADisposableTemplate, true, Some(rule));
    };
    if target == Token::Default {
        return refused(Denial::NoTarget, true, Some(rule));
    }
    let target = match (target == Token::DispVm, target.text()) {
        (true, _) => match dispvm_of_default(request.source, system) {
            Some(target) => target,
            None => return refused(Denial::NoDisposableTemplate, true, Some(rule)),
        },
        // A UUID of zeros stays as it is, as with qrexec.
        (false, text) if text == ADMIN_VM => DOM0.into(),
        (false, text) => text,
    };
    if !options.autostart && !needs_no_start(&target, system) {
        return refused(Denial::NeedsAutostart, options.notify, Some(rule));
    }
    Evaluation {
        decision: Decision::Allow {
            target,
            user: options.user.clone(),
            autostart: options.autostart,
            notify: options.notify,
        },
        place: Some(rule.place.clone()),
    }
}

fn refused(reason: Denial, notify: bool, rule: Option<&Rule>) -> Evaluation {
    Evaluation {
        decision: Decision::Deny { reason, notify },
        place: rule.map(|rule| rule.place.clone()),
    }
}

fn dispvm_of_default(source: &str, system: &System) -> Option<String> {
    default_template(source, system).map(|template| format!("{DISPVM_OF}{template}"))
}

/// Whether the target runs already, as dom0 always does and a new disposable never.
fn needs_no_start(target: &str, system: &System) -> bool {
    is_dom0(target) || system.get(target).is_some_and(|(_, qube)| qube.running)
}

/// Reads whatever it is given as a policy and asserts that deciding by it neither panics nor
/// allows what no line of it allows.
pub fn fuzz_policy(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let files = PolicyFiles::from_iter([("30-fuzz.policy", text)]);
    let Ok(policy) = Policy::parse(&files) else { return };
    let system = System::from_iter([
        ("dom0", SystemQube { class: "AdminVM".into(), running: true, ..SystemQube::default() }),
        ("work", SystemQube { class: "AppVM".into(), ..SystemQube::default() }),
    ]);
    for target in ["", "dom0", "work", "@dispvm", "@dispvm:work", "uuid:x", text] {
        let request = Request::of("s.Exec+a", "work", target);
        let evaluation = policy.evaluate(&request, &system);
        let denied = matches!(evaluation.decision, Decision::Deny { .. });
        assert!(denied || text.contains("allow") || text.contains("ask"), "allowed from nothing");
    }
}
