//! The resources that the suite reads.

use rmcp::{
    ErrorData,
    model::{ReadResourceResult, Resource, ResourceTemplate},
};
use serde_json::json;

use super::read as value;

/// A picture of one pixel, a PNG as base64.
pub(super) const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

const TEXT: &str = "test://static-text";
const BINARY: &str = "test://static-binary";
const WATCHED: &str = "test://watched-resource";

/// Those with an address of their own.
pub(super) fn list() -> Result<Vec<Resource>, ErrorData> {
    value(json!([
        {"uri": TEXT, "name": "text", "description": "A text", "mimeType": "text/plain"},
        {"uri": BINARY, "name": "picture", "description": "A picture", "mimeType": "image/png"},
        {"uri": WATCHED, "name": "watched", "description": "To subscribe to", "mimeType": "text/plain"},
    ]))
}

/// Those with a parameter.
pub(super) fn templates() -> Result<Vec<ResourceTemplate>, ErrorData> {
    value(json!([{
        "uriTemplate": "test://template/{id}/data", "name": "by number",
        "description": "Data of one number", "mimeType": "application/json"
    }]))
}

/// The content of one.
pub(super) fn read(uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let number = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
    let content = match (uri, number) {
        (TEXT | WATCHED, _) => json!({"uri": uri, "mimeType": "text/plain", "text": "A text."}),
        (BINARY, _) => json!({"uri": uri, "mimeType": "image/png", "blob": PIXEL}),
        (_, Some(id)) => {
            let text =
                json!({"id": id, "templateTest": true, "data": format!("Data for ID: {id}")});
            json!({"uri": uri, "mimeType": "application/json", "text": text.to_string()})
        }
        (_, None) => {
            let data = Some(json!({ "uri": uri }));
            return Err(ErrorData::resource_not_found("there is no such resource", data));
        }
    };
    Ok(ReadResourceResult::new(vec![value(content)?]))
}
