//! An agent that tries to get out of its sandbox, by any calls in any order: nothing outside
//! changes, no name from outside is told, and nobody gains a power.

use std::{collections::BTreeMap, time::SystemTime};

use admin_api::{QubeName, Tag, Uuid};
use contract::Power;
use policy::{Class, Live, Scope};
use salt_bridge_sim::{Host, QubeState};
use serde_json::{Value, json};

use super::births::{call, kill_and_restart};

/// The operator's file: a sandbox, and listed qubes of which copies would be a gain.
const SCOPE: &str = "@agent salt-bridge\n@compat qmcp\nwork see,shape\ndev see,lifecycle,shape,files:ask\n@tag:ai-managed\n";
/// How many calls are made, unless `SALT_BRIDGE_ESCAPES` says otherwise.
const CALLS: u32 = 2000;

/// Numbers that look random, and are the same for the same seed.
pub(crate) struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.next() % u64::try_from(of.len()).unwrap()).unwrap()]
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }
}

/// A call: service, target, parameters.
pub(crate) type Attempt = (&'static str, Option<String>, Value);

/// Names of every sort: own, listed, foreign, missing, and none at all.
pub(crate) fn any_name(dice: &mut Dice, world: &[QubeState]) -> String {
    const ODD: [&str; 10] = [
        "dom0",
        "@adminvm",
        "nosuch",
        "",
        "none",
        "default",
        "@dispvm",
        "ai-x y",
        "uuid:00000000-0000-0000-0000-000000000000",
        "../ai-full",
    ];
    match dice.next() % 8 {
        0 => (*dice.pick(&ODD)).to_owned(),
        1 => format!("uuid:{}", dice.pick(world).uuid),
        2 | 3 => dice.pick(world).name.clone(),
        _ => own(dice, world),
    }
}

/// The name of a qube with the tag of the sandbox.
fn own(dice: &mut Dice, world: &[QubeState]) -> String {
    let own: Vec<_> =
        world.iter().filter(|qube| qube.tags.iter().any(|t| t == "ai-managed")).collect();
    dice.pick(&own).name.clone()
}

/// A name for something new: most in the prefix, some taken, some of others.
fn new_name(dice: &mut Dice, world: &[QubeState]) -> String {
    match dice.next() % 6 {
        0 => any_name(dice, world),
        1 => "ai-foreign".into(),
        _ => format!("ai-n{}", dice.next() % 6),
    }
}

/// Every kind of call. Add others to try them too.
pub(crate) const ATTEMPTS: &[fn(&mut Dice, &[QubeState]) -> Attempt] = &[
    |dice, world| {
        let class = *dice.pick(&[
            "AppVM",
            "AppVM",
            "DispVMTemplate",
            "DispVM",
            "TemplateVM",
            "StandaloneVM",
        ]);
        let mut args = json!({"name": new_name(dice, world), "template": any_name(dice, world), "class": class});
        if dice.once_in(3) {
            args["netvm"] = any_name(dice, world).into();
        }
        if dice.once_in(3) {
            args["offline"] = true.into();
        }
        if dice.once_in(4) {
            args["private_size"] = (*dice.pick(&[0_u64, 1, 3 << 30, 21 << 30, u64::MAX])).into();
        }
        if dice.once_in(6) {
            args["label"] = (*dice.pick(&["red", "nolabel", "red tag=ai-full", ""])).into();
        }
        ("VmCreate", None, args)
    },
    |dice, world| {
        let template = (*dice.pick(&["ai-debian", "ai-debian", "ai-low", "ai-dvm"])).to_owned();
        ("VmCreate", None, json!({"name": new_name(dice, world), "template": template}))
    },
    |dice, world| {
        let args = json!({"source": any_name(dice, world), "name": new_name(dice, world), "offline": dice.once_in(2)});
        ("VmClone", None, args)
    },
    |dice, world| ("VmRemove", Some(any_name(dice, world)), json!({})),
    |dice, world| ("VmRemove", Some(own(dice, world)), json!({})),
    |dice, world| ("VmKill", Some(any_name(dice, world)), json!({})),
    |dice, world| {
        (
            "VmShutdown",
            Some(any_name(dice, world)),
            json!({"force": dice.once_in(2), "timeout_seconds": 1}),
        )
    },
    |dice, world| ("VmPause", Some(any_name(dice, world)), json!({})),
    |dice, world| ("VmUnpause", Some(any_name(dice, world)), json!({})),
    |dice, world| {
        let args = json!({"template": any_name(dice, world), "command": "true"});
        (*dice.pick(&["DisposableRun", "DisposableRunRoot", "DisposableCreate"]), None, args)
    },
    |dice, world| {
        let args = json!({"action": "drop", "args": "10.0.0.1"});
        ("FirewallAdd", Some(any_name(dice, world)), args)
    },
    |dice, world| ("VmNetworkInfo", Some(any_name(dice, world)), json!({})),
    |dice, world| ("PropertyGet", Some(any_name(dice, world)), json!({})),
    |dice, world| {
        let property = *dice.pick(&["template", "netvm", "default_dispvm", "template"]);
        let value = match dice.once_in(4) {
            true => Value::Null,
            false => any_name(dice, world).into(),
        };
        let qube = if dice.once_in(3) { any_name(dice, world) } else { own(dice, world) };
        ("PropertySet", Some(qube), json!({"property": property, "value": value}))
    },
    |dice, world| {
        let property = *dice.pick(&[
            "label",
            "memory",
            "provides_network",
            "default_user",
            "autostart",
            "template_for_dispvms",
            "kernel",
            "tags",
        ]);
        let values = [json!("red"), json!(500), json!(true), json!("root"), json!(null)];
        let args = json!({"property": property, "value": dice.pick(&values)});
        ("PropertySet", Some(any_name(dice, world)), args)
    },
    |dice, world| {
        let feature = *dice.pick(&[
            "x-note",
            "audiovm",
            "guivm",
            "internal",
            "tag-created-vm-with",
            "deferred-netvm-original",
            "preload-dispvm-max",
            "service.clocksync",
        ]);
        let value = match dice.once_in(2) {
            true => json!("ai-full"),
            false => Value::Null,
        };
        ("FeatureSet", Some(any_name(dice, world)), json!({"feature": feature, "value": value}))
    },
    |dice, world| {
        let named = json!({"feature": "guivm", "value": "sys-net"});
        ("FeatureSet", Some(own(dice, world)), named)
    },
    |dice, world| {
        let class = *dice.pick(&["block", "usb", "mic", "pci"]);
        ("DeviceList", Some(any_name(dice, world)), json!({"class": class}))
    },
    |dice, world| {
        let service = *dice.pick(&["DeviceAttach", "DeviceDetach"]);
        let class = *dice.pick(&["block", "block", "pci"]);
        let port = *dice.pick(&["sda", "sda", "*", "sda _frontend-dev='xvda'"]);
        let args = json!({"class": class, "backend_vm": any_name(dice, world), "port": port});
        (service, Some(any_name(dice, world)), args)
    },
    |dice, world| {
        // One that is in scope is watched for a second; most are to be refused at once.
        let seconds = u64::from(dice.once_in(30));
        ("EventWatch", None, json!({"seconds": seconds, "vm_name": any_name(dice, world)}))
    },
    |dice, world| {
        let listed = *dice.pick(&["work", "dev"]);
        let property = *dice.pick(&["default_dispvm", "template"]);
        ("PropertySet", Some(own(dice, world)), json!({"property": property, "value": listed}))
    },
    |dice, world| {
        let args = json!({
            "source_vm": any_name(dice, world), "source_path": ".bashrc",
            "target_vm": any_name(dice, world), "target_path": "taken", "overwrite": true,
        });
        ("FileCopy", None, args)
    },
    |dice, world| {
        let args = json!({
            "action": *dice.pick(&["add", "remove", "list"]), "source": any_name(dice, world),
            "target": any_name(dice, world), "port": 22,
        });
        ("ConnectTcpPolicy", None, args)
    },
    |dice, world| {
        let (property, value) = *dice.pick(&[("tags", "ai-full"), ("template", ""), ("netvm", "")]);
        let value = if value.is_empty() { any_name(dice, world) } else { value.to_owned() };
        let args = json!({"name": any_name(dice, world), "property": property, "value": value});
        let service = ["qmcp.SetPropertyAIManaged", "qmcp.GetPropertyAIManaged"];
        (*dice.pick(&service), None, args)
    },
    |dice, world| {
        let action = *dice.pick(&["kill", "remove", "pause", "unpause", "shutdown"]);
        let args = json!({"name": any_name(dice, world), "action": action});
        ("qmcp.LifecycleAIManaged", None, args)
    },
    |dice, world| {
        let args = json!({
            "name": new_name(dice, world), "template": any_name(dice, world),
            "source": any_name(dice, world), "netvm": any_name(dice, world),
        });
        let services = ["qmcp.SpawnAIManagedQube", "qmcp.CloneAIManagedQube"];
        (*dice.pick(&services), None, args)
    },
    |dice, world| {
        let away = json!({"target": any_name(dice, world), "path": "/etc/hostname"});
        ("qmcp.CopyToAIManaged", Some(any_name(dice, world)), away)
    },
    |dice, world| {
        let run = json!({"cmd": ["true"], "timeout": 5});
        ("qmcp.RunInAIManaged", Some(any_name(dice, world)), run)
    },
    |_, _| ("VmList", None, json!({})),
    |_, _| ("PoolStats", None, json!({})),
];

/// The powers that the agent has over each qube, by the operator's file and the tags now.
fn powers(scope: &Scope, world: &[QubeState]) -> BTreeMap<String, Vec<Power>> {
    let agent = QubeName::parse("salt-bridge").unwrap();
    let caller = scope.caller(&agent).unwrap();
    let mut all = BTreeMap::new();
    for qube in world {
        let live = Live {
            name: QubeName::parse(&qube.name).unwrap(),
            uuid: Uuid::parse(&qube.uuid).unwrap(),
            class: Class::of(qube.class),
            tags: qube.tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect(),
        };
        if let Some(seen) = caller.visible(live, SystemTime::now()) {
            let held = seen.powers().into_iter().filter(|(_, ask)| !ask).map(|(power, _)| power);
            all.insert(qube.uuid.clone(), held.collect());
        }
    }
    all
}

/// Whether a text holds a name as a word of its own.
fn tells(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let around = |at: usize| Some((text.get(..at)?, text.get(at + name.len()..)?));
    text.match_indices(name)
        .filter_map(|(at, _)| around(at))
        .any(|(before, after)| !before.ends_with(part) && !after.starts_with(part))
}

/// The qube that a property names.
fn named<'a>(qube: &'a QubeState, property: &str) -> Option<&'a str> {
    let (_, rest) = qube.all.split_once(&format!("\"{property}\": \""))?;
    rest.split('"').next().filter(|name| !name.is_empty())
}

