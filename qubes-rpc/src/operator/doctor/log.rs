//! The audit log and the clock, by which grants end.

use std::{
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use policy::Scope;

use super::report::Report;
use crate::{
    audit::{self, VerifyError},
    error::chain,
    paths::Paths,
};

/// 2026-01-01T00:00:00Z: no machine that runs this program is older.
const OLDEST: Duration = Duration::from_secs(1_767_225_600);
/// How far the clock may have been set back without a word.
const TOLERANCE: Duration = Duration::from_secs(120);

/// Reads the whole log.
pub(super) fn inspect(paths: &Paths, report: &mut Report) {
    const AREA: &str = "audit log";
    match audit::verify(&audit::places(paths)) {
        Ok(whole) if whole.lines == 0 => report.good(AREA, "no call has been logged yet"),
        Ok(whole) => report.good(
            AREA,
            format!("lines {} to {} are whole; the head is {}", whole.first, whole.last, whole.hash),
        ),
        Err(error @ VerifyError::Read(..)) => {
            report.wrong(AREA, chain(&error), "run this as root");
        }
        Err(error @ VerifyError::Broken(_)) => report.wrong(
            AREA,
            error.to_string(),
            "somebody changed it, or the disk failed; compare with the heads in: journalctl -u salt-bridge",
        ),
    }
}

/// A clock that is wrong lets grants last longer, or ends them early.
pub(super) fn inspect_clock(
    paths: &Paths,
    scope: Option<&Scope>,
    now: SystemTime,
    report: &mut Report,
) {
    const AREA: &str = "clock";
    const MEND: &str = "set the clock; grants with until= go by it";
    if now.duration_since(UNIX_EPOCH).unwrap_or_default() < OLDEST {
        return report.wrong(AREA, "it is before 2026", MEND);
    }
    let written = [paths.scope(), paths.services_policy(), audit::places(paths).head]
        .into_iter()
        .filter_map(|path| Some((fs::symlink_metadata(&path).ok()?.modified().ok()?, path)))
        .max();
    match written {
        Some((time, path)) if time > now + TOLERANCE => {
            let what = format!("{} is from the future, so the clock was set back", path.display());
            return report.wrong(AREA, what, MEND);
        }
        Some(_) | None => report.good(AREA, "it is behind no file of Salt Bridge"),
    }
    let grants = || scope.into_iter().flat_map(Scope::blocks).flat_map(policy::Block::grants);
    let ended = grants().filter(|grant| grant.has_ended(now)).count();
    if ended > 0 {
        report.note(AREA, format!("{ended} grants in the operator's file have ended"), "");
    }
}

#[cfg(test)]
mod tests {
    use super::{super::report::Health, *};

    fn wrong(paths: &Paths, now: SystemTime) -> usize {
        let mut report = Report::default();
        inspect_clock(paths, None, now, &mut report);
        report.count(Health::Wrong)
    }

    #[test]
    fn a_clock_that_was_set_back_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::below(folder.path());
        let now = SystemTime::now();
        assert_eq!(wrong(&paths, now), 0);
        assert_eq!(wrong(&paths, UNIX_EPOCH), 1);
        fs::create_dir_all(paths.scope().parent().unwrap()).unwrap();
        fs::write(paths.scope(), "").unwrap();
        assert_eq!(wrong(&paths, now), 0);
        assert_eq!(wrong(&paths, now - Duration::from_secs(3600)), 1);
    }
}
