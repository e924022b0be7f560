//! What the operator should know before saying yes.

use policy::{Block, QMCP_DIRECT, Target};

use super::{
    block_text::older_targets,
    disk::{Disk, DiskError},
    plan::{SERVICES, Wanted},
    record::Receipt,
    state::State,
};

/// What is there that this installation takes over or leaves behind.
pub(super) fn notes(
    disk: &Disk<'_>,
    former: Option<&Receipt>,
    old_scope: &str,
    wanted: &Wanted<'_>,
) -> Result<Vec<String>, DiskError> {
    let mut notes = Vec::new();
    let older: Vec<String> = disk
        .names(SERVICES)?
        .into_iter()
        .filter(|name| name.starts_with(contract::SERVICE_PREFIX))
        .filter(|name| {
            let path = format!("{SERVICES}/{name}");
            matches!(disk.state(&path), Ok(State::File { .. }))
        })
        .collect();
    if former.is_none() && !older.is_empty() {
        notes.push(format!(
            "the original Salt Bridge is installed here; its {} files and its policy are kept in \
             the receipt, and `saltbridged uninstall` puts them back",
            older.len()
        ));
    }
    if let Some(listed) = older_targets(old_scope) {
        notes.push(format!("its list has these qubes: {}", listed.join(" ")));
        let is_asked = |name: &str| {
            wanted.block.grants().iter().any(
                |grant| matches!(&grant.target, Target::Qube(target) if target.as_str() == name),
            )
        };
        let dropped: Vec<&str> = listed.into_iter().filter(|name| !is_asked(name)).collect();
        if !dropped.is_empty() {
            notes.push(format!("no longer to be reached: {}", dropped.join(" ")));
        }
    }
    if wanted.paused {
        notes.push("paused: everything stays denied until `saltbridged resume`".into());
    }
    Ok(notes)
}

/// What the adapters for qubes-mcp's client open besides.
pub(super) fn compat(block: &Block) -> Option<String> {
    let direct = QMCP_DIRECT.map(|(service, _)| service).join(", ");
    block.speaks_qmcp().then(|| {
        format!(
            "--compat qmcp lets {} call {direct} in tagged qubes, and tagged qubes call \
             qubes.Filecopy among each other, past dom0's daemon: no such call is in the audit \
             log, and none is stopped when a grant ends",
            block.agent()
        )
    })
}
