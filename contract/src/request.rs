//! The line with which a framed request begins.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{WIRE_VERSION, limits};

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
        Self { frames: WIRE_VERSION, body, args }
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn wrong_lines_are_refused_for_what_is_wrong_with_them() {
        use RequestLineError as E;
        assert!(matches!(RequestLine::parse(b"{"), Err(E::Json(_))));
        assert!(matches!(RequestLine::parse(br#"{"frames":1,"x":2}"#), Err(E::Json(_))));
        assert!(matches!(RequestLine::parse(br#"{"frames":2}"#), Err(E::Version(2))));
        assert!(matches!(RequestLine::parse(br#"{"frames":1,"body":8388609}"#), Err(E::Body(_))));
        assert!(matches!(RequestLine::parse(&[b' '; 65 * 1024]), Err(E::TooLong)));
    }
}
