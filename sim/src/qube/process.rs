//! The processes that descend from another.

use std::{collections::HashMap, fs};

use rustix::process::{Pid, Signal, kill_process};

/// Every process that descends from this one, without itself, as far as `/proc` shows. Processes
/// that have ended and wait to be reaped do not count.
pub(crate) fn descendants(ancestor: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((state, parent)) = parse_stat(&stat)
            && state != "Z"
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&ancestor).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// The state and the parent, from `/proc/PID/stat`. The name before them may hold anything.
fn parse_stat(stat: &str) -> Option<(&str, i32)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// Sends a signal to each process. One that is gone needs none.
pub(super) fn signal(pids: &[i32], signal: Signal) {
    for pid in pids.iter().copied().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_behind_the_last_bracket() {
        assert_eq!(parse_stat("12 (a) b) S 7 12 12 0"), Some(("S", 7)));
        assert_eq!(parse_stat("nonsense"), None);
    }
}
