//! `admin.label.*`.

use super::{Failure, System, request::Asked, state::Label};

type Answer = Result<String, Failure>;

/// The labels that every system has.
const BUILT_IN: u32 = 8;

impl System {
    /// A label by its name or its index.
    pub(super) fn label(&self, name: &str) -> Option<&Label> {
        let index = name.parse::<u32>().ok();
        self.labels.iter().find(|label| label.name == name || Some(label.index) == index)
    }
}

fn find<'a>(system: &'a System, name: &str) -> Result<&'a Label, Failure> {
    system.label(name).ok_or_else(|| {
        Failure::new("QubesLabelNotFoundError", format!("Label does not exist: {name}"))
    })
}

pub(super) fn list(system: &mut System, _asked: &Asked) -> Answer {
    Ok(system.labels.iter().map(|label| format!("{}\n", label.name)).collect())
}

pub(super) fn get(system: &mut System, asked: &Asked) -> Answer {
    find(system, &asked.argument).map(|label| label.color.clone())
}

pub(super) fn index(system: &mut System, asked: &Asked) -> Answer {
    find(system, &asked.argument).map(|label| label.index.to_string())
}

pub(super) fn create(system: &mut System, asked: &Asked) -> Answer {
    let name = &asked.argument;
    legal(name)?;
    if system.labels.iter().any(|label| label.name == *name) {
        let message = format!("Label is still in use: '{name}'");
        return Err(Failure::new("QubesLabelInUseError", message));
    }
    let value = |message: &str| Failure::new("QubesInvalidLabelValueError", message);
    let color = str::from_utf8(&asked.payload).ok().filter(|color| color.is_ascii());
    let color = color.ok_or_else(|| value("Label value is not ASCII"))?;
    if color.len() != 8 {
        return Err(value("Label value must have length of 8"));
    }
    let digits = color.strip_prefix("0x").ok_or_else(|| value("Label value must start with 0x"))?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(value("Label value must be hexadecimal"));
    }
    let index = system.labels.iter().map(|label| label.index).max().unwrap_or_default() + 1;
    let (name, color) = (name.clone(), color.to_owned());
    system.emit("", "label-add", &[("index", &index.to_string())]);
    system.labels.push(Label { index, name, color });
    Ok(String::new())
}

pub(super) fn remove(system: &mut System, asked: &Asked) -> Answer {
    let label = find(system, &asked.argument)?.clone();
    if label.index <= BUILT_IN {
        return Err(Failure::protocol("Can only remove custom labels"));
    }
    if system.all().any(|qube| system.value(qube, "label") == label.name) {
        let Label { index, name, color } = label;
        let message = format!("Label is still in use: Label({index}, b'{color}', '{name}')");
        return Err(Failure::new("QubesLabelInUseError", message));
    }
    system.labels.retain(|known| *known != label);
    Ok(String::new())
}

/// The rule for the names of labels.
pub(super) fn legal(name: &str) -> Result<(), Failure> {
    let allowed = |found: char| found.is_ascii_alphanumeric() || "-_.".contains(found);
    if name.chars().all(allowed) {
        return Ok(());
    }
    let message = "Label must be in safe set: \
                   abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    Err(Failure::new("QubesInvalidLabelError", message))
}
