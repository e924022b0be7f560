//! What every test of the simulated host needs: a machine, and programs started on it.
#![expect(clippy::disallowed_methods, reason = "tests start programs and open sockets")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use salt_bridge_sim::{Host, HostOptions, Mode};

/// The longest a test waits for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A host in a folder of its own. Both are gone at the end of the test.
pub(crate) struct Machine {
    pub(crate) host: Host,
    _dir: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut HostOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = env!("CARGO_BIN_EXE_salt-bridge-sim");
        let mut options = HostOptions::new(dir.path().join("h"), program);
        change(&mut options);
        Self { host: Host::start(options).unwrap(), _dir: dir }
    }

    /// A host whose policy allows the agent everything that begins with `test.`, in dom0.
    pub(crate) fn with_services(services: &[&str]) -> Self {
        let machine = Self::start();
        let lines: String = services
            .iter()
            .map(|name| format!("{name} * salt-bridge * allow target=@adminvm\n"))
            .collect();
        machine.host.set_policy("30-test.policy", &lines).unwrap();
        machine
    }

    pub(crate) fn isolated(&self) -> bool {
        self.host.mode() != Mode::Plain
    }

    pub(crate) fn qrexec_client(&self, qube: &str, command: &str) -> Command {
        let mut client = Command::new(self.host.layout().program("qrexec-client"));
        client.args(["-d", qube, command]);
        client
    }

    /// The agent's `qrexec-client-vm`.
    pub(crate) fn call(&self, target: &str, service: &str) -> Command {
        let mut client = Command::new(self.host.layout().program("qrexec-client-vm"));
        client.args([target, service]);
        client
    }

    /// That of another qube.
    pub(crate) fn call_from(&self, qube: &str, target: &str, service: &str) -> Command {
        let mut client = Command::new(self.host.layout().qube(qube).join("bin/qrexec-client-vm"));
        client.args([target, service]);
        client
    }

    /// Puts an executable service into dom0.
    pub(crate) fn service(&self, name: &str, text: &str) -> PathBuf {
        let path = self.host.root().join("etc/qubes-rpc").join(name);
        script(&path, text);
        path
    }

    /// Puts a socket service into dom0.
    pub(crate) fn socket_service(&self, name: &str) -> UnixListener {
        let socket = format!("run/{name}.sock");
        let listener = UnixListener::bind(self.host.root().join(&socket)).unwrap();
        symlink(format!("/{socket}"), self.host.root().join("etc/qubes-rpc").join(name)).unwrap();
        listener
    }

    /// What qubesd answers to these bytes.
    pub(crate) fn qubesd(&self, request: &[u8]) -> Vec<u8> {
        let mut socket = UnixStream::connect(self.host.layout().qubesd_socket()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // A request that is too long is cut.
        drop(socket.write_all(request));
        drop(socket.shutdown(Shutdown::Write));
        let mut reply = Vec::new();
        drop(socket.read_to_end(&mut reply));
        reply
    }

    /// What qubesd answers to a call by dom0 without a payload.
    pub(crate) fn admin(&self, call: &str, qube: &str) -> String {
        let reply = self.qubesd(format!("{call} dom0 name {qube}\0").as_bytes());
        String::from_utf8(reply).unwrap()
    }
}

/// Runs a program to its end with this input.
pub(crate) fn output(command: &mut Command, input: &[u8]) -> Output {
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

/// The exit code, and both streams as text.
pub(crate) fn told(command: &mut Command, input: &str) -> (i32, String, String) {
    let output = output(command, input.as_bytes());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Writes an executable file.
pub(crate) fn script(path: &Path, text: &str) {
    // A file that is still open for writing elsewhere cannot be executed, so it is moved into place.
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, path).unwrap();
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        // Looking without a pause would take the time of what is waited for.
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
