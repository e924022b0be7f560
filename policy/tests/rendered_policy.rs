//! What we render, evaluated, against what admission decides; and the example as a golden file.

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::LazyLock, time::SystemTime};

    use admin_api::{QubeName, Tag, Uuid};
    use contract::{Aim, Power, SERVICE_PREFIX};
    use policy::{
        Address, Class, Consent, Live, Reason, Refused, SandboxRules, Scope, ServiceLine, Tier,
        Until,
        evaluate::{Decision, Policy, PolicyFiles, Request, System, SystemQube},
        render_deny_all, render_policy,
    };
    use proptest::prelude::*;

    const fn on(name: &'static str, power: Power, aim: Aim) -> ServiceLine<'static> {
        ServiceLine { name, power, aim }
    }

    /// The twelve services, and one for the power that none of them needs.
    const SERVICES: [ServiceLine<'static>; 13] = [
        on("VmList", Power::See, Aim::Scope),
        on("VmStart", Power::Lifecycle, Aim::Qube),
        on("VmShutdown", Power::Lifecycle, Aim::Qube),
        on("VmNetworkInfo", Power::See, Aim::Qube),
        on("VmExec", Power::Exec, Aim::Qube),
        on("VmExecRoot", Power::Root, Aim::Qube),
        on("VmReadFile", Power::Files, Aim::Qube),
        on("VmWriteFile", Power::Files, Aim::Qube),
        on("FirewallList", Power::See, Aim::Qube),
        on("FirewallAdd", Power::Net, Aim::Qube),
        on("FirewallRemove", Power::Net, Aim::Qube),
        on("ConnectTcpPolicy", Power::Net, Aim::Scope),
        on("VmRemove", Power::Shape, Aim::Qube),
    ];

    /// Every spelling of dom0 that somebody might try.
    const DOM0: [&str; 8] = [
        "dom0",
        "@adminvm",
        "uuid:00000000-0000-0000-0000-000000000000",
        "DOM0",
        "Dom0",
        "Domain-0",
        "domain-0",
        "$adminvm",
    ];

    /// The qubes: name, class, tags. dom0 and the agents carry tags that must not help them.
    const QUBES: [(&str, &str, &[&str]); 18] = [
        ("dom0", "AdminVM", &["ai-managed"]),
        ("salt-bridge", "AppVM", &["ai-managed"]),
        ("helper", "AppVM", &["ai-managed"]),
        ("stranger", "AppVM", &[]),
        ("work", "AppVM", &[]),
        ("dev", "AppVM", &["ai-managed"]),
        ("vault", "AppVM", &[]),
        ("ai-1", "AppVM", &["ai-managed"]),
        ("ai-2", "AppVM", &["ai-managed", "ai-full"]),
        ("ai-3", "AppVM", &["ai-managed", "ai-exec"]),
        ("ai-4", "AppVM", &["ai-managed", "ai-net", "ai-exec"]),
        ("odd", "AppVM", &["ai-full"]),
        ("sink", "AppVM", &["ai-managed", "ai-dump", "ai-full"]),
        ("sink-2", "AppVM", &["ai-dump"]),
        ("sink-3", "AppVM", &["ai-dump", "ai-exec"]),
        ("disp1", "DispVM", &["ai-managed", "disp-created-by-salt-bridge"]),
        ("disp2", "DispVM", &["ai-managed", "disp-created-by-stranger"]),
        ("dvm", "AppVM", &[]),
    ];

    fn uuid(place: usize) -> String {
        format!("00000000-0000-0000-0000-{place:012}")
    }

    static SYSTEM: LazyLock<System> = LazyLock::new(|| {
        let qube = |(place, (name, class, tags)): (usize, (&str, &str, &[&str]))| {
            let info = SystemQube {
                class: class.into(),
                uuid: uuid(place),
                tags: tags.iter().map(|tag| (*tag).into()).collect(),
                template_for_dispvms: name == "dvm",
                default_dispvm: Some("dvm".into()),
                running: true,
                guivm: Some("dom0".into()),
                internal: false,
            };
            (name.to_owned(), info)
        };
        QUBES.into_iter().enumerate().map(qube).collect()
    });

    fn now() -> SystemTime {
        Until::parse("2026-11-22T00:00:00Z").unwrap().time()
    }

    fn policy_of(text: String) -> Policy {
        let files = [
            ("30-salt-bridge.policy", text),
            ("90-default.policy", "* * @anyvm @anyvm ask\n".into()),
        ];
        Policy::parse(&files.into_iter().collect()).unwrap()
    }

    /// What the engine does with a call: `None` when it denies, and never with a pop-up.
    fn engine(
        policy: &Policy,
        service: &str,
        argument: &str,
        source: &str,
        target: &str,
    ) -> Option<Consent> {
        let (service, argument) = (format!("{SERVICE_PREFIX}{service}"), format!("+{argument}"));
        let request = Request { service: &service, argument: &argument, source, target };
        let evaluation = policy.evaluate(&request, &SYSTEM);
        match evaluation.decision {
            Decision::Allow { target: reached, .. } => {
                let is_dom0 = DOM0[..3].contains(&reached.as_str());
                assert!(is_dom0, "{request:?} goes to {reached}");
                Some(Consent::Standing)
            }
            Decision::Ask { targets, default_target, .. } => {
                assert_eq!((targets, default_target), (vec!["dom0".into()], Some("dom0".into())));
                Some(Consent::Ask)
            }
            Decision::Deny { reason, notify } => {
                assert!(!notify && evaluation.place.is_some(), "{request:?} pops up: {reason}");
                None
            }
        }
    }

    /// What admission does with a call that names a qube.
    fn admission(
        scope: &Scope,
        source: &str,
        address: Address,
        target: &str,
        power: Power,
    ) -> Result<Consent, Reason> {
        let parse = |name: &str| QubeName::parse(name).map_err(|_| Reason::AdminVm);
        let (source, target) = (parse(source)?, parse(target)?);
        let place = QUBES.iter().position(|(name, _, _)| *name == target.as_str()).unwrap();
        let live = Live {
            name: target.clone(),
            uuid: Uuid::parse(&uuid(place)).unwrap(),
            class: Class::of(QUBES[place].1),
            tags: QUBES[place].2.iter().map(|tag| Tag::parse(tag).unwrap()).collect(),
        };
        let managed = scope
            .caller(&source)
            .and_then(|caller| caller.claim(address, &target, power, now()))
            .and_then(|claim| claim.manage(live))
            .map_err(Refused::reason)?;
        let asks = managed.powers().into_iter().any(|held| held == (power, true));
        Ok(if asks { Consent::Ask } else { Consent::Standing })
    }

    /// Compares the two for every source, service and qube of the table.
    fn compare(scope: &Scope) {
        let policy = policy_of(render_policy(scope, &SERVICES, now()));
        for source in ["salt-bridge", "helper", "stranger", "work", "ai-1"] {
            for service in &SERVICES {
                let caller = QubeName::parse(source).ok().and_then(|name| scope.caller(&name).ok());
                let of_scope =
                    caller.and_then(|caller| caller.scope_wide(service.power, now()).ok());
                for target in ["dom0", "@adminvm"] {
                    let expected = of_scope.filter(|_| service.aim == Aim::Scope);
                    assert_eq!(engine(&policy, service.name, "", source, target), expected);
                }
                for (qube, _, _) in QUBES {
                    compare_qube(scope, &policy, service, source, qube);
                }
            }
        }
    }

    fn compare_qube(
        scope: &Scope,
        policy: &Policy,
        service: &ServiceLine<'_>,
        source: &str,
        qube: &str,
    ) {
        let what = format!("{} of {source} on {qube} with\n{}", service.name, scope.render());
        let admitted = |address| match service.aim {
            Aim::Qube => admission(scope, source, address, qube, service.power),
            Aim::Scope => Err(Reason::NotListed),
        };
        for target in &DOM0[..3] {
            let by_argument = engine(policy, service.name, qube, source, target);
            assert_eq!(by_argument, admitted(Address::Argument).ok(), "by argument: {what}");
        }
        // dom0 as target and no argument is how services without a qube are called.
        if qube != "dom0" {
            let by_target = engine(policy, service.name, "", source, qube);
            let expected = admitted(Address::Target);
            // A line can ask for one tag, not for two, and knows nothing of who made a qube.
            let tags = QUBES.iter().find(|(name, ..)| *name == qube).unwrap().2;
            let tier_alone = tags.contains(&"ai-full") && !tags.contains(&"ai-managed");
            let for_the_daemon = match expected {
                Err(Reason::ForeignDisposable) => true,
                Err(Reason::TagMissing) => tier_alone,
                _ => false,
            };
            if !for_the_daemon {
                assert_eq!(by_target, expected.ok(), "by target: {what}");
            }
        }
        // Naming two qubes at once, or a qube beside a keyword, is never a call.
        for target in ["work", "dev", "ai-1", "", "@default", "@dispvm", "@dispvm:dvm", "nosuch"] {
            let both = engine(policy, service.name, qube, source, target);
            assert_eq!(both, None, "argument and target {target}: {what}");
        }
        for target in ["", "@default", "@dispvm", "@dispvm:dvm", "nosuch"] {
            assert_eq!(engine(policy, service.name, "", source, target), None, "{target}: {what}");
        }
    }

    #[test]
    fn policy_and_admission_decide_alike_for_every_tier() {
        for tier in [Tier::See, Tier::Exec, Tier::Net, Tier::Full] {
            for way in ["", "see,exec,lifecycle", "net", "shape", "see"] {
                for more in ["", "@tag:ai-exec lifecycle", "@tag:ai-full see,net"] {
                    let text = format!("@agent salt-bridge\ndev\n@tag:ai-managed {way}\n{more}\n");
                    let rules = SandboxRules { default_tier: tier, dump: true };
                    compare(&Scope::parse(&text).unwrap().under(rules));
                }
            }
        }
    }

    #[test]
    fn policy_and_admission_decide_alike_for_every_power_however_it_is_held() {
        let mut ways: Vec<String> = vec![
            String::new(),
            "until=2026-11-22T00:00:01Z".into(),
            "until=2026-11-22T00:00:00Z".into(),
            "see,files:ask,net:ask".into(),
        ];
        for power in Power::ALL {
            ways.extend([power.to_string(), format!("{power}:ask")]);
        }
        for way in &ways {
            let scope = format!("@agent salt-bridge\nwork {way}\nhelper see\n@agent helper\ndev\n");
            compare(&Scope::parse(&scope).unwrap());
        }
        for way in ways.iter().filter(|way| !way.contains(":ask")) {
            let scope = format!(
                "@agent salt-bridge\ndev see:ask\n@tag:ai-managed {way}\n@tag:ai-full\n@agent helper\nwork {way}\n"
            );
            compare(&Scope::parse(&scope).unwrap());
        }
    }

    #[test]
    fn dom0_is_reached_under_no_name() {
        let text = "@agent salt-bridge\nwork see,lifecycle,exec,root,files,net,shape\n\
                    @tag:ai-managed see,lifecycle,exec,root,files,net,shape\n";
        let policy = policy_of(render_policy(&Scope::parse(text).unwrap(), &SERVICES, now()));
        for dom0 in DOM0 {
            assert!(QubeName::parse(dom0).is_err(), "{dom0} is a name");
            assert!(Scope::parse(&format!("@agent a\n{dom0}\n")).is_err(), "{dom0} can be listed");
            for service in SERVICES.iter().filter(|service| service.aim == Aim::Qube) {
                for target in ["dom0", "@adminvm", "", "ai-1"] {
                    assert_eq!(engine(&policy, service.name, dom0, "salt-bridge", target), None);
                }
                assert_eq!(engine(&policy, service.name, "", "salt-bridge", dom0), None);
            }
        }
    }

    #[test]
    fn while_everything_is_denied_nothing_passes() {
        let policy = policy_of(render_deny_all(&SERVICES));
        for service in SERVICES {
            for (source, _, _) in QUBES.iter().skip(1) {
                for (target, _, _) in QUBES {
                    assert_eq!(engine(&policy, service.name, "", source, target), None);
                    assert_eq!(engine(&policy, service.name, target, source, "dom0"), None);
                }
            }
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "refreshing a golden file is asked for so")]
    fn the_example_renders_to_its_golden_file() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let scope = std::fs::read_to_string(folder.join("example-scope")).unwrap();
        let rendered = render_policy(&Scope::parse(&scope).unwrap(), &SERVICES[..12], now());
        let golden = folder.join("example.policy");
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            std::fs::write(&golden, &rendered).unwrap();
        }
        let expected = std::fs::read_to_string(golden).unwrap_or_default();
        assert!(rendered == expected, "example.policy is stale; UPDATE_GOLDEN=1 renews it");
        assert!(Policy::parse(&PolicyFiles::from_iter([("30-x.policy", rendered)])).is_ok());
    }

    /// Blocks of any grants for the two agents; those that contradict themselves are left out.
    fn scopes() -> impl Strategy<Value = Scope> {
        let target = prop::sample::select(vec![
            "work",
            "dev",
            "vault",
            "ai-1",
            "helper",
            "disp1",
            "@tag:ai-managed",
            "@tag:ai-managed",
            "@tag:ai-full",
            "@tag:ai-exec",
        ]);
        let powers = prop::sample::select(vec![
            "",
            "see",
            "see:ask",
            "see,exec",
            "lifecycle,files:ask",
            "net",
            "net:ask",
            "shape",
        ]);
        let until = prop::sample::select(vec![
            "",
            "",
            "until=2026-11-22T00:00:01Z",
            "until=2026-11-22T00:00:00Z",
        ]);
        let tier = prop::sample::select(vec![Tier::See, Tier::Exec, Tier::Net, Tier::Full]);
        let block = || prop::collection::vec((target.clone(), powers.clone(), until.clone()), 0..5);
        (block(), block(), tier).prop_filter_map("contradicts itself", |(first, second, tier)| {
            let lines = |grants: Vec<(&str, &str, &str)>| -> String {
                grants.iter().map(|(t, p, u)| format!("{t} {p} {u}\n")).collect()
            };
            let text =
                format!("@agent salt-bridge\n{}@agent helper\n{}", lines(first), lines(second));
            let rules = SandboxRules { default_tier: tier, dump: true };
            Scope::parse(&text).ok().map(|scope| scope.under(rules))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
        #[test]
        fn policy_and_admission_decide_alike_for_any_scope(scope in scopes()) {
            compare(&scope);
        }
    }
}
