//! Who is out of reach, and that nobody can tell why.

use rmcp::model::CallToolResult;
use salt_bridge_sim::{McpClient, PowerState};
use serde_json::{Map, Value, json};

use super::machine::{ERAS, Machine, error, object, on_host};

/// Every tool that is aimed at a qube, with arguments that would work.
fn aimed() -> [(&'static str, &'static str, Value); 10] {
    [
        ("start_vm", "VmStart", json!({})),
        ("shutdown_vm", "VmShutdown", json!({})),
        ("vm_network_info", "VmNetworkInfo", json!({})),
        ("exec_in_vm", "VmExec", json!({"command": "id"})),
        ("exec_in_vm_root", "VmExecRoot", json!({"command": "id"})),
        ("read_file_in_vm", "VmReadFile", json!({"file_path": "/etc/passwd"})),
        ("write_file_in_vm", "VmWriteFile", json!({"file_path": "x", "content": "x"})),
        ("firewall_list", "FirewallList", json!({})),
        ("firewall_add", "FirewallAdd", json!({"action": "drop"})),
        ("firewall_remove", "FirewallRemove", json!({"rule_number": 0})),
    ]
}

/// Names that must never lead anywhere, in every spelling that qrexec knows.
fn strangers(machine: &Machine) -> Vec<String> {
    let uuid = |qube: &str| format!("uuid:{}", machine.host.uuid(qube).unwrap());
    let mut names: Vec<String> = [
        "vault",
        "personal",
        "sys-net",
        "sys-firewall",
        "fedora-42",
        "default-dvm",
        "no-such-qube",
        "dom0",
        "Dom0",
        "DOM0",
        "dom-0",
        "Domain-0",
        "@adminvm",
        "@default",
        "@dispvm",
        "@dispvm:default-dvm",
        "@anyvm",
        "@tag:ai-managed",
        "uuid:00000000-0000-0000-0000-000000000000",
        "UUID:00000000-0000-0000-0000-000000000000",
        "salt-bridge",
        "Salt-Bridge",
        "WORK",
        "none",
    ]
    .map(str::to_owned)
    .into();
    names.extend([uuid("vault"), uuid("work"), uuid("salt-bridge")]);
    names
}

async fn call(client: &mut McpClient, tool: &str, arguments: Value) -> CallToolResult {
    client.call(tool, object(arguments)).await.unwrap()
}

fn with(arguments: &Value, qube: &str) -> Value {
    let mut arguments: Map<String, Value> = object(arguments.clone());
    arguments.insert("vm_name".into(), qube.into());
    arguments.into()
}

/// Everything that a call could have changed.
fn changed(machine: &Machine) -> bool {
    let halted = ["vault", "personal", "default-dvm", "dev", "test", "ro"];
    halted.iter().any(|q| machine.host.power_state(q).unwrap() != PowerState::Halted)
        || ["vault", "work"]
            .iter()
            .any(|q| !machine.dom0(&format!("var/lib/qubes/appvms/{q}/firewall.xml")).is_empty())
        || machine.home("vault").join("x").exists()
        || !machine.dom0("etc/qubes/policy.d/30-salt-bridge-tcp.policy").is_empty()
}

#[test]
fn every_tool_answers_the_same_for_every_name_out_of_reach_in_both_eras() {
    on_host(async |machine| {
        let strangers = strangers(machine);
        let mut answers = Vec::new();
        for era in ERAS {
            let mut client = McpClient::start(&machine.host, era).await.unwrap();
            for (index, (tool, _, arguments)) in aimed().into_iter().enumerate() {
                for (turn, name) in strangers.iter().enumerate() {
                    // Every tool meets the important names, and each name meets several tools.
                    let important = ["vault", "no-such-qube", "dom0", "salt-bridge", "@adminvm"];
                    if important.contains(&name.as_str()) || turn % 5 == index % 5 {
                        let answer = call(&mut client, tool, with(&arguments, name)).await;
                        answers.push((format!("{tool} {name}"), answer));
                    }
                }
                let answer = call(&mut client, tool, with(&arguments, "ghost")).await;
                answers.push((tool.to_owned(), answer));
            }
            for (source, target) in [
                ("work", "vault"),
                ("vault", "work"),
                ("work", "no-such-qube"),
                ("work", "dom0"),
                ("dom0", "work"),
                ("work", "salt-bridge"),
                ("salt-bridge", "work"),
                ("work", "test"),
                ("ro", "work"),
            ] {
                let add = json!({"action": "add", "source": source, "target": target, "port": 22});
                let answer = call(&mut client, "connect_tcp_policy", add).await;
                answers.push((format!("connect_tcp_policy {source} {target}"), answer));
            }
        }
        let first = answers.first().unwrap().1.clone();
        assert_eq!(first.is_error, Some(true));
        for (what, answer) in &answers {
            assert_eq!(answer.content, first.content, "{what}");
            assert_eq!(answer.structured_content, None, "{what}");
            assert_eq!(answer.is_error, first.is_error, "{what}");
        }
        assert!(!changed(machine));
    });
}

