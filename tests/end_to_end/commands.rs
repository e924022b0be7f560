//! Commands: what comes back, what they leave behind, and how they are ended.

use std::time::{Duration, Instant};

use rmcp::{
    model::{CallToolRequest, CallToolRequestParams, ClientRequest},
    service::{PeerRequestOptions, ServiceError},
};
use salt_bridge_sim::{McpClient, PowerState};
use serde_json::{Value, json};

use super::machine::{ERAS, error, object, ok, on_host, success, until};

fn exec(qube: &str, command: &str) -> Value {
    json!({"vm_name": qube, "command": command})
}

#[test]
fn a_command_returns_its_code_and_both_streams_apart() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let command = "echo out; echo err >&2; printf 'no newline'; exit 3";
        let result = ok(&mut client, "exec_in_vm", exec("work", command)).await;
        assert_eq!(result["exit_code"], 3);
        assert_eq!(result["stdout"], "out\nno newline");
        assert_eq!(result["stderr"], "err\n");
        assert_eq!((&result["timed_out"], &result["truncated"]), (&json!(false), &json!(false)));
        for code in [0, 1, 2, 124, 125, 126, 127, 128, 137, 255] {
            let command = format!("exit {code}");
            let result = ok(&mut client, "exec_in_vm", exec("work", &command)).await;
            assert_eq!(result["exit_code"], code);
        }
        let result = ok(&mut client, "exec_in_vm", exec("work", "kill -9 $$")).await;
        assert_eq!(result["exit_code"], 137);
    });
}

#[test]
fn a_command_as_root_is_root_and_the_other_is_not() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let root = ok(&mut client, "exec_in_vm_root", exec("work", "id -u; echo $HOME")).await;
        let user = ok(&mut client, "exec_in_vm", exec("work", "id -u")).await;
        assert_eq!(user["exit_code"], 0);
        if machine.host.mode() == salt_bridge_sim::Mode::Root {
            assert_eq!(root["stdout"], "0\n/root\n");
            assert_eq!(user["stdout"], "1000\n");
        }
    });
}

#[test]
fn a_program_runs_exactly_in_its_folder_with_its_variables_and_its_input() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let script = "printf '%s|' \"$PWD\" \"$A\" \"$@\"; cat";
        let arguments = json!({"vm_name": "work", "argv": ["bash", "-c", script, "x", "a b", "*"],
            "cwd": "/tmp", "env": {"A": "it's"}, "stdin": "/wA=", "stdin_encoding": "base64"});
        for tool in ["exec_in_vm", "exec_in_vm_root"] {
            let result = ok(&mut client, tool, arguments.clone()).await;
            assert_eq!(result["exit_code"], 0, "{result}");
            assert_eq!(result["stdout_bytes"], 18, "{result}");
        }
        let arguments = json!({"vm_name": "work", "argv": ["cat"], "stdin": "one\ntwo"});
        assert_eq!(ok(&mut client, "exec_in_vm", arguments).await["stdout"], "one\ntwo");
        let missing = json!({"vm_name": "work", "argv": ["no such program"]});
        let result = ok(&mut client, "exec_in_vm", missing).await;
        assert_eq!(result["exit_code"], 127);
        assert!(result["stderr"].as_str().unwrap().contains("no such program: not found"));
        let nowhere = json!({"vm_name": "work", "command": "touch ran", "cwd": "none"});
        let sentence = error(&mut client, "exec_in_vm", nowhere).await;
        assert!(sentence.contains("cwd \"none\": No such file or directory"), "{sentence}");
        assert!(!machine.home("work").join("ran").exists());
    });
}

#[test]
fn output_of_any_bytes_comes_exactly_or_with_both_ends_kept() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let result = ok(&mut client, "exec_in_vm", exec("work", "printf '\\377\\0\\n'")).await;
        assert_eq!(
            (&result["stdout"], &result["stdout_encoding"]),
            (&json!("/wAK"), &json!("base64"))
        );
        let result = ok(&mut client, "exec_in_vm", exec("work", "printf 'a\\0ü\\n'")).await;
        assert_eq!(result["stdout"], "a\0ü\n");
        let result = ok(&mut client, "exec_in_vm", exec("work", "seq 1 100000")).await;
        let stdout = result["stdout"].as_str().unwrap();
        assert_eq!(result["truncated"], true);
        assert_eq!(result["stdout_bytes"], 588_895);
        assert!(stdout.starts_with("1\n2\n3\n") && stdout.ends_with("\n99999\n100000\n"));
        assert!((7_000..9_000).contains(&stdout.len()), "{}", stdout.len());
        let all = json!({"vm_name": "work", "command": "seq 1 100000", "max_output": 2_097_152});
        let result = ok(&mut client, "exec_in_vm", all).await;
        assert_eq!(result["stdout"].as_str().unwrap().len(), 588_895);
        assert_eq!(result["truncated"], false);
    });
}

