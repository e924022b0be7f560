//! Arguments read by the JSON Schema of a tool, so that a wrong call is answered without qrexec.
//!
//! Knows what schemars writes for plain parameter types. dom0 reads everything again.

use rmcp::model::JsonObject;
use serde_json::{Number, Value};

/// What is wrong with the arguments of a call, for the model to read.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Mismatch {
    /// There is no such parameter.
    #[error("unknown argument {place:?}; known are: {known}")]
    Unknown {
        /// The argument.
        place: String,
        /// The names of the parameters, with commas between them.
        known: String,
    },
    /// A parameter without a default is not there.
    #[error("argument {place:?} is missing")]
    Missing {
        /// The parameter.
        place: String,
    },
    /// The value is not one that the parameter takes.
    #[error("argument {place:?} must be {expected}, not {found}")]
    Wrong {
        /// The argument.
        place: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
}

/// Reads the arguments of a call: `null` stands for an argument that was left out, and a whole
/// number may be written as `30.0`.
pub(crate) fn parse_arguments(
    schema: &JsonObject,
    arguments: JsonObject,
) -> Result<JsonObject, Mismatch> {
    let required = required(schema);
    let mut given = JsonObject::new();
    for (name, value) in arguments {
        if !value.is_null() || required.contains(&name.as_str()) {
            given.insert(name, value);
        } else if property(schema, &name).is_none() {
            return Err(unknown(schema, &name, name.clone()));
        }
    }
    Walk { root: schema }.object(schema, &mut given, "")?;
    Ok(given)
}

fn required(schema: &JsonObject) -> Vec<&str> {
    schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

fn property<'s>(schema: &'s JsonObject, name: &str) -> Option<&'s Value> {
    schema.get("properties")?.as_object()?.get(name)
}

fn unknown(schema: &JsonObject, name: &str, place: String) -> Mismatch {
    let known: Vec<&str> = schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|properties| properties.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    let place = if place.is_empty() { name.into() } else { place };
    Mismatch::Unknown { place, known }
}

/// A walk through a schema and a value, side by side.
struct Walk<'s> {
    root: &'s JsonObject,
}

impl Walk<'_> {
    fn value(&self, schema: &Value, value: &mut Value, place: &str) -> Result<(), Mismatch> {
        let Some(schema) = schema.as_object() else { return Ok(()) };
        if let Some(target) = schema.get("$ref").and_then(|path| self.definition(path)) {
            self.value(target, value, place)?;
        }
        if let Some(all) = schema.get("allOf").and_then(Value::as_array) {
            for schema in all {
                self.value(schema, value, place)?;
            }
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(choices) = schema.get(key).and_then(Value::as_array)
                && !choices.iter().any(|choice| self.value(choice, value, place).is_ok())
            {
                return Err(wrong(place, self.choices(choices), value));
            }
        }
        if let Some(allowed) = allowed_values(schema)
            && !allowed.contains(&&*value)
        {
            return Err(wrong(place, one_of(&allowed), value));
        }
        type_fits(schema, value, place)?;
        match value {
            Value::Number(number) => in_range(schema, number, place),
            Value::Array(items) => self.array(schema, items, place),
            Value::Object(fields) => self.object(schema, fields, place),
            Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        }
    }

    fn array(&self, schema: &JsonObject, items: &mut [Value], place: &str) -> Result<(), Mismatch> {
        let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        let counted = |expected| Err(wrong_count(place, expected, count));
        if let Some(least) = bound("minItems").filter(|least| count < *least) {
            return counted(format!("an array of at least {least}"));
        }
        if let Some(most) = bound("maxItems").filter(|most| count > *most) {
            return counted(format!("an array of at most {most}"));
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true))
            && let Some((_, item)) = items
                .iter()
                .enumerate()
                .find(|(at, item)| items.iter().take(*at).any(|other| other == *item))
        {
            return Err(wrong(place, "an array that holds nothing twice".into(), item));
        }
        match schema.get("items") {
            Some(schema) => items
                .iter_mut()
                .enumerate()
                .try_for_each(|(at, item)| self.value(schema, item, &format!("{place}[{at}]"))),
            None => Ok(()),
        }
    }

    fn object(
        &self,
        schema: &JsonObject,
        fields: &mut JsonObject,
        place: &str,
    ) -> Result<(), Mismatch> {
        let inside = |name: &str| match place {
            "" => name.to_owned(),
            place => format!("{place}.{name}"),
        };
        let closed = schema.contains_key("properties")
            || schema.get("additionalProperties") == Some(&Value::Bool(false));
        for (name, value) in fields.iter_mut() {
            match property(schema, name) {
                Some(schema) => self.value(schema, value, &inside(name))?,
                None if closed => return Err(unknown(schema, name, inside(name))),
                None => {}
            }
        }
        match required(schema).into_iter().find(|name| !fields.contains_key(*name)) {
            Some(name) => Err(Mismatch::Missing { place: inside(name) }),
            None => Ok(()),
        }
    }

    /// What a reference such as `#/$defs/Action` points at.
    fn definition(&self, path: &Value) -> Option<&Value> {
        let mut steps = path.as_str()?.strip_prefix("#/")?.split('/');
        let first = self.root.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    }

    /// Words for a choice between schemas.
    fn choices(&self, choices: &[Value]) -> String {
        let mut words: Vec<String> = Vec::new();
        for choice in choices {
            let choice =
                choice.get("$ref").and_then(|path| self.definition(path)).unwrap_or(choice);
            let Some(schema) = choice.as_object() else { continue };
            if let Some(allowed) = allowed_values(schema) {
                words.extend(allowed.into_iter().map(Value::to_string));
            } else if let Some(inner) = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)) {
                words.push(self.choices(inner.as_array().map_or(&[], Vec::as_slice)));
            } else {
                words.extend(types(schema).into_iter().map(type_words));
            }
        }
        words.join(" or ")
    }
}

