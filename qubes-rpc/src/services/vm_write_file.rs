//! `write_file_in_vm`.

use contract::{Fault, Power};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    run::FileWrite,
    service::{Body, Change, RunningQube, Service},
    services::file_path::{FilePath, file_error},
};

/// The service.
#[derive(Debug)]
pub struct VmWriteFile;

/// Which file, and how.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The file. A relative path starts in the home folder of the qube's ordinary user. Missing
    /// folders are created.
    #[serde(default)]
    pub file_path: String,
    /// Instead of file_path, for names that are not UTF-8: the path's bytes in base64.
    #[serde(default)]
    pub file_path_base64: Option<String>,
    /// The permission bits in octal, for example "0755". Without it a new file gets the usual ones
    /// and a replaced file keeps its own.
    #[serde(default)]
    pub mode: Option<String>,
    /// Write behind what is there instead of replacing it.
    #[serde(default)]
    pub append: bool,
    /// Fail if the file exists.
    #[serde(default)]
    pub create_only: bool,
    /// Write only if this is the SHA-256 of the present content, in hexadecimal digits.
    #[serde(default)]
    pub if_sha256: Option<String>,
}

/// What was written.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The absolute path of the file that was written, behind symbolic links.
    pub path: String,
    /// How many bytes were written.
    pub bytes_written: u64,
    /// The file was not there before.
    pub created: bool,
}

impl Service for VmWriteFile {
    const NAME: &str = "VmWriteFile";
    const TOOL: Option<&str> = Some("write_file_in_vm");
    const TITLE: &str = "Write a file in a qube";
    const SUMMARY: &str = "Write a file in a qube (virtual machine), exactly the bytes given and as a whole or not at all. Owner, mode and other attributes of a replaced file stay. Up to 8 MiB a call; more with append.";
    const POWER: Power = Power::Files;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = false;
    const LONG: bool = true;
    const BODY: Option<Body> = Some(Body {
        field: "content",
        about: "What to write, as `encoding` says.",
        encoding: "encoding",
        required: true,
    });
    type On = RunningQube;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _host: &Host) -> Result<(), Fault> {
        FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        request.mode.as_deref().map(parse_mode).transpose()?;
        request.if_sha256.as_deref().map(parse_sha256).transpose()?;
        Ok(())
    }

    async fn handle(
        on: RunningQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        let path = FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        let file = FileWrite {
            path: path.as_bytes(),
            mode: request.mode.as_deref().map(parse_mode).transpose()?,
            append: request.append,
            create_only: request.create_only,
            if_sha256: request.if_sha256.as_deref().map(parse_sha256).transpose()?,
        };
        let written =
            host.write_file(&on, file).await.map_err(|failure| file_error(failure, "write"))?;
        Ok(Response {
            path: String::from_utf8_lossy(&written.path).into_owned(),
            bytes_written: written.bytes,
            created: written.created,
        })
    }
}

fn parse_mode(text: &str) -> Result<u32, Fault> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit())).ok_or_else(|| {
        Fault::bad_request("mode must be permission bits in octal, for example \"0644\"")
    })
}

fn parse_sha256(text: &str) -> Result<&str, Fault> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err(Fault::bad_request("if_sha256 must be 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_octal_and_within_its_bits() {
        for (text, mode) in [("0644", 0o644), ("755", 0o755), ("0o4755", 0o4755), ("0", 0)] {
            assert_eq!(parse_mode(text), Ok(mode));
        }
        for text in ["", "8", "10000", "+7", "0x1", "rwx"] {
            assert!(parse_mode(text).is_err(), "{text}");
        }
    }
}