/// The source that a call names. Of qubes-mcp's calls each takes one of the two.
fn source<'a>(attempt: &Attempt, world: &'a [QubeState]) -> Option<&'a QubeState> {
    let args = &attempt.2;
    let field = if attempt.0.contains("Spawn") { "template" } else { "source" };
    let name = args[field].as_str().or_else(|| args["template"].as_str())?;
    world.iter().find(|qube| qube.name == name)
}

/// Fails where a call broke out.
fn judge(host: &Host, scope: &Scope, before: &[QubeState], made: &[(Attempt, Vec<u8>)]) {
    let after = host.qubes();
    let managed = |qube: &QubeState| qube.tags.iter().any(|tag| tag == "ai-managed");
    for old in before.iter().filter(|qube| !managed(qube)) {
        let listed = ["work", "dev"].contains(&old.name.as_str());
        let now = after.iter().find(|qube| qube.uuid == old.uuid);
        assert!(listed || now == Some(old), "outside: {old:?} became {now:?} by {made:?}");
    }
    let (had, has) = (powers(scope, before), powers(scope, &after));
    for qube in &after {
        let now = has.get(&qube.uuid).cloned().unwrap_or_default();
        if let Some(old) = before.iter().find(|old| old.uuid == qube.uuid) {
            let then = had.get(&old.uuid).cloned().unwrap_or_default();
            assert!(now.iter().all(|power| then.contains(power)), "{qube:?} gained by {made:?}");
            for property in ["template", "default_dispvm"] {
                let Some(other) = named(qube, property) else { continue };
                if named(old, property) != Some(other) {
                    // What runs from another qube's disk shows it.
                    let other = after.iter().find(|qube| qube.name == other).unwrap();
                    let held = has.get(&other.uuid).cloned().unwrap_or_default();
                    let shown = now.iter().all(|power| held.contains(power));
                    assert!(shown, "{qube:?} shows {other:?} by {made:?}");
                }
            }
            continue;
        }
        let right = made.iter().any(|(attempt, _)| {
            let source = source(attempt, before).or_else(|| source(attempt, &after));
            let held =
                source.and_then(|source| had.get(&source.uuid).or_else(|| has.get(&source.uuid)));
            held.is_some_and(|held| now.iter().all(|power| held.contains(power)))
        });
        assert!(right && managed(qube), "{qube:?} was born with more by {made:?}");
    }
    let foreign = before.iter().filter(|qube| !had.contains_key(&qube.uuid));
    let rules = host.root().join("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
    let rules = std::fs::read_to_string(rules).unwrap_or_default();
    for name in foreign.clone().map(|qube| &qube.name) {
        let named = rules.lines().filter(|line| !line.starts_with('#')).any(|l| tells(l, name));
        assert!(!named, "{name} in a rule by {made:?}: {rules}");
    }
    for (attempt, bytes) in made {
        let text = String::from_utf8_lossy(bytes);
        for name in
            foreign.clone().map(|qube| qube.name.as_str()).filter(|name| *name != "salt-bridge")
        {
            assert!(!tells(&text, name), "{name} in the answer to {attempt:?}: {text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{on_sandbox, population};
    use salt_bridge_sim::Resident;

    #[test]
    fn an_agent_that_tries_everything_does_not_get_out() {
        #[expect(clippy::disallowed_methods, reason = "a seed that failed can be tried again")]
        let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seed = read("SALT_BRIDGE_SEED").unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            u64::try_from(now.as_nanos() % u128::from(u64::MAX)).unwrap() | 1
        });
        let calls =
            read("SALT_BRIDGE_ESCAPES").map_or(CALLS, |calls| u32::try_from(calls).unwrap());
        #[expect(clippy::print_stdout, reason = "a run that failed is made again by its seed")]
        {
            println!("SALT_BRIDGE_SEED={seed}");
        }
        let work = Resident::app("work", "blue").with("netvm", "ai-net-router");
        let dev = Resident::app("dev", "blue").with("netvm", "ai-net-router");
        on_sandbox(population().and([work, dev]), SCOPE, true, async |machine| {
            let (host, scope) = (&machine.host, Scope::parse(SCOPE).unwrap());
            let mut dice = Dice(seed);
            let mut ended = 0;
            for turn in 0..calls {
                let world = host.qubes();
                let mut attempt = || dice.pick(ATTEMPTS)(&mut dice, &world);
                let (first, second) = (attempt(), attempt());
                let made = async |attempt: Attempt| {
                    let (service, target, args) = &attempt;
                    let ended = call(host, service, target.as_deref(), args).await;
                    (attempt, ended)
                };
                let answers = if turn % 4 == 0 {
                    let (first, second) = tokio::join!(made(first), made(second));
                    vec![first, second]
                } else {
                    vec![made(first).await]
                };
                ended +=
                    answers.iter().filter(|(_, e)| e.last == Some(contract::Kind::Result)).count();
                let answers: Vec<_> = answers.into_iter().map(|(a, e)| (a, e.bytes)).collect();
                judge(host, &scope, &world, &answers);
                if turn % 500 == 499 {
                    kill_and_restart(host);
                }
            }
            #[expect(clippy::print_stdout, reason = "how much was really tried")]
            {
                println!("{ended} calls did something");
            }
            assert!(ended * 8 > usize::try_from(calls).unwrap(), "{ended}: too few do anything");
        });
    }
}
