//! `list_dir_in_vm`.

use base64::{Engine, engine::general_purpose::STANDARD};
use contract::{Fault, Power};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Reader,
    host::Host,
    run::{DirectoryEntry, DirectoryList},
    service::{Observe, RunningQube, Service},
    services::file_path::{FilePath, file_error},
};

/// The service.
#[derive(Debug)]
pub struct FileList;

/// Which directory, and which part of what it holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The directory. A relative path starts in the home folder of the qube's ordinary user, which
    /// "." stands for.
    #[serde(default)]
    pub file_path: String,
    /// Instead of file_path, for names that are not UTF-8: the path's bytes in base64.
    #[serde(default)]
    pub file_path_base64: Option<String>,
    /// How many levels of directories: 1 for what stands in this one, up to 32.
    #[serde(default = "one")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 32)))]
    pub depth: u32,
    /// How many entries to leave out first.
    #[serde(default)]
    pub offset: u64,
    /// How many entries to return at most, up to 1000.
    #[serde(default = "default_limit")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    pub limit: u64,
}

const fn one() -> u32 {
    1
}

const fn default_limit() -> u64 {
    200
}

/// What something in a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket.
    Other,
}

/// Something in a directory.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShownEntry {
    /// Its name, or its path within the directory that was listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Instead of name, where that is not UTF-8: its bytes in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_base64: Option<String>,
    /// What it is.
    pub kind: Kind,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits in octal.
    pub mode: String,
    /// When its content was changed, in seconds since 1970.
    pub modified: i64,
    /// Where a link leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Instead of target, where that is not UTF-8: its bytes in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_base64: Option<String>,
}

/// Part of what a directory holds.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The entries, in the order of the bytes of their names.
    pub entries: Vec<ShownEntry>,
    /// How many entries there are in all.
    pub total: u64,
    /// Where entries are left: the offset with which to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
    /// Some directories below this one could not be read, so that entries are missing.
    pub incomplete: bool,
}

impl Service for FileList {
    const NAME: &str = "FileList";
    const TOOL: Option<&str> = Some("list_dir_in_vm");
    const TITLE: &str = "List a directory in a qube";
    const SUMMARY: &str = "List what a directory in a qube (virtual machine) holds, hidden names too: name, kind, size, mode, time of change, and where links lead; with `depth`, its subdirectories as well. Long lists come in pages: go on with `next_offset`. Links are not followed, except the directory itself.";
    const POWER: Power = Power::Files;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = RunningQube;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _host: &Host) -> Result<(), Fault> {
        FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        if !(1..=32).contains(&request.depth) {
            return Err(Fault::bad_request("depth must be 1 to 32"));
        }
        if !(1..=1000).contains(&request.limit) {
            return Err(Fault::bad_request("limit must be 1 to 1000"));
        }
        Ok(())
    }

    async fn handle(
        on: RunningQube,
        request: Request,
        host: Reader<'_>,
    ) -> Result<Response, Error> {
        let path = FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        let Request { depth, offset, limit, .. } = request;
        let list = DirectoryList { path: path.as_bytes(), depth, offset, limit };
        let listing =
            host.list_directory(&on, list).await.map_err(|failure| file_error(failure, "list"))?;
        let shown = u64::try_from(listing.entries.len()).unwrap_or(u64::MAX);
        let next = offset.saturating_add(shown);
        Ok(Response {
            entries: listing.entries.into_iter().map(ShownEntry::from).collect(),
            total: listing.total,
            next_offset: (shown > 0 && next < listing.total).then_some(next),
            incomplete: listing.unreadable,
        })
    }
}

impl From<DirectoryEntry> for ShownEntry {
    fn from(entry: DirectoryEntry) -> Self {
        let kind = match entry.kind {
            b'f' => Kind::File,
            b'd' => Kind::Directory,
            b'l' => Kind::Link,
            _ => Kind::Other,
        };
        let (name, name_base64) = text_or_base64(entry.path);
        let (target, target_base64) = match kind {
            Kind::Link => text_or_base64(entry.target),
            Kind::File | Kind::Directory | Kind::Other => (None, None),
        };
        Self {
            name,
            name_base64,
            kind,
            size: entry.size,
            mode: format!("{:04o}", entry.mode),
            modified: entry.modified,
            target,
            target_base64,
        }
    }
}

/// The bytes as text where they are UTF-8, else in base64.
pub(crate) fn text_or_base64(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    }
}
