//! A day of an agent: every tool, each with what it takes to succeed.

use std::{collections::BTreeSet, fs};

use salt_bridge_sim::{Daemon, Population, Resident};
use serde_json::{Value, json};

use crate::{
    Extent,
    machine::{Machine, Promised, start_daemons_by},
    shim::Shim,
};

const SCOPE: &str = "@agent salt-bridge\nwork\ndev\ntest see\n@tag:ai-managed\n";

/// What is no call of one service of dom0.
const LOCAL: [&str; 2] = ["upload_to_vm", "download_from_vm"];

/// The sandbox: all of its qubes get all powers by the grant.
fn population() -> Population {
    let full = |qube: Resident| qube.tag("ai-managed").tag("ai-full");
    Population::default().and([
        full(Resident::template("ai-debian")),
        full(Resident::app("ai-net-router", "red"))
            .with("netvm", "sys-firewall")
            .with("provides_network", "True"),
        full(Resident::app("ai-dvm", "gray"))
            .with("netvm", "ai-net-router")
            .with("template_for_dispvms", "True"),
        full(Resident::app("ai-one", "gray")).with("netvm", "ai-net-router").running().offers(
            "block",
            "sda",
            "manufacturer='hosted by ai-one' serial='USB Flash Drive'",
        ),
        full(Resident::app("ai-two", "gray")).with("netvm", "ai-net-router").running(),
    ])
}

/// The calls, in an order in which each succeeds.
fn calls() -> Vec<(&'static str, Value)> {
    let of = |qube: &str, more: Value| {
        let mut arguments = json!({"vm_name": qube});
        if let (Some(all), Value::Object(more)) = (arguments.as_object_mut(), more) {
            all.extend(more);
        }
        arguments
    };
    let work = |more: Value| of("work", more);
    let sda = || of("ai-two", json!({"class": "block", "backend_vm": "ai-one", "port": "sda"}));
    let tcp =
        |action: &str| json!({"action": action, "source": "work", "target": "dev", "port": 22});
    vec![
        ("list_vms", json!({})),
        ("start_vm", of("dev", json!({}))),
        ("vm_network_info", work(json!({}))),
        ("vm_properties", of("ai-one", json!({}))),
        ("exec_in_vm", work(json!({"command": "cat; echo err >&2", "stdin": "in"}))),
        ("exec_in_vm_root", work(json!({"argv": ["id", "-u"]}))),
        ("exec_in_vms", json!({"vm_names": ["work", "dev"], "command": "umask"})),
        ("exec_in_vms_root", json!({"vm_names": ["work", "dev"], "command": "id"})),
        ("write_file_in_vm", work(json!({"file_path": "src/a", "content": "one two\n"}))),
        ("read_file_in_vm", work(json!({"file_path": "src/a"}))),
        ("edit_file_in_vm", work(json!({"file_path": "src/a", "old": "one", "new": "two"}))),
        ("list_dir_in_vm", work(json!({"file_path": "."}))),
        ("search_in_vm", work(json!({"file_path": "src", "pattern": "two"}))),
        (
            "copy_between_vms",
            json!({"source_vm": "work", "source_path": "src", "target_vm": "dev",
                "target_path": "copy", "recursive": true}),
        ),
        ("start_job_root", work(json!({"command": "id -u"}))),
        ("list_jobs", json!({})),
        ("firewall_list", work(json!({}))),
        ("firewall_add", work(json!({"action": "drop", "args": "192.0.2.1 tcp 22"}))),
        ("firewall_remove", work(json!({"rule_number": 0}))),
        ("connect_tcp_policy", tcp("add")),
        ("connect_tcp_policy", json!({"action": "list"})),
        ("connect_tcp_policy", tcp("remove")),
        ("diagnose_network", work(json!({"host": "127.0.0.1", "port": 9}))),
        ("watch_events", json!({"seconds": 1})),
        ("disk_budget", json!({})),
        ("create_vm", json!({"name": "ai-new", "template": "ai-debian"})),
        ("set_vm_property", of("ai-new", json!({"property": "label", "value": "red"}))),
        ("set_vm_feature", of("ai-new", json!({"feature": "x-a", "value": "1"}))),
        ("start_vm", of("ai-new", json!({}))),
        ("pause_vm", of("ai-new", json!({}))),
        ("unpause_vm", of("ai-new", json!({}))),
        ("kill_vm", of("ai-new", json!({}))),
        ("clone_vm", json!({"source": "ai-new", "name": "ai-copy"})),
        ("remove_vm", of("ai-new", json!({}))),
        ("remove_vm", of("ai-copy", json!({}))),
        ("run_in_disposable", json!({"template": "ai-dvm", "command": "hostname"})),
        ("run_in_disposable_root", json!({"template": "ai-dvm", "argv": ["id", "-u"]})),
        ("create_disposable", json!({"template": "ai-dvm"})),
        ("list_devices", of("ai-one", json!({"class": "block"}))),
        ("attach_device", sda()),
        ("detach_device", sda()),
        ("shutdown_vm", of("dev", json!({}))),
    ]
}

/// A job, begun, read and stopped.
fn job(shim: &mut Shim) -> u64 {
    let call = json!({"vm_name": "work", "command": "echo begun; sleep 9999"});
    let begun = shim.call("start_job", &call).expect("a job");
    let of = |more: Value| {
        let mut call = json!({"vm_name": "work", "handle": begun["handle"]});
        if let (Some(all), Value::Object(more)) = (call.as_object_mut(), more) {
            all.extend(more);
        }
        call
    };
    let output = shim.call("job_output", &of(json!({"from": 0, "wait_seconds": 5})));
    assert_eq!(output.expect("its output")["output"], json!("begun\n"));
    shim.call("stop_job", &of(json!({"forget": true}))).expect("it stops");
    3
}

/// Runs the part.
pub(crate) fn run(extent: &Extent) {
    let machine = Machine::start_with(SCOPE, population(), |host| {
        if let Some(line) = &extent.under {
            start_daemons_by(host, line);
        }
    });
    let mut shim = Shim::start(&machine.host);
    let listed = shim.ask("tools/list", json!({}));
    let (id, tools) = shim.answer();
    assert_eq!(id, listed, "another answer");
    let tools = tools["tools"].as_array().expect("tools").clone();
    let mut left: BTreeSet<&str> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    for tool in LOCAL.iter().chain(&["start_job", "job_output", "stop_job"]) {
        left.remove(tool);
    }
    let mut done = job(&mut shim);
    for (tool, call) in calls() {
        if let Err(said) = shim.call(tool, &call) {
            panic!("{tool} {call}: {said}");
        }
        left.remove(tool);
        done += 1;
    }
    assert!(left.is_empty(), "the day does not have {left:?}");
    let refused = shim.call("exec_in_vm", &json!({"vm_name": "vault", "command": "id"}));
    assert!(refused.is_err(), "a qube outside the scope was reached");
    drop(shim);
    let daemon = machine.host.daemon_pid(Daemon::Serve).expect("the daemon");
    let status = fs::read_to_string(format!("/proc/{daemon}/status")).expect("its status");
    let filters = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    let filters = filters.unwrap_or_default().trim();
    let held = machine.holds(&Promised::default());
    println!(
        "day: {done} calls of all tools done, 1 refused, {held} statements held; {filters} filters of system calls"
    );
}
