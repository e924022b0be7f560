//! Lines that match in a qube's files, told by its `grep` and read here as hostile bytes.

use bytes::Bytes;
use contract::{Stream, limits};
use tokio_util::sync::CancellationToken;

use super::{
    Body, Ended, FileFailure, Output, OutputGone, Place, RunError, Runner, Script, failure::Report,
    write::flag,
};

/// The most bytes of one line that are told.
const LINE_BYTES: usize = 1000;
/// The most bytes of paths and lines that are told of one answer.
const FOUND_BYTES: usize = 256 * 1024;
/// What a line takes besides its path and text: a qube may send empty ones without end.
const LINE_COST: usize = 64;
/// The most digits of a line's number.
const NUMBER_BYTES: usize = 20;

/// What is searched for, and where.
#[derive(Clone, Copy, Debug)]
pub struct FileSearch<'a> {
    /// A file or a directory: any bytes but NUL. A relative path is relative to the user's home.
    pub path: &'a [u8],
    /// An extended regular expression, or a text.
    pub pattern: &'a [u8],
    /// The pattern is a text.
    pub fixed: bool,
    /// ASCII letters match their other case too.
    pub ignore_case: bool,
    /// Only files whose names match this glob.
    pub glob: &'a [u8],
    /// How many lines around each match are told.
    pub context: u64,
    /// How many matches are left out first.
    pub offset: u64,
    /// How many are told at most.
    pub limit: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Lines in the order of `grep`.
    pub lines: Vec<FoundLine>,
    /// How many of them are matches.
    pub matches: u64,
    /// The search was ended, because there is more than may be told.
    pub more: bool,
    /// Some files could not be read.
    pub unreadable: bool,
    /// The time was over before all was searched.
    pub timed_out: bool,
}

/// A line of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundLine {
    /// The absolute path of the file.
    pub path: Vec<u8>,
    /// The line's number, counted from 1.
    pub number: u64,
    /// The line without its newline, or its beginning.
    pub text: Vec<u8>,
    /// How many bytes of the line are left out.
    pub omitted: u64,
    /// It only stands near a match.
    pub context: bool,
}

impl Runner {
    /// Searches files. A search that takes too long tells what it has found. Cancellation as in
    /// [`Self::command`].
    pub async fn search_files(
        &self,
        place: Place<'_>,
        search: FileSearch<'_>,
        cancel: &CancellationToken,
    ) -> Result<Found, FileFailure> {
        let context = match search.context {
            0 => String::new(),
            lines => lines.to_string(),
        };
        let script = Script {
            text: include_str!("search_files.sh"),
            variables: &[
                ("path", search.path),
                ("pattern", search.pattern),
                ("fixed", flag(search.fixed)),
                ("ignore_case", flag(search.ignore_case)),
                ("glob", search.glob),
                ("context", context.as_bytes()),
            ],
        };
        let mut lines = Lines::new(search.offset, search.limit);
        let mut report = Report::new(&mut lines);
        let ended = self.script(place, script, Body::empty(), &mut report, cancel).await;
        if let Some(said) = report.note("pattern") {
            let reason = said.trim().trim_start_matches("grep: ").to_owned();
            return Err(FileFailure::Pattern { reason });
        }
        let unreadable = report.note("unreadable").is_some();
        let timed_out = matches!(ended, Ok(Ended::TimedOut));
        let concluded = report.conclude(ended);
        if lines.garbled {
            return Err(RunError::Garbled.into());
        }
        // The end of a search that was cut is that it was stopped.
        if !lines.found.more && !timed_out {
            concluded?;
        }
        Ok(Found { unreadable, timed_out, ..lines.found })
    }
}

/// Where in a record the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Path,
    Number,
    Text,
}

/// Takes `grep`'s lines apart as they come, and keeps no more than may be told.
#[derive(Debug)]
struct Lines {
    skip: u64,
    limit: u64,
    found: Found,
    kept_bytes: usize,
    within: Within,
    number: Vec<u8>,
    line: FoundLine,
    garbled: bool,
}

impl Lines {
    fn new(skip: u64, limit: u64) -> Self {
        Self {
            skip,
            limit,
            found: Found::default(),
            kept_bytes: 0,
            within: Within::Path,
            number: Vec::new(),
            line: FoundLine::default(),
            garbled: false,
        }
    }

