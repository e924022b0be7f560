//! Which qubes are named by argument and which by target, as `VmList` told.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use tokio::sync;

use crate::{
    arguments::QubeName,
    qrexec::{CallError, Way},
    reply::Reply,
};

/// The service whose result tells the address of each qube.
pub(crate) const LISTING_SERVICE: &str = "VmList";

/// What is known of addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    known: Mutex<Ways>,
    listing: sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Ways {
    ways: HashMap<String, Way>,
    /// How many listings were seen.
    seen: u64,
}

/// Where a way comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// From a listing that was seen before this call.
    Before(Way),
    /// From a listing made for this call. A name that it does not hold is left to dom0.
    Now(Way),
}

#[derive(Deserialize)]
struct Listing {
    vms: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    address: Option<ListedWay>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ListedWay {
    Argument,
    Target,
}

impl Addresses {
    /// Takes in a result of the listing service. One that cannot be read changes nothing.
    pub(crate) fn remember(&self, reply: &Reply) {
        let Ok(listing) = serde_json::from_slice::<Listing>(&reply.json) else { return };
        let way = |listed: Listed| {
            let way = match listed.address {
                Some(ListedWay::Target) => Way::Target,
                Some(ListedWay::Argument) | None => Way::Argument,
            };
            (listed.name, way)
        };
        let mut known = self.known();
        known.ways = listing.vms.into_iter().map(way).collect();
        known.seen = known.seen.wrapping_add(1);
    }

    /// How to name this qube. Asks for a listing where it is not known.
    pub(crate) async fn find<L>(&self, qube: &QubeName, list: L) -> Known
    where
        L: Future<Output = Result<Reply, CallError>> + Send,
    {
        match self.way(qube) {
            Some(way) => Known::Before(way),
            None => Known::Now(self.find_anew(qube, list).await),
        }
    }

    /// How to name this qube, by a listing made after this was asked; calls that ask at the same
    /// time share one.
    pub(crate) async fn find_anew<L>(&self, qube: &QubeName, list: L) -> Way
    where
        L: Future<Output = Result<Reply, CallError>> + Send,
    {
        let seen = self.known().seen;
        let turn = self.listing.lock().await;
        let unchanged = self.known().seen == seen;
        if unchanged && let Ok(reply) = list.await {
            self.remember(&reply);
        }
        drop(turn);
        self.way(qube).unwrap_or(Way::Argument)
    }

    fn way(&self, qube: &QubeName) -> Option<Way> {
        self.known().ways.get(qube.as_str()).copied()
    }

    /// Held only between two awaits. A panic of another holder leaves a map that is whole.
    fn known(&self) -> MutexGuard<'_, Ways> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    fn listing(json: &str) -> Reply {
        Reply { json: json.into(), ..Reply::default() }
    }

    fn name(text: &str) -> QubeName {
        QubeName::parse(text).unwrap()
    }

    const BOTH: &str = r#"{"vms":[{"name":"work","address":"argument","state":"Running"},
        {"name":"ai-1","address":"target"},{"name":"old"}]}"#;

    async fn never() -> Result<Reply, CallError> {
        panic!("nothing had to be listed")
    }

    #[tokio::test]
    async fn a_listing_that_was_seen_is_enough() {
        let addresses = Addresses::default();
        addresses.remember(&listing(BOTH));
        addresses.remember(&listing("[]"));
        for (qube, way) in [("work", Way::Argument), ("ai-1", Way::Target), ("old", Way::Argument)]
        {
            assert_eq!(addresses.find(&name(qube), never()).await, Known::Before(way));
        }
    }

    #[tokio::test]
    async fn an_unknown_name_is_listed_once_and_then_left_to_dom0() {
        let addresses = Addresses::default();
        let list = || async { Ok(listing(BOTH)) };
        assert_eq!(addresses.find(&name("ai-1"), list()).await, Known::Now(Way::Target));
        assert_eq!(addresses.find(&name("vault"), list()).await, Known::Now(Way::Argument));
        let refused = async { Err(CallError::refused()) };
        assert_eq!(addresses.find(&name("vault"), refused).await, Known::Now(Way::Argument));
        assert_eq!(addresses.find(&name("ai-1"), never()).await, Known::Before(Way::Target));
    }

    #[tokio::test]
    async fn calls_that_ask_at_the_same_time_share_one_listing() {
        let addresses = Addresses::default();
        let listings = AtomicU32::new(0);
        let list = || async {
            listings.fetch_add(1, Relaxed);
            tokio::task::yield_now().await;
            Ok(listing(BOTH))
        };
        let (work, tagged) = (name("work"), name("ai-1"));
        let found = tokio::join!(addresses.find(&work, list()), addresses.find(&tagged, list()));
        assert_eq!(found, (Known::Now(Way::Argument), Known::Now(Way::Target)));
        assert_eq!(listings.load(Relaxed), 1);
    }
}
