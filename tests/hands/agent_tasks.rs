//! `docs/agent-tasks.md`: real tasks, with the calls and the bytes of answers that each takes. Made
//! from a run on a simulated host; `UPDATE_GOLDEN=1` renews it.
#![expect(clippy::disallowed_methods, reason = "reads the setting that renews the golden file")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};

use super::machine::{Machine, object, on_host, success};

/// A task, and the calls with which it is done.
struct Task {
    wish: &'static str,
    calls: Vec<(&'static str, Value)>,
}

fn task(wish: &'static str, calls: impl Into<Vec<(&'static str, Value)>>) -> Task {
    Task { wish, calls: calls.into() }
}

/// Files that the tasks are about, in the home of `work`.
fn prepare(machine: &Machine) {
    let home = machine.home("work");
    let made = |path: &str, text: &str| {
        let path = home.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let mut folder = path.parent().unwrap();
        while folder.starts_with(&home) && folder != home {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
            folder = folder.parent().unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    };
    for n in 0..40 {
        made(&format!("src/part{n:02}.conf"), &format!("name = part{n:02}\nlimit = {n}\n"));
    }
    made("src/web/server.conf", "listen = 8080\nworkers = 4\n");
    let mut log = String::new();
    for n in 0..20_000 {
        log.push_str(&format!("{n:05} request served\n"));
    }
    log.push_str("20000 error: no space left on device\n");
    made("log/server.log", &log);
    made("notes/old.txt", &"x".repeat(50_000));
}

/// Arguments of a call that is about `work`.
fn work(value: Value) -> Value {
    let mut arguments = object(json!({"vm_name": "work"}));
    arguments.extend(object(value));
    Value::Object(arguments)
}

fn tasks() -> Vec<Task> {
    tasks_with_files().into_iter().chain(tasks_with_qubes()).collect()
}

fn tasks_with_files() -> [Task; 6] {
    [
        task("See which qubes there are and what may be done with them", [("list_vms", json!({}))]),
        task(
            "Compare a setting in three qubes",
            [("exec_in_vms", json!({"vm_names": ["work", "dev", "ai-build"], "command": "umask"}))],
        ),
        task(
            "Change a setting whose file is not known",
            [
                ("search_in_vm", work(json!({"file_path": "src", "pattern": "listen = [0-9]+"}))),
                (
                    "edit_file_in_vm",
                    work(json!({"file_path": "src/web/server.conf", "old": "listen = 8080",
                        "new": "listen = 8443"})),
                ),
            ],
        ),
        task(
            "Find the error in a log of 440 kB",
            [("search_in_vm", work(json!({"file_path": "log", "pattern": "error", "context": 1})))],
        ),
        task(
            "See the end of that log",
            [("exec_in_vm", work(json!({"argv": ["tail", "-n", "5", "log/server.log"]})))],
        ),
        task(
            "See what takes the space in a home folder",
            [("list_dir_in_vm", work(json!({"file_path": ".", "depth": 2, "limit": 10})))],
        ),
    ]
}

fn tasks_with_qubes() -> [Task; 4] {
    [
        task(
            "Put a script into a qube and run it",
            [
                (
                    "write_file_in_vm",
                    work(json!({"file_path": "bin/hello", "mode": "0755",
                        "content": "#!/bin/sh\necho hello \"$1\"\n"})),
                ),
                ("exec_in_vm", work(json!({"argv": ["bin/hello", "a b"]}))),
            ],
        ),
        task(
            "Let a qube reach one more address, and nothing else",
            [
                ("firewall_list", work(json!({}))),
                (
                    "firewall_add",
                    work(json!({"action": "accept",
                        "args": "dsthost=192.0.2.7 proto=tcp dstports=443"})),
                ),
                ("firewall_add", work(json!({"action": "accept", "args": "specialtarget=dns"}))),
                ("firewall_remove", work(json!({"rule_number": 2, "expect": "action=accept"}))),
            ],
        ),
        task(
            "Let one qube connect to a port of another",
            [(
                "connect_tcp_policy",
                json!({"action": "add", "source": "work", "target": "dev", "port": 5432}),
            )],
        ),
        task(
            "Start a qube anew",
            [("shutdown_vm", work(json!({}))), ("start_vm", work(json!({})))],
        ),
    ]
}

/// How long the answer is in which all times took nothing.
fn length(mut value: Value) -> usize {
    fn still(value: &mut Value) {
        match value {
            Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| match value {
                Value::Number(_) if name == "duration_ms" => *value = 0.into(),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_)
                | Value::Object(_) => still(value),
            }),
            Value::Array(items) => items.iter_mut().for_each(still),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    still(&mut value);
    value.to_string().len()
}

const HEAD: &str = "\
# What real tasks cost

Ten tasks on the simulated host, with the calls that they take and the bytes of the answers that \
reach the model.
Made by a test that carries them out (`tests/hands/agent_tasks.rs`); changes made here are lost.

| task | calls | bytes of answers |
|---|---|---|
";

#[test]
fn the_cost_of_tasks_is_as_it_is_written_down() {
    on_host(async |machine| {
        prepare(machine);
        let mut client = machine.client().await;
        let mut document = HEAD.to_owned();
        for Task { wish, calls } in tasks() {
            let mut bytes = 0;
            let mut names = Vec::new();
            for (tool, arguments) in calls {
                let result = client.call(tool, object(arguments)).await.unwrap();
                bytes += length(success(&result));
                names.push(format!("`{tool}`"));
            }
            document.push_str(&format!("| {wish} | {} | {bytes} |\n", names.join(", ")));
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/agent-tasks.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &document).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(document, kept, "renew docs/agent-tasks.md with UPDATE_GOLDEN=1");
    });
}
