//! The services as MCP tools.

use std::sync::Arc;

use contract::{Catalogue, Spec, WIRE_VERSION};
use rmcp::model::{JsonObject, MetaObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use crate::{addresses::LISTING_SERVICE, batch, narrowing::Marks};

/// Every service, in the order of the table.
#[derive(Debug)]
pub(crate) struct Tools(Vec<Row>);

/// What a tool's name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named<'t> {
    /// A service.
    One(&'t Row),
    /// The same service on several qubes.
    Batch(&'t Row, &'t Tool),
}

/// A service, and the tool that stands for it.
#[derive(Debug)]
pub(crate) struct Row {
    /// The service. Its schemas have moved into the tool.
    pub(crate) spec: Spec,
    /// The tool as MCP lists it; named as the service, and not listed, where there is none.
    pub(crate) tool: Tool,
    /// The tool that makes the same call on several qubes.
    pub(crate) batch: Option<Tool>,
    /// Where its parameters name qubes.
    pub(crate) asks: Marks,
    /// Where its result names qubes.
    pub(crate) tells: Marks,
}

/// A catalogue that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogueError {
    /// Not JSON of this form.
    #[error("it is not a catalogue")]
    Json(#[from] serde_json::Error),
    /// It was written for another version of the wire.
    #[error("it is of version {0} of the wire, and this is version {WIRE_VERSION}")]
    Version(u8),
    /// A schema must be a JSON object.
    #[error("a schema of the tool {0} is not an object")]
    Schema(String),
}

impl Tools {
    /// The catalogue that was compiled in.
    pub(crate) fn compiled() -> Result<Self, CatalogueError> {
        Self::parse(include_str!("../contract/catalogue.json"))
    }

    /// Reads a catalogue.
    pub(crate) fn parse(json: &str) -> Result<Self, CatalogueError> {
        let Catalogue { frames, services } = serde_json::from_str(json)?;
        if frames != WIRE_VERSION {
            return Err(CatalogueError::Version(frames));
        }
        services.into_iter().map(Row::new).collect::<Result<_, _>>().map(Self)
    }

    /// The tools as MCP lists them.
    pub(crate) fn list(&self) -> Vec<Tool> {
        let listed = |row: &Row| row.spec.tool.is_some().then(|| row.tool.clone());
        self.0.iter().flat_map(|row| listed(row).into_iter().chain(row.batch.clone())).collect()
    }

    /// What the tool with this name stands for.
    pub(crate) fn by_tool(&self, name: &str) -> Option<Named<'_>> {
        self.0.iter().find_map(|row| match &row.batch {
            _ if row.spec.tool.as_deref() == Some(name) => Some(Named::One(row)),
            Some(tool) if tool.name == name => Some(Named::Batch(row, tool)),
            Some(_) | None => None,
        })
    }

    /// The row of a service, also of one that has no tool.
    pub(crate) fn by_service(&self, name: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.spec.service == name)
    }
}

impl Named<'_> {
    /// The tool as MCP lists it.
    pub(crate) fn tool(&self) -> &Tool {
        match self {
            Self::One(row) => &row.tool,
            Self::Batch(_, tool) => tool,
        }
    }
}

