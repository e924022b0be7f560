//! Firewall rules as qubesd speaks them: the lines of `admin.vm.firewall.Get` and `Set`.
//!
//! What qubesd accepts, and in which form it gives it back, is that of its `qubes/firewall.py`.

mod matches;

use std::fmt;
use std::str::FromStr;

pub use self::matches::{Action, Comment, Dst, HostName, PortRange, Proto, SpecialTarget};
use self::matches::{parse_expire, parse_icmptype};

/// Port of DNS, to which `specialtarget=dns` is limited.
const DNS_PORT: u16 = 53;

/// One rule. Two rules are equal when qubesd would print them alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What happens to a packet that matches; later rules are not asked then.
    pub action: Action,
    /// Until when the rule counts, in seconds since 1970; qubesd drops it afterwards.
    pub expire: Option<u64>,
    /// Where the packet goes; none is anywhere.
    pub dst: Option<Dst>,
    /// Its protocol; none is any.
    pub proto: Option<Proto>,
    /// A destination that is not an address.
    pub specialtarget: Option<SpecialTarget>,
    /// Its destination ports, for tcp and udp only; none is any.
    pub dstports: Option<PortRange>,
    /// Its type, for icmp only; none is any.
    pub icmptype: Option<u8>,
    /// What somebody wrote beside it.
    pub comment: Option<Comment>,
}

/// A text that is no rule. Says what is wrong, since qubesd itself only hangs up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not one option.
    #[error("a rule has no options")]
    Blank,
    /// A character outside ASCII.
    #[error("a rule is written in ASCII")]
    NotAscii,
    /// A word without `=`; also what two spaces in a row leave.
    #[error("{0:?} is not of the form option=value")]
    NoValue(String),
    /// An option that rules do not have.
    #[error("a rule has no option {0:?}")]
    Unknown(String),
    /// An option more than once; all forms of destination are one option.
    #[error("the option {0} is given twice")]
    Repeated(&'static str),
    /// No action.
    #[error("a rule needs an action, accept or drop")]
    NoAction,
    /// A value that its option does not have.
    #[error("{option}={found} is not {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// Ports without a protocol that has ports.
    #[error("dstports needs proto=tcp or proto=udp")]
    PortsWithoutProto,
    /// A type without the protocol that has types.
    #[error("icmptype needs proto=icmp")]
    TypeWithoutIcmp,
}

impl Rule {
    /// The rule that does this to every packet.
    pub fn new(action: Action) -> Self {
        Self {
            action,
            expire: None,
            dst: None,
            proto: None,
            specialtarget: None,
            dstports: None,
            icmptype: None,
            comment: None,
        }
    }

    /// Reads a line as qubesd does, in any order of options.
    pub fn parse_line(line: &str) -> Result<Self, RuleError> {
        if !line.is_ascii() {
            return Err(RuleError::NotAscii);
        }
        let mut builder = RuleBuilder::default();
        let (options, comment) = line.split_once("comment=").unwrap_or((line, ""));
        if !comment.is_empty() {
            builder.set("comment", comment)?;
        }
        let blank = |found: char| matches!(found, ' ' | '\t'..='\r' | '\x1c'..='\x1f');
        let options = options.trim_matches(blank);
        if options.is_empty() {
            return Err(RuleError::Blank);
        }
        for option in options.split(' ') {
            let (key, value) =
                option.split_once('=').ok_or_else(|| RuleError::NoValue(option.to_owned()))?;
            builder.set(key, value)?;
        }
        builder.finish()
    }

    /// The canonical line, without its end: what `Get` says, and what is sent to `Set`.
    pub fn render_line(&self) -> String {
        let options = self.options().map(|(key, value)| format!("{key}={value}"));
        options.collect::<Vec<_>>().join(" ")
    }

