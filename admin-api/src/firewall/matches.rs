//! What a rule can match, each kind with its own grammar.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::RuleError;

fn wrong<T>(option: &'static str, expected: &'static str, found: &str) -> Result<T, RuleError> {
    Err(RuleError::Value { option, expected, found: found.to_owned() })
}

/// A number written in digits alone.
pub(super) fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident, $option:literal, $expected:literal { $($(#[$item_doc:meta])* $item:ident = $word:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$item_doc])* $item,)*
        }

        impl $name {
            /// Reads the word.
            pub fn parse(text: &str) -> Result<Self, RuleError> {
                match text {
                    $($word => Ok(Self::$item),)*
                    _ => wrong($option, $expected, text),
                }
            }

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$item => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(self.as_str())
            }
        }
    )*};
}

choices! {
    /// What happens to a packet.
    Action, "action", "accept or drop" {
        /// It passes.
        Accept = "accept",
        /// It is refused.
        Drop = "drop",
    }

    /// The protocol of a packet.
    Proto, "proto", "tcp, udp or icmp" {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
        /// ICMP, and ICMPv6 for IPv6.
        Icmp = "icmp",
    }

    /// A destination that is not an address.
    SpecialTarget, "specialtarget", "dns" {
        /// The name servers of the qube, port 53 of tcp and udp.
        Dns = "dns",
    }
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dst {
    /// A network of IPv4. The address keeps the bits behind the prefix, as qubesd does.
    Dst4 {
        /// An address in it.
        address: Ipv4Addr,
        /// How many leading bits count, 0 to 32.
        prefix: u8,
    },
    /// A network of IPv6, likewise.
    Dst6 {
        /// An address in it.
        address: Ipv6Addr,
        /// How many leading bits count, 0 to 128.
        prefix: u8,
    },
    /// A name, resolved by the qube that filters, when it loads the rules.
    Host(HostName),
}

impl Dst {
    /// Reads an address, a network or a name; an address is a network of its own.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        const EXPECTED: &str = "an address, a network or a host name in lower case";
        let (address, prefix) =
            text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let bits = |widest: u8| match prefix {
            None => Some(widest),
            Some(prefix) => {
                let bits = decimal(prefix).and_then(|bits| u8::try_from(bits).ok());
                bits.filter(|bits| *bits <= widest)
            }
        };
        let dst = if let Ok(address) = address.parse() {
            bits(32).map(|prefix| Self::Dst4 { address, prefix })
        } else if let Ok(address) = address.parse() {
            bits(128).map(|prefix| Self::Dst6 { address, prefix })
        } else if prefix.is_none() {
            return HostName::parse(text).map(Self::Host);
        } else {
            None
        };
        dst.map_or_else(|| wrong("dsthost", EXPECTED, text), Ok)
    }

    /// The option under which `Get` gives it.
    pub const fn option(&self) -> &'static str {
        match self {
            Self::Dst4 { .. } => "dst4",
            Self::Dst6 { .. } => "dst6",
            Self::Host(_) => "dsthost",
        }
    }

    /// Whether everything there is here as well.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dst4 { address, prefix }, Self::Dst4 { address: there, prefix: longer }) => {
                let shift = 32_u32.saturating_sub(u32::from(*prefix));
                let network = |address: &Ipv4Addr| address.to_bits().checked_shr(shift);
                prefix <= longer && network(address) == network(there)
            }
            (Self::Dst6 { address, prefix }, Self::Dst6 { address: there, prefix: longer }) => {
                let shift = 128_u32.saturating_sub(u32::from(*prefix));
                let network = |address: &Ipv6Addr| address.to_bits().checked_shr(shift);
                prefix <= longer && network(address) == network(there)
            }
            (Self::Host(name), Self::Host(there)) => name == there,
            (Self::Dst4 { .. } | Self::Dst6 { .. } | Self::Host(_), _) => false,
        }
    }
}

impl fmt::Display for Dst {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dst4 { address, prefix } => write!(out, "{address}/{prefix}"),
            Self::Dst6 { address, prefix } => write!(out, "{address}/{prefix}"),
            Self::Host(name) => out.pad(name.as_str()),
        }
    }
}

