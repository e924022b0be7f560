//! The arguments of a tool call as its service wants them: a qube, a request line, raw bytes.

use base64::{
    DecodeError, Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use contract::{Aim, Fault, PrincipalName, RequestLine, RequestLineError, limits, spec::BodyField};
use rmcp::model::JsonObject;
use serde_json::Value;

use crate::{catalogue::Row, schema};

/// The parameter that names the qube of a service that is aimed at one.
pub(crate) const QUBE_PARAMETER: &str = "vm_name";
/// The parameter that names the qubes of a tool that does the same on several.
pub(crate) const QUBES_PARAMETER: &str = "vm_names";

/// A call that may be sent.
#[derive(Debug)]
pub(crate) struct Call {
    /// The qube, where the service is aimed at one.
    pub(crate) qube: Option<QubeName>,
    /// What is written to the service.
    pub(crate) request: Request,
}

/// What is written to a service.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The request line with its newline.
    pub(crate) line: Bytes,
    /// The raw bytes behind it.
    pub(crate) body: Bytes,
}

/// A name that a qube could have. Whether there is such a qube is dom0's business.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QubeName(String);

impl QubeName {
    /// The longest name, in characters (`qubes/vm/__init__.py`).
    const CHARACTERS: usize = 31;

    /// Reads the name that a caller gave.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        // The other forms in which qrexec names a qube: answered as names of strangers are.
        if text.starts_with('@') || text.to_ascii_lowercase().starts_with("uuid:") {
            return Err(Fault::Refused {});
        }
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(inside)
            && text.len() <= Self::CHARACTERS
        {
            return Ok(Self(text.into()));
        }
        Err(Fault::bad_request(format!(
            "argument {QUBE_PARAMETER:?} is not the name of a qube: a name begins with a letter, \
             holds only letters, digits, '_', '-' and '.', and has at most {} characters",
            Self::CHARACTERS
        )))
    }

    /// The name.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Request {
    /// A request with these arguments and this body.
    pub(crate) fn new(arguments: JsonObject, body: Vec<u8>) -> Result<Self, Fault> {
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        if length > limits::BODY_BYTES {
            return Err(Fault::TooLarge {
                message: format!(
                    "one call carries at most {} bytes of content, and these are {length}; \
                     send them in several calls",
                    limits::BODY_BYTES
                ),
            });
        }
        let line =
            RequestLine::new(arguments, length).render().map_err(|error| line_fault(&error))?;
        Ok(Self { line: line.into(), body: body.into() })
    }

    /// The same request, made in the name of this principal.
    pub(crate) fn for_principal(self, name: &PrincipalName) -> Result<Self, Fault> {
        let line = RequestLine::parse(&self.line)
            .and_then(|line| line.for_principal(Some(name.clone())).render())
            .map_err(|error| line_fault(&error))?;
        Ok(Self { line: line.into(), body: self.body })
    }
}

fn line_fault(error: &RequestLineError) -> Fault {
    match error {
        RequestLineError::TooLong => Fault::TooLarge {
            message: format!(
                "the arguments of one call take at most {} bytes as JSON",
                limits::REQUEST_LINE_BYTES
            ),
        },
        RequestLineError::Json(_) | RequestLineError::Version(_) | RequestLineError::Body(_) => {
            Fault::bad_request(error.to_string())
        }
    }
}

impl Call {
    /// Reads the arguments of a call to this tool.
    pub(crate) fn parse(row: &Row, arguments: JsonObject) -> Result<Self, Fault> {
        let mut arguments = parse_by_schema(row.input(), arguments)?;
        let qube = match row.spec.aim {
            Aim::Qube => match take_string(&mut arguments, QUBE_PARAMETER) {
                Some(name) => Some(QubeName::parse(&name)?),
                None => return Err(missing(QUBE_PARAMETER)),
            },
            Aim::Scope => None,
        };
        Ok(Self { qube, request: parse_request(row, arguments)? })
    }

