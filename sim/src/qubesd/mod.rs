//! qubesd: the Admin API of a simulated host, with state, events and exceptions like the real one.

mod dispatch;
mod event_log;
mod failure;
pub(crate) mod lifecycle;
pub(crate) mod property_table;
mod request;
mod server;
pub(crate) mod state;
mod value;

pub use event_log::EventLog;
pub(crate) use failure::Failure;
pub use server::Fault;
pub(crate) use server::{Faults, serve};
pub use state::PowerState;
pub(crate) use state::{Class, Qube, System};
