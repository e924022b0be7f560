//! What changes in the scope, told to everybody who wants to know. One call to dom0 is open while
//! anybody does.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contract::{Frame, Kind};
use rmcp::model::JsonObject;
use serde::Deserialize;
use tokio::{sync::broadcast, time};

use crate::{
    agent::Agent,
    arguments::{Call, Request},
    qrexec::CallError,
    reply::{Receiver, ReplyError, Step},
};

use super::Place;

/// The service that reports changes while they happen.
const WATCH_SERVICE: &str = "ScopeWatch";
/// How long one call of it is asked for, in seconds.
const WATCH_SECONDS: u64 = 3600;
/// The changes that a slow subscriber may be behind; then it is told that anything may have changed.
const BACKLOG: usize = 64;
/// The pause after a call that failed, doubled with each further one up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Change {
    /// The qubes that changed.
    changed: Vec<String>,
    /// The list of qubes itself changed.
    scope: bool,
}

/// What a subscriber has to look at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// This.
    Some(Change),
    /// Anything: changes were missed.
    Anything,
}

impl News {
    /// Whether this resource may be another now.
    pub(crate) fn concerns(&self, place: &Place) -> bool {
        match self {
            Self::Anything => true,
            Self::Some(Change { changed, scope }) => {
                let shows_all = matches!(place, Place::Vms | Place::Topology);
                (*scope && shows_all) || changed.iter().any(|qube| place.shows(qube))
            }
        }
    }

    /// Whether the list of resources may be another now.
    pub(crate) fn concerns_list(&self) -> bool {
        match self {
            Self::Anything => true,
            Self::Some(change) => change.scope,
        }
    }
}

/// The place where changes are subscribed to.
#[derive(Debug)]
pub(crate) struct Changes {
    agent: Arc<Agent>,
    sender: broadcast::Sender<News>,
    /// Whether somebody watches for the subscribers.
    watched: Mutex<bool>,
}

/// One who wants to know of changes.
#[derive(Debug)]
pub(crate) struct Subscriber(broadcast::Receiver<News>);

impl Subscriber {
    /// The next news. Waits for ever when there are none. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> News {
        match self.0.recv().await {
            Ok(news) => news,
            Err(broadcast::error::RecvError::Lagged(_)) => News::Anything,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Changes {
    /// Changes as this agent sees them.
    pub(crate) fn new(agent: Arc<Agent>) -> Arc<Self> {
        let (sender, _) = broadcast::channel(BACKLOG);
        Arc::new(Self { agent, sender, watched: Mutex::new(false) })
    }

    /// Whether this version can tell changes at all.
    pub(crate) fn available(&self) -> bool {
        self.agent.row(WATCH_SERVICE).is_some()
    }

    /// Subscribes. What changes from now on is told.
    pub(crate) fn subscribe(self: &Arc<Self>) -> Subscriber {
        let subscriber = Subscriber(self.sender.subscribe());
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if !*watched {
            *watched = true;
            tokio::spawn(Arc::clone(self).watch());
        }
        subscriber
    }

    /// Watches until nobody wants to know any more.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.calls() => {}
                () = self.sender.closed() => {}
            }
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            if self.sender.receiver_count() == 0 {
                *watched = false;
                return;
            }
        }
    }

    /// One call after the other.
    async fn calls(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.call().await {
                Ok(()) => pause = FIRST_PAUSE,
                Err(_) => {
                    time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
            // What happened between two calls nobody has seen.
            drop(self.sender.send(News::Anything));
        }
    }

    async fn call(&self) -> Result<(), CallError> {
        let arguments = JsonObject::from_iter([("seconds".to_owned(), WATCH_SECONDS.into())]);
        let call = Call { qube: None, request: Request::new(arguments, Vec::new())? };
        let mut reports = Reports { sender: &self.sender };
        self.agent.receive(WATCH_SERVICE, call, &mut reports).await
    }
}

/// Passes reports on as they come.
struct Reports<'s> {
    sender: &'s broadcast::Sender<News>,
}

impl Receiver for Reports<'_> {
    fn take(&mut self, frame: &Frame) -> Result<Step, ReplyError> {
        match frame.kind {
            Kind::Progress => {
                let change: Change = serde_json::from_slice(&frame.payload)?;
                if change != Change::default() {
                    drop(self.sender.send(News::Some(change)));
                }
                Ok(Step::More)
            }
            Kind::Result => Ok(Step::Complete),
            Kind::Fault => Err(ReplyError::Fault(serde_json::from_slice(&frame.payload)?)),
            Kind::Stdout | Kind::Stderr | Kind::Part => Ok(Step::More),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(uri: &str) -> Place {
        Place::parse(uri).unwrap()
    }

    #[test]
    fn a_change_of_a_qube_concerns_what_shows_it() {
        let change: Change = serde_json::from_str(r#"{"changed":["work"],"scope":false}"#).unwrap();
        let news = News::Some(change);
        for uri in
            ["qubes://vms", "qubes://topology", "qubes://vm/work", "qubes://vm/work/firewall"]
        {
            assert!(news.concerns(&place(uri)), "{uri}");
        }
        assert!(!news.concerns(&place("qubes://vm/dev")));
        assert!(!news.concerns_list());
    }

    #[test]
    fn a_change_of_the_scope_concerns_the_list() {
        let news = News::Some(Change { scope: true, ..Change::default() });
        assert!(news.concerns_list() && news.concerns(&place("qubes://vms")));
        assert!(!news.concerns(&place("qubes://vm/dev")));
        assert!(News::Anything.concerns(&place("qubes://vm/dev")));
    }
}
