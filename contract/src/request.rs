//! The line with which a framed request begins.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{PrincipalName, WIRE_VERSION, limits};

/// `{"frames":1,"body":N,"args":{…}}`, followed by a newline and by exactly N raw bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestLine {
    /// The version of the wire.
    pub frames: u8,
    /// How many raw bytes follow the newline, at most [`limits::BODY_BYTES`].
    #[serde(default)]
    pub body: u64,
    /// The parameters of the service, named as the tool's parameters are.
    #[serde(default)]
    pub args: Map<String, Value>,
    /// For whom the agent's side says it makes this call. A claim: nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalName>,
}

/// A line that is no framed request.
#[derive(Debug, thiserror::Error)]
pub enum RequestLineError {
    /// Longer than [`limits::REQUEST_LINE_BYTES`].
    #[error("the request line is longer than {} bytes", limits::REQUEST_LINE_BYTES)]
    TooLong,
    /// Not a JSON object of this form.
    #[error("the request is not a JSON object of the expected form: {0}")]
    Json(#[from] serde_json::Error),
    /// A version of the wire that this program does not speak.
    #[error("version {0} of the wire is not known here; this is version {WIRE_VERSION}")]
    Version(u8),
    /// `body` is above its limit.
    #[error("a body of {0} bytes is above the limit of {max}", max = limits::BODY_BYTES)]
    Body(u64),
}

impl RequestLine {
    /// A request with these parameters and a body of this many bytes.
    pub fn new(args: Map<String, Value>, body: u64) -> Self {
        Self { frames: WIRE_VERSION, body, args, principal: None }
    }

    /// The same, made for this principal. A dom0 that knows no principals answers `BadRequest`.
    #[must_use]
    pub fn for_principal(self, principal: Option<PrincipalName>) -> Self {
        Self { principal, ..self }
    }

    /// Reads a line, with or without its newline.
    pub fn parse(line: &[u8]) -> Result<Self, RequestLineError> {
        if line.len() > limits::REQUEST_LINE_BYTES {
            return Err(RequestLineError::TooLong);
        }
        let request: Self = serde_json::from_slice(line)?;
        if request.frames != WIRE_VERSION {
            return Err(RequestLineError::Version(request.frames));
        }
        if request.body > limits::BODY_BYTES {
            return Err(RequestLineError::Body(request.body));
        }
        Ok(request)
    }

    /// The line with its newline.
    pub fn render(&self) -> Result<Vec<u8>, RequestLineError> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        if line.len() > limits::REQUEST_LINE_BYTES {
            return Err(RequestLineError::TooLong);
        }
        Ok(line)
    }
}

/// Reads whatever it is given as a line and asserts that what was read survives a round trip.
pub fn fuzz_request_line(input: &[u8]) {
    let Ok(request) = RequestLine::parse(input) else { return };
    assert!(request.body <= limits::BODY_BYTES, "a body above its limit is read");
    let Ok(line) = request.render() else { return };
    let newlines = line.iter().filter(|byte| **byte == b'\n').count();
    assert!(newlines == 1 && line.ends_with(b"\n"), "a line is not one line");
    let again = RequestLine::parse(&line);
    // Numbers with a fraction are read to the last digit but one, and no service takes them.
    let fractions = request.args.values().any(holds_fraction);
    assert!(
        again.is_ok_and(|again| fractions || again == request),
        "a request line does not survive a round trip"
    );
}

fn holds_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(holds_fraction),
        Value::Object(object) => object.values().any(holds_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_one_line_of_json() {
        let mut args = Map::new();
        args.insert("command".into(), "printf 'a\nb'".into());
        let line = RequestLine::new(args, 3).render().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&line),
            "{\"frames\":1,\"body\":3,\"args\":{\"command\":\"printf 'a\\nb'\"}}\n"
        );
        assert_eq!(RequestLine::parse(&line).unwrap().body, 3);
    }

    #[test]
    fn the_principal_is_named_only_where_there_is_one() {
        let name = PrincipalName::parse("laptop").unwrap();
        let line = RequestLine::new(Map::new(), 0).for_principal(Some(name.clone()));
        let line = line.render().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&line),
            "{\"frames\":1,\"body\":0,\"args\":{},\"principal\":\"laptop\"}\n"
        );
        assert_eq!(RequestLine::parse(&line).unwrap().principal, Some(name));
        assert!(RequestLine::parse(br#"{"frames":1,"principal":"a b"}"#).is_err());
        assert_eq!(RequestLine::parse(br#"{"frames":1}"#).unwrap().principal, None);
    }

    #[test]
    fn wrong_lines_are_refused_for_what_is_wrong_with_them() {
        use RequestLineError as E;
        assert!(matches!(RequestLine::parse(b"{"), Err(E::Json(_))));
        assert!(matches!(RequestLine::parse(br#"{"frames":1,"x":2}"#), Err(E::Json(_))));
        assert!(matches!(RequestLine::parse(br#"{"frames":2}"#), Err(E::Version(2))));
        assert!(matches!(RequestLine::parse(br#"{"frames":1,"body":8388609}"#), Err(E::Body(_))));
        assert!(matches!(RequestLine::parse(&[b' '; 65 * 1024]), Err(E::TooLong)));
        let mut args = Map::new();
        args.insert("a".into(), "x".repeat(65 * 1024).into());
        assert!(matches!(RequestLine::new(args, 0).render(), Err(E::TooLong)));
        fuzz_request_line(br#"{"frames":1,"args":{"a":[{"b":0.1}],"c":{"d":[1]}}}"#);
    }

    proptest! {
        #[test]
        fn lines_of_likely_pieces_survive_a_round_trip(pieces in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "\"frames\":1", ",", "\"body\":", "7", "8388609", "-1", "1.5", "\"args\":{",
                "\"a\":", "\"\\u0000\\n\"", "[", "]", "null", "true", " ", "\n", "é",
            ]),
            0..20,
        )) {
            fuzz_request_line(pieces.concat().as_bytes());
            let args = format!("{{\"frames\":1,\"args\":{{\"a\":{}}}}}\n", pieces.concat());
            fuzz_request_line(args.as_bytes());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_request_line(&input);
        }
    }
}
