//! Calls by a real MCP client, answered by a stand-in for qrexec.

use std::time::Duration;

use contract::Kind;
use rmcp::{
    ClientHandler, ClientServiceExt, RoleClient, ServiceError,
    model::{
        CallToolRequest, ClientRequest, ProgressNotificationParam, ProtocolVersion, ServerResult,
    },
    service::{
        ClientLifecycleMode, NotificationContext, PeerRequestOptions, RequestHandle, RunningService,
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::pipe,
    sync::mpsc,
    task::{JoinHandle, LocalSet},
};

use super::*;
use crate::{
    arguments::Request,
    catalogue::{Named, Tools},
    qrexec::{Address, Qrexec},
    reply::Reply,
    stdio,
    testing::FakeQrexec,
};

type Client = RunningService<RoleClient, Listener>;

/// A client that keeps the progress it is told.
struct Listener(mpsc::UnboundedSender<ProgressNotificationParam>);

impl ClientHandler for Listener {
    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        drop(self.0.send(progress));
    }
}

struct Session {
    client: Client,
    progress: mpsc::UnboundedReceiver<ProgressNotificationParam>,
    serving: JoinHandle<Result<(), stdio::SessionError>>,
}

fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

fn eras() -> [ClientLifecycleMode; 2] {
    [ClientLifecycleMode::Initialize, modern()]
}

impl Session {
    async fn open(fake: &FakeQrexec, era: ClientLifecycleMode) -> Self {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (input, output) = tokio::io::split(far);
        let held = stdio::hold(fake.server(), input, output, CancellationToken::new());
        let serving = tokio::task::spawn_local(held);
        let (sender, progress) = mpsc::unbounded_channel();
        let client = Listener(sender).serve_with_lifecycle(near, era).await.unwrap();
        Self { client, progress, serving }
    }

    async fn call(&self, tool: &'static str, arguments: Value) -> CallToolResult {
        self.client.call_tool(params(tool, arguments)).await.unwrap()
    }

    async fn begin(&self, tool: &'static str, arguments: Value) -> RequestHandle<RoleClient> {
        let request = CallToolRequest::new(params(tool, arguments));
        self.client
            .send_cancellable_request(
                ClientRequest::CallToolRequest(request),
                PeerRequestOptions::no_options(),
            )
            .await
            .unwrap()
    }

    async fn close(self) {
        let Self { mut client, serving, .. } = self;
        client.close().await.unwrap();
        serving.await.unwrap().unwrap();
    }
}

fn params(tool: &'static str, arguments: Value) -> CallToolRequestParams {
    let Value::Object(arguments) = arguments else { panic!("not an object") };
    CallToolRequestParams::new(tool).with_arguments(arguments)
}

fn exec(vm: &str) -> Value {
    json!({"vm_name": vm, "command": "id"})
}

/// The text of an error.
fn error(result: &CallToolResult) -> &str {
    assert_eq!(result.is_error, Some(true), "{result:?}");
    assert_eq!(result.structured_content, None);
    assert_eq!(result.content.len(), 1);
    &result.content[0].as_text().unwrap().text
}

/// The structured content of a success.
fn value(result: CallToolResult) -> Value {
    assert_eq!(result.is_error, Some(false), "{result:?}");
    result.structured_content.unwrap()
}

async fn answer(handle: RequestHandle<RoleClient>) -> CallToolResult {
    let ServerResult::CallToolResult(result) = handle.await_response().await.unwrap() else {
        panic!("not the result of a call")
    };
    result
}

const LISTING: &[(Kind, &[u8])] = &[(
    Kind::Result,
    br#"{"vms":[{"name":"work","address":"argument"},{"name":"ai-1","address":"target"}]}"#,
)];

/// One that knows the addresses of the qubes `work` and `ai-1`.
fn fake() -> FakeQrexec {
    let fake = FakeQrexec::new();
    fake.answer("dom0", "VmList", LISTING);
    fake
}