#[test]
fn a_command_that_takes_too_long_is_dead_with_its_children_and_its_output_is_returned() {
    on_host(async |machine| {
        for era in ERAS {
            let mut client = McpClient::start(&machine.host, era).await.unwrap();
            let command = "trap '' TERM; echo begun; echo late >&2; (setsid sleep 98765 &) ; \
                           sleep 98765 & sleep 98765; sleep 98765";
            let arguments = json!({"vm_name": "work", "command": command, "timeout_seconds": 1});
            let began = Instant::now();
            let result = ok(&mut client, "exec_in_vm", arguments).await;
            assert_eq!((&result["timed_out"], &result["exit_code"]), (&json!(true), &Value::Null));
            assert_eq!(result["stdout"], "begun\n");
            assert!(result["hint"].as_str().unwrap().contains("start_job(vm_name=\"work\""));
            // The shell may still tell that its children were killed.
            assert!(result["stderr"].as_str().unwrap().starts_with("late\n"), "{result}");
            assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
            assert!(result["duration_ms"].as_u64().unwrap() >= 1000);
            until("all are dead", || machine.host.processes("work").unwrap().is_empty());
            assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        }
    });
}

#[test]
fn what_a_command_detached_with_setsid_goes_on_and_the_rest_does_not() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let command = "mkfifo go; setsid sh -c '>apart; cat go >went' >/dev/null 2>&1 </dev/null & \
                       until [ -e apart ]; do :; done; sleep 98765 & exit 0";
        let result = ok(&mut client, "exec_in_vm", exec("work", command)).await;
        assert_eq!(result["exit_code"], 0);
        let survivors = || machine.host.processes("work").unwrap().len();
        until("only what is detached runs", || (1..=2).contains(&survivors()));
        ok(&mut client, "exec_in_vm", exec("work", "echo on > go")).await;
        let went = machine.home("work").join("went");
        until("it went on", || std::fs::read_to_string(&went).is_ok_and(|text| text == "on\n"));
    });
}

#[test]
fn progress_tells_the_last_line_while_the_command_runs() {
    on_host(async |machine| {
        for (era, gate) in ERAS.into_iter().zip(["gate1", "gate2"]) {
            let mut client = McpClient::start(&machine.host, era).await.unwrap();
            let peer = client.peer();
            let command = format!("mkfifo {gate}; echo one; echo the last line; cat {gate}");
            let running = tokio::task::spawn_local(async move {
                let arguments = object(exec("work", &command));
                peer.call_tool(CallToolRequestParams::new("exec_in_vm").with_arguments(arguments))
                    .await
            });
            let mut before = 0.0;
            loop {
                let progress = client.progress().await.expect("news of the call");
                assert!(progress.progress > before, "it grows");
                before = progress.progress;
                if progress.message.as_deref() == Some("the last line") {
                    break;
                }
            }
            assert!(!running.is_finished());
            ok(&mut client, "exec_in_vm", exec("work", &format!("echo end > {gate}"))).await;
            let result = success(&running.await.unwrap().unwrap());
            assert_eq!(result["stdout"], "one\nthe last line\nend\n");
        }
    });
}

#[test]
fn a_cancelled_call_has_no_answer_and_its_command_is_killed() {
    on_host(async |machine| {
        for era in ERAS {
            let mut client = McpClient::start(&machine.host, era).await.unwrap();
            let parameters = CallToolRequestParams::new("exec_in_vm")
                .with_arguments(object(exec("work", "echo up; sleep 98765 & sleep 98765")));
            let request = ClientRequest::CallToolRequest(CallToolRequest::new(parameters));
            let options = PeerRequestOptions::no_options();
            let handle = client.peer().send_cancellable_request(request, options).await.unwrap();
            while client.progress().await.expect("news").message.as_deref() != Some("up") {}
            assert!(!machine.host.processes("work").unwrap().is_empty());
            let cancelled = Instant::now();
            handle.cancel(Some("enough".into())).await.unwrap();
            until("the command is dead", || machine.host.processes("work").unwrap().is_empty());
            assert!(cancelled.elapsed() < Duration::from_secs(5), "{:?}", cancelled.elapsed());
            let result = ok(&mut client, "exec_in_vm", exec("work", "echo next")).await;
            assert_eq!(result["stdout"], "next\n", "the session goes on");
        }
    });
}

