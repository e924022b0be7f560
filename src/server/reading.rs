//! Resources, prompts and completions by a real MCP client, answered by a stand-in for qrexec.

use contract::Kind;
use rmcp::{
    ClientHandler, ClientServiceExt, RoleClient, ServiceError,
    model::{
        ProtocolVersion, Reference, ResourceContents, ResourceUpdatedNotificationParam,
        ServerNotification,
    },
    service::{ClientLifecycleMode, NotificationContext, RunningService},
};
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle};

use super::*;
use crate::{stdio, testing::FakeQrexec};

/// A client that keeps what it is told; the list of resources has no address.
struct Listener(mpsc::UnboundedSender<Option<String>>);

impl ClientHandler for Listener {
    async fn on_resource_updated(
        &self,
        update: ResourceUpdatedNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        drop(self.0.send(Some(update.uri)));
    }

    async fn on_resource_list_changed(&self, _context: NotificationContext<RoleClient>) {
        drop(self.0.send(None));
    }
}

struct Session {
    client: RunningService<RoleClient, Listener>,
    told: mpsc::UnboundedReceiver<Option<String>>,
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
        let serving = tokio::spawn(held);
        let (sender, told) = mpsc::unbounded_channel();
        let client = Listener(sender).serve_with_lifecycle(near, era).await.unwrap();
        Self { client, told, serving }
    }

    async fn read(&self, uri: &str) -> Result<Vec<ResourceContents>, ServiceError> {
        let parameters = ReadResourceRequestParams::new(uri);
        self.client.read_resource(parameters).await.map(|result| result.contents)
    }

    async fn close(self) {
        let Self { mut client, serving, .. } = self;
        client.close().await.unwrap();
        serving.await.unwrap().unwrap();
    }
}

/// The text of a resource, and its type.
fn text(contents: &ResourceContents) -> (&str, &str) {
    let ResourceContents::TextResourceContents { text, mime_type, .. } = contents else {
        panic!("not a text: {contents:?}")
    };
    (text, mime_type.as_deref().unwrap())
}

fn code(outcome: Result<Vec<ResourceContents>, ServiceError>) -> i32 {
    let Err(ServiceError::McpError(error)) = outcome else { panic!("{outcome:?}") };
    error.code.0
}

