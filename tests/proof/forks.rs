//! A dom0 that gives the daemon no process and no thread: calls fail with a sentence, all others go
//! on, and the daemon stays. strace makes the system calls fail.

use std::process::Command;

use salt_bridge_sim::Daemon;
use serde_json::json;

use crate::{
    Extent,
    machine::{Agent, Dice, Holdings, Machine, start_daemons_by},
};

/// Which processes and threads are refused, as strace counts them.
const REFUSED: [&str; 6] = ["1+", "1+2", "2+2", "1+3", "2+3", "3+3"];
/// What the caller may be told of it.
const SENTENCES: [&str; 2] =
    ["qrexec-client cannot be started in dom0", "dom0 has no thread to spare"];

/// Runs the part.
pub(crate) fn run(extent: &Extent) {
    if !can_trace() {
        println!("forks: not made here: strace is not installed, or may not trace");
        return;
    }
    let (mut done, mut held, mut told) = (0, 0, [0; SENTENCES.len()]);
    for refused in REFUSED {
        let machine = Machine::start(|host| {
            start_daemons_by(
                host,
                &format!(
                    "exec strace -D -qq -o /dev/null -e trace=clone,clone3,fork,vfork \
                     -e inject=clone,clone3,fork,vfork:error=EAGAIN:when={refused} \"$@\""
                ),
            );
        });
        let daemon = machine.host.daemon_pid(Daemon::Serve);
        let mut dice = Dice::new(extent.seed);
        let mut agent = Agent::start(&machine.host, "f");
        agent.round(&mut dice);
        let quiet = Holdings::of_daemon(&machine.host);
        for _ in 0..3 * extent.rounds {
            let before = agent.done;
            agent.round(&mut dice);
            assert!(agent.done >= before + 3, "what takes no process fails, too");
            if let Some(why) = edit(&mut agent) {
                told[why] += 1;
            }
        }
        assert_eq!(machine.host.daemon_pid(Daemon::Serve), daemon, "the daemon ended");
        Holdings::of_daemon(&machine.host).assert_none_left_since(&quiet);
        done += agent.done;
        held += machine.holds(&agent.promised);
    }
    assert!(!told.contains(&0), "not everything was refused: {told:?}");
    let [processes, threads] = told;
    println!(
        "forks: {done} calls done; of edits {processes} refused for want of a process, {threads} of a thread; \
         {held} statements held"
    );
}

/// A file written and then edited, which takes a process for each and a thread: which sentence told
/// that there was none.
fn edit(agent: &mut Agent) -> Option<usize> {
    let write = json!({"vm_name": "work", "file_path": "text", "content": "one"});
    let edits = json!([{"old": "one", "new": "two"}]);
    let edit = json!({"vm_name": "work", "file_path": "text", "edits": edits});
    for (tool, call) in [("write_file_in_vm", write), ("edit_file_in_vm", edit)] {
        if let Err(sentence) = agent.shim.call(tool, &call) {
            let known = SENTENCES.iter().position(|known| sentence.contains(known));
            return Some(known.unwrap_or_else(|| panic!("{tool}: {sentence}")));
        }
    }
    None
}

fn can_trace() -> bool {
    #[expect(clippy::disallowed_methods, reason = "strace is a program of the machine")]
    let mut command = Command::new("strace");
    command.args(["-D", "-qq", "-o", "/dev/null", "-e", "trace=none", "true"]);
    command.output().is_ok_and(|output| output.status.success())
}
