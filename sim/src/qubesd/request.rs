//! Reads a request as leniently as qubesd does, so that wrong ones meet the same answers.

use super::{Failure, System};

/// What is asked of qubesd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The method.
    pub(crate) method: String,
    /// What follows the first `+`.
    pub(crate) argument: String,
    /// The qube in whose name it is asked.
    pub(crate) source: String,
    /// The qube it is about.
    pub(crate) destination: String,
    /// What follows the NUL.
    pub(crate) payload: Vec<u8>,
}

impl Asked {
    /// Reads all that a client sent until it shut its side.
    pub(crate) fn parse(bytes: &[u8], system: &System) -> Result<Self, Failure> {
        let nul = bytes.iter().position(|byte| *byte == 0).ok_or(Failure::Empty)?;
        let (head, payload) = bytes.split_at_checked(nul).ok_or(Failure::Empty)?;
        let head = str::from_utf8(head).ok().filter(|head| head.is_ascii());
        let mut words = head.ok_or(Failure::Empty)?.splitn(4, ' ');
        let (call, source, kind, name) = (words.next(), words.next(), words.next(), words.next());
        let (Some(call), Some(source), Some(kind), Some(name)) = (call, source, kind, name) else {
            return Err(Failure::Empty);
        };
        let (method, argument) = call.split_once('+').unwrap_or((call, ""));
        let destination = match (kind, name) {
            ("name", name) => name,
            ("keyword", "adminvm") => "dom0",
            (_, _) => return Err(Failure::Empty),
        };
        let source = resolve(source, system)?;
        let destination = resolve(destination, system)?;
        Ok(Self {
            method: method.to_owned(),
            argument: argument.to_owned(),
            source,
            destination,
            payload: payload.get(1..).unwrap_or_default().to_vec(),
        })
    }
}

/// The qube that is meant.
pub(crate) fn resolve(name: &str, system: &System) -> Result<String, Failure> {
    if let Some(uuid) = name.strip_prefix("uuid:") {
        if admin_api::Uuid::parse(uuid).is_err() {
            let message = format!("VM UUID is not valid: '{uuid}'");
            return Err(Failure::new("QubesVMInvalidUUIDError", message));
        }
        let found = system.all().find(|qube| qube.uuid == uuid);
        return found.map(|qube| qube.name.clone()).ok_or_else(|| Failure::no_such_domain(name));
    }
    legal(name)?;
    match system.get(name) {
        Some(qube) => Ok(qube.name.clone()),
        None => Err(Failure::no_such_domain(name)),
    }
}

/// The rules for names, in the order in which qubesd looks at them.
pub(crate) fn legal(name: &str) -> Result<(), Failure> {
    let first = name.chars().next();
    if first.is_some_and(|first| !first.is_ascii_alphabetic()) {
        let message = "VM name cannot start with hyphen, underscore, dot or numbers";
        return Err(Failure::value(message));
    }
    if name.len() > 31 {
        return Err(Failure::value("VM name must be shorter than 32 characters"));
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(Failure::value("VM name contains illegal characters"));
    }
    Ok(())
}
