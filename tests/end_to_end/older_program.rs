//! The older program's calls and the text that it gets: JSON fields of its own in, plain text out.

use std::time::{Duration, Instant};

use salt_bridge_sim::PowerState;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::machine::{Machine, Told, on_host, until};

fn text(stdout: &str) -> Told {
    Told { code: 0, stdout: stdout.into(), stderr: String::new() }
}

#[test]
fn requests_without_fields_are_complete_at_a_newline_an_end_of_input_or_after_silence() {
    on_host(async |machine| {
        let list = machine.plain("VmList", "").await;
        let lines: Vec<_> = list.stdout.lines().collect();
        assert_eq!(lines.len(), 6, "{list:?}");
        for line in &lines {
            assert_eq!(line.split('|').count(), 6, "{line}");
        }
        assert!(lines.iter().any(|line| line.starts_with("work|Running|AppVM|sys-firewall|10.")));
        assert!(lines.iter().any(|line| line.starts_with("dev|Halted|AppVM|sys-firewall|10.")));
        for request in ["{}", "{}\n", "\n", " { } \n"] {
            assert_eq!(machine.plain("VmList", request).await, list, "{request:?}");
        }
        // A newline is enough: the input stays open.
        for (input, at_least) in [("{}\n", Duration::ZERO), ("", Duration::from_millis(450))] {
            let began = Instant::now();
            let mut call = machine.qrexec("dom0", "saltbridge.VmList");
            let mut stdin = call.stdin.take().unwrap();
            stdin.write_all(input.as_bytes()).await.unwrap();
            let mut stdout = String::new();
            call.stdout.as_mut().unwrap().read_to_string(&mut stdout).await.unwrap();
            assert_eq!(stdout, list.stdout, "{input:?}");
            assert!(began.elapsed() >= at_least, "{:?}", began.elapsed());
            assert!(call.wait().await.unwrap().success());
            drop(stdin);
        }
    });
}

#[test]
fn a_service_with_required_fields_does_not_answer_silence() {
    on_host(async |machine| {
        let mut call = machine.qrexec("dom0", "saltbridge.VmExec+work");
        let mut stdin = call.stdin.take().unwrap();
        // Longer than the silence after which a request without fields is complete.
        let told = tokio::time::timeout(Duration::from_millis(800), call.wait()).await;
        assert!(told.is_err(), "it waits for the request");
        stdin.write_all(b"{\"cmd\": \"echo late\"}").await.unwrap();
        drop(stdin);
        let told: Told = call.wait_with_output().await.unwrap().into();
        assert_eq!(told, text("late\n"));
    });
}

#[test]
fn a_command_gives_both_streams_merged_and_its_code_as_the_client_would_show_it() {
    on_host(async |machine| {
        let exec = async |command: &str| {
            machine.plain("VmExec+work", &json!({"cmd": command}).to_string()).await
        };
        assert_eq!(exec("echo out").await, text("out\n"));
        assert_eq!(exec("echo out; exit 3").await, text("out\n\nEXIT CODE: 3"));
        assert_eq!(exec("echo err >&2; exit 3").await, text("err\n\nEXIT CODE: 3"));
        let both = exec("echo out; echo err >&2").await.stdout;
        assert!(["out\nerr\n", "err\nout\n"].contains(&both.as_str()), "{both}");
        assert_eq!(exec("for i in 1 2 3\ndo echo $i\ndone").await, text("1\n2\n3\n"));
        assert_eq!(exec("printf 'a\\0b'").await, text("a\0b"));
        assert_eq!(exec("pwd").await.stdout.lines().count(), 1);
        let seven = exec("head -c 7000000 /dev/zero").await;
        assert_eq!(seven.stdout.len(), 7_000_000, "no cap of ours");
        let root = machine.plain("VmExecRoot+work", "{\"cmd\": \"id -u\"}").await;
        assert_eq!(root.code, 0);
        if machine.host.mode() == salt_bridge_sim::Mode::Root {
            assert_eq!(root, text("0\n"));
        }
    });
}

