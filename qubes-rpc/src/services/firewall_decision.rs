//! Which rule of a qube's firewall decides about one destination, as far as that can be told from dom0.

use std::net::IpAddr;

use admin_api::firewall::{Action, Dst, Proto, Rule, SpecialTarget};
use serde::Serialize;

use crate::services::rules::RuleAction;

/// The port of DNS, to which `specialtarget=dns` is limited.
pub(crate) const DNS_PORT: u16 = 53;

/// Where a packet goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal<'a> {
    /// The host's name, in lower case, if it was named by one.
    pub(crate) name: Option<&'a str>,
    /// The address; none where the name was not resolved.
    pub(crate) address: Option<IpAddr>,
    /// The protocol, tcp or udp.
    pub(crate) proto: Proto,
    /// The destination port.
    pub(crate) port: u16,
    /// The name servers that Qubes gives the qube.
    pub(crate) nameservers: &'a [IpAddr],
    /// The time, in seconds since 1970.
    pub(crate) now: u64,
}

/// What the firewall does with a connection to one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Decision {
    /// The address; null when the host is a name that was not resolved, which was compared by name.
    pub address: Option<String>,
    /// What happens.
    pub action: RuleAction,
    /// The number of the rule that decides; null when none matches, which drops.
    pub number: Option<usize>,
    /// That rule.
    pub rule: Option<String>,
    /// The numbers of earlier rules that say otherwise and may match: they compare a name with an
    /// address, or an address with a name, which only the netvm resolves.
    pub uncertain: Vec<usize>,
    /// The first later rule that matches as well and says otherwise, without effect.
    pub later: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    Perhaps,
}

/// The first rule that surely matches decides; what none matches is dropped.
pub(crate) fn decide(rules: &[Rule], goal: Goal<'_>) -> Decision {
    let matches: Vec<(usize, &Rule, Match)> =
        rules.iter().enumerate().map(|(at, rule)| (at, rule, compare(rule, goal))).collect();
    let sure = matches.iter().find(|(.., found)| *found == Match::Yes);
    let action = sure.map_or(Action::Drop, |(_, rule, _)| rule.action);
    let number = sure.map(|(number, ..)| *number);
    let before = number.unwrap_or(rules.len());
    let other = |rule: &Rule| rule.action != action;
    Decision {
        address: goal.address.map(|address| address.to_string()),
        action: match action {
            Action::Accept => RuleAction::Accept,
            Action::Drop => RuleAction::Drop,
        },
        number,
        rule: sure.map(|(_, rule, _)| rule.render_line()),
        uncertain: matches
            .iter()
            .filter(|(at, rule, found)| *at < before && *found == Match::Perhaps && other(rule))
            .map(|(at, ..)| *at)
            .collect(),
        later: matches
            .iter()
            .find(|(at, rule, found)| *at > before && *found == Match::Yes && other(rule))
            .map(|(at, ..)| *at),
    }
}

fn compare(rule: &Rule, goal: Goal<'_>) -> Match {
    let ports = rule.dstports;
    let other_proto = rule.proto.is_some_and(|proto| proto != goal.proto);
    let other_port = ports.is_some_and(|ports| goal.port < ports.first || ports.last < goal.port);
    if rule.has_expired(goal.now) || other_proto || other_port {
        return Match::No;
    }
    let special = match rule.specialtarget {
        None => Match::Yes,
        Some(SpecialTarget::Dns) if goal.port != DNS_PORT => Match::No,
        Some(SpecialTarget::Dns) => match goal.address {
            None => Match::Perhaps,
            Some(address) if goal.nameservers.contains(&address) => Match::Yes,
            Some(_) => Match::No,
        },
    };
    match (special, rule.dst.as_ref().map_or(Match::Yes, |dst| compare_destination(dst, goal))) {
        (Match::No, _) | (_, Match::No) => Match::No,
        (Match::Yes, Match::Yes) => Match::Yes,
        (Match::Perhaps, _) | (_, Match::Perhaps) => Match::Perhaps,
    }
}

