//! A request as bytes: `METHOD+ARGUMENT SOURCE name DESTINATION\0PAYLOAD`.

use std::borrow::Cow;
use std::str;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Destination, NameError, Source};

/// How many bytes qubesd takes; of more it closes the connection without a reply.
pub const REQUEST_BYTES: usize = 65_536;

/// A call before it has a type: what is asked, by whom, of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, such as `admin.vm.Start`.
    pub method: Cow<'static, str>,
    /// What follows the first `+`; often empty.
    pub argument: String,
    /// In whose name the request is made.
    pub source: Source,
    /// Whom it is aimed at.
    pub destination: Destination,
    /// Everything after the NUL.
    pub payload: Bytes,
}

/// Why a request cannot be written, or why bytes are no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The method is empty or has a character other than letters, digits, `_`, `.`, `-`.
    #[error("the method of a request is malformed")]
    Method,
    /// The argument has a space, a control character or a character outside ASCII.
    #[error("the argument of a request is malformed")]
    Argument,
    /// Longer than [`REQUEST_BYTES`].
    #[error("a request of {0} bytes is longer than {REQUEST_BYTES}")]
    TooLong(usize),
    /// A part is missing, is not ASCII, or the destination is of a kind that qubesd does not take.
    #[error("these bytes have not the form of a request")]
    Framing,
    /// The source is no name.
    #[error("the source of a request is malformed")]
    Source(#[source] NameError),
    /// The destination is no name.
    #[error("the destination of a request is malformed")]
    Destination(#[source] NameError),
}

impl Request {
    /// A request without argument and payload, in the name of dom0.
    pub fn new(method: impl Into<Cow<'static, str>>, destination: Destination) -> Self {
        Self {
            method: method.into(),
            argument: String::new(),
            source: Source::Dom0,
            destination,
            payload: Bytes::new(),
        }
    }

    /// The same request with this argument.
    #[must_use]
    pub fn argument(self, argument: impl Into<String>) -> Self {
        Self { argument: argument.into(), ..self }
    }

    /// The same request with this payload.
    #[must_use]
    pub fn payload(self, payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), ..self }
    }

    /// The same request in the name of somebody else.
    #[must_use]
    pub fn source(self, source: Source) -> Self {
        Self { source, ..self }
    }

    /// The bytes to send before shutting down the write side.
    pub fn encode(&self) -> Result<Bytes, RequestError> {
        let method = |found: u8| found.is_ascii_alphanumeric() || b"_.-".contains(&found);
        if self.method.is_empty() || !self.method.bytes().all(method) {
            return Err(RequestError::Method);
        }
        if !self.argument.bytes().all(|found| found.is_ascii_graphic()) {
            return Err(RequestError::Argument);
        }
        let (source, destination) = (self.source.to_string(), self.destination.to_string());
        let parts: [&[u8]; 8] = [
            self.method.as_bytes(),
            b"+",
            self.argument.as_bytes(),
            b" ",
            source.as_bytes(),
            b" name ",
            destination.as_bytes(),
            b"\0",
        ];
        let length = parts.iter().map(|part| part.len()).sum::<usize>() + self.payload.len();
        if length > REQUEST_BYTES {
            return Err(RequestError::TooLong(length));
        }
        let mut bytes = BytesMut::with_capacity(length);
        for part in parts {
            bytes.put_slice(part);
        }
        bytes.put_slice(&self.payload);
        Ok(bytes.freeze())
    }

    /// Reads a request as qubesd does: the `+` may be missing, and `keyword adminvm` is dom0.
    pub fn decode(bytes: &[u8]) -> Result<Self, RequestError> {
        if bytes.len() > REQUEST_BYTES {
            return Err(RequestError::TooLong(bytes.len()));
        }
        let end = bytes.iter().position(|byte| *byte == 0).ok_or(RequestError::Framing)?;
        let (head, rest) = bytes.split_at_checked(end).ok_or(RequestError::Framing)?;
        let payload = rest.split_first().map_or(&b""[..], |(_, payload)| payload);
        let head = str::from_utf8(head).map_err(|_| RequestError::Framing)?;
        let mut words = head.splitn(4, ' ');
        let (Some(call), Some(source), Some(kind), Some(destination)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(RequestError::Framing);
        };
        let destination = match (kind, destination) {
            ("keyword", "adminvm") => Ok(Destination::Dom0),
            ("name", name) => Destination::parse(name).map_err(RequestError::Destination),
            _ => Err(RequestError::Framing),
        }?;
        let (method, argument) = call.split_once('+').unwrap_or((call, ""));
        Ok(Self {
            method: Cow::Owned(method.to_owned()),
            argument: argument.to_owned(),
            source: Source::parse(source).map_err(RequestError::Source)?,
            destination,
            payload: Bytes::copy_from_slice(payload),
        })
    }
}

