//! The two tools as MCP lists them.

use std::{path::Path, sync::Arc};

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

/// The tool that sends.
pub(super) fn upload(folder: &Path) -> Tool {
    let about = format!(
        "Send a file, or a folder with recursive, from beneath {} of the agent's own qube into a \
         qube. Of any size: the content does not pass through the conversation. Mode and time of \
         change are kept. An interrupted upload goes on where it ended when it is called again.",
        folder.display()
    );
    tool("upload_to_vm", "Send files into a qube", about, false)
}

/// The tool that fetches.
pub(super) fn download(folder: &Path) -> Tool {
    let about = format!(
        "Fetch a file, or a folder with recursive, from a qube to a place beneath {} of the \
         agent's own qube. Of any size: the content does not pass through the conversation. Mode \
         and time of change are kept. An interrupted download goes on where it ended when it is \
         called again.",
        folder.display()
    );
    tool("download_from_vm", "Fetch files from a qube", about, false)
}

fn tool(name: &'static str, title: &'static str, about: String, read_only: bool) -> Tool {
    let mut tool = Tool::new(name, about, Arc::new(input()));
    tool.title = Some(title.into());
    tool.output_schema = Some(Arc::new(output()));
    tool.annotations = Some(
        ToolAnnotations::with_title(title)
            .read_only(read_only)
            .destructive(true)
            .idempotent(true)
            .open_world(false),
    );
    tool
}

fn object(schema: Value) -> JsonObject {
    match schema {
        Value::Object(schema) => schema,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            JsonObject::new()
        }
    }
}

fn input() -> JsonObject {
    object(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Request",
        "type": "object",
        "properties": {
            "vm_name": {
                "description": "The name of the other qube, as list_vms gives it.",
                "type": "string"
            },
            "local_path": {
                "description": "The path in the agent's own qube, relative to the folder named \
                    above. With a slash at the end of a download: into that folder.",
                "type": "string"
            },
            "remote_path": {
                "description": "The path in the other qube; a relative one begins in the home \
                    folder of its user. With a slash at the end of an upload: into that folder.",
                "type": "string"
            },
            "overwrite": {
                "description": "Replace files that are there. Otherwise they are an error.",
                "type": "boolean",
                "default": false
            },
            "recursive": {
                "description": "Take a folder with all that is in it. Links are left out and named.",
                "type": "boolean",
                "default": false
            }
        },
        "required": ["vm_name", "local_path", "remote_path"],
        "additionalProperties": false
    }))
}

fn output() -> JsonObject {
    let count = |about: &str| json!({"description": about, "type": "integer", "minimum": 0});
    object(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Response",
        "type": "object",
        "properties": {
            "local_path": {"description": "The path in the agent's own qube.", "type": "string"},
            "remote_path": {"description": "The path in the other qube.", "type": "string"},
            "files": count("How many files are in place now."),
            "directories": count("How many folders were gone through."),
            "bytes": count("How many bytes these files have."),
            "resumed_bytes": count("How many of them an interrupted transfer had brought already."),
            "skipped": {
                "description": "What was left out because it is neither file nor folder.",
                "type": "array",
                "items": {"type": "string"}
            }
        },
        "required": ["local_path", "remote_path", "files", "directories", "bytes",
            "resumed_bytes", "skipped"]
    }))
}
