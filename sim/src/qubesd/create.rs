//! `admin.vm.Create.*`, `admin.vm.CreateDisposable`, `admin.vm.Remove`.

use std::hash::{BuildHasher as _, RandomState};

use super::{
    Class, Failure, PowerState, Qube, System, label,
    request::{Asked, legal},
    tag::add_tag,
};
use crate::host::Shared;

type Answer = Result<String, Failure>;

fn class(method: &str) -> Option<Class> {
    Some(match method.strip_prefix("admin.vm.Create.")? {
        "AppVM" => Class::App,
        "StandaloneVM" => Class::Standalone,
        "TemplateVM" => Class::Template,
        "DispVM" => Class::Disposable,
        _ => return None,
    })
}

/// What the payload says: the name and, if it is one, the label.
fn parse_payload(payload: &[u8], system: &System) -> Result<(String, String), Failure> {
    let text = str::from_utf8(payload).ok().filter(|text| text.is_ascii());
    let text = text.ok_or_else(|| Failure::protocol("Parameters contains non-ASCII characters"))?;
    let (mut name, mut color) = (None, None);
    for parameter in text.split(' ') {
        let (key, value) = parameter.split_once('=').ok_or(Failure::Empty)?;
        match key {
            "name" if name.is_some() => return Err(Failure::protocol("Options must be unique")),
            "label" if color.is_some() => return Err(Failure::protocol("Options must be unique")),
            "name" => {
                legal(value)?;
                if matches!(value, "none" | "default") {
                    return Err(Failure::value("VM name cannot be 'none' nor 'default'"));
                }
                name = Some(value.to_owned());
            }
            "label" => {
                label::legal(value)?;
                color = system.label(value).map(|label| label.name.clone());
            }
            _ => {
                let message = "Options does not match: name, label, pool, pool:";
                return Err(Failure::protocol(message));
            }
        }
    }
    let missing = |key| Failure::protocol(format!("Creation requested without key: {key}"));
    let name = name.ok_or_else(|| missing("name"))?;
    Ok((name, color.ok_or_else(|| missing("label"))?))
}

pub(super) fn create(shared: &Shared, asked: &Asked) -> Answer {
    let system = &mut *shared.system();
    let class = class(&asked.method).ok_or(Failure::Empty)?;
    let based = matches!(class, Class::App | Class::Disposable);
    if !based && !asked.argument.is_empty() {
        let message = format!("{} cannot be based on template", class.as_str());
        return Err(Failure::protocol(message));
    }
    let (name, color) = parse_payload(&asked.payload, system)?;
    let template = match (class, asked.argument.as_str()) {
        (Class::Disposable, "") => system.system_value("default_dispvm"),
        (_, "") => system.system_value("default_template"),
        (_, argument) => argument.to_owned(),
    };
    if based {
        fits(system, class, &template)?;
    }
    if system.get(&name).is_some() {
        let message = format!("Qube already exists: {name}");
        return Err(Failure::new("QubesVMAlreadyExistsError", message));
    }
    let qid = system.take_qid();
    let mut qube = Qube::new(&name, class, qid);
    qube.properties.insert("label".to_owned(), color);
    if class == Class::Disposable {
        inherit(system.require(&template)?, &mut qube);
    }
    if based {
        qube.properties.insert("template".to_owned(), template);
    }
    qube.tags.extend(["audiovm-dom0", "guivm-dom0"].map(str::to_owned));
    add(shared, system, qube)?;
    add_tag(system, &name, &format!("created-by-{}", asked.source));
    system.emit(&name, "domain-create-on-disk", &[]);
    Ok(String::new())
}

/// What a disposable takes over from its template, and was not given.
fn inherit(template: &Qube, qube: &mut Qube) {
    for (property, value) in &template.properties {
        if property != "template_for_dispvms" {
            qube.properties.entry(property.clone()).or_insert_with(|| value.clone());
        }
    }
    qube.tags.extend(template.tags.iter().cloned());
    qube.features.clone_from(&template.features);
    qube.features.retain(|(name, _)| !name.starts_with("preload-dispvm"));
}

fn fits(system: &System, class: Class, template: &str) -> Result<(), Failure> {
    let found = system.get(template).ok_or_else(|| Failure::no_such_domain(template))?;
    if class == Class::Disposable {
        if system.value(found, "template_for_dispvms") != "True" {
            let message = format!(
                "template for disposable ({template}) needs to be an AppVM with \
                 template_for_dispvms=True"
            );
            return Err(Failure::value(message));
        }
    } else if found.class != Class::Template {
        let message = format!(
            "wrong VM class: domains['{template}'] is of type {} and not TemplateVM",
            found.class.as_str()
        );
        return Err(Failure::new("QubesPropertyValueError", message));
    }
    Ok(())
}

