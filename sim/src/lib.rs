//! A Qubes host in one process, to try and to test Salt Bridge without Qubes.
//!
//! [`Host`] is a whole machine in a folder: qubesd's socket, qrexec with the policy files that are
//! installed in it, and qubes whose commands really run. Simulated qubes are no security boundary.

mod cli;
pub mod demo;
pub mod host;
pub mod layout;
mod mcp_client;
pub mod population;
mod program;
mod qrexec;
mod qube;
pub mod qubesd;
pub mod role;
mod spawn;
mod wire;

pub use cli::run;
pub use host::{Consent, DEFAULT_SCOPE, Daemon, Host, HostError, HostOptions, QubeState};
pub use layout::Layout;
pub use mcp_client::{Era, McpClient, McpError};
pub use population::{Population, Resident};
pub use qube::{Mode, StartError};
pub use qubesd::{EventLog, Fault, PowerState};
