//! dom0's side of Salt Bridge: one table of services, and the one path on which calls reach them.
//!
//! A call comes in at [`serve`], is admitted by `policy`, and runs the handler of its row in
//! [`services`]. Handlers reach qubesd and the qubes through [`handle`] alone, which takes no name
//! of a qube, only a `ManagedQube`.

mod admission;
pub mod agents;
pub mod answer;
mod audit;
mod births;
#[cfg(feature = "schema")]
pub mod catalogue;
mod cli;
mod copies;
pub mod cut;
pub mod descriptor;
mod edit;
pub mod error;
mod events;
mod files;
mod firewall;
mod firewall_history;
mod flat;
pub mod handle;
mod hang_up;
mod hidden;
pub mod host;
pub mod incoming;
mod jobs;
pub mod journal;
mod ledger;
mod operator;
mod operator_policy;
mod outcome;
pub mod paths;
mod pause;
mod plain;
mod qmcp;
mod relay;
mod replace;
pub mod run;
pub mod scope_file;
pub mod serve;
pub mod service;
pub mod services;
pub mod settings;
mod shape;
mod tcp_policy;
mod tcp_rules;
mod terminal;
mod times;
mod under_way;
pub mod view;
mod visible;

pub use cli::{command, run};
pub use ledger::fuzz_ledger_entry;
pub use operator::fuzz_denial;
pub use qmcp::fuzz_qmcp_request;
