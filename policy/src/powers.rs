//! Powers over one target, each held outright or only with the operator's consent to every call.

use std::{collections::BTreeMap, fmt, str::FromStr};

use contract::Power;

use crate::tier::Tier;

/// How a power is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consent {
    /// Given once, in the operator's file.
    Standing,
    /// Asked for by qrexec's own prompt before every call (`POWER:ask`).
    Ask,
}

/// The powers over one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Powers(BTreeMap<Power, Consent>);

/// The text is no list of powers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PowersError {
    /// A word that names no power.
    #[error(
        "`{word}` is not a power; use see, lifecycle, exec, root, files, net, shape, each with or without `:ask`, with commas and no spaces between"
    )]
    Unknown {
        /// The word.
        word: String,
    },
    /// A power that stands in the list twice.
    #[error("the power `{0}` is named twice; name it once")]
    Repeated(Power),
}

impl Powers {
    /// What a bare name grants: [`Power::BARE`], all standing.
    pub fn bare() -> Self {
        Self(Power::BARE.into_iter().map(|power| (power, Consent::Standing)).collect())
    }

    /// Every power there is, all standing.
    pub fn all() -> Self {
        Self(Power::ALL.into_iter().map(|power| (power, Consent::Standing)).collect())
    }

    /// Those of them that a tier gives.
    pub(crate) fn within(&self, tier: Tier) -> Self {
        Self(self.iter().filter(|(power, _)| tier.gives(*power)).collect())
    }

    /// This one of them, if it is among them.
    pub(crate) fn only(&self, wanted: Power) -> Self {
        Self(self.iter().filter(|(power, _)| *power == wanted).collect())
    }

    /// Reads `see,files:ask`.
    ///
    /// # Errors
    /// A word that is no power, or a power named twice.
    pub fn parse(list: &str) -> Result<Self, PowersError> {
        let mut powers = BTreeMap::new();
        for word in list.split(',') {
            let (name, consent) = match word.strip_suffix(":ask") {
                Some(name) => (name, Consent::Ask),
                None => (word, Consent::Standing),
            };
            let power: Power =
                name.parse().map_err(|_| PowersError::Unknown { word: word.into() })?;
            if powers.insert(power, consent).is_some() {
                return Err(PowersError::Repeated(power));
            }
        }
        Ok(Self(powers))
    }

    /// How this power is held; none when it is not.
    pub fn consent(&self, power: Power) -> Option<Consent> {
        self.0.get(&power).copied()
    }

    /// Whether this power is held outright. Held as `ask` it counts as absent here.
    pub fn holds(&self, power: Power) -> bool {
        self.consent(power) == Some(Consent::Standing)
    }

    /// Whether any power is held only as `ask`.
    pub fn any_ask(&self) -> bool {
        self.0.values().any(|consent| *consent == Consent::Ask)
    }

    /// Every power held, in the order of [`Power::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Power, Consent)> + '_ {
        self.0.iter().map(|(power, consent)| (*power, *consent))
    }

    /// Adds what the other holds; of two ways to hold a power the standing one stays.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (power, consent) in other.iter() {
            let held = self.0.entry(power).or_insert(consent);
            *held = (*held).min(consent);
        }
    }
}

impl FromStr for Powers {
    type Err = PowersError;

    fn from_str(list: &str) -> Result<Self, PowersError> {
        Self::parse(list)
    }
}

impl fmt::Display for Powers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (power, consent)) in self.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let ask = match consent {
                Consent::Standing => "",
                Consent::Ask => ":ask",
            };
            write!(f, "{comma}{power}{ask}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_read_and_shown_in_their_order() {
        let powers = Powers::parse("files:ask,see").unwrap();
        assert_eq!(powers.to_string(), "see,files:ask");
        assert_eq!("files:ask,see".parse(), Ok(powers.clone()));
        assert!(powers.holds(Power::See) && !powers.holds(Power::Files));
        assert_eq!(powers.consent(Power::Files), Some(Consent::Ask));
        assert_eq!(powers.consent(Power::Exec), None);
        assert_eq!(Powers::bare().to_string(), "see,lifecycle,exec,root,files,net");
    }

    #[test]
    fn wrong_lists_are_refused_for_what_is_wrong_with_them() {
        for word in ["", "sea", "See", "see:", "see:ASK", "see:ask:ask", "ask"] {
            assert_eq!(Powers::parse(word), Err(PowersError::Unknown { word: word.into() }));
        }
        assert_eq!(Powers::parse("see,"), Err(PowersError::Unknown { word: String::new() }));
        assert_eq!(Powers::parse("see,see:ask"), Err(PowersError::Repeated(Power::See)));
    }

    #[test]
    fn the_standing_way_to_hold_a_power_wins() {
        let mut powers = Powers::parse("see:ask,exec").unwrap();
        powers.merge(&Powers::parse("see,exec:ask,net:ask").unwrap());
        assert_eq!(powers.to_string(), "see,exec,net:ask");
    }
}