#[test]
fn output_streams_while_the_command_runs_and_hanging_up_kills_it() {
    on_host(async |machine| {
        let mut call = machine.qrexec("dom0", "saltbridge.VmExec+work");
        let mut stdin = call.stdin.take().unwrap();
        stdin.write_all(b"{\"cmd\": \"echo first; sleep 98765 & sleep 98765\"}").await.unwrap();
        drop(stdin);
        let mut first = [0; 6];
        call.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"first\n");
        assert!(!machine.host.processes("work").unwrap().is_empty());
        let killed = Instant::now();
        call.kill().await.unwrap();
        until("the command is dead", || machine.host.processes("work").unwrap().is_empty());
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    });
}

#[test]
fn bad_requests_are_one_line_and_start_nothing() {
    on_host(async |machine| {
        for (service, request) in [
            ("VmExec+dev", "{\"x\": 1}"),
            ("VmExec+dev", "not json\n"),
            ("VmExec+dev", ""),
            ("VmExec+dev", "{\"cmd\": 7}"),
            ("VmExec+dev", "{\"cmd\": \"id\", \"more\": 1}"),
            ("VmExec+dev", "[]"),
            ("VmReadFile+dev", "{}"),
            ("VmWriteFile+dev", "{\"path\": \"x\"}"),
            ("VmStart+dev", "{\"x\": 1}"),
            ("FirewallAdd+dev", "{\"action\": \"reject\", \"args\": \"\"}"),
            ("FirewallAdd+dev", "{\"action\": \"accept\", \"args\": \"dsthost=a;b\"}"),
            ("FirewallAdd+dev", "{\"action\": \"accept\", \"args\": \"dstports=22\"}"),
            ("FirewallAdd+dev", "{\"action\": \"accept\", \"args\": \"proto=bogus\"}"),
            ("FirewallRemove+dev", "{\"rule_number\": 99}"),
            ("FirewallRemove+dev", "{\"rule_number\": -1}"),
            ("ConnectTcpPolicy", "{\"action\": \"frob\"}"),
            (
                "ConnectTcpPolicy",
                "{\"action\": \"add\", \"source\": \"work\", \"target\": \"vault\", \"port\": 22}",
            ),
            (
                "ConnectTcpPolicy",
                "{\"action\": \"add\", \"source\": \"@anyvm\", \"target\": \"dev\", \"port\": 22}",
            ),
            (
                "ConnectTcpPolicy",
                "{\"action\": \"add\", \"source\": \"work\", \"target\": \"dev\", \"port\": 0}",
            ),
            (
                "ConnectTcpPolicy",
                "{\"action\": \"add\", \"source\": \"work\", \"target\": \"dev\", \"port\": 70000}",
            ),
        ] {
            let told = machine.plain(service, request).await;
            assert_eq!((told.code, told.stderr.as_str()), (0, ""), "{service} {request}");
            let line = told.stdout.strip_prefix("ERROR: ").expect(&told.stdout);
            assert!(line.ends_with('\n') && line.lines().count() == 1, "{line:?}");
        }
        let long = format!("{{\"cmd\": \"{}\"}}", "x".repeat(64 * 1024));
        let told = machine.plain("VmExec+dev", &long).await;
        assert!(told.stdout.starts_with("ERROR: "), "{told:?}");
        let call = machine.qrexec("dom0", "saltbridge.VmExec+dev");
        let told = Machine::finish(call, b"{\"cmd\": \"\xff\"}\n").await;
        assert!(told.stdout.starts_with("ERROR: "), "{told:?}");
        assert_eq!(machine.host.power_state("dev").unwrap(), PowerState::Halted);
    });
}

#[test]
fn files_are_exact_and_a_failed_write_says_so() {
    on_host(async |machine| {
        let write = async |path: &str, content: &str| {
            machine
                .plain("VmWriteFile+work", &json!({"path": path, "content": content}).to_string())
                .await
        };
        let read = async |path: &str| {
            machine.plain("VmReadFile+work", &json!({"path": path}).to_string()).await
        };
        assert_eq!(write("a/b/t.txt", "hello").await, text("OK: Written to a/b/t.txt in work\n"));
        assert_eq!(read("a/b/t.txt").await, text("hello"));
        for content in ["", "x\n\n\n", "ü\0\u{1}", "it's \"quoted\" $(id)"] {
            assert_eq!(write("it's", content).await, text("OK: Written to it's in work\n"));
            assert_eq!(read("it's").await, text(content));
            assert_eq!(
                std::fs::read(machine.home("work").join("it's")).unwrap(),
                content.as_bytes()
            );
        }
        let large = "ä".repeat(4 * 1024 * 1024);
        assert_eq!(write("large", &large).await, text("OK: Written to large in work\n"));
        assert_eq!(read("large").await.stdout, large);
        let told = write("larger", &format!("{large}x")).await;
        assert!(told.stdout.starts_with("ERROR: "), "{}", told.stdout.len());
        for told in [write("/proc/no/such", "x").await, read("/no/such").await, read(".").await] {
            assert!(told.stdout.starts_with("ERROR: "), "{told:?}");
            assert_eq!((told.code, told.stdout.lines().count()), (0, 1), "{told:?}");
        }
        assert!(!machine.home("work").join("larger").exists());
    });
}

