//! How the agent begins and ends.

use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::machine::{Machine, on_host, until};

const MODERN: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;

fn call(id: u32, command: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{{MODERN},"name":"exec_in_vm","arguments":{{"vm_name":"work","command":"{command}"}}}}}}"#
    ) + "\n"
}

#[test]
fn the_agent_ends_at_once_when_its_input_ends_and_so_does_the_command_under_way() {
    on_host(async |machine| {
        let mut agent = machine.agent();
        let mut stdin = agent.stdin.take().unwrap();
        stdin.write_all(call(1, "echo up; touch here; sleep 98765").as_bytes()).await.unwrap();
        let here = machine.home("work").join("here");
        until("the command runs", || here.exists());
        let ends = Instant::now();
        drop(stdin);
        assert!(agent.wait().await.unwrap().success());
        assert!(ends.elapsed() < Duration::from_secs(1), "{:?}", ends.elapsed());
        until("the command is dead", || machine.host.processes("work").unwrap().is_empty());
        assert!(ends.elapsed() < Duration::from_secs(5), "{:?}", ends.elapsed());
    });
}

#[test]
fn the_agent_without_a_session_ends_at_the_end_of_its_input() {
    on_host(async |machine| {
        let told = Machine::finish(machine.agent(), b"").await;
        assert_eq!((told.code, told.stdout.as_str()), (0, ""), "{told:?}");
    });
}

#[test]
fn answers_come_as_they_are_ready_one_object_a_line() {
    on_host(async |machine| {
        let mut agent = machine.agent();
        let mut stdin = agent.stdin.take().unwrap();
        let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines();
        // The first waits for a file that the second makes.
        let first = call(1, "mkfifo gate; cat gate");
        let second = call(2, "until [ -p gate ]; do :; done; echo opened > gate");
        stdin.write_all(format!("{first}{second}").as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..2 {
            let line = lines.next_line().await.unwrap().unwrap();
            answers.push(serde_json::from_str::<serde_json::Value>(&line).unwrap());
        }
        answers.sort_by_key(|answer| answer["id"].as_u64());
        assert_eq!(answers[0]["result"]["structuredContent"]["stdout"], "opened\n");
        assert_eq!(answers[1]["result"]["structuredContent"]["exit_code"], 0);
    });
}
