//! Files between the agent's own qube and others, past the model: streamed, gone on with after an
//! interruption, and moved into place in one step. dom0 decides each call as ever.

mod download;
mod local;
mod tools;
mod upload;

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use contract::{Fault, limits};
use rmcp::model::{JsonObject, Tool};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{
    agent::{self, Agent},
    arguments::{QubeName, parse_by_schema},
    qrexec::CallError,
    resources::path_argument,
};

use local::{Folder, Inside};

/// The services that transfers are made of.
const FETCH_SERVICE: &str = "FileFetch";
const WRITE_SERVICE: &str = "VmWriteFile";
const LIST_SERVICE: &str = "FileList";

/// The most folders that one transfer goes through.
const MOST_DIRECTORIES: u64 = 100_000;
/// The most bytes of one call of an upload; files up to this length travel in one call.
const PIECE_BYTES: u64 = limits::BODY_BYTES;
/// The bytes after which progress is told again.
const TELL_BYTES: u64 = 1024 * 1024;

/// Which way files travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the agent's qube into another.
    Upload,
    /// From another qube into the agent's.
    Download,
}

/// The tools that move files, and the folder they are confined to.
#[derive(Debug)]
pub(crate) struct Transfers {
    folder: Folder,
    upload: Tool,
    download: Tool,
}

/// What a transfer was asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Order {
    /// The other qube.
    pub(crate) vm_name: String,
    /// The path beneath the folder.
    pub(crate) local_path: String,
    /// The path in the qube.
    pub(crate) remote_path: String,
    /// Replace files that are there.
    #[serde(default)]
    pub(crate) overwrite: bool,
    /// Take a folder with all that is in it.
    #[serde(default)]
    pub(crate) recursive: bool,
}

/// What a transfer has done so far.
#[derive(Debug, Default)]
struct Done {
    files: u64,
    directories: u64,
    bytes: u64,
    /// Bytes that an interrupted transfer had brought already.
    resumed: u64,
    /// What is neither file nor folder.
    skipped: Vec<String>,
}

/// One transfer under way.
struct Transfer<'t> {
    agent: &'t Agent,
    folder: &'t Folder,
    qube: QubeName,
    overwrite: bool,
    news: &'t watch::Sender<String>,
}

impl Transfers {
    /// Transfers beneath this folder.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let folder = Folder::open(folder)?;
        let upload = tools::upload(folder.path());
        let download = tools::download(folder.path());
        Ok(Self { folder, upload, download })
    }

    /// The tools as MCP lists them.
    pub(crate) fn tools(&self) -> [&Tool; 2] {
        [&self.upload, &self.download]
    }

    /// The tool of a direction.
    pub(crate) fn tool(&self, direction: Direction) -> &Tool {
        match direction {
            Direction::Upload => &self.upload,
            Direction::Download => &self.download,
        }
    }

    /// Calls one of the tools.
    pub(crate) async fn run(
        &self,
        agent: &Agent,
        direction: Direction,
        arguments: JsonObject,
        news: &watch::Sender<String>,
    ) -> Result<JsonObject, CallError> {
        let arguments = parse_by_schema(&self.tool(direction).input_schema, arguments)?;
        let order: Order = agent::parse(arguments)?;
        self.carry(agent, direction, &order, news).await
    }

    /// Carries out an order.
    pub(crate) async fn carry(
        &self,
        agent: &Agent,
        direction: Direction,
        order: &Order,
        news: &watch::Sender<String>,
    ) -> Result<JsonObject, CallError> {
        let qube = QubeName::parse(&order.vm_name)?;
        let local = self.local(order, direction)?;
        let remote = remote(order, &local);
        let transfer =
            Transfer { agent, folder: &self.folder, qube, overwrite: order.overwrite, news };
        let mut done = Done::default();
        match (direction, order.recursive) {
            (Direction::Upload, false) => transfer.upload(&local, &remote, &mut done).await?,
            (Direction::Upload, true) => transfer.upload_tree(&local, &remote, &mut done).await?,
            (Direction::Download, false) => transfer.download(&remote, &local, &mut done).await?,
            (Direction::Download, true) => {
                transfer.download_tree(&remote, &local, &mut done).await?;
            }
        }
        let local = self.folder.path().join(local.as_path());
        Ok(done.render(&local, &remote))
    }

    /// The path beneath the folder. One that ends with a slash is the folder for what is fetched.
    fn local(&self, order: &Order, direction: Direction) -> Result<Inside, CallError> {
        let mut text = order.local_path.clone();
        if direction == Direction::Download && text.ends_with('/') {
            text.push_str(order.remote_path.trim_end_matches('/').rsplit('/').next().unwrap_or(""));
        }
        self.folder.inside(&text).ok_or_else(|| {
            let folder = self.folder.path().display();
            let message =
                format!("argument \"local_path\" must be a path beneath {folder}, without \"..\"");
            Fault::bad_request(message).into()
        })
    }
}

