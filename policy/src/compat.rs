//! The policy lines for another program's client: `@compat qmcp` in a block of the operator's file.

use std::time::SystemTime;

use admin_api::QubeName;
use contract::Power;

use crate::{
    scope::{Block, Target},
    tier::{DUMP_TAG, SANDBOX_TAG, SandboxRules, Tier},
};

/// The services of qubes-mcp that dom0 answers.
pub const QMCP_SERVICES: [&str; 15] = [
    "qmcp.AIManagedEvents",
    "qmcp.AttachDeviceAIManaged",
    "qmcp.CloneAIManagedQube",
    "qmcp.CopyToAIManaged",
    "qmcp.DetachDeviceAIManaged",
    "qmcp.GetPoolStats",
    "qmcp.GetPropertyAIManaged",
    "qmcp.LifecycleAIManaged",
    "qmcp.ListAIManagedQubes",
    "qmcp.ListAttachedDevicesAIManaged",
    "qmcp.RunInAIManaged",
    "qmcp.SetFeatureAIManaged",
    "qmcp.SetPropertyAIManaged",
    "qmcp.SpawnAIManagedQube",
    "qmcp.SpawnDisposableAIManaged",
];

/// Those of them that its client aims at the qube itself, and the power that allows it. Policy
/// hands them to dom0, whose daemon decides and acts in the place of the files in the qubes.
pub const QMCP_IN_QUBES: [(&str, Power); 2] =
    [("qmcp.CopyToAIManaged", Power::Files), ("qmcp.RunInAIManaged", Power::Root)];

/// What its client calls without dom0's daemon, and the power that allows it. No such call is in
/// the audit log.
pub const QMCP_DIRECT: [(&str, Power); 3] = [
    ("admin.vm.firewall.Get", Power::See),
    ("admin.vm.firewall.Set", Power::Net),
    ("admin.vm.firewall.Reload", Power::Net),
];

/// What qubes of the sandbox call among each other.
const COPY: &str = "qubes.Filecopy";

/// The lines of a block that says so and holds the sandbox now; none otherwise.
pub(crate) fn compat_lines(block: &Block, rules: SandboxRules, now: SystemTime) -> Vec<String> {
    let grant = block.running(now).find(|grant| grant.target.is_sandbox());
    let Some(grant) = grant.filter(|_| block.speaks_qmcp()) else { return Vec::new() };
    let agent = block.agent();
    let mut lines = vec!["# For the client of qubes-mcp; dom0 decides about the qube".to_owned()];
    let in_qubes = |name: &str| QMCP_IN_QUBES.iter().any(|(known, _)| *known == name);
    for service in QMCP_SERVICES.into_iter().filter(|name| !in_qubes(name)) {
        lines.push(format!("{service} + {agent} @adminvm allow"));
    }
    for (service, _) in QMCP_IN_QUBES.into_iter().filter(|(_, power)| grant.powers.holds(*power)) {
        lines.extend(untaggable(block, service, "+"));
        lines.push(format!("{service} + {agent} @tag:{SANDBOX_TAG} allow target=@adminvm"));
    }
    lines.push("# What it calls past dom0's daemon, and past its audit log".to_owned());
    // A line asks for one tag. Where the tag of the sandbox alone does not give the power, a line
    // for the tag of a tier would open qubes outside as well, so there is none.
    for (service, power) in QMCP_DIRECT {
        if grant.powers.holds(power) && rules.default_tier.gives(power) {
            lines.extend(direct(block, service, power));
        }
    }
    if grant.powers.holds(Power::Files) {
        lines.extend(copies(block, rules));
    }
    lines
}

/// What no tag makes a target: dom0, the agent, listed qubes, and those that are only copied into.
fn untaggable(block: &Block, service: &str, argument: &str) -> Vec<String> {
    let (agent, dump) = (block.agent(), format!("@tag:{DUMP_TAG}"));
    ["@adminvm", agent.as_str(), &dump]
        .into_iter()
        .chain(listed(block).map(QubeName::as_str))
        .map(|target| format!("{service} {argument} {agent} {target} deny notify=no"))
        .collect()
}

/// The lines of one service, aimed at tagged qubes. The first that fits decides, so what no tag may
/// open comes first, and then the tiers that lack the power.
fn direct(block: &Block, service: &str, power: Power) -> Vec<String> {
    let agent = block.agent();
    let mut lines = untaggable(block, service, "*");
    // A disposable has its template's tags, the operator's own too: no tag tells them apart here.
    lines.push(format!("{service} * {agent} @type:DispVM deny notify=no"));
    for tag in Tier::TAGGED.into_iter().filter(|tier| !tier.gives(power)).filter_map(Tier::tag) {
        lines.push(format!("{service} * {agent} @tag:{tag} deny notify=no"));
    }
    lines.push(format!("{service} * {agent} @tag:{SANDBOX_TAG} allow target=@adminvm"));
    lines
}

