//! Jobs: they outlive calls, sessions and the daemon, and never their grant.

use salt_bridge_sim::McpClient;
use serde_json::{Value, json};

use super::machine::{ERAS, Machine, error, ok, on_host, until};

async fn start(client: &mut McpClient, qube: &str, command: &str) -> String {
    let result = ok(client, "start_job", json!({"vm_name": qube, "command": command})).await;
    result["handle"].as_str().unwrap().to_owned()
}

fn read(qube: &str, handle: &str, from: i64, wait: u64) -> Value {
    json!({"vm_name": qube, "handle": handle, "from": from, "wait_seconds": wait})
}

fn runs(machine: &Machine, qube: &str) -> bool {
    let line = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let pids = machine.host.processes(qube).unwrap();
    pids.into_iter().any(|pid| String::from_utf8_lossy(&line(pid)).contains("98765"))
}

#[test]
fn a_job_outlives_its_session_and_is_found_read_and_stopped_again() {
    on_host(async |machine| {
        for era in ERAS {
            let mut first = McpClient::start(&machine.host, era).await.unwrap();
            let command = "echo begun; echo wrong >&2; sleep 98765";
            let handle = start(&mut first, "work", command).await;
            let result = ok(&mut first, "job_output", read("work", &handle, 0, 30)).await;
            assert_eq!(
                (&result["state"], &result["output"]),
                (&json!("running"), &json!("begun\n"))
            );
            assert_eq!((&result["next"], &result["exit_code"]), (&json!(6), &Value::Null));
            assert!(result["hint"].as_str().unwrap().contains("from=6, wait_seconds=60"));
            drop(first);
            let mut second = McpClient::start(&machine.host, era).await.unwrap();
            let list = ok(&mut second, "list_jobs", json!({"vm_name": "work"})).await;
            let job = list["jobs"].as_array().unwrap().last().unwrap();
            assert_eq!((&job["handle"], &job["state"]), (&json!(handle), &json!("running")));
            assert_eq!((&job["command"], &job["stderr_bytes"]), (&json!(command), &json!(6)));
            let stop = json!({"vm_name": "work", "handle": handle});
            let result = ok(&mut second, "stop_job", stop.clone()).await;
            assert_eq!((&result["state"], &result["changed"]), (&json!("ended"), &json!(true)));
            assert!(!runs(machine, "work"));
            let result = ok(&mut second, "stop_job", stop).await;
            assert_eq!((&result["state"], &result["changed"]), (&json!("ended"), &json!(false)));
            let result = ok(&mut second, "job_output", read("work", &handle, -4, 0)).await;
            assert_eq!((&result["stopped"], &result["output"]), (&json!(true), &json!("gun\n")));
            assert_eq!(result["hint"], Value::Null);
            let forget = json!({"vm_name": "work", "handle": handle, "forget": true});
            ok(&mut second, "stop_job", forget).await;
            error(&mut second, "job_output", read("work", &handle, 0, 0)).await;
        }
    });
}

#[test]
fn a_job_as_root_is_root_and_a_code_of_its_own_is_told() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let arguments = json!({"vm_name": "work", "argv": ["bash", "-c", "id -u; cat; exit 124"],
            "cwd": "/", "stdin": "é€"});
        let result = ok(&mut client, "start_job_root", arguments).await;
        let handle = result["handle"].as_str().unwrap();
        let result = ok(&mut client, "job_output", read("work", handle, -100, 30)).await;
        assert_eq!((&result["state"], &result["exit_code"]), (&json!("ended"), &json!(124)));
        assert_eq!((&result["timed_out"], &result["stopped"]), (&json!(false), &json!(false)));
        assert!(result["output"].as_str().unwrap().ends_with("\né€"), "{result}");
        let mut cut = read("work", handle, 0, 0);
        cut["max_output"] = json!(4);
        let result = ok(&mut client, "job_output", cut).await;
        assert!(result.get("output_encoding").is_none(), "no character is split: {result}");
        let odd = json!({"vm_name": "work", "command": "id", "cwd": "none"});
        let sentence = error(&mut client, "start_job", odd).await;
        assert!(sentence.contains("nothing was run"), "{sentence}");
        assert_eq!(
            ok(&mut client, "list_jobs", json!({})).await["jobs"].as_array().unwrap().len(),
            1
        );
    });
}

#[test]
fn a_job_ends_with_its_grant_and_with_a_pause() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        for scope in ["@agent salt-bridge\nwork see\n", "@agent salt-bridge\ndev\n", "nonsense\n"] {
            machine.host.install(super::machine::SCOPE).unwrap();
            start(&mut client, "work", "sleep 98765").await;
            until("it runs", || runs(machine, "work"));
            let file = machine.host.root().join("etc/qubes/salt-bridge-allowed-vms");
            std::fs::write(file, scope).unwrap();
            until("it was stopped", || !runs(machine, "work"));
        }
        machine.host.install(super::machine::SCOPE).unwrap();
        let handle = start(&mut client, "work", "sleep 98765").await;
        until("it runs", || runs(machine, "work"));
        let paused = machine.host.root().join("etc/salt-bridge");
        std::fs::create_dir_all(&paused).unwrap();
        std::fs::write(paused.join("paused"), "{}").unwrap();
        until("it was stopped", || !runs(machine, "work"));
        std::fs::remove_file(paused.join("paused")).unwrap();
        let result = ok(&mut client, "job_output", read("work", &handle, 0, 30)).await;
        assert_eq!((&result["state"], &result["stopped"]), (&json!("ended"), &json!(true)));
    });
}

#[test]
fn a_job_in_a_qube_that_was_shut_down_is_lost() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let handle = start(&mut client, "work", "echo a; sleep 98765").await;
        ok(&mut client, "job_output", read("work", &handle, 0, 30)).await;
        ok(&mut client, "shutdown_vm", json!({"vm_name": "work"})).await;
        let result = ok(&mut client, "job_output", read("work", &handle, 0, 0)).await;
        assert_eq!((&result["state"], &result["exit_code"]), (&json!("lost"), &Value::Null));
        ok(&mut client, "start_vm", json!({"vm_name": "work"})).await;
        let result = ok(&mut client, "job_output", read("work", &handle, 0, 0)).await;
        assert_eq!(result["state"], "lost");
    });
}

#[test]
fn handles_that_are_not_the_agents_own_are_answered_alike() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let handle = start(&mut client, "work", "true").await;
        let mut answers = Vec::new();
        for (qube, handle) in [
            ("work", "0".repeat(32)),
            ("work", "../x".into()),
            ("dev", handle.clone()),
            ("work", String::new()),
        ] {
            for tool in ["stop_job", "job_output"] {
                let arguments = json!({"vm_name": qube, "handle": handle});
                answers.push(error(&mut client, tool, arguments).await);
            }
        }
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:?}");
    });
}
