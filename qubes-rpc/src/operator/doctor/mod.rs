//! `saltbridged doctor`: looks at everything that Salt Bridge stands on, and says how to mend what
//! is wrong. It changes nothing.

mod calls;
mod files;
mod log;
mod policies;
mod qubes;
mod report;
mod running;
mod units;
mod users;

use std::{process::ExitCode, time::SystemTime};

use policy::{Scope, Target};

use self::report::{Health, Report};
use super::{OperatorError, Place, shown};
use crate::{
    error::chain,
    scope_file::{ScopeFileError, read_granted},
};

/// Look at everything that Salt Bridge stands on, and say how to mend what is wrong.
///
/// Looks at every file, owner, mode, link, unit and socket, at users and groups, at the operator's
/// file, the audit log and the clock, asks qubesd about the qubes, and decides every granted call
/// and many that are not granted with all of qrexec's policy that is installed. Changes nothing.
/// Ends with 1 when anything is wrong. To be run as root.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Looks at everything.
pub(crate) fn doctor(asked: &Doctor, place: &Place) -> Result<ExitCode, OperatorError> {
    let report = inspect(place);
    if asked.json {
        shown::show_json(&report.json())?;
    } else {
        shown::show_text(&report.text())?;
    }
    let is_well = report.count(Health::Wrong) == 0;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inspect(place: &Place) -> Report {
    let Place { paths, trusted, .. } = place;
    let mut report = Report::default();
    let owners = users::inspect(paths, *trusted, &mut report);
    let scope = inspect_scope(place, &mut report);
    let speaks_qmcp = scope.iter().flat_map(Scope::blocks).any(policy::Block::speaks_qmcp);
    files::inspect(paths, owners, speaks_qmcp, &mut report);
    units::inspect(paths, owners, &mut report);
    running::inspect(paths, scope.as_ref(), SystemTime::now(), &mut report);
    let system = qubes::inspect(paths, scope.as_ref(), &mut report);
    let policy = policies::inspect(paths, scope.as_ref(), system.as_ref(), &mut report);
    if let (Some(scope), Some(system), Some(policy), true) =
        (&scope, &system, &policy, policies::is_in_force(paths))
    {
        calls::inspect(policy, scope, system, paths, &mut report);
    }
    log::inspect(paths, &mut report);
    log::inspect_clock(paths, scope.as_ref(), SystemTime::now(), &mut report);
    report
}

/// Reads the operator's file as the daemon does at every call.
fn inspect_scope(place: &Place, report: &mut Report) -> Option<Scope> {
    const AREA: &str = "operator's file";
    let path = place.paths.scope();
    let shown = path.display();
    match read_granted(&place.paths, place.trusted) {
        Ok(scope) => {
            let grants = || scope.blocks().iter().flat_map(policy::Block::grants);
            let is_tag = |target: &Target| matches!(target, Target::Tag(_));
            let tags = grants().filter(|grant| is_tag(&grant.target)).count();
            let (agents, qubes) = (scope.blocks().len(), grants().count() - tags);
            report
                .good(AREA, format!("grants of {qubes} qubes and {tags} tags to {agents} agents"));
            Some(scope)
        }
        Err(error) => {
            let mend = match &error {
                ScopeFileError::Open(_) => {
                    "run as root: saltbridged install AGENT QUBE[:POWERS] ...".into()
                }
                ScopeFileError::Owner { trusted, .. } => format!("run: chown {trusted} {shown}"),
                ScopeFileError::Mode { mode } => {
                    format!("run: chmod {:04o} {shown}", mode & !0o022)
                }
                ScopeFileError::Settings(_) => {
                    let settings = place.paths.settings();
                    format!("mend {}; until then every call is refused", settings.display())
                }
                ScopeFileError::Read(_)
                | ScopeFileError::NotAFile
                | ScopeFileError::TooLarge
                | ScopeFileError::Encoding
                | ScopeFileError::Scope(_) => {
                    format!("mend {shown}; until then every call is refused")
                }
            };
            report.wrong(AREA, format!("{shown} grants nothing: {}", chain(&error)), mend);
            None
        }
    }
}
