//! The tools that the suite calls.

use std::time::Duration;

use rmcp::{
    ErrorData, RoleServer,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, LoggingLevel,
        LoggingMessageNotificationParam, ProgressNotificationParam, Tool,
    },
    service::RequestContext,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Fixtures, inputs, object, read, resources::PIXEL};

/// A WAV file without a sample, as base64.
const SILENCE: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=";
/// The time between two messages of one call.
const BEAT: Duration = Duration::from_millis(50);

/// The tools without parameters.
const PLAIN: &[&str] = &[
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_tool_with_logging",
    "test_error_handling",
    "test_tool_with_progress",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_reconnection",
    "test_missing_capability",
    "test_streaming_elicitation",
    "test_logging_tool",
    "test_trigger_tool_change",
    "test_trigger_prompt_change",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
];

/// All tools.
pub(super) fn list() -> Result<Vec<Tool>, ErrorData> {
    let tool = |name: &str, schema: Value| {
        Tool::new(name.to_owned(), format!("For the conformance suite: {name}"), object(schema))
    };
    let string = |name: &str| {
        let properties = object(json!({ name: {"type": "string"} }));
        json!({"type": "object", "properties": properties, "required": [name]})
    };
    let plain = PLAIN.iter().map(|name| tool(name, json!({"type": "object", "properties": {}})));
    let header = json!({"type": "object", "required": ["value"],
        "properties": {"value": {"type": "string", "x-mcp-header": "Value"}}});
    Ok(plain
        .chain([
            tool("test_sampling", string("prompt")),
            tool("test_elicitation", string("message")),
            tool("test_custom_header", header),
            tool("json_schema_2020_12_tool", schema_2020_12()),
        ])
        .collect())
}

