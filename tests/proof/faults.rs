//! Every way in which qubesd and qrexec are made to fail, with calls of all kinds meanwhile.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use salt_bridge_sim::{Daemon, Fault};

use crate::{
    Extent,
    machine::{Agent, Dice, Holdings, Machine, qrexec_client},
};

/// The beginnings of the methods that fail; the empty one is all.
const METHODS: [&str; 6] = [
    "",
    "admin.vm.List",
    "admin.vm.firewall.Get",
    "admin.vm.firewall.Set",
    "admin.vm.property",
    "admin.vm.CurrentState",
];

fn qubesd_faults() -> Vec<(&'static str, Fault)> {
    let exception = |kind: &str| Fault::Exception(admin_api::Exception::new(kind, "because"));
    vec![
        ("empty", Fault::Empty),
        ("delay", Fault::Late(Duration::from_millis(30))),
        ("truncated", Fault::Bytes(b"0\0wor".to_vec())),
        ("truncated exception", Fault::Bytes(b"2\0QubesVM".to_vec())),
        ("garbage", Fault::Bytes(vec![0xff; 70_000])),
        ("wrong kind", Fault::Bytes(b"1\0work\0domain-start\0\0".to_vec())),
        ("exception", exception("QubesException")),
        ("permission denied", exception("PermissionDenied")),
        ("no space", exception("StoragePoolException")),
        ("done but silent", Fault::DoneButEmpty),
    ]
}

/// What stands in the place of qrexec-client: a script that fails in the way that a file names.
const WRAPPER: &str = r#"#!/bin/bash
real=${0%/dom0/*}/bin/qrexec-client
case $(<"${0%/dom0/*}/qrexec-fault") in
  delay) sleep 0.05; exec "$real" "$@" ;;
  reset) exit 1 ;;
  refused) echo 'Request refused' >&2; exit 126 ;;
  'no such service') exit 127 ;;
  garbage) head -c 4000 /dev/urandom; head -c 4000 /dev/urandom >&2; exit 0 ;;
  'garbage before') head -c 4000 /dev/urandom; exec "$real" "$@" ;;
  truncated) "$real" "$@" 2>/dev/null | head -c 20; exit 0 ;;
  'no output') exec "$real" "$@" >/dev/null ;;
  killed) "$real" "$@" & sleep 0.02; kill -KILL $!; kill -KILL $$ ;;
esac
exec "$real" "$@"
"#;

const QREXEC_FAULTS: [&str; 9] = [
    "delay",
    "reset",
    "refused",
    "no such service",
    "garbage",
    "garbage before",
    "truncated",
    "no output",
    "killed",
];

/// Runs the part.
pub(crate) fn run(extent: &Extent) {
    let machine = Machine::start(|_| {});
    let mut dice = Dice::new(extent.seed);
    let mut agent = Agent::start(&machine.host, "f");
    agent.round(&mut dice);
    let quiet = Holdings::of_daemon(&machine.host);
    let mut faults = 0;
    for _ in 0..extent.rounds {
        faults += by_qubesd(&machine, &mut agent, &mut dice);
        faults += by_qrexec(&machine, &mut agent, &mut dice);
        faults += by_lack(&machine, &mut agent, &mut dice);
    }
    slow_reader(&machine, &mut agent, &mut dice);
    faults += 1;
    Holdings::of_daemon(&machine.host).assert_none_left_since(&quiet);
    let (done, failed) = (agent.done, agent.failed);
    let held = machine.holds(&agent.promised);
    println!(
        "faults: {faults} faults, {done} calls done and {failed} failed or refused, {held} statements held"
    );
}

fn by_qubesd(machine: &Machine, agent: &mut Agent, dice: &mut Dice) -> u32 {
    let mut faults = 0;
    for (_, fault) in qubesd_faults() {
        for method in METHODS {
            machine.host.set_fault(method, Some(fault.clone()));
            agent.round(dice);
            machine.host.set_fault(method, None);
            faults += 1;
        }
    }
    machine.host.set_qubesd_present(false).expect("qubesd's socket");
    agent.round(dice);
    machine.host.set_qubesd_present(true).expect("qubesd's socket");
    faults + 1
}

fn by_qrexec(machine: &Machine, agent: &mut Agent, dice: &mut Dice) -> u32 {
    let (client, dir) = (qrexec_client(&machine.host), machine.host.layout().dir().to_owned());
    let real = fs::read_link(&client).expect("a link");
    fs::write(dir.join("qrexec-fault"), "").expect("a file");
    replace(&client, |new| {
        fs::write(new, WRAPPER).expect("a script");
        fs::set_permissions(new, fs::Permissions::from_mode(0o755)).expect("a mode");
    });
    let mut faults = 0;
    for fault in QREXEC_FAULTS {
        fs::write(dir.join("qrexec-fault"), fault).expect("a file");
        agent.round(dice);
        faults += 1;
    }
    // It cannot be started at all.
    fs::set_permissions(&client, fs::Permissions::from_mode(0o644)).expect("a mode");
    agent.round(dice);
    fs::remove_file(&client).expect("a file");
    agent.round(dice);
    replace(&client, |new| std::os::unix::fs::symlink(&real, new).expect("a link"));
    agent.round(dice);
    faults + 2
}

/// Makes a file beside the path and puts it there.
fn replace(path: &Path, make: impl FnOnce(&Path)) {
    let new = path.with_extension("new");
    make(&new);
    fs::rename(&new, path).expect("a file");
}

/// Too few descriptors for what a call needs, from one to enough.
fn by_lack(machine: &Machine, agent: &mut Agent, dice: &mut Dice) -> u32 {
    let pid = machine.host.daemon_pid(Daemon::Serve).expect("the daemon");
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let limit = |current| {
        let new = Rlimit { current: Some(current), maximum: Some(4096) };
        prlimit(process, Resource::Nofile, new).expect("a limit");
    };
    let open = u64::try_from(Holdings::of(pid).descriptors).unwrap_or(u64::MAX);
    let mut faults = 0;
    for more in 1..12 {
        limit(open + more);
        agent.round(dice);
        faults += 1;
    }
    limit(1024);
    agent.round(dice);
    faults
}

/// A caller that takes nothing for a while, beside others that are served meanwhile.
fn slow_reader(machine: &Machine, agent: &mut Agent, dice: &mut Dice) {
    const BYTES: usize = 8_000_000;
    #[expect(clippy::disallowed_methods, reason = "the older program's way in")]
    let mut slow = Command::new(machine.host.layout().program("qrexec-client-vm"))
        .args(["dom0", "saltbridge.VmExec+work"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qrexec-client-vm");
    let mut stdin = slow.stdin.take().expect("its input");
    writeln!(stdin, "{{\"cmd\": \"head -c {BYTES} /dev/zero\"}}").expect("it reads");
    drop(stdin);
    for _ in 0..3 {
        let before = agent.done;
        agent.round(dice);
        assert!(agent.done >= before + 5, "a slow reader holds others up");
    }
    let mut all = Vec::new();
    slow.stdout.take().expect("its output").read_to_end(&mut all).expect("the rest");
    assert_eq!(all.len(), BYTES, "a slow reader loses bytes");
    assert!(slow.wait().expect("an end").success());
}
