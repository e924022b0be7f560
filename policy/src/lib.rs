//! Who may do what: the operator's file, authority as types, qrexec policy rendered and evaluated.
//!
//! This crate does no I/O.

pub mod authority;
pub mod caller;
mod compat;
pub mod evaluate;
pub mod powers;
pub mod render;
pub mod scope;
pub mod tcp;
pub mod tier;
pub mod until;

pub use authority::{Address, Birth, Claim, Class, DOM0_UUID, Live, ManagedQube, Reason, Refused};
pub use caller::Caller;
pub use compat::{QMCP_DIRECT, QMCP_IN_QUBES, QMCP_SERVICES};
pub use powers::{Consent, Powers, PowersError};
pub use render::{ServiceLine, render_deny_all, render_policy};
pub use scope::{Block, COMPAT_QMCP, Grant, LineError, Scope, ScopeError, Target};
pub use tcp::{TcpRule, TcpRules, TcpRulesError};
pub use tier::{SandboxRules, Tier};
pub use until::{Until, UntilError};
