//! The clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::Until;

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
