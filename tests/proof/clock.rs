//! The daemon's clock set forward and back, by libfaketime, while agents make calls: what has ended
//! stays so, what will end ends in time, and everything else goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use policy::Until;
use salt_bridge_sim::{Daemon, Host, Population};
use serde_json::{Value, json};

use crate::{
    Extent,
    machine::{Agent, Dice, Machine, Promised, start_daemons_by, until},
    shim::{Shim, outcome},
};

/// Where distributions put it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
];
const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;
/// What the daemon's clock is off by, in seconds; the last leads to about 1972.
const STEPS: [i64; 9] = [0, 1, -1, HOUR, -HOUR, YEAR, -YEAR, 70 * YEAR, -54 * YEAR];

/// The file that says by how many seconds the clock of a host's daemons is off.
struct Clock(PathBuf);

impl Clock {
    fn of(host: &Host) -> Self {
        Self(host.layout().dir().join("clock"))
    }

    fn set(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("a file");
        fs::rename(&new, &self.0).expect("a file");
    }

    /// Has the daemons of a host go by this clock.
    fn prepare(host: &Host, library: &Path) {
        let clock = Self::of(host);
        clock.set(0);
        let (file, library) = (clock.0.to_string_lossy(), library.to_string_lossy());
        start_daemons_by(
            host,
            &format!(
                "exec env LD_PRELOAD='{library}' FAKETIME_TIMESTAMP_FILE='{file}' FAKETIME_NO_CACHE=1 \
                 FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1 \"$@\""
            ),
        );
    }
}

/// Runs the part.
pub(crate) fn run(extent: &Extent) {
    let Some(library) = LIBRARIES.iter().map(Path::new).find(|path| path.exists()) else {
        println!("clock: not made here: libfaketime is not installed");
        return;
    };
    let mut held = grants(library);
    let (steps, calls, more) = work(library, extent);
    held += more;
    println!("clock: {steps} steps, {calls} calls done meanwhile, {held} statements held");
}

/// A call on a qube, and whether it was done.
fn reaches(shim: &mut Shim, qube: &str) -> bool {
    shim.call("exec_in_vm", &json!({"vm_name": qube, "command": "true"})).is_ok()
}

fn text(seconds: u64) -> String {
    let moment = SystemTime::now() + Duration::from_secs(seconds);
    format!(
        "@agent salt-bridge\nwork until={}\ndev\ntest see\n",
        Until::from_time(moment).expect("a moment that can be written")
    )
}

/// Grants that end, by the clock and against it.
fn grants(library: &Path) -> usize {
    let scope = text(3600);
    let machine =
        Machine::start_with(&scope, Population::default(), |host| Clock::prepare(host, library));
    let (host, clock) = (&machine.host, Clock::of(&machine.host));
    let mut shim = Shim::start(host);
    assert!(reaches(&mut shim, "work") && reaches(&mut shim, "dev"), "they are granted");
    let endless = json!({"vm_name": "work", "command": "sleep 9999"});
    shim.call("start_job", &endless).expect("a job");
    let under_way = shim.send(
        "exec_in_vm",
        &json!({"vm_name": "work",
        "command": "echo begun > begun; sleep 9999", "timeout_seconds": 3000}),
    );
    let begun = host.layout().qube_root("work").join("home/user/begun");
    until("the command runs", || begun.exists());
    clock.set(2 * HOUR);
    let (id, answer) = shim.answer();
    assert!(id == under_way && outcome(answer).is_err(), "it went on behind the end of its grant");
    until("the job ends with its grant", || {
        host.processes("work").is_ok_and(|left| left.is_empty())
    });
    assert!(!reaches(&mut shim, "work") && reaches(&mut shim, "dev"), "one of both has ended");
    for back in [0, -1, -HOUR, -YEAR] {
        clock.set(back);
        assert!(!reaches(&mut shim, "work"), "a grant that had ended came back");
        assert!(reaches(&mut shim, "dev"), "what does not end goes on");
    }
    // A daemon that starts has only the clock to go by.
    clock.set(0);
    host.start_daemon(Daemon::Serve, &[]).expect("the daemon");
    assert!(reaches(&mut shim, "work"), "the end has not come yet");
    clock.set(-YEAR);
    assert!(reaches(&mut shim, "work"), "the end has not come yet");
    host.set_scope(&text(5)).expect("the operator's file");
    until("a grant ends in time with the clock set back", || !reaches(&mut shim, "work"));
    host.set_scope(&scope).expect("the operator's file");
    clock.set(0);
    drop(shim);
    fs::remove_file(begun).expect("a file");
    16 + machine.holds(&Promised::default())
}

/// Calls of all kinds while the clock is set to and fro.
fn work(library: &Path, extent: &Extent) -> (u32, u64, usize) {
    let machine = Machine::start(|host| Clock::prepare(host, library));
    let clock = Clock::of(&machine.host);
    let mut dice = Dice::new(extent.seed);
    let mut agent = Agent::start(&machine.host, "c");
    let endless = json!({"vm_name": "dev", "command": "echo begun; sleep 9999"});
    let job = agent.shim.call("start_job", &endless).expect("a job");
    let mut steps = 0;
    for _ in 0..extent.rounds {
        let first = usize::try_from(dice.below(9)).unwrap_or_default();
        for offset in STEPS.iter().cycle().skip(first).take(STEPS.len()) {
            clock.set(*offset);
            steps += 1;
            let before = agent.done;
            agent.round(&mut dice);
            assert!(agent.done >= before + 5, "calls fail with the clock off by {offset} s");
            let listed = agent.shim.call("list_jobs", &json!({})).expect("the jobs");
            assert_eq!(listed["jobs"][0]["state"], json!("running"), "with {offset} s: {listed}");
        }
        // The next daemon goes on in the same log and the same ledger, whatever its clock says.
        let offset = usize::try_from(dice.below(9)).unwrap_or_default();
        clock.set(STEPS[offset]);
        steps += 1;
        machine.host.start_daemon(Daemon::Serve, &[]).expect("the daemon");
    }
    let mut call = json!({"vm_name": "dev", "handle": job["handle"], "from": 0});
    let output = agent.shim.call("job_output", &call).expect("its output");
    assert_eq!(output["output"], json!("begun\n"), "the job's output is another");
    call = json!({"vm_name": "dev", "handle": job["handle"], "forget": Value::Bool(true)});
    agent.shim.call("stop_job", &call).expect("it stops");
    (steps, agent.done, machine.holds(&agent.promised))
}
