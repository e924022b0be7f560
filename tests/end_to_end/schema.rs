//! Whether a value fits a JSON Schema, for the keywords that the tools' schemas use.

use serde_json::Value;

/// Why the value does not fit; nothing if it does.
pub(crate) fn misfit(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    for (keyword, rule) in schema.as_object().expect("a schema") {
        let misfit = match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                misfit(root, root.pointer(pointer).expect("a definition"), value)
            }
            "type" => {
                let types =
                    rule.as_array().map_or_else(|| std::slice::from_ref(rule), Vec::as_slice);
                let fits = types.iter().any(|name| is(name.as_str().unwrap(), value));
                (!fits).then(|| format!("{value} is not {rule}"))
            }
            "required" => {
                let names = rule.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                let missing = names.filter(|name| value.get(name).is_none()).collect::<Vec<_>>();
                (!missing.is_empty()).then(|| format!("{value} lacks {missing:?}"))
            }
            "properties" => value.as_object().into_iter().flatten().find_map(|(name, value)| {
                rule.get(name).and_then(|schema| misfit(root, schema, value))
            }),
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let strange = |(name, _): &(&String, &Value)| {
                    !known.is_some_and(|known| known.contains_key(*name))
                };
                let mut strange = value.as_object().into_iter().flatten().filter(strange);
                match rule.as_bool() {
                    Some(true) => None,
                    Some(false) => strange.next().map(|(name, _)| format!("{name} is not known")),
                    None => strange.find_map(|(_, value)| misfit(root, rule, value)),
                }
            }
            "items" => value.as_array().into_iter().flatten().find_map(|v| misfit(root, rule, v)),
            "enum" => (!rule.as_array().unwrap().contains(value))
                .then(|| format!("{value} not in {rule}")),
            "const" => (rule != value).then(|| format!("{value} is not {rule}")),
            "oneOf" | "anyOf" => {
                let fitting =
                    rule.as_array().unwrap().iter().filter(|s| misfit(root, s, value).is_none());
                let count = fitting.count();
                let right = count == 1 || count > 1 && keyword == "anyOf";
                (!right).then(|| format!("{value} fits {count} of {rule}"))
            }
            "minimum" => (value.is_number() && value.as_f64() < rule.as_f64())
                .then(|| format!("{value} < {rule}")),
            "maximum" => (value.is_number() && value.as_f64() > rule.as_f64())
                .then(|| format!("{value} > {rule}")),
            "$schema" | "$defs" | "description" | "format" | "default" | "title" => None,
            keyword => panic!("a keyword that this test does not know: {keyword}"),
        };
        if misfit.is_some() {
            return misfit;
        }
    }
    None
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        name => panic!("no type {name}"),
    }
}
