//! Authority as types: whoever holds a [`ManagedQube`] has been admitted to that very qube.
//!
//! Nothing here asks qubesd; what qubesd says right now comes in as [`Live`].

use admin_api::{QubeName, Tag, Uuid};
use contract::Power;

use crate::{
    powers::{Consent, Powers},
    tier::{DUMP_TAG, SANDBOX_TAG, SandboxRules, Tier},
    until::Until,
};

/// The UUID of dom0 on every machine.
pub const DOM0_UUID: &str = "00000000-0000-0000-0000-000000000000";

/// How a call names its qube.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// In the qrexec argument, aimed at dom0: listed qubes.
    Argument,
    /// As the qrexec target, with an empty argument: tagged qubes.
    Target,
}

/// The classes of qubes that are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// dom0.
    AdminVm,
    /// A disposable, which inherits its template's tags.
    DispVm,
    /// Every other class.
    Other,
}

impl Class {
    /// The class of this name, as `admin.vm.List` says it.
    pub fn of(name: &str) -> Self {
        match name {
            "AdminVM" => Self::AdminVm,
            "DispVM" => Self::DispVm,
            _ => Self::Other,
        }
    }
}

/// What qubesd says right now of one qube.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    /// Its name.
    pub name: QubeName,
    /// Its UUID, under which every later call of the request reaches it.
    pub uuid: Uuid,
    /// Its class.
    pub class: Class,
    /// Its tags. Looked at only for [`Address::Target`].
    pub tags: Vec<Tag>,
}

/// The caller has no authority. Says nothing more; the reason is for the operator alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request refused")]
pub struct Refused(pub(crate) Reason);

impl Refused {
    /// Why, for the operator's journal and `explain`; never for the caller.
    pub const fn reason(self) -> Reason {
        self.0
    }
}

/// Why a call is refused. Never shown to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    /// The operator's file has no block for the caller.
    #[error("the caller has no block in the operator's file")]
    NotAnAgent,
    /// The target is the caller.
    #[error("the caller is never a target")]
    Itself,
    /// The caller's block does not list the target.
    #[error("the caller's block does not list the target")]
    NotListed,
    /// The grant has ended.
    #[error("the grant has ended")]
    Ended,
    /// The grant lacks the power.
    #[error("the grant does not hold the power")]
    PowerMissing,
    /// The power is held as `ask`, where no prompt can ask for it.
    #[error("the power is held as ask, and this call cannot ask")]
    OnlyAsk,
    /// A listed qube was named as qrexec target.
    #[error("a listed qube is named by the argument only")]
    ListedByTarget,
    /// No grant by tag that has not ended holds the power.
    #[error("no grant by tag holds the power")]
    NoTagGrant,
    /// There is no qube of this name.
    #[error("there is no such qube")]
    NoSuchQube,
    /// qubesd knows the qube under another name.
    #[error("qubesd answered for a qube of another name")]
    OtherName,
    /// The qube is dom0.
    #[error("dom0 is never a target")]
    AdminVm,
    /// The qube carries no tag that grants the power.
    #[error("the qube carries no tag that grants the power")]
    TagMissing,
    /// The tier of the qube does not give the power.
    #[error("the qube's tier does not give the power")]
    TierTooLow,
    /// The caller's block has no line for the tag `ai-managed`.
    #[error("the caller has no sandbox")]
    NoSandbox,
    /// The qube carries `ai-dump`.
    #[error("the qube carries ai-dump")]
    Dump,
    /// A tagged disposable that the caller did not create.
    #[error("the disposable was not created by the caller")]
    ForeignDisposable,
}

/// A call that the operator's file allows, before qubesd was asked about its qube.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Claim {
    pub(crate) agent: QubeName,
    pub(crate) target: QubeName,
    pub(crate) power: Power,
    pub(crate) grounds: Grounds,
    pub(crate) rules: SandboxRules,
    /// The qube's only part is that files are copied into it.
    pub(crate) copied_into: bool,
}

/// What a claim rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Grounds {
    /// The qube is listed with these powers until then.
    Listed(Powers, Option<Until>),
    /// Qubes with these tags are granted these powers until then.
    Tags(Vec<(Tag, Powers, Option<Until>)>),
}

impl Claim {
    /// The qube of which qubesd is to be asked.
    pub const fn target(&self) -> &QubeName {
        &self.target
    }

    /// How the call names the qube.
    pub const fn address(&self) -> Address {
        match self.grounds {
            Grounds::Listed(..) => Address::Argument,
            Grounds::Tags(_) => Address::Target,
        }
    }

    /// The tags that decide, whose presence qubesd must be asked for; none for a listed qube.
    pub fn wanted_tags(&self) -> Vec<Tag> {
        let Grounds::Tags(tags) = &self.grounds else { return Vec::new() };
        let mut wanted: Vec<Tag> = tags.iter().map(|(tag, ..)| tag.clone()).collect();
        let tiers = Tier::TAGGED.into_iter().filter_map(Tier::tag);
        wanted.extend(tiers.chain([DUMP_TAG]).filter_map(|tag| Tag::parse(tag).ok()));
        wanted.extend(Tag::parse(&created_by(&self.agent)));
        wanted.sort();
        wanted.dedup();
        wanted
    }

