//! What clients have subscribed to, in the way of each revision.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use rmcp::{
    ErrorData, Peer, RoleServer,
    model::{ResourceUpdatedNotificationParam, SubscriptionFilter},
    service::SubscriptionContext,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::resources::{Changes, Place};

/// The resources that one client may subscribe to at once.
const MOST: usize = 1024;

/// What of a subscription of revision 2026-07-28 is granted: the list of resources, and resources
/// that there can be. Tools and prompts never change.
pub(crate) fn accept(requested: &SubscriptionFilter) -> SubscriptionFilter {
    let mut accepted = SubscriptionFilter::new();
    accepted.resources_list_changed = requested.resources_list_changed;
    accepted.resource_subscriptions = requested.resource_subscriptions.as_ref().map(|uris| {
        uris.iter().filter(|uri| Place::parse(uri).is_some()).take(MOST).cloned().collect()
    });
    accepted
}

/// Tells such a subscription what changes, until its client is gone.
pub(crate) async fn tell(context: &SubscriptionContext, changes: &Arc<Changes>) {
    let accepted = context.accepted();
    let list = accepted.resources_list_changed == Some(true);
    let places: Vec<(String, Place)> = accepted
        .resource_subscriptions
        .iter()
        .flatten()
        .filter_map(|uri| Some((uri.clone(), Place::parse(uri)?)))
        .collect();
    if !list && places.is_empty() {
        return std::future::pending().await;
    }
    let mut subscriber = changes.subscribe();
    loop {
        let news = subscriber.next().await;
        if list
            && news.concerns_list()
            && context.sink().notify_resource_list_changed().await.is_err()
        {
            return;
        }
        for (uri, place) in &places {
            if news.concerns(place) && context.sink().notify_resource_updated(uri).await.is_err() {
                return;
            }
        }
    }
}

/// The subscriptions of a client of an older revision.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    state: Arc<Mutex<State>>,
    hung_up: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    places: BTreeMap<String, Place>,
    /// Ends the task that tells the client; there is one while there are places.
    telling: Option<CancellationToken>,
}

impl Subscriptions {
    /// None yet. They end when the client hangs up.
    pub(crate) fn new(hung_up: &CancellationToken) -> Self {
        Self { state: Arc::default(), hung_up: hung_up.clone() }
    }

    /// Adds a resource, and begins to tell the client if it is the first.
    pub(crate) fn add(
        &self,
        uri: &str,
        changes: &Arc<Changes>,
        peer: Peer<RoleServer>,
    ) -> Result<(), ErrorData> {
        let data = Some(json!({ "uri": uri }));
        let Some(place) = Place::parse(uri) else {
            return Err(ErrorData::resource_not_found("there is no such resource", data));
        };
        if !changes.available() {
            return Err(ErrorData::invalid_params("dom0 cannot tell what changes", data));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.places.len() >= MOST && !state.places.contains_key(uri) {
            let message = format!("a client may subscribe to {MOST} resources");
            return Err(ErrorData::invalid_params(message, data));
        }
        state.places.insert(uri.to_owned(), place);
        if state.telling.is_none() {
            let stop = self.hung_up.child_token();
            state.telling = Some(stop.clone());
            let work = tell_peer(Arc::clone(&self.state), Arc::clone(changes), peer);
            tokio::spawn(async move { stop.run_until_cancelled(work).await });
        }
        Ok(())
    }

    /// Removes a resource. One that was not subscribed to is no error.
    pub(crate) fn remove(&self, uri: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.places.remove(uri);
        if state.places.is_empty()
            && let Some(telling) = state.telling.take()
        {
            telling.cancel();
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(telling) = state.telling.take() {
            telling.cancel();
        }
    }
}

async fn tell_peer(state: Arc<Mutex<State>>, changes: Arc<Changes>, peer: Peer<RoleServer>) {
    let mut subscriber = changes.subscribe();
    loop {
        let news = subscriber.next().await;
        let uris: Vec<String> = {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let concerned = state.places.iter().filter(|(_, place)| news.concerns(place));
            concerned.map(|(uri, _)| uri.clone()).collect()
        };
        if news.concerns_list() && peer.notify_resource_list_changed().await.is_err() {
            return;
        }
        for uri in uris {
            let update = ResourceUpdatedNotificationParam::new(uri);
            if peer.notify_resource_updated(update).await.is_err() {
                return;
            }
        }
    }
}
