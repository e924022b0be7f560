//! The services as MCP tools.

use std::sync::Arc;

use contract::{Catalogue, Spec, WIRE_VERSION};
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::Value;

/// Every tool, in the order of the table.
#[derive(Debug)]
pub(crate) struct Tools(Vec<Row>);

/// A service, and the tool that stands for it.
#[derive(Debug)]
pub(crate) struct Row {
    /// The service. Its schemas have moved into the tool.
    pub(crate) spec: Spec,
    /// The tool as MCP lists it.
    pub(crate) tool: Tool,
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
        self.0.iter().map(|row| row.tool.clone()).collect()
    }

    /// The row of the tool with this name.
    pub(crate) fn by_tool(&self, name: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.spec.tool == name)
    }
}

impl Row {
    fn new(mut spec: Spec) -> Result<Self, CatalogueError> {
        let (input, output) = (spec.input.take(), spec.output.take());
        let object = |schema: Value| match schema {
            Value::Object(schema) => Ok(Arc::new(schema)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Err(CatalogueError::Schema(spec.tool.clone())),
        };
        let mut tool = Tool::new(spec.tool.clone(), spec.description.clone(), object(input)?);
        tool.title = Some(spec.title.clone());
        tool.output_schema = Some(object(output)?);
        tool.annotations = Some(
            ToolAnnotations::with_title(spec.title.clone())
                .read_only(spec.read_only)
                .destructive(spec.destructive)
                .idempotent(spec.idempotent)
                .open_world(spec.open_world),
        );
        Ok(Self { spec, tool })
    }

    /// The schema of the tool's parameters.
    pub(crate) fn input(&self) -> &JsonObject {
        &self.tool.input_schema
    }
}
