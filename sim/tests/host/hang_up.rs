//! What each side sees when the other goes away.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use super::machine::{Machine, PATIENCE, told, until};

fn piped(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_killed_client_closes_the_socket_of_its_service() {
    let machine = Machine::with_services(&["test.Sock"]);
    let listener = machine.socket_service("test.Sock");
    let mut client = piped(&mut machine.call("dom0", "test.Sock"));
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"test.Sock+ salt-bridge name dom0\0");
    assert!(stream.write_all(b"x").is_err(), "the other direction is closed as well");
}

#[test]
fn a_killed_client_closes_the_pipes_of_the_command_and_kills_nothing() {
    let machine = Machine::start();
    let mut client = piped(&mut machine.qrexec_client("work", "user:echo up; cat; echo $? >after"));
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    client.kill().unwrap();
    client.wait().unwrap();
    let after = machine.host.layout().qube_root("work").join("home/user/after");
    until("the command saw the end of its input and went on", || {
        std::fs::read_to_string(&after).is_ok_and(|text| text == "0\n")
    });
}

#[test]
fn a_command_that_does_not_read_outlives_its_client() {
    let machine = Machine::start();
    let mut client = piped(&mut machine.qrexec_client("work", "user:echo up; sleep 1000"));
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    assert!(!machine.host.processes("work").unwrap().is_empty());
}

#[test]
fn a_reader_that_goes_away_is_felt_by_the_command() {
    let machine = Machine::start();
    let mut client = piped(&mut machine.qrexec_client("work", "user:yes"));
    let mut some = [0; 100];
    client.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    drop(client.stdout.take());
    // `yes` ends of SIGPIPE.
    assert_eq!(client.wait().unwrap().code(), Some(141));
}

#[test]
fn the_end_of_output_arrives_before_the_end_of_the_command() {
    let machine = Machine::start();
    let mut client =
        piped(&mut machine.qrexec_client("work", "user:echo all; exec >&-; cat >kept; exit 6"));
    let mut text = String::new();
    client.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "all\n");
    client.stdin.take().unwrap().write_all(b"still heard").unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(6));
    let kept = machine.host.layout().qube_root("work").join("home/user/kept");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "still heard");
}

#[test]
fn a_command_that_ends_does_not_wait_for_its_input() {
    let machine = Machine::start();
    let mut client = piped(&mut machine.qrexec_client("work", "user:exit 5"));
    let input = client.stdin.take();
    assert_eq!(client.wait().unwrap().code(), Some(5));
    drop(input);
}

#[test]
fn a_call_into_a_qube_that_dies_ends_with_255() {
    let machine = Machine::start();
    let mut client = piped(&mut machine.qrexec_client("work", "user:echo up; cat"));
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    machine.host.kill_qube("work").unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(255));
    assert_eq!(told(&mut machine.qrexec_client("work", "user:id"), "").0, 125);
}
