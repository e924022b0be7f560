//! Firewall rules as answers show them, and as callers write them.

use admin_api::firewall::{Action, Rule, RuleBuilder, RuleError};
use contract::Fault;
use serde::{Deserialize, Serialize};

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RuleAction {
    /// Let it pass.
    Accept,
    /// Drop it.
    Drop,
}

/// One rule and its place. Fields that a rule does not use are absent and match everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShownRule {
    /// Its place, from 0. The first rule that matches decides.
    pub number: usize,
    /// The whole rule, as firewall_remove's `expect` takes it.
    pub rule: String,
    /// What it does.
    pub action: RuleAction,
    /// Destination: an IPv4 network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst4: Option<String>,
    /// Destination: an IPv6 network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst6: Option<String>,
    /// Destination: a host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dsthost: Option<String>,
    /// Protocol: tcp, udp or icmp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<String>,
    /// Destination ports, "443" or "8000-8080".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dstports: Option<String>,
    /// ICMP type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmptype: Option<String>,
    /// "dns": the qube's own name servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specialtarget: Option<String>,
    /// When it ends, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire: Option<u64>,
    /// The comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// The rules with their numbers.
pub(crate) fn shown(rules: &[Rule]) -> Vec<ShownRule> {
    rules.iter().enumerate().map(|(number, rule)| show(number, rule)).collect()
}

fn show(number: usize, rule: &Rule) -> ShownRule {
    let option =
        |key: &str| rule.options().find(|(option, _)| *option == key).map(|(_, value)| value);
    ShownRule {
        number,
        rule: rule.render_line(),
        action: match rule.action {
            Action::Accept => RuleAction::Accept,
            Action::Drop => RuleAction::Drop,
        },
        dst4: option("dst4"),
        dst6: option("dst6"),
        dsthost: option("dsthost"),
        proto: option("proto"),
        dstports: option("dstports").map(single_port),
        icmptype: option("icmptype"),
        specialtarget: option("specialtarget"),
        expire: rule.expire,
        comment: option("comment"),
    }
}

/// qubesd writes one port as a range from it to itself.
fn single_port(range: String) -> String {
    match range.split_once('-') {
        Some((first, last)) if first == last => first.to_owned(),
        Some(_) | None => range,
    }
}

/// Reads a rule as callers write it: `key=value` words, and bare words that fill destination,
/// protocol, then ports or ICMP type. Nothing means everything; `expire=+300` counts from now.
pub(crate) fn parse_rule(action: RuleAction, args: &str, now: u64) -> Result<Rule, Fault> {
    let mut options: Vec<(&str, &str)> = Vec::new();
    let mut bare = args.split_whitespace().filter(|word| !word.contains('='));
    options.extend(bare.next().map(|host| ("dsthost", host)));
    if let Some(proto) = bare.next() {
        options.push(("proto", proto));
        let last = if proto == "icmp" { "icmptype" } else { "dstports" };
        options.extend(bare.next().map(|word| (last, word)));
    }
    if let Some(word) = bare.next() {
        return Err(Fault::bad_request(format!("{word:?}: there is no fourth word without a key")));
    }
    options.extend(args.split_whitespace().filter_map(|word| word.split_once('=')));

    let mut rule = RuleBuilder::default();
    let action = match action {
        RuleAction::Accept => "accept",
        RuleAction::Drop => "drop",
    };
    let said = |error: RuleError| Fault::bad_request(error.to_string());
    rule.set("action", action).map_err(said)?;
    for (key, value) in options {
        if !KEYS.contains(&key) {
            return Err(Fault::bad_request(format!("{key:?} is none of {}", KEYS.join(", "))));
        }
        if value.is_empty() {
            return Err(Fault::bad_request(format!(
                "{key} has no value; leave it out to match all"
            )));
        }
        rule.set(key, &absolute(key, value, now)?).map_err(said)?;
    }
    let rule = rule.finish().map_err(said)?;
    if rule.dstports.is_some_and(|ports| ports.first == 0) {
        return Err(Fault::bad_request("dstports must be 1 to 65535"));
    }
    if rule.has_expired(now) {
        return Err(Fault::bad_request("expire lies in the past"));
    }
    Ok(rule)
}

