//! A simulated host from outside: its programs, its qubes, its qubesd.

mod support;

use support::{Machine, output};

#[test]
fn a_command_in_a_running_qube_keeps_its_streams_and_its_code_apart() {
    let machine = Machine::start();
    let mut client = machine.qrexec_client("work", "DEFAULT:QUBESRPC qubes.VMShell dom0");
    let output = output(&mut client, b"hostname; echo err >&2; exit 3\n");
    assert_eq!(output.status.code(), Some(3));
    if machine.isolated() {
        assert_eq!(String::from_utf8_lossy(&output.stdout), "work\n");
    }
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
}
