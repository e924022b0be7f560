//! Where policy's denials are read: from the journal, by a `journalctl` child, or from a file that
//! holds what it printed.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use clap::Args;

use super::denials::Denial;
use crate::{
    error::chain,
    operator::{
        Place,
        systemd::{self, SystemError},
    },
};

const JOURNALCTL: &str = "/usr/bin/journalctl";
/// The unit, as systemd itself writes it down: what a process says of itself does not count.
const UNIT: &str = "_SYSTEMD_UNIT=qubes-qrexec-policy-daemon.service";
/// The longest line that is read, in bytes.
const LINE_BYTES: u64 = 64 * 1024;
/// The most that is read, in bytes, and the most denials that are kept.
const MOST_BYTES: u64 = 256 << 20;
const MOST: usize = 100_000;
/// How many lines may wait to be shown.
const WAITING: usize = 1024;

/// Whether and where policy's own denials are read.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PolicyLog {
    /// Leave out the calls that qrexec's policy denied, which only the journal knows.
    #[arg(long, conflicts_with = "policy_log")]
    no_policy: bool,
    /// Take policy's denials from this file, as journalctl -o json prints it, not from the journal.
    #[arg(long, value_name = "FILE")]
    policy_log: Option<PathBuf>,
}

/// Where there are lines.
enum Source {
    None,
    /// The oldest line first.
    File(PathBuf),
    /// The newest line first.
    Journal,
}

/// Why policy's denials are not shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyLogError {
    /// The file cannot be read.
    #[error("cannot read {}", .0.display())]
    File(PathBuf, #[source] io::Error),
}

impl PolicyLog {
    fn source(&self, place: &Place) -> Source {
        match &self.policy_log {
            Some(path) => Source::File(path.clone()),
            None if self.no_policy => Source::None,
            None if systemd::is_meant(place.paths.root()) => Source::Journal,
            None => {
                left_out("the journal is not read with --root");
                Source::None
            }
        }
    }

    /// The newest denials that are wanted, the oldest first.
    pub(super) fn last(
        &self,
        place: &Place,
        number: usize,
        is_wanted: impl Fn(&Denial) -> bool,
    ) -> Result<Vec<Denial>, PolicyLogError> {
        let number = number.min(MOST);
        match self.source(place) {
            Source::None => Ok(Vec::new()),
            Source::File(path) => {
                let (mut kept, mut cut) = (VecDeque::new(), false);
                let take = |denial| {
                    if is_wanted(&denial) {
                        kept.push_back(denial);
                    }
                    if kept.len() > number {
                        kept.pop_front();
                        cut = true;
                    }
                    true
                };
                File::open(&path)
                    .and_then(|file| each_denial(file, take))
                    .map_err(|error| PolicyLogError::File(path, error))?;
                if cut && number == MOST {
                    tell_cut();
                }
                Ok(kept.into())
            }
            Source::Journal => {
                let read = journal(&["--reverse"])
                    .and_then(|mut child| newest(&mut child, number, is_wanted));
                Ok(read.unwrap_or_else(|error| {
                    left_out(&chain(&error));
                    Vec::new()
                }))
            }
        }
    }

    /// The denials from now on; none where there is no journal.
    pub(super) fn follow(&self, place: &Place) -> Option<Following> {
        if self.no_policy || self.policy_log.is_some() || !systemd::is_meant(place.paths.root()) {
            return None;
        }
        // Where it cannot be had, that has been said before.
        let mut child = journal(&["--follow", "--lines=0"]).ok()?;
        let stdout = child.0.stdout.take()?;
        let (send, denials) = sync_channel(WAITING);
        thread::spawn(move || {
            // The end of either side ends it.
            drop(each_line(stdout, u64::MAX, |line| {
                Denial::parse(line).is_none_or(|denial| send.send(denial).is_ok())
            }));
        });
        Some(Following { denials, _child: child })
    }
}

/// Denials as they come, as long as it lives.
#[derive(Debug)]
pub(super) struct Following {
    denials: Receiver<Denial>,
    _child: Killed,
}

impl Following {
    /// What has come since the last look.
    pub(super) fn new_ones(&self) -> impl Iterator<Item = Denial> {
        self.denials.try_iter()
    }
}

/// A child that ends when nobody reads it any more.
#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed, and leaves only its status.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn journal(how: &[&str]) -> Result<Killed, SystemError> {
    let common = ["--output=json", "--output-fields=MESSAGE", "--quiet", "--no-pager", UNIT];
    let child = systemd::command(JOURNALCTL, &[&common, how].concat())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| SystemError::Run(JOURNALCTL, error))?;
    Ok(Killed(child))
}

fn newest(
    child: &mut Killed,
    number: usize,
    is_wanted: impl Fn(&Denial) -> bool,
) -> Result<Vec<Denial>, SystemError> {
    let mut kept = Vec::new();
    let mut cut = false;
    if let Some(stdout) = child.0.stdout.take().filter(|_| number > 0) {
        let take = |denial| {
            let wanted = is_wanted(&denial);
            cut = wanted && kept.len() == number;
            if wanted && !cut {
                kept.push(denial);
            }
            // Where all are wanted, one more tells that there are more.
            !cut && (kept.len() < number || number == MOST)
        };
        each_denial(stdout, take).map_err(|error| SystemError::Run(JOURNALCTL, error))?;
    }
    if cut && number == MOST {
        tell_cut();
    }
    kept.reverse();
    Ok(kept)
}

/// Hands over denials until there are no more, or none is wanted any more.
fn each_denial(reader: impl Read, mut take: impl FnMut(Denial) -> bool) -> io::Result<()> {
    each_line(reader, MOST_BYTES, |line| Denial::parse(line).is_none_or(&mut take))
}

/// Hands over lines up to so many bytes in all; longer lines than any of policy's are passed over.
fn each_line(reader: impl Read, most: u64, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut reader = BufReader::new(reader.take(most));
    let (mut line, mut is_rest) = (Vec::new(), false);
    loop {
        line.clear();
        if (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            if reader.get_ref().limit() == 0 {
                tell(&format!("only {most} bytes of policy's log were read"));
            }
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n");
        if is_whole && !is_rest && !take(&line) {
            return Ok(());
        }
        is_rest = !is_whole;
    }
}

/// Says once that something is missing from what is shown.
fn left_out(why: &str) {
    tell(&format!("without the calls that qrexec's policy denied: {why}"));
}

/// Says once that what is shown of policy's denials is not all.
fn tell_cut() {
    tell(&format!(
        "only the newest {MOST} calls that qrexec's policy denied are shown; --until shows older ones"
    ));
}

/// Says something about what is shown beside it.
fn tell(sentence: &str) {
    drop(io::stderr().lock().write_all(format!("{sentence}\n").as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_and_the_rest_of_them_are_passed_over() {
        let long = "x".repeat(200_000);
        let text = format!("a\n{long}\nb\n{long}y\nc\nunfinished");
        let mut seen = Vec::new();
        each_line(text.as_bytes(), u64::MAX, |line| {
            seen.push(String::from_utf8_lossy(line).into_owned());
            true
        })
        .unwrap();
        assert_eq!(seen, ["a\n", "b\n", "c\n"]);
        let mut count = 0;
        each_line(text.as_bytes(), 2, |_| {
            count += 1;
            true
        })
        .unwrap();
        assert_eq!(count, 1);
    }
}
