//! The name under which the agent's side makes a call for somebody else.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a principal: whom the agent's side says it acts for.
///
/// dom0 writes it down as a claim and decides nothing by it.
///
/// ```
/// use contract::PrincipalName;
/// assert!(PrincipalName::parse("laptop-2").is_ok());
/// assert!(PrincipalName::parse("-").is_err());
/// assert!(PrincipalName::parse("a\nb").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PrincipalName(String);

/// A text that names no principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a principal begins with a letter, holds only letters, digits, '_', '-' and '.', \
     and has at most {} characters",
    PrincipalName::CHARACTERS
)]
pub struct PrincipalNameError;

impl PrincipalName {
    /// The longest name, in characters.
    pub const CHARACTERS: usize = 64;

    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, PrincipalNameError> {
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(inside)
            && text.len() <= Self::CHARACTERS
        {
            Ok(Self(text.into()))
        } else {
            Err(PrincipalNameError)
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrincipalName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for PrincipalName {
    type Error = PrincipalNameError;

    fn try_from(text: String) -> Result<Self, PrincipalNameError> {
        Self::parse(&text)
    }
}

impl From<PrincipalName> for String {
    fn from(name: PrincipalName) -> Self {
        name.0
    }
}

impl std::str::FromStr for PrincipalName {
    type Err = PrincipalNameError;

    fn from_str(text: &str) -> Result<Self, PrincipalNameError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        for good in ["a", "laptop", "Phone_2.home", &"x".repeat(64)] {
            let name: PrincipalName = good.parse().unwrap();
            assert_eq!((name.as_str(), name.to_string().as_str()), (good, good));
        }
        for bad in ["", "2", "-a", "a b", "a\n", "é", "a/b", &"x".repeat(65)] {
            assert_eq!(PrincipalName::parse(bad), Err(PrincipalNameError), "{bad}");
        }
    }
}
