//! What a tool call is answered with.

use base64::{Engine, engine::general_purpose::STANDARD};
use contract::{Fault, Spec, Stream};
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde_json::Value;

use crate::{
    qrexec::CallError,
    reply::{Reply, ReplyError},
};

/// The result of a call: the JSON object of the service, with its streams of bytes as fields.
pub(crate) fn render_reply(spec: &Spec, reply: Reply) -> Result<CallToolResult, CallError> {
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
    Ok(CallToolResult::structured(Value::Object(object)))
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

/// The answer to a call that never left.
pub(crate) fn render_fault(fault: &Fault) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(fault.sentence())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use serde_json::json;

    fn render(tool: &str, json: &str, stdout: &[u8], stderr: &[u8]) -> Value {
        let reply = Reply { json: json.into(), stdout: stdout.into(), stderr: stderr.into() };
        let result = render_reply(&testing::tools().by_tool(tool).unwrap().spec, reply).unwrap();
        assert_eq!(result.is_error, Some(false));
        let value = result.structured_content.unwrap();
        let text = result.content[0].as_text().unwrap().text.clone();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
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
        let spec = &tools.by_tool("list_vms").unwrap().spec;
        let reply = Reply { json: b"[]".into(), ..Reply::default() };
        assert!(render_reply(spec, reply).is_err());
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