    /// The options and their values in the order of `Get`.
    pub fn options(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            Some(("action", self.action.to_string())),
            self.expire.map(|expire| ("expire", expire.to_string())),
            self.dst.as_ref().map(|dst| (dst.option(), dst.to_string())),
            self.proto.map(|proto| ("proto", proto.to_string())),
            self.specialtarget.map(|target| ("specialtarget", target.to_string())),
            self.dstports.map(|ports| ("dstports", ports.to_string())),
            self.icmptype.map(|icmptype| ("icmptype", icmptype.to_string())),
            self.comment.as_ref().map(|comment| ("comment", comment.to_string())),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether qubesd has stopped counting this rule at this time, in seconds since 1970.
    pub fn has_expired(&self, now: u64) -> bool {
        self.expire.is_some_and(|expire| expire < now)
    }

    /// Whether every packet that `later` matches is matched by this rule already, so that `later`
    /// decides nothing while this rule counts. In doubt it is not: names are only equal to themselves.
    pub fn shadows(&self, later: &Self) -> bool {
        let ports = match (later.dstports, later.specialtarget) {
            (None, Some(SpecialTarget::Dns)) => Some(PortRange { first: DNS_PORT, last: DNS_PORT }),
            (ports, _) => ports,
        };
        covers(self.dst.as_ref(), later.dst.as_ref(), Dst::contains)
            && covers(self.proto, later.proto, |one, other| one == other)
            && covers(self.specialtarget, later.specialtarget, |one, other| one == other)
            && covers(self.dstports, ports, PortRange::contains)
            && covers(self.icmptype, later.icmptype, |one, other| one == other)
    }
}

/// An option that is not given covers everything, and is covered by nothing else.
fn covers<T>(wide: Option<T>, narrow: Option<T>, contains: fn(T, T) -> bool) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => contains(wide, narrow),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.render_line())
    }
}

impl FromStr for Rule {
    type Err = RuleError;
    fn from_str(line: &str) -> Result<Self, RuleError> {
        Self::parse_line(line)
    }
}

/// A rule in the making: options are set one by one, in any order, each once.
#[derive(Clone, Debug, Default)]
pub struct RuleBuilder {
    action: Option<Action>,
    expire: Option<u64>,
    dst: Option<Dst>,
    proto: Option<Proto>,
    specialtarget: Option<SpecialTarget>,
    dstports: Option<PortRange>,
    icmptype: Option<u8>,
    comment: Option<Comment>,
}

impl RuleBuilder {
    /// Sets an option by its name: `action`, `dsthost` (or `dst4`, `dst6`, `dstname`, which qubesd
    /// takes for the same), `proto`, `dstports`, `icmptype`, `specialtarget`, `expire`, `comment`.
    pub fn set(&mut self, option: &str, value: &str) -> Result<(), RuleError> {
        match option {
            "action" => once(&mut self.action, "action", Action::parse(value)?),
            "dsthost" | "dst4" | "dst6" | "dstname" => {
                once(&mut self.dst, "dsthost", Dst::parse(value)?)
            }
            "proto" => once(&mut self.proto, "proto", Proto::parse(value)?),
            "dstports" => once(&mut self.dstports, "dstports", PortRange::parse(value)?),
            "icmptype" => once(&mut self.icmptype, "icmptype", parse_icmptype(value)?),
            "specialtarget" => {
                once(&mut self.specialtarget, "specialtarget", SpecialTarget::parse(value)?)
            }
            "expire" => once(&mut self.expire, "expire", parse_expire(value)?),
            "comment" => once(&mut self.comment, "comment", Comment::parse(value)?),
            other => Err(RuleError::Unknown(other.to_owned())),
        }
    }

    /// The rule, if its options go together.
    pub fn finish(self) -> Result<Rule, RuleError> {
        let Self { action, expire, dst, proto, specialtarget, dstports, icmptype, comment } = self;
        let action = action.ok_or(RuleError::NoAction)?;
        if dstports.is_some() && !matches!(proto, Some(Proto::Tcp | Proto::Udp)) {
            return Err(RuleError::PortsWithoutProto);
        }
        if icmptype.is_some() && proto != Some(Proto::Icmp) {
            return Err(RuleError::TypeWithoutIcmp);
        }
        Ok(Rule { action, expire, dst, proto, specialtarget, dstports, icmptype, comment })
    }
}

fn once<T>(slot: &mut Option<T>, option: &'static str, value: T) -> Result<(), RuleError> {
    if slot.replace(value).is_some() { Err(RuleError::Repeated(option)) } else { Ok(()) }
}

/// The rules of a qube for which nobody set any.
pub fn default_rules() -> Vec<Rule> {
    vec![Rule::new(Action::Accept)]
}

/// Reads the content of `Get` or the payload of `Set`: one rule a line, no line blank.
pub fn parse_rules(text: &str) -> Result<Vec<Rule>, RuleError> {
    let text = text.replace("\r\n", "\n");
    // Where Python ends a line.
    let end = |found: char| matches!(found, '\n'..='\r' | '\x1c'..='\x1e');
    text.split_terminator(end).map(Rule::parse_line).collect()
}

/// The payload of `Set`, which is the content of `Get`.
pub fn render_rules(rules: &[Rule]) -> String {
    rules.iter().map(|rule| rule.render_line() + "\n").collect()
}

