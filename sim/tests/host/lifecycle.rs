//! Qubes that start, stop, pause and vanish.

use std::process::Stdio;

use salt_bridge_sim::{Mode, PowerState};

use super::machine::{Machine, told, until};

fn names(machine: &Machine, since: usize) -> Vec<String> {
    let events = machine.host.events().since(since);
    events.into_iter().filter(|event| event.subject == "dev").map(|event| event.name).collect()
}

#[test]
fn a_start_and_a_shutdown_tell_the_events_that_were_recorded() {
    let machine = Machine::start();
    let before = machine.host.events().len();
    assert_eq!(machine.admin("admin.vm.Start+", "dev"), "0\0");
    assert_eq!(machine.admin("admin.vm.Start+", "dev"), "0\0");
    assert_eq!(
        names(&machine, before),
        [
            "domain-pre-start",
            "domain-verify-files",
            "domain-pre-spawn",
            "property-reset:xid",
            "property-reset:stubdom_xid",
            "property-reset:start_time",
            "domain-spawn",
            "domain-qdb-create",
            "domain-pre-unpaused",
            "domain-unpaused",
            "domain-start"
        ]
    );
    let before = machine.host.events().len();
    assert_eq!(machine.admin("admin.vm.Shutdown+wait", "dev"), "0\0");
    assert_eq!(machine.host.power_state("dev").unwrap(), PowerState::Halted);
    assert_eq!(
        names(&machine, before),
        [
            "domain-pre-shutdown",
            "domain-stopped",
            "property-reset:xid",
            "property-reset:stubdom_xid",
            "property-reset:start_time",
            "domain-shutdown",
            "device-list-change:usb"
        ]
    );
}

#[test]
fn a_shutdown_without_wait_takes_effect_later() {
    let machine = Machine::start();
    assert_eq!(machine.admin("admin.vm.Shutdown+", "work"), "0\0");
    until("the qube is halted", || machine.host.power_state("work").unwrap() == PowerState::Halted);
    let off = "2\0QubesVMNotStartedError\0\0Domain is powered off: 'work'\0";
    assert_eq!(machine.admin("admin.vm.Shutdown+", "work"), off);
    assert_eq!(machine.admin("admin.vm.Kill+", "work"), off);
}

#[test]
fn a_stubborn_qube_can_only_be_killed() {
    let machine = Machine::start();
    machine.host.set_stubborn("work", true).unwrap();
    let request = b"admin.vm.property.Set+shutdown_timeout dom0 name work\x001";
    assert_eq!(machine.qubesd(request), b"0\0");
    let late = "2\0QubesVMShutdownTimeoutError\0\0Domain shutdown timed out: 'work'\0";
    assert_eq!(machine.admin("admin.vm.Shutdown+wait", "work"), late);
    assert_eq!(machine.host.power_state("work").unwrap(), PowerState::Running);
    assert_eq!(machine.admin("admin.vm.Kill+", "work"), "0\0");
    assert_eq!(machine.host.power_state("work").unwrap(), PowerState::Halted);
}

#[test]
fn a_network_qube_is_not_shut_down_under_others() {
    let machine = Machine::start();
    let reply = machine.admin("admin.vm.Shutdown+", "sys-firewall");
    let connected = "There are other VMs connected to this VM: ai-build, salt-bridge, work";
    assert_eq!(reply, format!("2\0QubesVMInUseError\0\0{connected}\0"));
    assert_eq!(machine.admin("admin.vm.Shutdown+force+wait", "sys-firewall"), "0\0");
}

#[test]
fn the_processes_of_a_paused_qube_stand_still() {
    let machine = Machine::start();
    assert_eq!(machine.admin("admin.vm.Pause+", "work"), "0\0");
    assert!(machine.admin("admin.vm.CurrentState+", "work").ends_with("power_state=Paused"));
    let mut client = machine.qrexec_client("work", "user:echo awake");
    let mut client = client.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let paused = "2\0QubesVMNotRunningError\0\0\
                  Domain not running (either powered off or paused): 'work'\0";
    assert_eq!(machine.admin("admin.vm.Shutdown+", "work"), paused);
    assert!(client.try_wait().unwrap().is_none());
    assert_eq!(machine.admin("admin.vm.Unpause+", "work"), "0\0");
    assert_eq!(client.wait().unwrap().code(), Some(0));
}

#[test]
fn nothing_of_a_qube_outlives_it() {
    for mode in [None, Some(Mode::Plain)] {
        let machine = Machine::with(|options| options.mode = mode);
        let detach = "user:setsid sleep 1000 >/dev/null 2>&1 </dev/null & \
                      (trap '' TERM; setsid sleep 1000) >/dev/null 2>&1 </dev/null &";
        assert_eq!(told(&mut machine.qrexec_client("work", detach), "").0, 0);
        until("both sleep", || machine.host.processes("work").unwrap().len() >= 2);
        let left = machine.host.processes("work").unwrap();
        machine.host.shut_down_qube("work").unwrap();
        until("none is left", || left.iter().all(|pid| !alive(*pid)));

        assert_eq!(told(&mut machine.qrexec_client("ai-build", detach), "").0, 0);
        let left = machine.host.processes("ai-build").unwrap();
        drop(machine);
        until("the host took all with it", || left.iter().all(|pid| !alive(*pid)));
    }
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

#[test]
fn a_created_qube_lives_and_dies_like_the_others() {
    let machine = Machine::start();
    let request = b"admin.vm.Create.AppVM+ salt-bridge name dom0\0name=ai-new label=red";
    assert_eq!(machine.qubesd(request), b"0\0");
    assert!(machine.admin("admin.vm.tag.List+", "ai-new").contains("created-by-salt-bridge\n"));
    machine.host.start_qube("ai-new").unwrap();
    assert_eq!(told(&mut machine.qrexec_client("ai-new", "user:exit 7"), "").0, 7);
    let running = "2\0QubesVMNotHaltedError\0\0Domain is not powered off: 'ai-new'\0";
    assert_eq!(machine.admin("admin.vm.Remove+", "ai-new"), running);
    machine.host.kill_qube("ai-new").unwrap();
    assert_eq!(machine.admin("admin.vm.Remove+", "ai-new"), "0\0");
    assert!(!machine.host.layout().qube("ai-new").exists());

    let request = b"admin.vm.CreateDisposable+ salt-bridge name default-dvm\0uuid";
    let reply = String::from_utf8(machine.qubesd(request)).unwrap();
    let uuid = reply.strip_prefix("0\0").unwrap();
    assert_eq!(machine.admin("admin.vm.Start+", uuid), "0\0");
    let tags = machine.admin("admin.vm.tag.List+", uuid);
    assert!(tags.contains("\ndisp-created-by-salt-bridge\n"), "{tags}");
    assert_eq!(machine.admin("admin.vm.Kill+", uuid), "0\0");
    assert!(machine.admin("admin.vm.List+", uuid).starts_with("2\0QubesVMNotFoundError\0"));
}
