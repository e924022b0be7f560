//! What is at a path, and what an installation wants there.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

/// What is at a path: all that undo needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum State {
    /// Nothing.
    Absent,
    /// A regular file.
    File {
        /// Its bytes.
        #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
        content: Vec<u8>,
        /// Its permission bits.
        mode: u32,
        /// Whose it is.
        uid: u32,
        /// Of which group it is.
        gid: u32,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
    /// A folder, whatever is in it.
    Folder {
        /// Its permission bits.
        mode: u32,
        /// Whose it is.
        uid: u32,
        /// Of which group it is.
        gid: u32,
    },
}

/// What an installation wants at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Nothing.
    Absent,
    /// A file of the trusted owner's.
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Its permission bits.
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
    /// A folder; one that is there stays as it is.
    Folder,
}

impl Goal {
    /// A text file that everybody may read.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::File { content: text.into().into_bytes(), mode: 0o644 }
    }

    /// A program.
    pub(crate) const fn program(content: Vec<u8>) -> Self {
        Self::File { content, mode: 0o755 }
    }

    /// Whether this is what there is, in a file of this owner's.
    pub(crate) fn is_met(&self, state: &State, trusted: u32) -> bool {
        match (self, state) {
            (Self::Absent, State::Absent) | (Self::Folder, State::Folder { .. }) => true,
            (Self::Link { target }, State::Link { target: there }) => target == there,
            (Self::File { content, mode }, State::File { content: there, mode: bits, uid, .. }) => {
                content == there && mode == bits && *uid == trusted
            }
            (Self::Absent | Self::Folder | Self::Link { .. } | Self::File { .. }, _) => false,
        }
    }

    /// What of it a journal needs to know it again.
    pub(crate) fn digest(&self) -> String {
        match self {
            Self::Absent => "absent".into(),
            Self::Folder => "folder".into(),
            Self::Link { target } => format!("link {target}"),
            Self::File { content, .. } => sha256(content),
        }
    }
}

impl State {
    /// The same as [`Goal::digest`] of what is there.
    pub(crate) fn digest(&self) -> String {
        match self {
            Self::Absent => "absent".into(),
            Self::Folder { .. } => "folder".into(),
            Self::Link { target } => format!("link {target}"),
            Self::File { content, .. } => sha256(content),
        }
    }
}

/// The SHA-256 of these bytes in lower-case hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn to_base64<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
}
