//! The frames of an answer, put together. Bytes and frames only; knows neither MCP nor processes.

use std::io;

use contract::{Fault, Frame, Kind, limits};
use serde::Deserialize;

/// Takes the frames of an answer as they come.
pub(crate) trait Receiver: Send {
    /// Takes the next frame. An error ends the call.
    fn take(&mut self, frame: &Frame) -> Result<Step, ReplyError>;
}

/// A complete answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The JSON result.
    pub(crate) json: Vec<u8>,
    /// The bytes of the main stream.
    pub(crate) stdout: Vec<u8>,
    /// The bytes of the second stream.
    pub(crate) stderr: Vec<u8>,
}

/// An answer that is not a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    /// dom0 says why there is no result.
    #[error("{}", .0.sentence())]
    Fault(Fault),
    /// The answer is longer than this side keeps.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The final frame does not hold what it must.
    #[error("the answer is not JSON of the expected form")]
    Json(#[from] serde_json::Error),
    /// What came could not be kept here.
    #[error("cannot write {0} in the agent's own qube: {1}")]
    Local(String, #[source] io::Error),
}

/// What a frame led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// More frames must follow.
    More,
    /// More frames must follow, and this is how far the work is.
    News(String),
    /// The answer is complete.
    Complete,
}

#[derive(Deserialize)]
struct Progress {
    message: Option<String>,
}

impl Reply {
    /// The most bytes of one stream that are kept: a whole answer, and a note of what was left out.
    const STREAM_BYTES: usize = 2 * 1024 * 1024 + limits::FRAME_BYTES;
}

impl Receiver for Reply {
    fn take(&mut self, frame: &Frame) -> Result<Step, ReplyError> {
        match frame.kind {
            Kind::Stdout => append(&mut self.stdout, frame, Self::STREAM_BYTES),
            Kind::Stderr => append(&mut self.stderr, frame, Self::STREAM_BYTES),
            Kind::Part => append(&mut self.json, frame, limits::RESULT_BYTES),
            Kind::Progress => {
                let progress: Option<Progress> = serde_json::from_slice(&frame.payload).ok();
                Ok(progress.and_then(|p| p.message).map_or(Step::More, Step::News))
            }
            Kind::Result => {
                append(&mut self.json, frame, limits::RESULT_BYTES).map(|_| Step::Complete)
            }
            Kind::Fault => Err(ReplyError::Fault(serde_json::from_slice(&frame.payload)?)),
        }
    }
}

fn append(bytes: &mut Vec<u8>, frame: &Frame, most: usize) -> Result<Step, ReplyError> {
    if bytes.len() + frame.payload.len() > most {
        return Err(ReplyError::TooLong(most));
    }
    bytes.extend_from_slice(&frame.payload);
    Ok(Step::More)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_kept_apart_and_parts_are_joined() {
        let mut reply = Reply::default();
        for (kind, payload) in
            [(Kind::Stdout, "a"), (Kind::Stderr, "x"), (Kind::Stdout, "b"), (Kind::Part, "{\"exit")]
        {
            assert_eq!(reply.take(&Frame::new(kind, payload)).unwrap(), Step::More);
        }
        let last = Frame::new(Kind::Result, "_code\":3}");
        assert_eq!(reply.take(&last).unwrap(), Step::Complete);
        assert_eq!(
            reply,
            Reply { json: b"{\"exit_code\":3}".into(), stdout: b"ab".into(), stderr: b"x".into() }
        );
    }

    #[test]
    fn progress_is_news_when_it_says_something() {
        let take = |payload: &'static str| {
            Reply::default().take(&Frame::new(Kind::Progress, payload)).unwrap()
        };
        assert_eq!(take(r#"{"message":"line 3","bytes":10}"#), Step::News("line 3".into()));
        assert_eq!(take(r#"{"bytes":10}"#), Step::More);
        assert_eq!(take("?"), Step::More);
    }

    #[test]
    fn a_fault_is_an_error_and_so_is_a_broken_one() {
        let take = |payload: &'static str| Reply::default().take(&Frame::new(Kind::Fault, payload));
        let fault = take(r#"{"fault":"Refused"}"#).unwrap_err();
        assert!(matches!(fault, ReplyError::Fault(Fault::Refused {})));
        assert!(matches!(take(r#"{"fault":"Nope"}"#), Err(ReplyError::Json(_))));
    }

    #[test]
    fn nothing_is_kept_beyond_the_limits() {
        let frame = |kind| Frame::new(kind, vec![b'x'; limits::FRAME_BYTES]);
        for (kind, frames) in [(Kind::Stdout, 33), (Kind::Stderr, 33), (Kind::Part, 64)] {
            let mut reply = Reply::default();
            for _ in 0..frames {
                assert_eq!(reply.take(&frame(kind)).unwrap(), Step::More);
            }
            assert!(matches!(reply.take(&frame(kind)), Err(ReplyError::TooLong(_))), "{kind:?}");
        }
    }
}
