//! Every event since the start of a host, for listeners and for tests.

use std::sync::{Arc, Mutex, PoisonError};

use admin_api::Event;
use tokio::sync::watch;

/// The events of one host, in order. Clones share one log.
#[derive(Clone, Debug)]
pub struct EventLog {
    events: Arc<Mutex<Vec<Event>>>,
    length: watch::Sender<usize>,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self { events: Arc::default(), length: watch::Sender::new(0) }
    }

    pub(crate) fn push(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event);
        self.length.send_replace(events.len());
    }

    /// How many events there have been.
    pub fn len(&self) -> usize {
        *self.length.borrow()
    }

    /// True when nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The events from this one on, counted from zero.
    pub fn since(&self, first: usize) -> Vec<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.get(first..).unwrap_or_default().to_vec()
    }

    /// Changes with every event.
    pub(crate) fn changes(&self) -> watch::Receiver<usize> {
        self.length.subscribe()
    }
}