fn listed(block: &Block) -> impl Iterator<Item = &QubeName> {
    block.grants().iter().filter_map(|grant| match &grant.target {
        Target::Qube(name) => Some(name),
        Target::Tag(_) => None,
    })
}

/// Copies among qubes that may be written to, and into the dump; out of the dump nothing, and out
/// of the sandbox nothing.
fn copies(block: &Block, rules: SandboxRules) -> Vec<String> {
    let line = |from: &str, to: &str, action: &str| format!("{COPY} * @tag:{from} {to} {action}");
    let (deny, sandbox) = ("deny notify=no", format!("@tag:{SANDBOX_TAG}"));
    let mut lines = vec![line(DUMP_TAG, &sandbox, deny)];
    lines.extend(listed(block).map(|name| line(SANDBOX_TAG, name.as_str(), deny)));
    // One that the operator started from a tagged template has the tag as well.
    lines.push(line(SANDBOX_TAG, "@type:DispVM", deny));
    if rules.default_tier.gives(Power::Files) {
        let into_dump = if rules.dump { "allow" } else { deny };
        lines.push(line(SANDBOX_TAG, &format!("@tag:{DUMP_TAG}"), into_dump));
        lines.push(line(SANDBOX_TAG, &sandbox, "allow"));
    }
    lines.push(line(SANDBOX_TAG, "@anyvm", deny));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;

    fn lines(text: &str, default_tier: Tier) -> Vec<String> {
        let scope = Scope::parse(text).unwrap();
        let rules = SandboxRules { default_tier, dump: true };
        compat_lines(&scope.blocks()[0], rules, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn nothing_is_opened_unless_the_block_says_so_and_holds_the_sandbox() {
        for text in [
            "@agent a\n@tag:ai-managed\n",
            "@agent a\n@compat qmcp\nwork\n",
            "@agent a\n@compat qmcp\n@tag:ai-managed until=1970-01-01T00:00:00Z\n",
        ] {
            assert_eq!(lines(text, Tier::Full), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn a_tier_that_lacks_the_power_closes_before_the_sandbox_opens() {
        let all = lines("@agent a\n@compat qmcp\n@tag:ai-managed\n", Tier::Full);
        let set: Vec<&str> =
            all.iter().filter_map(|line| line.strip_prefix("admin.vm.firewall.Set * a ")).collect();
        assert_eq!(
            set,
            [
                "@adminvm deny notify=no",
                "a deny notify=no",
                "@tag:ai-dump deny notify=no",
                "@type:DispVM deny notify=no",
                "@tag:ai-exec deny notify=no",
                "@tag:ai-managed allow target=@adminvm",
            ]
        );
        let less = lines("@agent a\n@compat qmcp\nwork\n@tag:ai-managed see\n", Tier::Full);
        let none = |word: &str| less.iter().all(|line| !line.contains(word));
        assert!(none("RunIn") && none("CopyTo") && none("Filecopy"), "{less:?}");
        assert!(less.contains(&"admin.vm.firewall.Get * a work deny notify=no".to_owned()));
        let scope = Scope::parse("@agent a\n@compat qmcp\n@tag:ai-managed\n").unwrap();
        let policy = crate::render_policy(&scope, &[], SystemTime::UNIX_EPOCH);
        assert!(all.iter().all(|line| policy.lines().any(|other| other == line)), "{policy}");
        let both = lines("@agent a\n@compat qmcp\nwork\n@tag:ai-managed\n", Tier::Full);
        let closed = format!("{COPY} * @tag:ai-managed work deny notify=no");
        let opened = format!("{COPY} * @tag:ai-managed @tag:ai-managed allow");
        let place = |line: &String| both.iter().position(|other| other == line).unwrap();
        assert!(place(&closed) < place(&opened), "{both:?}");
    }

    #[test]
    fn the_tag_of_a_tier_opens_nothing_without_the_tag_of_the_sandbox() {
        for default_tier in [Tier::Full, Tier::See] {
            let all = lines("@agent a\n@compat qmcp\n@tag:ai-managed\n", default_tier);
            let opens = |line: &&String| line.contains(" allow");
            for line in all.iter().filter(opens) {
                let target = line.split(' ').nth(3).unwrap();
                let known = ["@adminvm", "@tag:ai-managed", "@tag:ai-dump"].contains(&target);
                assert!(known, "{line}");
            }
            let sets = all.iter().any(|line| line.contains("firewall.Set"));
            assert_eq!(sets, default_tier == Tier::Full);
            assert!(all.contains(
                &"qmcp.RunInAIManaged + a @tag:ai-managed allow target=@adminvm".to_owned()
            ));
        }
    }
}