    /// Reads the arguments of a call to the tool that does the same on several qubes, whose
    /// parameters have this schema: a call for each qube, in the order of the names.
    pub(crate) fn parse_batch(
        row: &Row,
        schema: &JsonObject,
        arguments: JsonObject,
    ) -> Result<Vec<(QubeName, Self)>, Fault> {
        let mut arguments = parse_by_schema(schema, arguments)?;
        let Some(Value::Array(names)) = arguments.remove(QUBES_PARAMETER) else {
            return Err(missing(QUBES_PARAMETER));
        };
        let names: Vec<QubeName> = names
            .iter()
            .filter_map(Value::as_str)
            .map(QubeName::parse)
            .collect::<Result<_, _>>()?;
        let request = parse_request(row, arguments)?;
        let call =
            |qube: QubeName| (qube.clone(), Self { qube: Some(qube), request: request.clone() });
        Ok(names.into_iter().map(call).collect())
    }
}

/// Reads arguments by the schema of their tool.
pub(crate) fn parse_by_schema(
    schema: &JsonObject,
    arguments: JsonObject,
) -> Result<JsonObject, Fault> {
    schema::parse_arguments(schema, arguments)
        .map_err(|mismatch| Fault::bad_request(mismatch.to_string()))
}

fn missing(parameter: &str) -> Fault {
    Fault::bad_request(format!("argument {parameter:?} is missing"))
}

fn parse_request(row: &Row, mut arguments: JsonObject) -> Result<Request, Fault> {
    let body = match &row.spec.body {
        Some(field) => parse_body(field, &mut arguments)?,
        None => Vec::new(),
    };
    Request::new(arguments, body)
}

