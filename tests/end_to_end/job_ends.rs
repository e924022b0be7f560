//! Jobs that have to end, whatever hangs, fails or dies meanwhile; and how many there may be.
#![expect(clippy::disallowed_methods, reason = "tests start the programs under test")]

use std::{fs, path::PathBuf, time::Duration};

use admin_api::Exception;
use salt_bridge_sim::{Consent, Daemon, Fault, McpClient, Population};
use serde_json::{Value, json};

use super::machine::{Machine, SCOPE, becomes, error, object, ok, on_host, on_host_with};

const LONG: &str = "sleep 98765";

async fn start(client: &mut McpClient, qube: &str) -> String {
    let result = ok(client, "start_job", json!({"vm_name": qube, "command": LONG})).await;
    result["handle"].as_str().unwrap().to_owned()
}

fn running(machine: &Machine, qube: &str) -> usize {
    let is_job = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\x0098765\0")
    };
    machine.host.processes(qube).unwrap().iter().filter(|pid| is_job(pid)).count()
}

/// Whether a `qrexec-client` of this host runs.
fn calls_a_qube(machine: &Machine) -> bool {
    let client = machine.host.root().join("usr/bin/qrexec-client");
    let client = client.to_string_lossy();
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&*client)
    })
}

fn ledger(machine: &Machine) -> PathBuf {
    machine.host.root().join("var/lib/salt-bridge/ledger/jobs")
}

/// The entries of the ledger.
fn entries(machine: &Machine) -> Vec<Value> {
    let Ok(files) = fs::read_dir(ledger(machine)) else { return Vec::new() };
    files
        .flatten()
        .filter_map(|file| serde_json::from_slice(&fs::read(file.path()).ok()?).ok())
        .collect()
}

fn open(machine: &Machine) -> usize {
    entries(machine).iter().filter(|entry| entry["ended"].is_null()).count()
}

fn grant(machine: &Machine, scope: &str) {
    let file = machine.host.root().join("etc/qubes/salt-bridge-allowed-vms");
    fs::write(file, scope).unwrap();
}

async fn operator(machine: &Machine, arguments: &[&str]) {
    let output = tokio::process::Command::new(machine.host.layout().program("saltbridged"))
        .arg("--root")
        .arg(machine.host.root())
        .args(arguments)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// The first process of a qube, which starts all others there.
fn init(machine: &Machine, qube: &str) -> String {
    let root = format!("\"root\":\"{}\"", machine.host.layout().qube_root(qube).display());
    let is_init = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains(&root) && !line.starts_with("unshare")
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.map(|entry| entry.file_name().to_string_lossy().into_owned());
    pids.find(is_init).unwrap()
}

async fn signal(name: &str, pid: String) {
    let sent = tokio::process::Command::new("kill").arg(name).arg(pid).status().await;
    assert!(sent.unwrap().success());
}

#[test]
fn a_qube_that_hangs_does_not_keep_the_jobs_of_another_from_their_end() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        start(&mut client, "dev").await;
        start(&mut client, "work").await;
        signal("-STOP", init(machine, "dev")).await;
        machine.host.start_daemon(Daemon::Serve, &[]).unwrap();
        let mut client = machine.client().await;
        let listed = client.call("list_jobs", object(json!({})));
        let hangs = tokio::time::timeout(Duration::from_millis(500), listed).await;
        assert!(hangs.is_err(), "the qube does not hang");
        grant(machine, "@agent salt-bridge\ntest see\n");
        let ended = becomes(|| running(machine, "work") == 0);
        tokio::time::timeout(Duration::from_secs(8), ended).await.expect("it waits for the other");
        assert_eq!(running(machine, "dev"), 1);
        signal("-CONT", init(machine, "dev")).await;
        becomes(|| running(machine, "dev") == 0).await;
    });
}

#[test]
fn what_qubesd_does_not_tell_is_asked_again_and_no_job_is_given_up() {
    on_host(async |machine| {
        for fault in [
            Fault::Empty,
            Fault::Exception(Exception::new("QubesVMNotFoundError", "No such domain: 'work'")),
        ] {
            machine.host.install(SCOPE).unwrap();
            let mut client = machine.client().await;
            start(&mut client, "work").await;
            machine.host.set_fault("admin.vm.", Some(fault));
            // At once a new daemon looks at everything.
            machine.host.start_daemon(Daemon::Serve, &[]).unwrap();
            grant(machine, "@agent salt-bridge\ntest see\n");
            // Each look asks twice: for the qube, and for all qubes.
            let met = machine.host.faults_met();
            becomes(|| machine.host.faults_met() >= met + 6).await;
            assert_eq!((running(machine, "work"), open(machine)), (1, 1));
            machine.host.set_fault("admin.vm.", None);
            becomes(|| running(machine, "work") == 0 && open(machine) == 0).await;
        }
    });
}