/// Reads whatever it is given as rules and asserts that what was read survives a round trip.
pub fn fuzz_rules(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(rules) = parse_rules(text) else { return };
    assert!(parse_rules(&render_rules(&rules)).as_ref() == Ok(&rules), "rules change on their way");
    for rule in &rules {
        assert!(rule.shadows(rule), "a rule does not cover itself");
        assert!(Rule::new(Action::Drop).shadows(rule), "the plain rule does not cover everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(line: &str) -> Rule {
        Rule::parse_line(line).unwrap()
    }

    #[test]
    fn a_rule_is_printed_as_get_prints_it() {
        let drop: Rule = "action=drop".parse().unwrap();
        assert_eq!(format!("{drop:>12}"), " action=drop");
        for (set, get) in [
            ("action=accept", "action=accept"),
            (" action=accept\t", "action=accept"),
            ("action=accept proto=tcp dstports=443", "action=accept proto=tcp dstports=443-443"),
            ("action=accept dsthost=10.0.0.1", "action=accept dst4=10.0.0.1/32"),
            ("action=accept dst4=2001:db8::1", "action=accept dst6=2001:db8::1/128"),
            ("action=accept dst4=300.1.1.1", "action=accept dsthost=300.1.1.1"),
            ("action=accept dsthost=foo_bar", "action=accept dsthost=foo_bar"),
            (
                "proto=tcp dstports=80 action=accept dsthost=1.2.3.4",
                "action=accept dst4=1.2.3.4/32 proto=tcp dstports=80-80",
            ),
            (
                "action=accept proto=tcp dst4=192.0.2.0/24 dstports=8000-9000 expire=1795391845 comment=everything at once",
                "action=accept expire=1795391845 dst4=192.0.2.0/24 proto=tcp dstports=8000-9000 comment=everything at once",
            ),
            ("specialtarget=dns proto=udp action=drop", "action=drop proto=udp specialtarget=dns"),
            ("action=accept proto=icmp icmptype=8", "action=accept proto=icmp icmptype=8"),
        ] {
            assert_eq!(rule(set).render_line(), get);
            assert_eq!(rule(get), rule(set));
        }
    }

    #[test]
    fn each_wrong_rule_is_refused_for_what_is_wrong_with_it() {
        use RuleError as E;
        let value =
            |option, expected, found: &str| E::Value { option, expected, found: found.into() };
        for (line, error) in [
            ("", E::Blank),
            ("comment=x", E::Blank),
            ("action=accept  proto=tcp", E::NoValue(String::new())),
            ("action=accept proto", E::NoValue("proto".into())),
            ("hello", E::NoValue("hello".into())),
            ("action=accept foo=bar", E::Unknown("foo".into())),
            ("action=accept action=drop", E::Repeated("action")),
            ("action=accept dst4=1.1.1.1 dst6=::1", E::Repeated("dsthost")),
            ("proto=tcp dstports=80", E::NoAction),
            ("action=ACCEPT", value("action", "accept or drop", "ACCEPT")),
            ("action=accept\tproto=tcp", value("action", "accept or drop", "accept\tproto=tcp")),
            ("action=accept proto=TCP", value("proto", "tcp, udp or icmp", "TCP")),
            ("action=accept proto=", value("proto", "tcp, udp or icmp", "")),
            ("action=accept dstports=80", E::PortsWithoutProto),
            ("action=accept proto=icmp dstports=80", E::PortsWithoutProto),
            ("action=accept proto=tcp icmptype=8", E::TypeWithoutIcmp),
            ("action=accept specialtarget=ntp", value("specialtarget", "dns", "ntp")),
            ("action=accept comment=café", E::NotAscii),
        ] {
            assert_eq!(Rule::parse_line(line), Err(error), "{line}");
        }
        for line in [
            "action=accept proto=icmp icmptype=300",
            "action=accept proto=tcp dstports=70000",
            "action=accept proto=tcp dstports=10-5",
            "action=accept dst4=10.0.0.0/33",
            "action=accept dsthost=Foo",
            "action=accept expire=tomorrow",
            "action=accept comment=<b>",
        ] {
            assert!(matches!(Rule::parse_line(line), Err(E::Value { .. })), "{line}");
        }
    }

    #[test]
    fn lines_end_where_python_ends_them_and_none_is_blank() {
        let two = vec![Rule::new(Action::Accept), Rule::new(Action::Drop)];
        for text in [
            "action=accept\naction=drop\n",
            "action=accept\r\naction=drop",
            "action=accept\x0caction=drop\r",
        ] {
            assert_eq!(parse_rules(text), Ok(two.clone()));
        }
        assert_eq!(render_rules(&two), "action=accept\naction=drop\n");
        assert_eq!(parse_rules(""), Ok(Vec::new()));
        assert_eq!(parse_rules("action=accept\n\naction=drop\n"), Err(RuleError::Blank));
    }

    #[test]
    fn a_rule_shadows_what_it_matches_whole() {
        for (earlier, later) in [
            ("action=accept", "action=drop proto=tcp dstports=22"),
            ("action=accept dst4=10.0.0.0/8", "action=drop dst4=10.1.2.3"),
            ("action=accept dst4=10.9.9.9/8", "action=drop dst4=10.0.0.0/8"),
            ("action=accept dst4=0.0.0.0/0", "action=drop dst4=8.8.8.8"),
            ("action=accept dst6=fd00::/8", "action=drop dst6=fd00::1"),
            ("action=accept proto=tcp", "action=drop proto=tcp dstports=1-5"),
            (
                "action=accept proto=tcp dstports=1-100",
                "action=drop proto=tcp dstports=22 comment=x",
            ),
            ("action=accept dsthost=example.org", "action=drop dsthost=example.org proto=udp"),
            ("action=drop proto=icmp", "action=accept proto=icmp icmptype=8"),
            ("action=accept proto=udp dstports=53", "action=drop proto=udp specialtarget=dns"),
        ] {
            assert!(rule(earlier).shadows(&rule(later)), "{earlier} / {later}");
        }
    }

    #[test]
    fn a_rule_does_not_shadow_what_it_matches_in_part() {
        for (earlier, later) in [
            ("action=accept proto=tcp", "action=drop"),
            ("action=accept dst4=10.0.0.0/9", "action=drop dst4=10.0.0.0/8"),
            ("action=accept dst4=0.0.0.0/0", "action=drop dst6=::1"),
            ("action=accept dst4=0.0.0.0/0", "action=drop"),
            ("action=accept dst4=0.0.0.0/0", "action=drop dsthost=example.org"),
            ("action=accept dsthost=example.com", "action=drop dsthost=example.org"),
            ("action=accept proto=tcp dstports=1-100", "action=drop proto=tcp dstports=100-101"),
            ("action=accept proto=tcp dstports=1-100", "action=drop proto=tcp"),
            ("action=accept specialtarget=dns", "action=drop proto=udp dstports=53"),
            ("action=drop proto=icmp icmptype=8", "action=accept proto=icmp"),
            ("action=accept proto=udp dstports=53", "action=drop specialtarget=dns"),
        ] {
            assert!(!rule(earlier).shadows(&rule(later)), "{earlier} / {later}");
        }
    }

    #[test]
    fn a_rule_expires_after_its_second() {
        let rule = rule("action=accept expire=1000");
        assert!(!rule.has_expired(1000));
        assert!(rule.has_expired(1001));
        assert!(!Rule::new(Action::Drop).has_expired(u64::MAX));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            input in "((action=accept|action=drop|proto=(tcp|udp|icmp)|dst4=[0-9.]{1,9}(/[0-9]{1,2})?|dst6=[0-9a-f:]{1,9}|dstports=[0-9]{1,5}(-[0-9]{1,5})?|icmptype=[0-9]{1,3}|comment=[a-z ]{0,5}|[ -~]{0,5})( |\n|\r)){0,9}",
        ) {
            fuzz_rules(input.as_bytes());
        }

        #[test]
        fn shadowing_agrees_with_matching_single_packets(
            wide in "action=drop( dst4=10\\.0\\.[0-3]\\.0/(22|23|24))?( proto=tcp( dstports=[1-3](-[3-5])?)?)?",
            narrow in "action=drop( dst4=10\\.0\\.[0-3]\\.0/(22|23|24))?( proto=tcp( dstports=[1-3](-[3-5])?)?)?",
            host in 0..5u8, port in 1..7u16, tcp: bool,
        ) {
            let (wide, narrow) = (rule(&wide), rule(&narrow));
            let packet = rule(&format!(
                "action=drop dst4=10.0.{host}.1 {}",
                if tcp { format!("proto=tcp dstports={port}") } else { "proto=icmp".into() },
            ));
            if wide.shadows(&narrow) && narrow.shadows(&packet) {
                prop_assert!(wide.shadows(&packet));
            }
        }
    }
}
