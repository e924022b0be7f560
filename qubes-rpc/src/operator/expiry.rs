//! The timer that fires when grants end, so that policy and tunnels end with them.
//!
//! It decides nothing: the daemon looks at the end of a grant in every call by itself.

use std::{collections::BTreeSet, fs, io, path::Path, time::SystemTime};

use policy::{Block, Scope};

use super::{Place, systemd};
use crate::{
    error::chain,
    journal,
    replace::{make_folder_of, remove_file, replace_file, sync_folder},
};

/// The timer's name.
pub(crate) const TIMER: &str = "salt-bridge-expire.timer";
/// The timer itself, written along with the scope wherever the other units come from.
pub(crate) const TIMER_FILE: &str = "/etc/systemd/system/salt-bridge-expire.timer";
/// What starts it at boot.
pub(crate) const TIMER_LINK: &str =
    "/etc/systemd/system/timers.target.wants/salt-bridge-expire.timer";

const HEADER: &str = "\
# Made by Salt Bridge from the ends of grants in the operator's file; changes made here are lost.
[Unit]
Description=Salt Bridge: the ends of grants
Documentation=man:saltbridged(1)

[Timer]
";
/// The last year of which systemd can tell when it comes (`systemd-analyze calendar`).
const LAST_YEAR: &str = "2199";
const FOOTER: &str = "\
AccuracySec=1s

[Install]
WantedBy=timers.target
";

/// The timer that this scope needs from now on; none when no grant ends any more.
pub(crate) fn render_timer(scope: &Scope, now: SystemTime) -> Option<String> {
    let ends: BTreeSet<_> = (scope.blocks().iter())
        .flat_map(Block::grants)
        .filter_map(|grant| grant.until)
        .filter(|until| !until.has_passed(now))
        .map(|until| until.to_string())
        // Both are written with four digits, so that they compare as text.
        .filter(|end| end.get(..4) <= Some(LAST_YEAR))
        .collect();
    if ends.is_empty() {
        return None;
    }
    // As systemd.time(7) writes what `until=` writes as 2026-12-01T18:00:00Z.
    let line =
        |end: &String| format!("OnCalendar={}\n", end.replace('T', " ").replace('Z', " UTC"));
    let lines: String = ends.iter().map(line).collect();
    Some(format!("{HEADER}{lines}{FOOTER}"))
}

/// Lets the timer follow the scope; whether anything had to change.
pub(crate) fn follow(place: &Place, scope: &Scope, now: SystemTime) -> io::Result<bool> {
    let at = |path: &str| place.paths.root().join(path.trim_start_matches('/'));
    let (file, link) = (at(TIMER_FILE), at(TIMER_LINK));
    let before = fs::read_to_string(&file).ok();
    let wanted = render_timer(scope, now);
    let links = fs::read_link(&link).is_ok_and(|aim| aim == Path::new(TIMER_FILE));
    if before == wanted && links == wanted.is_some() {
        return Ok(false);
    }
    match &wanted {
        Some(text) => {
            make_folder_of(&link)?;
            replace_file(&file, text.as_bytes(), 0o644)?;
            if !links {
                remove_file(&link)?;
                std::os::unix::fs::symlink(TIMER_FILE, &link)?;
                link.parent().map_or(Ok(()), sync_folder)?;
            }
        }
        None => {
            remove_file(&link)?;
            remove_file(&file)?;
        }
    }
    if systemd::is_meant(place.paths.root()) {
        tell_systemd(wanted.is_some());
    }
    Ok(true)
}

/// Starts the timer anew, or stops it. The service that the timer starts may be asking, so nothing
/// is waited for.
fn tell_systemd(is_there: bool) {
    let verb = if is_there { "restart" } else { "stop" };
    let done = systemd::run(systemd::SYSTEMCTL, &["daemon-reload"])
        .and_then(|()| systemd::run(systemd::SYSTEMCTL, &["--no-block", verb, TIMER]));
    if let Err(error) = done {
        journal::say(&format!("{TIMER} does not follow the scope: {}", chain(&error)));
    }
}

#[cfg(test)]
mod tests {
    use policy::Until;

    use super::*;

    const SCOPE: &str = "\
@agent salt-bridge
work until=2026-12-01T18:00:00Z
dev see until=2026-12-01T19:00:00+01:00
old see until=2026-11-01T00:00:00Z
@tag:ai-managed see until=2027-01-01T00:00:00Z
@agent helper
test see
far see until=2200-01-01T00:00:00Z
";

    fn at(time: &str) -> SystemTime {
        Until::parse(time).unwrap().time()
    }

    #[test]
    fn every_end_to_come_is_a_line_of_the_timer_and_each_only_once() {
        let scope = Scope::parse(SCOPE).unwrap();
        let text = render_timer(&scope, at("2026-11-22T00:00:00Z")).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("OnCalendar")).collect();
        assert_eq!(
            lines,
            ["OnCalendar=2026-12-01 18:00:00 UTC", "OnCalendar=2027-01-01 00:00:00 UTC"]
        );
        assert_eq!(render_timer(&scope, at("2027-01-01T00:00:00Z")), None);
    }
}
