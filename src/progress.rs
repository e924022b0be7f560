//! Progress of a call, for clients that asked for it.

use std::time::Duration;

use rmcp::{RoleServer, model::ProgressNotificationParam, service::RequestContext};
use tokio::{sync::watch, time};

/// After this long without news the client is told that the call still runs.
const TICK: Duration = Duration::from_secs(10);

/// Passes the news of a call on until their sender is gone. News that come faster than the client
/// takes them are skipped.
pub(crate) async fn report(
    context: &RequestContext<RoleServer>,
    mut news: watch::Receiver<String>,
) {
    let Some(token) = context.meta.get_progress_token() else {
        while news.changed().await.is_ok() {}
        return;
    };
    let began = time::Instant::now();
    let mut count = 0_u32;
    loop {
        let message = match time::timeout(TICK, news.changed()).await {
            Ok(Ok(())) => news.borrow_and_update().clone(),
            Ok(Err(_)) => return,
            Err(_) => format!("not done after {} s", began.elapsed().as_secs()),
        };
        count = count.saturating_add(1);
        let progress = ProgressNotificationParam::new(token.clone(), count.into());
        // A client that is gone is noticed by the one who reads from it.
        drop(context.peer.notify_progress(progress.with_message(message)).await);
    }
}
