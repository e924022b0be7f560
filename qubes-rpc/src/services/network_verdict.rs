//! What is concluded from everything that was found about a connection.

use contract::Power;
use policy::ManagedQube;
use serde_json::{Value, json};

use crate::services::{
    firewall_decision::Decision,
    network_diagnose::{Connection, Inside, NextCall},
    network_hops::{Hop, Netvm},
    rules::RuleAction,
};

/// Everything that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) qube: Held<'a>,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) hops: &'a [Hop],
    /// Of the netvms those whose rules are known.
    pub(crate) netvms: &'a [Netvm],
    /// The netvm that does not run and that the caller may start.
    pub(crate) mender: Option<&'a str>,
    pub(crate) firewall: &'a [Decision],
    /// What happens to questions to the name server; none where no name has to be resolved.
    pub(crate) by_dns: Option<&'a Decision>,
    pub(crate) inside: Option<&'a Inside>,
    pub(crate) note: Option<&'a str>,
}

/// What the caller may do to the qube, whether or not qrexec asks first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    pub(crate) name: &'a str,
    pub(crate) lifecycle: bool,
    pub(crate) net: bool,
}

impl<'a> Held<'a> {
    /// The powers over a qube.
    pub(crate) fn of(qube: &'a ManagedQube) -> Self {
        let powers = qube.powers();
        let may = |wanted| powers.iter().any(|(power, _)| *power == wanted);
        let (lifecycle, net) = (may(Power::Lifecycle), may(Power::Net));
        Self { name: qube.name().as_str(), lifecycle, net }
    }
}

/// The conclusion.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) verdict: String,
    pub(crate) next: Option<NextCall>,
    pub(crate) also: Vec<String>,
}

/// Something that stops the connection, and the call that mends it.
type Stop = (String, Option<NextCall>);

/// The first thing that stops the connection is the verdict, the others stand beside it. A
/// connection that was made is stopped by nothing, whatever the rules say.
pub(crate) fn conclude(facts: &Facts<'_>) -> Told {
    let Facts { host, port, qube, .. } = facts;
    let outside = before_the_qube(facts).into_iter().chain(by_firewalls(facts));
    let mut stops: Vec<Stop> = outside.chain(within(facts)).collect();
    let connected = facts.inside.is_some_and(|inside| inside.connection == Connection::Connected);
    let (verdict, next) = if connected {
        (format!("Nothing stops it: {} reached {host}, TCP port {port}.", qube.name), None)
    } else if stops.is_empty() {
        (nothing_found(facts), None)
    } else {
        stops.remove(0)
    };
    let mut also: Vec<String> = stops.into_iter().map(|(sentence, _)| sentence).collect();
    also.extend(facts.hops.iter().filter_map(|hop| from_netvm(facts, hop)));
    also.extend(partly(facts.firewall));
    also.extend(facts.firewall.iter().flat_map(remarks));
    Told { verdict, next, also }
}

fn nothing_found(facts: &Facts<'_>) -> String {
    let mut verdict = "Nothing found stops it".to_owned();
    if let Some(last) = facts.hops.last().filter(|hop| !hop.in_scope) {
        verdict += &format!(", as far as your scope reaches (up to {})", last.name);
    }
    match facts.note {
        Some(note) => verdict += &format!("; it was not tried from inside, because {note}."),
        None => verdict += "; the connection could not be tried.",
    }
    verdict
}

fn call(tool: &str, arguments: Value) -> Option<NextCall> {
    let Value::Object(arguments) = arguments else { return None };
    Some(NextCall { tool: tool.to_owned(), arguments })
}

/// The call that makes a qube run, if any does.
fn wake(name: &str, state: &str) -> Option<NextCall> {
    match state {
        "Halted" => call("start_vm", json!({"vm_name": name})),
        "Paused" => call("unpause_vm", json!({"vm_name": name})),
        _ => None,
    }
}

