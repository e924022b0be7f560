//! The host as a program: what it leaves behind, however it ends.
#![expect(clippy::disallowed_methods, reason = "the tests start the program")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::machine::until;

const PROGRAM: &str = env!("CARGO_BIN_EXE_salt-bridge-sim");

fn start(arguments: &[&str], temporary: &Path) -> Child {
    Command::new(PROGRAM)
        .args(arguments)
        .env("TMPDIR", temporary)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until a host says how its qubes run, which it does when it is up.
fn up(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("Qubes run "), "{line}");
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Whether a process of this machine was started from beneath this folder.
fn anybody(folder: &Path) -> bool {
    let folder = folder.to_string_lossy();
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(folder.as_ref()))
    })
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn a_server_for_mcp_takes_its_host_with_it_at_the_end_of_input() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(&["mcp"], folder.path());
    up(&mut child);
    assert!(!is_empty(folder.path()));
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(is_empty(folder.path()));
    until("no process is left", || !anybody(folder.path()));
}

#[test]
fn a_server_for_mcp_takes_its_host_with_it_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(&["mcp"], folder.path());
    up(&mut child);
    signal(&child, Signal::TERM);
    child.wait().unwrap();
    assert!(is_empty(folder.path()));
    until("no process is left", || !anybody(folder.path()));
}

#[test]
fn a_killed_host_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("h");
    let mut child = start(&["host", "--dir", dir.to_str().unwrap()], folder.path());
    up(&mut child);
    let client = dir.join("bin/qrexec-client");
    let run = ["-d", "work", "user:(trap '' TERM; setsid sleep 1000) >/dev/null 2>&1 &"];
    let status = Command::new(client).args(run).stdin(Stdio::null()).status().unwrap();
    assert!(status.success());
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    until("no process is left", || !anybody(folder.path()));
}

#[test]
fn a_folder_that_holds_a_host_is_not_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("h");
    let arguments = ["host", "--dir", dir.to_str().unwrap()];
    let mut first = start(&arguments, folder.path());
    up(&mut first);
    let second = start(&arguments, folder.path()).wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("cannot make the folder of the host"), "{told}");
    signal(&first, Signal::INT);
    assert_eq!(first.wait().unwrap().code(), Some(0));
}

#[test]
fn wrong_usage_is_told_with_two() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code) in [(&["host"][..], 2), (&["nonsense"][..], 2), (&["--help"][..], 0)] {
        let output = start(arguments, folder.path()).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}
