//! Tiers: what each of the reserved tags gives over a qube of the sandbox, and the operator's rules.

use std::fmt;

use admin_api::Tag;
use contract::Power;

/// The tag that makes a qube part of the sandbox.
pub const SANDBOX_TAG: &str = "ai-managed";
/// The tag of qubes into which files may be copied and to which nothing else may be done.
pub const DUMP_TAG: &str = "ai-dump";

/// How much may be done to a qube of the sandbox. Each holds what those before it hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Looking.
    See,
    /// Also commands, as root too, and files.
    Exec,
    /// Also its network.
    Net,
    /// Everything that the operator's line holds.
    Full,
}

impl Tier {
    /// Those that a tag gives, the highest first.
    pub const TAGGED: [Self; 3] = [Self::Full, Self::Net, Self::Exec];

    /// The tag that gives it beside [`SANDBOX_TAG`]; none for the lowest.
    pub const fn tag(self) -> Option<&'static str> {
        match self {
            Self::See => None,
            Self::Exec => Some("ai-exec"),
            Self::Net => Some("ai-net"),
            Self::Full => Some("ai-full"),
        }
    }

    /// The highest that these tags give; none when they give none.
    pub fn of(tags: &[Tag]) -> Option<Self> {
        Self::TAGGED
            .into_iter()
            .find(|tier| tags.iter().any(|tag| Some(tag.as_str()) == tier.tag()))
    }

    /// Whether the power is among what the tier gives.
    pub const fn gives(self, power: Power) -> bool {
        let needed = match power {
            Power::See => Self::See,
            Power::Exec | Power::Root | Power::Files => Self::Exec,
            Power::Net => Self::Net,
            Power::Lifecycle | Power::Shape => Self::Full,
        };
        self.rank() >= needed.rank()
    }

    const fn rank(self) -> u8 {
        match self {
            Self::See => 0,
            Self::Exec => 1,
            Self::Net => 2,
            Self::Full => 3,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::See => "see",
            Self::Exec => "exec",
            Self::Net => "net",
            Self::Full => "full",
        })
    }
}

/// What the operator set about tags, for all agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxRules {
    /// The tier of a qube of the sandbox without a tag of a tier.
    pub default_tier: Tier,
    /// Whether files may be copied into qubes with [`DUMP_TAG`].
    pub dump: bool,
}

impl Default for SandboxRules {
    fn default() -> Self {
        Self { default_tier: Tier::Full, dump: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_are_cumulative_and_the_highest_tag_wins() {
        let tags =
            |names: &[&str]| names.iter().map(|n| Tag::parse(n).unwrap()).collect::<Vec<_>>();
        let given = |tier: Tier| Power::ALL.into_iter().filter(move |power| tier.gives(*power));
        let counts: Vec<usize> = [Tier::See, Tier::Exec, Tier::Net, Tier::Full]
            .into_iter()
            .map(|tier| given(tier).count())
            .collect();
        assert_eq!(counts, [1, 4, 5, 7]);
        assert!(given(Tier::Exec).all(|power| Tier::Net.gives(power) && Tier::Full.gives(power)));
        assert_eq!(Tier::of(&tags(&["ai-managed", "ai-exec", "ai-net"])), Some(Tier::Net));
        assert_eq!(Tier::of(&tags(&["ai-full", "ai-exec"])), Some(Tier::Full));
        assert_eq!(Tier::of(&tags(&["ai-managed", "AI-full", "ai-fuller"])), None);
        let names = [Tier::See, Tier::Exec, Tier::Net, Tier::Full].map(|tier| tier.to_string());
        assert_eq!(names, ["see", "exec", "net", "full"]);
        assert_eq!((Tier::See.tag(), Tier::Net.tag()), (None, Some("ai-net")));
    }
}
