//! A real server on a loopback port, and clients that speak HTTP to it byte by byte.

use std::{fmt::Write as _, time::Duration};

use clap::Parser;
use contract::{Kind, PrincipalName};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use super::*;
use crate::{
    agent::Agent,
    principals::{Principal, Principals, keys::Places, token::Token},
    testing::{self, FakeQrexec},
};

const LISTING: &[u8] = br#"{"vms":[{"name":"work","address":"argument","netvm":"vault"},
    {"name":"vault","address":"argument","netvm":null}]}"#;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    reach: Reach,
}

/// A server, its tokens, and the stand-in for qrexec behind it.
struct Site {
    address: SocketAddr,
    places: Places,
    token: String,
    qrexec: Arc<FakeQrexec>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

impl Site {
    async fn open() -> Self {
        Self::open_with(&[]).await
    }

    async fn open_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            token: folder.path().join("token"),
            principals: folder.path().join("principals.json"),
        };
        keys::make_token(&places.token).unwrap();
        let token = std::fs::read_to_string(&places.token).unwrap().trim().to_owned();
        let options = ["serve", "--listen", "127.0.0.1:0"].iter().chain(options);
        let reach = Line::try_parse_from(options).unwrap().reach;
        let listener = Listener::bind(&reach.place().unwrap()).await.unwrap();
        let address = listener.address().unwrap();
        let qrexec = Arc::new(FakeQrexec::new());
        qrexec.answer("dom0", "VmList", &[(Kind::Result, LISTING)]);
        let agent = Agent::new(testing::tools(), qrexec.qrexec());
        let server = move |caller| Server::new(Arc::new(agent.for_caller(caller)));
        let keys = Arc::new(Keys::open(places.clone()).unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            let door = Door::Tokens(Arc::clone(&keys));
            attend(listener, &reach, door, Some(keys), server, stopped).await;
        });
        Self { address, places, token, qrexec, stop, serving, _folder: folder }
    }

    /// Gives somebody a token.
    fn add(&self, name: &str, tools: Option<&[&str]>, qubes: Option<&[&str]>) -> String {
        let set = |names: &[&str]| names.iter().copied().map(str::to_owned).collect();
        let token = Token::random().unwrap();
        let mut all = Principals::read(&self.places.principals).unwrap();
        let name = PrincipalName::parse(name).unwrap();
        let (tools, qubes) = (tools.map(set), qubes.map(set));
        all.add(Principal { name, sha256: token.digest(), tools, qubes }).unwrap();
        all.write(&self.places.principals).unwrap();
        token.as_str().to_owned()
    }

    fn revoke(&self, name: &str) {
        let mut all = Principals::read(&self.places.principals).unwrap();
        assert!(all.remove(&PrincipalName::parse(name).unwrap()));
        all.write(&self.places.principals).unwrap();
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends one request on a connection of its own and reads the answer to its end.
    async fn send(&self, head: &str, body: &str) -> Answer {
        let mut stream = self.connect().await;
        let length = body.len();
        let text = format!("{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(text.as_bytes()).await.unwrap();
        Answer::read(stream).await
    }

    /// A request of revision 2026-07-28 with this token.
    async fn ask(&self, token: &str, method: &str, params: Value) -> Answer {
        let (head, body) = modern(token, method, params);
        self.send(&head, &body).await
    }

    async fn call(&self, token: &str, tool: &str, arguments: Value) -> Value {
        let params = json!({"name": tool, "arguments": arguments});
        let answer = self.ask(token, "tools/call", params).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.event()["result"].clone()
    }

    async fn is_served(&self, token: &str) -> u16 {
        self.ask(token, "tools/list", json!({})).await.status
    }
}

const HEAD: &str = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
    Accept: application/json, text/event-stream\r\n";

fn modern(token: &str, method: &str, mut params: Value) -> (String, String) {
    let name = params["name"].as_str().map(str::to_owned);
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": {}
    });
    let mut head = format!(
        "{HEAD}Authorization: Bearer {token}\r\nMCP-Protocol-Version: 2026-07-28\r\n\
         Mcp-Method: {method}\r\n"
    );
    if let Some(name) = name {
        write!(head, "Mcp-Name: {name}\r\n").unwrap();
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    (head, body.to_string())
}

/// A request of revision 2025-11-25.
fn legacy(token: &str, session: Option<&str>, body: &Value) -> (String, String) {
    let mut head = format!("{HEAD}Authorization: Bearer {token}\r\n");
    if let Some(session) = session {
        write!(head, "Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: 2025-11-25\r\n").unwrap();
    }
    (head, body.to_string())
}

fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"}}})
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    async fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A server that turns a body away may reset the connection behind its answer.
        while let Ok(1..) = stream.read_buf(&mut bytes).await {}
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.starts_with(name))?;
        line.split_once(": ").map(|(_, value)| value)
    }

    /// The last message of a stream of events.
    fn event(&self) -> Value {
        let line = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
        serde_json::from_str(line.unwrap_or(&self.body)).unwrap()
    }
}

