//! `copy_between_vms`.

use std::time::Duration;

use admin_api::QubeName;
use contract::{Fault, Power, limits};
use serde::{Deserialize, Serialize};

use crate::{
    copies::Between,
    error::Error,
    handle::Writer,
    host::Host,
    run::{CopyFailure, FileFailure},
    service::{Change, Service},
    services::file_path::{FilePath, file_error},
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct FileCopy;

/// What is copied, from where to where.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// The name of the qube that has it.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub source_vm: String,
    /// The file or directory there. A relative path starts in the home folder of the qube's
    /// ordinary user; a link is followed.
    #[serde(default)]
    pub source_path: String,
    /// Instead of source_path, for names that are not UTF-8: the path's bytes in base64.
    #[serde(default)]
    pub source_path_base64: Option<String>,
    /// The name of the qube that gets it.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub target_vm: String,
    /// The path of the copy itself; one that ends with a slash is a folder into which the copy
    /// comes under its own name. Missing folders are created.
    #[serde(default)]
    pub target_path: String,
    /// Instead of target_path, for names that are not UTF-8: the path's bytes in base64.
    #[serde(default)]
    pub target_path_base64: Option<String>,
    /// Copy a directory with all below it.
    #[serde(default)]
    pub recursive: bool,
    /// Replace what is at the target.
    #[serde(default)]
    pub overwrite: bool,
    /// After this many seconds the copying is ended and undone.
    #[serde(default = "default_timeout")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub timeout_seconds: u64,
}

const fn default_timeout() -> u64 {
    600
}

/// What was copied.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The absolute path of the copy.
    pub path: String,
    /// How many bytes went from qube to qube: the contents, and a little for each name.
    pub bytes: u64,
    /// Nothing was there before.
    pub created: bool,
}

impl Service for FileCopy {
    const NAME: &str = "FileCopy";
    const TOOL: Option<&str> = Some("copy_between_vms");
    const TITLE: &str = "Copy files between qubes";
    const SUMMARY: &str = "Copy a file, or with `recursive` a directory, from one qube (virtual machine) to another, past you and of any size, by the qubes' own copying programs. Modes, times and links stay; those programs refuse links that lead out of the copy and names with control characters. The copy appears at its place as a whole or not at all; nothing is overwritten unless you say so. Both qubes must be in your scope with the power files, not by asking. A qube that the operator made a dump takes new files as `QubesIncoming/<source_vm>/NAME`, and nothing else.";
    const POWER: Power = Power::Files;
    const DESTRUCTIVE: bool = true;
    const IDEMPOTENT: bool = false;
    const LONG: bool = true;
    type On = View;
    type Effect = Change;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, host: &Host) -> Result<(), Fault> {
        let ceiling = host.ceiling.as_secs();
        if !(1..=ceiling).contains(&request.timeout_seconds) {
            return Err(Fault::bad_request(format!("timeout_seconds must be 1 to {ceiling}")));
        }
        paths(request).map(|_| ())
    }

    async fn handle(view: View, request: Request, host: Writer<'_>) -> Result<Response, Error> {
        let (source_path, target_path) = paths(&request)?;
        let (source, target) = (name(&request.source_vm)?, name(&request.target_vm)?);
        if source == target {
            return Err(Fault::bad_request("source_vm and target_vm must be two qubes").into());
        }
        let between = Between {
            source: &source,
            source_path: source_path.as_bytes(),
            target: &target,
            target_path: target_path.as_bytes(),
            recursive: request.recursive,
            overwrite: request.overwrite,
            deadline: Duration::from_secs(request.timeout_seconds),
        };
        match host.copy_between(&view, between).await? {
            Ok(copied) => Ok(Response {
                path: String::from_utf8_lossy(&copied.path).into_owned(),
                bytes: copied.bytes,
                created: copied.created,
            }),
            Err(CopyFailure::Source(FileFailure::IsDirectory)) => {
                Err(Fault::bad_request("source_path is a directory; say recursive").into())
            }
            Err(CopyFailure::Source(failure)) => Err(file_error(failure, "send")),
            Err(CopyFailure::Target(FileFailure::Exists)) => {
                let message = "target_path exists; say overwrite to replace it";
                Err(Fault::bad_request(message).into())
            }
            Err(CopyFailure::Target(failure)) => Err(file_error(failure, "receive")),
        }
    }
}

/// Words that are no name of a qube are answered as the names of strangers are.
fn name(text: &str) -> Result<QubeName, Fault> {
    text.parse().map_err(|_| Fault::Refused {})
}

/// The path that is copied, and that of the copy.
fn paths(request: &Request) -> Result<(FilePath, FilePath), Fault> {
    let source = FilePath::parse_as(
        "source_path",
        &request.source_path,
        request.source_path_base64.as_deref(),
    )?;
    let target = FilePath::parse_as(
        "target_path",
        &request.target_path,
        request.target_path_base64.as_deref(),
    )?;
    let target =
        if target.as_bytes().ends_with(b"/") { target.with_name_of(&source) } else { Ok(target) };
    let target = target.and_then(|target| match target.name() {
        Some(_) => Ok(target),
        None => Err(Fault::bad_request("target_path must end with a name")),
    })?;
    if target.as_bytes().len() > limits::PATH_BYTES - 64 {
        return Err(Fault::bad_request("target_path is too long"));
    }
    Ok((source, target))
}
