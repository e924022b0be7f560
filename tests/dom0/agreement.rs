//! For any operator's file, caller, service and qube: the rendered policy as it is evaluated, what the
//! daemon admits, and what `explain` says agree.

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, time::SystemTime};

    use contract::{Aim, Fault, SERVICE_PREFIX};
    use policy::{
        Scope,
        evaluate::{Decision, Policy, PolicyFiles, Request, System, SystemQube},
        render_policy,
    };
    use proptest::prelude::*;
    use qubes_rpc::{
        service::Entry,
        services::{SERVICES, lines},
    };
    use serde_json::{Value, json};

    use crate::support::{Answer, Dom0, QUBES, on_one_thread};

    /// Agents more often than others.
    const CALLERS: [&str; 5] = ["salt-bridge", "salt-bridge", "helper", "helper", "vault"];
    const TARGETS: [&str; 7] =
        ["work", "dev", "quiet", "vault", "ai-one", "salt-bridge", "no-such-qube"];

    /// A call: caller, service, qube, each as its place in its list.
    type Call = (usize, usize, usize);

    fn scopes() -> impl Strategy<Value = String> {
        let target = prop::sample::select(vec![
            "work",
            "dev",
            "quiet",
            "vault",
            "ai-one",
            "no-such-qube",
            "@tag:ai-managed",
            "@tag:created-by-dom0",
        ]);
        let powers = prop::sample::select(vec![
            "",
            "see",
            "see:ask",
            "see,exec,net",
            "lifecycle,files:ask,root",
            "net:ask,exec:ask",
            "shape,files",
        ]);
        let until = prop::sample::select(vec![
            "",
            "",
            "until=2199-01-01T00:00:00Z",
            "until=2020-01-01T00:00:00Z",
        ]);
        let block = || prop::collection::vec((target.clone(), powers.clone(), until.clone()), 0..5);
        (block(), block()).prop_filter_map("contradicts itself", |(first, second)| {
            let lines = |grants: Vec<(&str, &str, &str)>| -> String {
                grants.iter().map(|(t, p, u)| format!("{t} {p} {u}\n")).collect()
            };
            let text =
                format!("@agent salt-bridge\n{}@agent helper\n{}", lines(first), lines(second));
            Scope::parse(&text).ok().map(|_| text)
        })
    }

    fn calls() -> impl Strategy<Value = Vec<Call>> {
        let call = (0..CALLERS.len(), 0..SERVICES.len(), 0..TARGETS.len());
        prop::collection::vec(call, 6)
    }

    fn system() -> System {
        let dom0 = SystemQube { class: "AdminVM".into(), ..SystemQube::default() };
        let qube = |(name, class, uuid): &(&str, &str, &str)| {
            let tags = if name.starts_with("ai-") { "ai-managed" } else { "created-by-dom0" };
            let tags: BTreeSet<String> = [tags.to_owned()].into();
            let qube = SystemQube {
                class: (*class).into(),
                uuid: (*uuid).into(),
                tags: tags.into_iter().collect(),
                ..SystemQube::default()
            };
            ((*name).to_owned(), qube)
        };
        [("dom0".to_owned(), dom0)].into_iter().chain(QUBES.iter().map(qube)).collect()
    }

    /// The argument and the target with which an agent calls this service on this qube.
    fn aimed(entry: &Entry, scope: &Scope, caller: &str, qube: &str) -> (String, String) {
        let listed = scope
            .block(&caller.parse().unwrap())
            .is_some_and(|block| block.listed(&qube.parse().unwrap()).is_some());
        match entry.aim {
            Aim::Scope => (String::new(), "dom0".into()),
            Aim::Qube if listed => (qube.into(), "dom0".into()),
            Aim::Qube => (String::new(), qube.into()),
        }
    }

    async fn explained(dom0: &Dom0, caller: &str, service: &str, qube: &str) -> Value {
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_saltbridged"))
            .arg("--root")
            .arg(dom0.folder.path())
            .args(["explain", caller, service, qube, "--json"])
            .output()
            .await
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    async fn compare(dom0: &Dom0, policy: &Policy, scope: &Scope, call: Call) {
        let (caller, entry, qube) = (CALLERS[call.0], &SERVICES[call.1], TARGETS[call.2]);
        let (argument, target) = aimed(entry, scope, caller, qube);
        let what = format!("{caller} calls {} on {qube} under\n{}", entry.name, scope.render());

        let service = format!("{SERVICE_PREFIX}{}", entry.name);
        let request = Request {
            service: &service,
            argument: &format!("+{argument}"),
            source: caller,
            target: &target,
        };
        let (allows, asks) = match policy.evaluate(&request, &system()).decision {
            Decision::Allow { target, .. } => (target == "dom0", false),
            Decision::Ask { .. } => (true, true),
            Decision::Deny { .. } => (false, false),
        };

        // What is admitted is told that it takes no such parameter, and does nothing.
        let descriptor = format!("{service}+{argument} {caller} name {target}");
        let answer = dom0.framed(&descriptor, json!({"no-such-key": 1}), b"").await;
        let admitted = matches!(answer, Answer::Fault(Fault::BadRequest { .. }));
        assert!(admitted || answer == Answer::Fault(Fault::Refused {}), "{answer:?}: {what}");

        let told = explained(dom0, caller, entry.name, qube).await;
        assert_eq!(told["allowed"], json!(allows && admitted), "{told:#}\n{what}");
        assert_eq!(told["asks"], json!(asks), "{told:#}\n{what}");
        // Policy does not know which listed qubes exist; the daemon asks.
        if entry.aim == Aim::Scope || qube != "no-such-qube" {
            assert_eq!(admitted, allows, "{what}");
        } else {
            assert!(!admitted, "{what}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn policy_daemon_and_explain_agree_on_any_call(scope in scopes(), calls in calls()) {
            on_one_thread(async {
                let dom0 = Dom0::start(&scope);
                let scope = Scope::parse(&scope).unwrap();
                let text = render_policy(&scope, &lines(), SystemTime::now());
                fs::write(dom0.at("etc/qubes/policy.d/30-salt-bridge.policy"), &text).unwrap();
                let files = PolicyFiles::from_iter([("30-salt-bridge.policy", text)]);
                let policy = Policy::parse(&files).unwrap();
                for call in calls {
                    compare(&dom0, &policy, &scope, call).await;
                }
                assert_eq!(dom0.runs(), 0, "nothing ran");
                assert_eq!(dom0.changes(), Vec::<String>::new(), "nothing was changed");
            });
        }
    }
}
