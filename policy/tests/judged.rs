//! Two agents, thirty targets, every kind of service, every power: what Qubes' own policy parser
//! admits under the rendered policy is what is granted, what our evaluator says, and what the daemon's
//! admission lets through.
//!
//! The parser's verdicts are recorded beside this file. Where the environment names it
//! (`QREXEC_POLICY=FOLDER`, the folder that holds its Python package `qrexec`) it judges again, and with
//! the services of the catalogue too; `UPDATE_GOLDEN=1` then records what it says.

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
        io::Write as _,
        path::{Path, PathBuf},
        process::{Command, Stdio},
        sync::LazyLock,
        time::SystemTime,
    };

    use admin_api::{QubeName, Tag, Uuid};
    use contract::{Aim, Power, SERVICE_PREFIX};
    use policy::{
        Address, Class, Live, Reason, Refused, SandboxRules, Scope, ServiceLine, Tier, Until,
        evaluate::{Decision, Policy, PolicyFiles, Request, System, SystemQube},
        render_policy,
    };
    use serde_json::{Value, json};

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    const RECORDING: &str = "judged-by-qubes.jsonl";
    const AGENTS: [&str; 2] = ["salt-bridge", "helper"];
    /// Who calls: the agents, a qube that is nobody, a listed one, a tagged one.
    const SOURCES: [&str; 5] = ["salt-bridge", "helper", "stranger", "bare", "ai-4"];
    const DOM0: [&str; 3] = ["dom0", "@adminvm", "uuid:00000000-0000-0000-0000-000000000000"];
    /// What a caller may put in the place of a target besides qubes.
    const KEYWORDS: [&str; 6] =
        ["", "@default", "@dispvm", "@dispvm:dvm", "no-such-qube", "@anyvm"];

    /// A target.
    struct Named {
        name: String,
        tags: &'static [&'static str],
        /// What each agent's line says of it, if it has one.
        lines: [Option<String>; 2],
    }

    impl Named {
        fn new(
            name: impl Into<String>,
            tags: &'static [&'static str],
            first: Option<&str>,
            second: Option<&str>,
        ) -> Self {
            let lines = [first, second].map(|line| line.map(ToOwned::to_owned));
            Self { name: name.into(), tags, lines }
        }
    }

    /// Thirty targets.
    fn targets() -> Vec<Named> {
        let mut targets = Vec::new();
        for (place, power) in Power::ALL.into_iter().enumerate() {
            // The other agent has another power over the same qube, in the other way.
            let other = Power::ALL[(place + 3) % Power::ALL.len()];
            let (asked, asks) = (format!("{power}:ask"), format!("{other}:ask"));
            let (power, other) = (power.to_string(), other.to_string());
            let second = (place % 2 == 0).then_some(&*other);
            targets.push(Named::new(format!("only-{power}"), &[], Some(&power), Some(&asks)));
            targets.push(Named::new(format!("ask-{power}"), &[], Some(&asked), second));
        }
        let every = Power::ALL.map(|power| power.to_string()).join(",");
        let (future, past) = ("until=2026-11-22T00:00:01Z", "until=2026-11-22T00:00:00Z");
        let mixed = "see,exec:ask,files";
        targets.extend([
            Named::new("bare", &[], Some(""), Some("see")),
            Named::new("all", &[], Some(&every), None),
            Named::new("mixed", &["created-by-dom0"], Some(mixed), Some("files,exec")),
            Named::new("later", &[], Some(future), None),
            Named::new("ended", &["ai-managed"], Some(past), Some("")),
            Named::new("both", &["ai-managed", "ai-full", "lab"], Some("see"), None),
        ]);
        let tagged: [(&str, &'static [&'static str]); 10] = [
            ("ai-1", &["ai-managed"]),
            ("ai-2", &["ai-managed", "ai-exec"]),
            ("ai-3", &["ai-managed", "ai-net", "lab"]),
            ("ai-4", &["ai-managed", "ai-full"]),
            ("odd", &["ai-full"]),
            ("sink", &["ai-managed", "ai-dump"]),
            ("disp1", &["ai-managed", "disp-created-by-salt-bridge"]),
            ("disp2", &["ai-managed", "lab", "disp-created-by-stranger"]),
            ("lab-1", &["lab"]),
            ("gone-1", &["gone"]),
        ];
        targets.extend(tagged.map(|(name, tags)| Named::new(name, tags, None, None)));
        targets
    }

    /// The operator's file.
    fn scope(tier: Tier) -> Scope {
        let mut text = String::new();
        for (place, agent) in AGENTS.into_iter().enumerate() {
            text += &format!("@agent {agent}\n");
            for Named { name, lines, .. } in targets() {
                text.extend(lines[place].iter().map(|line| format!("{name} {line}\n")));
            }
            text += match place {
                0 => "@tag:ai-managed see,lifecycle,exec,root,files,net,shape\n",
                _ => {
                    "@tag:lab see,exec until=2030-01-01T00:00:00Z\n@tag:gone see until=2020-01-01T00:00:00Z\n"
                }
            };
        }
        Scope::parse(&text).unwrap().under(SandboxRules { default_tier: tier, dump: true })
    }

    /// Every qube: name, class, tags. dom0 and the agents carry tags that must not help them.
    static QUBES: LazyLock<Vec<(String, &str, Vec<&str>)>> = LazyLock::new(|| {
        let class = |name: &str| if name.starts_with("disp") { "DispVM" } else { "AppVM" };
        let fixed = ["dom0", "salt-bridge", "helper", "stranger", "dvm"].map(|name| {
            let tags = if name == "dvm" { vec![] } else { vec!["ai-managed", "lab"] };
            (name.to_owned(), if name == "dom0" { "AdminVM" } else { "AppVM" }, tags)
        });
        let targets = targets().into_iter().map(|Named { name, tags, .. }| {
            let class = class(&name);
            (name, class, tags.to_vec())
        });
        fixed.into_iter().chain(targets).collect()
    });

    fn uuid(place: usize) -> String {
        format!("00000000-0000-0000-0000-{place:012}")
    }

    fn now() -> SystemTime {
        Until::parse("2026-11-22T00:00:00Z").unwrap().time()
    }

    /// A service of each power and aim: what policy says depends on nothing else of a service.
    static KINDS: LazyLock<Vec<(String, Power, Aim)>> = LazyLock::new(|| {
        let kind = |power: Power| {
            let name = power.to_string();
            [(format!("On-{name}"), power, Aim::Qube), (format!("Of-{name}"), power, Aim::Scope)]
        };
        Power::ALL.into_iter().flat_map(kind).collect()
    });

    /// The services of this version, from the catalogue.
    static TABLE: LazyLock<Vec<(String, Power, Aim)>> = LazyLock::new(|| {
        let path = Path::new(FOLDER).join("../../contract/catalogue.json");
        let catalogue: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let services = catalogue["services"].as_array().unwrap();
        let row = |row: &Value| {
            let power = Power::ALL.into_iter().find(|power| row["power"] == power.to_string());
            let aim = if row["aim"] == "qube" { Aim::Qube } else { Aim::Scope };
            (row["service"].as_str().unwrap().to_owned(), power.unwrap(), aim)
        };
        services.iter().map(row).collect()
    });

    fn lines(services: &[(String, Power, Aim)]) -> Vec<ServiceLine<'_>> {
        services
            .iter()
            .map(|(name, power, aim)| ServiceLine { name, power: *power, aim: *aim })
            .collect()
    }

    /// Ours, and one behind it that would let everything through.
    fn files(scope: &Scope, services: &[(String, Power, Aim)]) -> Vec<(&'static str, String)> {
        let ours = render_policy(scope, &lines(services), now());
        let broad = "* * @anyvm @adminvm allow\n* * @anyvm @anyvm allow target=@adminvm\n";
        vec![("30-salt-bridge.policy", ours), ("90-default.policy", broad.into())]
    }

    /// A call without its service: argument, source, target.
    type Call = (String, &'static str, String);

    /// Every qube by argument and dom0 by all its names; every qube by target, by name and by UUID;
    /// some that name two.
    fn calls() -> Vec<Call> {
        let names: Vec<&str> = QUBES.iter().map(|(name, ..)| name.as_str()).collect();
        let mut pairs: Vec<(String, String)> = Vec::new();
        for argument in names.iter().copied().chain(["", "no-such-qube", "DOM0"]).chain(DOM0) {
            pairs.extend(DOM0.map(|target| (argument.to_owned(), target.to_owned())));
        }
        for (place, name) in names.iter().copied().enumerate() {
            pairs.push((String::new(), name.to_owned()));
            pairs.push((String::new(), format!("uuid:{}", uuid(place))));
        }
        pairs.extend(KEYWORDS.map(|target| (String::new(), target.to_owned())));
        for argument in ["bare", "ask-see", "ai-1", "both"] {
            for target in ["all", "ai-4", "bare", "lab-1", "", "@default", "@dispvm"] {
                pairs.push((argument.to_owned(), target.to_owned()));
            }
        }
        let of = |source: &'static str| {
            pairs.clone().into_iter().map(move |(argument, target)| (argument, source, target))
        };
        SOURCES.into_iter().flat_map(of).collect()
    }

    /// What the parser says of every call of every service, and what it was asked.
    struct Judged {
        files: Vec<(&'static str, String)>,
        /// The calls that are not denied, as `allow` or `ask`.
        admitted: BTreeMap<(String, Call), String>,
    }

    /// Has Qubes' parser judge.
    #[expect(clippy::disallowed_methods, reason = "a test may have Qubes' own parser decide")]
    fn judge(parser: &Path, scope: &Scope, services: &[(String, Power, Aim)]) -> Judged {
        let files = files(scope, services);
        let qube = |(place, (name, class, tags)): (usize, &(String, &str, Vec<&str>))| {
            json!({"name": name, "class": class, "tags": tags, "uuid": uuid(place),
                "template_for_dispvms": name == "dvm"})
        };
        let calls: Vec<(String, Call)> = services
            .iter()
            .flat_map(|(service, ..)| calls().into_iter().map(move |call| (service.clone(), call)))
            .collect();
        let shown = |(service, (argument, source, target)): &(String, Call)| {
            json!([format!("{SERVICE_PREFIX}{service}"), argument, source, target])
        };
        let case = json!({
            "qubes": QUBES.iter().enumerate().map(qube).collect::<Vec<_>>(),
            "files": files.iter().cloned().collect::<BTreeMap<_, _>>(),
            "calls": calls.iter().map(shown).collect::<Vec<_>>(),
        });
        let mut child = Command::new("python3")
            .args(["-B", "-W", "ignore"])
            .arg(Path::new(FOLDER).join("judge.py"))
            .env("PYTHONPATH", parser)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(case.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "Qubes' parser did not judge");
        let verdicts: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(verdicts.len(), calls.len());
        let mut admitted = BTreeMap::new();
        for (call, verdict) in calls.into_iter().zip(verdicts) {
            let reached = verdict.strip_prefix("allow ").is_some_and(|name| DOM0.contains(&name));
            let asks = verdict.strip_prefix("ask ").is_some_and(|name| DOM0.contains(&name));
            match verdict.as_str() {
                "deny" => {}
                // That is a target nowhere in qrexec, whatever the lines say.
                "deny and notify" if call.1.2 == "@anyvm" => {}
                _ if reached => drop(admitted.insert(call, "allow".into())),
                _ if asks => drop(admitted.insert(call, "ask".into())),
                other => panic!("{call:?}: {other}"),
            }
        }
        Judged { files, admitted }
    }

    /// The recording of a case: what was asked, then a line for each source and service.
    fn render(tier: Tier, judged: &Judged) -> String {
        let doc = "what Qubes' own policy parser (qubes-core-qrexec, main after 4.4.2) admits of the \
                   calls of judged.rs; `allow` and `ask` hold `ARGUMENT TARGET`; all others it denies \
                   without a notification";
        let ours = &judged.files[0].1;
        let head =
            json!({"doc": doc, "tier": tier.to_string(), "calls": calls().len(), "policy": ours});
        let mut text = format!("{head}\n");
        let mut rows: BTreeMap<(&str, &str), BTreeMap<&str, Vec<String>>> = BTreeMap::new();
        for ((service, (argument, source, target)), verdict) in &judged.admitted {
            let row = rows.entry((source, service)).or_default();
            row.entry(verdict).or_default().push(format!("{argument} {target}"));
        }
        for ((source, service), row) in rows {
            let mut line = json!({"source": source, "service": service});
            for (verdict, calls) in row {
                line[verdict] = json!(calls);
            }
            text += &format!("{line}\n");
        }
        text
    }

    /// Reads the recording of a case.
    fn recorded(tier: Tier) -> Judged {
        let text = fs::read_to_string(Path::new(FOLDER).join(RECORDING)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut judged: Option<Judged> = None;
        for line in lines {
            if let Some(policy) = line["policy"].as_str() {
                if judged.is_some() {
                    break;
                }
                if line["tier"] == tier.to_string() {
                    assert_eq!(line["calls"], calls().len(), "other calls were recorded");
                    let files = vec![("30-salt-bridge.policy", policy.to_owned())];
                    judged = Some(Judged { files, admitted: BTreeMap::new() });
                }
                continue;
            }
            let Some(judged) = &mut judged else { continue };
            let word = |key: &str| line[key].as_str().unwrap().to_owned();
            let source = SOURCES.into_iter().find(|source| line["source"] == *source).unwrap();
            for verdict in ["allow", "ask"] {
                for call in line[verdict].as_array().into_iter().flatten() {
                    let (argument, target) = call.as_str().unwrap().split_once(' ').unwrap();
                    let call = (argument.to_owned(), source, target.to_owned());
                    judged.admitted.insert((word("service"), call), verdict.into());
                }
            }
        }
        judged.expect("the case is recorded")
    }

    fn system() -> System {
        let qube = |(place, (name, class, tags)): (usize, &(String, &str, Vec<&str>))| {
            let info = SystemQube {
                class: (*class).into(),
                uuid: uuid(place),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                template_for_dispvms: name == "dvm",
                default_dispvm: Some("dvm".into()),
                running: true,
                guivm: Some("dom0".into()),
                internal: false,
            };
            (name.clone(), info)
        };
        QUBES.iter().enumerate().map(qube).collect()
    }

    /// What our evaluator says.
    fn evaluated(
        policy: &Policy,
        system: &System,
        service: &str,
        call: &Call,
    ) -> Option<&'static str> {
        let (argument, source, target) = call;
        let service = format!("{SERVICE_PREFIX}{service}");
        let argument = format!("+{argument}");
        let request = Request { service: &service, argument: &argument, source, target };
        match policy.evaluate(&request, system).decision {
            Decision::Allow { target, .. } if DOM0.contains(&target.as_str()) => Some("allow"),
            Decision::Ask { targets, .. } if targets == ["dom0"] => Some("ask"),
            Decision::Deny { .. } => None,
            other @ (Decision::Allow { .. } | Decision::Ask { .. }) => {
                panic!("{call:?}: {other:?}")
            }
        }
    }

    /// What the daemon's admission says of a call that policy let through: nothing, or why not.
    fn admission(
        scope: &Scope,
        power: Power,
        aim: Aim,
        call: &Call,
    ) -> Result<&'static str, Reason> {
        let (argument, source, target) = call;
        let is_dom0 = DOM0.contains(&target.as_str());
        let name = |text: &str| QubeName::parse(text).map_err(|_| Reason::AdminVm);
        let caller = scope.caller(&name(source)?).map_err(Refused::reason)?;
        let word = |asks| if asks { "ask" } else { "allow" };
        if aim == Aim::Scope {
            if !is_dom0 || !argument.is_empty() {
                return Err(Reason::NotListed);
            }
            let consent = caller.scope_wide(power, now()).map_err(Refused::reason)?;
            return Ok(word(consent == policy::Consent::Ask));
        }
        let (address, qube) = match (argument.as_str(), is_dom0) {
            (_, true) => (Address::Argument, argument.as_str()),
            ("", false) => (Address::Target, target.as_str()),
            (_, false) => return Err(Reason::NotListed),
        };
        // qrexec tells the daemon the name of a target, also where it was called by UUID.
        let found = |(place, (name, ..)): &(usize, &(String, &str, Vec<&str>))| {
            name == qube || qube.strip_prefix("uuid:") == Some(&uuid(*place))
        };
        let (place, (qube, class, tags)) =
            QUBES.iter().enumerate().find(found).ok_or(Reason::NoSuchQube)?;
        let live = Live {
            name: name(qube)?,
            uuid: Uuid::parse(&uuid(place)).unwrap(),
            class: Class::of(class),
            tags: tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect(),
        };
        let claim = caller.claim(address, &live.name, power, now()).map_err(Refused::reason)?;
        let managed = claim.manage(live).map_err(Refused::reason)?;
        Ok(word(managed.powers().into_iter().any(|held| held == (power, true))))
    }

    /// What policy lets through and the daemon does not: a line can ask for one tag, not for two, and
    /// knows nothing of who made a disposable.
    fn is_for_the_daemon(reason: Reason, target: &str) -> bool {
        let is_odd = QUBES.iter().enumerate().any(|(place, (name, ..))| {
            name == "odd" && (target == name || target == format!("uuid:{}", uuid(place)))
        });
        reason == Reason::ForeignDisposable || reason == Reason::TagMissing && is_odd
    }

    /// Holds evaluator and admission against what the parser said.
    fn compare(
        tier: Tier,
        services: &[(String, Power, Aim)],
        admitted: &BTreeMap<(String, Call), String>,
    ) {
        let (scope, system) = (scope(tier), system());
        let policy =
            Policy::parse(&files(&scope, services).into_iter().collect::<PolicyFiles>()).unwrap();
        let (mut granted, mut left) = (BTreeSet::new(), BTreeSet::new());
        for (service, power, aim) in services {
            for call in calls() {
                let theirs = admitted.get(&(service.clone(), call.clone())).map(String::as_str);
                let what = format!("{tier} {service} {call:?}");
                assert_eq!(
                    evaluated(&policy, &system, service, &call),
                    theirs,
                    "evaluator: {what}"
                );
                match (theirs, admission(&scope, *power, *aim, &call)) {
                    (Some(theirs), Ok(ours)) => {
                        assert_eq!(theirs, ours, "admission: {what}");
                        granted.insert((call.1, call.0.clone() + &call.2));
                    }
                    (None, Err(_)) => {}
                    (Some(_), Err(reason)) => {
                        assert!(
                            is_for_the_daemon(reason, &call.2),
                            "only policy admits: {what}: {reason}"
                        );
                        left.insert(call.2.clone());
                    }
                    (None, Ok(_)) => panic!("only the daemon admits: {what}"),
                }
            }
        }
        assert!(granted.iter().all(|(source, _)| AGENTS.contains(source)), "{granted:?}");
        assert!(granted.len() > 100 && !left.is_empty(), "{} {left:?}", granted.len());
    }

    const TIERS: [Tier; 2] = [Tier::Full, Tier::See];

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test may have Qubes' own parser decide")]
    fn qubes_parser_admits_what_is_granted_and_so_does_the_daemon() {
        let targets = targets();
        assert_eq!(targets.len(), 30);
        let parser = std::env::var_os("QREXEC_POLICY").map(PathBuf::from);
        if let Some(parser) = &parser {
            let judged = TIERS.map(|tier| (tier, judge(parser, &scope(tier), &KINDS)));
            let text: String = judged.iter().map(|(tier, judged)| render(*tier, judged)).collect();
            let path = Path::new(FOLDER).join(RECORDING);
            if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
                fs::write(&path, &text).unwrap();
            }
            let there = fs::read_to_string(path).unwrap_or_default();
            assert!(text == there, "{RECORDING} is stale; UPDATE_GOLDEN=1 renews it");
            for tier in TIERS {
                compare(tier, &TABLE, &judge(parser, &scope(tier), &TABLE).admitted);
            }
        }
        for tier in TIERS {
            let judged = recorded(tier);
            let ours = files(&scope(tier), &KINDS).remove(0).1;
            assert!(
                judged.files[0].1 == ours,
                "policy is rendered otherwise than when Qubes' parser judged it: have it judge again, \
                 with QREXEC_POLICY=FOLDER UPDATE_GOLDEN=1 (see .ci/policy-parser)"
            );
            compare(tier, &KINDS, &judged.admitted);
            // The services of this version are of these kinds, and nothing else of them counts.
            let kind = |power: &Power, aim: &Aim| {
                let found = KINDS.iter().find(|(_, other, of)| (other, of) == (power, aim));
                found.map(|(name, ..)| name.clone()).unwrap()
            };
            let by_kind = |(name, power, aim): &(String, Power, Aim)| {
                let kind = kind(power, aim);
                let of_kind =
                    judged.admitted.iter().filter(move |((service, _), _)| *service == kind);
                let name = name.clone();
                of_kind.map(move |((_, call), verdict)| {
                    ((name.clone(), call.clone()), verdict.clone())
                })
            };
            compare(tier, &TABLE, &TABLE.iter().flat_map(by_kind).collect());
        }
    }
}