fn before_the_qube(facts: &Facts<'_>) -> Vec<Stop> {
    let mut stops = Vec::new();
    for (at, hop) in facts.hops.iter().enumerate() {
        let own = at == 0;
        // Without a netvm it does not help to start the qube.
        if own && hop.netvm.is_none() {
            let sentence = "has no netvm, and so no network; only the operator gives it one";
            stops.push((format!("{} {sentence}.", hop.name), None));
        }
        if hop.provides_network == Some(false) {
            stops.push((format!("{}, a netvm on its way out, gives no network to others (provides_network is off); only the operator changes that.", hop.name), None));
        }
        let state = hop.state.as_deref().filter(|state| *state != "Running");
        if let Some(state) = state {
            let may = if own { facts.qube.lifecycle } else { facts.mender == Some(&hop.name) };
            let next = wake(&hop.name, state).filter(|_| may);
            let what = if own { "the qube itself" } else { "a netvm on its way out" };
            let ask = if may { "" } else { ", and starting it is not in your power" };
            stops.push((format!("{}, {what}, is not running: {state}{ask}.", hop.name), next));
        }
    }
    stops
}

fn allow(whose: Held<'_>, args: String, before: Option<usize>) -> Option<NextCall> {
    let mut arguments = json!({"vm_name": whose.name, "action": "accept", "args": args});
    if let (Some(number), Value::Object(fields)) = (before, &mut arguments) {
        fields.insert("position".to_owned(), number.into());
    }
    call("firewall_add", arguments).filter(|_| whose.net)
}

/// What drops, in words.
fn dropper(name: &str, decision: &Decision) -> String {
    let unless = match decision.uncertain.as_slice() {
        [] => String::new(),
        some => format!(" (unless one of the rules {} matches first)", numbers(some)),
    };
    match (&decision.number, &decision.rule) {
        (Some(number), Some(rule)) => {
            format!("Firewall rule {number} of {name} ({rule}) drops{unless}")
        }
        _ => format!("Qubes drops{unless}, as no firewall rule of {name} accepts it,"),
    }
}

