//! `edit_file_in_vm`.

use std::thread;

use contract::{Fault, Power, limits};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::{
    edit::{Edit, Edited, edit},
    error::Error,
    handle::Writer,
    host::Host,
    service::{Change, RunningQube, Service},
    services::file_path::{FilePath, file_error},
};

/// The most edits of one call.
const EDITS: usize = 100;
/// The most places that the edits of one call may change.
const PLACES: u64 = 100_000;

/// The service.
#[derive(Debug)]
pub struct FileEdit;

/// One replacement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReplacementRequest {
    /// The text that stands in the file, exactly, with its white space and newlines.
    pub old: String,
    /// The text that is to stand there.
    pub new: String,
    /// How often old stands in the file; each of them is replaced.
    #[serde(default = "once")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub expected_count: u64,
}

/// Which file, and what to replace in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The file. A relative path starts in the home folder of the qube's ordinary user.
    #[serde(default)]
    pub file_path: String,
    /// Instead of file_path, for names that are not UTF-8: the path's bytes in base64.
    #[serde(default)]
    pub file_path_base64: Option<String>,
    /// The text that stands in the file, exactly, with its white space and newlines.
    #[serde(default)]
    pub old: Option<String>,
    /// The text that is to stand there.
    #[serde(default)]
    pub new: Option<String>,
    /// How often old stands in the file; each of them is replaced.
    #[serde(default = "once")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub expected_count: u64,
    /// Instead of old and new: several replacements, made one after the other or not at all.
    #[serde(default)]
    pub edits: Vec<ReplacementRequest>,
    /// Edit only if this is the SHA-256 of the present content, in hexadecimal digits.
    #[serde(default)]
    pub if_sha256: Option<String>,
}

const fn once() -> u64 {
    1
}

/// What was changed.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The absolute path of the file, behind symbolic links.
    pub path: String,
    /// How many places were changed.
    pub replacements: u64,
    /// The size of the file now, in bytes.
    pub size: u64,
    /// The SHA-256 of the content now, for if_sha256 of the next change.
    pub sha256: String,
    /// What was changed: lines with - went, lines with + came. Numbers of lines are those at the
    /// time of that edit.
    pub excerpt: String,
}

impl Service for FileEdit {
    const NAME: &str = "FileEdit";
    const TOOL: Option<&str> = Some("edit_file_in_vm");
    const TITLE: &str = "Edit a file in a qube";
    const SUMMARY: &str = "Replace exact texts in a file of a qube (virtual machine) without sending the whole of it. `old` must stand in the file exactly `expected_count` times, else nothing is changed and you are told how often it stands there and on which lines. Several `edits` are made in order, all or none. Owner, mode and all other bytes of the file stay. Files of up to 2 MiB; the texts of one call up to 60 KiB.";
    const POWER: Power = Power::Files;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = false;
    const LONG: bool = true;
    type On = RunningQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _host: &Host) -> Result<(), Fault> {
        FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        parse_edits(request).map(|_| ())
    }

    async fn handle(
        on: RunningQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        let path = FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        let edits = parse_edits(&request)?;
        let _turn = host.edit_turn().await?;
        let loaded = host
            .load_file(&on, path.as_bytes())
            .await
            .map_err(|failure| file_error(failure, "read"))?;
        if !loaded.editable {
            return Err(Fault::bad_request("only a regular file can be edited").into());
        }
        if !loaded.fits {
            let message = format!("only files of up to {} bytes can be edited", limits::EDIT_BYTES);
            return Err(Fault::TooLarge { message }.into());
        }
        let before = digest(&loaded.content);
        let wanted = request.if_sha256.as_deref().map(str::to_ascii_lowercase);
        if wanted.is_some_and(|wanted| wanted != before) {
            let message =
                format!("the file has changed: its SHA-256 is {before}; nothing was written");
            return Err(Fault::bad_request(message).into());
        }
        let edited = aside(move || edit(loaded.content, &edits, limits::EDIT_BYTES)).await?;
        let Edited { content, replacements, excerpt } =
            edited.map_err(|error| Fault::bad_request(format!("{error}; nothing was written")))?;
        let written = host
            .store_file(&on, path.as_bytes(), &before, &content)
            .await
            .map_err(|failure| file_error(failure, "write"))?;
        Ok(Response {
            path: String::from_utf8_lossy(&written.path).into_owned(),
            replacements,
            size: written.bytes,
            sha256: digest(&content),
            excerpt,
        })
    }
}

/// Works on a thread of its own: the daemon's only one keeps the clocks of all calls. tokio's own
/// threads for this would panic where the system gives none.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let (told, answer) = oneshot::channel();
    thread::Builder::new().spawn(move || drop(told.send(work()))).map_err(Error::Thread)?;
    answer.await.map_err(|_| Error::Panicked)
}

fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_edits(request: &Request) -> Result<Vec<Edit>, Fault> {
    let refuse = |message: String| Err(Fault::bad_request(message));
    let edits: Vec<Edit> = match (&request.old, &request.new, request.edits.as_slice()) {
        (Some(old), Some(new), []) => vec![parsed(old, new, request.expected_count)],
        (None, None, [_, ..]) if request.expected_count == 1 => request
            .edits
            .iter()
            .map(|edit| parsed(&edit.old, &edit.new, edit.expected_count))
            .collect(),
        _ => return refuse("give old and new, or edits".into()),
    };
    if edits.len() > EDITS {
        return refuse(format!("at most {EDITS} edits in one call"));
    }
    let places = edits.iter().fold(0_u64, |sum, edit| sum.saturating_add(edit.expected));
    if places > PLACES {
        return refuse(format!("at most {PLACES} places in one call"));
    }
    for (index, edit) in edits.iter().enumerate() {
        let reason = match edit {
            Edit { old, .. } if old.is_empty() => "old must not be empty; to make a file, write it",
            Edit { old, new, .. } if old == new => "old and new are the same",
            Edit { expected: 0, .. } => "expected_count must be at least 1",
            Edit { .. } => continue,
        };
        return refuse(format!("edit {}: {reason}", index + 1));
    }
    Ok(edits)
}

fn parsed(old: &str, new: &str, expected: u64) -> Edit {
    Edit { old: old.into(), new: new.into(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_of_one_call_is_bounded() {
        let edits = |count: u64| {
            let edit = serde_json::json!({"old": "a", "new": "b", "expected_count": count});
            let request = serde_json::json!({"file_path": "f", "edits": vec![edit; 2]});
            parse_edits(&serde_json::from_value(request).unwrap())
        };
        assert_eq!(edits(PLACES / 2).unwrap().len(), 2);
        for count in [PLACES / 2 + 1, u64::MAX] {
            let fault = edits(count).unwrap_err();
            assert_eq!(fault, Fault::bad_request("at most 100000 places in one call"));
        }
    }
}
