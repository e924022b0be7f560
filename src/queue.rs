//! Places for calls on qrexec: a qube holds few connections, so that most calls wait here.

use std::sync::Arc;

use contract::limits::{CALLS_IN_FLIGHT, LONG_CALLS_IN_FLIGHT};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out places in the order of asking. Quick calls always find some that long ones cannot take.
#[derive(Debug)]
pub(crate) struct Queue {
    calls: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

/// The right to have one call under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _long: Option<OwnedSemaphorePermit>,
    _call: Option<OwnedSemaphorePermit>,
}

impl Queue {
    /// A queue with all its places free.
    pub(crate) fn new() -> Self {
        Self {
            calls: Arc::new(Semaphore::new(CALLS_IN_FLIGHT)),
            long: Arc::new(Semaphore::new(LONG_CALLS_IN_FLIGHT)),
        }
    }

    /// Waits for a place. May be dropped while it waits.
    pub(crate) async fn place(&self, long: bool) -> Place {
        // Semaphores that nobody closes never fail.
        let _long = match long {
            true => Arc::clone(&self.long).acquire_owned().await.ok(),
            false => None,
        };
        Place { _long, _call: Arc::clone(&self.calls).acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    fn now(queue: &Queue, long: bool) -> Option<Place> {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(queue.place(long)).poll(&mut context) {
            std::task::Poll::Ready(place) => Some(place),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn at_most_eight_calls_and_six_long_ones_have_a_place() {
        let queue = Queue::new();
        let mut places: Vec<Place> = (0..6).filter_map(|_| now(&queue, true)).collect();
        assert_eq!(places.len(), 6);
        assert!(now(&queue, true).is_none());
        places.extend([now(&queue, false).unwrap(), now(&queue, false).unwrap()]);
        assert!(now(&queue, false).is_none());
        drop(places.pop());
        assert!(now(&queue, true).is_none());
        assert!(now(&queue, false).is_some());
    }
}