impl Row {
    fn new(mut spec: Spec) -> Result<Self, CatalogueError> {
        let (mut input, mut output) = (spec.input.take(), spec.output.take());
        let (asks, tells) = (Marks::take(&mut input), Marks::take(&mut output));
        split_types(&mut input);
        split_types(&mut output);
        let name = spec.tool.as_ref().unwrap_or(&spec.service);
        let object = |schema: Value| match schema {
            Value::Object(schema) => Ok(Arc::new(schema)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(CatalogueError::Schema(name.clone())),
        };
        let mut tool = Tool::new(name.clone(), spec.description.clone(), object(input)?);
        tool.meta = hints(&spec, &output);
        tool.title = Some(spec.title.clone());
        tool.output_schema = Some(object(output)?);
        tool.annotations = Some(
            ToolAnnotations::with_title(spec.title.clone())
                .read_only(spec.read_only)
                .destructive(spec.destructive)
                .idempotent(spec.idempotent)
                .open_world(spec.open_world),
        );
        let batch = spec.batch.clone().map(|name| batch::derive(&tool, name));
        Ok(Self { spec, tool, batch, asks, tells })
    }

    /// The schema of the tool's parameters.
    pub(crate) fn input(&self) -> &JsonObject {
        &self.tool.input_schema
    }
}

fn is_rust_number(format: &str) -> bool {
    let size = format.strip_prefix("uint").or_else(|| format.strip_prefix("int"));
    size.is_some_and(|size| size.is_empty() || size.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What Claude Code is told about a tool beyond MCP, as far as the row says it.
fn hints(spec: &Spec, output: &Value) -> Option<MetaObject> {
    /// The longest result that Claude Code takes into the conversation, in characters; what is
    /// longer than its own limit goes into a file unless a tool says so.
    const MOST_CHARS: u64 = 500_000;
    let mut meta = JsonObject::new();
    if !spec.bytes.is_empty() || holds_list(output) {
        meta.insert("anthropic/maxResultSizeChars".into(), MOST_CHARS.into());
    }
    if spec.confirm {
        meta.insert("anthropic/requiresUserInteraction".into(), true.into());
    }
    // Every session begins with it: no search for tools before.
    if spec.service == LISTING_SERVICE {
        meta.insert("anthropic/alwaysLoad".into(), true.into());
    }
    (!meta.is_empty()).then_some(MetaObject(meta))
}

/// Whether a field of the result is as long as there are things to tell.
fn holds_list(output: &Value) -> bool {
    let fields = output.get("properties").and_then(Value::as_object);
    fields
        .into_iter()
        .flat_map(JsonObject::values)
        .any(|field| field.get("type") == Some(&"array".into()))
}

/// Writes `"type": ["string", "null"]` as `anyOf`, which means the same and more clients know, and
/// leaves out formats of numbers that no client knows.
fn split_types(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(split_types);
            // schemars' names for Rust's numbers, which clients warn of; the bounds say the same.
            if fields.get("format").and_then(Value::as_str).is_some_and(is_rust_number) {
                fields.remove("format");
            }
            if fields.contains_key("anyOf") {
                return;
            }
            if let Some(types) = fields.get("type").and_then(Value::as_array) {
                let branches = types.iter().map(|name| json!({ "type": name })).collect();
                fields.remove("type");
                fields.insert("anyOf".into(), Value::Array(branches));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(split_types),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
impl Tools {
    /// The row of a tool.
    pub(crate) fn row(&self, tool: &str) -> &Row {
        match self.by_tool(tool) {
            Some(Named::One(row) | Named::Batch(row, _)) => row,
            None => panic!("there is no tool {tool}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn what_clients_are_told_beyond_mcp_follows_from_the_row() {
        let tools = testing::tools();
        let meta = |tool| tools.row(tool).tool.meta.clone().map(|meta| Value::Object(meta.0));
        assert_eq!(
            meta("list_vms"),
            Some(json!({"anthropic/alwaysLoad": true, "anthropic/maxResultSizeChars": 500_000}))
        );
        assert_eq!(meta("exec_in_vm"), Some(json!({"anthropic/maxResultSizeChars": 500_000})));
        assert_eq!(meta("connect_tcp_policy"), None);
        let spec = Spec { confirm: true, ..tools.row("connect_tcp_policy").spec.clone() };
        assert_eq!(
            hints(&spec, &json!({})).map(|meta| Value::Object(meta.0)),
            Some(json!({"anthropic/requiresUserInteraction": true}))
        );
    }

    #[test]
    fn a_choice_of_types_is_told_in_the_form_that_most_clients_know() {
        let mut schema = json!({"properties": {
            "length": {"type": ["integer", "null"], "format": "uint64", "minimum": 0},
            "type": {"type": "string", "format": "date-time"}
        }});
        split_types(&mut schema);
        assert_eq!(
            schema,
            json!({"properties": {
                "length": {"anyOf": [{"type": "integer"}, {"type": "null"}], "minimum": 0},
                "type": {"type": "string", "format": "date-time"}
            }})
        );
    }

    /// What clients reject or drop: combinators at the root, `true` for a schema, long texts.
    fn is_portable(tool: &Tool) {
        let schemas = [Some(&tool.input_schema), tool.output_schema.as_ref()];
        for schema in schemas.into_iter().flatten() {
            assert_eq!(schema.get("type"), Some(&"object".into()), "{}", tool.name);
            for key in ["anyOf", "oneOf", "allOf"] {
                assert!(!schema.contains_key(key), "{}: {key}", tool.name);
            }
            for key in ["properties", "$defs"] {
                let inner = schema.get(key).and_then(Value::as_object);
                for (name, schema) in inner.into_iter().flatten() {
                    assert!(schema.is_object(), "{}: {name} has no type", tool.name);
                }
            }
        }
        assert!(tool.description.as_ref().is_some_and(|text| text.len() < 2048), "{}", tool.name);
    }

    #[test]
    fn every_client_can_read_the_tools() {
        Tools::compiled().unwrap().list().iter().for_each(is_portable);
        testing::tools().list().iter().for_each(is_portable);
    }

    #[test]
    fn a_catalogue_for_another_wire_is_refused() {
        let error = Tools::parse(r#"{"frames":2,"services":[]}"#).unwrap_err();
        assert!(matches!(error, CatalogueError::Version(2)));
    }
}
