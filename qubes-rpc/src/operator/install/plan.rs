//! What an installation would change, worked out before anything is changed.

use std::{collections::BTreeSet, time::SystemTime};

use policy::{Block, Scope};

use super::{
    block_text::{BlockError, with_block},
    created::{self, CreatedTags},
    disk::{Disk, DiskError},
    files::{machinery, service_files, tcp_file, timer_files},
    machine::MachineError,
    notes::notes,
    record::{FOLDER, Kept, RECEIPT, Receipt, RecordError, read_receipt, receipt_file},
    state::{Goal, State},
    system::{SystemAction, user_exists},
    units::USERS,
};
use crate::{operator::expiry, paths::Paths, services, settings::read_settings};

/// The operator's file.
pub(crate) const SCOPE: &str = "/etc/qubes/salt-bridge-allowed-vms";
/// The policy file that admits the agents' calls.
pub(crate) const POLICY: &str = "/etc/qubes/policy.d/30-salt-bridge.policy";
/// The policy file with the `qubes.ConnectTCP` rules.
pub(crate) const TCP_POLICY: &str = "/etc/qubes/policy.d/30-salt-bridge-tcp.policy";
/// The folder of qrexec services.
pub(super) const SERVICES: &str = "/etc/qubes-rpc";

/// One action of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A path changes.
    Path {
        /// Where, in dom0.
        path: String,
        /// What is there.
        before: State,
        /// What is to be there.
        goal: Goal,
    },
    /// The system is asked.
    System(SystemAction),
    /// qubesd is told which tags an agent's creations get.
    Created(CreatedTags),
}

/// All actions of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Folders that are created first; they change nothing for anybody.
    pub(crate) folders: Vec<Step>,
    /// Everything else, in order, from denying everything to the real policy.
    pub(crate) steps: Vec<Step>,
    /// What the operator should know.
    pub(crate) notes: Vec<String>,
}

/// The program that is installed.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// A package's, which brings program and units itself.
    Packaged,
    /// These bytes.
    Copy(Vec<u8>),
}

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The agent and its grants.
    pub(crate) block: &'a Block,
    /// The program.
    pub(crate) program: &'a Program,
    /// Whether an older version may replace a newer one.
    pub(crate) force: bool,
    /// Whether everything is to stay denied.
    pub(crate) paused: bool,
    /// When.
    pub(crate) now: SystemTime,
}