#[tokio::test]
async fn only_a_good_token_lets_a_request_in() {
    let site = Site::open().await;
    let laptop = site.add("laptop", None, None);
    assert_eq!(site.is_served(&site.token).await, 200);
    assert_eq!(site.is_served(&laptop).await, 200);
    for bad in [
        "",
        "short",
        &"x".repeat(47),
        site.token.trim_start_matches('s'),
        &format!("{}x", site.token),
    ] {
        let answer = site.ask(bad, "tools/list", json!({})).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("bearer")));
    }
    assert_eq!(site.send(HEAD, "{}").await.status, 401);
    site.revoke("laptop");
    assert_eq!(site.is_served(&laptop).await, 401);
    assert_eq!(site.is_served(&site.token).await, 200);
    assert!(site.qrexec.calls().is_empty());
}

#[tokio::test]
async fn a_request_that_a_page_in_a_browser_could_make_is_refused() {
    let site = Site::open_with(&["--allow-host", "agent.example"]).await;
    let (head, body) = modern(&site.token, "tools/list", json!({}));
    let with = async |host: &str, more: &str| {
        let head = head.replace("Host: localhost", &format!("Host: {host}"));
        site.send(&format!("{head}{more}"), &body).await.status
    };
    let port = site.address.port();
    for host in ["localhost:9", "127.0.0.1", "[::1]:7325", "agent.example"] {
        assert_eq!(with(host, "").await, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "agent.example.org", "\u{1}"]
    {
        assert!(matches!(with(host, "").await, 400 | 403), "{host}");
    }
    assert_eq!(with("localhost", &format!("Origin: http://localhost:{port}\r\n")).await, 200);
    for origin in ["http://evil.example", "http://localhost:1", "null", "https://localhost"] {
        assert_eq!(with("localhost", &format!("Origin: {origin}\r\n")).await, 403, "{origin}");
    }
}

#[tokio::test]
async fn long_bodies_are_turned_away_before_they_are_kept() {
    let site = Site::open().await;
    let auth = format!("{HEAD}Authorization: Bearer {}\r\n", site.token);
    for (head, status) in [
        // A stranger's body is not read at all.
        (format!("{HEAD}Content-Length: 104857600\r\n\r\n"), 401),
        (format!("{auth}Content-Length: 104857600\r\n\r\n"), 413),
        (format!("{auth}Content-Length: 99999999999999999999\r\n\r\n"), 400),
    ] {
        let mut stream = site.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        assert_eq!(Answer::read(stream).await.status, status, "{head}");
    }
    let mut stream = site.connect().await;
    stream.write_all(format!("{auth}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let writing = async {
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while writer.write_all(chunk.as_bytes()).await.is_ok() {}
    };
    let mut answer = Vec::new();
    let reading = async { while let Ok(1..) = reader.read_buf(&mut answer).await {} };
    tokio::join!(writing, reading);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 413"));
    assert_eq!(site.is_served(&site.token).await, 200);
}

#[tokio::test(start_paused = true)]
async fn who_sends_slowly_is_cut_off() {
    let site = Site::open().await;
    let auth = format!("{HEAD}Authorization: Bearer {}\r\n", site.token);
    for begin in ["".to_owned(), "POST /mcp HT".to_owned(), auth.clone()] {
        let started = tokio::time::Instant::now();
        let mut stream = site.connect().await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        Answer::read(stream).await;
        let took = started.elapsed();
        assert!(took <= limits::HTTP_HEAD + Duration::from_secs(1), "{begin}: {took:?}");
    }
    let mut stream = site.connect().await;
    stream.write_all(format!("{auth}Content-Length: 9\r\n\r\n{{").as_bytes()).await.unwrap();
    assert_eq!(Answer::read(stream).await.status, 408);
}

#[tokio::test]
async fn strangers_that_hold_connections_open_do_not_keep_a_client_out() {
    let site = Site::open().await;
    let mut held = Vec::new();
    for _ in 0..limits::HTTP_NEWCOMERS * 2 {
        let mut stream = site.connect().await;
        stream.write_all(b"POST /mcp HTTP/1.1\r\nX: ").await.unwrap();
        held.push(stream);
    }
    assert_eq!(site.is_served(&site.token).await, 200);
    let mut first = held.swap_remove(0);
    assert!(matches!(first.read(&mut [0; 9]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn heads_are_short() {
    let site = Site::open().await;
    let (head, body) = modern(&site.token, "tools/list", json!({}));
    let long = format!("{head}X: {}\r\n", "x".repeat(limits::HTTP_HEAD_BYTES));
    let many: String = (0..limits::HTTP_HEADERS).map(|n| format!("X-{n}: 1\r\n")).collect();
    for head in [long, format!("{head}{many}")] {
        assert_eq!(site.send(&head, &body).await.status, 431);
    }
}

#[tokio::test]
async fn a_session_is_its_own_principals_and_there_are_few() {
    let site = Site::open().await;
    let laptop = site.add("laptop", None, None);
    let open = async |token: &str| {
        let (head, body) = legacy(token, None, &initialize());
        let answer = site.send(&head, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.header("mcp-session-id").unwrap().to_owned()
    };
    let ping = async |token: &str, session: &str| {
        let ping = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let (head, body) = legacy(token, Some(session), &ping);
        site.send(&head, &body).await.status
    };
    let first = open(&site.token).await;
    assert_eq!(ping(&site.token, &first).await, 202);
    assert_eq!(ping(&laptop, &first).await, 404);
    assert_eq!(ping(&site.token, "00000000-0000-0000-0000-000000000000").await, 404);
    let other = open(&laptop).await;
    for _ in 0..limits::HTTP_SESSIONS {
        open(&site.token).await;
    }
    assert_eq!(ping(&site.token, &first).await, 404, "unused for longest");
    assert_eq!(ping(&laptop, &other).await, 202);
}

#[tokio::test]
async fn a_principal_reaches_only_what_it_may_and_dom0_learns_its_name() {
    let site = Site::open().await;
    let script = "head -n 1 > \"$dir/line\"; cat \"$dir/done\"";
    site.qrexec.script("dom0", "VmExec+work", script);
    site.qrexec.frames("done", &[(Kind::Result, br#"{"exit_code":3}"#)]);
    let laptop = site.add("laptop", Some(&["list_vms", "exec_in_vm"]), Some(&["work"]));
    let is_refused = |result: &Value| {
        let text = result["content"][0]["text"].as_str().unwrap_or_default();
        result["isError"] == true && text.contains("request refused")
    };
    let arguments = json!({"vm_name": "work", "command": "id"});
    let done = site.call(&laptop, "exec_in_vm", arguments).await;
    assert_eq!(done["structuredContent"]["exit_code"], 3, "{done}");
    let line = std::fs::read_to_string(site.qrexec.path("line")).unwrap();
    assert!(line.trim().ends_with(r#""principal":"laptop"}"#), "{line}");
    let calls = site.qrexec.calls();
    for (tool, arguments) in [
        ("exec_in_vm", json!({"vm_name": "vault", "command": "id"})),
        ("exec_in_vm", json!({"vm_name": "none", "command": "id"})),
        ("read_file_in_vm", json!({"vm_name": "work", "file_path": "/etc/passwd"})),
        ("connect_tcp_policy", json!({"action": "list"})),
    ] {
        let result = site.call(&laptop, tool, arguments).await;
        assert!(is_refused(&result), "{tool}: {result}");
    }
    assert_eq!(site.qrexec.calls(), calls, "dom0 was not asked");
    let listed = site.call(&laptop, "list_vms", json!({})).await["structuredContent"].clone();
    let vms = json!([{"name": "work", "address": "argument", "netvm": "<out-of-scope>"}]);
    assert_eq!(listed["vms"], vms);
    let all = site.call(&site.token, "list_vms", json!({})).await["structuredContent"].clone();
    assert_eq!(all["vms"][0]["netvm"], "vault");
}

#[tokio::test]
async fn a_token_that_is_taken_back_ends_the_calls_made_with_it() {
    let site = Site::open().await;
    site.qrexec.script("dom0", "VmExec+work", "echo > \"$dir/begun\"; exec sleep 600");
    let laptop = site.add("laptop", None, None);
    let (head, body) = modern(
        &laptop,
        "tools/call",
        json!({"name": "exec_in_vm", "arguments": {"vm_name": "work", "command": "id"}}),
    );
    let begun = site.qrexec.path("begun");
    let revoking = async {
        while !begun.exists() {
            tokio::task::yield_now().await;
        }
        site.revoke("laptop");
    };
    let (answer, ()) = tokio::join!(site.send(&head, &body), revoking);
    assert!(answer.status == 401 || answer.body.contains("refused"), "{}", answer.body);
}

#[tokio::test]
async fn the_server_ends_in_order() {
    let site = Site::open().await;
    let (head, body) = legacy(&site.token, None, &initialize());
    let session = site.send(&head, &body).await.header("mcp-session-id").unwrap().to_owned();
    let idle = site.connect().await;
    let mut events = site.connect().await;
    let head = format!(
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\
         Authorization: Bearer {}\r\nMcp-Session-Id: {session}\r\n\r\n",
        site.token
    );
    events.write_all(head.as_bytes()).await.unwrap();
    events.read_exact(&mut [0; 12]).await.unwrap();
    site.stop.cancel();
    site.serving.await.unwrap();
    for stream in [idle, events] {
        Answer::read(stream).await;
    }
    assert!(TcpStream::connect(site.address).await.is_err());
}
