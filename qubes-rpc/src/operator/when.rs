//! A moment as an operator types it: written out, counted from now, or never.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use policy::Until;

/// When a grant ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// At this moment.
    At(Until),
    /// After this time.
    After(Duration),
    /// Not by itself.
    Never,
}

/// The text is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 2026-12-01T18:00:00Z, +90m, +8h, +7d or never")]
pub(crate) struct WhenError;

impl When {
    /// The moment, seen from now.
    pub(crate) fn moment(self, now: SystemTime) -> Option<Until> {
        match self {
            Self::At(until) => Some(until),
            Self::After(time) => now.checked_add(time).and_then(Until::from_time),
            Self::Never => None,
        }
    }
}

impl FromStr for When {
    type Err = WhenError;

    fn from_str(text: &str) -> Result<Self, WhenError> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let Some(after) = text.strip_prefix('+') else {
            return Until::parse(text).map(Self::At).map_err(|_| WhenError);
        };
        parse_span(after).map(Self::After).ok_or(WhenError)
    }
}

/// A moment in the past: written out, or counted back from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Past {
    /// At this moment.
    At(Until),
    /// This long ago.
    Before(Duration),
}

/// The text is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 2026-12-01T18:00:00Z, -90m, -8h or -7d")]
pub(crate) struct PastError;

impl Past {
    /// The moment, seen from now.
    pub(crate) fn moment(self, now: SystemTime) -> Option<Until> {
        match self {
            Self::At(at) => Some(at),
            Self::Before(time) => now.checked_sub(time).and_then(Until::from_time),
        }
    }
}

impl FromStr for Past {
    type Err = PastError;

    fn from_str(text: &str) -> Result<Self, PastError> {
        let past = match text.strip_prefix('-') {
            Some(before) => parse_span(before).map(Self::Before),
            None => Until::parse(text).map(Self::At).ok(),
        };
        past.ok_or(PastError)
    }
}

/// A number of minutes, hours or days, up to ten years: whoever wants more wants never.
fn parse_span(text: &str) -> Option<Duration> {
    let unit = match text.bytes().last()? {
        b'm' => 60,
        b'h' => 3600,
        b'd' => 86_400,
        _ => return None,
    };
    let number = text.get(..text.len().saturating_sub(1))?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
    (1..=315_360_000).contains(&seconds).then(|| Duration::from_secs(seconds))
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_they_are_typed() {
        let after = |seconds| Ok(When::After(Duration::from_secs(seconds)));
        assert_eq!("+90m".parse(), after(5400));
        assert_eq!("+8h".parse(), after(28_800));
        assert_eq!("+7d".parse(), after(604_800));
        assert_eq!("never".parse(), Ok(When::Never));
        assert!(matches!("2026-12-01T18:00:00Z".parse(), Ok(When::At(_))));
        for text in ["", "+", "+m", "8h", "+0m", "+-1h", "+9999999999999999d", "+ä", "tomorrow"] {
            assert_eq!(text.parse::<When>(), Err(WhenError), "{text}");
        }
        assert_eq!("-2h".parse(), Ok(Past::Before(Duration::from_secs(7200))));
        assert_eq!("+2h".parse::<Past>(), Err(PastError));
    }
}
