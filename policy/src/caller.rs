//! What an agent may do by the operator's file, decided before qubesd is asked.

use std::time::SystemTime;

use admin_api::{QubeName, Tag};
use contract::Power;

use crate::{
    authority::{Address, Birth, Claim, Grounds, Live, ManagedQube, Reason, Refused},
    powers::{Consent, Powers},
    scope::{Block, Grant, Scope, Target},
    tier::SandboxRules,
    until::Until,
};

impl Scope {
    /// The caller's own part of the scope.
    ///
    /// # Errors
    /// The caller has no block.
    pub fn caller(&self, source: &QubeName) -> Result<Caller<'_>, Refused> {
        let rules = self.rules();
        self.block(source).map(|block| Caller { block, rules }).ok_or(Refused(Reason::NotAnAgent))
    }
}

/// An agent with a block in the operator's file.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    block: &'a Block,
    rules: SandboxRules,
}

impl<'a> Caller<'a> {
    /// The agent.
    pub const fn agent(&self) -> &'a QubeName {
        self.block.agent()
    }

    /// Decides all that can be decided without qubesd, for a call that names one qube.
    ///
    /// A power held as `ask` is enough: the prompt came before the call.
    ///
    /// # Errors
    /// The caller has no such authority now.
    pub fn claim(
        &self,
        address: Address,
        target: &QubeName,
        power: Power,
        now: SystemTime,
    ) -> Result<Claim, Refused> {
        self.claim_with(address, target, power, now, Asked::ByPolicy)
    }

    /// The same for a qube that is named neither by argument nor by target but in the request's
    /// text, where no prompt can ask: the power must be held outright.
    ///
    /// # Errors
    /// The caller has no such authority now.
    pub fn claim_in_text(
        &self,
        target: &QubeName,
        power: Power,
        now: SystemTime,
    ) -> Result<Claim, Refused> {
        self.claim_with(self.address_of(target), target, power, now, Asked::Never)
    }

    /// Two qubes named in the request's text, both with this power, for example the two ends of a
    /// `qubes.ConnectTCP` rule. Refused where either side holds it only as `ask`.
    ///
    /// # Errors
    /// The caller lacks this authority over either qube now.
    pub fn pair(
        &self,
        source: &QubeName,
        target: &QubeName,
        power: Power,
        now: SystemTime,
    ) -> Result<(Claim, Claim), Refused> {
        Ok((self.claim_in_text(source, power, now)?, self.claim_in_text(target, power, now)?))
    }

    /// A qube named in the request's text into which files are copied, and to which nothing else
    /// is done: it may carry `ai-dump` instead of `ai-managed`.
    ///
    /// # Errors
    /// The caller has no such authority now.
    pub fn claim_to_copy_into(&self, target: &QubeName, now: SystemTime) -> Result<Claim, Refused> {
        let claim = self.claim_in_text(target, Power::Files, now)?;
        Ok(Claim { copied_into: self.rules.dump, ..claim })
    }

    /// Two qubes named in the request's text: files are copied from the one into the other.
    ///
    /// # Errors
    /// The caller lacks this authority over either qube now.
    pub fn pair_to_copy(
        &self,
        source: &QubeName,
        target: &QubeName,
        now: SystemTime,
    ) -> Result<(Claim, Claim), Refused> {
        let from = self.claim_in_text(source, Power::Files, now)?;
        Ok((from, self.claim_to_copy_into(target, now)?))
    }

    /// The authority to make qubes in the sandbox.
    ///
    /// # Errors
    /// The caller has no sandbox, or may not shape it now.
    pub fn birth(&self, now: SystemTime) -> Result<Birth, Refused> {
        let grant = self.block.running(now).find(|grant| grant.target.is_sandbox());
        let grant = grant.ok_or(Refused(Reason::NoSandbox))?;
        if !grant.powers.holds(Power::Shape) {
            return Err(Refused(Reason::PowerMissing));
        }
        Ok(Birth { agent: self.agent().clone(), powers: grant.powers.clone(), until: grant.until })
    }

    /// Whether a service without a qube of its own may be called, and whether qrexec asks first:
    /// standing when the power is held outright over anything.
    ///
    /// # Errors
    /// The caller holds the power over nothing now.
    pub fn scope_wide(&self, power: Power, now: SystemTime) -> Result<Consent, Refused> {
        self.block.scope_wide(power, now).ok_or(Refused(Reason::PowerMissing))
    }

    /// The listed qubes whose grant has not ended, with the powers over them.
    pub fn listed(&self, now: SystemTime) -> impl Iterator<Item = (&'a QubeName, &'a Powers)> {
        self.block.running(now).filter_map(|grant| match &grant.target {
            Target::Qube(name) => Some((name, &grant.powers)),
            Target::Tag(_) => None,
        })
    }

    /// The tags whose grant has not ended, with the powers that they give.
    pub fn tags(&self, now: SystemTime) -> impl Iterator<Item = (&'a Tag, &'a Powers)> {
        self.block.running(now).filter_map(|grant| match &grant.target {
            Target::Tag(tag) => Some((tag, &grant.powers)),
            Target::Qube(_) => None,
        })
    }

    /// Whether a list shows this qube, and with which powers and address. The tags of a qube that
    /// is not listed must be known.
    ///
    /// A qube held with `see:ask` is shown only when everything is, because only then qrexec
    /// asked before the list was read.
    pub fn visible(&self, live: Live, now: SystemTime) -> Option<ManagedQube> {
        let asked = match self.scope_wide(Power::See, now).ok()? {
            Consent::Standing => Asked::Never,
            Consent::Ask => Asked::ByPolicy,
        };
        let address = self.address_of(&live.name);
        let claim = self.claim_with(address, &live.name, Power::See, now, asked).ok()?;
        claim.manage(live).ok()
    }

    /// How calls name this qube, if it is in scope at all.
    fn address_of(&self, target: &QubeName) -> Address {
        if self.block.listed(target).is_some() { Address::Argument } else { Address::Target }
    }

    fn claim_with(
        &self,
        address: Address,
        target: &QubeName,
        power: Power,
        now: SystemTime,
        asked: Asked,
    ) -> Result<Claim, Refused> {
        let grounds = self.grounds(address, target, power, now, asked).map_err(Refused)?;
        let (agent, target) = (self.agent().clone(), target.clone());
        Ok(Claim { agent, target, power, grounds, rules: self.rules, copied_into: false })
    }

    fn grounds(
        &self,
        address: Address,
        target: &QubeName,
        power: Power,
        now: SystemTime,
        asked: Asked,
    ) -> Result<Grounds, Reason> {
        if target == self.agent() {
            return Err(Reason::Itself);
        }
        match (address, self.block.listed(target)) {
            (Address::Argument, None) => Err(Reason::NotListed),
            (Address::Argument, Some(grant)) if grant.has_ended(now) => Err(Reason::Ended),
            (Address::Argument, Some(grant)) => match (grant.powers.consent(power), asked) {
                (None, _) => Err(Reason::PowerMissing),
                (Some(Consent::Ask), Asked::Never) => Err(Reason::OnlyAsk),
                (Some(_), _) => Ok(Grounds::Listed(grant.powers.clone(), grant.until)),
            },
            (Address::Target, Some(_)) => Err(Reason::ListedByTarget),
            (Address::Target, None) => {
                let tags: Vec<(Tag, Powers, Option<Until>)> = self
                    .block
                    .running(now)
                    .filter_map(|grant| match &grant.target {
                        Target::Tag(tag) => Some((tag.clone(), grant.powers.clone(), grant.until)),
                        Target::Qube(_) => None,
                    })
                    .collect();
                if tags.iter().any(|(_, powers, _)| powers.holds(power)) {
                    Ok(Grounds::Tags(tags))
                } else {
                    Err(Reason::NoTagGrant)
                }
            }
        }
    }
}