#[test]
fn a_tag_that_is_taken_away_ends_the_jobs_that_rest_on_it() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        ok(&mut client, "start_vm", json!({"vm_name": "dev"})).await;
        machine.host.start_qube("ai-build").unwrap();
        start(&mut client, "ai-build").await;
        start(&mut client, "work").await;
        machine.host.remove_tag("ai-build", "ai-managed").unwrap();
        // It is looked at each minute, and when the daemon begins.
        machine.host.start_daemon(Daemon::Serve, &[]).unwrap();
        becomes(|| running(machine, "ai-build") == 0).await;
        assert_eq!(running(machine, "work"), 1);
        grant(machine, "nothing\n");
        becomes(|| running(machine, "work") == 0).await;
    });
}

#[test]
fn a_tag_that_is_taken_away_ends_the_calls_that_rest_on_it() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        machine.host.start_qube("ai-build").unwrap();
        let command = json!({"vm_name": "ai-build", "command": LONG, "timeout_seconds": 3000});
        let call = error(&mut client, "exec_in_vm", command);
        let taken = async {
            becomes(|| running(machine, "ai-build") == 1).await;
            machine.host.remove_tag("ai-build", "ai-managed").unwrap();
        };
        let (sentence, ()) = tokio::join!(call, taken);
        assert!(!sentence.contains("ai-managed"), "{sentence}");
        assert_eq!(running(machine, "ai-build"), 0);
    });
}

#[test]
fn without_a_daemon_the_operators_commands_stop_what_has_no_grant() {
    on_host(async |machine| {
        for command in [&["pause"][..], &["scope", "refresh"]] {
            machine.host.install(SCOPE).unwrap();
            let mut client = machine.client().await;
            start(&mut client, "work").await;
            start(&mut client, "dev").await;
            machine.host.kill_daemon(Daemon::Serve).unwrap();
            if command[0] == "scope" {
                grant(machine, "@agent salt-bridge\nwork see,exec\ndev see\n");
            }
            operator(machine, command).await;
            assert_eq!(running(machine, "dev"), 0);
            let pauses = command[0] == "pause";
            assert_eq!(running(machine, "work"), usize::from(!pauses));
            if pauses {
                operator(machine, &["resume"]).await;
            }
            grant(machine, "nothing\n");
            machine.host.start_daemon(Daemon::Serve, &[]).unwrap();
            becomes(|| running(machine, "work") == 0).await;
        }
    });
}

/// Writes entries into the ledger as the daemon would have.
fn write_entries(machine: &Machine, count: usize, ended: &Value) {
    let uuid = machine.host.uuid("test").unwrap();
    for number in 0..count {
        let handle = format!("{number:032x}");
        let entry = json!({"handle": handle, "mark": format!("{:032x}", number + 4096),
            "agent": "salt-bridge", "qube": "test", "uuid": uuid, "root": false, "command": "old",
            "started": 1_700_000_000, "ended": ended});
        fs::write(ledger(machine).join(handle), entry.to_string()).unwrap();
    }
}

#[test]
fn jobs_are_limited_by_qube_in_all_and_by_age() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let first = start(&mut client, "work").await;
        for _ in 1..contract::limits::JOBS_PER_QUBE {
            start(&mut client, "work").await;
        }
        let job = json!({"vm_name": "work", "command": LONG});
        let full = error(&mut client, "start_job", job.clone()).await;
        assert!(full.contains("16 jobs of yours run in this qube already"), "{full}");
        // One that ends by itself makes room, though nobody has told the daemon.
        ok(&mut client, "stop_job", json!({"vm_name": "work", "handle": first})).await;
        start(&mut client, "work").await;
        error(&mut client, "start_job", job.clone()).await;
        // The oldest of those that have ended are forgotten for new ones.
        let all = contract::limits::JOBS_PER_AGENT;
        write_entries(machine, all, &json!([{"exit": 0}, u64::from(u32::MAX)]));
        start(&mut client, "dev").await;
        assert_eq!(entries(machine).len(), all);
        // What runs is not.
        write_entries(machine, all, &Value::Null);
        let full =
            error(&mut client, "start_job", json!({"vm_name": "dev", "command": LONG})).await;
        assert!(full.contains("64 jobs of yours run already"), "{full}");
        // After a week they are not known any more.
        write_entries(machine, all, &json!([{"exit": 0}, 1_700_000_000]));
        let list = ok(&mut client, "list_jobs", json!({})).await;
        let known = list["jobs"].as_array().unwrap().iter().filter(|job| job["command"] == "old");
        assert_eq!(known.count(), 0);
        start(&mut client, "dev").await;
        assert!(!entries(machine).iter().any(|entry| entry["command"] == "old"));
        grant(machine, "nothing\n");
        becomes(|| running(machine, "work") == 0 && running(machine, "dev") == 0).await;
    });
}

