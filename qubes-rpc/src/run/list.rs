//! What a directory in a qube holds, told by its `find` and read here as hostile bytes.

use bytes::Bytes;
use contract::{Stream, limits};
use tokio_util::sync::CancellationToken;

use super::{
    Body, FileFailure, Output, OutputGone, Place, RunError, Runner, Script, failure::Report,
};

/// The longest record: a path and a target of the greatest length, and what stands between them.
const RECORD_BYTES: usize = 3 * limits::PATH_BYTES + 128;
/// The most bytes of records that are kept of one answer.
const LISTING_BYTES: usize = 256 * 1024;

/// Which part of which directory.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryList<'a> {
    /// Any bytes but NUL. A relative path is relative to the user's home. A symlink is followed.
    pub path: &'a [u8],
    /// How many levels below the directory; 1 for what stands in it.
    pub depth: u32,
    /// How many entries are left out first, in the order of the bytes of their paths.
    pub offset: u64,
    /// How many are told at most.
    pub limit: u64,
}

/// Part of what a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryListing {
    /// The entries from the offset on. Fewer than the limit where they are long.
    pub entries: Vec<DirectoryEntry>,
    /// How many there are in all, as the qube counts.
    pub total: u64,
    /// Some directories below could not be read.
    pub unreadable: bool,
}

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Its path within the directory.
    pub path: Vec<u8>,
    /// The letter that `find` has for its type.
    pub kind: u8,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// When its content was changed, in seconds since 1970.
    pub modified: i64,
    /// Where a symlink leads.
    pub target: Vec<u8>,
}

impl DirectoryEntry {
    /// Reads a record without its NUL.
    fn parse(record: &[u8]) -> Option<Self> {
        let behind = memchr::memmem::find(record, b"//")?;
        let (path, rest) = record.split_at_checked(behind)?;
        let mut words = rest.get(2..)?.splitn(5, |byte| *byte == b' ');
        let mut word = || words.next();
        let [kind] = *word()? else { return None };
        let mut number = || std::str::from_utf8(word()?).ok();
        let size = number()?.parse().ok()?;
        let mode = u32::from_str_radix(number()?, 8).ok().filter(|mode| *mode <= 0o7777)?;
        let seconds = number()?;
        let modified = seconds.split_once('.').map_or(seconds, |(whole, _)| whole).parse().ok()?;
        let target = words.next()?.to_vec();
        let named = !path.is_empty() && path.len() <= limits::PATH_BYTES;
        named.then(|| Self { path: path.to_vec(), kind, size, mode, modified, target })
    }

    #[cfg(test)]
    fn render(&self) -> Vec<u8> {
        let Self { path, kind, size, mode, modified, target } = self;
        let between = format!("//{} {size} {mode:o} {modified}.5 ", char::from(*kind));
        [path, between.as_bytes(), target].concat()
    }
}

impl Runner {
    /// Lists a directory. Cancellation as in [`Self::command`].
    pub async fn list_directory(
        &self,
        place: Place<'_>,
        list: DirectoryList<'_>,
        cancel: &CancellationToken,
    ) -> Result<DirectoryListing, FileFailure> {
        let first = list.offset.saturating_add(1).to_string();
        let last = list.offset.saturating_add(list.limit).to_string();
        let depth = list.depth.to_string();
        let script = Script {
            text: include_str!("list_directory.sh"),
            variables: &[
                ("path", list.path),
                ("depth", depth.as_bytes()),
                ("first", first.as_bytes()),
                ("last", last.as_bytes()),
            ],
        };
        let mut records = Records::new(list.limit);
        let mut report = Report::new(&mut records);
        let ended = self.script(place, script, Body::empty(), &mut report, cancel).await;
        let unreadable = report.note("unreadable").is_some();
        let concluded = report.conclude(ended);
        if records.garbled {
            return Err(RunError::Garbled.into());
        }
        concluded?;
        let (entries, total) = records.finish().ok_or(RunError::Garbled)?;
        Ok(DirectoryListing { entries, total, unreadable })
    }
}

/// Takes records apart as they come. What a qube sends too much of is dropped, never kept.
#[derive(Debug)]
struct Records {
    /// How many there may be.
    limit: u64,
    entries: Vec<DirectoryEntry>,
    seen: u64,
    kept_bytes: usize,
    begun: Vec<u8>,
    total: Option<u64>,
    garbled: bool,
}

