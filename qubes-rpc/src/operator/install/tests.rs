//! Installations that are stopped or fail at every single operation.

use std::{
    cell::Cell,
    collections::BTreeMap,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
};

use policy::evaluate::{Decision, Policy, PolicyFiles, Request, System, SystemQube};
use tempfile::TempDir;

use super::{
    gate::{Gate, Operation},
    machine::Machine,
    *,
};
use crate::services;

#[path = "machine_tests.rs"]
mod machine_tests;

/// What happens at the operation with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The process dies: that operation and all later ones do not happen.
    Killed,
    /// That operation fails, later ones work.
    FailsOnce,
    /// From then on no byte can be written.
    DiskFull,
}

/// Lets everything happen, as fast as it can.
#[derive(Debug)]
struct Quick;

impl Gate for Quick {
    fn pass(&self, _: Operation) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Fateful {
    fate: Fate,
    left: Cell<usize>,
}

impl Gate for Fateful {
    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn pass(&self, operation: Operation) -> io::Result<()> {
        let left = self.left.get();
        if left > 0 {
            self.left.set(left - 1);
            return Ok(());
        }
        match self.fate {
            Fate::Killed => Err(io::Error::other("killed")),
            Fate::FailsOnce => {
                self.left.set(usize::MAX);
                Err(io::ErrorKind::StorageFull.into())
            }
            Fate::DiskFull if operation == Operation::Write => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Fate::DiskFull => Ok(()),
        }
    }
}

/// A machine on which nothing runs.
#[derive(Debug)]
struct Still;

impl Machine for Still {
    fn has_systemd(&self) -> bool {
        false
    }

    fn run(&self, program: &'static str, _: &[&str]) -> Result<(), MachineError> {
        panic!("{program} is run");
    }

    fn created_tags(&self, _: &QubeName) -> Result<Option<String>, MachineError> {
        Ok(None)
    }

    fn set_created_tags(&self, qube: &QubeName, _: Option<&str>) -> Result<(), MachineError> {
        panic!("a feature of {qube} is set");
    }
}

fn still<'a>(root: &'a Path, gate: &'a dyn Gate) -> Disk<'a> {
    Disk::new(root, me(), gate, &Still)
}

/// A root in memory where there is one: thousands of them come and go.
fn fresh() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn me() -> u32 {
    rustix::process::getuid().as_raw()
}

type Tree = BTreeMap<String, (u32, Vec<u8>)>;

/// Every file and link below the root with mode and content. Folders only where they hold anything.
fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let status = fs::symlink_metadata(&path).unwrap();
            if status.is_dir() {
                folders.push(path);
                continue;
            }
            let content = if status.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            found.insert(name, (status.mode(), content));
        }
    }
    found
}

/// Without what an interrupted change leaves, and the receipt, which knows of folders.
fn settled(root: &Path) -> Tree {
    let mut tree = tree(root);
    tree.retain(|path, _| !path.ends_with(".new") && !path.starts_with("var/lib/salt-bridge/"));
    tree
}

fn put(root: &Path, path: &str, mode: u32, text: &str) {
    let at = root.join(path);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(&at, text).unwrap();
    fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
}

/// What the original program's installer leaves.
fn put_original(root: &Path) {
    let mut policy = String::from("## Salt Bridge\n");
    for name in services::names() {
        put(root, &format!("etc/qubes-rpc/{name}"), 0o755, "#!/bin/bash\necho original\n");
        policy += &format!("{name}  +work  salt-bridge  @adminvm  allow\n");
        policy += &format!("{name}  *  @anyvm  @anyvm  deny\n");
    }
    put(root, "etc/qubes-rpc/saltbridge.lib.sh", 0o640, "true\n");
    put(root, "etc/qubes-rpc/saltbridge.Mine", 0o755, "mine\n");
    put(root, "etc/qubes/salt-bridge-allowed-vms", 0o644, "work\nold\n");
    put(root, "etc/qubes/policy.d/30-salt-bridge.policy", 0o664, &policy);
    let rules = "qubes.ConnectTCP +22  work  dev  allow\nqubes.ConnectTCP +22  old  dev  allow\n";
    put(root, "etc/qubes/policy.d/30-salt-bridge-tcp.policy", 0o644, rules);
}

