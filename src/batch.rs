//! One call on several qubes at once: the tool, derived from that of one qube, and its result.

use std::sync::Arc;

use contract::limits::{BATCH_AT_ONCE, BATCH_QUBES, OUTPUT_BYTES};
use futures_util::{StreamExt, stream};
use rmcp::model::{JsonObject, Tool};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    answer,
    arguments::{Call, QUBE_PARAMETER, QUBES_PARAMETER, QubeName},
    catalogue::Row,
    dom0::Dom0,
};

/// The tool that does on several qubes what this one does on one.
pub(crate) fn derive(one: &Tool, name: String) -> Tool {
    let mut tool = one.clone();
    tool.description = Some(
        format!(
            "As {}, in 1 to {BATCH_QUBES} qubes at once. One result per qube, in the order asked; \
             what fails in one qube does not hurt the others.",
            one.name
        )
        .into(),
    );
    let title = one.title.as_ref().map(|title| format!("{title}, several at once"));
    tool.title.clone_from(&title);
    tool.annotations = one.annotations.clone().map(|mut hints| {
        hints.title = title;
        hints
    });
    tool.input_schema = Arc::new(derive_input(&one.input_schema));
    tool.output_schema = one.output_schema.as_ref().map(|schema| Arc::new(derive_output(schema)));
    tool.name = name.into();
    tool
}

/// The parameters of one qube's tool with the list of qubes instead of the qube.
fn derive_input(one: &JsonObject) -> JsonObject {
    let mut schema = one.clone();
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.remove(QUBE_PARAMETER);
        for property in properties.values_mut() {
            share_output(property);
        }
        let names = json!({
            "description": "The names of the qubes, as list_vms gives them; each once.",
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": BATCH_QUBES,
            "uniqueItems": true
        });
        properties.insert(QUBES_PARAMETER.into(), names);
    }
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        for name in required.iter_mut().filter(|name| *name == QUBE_PARAMETER) {
            *name = QUBES_PARAMETER.into();
        }
    }
    schema
}

/// A parameter that may ask for all that one answer can hold may ask for a share of it here.
fn share_output(property: &mut Value) {
    let Some(fields) = property.as_object_mut() else { return };
    if fields.get("maximum") != Some(&OUTPUT_BYTES.into()) {
        return;
    }
    let share = u64::try_from(BATCH_QUBES).map_or(OUTPUT_BYTES, |qubes| OUTPUT_BYTES / qubes);
    fields.insert("maximum".into(), share.into());
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = text.replace(&OUTPUT_BYTES.to_string(), &share.to_string());
    }
}

fn derive_output(one: &JsonObject) -> JsonObject {
    let mut one = one.clone();
    let dialect = one.remove("$schema");
    let mut definitions = match one.remove("$defs") {
        Some(Value::Object(definitions)) => definitions,
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_))
        | Some(Value::Array(_))
        | None => JsonObject::new(),
    };
    definitions.insert("ResultOfOne".into(), Value::Object(one));
    let mut schema = JsonObject::new();
    schema.extend(dialect.map(|dialect| ("$schema".into(), dialect)));
    schema.insert("title".into(), "Results".into());
    schema.insert("type".into(), "object".into());
    let results = json!({
        "results": {
            "description": "One entry for each qube, in the order asked.",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "vm_name": {"description": "The qube.", "type": "string"},
                    "ok": {
                        "description": "There is a result; false when there is an error instead.",
                        "type": "boolean"
                    },
                    "result": {"$ref": "#/$defs/ResultOfOne"},
                    "error": {"description": "Why there is no result.", "type": "string"}
                },
                "required": ["vm_name", "ok"]
            }
        },
        "failed": {
            "description": "How many entries have an error instead of a result.",
            "type": "integer",
            "minimum": 0
        }
    });
    schema.insert("properties".into(), results);
    schema.insert("required".into(), json!(["results", "failed"]));
    schema.insert("$defs".into(), Value::Object(definitions));
    schema
}

/// Makes the calls, some at a time, and puts their results together in the order asked.
pub(crate) async fn run(
    dom0: &Dom0,
    row: &Row,
    calls: Vec<(QubeName, Call)>,
    news: &watch::Sender<String>,
) -> JsonObject {
    let asked = calls.len();
    let pending = calls.into_iter().map(|(qube, call)| one(dom0, row, qube, call, news));
    let mut pending = stream::iter(pending).buffered(BATCH_AT_ONCE);
    let (mut results, mut failed) = (Vec::with_capacity(asked), 0_u32);
    while let Some(result) = pending.next().await {
        if result.get("ok") == Some(&Value::Bool(false)) {
            failed = failed.saturating_add(1);
        }
        results.push(Value::Object(result));
        drop(news.send_replace(format!("{} of {asked} qubes done", results.len())));
    }
    let mut object = JsonObject::new();
    object.insert("results".into(), results.into());
    object.insert("failed".into(), failed.into());
    object
}

async fn one(
    dom0: &Dom0,
    row: &Row,
    qube: QubeName,
    call: Call,
    news: &watch::Sender<String>,
) -> JsonObject {
    let (own, mut heard) = watch::channel(String::new());
    let work = async move {
        let own = own;
        dom0.call(row, call, &own).await
    };
    let pass_on = async {
        while heard.changed().await.is_ok() {
            let line = format!("{}: {}", qube.as_str(), *heard.borrow_and_update());
            drop(news.send_replace(line));
        }
    };
    let (outcome, ()) = tokio::join!(work, pass_on);
    let mut entry = JsonObject::new();
    entry.insert("vm_name".into(), qube.as_str().into());
    match outcome.and_then(|reply| answer::render_reply(&row.spec, reply)) {
        Ok(result) => {
            entry.insert("ok".into(), true.into());
            entry.insert("result".into(), Value::Object(result));
        }
        Err(error) => {
            entry.insert("ok".into(), false.into());
            entry.insert("error".into(), error.to_string().into());
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn the_tool_for_several_qubes_follows_from_that_for_one() {
        let tools = testing::tools();
        let one = &tools.row("exec_in_vm").tool;
        let tool = derive(one, "exec_in_vms".into());
        let input = Value::Object((*tool.input_schema).clone());
        assert_eq!(input["properties"].get("vm_name"), None);
        assert_eq!(input["properties"]["vm_names"]["maxItems"], 32);
        assert_eq!(input["properties"]["command"], one.input_schema["properties"]["command"]);
        assert_eq!(input["required"], json!(["vm_names", "command"]));
        let output = Value::Object((*tool.output_schema.unwrap()).clone());
        assert_eq!(
            output["$defs"]["ResultOfOne"]["properties"]["stdout"],
            one.output_schema.as_ref().unwrap()["properties"]["stdout"]
        );
        assert_eq!(tool.name, "exec_in_vms");
        assert_eq!(tool.meta, one.meta);
    }

    #[test]
    fn what_one_answer_can_hold_is_shared_by_the_qubes() {
        let mut property = json!({"description": "Up to 2097152.", "maximum": 2_097_152});
        share_output(&mut property);
        assert_eq!(property, json!({"description": "Up to 65536.", "maximum": 65_536}));
        let mut other = json!({"maximum": 65_535});
        share_output(&mut other);
        assert_eq!(other, json!({"maximum": 65_535}));
    }
}
