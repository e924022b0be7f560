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
        // qrexec fails, and so refuses, where it compares a template with one that is not there.
        let no_template =
            target == Token::DispVm && dispvm_of_default(request.source, system).is_none();
        let fails = |rule: &Rule| no_template && matches!(rule.target, Token::DispVmOf(_));
        let matching = |rule: &&Rule| {
            rule.matches_but_target(request, system)
                && (fails(rule) || rule.target.matches_target(&target, request.source, system))
        };
        let Some(rule) = self.rules.iter().find(matching) else {
            return refused(Denial::NoRule, true, None);
        };
        if fails(rule) {
            return refused(Denial::NoDisposableTemplate, true, Some(rule));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL: &str = "s.Exec+x";

    fn system() -> System {
        let qube = |class: &str, uuid: &str, tags: &[&str]| SystemQube {
            class: class.into(),
            uuid: uuid.into(),
            tags: tags.iter().map(|tag| (*tag).into()).collect(),
            default_dispvm: Some("dvm".into()),
            running: true,
            ..SystemQube::default()
        };
        System::from_iter([
            ("dom0", qube("AdminVM", "00000000-0000-0000-0000-000000000000", &[])),
            ("work", qube("AppVM", "w", &["red"])),
            ("dev", SystemQube { running: false, ..qube("AppVM", "d", &["red"]) }),
            ("inner", SystemQube { internal: true, ..qube("AppVM", "i", &["red"]) }),
            ("lone", SystemQube { default_dispvm: None, ..qube("AppVM", "l", &[]) }),
            ("dvm", SystemQube { template_for_dispvms: true, ..qube("AppVM", "t", &["blue"]) }),
        ])
    }

    fn decide_in(files: &[(&str, &str)], call: &str, source: &str, target: &str) -> Evaluation {
        let policy = Policy::parse(&files.iter().copied().collect()).unwrap();
        policy.evaluate(&Request::of(call, source, target), &system())
    }

    fn decide(text: &str, source: &str, target: &str) -> Evaluation {
        decide_in(&[("30-test.policy", text)], CALL, source, target)
    }

    /// The target that is reached, or why none is.
    fn reached(evaluation: &Evaluation) -> Result<&str, Denial> {
        match &evaluation.decision {
            Decision::Allow { target, .. } => Ok(target),
            Decision::Ask { .. } => Ok("asked"),
            Decision::Deny { reason, .. } => Err(*reason),
        }
    }

    fn choices(evaluation: Evaluation) -> Vec<String> {
        let Decision::Ask { targets, .. } = evaluation.decision else { panic!("{evaluation:?}") };
        targets
    }

    fn problem(files: &[(&str, &str)]) -> (String, PolicyProblem) {
        let error = Policy::parse(&files.iter().copied().collect()).unwrap_err();
        (error.place.to_string(), error.problem)
    }

    #[test]
    fn a_call_is_split_at_its_first_plus() {
        for (call, service, argument) in
            [("s.X", "s.X", "+"), ("s.X+", "s.X", "+"), ("s.X+a+b", "s.X", "+a+b")]
        {
            let request = Request::of(call, "work", "dom0");
            assert_eq!((request.service, request.argument), (service, argument));
        }
    }

    #[test]
    fn files_are_read_by_name_and_the_runtime_folder_hides_the_other() {
        let files = [
            ("50-b.policy", "* * @anyvm @anyvm allow"),
            ("30-a.policy", "* * work dev deny"),
            ("/run/qubes/policy.d/40-c.policy", "* * lone dev deny"),
            ("/run/qubes/policy.d/30-a.policy", "# hides the line below policy.d"),
            ("35-x.rpmnew", "not policy"),
            (".30-hidden.policy", "not policy"),
        ];
        assert_eq!(reached(&decide_in(&files, CALL, "work", "dev")), Ok("dev"));
        let denied = decide_in(&files, CALL, "lone", "dev");
        assert_eq!(denied.place.unwrap().to_string(), "/run/qubes/policy.d/40-c.policy:1");
    }

    #[test]
    fn what_is_included_counts_where_it_is_included_and_is_named_as_the_place() {
        let files = [
            ("30-a.policy", "!include include/one\n!include-dir more\n* * @anyvm @anyvm allow"),
            ("include/one", "# first\r\ns.Exec * work dev deny"),
            ("more/40-x.policy", "s.Exec * work lone deny"),
            ("more/ignored", "nonsense"),
        ];
        let place = |target| decide_in(&files, CALL, "work", target).place.unwrap().to_string();
        assert_eq!(place("dev"), "/etc/qubes/policy.d/include/one:2");
        assert_eq!(place("lone"), "/etc/qubes/policy.d/more/40-x.policy:1");
        assert_eq!(place("dvm"), "/etc/qubes/policy.d/30-a.policy:3");
    }

    #[test]
    fn a_file_for_one_service_is_read_in_the_older_form() {
        let files = [
            (
                "30-a.policy",
                "!include-service s.Exec * include/old\n!include-service s.Y +a include/old",
            ),
            ("include/old", "work $anyvm allow,target=dev\n$include:include/older"),
            ("include/older", "$anyvm $dispvm deny"),
        ];
        assert_eq!(reached(&decide_in(&files, CALL, "work", "lone")), Ok("dev"));
        assert_eq!(reached(&decide_in(&files, "s.Y+a", "work", "lone")), Ok("dev"));
        assert_eq!(reached(&decide_in(&files, "s.Y+b", "work", "lone")), Err(Denial::NoRule));
        assert_eq!(reached(&decide_in(&files, CALL, "lone", "@dispvm")), Err(Denial::Rule));
    }

    #[test]
    fn the_folder_of_the_older_form_denies_what_a_file_with_an_argument_leaves_open() {
        let files = [
            ("30-a.policy", "!compat-4.0\n* * * * allow"),
            ("/etc/qubes-rpc/policy/s.Exec", "work dev allow"),
            ("/etc/qubes-rpc/policy/s.Exec+x", "work lone allow"),
            ("/etc/qubes-rpc/policy/s.Exec+y.rpmsave", "nonsense"),
        ];
        let place = |call, target| {
            let evaluation = decide_in(&files, call, "work", target);
            (reached(&evaluation).is_ok(), evaluation.place.unwrap().to_string())
        };
        assert_eq!(place(CALL, "lone"), (true, "/etc/qubes-rpc/policy/s.Exec+x:1".into()));
        assert_eq!(place(CALL, "dev"), (false, "/etc/qubes-rpc/policy/s.Exec+x".into()));
        assert_eq!(place(CALL, "dom0"), (false, "/etc/qubes-rpc/policy/s.Exec+x".into()));
        assert_eq!(place("s.Exec+z", "dev"), (true, "/etc/qubes-rpc/policy/s.Exec:1".into()));
        assert_eq!(place("s.Exec+z", "lone"), (true, "/etc/qubes/policy.d/30-a.policy:2".into()));
    }

    #[test]
    fn one_fault_voids_the_policy_and_names_its_place() {
        use PolicyProblem as P;
        let at = |line: &str| problem(&[("30-a.policy", &format!("\n{line}"))]);
        for (line, expected) in [
            ("!include", P::DirectiveWords("!include".into())),
            ("!compat-4.0 x", P::DirectiveWords("!compat-4.0".into())),
            ("!includes x", P::UnknownDirective("!includes".into())),
            ("!include nope", P::Missing("/etc/qubes/policy.d/nope".into())),
            ("!include ../nope", P::Missing("/etc/qubes/nope".into())),
            ("!include-dir nope", P::Missing("/etc/qubes/policy.d/nope".into())),
            ("!include-service s+x * nope", P::Rule(RuleError::Service("s+x".into()))),
            ("s * work dev", P::Rule(RuleError::Fields)),
            ("s/t * work dev allow", P::Rule(RuleError::Service("s/t".into()))),
            ("s +a/b work dev allow", P::Rule(RuleError::Argument("+a/b".into()))),
            ("* + work dev allow", P::Rule(RuleError::ArgumentOfAnyService)),
            ("s * work dev Allow", P::Rule(RuleError::Action("Allow".into()))),
            ("s * work dev allow yes", P::Rule(RuleError::Parameter("yes".into()))),
            (
                "s * work dev allow user=a user=b",
                P::Rule(RuleError::RepeatedParameter("user".into())),
            ),
            (
                "s * work dev deny autostart=no",
                P::Rule(RuleError::ForeignParameter("autostart".into())),
            ),
            ("s * work dev ask notify=No", P::Rule(RuleError::YesNo("notify".into()))),
            ("s * work @default allow", P::Rule(RuleError::DefaultWithoutTarget)),
        ] {
            assert_eq!(at(line), ("/etc/qubes/policy.d/30-a.policy:2".into(), expected), "{line}");
        }
        let upper = [("30-Upper.policy", "")];
        assert_eq!(problem(&upper), ("/etc/qubes/policy.d/30-Upper.policy".into(), P::FileName));
    }

    #[test]
    fn what_is_wrong_in_a_file_of_the_older_form_is_found_there() {
        let within = |text: &str| {
            let top = ("30-a.policy", "!include-service s.Exec * include/old");
            let (place, problem) = problem(&[top, ("include/old", text)]);
            assert_eq!(place, "/etc/qubes/policy.d/include/old:1");
            problem
        };
        let unknown = PolicyProblem::UnknownDirective("!include-dir".into());
        assert_eq!(within("!include-dir x"), unknown);
        assert_eq!(within("work dev"), PolicyProblem::Rule(RuleError::Fields));
        let files = PolicyFiles::from_iter([("include/old", "text")]);
        assert_eq!(files.get("/etc/qubes/policy.d/include/old"), Some("text"));
        assert_eq!(files.get("old"), None);
    }

    #[test]
    fn an_allowed_disposable_of_what_is_no_template_is_refused() {
        let line = "s.Exec * work dev allow target=@dispvm:work";
        assert_eq!(reached(&decide(line, "work", "dev")), Err(Denial::NotADisposableTemplate));
    }

    #[test]
    fn a_word_stands_only_in_its_columns() {
        let good =
            |line: &str| Policy::parse(&PolicyFiles::from_iter([("a.policy", line)])).is_ok();
        for (word, source, target, redirect) in [
            ("*", true, true, false),
            ("@anyvm", true, true, false),
            ("@adminvm", true, true, true),
            ("@default", false, true, false),
            ("@dispvm", false, true, true),
            ("@dispvm:dvm", true, true, true),
            ("@dispvm:@tag:a", true, true, false),
            ("@type:AppVM", true, true, false),
            ("@tag:a", true, true, false),
            ("uuid:w", true, true, true),
            ("@tag:", false, false, false),
            ("@tag:@x", false, false, false),
            ("@dispvm:", false, false, false),
            ("@dispvm:@tag:", false, false, false),
            ("@nope", false, false, false),
        ] {
            assert_eq!(good(&format!("s * {word} work deny")), source, "{word}");
            assert_eq!(good(&format!("s * work {word} deny")), target, "{word}");
            assert_eq!(good(&format!("s * work work allow target={word}")), redirect, "{word}");
        }
    }

    #[test]
    fn files_that_include_one_another_are_refused_in_bounded_time() {
        let endless = [("30-a.policy", "!include b"), ("b", "!include b\n!include b")];
        assert_eq!(problem(&endless).1, PolicyProblem::TooManyFiles);
        let wide: Vec<(String, String)> = (0..20)
            .map(|n| (format!("f{n}"), format!("!include f{}\n", n + 1).repeat(2)))
            .chain([("f20".into(), String::new()), ("30-a.policy".into(), "!include f0".into())])
            .collect();
        let error = Policy::parse(&wide.into_iter().collect()).unwrap_err();
        assert_eq!(error.problem, PolicyProblem::TooManyFiles);
    }

    #[test]
    fn a_disposable_is_made_of_the_template_that_the_source_or_the_call_names() {
        let all = "* * * * allow";
        assert_eq!(reached(&decide(all, "work", "@dispvm")), Ok("@dispvm:dvm"));
        assert_eq!(reached(&decide(all, "work", "@dispvm:dvm")), Ok("@dispvm:dvm"));
        let not_one = decide(all, "work", "@dispvm:dev");
        assert_eq!(reached(&not_one), Err(Denial::NotADisposableTemplate));
        assert_eq!(reached(&decide(all, "lone", "@dispvm")), Err(Denial::NoDisposableTemplate));
        let by_tag = "* * * @dispvm:@tag:blue allow";
        assert_eq!(reached(&decide(by_tag, "work", "@dispvm")), Ok("@dispvm:dvm"));
        assert_eq!(reached(&decide(by_tag, "lone", "@dispvm")), Err(Denial::NoRule));
        let by_name = "* * * @dispvm:dvm deny\n* * * * allow";
        let broken = decide(by_name, "lone", "@dispvm");
        assert_eq!(reached(&broken), Err(Denial::NoDisposableTemplate));
        assert_eq!(reached(&decide("* * * dvm allow", "work", "@dispvm:dvm")), Err(Denial::NoRule));
    }

    #[test]
    fn without_autostart_only_what_runs_is_reached() {
        let running = "* * * * allow autostart=no";
        assert_eq!(reached(&decide(running, "work", "lone")), Ok("lone"));
        assert_eq!(reached(&decide(running, "work", "dom0")), Ok("dom0"));
        for target in ["dev", "@dispvm"] {
            assert_eq!(reached(&decide(running, "work", target)), Err(Denial::NeedsAutostart));
        }
        assert_eq!(choices(decide("* * * @tag:red ask autostart=no", "lone", "work")), ["work"]);
    }

    #[test]
    fn the_choice_leaves_out_the_source_internal_qubes_and_what_is_denied() {
        assert_eq!(choices(decide("* * * @tag:red ask", "work", "dev")), ["dev"]);
        let by_tag = "s.Exec * work @dispvm:@tag:blue ask\ns.Exec * work lone ask";
        assert_eq!(choices(decide(by_tag, "work", "lone")), ["@dispvm:dvm", "lone"]);
        let lines = "* * * dev deny\n* * * @anyvm ask";
        assert_eq!(choices(decide(lines, "work", "lone")), ["@dispvm:dvm", "dvm", "lone"]);
        let only_itself = decide("* * work @type:AppVM ask target=work", "work", "dev");
        assert_eq!(choices(only_itself), ["work"]);
        assert_eq!(
            reached(&decide("* * * work ask", "work", "work")),
            Err(Denial::NothingToChoose)
        );
        let unknown = decide("* * * * ask default_target=nope", "work", "dev").decision;
        assert!(matches!(unknown, Decision::Ask { default_target: None, .. }), "{unknown:?}");
    }

    #[test]
    fn what_cannot_be_a_target_is_refused_before_any_line() {
        for target in ["*", "@anyvm", "@tag:red", "@type:AppVM", "@nope", "@dispvm:"] {
            let refused = decide("* * * * allow", "work", target);
            assert_eq!((reached(&refused), &refused.place), (Err(Denial::NotATarget), &None));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_evaluator_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_policy(&input);
        }

        #[test]
        fn lines_of_likely_words_do_not_panic(words in prop::collection::vec(
            prop::sample::select(vec![
                "*", "s.Exec", "+", "+a", "work", "dom0", "@adminvm", "@anyvm", "@default", "@dispvm",
                "@dispvm:work", "@dispvm:@tag:x", "@tag:x", "@type:AppVM", "uuid:", "allow", "ask",
                "deny", "target=work", "default_target=@dispvm", "notify=no", "autostart=no", "\n",
                "* * * *", "!include", "30-fuzz.policy", "!compat-4.0", "#",
            ]), 0..24)) {
            fuzz_policy(words.join(" ").as_bytes());
        }
    }
}
