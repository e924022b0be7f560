//! Lines on standard error, which systemd and MCP clients keep.

use std::io::{self, Write};

/// Writes an error with its causes behind it.
pub(crate) fn error(error: &dyn std::error::Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    line(&text);
}

/// Writes a line.
pub(crate) fn line(text: &str) {
    // Nobody is left to tell when standard error is gone.
    drop(writeln!(io::stderr(), "salt-bridge: {text}"));
}
