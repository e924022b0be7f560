//! How many refusals are written one by one, so that an agent that knocks without end neither
//! fills the log nor pushes older lines out of it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Refusals of one agent that are written in a row.
const BURST: u32 = 30;
/// After this time one more is written.
const REFILL: Duration = Duration::from_secs(2);
/// The most agents that are told apart; policy lets few through.
const AGENTS: usize = 256;

/// The refusals of every agent.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    agents: BTreeMap<String, Agent>,
}

#[derive(Debug)]
struct Agent {
    left: u32,
    since: Instant,
    dropped: u64,
}

impl Refusals {
    /// Whether this one is written. One that is not is counted.
    pub(super) fn admit(&mut self, agent: &str, now: Instant) -> bool {
        let name =
            if self.agents.contains_key(agent) || self.agents.len() < AGENTS { agent } else { "" };
        let known = self.agents.entry(name.to_owned()).or_insert(Agent {
            left: BURST,
            since: now,
            dropped: 0,
        });
        let dropped = known.dropped;
        while known.left < BURST && now.duration_since(known.since) >= REFILL {
            known.left += 1;
            known.since += REFILL;
        }
        if known.left == BURST {
            known.since = now;
        }
        match known.left.checked_sub(1) {
            Some(left) => known.left = left,
            None => known.dropped += 1,
        }
        known.dropped == dropped
    }

    /// The refusals that were counted since they were asked for last, by agent.
    pub(super) fn take_dropped(&mut self) -> Vec<(String, u64)> {
        let counted = self.agents.iter_mut().filter(|(_, agent)| agent.dropped > 0);
        counted.map(|(name, agent)| (name.clone(), std::mem::take(&mut agent.dropped))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_refusals_are_counted_until_time_has_passed() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let written = (0..100).filter(|_| refusals.admit("a", start)).count();
        assert_eq!(written, 30);
        assert!(refusals.admit("b", start), "another agent's do not count");
        assert_eq!(refusals.take_dropped(), [("a".to_owned(), 70)]);
        assert!(refusals.admit("a", start + REFILL));
        assert!(!refusals.admit("a", start + REFILL));
    }

    #[test]
    fn a_million_agents_take_no_room() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        for number in 0..10_000 {
            refusals.admit(&number.to_string(), now);
        }
        assert_eq!(refusals.agents.len(), AGENTS + 1);
    }
}