#[test]
fn a_power_that_was_not_granted_is_refused_with_the_same_words() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let unknown = error(&mut client, "start_vm", json!({"vm_name": "no-such-qube"})).await;
        for (tool, arguments) in [
            ("start_vm", json!({"vm_name": "test"})),
            ("exec_in_vm", json!({"vm_name": "ro", "command": "id"})),
            ("exec_in_vm_root", json!({"vm_name": "ai-build", "command": "id"})),
            ("firewall_add", json!({"vm_name": "ai-build", "action": "drop"})),
            ("write_file_in_vm", json!({"vm_name": "test", "file_path": "x", "content": ""})),
        ] {
            assert_eq!(error(&mut client, tool, arguments).await, unknown, "{tool}");
        }
        assert!(!changed(machine));
    });
}

#[test]
fn a_halted_qube_without_the_power_to_start_it_is_said_to_be_halted() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let read = json!({"vm_name": "ro", "file_path": "/etc/passwd"});
        let sentence = error(&mut client, "read_file_in_vm", read).await;
        assert!(sentence.contains("not running"), "{sentence}");
        assert!(!changed(machine));
    });
}

#[test]
fn qrexec_refuses_the_older_program_with_the_same_bytes_whatever_the_reason() {
    on_host(async |machine| {
        let mut told = Vec::new();
        for (_, service, _) in aimed() {
            for name in ["vault", "no-such-qube", "dom0", "DOM0", "salt-bridge", "test.x", ""] {
                told.push(machine.plain(&format!("{service}+{name}"), "{}\n").await);
            }
            told.push(machine.plain(service, "{}\n").await);
            let foreign = machine.qrexec_from("dev", "dom0", &format!("saltbridge.{service}+work"));
            told.push(Machine::finish(foreign, b"{}\n").await);
        }
        told.push(machine.plain("Nope+work", "{}\n").await);
        told.push(machine.plain("VmExecRoot+ro", "{}\n").await);
        told.push(
            Machine::finish(machine.qrexec_from("vault", "dom0", "saltbridge.VmList"), b"").await,
        );
        for told in told {
            assert_eq!((told.code, told.stdout.as_str()), (126, ""), "{told:?}");
            assert_eq!(told.stderr, "Request refused\n");
        }
        assert!(!changed(machine));
    });
}

#[test]
fn the_daemon_refuses_what_policy_still_allows_with_one_and_the_same_line() {
    on_host(async |machine| {
        let scope = machine.host.root().join("etc/qubes/salt-bridge-allowed-vms");
        let good = std::fs::read_to_string(&scope).unwrap();
        let mut told = Vec::new();
        let mut shown = Vec::new();
        let mut client = machine.client().await;
        for text in [
            "",
            "work\n",
            "@agent salt-bridge\ndev\n",
            "@agent salt-bridge\nwork see\n",
            "@agent helper\nwork\n",
            "@agent salt-bridge\nwork until=2020-01-01T00:00:00Z\n",
            "@agent salt-bridge\nwork\nwork bogus-power\n",
        ] {
            std::fs::write(&scope, text).unwrap();
            told.push(machine.plain("VmExec+work", "{\"cmd\":\"id\"}\n").await);
            let exec = json!({"vm_name": "work", "command": "id"});
            shown.push(error(&mut client, "exec_in_vm", exec).await);
        }
        std::fs::remove_file(&scope).unwrap();
        told.push(machine.plain("VmExec+work", "{\"cmd\":\"id\"}\n").await);
        std::fs::write(scope.with_extension("real"), good).unwrap();
        std::os::unix::fs::symlink(scope.with_extension("real"), &scope).unwrap();
        told.push(machine.plain("VmExec+work", "{\"cmd\":\"id\"}\n").await);
        for told in &told {
            assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{told:?}");
            assert_eq!(told.stdout, "ERROR: request refused\n");
        }
        assert!(shown.iter().all(|sentence| sentence == "request refused"), "{shown:?}");
        assert!(!changed(machine));
    });
}
