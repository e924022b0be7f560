//! The agent's side of Salt Bridge: an MCP server on stdio that forwards every tool call to dom0.
//!
//! It decides nothing and knows nothing per service: the tools, what a call carries and what an
//! answer holds are all computed from the rows of `contract/catalogue.json`.

mod addresses;
mod agent;
mod answer;
mod arguments;
mod batch;
mod caller;
mod catalogue;
mod cli;
mod commands;
mod confinement;
mod dom0;
mod harden;
mod http;
mod log;
mod narrowing;
mod onion;
mod principals;
mod progress;
mod prompts;
mod qrexec;
mod queue;
mod reply;
mod resources;
mod schema;
mod secret_file;
mod server;
mod stdio;
mod subscriptions;
mod topology;
mod transfer;
mod vms;

#[cfg(test)]
mod testing;

pub use cli::{command, run};
