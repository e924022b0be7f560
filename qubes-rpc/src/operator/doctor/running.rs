//! What systemd does: the timer of grants that end, and whether it listens where units say.

use std::{fs, io, path::Path, time::SystemTime};

use policy::Scope;

use super::report::Report;
use crate::{
    operator::{
        expiry::{TIMER, TIMER_FILE, TIMER_LINK, render_timer},
        systemd::{self, SYSTEMCTL},
    },
    paths::Paths,
};

const AREA: &str = "systemd";
const SOCKETS: [&str; 2] = ["salt-bridge.socket", "salt-bridge-tcp-policy.socket"];
const FAILING: [&str; 4] = [
    "salt-bridge.service",
    "salt-bridge-tcp-policy.service",
    "salt-bridge-recover.service",
    "salt-bridge-expire.service",
];
const REFRESH: &str = "run: saltbridged scope refresh";

/// Looks at the timer, and where systemd runs what is installed here, at what it does.
pub(super) fn inspect(paths: &Paths, scope: Option<&Scope>, now: SystemTime, report: &mut Report) {
    let Some(scope) = scope else { return };
    let wanted = render_timer(scope, now);
    inspect_timer(paths.root(), wanted.as_deref(), report);
    if !systemd::is_meant(paths.root()) {
        return;
    }
    let units: Vec<&str> = SOCKETS.into_iter().chain([TIMER]).chain(FAILING).collect();
    match systemd::output(SYSTEMCTL, &[&["is-active"], units.as_slice()].concat()) {
        Ok(states) => {
            let states = String::from_utf8_lossy(&states);
            inspect_states(&states, wanted.is_some(), report);
        }
        Err(error) => {
            report.wrong(AREA, format!("systemd cannot be asked: {error}"), "run this in dom0");
        }
    }
}

/// Whether the timer says what the scope says.
fn inspect_timer(root: &Path, wanted: Option<&str>, report: &mut Report) {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let there = match fs::read_to_string(at(TIMER_FILE)) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            return report.wrong(AREA, format!("cannot read {TIMER_FILE}: {error}"), REFRESH);
        }
    };
    let is_linked = fs::read_link(at(TIMER_LINK)).is_ok_and(|aim| aim == Path::new(TIMER_FILE));
    match (there.as_deref(), wanted) {
        (there, wanted) if there != wanted => report.wrong(
            AREA,
            format!("{TIMER_FILE} is not what the ends of grants in the operator's file mean"),
            REFRESH,
        ),
        (_, Some(_)) if !is_linked => {
            report.wrong(AREA, format!("{TIMER} does not start at boot"), REFRESH);
        }
        (_, Some(text)) => {
            let ends = text.lines().filter(|line| line.starts_with("OnCalendar=")).count();
            report.good(AREA, format!("a timer fires at {ends} ends of grants"));
        }
        (_, None) => report.good(AREA, "no grant ends, and there is no timer"),
    }
}

/// What `systemctl is-active` says of all units, a line each.
fn inspect_states(states: &str, has_timer: bool, report: &mut Report) {
    let mut states = states.lines();
    let mut well = true;
    for unit in SOCKETS.into_iter().chain(has_timer.then_some(TIMER)) {
        let state = states.next().unwrap_or("unknown");
        if state != "active" {
            well = false;
            report.wrong(
                AREA,
                format!("{unit} is {state}"),
                format!("run: systemctl restart {unit}"),
            );
        }
    }
    if !has_timer {
        states.next();
    }
    for unit in FAILING {
        if states.next() == Some("failed") {
            well = false;
            let mend = format!("see: journalctl -u {unit}; then: systemctl reset-failed {unit}");
            report.wrong(AREA, format!("{unit} has failed"), mend);
        }
    }
    if well {
        report.good(AREA, "systemd listens for calls, and none of the units has failed");
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Health, *};

    fn wrong(states: &str, has_timer: bool) -> Vec<String> {
        let mut report = Report::default();
        inspect_states(states, has_timer, &mut report);
        let wrong = report.findings().iter().filter(|finding| finding.health == Health::Wrong);
        wrong.map(|finding| finding.what.clone()).collect()
    }

    #[test]
    fn units_that_do_not_listen_or_have_failed_are_told() {
        let well = "active\nactive\nactive\ninactive\nactive\ninactive\ninactive\n";
        assert_eq!(wrong(well, true), Vec::<String>::new());
        assert_eq!(
            wrong(&well.replacen("active", "failed", 1), true),
            ["salt-bridge.socket is failed"]
        );
        let none = "active\nactive\ninactive\ninactive\ninactive\ninactive\nfailed\n";
        assert_eq!(wrong(none, false), ["salt-bridge-expire.service has failed"]);
        assert_eq!(wrong(none, true)[0], "salt-bridge-expire.timer is inactive");
        assert_eq!(wrong("", false).len(), 2);
    }
}
