//! One line for each call, on standard error, which systemd hands to the journal.

use std::{io::Write, time::Duration};

use serde::Serialize;

use crate::{audit::Head, terminal::escape_json};

/// What is told about one call. Never a file's content, never output.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// The call's number, which the caller is told when something broke.
    pub call: &'a str,
    /// The calling qube.
    pub agent: &'a str,
    /// The service without its prefix.
    pub service: &'a str,
    /// The qube that the caller named.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub qube: &'a str,
    /// `ok`, or the name of the fault.
    pub outcome: &'a str,
    /// Why, for the operator alone.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub detail: &'a str,
    /// How long it took.
    #[serde(serialize_with = "milliseconds")]
    pub duration_ms: Duration,
    /// Bytes that went back to the caller.
    pub bytes_out: u64,
    /// How far the audit log goes with this call's line: its number and hash.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "number_and_hash")]
    pub(crate) audit: Option<Head>,
}

fn number_and_hash<S: serde::Serializer>(head: &Option<Head>, to: S) -> Result<S::Ok, S::Error> {
    match head {
        Some(head) => to.collect_str(&format_args!("{} {}", head.count, head.hash)),
        None => to.serialize_none(),
    }
}

fn milliseconds<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

/// Writes the line. A journal that does not listen must not stop the daemon.
pub fn tell(line: &Line<'_>) {
    write_line(&serde_json::to_string(line).unwrap_or_default());
}

/// Writes a sentence about the daemon itself.
pub fn say(sentence: &str) {
    write_line(&serde_json::json!({ "message": sentence }).to_string());
}

fn write_line(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{}", escape_json(line)));
}
