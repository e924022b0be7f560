//! Which tags a new qube gets, so that nobody gains a power by making it.

use admin_api::Tag;
use contract::{Fault, Power};
use policy::{
    Address, Birth, ManagedQube, Tier,
    tier::{DUMP_TAG, SANDBOX_TAG},
};

use super::Source;
use crate::settings::Sandbox;

/// Tags of others that forbid something, and go with every copy.
const RESTRICTIONS: [&str; 2] = ["anon-vm", "qmcp-guarded"];
const RESTRICTION_PREFIX: &str = "qmcp-egress-locked_";

/// The tags that a qube made from this source gets from us, the sandbox's first: never a tier that
/// gives what the agent does not hold over the source, nor one above the operator's ceiling.
///
/// What is untiered stays so: as long as the operator's setting says that this means everything,
/// a tag of the highest tier would outlive a change of the setting.
pub(super) fn birth_tags(
    source: &Source,
    birth: &Birth,
    settings: &Sandbox,
) -> Result<Vec<Tag>, Fault> {
    outlasts(&source.qube, birth)?;
    let held = |tier: Tier| {
        let mut given = Power::ALL.into_iter().filter(|power| tier.gives(*power));
        given.all(|power| source.qube.holds(power) || !birth.holds(power))
    };
    let tiers = [Tier::Full, Tier::Net, Tier::Exec, Tier::See];
    let highest = tiers.into_iter().find(|tier| held(*tier)).ok_or(Fault::Refused {})?;
    let highest = highest.min(settings.birth_tier);
    let own = match source.qube.address() {
        Address::Target => Tier::of(&source.tags),
        Address::Argument => None,
    };
    let tier = own.unwrap_or(settings.default_tier).min(highest);
    let name = match (own, tier.tag()) {
        (None, _) if tier == settings.default_tier => None,
        (_, Some(name)) => Some(name),
        (_, None) if settings.default_tier == Tier::See => None,
        // No tag says as little as that.
        (_, None) => return Err(Fault::Refused {}),
    };
    let names = [SANDBOX_TAG].into_iter().chain(name);
    let mut tags: Vec<Tag> = names.filter_map(|name| Tag::parse(name).ok()).collect();
    tags.extend(source.tags.iter().filter(|tag| is_restriction(tag.as_str())).cloned());
    Ok(tags)
}

fn is_restriction(tag: &str) -> bool {
    RESTRICTIONS.contains(&tag) || tag.starts_with(RESTRICTION_PREFIX)
}

/// What is made would be held until the sandbox ends, so nothing may be made from what is held for
/// a shorter time.
pub(super) fn outlasts(source: &ManagedQube, birth: &Birth) -> Result<(), Fault> {
    match (source.until(), birth.until()) {
        (None, _) => Ok(()),
        (Some(source), Some(birth)) if source >= birth => Ok(()),
        (Some(_), _) => Err(Fault::Refused {}),
    }
}

/// Whether a newborn gives nothing that the agent did not hold over its source.
pub(super) fn gains_nothing(newborn: &ManagedQube, source: &ManagedQube) -> bool {
    Power::ALL.into_iter().all(|power| source.holds(power) || !newborn.holds(power))
}

/// Whether a tag is one that says what agents may do.
pub(super) fn is_ours(tag: &Tag) -> bool {
    let name = tag.as_str();
    name == SANDBOX_TAG
        || name == DUMP_TAG
        || Tier::TAGGED.iter().any(|tier| tier.tag() == Some(name))
}
