//! Installing, and undoing it: plan, show, apply, receipt, revert.
//!
//! Nothing is changed before everything that was asked for has been held against the grammar and
//! against qubesd.

mod apply;
mod block_text;
mod created;
mod disk;
mod files;
mod gate;
mod machine;
mod notes;
mod plan;
mod record;
mod request;
mod state;
mod system;
#[cfg(test)]
mod tests;
mod undo;
mod units;
mod updater;
mod view;

use std::{
    fs::{self, File},
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use admin_api::{Client, QubeName};
use clap::Args;
use policy::Grant;
use rustix::fs::{FlockOperation, flock};

pub(crate) use self::created::{SANDBOX, is_sandboxed};
use self::{
    apply::{ApplyError, Recovered},
    disk::Disk,
    gate::Open,
    machine::{Dom0, MachineError},
    plan::{Plan, PlanError, Program, Wanted},
    record::RecordError,
    request::RequestError,
    system::Waiting,
    view::{Outcome, render_plan},
};
use super::{
    OperatorError, Place, pause,
    scope::Lock,
    shown::{show_json, show_text},
};
use crate::{error::chain, paths::Paths};

/// Install Salt Bridge, and set what an agent may do to which qubes.
///
/// Replaces what the agent could do before; other agents keep theirs. Powers are see, lifecycle,
/// exec, root, files, net and shape, separated by commas, each with `:ask` behind it if qrexec is
/// to ask every time; without powers a target gets all but shape.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The qube in which the agent runs.
    #[arg(value_name = "AGENT", value_parser = QubeName::parse)]
    agent: QubeName,
    /// The qubes that it may manage.
    #[arg(value_name = "TARGET[:POWERS]", value_parser = request::parse_target,
        required_unless_present = "tag")]
    targets: Vec<Grant>,
    /// Every qube with this tag as well.
    #[arg(long, value_name = "TAG[:POWERS]", value_parser = request::parse_tag)]
    tag: Vec<Grant>,
    /// Also answer the calls of another program's client: qmcp is that of qubes-mcp.
    #[arg(long, value_name = "NAME")]
    compat: Option<Compat>,
    /// Print every file and what changes in it, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask before changing anything.
    #[arg(long)]
    yes: bool,
    /// Let an older version replace a newer one.
    #[arg(long)]
    force: bool,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Another program whose client is answered as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compat {
    /// qubes-mcp.
    Qmcp,
}

/// Undo the installation: put back what was there before. Only the audit log stays.
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Do not ask before changing anything.
    #[arg(long)]
    yes: bool,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Finish or revert an installation that was interrupted.
