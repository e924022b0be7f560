//! The files of the audit log: one that grows, those before it, and the head.
//!
//! Every line is handed to the kernel whole before [`Log::append`] returns, so that the daemon's
//! death loses none; a second thread forces lines to the disk within a second, since waiting for
//! the disk at every call would cost more than the call.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::{
    chain::{Hash, Head, Link},
    entry::{Entry, Phase, render_line},
};
use crate::{replace::sync_folder, times::now_with_milliseconds};

/// How far the log may grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// The most bytes of one file.
    pub(crate) file_bytes: u64,
    /// The most files, the growing one among them.
    pub(crate) files: usize,
}

/// 256 MiB, some 700,000 calls.
pub(crate) const SIZE: Size = Size { file_bytes: 16 << 20, files: 16 };

/// How much of the end of a file is searched for the line that the head names. More than a line.
const TAIL_BYTES: u64 = 256 << 10;

/// Where the log lies.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// The growing file; those before it end in `.1` and so on.
    pub(crate) log: PathBuf,
    /// The file that names the last line.
    pub(crate) head: PathBuf,
}

impl Places {
    fn numbered(&self, number: usize) -> PathBuf {
        let mut path = self.log.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }

    /// The numbers of the files before the growing one, the youngest first.
    fn numbers(&self) -> io::Result<Vec<usize>> {
        let (Some(folder), Some(name)) = (self.log.parent(), self.log.file_name()) else {
            return Ok(Vec::new());
        };
        let prefix = format!("{}.", name.to_string_lossy());
        let mut numbers = Vec::new();
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(numbers),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let number = name.to_string_lossy().strip_prefix(&prefix).map(str::parse::<usize>);
            numbers.extend(number.and_then(Result::ok));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// All files, the oldest first.
    pub(crate) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let numbers = self.numbers()?;
        let older = numbers.into_iter().rev().map(|number| self.numbered(number));
        Ok(older.chain([self.log.clone()]).filter(|path| path.exists()).collect())
    }
}

/// Opens a file that nobody else may have put a link in the place of.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
    options.mode(0o640).custom_flags(flags).open(path)
}

/// The log while it is written.
#[derive(Debug)]
pub(crate) struct Log {
    places: Places,
    size: Size,
    log: File,
    head_file: File,
    head: Head,
    /// What the log and the head looked like after the last line, to see whether somebody else
    /// wrote meanwhile.
    left: Option<(Look, Look)>,
}

/// What tells a file from another and from itself with more in it.
type Look = (u64, u64);

fn look(file: &File) -> io::Result<Look> {
    let status = file.metadata()?;
    Ok((status.ino(), status.len()))
}

fn look_at(path: &Path) -> io::Result<Look> {
    let status = path.symlink_metadata()?;
    Ok((status.ino(), status.len()))
}

impl Log {
    /// Opens the log, which is made when there is none.
    pub(crate) fn open(places: Places, size: Size) -> io::Result<Self> {
        for folder in [places.log.parent(), places.head.parent()].into_iter().flatten() {
            DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        let (log, head_file) = open_both(&places)?;
        Ok(Self { places, size, log, head_file, head: Head::EMPTY, left: None })
    }

    /// Writes a line; the chain's head after it.
    pub(crate) fn append(&mut self, entry: &Entry) -> io::Result<Head> {
        let locked = self.lock()?;
        let written = self.write(entry);
        flock(&locked, FlockOperation::Unlock)?;
        written
    }

    /// Forces everything to the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.log.sync_data()?;
        self.head_file.sync_data()
    }

    /// Takes the lock, which lies on the head's file, and goes on where the chain ends.
    fn lock(&mut self) -> io::Result<File> {
        flock(&self.head_file, FlockOperation::LockExclusive)?;
        let same = self.left.is_some_and(|(log, head)| {
            look_at(&self.places.log).is_ok_and(|now| now == log)
                && look_at(&self.places.head).is_ok_and(|now| now == head)
        });
        if !same || self.read_head() != Some(self.head) {
            (self.log, self.head_file) = open_both(&self.places)?;
            flock(&self.head_file, FlockOperation::LockExclusive)?;
            self.find_end()?;
        }
        self.head_file.try_clone()
    }

    fn read_head(&self) -> Option<Head> {
        let mut bytes = [0; 512];
        let length = self.head_file.read_at(&mut bytes, 0).ok()?;
        Head::parse(str::from_utf8(bytes.get(..length)?).ok()?).ok()
    }

    /// Finds out where the chain goes on. The head decides; lines that are missing before it stay
    /// missing in what `verify` says, since the next line holds the hash of the last one of them.
    fn find_end(&mut self) -> io::Result<()> {
        self.left = None;
        let tail = read_tail(&self.log)?;
        let lines: Vec<&[u8]> = tail.split_inclusive(|byte| *byte == b'\n').collect();
        match self.read_head() {
            Some(head) => self.head = self.adopt(head, &lines)?,
            None if lines.is_empty() && self.places.numbers()?.is_empty() => {
                self.head = Head::EMPTY;
            }
            None => {
                self.head = self.guess(&lines)?;
                let lost = Entry { phase: Phase::HeadLost, ..Entry::default() };
                self.write(&lost)?;
            }
        }
        Ok(())
    }