    /// Nothing where this is not what `grep` writes, or there is more than may be told.
    fn take(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            bytes = match self.within {
                Within::Path => self.path(bytes)?,
                Within::Number => self.number(bytes)?,
                Within::Text => self.text(bytes)?,
            };
        }
        Some(())
    }

    fn path<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let end = memchr::memchr(0, bytes);
        let (piece, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len()))?;
        self.line.path.extend_from_slice(piece);
        // Between groups of lines stands a line of its own; paths begin with a slash.
        while self.line.path.starts_with(b"--\n") {
            self.line.path.drain(..3);
        }
        if self.line.path.len() > 2 * limits::PATH_BYTES {
            return self.garble();
        }
        if end.is_some() {
            if !self.line.path.starts_with(b"/") {
                return self.garble();
            }
            self.within = Within::Number;
            return rest.get(1..);
        }
        Some(rest)
    }

    fn number<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (first, rest) = bytes.split_first()?;
        match first {
            b'0'..=b'9' if self.number.len() < NUMBER_BYTES => self.number.push(*first),
            b':' | b'-' => {
                let number = std::mem::take(&mut self.number);
                let Ok(number) = String::from_utf8_lossy(&number).parse() else {
                    return self.garble();
                };
                self.line.number = number;
                self.line.context = *first == b'-';
                self.within = Within::Text;
            }
            _ => return self.garble(),
        }
        Some(rest)
    }

    fn text<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let end = memchr::memchr(b'\n', bytes);
        let (piece, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len()))?;
        let room = LINE_BYTES.saturating_sub(self.line.text.len());
        let kept = piece.get(..room).unwrap_or(piece);
        self.line.text.extend_from_slice(kept);
        let omitted = u64::try_from(piece.len() - kept.len()).unwrap_or(u64::MAX);
        self.line.omitted = self.line.omitted.saturating_add(omitted);
        if end.is_none() {
            return Some(rest);
        }
        self.within = Within::Path;
        let line = std::mem::take(&mut self.line);
        self.keep(line)?;
        rest.get(1..)
    }

    fn keep(&mut self, line: FoundLine) -> Option<()> {
        if !line.context && self.skip > 0 {
            self.skip -= 1;
            return Some(());
        }
        if self.skip > 0 {
            return Some(());
        }
        let cost = LINE_COST + line.path.len() + line.text.len();
        self.kept_bytes = self.kept_bytes.saturating_add(cost);
        let full = !line.context && self.found.matches >= self.limit;
        if full || self.kept_bytes > FOUND_BYTES {
            self.found.more = true;
            return None;
        }
        self.found.matches += u64::from(!line.context);
        self.found.lines.push(line);
        Some(())
    }

    fn garble<T>(&mut self) -> Option<T> {
        self.garbled = true;
        None
    }
}

impl Output for Lines {
    async fn bytes(&mut self, _stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        self.take(&bytes).ok_or(OutputGone)
    }
}

/// Reads whatever a qube may send, whole and byte by byte, and asserts that both give the same and that
/// little is kept.
pub fn fuzz_found_lines(input: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut lines = Lines::new(1, 20);
        for piece in pieces {
            if lines.take(piece).is_none() {
                break;
            }
        }
        (lines.found, lines.garbled)
    };
    let whole = read(&mut std::iter::once(input));
    let single = read(&mut input.chunks(1));
    assert!(whole == single, "the split of reads shows");
    let bytes: usize = whole.0.lines.iter().map(|line| line.path.len() + line.text.len()).sum();
    assert!(bytes <= FOUND_BYTES && whole.0.matches <= 20, "too much is kept");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(path: &[u8], number: u64, text: &[u8], context: bool) -> FoundLine {
        FoundLine { path: path.into(), number, text: text.into(), omitted: 0, context }
    }

    #[test]
    fn lines_of_any_name_are_told_apart() {
        let mut lines = Lines::new(0, 9);
        let said = b"/a\nb\x003-before\n/a\nb\x004:it: - is\n--\n/c\x0012:\n";
        lines.take(said).unwrap();
        let expected = [
            line(b"/a\nb", 3, b"before", true),
            line(b"/a\nb", 4, b"it: - is", false),
            line(b"/c", 12, b"", false),
        ];
        assert_eq!((lines.found.lines.as_slice(), lines.found.matches), (&expected[..], 2));
    }

    #[test]
    fn matches_are_skipped_and_ended_by_number() {
        let mut lines = Lines::new(1, 1);
        assert_eq!(lines.take(b"/a\x001:x\n/a\x002:y\n/a\x003:z\n/a\x004:z\n"), None);
        assert_eq!(lines.found.lines, [line(b"/a", 2, b"y", false)]);
        assert!(lines.found.more && !lines.garbled);
    }

    #[test]
    fn an_endless_line_is_kept_to_its_limit_and_an_endless_path_is_no_answer() {
        let mut lines = Lines::new(0, 9);
        lines.take(b"/a\x001:").unwrap();
        for _ in 0..100 {
            lines.take(&[b'x'; 10_000]).unwrap();
        }
        lines.take(b"\n").unwrap();
        let told = &lines.found.lines[0];
        assert_eq!((told.text.len(), told.omitted), (LINE_BYTES, 999_000));
        let mut lines = Lines::new(0, 9);
        assert!(lines.take(&[b'/'; 9000]).is_none() && lines.garbled);
        for bad in [&b"a\x001:x\n"[..], b"/a\0x:1\n", b"/a\0:x\n", b"/a\0999999999999999999999:x\n"]
        {
            let mut lines = Lines::new(0, 9);
            assert!(lines.take(bad).is_none() && lines.garbled, "{bad:?}");
        }
    }

    #[test]
    fn lines_without_any_text_are_not_kept_without_end() {
        let mut lines = Lines::new(0, 50);
        while lines.take(b"/\x001-\n").is_some() {
            assert!(lines.found.lines.len() <= FOUND_BYTES / LINE_COST);
        }
        assert!(lines.found.more && !lines.garbled);
    }

    proptest! {
        #[test]
        fn no_bytes_confuse_the_reader(pieces in prop::collection::vec(prop::sample::select(vec![
            "/a", "--\n", "--", "-", "\0", "12", ":", "text", "\n", "/a\x007:text\n", "/b\x008-c\n", "é",
        ]), 0..40)) {
            fuzz_found_lines(pieces.concat().as_bytes());
        }
    }
}
