//! Writes the manual pages and the shell completions of `salt-bridge` into a folder:
//! `cargo run -p salt-bridge --example agent-manual -- FOLDER`.

use std::process::ExitCode;

mod pages;

fn main() -> ExitCode {
    pages::write_for("salt-bridge", &salt_bridge::command())
}