/// A script that is under way until it is killed, which ends the pipe `alive`.
const HANGS: &str =
    "mkfifo \"$dir/alive\"; exec 3<>\"$dir/alive\"; cat \"$dir/news\"; exec sleep 100";

/// Waits until the last process that holds the pipe is dead.
async fn dead(alive: &mut pipe::Receiver) {
    let mut rest = Vec::new();
    alive.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn the_tools_are_those_of_the_table_in_its_order() {
    LocalSet::new()
        .run_until(async {
            for era in eras() {
                let fake = FakeQrexec::new();
                let session = Session::open(&fake, era).await;
                let tools = session.client.list_all_tools().await.unwrap();
                let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
                assert_eq!(
                    names,
                    [
                        "list_vms",
                        "exec_in_vm",
                        "exec_in_vms",
                        "read_file_in_vm",
                        "write_file_in_vm",
                        "connect_tcp_policy"
                    ]
                );
                for tool in tools {
                    let hints = tool.annotations.unwrap();
                    assert!(hints.read_only_hint.is_some() && hints.destructive_hint.is_some());
                    assert!(hints.idempotent_hint.is_some() && hints.open_world_hint.is_some());
                    assert!(tool.title.is_some() && tool.output_schema.is_some());
                    assert!(!tool.description.unwrap().is_empty());
                }
                session.close().await;
                assert!(fake.calls().is_empty());
            }
        })
        .await;
}

#[tokio::test]
async fn a_qube_is_named_the_way_its_listing_says() {
    LocalSet::new()
        .run_until(async {
            for era in eras() {
                let fake = fake();
                fake.answer("dom0", "VmExec+work", &[(Kind::Result, b"{\"exit_code\":1}")]);
                fake.answer("ai-1", "VmExec+", &[(Kind::Result, b"{\"exit_code\":2}")]);
                let session = Session::open(&fake, era).await;
                assert_eq!(value(session.call("exec_in_vm", exec("work")).await)["exit_code"], 1);
                assert_eq!(value(session.call("exec_in_vm", exec("ai-1")).await)["exit_code"], 2);
                assert_eq!(
                    fake.calls(),
                    [
                        "dom0 saltbridge.VmList",
                        "dom0 saltbridge.VmExec+work",
                        "ai-1 saltbridge.VmExec+"
                    ]
                );
                session.close().await;
            }
        })
        .await;
}

#[tokio::test]
async fn a_listing_by_the_caller_is_remembered() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            fake.answer("ai-1", "VmExec+", &[(Kind::Result, b"{\"exit_code\":0}")]);
            let session = Session::open(&fake, modern()).await;
            let listed = value(session.call("list_vms", json!({})).await);
            assert_eq!(listed["vms"][1]["name"], "ai-1");
            value(session.call("exec_in_vm", exec("ai-1")).await);
            assert_eq!(fake.calls(), ["dom0 saltbridge.VmList", "ai-1 saltbridge.VmExec+"]);
            session.close().await;
        })
        .await;
}

#[tokio::test]
async fn a_refused_qube_is_tried_the_other_way_when_its_address_has_changed() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            fake.answer("dom0", "VmExec+ai-1", &[(Kind::Result, b"{\"exit_code\":0}")]);
            let session = Session::open(&fake, modern()).await;
            value(session.call("list_vms", json!({})).await);
            let listed = br#"{"vms":[{"name":"ai-1","address":"argument"}]}"#;
            fake.answer("dom0", "VmList", &[(Kind::Result, listed)]);
            value(session.call("exec_in_vm", exec("ai-1")).await);
            session.close().await;
        })
        .await;
}

