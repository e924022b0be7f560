//! The file of `qubes.ConnectTCP` rules that agents asked for. It holds nothing else.

use std::{fmt, fmt::Write as _, num::NonZeroU16};

use admin_api::QubeName;

const SERVICE: &str = "qubes.ConnectTCP";
const HEADER: &str = "\
# Made by Salt Bridge from what agents asked for; lines of another form than those below are lost.
";

/// The source may reach this TCP port of the target's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TcpRule {
    /// The qube that connects.
    pub source: QubeName,
    /// The qube that is connected to.
    pub target: QubeName,
    /// The port, from 1.
    pub port: NonZeroU16,
}

impl fmt::Display for TcpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SERVICE} +{}  {}  {}  allow", self.port, self.source, self.target)
    }
}

/// All rules of the file, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpRules {
    rules: Vec<TcpRule>,
}

/// A line that is neither comment nor one of our rules, so that somebody else wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not `{SERVICE} +PORT SOURCE TARGET allow`; move it to a file of your own")]
pub struct TcpRulesError {
    /// Its number, from 1.
    pub line: usize,
}

impl TcpRules {
    /// Reads the file. Comments and blank lines are passed over.
    ///
    /// # Errors
    /// The first line that is no rule of ours.
    pub fn parse(text: &str) -> Result<Self, TcpRulesError> {
        let mut rules = Self::default();
        for (place, line) in text.lines().enumerate() {
            let line = line.trim_ascii();
            if !line.is_empty() && !line.starts_with('#') {
                rules.add(parse_rule(line).ok_or(TcpRulesError { line: place + 1 })?);
            }
        }
        Ok(rules)
    }

    /// The rules, in the order of the file.
    pub fn rules(&self) -> &[TcpRule] {
        &self.rules
    }

    /// Adds a rule below the others; false when it is there already.
    pub fn add(&mut self, rule: TcpRule) -> bool {
        let is_new = !self.rules.contains(&rule);
        if is_new {
            self.rules.push(rule);
        }
        is_new
    }

    /// Removes a rule; false when it is not there.
    pub fn remove(&mut self, rule: &TcpRule) -> bool {
        let before = self.rules.len();
        self.rules.retain(|old| old != rule);
        self.rules.len() < before
    }

    /// Removes every rule of which this is not true; false when it is true of all.
    pub fn retain(&mut self, keep: impl FnMut(&TcpRule) -> bool) -> bool {
        let before = self.rules.len();
        self.rules.retain(keep);
        self.rules.len() < before
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let mut text = HEADER.to_owned();
        for rule in &self.rules {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{rule}");
        }
        text
    }
}

fn parse_rule(line: &str) -> Option<TcpRule> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [SERVICE, argument, source, target, "allow"] = *words.as_slice() else { return None };
    let digits = argument.strip_prefix('+')?;
    let port: NonZeroU16 = digits.parse().ok()?;
    // qrexec compares the argument as text, so that `+022` would be another one than `+22`.
    if port.to_string() != digits {
        return None;
    }
    let (source, target) = (QubeName::parse(source).ok()?, QubeName::parse(target).ok()?);
    Some(TcpRule { source, target, port })
}

/// Reads whatever it is given and asserts that what was read survives a round trip.
pub fn fuzz_tcp_rules(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(rules) = TcpRules::parse(text) {
        assert_eq!(
            TcpRules::parse(&rules.render()),
            Ok(rules),
            "rules do not survive a round trip"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(source: &str, target: &str, port: u16) -> TcpRule {
        TcpRule {
            source: QubeName::parse(source).unwrap(),
            target: QubeName::parse(target).unwrap(),
            port: NonZeroU16::new(port).unwrap(),
        }
    }

    #[test]
    fn a_rule_is_written_as_the_older_program_wrote_it() {
        let mut rules = TcpRules::default();
        assert!(rules.add(rule("work", "dev", 22)));
        assert!(rules.render().ends_with("\nqubes.ConnectTCP +22  work  dev  allow\n"));
        assert_eq!(TcpRules::parse(&rules.render()), Ok(rules));
    }

    #[test]
    fn a_rule_is_added_once_and_removed_once() {
        let mut rules =
            TcpRules::parse("# header\n\nqubes.ConnectTCP +22 work dev allow\n").unwrap();
        assert!(!rules.add(rule("work", "dev", 22)));
        assert!(rules.add(rule("dev", "work", 22)));
        assert!(rules.remove(&rule("work", "dev", 22)));
        assert!(!rules.remove(&rule("work", "dev", 22)));
        assert_eq!(rules.rules(), [rule("dev", "work", 22)]);
        assert!(rules.retain(|rule| rule.port.get() != 22));
        assert_eq!(rules, TcpRules::default());
    }

    #[test]
    fn a_line_of_any_other_form_is_somebody_elses() {
        for line in [
            "qubes.ConnectTCP * work dev allow",
            "qubes.ConnectTCP + work dev allow",
            "qubes.ConnectTCP +0 work dev allow",
            "qubes.ConnectTCP +022 work dev allow",
            "qubes.ConnectTCP ++22 work dev allow",
            "qubes.ConnectTCP +65536 work dev allow",
            "qubes.ConnectTCP +22 work dev deny",
            "qubes.ConnectTCP +22 work dev allow user=root",
            "qubes.ConnectTCP +22 work @default allow",
            "qubes.ConnectTCP +22 work dom0 allow",
            "qubes.ConnectTCP +22 @anyvm dev allow",
            "qubes.ConnectUDP +22 work dev allow",
            "!include x",
        ] {
            let text = format!("# header\n{line}\n");
            assert_eq!(TcpRules::parse(&text), Err(TcpRulesError { line: 2 }), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_tcp_rules(&input);
        }

        #[test]
        fn files_of_likely_words_survive_a_round_trip(words in prop::collection::vec(
            prop::sample::select(vec![
                "qubes.ConnectTCP", "+22", "+65535", "work", "dev", "allow", "\n", "#",
                "qubes.ConnectTCP +1 a b allow\n",
            ]), 0..30)) {
            fuzz_tcp_rules(words.join(" ").as_bytes());
        }
    }
}