const KEYS: [&str; 9] = [
    "dsthost",
    "dst4",
    "dst6",
    "proto",
    "dstports",
    "icmptype",
    "specialtarget",
    "expire",
    "comment",
];

fn absolute(key: &str, value: &str, now: u64) -> Result<String, Fault> {
    match value.strip_prefix('+') {
        Some(seconds) if key == "expire" => seconds
            .parse::<u64>()
            .ok()
            .and_then(|seconds| now.checked_add(seconds))
            .map(|at| at.to_string())
            .ok_or_else(|| Fault::bad_request("expire takes seconds, as +300 from now")),
        Some(_) | None => Ok(value.to_owned()),
    }
}

/// Reads whatever it is given as a caller's words and asserts that the rule means one and the same
/// to qubesd, which reads it as a line, and to a caller who writes it again.
pub fn fuzz_rule_words(input: &[u8]) {
    const NOW: u64 = 1_000;
    let Ok(text) = std::str::from_utf8(input) else { return };
    for action in [RuleAction::Accept, RuleAction::Drop] {
        let Ok(rule) = parse_rule(action, text, NOW) else { continue };
        let line = rule.render_line();
        assert!(!line.contains(['\n', '\r', '\0']), "a rule is more than a line");
        assert!(Rule::parse_line(&line).as_ref() == Ok(&rule), "qubesd reads another rule");
        let words = line.split_once(' ').map_or("", |(_, words)| words);
        assert!(parse_rule(action, words, NOW).as_ref() == Ok(&rule), "its own words differ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(args: &str) -> Result<String, String> {
        parse_rule(RuleAction::Accept, args, 1_000)
            .map(|rule| rule.render_line())
            .map_err(|fault| fault.sentence())
    }

    #[test]
    fn a_range_of_one_port_is_shown_as_that_port() {
        for (range, shown) in [("22-22", "22"), ("80-443", "80-443"), ("22", "22")] {
            assert_eq!(single_port(range.into()), shown);
        }
    }

    #[test]
    fn words_with_and_without_keys_make_one_rule() {
        for (args, expected) in [
            ("", "action=accept"),
            (
                "dsthost=10.0.0.1 proto=tcp dstports=443",
                "action=accept dst4=10.0.0.1/32 proto=tcp dstports=443-443",
            ),
            ("10.1.2.3 tcp 22", "action=accept dst4=10.1.2.3/32 proto=tcp dstports=22-22"),
            ("example.org", "action=accept dsthost=example.org"),
            ("10.1.2.0/24 icmp 8", "action=accept dst4=10.1.2.0/24 proto=icmp icmptype=8"),
            ("specialtarget=dns", "action=accept specialtarget=dns"),
            (
                "comment=web proto=tcp  dstports=80-90",
                "action=accept proto=tcp dstports=80-90 comment=web",
            ),
            ("expire=+300", "action=accept expire=1300"),
        ] {
            assert_eq!(line(args), Ok(expected.to_owned()), "{args}");
        }
    }

    #[test]
    fn what_no_firewall_could_mean_is_refused_with_its_reason() {
        for (args, part) in [
            ("nonsense=1", "none of"),
            ("a b c d", "fourth word"),
            ("10.0.0.1 dsthost=10.0.0.2", "twice"),
            ("expire=+x", "seconds"),
            ("expire=5", "past"),
            ("dsthost=", "no value"),
            ("proto=bogus", ""),
            ("dstports=22", ""),
            ("proto=tcp dstports=0", ""),
            ("proto=tcp dstports=65536", ""),
            ("dsthost=10.0.0.0/99", ""),
        ] {
            let told = line(args).unwrap_err();
            assert!(told.contains(part), "{args}: {told}");
        }
    }

    proptest! {
        #[test]
        fn words_that_make_a_rule_make_the_same_rule_everywhere(words in prop::collection::vec(
            prop::sample::select(vec![
                "dsthost=", "dst4=", "dst6=", "proto=", "dstports=", "icmptype=", "specialtarget=",
                "expire=", "comment=", "10.0.0.1", "/24", "2001:db8::1", "example.org", "tcp", "udp",
                "icmp", "22", "0", "-", "65535", "dns", "+300", "999", " ", " ", "\t", "=", "é",
            ]),
            0..12,
        )) {
            fuzz_rule_words(words.concat().as_bytes());
            fuzz_rule_words(words.join(" ").as_bytes());
        }
    }
}