/// The path in the qube. One that ends with a slash is the folder for what is sent.
fn remote(order: &Order, local: &Inside) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut path = order.remote_path.clone().into_bytes();
    if path.ends_with(b"/") {
        path.extend_from_slice(local.name().as_bytes());
    }
    path
}

impl Done {
    fn render(self, local: &Path, remote: &[u8]) -> JsonObject {
        let Self { files, directories, bytes, resumed, skipped } = self;
        let result = json!({
            "local_path": local.to_string_lossy(),
            "remote_path": String::from_utf8_lossy(remote),
            "files": files,
            "directories": directories,
            "bytes": bytes,
            "resumed_bytes": resumed,
            "skipped": skipped,
        });
        match result {
            Value::Object(result) => result,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => JsonObject::new(),
        }
    }
}

/// What `FileFetch` says of a file.
#[derive(Debug, Deserialize)]
struct Fetched {
    size: u64,
    regular: bool,
    mode: String,
    modified: i64,
    eof: bool,
    changed: bool,
    sha256: Option<String>,
}

impl Fetched {
    fn mode(&self) -> u32 {
        u32::from_str_radix(&self.mode, 8).unwrap_or(0o600)
    }
}

impl Transfer<'_> {
    /// What a file in the qube is, with the SHA-256 of its beginning; nothing when it cannot be
    /// read, as when it is not there.
    async fn look(&self, path: &[u8], length: Option<u64>) -> Result<Option<Fetched>, CallError> {
        let mut arguments = path_argument(path);
        arguments.insert("sha256".into(), true.into());
        arguments.extend(length.map(|length| ("length".to_owned(), length.into())));
        match self.agent.ask(FETCH_SERVICE, Some(self.qube.clone()), arguments).await {
            Ok(found) => agent::parse(found).map(Some),
            Err(error) if error.is_bad_request() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, name: &str, so_far: u64, whole: u64) {
        const MIB: u64 = 1024 * 1024;
        let percent = so_far.saturating_mul(100).checked_div(whole).unwrap_or(100);
        let line = format!("{percent}% of {} MiB: {name}", whole.div_ceil(MIB));
        drop(self.news.send_replace(line));
    }
}

/// The name under which a file lies until it is whole.
fn part_of(path: &[u8]) -> Vec<u8> {
    let begin = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (folder, name) = path.split_at(begin);
    [folder, b".", name, b".salt-bridge-part"].concat()
}

/// The SHA-256 of the first bytes of a file, in hexadecimal digits; nothing when it is shorter.
async fn digest(file: &Arc<File>, length: u64) -> Result<Option<String>, io::Error> {
    let file = Arc::clone(file);
    let work = move || {
        let (mut hash, mut buffer, mut offset) = (Sha256::new(), vec![0; 256 * 1024], 0_u64);
        while offset < length {
            let count = file.read_at(&mut buffer, offset)?;
            let left = usize::try_from(length - offset).unwrap_or(usize::MAX);
            let Some(bytes) = buffer.get(..count.min(left)).filter(|bytes| !bytes.is_empty())
            else {
                return Ok(None);
            };
            hash.update(bytes);
            offset += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        }
        let digits = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(digits))
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Whether the file is still the one that was looked at.
fn unchanged(file: &File, before: &std::fs::Metadata) -> io::Result<bool> {
    let now = file.metadata()?;
    let moment = |meta: &std::fs::Metadata| (meta.len(), meta.mtime(), meta.mtime_nsec());
    Ok(moment(&now) == moment(before))
}

/// An error of the agent's own file system, for the caller.
fn local_error(path: &Inside, error: &io::Error) -> CallError {
    Fault::bad_request(format!("{} in the agent's own qube: {error}", path.as_path().display()))
        .into()
}

fn refuse(message: impl Into<String>) -> CallError {
    Fault::bad_request(message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_beside_its_file() {
        assert_eq!(part_of(b"/a/b c"), b"/a/.b c.salt-bridge-part");
        assert_eq!(part_of(b"x"), b".x.salt-bridge-part");
    }

    #[tokio::test]
    async fn a_digest_is_of_exactly_the_bytes_asked_for() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abcd", 0).unwrap();
        let file = Arc::new(file);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(&file, 3).await.unwrap().as_deref(), Some(abc));
        assert_eq!(digest(&file, 5).await.unwrap(), None);
        assert!(digest(&file, 0).await.unwrap().unwrap().starts_with("e3b0c442"));
    }
}
