//! The table as the agent's side and the documents see it. Only where schemas are wanted.

use contract::{
    Aim, ByteField, Catalogue, Power, SERVICE_PREFIX, Spec, WIRE_VERSION, limits, spec::BodyField,
};
use serde_json::{Map, Value, json};

use crate::{service::Entry, services::SERVICES};

/// Every service with its schemas.
pub fn catalogue() -> Catalogue {
    Catalogue { frames: WIRE_VERSION, services: SERVICES.iter().map(spec).collect() }
}

fn spec(entry: &Entry) -> Spec {
    let (input, output) = (entry.schemas)();
    Spec {
        service: entry.name.into(),
        tool: entry.tool.map(Into::into),
        batch: entry.batch.map(Into::into),
        title: entry.title.into(),
        description: entry.summary.into(),
        power: entry.power,
        aim: entry.aim,
        read_only: entry.read_only,
        destructive: entry.destructive,
        idempotent: entry.idempotent,
        open_world: entry.open_world,
        long: entry.long,
        confirm: entry.confirm,
        body: entry.body.map(|body| BodyField {
            field: body.field.into(),
            encoding: body.encoding.into(),
            required: body.required,
        }),
        bytes: entry
            .bytes
            .iter()
            .map(|bytes| ByteField {
                stream: bytes.stream,
                field: bytes.field.into(),
                encoding: bytes.encoding.into(),
                always: bytes.always,
            })
            .collect(),
        input: input_schema(entry, input.to_value()),
        output: output_schema(entry, output.to_value()),
    }
}

fn input_schema(entry: &Entry, mut schema: Value) -> Value {
    let mut first = Map::new();
    let mut required = Vec::new();
    if entry.aim == Aim::Qube {
        let about = "The name of the qube, as list_vms gives it.";
        first.insert("vm_name".into(), json!({"type": "string", "description": about}));
        required.push("vm_name");
    }
    if let Some(body) = entry.body {
        let most = limits::BODY_BYTES;
        let about = format!("{} At most {most} bytes.", body.about);
        first.insert(body.field.into(), json!({"type": "string", "description": about}));
        if body.required {
            required.push(body.field);
        }
        let about = format!("How {} is written: utf-8 for text, base64 for any bytes.", body.field);
        let encoding = json!({
            "type": "string", "enum": ["utf-8", "base64"], "default": "utf-8", "description": about,
        });
        first.insert(body.encoding.into(), encoding);
    }
    add(&mut schema, first, &required);
    if let Some(object) = schema.as_object_mut() {
        object.insert("additionalProperties".into(), false.into());
    }
    schema
}

fn output_schema(entry: &Entry, mut schema: Value) -> Value {
    let mut first = Map::new();
    let mut required = Vec::new();
    for bytes in entry.bytes {
        first.insert(bytes.field.into(), json!({"type": "string", "description": bytes.about}));
        required.push(bytes.field);
        let when = if bytes.always { "" } else { " Absent when it is utf-8." };
        let about = format!("How {} is written: utf-8 or base64.{when}", bytes.field);
        let encoding = json!({"type": "string", "enum": ["utf-8", "base64"], "description": about});
        first.insert(bytes.encoding.into(), encoding);
        if bytes.always {
            required.push(bytes.encoding);
        }
    }
    add(&mut schema, first, &required);
    schema
}

/// Adds properties to an object's schema and drops what only the Rust type is named by.
fn add(schema: &mut Value, properties: Map<String, Value>, required: &[&str]) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("title");
    object.remove("description");
    let known = object.entry("properties").or_insert_with(|| json!({}));
    if let Some(known) = known.as_object_mut() {
        known.extend(properties);
    }
    let all = object.entry("required").or_insert_with(|| json!([]));
    if let Some(all) = all.as_array_mut() {
        let added = required.iter().map(|name| Value::from(*name));
        *all = added.chain(std::mem::take(all)).collect();
        if all.is_empty() {
            object.remove("required");
        }
    }
}

/// `docs/services.md`.
pub fn services_page() -> String {
    let mut page = String::from(
        "# Services\n\nMade from the table of services by a test; changes made here are lost.\n",
    );
    for spec in catalogue().services {
        let Spec { service, title, description, power, .. } = &spec;
        let (tool, batch) = match (&spec.tool, &spec.batch) {
            (Some(tool), Some(batch)) => (tool.as_str(), format!(", for several qubes `{batch}`")),
            (Some(tool), None) => (tool.as_str(), String::new()),
            (None, _) => (service.as_str(), String::new()),
        };
        let aimed = match spec.aim {
            Aim::Qube => "+QUBE",
            Aim::Scope => "",
        };
        let kind = match (spec.read_only, spec.destructive) {
            (true, _) => "changes nothing",
            (false, true) => "may destroy something",
            (false, false) => "changes something",
        };
        page.push_str(&format!(
            "\n## {tool}: {title}\n\n{description}\n\n\
             qrexec service `{SERVICE_PREFIX}{service}{aimed}`, power `{power}`, {kind}{batch}.\n"
        ));
        page.push_str(&fields("Parameters", &spec.input));
        page.push_str(&fields("Result", &spec.output));
    }
    page
}

