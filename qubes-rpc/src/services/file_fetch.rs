//! `FileFetch`: what `download_from_vm` and a resumed upload are made of.

use contract::{Fault, Power, Stream};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Reader,
    host::Host,
    run::FileRange,
    service::{Bytes, Observe, RunningQube, Service},
    services::file_path::{FilePath, file_error},
};

/// The service.
#[derive(Debug)]
pub struct FileFetch;

/// Which bytes of which file.
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
    /// The first byte, counted from 0.
    #[serde(default)]
    pub offset: u64,
    /// How many bytes at most; without it all that are left.
    #[serde(default)]
    pub length: Option<u64>,
    /// Send no bytes, but tell the SHA-256 of the range.
    #[serde(default)]
    pub sha256: bool,
}

/// What was read.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The size of the whole file in bytes. Files of /proc have size 0 and content all the same.
    pub size: u64,
    /// It is a regular file, no device or pipe.
    pub regular: bool,
    /// The permission bits in octal.
    pub mode: String,
    /// When the content was changed, in seconds since 1970.
    pub modified: i64,
    /// Where the bytes begin.
    pub offset: u64,
    /// How many bytes were sent.
    pub bytes: u64,
    /// Nothing is left behind the range.
    pub eof: bool,
    /// The file changed while it was read.
    pub changed: bool,
    /// The SHA-256 of the range in hexadecimal digits, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Service for FileFetch {
    const NAME: &str = "FileFetch";
    const TOOL: Option<&str> = None;
    const TITLE: &str = "Fetch a range of a file in a qube";
    const SUMMARY: &str = "Stream a range of any length of a file in a qube (virtual machine), or tell its SHA-256, with what the file system says of the file. The agent's side fetches with it past the model, and goes on where it was interrupted.";
    const POWER: Power = Power::Files;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    const BYTES: &[Bytes] = &[Bytes {
        stream: Stream::Stdout,
        field: "content",
        about: "The bytes of the range; empty where its SHA-256 was asked for.",
        encoding: "encoding",
        always: true,
    }];
    type On = RunningQube;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _host: &Host) -> Result<(), Fault> {
        FilePath::parse(&request.file_path, request.file_path_base64.as_deref()).map(|_| ())
    }

    async fn handle(
        on: RunningQube,
        request: Request,
        host: Reader<'_>,
    ) -> Result<Response, Error> {
        let Request { offset, length, sha256: digest, .. } = request;
        let path = FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        let range = FileRange { path: path.as_bytes(), offset, length, digest, watch: true };
        // Of any length, so for as long as a command may take.
        let read = host.read_file(&on, range, host.host.ceiling).await;
        let read = read.map_err(|failure| file_error(failure, "read"))?;
        Ok(Response {
            size: read.size,
            regular: read.regular,
            mode: format!("{:04o}", read.mode),
            modified: read.modified,
            offset,
            bytes: read.bytes,
            eof: read.eof,
            changed: read.changed,
            sha256: read.sha256,
        })
    }
}
