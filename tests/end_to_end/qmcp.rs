//! The recorded calls of qubes-mcp's client, made again: the same answers, but for differences that
//! are meant, each with its reason.

use salt_bridge_sim::{Population, Resident};
use serde_json::{Value, json};

use super::machine::{Machine, on_host_with};

const SCOPE: &str = "\
@agent salt-bridge
@compat qmcp
@tag:ai-managed
";

/// The qubes that were there when the recordings were made.
fn population() -> Population {
    let net =
        |name: &str, label| Resident::app(name, label).running().with("provides_network", "True");
    let managed = |qube: Resident| qube.tag("ai-managed");
    let app =
        |name: &str, label| managed(Resident::app(name, label)).with("template", "ai-debian-13");
    Population::of(vec![
        Resident::template("fedora-42"),
        managed(Resident::template("ai-debian-13")),
        net("sys-net", "red").with("netvm", ""),
        net("sys-firewall", "orange").with("netvm", "sys-net"),
        Resident::app("salt-bridge", "purple").running(),
        Resident::app("work", "blue").running(),
        Resident::app("vault", "black").with("netvm", ""),
        Resident::app("dvm", "red").with("template_for_dispvms", "True"),
        managed(net("ai-net-router", "red")),
        app("ai-exec-1", "gray").running().tag("ai-exec"),
        app("ai-exec-2", "gray").running().tag("ai-exec"),
        app("ai-full-1", "gray").tag("ai-full").offers(
            "block",
            "sda",
            "manufacturer='hosted by ai-full-1' serial='USB Flash Drive'",
        ),
        app("ai-vm-1", "red"),
    ])
    .with("default_dispvm", "dvm")
}

/// What we answer otherwise, by the recording's note, and why.
fn different() -> [(&'static str, Value, &'static str); 5] {
    let device = |line: &str| json!({"ok": true, "lines": [line]});
    [
        ("get qid", json!({"ok": true, "value": 13}), "the hosts number their qubes differently"),
        (
            "devices available block",
            device(
                "sda::None device_id=':None' port_id='sda' devclass='block' \
                 backend_domain='ai-full-1' description='hosted by ai-full-1, USB Flash Drive' \
                 interfaces='b******'",
            ),
            "the older program hides the port, so that nothing can be attached from its lists",
        ),
        (
            "devices attached block frontend",
            device(
                "ai-full-1+sda::None device_id=':None' port_id='sda' devclass='block' \
                 backend_domain='ai-full-1' mode='manual' frontend_domain='ai-vm-1' \
                 _read-only='no' _frontend-dev='xvdi'",
            ),
            "the older program hides every word that is no name in its scope",
        ),
        (
            "disposable plain template",
            json!({
                "ok": false,
                "error": "template 'ai-debian-13' must have template_for_dispvms=True to be a \
                          DispVM source",
            }),
            "the class of the template is not said again",
        ),
        (
            "pool",
            json!({
                "ok": true, "ai_managed_bytes_used": 0, "ai_managed_bytes_cap": 0,
                "ai_managed_bytes_headroom": 0,
            }),
            "the hosts have volumes of different sizes; only the keys are compared",
        ),
    ]
}

/// What differs from host to host and from run to run.
fn leveled(mut answer: Value) -> Value {
    if let Some(name) = answer.get("name").and_then(Value::as_str)
        && name.starts_with("disp")
    {
        answer["name"] = "disp*".into();
    }
    for key in ["used", "cap", "headroom"] {
        if let Some(bytes) = answer.get_mut(format!("ai_managed_bytes_{key}")) {
            *bytes = bytes.is_u64().then_some(0).into();
        }
    }
    if let Some(Value::Array(events)) = answer.get("events") {
        let told = events.iter().all(|event| event["subject"].is_string());
        answer["events"] = told.into();
    }
    answer
}

async fn ask(machine: &Machine, record: &Value) -> String {
    let word = |key: &str| record[key].as_str().unwrap();
    let mut payload = record["payload"].clone();
    if payload.get("duration").is_some() {
        payload["duration"] = 1.into();
    }
    let bytes = if payload.is_null() { String::new() } else { payload.to_string() };
    let child = machine.qrexec(word("target"), word("service"));
    Machine::finish(child, bytes.as_bytes()).await.stdout
}

/// Whether the row behind a call is in the table.
fn is_ours(record: &Value) -> bool {
    // The recording's caller was another qube there.
    let other = record["note"] == "foreign caller";
    let makes_qubes = qubes_rpc::services::names().any(|name| name == "saltbridge.VmCreate");
    let made = ["ai-new", "ai-dvm", "ai-disp"];
    let text = record["payload"].to_string();
    let of_made = record["service"].as_str().unwrap().contains("Spawn")
        || record["service"].as_str().unwrap().contains("Pool")
        || made.iter().any(|name| text.contains(name));
    !other && (makes_qubes || !of_made)
}

