//! A reply as bytes: `0\0CONTENT`, or `2\0TYPE\0TRACEBACK\0MESSAGE\0`, or nothing at all.

use std::str;

use bytes::{BufMut, Bytes, BytesMut};

/// What qubesd says when it knows why it refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct Exception {
    /// The name of its class, such as `QubesVMNotFoundError`. New names appear with every release.
    pub kind: String,
    /// What it says; can be empty, can be quoted as Python quotes.
    pub message: String,
}

impl Exception {
    /// An exception of this kind.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into() }
    }

    /// Reads what follows the two bytes `2\0`.
    pub(crate) fn decode(fields: &[u8]) -> Result<Self, ResponseError> {
        let mut fields = fields.split(|byte| *byte == 0);
        let (Some(kind), Some(_traceback), Some(message), Some(_)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(ResponseError::Truncated);
        };
        Ok(Self {
            kind: str::from_utf8(kind).map_err(|_| ResponseError::NotUtf8)?.to_owned(),
            message: String::from_utf8_lossy(message).into_owned(),
        })
    }

    pub(crate) fn encode(&self, bytes: &mut BytesMut) {
        for part in ["2\0", &self.kind, "\0\0", &self.message, "\0"] {
            bytes.put_slice(part.as_bytes());
        }
    }
}

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The call was made; this is its result.
    Ok(Bytes),
    /// The call was refused with a reason.
    Exception(Exception),
}

/// Bytes that are no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Closed without one byte: denied, malformed, or an error of qubesd's own. Do not repeat.
    #[error("qubesd closed the connection without a reply")]
    Empty,
    /// The first two bytes are those of an event, which answers `admin.Events` only.
    #[error("qubesd answered with an event")]
    Event,
    /// The first two bytes are no status.
    #[error("a reply begins with unknown bytes")]
    Status,
    /// Ended before the end of the exception.
    #[error("a reply ended early")]
    Truncated,
    /// The kind of the exception is not UTF-8.
    #[error("the kind of an exception is not UTF-8")]
    NotUtf8,
}

impl Response {
    /// Reads everything that qubesd sent until it closed the connection.
    pub fn decode(bytes: &[u8]) -> Result<Self, ResponseError> {
        match bytes {
            [] => Err(ResponseError::Empty),
            [b'0', 0, content @ ..] => Ok(Self::Ok(Bytes::copy_from_slice(content))),
            [b'1', 0, ..] => Err(ResponseError::Event),
            [b'2', 0, fields @ ..] => Exception::decode(fields).map(Self::Exception),
            [b'0'..=b'2'] => Err(ResponseError::Truncated),
            [_, ..] => Err(ResponseError::Status),
        }
    }

    /// The bytes of this reply, as qubesd sends them (without a traceback).
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Ok(content) => {
                bytes.put_slice(b"0\0");
                bytes.put_slice(content);
            }
            Self::Exception(exception) => exception.encode(&mut bytes),
        }
        bytes.freeze()
    }
}

/// Decodes whatever it is given and asserts that what was decoded survives a round trip.
pub fn fuzz_response(input: &[u8]) {
    let Ok(response) = Response::decode(input) else { return };
    assert!(
        Response::decode(&response.encode()) == Ok(response),
        "a reply does not survive a round trip"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reply_is_content_or_an_exception() {
        assert_eq!(Response::decode(b"0\0"), Ok(Response::Ok(Bytes::new())));
        assert_eq!(Response::decode(b"0\0a\0b\n"), Ok(Response::Ok(Bytes::from_static(b"a\0b\n"))));
        let bytes = b"2\0QubesVMNotFoundError\0\0No such domain: 'x'\0";
        let exception = Exception::new("QubesVMNotFoundError", "No such domain: 'x'");
        assert_eq!(Response::decode(bytes), Ok(Response::Exception(exception.clone())));
        assert_eq!(&Response::Exception(exception).encode()[..], bytes);
    }

    #[test]
    fn a_traceback_and_further_fields_are_skipped() {
        assert_eq!(
            Response::decode(b"2\0SomeNewError\0Traceback\n..\0%s\0arg\0"),
            Ok(Response::Exception(Exception::new("SomeNewError", "%s")))
        );
    }

    #[test]
    fn everything_else_is_an_error_of_its_own() {
        assert_eq!(Response::decode(b""), Err(ResponseError::Empty));
        assert_eq!(Response::decode(b"1\0\0connection-established\0\0"), Err(ResponseError::Event));
        assert_eq!(Response::decode(b"HTTP/1.1"), Err(ResponseError::Status));
        assert_eq!(Response::decode(b"\x010"), Err(ResponseError::Status));
        assert_eq!(Response::decode(b"0"), Err(ResponseError::Truncated));
        for cut in 2..23 {
            let bytes = b"2\0QubesException\0\0why\0".get(..cut).unwrap_or_default();
            if cut < 22 {
                assert_eq!(Response::decode(bytes), Err(ResponseError::Truncated), "{cut}");
            }
        }
        assert_eq!(Response::decode(b"2\0\xff\0\0m\0"), Err(ResponseError::NotUtf8));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(
            status in prop::sample::select(vec![&b""[..], b"0\0", b"1\0", b"2\0", b"2\0E\0\0"]),
            input in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            fuzz_response(&[status, &input].concat());
        }
    }
}