    /// The refusal for a claim on a qube that qubesd does not know.
    #[must_use]
    pub const fn no_such_qube(&self) -> Refused {
        Refused(Reason::NoSuchQube)
    }

    /// Decides the rest, from what qubesd says right now.
    ///
    /// # Errors
    /// The qube is not the one that was meant, or its class or tags forbid the call.
    pub fn manage(self, live: Live) -> Result<ManagedQube, Refused> {
        let address = self.address();
        let (powers, until) = self.powers_over(&live).map_err(Refused)?;
        let is_dump = live.tags.iter().any(|tag| tag.as_str() == DUMP_TAG);
        Ok(ManagedQube {
            takes_copies_only: is_dump && address == Address::Target,
            name: live.name,
            uuid: live.uuid,
            class: live.class,
            agent: self.agent,
            address,
            powers,
            until,
        })
    }

    /// The powers, and when the one that the call needs ends.
    fn powers_over(&self, live: &Live) -> Result<(Powers, Option<Until>), Reason> {
        if live.name != self.target {
            return Err(Reason::OtherName);
        }
        if live.class == Class::AdminVm || live.uuid.as_str() == DOM0_UUID {
            return Err(Reason::AdminVm);
        }
        let granting = match &self.grounds {
            Grounds::Listed(powers, until) => return Ok((powers.clone(), *until)),
            Grounds::Tags(tags) => tags,
        };
        let carries = |name: &str| live.tags.iter().any(|tag| tag.as_str() == name);
        let dump = carries(DUMP_TAG);
        if dump && (!self.copied_into || carries(SANDBOX_TAG)) {
            return Err(Reason::Dump);
        }
        if live.class == Class::DispVm && !carries(&created_by(&self.agent)) {
            return Err(Reason::ForeignDisposable);
        }
        let tier = Tier::of(&live.tags).unwrap_or(self.rules.default_tier);
        let mut held = Powers::default();
        let mut last = None;
        for (tag, powers, until) in granting {
            let given = match (tag.as_str() == SANDBOX_TAG, dump, carries(tag.as_str())) {
                (true, true, _) => powers.only(Power::Files),
                (true, false, true) => powers.within(tier),
                (false, false, true) => powers.clone(),
                (_, false, false) | (false, true, _) => continue,
            };
            held.merge(&given);
            if given.holds(self.power) {
                // Of two grants the one that lasts longer decides.
                last = last.map_or(Some(*until), |last: Option<Until>| {
                    Some(last.zip(*until).map(|(last, until)| last.max(until)))
                });
            }
        }
        let lifted = |(tag, powers, _): &(Tag, Powers, Option<Until>)| {
            tag.as_str() == SANDBOX_TAG && carries(SANDBOX_TAG) && powers.holds(self.power)
        };
        let managed = granting.iter().any(lifted);
        let missing = if managed { Reason::TierTooLow } else { Reason::TagMissing };
        last.map(|until| (held, until)).ok_or(missing)
    }
}

/// The authority of an agent to make qubes in its sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    pub(crate) agent: QubeName,
    pub(crate) powers: Powers,
    pub(crate) until: Option<Until>,
}

impl Birth {
    /// The agent in whose name the qube is made.
    pub const fn agent(&self) -> &QubeName {
        &self.agent
    }

    /// Whether the operator's line for the sandbox holds this power.
    pub fn holds(&self, power: Power) -> bool {
        self.powers.holds(power)
    }

    /// When the grant ends; none when it does not end by itself.
    pub const fn until(&self) -> Option<Until> {
        self.until
    }

    /// The tag by which a disposable is known as this agent's own.
    pub fn own_disposable_tag(&self) -> String {
        created_by(&self.agent)
    }
}

/// The tag with which qubesd stamps the disposables that this agent created.
fn created_by(agent: &QubeName) -> String {
    format!("disp-created-by-{agent}")
}

/// A qube that the caller has been admitted to. There is no other way to one than
/// [`Claim::manage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedQube {
    name: QubeName,
    uuid: Uuid,
    class: Class,
    agent: QubeName,
    address: Address,
    powers: Powers,
    until: Option<Until>,
    takes_copies_only: bool,
}

impl ManagedQube {
    /// Its name.
    pub const fn name(&self) -> &QubeName {
        &self.name
    }

    /// Its UUID at admission: what later calls of the request go to.
    pub const fn uuid(&self) -> &Uuid {
        &self.uuid
    }

    /// Its class at admission.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// The agent that was admitted.
    pub const fn agent(&self) -> &QubeName {
        &self.agent
    }

    /// How calls name it.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// When the power that the call needed ends; none when it does not end by itself.
    pub const fn until(&self) -> Option<Until> {
        self.until
    }

    /// Whether it carries `ai-dump`: new files may be copied in, and nothing else.
    pub const fn takes_copies_only(&self) -> bool {
        self.takes_copies_only
    }

    /// Whether the agent holds this power over it outright, to be used beside the one that the
    /// call needs. A power held as `ask` counts as absent.
    pub fn holds(&self, power: Power) -> bool {
        self.powers.holds(power)
    }

    /// Every power over it and whether it asks, for display.
    pub fn powers(&self) -> Vec<(Power, bool)> {
        self.powers.iter().map(|(power, consent)| (power, consent == Consent::Ask)).collect()
    }
}
