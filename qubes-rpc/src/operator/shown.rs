//! How commands answer: a table for a person, JSON for a program.

use std::io::{self, Write};

use comfy_table::{Table, TableStyle};
use serde::Serialize;

use super::OperatorError;
use crate::terminal::escape_json;

/// Prints rows as a table with these headings, or with `--json` as an array of objects.
pub(crate) fn show_rows<T: Serialize>(
    json: bool,
    headings: &[&str],
    rows: &[T],
    cells: impl Fn(&T) -> Vec<String>,
) -> Result<(), OperatorError> {
    if json {
        return show_json(&rows);
    }
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(headings.iter().map(|word| word.to_uppercase()));
    table.add_rows(rows.iter().map(cells));
    show_text(&format!("{}\n", table.trim_fmt()))
}

/// Prints a value as JSON.
pub(crate) fn show_json<T: Serialize>(value: &T) -> Result<(), OperatorError> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from);
    show_text(&(escape_json(&text.map_err(OperatorError::Output)?) + "\n"))
}

/// Prints text as it is.
pub(crate) fn show_text(text: &str) -> Result<(), OperatorError> {
    io::stdout().lock().write_all(text.as_bytes()).map_err(OperatorError::Output)
}
