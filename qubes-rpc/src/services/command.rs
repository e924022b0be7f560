//! The parameters that all services share which run a command.

use std::collections::BTreeMap;

use contract::{Fault, limits};

use crate::{
    error::Error,
    run::{Command, Program},
    service::Body,
};

/// The standard input of a command.
pub(crate) const STDIN: Body = Body {
    field: "stdin",
    about: "What the command reads on its standard input; nothing when left out.",
    encoding: "stdin_encoding",
    required: false,
};

/// The variables of our own frames in a qube.
const OUR_PREFIX: &str = "SALT_BRIDGE_";

/// A command that can be run: a line or a program, a folder, and variables, within their limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ParsedCommand {
    line: Option<String>,
    argv: Vec<String>,
    cwd: String,
    env: Vec<String>,
}

impl ParsedCommand {
    /// The command of a request, of whose parameters `command` and `argv` exactly one is given.
    pub(crate) fn parse(
        command: Option<&str>,
        argv: Option<&[String]>,
        cwd: Option<&str>,
        env: &BTreeMap<String, String>,
    ) -> Result<Self, Fault> {
        let (line, argv) = match (command, argv) {
            (Some(line), None) if line.trim().is_empty() => {
                return Err(Fault::bad_request("command must hold a command"));
            }
            (Some(line), None) => (Some(line.to_owned()), Vec::new()),
            (None, Some(argv)) if argv.first().is_none_or(String::is_empty) => {
                return Err(Fault::bad_request("argv must begin with a program"));
            }
            (None, Some(argv)) => (None, argv.to_vec()),
            (Some(_), Some(_)) => {
                return Err(Fault::bad_request("give command or argv, not both"));
            }
            (None, None) => {
                return Err(Fault::bad_request("command is missing: give command or argv"));
            }
        };
        let cwd = cwd.unwrap_or_default().to_owned();
        if cwd.len() > limits::PATH_BYTES {
            let most = limits::PATH_BYTES;
            return Err(Fault::bad_request(format!("cwd may have at most {most} bytes")));
        }
        for name in env.keys() {
            if !is_variable(name) || name.starts_with(OUR_PREFIX) {
                let rule = "letters, digits and _, with no digit first, and not SALT_BRIDGE_";
                let message = format!("env: {name:?} is no name of a variable ({rule})");
                return Err(Fault::bad_request(message));
            }
        }
        let env = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let parsed = Self { line, argv, cwd, env };
        parsed.within_limits()?;
        Ok(parsed)
    }

    fn within_limits(&self) -> Result<(), Fault> {
        let texts = || self.line.iter().chain(&self.argv).chain(&self.env).chain([&self.cwd]);
        if texts().map(String::len).sum::<usize>() > limits::COMMAND_BYTES {
            let most = limits::COMMAND_BYTES;
            let message = format!("a command may have at most {most} bytes, with cwd and env");
            return Err(Fault::TooLarge { message });
        }
        if texts().any(|text| text.contains('\0')) {
            return Err(Fault::bad_request("a command can hold no NUL"));
        }
        Ok(())
    }

    /// As the runner takes it.
    pub(crate) fn as_command(&self) -> Command<'_> {
        let program = match &self.line {
            Some(line) => Program::Line(line.as_bytes()),
            None => Program::Argv(&self.argv),
        };
        Command { program, cwd: self.cwd.as_bytes(), env: &self.env }
    }

    /// A line for people that says what is run, at most this many characters.
    pub(crate) fn shown(&self, most: usize) -> String {
        let text = self.line.clone().unwrap_or_else(|| self.argv.join(" "));
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
    }

    /// The refusal of a folder that the qube said cannot be entered, with its reason.
    pub(crate) fn no_folder(&self, untrusted_reason: &str) -> Error {
        let reason: String =
            untrusted_reason.chars().filter(|c| !c.is_control()).take(100).collect();
        let cwd = &self.cwd;
        Fault::bad_request(format!("cwd {cwd:?}: {reason}; nothing was run")).into()
    }
}

/// A name as POSIX has it.
fn is_variable(name: &str) -> bool {
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(begins) && name.chars().all(|c| begins(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn parse(command: Option<&str>, argv: Option<&[&str]>) -> Result<ParsedCommand, Fault> {
        let argv: Option<Vec<String>> =
            argv.map(|argv| argv.iter().map(|word| (*word).to_owned()).collect());
        ParsedCommand::parse(command, argv.as_deref(), None, &env(&[]))
    }

    #[test]
    fn a_command_is_a_line_or_a_program_and_never_both_or_nothing() {
        assert!(parse(Some("id"), None).is_ok());
        assert!(parse(None, Some(&["ls", "a b", ""])).is_ok());
        for (command, argv) in [
            (None, None),
            (Some("id"), Some(&["id"][..])),
            (Some(" \n"), None),
            (None, Some(&[][..])),
            (None, Some(&["", "x"][..])),
            (Some("a\0b"), None),
            (None, Some(&["a", "\0"][..])),
        ] {
            assert!(matches!(parse(command, argv), Err(Fault::BadRequest { .. })), "{argv:?}");
        }
    }

    #[test]
    fn variables_have_names_and_none_is_of_our_own() {
        let with = |name: &str| ParsedCommand::parse(Some("id"), None, None, &env(&[(name, "x")]));
        for name in ["A", "_a1", "LC_ALL"] {
            assert!(with(name).is_ok(), "{name}");
        }
        for name in ["", "1A", "A B", "A=B", "é", "A\n", "-i", "SALT_BRIDGE_CALL"] {
            assert!(matches!(with(name), Err(Fault::BadRequest { .. })), "{name}");
        }
    }

    #[test]
    fn all_texts_together_are_within_the_limit() {
        let half = "x".repeat(limits::COMMAND_BYTES / 2 + 1);
        let both = ParsedCommand::parse(Some(&half), None, None, &env(&[("A", &half)]));
        assert!(matches!(both, Err(Fault::TooLarge { .. })));
        let path = "x".repeat(limits::PATH_BYTES + 1);
        let long = ParsedCommand::parse(Some("id"), None, Some(&path), &env(&[]));
        assert!(matches!(long, Err(Fault::BadRequest { .. })));
    }

    #[test]
    fn what_is_shown_is_one_short_line() {
        assert_eq!(parse(Some("a\n\u{1b}b"), None).unwrap().shown(80), "a  b");
        assert_eq!(parse(None, Some(&["ls", "-l"])).unwrap().shown(4), "ls -");
    }
}
