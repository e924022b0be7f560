//! `qfile-agent` and `qfile-unpacker`: files as a stream of headers and contents, checked by a CRC.
//!
//! A header is, little-endian, the length of the name and the mode (4 bytes each), the length of the
//! content (8), and the times of reading and of change, each in seconds and nanoseconds (4 each); a name
//! of no length ends the stream. A directory comes twice, before and behind what it holds. The answer is
//! an error number, four bytes of nothing, and the CRC-32 of all that was received (8 bytes).

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    io::{self, BufWriter, Read, Write},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
    },
    path::{Component, Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

const HEADER_BYTES: usize = 32;
const ANSWER_BYTES: usize = 16;
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// A header without its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    name: u32,
    mode: u32,
    length: u64,
    modified: u32,
}

impl Header {
    fn render(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let fields: [&[u8]; 5] = [
            &self.name.to_le_bytes(),
            &self.mode.to_le_bytes(),
            &self.length.to_le_bytes(),
            &[0; 8],
            &self.modified.to_le_bytes(),
        ];
        let joined = fields.concat();
        bytes.iter_mut().zip(joined).for_each(|(byte, value)| *byte = value);
        bytes
    }

    fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let word = |at: usize| {
            let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
            u32::from_le_bytes(word.unwrap_or_default())
        };
        let length = u64::from(word(8)) | u64::from(word(12)) << 32;
        Self { name: word(0), mode: word(4), length, modified: word(24) }
    }
}

/// CRC-32 as gzip has it.
struct Crc {
    table: Vec<u32>,
    state: u32,
}

impl Crc {
    fn new() -> Self {
        let entry = |number: u32| {
            (0..8).fold(
                number,
                |crc, _| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 },
            )
        };
        Self { table: (0..256).map(entry).collect(), state: u32::MAX }
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let [low, ..] = self.state.to_le_bytes();
            let known = self.table.get(usize::from(low ^ byte)).copied().unwrap_or_default();
            self.state = known ^ (self.state >> 8);
        }
    }

    fn value(&self) -> u64 {
        u64::from(!self.state)
    }
}

/// Sends the files named by the arguments, and takes the answer.
pub(crate) fn qfile_agent(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut sender =
        Sender { out: BufWriter::with_capacity(1 << 16, io::stdout()), crc: Crc::new() };
    let names = arguments.filter(|argument| argument != "--");
    match names
        .map(PathBuf::from)
        .try_for_each(|path| sender.top(&path))
        .and_then(|()| sender.end())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "qfile-agent: File copy: {error}"));
            ExitCode::FAILURE
        }
    }
}

struct Sender<W> {
    out: W,
    crc: Crc,
}