#[test]
fn a_daemon_killed_anywhere_in_the_start_of_a_job_leaves_nothing_that_its_ledger_does_not_know() {
    on_host(async |machine| {
        machine.host.start_qube("work").unwrap();
        let mut acknowledged = Vec::new();
        for round in 0..24_u64 {
            let mut client = machine.client().await;
            let call =
                client.call("start_job", object(json!({"vm_name": "work", "command": LONG})));
            let kill = async {
                tokio::time::sleep(Duration::from_millis(round * 6)).await;
                machine.host.kill_daemon(Daemon::Serve).unwrap();
            };
            let (answer, ()) = tokio::join!(call, kill);
            if let Ok(answer) = answer
                && answer.is_error == Some(false)
            {
                let value = answer.structured_content.unwrap();
                acknowledged.push(value["handle"].as_str().unwrap().to_owned());
            }
            // What was under way in the qube comes to its end.
            becomes(|| !calls_a_qube(machine)).await;
            assert!(running(machine, "work") <= open(machine), "round {round}");
            if round % 8 == 7 {
                machine.host.start_daemon(Daemon::Serve, &[]).unwrap();
                let mut client = machine.client().await;
                let list = ok(&mut client, "list_jobs", json!({})).await;
                let runs = |handle: &&String| {
                    let mut jobs = list["jobs"].as_array().unwrap().iter();
                    jobs.any(|job| job["handle"] == **handle && job["state"] == "running")
                };
                let found = acknowledged.iter().filter(runs).count();
                assert_eq!(found, acknowledged.len(), "{list}");
                grant(machine, "nothing\n");
                becomes(|| running(machine, "work") == 0).await;
                acknowledged.clear();
                grant(machine, SCOPE);
            }
            machine.host.start_daemon(Daemon::Serve, &[]).unwrap();
        }
        grant(machine, "nothing\n");
        becomes(|| running(machine, "work") == 0).await;
    });
}

#[test]
fn a_job_as_root_that_somebody_allowed_is_read_and_stopped_without_asking_again() {
    let scope = "@agent salt-bridge\nwork see,exec,root:ask\n";
    on_host_with(scope, Population::default(), async |machine| {
        machine.host.set_consent(Consent::Given);
        let mut client = machine.client().await;
        let job = json!({"vm_name": "work", "command": format!("echo begun; {LONG}")});
        let started = ok(&mut client, "start_job_root", job.clone()).await;
        machine.host.set_consent(Consent::Refused);
        error(&mut client, "start_job_root", job).await;
        let handle = json!({"vm_name": "work", "handle": started["handle"], "wait_seconds": 20});
        assert_eq!(ok(&mut client, "job_output", handle).await["output"], "begun\n");
        let list = ok(&mut client, "list_jobs", json!({})).await;
        assert_eq!(list["jobs"][0]["state"], "running");
        let handle = json!({"vm_name": "work", "handle": started["handle"]});
        grant(machine, "@agent salt-bridge\nwork see,exec\n");
        error(&mut client, "job_output", handle.clone()).await;
        becomes(|| running(machine, "work") == 0).await;
        grant(machine, scope);
        assert_eq!(ok(&mut client, "stop_job", handle).await["state"], "ended");
    });
}

#[test]
fn a_job_that_removed_what_is_known_of_it_ends_with_its_grant() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let hide = json!({"vm_name": "work",
            "command": format!("rm -rf ~/.salt-bridge/jobs; exec {LONG}")});
        ok(&mut client, "start_job", hide).await;
        becomes(|| running(machine, "work") == 1).await;
        ok(&mut client, "list_jobs", json!({})).await;
        assert_eq!(open(machine), 1, "it counts as long as it may run");
        grant(machine, "@agent salt-bridge\nwork see\n");
        becomes(|| running(machine, "work") == 0).await;
    });
}
