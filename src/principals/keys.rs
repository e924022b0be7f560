//! Who is behind a token, as the files say at this moment.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use subtle::ConstantTimeEq;

use super::{
    Principal, Principals, PrincipalsError,
    token::{Digest, Token, TokenError},
};
use crate::{
    caller::{Caller, Limits},
    log,
    secret_file::{self, SecretFileError, Stamp},
};

/// The longest file with the owner's token, in bytes.
const TOKEN_FILE_BYTES: u64 = 1024;

/// Where tokens are kept.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The owner's token, which has no limits.
    pub(crate) token: PathBuf,
    /// The principals.
    pub(crate) principals: PathBuf,
}

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// It is no file of ours alone.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// It holds no token.
    #[error("{} holds no token", .path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What a token is.
        source: TokenError,
    },
    /// The file of principals is wrong.
    #[error(transparent)]
    Principals(#[from] PrincipalsError),
    /// The kernel gives no random bytes.
    #[error("no random bytes for a token")]
    Random(#[from] rustix::io::Errno),
}

/// The tokens that are good now.
#[derive(Debug)]
pub(crate) struct Keys {
    places: Places,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    stamps: [Option<Stamp>; 2],
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    digest: Digest,
    principal: Option<Principal>,
    caller: Arc<Caller>,
}

impl Key {
    fn new(digest: Digest, principal: Option<Principal>) -> Self {
        let caller = match &principal {
            Some(principal) => Caller::new(Some(principal.name.clone()), principal.limits()),
            None => Caller::new(None, Limits::default()),
        };
        Self { digest, principal, caller: Arc::new(caller) }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest && self.principal == other.principal
    }
}

/// Makes the file with the owner's token where it is not there. True if it was made.
pub(crate) fn make_token(path: &Path) -> Result<bool, KeysError> {
    if Stamp::of(path).is_some() {
        return Ok(false);
    }
    let line = format!("{}\n", Token::random()?.as_str());
    Ok(secret_file::create(path, line.as_bytes())?)
}

impl Keys {
    /// The tokens in these files, both of which must be in order.
    pub(crate) fn open(places: Places) -> Result<Self, KeysError> {
        let stamps = stamps(&places);
        let keys = read(&places)?;
        Ok(Self { places, known: Mutex::new(Known { stamps, keys }) })
    }

    /// Who sends this token. Every token is compared in full, and a file that has changed is read
    /// anew before.
    pub(crate) fn caller(&self, token: &Token) -> Option<Arc<Caller>> {
        self.refresh();
        let (digest, mut found) = (token.digest(), None);
        for key in &self.known().keys {
            if bool::from(key.digest.ct_eq(&digest)) {
                found = Some(Arc::clone(&key.caller));
            }
        }
        found
    }

    /// Takes in what has changed in the files. Who is in them no longer, or otherwise, is cut off;
    /// a file that cannot be used cuts everybody off.
    pub(crate) fn refresh(&self) {
        let stamps = stamps(&self.places);
        let mut known = self.known();
        if known.stamps == stamps {
            return;
        }
        known.stamps = stamps;
        let new = read(&self.places).unwrap_or_else(|error| {
            log::error(&error);
            Vec::new()
        });
        let old = std::mem::take(&mut known.keys);
        for key in &old {
            if !new.iter().any(|new| new.is_same(key)) {
                key.caller.revoked().cancel();
            }
        }
        // Who has not changed keeps the same caller, so that its calls go on.
        let keep = |new: Key| match old.iter().find(|old| old.is_same(&new)) {
            Some(old) => Key { caller: Arc::clone(&old.caller), ..new },
            None => new,
        };
        known.keys = new.into_iter().map(keep).collect();
    }

    /// Held only between two awaits.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamps(places: &Places) -> [Option<Stamp>; 2] {
    [Stamp::of(&places.token), Stamp::of(&places.principals)]
}

fn read(places: &Places) -> Result<Vec<Key>, KeysError> {
    let content = secret_file::read(&places.token, TOKEN_FILE_BYTES)?;
    let text = str::from_utf8(&content).unwrap_or_default();
    let token = Token::parse(text.trim_ascii())
        .map_err(|source| KeysError::Token { path: places.token.clone(), source })?;
    let principals = Principals::read(&places.principals)?.principals;
    let named = principals.into_iter().map(|one| Key::new(one.sha256, Some(one)));
    Ok(std::iter::once(Key::new(token.digest(), None)).chain(named).collect())
}

#[cfg(test)]
mod tests {
    use contract::PrincipalName;
    use tempfile::TempDir;

    use super::*;

    fn places() -> (TempDir, Places) {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            token: folder.path().join("token"),
            principals: folder.path().join("principals.json"),
        };
        (folder, places)
    }

    fn own(places: &Places) -> Token {
        let content = secret_file::read(&places.token, 999).unwrap();
        Token::parse(str::from_utf8(&content).unwrap().trim()).unwrap()
    }

    fn write(places: &Places, names: &[(&str, &Token)]) {
        let mut all = Principals::default();
        for (name, token) in names {
            let name = PrincipalName::parse(name).unwrap();
            let sha256 = token.digest();
            all.add(Principal { name, sha256, tools: None, qubes: None }).unwrap();
        }
        all.write(&places.principals).unwrap();
    }

    #[test]
    fn a_token_is_made_once_and_known_again() {
        let (_folder, places) = places();
        assert!(make_token(&places.token).unwrap());
        let token = own(&places);
        assert!(!make_token(&places.token).unwrap());
        assert_eq!(own(&places), token);
        let keys = Keys::open(places).unwrap();
        assert!(keys.caller(&token).unwrap().name().is_none());
        assert!(keys.caller(&Token::random().unwrap()).is_none());
    }

    #[test]
    fn who_is_taken_out_of_the_file_is_cut_off_and_nobody_else() {
        let (_folder, places) = places();
        make_token(&places.token).unwrap();
        let (laptop, phone) = (Token::random().unwrap(), Token::random().unwrap());
        let keys = Keys::open(places.clone()).unwrap();
        assert!(keys.caller(&laptop).is_none());
        write(&places, &[("laptop", &laptop), ("phone", &phone)]);
        let (one, two) = (keys.caller(&laptop).unwrap(), keys.caller(&phone).unwrap());
        write(&places, &[("phone", &phone)]);
        keys.refresh();
        assert!(one.revoked().is_cancelled() && !two.revoked().is_cancelled());
        assert!(keys.caller(&laptop).is_none());
        assert!(Arc::ptr_eq(&keys.caller(&phone).unwrap(), &two));
    }

    #[test]
    fn a_file_that_is_wrong_lets_nobody_in() {
        let (_folder, places) = places();
        make_token(&places.token).unwrap();
        let token = own(&places);
        let keys = Keys::open(places.clone()).unwrap();
        let caller = keys.caller(&token).unwrap();
        secret_file::replace(&places.principals, b"{").unwrap();
        assert!(keys.caller(&token).is_none());
        assert!(caller.revoked().is_cancelled());
        assert!(Keys::open(places.clone()).is_err());
        secret_file::replace(&places.principals, br#"{"principals":[]}"#).unwrap();
        assert!(keys.caller(&token).is_some());
        secret_file::replace(&places.token, b"short\n").unwrap();
        assert!(keys.caller(&token).is_none());
    }
}
