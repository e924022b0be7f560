//! A path in a qube: any bytes that Linux takes.

use base64::{Engine, engine::general_purpose::STANDARD};
use contract::{Fault, limits};

use crate::{error::Error, run::FileFailure};

/// An absolute path or one relative to the home folder, without NUL, of at most 4095 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePath(Vec<u8>);

impl FilePath {
    /// The path from the two parameters of which exactly one is given.
    pub(crate) fn parse(text: &str, base64: Option<&str>) -> Result<Self, Fault> {
        Self::parse_as("file_path", text, base64)
    }

    /// The same for a parameter of this name.
    pub(crate) fn parse_as(name: &str, text: &str, base64: Option<&str>) -> Result<Self, Fault> {
        let path = match (text, base64) {
            ("", None) => return Err(Fault::bad_request(format!("{name} is missing"))),
            (text, None) => text.as_bytes().to_vec(),
            ("", Some(coded)) => STANDARD
                .decode(coded)
                .map_err(|error| Fault::bad_request(format!("{name}_base64: {error}")))?,
            (_, Some(_)) => {
                let message = format!("give {name} or {name}_base64, not both");
                return Err(Fault::bad_request(message));
            }
        };
        if path.is_empty() || path.contains(&0) || path.len() > limits::PATH_BYTES {
            let most = limits::PATH_BYTES;
            return Err(Fault::bad_request(format!("a path has 1 to {most} bytes and no NUL")));
        }
        Ok(Self(path))
    }

    /// Its last part, where that is a name.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        let end = self.0.iter().rposition(|byte| *byte != b'/')? + 1;
        let whole = self.0.get(..end)?;
        let name = whole.rsplit(|byte| *byte == b'/').next()?;
        (!matches!(name, b"" | b"." | b"..")).then_some(name)
    }

    /// This folder with the last part of another path behind it.
    pub(crate) fn with_name_of(&self, other: &Self) -> Result<Self, Fault> {
        let name = other.name().ok_or_else(|| {
            Fault::bad_request("the source has no name of its own; give the whole target_path")
        })?;
        let slash = if self.0.ends_with(b"/") { &b""[..] } else { &b"/"[..] };
        Ok(Self([&self.0, slash, name].concat()))
    }

    /// Its bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Why the file could not be read or written, in words for the caller: they are about a path that
/// it named in a qube that it manages.
pub(crate) fn file_error(failure: FileFailure, verb: &str) -> Error {
    let message = match failure {
        FileFailure::Run(error) => return error.into(),
        FileFailure::TimedOut => {
            let message = format!("the file could not be {verb} in time");
            return Fault::TimedOut { message }.into();
        }
        FileFailure::Cancelled => return Fault::Refused {}.into(),
        FileFailure::Changed { actual: Some(digest) } => {
            format!("the file has changed: its SHA-256 is {digest}; nothing was written")
        }
        FileFailure::Changed { actual: None } => {
            "there is no such file any more; nothing was written".into()
        }
        FileFailure::Length { actual: Some(length) } => {
            format!("the file has {length} bytes, not as many as offset says; nothing was written")
        }
        FileFailure::Length { actual: None } => {
            "there is no plain file to go on with; nothing was written".into()
        }
        failure @ FileFailure::Pattern { .. } => failure.to_string(),
        FileFailure::Exists => "the file exists; nothing was written".into(),
        failure @ (FileFailure::NotFound
        | FileFailure::PermissionDenied
        | FileFailure::IsDirectory
        | FileFailure::NotDirectory
        | FileFailure::NoSpace
        | FileFailure::ReadOnly
        | FileFailure::OtherFileSystem
        | FileFailure::Other { .. }) => format!("cannot {verb} the file: {failure}"),
    };
    Fault::bad_request(message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_any_bytes_but_nul() {
        assert_eq!(FilePath::parse("it's\na \"b\"", None).unwrap().as_bytes(), b"it's\na \"b\"");
        assert_eq!(FilePath::parse("", Some("L3RtcC//")).unwrap().as_bytes(), b"/tmp/\xff");
        for (text, coded) in
            [("", None), ("a", Some("YQ==")), ("", Some("?")), ("", Some("")), ("a\0b", None)]
        {
            assert!(FilePath::parse(text, coded).is_err(), "{text:?} {coded:?}");
        }
        assert!(FilePath::parse(&"a".repeat(4096), None).is_err());
    }
}
