//! What the agent's side and dom0 share: services as data, powers, the wire, faults, limits.
//!
//! This crate does no I/O and knows neither MCP nor qubesd.

pub mod fault;
pub mod frame;
pub mod limits;
pub mod power;
pub mod principal;
pub mod request;
pub mod spec;

pub use fault::Fault;
pub use frame::{Frame, FrameCodec, FrameError, Kind};
pub use power::Power;
pub use principal::{PrincipalName, PrincipalNameError};
pub use request::{RequestLine, RequestLineError};
pub use spec::{Aim, ByteField, Catalogue, Spec, Stream};

/// What every service's qrexec name begins with.
pub const SERVICE_PREFIX: &str = "saltbridge.";
/// The version of the wire, as the `frames` key of a request names it.
pub const WIRE_VERSION: u8 = 1;
