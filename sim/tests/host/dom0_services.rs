//! Services of dom0, called from qubes: against what was recorded from real qrexec.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::fs::{PermissionsExt as _, symlink},
    thread,
};

use super::machine::{Machine, told};

const REFUSED: (i32, &str, &str) = (126, "", "Request refused\n");

fn plain(answer: &(i32, String, String)) -> (i32, &str, &str) {
    (answer.0, &answer.1, &answer.2)
}

#[test]
fn a_program_learns_who_calls_whom_with_what() {
    let machine = Machine::with_services(&["test.Env"]);
    let text =
        "#!/bin/sh\nenv | grep ^QREXEC_ | sort\necho \"arg=$1 n=$#\"\ncat\necho unheard >&2\n";
    machine.service("test.Env", text);
    let seen = |target: &str, service: &str| {
        let (code, stdout, stderr) = told(&mut machine.call(target, service), "hello");
        assert_eq!((code, stderr.as_str()), (0, ""));
        stdout
    };
    assert_eq!(
        seen("dom0", "test.Env+a1"),
        "QREXEC_REMOTE_DOMAIN=salt-bridge\nQREXEC_REQUESTED_TARGET=dom0\n\
         QREXEC_REQUESTED_TARGET_TYPE=name\nQREXEC_SERVICE_ARGUMENT=a1\n\
         QREXEC_SERVICE_FULL_NAME=test.Env+a1\narg=a1 n=1\nhello"
    );
    assert_eq!(
        seen("@adminvm", "test.Env"),
        "QREXEC_REMOTE_DOMAIN=salt-bridge\nQREXEC_REQUESTED_TARGET_KEYWORD=adminvm\n\
         QREXEC_REQUESTED_TARGET_TYPE=keyword\nQREXEC_SERVICE_ARGUMENT=\n\
         QREXEC_SERVICE_FULL_NAME=test.Env+\narg= n=0\nhello"
    );
    for target in ["@default", "", "$default"] {
        let text = seen(target, "test.Env+def");
        assert!(text.contains("\nQREXEC_REQUESTED_TARGET_KEYWORD=default\n"), "{text}");
    }
    assert!(seen("work", "test.Env+tgt").contains("\nQREXEC_REQUESTED_TARGET=work\n"));
    assert!(seen("dom0", "test.Env+sp ace").contains("\narg=sp_ace n=1\n"));
}

