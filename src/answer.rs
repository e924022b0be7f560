//! What a tool call is answered with.

use std::io;

use base64::{Engine, engine::general_purpose::STANDARD};
use contract::{Spec, Stream};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde_json::Value;

use crate::{
    qrexec::CallError,
    reply::{Reply, ReplyError},
};

/// The longest result that is repeated as text, in bytes. MCP wants a copy for clients that read
/// text only; those that read both pay twice.
const COPY_BYTES: usize = 32 * 1024;

/// A success with this result.
pub(crate) fn render_object(object: JsonObject) -> CallToolResult {
    let value = Value::Object(object);
    let mut length = Length(0);
    // Counting cannot fail, and a map of strings can be rendered.
    drop(serde_json::to_writer(&mut length, &value));
    let text = match length {
        Length(..=COPY_BYTES) => value.to_string(),
        Length(bytes) => render_outline(&value, bytes),
    };
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(value);
    result
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A long result in short: numbers and short texts as they are, of the rest the size.
fn render_outline(value: &Value, bytes: usize) -> String {
    const SHORT_BYTES: usize = 200;
    let mut outline = format!(
        "The result takes {bytes} bytes as JSON and stands whole in structuredContent; a client \
         that shows only this text should ask for less. In short:"
    );
    for (name, value) in value.as_object().into_iter().flatten() {
        let short = match value {
            Value::String(text) if text.len() > SHORT_BYTES => {
                format!("{} characters", text.chars().count())
            }
            Value::Array(items) => format!("{} entries", items.len()),
            Value::Object(fields) => format!("{} fields", fields.len()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        };
        outline.push_str(&format!("\n{name}: {short}"));
    }
    outline
}

/// The result of a service as JSON object, with its streams of bytes as fields.
pub(crate) fn render_reply(spec: &Spec, reply: Reply) -> Result<JsonObject, CallError> {
    let Reply { json, mut stdout, mut stderr } = reply;
    let mut object: JsonObject = serde_json::from_slice(&json).map_err(ReplyError::Json)?;
    drop(json);
    for field in &spec.bytes {
        let bytes = match field.stream {
            Stream::Stdout => std::mem::take(&mut stdout),
            Stream::Stderr => std::mem::take(&mut stderr),
        };
        let (text, encoding) = render_bytes(bytes);
        if field.always || encoding == BASE64 {
            object.insert(field.encoding.clone(), encoding.into());
        }
        object.insert(field.field.clone(), text.into());
    }
    Ok(object)
}

const BASE64: &str = "base64";

/// Bytes as a JSON string, and how they are encoded in it.
fn render_bytes(bytes: Vec<u8>) -> (String, &'static str) {
    match String::from_utf8(bytes) {
        Ok(text) if !swells(&text) => (text, "utf-8"),
        Ok(text) => (STANDARD.encode(text), BASE64),
        Err(error) => (STANDARD.encode(error.as_bytes()), BASE64),
    }
}

/// Whether a long text becomes much longer in JSON, as a file of zeros does. Such an
/// answer would take more memory than this process may have.
fn swells(text: &str) -> bool {
    const LONG_BYTES: usize = 64 * 1024;
    let control = |byte: &u8| *byte < b' ' && !matches!(byte, b'\n' | b'\r' | b'\t');
    text.len() > LONG_BYTES && text.bytes().filter(|byte| control(byte)).count() > text.len() / 8
}

/// The answer to a call that has no result. Every refusal gives the same bytes.
pub(crate) fn render_error(error: &CallError) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(error.to_string())])
}

#[cfg(test)]
mod tests {
    use contract::Fault;

    use super::*;
    use crate::testing;
    use serde_json::json;

    fn render(tool: &str, json: &str, stdout: &[u8], stderr: &[u8]) -> Value {
        let reply = Reply { json: json.into(), stdout: stdout.into(), stderr: stderr.into() };
        let object = render_reply(&testing::tools().row(tool).spec, reply).unwrap();
        let result = render_object(object);
        assert_eq!(result.is_error, Some(false));
        let value = result.structured_content.unwrap();
        let text = result.content[0].as_text().unwrap().text.clone();
        if !text.starts_with("The result takes") {
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
        value
    }

    #[test]
    fn streams_stand_in_the_result_as_text() {
        assert_eq!(
            render("exec_in_vm", r#"{"exit_code":3}"#, b"o\0\n", b""),
            json!({"exit_code": 3, "stdout": "o\u{0}\n", "stderr": ""})
        );
    }

    #[test]
    fn bytes_that_are_no_text_become_base64_and_say_so() {
        assert_eq!(
            render("exec_in_vm", r#"{"exit_code":0}"#, b"\xff\x00", b"e"),
            json!({"exit_code": 0, "stdout": "/wA=", "stdout_encoding": "base64", "stderr": "e"})
        );
        assert_eq!(
            render("read_file_in_vm", r#"{"size":2}"#, b"hi", b""),
            json!({"size": 2, "content": "hi", "encoding": "utf-8"})
        );
        assert_eq!(
            render("read_file_in_vm", r#"{"size":1}"#, b"\xff", b""),
            json!({"size": 1, "content": "/w==", "encoding": "base64"})
        );
    }

    #[test]
    fn a_long_text_of_control_characters_becomes_base64_too() {
        let render =
            |text: &[u8]| render("read_file_in_vm", r#"{"size":0}"#, text, b"")["encoding"].take();
        assert_eq!(render(&[0; 64 * 1024]), "utf-8");
        assert_eq!(render(&[0; 64 * 1024 + 1]), "base64");
        assert_eq!(render(&[b'\n'; 100_000]), "utf-8");
    }

    #[test]
    fn a_result_that_is_no_object_is_an_error() {
        let tools = testing::tools();
        let spec = &tools.row("list_vms").spec;
        let reply = Reply { json: b"[]".into(), ..Reply::default() };
        assert!(render_reply(spec, reply).is_err());
    }

    #[test]
    fn a_long_result_is_not_sent_twice() {
        let long = "é".repeat(20_000);
        let object = json!({"exit_code": 3, "stdout": long, "stderr": "", "rows": [1, 2]});
        let Value::Object(object) = object else { panic!("not an object") };
        let result = render_object(object);
        let text = &result.content[0].as_text().unwrap().text;
        assert!(text.len() < 400, "{text}");
        assert!(
            text.ends_with(
                "\nexit_code: 3\nrows: 2 entries\nstderr: \"\"\nstdout: 20000 characters"
            ),
            "{text}"
        );
        assert_eq!(result.structured_content.unwrap()["stdout"], long);
    }

    #[test]
    fn a_failure_names_its_call() {
        let fault = Fault::Failed { message: "qubesd is down".into(), call: "7f3a".into() };
        let result = render_error(&CallError::Reply(ReplyError::Fault(fault)));
        assert_eq!(result.is_error, Some(true));
        let text = &result.content[0].as_text().unwrap().text;
        assert_eq!(text, "failed: qubesd is down (call 7f3a)");
    }
}
