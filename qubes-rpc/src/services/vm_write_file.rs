//! `write_file_in_vm`.

use contract::{Fault, Power};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Writer,
    host::Host,
    run::{DirectoryMake, FileMove, FileWrite, FileWritten},
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
    /// Write behind what is there, and only if it has exactly this many bytes now. With 0 the file
    /// begins anew. So a long file is written in pieces, and gone on with after an interruption.
    #[serde(default)]
    pub offset: Option<u64>,
    /// After writing move the file to this place on the same file system, in one step. mode,
    /// create_only and modified then concern that place.
    #[serde(default)]
    pub move_to: Option<String>,
    /// Instead of move_to, for names that are not UTF-8: the path's bytes in base64.
    #[serde(default)]
    pub move_to_base64: Option<String>,
    /// Make a directory instead of a file; content is empty. One that is there already stays.
    #[serde(default)]
    pub directory: bool,
    /// The time of change that the file is to have, in seconds since 1970.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = -62_135_596_800_i64, max = 253_402_300_799_i64)))]
    pub modified: Option<i64>,
}

/// What was written.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The absolute path of what was written, behind symbolic links.
    pub path: String,
    /// How many bytes were written.
    pub bytes_written: u64,
    /// What stands at that path now was not there before.
    pub created: bool,
}

impl Service for VmWriteFile {
    const NAME: &str = "VmWriteFile";
    const TOOL: Option<&str> = Some("write_file_in_vm");
    const TITLE: &str = "Write a file in a qube";
    const SUMMARY: &str = "Write a file in a qube (virtual machine), exactly the bytes given and as a whole or not at all. Owner, mode and other attributes of a replaced file stay. Up to 8 MiB a call; more with offset.";
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
        Wanted::parse(request).map(|_| ())
    }

    async fn handle(
        on: RunningQube,
        request: Request,
        host: Writer<'_>,
    ) -> Result<Response, Error> {
        let wanted = Wanted::parse(&request)?;
        let failed = |failure| file_error(failure, "write");
        let bytes_written = u64::try_from(host.body().len()).unwrap_or(u64::MAX);
        let FileWritten { path, created, .. } = if request.directory {
            if bytes_written > 0 {
                return Err(Fault::bad_request("a directory has no content").into());
            }
            host.make_directory(&on, wanted.directory()).await.map_err(failed)?
        } else {
            let written = host.write_file(&on, wanted.file()).await.map_err(failed)?;
            match wanted.moved() {
                Some(moved) => host.move_file(&on, moved).await.map_err(failed)?,
                None => written,
            }
        };
        let path = String::from_utf8_lossy(&path).into_owned();
        Ok(Response { path, bytes_written, created })
    }
}

/// The parameters, parsed.
struct Wanted<'a> {
    path: FilePath,
    move_to: Option<FilePath>,
    mode: Option<u32>,
    if_sha256: Option<&'a str>,
    request: &'a Request,
}

impl<'a> Wanted<'a> {
    fn parse(request: &'a Request) -> Result<Self, Fault> {
        let refuse = |message: &str| Err(Fault::bad_request(message));
        let path = FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        let move_to = match (request.move_to.as_deref(), request.move_to_base64.as_deref()) {
            (None, None) => None,
            (text, coded) => Some(FilePath::parse_as("move_to", text.unwrap_or_default(), coded)?),
        };
        if request.append && request.offset.is_some() {
            return refuse("give append or offset, not both");
        }
        let file_only = request.append || request.offset.is_some() || request.if_sha256.is_some();
        if request.directory && (file_only || move_to.is_some()) {
            return refuse("append, offset, if_sha256 and move_to are not for a directory");
        }
        if request.modified.is_some_and(|seconds| !MODIFIED.contains(&seconds)) {
            return refuse("modified must lie in the years 1 to 9999");
        }
        Ok(Self {
            path,
            move_to,
            mode: request.mode.as_deref().map(parse_mode).transpose()?,
            if_sha256: request.if_sha256.as_deref().map(parse_sha256).transpose()?,
            request,
        })
    }

    /// The write; where the file is then moved, its place is what the rest is about.
    fn file(&self) -> FileWrite<'_> {
        let here = self.move_to.is_none();
        let behind = self.request.offset.filter(|offset| *offset > 0);
        FileWrite {
            path: self.path.as_bytes(),
            mode: self.mode.filter(|_| here),
            append: self.request.append || behind.is_some(),
            create_only: self.request.create_only && here,
            if_sha256: self.if_sha256,
            if_length: behind,
            modified: self.request.modified.filter(|_| here),
        }
    }

    fn moved(&self) -> Option<FileMove<'_>> {
        self.move_to.as_ref().map(|to| FileMove {
            from: self.path.as_bytes(),
            to: to.as_bytes(),
            mode: self.mode,
            create_only: self.request.create_only,
            modified: self.request.modified,
        })
    }

    fn directory(&self) -> DirectoryMake<'_> {
        DirectoryMake {
            path: self.path.as_bytes(),
            mode: self.mode,
            create_only: self.request.create_only,
            modified: self.request.modified,
        }
    }
}

/// The years 1 to 9999.
const MODIFIED: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

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
