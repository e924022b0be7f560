//! The powers an operator grants over a qube.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One power over one qube. Powers do not imply one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// State, properties and firewall rules may be read.
    See,
    /// The qube may be started, shut down, paused, unpaused and killed.
    Lifecycle,
    /// Commands may be run in the qube as its default user.
    Exec,
    /// Commands may be run in the qube as root.
    Root,
    /// Files may be read, written, listed, searched, edited and transferred.
    Files,
    /// Firewall rules and `qubes.ConnectTCP` policy may be changed.
    Net,
    /// Qubes may be created, cloned, removed and shaped.
    Shape,
}

impl Power {
    /// Every power, in the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::See, Self::Lifecycle, Self::Exec, Self::Root, Self::Files, Self::Net, Self::Shape];

    /// The powers that a bare name in the operator's file grants: all but `shape`.
    pub const BARE: [Self; 6] =
        [Self::See, Self::Lifecycle, Self::Exec, Self::Root, Self::Files, Self::Net];

    /// The word that stands for this power in the operator's file and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::See => "see",
            Self::Lifecycle => "lifecycle",
            Self::Exec => "exec",
            Self::Root => "root",
            Self::Files => "files",
            Self::Net => "net",
            Self::Shape => "shape",
        }
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The word is not the name of a power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a power (powers are see, lifecycle, exec, root, files, net, shape)")]
pub struct UnknownPower;

impl FromStr for Power {
    type Err = UnknownPower;

    fn from_str(word: &str) -> Result<Self, UnknownPower> {
        Self::ALL.into_iter().find(|power| power.as_str() == word).ok_or(UnknownPower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_power_is_read_back_from_its_word_and_from_json() {
        for power in Power::ALL {
            assert_eq!(power.as_str().parse(), Ok(power));
            assert_eq!(serde_json::to_string(&power).unwrap(), format!("\"{power}\""));
        }
        assert_eq!("See".parse::<Power>(), Err(UnknownPower));
    }
}