fn asked(agent: &str, grants: &[&str]) -> policy::Block {
    let grants: Vec<Grant> =
        grants.iter().map(|word| request::parse_target(word).unwrap()).collect();
    request::block(&QubeName::parse(agent).unwrap(), &grants).unwrap()
}

/// What an installation does, with the former one settled first.
fn try_install(root: &Path, gate: &dyn Gate, block: &policy::Block) -> Result<bool, InstallError> {
    let disk = still(root, gate);
    apply::recover(&disk, Waiting::Done)?;
    let program = Program::Copy(b"\x7fELF program".to_vec());
    let wanted =
        Wanted { block, program: &program, force: false, paused: false, now: SystemTime::now() };
    let plan = plan::plan(&disk, &wanted)?;
    apply::apply(&disk, &plan, Waiting::Done)?;
    Ok(!plan.is_empty())
}

fn try_uninstall(root: &Path, gate: &dyn Gate) -> Result<(), InstallError> {
    let disk = still(root, gate);
    apply::recover(&disk, Waiting::Done)?;
    if let Some(receipt) = record::read_receipt(&disk)? {
        undo::uninstall(&disk, &receipt, Waiting::Done)?;
    }
    Ok(())
}

/// Whether qrexec would let any call of an agent through.
fn admits_anything(root: &Path) -> bool {
    let mut files = PolicyFiles::new();
    for entry in fs::read_dir(root.join("etc/qubes/policy.d")).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        files.insert(&name, fs::read_to_string(&path).unwrap());
    }
    let policy = Policy::parse(&files).unwrap();
    let qubes = ["salt-bridge", "helper", "work", "dev", "old", "vault"];
    let system: System = qubes
        .map(|name| {
            let uuid = format!("00000000-0000-0000-0000-{:012x}", name.len());
            (name, SystemQube { class: "AppVM".into(), uuid, ..SystemQube::default() })
        })
        .into_iter()
        .chain([("dom0", SystemQube { class: "AdminVM".into(), ..SystemQube::default() })])
        .collect();
    services::names().any(|service| {
        ["salt-bridge", "helper", "vault"].iter().any(|source| {
            ["", "+work", "+dev", "+old"].iter().any(|argument| {
                let call = format!("{service}{argument}");
                let request = Request::of(&call, source, "dom0");
                let decision = policy.evaluate(&request, &system).decision;
                matches!(decision, Decision::Allow { .. } | Decision::Ask { .. })
            })
        })
    })
}

/// The hosts on which everything is tried.
const BEGINNINGS: [fn(&Path); 4] = [
    |_| {},
    put_original,
    |root| {
        try_install(root, &Quick, &asked("salt-bridge", &["work", "old:see"])).map(drop).unwrap();
        // A grant of another agent that ends, for which the timer is not there yet.
        let path = "etc/qubes/salt-bridge-allowed-vms";
        let list = fs::read_to_string(root.join(path)).unwrap();
        put(root, path, 0o644, &(list + "@agent helper\ndev see until=2199-01-01T00:00:00Z\n"));
    },
    |root| {
        put_original(root);
        try_install(root, &Quick, &asked("helper", &["work"])).map(drop).unwrap();
        // A newer program, another unit, a service that is gone.
        put(root, "usr/local/bin/saltbridged", 0o755, "older program");
        put(root, "etc/systemd/system/salt-bridge.service", 0o600, "older unit");
        std::os::unix::fs::symlink(
            units::SERVICE_SOCKET,
            root.join("etc/qubes-rpc/saltbridge.Gone"),
        )
        .unwrap();
    },
];

fn begun(beginning: fn(&Path)) -> TempDir {
    let root = fresh();
    beginning(root.path());
    root
}

