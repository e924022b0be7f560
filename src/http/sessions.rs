//! Whose each MCP session is, and how many one principal has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use contract::limits::{HTTP_SESSION, HTTP_SESSIONS};
use rmcp::transport::streamable_http_server::{
    SessionId, SessionManager, session::local::LocalSessionManager,
};
use tokio::time::Instant;

use crate::caller::Caller;

/// The sessions that are open.
#[derive(Debug)]
pub(crate) struct Sessions {
    manager: Arc<LocalSessionManager>,
    open: Mutex<BTreeMap<SessionId, Open>>,
}

#[derive(Debug)]
struct Open {
    caller: Arc<Caller>,
    used: Instant,
}

impl Sessions {
    /// None are open yet.
    pub(crate) fn new() -> Self {
        let mut manager = LocalSessionManager::default();
        manager.session_config.keep_alive = Some(HTTP_SESSION);
        Self { manager: Arc::new(manager), open: Mutex::default() }
    }

    /// What holds the sessions.
    pub(crate) fn manager(&self) -> Arc<LocalSessionManager> {
        Arc::clone(&self.manager)
    }

    /// Whether this session is the caller's own, which counts as using it.
    pub(crate) fn is_own(&self, id: &str, caller: &Arc<Caller>) -> bool {
        match self.open().get_mut(id) {
            Some(open) if Arc::ptr_eq(&open.caller, caller) => {
                open.used = Instant::now();
                true
            }
            Some(_) | None => false,
        }
    }

    /// Notes that the caller opened this session. It may push out the one that this caller has not
    /// used for longest.
    pub(crate) async fn opened(&self, id: &str, caller: &Arc<Caller>) {
        let running = self.manager.sessions.read().await.keys().cloned().collect::<Vec<_>>();
        let surplus = {
            let mut open = self.open();
            open.retain(|id, _| running.contains(id));
            open.insert(id.into(), Open { caller: Arc::clone(caller), used: Instant::now() });
            surplus(&open, caller)
        };
        if let Some(id) = surplus {
            self.close(&id).await;
        }
    }

    /// Ends the sessions of callers whose tokens were taken back.
    pub(crate) async fn close_revoked(&self) {
        let gone: Vec<SessionId> = {
            let open = self.open();
            let revoked = open.iter().filter(|(_, open)| open.caller.revoked().is_cancelled());
            revoked.map(|(id, _)| id.clone()).collect()
        };
        for id in gone {
            self.close(&id).await;
        }
    }

    async fn close(&self, id: &SessionId) {
        self.open().remove(id);
        // It may have ended by itself.
        drop(self.manager.close_session(id).await);
    }

    /// Held only between two awaits.
    fn open(&self) -> MutexGuard<'_, BTreeMap<SessionId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session to end when this caller has more than it may.
fn surplus(open: &BTreeMap<SessionId, Open>, caller: &Arc<Caller>) -> Option<SessionId> {
    let own = || open.iter().filter(|(_, open)| Arc::ptr_eq(&open.caller, caller));
    if own().count() <= HTTP_SESSIONS {
        return None;
    }
    own().min_by_key(|(_, open)| open.used).map(|(id, _)| id.clone())
}
