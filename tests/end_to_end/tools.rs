//! Names, parameters and results of the tools, as promised.

use rmcp::model::Tool;
use salt_bridge_sim::{McpClient, PowerState};
use serde_json::{Value, json};

use super::{
    machine::{ERAS, error, object, on_host, success},
    schema::misfit,
};

/// A tool: its name, its parameters with their defaults ("!" means required), and the fields of its
/// result with the types that JSON tells apart.
type Promise = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [(&'static str, &'static str)],
);

const EXEC: &[(&str, &str)] = &[
    ("vm_name", "!"),
    ("command", "null"),
    ("argv", "null"),
    ("cwd", "null"),
    ("env", "{}"),
    ("stdin", "null"),
    ("stdin_encoding", "\"utf-8\""),
    ("timeout_seconds", "30"),
    ("max_output", "8000"),
];
const EXECUTED: &[(&str, &str)] = &[
    ("exit_code", "integer null"),
    ("stdout", "string"),
    ("stderr", "string"),
    ("timed_out", "boolean"),
    ("truncated", "boolean"),
    ("duration_ms", "integer"),
];

const PROMISES: [Promise; 12] = [
    ("list_vms", &[], &[("vms", "array")]),
    ("start_vm", &[("vm_name", "!")], &[("state", "string"), ("changed", "boolean")]),
    (
        "shutdown_vm",
        &[("vm_name", "!"), ("timeout_seconds", "60"), ("force", "false")],
        &[("state", "string"), ("changed", "boolean")],
    ),
    (
        "vm_network_info",
        &[("vm_name", "!")],
        &[
            ("properties", "object"),
            ("interfaces", "array"),
            ("routes", "array"),
            ("dns", "array object"),
            ("firewall", "array object"),
            ("wireguard", "array"),
            ("raw", "object"),
        ],
    ),
    ("exec_in_vm", EXEC, EXECUTED),
    ("exec_in_vm_root", EXEC, EXECUTED),
    (
        "read_file_in_vm",
        &[
            ("vm_name", "!"),
            ("file_path", "\"\""),
            ("file_path_base64", "null"),
            ("offset", "0"),
            ("length", "null"),
        ],
        &[
            ("content", "string"),
            ("encoding", "string"),
            ("size", "integer"),
            ("offset", "integer"),
            ("eof", "boolean"),
        ],
    ),
    (
        "write_file_in_vm",
        &[
            ("vm_name", "!"),
            ("file_path", "\"\""),
            ("file_path_base64", "null"),
            ("content", "!"),
            ("encoding", "\"utf-8\""),
            ("mode", "null"),
            ("append", "false"),
            ("create_only", "false"),
            ("if_sha256", "null"),
        ],
        &[("path", "string"), ("bytes_written", "integer"), ("created", "boolean")],
    ),
    ("firewall_list", &[("vm_name", "!")], &[("rules", "array")]),
    (
        "firewall_add",
        &[("vm_name", "!"), ("action", "!"), ("args", "\"\""), ("position", "null")],
        &[("number", "integer"), ("shadowed_by", "integer null"), ("rules", "array")],
    ),
    (
        "firewall_remove",
        &[("vm_name", "!"), ("rule_number", "!"), ("expect", "null")],
        &[("rules", "array")],
    ),
    (
        "connect_tcp_policy",
        &[("action", "!"), ("source", "\"\""), ("target", "\"\""), ("port", "0")],
        &[("rules", "array"), ("changed", "boolean")],
    ),
];

/// Calls in an order in which each has something to do.
fn calls() -> Vec<(&'static str, Value)> {
    let tcp =
        |action: &str| json!({"action": action, "source": "work", "target": "dev", "port": 22});
    vec![
        ("list_vms", json!({})),
        ("start_vm", json!({"vm_name": "dev"})),
        ("exec_in_vm", json!({"vm_name": "dev", "command": "exit 3"})),
        ("exec_in_vm", json!({"vm_name": "dev", "command": "cat", "timeout_seconds": 1})),
        ("exec_in_vm", json!({"vm_name": "dev", "command": "sleep 99", "timeout_seconds": 1})),
        ("exec_in_vm_root", json!({"vm_name": "dev", "command": "printf '\\377' >&2"})),
        ("write_file_in_vm", json!({"vm_name": "dev", "file_path": "f", "content": "x"})),
        ("read_file_in_vm", json!({"vm_name": "dev", "file_path": "f"})),
        ("firewall_add", json!({"vm_name": "dev", "action": "drop", "args": "192.0.2.1 tcp 443"})),
        ("firewall_list", json!({"vm_name": "dev"})),
        ("firewall_remove", json!({"vm_name": "dev", "rule_number": 0})),
        ("connect_tcp_policy", tcp("add")),
        ("connect_tcp_policy", json!({"action": "list"})),
        ("connect_tcp_policy", tcp("remove")),
        ("vm_network_info", json!({"vm_name": "dev"})),
        ("shutdown_vm", json!({"vm_name": "dev"})),
        ("vm_network_info", json!({"vm_name": "dev"})),
    ]
}

