//! The tag that qubesd gives to every qube that the agent creates: the sandbox has to hold what is
//! made in it from the first moment on.

use admin_api::QubeName;
use policy::Block;
pub(crate) use policy::tier::SANDBOX_TAG as SANDBOX;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::machine::{Machine, MachineError};

/// A change of the tags that a qube's creations get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreatedTags {
    /// The creating qube.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    pub(crate) qube: QubeName,
    /// What was set.
    pub(crate) before: Option<String>,
    /// What is to be set.
    pub(crate) after: Option<String>,
}

impl CreatedTags {
    /// What it does, for a person.
    pub(super) fn describe(&self) -> String {
        let verb = if has(self.after.as_deref()) { "give" } else { "give no longer" };
        format!("{verb} the tag {SANDBOX} to what {} creates (tag-created-vm-with)", self.qube)
    }

    /// Does it.
    pub(super) fn execute(&self, machine: &dyn Machine) -> Result<(), MachineError> {
        machine.set_created_tags(&self.qube, self.after.as_deref())
    }

    /// Undoes it, unless somebody has changed it since.
    pub(super) fn revert(&self, machine: &dyn Machine) -> Result<(), MachineError> {
        if machine.created_tags(&self.qube)? == self.after && self.before != self.after {
            machine.set_created_tags(&self.qube, self.before.as_deref())?;
        }
        Ok(())
    }

    /// Takes the tag out of what is set by now; what others have added stays.
    pub(super) fn withdrawn(&self, machine: &dyn Machine) -> Result<Option<Self>, MachineError> {
        let now = machine.created_tags(&self.qube)?;
        if !has(now.as_deref()) {
            return Ok(None);
        }
        let words = now.iter().flat_map(|now| now.split_ascii_whitespace());
        let rest = words.filter(|word| *word != SANDBOX).collect::<Vec<_>>().join(" ");
        let after = (!rest.is_empty() || self.before.is_some()).then_some(rest);
        Ok(Some(Self { qube: self.qube.clone(), before: now, after }))
    }
}

/// Whether the block grants the sandbox.
pub(crate) fn is_sandboxed(block: &Block) -> bool {
    block.grants().iter().any(|grant| grant.target.is_sandbox())
}

/// Whether the tag is among these.
pub(crate) fn has(tags: Option<&str>) -> bool {
    tags.is_some_and(|tags| tags.split_ascii_whitespace().any(|word| word == SANDBOX))
}

/// What is to change for this block; `kept` is what installations have changed so far, and is
/// brought up to date.
pub(super) fn wanted(
    machine: &dyn Machine,
    block: &Block,
    kept: &mut Vec<CreatedTags>,
) -> Result<Option<CreatedTags>, MachineError> {
    let agent = block.agent();
    let former = kept.iter().position(|kept| kept.qube == *agent);
    if !is_sandboxed(block) {
        return former.map_or(Ok(None), |place| kept.remove(place).withdrawn(machine));
    }
    let before = machine.created_tags(agent)?;
    if has(before.as_deref()) {
        return Ok(None);
    }
    let after = format!("{} {SANDBOX}", before.as_deref().unwrap_or_default());
    let change = CreatedTags { qube: agent.clone(), before, after: Some(after.trim().to_owned()) };
    if former.is_none() {
        kept.push(change.clone());
    }
    Ok(Some(change))
}

fn to_text<S: Serializer>(qube: &QubeName, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(qube.as_str())
}

fn from_text<'de, D: Deserializer<'de>>(from: D) -> Result<QubeName, D::Error> {
    QubeName::parse(&String::deserialize(from)?).map_err(D::Error::custom)
}