/// Runs the action with every possible fate until it works untroubled.
fn at_every_operation(fate: Fate, mut action: impl FnMut(&dyn Gate, usize) -> bool) {
    for number in 0..2000 {
        if action(&Fateful { fate, left: Cell::new(number) }, number) {
            assert!(number > 5, "there are more operations than {number}");
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn killed_anywhere_it_is_finished_or_refuses_everything_and_the_next_one_recovers() {
    let block = asked("salt-bridge", &["work", "dev:see,files:ask"]);
    for beginning in BEGINNINGS {
        let reference = begun(beginning);
        let before = settled(reference.path());
        try_install(reference.path(), &Quick, &block).unwrap();
        let after = settled(reference.path());
        at_every_operation(Fate::Killed, |gate, number| {
            let root = begun(beginning);
            let done = try_install(root.path(), gate, &block).is_ok();
            let now = settled(root.path());
            assert!(
                !admits_anything(root.path()) || now == before || now == after,
                "killed at {number}"
            );
            if !done {
                try_install(root.path(), &Quick, &block).unwrap();
            }
            assert_eq!(settled(root.path()), after, "killed at {number}");
            assert!(admits_anything(root.path()));
            let left: Vec<String> =
                tree(root.path()).into_keys().filter(|path| path.ends_with(".new")).collect();
            assert!(left.is_empty() || number < 20, "killed at {number}: {left:?}");
            done
        });
    }
}

#[test]
fn killed_anywhere_it_is_reverted_at_the_next_boot() {
    let block = asked("salt-bridge", &["work"]);
    for beginning in BEGINNINGS {
        let reference = begun(beginning);
        let before = tree(reference.path());
        try_install(reference.path(), &Quick, &block).unwrap();
        let after = settled(reference.path());
        at_every_operation(Fate::Killed, |gate, number| {
            let root = begun(beginning);
            let done = try_install(root.path(), gate, &block).is_ok();
            let disk = still(root.path(), &Quick);
            let recovered = apply::recover(&disk, Waiting::Queued).unwrap();
            let mut now = tree(root.path());
            if done || recovered == Recovered::Finished {
                assert_eq!(settled(root.path()), after, "killed at {number}");
            } else {
                now.retain(|path, _| !path.contains("/.journal."));
                assert_eq!(now, before, "killed at {number}");
            }
            done
        });
    }
}

#[test]
fn killed_while_it_is_reverted_it_can_still_be_reverted() {
    let block = asked("salt-bridge", &["work"]);
    for beginning in BEGINNINGS {
        let before = tree(begun(beginning).path());
        at_every_operation(Fate::Killed, |gate, number| {
            let root = begun(beginning);
            // Everything but the last words.
            at_last(root.path(), &block);
            let disk = still(root.path(), gate);
            let done = apply::recover(&disk, Waiting::Queued).is_ok();
            let mut plain = tree(root.path());
            plain.retain(|path, _| !path.starts_with("var/lib/salt-bridge/"));
            assert!(
                !admits_anything(root.path()) || settled(root.path()) == settled_of(&before),
                "killed at {number}"
            );
            let disk = still(root.path(), &Quick);
            apply::recover(&disk, Waiting::Queued).unwrap();
            assert_eq!(tree(root.path()), before, "killed at {number}");
            done
        });
    }
}

fn settled_of(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.retain(|path, _| !path.starts_with("var/lib/salt-bridge/"));
    tree
}

/// An installation that is killed right before the real policy.
fn at_last(root: &Path, block: &policy::Block) {
    let disk = still(root, &Quick);
    let program = Program::Copy(b"\x7fELF program".to_vec());
    let wanted =
        Wanted { block, program: &program, force: false, paused: false, now: SystemTime::now() };
    let plan = plan::plan(&disk, &wanted).unwrap();
    let count = count_operations(root, block) - 4;
    let gate = Fateful { fate: Fate::Killed, left: Cell::new(count) };
    let disk = still(root, &gate);
    assert!(apply::apply(&disk, &plan, Waiting::Done).is_err());
    assert!(!admits_anything(root));
}

/// How many operations an installation on a copy of this root takes.
fn count_operations(root: &Path, block: &policy::Block) -> usize {
    let copy = fresh();
    for (path, (mode, content)) in tree(root) {
        let at = copy.path().join(&path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        if mode & 0o170_000 == 0o120_000 {
            std::os::unix::fs::symlink(String::from_utf8(content).unwrap(), at).unwrap();
        } else {
            fs::write(&at, content).unwrap();
            fs::set_permissions(&at, fs::Permissions::from_mode(mode & 0o7777)).unwrap();
        }
    }
    let gate = Fateful { fate: Fate::Killed, left: Cell::new(10_000) };
    try_install(copy.path(), &gate, block).unwrap();
    10_000 - gate.left.get()
}

#[test]
fn what_fails_anywhere_is_reverted_at_once() {
    let block = asked("salt-bridge", &["work"]);
    for beginning in BEGINNINGS {
        let before = tree(begun(beginning).path());
        at_every_operation(Fate::FailsOnce, |gate, number| {
            let root = begun(beginning);
            match try_install(root.path(), gate, &block) {
                Ok(_) => true,
                Err(InstallError::Apply(ApplyError::Reverted(_))) => {
                    assert_eq!(tree(root.path()), before, "failed at {number}");
                    false
                }
                Err(other) => panic!("failed at {number}: {other}"),
            }
        });
    }
}

#[test]
fn a_full_disk_leaves_everything_as_it_was_or_refused() {
    let block = asked("salt-bridge", &["work"]);
    for beginning in BEGINNINGS {
        let before = tree(begun(beginning).path());
        at_every_operation(Fate::DiskFull, |gate, number| {
            let root = begun(beginning);
            match try_install(root.path(), gate, &block) {
                Ok(_) => return true,
                Err(InstallError::Apply(ApplyError::Reverted(_))) => {
                    assert_eq!(tree(root.path()), before, "full at {number}");
                }
                Err(InstallError::Apply(ApplyError::Stuck { .. })) => {
                    assert!(!admits_anything(root.path()), "full at {number}");
                    let disk = still(root.path(), &Quick);
                    apply::recover(&disk, Waiting::Done).unwrap();
                    assert_eq!(tree(root.path()), before, "full at {number}");
                }
                Err(other) => panic!("full at {number}: {other}"),
            }
            false
        });
    }
}

#[test]
fn uninstalling_leaves_nothing_wherever_it_is_killed() {
    let block = asked("salt-bridge", &["work", "dev"]);
    let originals: [fn(&Path); 2] = [|_| {}, put_original];
    for original in originals {
        let beginning = |root: &Path| {
            original(root);
            try_install(root, &Quick, &block).unwrap();
            put(root, "var/lib/salt-bridge/firewall/work/1", 0o600, "rules");
            put(root, "etc/salt-bridge/settings.toml", 0o644, "");
            put(root, "etc/systemd/system/salt-bridge-expire.timer", 0o644, "");
            put(root, "var/log/salt-bridge/audit", 0o600, "line");
        };
        let root = fresh();
        original(root.path());
        let mut before = tree(root.path());
        before.insert("var/log/salt-bridge/audit".into(), (0o100_600, b"line".to_vec()));
        at_every_operation(Fate::Killed, |gate, number| {
            let root = fresh();
            beginning(root.path());
            let installed = settled(root.path());
            let done = try_uninstall(root.path(), gate).is_ok();
            let granting = |tree: &Tree| -> Tree {
                let is_granting = |path: &str| path.starts_with("etc/qubes");
                tree.clone().into_iter().filter(|(path, _)| is_granting(path)).collect()
            };
            let now = settled(root.path());
            assert!(
                !admits_anything(root.path())
                    || now == installed
                    || granting(&now) == granting(&before),
                "killed at {number}"
            );
            if !done {
                try_uninstall(root.path(), &Quick).unwrap();
            }
            let mut now = tree(root.path());
            now.retain(|path, _| !path.contains("/.journal."));
            assert_eq!(now, before, "killed at {number}");
            done
        });
    }
}

#[test]
fn uninstalling_removes_the_folders_that_installing_created() {
    let root = fresh();
    try_install(root.path(), &Quick, &asked("salt-bridge", &["work"])).unwrap();
    try_uninstall(root.path(), &Quick).unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn installing_twice_changes_nothing_the_second_time() {
    let block = asked("salt-bridge", &["work", "dev:see,files:ask"]);
    for beginning in BEGINNINGS {
        let root = begun(beginning);
        assert!(try_install(root.path(), &Quick, &block).unwrap());
        let once = tree(root.path());
        assert!(!try_install(root.path(), &Quick, &block).unwrap());
        assert_eq!(tree(root.path()), once);
    }
}

#[test]
fn an_agent_is_added_beside_another_and_replaced_alone() {
    let root = fresh();
    let path = root.path().join("etc/qubes/salt-bridge-allowed-vms");
    try_install(root.path(), &Quick, &asked("salt-bridge", &["work"])).unwrap();
    let first = fs::read_to_string(&path).unwrap();
    fs::write(&path, first.clone() + "dev # by hand\n").unwrap();
    try_install(root.path(), &Quick, &asked("helper", &["dev:see"])).unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        first.clone() + "dev # by hand\n@agent helper\ndev see\n"
    );
    try_install(root.path(), &Quick, &asked("salt-bridge", &["dev"])).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.ends_with("@agent salt-bridge\ndev # by hand\n@agent helper\ndev see\n"),
        "{text}"
    );
}

#[test]
fn tunnels_of_qubes_that_leave_go_with_them() {
    let root = begun(put_original);
    try_install(root.path(), &Quick, &asked("salt-bridge", &["work", "dev"])).unwrap();
    let path = root.path().join("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("+22  work  dev  allow") && !text.contains("old"), "{text}");
    try_install(root.path(), &Quick, &asked("salt-bridge", &["work", "dev:see"])).unwrap();
    assert!(!fs::read_to_string(&path).unwrap().contains("allow"));
}

#[test]
fn a_list_that_others_can_write_or_that_has_a_fault_stops_everything() {
    let block = asked("salt-bridge", &["work"]);
    for (mode, text) in [(0o666, "@agent a\nb\n"), (0o644, "@agent a\nb peek\n")] {
        let root = fresh();
        put(root.path(), "etc/qubes/salt-bridge-allowed-vms", mode, text);
        let before = tree(root.path());
        let error = try_install(root.path(), &Quick, &block).unwrap_err();
        assert!(matches!(error, InstallError::Plan(_)), "{error}");
        assert_eq!(tree(root.path()), before);
    }
}

#[test]
fn an_older_version_replaces_a_newer_one_only_when_forced() {
    let root = fresh();
    let block = asked("salt-bridge", &["work"]);
    try_install(root.path(), &Quick, &block).unwrap();
    let path = root.path().join("var/lib/salt-bridge/receipt");
    let text = fs::read_to_string(&path).unwrap();
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    fs::write(&path, text.replace(&version, "\"version\": \"99.0.0\"")).unwrap();
    let error = try_install(root.path(), &Quick, &block).unwrap_err();
    assert!(matches!(error, InstallError::Plan(PlanError::Downgrade { .. })), "{error}");
    let disk = still(root.path(), &Quick);
    let program = Program::Copy(b"\x7fELF program".to_vec());
    let wanted = Wanted {
        block: &block,
        program: &program,
        force: true,
        paused: false,
        now: SystemTime::now(),
    };
    assert!(!plan::plan(&disk, &wanted).unwrap().is_empty());
}

#[test]
fn a_journal_that_cannot_be_understood_denies_everything() {
    let root = fresh();
    let block = asked("salt-bridge", &["work"]);
    try_install(root.path(), &Quick, &block).unwrap();
    put(root.path(), "var/lib/salt-bridge/journal", 0o600, "{");
    assert!(try_install(root.path(), &Quick, &block).is_err());
    assert!(!admits_anything(root.path()));
}

#[test]
fn a_change_of_the_list_during_an_interruption_is_kept() {
    let root = fresh();
    try_install(root.path(), &Quick, &asked("salt-bridge", &["work"])).unwrap();
    at_last(root.path(), &asked("salt-bridge", &["dev"]));
    put(root.path(), "etc/qubes/salt-bridge-allowed-vms", 0o644, "@agent mine\nwork\n");
    let disk = still(root.path(), &Quick);
    assert_eq!(apply::recover(&disk, Waiting::Done).unwrap(), Recovered::Reverted);
    let kept = root.path().join("etc/qubes/salt-bridge-allowed-vms.kept");
    assert_eq!(fs::read_to_string(kept).unwrap(), "@agent mine\nwork\n");
}
