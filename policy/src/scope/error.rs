//! What can be wrong with the operator's file, said so that the operator can mend it.

use admin_api::{NameError, QubeName};
use contract::limits::SCOPE_BYTES;

use crate::{powers::PowersError, until::UntilError};

/// Why the file grants nothing to anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// More than [`SCOPE_BYTES`].
    #[error("the file is longer than {SCOPE_BYTES} bytes; shorten it")]
    TooLarge,
    /// Nothing but comments and blank lines.
    #[error("the file is empty; begin it with `@agent NAME` and list that agent's qubes below")]
    Empty,
    /// A line that cannot be read, or that contradicts another.
    #[error("line {line}: {error}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it, and what to do.
        #[source]
        error: LineError,
    },
}

/// What is wrong with a line, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// A target above the first `@agent`, as in the files of the older program.
    #[error("this target belongs to no agent; put a line `@agent NAME` above it")]
    WithoutAgent,
    /// `@agent` without a name, or with more than a name.
    #[error("write `@agent NAME` and nothing else on the line")]
    AgentLine,
    /// `@compat` without `qmcp`, with more, or a second one in a block.
    #[error("write `@compat qmcp` once in a block, and nothing else on the line")]
    CompatLine,
    /// The agent has a block already.
    #[error("`{0}` has a block already; move these lines into it")]
    RepeatedAgent(QubeName),
    /// A word that begins with `@` and is neither `@agent` nor `@tag:`.
    #[error("`{word}` is not known; a line begins with a qube's name, `@tag:TAG` or `@agent`")]
    UnknownKeyword {
        /// The word.
        word: String,
    },
    /// Not the name of a qube that can be agent or target. dom0 is neither, however it is spelled.
    #[error("`{word}` cannot be an agent or a target, write the name of a qube: {error}")]
    Name {
        /// The word.
        word: String,
        /// What is wrong with it.
        #[source]
        error: NameError,
    },
    /// Not a tag.
    #[error("`{word}` cannot stand behind `@tag:`, write the name of a tag: {error}")]
    Tag {
        /// The word behind `@tag:`.
        word: String,
        /// What is wrong with it.
        #[source]
        error: NameError,
    },
    /// The tag is the one that forbids.
    #[error("the tag `ai-dump` forbids; it cannot grant: remove the line")]
    DumpTag,
    /// The agent is among its own targets.
    #[error("an agent cannot be its own target; remove the line")]
    Itself,
    /// The target stands in this block already.
    #[error("the target stands in this agent's block already; keep one line for it")]
    RepeatedTarget,
    /// A list of powers that cannot be read.
    #[error(transparent)]
    Powers(#[from] PowersError),
    /// `:ask` on a tag.
    #[error("a grant by tag cannot ask, because the prompt would not show the qube; remove `:ask`")]
    AskOnTag,
    /// `until=` without a moment.
    #[error("until= is {0}")]
    Until(#[from] UntilError),
    /// More words than a grant has.
    #[error("`{word}` is one word too many; a line is `NAME [powers] [until=TIME]`")]
    Surplus {
        /// The first word too many.
        word: String,
    },
}
