//! What an installation asks of systemd and qubesd, in which order, and what it does when they fail.

use std::cell::RefCell;

use super::*;
use crate::operator::{expiry, systemd::SystemError};

/// A machine that writes down what it is asked, and fails at one question.
#[derive(Debug, Default)]
struct Recording {
    asked: RefCell<Vec<String>>,
    tags: RefCell<Option<String>>,
    fails_at: Cell<Option<usize>>,
    /// From this question on it fails.
    dies_at: Cell<Option<usize>>,
}

impl Recording {
    fn ask(&self, what: String) -> bool {
        let number = self.asked.borrow().len();
        self.asked.borrow_mut().push(what);
        self.fails_at.get() == Some(number) || self.dies_at.get().is_some_and(|at| number >= at)
    }

    fn take(&self) -> Vec<String> {
        self.asked.take()
    }
}

fn failure() -> MachineError {
    SystemError::Run("the fake", io::ErrorKind::Other.into()).into()
}

impl Machine for Recording {
    fn has_systemd(&self) -> bool {
        true
    }

    fn run(&self, program: &'static str, arguments: &[&str]) -> Result<(), MachineError> {
        let name = program.rsplit('/').next().unwrap();
        let fails = self.ask(format!("{name} {}", arguments.join(" ")));
        if fails { Err(failure()) } else { Ok(()) }
    }

    fn created_tags(&self, _: &QubeName) -> Result<Option<String>, MachineError> {
        Ok(self.tags.borrow().clone())
    }

    fn set_created_tags(&self, qube: &QubeName, tags: Option<&str>) -> Result<(), MachineError> {
        if self.ask(format!("{qube} {tags:?}")) {
            return Err(failure());
        }
        *self.tags.borrow_mut() = tags.map(Into::into);
        Ok(())
    }
}

/// A dom0 with users, on which nothing is installed.
fn dom0() -> TempDir {
    let root = fresh();
    put(root.path(), "etc/passwd", 0o644, "root:x:0:0::/root:/bin/bash\n");
    root
}

fn sandboxed() -> policy::Block {
    let tag = request::parse_tag("ai-managed:see,shape").unwrap();
    let work = request::parse_target("work").unwrap();
    request::block(&QubeName::parse("salt-bridge").unwrap(), &[work, tag]).unwrap()
}

/// A grant that ends.
fn ending() -> policy::Block {
    let mut grant = request::parse_target("work:see").unwrap();
    grant.until = policy::Until::parse("2199-01-01T00:00:00Z").ok();
    request::block(&QubeName::parse("salt-bridge").unwrap(), &[grant]).unwrap()
}

struct Asked<'a> {
    block: &'a policy::Block,
    program: Program,
    paused: bool,
}

impl<'a> Asked<'a> {
    fn of(block: &'a policy::Block) -> Self {
        Self { block, program: Program::Copy(b"\x7fELF program".to_vec()), paused: false }
    }

    fn install(&self, root: &Path, machine: &Recording) -> Result<bool, InstallError> {
        let disk = Disk::new(root, me(), &Quick, machine);
        apply::recover(&disk, Waiting::Done)?;
        let wanted = Wanted {
            block: self.block,
            program: &self.program,
            force: false,
            paused: self.paused,
            now: SystemTime::now(),
        };
        let plan = plan::plan(&disk, &wanted)?;
        apply::apply(&disk, &plan, Waiting::Done)?;
        Ok(!plan.is_empty())
    }
}

fn uninstall(root: &Path, machine: &Recording) {
    let disk = Disk::new(root, me(), &Quick, machine);
    let receipt = record::read_receipt(&disk).unwrap().unwrap();
    undo::uninstall(&disk, &receipt, Waiting::Done).unwrap();
}

const STARTS: [&str; 3] = [
    "systemctl daemon-reload",
    "systemctl try-restart salt-bridge.service salt-bridge-tcp-policy.service",
    "systemctl restart salt-bridge.socket salt-bridge-tcp-policy.socket",
];
const STOPS: [&str; 3] = [
    "systemctl stop salt-bridge-expire.timer",
    "systemctl stop salt-bridge.socket salt-bridge-tcp-policy.socket",
    "systemctl stop salt-bridge.service salt-bridge-tcp-policy.service",
];