fn numbers(rules: &[usize]) -> String {
    rules.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// The rules of the qube, and then those of its netvms, which hold for all that comes through them.
fn by_firewalls(facts: &Facts<'_>) -> Vec<Stop> {
    let mut stops = by_firewall(facts, facts.qube, facts.firewall, facts.by_dns);
    for netvm in facts.netvms {
        let by_dns = netvm.by_dns.as_ref();
        stops.extend(by_firewall(facts, netvm.held(), &netvm.firewall, by_dns));
    }
    stops
}

fn by_firewall(
    facts: &Facts<'_>,
    whose: Held<'_>,
    firewall: &[Decision],
    by_dns: Option<&Decision>,
) -> Vec<Stop> {
    let Facts { host, port, .. } = facts;
    let name = whose.name;
    let ask = if whose.net { "" } else { "; you do not hold the power net to change that" };
    let mut stops = Vec::new();
    let dropped = |decision: &Decision| decision.action == RuleAction::Drop;
    if let Some(dns) = by_dns.filter(|dns| dropped(dns)) {
        let sentence = format!("{} questions to its name servers{ask}.", dropper(name, dns));
        stops.push((sentence, allow(whose, "specialtarget=dns".to_owned(), dns.number)));
    }
    if firewall.iter().all(dropped)
        && let Some(first) = firewall.first()
    {
        let sentence = format!("{} TCP to {host}, port {port}{ask}.", dropper(name, first));
        let args = format!("dsthost={host} proto=tcp dstports={port}");
        stops.push((sentence, allow(whose, args, first.number)));
    }
    stops
}

/// What the same connection came to from a netvm.
fn from_netvm(facts: &Facts<'_>, hop: &Hop) -> Option<String> {
    let Facts { host, port, .. } = facts;
    let came = match hop.connection? {
        Connection::Connected => "reaches",
        Connection::Refused => "is refused by",
        Connection::TimedOut => "gets no answer from",
        Connection::Failed => "cannot connect to",
        Connection::NotTried => return None,
    };
    Some(format!("{}, a netvm on its way out, itself {came} {host}, TCP port {port}.", hop.name))
}

fn within(facts: &Facts<'_>) -> Vec<Stop> {
    let Facts { host, port, .. } = facts;
    let name = facts.qube.name;
    let Some(inside) = facts.inside else { return Vec::new() };
    let mut found = Vec::new();
    let default = |destination: &str| matches!(destination, "default" | "0.0.0.0/0" | "::/0");
    let leaves = inside.routes.iter().any(|route| default(&route.destination));
    if !inside.interfaces.is_empty() && !leaves {
        found.push(format!("{name} has no default route."));
    }
    if inside.resolves == Some(false) {
        let servers = inside.dns.nameservers.join(", ");
        found.push(format!("{host} does not resolve in {name} (its name servers: {servers})."));
    }
    let said = inside.said.as_deref().unwrap_or_default();
    match inside.connection {
        Connection::Connected | Connection::NotTried => {}
        Connection::Refused => {
            found.push(format!("{host} refuses port {port}: nothing listens there."));
        }
        Connection::TimedOut => {
            let sentence =
                "got no answer within 5 s: it is dropped further out, or the host is off";
            found.push(format!("{name} {sentence}."));
        }
        Connection::Failed => found.push(format!("{name} could not connect: {said}")),
    }
    found.into_iter().map(|sentence| (sentence, None)).collect()
}

/// The addresses that are dropped where others are not.
fn partly(decisions: &[Decision]) -> Option<String> {
    let (dropped, passed): (Vec<&Decision>, Vec<_>) =
        decisions.iter().partition(|decision| decision.action == RuleAction::Drop);
    let addresses: Vec<_> = dropped.iter().filter_map(|one| one.address.as_deref()).collect();
    let some = !addresses.is_empty() && !passed.is_empty();
    some.then(|| format!("Some addresses of the host are dropped: {}.", addresses.join(", ")))
}

/// What else is to be known of a decision.
fn remarks(decision: &Decision) -> Vec<String> {
    let whom = decision.address.as_deref().unwrap_or("the name, which was not resolved");
    let mut remarks = Vec::new();
    if !decision.uncertain.is_empty() {
        let numbers = numbers(&decision.uncertain);
        remarks.push(format!(
            "For {whom}: rules {numbers} come first, say otherwise and may match, as only the netvm resolves the names in question."
        ));
    }
    if let (Some(later), Some(number)) = (decision.later, decision.number) {
        remarks.push(format!(
            "For {whom}: rule {later} says otherwise, but rule {number} comes before it."
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(name: &str, state: Option<&str>, netvm: Option<&str>) -> Hop {
        let (state, netvm) = (state.map(str::to_owned), netvm.map(str::to_owned));
        Hop {
            name: name.into(),
            in_scope: state.is_some(),
            state,
            netvm,
            provides_network: None,
            firewall: None,
            connection: None,
        }
    }

    fn chain(state: &str) -> Vec<Hop> {
        vec![hop("work", Some(state), Some("sys-fw")), hop("sys-fw", None, None)]
    }

    fn decision(action: RuleAction, number: Option<usize>) -> Decision {
        let rule = number.map(|_| "action=drop".to_owned());
        Decision { address: None, action, number, rule, uncertain: vec![], later: None }
    }

    const ALL: Held<'_> = Held { name: "work", lifecycle: true, net: true };

    fn facts<'a>(hops: &'a [Hop], firewall: &'a [Decision]) -> Facts<'a> {
        Facts {
            qube: ALL,
            host: "example.org",
            port: 443,
            hops,
            netvms: &[],
            mender: None,
            firewall,
            by_dns: None,
            inside: None,
            note: Some("nobody looked"),
        }
    }

    fn next(told: &Told) -> Value {
        told.next.as_ref().map_or(Value::Null, |next| json!([next.tool, next.arguments]))
    }

    #[test]
    fn the_first_thing_on_the_way_that_stops_is_the_verdict() {
        let drop = [decision(RuleAction::Drop, Some(2))];
        let halted = chain("Halted");
        let told = conclude(&facts(&halted, &drop));
        assert!(told.verdict.contains("Halted"), "{told:?}");
        assert_eq!(next(&told), json!(["start_vm", {"vm_name": "work"}]));
        assert!(told.also[0].contains("rule 2"), "{told:?}");

        let offline = [hop("work", Some("Halted"), None)];
        let told = conclude(&facts(&offline, &drop));
        assert!(told.verdict.contains("no netvm"), "{told:?}");
        assert_eq!(told.next, None);

        let mut hops = chain("Running");
        hops[1] = hop("sys-fw", Some("Paused"), None);
        let told = conclude(&facts(&hops, &drop));
        assert!(told.verdict.contains("sys-fw") && told.next.is_none(), "{told:?}");
        let told = conclude(&Facts { mender: Some("sys-fw"), ..facts(&hops, &drop) });
        hops[1].provides_network = Some(false);
        hops[1].connection = Some(Connection::Connected);
        let closed = conclude(&facts(&hops, &drop));
        assert!(closed.verdict.contains("provides_network is off"), "{closed:?}");
        assert!(closed.also.iter().any(|one| one.contains("itself reaches")), "{closed:?}");
        assert_eq!(next(&told), json!(["unpause_vm", {"vm_name": "sys-fw"}]));
    }

    #[test]
    fn a_rule_that_drops_is_named_with_the_call_that_goes_before_it() {
        let hops = chain("Running");
        let drop = [decision(RuleAction::Drop, Some(2))];
        let told = conclude(&facts(&hops, &drop));
        assert!(told.verdict.starts_with("Firewall rule 2 of work"), "{told:?}");
        let args = "dsthost=example.org proto=tcp dstports=443";
        let accept = json!({"vm_name": "work", "action": "accept", "args": args, "position": 2});
        assert_eq!(next(&told), json!(["firewall_add", accept]));
        let none = [Decision { uncertain: vec![0, 1], ..decision(RuleAction::Drop, None) }];
        let told = conclude(&facts(&hops, &none));
        assert!(told.verdict.contains("unless one of the rules 0, 1"), "{told:?}");
        let powerless = Held { net: false, ..ALL };
        let told = conclude(&Facts { qube: powerless, ..facts(&hops, &drop) });
        assert!(told.verdict.contains("power net") && told.next.is_none(), "{told:?}");
        let pass = [decision(RuleAction::Accept, Some(0))];
        let dns = decision(RuleAction::Drop, None);
        let told = conclude(&Facts { by_dns: Some(&dns), ..facts(&hops, &pass) });
        assert_eq!(next(&told)[1]["args"], "specialtarget=dns", "{told:?}");
    }

    #[test]
    fn what_was_seen_from_inside_outranks_the_rules() {
        let hops = chain("Running");
        let drop = [decision(RuleAction::Drop, Some(0))];
        let inside = Inside { connection: Connection::Connected, ..Inside::default() };
        let told = conclude(&Facts { inside: Some(&inside), note: None, ..facts(&hops, &drop) });
        assert!(told.verdict.starts_with("Nothing stops it"), "{told:?}");
        assert!(told.also[0].contains("rule 0"), "{told:?}");
        let pass = [decision(RuleAction::Accept, Some(0))];
        for (connection, part) in [
            (Connection::Refused, "refuses"),
            (Connection::TimedOut, "5 s"),
            (Connection::Failed, "could not connect: why"),
            (Connection::NotTried, "could not be tried"),
        ] {
            let inside = Inside { connection, said: Some("why".into()), ..Inside::default() };
            let told =
                conclude(&Facts { inside: Some(&inside), note: None, ..facts(&hops, &pass) });
            assert!(told.verdict.contains(part), "{told:?}");
        }
        let told = conclude(&facts(&hops, &pass));
        assert!(told.verdict.contains("as far as your scope reaches"), "{told:?}");
        assert!(told.verdict.contains("nobody looked"), "{told:?}");
    }
}
