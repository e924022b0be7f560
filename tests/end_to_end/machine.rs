//! A simulated host with Salt Bridge in it, its MCP clients, and the older program's way in.
#![expect(clippy::disallowed_methods, reason = "tests start the programs under test")]

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use rmcp::model::CallToolResult;
use salt_bridge_sim::{Era, Host, HostOptions, McpClient, Population, Resident};
use serde_json::{Map, Value};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

/// The longest a test waits for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The operator's file of most tests.
pub(crate) const SCOPE: &str = "\
@agent salt-bridge
work
dev
test        see
ro          see,files
@tag:ai-managed  see,exec,files
";

/// Both ways in which a session of MCP begins.
pub(crate) const ERAS: [Era; 2] = [Era::Legacy, Era::Modern];

/// A host in a folder of its own. Both are gone at the end of the test.
pub(crate) struct Machine {
    pub(crate) host: Host,
    _dir: tempfile::TempDir,
}

/// Runs a test on a host of its own; afterwards nothing may be left running in any qube.
pub(crate) fn on_host(test: impl AsyncFnOnce(&Machine)) {
    on_host_with(SCOPE, Population::default().and([Resident::app("ro", "gray")]), test);
}

/// The same with another operator's file, and with other qubes.
pub(crate) fn on_host_with(scope: &str, population: Population, test: impl AsyncFnOnce(&Machine)) {
    let dir = tempfile::Builder::new().prefix("sb").tempdir().unwrap();
    let options = HostOptions::new(dir.path().join("h"), env!("CARGO_BIN_EXE_salt-bridge-sim"));
    let host = Host::start(HostOptions { population, ..options }).unwrap();
    host.install(scope).unwrap();
    let machine = Machine { host, _dir: dir };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(PATIENCE, test(&machine)).await.expect("the test hangs");
    });
    for qube in ["work", "dev", "test", "ai-build", "ai-test", "vault"] {
        until(qube, || machine.host.processes(qube).map_or(true, |left| left.is_empty()));
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// The same beside other work of the one thread; whoever waits sets the limit.
pub(crate) async fn becomes(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

/// The arguments of a call.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("not an object: {value}") };
    object
}

/// The structured result of a call that succeeded.
pub(crate) fn success(result: &CallToolResult) -> Value {
    assert_eq!(result.is_error, Some(false), "{result:?}");
    let value = result.structured_content.clone().expect("a structured result");
    let text = &result.content[0].as_text().expect("the same as text").text;
    // What is long is not sent twice.
    if !text.starts_with("The result takes") {
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), value);
    }
    value
}

/// The sentence of a call that failed.
pub(crate) fn failure(result: &CallToolResult) -> String {
    assert_eq!(result.is_error, Some(true), "{result:?}");
    assert!(result.structured_content.is_none(), "{result:?}");
    result.content[0].as_text().expect("a sentence").text.clone()
}

/// Calls a tool that has to succeed.
pub(crate) async fn ok(client: &mut McpClient, tool: &str, arguments: Value) -> Value {
    success(&client.call(tool, object(arguments)).await.unwrap())
}

/// Calls a tool that has to fail.
pub(crate) async fn error(client: &mut McpClient, tool: &str, arguments: Value) -> String {
    failure(&client.call(tool, object(arguments)).await.unwrap())
}

/// What a program told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Machine {
    /// A host in a folder that goes with it.
    pub(crate) fn of(host: Host, dir: tempfile::TempDir) -> Self {
        Self { host, _dir: dir }
    }

    /// A session in the newer era.
    pub(crate) async fn client(&self) -> McpClient {
        McpClient::start(&self.host, Era::Modern).await.unwrap()
    }

    /// The home folder of a qube's ordinary user.
    pub(crate) fn home(&self, qube: &str) -> PathBuf {
        self.host.layout().qube_root(qube).join("home/user")
    }

    /// A file of dom0.
    pub(crate) fn dom0(&self, path: &str) -> String {
        std::fs::read_to_string(self.host.root().join(path)).unwrap_or_default()
    }

    /// The agent's `qrexec-client-vm`, its streams in our hands.
    pub(crate) fn qrexec(&self, target: &str, service: &str) -> Child {
        Self::piped(&self.host.layout().program("qrexec-client-vm"), &[target, service])
    }

    /// That of another qube.
    pub(crate) fn qrexec_from(&self, qube: &str, target: &str, service: &str) -> Child {
        let program = self.host.layout().qube(qube).join("bin/qrexec-client-vm");
        Self::piped(&program, &[target, service])
    }

    /// The agent itself, its streams in our hands.
    pub(crate) fn agent(&self) -> Child {
        let client = self.host.layout().program("qrexec-client-vm");
        let client = client.to_str().unwrap();
        Self::piped(&self.host.layout().program("salt-bridge"), &["--qrexec-client-vm", client])
    }

    fn piped(program: &std::path::Path, arguments: &[&str]) -> Child {
        let mut command = Command::new(program);
        command.args(arguments).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// What the older program gets: the request is written, the input closed, the answer read.
    pub(crate) async fn plain(&self, service: &str, request: &str) -> Told {
        Self::finish(self.qrexec("dom0", &format!("saltbridge.{service}")), request.as_bytes())
            .await
    }

    /// Writes all input to a program, closes it, and takes what comes.
    pub(crate) async fn finish(mut child: Child, input: &[u8]) -> Told {
        let mut stdin = child.stdin.take().unwrap();
        let write = async {
            // A program that refuses does not read.
            drop(stdin.write_all(input).await);
            drop(stdin);
        };
        let ((), output) = tokio::join!(write, child.wait_with_output());
        output.unwrap().into()
    }
}
