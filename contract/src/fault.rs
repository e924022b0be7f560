//! How a call fails: a closed set.

use serde::{Deserialize, Serialize};

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
    /// A wrong request.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::BadRequest { message: message.into() }
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
}