#[test]
fn sixty_four_calls_at_once_all_get_their_own_answer() {
    on_host(async |machine| {
        for era in ERAS {
            let client = McpClient::start(&machine.host, era).await.unwrap();
            let mut calls = tokio::task::JoinSet::new();
            for number in 0..64 {
                let peer = client.peer();
                calls.spawn_local(async move {
                    let qube = if number % 4 == 0 { "ai-build" } else { "work" };
                    let nonce = format!("nonce-{:08x}", number * 0x9e37);
                    let command = format!("echo {nonce}; echo {nonce} >&2; exit {number}");
                    let parameters = CallToolRequestParams::new("exec_in_vm")
                        .with_arguments(object(exec(qube, &command)));
                    let answer: Result<_, ServiceError> = peer.call_tool(parameters).await;
                    let result = success(&answer.unwrap());
                    assert_eq!(result["stdout"], format!("{nonce}\n"));
                    assert_eq!(result["stderr"], format!("{nonce}\n"));
                    assert_eq!(result["exit_code"], number);
                });
            }
            assert_eq!(calls.join_all().await.len(), 64);
        }
    });
}

#[test]
fn tagged_qubes_are_reached_by_target_and_listed_ones_by_argument() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        for qube in ["ai-build", "work"] {
            ok(&mut client, "exec_in_vm", exec(qube, &format!("printf {qube} > mark"))).await;
            assert_eq!(std::fs::read_to_string(machine.home(qube).join("mark")).unwrap(), qube);
        }
        for era in ERAS {
            let mut client = McpClient::start(&machine.host, era).await.unwrap();
            for (qube, address) in [("ai-build", "target"), ("work", "argument")] {
                let result = ok(&mut client, "exec_in_vm", exec(qube, "cat mark")).await;
                assert_eq!(result["stdout"], qube);
                let list = ok(&mut client, "list_vms", json!({})).await;
                let vms = list["vms"].as_array().unwrap().clone();
                let vm = vms.into_iter().find(|vm| vm["name"] == qube).unwrap();
                assert_eq!(vm["address"], address);
            }
            // A tagged qube never by argument, a listed one never by target.
            for (target, service) in
                [("dom0", "VmExec+ai-build"), ("work", "VmExec+"), ("work", "VmExec+work")]
            {
                let call = machine.qrexec(target, &format!("saltbridge.{service}"));
                let told = super::machine::Machine::finish(call, b"{\"cmd\":\"id\"}\n").await;
                assert_eq!(told.code, 126, "{target} {service}: {told:?}");
            }
        }
    });
}

#[test]
fn a_halted_qube_is_started_for_a_command_where_that_is_allowed() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        assert_eq!(machine.host.power_state("dev").unwrap(), PowerState::Halted);
        let result = ok(&mut client, "exec_in_vm", exec("dev", "echo up")).await;
        assert_eq!(result["stdout"], "up\n");
        assert_eq!(machine.host.power_state("dev").unwrap(), PowerState::Running);
        let sentence = error(&mut client, "exec_in_vm", exec("ai-test", "echo up")).await;
        assert!(sentence.contains("not running"), "{sentence}");
        assert_eq!(machine.host.power_state("ai-test").unwrap(), PowerState::Halted);
    });
}

#[test]
fn starting_and_shutting_down_say_what_they_changed() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let dev = json!({"vm_name": "dev"});
        for (tool, state, changed) in [
            ("start_vm", "Running", true),
            ("start_vm", "Running", false),
            ("shutdown_vm", "Halted", true),
            ("shutdown_vm", "Halted", false),
        ] {
            let result = ok(&mut client, tool, dev.clone()).await;
            assert_eq!((&result["state"], &result["changed"]), (&json!(state), &json!(changed)));
            assert_eq!(machine.host.power_state("dev").unwrap().to_string(), state);
        }
        ok(&mut client, "start_vm", dev.clone()).await;
        machine.host.set_stubborn("dev", true).unwrap();
        let sentence =
            error(&mut client, "shutdown_vm", json!({"vm_name": "dev", "timeout_seconds": 1}))
                .await;
        assert!(sentence.starts_with("timed out"), "{sentence}");
        machine.host.set_stubborn("dev", false).unwrap();
    });
}
