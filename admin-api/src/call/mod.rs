//! Typed calls: for every method one function that gives its request and knows its reply. No I/O.

pub mod create;
pub mod device;
pub mod feature;
pub mod firewall;
pub mod label;
pub mod lifecycle;
pub mod pool;
pub mod property;
pub mod tag;
pub mod vm;
pub mod volume;

use std::fmt;
use std::str::{self, FromStr};

use crate::{Error, NameError, Request, Response, Source};

/// A request together with what its reply means.
pub struct Call<T> {
    /// What is sent.
    pub request: Request,
    decode: fn(&[u8]) -> Result<T, ReplyError>,
}

/// The content of a reply is not what its method promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The content is not UTF-8.
    #[error("the reply is not UTF-8")]
    NotUtf8,
    /// Content where none is expected.
    #[error("the reply has content where none is expected")]
    NotEmpty,
    /// A key is missing.
    #[error("the reply lacks {key}")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value cannot be read.
    #[error("the reply has {found:?} where {expected} is expected")]
    Value {
        /// What was expected.
        expected: &'static str,
        /// What came, cut after 80 characters.
        found: String,
    },
    /// A name cannot be read.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl ReplyError {
    /// A value that cannot be read.
    pub fn value(expected: &'static str, found: &str) -> Self {
        Self::Value { expected, found: found.chars().take(80).collect() }
    }
}

impl<T> Call<T> {
    /// A call of a method that has no function here.
    pub fn new(request: Request, decode: fn(&[u8]) -> Result<T, ReplyError>) -> Self {
        Self { request, decode }
    }

    /// The same call in the name of somebody else.
    #[must_use]
    pub fn source(self, source: Source) -> Self {
        Self { request: self.request.source(source), ..self }
    }

    /// What a whole reply means: everything that came until the connection was closed.
    pub fn answer(&self, bytes: &[u8]) -> Result<T, Error> {
        match Response::decode(bytes)? {
            Response::Ok(content) => Ok((self.decode)(&content)?),
            Response::Exception(exception) => Err(Error::Exception(exception)),
        }
    }
}

impl<T> Clone for Call<T> {
    fn clone(&self) -> Self {
        Self { request: self.request.clone(), decode: self.decode }
    }
}

impl<T> fmt::Debug for Call<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Call").field("request", &self.request).finish_non_exhaustive()
    }
}

/// The reply of a method that only does something.
fn nothing(content: &[u8]) -> Result<(), ReplyError> {
    if content.is_empty() { Ok(()) } else { Err(ReplyError::NotEmpty) }
}

fn text(content: &[u8]) -> Result<&str, ReplyError> {
    str::from_utf8(content).map_err(|_| ReplyError::NotUtf8)
}

fn owned_text(content: &[u8]) -> Result<String, ReplyError> {
    text(content).map(str::to_owned)
}

/// One item a line.
fn lines<T: FromStr<Err = NameError>>(content: &[u8]) -> Result<Vec<T>, ReplyError> {
    text(content)?.lines().map(|line| line.parse().map_err(ReplyError::Name)).collect()
}

/// One word or path a line.
fn text_lines(content: &[u8]) -> Result<Vec<String>, ReplyError> {
    Ok(text(content)?.lines().map(str::to_owned).collect())
}

/// The value of the first `KEY=VALUE` among these.
fn value<'a>(
    mut pairs: impl Iterator<Item = &'a str>,
    key: &'static str,
) -> Result<&'a str, ReplyError> {
    pairs
        .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
        .ok_or(ReplyError::Missing { key })
}

fn number<T: FromStr>(expected: &'static str, found: &str) -> Result<T, ReplyError> {
    found.parse().map_err(|_| ReplyError::value(expected, found))
}

/// `True` or `False`, as Python prints them.
fn boolean(expected: &'static str, found: &str) -> Result<bool, ReplyError> {
    match found {
        "True" => Ok(true),
        "False" => Ok(false),
        _ => Err(ReplyError::value(expected, found)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Destination;
    use bytes::Bytes;

    /// The bytes that a call sends.
    pub(crate) fn sent<T>(call: &Call<T>) -> Bytes {
        call.request.encode().unwrap()
    }

    /// The destination `work`.
    pub(crate) fn work() -> Destination {
        Destination::parse("work").unwrap()
    }

    #[test]
    fn an_answer_is_the_value_the_exception_or_what_is_wrong_with_the_bytes() {
        let call = Call::new(Request::new("admin.vm.Start", work()), nothing);
        assert!(call.answer(b"0\0").is_ok());
        assert!(matches!(call.answer(b"0\0x"), Err(Error::Reply(ReplyError::NotEmpty))));
        assert!(matches!(call.answer(b""), Err(Error::Empty)));
        assert!(matches!(call.answer(b"?"), Err(Error::Response(_))));
        let error = call.answer(b"2\0NewInR5Error\0\0why\0").unwrap_err();
        assert_eq!(error.kind(), Some("NewInR5Error"));
    }

    #[test]
    fn a_call_can_be_made_in_the_name_of_a_qube() {
        let call = Call::new(Request::new("admin.vm.List", Destination::Dom0), nothing)
            .source(Source::parse("salt-bridge").unwrap());
        assert_eq!(&sent(&call)[..], b"admin.vm.List+ salt-bridge name dom0\0");
    }

    #[test]
    fn an_unreadable_value_is_told_in_part() {
        let error = ReplyError::value("a size", &"x".repeat(1000));
        assert!(matches!(error, ReplyError::Value { found, .. } if found.len() == 80));
    }
}