async fn tool(client: &McpClient, name: &str) -> Tool {
    client.tools().await.unwrap().into_iter().find(|tool| tool.name == name).unwrap()
}

fn is_one_of(types: &str, value: &Value) -> bool {
    types.split(' ').any(|name| misfit(&Value::Null, &json!({"type": name}), value).is_none())
}

#[test]
fn the_tools_of_the_older_program_have_the_promised_names_and_parameters_in_both_eras() {
    on_host(async |machine| {
        for era in ERAS {
            let client = McpClient::start(&machine.host, era).await.unwrap();
            let tools = client.tools().await.unwrap();
            let mut names: Vec<_> = tools.iter().map(|tool| tool.name.to_string()).collect();
            let mut promised: Vec<_> = PROMISES.map(|(name, ..)| name.to_owned()).into();
            names.sort();
            promised.sort();
            promised.retain(|name| !names.contains(name));
            assert!(promised.is_empty(), "missing: {promised:?}");
            for (name, parameters, _) in PROMISES {
                let tool = tool(&client, name).await;
                let schema = Value::from(tool.input_schema.as_ref().clone());
                let properties = schema["properties"].as_object().unwrap();
                for (parameter, _) in parameters {
                    assert!(properties.contains_key(*parameter), "{name} {parameter}");
                }
                let promised = |shown: &String| parameters.iter().any(|(name, _)| name == shown);
                let required = schema["required"].as_array().into_iter().flatten();
                let required = required.map(|name| name.as_str().unwrap().to_owned());
                assert!(required.into_iter().all(|name| promised(&name)), "{name} asks for more");
                for (parameter, default) in parameters {
                    let required = schema["required"].as_array().is_some_and(|required| {
                        required.iter().any(|name| name.as_str() == Some(parameter))
                    });
                    assert_eq!(required, *default == "!", "{name} {parameter}");
                    if !required {
                        let default: Value = serde_json::from_str(default).unwrap();
                        let shown = schema["properties"][parameter].get("default");
                        assert_eq!(shown.unwrap_or(&Value::Null), &default, "{name} {parameter}");
                    }
                }
                assert!(tool.title.is_some() && tool.output_schema.is_some(), "{name}");
                let hints = tool.annotations.expect("annotations");
                assert!(hints.read_only_hint.is_some() && hints.destructive_hint.is_some());
                assert!(hints.idempotent_hint.is_some() && hints.open_world_hint.is_some());
                assert!(tool.description.is_some_and(|text| text.len() < 2048), "{name}");
            }
        }
    });
}

#[test]
fn every_result_has_the_promised_fields_and_fits_the_output_schema_in_both_eras() {
    on_host(async |machine| {
        for era in ERAS {
            let mut client = McpClient::start(&machine.host, era).await.unwrap();
            for (name, arguments) in calls() {
                let result = client.call(name, object(arguments.clone())).await.unwrap();
                let value = success(&result);
                let (_, _, fields) = PROMISES.iter().find(|(tool, ..)| *tool == name).unwrap();
                for (field, types) in *fields {
                    let got = value.get(*field);
                    let got = got.unwrap_or_else(|| panic!("{name} lacks {field}: {value}"));
                    assert!(is_one_of(types, got), "{name} {field}: {got}");
                }
                let schema = tool(&client, name).await.output_schema.unwrap();
                let schema = Value::from(schema.as_ref().clone());
                assert_eq!(misfit(&schema, &schema, &value), None, "{name} {arguments}");
            }
            assert_eq!(client.called().len(), PROMISES.len(), "every tool was called");
            assert_eq!(machine.host.power_state("dev").unwrap(), PowerState::Halted);
        }
    });
}

#[test]
fn a_list_shows_the_qubes_in_scope_with_their_powers_and_no_other() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let list = success(&client.call("list_vms", object(json!({}))).await.unwrap());
        let vms = list["vms"].as_array().unwrap();
        let names: Vec<_> = vms.iter().map(|vm| vm["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["ai-build", "ai-test", "dev", "ro", "test", "work"]);
        for vm in vms {
            for (field, types) in [
                ("name", "string"),
                ("state", "string"),
                ("class", "string"),
                ("netvm", "string null"),
                ("ip", "string null"),
                ("label", "string"),
                ("powers", "array"),
            ] {
                let got = vm.get(field).unwrap_or_else(|| panic!("no {field}: {vm}"));
                assert!(is_one_of(types, got), "{field}: {vm}");
            }
        }
        let of = |name: &str| vms.iter().find(|vm| vm["name"] == name).unwrap();
        assert_eq!(of("work")["state"], "Running");
        assert_eq!(of("dev")["state"], "Halted");
        let all = ["see", "lifecycle", "exec", "root", "files", "net"];
        assert_eq!(of("work")["powers"], json!(all));
        assert_eq!(of("ai-build")["powers"], json!(["see", "exec", "files"]));
        assert_eq!(of("ro")["powers"], json!(["see", "files"]));
    });
}

