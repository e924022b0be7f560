//! Qubes that are made for an agent: whole and in its scope, or not at all.
//!
//! Before the first step that makes something stands an entry in the ledger, and it falls when the
//! qube is whole, or gone. As long as it stands, no call reaches the qube.

mod budget;
mod clone;
mod create;
mod disposable;
mod ledger;
mod network;
mod source;
mod tier;
mod undo;

pub(crate) use create::{NewClass, Newborn, Plan};
pub(crate) use ledger::{Births, Entry};
pub(crate) use network::{Asked, Network};
pub(crate) use source::{Source, parse_named};
pub(crate) use undo::reap;