#[test]
fn installing_creates_the_user_before_anything_starts_and_uninstalling_removes_it_last() {
    let (root, machine) = (dom0(), Recording::default());
    let block = asked("salt-bridge", &["work"]);
    Asked::of(&block).install(root.path(), &machine).unwrap();
    let mut expected = vec!["systemd-sysusers /etc/sysusers.d/salt-bridge.conf"];
    expected.extend(STARTS);
    expected.push("systemctl stop salt-bridge-expire.timer");
    assert_eq!(machine.take(), expected);
    assert!(!Asked::of(&block).install(root.path(), &machine).unwrap());
    assert_eq!(machine.take(), Vec::<String>::new());
    put(root.path(), "etc/passwd", 0o644, "salt-bridge:x:990:985::/:/usr/sbin/nologin\n");
    uninstall(root.path(), &machine);
    let mut expected = STOPS.to_vec();
    expected.extend(["systemctl daemon-reload", "userdel salt-bridge"]);
    assert_eq!(machine.take(), expected);
}

#[test]
fn a_user_that_was_there_is_neither_created_nor_removed() {
    let (root, machine) = (dom0(), Recording::default());
    put(root.path(), "etc/passwd", 0o644, "salt-bridge:x:990:985::/:/usr/sbin/nologin\n");
    Asked::of(&asked("salt-bridge", &["work"])).install(root.path(), &machine).unwrap();
    uninstall(root.path(), &machine);
    let told = machine.take();
    assert!(!told.iter().any(|line| line.contains("user")), "{told:?}");
}

#[test]
fn of_a_package_only_links_are_made_and_its_program_stays() {
    let (root, machine) = (dom0(), Recording::default());
    let block = asked("salt-bridge", &["work"]);
    let packaged = Asked { program: Program::Packaged, ..Asked::of(&block) };
    packaged.install(root.path(), &machine).unwrap();
    assert_eq!(machine.take()[0], "systemctl daemon-reload");
    let files = tree(root.path());
    assert!(!files.keys().any(|path| path.starts_with("usr/") || path.contains("sysusers")));
    let link = root.path().join("etc/systemd/system/sockets.target.wants/salt-bridge.socket");
    let aim = Path::new("/usr/lib/systemd/system/salt-bridge.socket");
    assert_eq!(fs::read_link(link).unwrap(), aim);
    uninstall(root.path(), &machine);
    assert_eq!(tree(root.path()).into_keys().collect::<Vec<_>>(), ["etc/passwd"]);
}

#[test]
fn a_grant_that_ends_brings_a_timer_and_uninstalling_takes_it_away() {
    let (root, machine) = (dom0(), Recording::default());
    let block = ending();
    Asked::of(&block).install(root.path(), &machine).unwrap();
    assert_eq!(machine.take().last().unwrap(), "systemctl restart salt-bridge-expire.timer");
    let at = |path: &str| root.path().join(path.trim_start_matches('/'));
    let timer = fs::read_to_string(at(expiry::TIMER_FILE)).unwrap();
    assert!(timer.contains("OnCalendar=2199-01-01 00:00:00 UTC\n"), "{timer}");
    assert_eq!(fs::read_link(at(expiry::TIMER_LINK)).unwrap(), Path::new(expiry::TIMER_FILE));
    // Another list, without an end.
    let endless = asked("salt-bridge", &["work:see"]);
    Asked::of(&endless).install(root.path(), &machine).unwrap();
    assert_eq!(machine.take().last().unwrap(), "systemctl stop salt-bridge-expire.timer");
    assert!(!at(expiry::TIMER_FILE).exists() && at(expiry::TIMER_LINK).symlink_metadata().is_err());
    Asked::of(&block).install(root.path(), &machine).unwrap();
    uninstall(root.path(), &machine);
    assert_eq!(tree(root.path()).into_keys().collect::<Vec<_>>(), ["etc/passwd"]);
}

#[test]
fn installed_while_paused_nothing_is_admitted_and_the_units_run() {
    let (root, machine) = (dom0(), Recording::default());
    let block = asked("salt-bridge", &["work"]);
    let paused = Asked { paused: true, ..Asked::of(&block) };
    assert!(paused.install(root.path(), &machine).unwrap());
    assert!(!admits_anything(root.path()));
    assert!(machine.take().contains(&STARTS[2].to_owned()));
    assert!(!paused.install(root.path(), &machine).unwrap());
    // The pause over, the same list admits what it grants.
    assert!(Asked::of(&block).install(root.path(), &machine).unwrap());
    assert!(admits_anything(root.path()));
}