/// Calls with a value that the tool does not take.
fn wrong_calls() -> Vec<(&'static str, Value)> {
    vec![
        ("start_vm", json!({})),
        ("start_vm", json!({"vm_name": 7})),
        ("exec_in_vm", json!({"vm_name": "work"})),
        ("exec_in_vm", json!({"vm_name": "work", "command": ""})),
        ("exec_in_vm", json!({"vm_name": "work", "command": "id", "argv": ["id"]})),
        ("exec_in_vm", json!({"vm_name": "work", "argv": []})),
        ("exec_in_vm", json!({"vm_name": "work", "argv": "id"})),
        ("exec_in_vm", json!({"vm_name": "work", "argv": ["touch", "y"], "cwd": "none"})),
        ("exec_in_vm", json!({"vm_name": "work", "command": "id", "env": {"1": "x"}})),
        ("exec_in_vm", json!({"vm_name": "work", "command": "id", "env": {"A": 1}})),
        ("exec_in_vm", json!({"vm_name": "work", "command": "id", "timeout_seconds": 0})),
        ("exec_in_vm", json!({"vm_name": "work", "command": "id", "timeout_seconds": "x"})),
        ("exec_in_vm", json!({"vm_name": "work", "command": "id", "max_output": 9_999_999})),
        ("exec_in_vm", json!({"vm_name": "work", "command": "x".repeat(61 * 1024)})),
        ("read_file_in_vm", json!({"vm_name": "work"})),
        ("read_file_in_vm", json!({"vm_name": "work", "file_path": "/etc/passwd", "length": 0})),
        (
            "write_file_in_vm",
            json!({"vm_name": "work", "file_path": "y", "content": "=", "encoding": "base64"}),
        ),
        (
            "write_file_in_vm",
            json!({"vm_name": "work", "file_path": "y", "content": "", "encoding": "latin-1"}),
        ),
        (
            "write_file_in_vm",
            json!({"vm_name": "work", "file_path": "y", "content": "", "mode": "rw"}),
        ),
        ("firewall_add", json!({"vm_name": "work", "action": "reject"})),
        ("firewall_add", json!({"vm_name": "work", "action": "drop", "args": "dsthost=a;b"})),
        ("firewall_add", json!({"vm_name": "work", "action": "drop", "args": "nonsense=1"})),
        (
            "firewall_add",
            json!({"vm_name": "work", "action": "drop", "args": "dsthost=10.0.0.0/99"}),
        ),
        ("firewall_add", json!({"vm_name": "work", "action": "drop", "position": 9})),
        ("firewall_remove", json!({"vm_name": "work", "rule_number": 9})),
        ("firewall_remove", json!({"vm_name": "work", "rule_number": -1})),
        ("connect_tcp_policy", json!({"action": "frob"})),
        (
            "connect_tcp_policy",
            json!({"action": "add", "source": "work", "target": "dev", "port": 0}),
        ),
        (
            "connect_tcp_policy",
            json!({"action": "add", "source": "work", "target": "dev", "port": 65536}),
        ),
    ]
}

#[test]
fn wrong_arguments_are_errors_for_the_model_in_both_eras_and_change_nothing() {
    on_host(async |machine| {
        for era in ERAS {
            let mut client = McpClient::start(&machine.host, era).await.unwrap();
            for (name, arguments) in calls() {
                let mut arguments = object(arguments);
                arguments.insert("no_such_argument".into(), json!(1));
                let sentence = error(&mut client, name, arguments.into()).await;
                assert!(sentence.contains("no_such_argument"), "{name}: {sentence}");
            }
            for (name, arguments) in wrong_calls() {
                error(&mut client, name, arguments).await;
            }
            assert!(client.call("no_such_tool", object(json!({}))).await.is_err());
        }
        assert!(!machine.home("work").join("y").exists());
        assert_eq!(machine.dom0("etc/qubes/policy.d/30-salt-bridge-tcp.policy"), "");
        assert_eq!(machine.dom0("var/lib/qubes/appvms/work/firewall.xml"), "");
        assert_eq!(machine.host.power_state("dev").unwrap(), PowerState::Halted);
    });
}
