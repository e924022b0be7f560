//! `salt-bridge token`: gives out tokens, lists who has one, and takes them back.

use std::{collections::BTreeSet, io::Write, path::PathBuf, process::ExitCode};

use clap::Subcommand;
use contract::{Fault, PrincipalName};

use super::{Principal, Principals, PrincipalsError, keys::Places, token::Token};
use crate::{
    arguments::QubeName,
    catalogue::{CatalogueError, Tools},
    secret_file::{self, SecretFileError},
};

/// The folder of this program beneath the user's configuration.
const FOLDER: &str = "salt-bridge";

/// Where the tokens are kept.
#[derive(Debug, clap::Args)]
pub(crate) struct Files {
    /// The owner's token, in a file that only this user may read; made where it is missing
    /// [default: ~/.config/salt-bridge/token]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The principals and the digests of their tokens [default: principals.json beside the token]
    #[arg(long, value_name = "FILE")]
    principals: Option<PathBuf>,
}

impl Files {
    /// The files, unless one is not given and the user has no home.
    pub(crate) fn places(self) -> Option<Places> {
        let token = match self.token_file {
            Some(path) => path,
            None => configuration()?.join(FOLDER).join("token"),
        };
        let principals = self.principals.unwrap_or_else(|| token.with_file_name("principals.json"));
        Some(Places { token, principals })
    }
}

#[expect(clippy::disallowed_methods, reason = "where the user's configuration is")]
fn configuration() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))
}

/// What `token` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    files: Files,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token for somebody, and print it: it cannot be shown again
    Add {
        /// The name that dom0 writes down as who the calls are said to be for
        name: PrincipalName,
        /// The tools that it may use [default: all]
        #[arg(long, value_delimiter = ',', value_name = "TOOL,…")]
        tools: Option<Vec<String>>,
        /// The qubes that it may reach, of those that the operator granted [default: all]
        #[arg(long, value_delimiter = ',', value_name = "QUBE,…")]
        qubes: Option<Vec<String>>,
    },
    /// Show who has a token, and its limits
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a token back; what runs for it ends within a second
    Revoke {
        /// The name
        name: PrincipalName,
    },
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenCommandError {
    /// The services.
    #[error("the catalogue of services compiled into this program cannot be used")]
    Catalogue(#[from] CatalogueError),
    /// The file.
    #[error(transparent)]
    Principals(#[from] PrincipalsError),
    /// Its folder.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The kernel gives no random bytes.
    #[error("no random bytes for a token")]
    Random(#[from] rustix::io::Errno),
    /// There is no such tool.
    #[error("there is no tool {0:?}; there are: {1}")]
    Tool(String, String),
    /// That can be no qube.
    #[error("{0:?} is not the name of a qube")]
    Qube(String, Fault),
    /// There is nobody with this name.
    #[error("nobody named {0} has a token")]
    Unknown(PrincipalName),
    /// The folder is not known.
    #[error("neither XDG_CONFIG_HOME nor HOME says where tokens are; use --token-file")]
    NoHome,
    /// The answer cannot be written.
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
    /// The answer cannot be JSON.
    #[error("cannot render the answer")]
    Json(#[from] serde_json::Error),
}

/// Does it.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, TokenCommandError> {
    let path = arguments.files.places().ok_or(TokenCommandError::NoHome)?.principals;
    let answer = match arguments.command {
        Command::Add { name, tools, qubes } => {
            let tools = tools.map(parse_tools).transpose()?;
            let qubes = qubes.map(parse_qubes).transpose()?;
            let token = Token::random()?;
            change(&path, |all| {
                let sha256 = token.digest();
                Ok(all.add(Principal { name, sha256, tools, qubes })?)
            })?;
            format!("{}\n", token.as_str())
        }
        Command::List { json } => {
            let all = Principals::read(&path)?;
            if json { format!("{}\n", serde_json::to_string(&all)?) } else { render(&all) }
        }
        Command::Revoke { name } => {
            change(&path, |all| {
                if all.remove(&name) { Ok(()) } else { Err(TokenCommandError::Unknown(name)) }
            })?;
            String::new()
        }
    };
    std::io::stdout().write_all(answer.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the file, changes it and writes it, with nobody else in between.
fn change(
    path: &std::path::Path,
    with: impl FnOnce(&mut Principals) -> Result<(), TokenCommandError>,
) -> Result<(), TokenCommandError> {
    let _held = secret_file::lock(path)?;
    let mut all = Principals::read(path)?;
    with(&mut all)?;
    Ok(all.write(path)?)
}

fn parse_tools(names: Vec<String>) -> Result<BTreeSet<String>, TokenCommandError> {
    let tools = Tools::compiled()?;
    for name in &names {
        if tools.by_tool(name).is_none() {
            let all = tools.list().iter().map(|tool| tool.name.to_string()).collect::<Vec<_>>();
            return Err(TokenCommandError::Tool(name.clone(), all.join(", ")));
        }
    }
    Ok(names.into_iter().collect())
}

fn parse_qubes(names: Vec<String>) -> Result<BTreeSet<String>, TokenCommandError> {
    let parse = |name: String| match QubeName::parse(&name) {
        Ok(_) => Ok(name),
        Err(fault) => Err(TokenCommandError::Qube(name, fault)),
    };
    names.into_iter().map(parse).collect()
}

fn render(all: &Principals) -> String {
    let limits = |set: &Option<BTreeSet<String>>| match set {
        Some(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(","),
        None => "all".to_owned(),
    };
    let line = |one: &Principal| {
        format!("{}\ttools: {}\tqubes: {}\n", one.name, limits(&one.tools), limits(&one.qubes))
    };
    all.principals.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_name_only_what_can_be() {
        assert!(parse_tools(vec!["list_vms".into(), "exec_in_vm".into()]).is_ok());
        assert!(matches!(parse_tools(vec!["rm".into()]), Err(TokenCommandError::Tool(..))));
        assert!(parse_qubes(vec!["work".into()]).is_ok());
        for bad in ["", "@anyvm", "uuid:1", "a b"] {
            assert!(
                matches!(parse_qubes(vec![bad.into()]), Err(TokenCommandError::Qube(..))),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_list_shows_limits_and_no_tokens() {
        let sha256 = Token::parse(&"x".repeat(32)).unwrap().digest();
        let name = PrincipalName::parse("laptop").unwrap();
        let qubes = Some(BTreeSet::from(["dev".to_owned(), "work".to_owned()]));
        let all = Principals { principals: vec![Principal { name, sha256, tools: None, qubes }] };
        assert_eq!(render(&all), "laptop\ttools: all\tqubes: dev,work\n");
    }
}
