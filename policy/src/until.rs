//! The moment at which a grant ends, as RFC 3339 writes it.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const DAY: u64 = 86_400;
/// 9999-12-31T23:59:59Z, the last moment that RFC 3339 can write.
const LAST: u64 = 253_402_300_799;

/// The moment at which a grant ends, in whole seconds from 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Until {
    seconds: u64,
}

/// The text is no moment at which a grant can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 2026-12-01T18:00:00Z or 2026-12-01T18:00:00+01:00, from 1970 to 9999")]
pub struct UntilError;

impl Until {
    /// Reads `YYYY-MM-DDThh:mm:ss` with `Z` or `+hh:mm` or `-hh:mm` behind it.
    ///
    /// # Errors
    /// Any other form, a day or time that does not exist, or a moment outside 1970 to 9999.
    pub fn parse(text: &str) -> Result<Self, UntilError> {
        read(text.as_bytes()).map(|seconds| Self { seconds }).ok_or(UntilError)
    }

    /// The moment, cut to the second; none before 1970 or after 9999.
    pub fn from_time(time: SystemTime) -> Option<Self> {
        let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
        (seconds <= LAST).then_some(Self { seconds })
    }

    /// The moment.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.seconds)
    }

    /// Whether the grant has ended: from this second on it has.
    pub fn has_passed(self, now: SystemTime) -> bool {
        now >= self.time()
    }
}

impl FromStr for Until {
    type Err = UntilError;

    fn from_str(text: &str) -> Result<Self, UntilError> {
        Self::parse(text)
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date_of(self.seconds / DAY);
        let (hour, minute, second) =
            (self.seconds % DAY / 3600, self.seconds % 3600 / 60, self.seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Seconds since 1970, or nothing.
fn read(text: &[u8]) -> Option<u64> {
    let (date_and_time, zone) = text.split_at_checked(19)?;
    let [y1, y2, y3, y4, b'-', o1, o2, b'-', d1, d2, b'T', h1, h2, b':', m1, m2, b':', s1, s2] =
        *date_and_time
    else {
        return None;
    };
    let year = number(&[y1, y2, y3, y4], 9999)?;
    let (month, day) = (number(&[o1, o2], 12)?, number(&[d1, d2], 31)?);
    let (hour, minute) = (number(&[h1, h2], 23)?, number(&[m1, m2], 59)?);
    let second = number(&[s1, s2], 59)?;
    if month == 0 || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let local = (days_since_1970(year, month, day)?)
        .checked_mul(DAY)?
        .checked_add(hour * 3600 + minute * 60 + second)?;
    let seconds = match *zone {
        [b'Z'] => local,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let offset = number(&[h1, h2], 23)? * 3600 + number(&[m1, m2], 59)? * 60;
            // East of Greenwich it is later, so the same moment has a smaller UTC.
            if sign == b'+' { local.checked_sub(offset)? } else { local.checked_add(offset)? }
        }
        _ => return None,
    };
    (seconds <= LAST).then_some(seconds)
}

fn number(digits: &[u8], most: u64) -> Option<u64> {
    digits
        .iter()
        .try_fold(0, |value, digit| {
            digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0'))
        })
        .filter(|value| *value <= most)
}

const fn is_leap(year: u64) -> bool {
    (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
}

const fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const fn days_in_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let years: u64 = (year >= 1970).then(|| (1970..year).map(days_in_year).sum())?;
    let months: u64 = (1..month).map(|month| days_in_month(year, month)).sum();
    Some(years + months + day - 1)
}

/// Year, month and day of a day counted from 1970.
fn date_of(mut days: u64) -> (u64, u64, u64) {
    let (mut year, mut month) = (1970, 1);
    while days >= days_in_year(year) {
        days -= days_in_year(year);
        year += 1;
    }
    while days >= days_in_month(year, month) {
        days -= days_in_month(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(text: &str) -> Option<u64> {
        Until::parse(text).ok().map(|until| until.seconds)
    }

    #[test]
    fn a_moment_is_read_in_utc_and_with_offsets() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!("1970-01-01T00:00:09Z".parse(), Ok(Until { seconds: 9 }));
        assert_eq!(seconds("2026-12-01T18:00:00Z"), Some(1_796_148_000));
        assert_eq!(seconds("2026-12-01T18:00:00+01:00"), Some(1_796_144_400));
        assert_eq!(seconds("2026-12-01T18:00:00-05:30"), Some(1_796_167_800));
        assert_eq!(seconds("2024-02-29T23:59:59Z"), Some(1_709_251_199));
        assert_eq!(seconds("9999-12-31T23:59:59Z"), Some(LAST));
    }

    #[test]
    fn what_does_not_exist_is_not_a_moment() {
        for text in [
            "",
            "2026-12-01",
            "2026-12-01T18:00:00",
            "2026-12-01 18:00:00Z",
            "2026-12-01T18:00:00z",
            "2026-12-01T18:00:00.5Z",
            "2026-13-01T18:00:00Z",
            "2026-00-01T18:00:00Z",
            "2026-02-29T18:00:00Z",
            "2100-02-29T18:00:00Z",
            "2026-12-01T24:00:00Z",
            "2026-12-01T18:60:00Z",
            "2026-12-01T18:00:60Z",
            "2026-12-01T18:00:00+24:00",
            "2026-12-01T18:00:00+0100",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "+026-12-01T18:00:00Z",
            "2026-12-01T18:00:00Zé",
        ] {
            assert_eq!(Until::parse(text), Err(UntilError), "{text}");
        }
    }

    #[test]
    fn a_grant_ends_to_the_second() {
        let until = Until::parse("2026-12-01T18:00:00Z").unwrap();
        assert!(!until.has_passed(until.time() - Duration::from_nanos(1)));
        assert!(until.has_passed(until.time()));
    }

    proptest! {
        #[test]
        fn a_moment_survives_a_round_trip(seconds in 0..=LAST) {
            let until = Until { seconds };
            prop_assert_eq!(Until::parse(&until.to_string()), Ok(until));
            prop_assert_eq!(Until::from_time(until.time()), Some(until));
        }
    }
}
