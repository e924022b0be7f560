//! Reads the whole log and finds the first place where the chain does not hold.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    path::PathBuf,
};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use super::{
    chain::{Hash, Head, Link},
    entry::{Phase, Stored},
    log::{Places, open},
};

/// What was found to be whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Whole {
    /// How many lines are there.
    pub(crate) lines: u64,
    /// The number of the first one.
    pub(crate) first: u64,
    /// The number of the last one.
    pub(crate) last: u64,
    /// The last one's hash.
    pub(crate) hash: Hash,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct At {
    /// The file.
    pub(crate) file: PathBuf,
    /// The line in it, from 1.
    pub(crate) line: usize,
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Broken {
    /// Not a line that Salt Bridge wrote.
    #[error("{}:{} is not a line of the log, or not all of it", at.file.display(), at.line)]
    NotALine {
        /// Where.
        at: At,
    },
    /// The line was written otherwise.
    #[error("{}:{}: line {seq} was changed", at.file.display(), at.line)]
    Changed {
        /// Where.
        at: At,
        /// The line's number.
        seq: u64,
    },
    /// Lines were taken out.
    #[error("{}:{}: lines {from} to {to} before it are missing", at.file.display(), at.line)]
    Missing {
        /// The line behind them.
        at: At,
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// A line stands where it does not belong.
    #[error("{}:{}: line {seq} stands in the place of line {wanted}", at.file.display(), at.line)]
    Order {
        /// Where.
        at: At,
        /// The line's number.
        seq: u64,
        /// The number that belongs there.
        wanted: u64,
    },
    /// Lines at the end are missing.
    #[error("the end is cut off: lines {from} to {to} are missing")]
    CutTail {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// The file that names the last line is missing or spoilt, so that a cut tail cannot be seen.
    #[error("the head file is missing or spoilt; compare the last line with the journal")]
    NoHead,
    /// It was so when the daemon went on.
    #[error("{}:{}: the head file was missing or spoilt before line {seq}", at.file.display(), at.line)]
    HeadLost {
        /// The line that says so.
        at: At,
        /// Its number.
        seq: u64,
    },
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// A file cannot be read.
    #[error("cannot read {path}", path = .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// Something is wrong.
    #[error("the audit log does not hold: {0}")]
    Broken(Broken),
}

/// One line as the chain sees it.
struct Seen {
    at: At,
    link: Option<Link>,
    hash: Hash,
    head_lost: bool,
}

/// Verifies everything that is there.
pub(crate) fn verify(places: &Places) -> Result<Whole, VerifyError> {
    let (head, files) = open_all(places)?;
    let mut seen = Vec::new();
    for (path, mut file) in files {
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(|error| VerifyError::Read(path.clone(), error))?;
        for (place, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            let stored = Stored::parse(line).filter(|_| line.ends_with(b"\n"));
            seen.push(Seen {
                at: At { file: path.clone(), line: place + 1 },
                link: stored.as_ref().and_then(|_| Link::parse(line)),
                hash: Hash::of(line),
                head_lost: stored.is_some_and(|line| line.entry.phase == Phase::HeadLost),
            });
        }
    }
    follow(&seen, head).map_err(VerifyError::Broken)
}

/// The head, if it can be read, and the files, the oldest first.
type Opened = (Option<Head>, Vec<(PathBuf, File)>);

/// Opens everything at one moment, between two lines; what is appended later is read as well.
fn open_all(places: &Places) -> Result<Opened, VerifyError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |error| VerifyError::Read(path, error)
    };
    let read = |path: &PathBuf| open(path, OpenOptions::new().read(true));
    let head_file = match read(&places.head) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened.map_err(failed(&places.head))?),
    };
    let mut head = None;
    if let Some(mut file) = head_file.as_ref() {
        flock(file, FlockOperation::LockShared)
            .map_err(|error| failed(&places.head)(error.into()))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed(&places.head))?;
        head = str::from_utf8(&text).ok().and_then(|text| Head::parse(text).ok());
    }
    let mut files = Vec::new();
    for path in places.files().map_err(failed(&places.log))? {
        let file = read(&path).map_err(failed(&path))?;
        files.push((path, file));
    }
    // Never written: nothing was ever logged.
    if head_file.is_none() && files.is_empty() {
        head = Some(Head::EMPTY);
    }
    Ok((head, files))
}

fn follow(seen: &[Seen], head: Option<Head>) -> Result<Whole, Broken> {
    let mut wanted: Option<Link> = None;
    for (place, line) in seen.iter().enumerate() {
        let at = line.at.clone();
        let Some(link) = line.link else { return Err(Broken::NotALine { at }) };
        if let Some(wanted) = wanted {
            let before = place.checked_sub(1).and_then(|before| seen.get(before));
            joined(before, line, link, wanted, seen.get(place + 1), head)?;
        } else if let Some(head) = head.filter(|head| link.seq > head.first) {
            return Err(Broken::Missing { at, from: head.first, to: link.seq - 1 });
        }
        let anchored = head.filter(|head| head.first == link.seq);
        if anchored.is_some_and(|head| head.before != link.prev) {
            return Err(Broken::Changed { at, seq: link.seq });
        }
        if head.is_some_and(|head| head.count == link.seq && head.hash != line.hash) {
            return Err(Broken::Changed { at, seq: link.seq });
        }
        if line.head_lost {
            return Err(Broken::HeadLost { at, seq: link.seq });
        }
        wanted = Some(Link { seq: link.seq + 1, prev: line.hash });
    }
    let Some(head) = head else { return Err(Broken::NoHead) };
    let next = wanted.map_or(head.first, |link| link.seq);
    if next <= head.count {
        return Err(Broken::CutTail { from: next, to: head.count });
    }
    let first = seen.first().and_then(|line| line.link).map_or(head.first, |link| link.seq);
    let hash = seen.last().map_or(head.hash, |line| line.hash);
    let lines = u64::try_from(seen.len()).unwrap_or(u64::MAX);
    Ok(Whole { lines, first, last: next.saturating_sub(1), hash })
}

/// Whether a line follows the one before it; if not, which of the two is not what it was.
fn joined(
    before: Option<&Seen>,
    line: &Seen,
    link: Link,
    wanted: Link,
    next: Option<&Seen>,
    head: Option<Head>,
) -> Result<(), Broken> {
    let at = line.at.clone();
    if link.seq > wanted.seq {
        return Err(Broken::Missing { at, from: wanted.seq, to: link.seq - 1 });
    }
    if link.seq < wanted.seq {
        return Err(Broken::Order { at, seq: link.seq, wanted: wanted.seq });
    }
    if link.prev == wanted.prev {
        return Ok(());
    }
    // The line behind it vouches for it, or the head does: then the one before was changed.
    let vouched = match next {
        Some(next) => next.link.is_some_and(|next| next.prev == line.hash),
        None => head.is_some_and(|head| (head.count, head.hash) == (link.seq, line.hash)),
    };
    match before {
        Some(before) if vouched => {
            Err(Broken::Changed { at: before.at.clone(), seq: link.seq - 1 })
        }
        Some(_) | None => Err(Broken::Changed { at, seq: link.seq }),
    }
}
