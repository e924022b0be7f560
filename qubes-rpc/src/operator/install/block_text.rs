//! One agent's block of the operator's file replaced as text, so that comments and the blocks of
//! other agents stay as they are.

use policy::{Block, Grant, Scope, ScopeError, scope::COMPAT_QMCP};

/// What a new file begins with.
const HEADER: &str = "\
# Which agent may do what to which qube. Read at every call; one wrong line refuses everything.
# Change it with `saltbridged scope`, which changes qrexec's policy along with it.
";

/// Why there is no new text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    /// The file is of neither program.
    #[error("the list of agents and qubes has a fault; mend or remove it first")]
    Old(#[source] ScopeError),
    /// The new text would not be read.
    #[error("the new list of agents and qubes would not be read")]
    New(#[source] ScopeError),
}

/// The statement of a line in words.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split('#').next().unwrap_or_default().split_ascii_whitespace()
}

/// The agent whose block this line begins.
fn begins(line: &str) -> Option<&str> {
    let mut words = words(line);
    (words.next() == Some("@agent")).then(|| words.next()).flatten()
}

/// The qubes that a file of the original program lists; nothing when this is no such file.
pub(crate) fn older_targets(text: &str) -> Option<Vec<&str>> {
    let statements = text.lines().map(|line| words(line).collect::<Vec<_>>());
    let mut targets = Vec::new();
    for words in statements.filter(|words| !words.is_empty()) {
        let [name] = *words.as_slice() else { return None };
        admin_api::QubeName::parse(name).ok()?;
        targets.push(name);
    }
    (!targets.is_empty()).then_some(targets)
}

/// The file with this block in the place of the agent's former one, or below the others.
///
/// Of the original program's file only the comments stay.
pub(crate) fn with_block(text: &str, block: &Block) -> Result<String, BlockError> {
    let new = if text.trim_ascii().is_empty() {
        appended(HEADER, block)
    } else if older_targets(text).is_some() {
        let comments: String = lines(text).filter(|line| words(line).next().is_none()).collect();
        appended(&comments, block)
    } else {
        match Scope::parse(text) {
            Ok(scope) if scope.block(block.agent()).is_some() => replaced(text, block),
            Ok(_) | Err(ScopeError::Empty) => appended(text, block),
            Err(error) => return Err(BlockError::Old(error)),
        }
    };
    Scope::parse(&new).map_err(BlockError::New)?;
    Ok(new)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n')
}

fn appended(text: &str, block: &Block) -> String {
    let mut new = text.to_owned();
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.push_str(&Scope::of(block.clone()).render());
    new
}

fn replaced(text: &str, block: &Block) -> String {
    let (mut before, mut own, mut after) = (String::new(), Vec::new(), String::new());
    let (mut inside, mut passed) = (false, false);
    for line in lines(text) {
        match begins(line) {
            Some(agent) if agent == block.agent().as_str() => {
                inside = true;
                before.push_str(line);
                continue;
            }
            Some(_) if inside => (inside, passed) = (false, true),
            Some(_) | None => {}
        }
        if inside {
            own.push(line);
        } else if passed {
            after.push_str(line);
        } else {
            before.push_str(line);
        }
    }
    // What stands below the last grant may be about the next block.
    let grants =
        own.iter().rposition(|line| words(line).next().is_some()).map_or(0, |last| last + 1);
    let below = own.split_off(grants);
    ends_line(&mut before);
    let mut new = before;
    let mut missing: Vec<&Grant> = block.grants().iter().collect();
    if block.speaks_qmcp() && !own.iter().any(|line| is_compat(line)) {
        new.push_str(COMPAT_QMCP);
        new.push('\n');
    }
    for line in own {
        let statement = words(line).collect::<Vec<_>>().join(" ");
        let kept = statement.is_empty() || is_compat(line) && block.speaks_qmcp() || {
            let old = Grant::parse(&statement).ok();
            let place = missing.iter().position(|grant| Some(*grant) == old.as_ref());
            place.map(|place| missing.remove(place)).is_some()
        };
        if kept {
            new.push_str(line);
        }
    }
    ends_line(&mut new);
    for grant in missing {
        new.push_str(&grant.render());
        new.push('\n');
    }
    new.extend(below);
    new.push_str(&after);
    new
}

fn is_compat(line: &str) -> bool {
    words(line).eq(COMPAT_QMCP.split(' '))
}

fn ends_line(text: &mut String) {
    if !text.ends_with('\n') {
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use admin_api::QubeName;

    use super::*;

    fn block(agent: &str, grants: &[&str]) -> Block {
        let mut block = Block::new(QubeName::parse(agent).unwrap());
        for grant in grants {
            block.add_grant(Grant::parse(grant).unwrap()).unwrap();
        }
        block
    }

    const TWO: &str = "\
# all agents
@agent a
work            # the day's work
dev see,exec
# about b
@agent b   # helper
test see
# the end";

    #[test]
    fn only_the_agents_own_grants_are_replaced() {
        assert_eq!(
            with_block(TWO, &block("a", &["mail see", "work"])).unwrap(),
            "# all agents\n@agent a\nwork            # the day's work\nmail see\n# about b\n\
             @agent b   # helper\ntest see\n# the end"
        );
        assert_eq!(
            with_block(TWO, &block("b", &["work"])).unwrap(),
            "# all agents\n@agent a\nwork            # the day's work\ndev see,exec\n# about b\n\
             @agent b   # helper\nwork\n# the end"
        );
    }

    #[test]
    fn the_same_block_changes_no_byte() {
        let same = block("a", &["dev exec,see", "work"]);
        assert_eq!(with_block(TWO, &same).unwrap(), TWO);
        assert_eq!(with_block("@agent a\nb", &block("a", &["b"])).unwrap(), "@agent a\nb\n");
    }

    #[test]
    fn a_new_agent_comes_below_the_others() {
        let new = with_block(TWO, &block("c", &["work see"])).unwrap();
        assert_eq!(new, format!("{TWO}\n@agent c\nwork see\n"));
        let new = with_block("", &block("c", &["work see"])).unwrap();
        assert_eq!(new, format!("{HEADER}@agent c\nwork see\n"));
        let new = with_block("# mine", &block("c", &["work see"])).unwrap();
        assert_eq!(new, "# mine\n@agent c\nwork see\n");
    }

    #[test]
    fn of_the_original_programs_list_the_comments_stay() {
        assert_eq!(older_targets("# x\nwork\n\ndev # y\n"), Some(vec!["work", "dev"]));
        assert_eq!(older_targets("@agent a\nwork\n"), None);
        assert_eq!(older_targets("# nothing\n"), None);
        let new = with_block("# x\nwork\ndev\n", &block("a", &["work"])).unwrap();
        assert_eq!(new, "# x\n@agent a\nwork\n");
    }

    #[test]
    fn a_faulty_list_is_left_alone() {
        let fault = with_block("@agent a\nwork peek\n", &block("a", &["work"]));
        assert!(matches!(fault, Err(BlockError::Old(_))), "{fault:?}");
    }
}
