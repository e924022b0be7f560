//! A host under test, what was promised to its agent, and what has to hold in the end.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use salt_bridge_sim::{Daemon, Host, HostOptions, Population};
use serde_json::{Value, json};

use crate::shim::Shim;

/// The operator's file: `test` may only be seen, and all others do not exist for the agent.
const SCOPE: &str = "@agent salt-bridge\nwork\ndev\ntest see\n";
/// The longest wait for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Qubes that no call may touch.
const FOREIGN: [&str; 4] = ["test", "personal", "vault", "ai-build"];

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// A number below this one.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

/// What an agent was told to be done, under names that no other call uses.
#[derive(Debug, Default)]
pub(crate) struct Promised {
    /// Comments of firewall rules of `work` that are there.
    pub(crate) rules: BTreeSet<String>,
    /// Comments of rules that are gone.
    pub(crate) removed: BTreeSet<String>,
    /// Files of `work`, which hold their own name.
    pub(crate) files: BTreeSet<String>,
}

impl Promised {
    /// Takes over what another agent was told.
    pub(crate) fn merge(&mut self, other: Self) {
        self.rules.extend(other.rules);
        self.removed.extend(other.removed);
        self.files.extend(other.files);
    }
}

/// A host, and what it was like before anything was done to it.
pub(crate) struct Machine {
    pub(crate) host: Host,
    before: Vec<(PathBuf, Option<Vec<u8>>)>,
    _folder: tempfile::TempDir,
}

impl Machine {
    /// A host with Salt Bridge on it; `prepare` runs before its daemons start.
    pub(crate) fn start(prepare: impl FnOnce(&Host)) -> Self {
        Self::start_with(SCOPE, Population::default(), prepare)
    }

    /// The same with another operator's file and other qubes.
    pub(crate) fn start_with(
        scope: &str,
        population: Population,
        prepare: impl FnOnce(&Host),
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("sb").tempdir().expect("a folder");
        let options =
            HostOptions::new(folder.path().join("h"), env!("CARGO_BIN_EXE_salt-bridge-sim"));
        let host = Host::start(HostOptions { population, ..options }).expect("a host");
        prepare(&host);
        host.install(scope).expect("Salt Bridge");
        let root = host.root();
        let mut files: Vec<PathBuf> = ["30-salt-bridge.policy", "90-default.policy"]
            .map(|name| root.join("etc/qubes/policy.d").join(name))
            .into();
        files.push(root.join("etc/qubes/salt-bridge-allowed-vms"));
        files.extend(
            FOREIGN.map(|qube| root.join(format!("var/lib/qubes/appvms/{qube}/firewall.xml"))),
        );
        let before = files.into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect();
        Self { host, before, _folder: folder }
    }

    /// `saltbridged` as the operator runs it: whether it succeeded, and what it said.
    pub(crate) fn operator(&self, arguments: &[&str]) -> (bool, String) {
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        let output = Command::new(self.host.layout().program("saltbridged"))
            .arg("--root")
            .arg(self.host.root())
            .args(arguments)
            .output()
            .expect("saltbridged");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// The folder in which calls on `work` write.
    fn home(&self) -> PathBuf {
        self.host.layout().qube_root("work").join("home/user")
    }

    /// Everything that has to hold when no call is under way; the number of statements that hold.
    pub(crate) fn holds(&self, promised: &Promised) -> usize {
        let (left, wider) = (self.nothing_is_left(), self.nothing_is_wider());
        let kept = self.promises_are_kept(promised);
        let (whole, said) = self.operator(&["audit", "verify"]);
        assert!(whole, "the audit log does not hold: {said}");
        println!(
            "checked: nothing is left running ({left} places), nothing is wider or touched ({wider} files and \
             homes), {kept} acknowledged changes are there, the audit log verifies"
        );
        left + wider + kept + 1
    }

    fn nothing_is_left(&self) -> usize {
        for qube in ["work", "dev"].iter().chain(&FOREIGN) {
            let left = || self.host.processes(qube).expect("a qube");
            let told = || left().into_iter().map(describe).collect::<Vec<_>>();
            wait(|| left().is_empty(), || format!("{qube} is empty: {:#?}", told()));
        }
        let marker = self.host.root().join("usr/bin/qrexec-client");
        let marker = marker.to_string_lossy().into_owned();
        until("no qrexec-client is left", || !command_lines().any(|line| line.contains(&marker)));
        2 + FOREIGN.len() + 1
    }

    fn nothing_is_wider(&self) -> usize {
        for (path, before) in &self.before {
            assert!(fs::read(path).ok() == *before, "{path:?} was changed");
        }
        for qube in FOREIGN {
            let home = self.host.layout().qube_root(qube).join("home/user");
            let found = fs::read_dir(&home).map_or(0, Iterator::count);
            let fresh = usize::from(self.home().join(".bashrc").exists());
            assert!(found <= fresh, "something wrote into {qube}");
        }
        self.before.len() + FOREIGN.len()
    }

    fn promises_are_kept(&self, promised: &Promised) -> usize {
        let mut shim = Shim::start(&self.host);
        let list = shim.call("firewall_list", &json!({"vm_name": "work"})).expect("the rules");
        let rules: BTreeSet<&str> = list["rules"]
            .as_array()
            .expect("rules")
            .iter()
            .filter_map(|rule| rule["comment"].as_str())
            .collect();
        for comment in &promised.rules {
            assert!(
                rules.contains(comment.as_str()),
                "the rule {comment} was acknowledged and lost"
            );
        }
        for comment in &promised.removed {
            assert!(
                !rules.contains(comment.as_str()),
                "the rule {comment} was removed and is back"
            );
        }
        for name in &promised.files {
            let text = fs::read_to_string(self.home().join(name)).unwrap_or_default();
            assert_eq!(text, *name, "a file was acknowledged and lost");
        }
        // A file that was not acknowledged is there as a whole or not at all, and nothing besides.
        for entry in fs::read_dir(self.home()).expect("a home") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("file-") {
                assert_eq!(fs::read_to_string(&path).expect("a file"), name, "half a file");
            } else {
                // Where jobs keep their output.
                let known = name == ".salt-bridge";
                assert!(known || !name.contains("salt"), "{name} was left behind");
            }
        }
        promised.rules.len() + promised.removed.len() + promised.files.len()
    }
}

