//! qubesd: the Admin API of a simulated host, with state, events and exceptions like the real one.

pub(crate) mod create;
pub(crate) mod device;
mod dispatch;
mod event_log;
mod failure;
mod firewall;
mod label;
pub(crate) mod lifecycle;
mod property;
mod property_table;
mod request;
mod server;
mod set_value;
pub(crate) mod state;
pub(crate) mod tag;
mod value;
mod volume;

pub(crate) use dispatch::methods;
pub use event_log::EventLog;
pub(crate) use failure::Failure;
pub(crate) use request::resolve;
pub use server::Fault;
pub(crate) use server::{Faults, Hold, serve};
pub use state::PowerState;
pub(crate) use state::{Class, Qube, System};
