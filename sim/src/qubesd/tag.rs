//! `admin.vm.tag.*` and `admin.vm.feature.*`.

use super::{Class, Failure, Qube, System, request::Asked};

type Answer = Result<String, Failure>;

pub(super) fn list_tags(system: &mut System, asked: &Asked) -> Answer {
    let qube = system.require(&asked.destination)?;
    Ok(qube.tags.iter().map(|tag| format!("{tag}\n")).collect())
}

pub(super) fn get_tag(system: &mut System, asked: &Asked) -> Answer {
    let tag = legal_tag(asked)?;
    let qube = system.require(&asked.destination)?;
    Ok(if qube.tags.contains(tag) { "1" } else { "0" }.to_owned())
}

pub(super) fn set_tag(system: &mut System, asked: &Asked) -> Answer {
    let tag = legal_tag(asked)?;
    not_of_creation(asked)?;
    add_tag(system, &asked.destination, tag);
    Ok(String::new())
}

pub(super) fn remove_tag(system: &mut System, asked: &Asked) -> Answer {
    let tag = legal_tag(asked)?;
    not_of_creation(asked)?;
    let name = &asked.destination;
    if !system.require_mut(name)?.tags.remove(tag) {
        let message = format!("Tag not set for domain {name}: {tag}");
        return Err(Failure::new("QubesTagNotFoundError", message));
    }
    system.emit(name, format!("domain-tag-delete:{tag}"), &[("tag", tag)]);
    Ok(String::new())
}

/// Adds a tag, and with the tag of a creator those that the creator's feature asks for.
pub(crate) fn add_tag(system: &mut System, name: &str, tag: &str) {
    let new = system.get_mut(name).is_some_and(|qube| qube.tags.insert(tag.to_owned()));
    if !new {
        return;
    }
    system.emit(name, format!("domain-tag-add:{tag}"), &[("tag", tag)]);
    let creator = tag.strip_prefix("created-by-").and_then(|creator| system.get(creator));
    let more = creator.and_then(|creator| creator.feature("tag-created-vm-with"));
    let more: Vec<String> =
        more.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    for tag in more {
        add_tag(system, name, &tag);
    }
}

fn legal_tag(asked: &Asked) -> Result<&str, Failure> {
    let legal = |found: char| found.is_ascii_alphanumeric() || "-_".contains(found);
    if asked.argument.chars().all(legal) {
        Ok(&asked.argument)
    } else {
        Err(Failure::new("QubesInvalidTagError", "disallowed characters"))
    }
}

/// Only dom0 says who created a qube.
fn not_of_creation(asked: &Asked) -> Result<(), Failure> {
    if asked.argument.starts_with("created-by-") && asked.source != "dom0" {
        let message = "changing this tag is prohibited by qubes.ext.admin.AdminExtension";
        return Err(Failure::new("PermissionDenied", message));
    }
    Ok(())
}

pub(super) fn list_features(system: &mut System, asked: &Asked) -> Answer {
    let qube = system.require(&asked.destination)?;
    Ok(qube.features.iter().map(|(name, _)| format!("{name}\n")).collect())
}

fn no_feature(asked: &Asked) -> Failure {
    let message = format!("Feature not set for domain {}: {}", asked.destination, asked.argument);
    Failure::new("QubesFeatureNotFoundError", message)
}

pub(super) fn get_feature(system: &mut System, asked: &Asked) -> Answer {
    let qube = system.require(&asked.destination)?;
    qube.feature(&asked.argument).map(str::to_owned).ok_or_else(|| no_feature(asked))
}

/// `CheckWithTemplate` and its kin: the qube's own, else that of those it stands on.
pub(super) fn check_feature(system: &mut System, asked: &Asked) -> Answer {
    let name = &asked.argument;
    let mut qube = Some(system.require(&asked.destination)?);
    let step = match asked.method.rsplit('.').next() {
        Some("CheckWithNetvm") => "netvm",
        Some("CheckWithAdminVM") => "",
        _ => "template",
    };
    while let Some(current) = qube {
        if let Some(value) = current.feature(name) {
            return Ok(value.to_owned());
        }
        qube = next(system, current, step);
    }
    let admin = asked.method.ends_with("AdminVM").then(|| system.get("dom0")).flatten();
    let value = admin.and_then(|admin| admin.feature(name));
    value.map(str::to_owned).ok_or_else(|| no_feature(asked))
}

fn next<'a>(system: &'a System, qube: &Qube, step: &str) -> Option<&'a Qube> {
    if step == "template" && !matches!(qube.class, Class::App | Class::Disposable) {
        return None;
    }
    system.get(&system.value(qube, step)).filter(|next| next.name != qube.name && !next.is_admin())
}

pub(super) fn set_feature(system: &mut System, asked: &Asked) -> Answer {
    let name = asked.argument.as_str();
    let legal = |found: char| found.is_ascii_alphanumeric() || "-_.".contains(found);
    let value = str::from_utf8(&asked.payload).ok().filter(|value| value.is_ascii());
    let value =
        value.ok_or_else(|| Failure::protocol("Feature value contains non-ASCII characters"))?;
    if !name.chars().all(legal) {
        return Err(Failure::protocol("feature name contains illegal characters"));
    }
    if value.chars().any(|found| found.is_ascii_control()) {
        return Err(Failure::protocol(format!("{name} value contains illegal characters")));
    }
    let subject = &asked.destination;
    let old = system.require(subject)?.feature(name).map(str::to_owned);
    let mut details = vec![("feature", name), ("value", value)];
    details.extend(old.as_deref().map(|old| ("oldvalue", old)));
    system.emit(subject, format!("domain-feature-pre-set:{name}"), &details);
    let features = &mut system.require_mut(subject)?.features;
    match features.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => value.clone_into(known),
        None => features.push((name.to_owned(), value.to_owned())),
    }
    system.emit(subject, format!("domain-feature-set:{name}"), &details);
    Ok(String::new())
}

pub(super) fn remove_feature(system: &mut System, asked: &Asked) -> Answer {
    let (subject, name) = (&asked.destination, asked.argument.as_str());
    if system.require(subject)?.feature(name).is_none() {
        return Err(no_feature(asked));
    }
    system.emit(subject, format!("domain-feature-pre-delete:{name}"), &[("feature", name)]);
    system.require_mut(subject)?.features.retain(|(known, _)| known != name);
    system.emit(subject, format!("domain-feature-delete:{name}"), &[("feature", name)]);
    Ok(String::new())
}
