//! Writes the manual pages and the shell completions of `saltbridged` into a folder:
//! `cargo run -p qubes-rpc --example manual -- FOLDER`.

use std::process::ExitCode;

mod pages;

fn main() -> ExitCode {
    pages::write_for("saltbridged", &qubes_rpc::command())
}
