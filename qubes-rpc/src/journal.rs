//! One line for each call, on standard error, which systemd hands to the journal.

use std::{io::Write, time::Duration};

use serde::Serialize;

use crate::audit::Head;

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
    drop(writeln!(std::io::stderr().lock(), "{}", harmless(line)));
}

/// The same JSON without any character that a terminal would obey or that reorders text: details
/// hold what programs in qubes said.
fn harmless(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    for character in line.chars() {
        let reorders = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || reorders {
            text.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_still_the_same_json() {
        let said = "a\u{9b}31m\u{7f}\u{202e}é\u{1b}\n";
        let line = harmless(&serde_json::json!({ "message": said }).to_string());
        assert_eq!(line, r#"{"message":"a\u009b31m\u007f\u202eé\u001b\n"}"#);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], said);
    }
}