#[tokio::test]
async fn every_refusal_is_the_same_answer() {
    LocalSet::new()
        .run_until(async {
            for era in eras() {
                let fake = fake();
                fake.answer("dom0", "VmExec+work", &[(Kind::Fault, b"{\"fault\":\"Refused\"}")]);
                let session = Session::open(&fake, era).await;
                let by_daemon = session.call("exec_in_vm", exec("work")).await;
                assert_eq!(error(&by_daemon), "request refused");
                for name in ["vault", "ai-1", "dom0", "DOM0", "@adminvm", "uuid:0"] {
                    let by_qrexec = session.call("exec_in_vm", exec(name)).await;
                    assert_eq!(
                        serde_json::to_string(&by_qrexec).unwrap(),
                        serde_json::to_string(&by_daemon).unwrap(),
                        "{name}"
                    );
                }
                session.close().await;
            }
        })
        .await;
}

#[tokio::test]
async fn wrong_arguments_are_answered_without_a_call() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            let session = Session::open(&fake, modern()).await;
            let result = session.call("exec_in_vm", json!({"vm_name": "work", "cmd": "id"})).await;
            assert_eq!(
                error(&result),
                "bad request: unknown argument \"cmd\"; \
                 known are: command, timeout_seconds, vm_name"
            );
            let result = session.call("exec_in_vm", exec("no good")).await;
            assert!(error(&result).contains("a name begins with a letter"));
            let result = session.call("connect_tcp_policy", json!({"action": "x"})).await;
            assert!(error(&result).contains("\"list\" or \"add\" or \"remove\""));
            let unknown = session.client.call_tool(params("nope", json!({}))).await.unwrap_err();
            assert!(matches!(unknown, ServiceError::McpError(error) if error.code.0 == -32602));
            assert!(fake.calls().is_empty());
            session.close().await;
        })
        .await;
}

#[tokio::test]
async fn the_request_is_a_line_and_the_raw_bytes_behind_it() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            fake.frames("done", &[(Kind::Result, b"{\"bytes_written\":3}")]);
            // head would read ahead of the line; dd takes exactly what was announced.
            let line = r#"{"frames":1,"body":3,"args":{"file_path":"/x"}}"#;
            let script = format!(
                "dd bs=1 count={} of=\"$dir/request\" 2> /dev/null; cat \"$dir/done\"",
                line.len() + 1 + 3
            );
            fake.script("dom0", "VmWriteFile+work", &script);
            let session = Session::open(&fake, modern()).await;
            let arguments = json!({"vm_name": "work", "file_path": "/x", "content": "AP8K",
                "encoding": "base64", "mode": null});
            let written = value(session.call("write_file_in_vm", arguments).await);
            assert_eq!(written, json!({"bytes_written": 3}));
            let mut expected = line.as_bytes().to_vec();
            expected.extend(b"\n\x00\xff\n");
            assert_eq!(std::fs::read(fake.path("request")).unwrap(), expected);
            session.close().await;
        })
        .await;
}

#[tokio::test]
async fn streams_of_bytes_become_fields_of_the_result() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            fake.answer(
                "dom0",
                "VmExec+work",
                &[
                    (Kind::Stdout, b"a"),
                    (Kind::Stderr, b"\xff"),
                    (Kind::Stdout, b"b\n"),
                    (Kind::Part, b"{\"exit_"),
                    (Kind::Result, b"code\":3}"),
                ],
            );
            fake.answer(
                "dom0",
                "VmReadFile+work",
                &[(Kind::Stdout, b"\0\xfe"), (Kind::Result, b"{\"size\":2}")],
            );
            let session = Session::open(&fake, modern()).await;
            assert_eq!(
                value(session.call("exec_in_vm", exec("work")).await),
                json!({"exit_code": 3, "stdout": "ab\n", "stderr": "/w==", "stderr_encoding": "base64"})
            );
            let arguments = json!({"vm_name": "work", "file_path": "/x"});
            assert_eq!(
                value(session.call("read_file_in_vm", arguments).await),
                json!({"content": "AP4=", "encoding": "base64", "size": 2})
            );
            session.close().await;
        })
        .await;
}

