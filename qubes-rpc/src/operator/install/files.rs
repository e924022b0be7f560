//! The files of an installation, as they should be.

use std::{collections::BTreeSet, time::SystemTime};

use contract::Power;
use policy::{Block, QMCP_SERVICES, Scope, Target, TcpRules};

use super::{
    disk::{Disk, DiskError},
    plan::{Program, SERVICES, TCP_POLICY},
    state::{Goal, State},
    units::{PROGRAM, SERVICE_SOCKET, UPDATER, unit_files},
    updater::render_updater,
};
use crate::{operator::expiry, services};

/// What the original program has beside its services.
const OLDER_LIBRARY: &str = "saltbridge.lib.sh";

/// Program, units and what enables them.
pub(super) fn machinery(program: &Program) -> Vec<(String, Goal)> {
    let mut files = Vec::new();
    let is_packaged = match program {
        Program::Packaged => true,
        Program::Copy(bytes) => {
            let updater = Goal::program(render_updater(bytes).into_bytes());
            files.push((PROGRAM.into(), Goal::program(bytes.clone())));
            files.push((UPDATER.into(), updater));
            false
        }
    };
    files.extend(unit_files(is_packaged));
    files
}

/// The services' links, in the place of what another version or the original program has there.
pub(super) fn service_files(
    disk: &Disk<'_>,
    scope: &Scope,
) -> Result<Vec<(String, Goal)>, DiskError> {
    let mut names: BTreeSet<String> = services::names().collect();
    if scope.blocks().iter().any(Block::speaks_qmcp) {
        names.extend(QMCP_SERVICES.map(str::to_owned));
    }
    let mut files = Vec::new();
    for name in disk.names(SERVICES)? {
        let path = format!("{SERVICES}/{name}");
        let is_former = name == OLDER_LIBRARY
            || (name.starts_with(contract::SERVICE_PREFIX)
                || QMCP_SERVICES.contains(&name.as_str()))
                && !names.contains(&name)
                && matches!(disk.state(&path)?, State::Link { target } if target == SERVICE_SOCKET);
        if is_former {
            files.push((path, Goal::Absent));
        }
    }
    let link = |name| (format!("{SERVICES}/{name}"), Goal::Link { target: SERVICE_SOCKET.into() });
    files.extend(names.into_iter().map(link));
    Ok(files)
}

/// The timer of the grants that end, and what starts it at boot.
pub(super) fn timer_files(scope: &Scope, now: SystemTime) -> [(String, Goal); 2] {
    let (file, link) = match expiry::render_timer(scope, now) {
        Some(text) => (Goal::text(text), Goal::Link { target: expiry::TIMER_FILE.into() }),
        None => (Goal::Absent, Goal::Absent),
    };
    [(expiry::TIMER_FILE.into(), file), (expiry::TIMER_LINK.into(), link)]
}

/// The `qubes.ConnectTCP` rules without those of qubes that are granted no longer.
pub(super) fn tcp_file(
    disk: &Disk<'_>,
    scope: &Scope,
    now: SystemTime,
    notes: &mut Vec<String>,
) -> Result<Option<(String, Goal)>, DiskError> {
    let Some(text) = disk.text(TCP_POLICY)? else { return Ok(None) };
    let mut rules = match TcpRules::parse(&text) {
        Ok(rules) => rules,
        Err(error) => {
            notes.push(format!("{TCP_POLICY} stays as it is: {error}"));
            return Ok(None);
        }
    };
    let may = |block: &Block, name: &admin_api::QubeName| match block.listed(name) {
        Some(grant) => !grant.has_ended(now) && grant.powers.holds(Power::Net),
        // Whether it carries the tag is asked by the helper at its next change.
        None => block.grants().iter().any(|grant| {
            matches!(grant.target, Target::Tag(_))
                && !grant.has_ended(now)
                && grant.powers.holds(Power::Net)
        }),
    };
    let lost = rules.retain(|rule| {
        scope.blocks().iter().any(|block| may(block, &rule.source) && may(block, &rule.target))
    });
    let text = if lost { rules.render() } else { text };
    Ok(Some((TCP_POLICY.into(), Goal::text(text))))
}
