//! The operator's file: which agent may do what to which qubes. One wrong line makes all of it void.

mod error;

use std::{collections::BTreeSet, fmt::Write as _, str::FromStr, time::SystemTime};

use admin_api::{QubeName, Tag};
use contract::limits::SCOPE_BYTES;

pub use error::{LineError, ScopeError};

use crate::{
    powers::Powers,
    tier::{DUMP_TAG, SANDBOX_TAG, SandboxRules},
    until::Until,
};

/// All that the operator granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    blocks: Vec<Block>,
    rules: SandboxRules,
}

/// What one agent was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    agent: QubeName,
    grants: Vec<Grant>,
    /// What they are over, to see at once what is repeated.
    targets: BTreeSet<Target>,
    /// Whether calls in the form of qubes-mcp are answered.
    qmcp: bool,
}

/// The line that lets an agent call in the form of qubes-mcp.
pub const COMPAT_QMCP: &str = "@compat qmcp";

/// Powers over one qube, or over every qube that carries a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What the powers are over.
    pub target: Target,
    /// The powers.
    pub powers: Powers,
    /// When the grant ends; none means that it does not end by itself.
    pub until: Option<Until>,
}

/// What a grant is over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The qube of this name: a listed qube.
    Qube(QubeName),
    /// Every qube that carries this tag when it is looked at.
    Tag(Tag),
}

impl Scope {
    /// Reads the whole file. Only a file without any fault grants anything.
    ///
    /// # Errors
    /// The first fault, with its line.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        if text.len() > SCOPE_BYTES {
            return Err(ScopeError::TooLarge);
        }
        let mut scope = Self { blocks: Vec::new(), rules: SandboxRules::default() };
        for (place, line) in text.lines().enumerate() {
            let statement = line.split_once('#').map_or(line, |(statement, _)| statement);
            let mut words = statement.split_ascii_whitespace();
            let Some(first) = words.next() else { continue };
            scope
                .read_line(first, words)
                .map_err(|error| ScopeError::Line { line: place + 1, error })?;
        }
        if scope.blocks.is_empty() { Err(ScopeError::Empty) } else { Ok(scope) }
    }

    fn read_line<'a>(
        &mut self,
        first: &'a str,
        mut rest: impl Iterator<Item = &'a str>,
    ) -> Result<(), LineError> {
        if first == "@agent" {
            let (Some(name), None) = (rest.next(), rest.next()) else {
                return Err(LineError::AgentLine);
            };
            return self.add_block(Block::new(parse_name(name)?));
        }
        if first == "@compat" {
            let (Some("qmcp"), None) = (rest.next(), rest.next()) else {
                return Err(LineError::CompatLine);
            };
            let block = self.blocks.last_mut().ok_or(LineError::WithoutAgent)?;
            return match std::mem::replace(&mut block.qmcp, true) {
                true => Err(LineError::CompatLine),
                false => Ok(()),
            };
        }
        let grant = Grant::from_words(first, rest)?;
        self.blocks.last_mut().ok_or(LineError::WithoutAgent)?.add_grant(grant)
    }

    /// A scope of this one block.
    pub fn of(block: Block) -> Self {
        Self { blocks: vec![block], rules: SandboxRules::default() }
    }

    /// The same scope under the operator's rules for tags, which stand in another file.
    #[must_use]
    pub fn under(self, rules: SandboxRules) -> Self {
        Self { rules, ..self }
    }

    /// The rules for tags.
    pub const fn rules(&self) -> SandboxRules {
        self.rules
    }

    /// Adds a block below the others.
    ///
    /// # Errors
    /// The agent has a block already.
    pub fn add_block(&mut self, block: Block) -> Result<(), LineError> {
        if self.block(&block.agent).is_some() {
            return Err(LineError::RepeatedAgent(block.agent));
        }
        self.blocks.push(block);
        Ok(())
    }

    /// Puts a block in the place of the one that its agent has, or below the others.
    pub fn replace_block(&mut self, block: Block) {
        match self.blocks.iter_mut().find(|old| old.agent == block.agent) {
            Some(old) => *old = block,
            None => self.blocks.push(block),
        }
    }

    /// The agents, in the order of the file.
    pub fn agents(&self) -> impl Iterator<Item = &QubeName> {
        self.blocks.iter().map(|block| &block.agent)
    }

    /// The blocks, in the order of the file. There is at least one.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The block of this agent.
    pub fn block(&self, agent: &QubeName) -> Option<&Block> {
        self.blocks.iter().find(|block| block.agent == *agent)
    }

    /// The file's text. [`Scope::parse`] reads the same scope from it; comments are not kept.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "@agent {}", block.agent);
            if block.qmcp {
                text.push_str(COMPAT_QMCP);
                text.push('\n');
            }
            for grant in &block.grants {
                text.push_str(&grant.render());
                text.push('\n');
            }
        }
        text
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Self::parse(text)
    }
}

