//! A disk of dom0 that is full: nothing that changes anything is done without being written down.

use std::{fs, io::Write, path::PathBuf, process::Command};

use salt_bridge_sim::Host;
use serde_json::json;

use crate::{
    Extent,
    machine::{Agent, Dice, Machine},
};

/// A small file system of its own, taken away again at the end.
struct Small(PathBuf);

impl Small {
    /// Nothing where this machine does not allow it.
    fn mount(folder: PathBuf) -> Option<Self> {
        Self::command("mount", &["-t", "tmpfs", "-o", "size=512k,mode=755", "tmpfs"], &folder)
            .then_some(Self(folder))
    }

    fn command(program: &str, arguments: &[&str], folder: &PathBuf) -> bool {
        #[expect(clippy::disallowed_methods, reason = "mounting takes a program of the machine")]
        let status = Command::new(program).args(arguments).arg(folder).output();
        status.is_ok_and(|output| output.status.success())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The folder of the host cannot be removed before.
        Self::command("umount", &["-l"], &self.0);
    }
}

/// Runs the part.
pub(crate) fn run(extent: &Extent) {
    let mut small = None;
    let logs = |host: &Host| host.root().join("var/log/salt-bridge");
    let machine = Machine::start(|host| small = Small::mount(logs(host)));
    if small.is_none() {
        println!("disk: not made here: only root can mount a small disk");
        return;
    }
    let mut dice = Dice::new(extent.seed);
    let mut agent = Agent::start(&machine.host, "d");
    agent.round(&mut dice);
    let mut faults = 0;
    for _ in 0..extent.rounds.min(5) {
        let filler = logs(&machine.host).join("filler");
        let mut file = fs::File::create(&filler).expect("a file");
        // Byte by byte at the end: not even a line fits then.
        while file.write_all(&[0; 512]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        drop(file);
        let done = agent.done;
        for (tool, call) in [
            ("firewall_add", json!({"vm_name": "work", "action": "drop", "args": "comment=full"})),
            ("write_file_in_vm", json!({"vm_name": "work", "file_path": "full", "content": "x"})),
            ("exec_in_vm", json!({"vm_name": "work", "command": "touch full"})),
        ] {
            let told = agent.shim.call(tool, &call);
            assert!(told.is_err(), "{tool} was done and cannot be written down: {told:?}");
            faults += 1;
        }
        let home = machine.host.layout().qube_root("work").join("home/user");
        assert!(!home.join("full").exists(), "it was done all the same");
        fs::remove_file(&filler).expect("a file");
        agent.round(&mut dice);
        assert!(agent.done >= done + 5, "calls are served again when there is room");
    }
    let held = machine.holds(&agent.promised);
    println!("disk: {faults} calls on a full disk, all refused; {held} statements held");
}