impl Block {
    /// The grants that have not ended.
    pub(crate) fn running(&self, now: SystemTime) -> impl Iterator<Item = &Grant> {
        self.grants().iter().filter(move |grant| !grant.has_ended(now))
    }

    /// How this power is held over anything: standing, where it is so over one target at least.
    pub(crate) fn scope_wide(&self, power: Power, now: SystemTime) -> Option<Consent> {
        self.running(now).filter_map(|grant| grant.powers.consent(power)).min()
    }
}

/// Whether the operator was asked, where a power is held as `ask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// qrexec asked, because the call's policy line said so.
    ByPolicy,
    /// Nobody asked.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Class, DOM0_UUID};
    use crate::tier::Tier;
    use admin_api::Uuid;

    const SCOPE: &str = "\
@agent salt-bridge
work
dev see,exec
quiet see:ask,files:ask
old see until=2026-12-01T18:00:00Z
@tag:ai-managed see
@tag:ai-exec see,exec,files
@tag:late lifecycle until=2026-12-01T18:00:00Z
@agent helper
test see
@agent careful
vault see:ask
";

    fn now() -> SystemTime {
        Until::parse("2026-12-01T17:59:59Z").unwrap().time()
    }

    fn later() -> SystemTime {
        Until::parse("2026-12-01T18:00:00Z").unwrap().time()
    }

    fn name(text: &str) -> QubeName {
        QubeName::parse(text).unwrap()
    }

    fn live(qube: &str, class: &str, tags: &[&str]) -> Live {
        Live {
            name: name(qube),
            uuid: Uuid::parse("22222222-b02b-4944-a9e5-437def2fbe2c").unwrap(),
            class: Class::of(class),
            tags: tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect(),
        }
    }

    /// What becomes of a call of `salt-bridge`.
    fn outcome(
        address: Address,
        power: Power,
        qube: Live,
        now: SystemTime,
    ) -> Result<ManagedQube, Reason> {
        let scope = Scope::parse(SCOPE).unwrap();
        let caller = scope.caller(&name("salt-bridge")).unwrap();
        let claim = caller.claim(address, &qube.name.clone(), power, now);
        claim.and_then(|claim| claim.manage(qube)).map_err(Refused::reason)
    }

    #[test]
    fn only_an_agent_has_authority_and_a_refusal_says_nothing() {
        let scope = Scope::parse(SCOPE).unwrap();
        for stranger in ["work", "Salt-Bridge", "ai-managed"] {
            let refused = scope.caller(&name(stranger)).unwrap_err();
            assert_eq!(refused.reason(), Reason::NotAnAgent);
            assert_eq!(refused.to_string(), "request refused");
        }
    }

    #[test]
    fn a_listed_qube_is_reached_by_its_argument_with_its_powers() {
        use Address::{Argument, Target};
        let qube = outcome(Argument, Power::Exec, live("dev", "AppVM", &[]), now()).unwrap();
        assert_eq!(qube.powers(), [(Power::See, false), (Power::Exec, false)]);
        assert_eq!((qube.address(), qube.agent().as_str()), (Argument, "salt-bridge"));
        for (address, target, power, reason) in [
            (Argument, "dev", Power::Root, Reason::PowerMissing),
            (Argument, "work", Power::Shape, Reason::PowerMissing),
            (Argument, "vault", Power::See, Reason::NotListed),
            (Argument, "test", Power::See, Reason::NotListed),
            (Argument, "salt-bridge", Power::See, Reason::Itself),
            (Target, "salt-bridge", Power::See, Reason::Itself),
            (Target, "dev", Power::See, Reason::ListedByTarget),
            (Target, "old", Power::See, Reason::ListedByTarget),
        ] {
            let tagged = live(target, "AppVM", &["ai-managed", "ai-exec"]);
            assert_eq!(outcome(address, power, tagged, now()), Err(reason), "{target}");
        }
    }

    #[test]
    fn a_grant_ends_to_the_second_and_never_falls_back_to_a_tag() {
        use Address::{Argument, Target};
        let old = || live("old", "AppVM", &["ai-managed"]);
        assert!(outcome(Argument, Power::See, old(), now()).is_ok());
        assert_eq!(outcome(Argument, Power::See, old(), later()), Err(Reason::Ended));
        assert_eq!(outcome(Target, Power::See, old(), later()), Err(Reason::ListedByTarget));
        let late = || live("x", "AppVM", &["late"]);
        assert!(outcome(Target, Power::Lifecycle, late(), now()).is_ok());
        assert_eq!(outcome(Target, Power::Lifecycle, late(), later()), Err(Reason::NoTagGrant));
    }

    #[test]
    fn authority_knows_when_it_ends() {
        let until = |address, power, qube| outcome(address, power, qube, now()).unwrap().until();
        let end = Until::parse("2026-12-01T18:00:00Z").ok();
        assert_eq!(until(Address::Argument, Power::See, live("work", "AppVM", &[])), None);
        assert_eq!(until(Address::Argument, Power::See, live("old", "AppVM", &[])), end);
        let both = || live("x", "AppVM", &["ai-managed", "late"]);
        assert_eq!(until(Address::Target, Power::See, both()), None);
        assert_eq!(until(Address::Target, Power::Lifecycle, both()), end);
    }

    #[test]
    fn tags_decide_by_what_the_qube_carries_now_and_add_up() {
        use Address::{Argument, Target};
        let seen = outcome(Target, Power::See, live("x", "AppVM", &["ai-managed"]), now()).unwrap();
        assert_eq!(seen.powers(), [(Power::See, false)]);
        assert_eq!(seen.address(), Target);
        let both = live("x", "AppVM", &["ai-managed", "late", "other"]);
        let both = outcome(Target, Power::See, both, now()).unwrap();
        assert_eq!(both.powers(), [(Power::See, false), (Power::Lifecycle, false)]);
        assert!(both.holds(Power::Lifecycle) && !both.holds(Power::Exec));
        for (power, tags, reason) in [
            (Power::Exec, &["ai-managed"][..], Reason::TagMissing),
            (Power::See, &[], Reason::TagMissing),
            (Power::See, &["AI-managed"], Reason::TagMissing),
            (Power::Net, &["ai-managed", "ai-exec"], Reason::NoTagGrant),
            (Power::See, &["ai-dump"], Reason::Dump),
            (Power::See, &["ai-managed", "ai-dump"], Reason::Dump),
        ] {
            assert_eq!(outcome(Target, power, live("x", "AppVM", tags), now()), Err(reason));
        }
        let by_argument = live("x", "AppVM", &["ai-managed"]);
        assert_eq!(outcome(Argument, Power::See, by_argument, now()), Err(Reason::NotListed));
    }

    #[test]
    fn a_tagged_disposable_is_in_scope_only_for_the_agent_that_created_it() {
        let disposable = |tag| live("disp1", "DispVM", &["ai-managed", tag]);
        let see = |qube| outcome(Address::Target, Power::See, qube, now()).map(|_| ());
        assert_eq!(see(disposable("disp-created-by-salt-bridge")), Ok(()));
        assert_eq!(see(disposable("disp-created-by-helper")), Err(Reason::ForeignDisposable));
        assert_eq!(see(disposable("created-by-salt-bridge")), Err(Reason::ForeignDisposable));
    }

    #[test]
    fn what_qubesd_says_must_be_about_the_qube_that_was_meant() {
        let scope = Scope::parse(SCOPE).unwrap();
        let claim = |target: &str| {
            let caller = scope.caller(&name("salt-bridge")).unwrap();
            caller.claim(Address::Argument, &name(target), Power::See, now()).unwrap()
        };
        let manage = |live| claim("work").manage(live).map(|_| ()).map_err(Refused::reason);
        assert_eq!(manage(live("work", "AppVM", &["ai-dump", "ai-managed"])), Ok(()));
        assert_eq!(manage(live("dev", "AppVM", &[])), Err(Reason::OtherName));
        assert_eq!(manage(live("work", "AdminVM", &[])), Err(Reason::AdminVm));
        let mut dom0 = live("work", "AppVM", &[]);
        dom0.uuid = Uuid::parse(DOM0_UUID).unwrap();
        assert_eq!(manage(dom0), Err(Reason::AdminVm));
    }

    #[test]
    fn a_power_held_as_ask_serves_the_call_it_was_asked_for_and_nothing_else() {
        let quiet = || live("quiet", "AppVM", &[]);
        let qube = outcome(Address::Argument, Power::Files, quiet(), now()).unwrap();
        assert!(!qube.holds(Power::Files) && !qube.holds(Power::See));
        assert_eq!(qube.powers(), [(Power::See, true), (Power::Files, true)]);
        let scope = Scope::parse(SCOPE).unwrap();
        let caller = scope.caller(&name("salt-bridge")).unwrap();
        let in_text = caller.claim_in_text(&name("quiet"), Power::Files, now());
        assert_eq!(in_text.map_err(Refused::reason), Err(Reason::OnlyAsk));
    }

    #[test]
    fn a_pair_needs_the_power_outright_on_both_sides() {
        let scope = Scope::parse(SCOPE).unwrap();
        let caller = scope.caller(&name("salt-bridge")).unwrap();
        let pair = |source, target, power| {
            let pair = caller.pair(&name(source), &name(target), power, now());
            pair.map(|(a, b)| (a.address(), b.address())).map_err(Refused::reason)
        };
        assert_eq!(
            pair("work", "unlisted", Power::Files),
            Ok((Address::Argument, Address::Target))
        );
        assert_eq!(pair("work", "dev", Power::Net), Err(Reason::PowerMissing));
        assert_eq!(pair("work", "unlisted", Power::Net), Err(Reason::NoTagGrant));
        assert_eq!(pair("work", "quiet", Power::Files), Err(Reason::OnlyAsk));
        assert_eq!(pair("salt-bridge", "work", Power::Net), Err(Reason::Itself));
    }

    #[test]
    fn a_list_shows_what_may_be_seen_without_asking() {
        let scope = Scope::parse(SCOPE).unwrap();
        let seen = |agent: &str, qube: Live| {
            scope.caller(&name(agent)).unwrap().visible(qube, now()).map(|seen| seen.address())
        };
        let plain = |qube| live(qube, "AppVM", &[]);
        assert_eq!(seen("salt-bridge", plain("work")), Some(Address::Argument));
        let tagged = live("ai-1", "AppVM", &["ai-managed"]);
        assert_eq!(seen("salt-bridge", tagged.clone()), Some(Address::Target));
        assert_eq!(seen("helper", tagged), None);
        for hidden in ["quiet", "vault", "salt-bridge", "test"] {
            assert_eq!(seen("salt-bridge", plain(hidden)), None, "{hidden}");
        }
        // Everything that this agent may see asks, so its list has asked as well.
        assert_eq!(seen("careful", plain("vault")), Some(Address::Argument));
    }

    #[test]
    fn a_service_without_a_qube_asks_only_when_every_grant_does() {
        let scope = Scope::parse(SCOPE).unwrap();
        let consent = |agent, power| scope.caller(&name(agent)).unwrap().scope_wide(power, now());
        assert_eq!(consent("salt-bridge", Power::See), Ok(Consent::Standing));
        assert_eq!(consent("careful", Power::See), Ok(Consent::Ask));
        assert!(consent("careful", Power::Net).is_err());
    }

    #[test]
    fn the_scope_of_a_caller_is_listed_without_what_has_ended() {
        let scope = Scope::parse(SCOPE).unwrap();
        let caller = scope.caller(&name("salt-bridge")).unwrap();
        let listed = |now| caller.listed(now).map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        assert_eq!(listed(now()), ["work", "dev", "quiet", "old"]);
        assert_eq!(listed(later()), ["work", "dev", "quiet"]);
        assert_eq!((caller.tags(now()).count(), caller.tags(later()).count()), (3, 2));
    }

    #[test]
    fn a_claim_by_tag_names_the_tags_to_read() {
        let scope = Scope::parse(SCOPE).unwrap();
        let caller = scope.caller(&name("salt-bridge")).unwrap();
        let claim = caller.claim(Address::Target, &name("x"), Power::See, later()).unwrap();
        let wanted: Vec<String> = claim.wanted_tags().iter().map(ToString::to_string).collect();
        let tags = ["ai-dump", "ai-exec", "ai-full", "ai-managed", "ai-net"];
        assert_eq!(wanted[..5], tags);
        assert_eq!(wanted[5..], ["disp-created-by-salt-bridge"]);
        let claim = caller.claim(Address::Argument, &name("work"), Power::See, now()).unwrap();
        assert!(claim.wanted_tags().is_empty());
    }

    /// What becomes of a call of the only agent of a scope, under these rules.
    fn tiered(tier: Tier, line: &str, tags: &[&str], power: Power) -> Result<String, Reason> {
        let scope = Scope::parse(&format!("@agent a\n{line}\n")).unwrap();
        let scope = scope.under(SandboxRules { default_tier: tier, dump: true });
        let caller = scope.caller(&name("a")).unwrap();
        let qube = live("ai-x", "AppVM", tags);
        let claim = caller.claim(Address::Target, &qube.name.clone(), power, now());
        let qube = claim.and_then(|claim| claim.manage(qube)).map_err(Refused::reason)?;
        Ok(qube.powers().iter().map(|(power, _)| power.as_str()).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn a_tier_gives_what_its_tag_says_and_never_more_than_the_line() {
        let line = "@tag:ai-managed";
        let all = "see,lifecycle,exec,root,files,net,shape";
        let (full, see) = (Tier::Full, Tier::See);
        for (tier, tags, expected) in [
            (full, &["ai-managed"][..], all),
            (see, &["ai-managed"], "see"),
            (full, &["ai-managed", "ai-exec"], "see,exec,root,files"),
            (see, &["ai-managed", "ai-net"], "see,exec,root,files,net"),
            (see, &["ai-managed", "ai-full"], all),
        ] {
            assert_eq!(tiered(tier, line, tags, Power::See).as_deref(), Ok(expected), "{tags:?}");
        }
        let tags = &["ai-managed", "ai-full"];
        let some = "@tag:ai-managed see,net,shape";
        assert_eq!(tiered(see, some, tags, Power::Net).as_deref(), Ok("see,net,shape"));
        assert_eq!(tiered(see, some, tags, Power::Exec), Err(Reason::NoTagGrant));
        assert_eq!(tiered(see, line, &["ai-full"], Power::See), Err(Reason::TagMissing));
        let low = &["ai-managed", "ai-exec"];
        assert_eq!(tiered(full, line, low, Power::Lifecycle), Err(Reason::TierTooLow));
    }

    #[test]
    fn into_a_dump_files_are_copied_and_nothing_else_is_done() {
        let rules = SandboxRules::default();
        let scope = Scope::parse("@agent a\n@tag:ai-managed\nlisted\n").unwrap().under(rules);
        let outcome = |scope: &Scope, tags: &[&str], copy: bool| {
            let (caller, qube) = (scope.caller(&name("a")).unwrap(), live("x", "AppVM", tags));
            let claim = if copy {
                caller.pair_to_copy(&name("listed"), &qube.name, now()).map(|(_, into)| into)
            } else {
                caller.claim_in_text(&qube.name, Power::Files, now())
            };
            claim.and_then(|claim| claim.manage(qube)).map_err(Refused::reason)
        };
        let into = outcome(&scope, &["ai-dump"], true).unwrap();
        assert_eq!(into.powers(), [(Power::Files, false)]);
        assert!(into.takes_copies_only());
        assert!(!outcome(&scope, &["ai-managed"], true).unwrap().takes_copies_only());
        assert_eq!(outcome(&scope, &["ai-dump"], false), Err(Reason::Dump));
        let both = &["ai-dump", "ai-managed", "ai-full"];
        assert_eq!(outcome(&scope, both, true), Err(Reason::Dump));
        assert_eq!(outcome(&scope, both, false), Err(Reason::Dump));
        assert_eq!(outcome(&scope, &[], true), Err(Reason::TagMissing));
        let closed = scope.under(SandboxRules { dump: false, ..rules });
        assert_eq!(outcome(&closed, &["ai-dump"], true), Err(Reason::Dump));
    }

    #[test]
    fn qubes_are_born_in_a_sandbox_that_may_be_shaped_and_nowhere_else() {
        for (lines, expected) in [
            ("@tag:ai-managed", Ok(())),
            ("@tag:ai-managed see,shape", Ok(())),
            ("@tag:ai-managed see", Err(Reason::PowerMissing)),
            ("@tag:other shape\nwork shape", Err(Reason::NoSandbox)),
            ("@tag:ai-managed until=2026-12-01T17:00:00Z", Err(Reason::NoSandbox)),
        ] {
            let scope = Scope::parse(&format!("@agent a\n{lines}\n")).unwrap();
            let birth = scope.caller(&name("a")).unwrap().birth(now());
            if let Ok(birth) = &birth {
                assert_eq!((birth.agent(), birth.until()), (&name("a"), None));
                assert!(birth.holds(Power::Shape));
                assert_eq!(birth.own_disposable_tag(), "disp-created-by-a");
            }
            assert_eq!(birth.map(drop).map_err(Refused::reason), expected, "{lines}");
        }
    }
}
