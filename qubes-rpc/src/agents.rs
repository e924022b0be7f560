//! What the calls of each agent take of dom0: connections, and the memory of long requests.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use admin_api::QubeName;
use contract::limits;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

const KIB: usize = 1024;

/// The memory that the long requests of one agent share.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Semaphore>);

/// A part of it, until this is dropped.
#[derive(Debug)]
pub struct Held(
    #[expect(dead_code, reason = "what matters is when it is dropped")] OwnedSemaphorePermit,
);

impl Memory {
    /// All of it is free.
    #[expect(clippy::new_without_default, reason = "nobody should get one by accident")]
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(limits::REQUESTS_PER_AGENT_BYTES / KIB)))
    }

    /// Waits for so many bytes; nothing when they do not get free in time.
    pub async fn take(&self, bytes: usize) -> Option<Held> {
        let kib = u32::try_from(bytes.div_ceil(KIB)).ok()?;
        let permit = Arc::clone(&self.0).acquire_many_owned(kib);
        timeout(limits::BODY, permit).await.ok()?.ok().map(Held)
    }
}

/// All agents with connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agents(Rc<RefCell<HashMap<QubeName, (usize, Memory)>>>);

/// One connection of an agent, as long as it lives.
#[derive(Debug)]
pub(crate) struct Connection {
    agents: Agents,
    agent: QubeName,
    /// How many connections the agent has with this one.
    pub(crate) count: usize,
    /// What its long requests share.
    pub(crate) memory: Memory,
}

impl Agents {
    /// Counts a connection of this agent.
    pub(crate) fn connect(&self, agent: &QubeName) -> Connection {
        let mut agents = self.0.borrow_mut();
        let (count, memory) = agents.entry(agent.clone()).or_insert_with(|| (0, Memory::new()));
        *count += 1;
        let (count, memory) = (*count, memory.clone());
        Connection { agents: self.clone(), agent: agent.clone(), count, memory }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut agents = self.agents.0.borrow_mut();
        if let Some((count, _)) = agents.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                agents.remove(&self.agent);
            }
        }
    }
}
