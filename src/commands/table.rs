//! Results of tools as people read them.

use comfy_table::{Table, TableStyle};
use rmcp::model::JsonObject;
use serde_json::Value;

/// A result: short values as `name: value`, lists of objects as tables.
pub(super) fn render(result: &JsonObject) -> String {
    let mut text = String::new();
    for (name, value) in result {
        match value {
            Value::Array(rows) if rows.iter().all(Value::is_object) && !rows.is_empty() => {
                text.push_str(&format!("{name}:\n{}\n", render_rows(rows)));
            }
            Value::Object(fields) if !fields.is_empty() => {
                text.push_str(&format!("{name}:\n"));
                for line in render(fields).lines() {
                    text.push_str(&format!("  {line}\n"));
                }
            }
            Value::String(lines) if lines.contains('\n') => {
                text.push_str(&format!("{name}:\n{}\n", plain(lines.trim_end_matches('\n'))));
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => text.push_str(&format!("{name}: {}\n", cell(value))),
        }
    }
    text
}

fn render_rows(rows: &[Value]) -> String {
    let rows: Vec<&JsonObject> = rows.iter().filter_map(Value::as_object).collect();
    let mut columns: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(&name.as_str()) {
            columns.push(name);
        }
    }
    // What a person looks for first, of whatever the rows hold.
    columns.sort_by_key(|name| match *name {
        "name" | "vm_name" | "number" | "handle" => 0,
        "state" | "ok" | "rule" => 1,
        _ => 2,
    });
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.set_header(columns.clone());
    for row in rows {
        table.add_row(columns.iter().map(|name| row.get(*name).map(cell).unwrap_or_default()));
    }
    table.trim_fmt()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => plain(text),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).map(plain).collect::<Vec<_>>().join(" ")
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Text from a qube without what steers a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_become_tables_and_nothing_steers_the_terminal() {
        let Value::Object(result) = json!({
            "vms": [{"label": "red", "name": "work", "netvm": null, "powers": ["see", "exec"]}],
            "properties": {"ip": "10.137.0.5"},
            "title": "\u{1b}[31mred",
            "none": []
        }) else {
            panic!("not an object")
        };
        let text = render(&result);
        assert!(text.contains("name  label  netvm  powers"), "{text}");
        assert!(text.contains("work  red    -      see exec"), "{text}");
        assert!(text.contains("properties:\n  ip: 10.137.0.5\n"), "{text}");
        assert!(text.contains("title: \u{fffd}[31mred\n") && text.contains("none: \n"), "{text}");
    }
}
