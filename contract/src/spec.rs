//! A service as data: all that the agent's side knows of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Power;

/// What a service is aimed at, which fixes how a call names it and the shape of its policy line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aim {
    /// One qube: the tool has a parameter `vm_name`, which travels as qrexec argument or target.
    Qube,
    /// All that the caller may see: no argument.
    Scope,
}

/// A stream of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// [`Kind::Stdout`](crate::Kind::Stdout) frames.
    Stdout,
    /// [`Kind::Stderr`](crate::Kind::Stderr) frames.
    Stderr,
}

/// A field of the result whose content travels as frames of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByteField {
    /// The frames that hold its bytes.
    pub stream: Stream,
    /// Its name in the result.
    pub field: String,
    /// The field that says `utf-8` or `base64`.
    pub encoding: String,
    /// Whether the encoding is told always, or only when it is base64.
    pub always: bool,
}

/// The parameter that travels as raw bytes behind the request line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyField {
    /// Its name among the tool's parameters.
    pub field: String,
    /// The parameter that says `utf-8` (the default) or `base64`. It does not travel.
    pub encoding: String,
    /// Whether a call must have it.
    pub required: bool,
}

/// One service and the MCP tool that stands for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The name without [`SERVICE_PREFIX`](crate::SERVICE_PREFIX).
    pub service: String,
    /// The name of the MCP tool; none where only the agent's side itself calls the service.
    pub tool: Option<String>,
    /// The name of the MCP tool that makes the same call on several qubes at once.
    pub batch: Option<String>,
    /// A short title for people.
    pub title: String,
    /// What the model reads, below 2 KiB.
    pub description: String,
    /// The power that a call needs.
    pub power: Power,
    /// What a call is aimed at.
    pub aim: Aim,
    /// It changes nothing.
    pub read_only: bool,
    /// It may destroy something.
    pub destructive: bool,
    /// Calling it twice does what calling it once does.
    pub idempotent: bool,
    /// It reaches beyond the qubes of this machine.
    pub open_world: bool,
    /// It may take longer than a second.
    pub long: bool,
    /// What it destroys is gone for good, so that a client should ask its user every time.
    pub confirm: bool,
    /// The parameter that travels as raw bytes, if there is one.
    pub body: Option<BodyField>,
    /// The fields of the result that travel as raw bytes.
    pub bytes: Vec<ByteField>,
    /// JSON Schema (2020-12) of the tool's parameters.
    pub input: Value,
    /// JSON Schema (2020-12) of the tool's result.
    pub output: Value,
}

/// Every service, in the order of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The version of the wire that these services speak.
    pub frames: u8,
    /// The services.
    pub services: Vec<Spec>,
}