#[test]
fn starting_shutting_down_and_firewall_changes_are_silent_successes() {
    on_host(async |machine| {
        for (service, state) in [
            ("VmStart+dev", PowerState::Running),
            ("VmStart+dev", PowerState::Running),
            ("VmShutdown+dev", PowerState::Halted),
            ("VmShutdown+dev", PowerState::Halted),
        ] {
            assert_eq!(machine.plain(service, "").await, text(""), "{service}");
            assert_eq!(machine.host.power_state("dev").unwrap(), state);
        }
        let fresh = "\
NO  ACTION  HOST  PROTOCOL  PORT(S)  SPECIAL TARGET  ICMP TYPE  EXPIRE  COMMENT
0   accept  -     -         -        -               -          -       -
";
        assert_eq!(machine.plain("FirewallList+dev", "").await, text(fresh));
        let add = json!({"action": "drop", "args": "dsthost=10.0.0.1 proto=tcp dstports=443"});
        assert_eq!(machine.plain("FirewallAdd+dev", &add.to_string()).await, text(""));
        let table = "\
NO  ACTION  HOST         PROTOCOL  PORT(S)  SPECIAL TARGET  ICMP TYPE  EXPIRE  COMMENT
0   drop    10.0.0.1/32  tcp       443      -               -          -       -
1   accept  -            -         -        -               -          -       -
";
        assert_eq!(machine.plain("FirewallList+dev", "").await, text(table));
        assert_eq!(machine.plain("FirewallRemove+dev", "{\"rule_number\": 0}").await, text(""));
        assert_eq!(machine.plain("FirewallList+dev", "").await, text(fresh));
    });
}

#[test]
fn connect_tcp_answers_are_the_lines_of_the_older_program() {
    on_host(async |machine| {
        let tcp = async |action: &str| {
            let request = json!({"action": action, "source": "work", "target": "dev", "port": 22});
            machine.plain("ConnectTcpPolicy", &request.to_string()).await
        };
        let list = json!({"action": "list", "source": "", "target": "", "port": 0}).to_string();
        assert_eq!(machine.plain("ConnectTcpPolicy", &list).await, text(""));
        let line = "qubes.ConnectTCP +22  work  dev  allow\n";
        assert_eq!(tcp("add").await, text(&format!("OK: Added {line}")));
        assert_eq!(tcp("add").await, text("Rule already exists\n"));
        assert_eq!(machine.plain("ConnectTcpPolicy", &list).await, text(line));
        assert_eq!(tcp("remove").await, text("OK: Removed rule\n"));
        assert_eq!(tcp("remove").await, text("Rule not found\n"));
        assert_eq!(machine.plain("ConnectTcpPolicy", &list).await, text(""));
    });
}

#[test]
fn network_information_has_the_headings_in_their_order() {
    on_host(async |machine| {
        let told = machine.plain("VmNetworkInfo+work", "").await;
        assert_eq!((told.code, told.stderr.as_str()), (0, ""));
        let mut rest = told.stdout.as_str();
        for heading in [
            "=== Qubes Properties ===\nnetvm: sys-firewall\nip: 10.",
            "\nvisible_ip: 10.",
            "\ndns: 10.139.1.1 10.139.1.2\n",
            "provides_network: False\n",
            "=== In-VM Network State ===\n",
            "--- Interfaces ---\n",
            "--- Routes ---\n",
            "--- DNS ---\n",
            "--- WireGuard ---\n",
            "--- iptables (nat) ---\n",
            "--- iptables (filter) ---\n",
        ] {
            rest = rest.split_once(heading).unwrap_or_else(|| panic!("{heading:?}: {told:?}")).1;
        }
    });
}
