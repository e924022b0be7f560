//! The agent as a process, spoken to line by line as an MCP client does, without a client's own cost.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use salt_bridge_sim::Host;
use serde_json::{Value, json};

/// A session; the process ends with this.
pub(crate) struct Shim {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    sent: u64,
}

impl Shim {
    /// Starts the agent of this host.
    pub(crate) fn start(host: &Host) -> Self {
        let layout = host.layout();
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        let mut child = Command::new(layout.program("salt-bridge"))
            .arg("--qrexec-client-vm")
            .arg(layout.program("qrexec-client-vm"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the agent starts");
        let stdin = child.stdin.take().expect("its input");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { child, stdin, lines, sent: 0 }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The number of the request that is sent next.
    pub(crate) fn next(&self) -> u64 {
        self.sent + 1
    }

    /// Sends a request and gives its number.
    pub(crate) fn ask(&mut self, method: &str, mut params: Value) -> u64 {
        self.sent += 1;
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "proof", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let request =
            json!({"jsonrpc": "2.0", "id": self.sent, "method": method, "params": params});
        writeln!(self.stdin, "{request}").expect("the agent reads");
        self.sent
    }

    /// The next answer, whichever request it belongs to.
    pub(crate) fn answer(&mut self) -> (u64, Value) {
        loop {
            let line = self.lines.next().expect("the agent lives").expect("a line");
            let mut answer: Value = serde_json::from_str(&line).expect("JSON");
            if let Some(id) = answer.get("id").and_then(Value::as_u64) {
                return (id, answer["result"].take());
            }
        }
    }

    /// Sends a call of a tool and gives its number.
    pub(crate) fn send(&mut self, tool: &str, arguments: &Value) -> u64 {
        self.ask("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// Calls a tool: its result, or the sentence of its failure.
    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> Result<Value, String> {
        let sent = self.send(tool, arguments);
        let (id, result) = self.answer();
        assert_eq!(id, sent, "the answer to another call");
        outcome(result)
    }
}

/// The structured result of a call, or the sentence of its failure.
pub(crate) fn outcome(mut result: Value) -> Result<Value, String> {
    if result["isError"] == json!(false) {
        Ok(result["structuredContent"].take())
    } else {
        Err(result["content"][0]["text"].as_str().unwrap_or("no answer").to_owned())
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