/// The values that `const` and `enum` allow, if one of them is there.
fn allowed_values(schema: &JsonObject) -> Option<Vec<&Value>> {
    if let Some(only) = schema.get("const") {
        return Some(vec![only]);
    }
    schema.get("enum").and_then(Value::as_array).map(|values| values.iter().collect())
}

fn one_of(allowed: &[&Value]) -> String {
    allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

fn types(schema: &JsonObject) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => vec![],
    }
}

fn type_words(name: &str) -> String {
    match name {
        "integer" => "a whole number".into(),
        "number" => "a number".into(),
        "string" => "a string".into(),
        "boolean" => "true or false".into(),
        "array" => "an array".into(),
        "object" => "an object".into(),
        other => other.into(),
    }
}

fn type_fits(schema: &JsonObject, value: &mut Value, place: &str) -> Result<(), Mismatch> {
    let names = types(schema);
    if names.is_empty() || names.iter().any(|name| is_of_type(name, value)) {
        return Ok(());
    }
    if names.contains(&"integer")
        && let Some(whole) = value.as_f64().and_then(whole_number)
    {
        *value = whole;
        return Ok(());
    }
    let expected = names.into_iter().map(type_words).collect::<Vec<_>>().join(" or ");
    Err(wrong(place, expected, value))
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    }
}

/// The whole number that was written with a point.
fn whole_number(float: f64) -> Option<Value> {
    (float.fract() == 0.0).then(|| format!("{float:.0}").parse::<i64>().ok().map(Value::from))?
}

fn in_range(schema: &JsonObject, number: &Number, place: &str) -> Result<(), Mismatch> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_number);
    if let Some(least) = bound("minimum").filter(|least| below(number, least)) {
        return Err(wrong(place, format!("at least {least}"), &Value::Number(number.clone())));
    }
    if let Some(most) = bound("maximum").filter(|most| below(most, number)) {
        return Err(wrong(place, format!("at most {most}"), &Value::Number(number.clone())));
    }
    Ok(())
}

/// Whether one number is below another; whole numbers are compared exactly.
fn below(one: &Number, other: &Number) -> bool {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => one < other,
        _ => one.as_f64() < other.as_f64(),
    }
}

fn wrong_count(place: &str, expected: String, count: u64) -> Mismatch {
    Mismatch::Wrong { place: place.into(), expected, found: format!("one of {count}") }
}