#[test]
fn recorded_calls_get_the_recorded_answers() {
    on_host_with(SCOPE, population(), async |machine| {
        let records: Vec<Value> = serde_json::from_str(include_str!("qubes-mcp.json")).unwrap();
        assert_eq!(records.len(), 99);
        let different = different();
        let mut surprises = Vec::new();
        for record in records.iter().filter(|record| is_ours(record)) {
            let told = ask(machine, record).await;
            let recorded = record["stdout"].as_str().unwrap();
            let note = record["note"].as_str().unwrap();
            let parse = |text: &str| serde_json::from_str::<Value>(text).map(leveled).ok();
            let expected = different.iter().find(|(known, ..)| *known == note);
            let expected =
                expected.map_or_else(|| parse(recorded), |(_, told, _)| Some(told.clone()));
            if parse(&told) != expected {
                surprises
                    .push(format!("{note} {}\n  was {recorded}  is  {told}", record["payload"]));
            }
        }
        assert!(surprises.is_empty(), "{}\n{}", surprises.len(), surprises.join("\n"));
    });
}

#[test]
fn without_the_line_in_the_operators_file_the_adapters_do_not_exist() {
    on_host_with(SCOPE, population(), async |machine| {
        let get = json!({
            "service": "qmcp.GetPropertyAIManaged", "target": "@adminvm",
            "payload": {"name": "ai-vm-1", "property": "label"},
        });
        assert_eq!(ask(machine, &get).await, "{\"ok\":true,\"value\":\"red\"}\n");
        machine.host.set_scope("@agent salt-bridge\n@tag:ai-managed\n").unwrap();
        assert_eq!(ask(machine, &get).await, "");
        // Where policy of another program's still lets it through, the daemon refuses.
        machine
            .host
            .set_policy("29-old.policy", "qmcp.GetPropertyAIManaged * salt-bridge @adminvm allow\n")
            .unwrap();
        assert_eq!(ask(machine, &get).await, "{\"error\":\"not found\",\"ok\":false}\n");
    });
}

/// What its client calls in the qubes themselves, and what its stage tests B, D and E2 do with it.
#[test]
fn commands_and_copies_of_its_client_are_dom0s_to_decide() {
    on_host_with(SCOPE, population(), async |machine| {
        let call = async |service: &str, target: &str, payload: Value| {
            let record = json!({"service": service, "target": target, "payload": payload});
            let told = ask(machine, &record).await;
            serde_json::from_str::<Value>(&told).unwrap_or_else(|_| told.into())
        };
        let run = "qmcp.RunInAIManaged";
        let write = json!({"cmd": "echo kept > /tmp/note", "shell": true, "timeout": 5});
        assert_eq!(call(run, "ai-exec-1", write).await["rc"], 0);
        let copy = json!({"target": "ai-exec-2", "path": "/tmp/note"});
        let copied = call("qmcp.CopyToAIManaged", "ai-exec-1", copy.clone()).await;
        assert_eq!(copied, json!({"ok": true, "target": "ai-exec-2", "path": "/tmp/note"}));
        let read = json!({"cmd": ["cat", "/home/user/QubesIncoming/ai-exec-1/note"]});
        assert_eq!(call(run, "ai-exec-2", read).await["stdout"], "kept\n");
        for (cmd, told) in [
            (json!({"cmd": "id"}), "'cmd' must be a list of strings (or set shell=true)"),
            (json!({"cmd": ["id"], "shell": true}), "'cmd' must be a string when shell=true"),
            (json!({}), "missing 'cmd'"),
            (json!({"cmd": ["sleep", "9"], "timeout": 0.5}), "timeout after 0.5s"),
        ] {
            let answer = call(run, "ai-exec-1", cmd).await;
            assert_eq!(answer, json!({"ok": false, "error": told}));
        }
        let echo = json!({"cmd": ["cat"], "stdin": "in"});
        assert_eq!(call(run, "ai-exec-1", echo).await["stdout"], "in");
        for target in ["work", "nosuch", "@adminvm", "salt-bridge"] {
            let whoami = json!({"cmd": ["whoami"]});
            let answer = call(run, target, whoami).await;
            assert!(
                ["", "not found"].map(Value::from).contains(answer.get("error").unwrap_or(&answer))
            );
            let away = json!({"target": target, "path": "/tmp/note"});
            assert_eq!(call("qmcp.CopyToAIManaged", "ai-exec-1", away).await["ok"], false);
        }
        // A disposable that the agent made is its own; one with the same tags is not.
        let spawn =
            json!({"name": "ai-dvmt", "template": "ai-debian-13", "klass": "DispVMTemplate"});
        assert_eq!(call("qmcp.SpawnAIManagedQube", "@adminvm", spawn).await["ok"], true);
        let made = json!({"template": "ai-dvmt"});
        let made = call("qmcp.SpawnDisposableAIManaged", "@adminvm", made).await;
        let name = made["name"].as_str().unwrap();
        let whoami = call(run, name, json!({"cmd": ["id", "-u"]})).await;
        assert_eq!((&whoami["rc"], &whoami["stdout"]), (&json!(0), &json!("0\n")));
        let kill = json!({"name": name, "action": "kill"});
        assert_eq!(call("qmcp.LifecycleAIManaged", "@adminvm", kill).await["ok"], true);
        machine.host.set_scope("@agent salt-bridge\n@compat qmcp\n@tag:ai-managed see\n").unwrap();
        assert_eq!(call(run, "ai-exec-1", json!({"cmd": ["id"]})).await, "");
        assert_eq!(call("qmcp.CopyToAIManaged", "ai-exec-1", copy).await, "");
    });
}