impl Records {
    fn new(limit: u64) -> Self {
        Self {
            limit,
            entries: Vec::new(),
            seen: 0,
            kept_bytes: 0,
            begun: Vec::new(),
            total: None,
            garbled: false,
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Option<()> {
        while let Some(end) = memchr::memchr(0, bytes) {
            let (piece, rest) = bytes.split_at_checked(end)?;
            self.begin(piece)?;
            bytes = rest.get(1..)?;
            let record = std::mem::take(&mut self.begun);
            if self.total.is_some() {
                return None;
            }
            if let Some(total) = parse_count(&record) {
                self.total = Some(total);
                continue;
            }
            let entry = DirectoryEntry::parse(&record)?;
            self.seen += 1;
            self.kept_bytes = self.kept_bytes.saturating_add(record.len());
            if self.seen > self.limit {
                return None;
            }
            if self.kept_bytes <= LISTING_BYTES {
                self.entries.push(entry);
            }
        }
        self.begin(bytes)
    }

    fn begin(&mut self, piece: &[u8]) -> Option<()> {
        self.begun.extend_from_slice(piece);
        (self.begun.len() <= RECORD_BYTES).then_some(())
    }

    /// The entries, and how many there are in all; nothing where the count is not there or a lie.
    fn finish(self) -> Option<(Vec<DirectoryEntry>, u64)> {
        let total = match (self.total, self.begun.as_slice()) {
            (Some(total), b"") => total,
            (None, b"") => 0,
            // Some releases of sed end the count with a newline, others with a NUL.
            (None, count) => parse_count(count.strip_suffix(b"\n")?)?,
            (Some(_), _) => return None,
        };
        (self.seen <= total).then_some((self.entries, total))
    }
}

fn parse_count(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

impl Output for Records {
    async fn bytes(&mut self, _stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        if self.take(&bytes).is_none() {
            self.garbled = true;
            return Err(OutputGone);
        }
        Ok(())
    }
}

/// Reads whatever a qube may send, whole and byte by byte, and asserts that both give the same and that
/// little is kept.
pub fn fuzz_directory_records(input: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut records = Records::new(50);
        for piece in pieces {
            records.take(piece)?;
            assert!(records.begun.len() <= RECORD_BYTES, "an endless record is kept");
        }
        records.finish()
    };
    let whole = read(&mut std::iter::once(input));
    let single = read(&mut input.chunks(1));
    assert!(whole == single, "the split of reads shows");
    let kept = whole.iter().flat_map(|(entries, _)| entries);
    let bytes: usize = kept.map(|entry| entry.path.len() + entry.target.len()).sum();
    assert!(bytes <= LISTING_BYTES, "too much is kept");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_is_a_path_and_what_find_says_of_it() {
        let entry =
            DirectoryEntry::parse(b"a/b \n//l 4 777 1000000000.1234567890 ../x y\n").unwrap();
        let expected = DirectoryEntry {
            path: b"a/b \n".into(),
            kind: b'l',
            size: 4,
            mode: 0o777,
            modified: 1_000_000_000,
            target: b"../x y\n".into(),
        };
        assert_eq!(entry, expected);
        for bad in [
            &b""[..],
            b"a",
            b"//f 1 644 1 ",
            b"a//ff 1 644 1 ",
            b"a//f -1 644 1 ",
            b"a//f 1 99 1 ",
            b"a//f 1 10000 1 ",
            b"a//f 1 644 x ",
            b"a//f 1 644 1",
        ] {
            assert_eq!(DirectoryEntry::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn more_records_than_asked_for_and_a_count_below_them_are_no_answer() {
        let record = b"a//f 1 644 1 \0";
        let mut records = Records::new(1);
        assert!(records.take(record).is_some() && records.take(record).is_none());
        let mut records = Records::new(9);
        records.take(&[&record[..], record, b"1\n"].concat()).unwrap();
        assert_eq!(records.finish(), None);
        let mut records = Records::new(9);
        records.take(&[&record[..], record, b"2\0"].concat()).unwrap();
        assert!(records.take(record).is_none());
        assert_eq!(records.finish().unwrap().1, 2);
    }

    proptest! {
        #[test]
        fn a_record_survives_a_round_trip(
            path in "[a-z \n]{1,9}(/[\\x01-.0-9a-z]{1,9}){0,3}", size in any::<u64>(), mode in 0u32..0o10000,
            modified in any::<i64>(), target in prop::collection::vec(1u8.., 0..9),
        ) {
            let entry =
                DirectoryEntry { path: path.into_bytes(), kind: b'f', size, mode, modified, target };
            prop_assert_eq!(DirectoryEntry::parse(&entry.render()), Some(entry));
        }

        #[test]
        fn no_bytes_confuse_the_reader(pieces in prop::collection::vec(prop::sample::select(vec![
            "a", "//", "/", "f", " ", "1", "644", "\0", "a//f 1 644 1.5 \0", "2", "\n", "é",
        ]), 0..40)) {
            fuzz_directory_records(pieces.concat().as_bytes());
        }
    }
}
