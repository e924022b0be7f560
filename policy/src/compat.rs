//! The policy lines for another program's client: `@compat qmcp` in a block of the operator's file.

use std::time::SystemTime;

use admin_api::QubeName;
use contract::Power;

use crate::{
    scope::{Block, Target},
    tier::{DUMP_TAG, SANDBOX_TAG, SandboxRules, Tier},
};

/// The services of qubes-mcp that dom0 answers.
pub const QMCP_SERVICES: [&str; 13] = [
    "qmcp.AIManagedEvents",
    "qmcp.AttachDeviceAIManaged",
    "qmcp.CloneAIManagedQube",
    "qmcp.DetachDeviceAIManaged",
    "qmcp.GetPoolStats",
    "qmcp.GetPropertyAIManaged",
    "qmcp.LifecycleAIManaged",
    "qmcp.ListAIManagedQubes",
    "qmcp.ListAttachedDevicesAIManaged",
    "qmcp.SetFeatureAIManaged",
    "qmcp.SetPropertyAIManaged",
    "qmcp.SpawnAIManagedQube",
    "qmcp.SpawnDisposableAIManaged",
];

/// What its client calls without dom0's daemon: the service, the power that allows it, and what
/// stands behind `allow`. No such call is in the audit log.
pub const QMCP_DIRECT: [(&str, Power, &str); 5] = [
    ("qmcp.RunInAIManaged", Power::Root, " user=root"),
    ("qmcp.CopyToAIManaged", Power::Root, " user=root"),
    ("admin.vm.firewall.Get", Power::See, " target=@adminvm"),
    ("admin.vm.firewall.Set", Power::Net, " target=@adminvm"),
    ("admin.vm.firewall.Reload", Power::Net, " target=@adminvm"),
];

/// What qubes of the sandbox call among each other.
const COPY: &str = "qubes.Filecopy";

/// The lines of a block that says so and holds the sandbox now; none otherwise.
pub(crate) fn compat_lines(block: &Block, rules: SandboxRules, now: SystemTime) -> Vec<String> {
    let grant = block.running(now).find(|grant| grant.target.is_sandbox());
    let Some(grant) = grant.filter(|_| block.speaks_qmcp()) else { return Vec::new() };
    let agent = block.agent();
    let mut lines = vec!["# For the client of qubes-mcp; dom0 decides about the qube".to_owned()];
    for service in QMCP_SERVICES {
        lines.push(format!("{service} + {agent} @adminvm allow"));
    }
    lines.push("# What it calls past dom0's daemon, and past its audit log".to_owned());
    for (service, power, more) in QMCP_DIRECT {
        if grant.powers.holds(power) {
            lines.extend(direct(block, agent, service, (power, more), rules.default_tier));
        }
    }
    if grant.powers.holds(Power::Files) {
        lines.extend(copies(block, rules));
    }
    lines
}

/// The lines of one service, aimed at tagged qubes. The first that fits decides, so what no tag may
/// open comes first, and a tier that lacks the power closes before the one below it opens.
fn direct(
    block: &Block,
    agent: &QubeName,
    service: &str,
    (power, more): (Power, &str),
    default_tier: Tier,
) -> Vec<String> {
    let deny = |target: &str| format!("{service} * {agent} {target} deny notify=no");
    let mut lines = vec![deny("@adminvm"), deny(agent.as_str()), deny(&format!("@tag:{DUMP_TAG}"))];
    lines.extend(listed(block).map(|name| deny(name.as_str())));
    // A disposable has its template's tags, the operator's own too: no tag tells them apart here.
    lines.push(deny("@type:DispVM"));
    for tier in Tier::TAGGED {
        let Some(tag) = tier.tag() else { continue };
        if !tier.gives(power) {
            lines.push(deny(&format!("@tag:{tag}")));
        } else if !default_tier.gives(power) {
            // Otherwise the line for the sandbox's own tag says it.
            lines.push(format!("{service} * {agent} @tag:{tag} allow{more}"));
        }
    }
    if default_tier.gives(power) {
        lines.push(format!("{service} * {agent} @tag:{SANDBOX_TAG} allow{more}"));
    }
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
    let mut holders: Vec<&str> = Tier::TAGGED.into_iter().filter_map(Tier::tag).collect();
    if rules.default_tier.gives(Power::Files) {
        holders.push(SANDBOX_TAG);
    }
    let mut lines = vec![format!("{COPY} * @tag:{DUMP_TAG} @tag:{SANDBOX_TAG} deny notify=no")];
    for name in listed(block) {
        lines.push(format!("{COPY} * @tag:{SANDBOX_TAG} {name} deny notify=no"));
    }
    for from in &holders {
        for to in &holders {
            lines.push(format!("{COPY} * @tag:{from} @tag:{to} allow"));
        }
        if rules.dump {
            lines.push(format!("{COPY} * @tag:{from} @tag:{DUMP_TAG} allow"));
        }
    }
    lines.push(format!("{COPY} * @tag:{SANDBOX_TAG} @anyvm deny notify=no"));
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
        let low = lines("@agent a\n@compat qmcp\n@tag:ai-managed\n", Tier::See);
        assert!(!low.iter().any(|line| line.contains("firewall.Set * a @tag:ai-managed")));
        let less = lines("@agent a\n@compat qmcp\nwork\n@tag:ai-managed see\n", Tier::Full);
        assert!(less.iter().all(|line| !line.contains("RunIn") && !line.contains("Filecopy")));
        assert!(less.contains(&"admin.vm.firewall.Get * a work deny notify=no".to_owned()));
        let scope = Scope::parse("@agent a\n@compat qmcp\n@tag:ai-managed\n").unwrap();
        let policy = crate::render_policy(&scope, &[], SystemTime::UNIX_EPOCH);
        assert!(all.iter().all(|line| policy.lines().any(|other| other == line)), "{policy}");
        let both = lines("@agent a\n@compat qmcp\nwork\n@tag:ai-managed\n", Tier::Full);
        let closed = format!("{COPY} * @tag:ai-managed work deny notify=no");
        let opened = format!("{COPY} * @tag:ai-full @tag:ai-full allow");
        let place = |line: &String| both.iter().position(|other| other == line).unwrap();
        assert!(place(&closed) < place(&opened), "{both:?}");
    }
}