fn fields(heading: &str, schema: &Value) -> String {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return String::new();
    };
    if properties.is_empty() {
        return format!("\n{heading}: none.\n");
    }
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|one| one == name));
    let mut table = format!("\n| {heading} | type | meaning |\n|---|---|---|\n");
    for (name, field) in properties {
        let mut kind = kind(field);
        if heading == "Parameters" && !is_required(name) {
            kind = match field.get("default") {
                Some(default) if !default.is_null() && default != "" => {
                    format!("{kind}, default {default}")
                }
                Some(_) | None => format!("{kind}, optional"),
            };
        }
        let about = field.get("description").and_then(Value::as_str).unwrap_or_default();
        let about = about.replace('\n', " ").replace('|', "\\|");
        table.push_str(&format!("| `{name}` | {kind} | {about} |\n"));
    }
    table
}

fn kind(field: &Value) -> String {
    match field.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ")
        }
        _ => match field.get("$ref").and_then(Value::as_str) {
            Some(name) => name.rsplit('/').next().unwrap_or(name).to_owned(),
            None => "any".into(),
        },
    }
}

/// The table of powers and of the tools that need each, for the README.
pub fn powers_table() -> String {
    let services = catalogue().services;
    let mut table = String::from("| power | what it covers | tools |\n|---|---|---|\n");
    for power in Power::ALL {
        let tools: Vec<_> = services
            .iter()
            .filter(|spec| spec.power == power)
            .flat_map(|spec| spec.tool.iter().chain(&spec.batch))
            .map(|name| format!("`{name}`"))
            .collect();
        table.push_str(&format!("| `{power}` | {} | {} |\n", covers(power), tools.join(", ")));
    }
    table
}

/// What a power is for, in the words of an operator who grants it.
const fn covers(power: Power) -> &'static str {
    match power {
        Power::See => "name, state, properties, addresses, firewall rules, events",
        Power::Lifecycle => {
            "starting and stopping, also starting a halted qube for a command or a file"
        }
        Power::Exec => {
            "commands as the qube's ordinary user; also the part of `vm_network_info` from inside \
             the qube, whose fixed commands run as root"
        }
        Power::Root => "commands as root",
        Power::Files => "files, as the qube's ordinary user",
        Power::Net => "firewall rules, and TCP connections between two qubes that both have it",
        Power::Shape => "the agent's own qubes and disposables; properties, features, devices",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::PathBuf};

    use super::*;

    fn at_top(path: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
    }

    /// Compares a committed file with what the table says now; rewrites it when asked to.
    fn golden(path: &str, fresh: &str) {
        let file = at_top(path);
        let committed = fs::read_to_string(&file).unwrap_or_default();
        if committed == fresh {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "the way to ask for fresh files")]
        let update = std::env::var_os("UPDATE_GOLDEN").is_some();
        assert!(update, "{path} is stale; run the tests with UPDATE_GOLDEN=1");
        fs::write(&file, fresh).unwrap();
    }

    #[test]
    fn the_committed_catalogue_and_documents_are_those_of_the_table() {
        let json = serde_json::to_string_pretty(&catalogue()).unwrap();
        golden("contract/catalogue.json", &(json + "\n"));
        golden("docs/services.md", &services_page());
        let readme = fs::read_to_string(at_top("README.md")).unwrap();
        let (before, rest) = readme.split_once("<!-- tools -->\n").unwrap();
        let (_, after) = rest.split_once("<!-- end of tools -->").unwrap();
        let table = powers_table();
        golden(
            "README.md",
            &format!("{before}<!-- tools -->\n{table}<!-- end of tools -->{after}"),
        );
    }

    #[test]
    fn names_are_unique_and_texts_are_sentences_that_clients_show_whole() {
        let all = catalogue().services;
        let names: BTreeSet<_> = all.iter().map(|spec| &spec.service).collect();
        assert_eq!(names.len(), all.len());
        let tools: Vec<_> =
            all.iter().flat_map(|spec| spec.tool.iter().chain(&spec.batch)).collect();
        assert_eq!(tools.iter().collect::<BTreeSet<_>>().len(), tools.len());
        assert!(all.iter().all(|spec| spec.batch.is_none() || spec.aim == Aim::Qube));
        assert!(tools.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        for spec in &all {
            let tool = &spec.service;
            assert!(!spec.confirm || spec.destructive, "{tool}");
            assert!(spec.description.len() < 2048 && spec.description.ends_with('.'), "{tool}");
            assert!(!spec.title.ends_with('.'), "{tool}");
            assert!(!(spec.read_only && spec.destructive), "{tool}");
        }
    }

    #[test]
    fn every_parameter_and_field_is_described_and_no_schema_combines_at_its_root() {
        for spec in catalogue().services {
            for schema in [&spec.input, &spec.output] {
                assert_eq!(schema["type"], "object", "{}", spec.service);
                for key in ["anyOf", "oneOf", "allOf"] {
                    assert!(schema.get(key).is_none(), "{}", spec.service);
                }
                for (name, field) in schema["properties"].as_object().unwrap() {
                    let described = field["description"].as_str().is_some_and(|s| !s.is_empty())
                        || field.get("$ref").is_some();
                    assert!(described, "{} {name}", spec.service);
                }
            }
            assert_eq!(spec.input["additionalProperties"], false, "{}", spec.service);
        }
    }
}
