//! The calls that qrexec's policy denied, so that the daemon never saw them: the lines that
//! qrexec-policy-daemon writes to the journal.

use std::time::{Duration, UNIX_EPOCH};

use admin_api::QubeName;
use contract::SERVICE_PREFIX;
use policy::Until;
use serde::{Deserialize, Serialize};

use crate::{audit::Entry, times::with_milliseconds};

/// What each of the lines begins with.
const MARK: &str = "qrexec: ";
/// How a line goes on that is about a call not let through. What follows says why.
const VERDICTS: [&str; 3] = ["denied: ", "error loading policy: ", "error getting system info: "];
/// The longest service with its argument, in bytes, that is taken for one.
const CALL_BYTES: usize = 256;

/// A call that policy did not let through.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Denial {
    /// When, as RFC 3339 with milliseconds.
    pub(super) time: String,
    /// Who decided: always `policy`.
    by: &'static str,
    /// What was called, as far as policy knows it.
    #[serde(flatten)]
    pub(super) entry: Entry,
}

/// A line of the journal as `journalctl --output=json` prints it, as far as it is needed. A message
/// that is no text is an array there, and no line of policy's.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "MESSAGE")]
    message: String,
    /// Microseconds since 1970.
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    time: String,
}

impl Denial {
    /// Reads a line; nothing when it tells of no denial of a service of ours.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line: Line = serde_json::from_slice(line).ok()?;
        let time = UNIX_EPOCH.checked_add(Duration::from_micros(line.time.parse().ok()?))?;
        // Times beyond those that can be written would sort among the others anywhere.
        Until::from_time(time)?;
        let entry = parse_message(&line.message)?;
        Some(Self { time: with_milliseconds(time), by: "policy", entry })
    }
}

/// Reads `qrexec: SERVICE+ARGUMENT: SOURCE -> TARGET: denied: REASON`.
fn parse_message(message: &str) -> Option<Entry> {
    let (call, rest) = message.strip_prefix(MARK)?.split_once(": ")?;
    let (source, rest) = rest.split_once(" -> ")?;
    let (target, rest) = rest.split_once(": ")?;
    let detail = VERDICTS.iter().find_map(|verdict| {
        let reason = rest.strip_prefix(verdict)?;
        Some(if *verdict == VERDICTS[0] { reason } else { rest })
    })?;
    let (service, argument) = call.split_once('+').unwrap_or((call, ""));
    let service = service.strip_prefix(SERVICE_PREFIX)?;
    let is_plain = |text: &str| {
        text.len() <= CALL_BYTES
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+@:".contains(&byte))
    };
    if service.is_empty() || ![service, argument, target].into_iter().all(is_plain) {
        return None;
    }
    let is_dom0 = ["dom0", "@adminvm", "", "@default"].contains(&target);
    let qube = if argument.is_empty() && !is_dom0 { target } else { argument };
    let mut entry = Entry {
        agent: QubeName::parse(source).ok()?.to_string(),
        service: service.into(),
        qube: qube.into(),
        ..Entry::default()
    };
    entry.end("Denied", detail);
    Some(entry)
}

/// Reads any line of the journal, and asserts that what is a denial names its caller and its service.
pub fn fuzz_denial(input: &[u8]) {
    if let Some(denial) = Denial::parse(input) {
        assert!(!denial.entry.service.is_empty() && !denial.entry.agent.is_empty(), "no name");
        assert!(denial.entry.outcome == "Denied", "another outcome");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(message: &str) -> Option<(String, String, String, String)> {
        let entry = parse_message(message)?;
        Some((entry.agent, entry.service, entry.qube, entry.detail))
    }

    fn told(
        agent: &str,
        service: &str,
        qube: &str,
        detail: &str,
    ) -> Option<(String, String, String, String)> {
        Some((agent.into(), service.into(), qube.into(), detail.into()))
    }

    #[test]
    fn a_denial_says_who_what_on_what_and_why() {
        let rule = "denied by policy /etc/qubes/policy.d/30-salt-bridge.policy:47";
        for (call, expected) in [
            ("saltbridge.VmExec+vault: salt-bridge -> dom0", ("VmExec", "vault")),
            ("saltbridge.VmExec+: salt-bridge -> ai-one", ("VmExec", "ai-one")),
            ("saltbridge.VmList: salt-bridge -> @adminvm", ("VmList", "")),
            ("saltbridge.VmList+: salt-bridge -> @default", ("VmList", "")),
            ("saltbridge.VmExec+: salt-bridge -> @dispvm:dvm", ("VmExec", "@dispvm:dvm")),
        ] {
            assert_eq!(
                parsed(&format!("qrexec: {call}: denied: {rule}")),
                told("salt-bridge", expected.0, expected.1, rule),
                "{call}"
            );
        }
        let fault = "error loading policy: 40-bad.policy:1: wrong number of fields";
        assert_eq!(
            parsed(&format!("qrexec: saltbridge.VmList+: work -> dom0: {fault}")),
            told("work", "VmList", "", fault)
        );
    }

    #[test]
    fn what_is_no_denial_of_ours_is_left_out() {
        for message in [
            "",
            "qrexec: ",
            "qrexec: saltbridge.VmExec+work: salt-bridge -> dom0: allowed to dom0",
            "qrexec: qubes.VMShell+: work -> dom0: denied: no matching rule found",
            "qrexec: saltbridge.: work -> dom0: denied: x",
            "qrexec: saltbridge.VmExec+work: dom0 -> dom0: denied: x",
            "qrexec: saltbridge.VmExec+a b: work -> dom0: denied: x",
            "qrexec: saltbridge.VmExec+\u{1b}[2J: work -> dom0: denied: x",
            "xqrexec: saltbridge.VmExec+work: salt-bridge -> dom0: denied: x",
            "qrexec: saltbridge.VmExec+work: salt-bridge -> dom0: denied",
        ] {
            assert_eq!(parsed(message), None, "{message:?}");
        }
    }

    #[test]
    fn lines_are_read_as_journalctl_prints_them() {
        let message = "qrexec: saltbridge.VmExec+vault: salt-bridge -> dom0: denied: x";
        let line = |time: serde_json::Value, message: serde_json::Value| {
            json!({"__REALTIME_TIMESTAMP": time, "MESSAGE": message, "PRIORITY": "6"}).to_string()
        };
        let denial =
            Denial::parse(line(json!("1796148000123456"), json!(message)).as_bytes()).unwrap();
        assert_eq!(denial.time, "2026-12-01T18:00:00.123Z");
        assert_eq!(
            serde_json::to_value(&denial).unwrap(),
            json!({"time": "2026-12-01T18:00:00.123Z", "by": "policy", "phase": "done",
                "agent": "salt-bridge", "service": "VmExec", "qube": "vault",
                "outcome": "Denied", "detail": "x"})
        );
        for (time, message) in [
            (json!(1), json!(message)),
            (json!("-1"), json!(message)),
            (json!("99999999999999999999"), json!(message)),
            (json!(u64::MAX.to_string()), json!(message)),
            (json!("1"), json!([113, 114])),
        ] {
            assert_eq!(Denial::parse(line(time, message).as_bytes()), None);
        }
    }

    proptest! {
        #[test]
        fn no_line_of_the_journal_makes_the_reader_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_denial(&line);
        }

        #[test]
        fn no_message_makes_the_reader_panic(message in "(qrexec: )?(saltbridge\\.)?.{0,60}(: .{0,20} -> .{0,20}: denied: )?.{0,20}") {
            fuzz_denial(json!({"__REALTIME_TIMESTAMP": "1", "MESSAGE": message}).to_string().as_bytes());
        }
    }
}