impl Block {
    /// A block that grants nothing yet.
    pub const fn new(agent: QubeName) -> Self {
        Self { agent, grants: Vec::new(), targets: BTreeSet::new(), qmcp: false }
    }

    /// Whose block it is.
    pub const fn agent(&self) -> &QubeName {
        &self.agent
    }

    /// The same block, whose agent's calls in the form of qubes-mcp are answered.
    #[must_use]
    pub fn speaking_qmcp(self) -> Self {
        Self { qmcp: true, ..self }
    }

    /// Whether calls in the form of qubes-mcp are answered.
    pub const fn speaks_qmcp(&self) -> bool {
        self.qmcp
    }

    /// Whether the block grants the sandbox now.
    pub fn holds_sandbox(&self, now: SystemTime) -> bool {
        self.running(now).any(|grant| grant.target.is_sandbox())
    }

    /// The grants, in the order of the file, ended ones too.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The grant over a listed qube, ended or not.
    pub fn listed(&self, target: &QubeName) -> Option<&Grant> {
        self.grants.iter().find(|grant| match &grant.target {
            Target::Qube(name) => name == target,
            Target::Tag(_) => false,
        })
    }

    /// Adds a grant below the others.
    ///
    /// # Errors
    /// The target is the agent, is granted already, or is a tag that cannot be granted so.
    pub fn add_grant(&mut self, grant: Grant) -> Result<(), LineError> {
        match &grant.target {
            Target::Qube(name) if *name == self.agent => return Err(LineError::Itself),
            Target::Tag(tag) if tag.as_str() == DUMP_TAG => return Err(LineError::DumpTag),
            Target::Tag(_) if grant.powers.any_ask() => return Err(LineError::AskOnTag),
            Target::Qube(_) | Target::Tag(_) => {}
        }
        if !self.targets.insert(grant.target.clone()) {
            return Err(LineError::RepeatedTarget);
        }
        self.grants.push(grant);
        Ok(())
    }
}

impl Grant {
    /// Reads `NAME [powers] [until=TIME]`, as it stands in the file.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn parse(line: &str) -> Result<Self, LineError> {
        let mut words = line.split_ascii_whitespace();
        Self::from_words(words.next().unwrap_or_default(), words)
    }

    fn from_words<'a>(
        target: &str,
        rest: impl Iterator<Item = &'a str>,
    ) -> Result<Self, LineError> {
        let target = Target::parse(target)?;
        let (mut powers, mut until) = (None, None);
        for word in rest {
            match word.strip_prefix("until=") {
                Some(time) if until.is_none() => until = Some(Until::parse(time)?),
                None if powers.is_none() && until.is_none() => powers = Some(Powers::parse(word)?),
                Some(_) | None => return Err(LineError::Surplus { word: word.into() }),
            }
        }
        let powers = powers.unwrap_or_else(|| target.bare());
        Ok(Self { target, powers, until })
    }

    /// Whether the grant has ended.
    pub fn has_ended(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until.has_passed(now))
    }

    /// The line of the file, without its newline.
    pub fn render(&self) -> String {
        let mut line = match &self.target {
            Target::Qube(name) => name.to_string(),
            Target::Tag(tag) => format!("@tag:{tag}"),
        };
        if self.powers != self.target.bare() {
            // Writing to a String cannot fail.
            let _ = write!(line, " {}", self.powers);
        }
        if let Some(until) = self.until {
            let _ = write!(line, " until={until}");
        }
        line
    }
}

impl Target {
    /// The powers of a line that names none: what the tiers give for the sandbox, else
    /// [`Powers::bare`].
    pub fn bare(&self) -> Powers {
        if self.is_sandbox() { Powers::all() } else { Powers::bare() }
    }

    /// Whether it is the sandbox: the qubes with the tag `ai-managed`.
    pub fn is_sandbox(&self) -> bool {
        matches!(self, Self::Tag(tag) if tag.as_str() == SANDBOX_TAG)
    }

