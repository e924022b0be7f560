//! A principal that is limited to some qubes, over HTTP, on the simulated host: what it may use and
//! what it is told, over the whole catalogue.
#![expect(clippy::disallowed_methods, reason = "a client of the server's socket")]

use std::{collections::BTreeSet, path::PathBuf, process::Stdio};

use salt_bridge_sim::{Population, Resident};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
};

use super::machine::{Machine, becomes, on_host_with};

const SCOPE: &str = "\
@agent salt-bridge
work see,lifecycle,exec,root,files,net,shape
dev see,lifecycle,exec,root,files,net,shape
other see,lifecycle,exec,root,files,net,shape
third see,lifecycle,exec,root,files,net,shape
@tag:ai-managed
";

/// Of these two the principal may know; no other name of the host stands in what they print.
const OWN: [&str; 2] = ["work", "dev"];

/// `salt-bridge serve` on a Unix socket, with the token of its owner and that of a limited principal.
struct Site {
    socket: PathBuf,
    owner: String,
    limited: String,
    _server: Child,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn open(machine: &Machine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (socket, token) = (folder.path().join("mcp.sock"), folder.path().join("token"));
        let program = machine.host.layout().program("salt-bridge");
        let server = Command::new(&program)
            .arg("--qrexec-client-vm")
            .arg(machine.host.layout().program("qrexec-client-vm"))
            .args(["serve", "--unix"])
            .arg(&socket)
            .arg("--token-file")
            .arg(&token)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        becomes(|| std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
        let added = Command::new(&program)
            .args(["token", "--token-file"])
            .arg(&token)
            .args(["add", "laptop", "--qubes", &OWN.join(",")])
            .output()
            .await
            .unwrap();
        let owner = std::fs::read_to_string(&token).unwrap().trim().to_owned();
        let limited = String::from_utf8(added.stdout).unwrap().trim().to_owned();
        Self { socket, owner, limited, _server: server, _folder: folder }
    }

    /// The result of a request of revision 2026-07-28, or its error, and all that was sent with it.
    async fn ask(&self, token: &str, method: &str, mut params: Value) -> (Value, String) {
        let name = params["name"].as_str().or_else(|| params["uri"].as_str()).map(str::to_owned);
        params["_meta"] = json!({
            "progressToken": 1,
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "0"},
            "io.modelcontextprotocol/clientCapabilities": {}
        });
        let body =
            json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut head = format!(
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nAuthorization: Bearer {token}\r\n\
             MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\nConnection: close\r\n\
             Content-Length: {}\r\n",
            body.len()
        );
        if let Some(name) = name {
            head += &format!("Mcp-Name: {name}\r\n");
        }
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let mut json = answer.lines().filter_map(|line| {
            let line = line.strip_prefix("data: ").unwrap_or(line);
            serde_json::from_str::<Value>(line).ok().filter(|value| value["id"] == 1)
        });
        let json = json.next_back().unwrap_or_else(|| panic!("no answer: {answer}"));
        let result =
            if json["error"].is_null() { json["result"].clone() } else { json["error"].clone() };
        (result, answer)
    }

    async fn call(&self, token: &str, tool: &str, arguments: Value) -> (Value, String) {
        self.ask(token, "tools/call", json!({"name": tool, "arguments": arguments})).await
    }

    async fn done(&self, tool: &str, arguments: Value) -> Value {
        let (result, answer) = self.call(&self.owner, tool, arguments).await;
        assert_eq!(result["isError"], false, "{tool}: {answer}");
        result["structuredContent"].clone()
    }
}

fn is_refused(result: &Value) -> bool {
    result["content"][0]["text"].as_str() == Some("request refused")
}

fn population() -> Population {
    Population::default().and([
        Resident::app("other", "gray").running(),
        Resident::app("third", "gray").with("netvm", "other"),
        Resident::app("ai-full", "red").tag("ai-managed").tag("ai-full"),
    ])
}

/// The names that stand as words in a text.
fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')).collect()
}

fn names_nobody(what: &str, answer: &str, foreign: &[String]) {
    let words = words(answer);
    let told: Vec<_> = foreign.iter().filter(|name| words.contains(name.as_str())).collect();
    assert!(told.is_empty(), "{what} names {told:?}: {answer}");
}

/// The parameters that name a qube wherever they stand.
const QUBE_PARAMETERS: [&str; 6] =
    ["vm_name", "source", "target", "source_vm", "target_vm", "backend_vm"];

/// Arguments that a tool takes: each parameter that it must have, and the qubes.
fn arguments(tool: &Value, qube: &str) -> Value {
    let schema = &tool["inputSchema"];
    let mut arguments = Map::new();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let property = &schema["properties"][name];
        let value = match name {
            _ if QUBE_PARAMETERS.contains(&name) => json!(qube),
            "vm_names" => json!(OWN),
            "template" => json!("fedora-42"),
            "seconds" => json!(1),
            "port" if property["type"] == "integer" => json!(443),
            "action" if tool["name"] == "firewall_add" => json!("accept"),
            "action" => json!("list"),
            "class" => json!("block"),
            "property" => json!("label"),
            "value" => json!("green"),
            "host" => json!("10.0.0.1"),
            _ if property["type"] == "integer" => json!(1),
            _ => json!("x"),
        };
        arguments.insert(name.to_owned(), value);
    }
    if tool["inputSchema"]["properties"].get("command").is_some() {
        arguments.insert("command".into(), "true".into());
    }
    Value::Object(arguments)
}

