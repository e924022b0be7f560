//! One line of policy: `service argument source target action parameters`.

use super::token::{Column, Token};

/// A line that allows, asks or denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// None for every service.
    pub(super) service: Option<String>,
    /// With its `+`; none for every argument.
    pub(super) argument: Option<String>,
    pub(super) source: Token,
    pub(super) target: Token,
    pub(super) action: Action,
    pub(super) place: Place,
}

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path of the file, absolute.
    pub file: String,
    /// The line, from 1; none for the denials that `!compat-4.0` implies.
    pub line: Option<usize>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// What a line does with the calls that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow(Options),
    Ask { options: Options, default_target: Option<Token> },
    Deny { notify: bool },
}

/// The parameters that allowing and asking share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) target: Option<Token>,
    pub(super) user: Option<String>,
    pub(super) notify: bool,
    pub(super) autostart: bool,
}

impl Action {
    /// Where the line sends calls instead of the target that they name.
    pub(super) const fn redirect(&self) -> Option<&Token> {
        match self {
            Self::Allow(options) | Self::Ask { options, .. } => options.target.as_ref(),
            Self::Deny { .. } => None,
        }
    }
}

/// A line that qrexec does not take. One of them voids the whole policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Fewer than five words.
    #[error("a line has service, argument, source, target and action")]
    Fields,
    /// A character that services do not have.
    #[error("`{0}` is not the name of a service")]
    Service(String),
    /// Not `*` and not `+` with what arguments are made of.
    #[error("`{0}` is not an argument; write `*`, or `+` and the argument")]
    Argument(String),
    /// `*` as service with anything but `*` as argument.
    #[error("the service `*` takes the argument `*` only")]
    ArgumentOfAnyService,
    /// A word that may not stand in its column.
    #[error("`{word}` cannot be a {column:?}")]
    Token {
        /// The word.
        word: String,
        /// Where it stands.
        column: Column,
    },
    /// Not `allow`, `ask` or `deny`.
    #[error("`{0}` is not an action")]
    Action(String),
    /// A parameter without `=`.
    #[error("`{0}` is not a parameter; comments need a line of their own")]
    Parameter(String),
    /// A parameter that stands twice.
    #[error("`{0}` is given twice")]
    RepeatedParameter(String),
    /// A value other than `yes` and `no`.
    #[error("`{0}` is yes or no")]
    YesNo(String),
    /// A parameter that the action does not have.
    #[error("the action does not take `{0}`")]
    ForeignParameter(String),
    /// `@default` allowed without saying where calls go.
    #[error("allow for @default needs target=")]
    DefaultWithoutTarget,
}

impl Rule {
    /// Reads the six columns of a line in today's form.
    pub(super) fn parse(line: &str, place: Place) -> Result<Self, RuleError> {
        let words: Vec<&str> = split(line).collect();
        let [service, argument, source, target, action, parameters @ ..] = words.as_slice() else {
            return Err(RuleError::Fields);
        };
        let subject = Subject::parse(service, argument)?;
        Self::build(subject, source, target, action, parameters, place)
    }

    /// Reads a line of the older form, in which the file stands for service and argument.
    pub(super) fn parse_for(
        subject: &Subject,
        line: &str,
        place: Place,
    ) -> Result<Self, RuleError> {
        let words: Vec<&str> = split(line).collect();
        let [source, target, action, parameters @ ..] = words.as_slice() else {
            return Err(RuleError::Fields);
        };
        Self::build(subject.clone(), source, target, action, parameters, place)
    }

    fn build(
        subject: Subject,
        source: &str,
        target: &str,
        action: &str,
        parameters: &[&str],
        place: Place,
    ) -> Result<Self, RuleError> {
        let source = token(source, Column::Source)?;
        let target = token(target, Column::Target)?;
        let action = parse_action(action, parameters)?;
        if target == Token::Default && matches!(&action, Action::Allow(o) if o.target.is_none()) {
            return Err(RuleError::DefaultWithoutTarget);
        }
        let Subject { service, argument } = subject;
        Ok(Self { service, argument, source, target, action, place })
    }
}

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) service: Option<String>,
    pub(super) argument: Option<String>,
}

impl Subject {
    pub(super) fn parse(service: &str, argument: &str) -> Result<Self, RuleError> {
        let service = (service != "*").then_some(service);
        let argument = (argument != "*").then_some(argument);
        if let Some(service) = service.filter(|name| !name.bytes().all(is_of_service)) {
            return Err(RuleError::Service(service.into()));
        }
        if let Some(argument) = argument {
            if !argument.starts_with('+') || !is_of_argument(argument) {
                return Err(RuleError::Argument(argument.into()));
            }
            if service.is_none() {
                return Err(RuleError::ArgumentOfAnyService);
            }
        }
        Ok(Self { service: service.map(Into::into), argument: argument.map(Into::into) })
    }
}

fn is_of_service(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// Whether the text is made of what services and their arguments are made of, `+` included.
pub(super) fn is_of_argument(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'+' || is_of_service(byte))
}

fn token(word: &str, column: Column) -> Result<Token, RuleError> {
    Token::parse(word, column).ok_or_else(|| RuleError::Token { word: word.into(), column })
}

fn parse_action(word: &str, parameters: &[&str]) -> Result<Action, RuleError> {
    let known: &[&str] = match word {
        "allow" => &["target", "user", "notify", "autostart"],
        "ask" => &["target", "user", "notify", "autostart", "default_target"],
        "deny" => &["notify"],
        _ => return Err(RuleError::Action(word.into())),
    };
    let mut given: Vec<(&str, &str)> = Vec::new();
    for parameter in parameters {
        let (key, value) =
            parameter.split_once('=').ok_or_else(|| RuleError::Parameter((*parameter).into()))?;
        if given.iter().any(|(old, _)| *old == key) {
            return Err(RuleError::RepeatedParameter(key.into()));
        }
        given.push((key, value));
    }
    if let Some((key, _)) = given.iter().find(|(key, _)| !known.contains(key)) {
        return Err(RuleError::ForeignParameter((*key).into()));
    }
    let value = |wanted: &'static str| {
        given.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value)
    };
    let flag = |key, default| match value(key) {
        None => Ok(default),
        Some("yes") => Ok(true),
        Some("no") => Ok(false),
        Some(_) => Err(RuleError::YesNo(key.into())),
    };
    let redirect = |key| value(key).map(|word| token(word, Column::Redirect)).transpose();
    if word == "deny" {
        return Ok(Action::Deny { notify: flag("notify", true)? });
    }
    let options = Options {
        target: redirect("target")?,
        user: value("user").filter(|user| !user.is_empty()).map(Into::into),
        notify: flag("notify", false)?,
        autostart: flag("autostart", true)?,
    };
    if word == "allow" {
        return Ok(Action::Allow(options));
    }
    Ok(Action::Ask { options, default_target: redirect("default_target")? })
}

/// What Python's `str.split` counts as white space beyond what Rust does.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

/// The words of a line.
pub(super) fn split(line: &str) -> impl Iterator<Item = &str> {
    line.split(is_space).filter(|word| !word.is_empty())
}
