//! How a call of the Admin API fails.

use admin_api::{Exception, Response};
use bytes::Bytes;

/// A call that has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// qubesd says what is wrong.
    Exception(Exception),
    /// qubesd closes the connection without one byte, as for many errors of the user's.
    Empty,
}

impl Failure {
    /// An exception of this class.
    pub(crate) fn new(kind: &str, message: impl Into<String>) -> Self {
        Self::Exception(Exception::new(kind, message))
    }

    /// A request that is not of the form that its method asks for.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::new("ProtocolError", message)
    }

    /// A qube that does not exist.
    pub(crate) fn no_such_domain(name: &str) -> Self {
        Self::new("QubesVMNotFoundError", format!("No such domain: '{name}'"))
    }

    /// A value that cannot be.
    pub(crate) fn value(message: impl Into<String>) -> Self {
        Self::new("QubesValueError", message)
    }

    /// What goes over the wire.
    pub(crate) fn encode(self) -> Bytes {
        match self {
            Self::Exception(exception) => Response::Exception(exception).encode(),
            Self::Empty => Bytes::new(),
        }
    }
}