fn fake() -> FakeQrexec {
    let fake = FakeQrexec::new();
    let vms = br#"{"vms":[
        {"name":"dev","state":"Halted","class":"AppVM","netvm":"work","ip":null,"label":"red",
            "powers":["see"],"address":"argument"},
        {"name":"work","state":"Running","class":"AppVM","netvm":null,"ip":"10.137.0.9",
            "label":"blue","powers":["see","files"],"address":"argument"}]}"#;
    fake.answer("dom0", "VmList", &[(Kind::Result, vms)]);
    fake.answer("dom0", "FirewallList+work", &[(Kind::Result, br#"{"rules":[{"number":0}]}"#)]);
    fake
}

#[tokio::test]
async fn there_is_a_resource_for_each_qube_and_templates_for_the_rest() {
    for era in eras() {
        let fake = fake();
        let session = Session::open(&fake, era).await;
        let listed = session.client.list_all_resources().await.unwrap();
        let uris: Vec<_> = listed.iter().map(|resource| resource.uri.as_str()).collect();
        assert_eq!(uris, ["qubes://vms", "qubes://topology", "qubes://vm/dev", "qubes://vm/work"]);
        let templates = session.client.list_all_resource_templates().await.unwrap();
        assert_eq!(templates.len(), 3);
        session.close().await;
    }
}

#[tokio::test]
async fn resources_hold_what_dom0_says() {
    for era in eras() {
        let fake = fake();
        fake.answer(
            "dom0",
            "VmReadFile+work",
            &[(Kind::Stdout, b"\xff\0"), (Kind::Result, br#"{"size":2,"offset":0,"eof":true}"#)],
        );
        let session = Session::open(&fake, era).await;
        let contents = session.read("qubes://vms").await.unwrap();
        let vms: Value = serde_json::from_str(text(&contents[0]).0).unwrap();
        assert_eq!(vms["vms"][1]["ip"], "10.137.0.9");
        let contents = session.read("qubes://vm/dev").await.unwrap();
        let vm: Value = serde_json::from_str(text(&contents[0]).0).unwrap();
        assert_eq!((&vm["state"], &vm["netvm"]), (&json!("Halted"), &json!("work")));
        let contents = session.read("qubes://vm/work/firewall").await.unwrap();
        assert_eq!(text(&contents[0]), (r#"{"rules":[{"number":0}]}"#, "application/json"));
        let contents = session.read("qubes://topology").await.unwrap();
        let (svg, kind) = text(&contents[0]);
        assert!(svg.starts_with("<svg") && kind == "image/svg+xml");
        let (mermaid, kind) = text(&contents[1]);
        assert!(mermaid.starts_with("flowchart") && kind == "text/vnd.mermaid");
        let contents = session.read("qubes://vm/work/file//etc/x").await.unwrap();
        let ResourceContents::BlobResourceContents { blob, .. } = &contents[0] else {
            panic!("not bytes: {contents:?}")
        };
        assert_eq!(blob, "/wA=");
        session.close().await;
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_may_not_be_seen_are_the_same_error() {
    for (era, expected) in eras().into_iter().zip([-32002, -32602]) {
        let fake = fake();
        let session = Session::open(&fake, era).await;
        for uri in [
            "qubes://vm/vault",
            "qubes://vm/vault/firewall",
            "qubes://vm/vault/file/x",
            "qubes://vm/dom0",
            "qubes://nope",
            "test://x",
        ] {
            assert_eq!(code(session.read(uri).await), expected, "{uri}");
        }
        session.close().await;
    }
}

/// A watch that reports a change of `work` and of the list as soon as the file `go` is there, and
/// then waits.
const WATCH: &str = "head -n 1 > /dev/null; until [ -e \"$dir/go\" ]; do :; done
    cat \"$dir/changes\"; exec sleep 100";

const CHANGES: &[(Kind, &[u8])] = &[
    (Kind::Progress, br#"{"changed":["work"],"scope":false}"#),
    (Kind::Progress, br#"{"changed":[],"scope":true}"#),
];

fn watching() -> FakeQrexec {
    let fake = fake();
    fake.frames("changes", CHANGES).script("dom0", "ScopeWatch", WATCH);
    fake
}

fn go(fake: &FakeQrexec) {
    std::fs::write(fake.path("go"), "").unwrap();
}

#[tokio::test]
#[expect(deprecated, reason = "clients of revisions before 2026-07-28 subscribe so")]
async fn older_clients_are_told_of_what_they_subscribed_to() {
    let fake = watching();
    let mut session = Session::open(&fake, ClientLifecycleMode::Initialize).await;
    for uri in ["qubes://vm/dev", "qubes://vm/work", "qubes://vm/work/firewall"] {
        session.client.subscribe(SubscribeRequestParams::new(uri)).await.unwrap();
    }
    assert!(session.client.subscribe(SubscribeRequestParams::new("qubes://nope")).await.is_err());
    let unsubscribe = UnsubscribeRequestParams::new("qubes://vm/work/firewall");
    session.client.unsubscribe(unsubscribe).await.unwrap();
    go(&fake);
    assert_eq!(session.told.recv().await, Some(Some("qubes://vm/work".into())));
    assert_eq!(session.told.recv().await, Some(None));
    session.close().await;
    let watches = fake.calls().iter().filter(|call| call.contains("ScopeWatch")).count();
    assert_eq!(watches, 1);
}

#[tokio::test]
async fn newer_clients_listen() {
    let fake = watching();
    let session = Session::open(&fake, modern()).await;
    let filter = SubscriptionFilter::builder()
        .resources_list_changed()
        .tools_list_changed()
        .resource_subscriptions(["qubes://vm/work", "qubes://vm/dev", "qubes://nope"])
        .build();
    let mut subscription = session.client.listen(filter).await.unwrap();
    let accepted = subscription.acknowledged().clone();
    assert_eq!((accepted.resources_list_changed, accepted.tools_list_changed), (Some(true), None));
    assert_eq!(
        accepted.resource_subscriptions.unwrap(),
        ["qubes://vm/work".to_owned(), "qubes://vm/dev".to_owned()]
    );
    go(&fake);
    let Some(ServerNotification::ResourceUpdatedNotification(update)) =
        subscription.next().await.unwrap()
    else {
        panic!("not an update")
    };
    assert_eq!(update.params.uri, "qubes://vm/work");
    assert!(matches!(
        subscription.next().await.unwrap(),
        Some(ServerNotification::ResourceListChangedNotification(_))
    ));
    drop(subscription);
    session.close().await;
}

#[tokio::test]
async fn prompts_are_filled_in_and_names_of_qubes_completed() {
    for era in eras() {
        let fake = fake();
        let session = Session::open(&fake, era).await;
        assert_eq!(session.client.list_all_prompts().await.unwrap().len(), 3);
        let mut request = GetPromptRequestParams::new("review_firewall");
        request.arguments = Some(JsonObject::from_iter([("vm_name".to_owned(), "work".into())]));
        let prompt = session.client.get_prompt(request).await.unwrap();
        let told = serde_json::to_string(&prompt.messages).unwrap();
        assert!(told.contains("firewall of the qube work"), "{told}");
        for (reference, argument, expected) in [
            (Reference::for_prompt("review_firewall"), "vm_name", vec!["dev"]),
            (Reference::for_resource("qubes://vm/{name}"), "name", vec!["dev"]),
            (Reference::for_resource("qubes://vm/{name}/file/{+path}"), "path", vec![]),
        ] {
            let argument = ArgumentInfo::new(argument, "d");
            let request = CompleteRequestParams::new(reference, argument);
            let completed = session.client.complete(request).await.unwrap().completion;
            assert_eq!(completed.values, expected);
        }
        session.close().await;
    }
}
