//! Many calls from many clients: every answer belongs to its call, and nothing grows.

use std::{thread, time::Instant};

use salt_bridge_sim::Host;
use serde_json::json;

use crate::{
    Extent,
    machine::{Holdings, Machine, Promised, until},
    shim::{Shim, outcome},
};

const CLIENTS: u64 = 16;
/// Calls of one client that are under way at once; all together stay well below what dom0 works on
/// for one agent, since an answered call counts until its connection is closed.
const AT_ONCE: u64 = 2;

/// Runs the part.
pub(crate) fn run(extent: &Extent) {
    let machine = Machine::start(|_| {});
    let host = &machine.host;
    let mut shims: Vec<Shim> = (0..CLIENTS).map(|_| Shim::start(host)).collect();
    // Some calls first, so that what is made once is there.
    calls(&mut shims, 20);
    let before = holdings(host, &shims);
    let began = Instant::now();
    let each = extent.calls / CLIENTS;
    calls(&mut shims, each);
    let took = began.elapsed();
    let after = holdings(host, &shims);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            (after.descriptors, after.threads, after.children),
            (before.descriptors, before.threads, before.children),
            "something leaks"
        );
        // An allocator keeps some of what was freed.
        assert!(after.memory < before.memory + 8 * 1024, "memory grows: {before:?} to {after:?}");
    }
    let (daemon, agent) = (after.first().expect("the daemon"), after.last().expect("an agent"));
    println!(
        "load: {} calls from {CLIENTS} clients, {:.0} a second, one in {COMMANDS} with a command, each with its own \
         answer; daemon {daemon:?}, \
         an agent {agent:?}, both as before",
        each * CLIENTS,
        f64::from(u32::try_from(each * CLIENTS).unwrap_or(u32::MAX)) / took.as_secs_f64()
    );
    drop(shims);
    machine.holds(&Promised::default());
}

/// What the daemon and the agents hold when nothing is under way.
fn holdings(host: &Host, shims: &[Shim]) -> Vec<Holdings> {
    let all = || {
        let agents = shims.iter().map(|shim| Holdings::of(shim.pid()));
        [Holdings::of_daemon(host)].into_iter().chain(agents).collect::<Vec<_>>()
    };
    until("no call is under way", || all().iter().all(|process| process.children == 0));
    all()
}

/// One in so many calls runs a command; the others end in dom0, which names what it refuses.
const COMMANDS: u64 = 10;

/// So many calls of each client, each with a word that its answer has to hold.
fn calls(shims: &mut [Shim], each: u64) {
    thread::scope(|scope| {
        for (client, shim) in shims.iter_mut().enumerate() {
            scope.spawn(move || {
                let (mut sent, mut answered) = (0, 0);
                while answered < each {
                    while sent < each && sent - answered < AT_ONCE {
                        send(shim, client);
                        sent += 1;
                    }
                    let (id, result) = shim.answer();
                    let word = word(client, id);
                    match outcome(result) {
                        Ok(result) if id.is_multiple_of(COMMANDS) => {
                            assert_eq!(result["stdout"], json!(word + "\n"), "a mix-up");
                        }
                        Err(told) if !id.is_multiple_of(COMMANDS) => {
                            assert!(
                                told.contains(&format!("{word:?}")),
                                "{told} is not for {word}"
                            );
                        }
                        other => panic!("{word}: {other:?}"),
                    }
                    answered += 1;
                }
            });
        }
    });
}

/// The word of a call.
fn word(client: usize, id: u64) -> String {
    format!("w{client}-{id}")
}

fn send(shim: &mut Shim, client: usize) {
    let id = shim.next();
    let word = word(client, id);
    if id.is_multiple_of(COMMANDS) {
        let command = format!("echo {word}");
        shim.send("exec_in_vm", &json!({"vm_name": "work", "command": command}));
    } else {
        // No rule has such a key.
        let args = format!("{word}=1");
        shim.send("firewall_add", &json!({"vm_name": "work", "action": "drop", "args": args}));
    }
}
