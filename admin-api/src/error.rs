//! How a call to qubesd fails.

use std::io;

use crate::{EventError, Exception, ReplyError, RequestError, ResponseError};

/// Why a call has no result.
#[expect(clippy::error_impl_error, reason = "the one error of the crate, named as in std's io")]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at qubesd's socket.
    #[error("qubesd cannot be reached")]
    Unreachable(#[source] io::Error),
    /// No whole answer within the time given.
    #[error("qubesd did not answer in time")]
    TimedOut,
    /// Closed without one byte: denied, malformed, or an error of qubesd's own. Do not repeat.
    #[error("qubesd refused the call without a reason")]
    Empty,
    /// Refused with a reason.
    #[error("qubesd refused the call")]
    Exception(#[source] Exception),
    /// The call was made, but its result is not what it should be.
    #[error("qubesd's reply cannot be understood")]
    Reply(#[from] ReplyError),
    /// The bytes that came are no reply.
    #[error("qubesd's answer is no reply")]
    Response(#[source] ResponseError),
    /// The bytes that came are no events.
    #[error("qubesd's answer is no stream of events")]
    Event(#[from] EventError),
    /// The call cannot be written as a request.
    #[error("the call cannot be written as a request")]
    Request(#[from] RequestError),
    /// The reply is longer than the client takes.
    #[error("qubesd's reply is too large")]
    TooLarge,
    /// The connection broke.
    #[error("the connection to qubesd broke")]
    Io(#[source] io::Error),
}

impl Error {
    /// The name of the exception, if it is one.
    pub fn kind(&self) -> Option<&str> {
        if let Self::Exception(exception) = self { Some(&exception.kind) } else { None }
    }
}

impl From<ResponseError> for Error {
    fn from(error: ResponseError) -> Self {
        match error {
            ResponseError::Empty => Self::Empty,
            ResponseError::Event
            | ResponseError::Status
            | ResponseError::Truncated
            | ResponseError::NotUtf8 => Self::Response(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_reply_is_an_error_of_its_own() {
        assert!(matches!(Error::from(ResponseError::Empty), Error::Empty));
        assert!(matches!(
            Error::from(ResponseError::Status),
            Error::Response(ResponseError::Status)
        ));
        let error = Error::Exception(Exception::new("QubesVMNotFoundError", "m"));
        assert_eq!((error.kind(), Error::TimedOut.kind()), (Some("QubesVMNotFoundError"), None));
    }
}
