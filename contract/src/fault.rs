//! How a call fails: a closed set.

use serde::{Deserialize, Serialize};

use crate::limits::MESSAGE_BYTES;

/// Why a call has no result. The only words about a failure that reach the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", deny_unknown_fields)]
pub enum Fault {
    /// The caller has no authority for this call. It holds nothing, so that every reason looks alike.
    Refused {},
    /// The request is wrong, and nothing was changed.
    BadRequest {
        /// What is wrong and what to do, naming only what the caller itself sent.
        message: String,
    },
    /// The qube does not run, and the caller may not start it.
    NotRunning {
        /// The state it is in.
        state: String,
    },
    /// The work took longer than it may.
    TimedOut {
        /// What did not end in time.
        message: String,
    },
    /// Something is larger than its limit.
    TooLarge {
        /// What is too large, and the limit.
        message: String,
    },
    /// Too many calls are under way.
    Busy {},
    /// Something broke.
    Failed {
        /// What the caller may know of it.
        message: String,
        /// The call's number, under which the operator finds the rest in the journal.
        call: String,
    },
}

impl Fault {
    /// A wrong request. A message above [`MESSAGE_BYTES`], which quotes what was sent, is cut, so
    /// that the fault fits a frame however it is escaped.
    pub fn bad_request(message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES {
            let end = (0..=MESSAGE_BYTES).rfind(|end| message.is_char_boundary(*end));
            message.truncate(end.unwrap_or(0));
        }
        Self::BadRequest { message }
    }

    /// One sentence that says what happened and, where it helps, what to do.
    pub fn sentence(&self) -> String {
        match self {
            Self::Refused {} => "request refused".into(),
            Self::BadRequest { message } => format!("bad request: {message}"),
            Self::NotRunning { state } => format!(
                "the qube is not running (its state is {state}), and you have no power to start it"
            ),
            Self::TimedOut { message } => format!("timed out: {message}"),
            Self::TooLarge { message } => format!("too large: {message}"),
            Self::Busy {} => "too many calls are under way; try again when one has ended".into(),
            Self::Failed { message, call } => format!("failed: {message} (call {call})"),
        }
    }

    /// The fault as JSON, as it travels in a frame.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| r#"{"fault":"Refused"}"#.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_an_object_that_names_itself() {
        assert_eq!(Fault::Refused {}.to_json(), r#"{"fault":"Refused"}"#);
        let bad = Fault::bad_request("port must be 1 to 65535");
        assert_eq!(bad.to_json(), r#"{"fault":"BadRequest","message":"port must be 1 to 65535"}"#);
        assert_eq!(serde_json::from_str::<Fault>(&bad.to_json()).unwrap(), bad);
    }

    #[test]
    fn every_fault_has_a_sentence() {
        let message = || "why".to_owned();
        for (fault, sentence) in [
            (Fault::Refused {}, "request refused"),
            (Fault::BadRequest { message: message() }, "bad request: why"),
            (Fault::TimedOut { message: message() }, "timed out: why"),
            (Fault::TooLarge { message: message() }, "too large: why"),
            (Fault::Busy {}, "too many calls are under way; try again when one has ended"),
            (Fault::Failed { message: message(), call: "7".into() }, "failed: why (call 7)"),
        ] {
            assert_eq!(fault.sentence(), sentence);
        }
        let halted = Fault::NotRunning { state: "Halted".into() }.sentence();
        assert!(halted.contains("its state is Halted"), "{halted}");
    }

    #[test]
    fn a_message_that_quotes_too_much_is_cut_between_characters() {
        let Fault::BadRequest { message } = Fault::bad_request("a".to_owned() + &"é".repeat(9000))
        else {
            panic!("another fault");
        };
        assert_eq!(message.len(), MESSAGE_BYTES - 1);
    }
}