/// A schema with the words that JSON Schema 2020-12 has and older drafts do not.
fn schema_2020_12() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"address": {
            "$anchor": "address", "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}}
        }},
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]}
        },
        "allOf": [{"anyOf": [{"required": ["name"]}, {"required": ["address"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["name"]},
        "else": {"required": []},
        "additionalProperties": false
    })
}

/// Calls one.
pub(super) async fn call(
    fixtures: &Fixtures,
    request: CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let text = |text: &str| json!({"type": "text", "text": text});
    let picture = json!({"type": "image", "data": PIXEL, "mimeType": "image/png"});
    let resource = |name: &str, kind: &str, text: &str| {
        let uri = format!("test://{name}");
        json!({"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": text}})
    };
    let content = match request.name.as_ref() {
        "test_simple_text" => json!([text("This is a simple text response for testing.")]),
        "test_image_content" => json!([picture]),
        "test_audio_content" => {
            json!([{"type": "audio", "data": SILENCE, "mimeType": "audio/wav"}])
        }
        "test_embedded_resource" => json!([resource("embedded-resource", "text/plain", "A text.")]),
        "test_multiple_content_types" => json!([
            text("Multiple content types test:"),
            picture,
            resource("mixed-content-resource", "application/json", r#"{"value":123}"#),
        ]),
        "test_error_handling" => {
            let message = "This tool intentionally returns an error for testing";
            return Ok(CallToolResult::error(read(json!([text(message)]))?).into());
        }
        "test_custom_header" => json!([text(&argument(&request, "value")?)]),
        "json_schema_2020_12_tool" => json!([text("The arguments came.")]),
        _ => return call_active(fixtures, &request, context).await,
    };
    Ok(CallToolResult::success(read(content)?).into())
}

fn argument(request: &CallToolRequestParams, name: &str) -> Result<String, ErrorData> {
    let given = request.arguments.as_ref().and_then(|all| all.get(name)).and_then(Value::as_str);
    let missing = || ErrorData::invalid_params(format!("{name} must be a string"), None);
    given.map(str::to_owned).ok_or_else(missing)
}

/// Calls one that sends or asks something before it is done.
async fn call_active(
    fixtures: &Fixtures,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let told = match request.name.as_ref() {
        "test_tool_with_logging" => {
            for message in
                ["Tool execution started", "Tool processing data", "Tool execution completed"]
            {
                log(context, LoggingLevel::Info, message).await;
                sleep(BEAT).await;
            }
            "Three messages were logged.".to_owned()
        }
        "test_logging_tool" => {
            if let Some(level) = context.meta.log_level() {
                log(context, level, "A level was asked for").await;
            }
            "Logged where it was asked for.".to_owned()
        }
        "test_tool_with_progress" => {
            progress(context).await;
            "Three times progress.".to_owned()
        }
        "test_reconnection" => {
            sleep(BEAT + BEAT).await;
            "Done.".to_owned()
        }
        "test_trigger_tool_change" => {
            for sink in fixtures.sinks() {
                drop(sink.notify_tool_list_changed().await);
            }
            "Told.".to_owned()
        }
        "test_trigger_prompt_change" => {
            for sink in fixtures.sinks() {
                drop(sink.notify_prompt_list_changed().await);
            }
            "Told.".to_owned()
        }
        "test_missing_capability" => {
            if context.meta.client_capabilities().unwrap_or_default().sampling.is_none() {
                let needed = ClientCapabilities::builder().enable_sampling().build();
                return Err(ErrorData::missing_required_client_capability(needed));
            }
            "The client can sample.".to_owned()
        }
        "test_streaming_elicitation" => {
            let asked = inputs::form("Which value?", "value", "string")?;
            return Ok(inputs::ask([("streaming_elicitation", asked)], None).into());
        }
        _ => ask_client(request, context).await?,
    };
    Ok(CallToolResult::success(read(json!([{"type": "text", "text": told}]))?).into())
}

async fn log(context: &RequestContext<RoleServer>, level: LoggingLevel, message: &str) {
    let message = LoggingMessageNotificationParam::new(level, message.into());
    drop(context.peer.notify_logging_message(message).await);
}

async fn progress(context: &RequestContext<RoleServer>) {
    let Some(token) = context.meta.get_progress_token() else { return };
    for done in [0.0, 50.0, 100.0] {
        let news = ProgressNotificationParam::new(token.clone(), done).with_total(100.0);
        drop(context.peer.notify_progress(news).await);
        sleep(BEAT).await;
    }
}

/// Calls one that asks the client something, in the way of the revisions before 2026-07-28.
async fn ask_client(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<String, ErrorData> {
    let failed = |error: rmcp::ServiceError| ErrorData::internal_error(error.to_string(), None);
    let (message, schema) = match request.name.as_ref() {
        "test_sampling" => {
            let content = json!({"type": "text", "text": argument(request, "prompt")?});
            let asked =
                json!({"messages": [{"role": "user", "content": content}], "maxTokens": 100});
            let answer = context.peer.create_message(read(asked)?).await.map_err(failed)?;
            let answer = serde_json::to_value(answer).unwrap_or_default();
            return Ok(format!(
                "LLM response: {}",
                answer.pointer("/content/text").unwrap_or(&answer)
            ));
        }
        "test_elicitation" => (
            argument(request, "message")?,
            json!({
                "type": "object", "required": ["username", "email"],
                "properties": {
                    "username": {"type": "string", "description": "User's response"},
                    "email": {"type": "string", "description": "User's email address"}
                }
            }),
        ),
        "test_elicitation_sep1034_defaults" => ("Please check the values.".into(), defaults()),
        "test_elicitation_sep1330_enums" => ("Please choose.".into(), choices()),
        name => {
            let message = format!("there is no tool {name:?}");
            return Err(ErrorData::invalid_params(message, None));
        }
    };
    let asked = json!({"mode": "form", "message": message, "requestedSchema": schema});
    let answer = context.peer.create_elicitation(read(asked)?).await.map_err(failed)?;
    let answer = serde_json::to_value(answer).unwrap_or_default();
    let [action, content] = ["action", "content"].map(|key| answer.get(key).cloned());
    Ok(format!(
        "User response: action={}, content={}",
        action.as_ref().and_then(Value::as_str).unwrap_or_default(),
        content.unwrap_or_default()
    ))
}

/// A form with a default for each kind of field (SEP-1034).
fn defaults() -> Value {
    json!({"type": "object", "properties": {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": true}
    }})
}

/// A form with each kind of choice (SEP-1330).
fn choices() -> Value {
    let titled = |values: [(&str, &str); 3]| {
        values.map(|(value, title)| json!({"const": value, "title": title}))
    };
    let values =
        [("value1", "First Option"), ("value2", "Second Option"), ("value3", "Third Option")];
    let several =
        [("value1", "First Choice"), ("value2", "Second Choice"), ("value3", "Third Choice")];
    let plain = ["option1", "option2", "option3"];
    json!({"type": "object", "properties": {
        "untitledSingle": {"type": "string", "enum": plain},
        "titledSingle": {"type": "string", "oneOf": titled(values)},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled(several)}}
    }})
}
