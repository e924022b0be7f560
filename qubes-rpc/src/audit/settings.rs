//! What the operator set about the audit log, in `/etc/salt-bridge/settings.toml`:
//!
//! ```toml
//! [audit]
//! commands = "digest"   # or "text", which is the default
//! ```

use std::{fs, io, path::Path};

use super::entry::Commands;
use crate::journal;

/// How commands are written down. A file that cannot be understood hides them.
pub(super) fn commands(path: &Path) -> Commands {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Commands::Text,
        Err(error) => {
            journal::say(&format!("{}: {error}; commands are logged as digests", path.display()));
            return Commands::Digest;
        }
    };
    parse_commands(&text).unwrap_or_else(|| {
        let path = path.display();
        journal::say(&format!("{path}: audit.commands is neither \"text\" nor \"digest\""));
        Commands::Digest
    })
}

fn parse_commands(text: &str) -> Option<Commands> {
    let mut section = "";
    let mut commands = Commands::Text;
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(line, _)| line).trim_ascii();
        if line.starts_with('[') {
            section = line;
        } else if let (Some((key, value)), "[audit]") = (line.split_once('='), section)
            && key.trim_ascii() == "commands"
        {
            commands = match value.trim_ascii() {
                "\"text\"" => Commands::Text,
                "\"digest\"" => Commands::Digest,
                _ => return None,
            };
        }
    }
    Some(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_digests_where_the_operator_says_so_or_cannot_be_understood() {
        for (text, commands) in [
            ("", Some(Commands::Text)),
            ("commands = \"digest\"\n", Some(Commands::Text)),
            (
                "[audit]\ncommands = \"digest\" # secret\n[x]\ncommands = 1\n",
                Some(Commands::Digest),
            ),
            ("[audit]\ncommands=\"text\"", Some(Commands::Text)),
            ("[audit]\ncommands = digest", None),
        ] {
            assert_eq!(parse_commands(text), commands, "{text}");
        }
    }
}
