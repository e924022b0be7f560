//! `admin.vm.property.*` and `admin.property.*`: reading, setting, resetting.

use std::fmt::Write as _;

use super::{
    Failure, Qube, System,
    property_table::{Kind, Property, SYSTEM, Setter, properties, property},
    request::Asked,
    set_value::canonical,
    value::truth,
};

type Answer = Result<String, Failure>;

/// What has properties: a qube, or the system as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder<'a> {
    pub(super) system: &'a System,
    /// `None` is the system.
    pub(super) qube: Option<&'a Qube>,
}

impl<'a> Holder<'a> {
    fn of(system: &'a System, asked: &Asked) -> Result<Self, Failure> {
        let whole = asked.method.starts_with("admin.property.");
        let qube = match whole {
            true => None,
            false => Some(system.require(&asked.destination)?),
        };
        Ok(Self { system, qube })
    }

    /// Its name in messages.
    pub(super) fn name(self) -> &'a str {
        self.qube.map_or("Qubes", |qube| &qube.name)
    }

    fn subject(self) -> &'a str {
        self.qube.map_or("", |qube| &qube.name)
    }

    fn properties(self) -> Vec<Property> {
        match self.qube {
            Some(qube) => properties(qube.class).collect(),
            None => SYSTEM.to_vec(),
        }
    }

    fn find(self, name: &str) -> Result<Property, Failure> {
        let found = match self.qube {
            Some(qube) => property(qube.class, name),
            None => SYSTEM.into_iter().find(|property| property.name == name),
        };
        found.ok_or_else(|| {
            let message = format!("Invalid property '{name}' of {}", self.name());
            Failure::new("QubesNoSuchPropertyError", message)
        })
    }

    pub(super) fn value(self, name: &str) -> String {
        match self.qube {
            Some(qube) => self.system.value(qube, name),
            None => self.system.system_value(name),
        }
    }

    /// `None`: there is no default.
    fn default(self, property: Property) -> Option<String> {
        match self.qube {
            Some(_) if matches!(property.name, "label" | "template") || property.given => None,
            Some(qube) => Some(self.system.default(qube, property.name)),
            None => self.system.system_default(property.name),
        }
    }

    fn is_set(self, property: Property) -> bool {
        let set = match self.qube {
            Some(qube) => qube.set(property.name).is_some(),
            None => self.system.properties.contains_key(property.name),
        };
        set || property.given
    }

    fn describe(self, property: Property) -> String {
        let value = self.value(property.name).replace('\\', "\\\\").replace('\n', "\\n");
        let default = truth(!self.is_set(property));
        format!("default={default} type={} {value}", property.kind.as_str())
    }
}

pub(super) fn list(system: &mut System, asked: &Asked) -> Answer {
    let holder = Holder::of(system, asked)?;
    Ok(holder.properties().iter().map(|property| format!("{}\n", property.name)).collect())
}

pub(super) fn get_all(system: &mut System, asked: &Asked) -> Answer {
    let holder = Holder::of(system, asked)?;
    let mut text = String::new();
    for property in holder.properties() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {}", property.name, holder.describe(property));
    }
    Ok(text)
}

pub(super) fn get(system: &mut System, asked: &Asked) -> Answer {
    let holder = Holder::of(system, asked)?;
    Ok(holder.describe(holder.find(&asked.argument)?))
}

pub(super) fn get_default(system: &mut System, asked: &Asked) -> Answer {
    let holder = Holder::of(system, asked)?;
    let property = holder.find(&asked.argument)?;
    let default = holder.default(property);
    Ok(default.map(|value| format!("type={} {value}", property.kind.as_str())).unwrap_or_default())
}

pub(super) fn help(system: &mut System, asked: &Asked) -> Answer {
    Holder::of(system, asked)?.find(&asked.argument).map(|_| String::new())
}

pub(super) fn set(system: &mut System, asked: &Asked) -> Answer {
    let holder = Holder::of(system, asked)?;
    let property = holder.find(&asked.argument)?;
    let value = canonical(holder, property, &asked.payload)?;
    if property.setter == Setter::Never {
        return Err(Failure::Empty);
    }
    let old = written(property, &holder.value(property.name));
    let new = written(property, &value);
    let subject = holder.subject().to_owned();
    let name = property.name;
    let details = [("name", name), ("newvalue", new.as_str()), ("oldvalue", old.as_str())];
    system.emit(&subject, format!("property-pre-set:{name}"), &details);
    store(system, &subject, name, Some(value));
    if name == "netvm" {
        connected(system, &subject);
    }
    system.emit(&subject, format!("property-set:{name}"), &details);
    Ok(String::new())
}

pub(super) fn reset(system: &mut System, asked: &Asked) -> Answer {
    let holder = Holder::of(system, asked)?;
    let property = holder.find(&asked.argument)?;
    let name = property.name;
    if name == "template" {
        let default = system.system_value("default_template");
        let message = format!(
            "Cannot unset template. You can set it to the current default ({default}) instead"
        );
        return Err(Failure::value(message));
    }
    let Some(default) = holder.default(property) else { return Err(Failure::Empty) };
    if property.setter == Setter::ReadOnly {
        return Err(Failure::Empty);
    }
    let old = written(property, &holder.value(name));
    let new = written(property, &default);
    let subject = holder.subject().to_owned();
    let moves = name == "netvm" && old != new;
    let gone = [("name", name), ("oldvalue", old.as_str())];
    let moved = [("name", name), ("newvalue", new.as_str()), ("oldvalue", old.as_str())];
    system.emit(&subject, format!("property-pre-reset:{name}"), &gone);
    if moves {
        system.emit(&subject, format!("property-pre-set:{name}"), &moved);
    }
    system.emit(&subject, format!("property-pre-del:{name}"), &gone);
    store(system, &subject, name, None);
    if moves {
        connected(system, &subject);
        system.emit(&subject, format!("property-set:{name}"), &moved);
    }
    system.emit(&subject, format!("property-reset:{name}"), &gone);
    system.emit(&subject, format!("property-del:{name}"), &gone);
    Ok(String::new())
}

/// A value as events write it: nothing is `None`.
fn written(property: Property, value: &str) -> String {
    match property.kind {
        Kind::Vm | Kind::Int if value.is_empty() => "None".to_owned(),
        Kind::Str | Kind::Int | Kind::Bool | Kind::Label | Kind::Vm => value.to_owned(),
    }
}

fn store(system: &mut System, subject: &str, name: &str, value: Option<String>) {
    let properties = match system.get_mut(subject) {
        Some(qube) => &mut qube.properties,
        None => &mut system.properties,
    };
    match value {
        Some(value) => drop(properties.insert(name.to_owned(), value)),
        None => drop(properties.remove(name)),
    }
}

/// Tells that a running qube now has another network.
fn connected(system: &System, name: &str) {
    let Some(qube) = system.get(name).filter(|qube| qube.running.is_some()) else { return };
    let netvm = system.value(qube, "netvm");
    if !netvm.is_empty() {
        system.emit(name, "domain-qdb-create", &[]);
        system.emit(&netvm, "net-domain-connect", &[("vm", name)]);
    }
}