#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// Do not wait for systemd, which is starting this itself.
    #[arg(long, hide = true)]
    boot: bool,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Why an installation did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// What was asked for cannot be had.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A record could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A step failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The program could not read itself.
    #[error("cannot read this program")]
    Program(#[source] io::Error),
    /// Another change is under way.
    #[error("another command is changing this installation; try again when it is done")]
    Busy(#[source] io::Error),
    /// Only root may.
    #[error("run it as root: sudo saltbridged …")]
    NotRoot,
    /// The operator said no.
    #[error("nothing was changed, as you said")]
    Declined,
    /// Reading the operator's answer failed.
    #[error("cannot read your answer; give --yes")]
    Answer(#[source] io::Error),
}

/// Installs.
pub(crate) fn install(asked: &Install, place: &Place) -> Result<ExitCode, OperatorError> {
    let grants: Vec<Grant> = asked.targets.iter().chain(&asked.tag).cloned().collect();
    let block = match request::block(&asked.agent, &grants) {
        Ok(block) => match asked.compat {
            Some(Compat::Qmcp) => block.speaking_qmcp(),
            None => block,
        },
        Err(error) => {
            let line = format!("error: {}\n", chain(&error));
            drop(io::stderr().lock().write_all(line.as_bytes()));
            return Ok(ExitCode::from(2));
        }
    };
    let dom0 = machine(&place.paths);
    let disk = Disk::new(place.paths.root(), place.trusted, &Open, &dom0);
    let _lock = begin(place)?;
    let mut notes = request::existing(&block, &place.paths).map_err(InstallError::from)?;
    notes.extend(notes::compat(&block));
    let program = program(place.paths.root()).map_err(InstallError::Program)?;
    if let Some(note) = settle_former(&disk, asked.dry_run)? {
        notes.push(note);
    }
    let wanted = Wanted {
        block: &block,
        program: &program,
        force: asked.force,
        paused: crate::pause::is_paused(&place.paths),
        now: SystemTime::now(),
    };
    let mut plan = plan::plan(&disk, &wanted).map_err(InstallError::from)?;
    plan.notes.splice(0..0, notes);
    if asked.dry_run {
        return show_outcome(asked.json, &plan, true);
    }
    if !plan.is_empty() {
        if !asked.json {
            show_text(&render_plan(&plan, false))?;
        }
        agree(asked.yes || asked.json)?;
        apply::apply(&disk, &plan, Waiting::Done).map_err(InstallError::from)?;
    }
    show_outcome(asked.json, &plan, false)
}

fn show_outcome(json: bool, plan: &Plan, dry_run: bool) -> Result<ExitCode, OperatorError> {
    if json {
        show_json(&Outcome::of(plan, dry_run))?;
    } else if plan.is_empty() {
        show_text(&(render_plan(plan, true) + "Nothing to change: all of it is so already.\n"))?;
    } else if dry_run {
        show_text(&(render_plan(plan, true) + "Nothing was changed.\n"))?;
    } else {
        show_text("Done. `saltbridged uninstall` undoes it; the services answer from now on.\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings to an end what an earlier command began. Tells what became of it.
fn settle_former(disk: &Disk<'_>, dry_run: bool) -> Result<Option<String>, InstallError> {
    if dry_run {
        let pending = record::read_journal(disk)?.is_some();
        return Ok(pending.then(|| "an interrupted installation is settled first".into()));
    }
    Ok(match apply::recover(disk, Waiting::Done)? {
        Recovered::Nothing => None,
        Recovered::Finished => Some("an interrupted installation was finished first".into()),
        Recovered::Reverted => Some("an interrupted installation was reverted first".into()),
        Recovered::Uninstalled => Some("an interrupted undoing was finished first".into()),
    })
}

/// Undoes an installation.
pub(crate) fn uninstall(asked: &Uninstall, place: &Place) -> Result<ExitCode, OperatorError> {
    let dom0 = machine(&place.paths);
    let disk = Disk::new(place.paths.root(), place.trusted, &Open, &dom0);
    let _lock = begin(place)?;
    apply::recover(&disk, Waiting::Done).map_err(InstallError::from)?;
    let receipt = record::read_receipt(&disk).map_err(InstallError::from)?;
    let done = |removed: bool, sentence: &str| {
        if asked.json {
            show_json(&serde_json::json!({ "changed": removed }))?;
        } else {
            show_text(sentence)?;
        }
        Ok(ExitCode::SUCCESS)
    };
    let Some(receipt) = receipt else { return done(false, "Nothing is installed.\n") };
    if !asked.json {
        show_text(&receipt.paths.iter().rev().map(render_undo).collect::<String>())?;
    }
    agree(asked.yes || asked.json)?;
    // The ledger goes too, so this is the last moment at which a job can be found.
    pause::stop_everything(place)?;
    undo::uninstall(&disk, &receipt, Waiting::Done).map_err(InstallError::from)?;
    done(true, "Done. What stays is the audit in /var/log/salt-bridge.\n")
}

fn render_undo(kept: &record::Kept) -> String {
    let verb = match kept.before {
        state::State::Absent => "remove",
        state::State::File { .. } | state::State::Link { .. } | state::State::Folder { .. } => {
            "put back"
        }
    };
    format!("* {verb} {}\n", kept.path)
}

/// Brings an interrupted installation to an end.
pub(crate) fn recover(asked: &Recover, place: &Place) -> Result<ExitCode, OperatorError> {
    let dom0 = machine(&place.paths);
    let disk = Disk::new(place.paths.root(), place.trusted, &Open, &dom0);
    let _lock = begin(place)?;
    let waiting = if asked.boot { Waiting::Queued } else { Waiting::Done };
    let (word, sentence) = match apply::recover(&disk, waiting).map_err(InstallError::from)? {
        Recovered::Nothing => ("nothing", "Nothing was interrupted.\n"),
        Recovered::Finished => ("finished", "The installation is finished.\n"),
        Recovered::Reverted => ("reverted", "The interrupted installation is reverted.\n"),
        Recovered::Uninstalled => ("uninstalled", "The undoing is finished.\n"),
    };
    if asked.json {
        show_json(&serde_json::json!({ "recovered": word }))?;
    } else {
        show_text(sentence)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps other installations and changes of the scope out while this one lasts.
fn begin(place: &Place) -> Result<(File, Option<Lock>), InstallError> {
    let root = place.paths.root();
    let euid = rustix::process::geteuid().as_raw();
    if root == Path::new("/") && euid != 0 {
        return Err(InstallError::NotRoot);
    }
    let lock = File::open(root).map_err(InstallError::Busy)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|error| InstallError::Busy(error.into()))?;
    // Before the first installation there is nothing that the other commands could change.
    let others = match Lock::take(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        taken => Some(taken.map_err(InstallError::Busy)?),
    };
    Ok((lock, others))
}

fn machine(paths: &Paths) -> Dom0 {
    Dom0::new(paths.root(), Client::new(paths.qubesd()))
}

/// Whether what this agent creates gets the tag of the sandbox.
pub(crate) fn gives_sandbox_tag(paths: &Paths, agent: &QubeName) -> Result<bool, MachineError> {
    use self::machine::Machine as _;
    Ok(created::has(machine(paths).created_tags(agent)?.as_deref()))
}

/// The program that runs now.
fn program(root: &Path) -> io::Result<Program> {
    let own: PathBuf = std::env::current_exe()?;
    if own == root.join(units::PACKAGED.trim_start_matches('/')) {
        return Ok(Program::Packaged);
    }
    fs::read("/proc/self/exe").map(Program::Copy)
}

/// Asks, when a person sits there. Who lets a program run this has decided already.
fn agree(is_agreed: bool) -> Result<(), InstallError> {
    let input = io::stdin();
    if is_agreed || !input.is_terminal() || !io::stdout().is_terminal() {
        return Ok(());
    }
    let mut line = String::new();
    let asked = io::stdout()
        .lock()
        .write_all(b"Go on? [y/N] ")
        .and_then(|()| io::stdout().flush())
        .and_then(|()| input.lock().read_line(&mut line));
    asked.map_err(InstallError::Answer)?;
    if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(InstallError::Declined)
    }
}