/// Why there is no plan. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// A file could not be looked at.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The receipt could not be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The operator's file has a fault.
    #[error("{SCOPE}")]
    Block(#[from] BlockError),
    /// Somebody else may have written the operator's file.
    #[error("{SCOPE} can be written by others than its owner; look at it, then chown and chmod it")]
    Untrusted,
    /// A newer version is installed.
    #[error("version {installed} is installed, which is newer than {own}; give --force to go back")]
    Downgrade {
        /// What is installed.
        installed: String,
        /// What would be.
        own: &'static str,
    },
    /// The system's users could not be read.
    #[error("cannot read /etc/passwd")]
    Users(#[source] std::io::Error),
    /// qubesd did not tell what is to be changed.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl Step {
    /// What it does, for a person.
    pub(crate) fn describe(&self) -> String {
        let (path, before, goal) = match self {
            Self::System(action) => return action.describe().into(),
            Self::Created(change) => return change.describe(),
            Self::Path { path, before, goal } => (path, before, goal),
        };
        let verb = match (before, goal) {
            (_, Goal::Absent) => "remove",
            (State::Absent, _) => "create",
            (State::File { .. } | State::Link { .. } | State::Folder { .. }, _) => "replace",
        };
        match goal {
            Goal::Folder => format!("{verb} {path}/"),
            Goal::Link { target } => format!("{verb} {path} -> {target}"),
            Goal::Absent | Goal::File { .. } => format!("{verb} {path}"),
        }
    }
}

impl Plan {
    /// Whether all is as it should be already.
    pub(crate) const fn is_empty(&self) -> bool {
        self.folders.is_empty() && self.steps.is_empty()
    }
}

/// The places of an installation, and what was there before the first one.
struct Places<'d, 'a> {
    disk: &'d Disk<'a>,
    is_first: bool,
    kept: Vec<Kept>,
}

impl Places<'_, '_> {
    fn step(&mut self, path: &str, goal: Goal) -> Result<Option<Step>, DiskError> {
        let before = self.disk.state(path)?;
        let is_met = goal.is_met(&before, self.disk.trusted());
        let is_kept = self.kept.iter().any(|kept| kept.path == path);
        if !is_kept && (!is_met || goal != Goal::Absent) {
            // What is ours to the byte, without a receipt, is a lost receipt's.
            let is_ours = match path {
                SCOPE => false,
                TCP_POLICY => !self.is_first,
                _ => is_met,
            };
            let before = if is_ours { State::Absent } else { before.clone() };
            self.kept.push(Kept { path: path.into(), before });
        }
        Ok((!is_met).then(|| Step::Path { path: path.into(), before, goal }))
    }
}

/// Works out an installation.
pub(crate) fn plan(disk: &Disk<'_>, wanted: &Wanted<'_>) -> Result<Plan, PlanError> {
    let former = read_receipt(disk)?;
    refuse_downgrade(former.as_ref(), wanted.force)?;
    let old_scope = scope_text(disk)?;
    let new_scope = with_block(&old_scope, wanted.block)?;
    let scope = Scope::parse(&new_scope).map_err(BlockError::New)?;
    let mut notes = notes(disk, former.as_ref(), &old_scope, wanted)?;
    let (machinery, mut granting) = (machinery(wanted.program), service_files(disk, &scope)?);
    granting.extend(tcp_file(disk, &scope, wanted.now, &mut notes)?);
    granting.push((SCOPE.into(), Goal::text(new_scope)));
    granting.extend(timer_files(&scope, wanted.now));

    let kept = former.as_ref().map_or_else(Vec::new, |former| former.paths.clone());
    let mut places = Places { disk, is_first: former.is_none(), kept };
    let all = machinery.iter().chain(&granting).map(|(path, _)| path.as_str());
    let folders = folders(&mut places, all.chain([POLICY, RECEIPT, expiry::TIMER_LINK]))?;
    let machinery = steps(&mut places, machinery)?;
    let granting = steps(&mut places, granting)?;
    let deny = Goal::text(policy::render_deny_all(&services::lines()));
    let real = if wanted.paused {
        deny.clone()
    } else {
        let settings = read_settings(&Paths::below(disk.at("")), disk.trusted());
        Goal::text(services::render_granted(&scope, settings, wanted.now))
    };
    let policy_differs = places.step(POLICY, real.clone())?.is_some();
    let creates_user = disk.machine().has_systemd()
        && matches!(wanted.program, Program::Copy(_))
        && !user_exists(disk).map_err(PlanError::Users)?;
    let mut kept_tags = former.as_ref().map_or_else(Vec::new, |former| former.created.clone());
    let created = created::wanted(disk.machine(), wanted.block, &mut kept_tags)?;
    let receipt = receipt_file(&Receipt {
        version: env!("CARGO_PKG_VERSION").into(),
        packaged: matches!(wanted.program, Program::Packaged),
        user: creates_user || former.as_ref().is_some_and(|former| former.user),
        paths: places.kept,
        created: kept_tags,
    })?;
    let before = disk.state(RECEIPT)?;
    let receipt = (!receipt.is_met(&before, disk.trusted())).then(|| Step::Path {
        path: RECEIPT.into(),
        before,
        goal: receipt,
    });
    let is_change = !folders.is_empty()
        || !machinery.is_empty()
        || !granting.is_empty()
        || receipt.is_some()
        || created.is_some()
        || policy_differs;
    if !is_change {
        return Ok(Plan { folders, steps: Vec::new(), notes });
    }
    let is_new = former.is_none();
    let order = Order { machinery, granting, created, receipt, creates_user, is_new };
    let steps = order.steps(disk, &deny, real)?;
    Ok(Plan { folders, steps, notes })
}

/// The parts of a plan before they are put in order.
struct Order {
    machinery: Vec<Step>,
    granting: Vec<Step>,
    created: Option<CreatedTags>,
    receipt: Option<Step>,
    creates_user: bool,
    is_new: bool,
}

impl Order {
    /// Denying everything first, the real policy last.
    fn steps(self, disk: &Disk<'_>, deny: &Goal, real: Goal) -> Result<Vec<Step>, DiskError> {
        let mut steps = Vec::new();
        let before = disk.state(POLICY)?;
        let denied = denied(deny, disk.trusted());
        if !deny.is_met(&before, disk.trusted()) {
            steps.push(Step::Path { path: POLICY.into(), before, goal: deny.clone() });
        }
        let has_systemd = disk.machine().has_systemd();
        if has_systemd && !self.is_new {
            steps.push(Step::System(SystemAction::Resume));
        }
        for step in self.machinery {
            let is_users =
                matches!(&step, Step::Path { path, .. } if path == USERS) && self.creates_user;
            steps.push(step);
            if is_users {
                steps.push(Step::System(SystemAction::User));
            }
        }
        steps.extend(self.granting);
        if has_systemd {
            steps.push(Step::System(SystemAction::Start));
        }
        steps.extend(self.created.map(Step::Created));
        steps.extend(self.receipt);
        if real != *deny {
            steps.push(Step::Path { path: POLICY.into(), before: denied, goal: real });
        }
        Ok(steps)
    }
}

/// The file that denies everything, as this process writes it.
fn denied(deny: &Goal, trusted: u32) -> State {
    match deny {
        Goal::File { content, mode } => State::File {
            content: content.clone(),
            mode: *mode,
            uid: trusted,
            gid: if trusted == 0 { 0 } else { rustix::process::getegid().as_raw() },
        },
        Goal::Absent | Goal::Link { .. } | Goal::Folder => State::Absent,
    }
}

fn refuse_downgrade(former: Option<&Receipt>, force: bool) -> Result<(), PlanError> {
    let own = env!("CARGO_PKG_VERSION");
    let Some(former) = former.filter(|_| !force) else { return Ok(()) };
    let numbers = |version: &str| -> Vec<u64> {
        version.split(['.', '-']).map_while(|word| word.parse().ok()).collect()
    };
    if numbers(&former.version) > numbers(own) {
        return Err(PlanError::Downgrade { installed: former.version.clone(), own });
    }
    Ok(())
}

/// The operator's file as it is, empty when there is none.
fn scope_text(disk: &Disk<'_>) -> Result<String, PlanError> {
    if let State::File { mode, uid, .. } = disk.state(SCOPE)?
        && (uid != disk.trusted() || mode & 0o022 != 0)
    {
        return Err(PlanError::Untrusted);
    }
    Ok(disk.text(SCOPE)?.unwrap_or_default())
}

/// The folders that are missing, the outermost first.
fn folders<'p>(
    places: &mut Places<'_, '_>,
    paths: impl Iterator<Item = &'p str>,
) -> Result<Vec<Step>, DiskError> {
    let mut all = BTreeSet::from([FOLDER.to_owned()]);
    for path in paths {
        let mut rest = path;
        while let Some((folder, _)) = rest.rsplit_once('/') {
            if !folder.is_empty() {
                all.insert(folder.to_owned());
            }
            rest = folder;
        }
    }
    let mut steps = Vec::new();
    for folder in all {
        // One that is a link on this machine, as /usr/local may be, is there.
        if places.disk.at(&folder).is_dir() {
            continue;
        }
        steps.extend(places.step(&folder, Goal::Folder)?);
    }
    Ok(steps)
}

fn steps(places: &mut Places<'_, '_>, files: Vec<(String, Goal)>) -> Result<Vec<Step>, DiskError> {
    let mut steps = Vec::new();
    for (path, goal) in files {
        steps.extend(places.step(&path, goal)?);
    }
    Ok(steps)
}