impl<W: Write> Sender<W> {
    fn top(&mut self, path: &Path) -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        self.send(path, Path::new(name))
    }

    fn send(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let metadata = path.symlink_metadata()?;
        let header = |length| Header {
            name: u32::try_from(name.as_os_str().len()).unwrap_or_default(),
            mode: metadata.mode(),
            length,
            modified: u32::try_from(metadata.mtime()).unwrap_or_default(),
        };
        match metadata.mode() & TYPE {
            DIRECTORY => {
                self.header(header(0), name)?;
                for entry in fs::read_dir(path)? {
                    let entry = entry?.file_name();
                    self.send(&path.join(&entry), &name.join(&entry))?;
                }
                self.header(header(0), name)
            }
            LINK => {
                let target = fs::read_link(path)?.into_os_string().into_vec();
                self.header(header(u64::try_from(target.len()).unwrap_or_default()), name)?;
                self.bytes(&target)
            }
            REGULAR => {
                let file = File::open(path)?;
                self.header(header(metadata.len()), name)?;
                self.content(file.take(metadata.len()), metadata.len())
            }
            _ => Ok(()),
        }
    }

    fn content(&mut self, mut file: impl Read, length: u64) -> io::Result<()> {
        let (mut buffer, mut left) = (vec![0; 1 << 16], length);
        while left > 0 {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.bytes(buffer.get(..count).unwrap_or_default())?;
            left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn header(&mut self, header: Header, name: &Path) -> io::Result<()> {
        self.bytes(&header.render())?;
        self.bytes(name.as_os_str().as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.add(bytes);
        self.out.write_all(bytes)
    }

    /// Says that this was all, and hears whether it arrived.
    fn end(&mut self) -> io::Result<()> {
        self.bytes(&Header::default().render())?;
        self.out.flush()?;
        let mut answer = [0; ANSWER_BYTES];
        io::stdin().read_exact(&mut answer)?;
        let [a, b, c, d, _, _, _, _, crc @ ..] = answer;
        let code = i32::from_le_bytes([a, b, c, d]);
        if code != 0 {
            return Err(io::Error::from_raw_os_error(code));
        }
        let same = u64::from_le_bytes(crc) == self.crc.value();
        if same { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// Takes files into the folder that the second argument names; the first is a user.
pub(crate) fn qfile_unpacker(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(folder) = arguments.skip(1).map(PathBuf::from).next() else {
        return ExitCode::FAILURE;
    };
    let mut receiver = Receiver { from: io::BufReader::new(io::stdin()), crc: Crc::new(), folder };
    let result = receiver.all();
    let code = match &result {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(22),
    };
    let answer = [&code.to_le_bytes()[..], &[0; 4], &receiver.crc.value().to_le_bytes()].concat();
    let answered = io::stdout().write_all(&answer).and_then(|()| io::stdout().flush());
    match result.and(answered) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
    }
}

struct Receiver<R> {
    from: R,
    crc: Crc,
    folder: PathBuf,
}

impl<R: Read> Receiver<R> {
    fn all(&mut self) -> io::Result<()> {
        loop {
            let mut bytes = [0; HEADER_BYTES];
            self.from.read_exact(&mut bytes)?;
            self.crc.add(&bytes);
            let header = Header::parse(&bytes);
            if header.name == 0 {
                return Ok(());
            }
            self.one(header)?;
        }
    }

    fn one(&mut self, header: Header) -> io::Result<()> {
        let name = self.short(u64::from(header.name))?;
        let name = Path::new(OsStr::from_bytes(&name));
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if !name.components().all(plain) {
            return Err(io::Error::from_raw_os_error(1));
        }
        let path = self.folder.join(name);
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(header.modified.into());
        match header.mode & TYPE {
            DIRECTORY => match fs::create_dir(&path) {
                // What comes a second time is complete.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    File::open(&path)?.set_modified(modified)?;
                    fs::set_permissions(&path, Permissions::from_mode(header.mode & 0o7777))
                }
                made => made,
            },
            LINK => symlink(OsStr::from_bytes(&self.short(header.length)?), &path),
            REGULAR => {
                let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
                self.content(&file, header.length)?;
                file.set_modified(modified)?;
                file.set_permissions(Permissions::from_mode(header.mode & 0o7777))
            }
            _ => Err(io::Error::from_raw_os_error(22)),
        }
    }

    fn content(&mut self, mut file: &File, mut left: u64) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.from.read(buffer.get_mut(..most).unwrap_or_default())?;
            let piece = buffer.get(..count).unwrap_or_default();
            if piece.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.crc.add(piece);
            file.write_all(piece)?;
            left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// A name or the target of a link.
    fn short(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(16 * 1024)];
        self.from.read_exact(&mut bytes)?;
        self.crc.add(&bytes);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_gzip() {
        let mut crc = Crc::new();
        crc.add(b"12345");
        crc.add(b"6789");
        assert_eq!(crc.value(), 0xcbf4_3926);
    }

    #[test]
    fn a_header_is_thirty_two_bytes() {
        let header = Header { name: 1, mode: 0o100_644, length: 1 << 33, modified: 7 };
        let bytes = header.render();
        assert_eq!(bytes[..16], *b"\x01\0\0\0\xa4\x81\0\0\0\0\0\0\x02\0\0\0");
        assert_eq!(Header::parse(&bytes), header);
    }

    #[test]
    fn what_is_sent_arrives_with_its_mode_and_time() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let top = from.path().join("d");
        fs::create_dir(&top).unwrap();
        fs::write(top.join("two\nlines"), b"content").unwrap();
        fs::set_permissions(top.join("two\nlines"), Permissions::from_mode(0o751)).unwrap();
        symlink("nowhere", top.join("link")).unwrap();
        fs::set_permissions(&top, Permissions::from_mode(0o555)).unwrap();
        let mut sender = Sender { out: Vec::new(), crc: Crc::new() };
        sender.top(&top).unwrap();
        sender.bytes(&Header::default().render()).unwrap();
        let from_sender = io::Cursor::new(std::mem::take(&mut sender.out));
        let mut receiver =
            Receiver { from: from_sender, crc: Crc::new(), folder: to.path().to_owned() };
        receiver.all().unwrap();
        assert_eq!(receiver.crc.value(), sender.crc.value());
        let arrived = to.path().join("d");
        assert_eq!(fs::read(arrived.join("two\nlines")).unwrap(), b"content");
        assert_eq!(fs::metadata(arrived.join("two\nlines")).unwrap().mode() & 0o7777, 0o751);
        assert_eq!(fs::metadata(&arrived).unwrap().mode() & 0o7777, 0o555);
        assert_eq!(fs::read_link(arrived.join("link")).unwrap(), Path::new("nowhere"));
        for path in [top, arrived] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
    }
}
