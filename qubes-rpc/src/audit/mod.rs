//! The audit log: one line for each call that reaches the daemon, written before its answer leaves.
//!
//! A service that may change something gets a line before it runs as well; where that cannot be
//! written, it does not run. How the lines hang together is in [`chain`].

mod chain;
mod entry;
mod log;
mod refusals;
mod settings;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    cell::RefCell,
    io,
    path::PathBuf,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};

pub(crate) use self::{
    chain::Head,
    entry::{Entry, Phase, Stored},
    log::{Places, open as open_to_read},
    verify::{VerifyError, verify},
};
use self::{
    entry::Commands,
    log::{Log, SIZE},
    refusals::Refusals,
};
use crate::{journal, paths::Paths, service};

/// Lines are forced to the disk this long after they were written.
const SYNC: Duration = Duration::from_secs(1);
/// Outcomes of which an agent can have any number at no cost.
const CHEAP: [&str; 2] = ["Refused", "Busy"];

/// The log as the daemon writes it. Opened with the first line.
#[derive(Debug)]
pub(crate) struct Audit {
    places: Places,
    settings: PathBuf,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    log: Option<Log>,
    commands: Option<Commands>,
    refusals: Refusals,
    /// Wakes the thread that forces lines to the disk.
    sync: Option<SyncSender<()>>,
}

impl Audit {
    /// The log of this dom0.
    pub(crate) fn of(paths: &Paths) -> Self {
        Self { places: places(paths), settings: paths.settings(), state: RefCell::default() }
    }

    /// Writes down what an admitted call asks for. With an error a call that may change something
    /// must not run.
    pub(crate) fn intend(
        &self,
        entry: &mut Entry,
        service: &service::Entry,
        args: &Map<String, Value>,
        body: usize,
    ) -> io::Result<()> {
        let mut state = self.state.borrow_mut();
        let commands = *state.commands.get_or_insert_with(|| settings::commands(&self.settings));
        entry.ask(args, body, commands);
        if service.read_only {
            return Ok(());
        }
        let intent = Entry { phase: Phase::Intent, ..entry.clone() };
        // What was asked for is told once.
        entry.args.clear();
        entry.bytes_in = None;
        state.append(&self.places, &intent).map(drop)
    }

    /// Writes down what became of a call, unless it is one refusal of many; the chain's head.
    pub(crate) fn tell(&self, entry: &mut Entry, outcome: &str, detail: &str) -> Option<Head> {
        entry.end(outcome, detail);
        let mut state = self.state.borrow_mut();
        if CHEAP.contains(&outcome) && !state.refusals.admit(&entry.agent, Instant::now()) {
            return None;
        }
        state.tell_dropped(&self.places);
        match state.append(&self.places, entry) {
            Ok(head) => Some(head),
            Err(error) => {
                journal::say(&format!("the audit log cannot be written: {error}"));
                None
            }
        }
    }
}

/// Where the log of this dom0 lies.
pub(crate) fn places(paths: &Paths) -> Places {
    Places { log: paths.audit_log(), head: paths.audit_head() }
}

impl State {
    fn append(&mut self, places: &Places, entry: &Entry) -> io::Result<Head> {
        let log = match &mut self.log {
            Some(log) => log,
            None => self.log.insert(Log::open(places.clone(), SIZE)?),
        };
        let appended = log.append(entry);
        if appended.is_err() {
            self.log = None;
        }
        self.force(places);
        appended
    }

    /// Has the log forced to the disk: soon, or now where the system gives no thread for it.
    fn force(&mut self, places: &Places) {
        if self.sync.is_none() {
            self.sync = start_sync(places.clone()).ok();
        }
        if let Some(sync) = &self.sync {
            // A full channel is a thread that is awake already.
            let _awake = sync.try_send(());
        } else {
            self.force_now();
        }
    }

    fn force_now(&self) {
        if let Some(Err(error)) = self.log.as_ref().map(Log::sync) {
            journal::say(&format!("the audit log cannot be forced to the disk: {error}"));
        }
    }

    fn tell_dropped(&mut self, places: &Places) {
        for (agent, dropped) in self.refusals.take_dropped() {
            let line = Entry { phase: Phase::Dropped, agent, dropped, ..Entry::default() };
            if let Err(error) = self.append(places, &line) {
                journal::say(&format!("the audit log cannot be written: {error}"));
            }
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.tell_dropped(&self.places);
        state.force_now();
    }
}

/// A thread, because waiting for the disk would hold up every call.
fn start_sync(places: Places) -> io::Result<SyncSender<()>> {
    let (wake, awake) = sync_channel(1);
    thread::Builder::new().spawn(move || {
        while awake.recv().is_ok() {
            thread::sleep(SYNC);
            for path in [&places.log, &places.head] {
                let synced = std::fs::File::open(path).and_then(|file| file.sync_data());
                // What was moved away was forced to the disk before.
                if let Err(error) = synced
                    && error.kind() != io::ErrorKind::NotFound
                {
                    journal::say(&format!("{}: {error}", path.display()));
                }
            }
        }
    })?;
    Ok(wake)
}

/// Every line that can be read, the oldest first, from all files.
pub(crate) fn read_all(places: &Places, mut take: impl FnMut(Stored)) -> io::Result<()> {
    for path in places.files()? {
        let file = match open_to_read(&path, std::fs::OpenOptions::new().read(true)) {
            // It became older between the list and now, and so was the oldest.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        for line in io::BufRead::split(io::BufReader::new(file), b'\n') {
            if let Some(line) = Stored::parse(&line?) {
                take(line);
            }
        }
    }
    Ok(())
}

/// The chain's head, as its file says.
pub(crate) fn read_head(places: &Places) -> Option<Head> {
    Head::parse(&std::fs::read_to_string(&places.head).ok()?).ok()
}