fn compare_destination(dst: &Dst, goal: Goal<'_>) -> Match {
    let network = match dst {
        Dst::Host(name) if goal.name == Some(name.as_str()) => return Match::Yes,
        // What another name stands for is known to the netvm alone.
        Dst::Host(_) => return Match::Perhaps,
        network @ (Dst::Dst4 { .. } | Dst::Dst6 { .. }) => network,
    };
    let address = match goal.address {
        None => return Match::Perhaps,
        Some(IpAddr::V4(address)) => Dst::Dst4 { address, prefix: 32 },
        Some(IpAddr::V6(address)) => Dst::Dst6 { address, prefix: 128 },
    };
    if network.contains(&address) { Match::Yes } else { Match::No }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(
        rules: &[&str],
        name: Option<&str>,
        address: Option<&str>,
        port: u16,
    ) -> (RuleAction, Option<usize>, Vec<usize>, Option<usize>) {
        let rules: Vec<_> = rules.iter().map(|line| Rule::parse_line(line).unwrap()).collect();
        let nameservers = ["10.139.1.1".parse().unwrap()];
        let address = address.map(|address| address.parse().unwrap());
        let goal =
            Goal { name, address, proto: Proto::Tcp, port, nameservers: &nameservers, now: 1000 };
        let found = decide(&rules, goal);
        (found.action, found.number, found.uncertain, found.later)
    }

    const ACCEPT: RuleAction = RuleAction::Accept;
    const DROP: RuleAction = RuleAction::Drop;

    #[test]
    fn the_first_rule_that_matches_decides_and_none_drops() {
        let ip = Some("192.0.2.7");
        for (rules, port, expected) in [
            (&["action=accept"][..], 443, (ACCEPT, Some(0), vec![], None)),
            (&[], 443, (DROP, None, vec![], None)),
            (
                &["action=drop dst4=192.0.2.0/24", "action=accept"],
                443,
                (DROP, Some(0), vec![], Some(1)),
            ),
            (
                &["action=drop dst4=198.51.100.0/24", "action=accept"],
                443,
                (ACCEPT, Some(1), vec![], None),
            ),
            (&["action=accept proto=tcp dstports=80-90"], 90, (ACCEPT, Some(0), vec![], None)),
            (&["action=accept proto=tcp dstports=80-90"], 91, (DROP, None, vec![], None)),
            (&["action=accept proto=udp"], 53, (DROP, None, vec![], None)),
            (&["action=accept proto=icmp"], 53, (DROP, None, vec![], None)),
            (&["action=accept expire=999"], 53, (DROP, None, vec![], None)),
            (&["action=accept expire=1000"], 53, (ACCEPT, Some(0), vec![], None)),
            (&["action=accept dst6=::/0"], 53, (DROP, None, vec![], None)),
            (&["action=accept dsthost=example.org"], 53, (DROP, None, vec![0], None)),
            (&["action=drop dsthost=a.b", "action=accept"], 5, (ACCEPT, Some(1), vec![0], None)),
        ] {
            assert_eq!(decided(rules, None, ip, port), expected, "{rules:?} {port}");
        }
    }

    #[test]
    fn a_name_is_compared_by_name_where_it_was_not_resolved() {
        let name = Some("example.org");
        let named = ["action=accept dsthost=example.org proto=tcp"];
        assert_eq!(decided(&named, name, None, 443), (ACCEPT, Some(0), vec![], None));
        let other = ["action=accept dsthost=example.com", "action=accept dst4=192.0.2.0/24"];
        assert_eq!(decided(&other, name, None, 443), (DROP, None, vec![0, 1], None));
        let address = Some("192.0.2.1");
        assert_eq!(decided(&other, name, address, 443), (ACCEPT, Some(1), vec![], None));
    }

    #[test]
    fn name_servers_are_a_destination_of_their_own_on_one_port() {
        let dns = ["action=accept specialtarget=dns"];
        let decided = |address, port| decided(&dns, None, Some(address), port).0;
        assert_eq!(decided("10.139.1.1", 53), ACCEPT);
        assert_eq!(decided("10.139.1.1", 443), DROP);
        assert_eq!(decided("10.139.1.9", 53), DROP);
    }
}