fn add(shared: &Shared, system: &mut System, qube: Qube) -> Result<(), Failure> {
    shared.write_qube(&qube).map_err(|_| Failure::Empty)?;
    let name = qube.name.clone();
    system.insert(qube);
    system.emit("", "domain-add", &[("vm", &name)]);
    Ok(())
}

/// A disposable of this template, made for the source. It takes over what the template has.
pub(crate) fn disposable(shared: &Shared, template: &str, source: &str) -> Answer {
    let system = &mut *shared.system();
    let parent = system.require(template)?;
    if system.value(parent, "template_for_dispvms") != "True" {
        let message = "Refusing to create disposable out of app qube which has \
                       template_for_dispvms=False";
        return Err(Failure::new("QubesException", message));
    }
    let mut properties = parent.properties.clone();
    properties.remove("template_for_dispvms");
    let (tags, features) = (parent.tags.clone(), parent.features.clone());
    let color = system.value(parent, "label");
    let number = (1..).map(|turn| RandomState::new().hash_one(turn) % 9999 + 1);
    let free = |number: &u64| system.get(&format!("disp{number}")).is_none();
    let number = number.take(10_000).find(free).ok_or(Failure::Empty)?;
    let name = format!("disp{number}");
    let qid = system.take_qid();
    let mut qube = Qube::new(&name, Class::Disposable, qid);
    properties.extend([
        ("template".to_owned(), template.to_owned()),
        ("label".to_owned(), color),
        ("auto_cleanup".to_owned(), "True".to_owned()),
        ("dispid".to_owned(), number.to_string()),
    ]);
    (qube.properties, qube.tags, qube.features) = (properties, tags, features);
    let firewall = shared.settings(system.require(template)?).join("firewall.xml");
    let copy = shared.settings(&qube).join("firewall.xml");
    add(shared, system, qube)?;
    // Without a file there is nothing to take over.
    drop(std::fs::copy(firewall, copy));
    system.emit(&name, "domain-create-on-disk", &[]);
    for tag in ["created-by-", "disp-created-by-"] {
        add_tag(system, &name, &format!("{tag}{source}"));
    }
    Ok(name)
}

pub(super) fn create_disposable(shared: &Shared, asked: &Asked) -> Answer {
    if !matches!(asked.argument.as_str(), "" | "preload") {
        return Err(Failure::new("PermissionDenied", "Argument not in \"'', 'preload'\""));
    }
    let as_uuid = match asked.payload.as_slice() {
        b"" => false,
        b"uuid" => true,
        _ => {
            let message = "Invalid payload, expected empty string or 'uuid'";
            return Err(Failure::protocol(message));
        }
    };
    let template = match asked.destination.as_str() {
        "dom0" => {
            let system = shared.system();
            system.value(system.require(&asked.source)?, "default_dispvm")
        }
        name => name.to_owned(),
    };
    let name = disposable(shared, &template, &asked.source)?;
    if !as_uuid {
        return Ok(name);
    }
    let system = shared.system();
    system.require(&name).map(|qube| format!("uuid:{}", qube.uuid))
}

pub(super) fn remove(shared: &Shared, asked: &Asked) -> Answer {
    let name = &asked.destination;
    let system = &mut *shared.system();
    let qube = system.require(name)?;
    if qube.is_admin() {
        return Err(Failure::new("QubesVMInUseError", "'dom0' cannot be removed"));
    }
    let uses = ["template", "netvm", "default_dispvm", "management_dispvm", "audiovm", "guivm"];
    let used = system.all().any(|other| {
        other.name != *name && uses.iter().any(|property| other.set(property) == Some(name))
    }) || system.properties.values().any(|value| value == name);
    if used {
        let message = format!(
            "Domain is in use: '{name}';  see 'journalctl -u qubesd -e' in dom0 for details"
        );
        return Err(Failure::new("QubesVMInUseError", message));
    }
    if qube.power != PowerState::Halted {
        let message = format!("Domain is not powered off: '{name}'");
        return Err(Failure::new("QubesVMNotHaltedError", message));
    }
    system.emit("", "domain-pre-delete", &[("vm", name)]);
    shared.forget(system, name);
    system.emit("", "domain-delete", &[("vm", name)]);
    Ok(String::new())
}