#[tokio::test]
async fn an_answer_without_its_end_is_an_error() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            fake.frames("half", &[(Kind::Stdout, b"half of it")]);
            for (script, expected) in [
                ("cat \"$dir/half\"", "qrexec-client-vm ended with 0"),
                ("cat \"$dir/half\"; exit 126", "qrexec-client-vm ended with 126"),
                ("head -c 7 \"$dir/half\"; echo oops >&2; exit 1", "ended with 1: oops"),
                ("exit 0", "qrexec-client-vm ended with 0"),
                ("kill -9 $$", "qrexec-client-vm was killed"),
                ("exit 127", "saltbridge.VmExec+work is not installed in dom0"),
                ("exit 125", "dom0 could not run the service saltbridge.VmExec+work"),
                ("printf '\\007\\0\\0\\0\\0'", "unknown frame kind 7"),
                ("printf '\\001\\177\\0\\0\\0'", "longer than 65536"),
                ("echo 'ERROR: no such service'", "dom0 answered: no such service"),
                ("echo 'hello'", "unknown frame kind 104"),
            ] {
                fake.script("dom0", "VmExec+work", script);
                let session = Session::open(&fake, modern()).await;
                let result = session.call("exec_in_vm", exec("work")).await;
                assert!(error(&result).contains(expected), "{script}: {}", error(&result));
                session.close().await;
            }
        })
        .await;
}

#[tokio::test]
async fn a_missing_program_is_told_with_the_place_where_it_was_sought() {
    LocalSet::new()
        .run_until(async {
            let call = async |program: &str| {
                let qrexec = Qrexec::new(program.into());
                let (news, _nobody) = watch::channel(String::new());
                let request = Request::new(JsonObject::new(), Vec::new()).unwrap();
                let address = Address::scope("VmList");
                let mut reply = Reply::default();
                let outcome = qrexec.call(&address, false, request, &news, &mut reply).await;
                outcome.unwrap_err().to_string()
            };
            let told = call("/nowhere/qrexec-client-vm").await;
            assert!(told.starts_with("cannot start /nowhere/qrexec-client-vm (every"), "{told}");
            let told = call("no-such-qrexec-client-vm").await;
            assert!(told.contains("no-such-qrexec-client-vm in the directories of PATH"), "{told}");
        })
        .await;
}