#[test]
fn no_answer_to_a_limited_principal_names_another_qube() {
    on_host_with(SCOPE, population(), async |machine| {
        let site = Site::open(machine).await;
        let all = machine.host.qubes();
        let foreign: Vec<String> = all
            .into_iter()
            .map(|qube| qube.name)
            .filter(|name| !OWN.contains(&name.as_str()))
            .collect();
        assert!(foreign.iter().any(|name| name == "other") && foreign.len() > 5, "{foreign:?}");
        make_something_to_tell(&site).await;
        let (listed, _) = site.ask(&site.limited, "tools/list", json!({})).await;
        let tools = listed["tools"].as_array().unwrap();
        let kept = |tool: &&Value| {
            !["kill_vm", "pause_vm", "remove_vm", "shutdown_vm"]
                .contains(&tool["name"].as_str().unwrap())
        };
        for tool in tools.iter().filter(kept) {
            let name = tool["name"].as_str().unwrap();
            let (_, answer) = site.call(&site.limited, name, arguments(tool, "work")).await;
            names_nobody(name, &answer, &foreign);
            let mut asked = arguments(tool, "other");
            let properties = tool["inputSchema"]["properties"].as_object().unwrap();
            let named: Vec<_> =
                QUBE_PARAMETERS.iter().filter(|name| properties.contains_key(**name)).collect();
            for name in &named {
                asked[**name] = "other".into();
            }
            if !named.is_empty() {
                let (result, answer) = site.call(&site.limited, name, asked).await;
                assert!(is_refused(&result), "{name}: {answer}");
            }
        }
        for tool in
            ["create_vm", "clone_vm", "run_in_disposable", "create_disposable", "disk_budget"]
        {
            let tool = tools.iter().find(|known| known["name"] == tool).unwrap();
            let name = tool["name"].as_str().unwrap();
            let (result, answer) = site.call(&site.limited, name, arguments(tool, "work")).await;
            assert!(is_refused(&result), "{name}: {answer}");
        }
        for (tool, field, entries) in
            [("list_jobs", "jobs", 3), ("connect_tcp_policy", "rules", 1), ("list_vms", "vms", 2)]
        {
            let tool = tools.iter().find(|known| known["name"] == tool).unwrap();
            let asked = arguments(tool, "");
            let (result, answer) =
                site.call(&site.limited, tool["name"].as_str().unwrap(), asked).await;
            let told = result["structuredContent"][field].as_array().map(Vec::len);
            assert_eq!(told, Some(entries), "{answer}");
        }
        watches(&site, &foreign).await;
        reads(&site, &foreign).await;
        for qube in ["work", "other"] {
            site.done("kill_vm", json!({"vm_name": qube})).await;
        }
    });
}

/// Rules and jobs, of the principal's qubes and of others.
async fn make_something_to_tell(site: &Site) {
    for (source, target) in [("work", "dev"), ("work", "other"), ("other", "third")] {
        let rule = json!({"action": "add", "source": source, "target": target, "port": 22});
        site.done("connect_tcp_policy", rule).await;
    }
    for qube in ["work", "other"] {
        site.done("start_job", json!({"vm_name": qube, "command": "sleep 600"})).await;
    }
}

/// Events and their progress, while something happens to a qube of each kind.
async fn watches(site: &Site, foreign: &[String]) {
    let watching = site.call(&site.limited, "watch_events", json!({"seconds": 2}));
    let changing = async {
        for value in 0_u32.. {
            for qube in ["third", "dev"] {
                let feature =
                    json!({"vm_name": qube, "feature": "x-test", "value": value.to_string()});
                site.done("set_vm_feature", feature).await;
            }
        }
    };
    let (result, answer) = tokio::select! {
        told = watching => told,
        () = changing => panic!("the numbers have ended"),
    };
    names_nobody("watch_events", &answer, foreign);
    let events = result["structuredContent"]["events"].as_array().unwrap();
    assert!(!events.is_empty() && events.iter().all(|event| event["vm_name"] == "dev"), "{answer}");
}

async fn reads(site: &Site, foreign: &[String]) {
    for (method, params) in [
        ("resources/list", json!({})),
        ("resources/read", json!({"uri": "qubes://vms"})),
        ("resources/read", json!({"uri": "qubes://topology"})),
        ("resources/read", json!({"uri": "qubes://vm/work"})),
        ("resources/read", json!({"uri": "qubes://vm/work/firewall"})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "review_firewall"},
                "argument": {"name": "vm_name", "value": ""}}),
        ),
    ] {
        let (_, answer) = site.ask(&site.limited, method, params).await;
        assert!(words(&answer).contains("work"), "{method}: {answer}");
        names_nobody(method, &answer, foreign);
    }
    let (error, answer) =
        site.ask(&site.limited, "resources/read", json!({"uri": "qubes://vm/other"})).await;
    assert_eq!(error["message"], "request refused", "{answer}");
}