#[test]
fn exit_codes_are_those_of_qrexec() {
    let names =
        ["test.Exit", "test.NoExec", "test.Missing", "test.Sig", "test.Dangling", "test.Arg"];
    let machine = Machine::with_services(&names);
    machine.service("test.Exit", "#!/bin/sh\necho out\nexit 42\n");
    machine.service("test.Sig", "#!/bin/sh\nkill -KILL $$\n");
    machine.service("test.Arg+one", "#!/bin/sh\nexit 1\n");
    machine.service("test.Arg", "#!/bin/sh\nexit 2\n");
    let path = machine.service("test.NoExec", "#!/bin/sh\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let services = machine.host.root().join("etc/qubes-rpc");
    symlink("/run/nothing.sock", services.join("test.Dangling")).unwrap();
    let call = |service: &str| told(&mut machine.call("dom0", service), "");
    assert_eq!(plain(&call("test.Exit")), (42, "out\n", ""));
    assert_eq!(plain(&call("test.NoExec")), (125, "", ""));
    assert_eq!(plain(&call("test.Missing")), (127, "", ""));
    assert_eq!(plain(&call("test.Dangling")), (127, "", ""));
    assert_eq!(plain(&call("test.Sig")), (137, "", ""));
    assert_eq!((call("test.Arg+one").0, call("test.Arg+two").0), (1, 2));
}

#[test]
fn every_refusal_looks_alike() {
    let machine = Machine::with_services(&["test.Env"]);
    machine.service("test.Env", "#!/bin/sh\n");
    machine.service("test.Denied", "#!/bin/sh\n");
    for (target, service) in [
        ("dom0", "test.Denied"),
        ("dom0", "bad/name"),
        ("dom0", &"a".repeat(80)),
        ("work", "qubes.VMShell"),
    ] {
        assert_eq!(plain(&told(&mut machine.call(target, service), "")), REFUSED, "{service}");
    }
    for qube in ["work", "personal"] {
        assert_eq!(plain(&told(&mut machine.call_from(qube, "dom0", "test.Env"), "")), REFUSED);
    }
    machine.host.set_policy("30-test.policy", "no policy at all\n").unwrap();
    assert_eq!(plain(&told(&mut machine.call("dom0", "test.Env"), "")), REFUSED);
}

#[test]
fn a_socket_service_gets_the_descriptor_that_real_qrexec_sends() {
    let machine = Machine::with_services(&["test.Sock"]);
    let listener = machine.socket_service("test.Sock");
    let echo = thread::spawn(move || {
        for stream in listener.incoming().take(6) {
            let mut stream = stream.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        }
    });
    for (target, service, descriptor) in [
        ("dom0", "test.Sock", "test.Sock+ salt-bridge name dom0\0"),
        ("@adminvm", "test.Sock", "test.Sock+ salt-bridge keyword adminvm\0"),
        ("dom0", "test.Sock+arg1", "test.Sock+arg1 salt-bridge name dom0\0"),
        ("dom0", "test.Sock+a+b", "test.Sock+a+b salt-bridge name dom0\0"),
        ("work", "test.Sock+totarget", "test.Sock+totarget salt-bridge name work\0"),
        ("vault", "test.Sock+", "test.Sock+ salt-bridge name vault\0"),
    ] {
        let answer = told(&mut machine.call(target, service), "PAYLOAD");
        assert_eq!(plain(&answer), (0, format!("{descriptor}PAYLOAD").as_str(), ""));
    }
    echo.join().unwrap();
}

#[test]
fn a_call_lasts_until_both_sides_of_a_socket_have_ended() {
    let machine = Machine::with_services(&["test.Sock"]);
    let listener = machine.socket_service("test.Sock");
    let service = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // First it stops to speak, and goes on listening.
        stream.write_all(b"first").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let answer = told(&mut machine.call("dom0", "test.Sock"), "late");
    assert_eq!(plain(&answer), (0, "first", ""));
    assert!(service.join().unwrap().ends_with(b"\0late"));
}

#[test]
fn the_admin_api_answers_through_qrexec() {
    let machine = Machine::start();
    let policy = "admin.vm.List * salt-bridge work allow target=@adminvm\n\
                  admin.vm.List * salt-bridge @adminvm allow target=@adminvm\n\
                  admin.vm.CurrentState * salt-bridge work allow target=@adminvm\n";
    machine.host.set_policy("30-test.policy", policy).unwrap();
    let uuid = machine.host.uuid("work").unwrap();
    let work = format!("work class=AppVM state=Running uuid={uuid}\n");
    let zeros = "00000000-0000-0000-0000-000000000000";
    let dom0 = format!("dom0 class=AdminVM state=Running uuid={zeros}\n");
    let list = |target: &str| told(&mut machine.call(target, "admin.vm.List"), "");
    assert_eq!(plain(&list("work")), (0, format!("0\0{work}").as_str(), ""));
    assert_eq!(plain(&list("dom0")), (0, format!("0\0{dom0}{work}").as_str(), ""));
    let wrong = told(&mut machine.call("work", "admin.vm.CurrentState"), "payload");
    assert_eq!(plain(&wrong), (0, "2\0ProtocolError\0\0unexpected payload\0", ""));
    assert_eq!(plain(&list("vault")), REFUSED);
}

#[test]
fn a_local_program_speaks_with_the_service() {
    let machine = Machine::with_services(&["test.Upper"]);
    machine.service("test.Upper", "#!/bin/sh\ntr a-z A-Z\n");
    let mut call = machine.call("dom0", "test.Upper");
    let script = "echo spoken; exec 1>&-; cat >&$SAVED_FD_1";
    let answer = told(call.args(["/bin/bash", "-c", script]), "");
    assert_eq!(plain(&answer), (0, "SPOKEN\n", ""));
}
