//! The gate that every change of a file passes, so that tests can stop or fail any of them.

use std::{fmt::Debug, fs::File, io};

/// What is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Something comes, goes or is renamed.
    Change,
    /// Bytes are written.
    Write,
}

/// Asked before each operation.
pub(super) trait Gate: Debug {
    /// Lets the operation happen, or is the reason why it fails.
    fn pass(&self, operation: Operation) -> io::Result<()>;

    /// Makes what was written last when power fails.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }
}

/// Lets everything happen.
#[derive(Debug)]
pub(super) struct Open;

impl Gate for Open {
    fn pass(&self, _: Operation) -> io::Result<()> {
        Ok(())
    }
}