/// A name of a host as qubesd takes it: lower-case letters, digits, `-`, `.`, `_`. It takes an
/// empty one, too, which names nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(Box<str>);

impl HostName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let part = |found: char| matches!(found, 'a'..='z' | '0'..='9' | '-' | '.' | '_');
        if text.chars().all(part) {
            return Ok(Self(text.into()));
        }
        wrong("dsthost", "an address, a network or a host name in lower case", text)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Ports from the first to the last, both included. qubesd takes 0, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest, not below the lowest.
    pub last: u16,
}

impl PortRange {
    /// Reads `PORT` or `FIRST-LAST`.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let port = |text| decimal(text).and_then(|port| u16::try_from(port).ok());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => wrong("dstports", "a port or a range of ports up to 65535", text),
        }
    }

    /// Whether all of these ports are here as well.
    pub const fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// As firewall.xml has it: a single port is not a range there.
    pub(crate) fn short(self) -> String {
        if self.first == self.last { self.first.to_string() } else { self.to_string() }
    }
}

/// Always `FIRST-LAST`, as `Get` gives it.
impl fmt::Display for PortRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}-{}", self.first, self.last)
    }
}

/// A comment: ASCII letters, digits, spaces and `:;,./-_[]`, not empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Comment(Box<str>);

impl Comment {
    /// Reads a comment.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let plain = |found: char| found.is_ascii_alphanumeric() || ":;,./-_[] ".contains(found);
        if !text.is_empty() && text.chars().all(plain) {
            return Ok(Self(text.into()));
        }
        wrong("comment", "letters, digits, spaces and :;,./-_[] alone", text)
    }

    /// The comment.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Comment {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

/// The last second that qubesd can hold in any time zone: the end of the year 9999, less two days.
const LAST_SECOND: u64 = 253_402_128_000;

pub(super) fn parse_expire(text: &str) -> Result<u64, RuleError> {
    let seconds = decimal(text).filter(|seconds| *seconds <= LAST_SECOND);
    seconds.map_or_else(|| wrong("expire", "a number of seconds since 1970", text), Ok)
}

pub(super) fn parse_icmptype(text: &str) -> Result<u8, RuleError> {
    let number = decimal(text).filter(|_| text.len() <= 3);
    let icmptype = number.and_then(|number| u8::try_from(number).ok());
    icmptype.map_or_else(|| wrong("icmptype", "a number from 0 to 255", text), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_network_or_a_name() {
        for (text, option, printed) in [
            ("10.0.0.1", "dst4", "10.0.0.1/32"),
            ("10.1.2.3/8", "dst4", "10.1.2.3/8"),
            ("0.0.0.0/0", "dst4", "0.0.0.0/0"),
            ("2001:DB8::1", "dst6", "2001:db8::1/128"),
            ("::/0", "dst6", "::/0"),
            ("010.0.0.1", "dsthost", "010.0.0.1"),
            ("www.example.com", "dsthost", "www.example.com"),
        ] {
            let dst = Dst::parse(text).unwrap();
            assert_eq!((dst.option(), dst.to_string().as_str()), (option, printed));
        }
        for bad in [
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "::/129",
            "a/8",
            "10.0.0.0/8/8",
            "A",
            "a b",
            "1/2",
        ] {
            assert!(Dst::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_digits_in_order() {
        assert_eq!(PortRange::parse("443").unwrap().to_string(), "443-443");
        assert_eq!(PortRange::parse("0").unwrap().short(), "0");
        assert_eq!(PortRange::parse("1-65535").unwrap().short(), "1-65535");
        for bad in
            ["", "-", "1-", "-1", "65536", "2-1", "1-2-3", "+1", "1 ", "99999999999999999999999"]
        {
            assert!(PortRange::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_values_have_their_bounds() {
        assert_eq!(parse_icmptype("255"), Ok(255));
        assert!(parse_icmptype("0008").is_err() && parse_icmptype("256").is_err());
        assert!(parse_expire("").is_err() && parse_expire("253402128001").is_err());
        assert!(Comment::parse("").is_err() && Comment::parse("a\nb").is_err());
        assert_eq!(Comment::parse("a;b. [c]").unwrap().as_str(), "a;b. [c]");
    }
}