    /// Takes in lines behind the one that the head names: the daemon died before it named them. A
    /// piece of a line there, whose call was never answered, goes away.
    fn adopt(&self, mut head: Head, lines: &[&[u8]]) -> io::Result<Head> {
        let named = lines.iter().rposition(|line| Hash::of(line) == head.hash);
        let behind = match named {
            Some(place) => lines.get(place + 1..).unwrap_or_default(),
            None if head.count == 0 => lines,
            None => &[],
        };
        let mut whole = behind.iter();
        for line in whole.by_ref() {
            let Some(link) = Link::parse(line).filter(|_| line.ends_with(b"\n")) else {
                break;
            };
            if (link.seq, link.prev) != (head.count + 1, head.hash) {
                return Ok(head);
            }
            head = head.after(line);
        }
        if let Some(piece) = lines.last().filter(|line| !line.ends_with(b"\n")) {
            let healthy = Some(head.hash) == lines.iter().rev().nth(1).map(|line| Hash::of(line))
                || (head.count == 0 && lines.len() == 1);
            if healthy {
                let length = self.log.metadata()?.len();
                let piece = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                self.log.set_len(length.saturating_sub(piece))?;
            } else {
                (&self.log).write_all(b"\n")?;
            }
        }
        Ok(head)
    }

    /// Where to go on without a head: behind the last line that is there.
    fn guess(&self, lines: &[&[u8]]) -> io::Result<Head> {
        let older = match lines.last() {
            Some(_) => Vec::new(),
            None => match self.places.numbers()?.first() {
                Some(number) => read_tail(&open(
                    &self.places.numbered(*number),
                    OpenOptions::new().read(true),
                )?)?,
                None => Vec::new(),
            },
        };
        let last =
            lines.last().copied().or_else(|| older.split_inclusive(|b| *b == b'\n').next_back());
        let mut head = Head::EMPTY;
        if let Some(last) = last {
            let seq = Link::parse(last).map_or(0, |link| link.seq);
            head = Head { count: seq, hash: Hash::of(last), ..head };
            if !last.ends_with(b"\n") {
                (&self.log).write_all(b"\n")?;
            }
        }
        if let Some(oldest) = self.places.files()?.first()
            && let Some(link) = first_link(oldest)?
        {
            head = Head { first: link.seq, before: link.prev, ..head };
        }
        Ok(head)
    }

    fn write(&mut self, entry: &Entry) -> io::Result<Head> {
        let link = Link { seq: self.head.count + 1, prev: self.head.hash };
        let line = render_line(link, &now_with_milliseconds(), entry)?;
        let before = self.log.metadata()?.len();
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if before > 0 && before.saturating_add(length) > self.size.file_bytes {
            self.rotate()?;
        }
        let before = self.log.metadata()?.len();
        self.left = None;
        let after = self.head.after(&line);
        let written = self.log.write_all(&line).and_then(|()| self.write_head(after));
        if let Err(error) = written {
            // Nothing may follow a piece of a line.
            self.log.set_len(before)?;
            self.write_head(self.head)?;
            return Err(error);
        }
        self.head = after;
        self.left = Some((look(&self.log)?, look(&self.head_file)?));
        Ok(after)
    }

    /// One write, shorter than a sector, over the old one of the same length: never half of it.
    fn write_head(&self, head: Head) -> io::Result<()> {
        self.head_file.write_all_at(head.render().as_bytes(), 0)
    }

    /// Moves every file one number up and drops the oldest. The head says first from where the
    /// log is kept then, so that a crash leaves more than it says and never less.
    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let numbers = self.places.numbers()?;
        let kept = self.size.files.saturating_sub(2);
        let (stay, go) = numbers.split_at(kept.min(numbers.len()));
        if !go.is_empty() {
            let oldest = stay
                .last()
                .map_or_else(|| self.places.log.clone(), |number| self.places.numbered(*number));
            let spoilt =
                || io::Error::other(format!("{} is spoilt; move it away", oldest.display()));
            let link = first_link(&oldest)?.ok_or_else(spoilt)?;
            self.head = Head { first: link.seq, before: link.prev, ..self.head };
            self.write_head(self.head)?;
            self.head_file.sync_data()?;
        }
        for number in go {
            fs::remove_file(self.places.numbered(*number))?;
        }
        for number in stay.iter().rev() {
            fs::rename(self.places.numbered(*number), self.places.numbered(number + 1))?;
        }
        fs::rename(&self.places.log, self.places.numbered(1))?;
        if let Some(folder) = self.places.log.parent() {
            sync_folder(folder)?;
        }
        self.log = open(&self.places.log, OpenOptions::new().append(true).read(true).create(true))?;
        Ok(())
    }
}

fn open_both(places: &Places) -> io::Result<(File, File)> {
    let log = open(&places.log, OpenOptions::new().append(true).read(true).create(true))?;
    let head = open(&places.head, OpenOptions::new().read(true).write(true).create(true))?;
    Ok((log, head))
}

/// The last lines of a file, without the piece of a line at their beginning.
fn read_tail(mut file: &File) -> io::Result<Vec<u8>> {
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES * 2).read_to_end(&mut tail)?;
    if start > 0 {
        let cut = tail.iter().position(|byte| *byte == b'\n').map_or(tail.len(), |end| end + 1);
        tail.drain(..cut);
    }
    Ok(tail)
}

/// The first line's place in the chain.
fn first_link(path: &Path) -> io::Result<Option<Link>> {
    let file = open(path, OpenOptions::new().read(true))?;
    let mut line = Vec::new();
    io::BufRead::read_until(&mut io::BufReader::new(file), b'\n', &mut line)?;
    Ok(Link::parse(&line))
}
