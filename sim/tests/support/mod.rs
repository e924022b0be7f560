//! What every test of the simulated host needs: a machine, and programs started on it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests start the programs")]

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use salt_bridge_sim::{Host, HostOptions, Mode};

/// A host in a folder of its own. Both are gone at the end of the test.
pub struct Machine {
    pub host: Host,
    _dir: tempfile::TempDir,
}

impl Machine {
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut HostOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = env!("CARGO_BIN_EXE_salt-bridge-sim");
        let mut options = HostOptions::new(dir.path().join("h"), program);
        change(&mut options);
        let host = Host::start(options).unwrap_or_else(|error| panic!("{error:?}"));
        Self { host, _dir: dir }
    }

    pub fn isolated(&self) -> bool {
        self.host.mode() != Mode::Plain
    }

    pub fn qrexec_client(&self, qube: &str, command: &str) -> Command {
        let mut client = Command::new(self.host.layout().program("qrexec-client"));
        client.args(["-d", qube, command]);
        client
    }

    pub fn qrexec_client_vm(&self, target: &str, service: &str) -> Command {
        let mut client = Command::new(self.host.layout().program("qrexec-client-vm"));
        client.args([target, service]);
        client
    }

    pub fn root(&self) -> std::path::PathBuf {
        self.host.root()
    }
}

/// Runs a program to its end with this input.
pub fn output(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Writes an executable file.
pub fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
