//! `salt-bridge call`, `doctor` and `topology`.

use std::path::Path;

use serde_json::{Value, json};

use super::{machine::on_host, terminal::run};

const HERE: &str = "/";

#[test]
fn a_call_from_a_terminal_ends_as_its_command_ended() {
    on_host(async |machine| {
        let call = async |tool: &str, arguments: Value, more: &[&str]| {
            let arguments = arguments.to_string();
            run(machine, Path::new(HERE), &[&["call", tool, &arguments], more].concat()).await
        };
        let exec = |command: &str| json!({"vm_name": "work", "command": command});
        let told = call("exec_in_vm", exec("echo out; echo err >&2; exit 3"), &[]).await;
        assert_eq!((told.code, told.stdout.as_str(), told.stderr.as_str()), (3, "out\n", "err\n"));
        let told = call("exec_in_vm", exec("echo out"), &["--json"]).await;
        let result: Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!((told.code, &result["stdout"]), (0, &json!("out\n")));
        let told = call("exec_in_vm", json!({"vm_name": "vault", "command": "id"}), &[]).await;
        assert_eq!((told.code, told.stderr.as_str()), (126, "salt-bridge: request refused\n"));
        let told = call("exec_in_vm", json!({"vm_name": "work"}), &[]).await;
        assert_eq!(told.code, 2, "{told:?}");
        let several = json!({"vm_names": ["work", "dev"], "command": "exit 4"});
        let told = call("exec_in_vms", several, &["--json"]).await;
        let result: Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!((told.code, &result["failed"]), (0, &json!(0)));
        assert_eq!(result["results"][1]["result"]["exit_code"], 4);
        let told = call("nope", json!({}), &[]).await;
        assert!(told.code == 1 && told.stderr.contains("there are: list_vms"), "{told:?}");
    });
}

#[test]
fn doctor_says_whether_dom0_answers_and_what_it_grants() {
    on_host(async |machine| {
        let told = run(machine, Path::new(HERE), &["doctor"]).await;
        assert_eq!(told.code, 0, "{told:?}");
        assert!(told.stdout.contains("test (Halted): see\n"), "{told:?}");
        std::fs::remove_file(machine.host.root().join("etc/qubes/salt-bridge-allowed-vms"))
            .unwrap();
        let told = run(machine, Path::new(HERE), &["doctor", "--json"]).await;
        let findings: Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!((told.code, &findings["ok"]), (1, &json!(false)));
        let findings = findings["findings"].as_array().unwrap();
        let to_do = findings.iter().find_map(|finding| finding["to_do"].as_str()).unwrap();
        assert!(to_do.contains("saltbridged explain"), "{to_do}");
    });
}

#[test]
fn the_topology_is_drawn_in_every_form() {
    on_host(async |machine| {
        for (form, expected) in [
            (None, "sys-firewall"),
            (Some("--svg"), "<svg"),
            (Some("--mermaid"), "flowchart LR"),
            (Some("--json"), "{\"vms\":["),
        ] {
            let mut arguments = vec!["topology"];
            arguments.extend(form);
            let told = run(machine, Path::new(HERE), &arguments).await;
            assert!(told.code == 0 && told.stdout.contains(expected), "{form:?} {told:?}");
            assert!(told.stdout.contains("work") && !told.stdout.contains("vault"), "{told:?}");
        }
    });
}
