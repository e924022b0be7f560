//! Bearer tokens, and the digests by which they are known again.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rustix::{io::Errno, rand::GetRandomFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// How every token that is made here begins, so that it is known for one where it leaks.
const PREFIX: &str = "sbt_";
/// The random bytes of a token.
const RANDOM_BYTES: usize = 32;
/// The fewest characters of a token that somebody made elsewhere.
const SHORTEST: usize = 32;
/// The most characters of a token.
const LONGEST: usize = 512;

/// A token. It is shown only where somebody asks for it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

/// What cannot be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has {SHORTEST} to {LONGEST} characters: letters, digits and any of -._~+/=")]
pub(crate) struct TokenError;

impl Token {
    /// A new one, of 256 random bits.
    pub(crate) fn random() -> Result<Self, Errno> {
        Ok(Self(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&random_bytes()?))))
    }

    /// Reads a token (`token68` of RFC 9110, section 11.2).
    pub(crate) fn parse(text: &str) -> Result<Self, TokenError> {
        let inside = |c: char| {
            c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '+' | '/' | '=')
        };
        if (SHORTEST..=LONGEST).contains(&text.len()) && text.chars().all(inside) {
            Ok(Self(text.into()))
        } else {
            Err(TokenError)
        }
    }

    /// Its characters.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// By what it is known again.
    pub(crate) fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token")
    }
}

/// So many bytes as a token and a key have.
pub(crate) fn random_bytes() -> Result<[u8; RANDOM_BYTES], Errno> {
    let (mut bytes, mut filled) = ([0; RANDOM_BYTES], 0);
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, GetRandomFlags::empty()) {
            Ok(count) => filled = filled.saturating_add(count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// The SHA-256 of a token. From it nobody gets the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Digest([u8; 32]);

/// A text that is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is written as 64 hexadecimal digits")]
pub(crate) struct DigestError;

impl ConstantTimeEq for Digest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| DigestError)?;
        bytes.try_into().map(Self).map_err(|_| DigestError)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        HEXLOWER.encode(&digest.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_random_and_not_shown_by_accident() {
        let (one, two) = (Token::random().unwrap(), Token::random().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 4 + 43);
        assert_eq!(Token::parse(one.as_str()), Ok(one.clone()));
        assert_eq!(format!("{one:?}"), "Token");
        assert!(bool::from(one.digest().ct_eq(&one.digest())));
        assert!(!bool::from(one.digest().ct_eq(&two.digest())));
    }

    #[test]
    fn short_tokens_and_odd_characters_are_refused() {
        for bad in ["", &"x".repeat(31), &"x".repeat(513), &format!("{}\n", "x".repeat(40))] {
            assert_eq!(Token::parse(bad), Err(TokenError));
        }
    }

    #[test]
    fn a_digest_is_hexadecimal() {
        let token = Token::parse(&"x".repeat(32)).unwrap();
        let text = String::from(token.digest());
        assert_eq!(text, "c62e4615bd39e222572f3a1bf7c2132ea1e65b17ec805047bd6b2842c593493f");
        assert_eq!(Digest::try_from(text), Ok(token.digest()));
        assert_eq!(Digest::try_from("00".to_owned()), Err(DigestError));
    }
}
