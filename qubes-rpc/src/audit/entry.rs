//! What one line of the audit log says: who asked for what on what, and what became of it.
//! Never a file's content, never output.

use contract::PrincipalName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::chain::{Hash, Link};
use crate::{descriptor::Descriptor, terminal::escape_json};

/// The most bytes of a text that an agent chose, a command above all.
const TEXT_BYTES: usize = 4096;
/// The most bytes of a parameter's name; of a longer one the digest is told.
const NAME_BYTES: usize = 64;
/// The most bytes of all parameters of a line: with more, every text among them is told as its
/// digest, so that few calls cannot push many lines out of the log.
const ARGS_BYTES: usize = 16 * 1024;
/// The most bytes of the reason that is told.
const DETAIL_BYTES: usize = 1024;
/// The most bytes of what should be the name of a qube.
const QUBE_BYTES: usize = 64;
/// Parameters that are written down; of any other one, which may be a file's content, the length
/// and the digest are.
const TOLD: [&str; 41] = [
    "command",
    "argv",
    "cwd",
    "handle",
    "stream",
    "host",
    "file_path",
    "file_path_base64",
    "move_to",
    "move_to_base64",
    "source_vm",
    "source_path",
    "source_path_base64",
    "target_vm",
    "target_path",
    "target_path_base64",
    "pattern",
    "glob",
    "encoding",
    "stdin_encoding",
    "action",
    "args",
    "expect",
    "source",
    "target",
    "mode",
    "if_sha256",
    "vm_name",
    "name",
    "names",
    "label",
    "property",
    "feature",
    "value",
    "backend_vm",
    "port",
    "device_id",
    "template",
    "class",
    "netvm",
    "events",
];

/// What a line is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// A call that may change something is about to run.
    Intent,
    /// A call is over.
    #[default]
    Done,
    /// Refusals came too fast to be written one by one; `dropped` counts them.
    Dropped,
    /// The file that names the last line was gone or spoilt when the daemon wanted to go on.
    HeadLost,
}

/// One line, without its place in the chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Entry {
    /// What the line is about.
    pub(crate) phase: Phase,
    /// The call's number, as callers are told when something broke.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) call: String,
    /// The calling qube.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) agent: String,
    /// For whom the calling qube said that it called. It could have said anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) claimed_principal: Option<PrincipalName>,
    /// The service without its prefix.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) service: String,
    /// The qube that the caller named; not proven to be a name when the call was refused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) qube: String,
    /// The parameters.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(crate) args: Map<String, Value>,
    /// Bytes that followed the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_in: Option<u64>,
    /// `ok`, or the name of the fault; nothing before the call ran.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) outcome: String,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
    /// How long the call took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_ms: Option<f64>,
    /// Bytes that had gone back to the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes_out: Option<u64>,
    /// Refusals that have no line of their own.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) dropped: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How commands are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commands {
    /// Up to 4 KiB, and the digest of longer ones.
    Text,
    /// Length and digest alone, since commands hold secrets.
    Digest,
}

impl Entry {
    /// What is known of a call when it arrives.
    pub(crate) fn arrived(call: &str, descriptor: &Descriptor) -> Self {
        Self {
            call: call.into(),
            agent: descriptor.source.to_string(),
            service: cut_at(&descriptor.service, QUBE_BYTES).into(),
            qube: cut_at(descriptor.untrusted_qube(), QUBE_BYTES).into(),
            ..Self::default()
        }
    }

    /// Adds the parameters of an admitted call.
    pub(crate) fn ask(&mut self, args: &Map<String, Value>, body: usize, commands: Commands) {
        let told = |in_words: bool| -> Map<String, Value> {
            let hidden =
                |name: &str| ["command", "argv"].contains(&name) && commands == Commands::Digest;
            let is_told = |name: &str| in_words && TOLD.contains(&name) && !hidden(name);
            let all = args.iter().take(64);
            all.map(|(name, value)| (told_name(name), told(value, is_told(name)))).collect()
        };
        self.args = told(true);
        if serde_json::to_vec(&self.args).is_ok_and(|args| args.len() > ARGS_BYTES) {
            self.args = told(false);
        }
        self.bytes_in = u64::try_from(body).ok();
    }

    /// Adds what became of the call.
    pub(crate) fn end(&mut self, outcome: &str, detail: &str) {
        self.phase = Phase::Done;
        self.outcome = outcome.into();
        self.detail = cut_at(detail, DETAIL_BYTES).into();
    }
}

fn told_name(name: &str) -> String {
    if name.len() <= NAME_BYTES { name.into() } else { Hash::of(name.as_bytes()).to_string() }
}

