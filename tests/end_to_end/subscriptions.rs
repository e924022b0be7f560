//! Subscriptions in both revisions, from qubesd's event to the client's notification, by way of the
//! daemon's own `ScopeWatch`.

use rmcp::{
    ClientHandler, ClientServiceExt, RoleClient,
    model::{
        ProtocolVersion, ResourceUpdatedNotificationParam, ServerNotification,
        SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams,
    },
    service::{ClientLifecycleMode, NotificationContext, RunningService},
};
use tokio::{process::Child, sync::mpsc, time::timeout};

use super::machine::{Machine, on_host};
use contract::limits;

/// Keeps which resources it is told have changed.
struct Heard(mpsc::UnboundedSender<String>);

impl ClientHandler for Heard {
    async fn on_resource_updated(
        &self,
        update: ResourceUpdatedNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        drop(self.0.send(update.uri));
    }
}

struct Session {
    client: RunningService<RoleClient, Heard>,
    heard: mpsc::UnboundedReceiver<String>,
    _agent: Child,
}

async fn open(machine: &Machine, era: ClientLifecycleMode) -> Session {
    let mut agent = machine.agent();
    let streams = (agent.stdout.take().unwrap(), agent.stdin.take().unwrap());
    let (sender, heard) = mpsc::unbounded_channel();
    let client = Heard(sender).serve_with_lifecycle(streams, era).await.unwrap();
    Session { client, heard, _agent: agent }
}

/// Changes these qubes, one after the other, until something is heard: the watch begins when it
/// begins. Returns what.
async fn hear<T>(machine: &Machine, qubes: &[&str], next: impl Future<Output = T>) -> T {
    let mut next = std::pin::pin!(next);
    loop {
        for qube in qubes {
            machine.host.set_tag(qube, "seen").unwrap();
            machine.host.remove_tag(qube, "seen").unwrap();
        }
        if let Ok(heard) = timeout(limits::PROGRESS, &mut next).await {
            return heard;
        }
    }
}

const DEV: &str = "qubes://vm/dev";
const WORK: &str = "qubes://vm/work";

#[test]
#[expect(deprecated, reason = "clients of revisions before 2026-07-28 subscribe so")]
fn an_older_client_hears_of_what_it_subscribed_to_until_it_unsubscribes() {
    on_host(async |machine| {
        let mut session = open(machine, ClientLifecycleMode::Initialize).await;
        session.client.subscribe(SubscribeRequestParams::new(DEV)).await.unwrap();
        // A change of another qube is not told.
        let heard = hear(machine, &["work", "dev"], session.heard.recv()).await;
        assert_eq!(heard.as_deref(), Some(DEV));
        session.client.subscribe(SubscribeRequestParams::new(WORK)).await.unwrap();
        session.client.unsubscribe(UnsubscribeRequestParams::new(DEV)).await.unwrap();
        // What was sent before the answer to this call has been heard.
        session.client.list_all_resource_templates().await.unwrap();
        while session.heard.try_recv().is_ok() {}
        let heard = hear(machine, &["dev", "work"], session.heard.recv()).await;
        assert_eq!(heard.as_deref(), Some(WORK));
        session.client.close().await.unwrap();
    });
}

#[test]
fn a_newer_client_hears_of_what_it_listens_to_and_ends_it() {
    on_host(async |machine| {
        let era = ClientLifecycleMode::Discover {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        };
        let mut session = open(machine, era).await;
        for (uri, changing) in [(DEV, ["work", "dev"]), (WORK, ["dev", "work"])] {
            let filter = SubscriptionFilter::builder().resource_subscriptions([uri]).build();
            let mut subscription = session.client.listen(filter).await.unwrap();
            let told = hear(machine, &changing, subscription.next()).await.unwrap();
            let Some(ServerNotification::ResourceUpdatedNotification(update)) = told else {
                panic!("not an update: {told:?}")
            };
            assert_eq!(update.params.uri, uri);
            // Dropping it ends it: the other qube, which changes too, is heard of no more.
            drop(subscription);
        }
        session.client.close().await.unwrap();
    });
}