fn wrong(place: &str, expected: String, value: &Value) -> Mismatch {
    /// The longest value that is repeated to the caller, in bytes.
    const SHOWN_BYTES: usize = 80;
    let found = match value {
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) if text.len() > SHOWN_BYTES => {
            format!("a string of {} bytes", text.len())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    };
    Mismatch::Wrong { place: place.into(), expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> JsonObject {
        let Value::Object(schema) = json!({
            "type": "object",
            "properties": {
                "vm_name": {"type": "string"},
                "action": {"$ref": "#/$defs/Action"},
                "port": {"type": "integer", "format": "uint16", "minimum": 0, "maximum": 65535},
                "mode": {"type": ["string", "null"], "default": null},
                "kind": {"anyOf": [{"$ref": "#/$defs/Kind"}, {"type": "null"}]},
                "parts": {"type": "array", "items": {
                    "type": "object",
                    "properties": {"old": {"type": "string"}},
                    "required": ["old"],
                    "additionalProperties": false
                }},
                "names": {"type": "array", "items": {"type": "string"}, "minItems": 1,
                    "maxItems": 2, "uniqueItems": true},
                "force": {"type": "boolean"}
            },
            "required": ["vm_name"],
            "additionalProperties": false,
            "$defs": {
                "Action": {"type": "string", "enum": ["add", "remove"]},
                "Kind": {"oneOf": [
                    {"description": "x", "type": "string", "const": "a"},
                    {"type": "string", "const": "b"}
                ]}
            }
        }) else {
            panic!("not an object")
        };
        schema
    }

    fn read(arguments: Value) -> Result<Value, String> {
        let Value::Object(arguments) = arguments else { panic!("not an object") };
        parse_arguments(&schema(), arguments)
            .map(Value::Object)
            .map_err(|mismatch| mismatch.to_string())
    }

    fn complaint(arguments: Value) -> String {
        read(arguments).unwrap_err()
    }

    #[test]
    fn arguments_that_fit_pass_unchanged() {
        let all = json!({"vm_name": "work", "action": "add", "port": 22, "mode": "0600",
            "kind": "b", "parts": [{"old": "x"}], "force": true});
        assert_eq!(read(all.clone()), Ok(all));
    }

    #[test]
    fn null_means_left_out_where_an_argument_is_optional() {
        let given = json!({"vm_name": "work", "mode": null, "port": null, "kind": null});
        assert_eq!(read(given), Ok(json!({"vm_name": "work"})));
        assert_eq!(
            complaint(json!({"vm_name": null})),
            r#"argument "vm_name" must be a string, not null"#
        );
        assert!(complaint(json!({"vm_name": "work", "nope": null})).starts_with("unknown"));
    }

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        let read = read(json!({"vm_name": "work", "port": 22.0})).unwrap();
        assert_eq!(read.to_string(), r#"{"port":22,"vm_name":"work"}"#);
        assert_eq!(
            complaint(json!({"vm_name": "work", "port": 22.5})),
            r#"argument "port" must be a whole number, not 22.5"#
        );
    }

    #[test]
    fn an_unknown_argument_is_named_beside_the_known_ones() {
        assert_eq!(
            complaint(json!({"vm_name": "work", "cmd": "id"})),
            "unknown argument \"cmd\"; known are: action, force, kind, mode, names, parts, port, \
             vm_name"
        );
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_named() {
        for (arguments, expected) in [
            (json!({}), r#"argument "vm_name" is missing"#),
            (json!({"vm_name": 5}), r#"argument "vm_name" must be a string, not 5"#),
            (
                json!({"vm_name": "w", "port": "22"}),
                r#"argument "port" must be a whole number, not "22""#,
            ),
            (
                json!({"vm_name": "w", "force": "yes"}),
                r#"argument "force" must be true or false, not "yes""#,
            ),
            (
                json!({"vm_name": "w", "mode": 6}),
                r#"argument "mode" must be a string or null, not 6"#,
            ),
            (json!({"vm_name": "w", "parts": [{}]}), r#"argument "parts[0].old" is missing"#),
            (
                json!({"vm_name": "w", "parts": [{"old": "x", "new": "y"}]}),
                r#"unknown argument "parts[0].new"; known are: old"#,
            ),
        ] {
            assert_eq!(complaint(arguments), expected);
        }
    }

    #[test]
    fn choices_and_ranges_are_told() {
        for (arguments, expected) in [
            (
                json!({"vm_name": "w", "action": "drop"}),
                r#"argument "action" must be "add" or "remove", not "drop""#,
            ),
            (
                json!({"vm_name": "w", "kind": "c"}),
                r#"argument "kind" must be "a" or "b" or null, not "c""#,
            ),
            (
                json!({"vm_name": "w", "port": 65536}),
                r#"argument "port" must be at most 65535, not 65536"#,
            ),
            (
                json!({"vm_name": "w", "names": []}),
                r#"argument "names" must be an array of at least 1, not one of 0"#,
            ),
            (
                json!({"vm_name": "w", "names": ["a", "b", "c"]}),
                r#"argument "names" must be an array of at most 2, not one of 3"#,
            ),
            (
                json!({"vm_name": "w", "names": ["a", "a"]}),
                r#"argument "names" must be an array that holds nothing twice, not "a""#,
            ),
            (
                json!({"vm_name": "w", "names": ["a", 1]}),
                r#"argument "names[1]" must be a string, not 1"#,
            ),
            (json!({"vm_name": "w", "port": -1}), r#"argument "port" must be at least 0, not -1"#),
        ] {
            assert_eq!(complaint(arguments), expected);
        }
    }
}