fn take_string(arguments: &mut JsonObject, name: &str) -> Option<String> {
    match arguments.remove(name)? {
        Value::String(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

/// Models wrap base64 into lines and leave its padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes base64 where it lies: a long content would take its length once more otherwise.
fn decode_in_place(text: &mut Vec<u8>) -> Result<(), DecodeError> {
    /// A multiple of 4, so that only the last piece can be padded.
    const PIECE: usize = 4096;
    text.retain(|byte| !byte.is_ascii_whitespace());
    let (mut read, mut written) = (0, 0);
    let mut decoded = [0; PIECE];
    while let Some(rest) = text.get(read..).filter(|rest| !rest.is_empty()) {
        let piece = rest.get(..PIECE).unwrap_or(rest);
        let last = piece.len() == rest.len();
        let count =
            BASE64.decode_slice_unchecked(piece, &mut decoded).map_err(|error| at(error, read))?;
        if !last && count < PIECE / 4 * 3 {
            return Err(DecodeError::InvalidPadding);
        }
        read += piece.len();
        let (Some(target), Some(source)) =
            (text.get_mut(written..written + count), decoded.get(..count))
        else {
            return Err(DecodeError::InvalidPadding);
        };
        target.copy_from_slice(source);
        written += count;
    }
    text.truncate(written);
    Ok(())
}

/// The error of a piece, as one of the whole text.
fn at(error: DecodeError, begin: usize) -> DecodeError {
    match error {
        DecodeError::InvalidByte(offset, byte) => DecodeError::InvalidByte(begin + offset, byte),
        DecodeError::InvalidLastSymbol { offset, symbol, symbol_value } => {
            DecodeError::InvalidLastSymbol { offset: begin + offset, symbol, symbol_value }
        }
        DecodeError::InvalidLength(length) => DecodeError::InvalidLength(begin + length),
        DecodeError::InvalidPadding => DecodeError::InvalidPadding,
    }
}

/// Takes the argument that travels as raw bytes out of the others.
fn parse_body(field: &BodyField, arguments: &mut JsonObject) -> Result<Vec<u8>, Fault> {
    let encoding = take_string(arguments, &field.encoding);
    let Some(content) = take_string(arguments, &field.field) else { return Ok(Vec::new()) };
    match encoding.as_deref() {
        None | Some("utf-8") => Ok(content.into_bytes()),
        Some("base64") => {
            let mut content = content.into_bytes();
            decode_in_place(&mut content).map_err(|error| {
                Fault::bad_request(format!("argument {:?} is not base64: {error}", field.field))
            })?;
            Ok(content)
        }
        Some(other) => Err(Fault::bad_request(format!(
            "argument {:?} must be \"utf-8\" or \"base64\", not {other:?}",
            field.encoding
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use serde_json::json;

    fn parse(tool: &str, arguments: Value) -> Result<Call, Fault> {
        let Value::Object(arguments) = arguments else { panic!("not an object") };
        Call::parse(testing::tools().row(tool), arguments)
    }

    fn sentence(tool: &str, arguments: Value) -> String {
        parse(tool, arguments).unwrap_err().sentence()
    }

    #[test]
    fn the_qube_travels_apart_from_the_other_arguments() {
        let call = parse("exec_in_vm", json!({"vm_name": "work", "command": "id"})).unwrap();
        assert_eq!(call.qube, Some(QubeName("work".into())));
        assert_eq!(
            &call.request.line[..],
            b"{\"frames\":1,\"body\":0,\"args\":{\"command\":\"id\"}}\n"
        );
        assert!(call.request.body.is_empty());
    }

    #[test]
    fn content_travels_as_raw_bytes() {
        let arguments = json!({"vm_name": "work", "file_path": "/x", "content": "a\u{0}ö\n"});
        let call = parse("write_file_in_vm", arguments).unwrap();
        assert_eq!(&call.request.body[..], b"a\0\xc3\xb6\n");
        assert_eq!(
            &call.request.line[..],
            b"{\"frames\":1,\"body\":5,\"args\":{\"file_path\":\"/x\"}}\n"
        );
        for content in ["AP8Q", "AP8\nQ\n", " AP8Q "] {
            let arguments = json!({"vm_name": "work", "file_path": "/x", "content": content,
                "encoding": "base64"});
            let call = parse("write_file_in_vm", arguments).unwrap();
            assert_eq!(&call.request.body[..], b"\x00\xff\x10");
        }
    }

    #[test]
    fn base64_is_decoded_where_it_lies_as_it_would_be_elsewhere() {
        for length in [0, 1, 2, 3, 3071, 3072, 3073, 3074, 10_000] {
            let bytes: Vec<u8> = (0..=255).cycle().take(length).collect();
            let mut text = BASE64.encode(&bytes).into_bytes();
            decode_in_place(&mut text).unwrap();
            assert_eq!(text, bytes);
        }
        let mut padded = [vec![b'A'; 4094], b"==AAAA".to_vec()].concat();
        assert_eq!(decode_in_place(&mut padded), Err(DecodeError::InvalidPadding));
        let mut late = [vec![b'A'; 5000], b"?AAA".to_vec()].concat();
        assert_eq!(decode_in_place(&mut late), Err(DecodeError::InvalidByte(5000, b'?')));
    }

    #[test]
    fn content_that_is_no_base64_is_refused_by_name() {
        let arguments = json!({"vm_name": "work", "file_path": "/x", "content": "?",
            "encoding": "base64"});
        let sentence = sentence("write_file_in_vm", arguments);
        assert!(
            sentence.starts_with("bad request: argument \"content\" is not base64"),
            "{sentence}"
        );
    }

    #[test]
    fn what_is_too_large_is_told_with_its_limit() {
        let content = "x".repeat(8 * 1024 * 1024 + 1);
        let arguments = json!({"vm_name": "work", "file_path": "/x", "content": content});
        let told = sentence("write_file_in_vm", arguments);
        assert!(told.contains("8388608 bytes") && told.contains("8388609"), "{told}");

        let arguments = json!({"vm_name": "work", "command": "x".repeat(64 * 1024)});
        let told = sentence("exec_in_vm", arguments);
        assert!(told.starts_with("too large:") && told.contains("65536 bytes"), "{told}");
    }

    #[test]
    fn a_text_that_cannot_be_a_name_is_answered_with_what_a_name_is() {
        for name in ["", "1work", "wo rk", "work\n", "wörk", "-d", "a/b", &"a".repeat(32)] {
            let sentence = sentence("exec_in_vm", json!({"vm_name": name, "command": "id"}));
            assert!(sentence.contains("a name begins with a letter"), "{name:?}: {sentence}");
        }
        for name in ["work", "a", "sys-net", "my.qube_2", "DOM0", &"a".repeat(31)] {
            assert_eq!(QubeName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn other_ways_to_name_a_qube_are_refused_as_strangers_are() {
        for name in ["@adminvm", "@dispvm:x", "uuid:0", "UUID:0"] {
            assert_eq!(QubeName::parse(name), Err(Fault::Refused {}), "{name}");
        }
    }
}
