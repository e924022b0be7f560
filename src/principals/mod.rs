//! Principals: who may use this program over HTTP, each with a token and limits of its own.

pub(crate) mod command;
pub(crate) mod keys;
pub(crate) mod token;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use contract::PrincipalName;
use serde::{Deserialize, Serialize};

use crate::{
    caller::Limits,
    secret_file::{self, SecretFileError},
};
use token::Digest;

/// The longest file of principals, in bytes.
const FILE_BYTES: u64 = 256 * 1024;
/// The most principals.
const MOST: usize = 64;

/// One who may use this program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Principal {
    /// Its name.
    pub(crate) name: PrincipalName,
    /// The digest of its token.
    pub(crate) sha256: Digest,
    /// The tools that it may use; all where there is no such line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tools: Option<BTreeSet<String>>,
    /// The qubes that it may reach; all where there is no such line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) qubes: Option<BTreeSet<String>>,
}

impl Principal {
    /// What it may reach.
    pub(crate) fn limits(&self) -> Limits {
        Limits { tools: self.tools.clone(), qubes: self.qubes.clone() }
    }
}

/// The file of principals. One that is not there holds none.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Principals {
    /// They, in the order in which they were added.
    pub(crate) principals: Vec<Principal>,
}

/// Why the file of principals cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrincipalsError {
    /// It is no file of ours alone.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// It is not of this form.
    #[error("{} is not a file of principals", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Two principals have one name.
    #[error("there are two principals named {0}")]
    Twice(PrincipalName),
    /// There are more than can be.
    #[error("there can be at most {MOST} principals")]
    TooMany,
}

impl Principals {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Self, PrincipalsError> {
        let content = match secret_file::read(path, FILE_BYTES) {
            Ok(content) => content,
            Err(error) if error.is_missing() => return Ok(Self::default()),
            Err(error) => return Err(error.into()),
        };
        Self::parse(&content)
            .map_err(|source| PrincipalsError::Json { path: path.into(), source })?
            .without_doubles()
    }

    /// Reads the content of a file.
    pub(crate) fn parse(content: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(content)
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), PrincipalsError> {
        let mut content = serde_json::to_vec_pretty(self)
            .map_err(|source| PrincipalsError::Json { path: path.into(), source })?;
        content.push(b'\n');
        Ok(secret_file::replace(path, &content)?)
    }

    fn without_doubles(self) -> Result<Self, PrincipalsError> {
        if self.principals.len() > MOST {
            return Err(PrincipalsError::TooMany);
        }
        let mut seen = BTreeSet::new();
        match self.principals.iter().find(|principal| !seen.insert(&principal.name)) {
            Some(principal) => Err(PrincipalsError::Twice(principal.name.clone())),
            None => Ok(self),
        }
    }

    /// Adds one that is not there yet.
    pub(crate) fn add(&mut self, principal: Principal) -> Result<(), PrincipalsError> {
        if self.principals.iter().any(|other| other.name == principal.name) {
            return Err(PrincipalsError::Twice(principal.name));
        }
        if self.principals.len() >= MOST {
            return Err(PrincipalsError::TooMany);
        }
        self.principals.push(principal);
        Ok(())
    }

    /// Takes one away. False where there is none with this name.
    pub(crate) fn remove(&mut self, name: &PrincipalName) -> bool {
        let before = self.principals.len();
        self.principals.retain(|principal| principal.name != *name);
        self.principals.len() < before
    }
}

/// Reads whatever it is given as a file of principals and asserts that what was read survives a
/// round trip.
#[cfg(test)]
fn fuzz_principals(input: &[u8]) {
    let Ok(principals) = Principals::parse(input) else { return };
    let text = serde_json::to_vec(&principals).unwrap();
    assert_eq!(Principals::parse(&text).unwrap(), principals);
}

#[cfg(test)]
mod tests {
    use super::*;
    use token::Token;

    fn principal(name: &str) -> Principal {
        Principal {
            name: PrincipalName::parse(name).unwrap(),
            sha256: Token::parse(&"x".repeat(32)).unwrap().digest(),
            tools: Some(BTreeSet::from(["list_vms".to_owned()])),
            qubes: None,
        }
    }

    #[test]
    fn principals_are_kept_in_a_file_of_the_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("principals.json");
        assert_eq!(Principals::read(&path).unwrap(), Principals::default());
        let mut all = Principals::default();
        all.add(principal("laptop")).unwrap();
        all.write(&path).unwrap();
        assert_eq!(Principals::read(&path).unwrap(), all);
        assert!(matches!(all.add(principal("laptop")), Err(PrincipalsError::Twice(_))));
        assert!(all.remove(&PrincipalName::parse("laptop").unwrap()));
        assert!(!all.remove(&PrincipalName::parse("laptop").unwrap()));
    }

    #[test]
    fn a_file_with_anything_unknown_in_it_is_refused_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("principals.json");
        for bad in [
            "",
            "[]",
            r#"{"principals":[{"name":"a","sha256":"00"}]}"#,
            r#"{"principals":[],"more":1}"#,
            r#"{"principals":[{"name":"a b","sha256":"00"}]}"#,
        ] {
            secret_file::replace(&path, bad.as_bytes()).unwrap();
            assert!(matches!(Principals::read(&path), Err(PrincipalsError::Json { .. })), "{bad}");
            fuzz_principals(bad.as_bytes());
        }
        let text = serde_json::to_string(&principal("a")).unwrap();
        let twice = format!(r#"{{"principals":[{text},{text}]}}"#);
        fuzz_principals(twice.as_bytes());
        secret_file::replace(&path, twice.as_bytes()).unwrap();
        assert!(matches!(Principals::read(&path), Err(PrincipalsError::Twice(_))));
    }
}
