//! The daemon killed at random while agents make calls of all kinds, and callers killed as well.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use salt_bridge_sim::{Daemon, Host};

use crate::{
    Extent,
    machine::{Agent, Dice, Machine, Promised},
};

const AGENTS: u64 = 4;

/// Runs the part.
pub(crate) fn run(extent: &Extent) {
    let machine = Machine::start(|_| {});
    let stop = AtomicBool::new(false);
    let (mut promised, mut done, mut failed, mut callers) = (Promised::default(), 0, 0, 0);
    thread::scope(|scope| {
        let (host, stop) = (&machine.host, &stop);
        let agents: Vec<_> = (0..AGENTS)
            .map(|place| {
                scope.spawn(move || {
                    let mut dice = Dice::new(extent.seed + 1 + place);
                    let mut agent = Agent::start(host, &format!("k{place}"));
                    while !stop.load(Ordering::Relaxed) {
                        agent.step(&mut dice);
                    }
                    (agent.promised, agent.done, agent.failed)
                })
            })
            .collect();
        let hang_ups = scope.spawn(move || hang_up(host, stop, extent.seed));
        let mut dice = Dice::new(extent.seed);
        for _ in 0..extent.kills {
            thread::sleep(Duration::from_millis(10 + dice.below(240)));
            host.kill_daemon(Daemon::Serve).expect("a kill");
            host.start_daemon(Daemon::Serve, &[]).expect("the daemon starts again");
        }
        stop.store(true, Ordering::Relaxed);
        for agent in agents {
            let (told, did, not) = agent.join().expect("an agent");
            promised.merge(told);
            done += did;
            failed += not;
        }
        callers = hang_ups.join().expect("callers");
    });
    let held = machine.holds(&promised);
    println!(
        "kills: {} of the daemon and {callers} of callers, {done} calls done and {failed} failed or refused, \
         {held} statements held",
        extent.kills
    );
}

/// Callers that are killed while their command runs.
fn hang_up(host: &Host, stop: &AtomicBool, seed: u64) -> u64 {
    let (mut dice, mut callers) = (Dice::new(seed + 99), 0);
    while !stop.load(Ordering::Relaxed) {
        #[expect(clippy::disallowed_methods, reason = "the older program's way in")]
        let mut caller = Command::new(host.layout().program("qrexec-client-vm"))
            .args(["dom0", "saltbridge.VmExec+work"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("qrexec-client-vm");
        if let Some(stdin) = caller.stdin.as_mut() {
            // A caller of a dead daemon has no reader.
            let request = b"{\"cmd\": \"setsid sleep 9999 & sleep 9999\"}\n";
            drop(std::io::Write::write_all(stdin, request));
        }
        thread::sleep(Duration::from_millis(dice.below(80)));
        caller.kill().expect("a kill");
        caller.wait().expect("an end");
        callers += 1;
    }
    callers
}