#[tokio::test]
async fn news_of_the_work_reach_the_client_before_its_answer() {
    LocalSet::new()
        .run_until(async {
            for era in eras() {
                let fake = fake();
                fake.answer(
                    "dom0",
                    "VmExec+work",
                    &[
                        (Kind::Progress, br#"{"message":"line 1"}"#),
                        (Kind::Result, b"{\"exit_code\":0}"),
                    ],
                );
                let mut session = Session::open(&fake, era).await;
                value(session.call("exec_in_vm", exec("work")).await);
                let told = session.progress.recv().await.unwrap();
                assert_eq!(told.message.as_deref(), Some("line 1"));
                assert!(told.progress > 0.0);
                session.close().await;
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_call_without_news_is_reported_every_ten_seconds() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            fake.frames("news", &[]);
            fake.script("dom0", "VmExec+work", HANGS);
            let mut session = Session::open(&fake, modern()).await;
            let call = session.begin("exec_in_vm", exec("work")).await;
            let first = session.progress.recv().await.unwrap();
            let second = session.progress.recv().await.unwrap();
            assert_eq!(first.message.as_deref(), Some("not done after 10 s"));
            assert_eq!(second.message.as_deref(), Some("not done after 20 s"));
            assert!(second.progress > first.progress);
            call.cancel(None).await.unwrap();
            session.close().await;
        })
        .await;
}

#[tokio::test]
async fn a_cancelled_call_is_killed_and_gets_no_answer() {
    LocalSet::new()
        .run_until(async {
            for era in eras() {
                let fake = fake();
                fake.frames("news", &[(Kind::Progress, br#"{"message":"running"}"#)]);
                fake.script("dom0", "VmExec+work", HANGS);
                let mut session = Session::open(&fake, era).await;
                let call = session.begin("exec_in_vm", exec("work")).await;
                session.progress.recv().await.unwrap();
                let mut alive = pipe::OpenOptions::new().open_receiver(fake.path("alive")).unwrap();
                call.cancel(Some("no longer wanted".into())).await.unwrap();
                dead(&mut alive).await;
                value(session.call("list_vms", json!({})).await);
                session.close().await;
            }
        })
        .await;
}

#[tokio::test]
async fn the_end_of_the_input_ends_everything_at_once() {
    LocalSet::new()
        .run_until(async {
            for era in eras() {
                let fake = fake();
                fake.frames("news", &[(Kind::Progress, br#"{"message":"running"}"#)]);
                fake.script("dom0", "VmExec+work", HANGS);
                let mut session = Session::open(&fake, era).await;
                let call = session.begin("exec_in_vm", exec("work")).await;
                session.progress.recv().await.unwrap();
                let mut alive = pipe::OpenOptions::new().open_receiver(fake.path("alive")).unwrap();
                let began = std::time::Instant::now();
                session.close().await;
                dead(&mut alive).await;
                assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
                drop(call);
            }
        })
        .await;
}

#[tokio::test]
async fn a_stopped_session_kills_its_calls() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            fake.frames("news", &[(Kind::Progress, br#"{"message":"running"}"#)]);
            fake.script("dom0", "VmExec+work", HANGS);
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (input, output) = tokio::io::split(far);
            let stop = CancellationToken::new();
            let serving =
                tokio::task::spawn_local(stdio::hold(fake.server(), input, output, stop.clone()));
            let (sender, mut progress) = mpsc::unbounded_channel();
            let client = Listener(sender).serve_with_lifecycle(near, modern()).await.unwrap();
            let request = CallToolRequest::new(params("exec_in_vm", exec("work")));
            let call = client
                .send_cancellable_request(
                    ClientRequest::CallToolRequest(request),
                    PeerRequestOptions::no_options(),
                )
                .await
                .unwrap();
            progress.recv().await.unwrap();
            let mut alive = pipe::OpenOptions::new().open_receiver(fake.path("alive")).unwrap();
            stop.cancel();
            serving.await.unwrap().unwrap();
            dead(&mut alive).await;
            drop(call);
        })
        .await;
}

#[tokio::test]
async fn at_most_eight_calls_are_on_qrexec_and_all_are_answered_without_mix_up() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            // Counts who is inside by links in a folder, and tells the most it has seen.
            let script = "read -r line; size=${line#*offset\\\":}; size=${size%%\\}*}
                mkdir -p \"$dir/inside\"; : > \"$dir/inside/$$\"
                ls \"$dir/inside\" | wc -l >> \"$dir/counts\"
                rm \"$dir/inside/$$\"
                printf '\\005\\000\\000\\000\\014{\"size\":%3d}' \"$size\"";
            fake.script("dom0", "VmReadFile+work", script);
            let session = Session::open(&fake, modern()).await;
            let mut calls = Vec::new();
            for number in 100..164 {
                let arguments = json!({"vm_name": "work", "file_path": "/", "offset": number});
                calls.push((number, session.begin("read_file_in_vm", arguments).await));
            }
            for (number, call) in calls {
                assert_eq!(value(answer(call).await)["size"], number);
            }
            let counts = std::fs::read_to_string(fake.path("counts")).unwrap();
            let most = counts.lines().map(|line| line.trim().parse::<usize>().unwrap()).max();
            assert!(most <= Some(8), "{most:?}");
            assert_eq!(counts.lines().count(), 64);
            session.close().await;
        })
        .await;
}

#[tokio::test]
async fn one_call_on_several_qubes_has_a_result_for_each_in_the_order_asked() {
    LocalSet::new()
        .run_until(async {
            for era in eras() {
                let fake = fake();
                // The first answers last.
                fake.frames("first", &[(Kind::Result, b"{\"exit_code\":1}")]);
                fake.script(
                    "dom0",
                    "VmExec+work",
                    "until grep -q ai-1 \"$dir/calls\"; do :; done; cat \"$dir/first\"",
                );
                fake.answer(
                    "ai-1",
                    "VmExec+",
                    &[
                        (Kind::Progress, br#"{"message":"line 1"}"#),
                        (Kind::Stdout, b"x"),
                        (Kind::Result, b"{\"exit_code\":2}"),
                    ],
                );
                let session = Session::open(&fake, era).await;
                let arguments = json!({"vm_names": ["work", "vault", "ai-1"], "command": "id"});
                assert_eq!(
                    value(session.call("exec_in_vms", arguments).await),
                    json!({"failed": 1, "results": [
                        {"vm_name": "work", "ok": true,
                            "result": {"exit_code": 1, "stdout": "", "stderr": ""}},
                        {"vm_name": "vault", "ok": false, "error": "request refused"},
                        {"vm_name": "ai-1", "ok": true,
                            "result": {"exit_code": 2, "stdout": "x", "stderr": ""}},
                    ]})
                );
                let arguments = json!({"vm_names": ["work", "work"], "command": "id"});
                let told = session.call("exec_in_vms", arguments).await;
                assert!(error(&told).contains("holds nothing twice"));
                let arguments = json!({"vm_names": [], "command": "id"});
                let told = session.call("exec_in_vms", arguments).await;
                assert!(error(&told).contains("at least 1"));
                session.close().await;
            }
        })
        .await;
}

#[tokio::test]
async fn a_waiting_call_can_be_cancelled() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            fake.frames("news", &[(Kind::Progress, br#"{"message":"running"}"#)]);
            fake.script("dom0", "VmExec+work", "cat \"$dir/news\"; exec sleep 100");
            fake.answer("dom0", "VmReadFile+work", &[(Kind::Result, b"{\"size\":0}")]);
            let mut session = Session::open(&fake, modern()).await;
            let mut calls = Vec::new();
            for _ in 0..7 {
                calls.push(session.begin("exec_in_vm", exec("work")).await);
            }
            for _ in 0..6 {
                session.progress.recv().await.unwrap();
            }
            // The seventh long call waits; a quick one passes it.
            let arguments = json!({"vm_name": "work", "file_path": "/x"});
            value(session.call("read_file_in_vm", arguments).await);
            for call in calls.into_iter().rev() {
                call.cancel(None).await.unwrap();
            }
            value(session.call("list_vms", json!({})).await);
            let execs = fake.calls().into_iter().filter(|call| call.contains("VmExec")).count();
            assert_eq!(execs, 6);
            session.close().await;
        })
        .await;
}

/// Speaks raw lines to a server.
struct Raw {
    lines: tokio::io::Lines<BufReader<tokio::io::ReadHalf<tokio::io::DuplexStream>>>,
    output: tokio::io::WriteHalf<tokio::io::DuplexStream>,
}

impl Raw {
    fn open(fake: &FakeQrexec) -> (Self, JoinHandle<Result<(), stdio::SessionError>>) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (input, output) = tokio::io::split(far);
        let held = stdio::hold(fake.server(), input, output, CancellationToken::new());
        let serving = tokio::task::spawn_local(held);
        let (input, output) = tokio::io::split(near);
        (Self { lines: BufReader::new(input).lines(), output }, serving)
    }

    async fn send(&mut self, line: &str) {
        self.output.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap()
    }
}

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"x","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}"#;

#[tokio::test]
async fn the_lines_of_the_newest_revision_are_as_it_says() {
    LocalSet::new()
        .run_until(async {
            let fake = fake();
            let (mut raw, serving) = Raw::open(&fake);
            raw.send(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{{{META}}}}}"#)).await;
            let discovered = raw.receive().await;
            let result = &discovered["result"];
            assert_eq!(result["resultType"], "complete");
            assert_eq!(result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "salt-bridge");
            assert!(result["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")));
            assert!(result["instructions"].as_str().unwrap().starts_with("Qubes OS"));
            raw.send(&format!(r#"{{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{{{META}}}}}"#)).await;
            let listed = raw.receive().await;
            let result = &listed["result"];
            assert_eq!(result["resultType"], "complete");
            assert_eq!(result["ttlMs"], 3_600_000);
            assert_eq!(result["cacheScope"], "public");
            assert_eq!(
                result["tools"][0]["annotations"],
                json!({"title": "List qubes", "readOnlyHint": true, "destructiveHint": false,
                    "idempotentHint": true, "openWorldHint": false})
            );
            raw.send(&format!(r#"{{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{{"name":"list_vms","arguments":{{}},{META}}}}}"#)).await;
            let called = raw.receive().await;
            let result = &called["result"];
            assert_eq!(result["resultType"], "complete");
            assert_eq!(result["isError"], false);
            assert_eq!(result["structuredContent"]["vms"][0]["name"], "work");
            drop(raw);
            serving.await.unwrap().unwrap();
        })
        .await;
}

#[tokio::test]
async fn older_revisions_are_spoken_as_they_were() {
    LocalSet::new()
        .run_until(async {
            for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
                let fake = fake();
                let (mut raw, serving) = Raw::open(&fake);
                raw.send(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{revision}","capabilities":{{}},"clientInfo":{{"name":"x","version":"1"}}}}}}"#)).await;
                let begun = raw.receive().await;
                assert_eq!(begun["result"]["protocolVersion"], revision);
                assert_eq!(begun["result"]["serverInfo"]["title"], "Salt Bridge");
                raw.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
                raw.send(r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"list_vms"}}"#).await;
                let called = raw.receive().await;
                assert_eq!(called["result"]["structuredContent"]["vms"][1]["name"], "ai-1");
                assert_eq!(called["result"].get("resultType"), None);
                drop(raw);
                serving.await.unwrap().unwrap();
            }
        })
        .await;
}

#[test]
fn the_instructions_fit_what_clients_show() {
    assert!(INSTRUCTIONS.len() < 2048, "{}", INSTRUCTIONS.len());
}

#[test]
fn the_instructions_name_tools_and_fields_that_there_are() {
    let tools = Tools::compiled().unwrap();
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    let named: Vec<_> = INSTRUCTIONS.split(word).filter(|word| word.contains('_')).collect();
    for name in &named {
        let field = match *name {
            "exit_code" => "exec_in_vm",
            "wait_seconds" => "job_output",
            tool => {
                assert!(tools.by_tool(tool).is_some(), "there is no tool {tool}");
                continue;
            }
        };
        let Some(Named::One(row)) = tools.by_tool(field) else { panic!("{field}") };
        let schemas = json!([row.tool.input_schema, row.tool.output_schema]);
        let has = |at: usize| schemas[at]["properties"].get(name).is_some();
        assert!(has(0) || has(1), "{field} has no {name}");
    }
    for tool in [
        "list_vms",
        "exec_in_vms",
        "start_job",
        "job_output",
        "search_in_vm",
        "edit_file_in_vm",
        "copy_between_vms",
        "create_vm",
        "run_in_disposable",
    ] {
        assert!(named.contains(&tool), "{tool} is not mentioned");
    }
}

#[test]
fn the_instructions_begin_with_what_one_would_search_for() {
    let begin = INSTRUCTIONS.split("\n\n").next().unwrap();
    for word in ["Qubes OS", "VMs", "exec", "jobs", "files", "firewall", "sandbox", "disposables"] {
        assert!(begin.contains(word), "{word}");
    }
}
