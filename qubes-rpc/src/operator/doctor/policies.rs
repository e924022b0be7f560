//! qrexec's policy: whether it is what the operator's file means, and whether qrexec, with all the
//! files that are installed, decides so.

use std::{fs, io, path::Path, time::SystemTime};

use admin_api::{QubeName, Uuid};
use policy::{
    Class, Live, Scope, TcpRule, TcpRules,
    evaluate::{Policy, PolicyFiles, System},
};

use super::report::Report;
use crate::{operator_policy::read_policy, paths::Paths, pause::is_paused, services};

const AREA: &str = "policy";

/// What of the policy there is to decide with.
pub(super) fn inspect(
    paths: &Paths,
    scope: Option<&Scope>,
    system: Option<&System>,
    report: &mut Report,
) -> Option<Policy> {
    inspect_text(paths, scope, report);
    inspect_rules(paths, scope, system, report);
    let files = match read_policy(paths, &[]) {
        Ok(files) => files,
        Err(error) => {
            report.wrong(AREA, format!("cannot read qrexec's policy: {error}"), "run this as root");
            return None;
        }
    };
    inspect_older(paths, report);
    parse(&files, report)
}

/// Policy in the form of Qubes 4.0, which the stock file `35-compat.policy` still lets count.
fn inspect_older(paths: &Paths, report: &mut Report) {
    let folder = paths.services().join("policy");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        // Its folder `include` is always there.
        .filter(|entry| entry.path().is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    if !names.is_empty() {
        report.note(
            AREA,
            format!("{} still has policy in the form of Qubes 4.0: {}", folder.display(), names.join(", ")),
            "a line `!compat-4.0` lets it count, and it is counted here; see: qrexec-legacy-convert --help",
        );
    }
}

fn parse(files: &PolicyFiles, report: &mut Report) -> Option<Policy> {
    match Policy::parse(files) {
        Ok(policy) => Some(policy),
        Err(error) => {
            let mend = "until that line is mended qrexec refuses every call on this machine";
            report.wrong(AREA, format!("a policy file has a fault: {error}"), mend);
            None
        }
    }
}

/// The text of a file. One that is missing is told elsewhere.
fn read(path: &Path, report: &mut Report) -> Option<String> {
    match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let found = format!("cannot read {}: {error}", path.display());
            report.wrong(AREA, found, "run this as root");
            None
        }
    }
}

/// Whether our file is what would be written now.
fn inspect_text(paths: &Paths, scope: Option<&Scope>, report: &mut Report) {
    let path = paths.services_policy();
    let lines = services::lines();
    let Some(text) = read(&path, report) else { return };
    let shown = path.display();
    let is_meant =
        scope.is_some_and(|scope| policy::render_policy(scope, &lines, SystemTime::now()) == text);
    let denies_all = policy::render_deny_all(&lines) == text;
    match (is_paused(paths), denies_all) {
        (true, true) => {
            report.note(AREA, "paused: every call is refused", "to end it: saltbridged resume");
        }
        (true, false) => report.wrong(
            AREA,
            format!("paused, so that the daemon refuses every call, but {shown} still admits some"),
            "run: saltbridged pause",
        ),
        (false, true) if paths.install_journal().exists() => report.wrong(
            AREA,
            "an installation was interrupted, and every call is refused until it is finished",
            "run: saltbridged recover",
        ),
        (false, _) if is_meant => {
            report.good(AREA, format!("{shown} is what the operator's file means"));
        }
        (false, _) if scope.is_none() => report.note(
            AREA,
            "the operator's file is void, so that every call is refused, whatever policy says",
            "",
        ),
        (false, _) => report.wrong(
            AREA,
            format!("{shown} is not what the operator's file means now"),
            format!(
                "see with `saltbridged policy | diff {shown} -`; run: saltbridged scope refresh"
            ),
        ),
    }
}

/// Whether the `qubes.ConnectTCP` rules are still granted, by the operator's file and, where it
/// answers, by what qubesd says of their qubes.
fn inspect_rules(
    paths: &Paths,
    scope: Option<&Scope>,
    system: Option<&System>,
    report: &mut Report,
) {
    let path = paths.tcp_policy();
    let Some(text) = read(&path, report) else { return };
    let rules = match TcpRules::parse(&text) {
        Ok(rules) => rules,
        Err(error) => {
            let mend = "until then no ConnectTCP rule can be added or removed";
            return report.wrong(AREA, format!("{}: {error}", path.display()), mend);
        }
    };
    let granted = |rule: &&TcpRule| scope.is_some_and(|scope| is_granted(scope, system, rule));
    for rule in rules.rules().iter().filter(|rule| !granted(rule)) {
        report.wrong(
            AREA,
            format!("a rule is still there that no grant covers: {rule}"),
            "run: saltbridged scope refresh",
        );
    }
}

/// Whether any agent holds `net` over both ends of a rule.
fn is_granted(scope: &Scope, system: Option<&System>, rule: &TcpRule) -> bool {
    let now = SystemTime::now();
    scope.agents().filter_map(|agent| scope.caller(agent).ok()).any(|caller| {
        let claims = caller.pair(&rule.source, &rule.target, contract::Power::Net, now);
        let Ok((source, target)) = claims else { return false };
        let Some(system) = system else { return true };
        [source, target].into_iter().all(|claim| {
            let live = live(system, claim.target());
            live.is_some_and(|live| claim.manage(live).is_ok())
        })
    })
}

/// What qubesd says of a qube, as admission looks at it.
fn live(system: &System, name: &QubeName) -> Option<Live> {
    let (_, qube) = system.get(name.as_str())?;
    let tags = qube.tags.iter().filter_map(|tag| tag.parse().ok()).collect();
    let uuid = Uuid::parse(&qube.uuid).ok()?;
    Some(Live { name: name.clone(), uuid, class: Class::of(&qube.class), tags })
}

/// Whether our file admits calls, so that these can be tried.
pub(super) fn is_in_force(paths: &Paths) -> bool {
    let text = fs::read_to_string(paths.services_policy());
    text.is_ok_and(|text| text != policy::render_deny_all(&services::lines()))
}