fn told(value: &Value, in_words: bool) -> Value {
    let digest = |text: &str| {
        let sha256 = Hash::of(text.as_bytes()).to_string();
        let mut digest = json!({ "bytes": text.len(), "sha256": sha256 });
        if let (true, Some(digest)) = (in_words, digest.as_object_mut()) {
            digest.insert("begins".into(), cut_at(text, TEXT_BYTES).into());
        }
        digest
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) if in_words && text.len() <= TEXT_BYTES => value.clone(),
        Value::String(text) => digest(text),
        Value::Array(_) | Value::Object(_) => digest(&value.to_string()),
    }
}

/// The text up to this many bytes, cut between characters.
fn cut_at(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// A line as it is written.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub(super) seq: u64,
    pub(super) time: &'a str,
    pub(super) prev: Hash,
    #[serde(flatten)]
    pub(super) entry: &'a Entry,
}

/// A line as it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stored {
    /// Its number.
    pub(crate) seq: u64,
    /// When it was written, as RFC 3339 with milliseconds.
    pub(crate) time: String,
    /// What it says.
    #[serde(flatten)]
    pub(crate) entry: Entry,
}

impl Stored {
    /// Reads a line; nothing when it is none.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

/// Renders a line with its newline.
pub(super) fn render_line(
    link: Link,
    time: &str,
    entry: &Entry,
) -> Result<Vec<u8>, serde_json::Error> {
    let line = serde_json::to_string(&Line { seq: link.seq, time, prev: link.prev, entry })?;
    Ok((escape_json(&line) + "\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(args: Value, commands: Commands) -> Value {
        let mut entry = Entry::default();
        entry.ask(args.as_object().unwrap(), 3, commands);
        assert_eq!(entry.bytes_in, Some(3));
        Value::Object(entry.args)
    }

    #[test]
    fn parameters_are_told_and_contents_are_not() {
        let args = json!({"command": "id", "timeout_seconds": 3, "new_text": "secret", "x": ["y"]});
        let told = asked(args, Commands::Text);
        assert_eq!(told["command"], "id");
        assert_eq!(told["timeout_seconds"], 3);
        assert_eq!(
            told["new_text"],
            json!({"bytes": 6,
                "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"})
        );
        assert_eq!(told["x"]["bytes"], 5);
    }

    #[test]
    fn a_long_command_is_cut_and_its_digest_told() {
        let told = asked(json!({"command": "ä".repeat(5000)}), Commands::Text);
        assert_eq!(told["command"]["bytes"], 10_000);
        assert_eq!(told["command"]["begins"].as_str().unwrap().len(), TEXT_BYTES);
    }

    #[test]
    fn a_command_is_a_digest_where_the_operator_wants_that() {
        let told = asked(json!({"command": "id", "file_path": "/a"}), Commands::Digest);
        assert_eq!((&told["command"]["bytes"], &told["file_path"]), (&json!(2), &json!("/a")));
        assert!(!told.to_string().contains("\"id\""));
    }

    #[test]
    fn no_call_makes_a_line_long() {
        let line = |args: Value| {
            let mut entry = Entry::default();
            entry.ask(args.as_object().unwrap(), 0, Commands::Text);
            render_line(Link { seq: 1, prev: Hash::NONE }, "", &entry).unwrap().len()
        };
        assert!(line(json!({ "k".repeat(11 << 20): 1 })) < 500);
        let words = TOLD.iter().map(|name| ((*name).to_owned(), "\u{1}".repeat(4096).into()));
        assert!(line(Value::Object(words.collect())) < ARGS_BYTES);
        let names = (0..999).map(|number| (format!("{number:01000}"), "\u{1}".repeat(4096).into()));
        assert!(line(Value::Object(names.collect())) < ARGS_BYTES);
    }

    #[test]
    fn every_parameter_is_told_but_what_holds_contents() {
        let contents = ["content", "stdin", "env", "edits", "old", "new"];
        for spec in crate::catalogue::catalogue().services {
            let fields = spec.input["properties"].as_object().unwrap();
            for (name, field) in fields {
                let is_text = ["string", "array", "object"]
                    .iter()
                    .any(|kind| field["type"].to_string().contains(kind));
                let is_told = !is_text || TOLD.contains(&name.as_str());
                assert!(is_told != contents.contains(&name.as_str()), "{}: {name}", spec.service);
            }
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let mut entry = Entry { call: "a-1".into(), agent: "work".into(), ..Entry::default() };
        entry.end("Refused", "no such \u{1b}[31mqube\n");
        let link = Link { seq: 7, prev: Hash::NONE };
        let line = render_line(link, "2026-11-22T02:00:00.000Z", &entry).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let stored = Stored::parse(&line).unwrap();
        assert_eq!((stored.seq, stored.entry), (7, entry));
        assert_eq!(Link::parse(&line), Some(link));
    }
}