/// One agent that makes calls of every kind and remembers what it was told.
pub(crate) struct Agent {
    pub(crate) shim: Shim,
    pub(crate) promised: Promised,
    /// What it was asked to remove and has no answer for is neither there nor gone.
    name: String,
    made: u64,
    /// Calls that were answered with a result, and those with a sentence.
    pub(crate) done: u64,
    pub(crate) failed: u64,
}

impl Agent {
    pub(crate) fn start(host: &Host, name: &str) -> Self {
        let shim = Shim::start(host);
        let promised = Promised::default();
        Self { shim, promised, name: name.to_owned(), made: 0, done: 0, failed: 0 }
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Option<Value> {
        match self.shim.call(tool, &arguments) {
            Ok(value) => {
                self.done += 1;
                Some(value)
            }
            Err(_) => {
                self.failed += 1;
                None
            }
        }
    }

    /// One call of a kind that the dice choose.
    pub(crate) fn step(&mut self, dice: &mut Dice) {
        self.made += 1;
        let nonce = format!("{}-{}", self.name, self.made);
        match dice.below(10) {
            0..=2 => self.exec(&nonce),
            3..=4 => self.write(&nonce),
            5..=6 if self.promised.rules.len() < 12 => self.add(&nonce),
            5..=6 => self.remove(),
            7 => drop(self.call("list_vms", json!({}))),
            _ => self.reach_out(dice),
        }
    }

    /// A call of each kind, once.
    pub(crate) fn round(&mut self, dice: &mut Dice) {
        self.made += 1;
        let nonce = format!("{}-{}", self.name, self.made);
        self.exec(&nonce);
        self.write(&nonce);
        self.add(&nonce);
        self.remove();
        drop(self.call("list_vms", json!({})));
        self.reach_out(dice);
    }

    fn exec(&mut self, nonce: &str) {
        let call = json!({"vm_name": "work", "command": format!("echo {nonce}")});
        if let Some(result) = self.call("exec_in_vm", call) {
            assert_eq!(result["stdout"], json!(format!("{nonce}\n")), "another call's answer");
            assert_eq!(result["exit_code"], json!(0));
        }
    }

    fn write(&mut self, nonce: &str) {
        let name = format!("file-{nonce}");
        let call = json!({"vm_name": "work", "file_path": name, "content": name});
        if self.call("write_file_in_vm", call).is_some() {
            self.promised.files.insert(name);
        }
    }

    fn add(&mut self, nonce: &str) {
        let args = format!("dsthost=192.0.2.1 proto=tcp dstports=22 comment={nonce}");
        let call = json!({"vm_name": "work", "action": "drop", "args": args});
        if let Some(result) = self.call("firewall_add", call) {
            let place = result["number"].as_u64().and_then(|place| usize::try_from(place).ok());
            assert_eq!(result["rules"][place.unwrap_or(usize::MAX)]["comment"], json!(nonce));
            self.promised.rules.insert(nonce.to_owned());
        }
    }

    /// Removes the rule that it added first.
    fn remove(&mut self) {
        let Some(comment) = self.promised.rules.first().cloned() else { return };
        let Some(list) = self.call("firewall_list", json!({"vm_name": "work"})) else { return };
        let rules = list["rules"].as_array().expect("rules");
        let rule = rules.iter().find(|rule| rule["comment"] == json!(comment));
        let rule = rule.unwrap_or_else(|| panic!("the rule {comment} is lost"));
        let call =
            json!({"vm_name": "work", "rule_number": rule["number"], "expect": rule["rule"]});
        // Without an answer nobody knows whether it is there.
        self.promised.rules.remove(&comment);
        match self.shim.call("firewall_remove", &call) {
            Ok(_) => {
                self.done += 1;
                self.promised.removed.insert(comment);
            }
            Err(_) => self.failed += 1,
        }
    }

    /// A call that nothing grants, which has to fail whatever else is the matter.
    fn reach_out(&mut self, dice: &mut Dice) {
        let qubes = ["test", "personal", "vault", "ai-build", "salt-bridge", "dom0"];
        let place = usize::try_from(dice.below(6)).unwrap_or_default();
        let qube = qubes.get(place).copied().unwrap_or("vault");
        for (tool, call) in [
            ("exec_in_vm", json!({"vm_name": qube, "command": "touch reached"})),
            ("write_file_in_vm", json!({"vm_name": qube, "file_path": "reached", "content": "x"})),
            ("firewall_add", json!({"vm_name": qube, "action": "drop"})),
            ("shutdown_vm", json!({"vm_name": qube})),
        ] {
            let told = self.shim.call(tool, &call);
            assert!(told.is_err(), "{tool} reached {qube}: {told:?}");
            self.failed += 1;
        }
    }
}

/// Has the daemons of a host start by a line of bash, in which `"$@"` is the daemon's own command line.
pub(crate) fn start_daemons_by(host: &Host, line: &str) {
    let link = host.layout().program("saltbridged");
    let real = fs::read_link(&link).expect("a link");
    let folder = host.layout().dir().join("real");
    fs::create_dir(&folder).expect("a folder");
    // The program tells its role by its name.
    let named = folder.join("saltbridged");
    std::os::unix::fs::symlink(real, &named).expect("a link");
    let named = named.to_string_lossy();
    let script = format!(
        "#!/bin/bash\ncase \" $* \" in *' serve '* | *' tcp-policy '*) ;; *) exec '{named}' \"$@\" ;; esac\n\
         set -- '{named}' \"$@\"\n{line}\n"
    );
    fs::remove_file(&link).expect("a link");
    fs::write(&link, script).expect("a script");
    fs::set_permissions(&link, fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// What a process is: its state, parent, group and session, its command line, and its mark.
fn describe(pid: i32) -> String {
    let of = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', " ");
    let mark = of("environ");
    let mark = mark.split(|byte| *byte == 0).find(|line| line.starts_with(b"SALT_BRIDGE_CALL="));
    format!("{} {} {}", text(&of("stat")), text(&of("cmdline")), text(mark.unwrap_or_default()))
}

/// Waits until something is so.
pub(crate) fn until(what: &str, is_so: impl FnMut() -> bool) {
    wait(is_so, || what.to_owned());
}

/// The same with words that are found only when it was in vain.
fn wait(mut is_so: impl FnMut() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {}", what());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The command lines of all processes.
fn command_lines() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
}

/// What the daemon holds: descriptors, threads, children, and memory in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) descriptors: usize,
    pub(crate) threads: u64,
    pub(crate) children: usize,
    pub(crate) memory: u64,
}

impl Holdings {
    /// Of a process.
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
        };
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        Self {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
            threads: field("Threads:"),
            children: children.unwrap_or_default().split_whitespace().count(),
            memory: field("VmRSS:"),
        }
    }

    /// Asserts that no child is left, and hardly a descriptor, that was not there before.
    pub(crate) fn assert_none_left_since(&self, quiet: &Self) {
        assert!(self.children <= quiet.children, "children are left: {self:?}");
        assert!(self.descriptors <= quiet.descriptors + 2, "descriptors are left: {self:?}");
    }

    /// Of the daemon of this host.
    pub(crate) fn of_daemon(host: &Host) -> Self {
        Self::of(host.daemon_pid(Daemon::Serve).expect("the daemon"))
    }
}

/// The folder of a host's `qrexec-client`.
pub(crate) fn qrexec_client(host: &Host) -> PathBuf {
    let path: &Path = &host.root();
    path.join("usr/bin/qrexec-client")
}