#[test]
fn what_the_agent_creates_gets_the_tag_and_uninstalling_takes_only_that_back() {
    for (before, during, after) in [
        (None, "ai-managed", None),
        (Some("mine"), "mine ai-managed", Some("mine")),
        (Some(""), "ai-managed", Some("")),
        (Some("ai-managed"), "ai-managed", Some("ai-managed")),
    ] {
        let (root, machine) = (dom0(), Recording::default());
        *machine.tags.borrow_mut() = before.map(Into::into);
        Asked::of(&sandboxed()).install(root.path(), &machine).unwrap();
        assert_eq!(machine.tags.borrow().as_deref(), Some(during));
        assert!(!Asked::of(&sandboxed()).install(root.path(), &machine).unwrap());
        uninstall(root.path(), &machine);
        assert_eq!(machine.tags.borrow().as_deref(), after);
    }
    // What somebody added meanwhile stays, and a list without the tag takes it back too.
    let (root, machine) = (dom0(), Recording::default());
    Asked::of(&sandboxed()).install(root.path(), &machine).unwrap();
    *machine.tags.borrow_mut() = Some("ai-managed later".into());
    Asked::of(&asked("salt-bridge", &["work"])).install(root.path(), &machine).unwrap();
    assert_eq!(machine.tags.borrow().as_deref(), Some("later"));
    uninstall(root.path(), &machine);
    assert_eq!(machine.tags.borrow().as_deref(), Some("later"));
}

#[test]
fn whatever_the_machine_fails_at_everything_is_as_before() {
    let block = sandboxed();
    for beginning in [None, Some(asked("salt-bridge", &["dev"]))] {
        for number in 0.. {
            let (root, machine) = (dom0(), Recording::default());
            if let Some(former) = &beginning {
                Asked::of(former).install(root.path(), &machine).unwrap();
                machine.take();
            }
            let before = tree(root.path());
            machine.fails_at.set(Some(number));
            match Asked::of(&block).install(root.path(), &machine) {
                Ok(_) => {
                    let told = machine.take();
                    // Only stopping a timer that is not there may fail unheard.
                    assert!(number >= told.len() || told[number].contains("stop"), "{told:?}");
                    if number >= told.len() {
                        break;
                    }
                }
                Err(InstallError::Apply(ApplyError::Reverted(_))) => {
                    assert_eq!(tree(root.path()), before, "failed at {number}");
                    assert_eq!(*machine.tags.borrow(), None, "failed at {number}");
                }
                Err(other) => panic!("failed at {number}: {other}"),
            }
        }
    }
}

#[test]
fn killed_behind_the_tag_it_is_taken_back_at_the_next_boot() {
    let (root, machine) = (dom0(), Recording::default());
    let block = sandboxed();
    let disk = Disk::new(root.path(), me(), &Quick, &machine);
    let program = Program::Packaged;
    let wanted = Wanted {
        block: &block,
        program: &program,
        force: false,
        paused: true,
        now: SystemTime::now(),
    };
    let plan = plan::plan(&disk, &wanted).unwrap();
    // Every operation on a file is let through until qubesd has been told, and then nothing.
    for number in 0.. {
        machine.take();
        machine.dies_at.set(Some(5));
        let gate = Fateful { fate: Fate::Killed, left: Cell::new(number) };
        let dying = Disk::new(root.path(), me(), &gate, &machine);
        assert!(apply::apply(&dying, &plan, Waiting::Done).is_err());
        machine.dies_at.set(None);
        if machine.tags.borrow().is_some() {
            break;
        }
        apply::recover(&disk, Waiting::Queued).unwrap();
    }
    machine.take();
    assert_eq!(apply::recover(&disk, Waiting::Queued).unwrap(), Recovered::Reverted);
    assert_eq!(*machine.tags.borrow(), None);
    assert_eq!(tree(root.path()).into_keys().collect::<Vec<_>>(), ["etc/passwd"]);
    let told = machine.take();
    assert_eq!(told[0], "salt-bridge None");
    assert!(told[1..].iter().all(|line| line.starts_with("systemctl --no-block stop")), "{told:?}");
}
