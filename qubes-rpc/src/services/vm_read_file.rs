//! `read_file_in_vm`.

use contract::{Fault, Power, Stream, limits};
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
pub struct VmReadFile;

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
    /// How many bytes at most, up to 2097152, which is also the default.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 2_097_152)))]
    pub length: Option<u64>,
}

/// What was read.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The size of the whole file in bytes. Files of /proc have size 0 and content all the same.
    pub size: u64,
    /// Where `content` begins.
    pub offset: u64,
    /// Nothing is left behind `content`. Otherwise go on with offset plus the bytes you got.
    pub eof: bool,
}

impl Service for VmReadFile {
    const NAME: &str = "VmReadFile";
    const TOOL: Option<&str> = Some("read_file_in_vm");
    const TITLE: &str = "Read a file in a qube";
    const SUMMARY: &str = "Read a file in a qube (virtual machine), exactly, whole or a range of bytes. Text comes as UTF-8, anything else as base64 (`encoding` says which). A file larger than 2 MiB is read by ranges.";
    const POWER: Power = Power::Files;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    const BYTES: &[Bytes] = &[Bytes {
        stream: Stream::Stdout,
        field: "content",
        about: "The bytes, as `encoding` says.",
        encoding: "encoding",
        always: true,
    }];
    type On = RunningQube;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _host: &Host) -> Result<(), Fault> {
        let most = limits::OUTPUT_BYTES;
        FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        match request.length {
            Some(length) if !(1..=most).contains(&length) => {
                Err(Fault::bad_request(format!("length must be 1 to {most}")))
            }
            None | Some(_) => Ok(()),
        }
    }

    async fn handle(
        on: RunningQube,
        request: Request,
        host: Reader<'_>,
    ) -> Result<Response, Error> {
        let path = FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        let length = match request.length {
            None if host.is_plain() => None,
            None => Some(limits::OUTPUT_BYTES),
            Some(length) => Some(length),
        };
        let (path, offset) = (path.as_bytes(), request.offset);
        let range = FileRange { path, offset, length, digest: false, watch: false };
        let read = host.read_file(&on, range, host.file_deadline()).await;
        let read = read.map_err(|failure| file_error(failure, "read"))?;
        Ok(Response { size: read.size, offset: request.offset, eof: read.eof })
    }
}
