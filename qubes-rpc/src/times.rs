//! The clock.

use std::{
    cell::Cell,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use policy::Until;

/// The time by which grants end. It follows the machine's clock, but never back: from the latest
/// moment seen it goes on as time passes, so that what has ended stays so, and what will ends in time.
#[derive(Debug)]
pub(crate) struct GrantClock {
    latest: Cell<(SystemTime, Instant)>,
}

impl GrantClock {
    /// Begins at the machine's clock.
    pub(crate) fn new() -> Self {
        Self { latest: Cell::new((SystemTime::now(), Instant::now())) }
    }

    /// The time.
    pub(crate) fn now(&self) -> SystemTime {
        self.at(SystemTime::now(), Instant::now())
    }

    fn at(&self, clock: SystemTime, instant: Instant) -> SystemTime {
        let (latest, seen) = self.latest.get();
        let passed = latest.checked_add(instant.saturating_duration_since(seen));
        let now = passed.map_or(clock, |passed| passed.max(clock));
        self.latest.set((now, instant.max(seen)));
        now
    }
}

/// Seconds since 1970.
pub(crate) fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Now as RFC 3339 writes it, to the millisecond.
pub(crate) fn now_with_milliseconds() -> String {
    with_milliseconds(SystemTime::now())
}

/// The moment as RFC 3339 writes it, to the millisecond.
pub(crate) fn with_milliseconds(time: SystemTime) -> String {
    let part = time.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis();
    let second = Until::from_time(time).map(|second| second.to_string()).unwrap_or_default();
    format!("{}.{part:03}Z", second.trim_end_matches('Z'))
}

/// The moment so many seconds after 1970.
pub(crate) fn time_of(seconds: u64) -> Option<Until> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).and_then(Until::from_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_grants_never_goes_back_and_never_stands_still() {
        let (clock, start) = (GrantClock::new(), Instant::now());
        let noon = SystemTime::now() + Duration::from_secs(86_400);
        let after = |seconds| start + Duration::from_secs(seconds);
        let seconds = Duration::from_secs;
        assert_eq!(clock.at(noon, start), noon);
        // Set back by an hour, or to the very beginning.
        assert_eq!(clock.at(noon - seconds(3590), after(10)), noon + seconds(10));
        assert_eq!(clock.at(UNIX_EPOCH, after(60)), noon + seconds(60));
        // Set forward, and back again.
        assert_eq!(clock.at(noon + seconds(3600), after(61)), noon + seconds(3600));
        assert_eq!(clock.at(noon + seconds(62), after(62)), noon + seconds(3601));
    }
}
