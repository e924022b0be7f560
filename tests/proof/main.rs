//! Salt Bridge under faults, under kills and under load, on simulated hosts: what was acknowledged is
//! there, nothing is wider than granted, nothing is left running, and the audit log holds.
//!
//! `cargo test -p salt-bridge-sim --test proof` takes seconds;
//! `cargo test --release -p salt-bridge-sim --test proof -- --long` kills 1,000 times and makes 100,000
//! calls. A word (`faults`, `forks`, `disk`, `clock`, `kills`, `load`, `day`) runs that part alone; `--seed N`
//! repeats a run; `--under LINE` has the daemons of `day` started by a line of bash with `"$@"` in it.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test program without the harness: it ends where something does not hold"
)]

mod clock;
mod day;
mod disk;
mod faults;
mod forks;
mod kills;
mod load;
mod machine;
mod shim;

use std::time::{Instant, SystemTime};

/// How much is done.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Rounds of calls under each fault.
    pub(crate) rounds: u32,
    /// Kills of the daemon.
    pub(crate) kills: u32,
    /// Calls under load.
    pub(crate) calls: u64,
    /// What every choice follows from.
    pub(crate) seed: u64,
    /// The line of bash that starts the daemons, if it is not for the host to do.
    pub(crate) under: Option<String>,
}

type Part = (&'static str, fn(&Extent));

const PARTS: [Part; 7] = [
    ("day", day::run),
    ("faults", faults::run),
    ("forks", forks::run),
    ("disk", disk::run),
    ("clock", clock::run),
    ("kills", kills::run),
    ("load", load::run),
];

fn main() {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = clock.map_or(1, |time| time.as_secs());
    let mut extent = Extent { rounds: 1, kills: 10, calls: 1600, seed, under: None };
    let (mut words, mut arguments) = (Vec::new(), std::env::args().skip(1));
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--long" => extent = Extent { rounds: 20, kills: 1000, calls: 100_000, ..extent },
            "--seed" => {
                let number = arguments.next().and_then(|text| text.parse().ok());
                extent.seed = number.expect("--seed takes a number");
            }
            "--under" => extent.under = arguments.next(),
            word if !word.starts_with('-') => words.push(argument),
            // What the usual harness would take.
            _ => {}
        }
    }
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    for (name, part) in PARTS.into_iter().filter(|(name, _)| wanted(name)) {
        println!("{name}: seed {}", extent.seed);
        let began = Instant::now();
        part(&extent);
        println!("{name}: holds, {:.1} s", began.elapsed().as_secs_f64());
    }
}