/// Decodes whatever it is given and asserts that what can be written again reads the same.
pub fn fuzz_request(input: &[u8]) {
    let Ok(request) = Request::decode(input) else { return };
    let Ok(bytes) = request.encode() else { return };
    assert!(Request::decode(&bytes) == Ok(request), "a request does not survive a round trip");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn work() -> Destination {
        Destination::parse("work").unwrap()
    }

    #[test]
    fn a_request_is_method_argument_source_destination_and_payload() {
        let request = Request::new("admin.vm.property.Set", work()).argument("netvm").payload("");
        let bytes = request.encode().unwrap();
        assert_eq!(&bytes[..], b"admin.vm.property.Set+netvm dom0 name work\0");
        fuzz_request(&bytes);
        let request = Request::new("admin.vm.tag.Set", work())
            .argument("x")
            .payload(&b"a\0b"[..])
            .source(Source::parse("salt-bridge").unwrap());
        let bytes = request.encode().unwrap();
        assert_eq!(&bytes[..], b"admin.vm.tag.Set+x salt-bridge name work\0a\0b");
        assert_eq!(Request::decode(&bytes), Ok(request));
    }

    #[test]
    fn what_would_break_the_frame_cannot_be_written() {
        for argument in ["a b", "a\0b", "a\nb", "é"] {
            let request = Request::new("admin.vm.tag.Set", work()).argument(argument);
            assert_eq!(request.encode(), Err(RequestError::Argument));
        }
        for method in ["", "a b", "a+b", "a\0"] {
            assert_eq!(Request::new(method, work()).encode(), Err(RequestError::Method));
        }
        let room = REQUEST_BYTES - b"admin.vm.notes.Set+ dom0 name work\0".len();
        let request =
            |length: usize| Request::new("admin.vm.notes.Set", work()).payload(vec![b'x'; length]);
        assert_eq!(request(room).encode().unwrap().len(), REQUEST_BYTES);
        assert_eq!(request(room + 1).encode(), Err(RequestError::TooLong(REQUEST_BYTES + 1)));
    }

    #[test]
    fn bytes_that_are_no_request_are_refused_for_what_is_wrong_with_them() {
        use RequestError as E;
        for bad in [
            "",
            "admin.vm.List",
            "admin.vm.List+\0",
            "m+ dom0\0",
            "m+ dom0 name\0",
            "m+ dom0 keyword dispvm\0",
        ] {
            assert_eq!(Request::decode(bad.as_bytes()), Err(E::Framing), "{bad:?}");
        }
        assert!(matches!(Request::decode(b"m+ dom0 name bad/name\0"), Err(E::Destination(_))));
        assert!(matches!(Request::decode(b"m+ uuid:x name work\0"), Err(E::Source(_))));
        assert_eq!(
            Request::decode(b"m dom0 keyword adminvm\0").unwrap().destination,
            Destination::Dom0
        );
        assert_eq!(Request::decode(&vec![b'x'; 70_030]), Err(E::TooLong(70_030)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_request(&input);
        }

        #[test]
        fn requests_survive_a_round_trip(
            method in "[a-z.]{1,20}", argument in "[!-~]{0,20}", payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let request = Request::new(method, work()).argument(argument).payload(payload);
            prop_assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
        }
    }
}