    /// Reads `NAME` or `@tag:TAG`.
    ///
    /// # Errors
    /// The word is neither.
    pub fn parse(word: &str) -> Result<Self, LineError> {
        if let Some(tag) = word.strip_prefix("@tag:") {
            return Tag::parse(tag)
                .map(Self::Tag)
                .map_err(|error| LineError::Tag { word: tag.into(), error });
        }
        if word.starts_with('@') {
            return Err(LineError::UnknownKeyword { word: word.into() });
        }
        parse_name(word).map(Self::Qube)
    }
}

fn parse_name(word: &str) -> Result<QubeName, LineError> {
    QubeName::parse(word).map_err(|error| LineError::Name { word: word.into(), error })
}

/// Reads whatever it is given and asserts that what was read survives a round trip.
pub fn fuzz_scope(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(scope) = Scope::parse(text) {
        assert_eq!(
            Scope::parse(&scope.render()),
            Ok(scope),
            "a scope does not survive a round trip"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{powers::PowersError, until::UntilError};
    use contract::Power;
    use proptest::prelude::*;

    const EXAMPLE: &str = "\
# what the agents may do
@agent salt-bridge
work                                # all but shape
dev        see,lifecycle,exec,files
vault-ro   see,files:ask
build      see,exec until=2026-12-01T18:00:00Z

@tag:ai-managed
@agent helper                       # a second agent
test       see
";

    fn fault(text: &str) -> (usize, LineError) {
        match Scope::parse(text) {
            Err(ScopeError::Line { line, error }) => (line, error),
            other => panic!("{text:?} gave {other:?}"),
        }
    }

    #[test]
    fn the_example_of_the_documents_is_read_as_it_says() {
        let scope = Scope::parse(EXAMPLE).unwrap();
        let agents: Vec<String> = scope.agents().map(ToString::to_string).collect();
        assert_eq!(agents, ["salt-bridge", "helper"]);
        let block = scope.block(&QubeName::parse("salt-bridge").unwrap()).unwrap();
        let work = block.listed(&QubeName::parse("work").unwrap()).unwrap();
        assert_eq!((&work.powers, work.until), (&Powers::bare(), None));
        assert!(!work.powers.holds(Power::Shape));
        let build = block.listed(&QubeName::parse("build").unwrap()).unwrap();
        assert_eq!(build.until, Until::parse("2026-12-01T18:00:00Z").ok());
        assert_eq!(
            scope.render(),
            "@agent salt-bridge\nwork\ndev see,lifecycle,exec,files\nvault-ro see,files:ask\n\
             build see,exec until=2026-12-01T18:00:00Z\n@tag:ai-managed\n@agent helper\ntest see\n"
        );
        assert_eq!(Scope::parse(&scope.render()), Ok(scope));
    }

    #[test]
    fn the_form_of_qubes_mcp_is_said_once_and_kept() {
        let text = "@agent a\n@compat qmcp\n@tag:ai-managed until=1970-01-01T00:00:10Z\n";
        let scope: Scope = text.parse().unwrap();
        assert_eq!(scope.render(), text);
        let block = scope.blocks().first().unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        assert!(block.speaks_qmcp() && block.holds_sandbox(at(9)) && !block.holds_sandbox(at(10)));
        let fresh = Block::new(QubeName::parse("a").unwrap()).speaking_qmcp();
        assert!(fresh.speaks_qmcp() && !fresh.holds_sandbox(at(0)));
        for line in ["@compat", "@compat qmcp more", "@compat other"] {
            assert_eq!(fault(&format!("@agent a\n{line}\n")), (2, LineError::CompatLine), "{line}");
        }
        assert_eq!(fault("@agent a\n@compat qmcp\n@compat qmcp\n"), (3, LineError::CompatLine));
        assert_eq!(fault("@compat qmcp\n"), (1, LineError::WithoutAgent));
    }

    #[test]
    fn a_file_of_the_older_program_grants_nothing_to_anybody() {
        assert_eq!(fault("# comment\n\nwork\ndev\n"), (3, LineError::WithoutAgent));
    }

    #[test]
    fn a_file_without_a_statement_is_empty() {
        for text in ["", "\n\n", "# only this\n", "   \t\n#"] {
            assert_eq!(Scope::parse(text), Err(ScopeError::Empty), "{text:?}");
        }
        assert!(Scope::parse("@agent a\n").unwrap().blocks().iter().all(|b| b.grants().is_empty()));
    }

    #[test]
    fn a_file_longer_than_its_limit_is_refused() {
        let text = format!("@agent a\nb\n#{}", "x".repeat(SCOPE_BYTES));
        assert_eq!(Scope::parse(&text), Err(ScopeError::TooLarge));
        assert!(Scope::parse(text.get(..SCOPE_BYTES).unwrap()).is_ok());
    }

    #[test]
    fn one_wrong_line_voids_the_file_and_is_named() {
        use LineError as E;
        let name = |word: &str| QubeName::parse(word).unwrap();
        for (line, error) in [
            ("@agent", E::AgentLine),
            ("@agent a b", E::AgentLine),
            ("@agent a", E::RepeatedAgent(name("a"))),
            ("@adminvm", E::UnknownKeyword { word: "@adminvm".into() }),
            ("@Agent b", E::UnknownKeyword { word: "@Agent".into() }),
            ("@type:AppVM", E::UnknownKeyword { word: "@type:AppVM".into() }),
            ("@tag:ai-dump", E::DumpTag),
            ("@tag:ai-managed files:ask", E::AskOnTag),
            ("a", E::Itself),
            ("b see", E::RepeatedTarget),
            ("c see,peek", E::Powers(PowersError::Unknown { word: "peek".into() })),
            ("c see,", E::Powers(PowersError::Unknown { word: String::new() })),
            ("c see, exec", E::Powers(PowersError::Unknown { word: String::new() })),
            ("c see,see", E::Powers(PowersError::Repeated(Power::See))),
            ("c see exec", E::Surplus { word: "exec".into() }),
            ("c until=tomorrow", E::Until(UntilError)),
            ("c until=2026-12-01T18:00:00Z see", E::Surplus { word: "see".into() }),
            (
                "c until=2026-12-01T18:00:00Z until=2026-12-01T18:00:00Z",
                E::Surplus { word: "until=2026-12-01T18:00:00Z".into() },
            ),
        ] {
            assert_eq!(fault(&format!("@agent a\nb\n{line}\nd\n")), (3, error), "{line}");
        }
    }

    #[test]
    fn what_is_no_qube_is_neither_target_nor_agent() {
        for word in [
            "dom0",
            "DOM0",
            "Dom0",
            "Domain-0",
            "domain-0",
            "none",
            "default",
            "x-dm",
            "1st",
            "-a",
            "a+b",
            "uuid:00000000-0000-0000-0000-000000000000",
            "wörk",
            "work\u{a0}see",
            "*",
            "a\0",
            "\u{feff}work",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(matches!(fault(&format!("@agent a\n{word}")), (2, LineError::Name { .. })));
            assert!(matches!(fault(&format!("@agent {word}")), (1, LineError::Name { .. })));
        }
        for word in ["", "a.b", "a+b", "@tag:x"] {
            assert!(matches!(fault(&format!("@agent a\n@tag:{word}")), (2, LineError::Tag { .. })));
        }
    }

    #[test]
    fn the_same_target_may_stand_in_the_blocks_of_two_agents() {
        let scope = Scope::parse("@agent a\nb\nc\n@agent b\na\nc see\n").unwrap();
        assert_eq!(scope.blocks().len(), 2);
    }

    #[test]
    fn replacing_a_block_leaves_the_others() {
        let mut scope = Scope::parse("@agent a\nb\n@agent c\nd\n").unwrap();
        let mut block = Block::new(QubeName::parse("a").unwrap());
        block.add_grant(Grant::parse("e see").unwrap()).unwrap();
        scope.replace_block(block);
        assert_eq!(scope.render(), "@agent a\ne see\n@agent c\nd\n");
        scope.replace_block(Block::new(QubeName::parse("f").unwrap()));
        assert_eq!(scope.render(), "@agent a\ne see\n@agent c\nd\n@agent f\n");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_scope(&input);
        }

        #[test]
        fn files_of_likely_words_survive_a_round_trip(words in prop::collection::vec(
            prop::sample::select(vec![
                "@agent", "a", "b", "work", "dom0", "@tag:ai-managed", "@tag:", "see", "see,files:ask",
                "until=2026-12-01T18:00:00Z", "until=", "#", "\n", "\n", "\r\n", " ", "\t",
            ]), 0..40)) {
            fuzz_scope(words.join(" ").as_bytes());
            fuzz_scope(format!("@agent x\n{}", words.concat()).as_bytes());
        }

        #[test]
        fn a_prefix_of_a_good_file_never_grants_more(cut in 0..EXAMPLE.len()) {
            let whole = Scope::parse(EXAMPLE).unwrap();
            if let Some(Ok(part)) = EXAMPLE.get(..cut).map(Scope::parse) {
                for block in part.blocks() {
                    let Some(full) = whole.block(block.agent()) else { continue };
                    prop_assert!(block.grants().len() <= full.grants().len());
                }
            }
        }
    }
}
