//! One qrexec-client: how it is started, what it says, how it is ended.

use std::{io, path::Path, process::Stdio, time::Duration};

use admin_api::Uuid;
use bytes::{BufMut, BytesMut};
use contract::{Stream, limits};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

use super::{Place, RunError, marker::Markers};

/// The most bytes that are held of one stream: as many as several frames carry, so that a busy
/// machine changes less often between who writes and who reads.
pub(super) const READ_BYTES: usize = 4 * limits::FRAME_BYTES;
/// How much of the main stream may wait in its pipe, so that reader and writer change places less
/// often: as much as Linux gives to everybody.
const PIPE_BYTES: usize = 1024 * 1024;
/// The time a qrexec-client gets to end by itself after the last line of the work.
const FAREWELL: Duration = Duration::from_millis(100);
/// Where programs are found, as dom0's own environment is not passed on.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// A running qrexec-client with its three streams.
pub(super) struct Client {
    pub(super) child: Child,
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Channel<ChildStdout>,
    pub(super) stderr: Channel<ChildStderr>,
}

/// Starts qrexec-client. It is killed when the value is dropped.
pub(super) fn start(program: &Path, place: Place<'_>, mark: &[u8]) -> Result<Client, RunError> {
    let mut child = start_bare(program, place)?;
    let lost = || io::Error::from(io::ErrorKind::BrokenPipe);
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().ok_or_else(lost)?;
    let stderr = child.stderr.take().ok_or_else(lost)?;
    // A kernel that does not give so much leaves the pipe as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_BYTES);
    Ok(Client {
        child,
        stdin,
        stdout: Channel::new(Stream::Stdout, stdout, mark),
        stderr: Channel::new(Stream::Stderr, stderr, mark),
    })
}

/// Starts qrexec-client with three pipes. It is killed when the value is dropped.
pub(super) fn start_bare(program: &Path, place: Place<'_>) -> Result<Child, RunError> {
    let qube = parse_target(place.qube)
        .ok_or_else(|| RunError::Refused { message: "not the UUID of a qube".to_owned() })?;
    #[expect(clippy::disallowed_methods, reason = "the one place that starts children in dom0")]
    let mut command = Command::new(program);
    command
        .arg("-d")
        .arg(qube)
        .arg(format!("{}:QUBESRPC qubes.VMShell dom0", place.user.as_str()))
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().map_err(RunError::NotStarted)
}

/// What may follow `-d`: the UUID of a qube. dom0, in whichever spelling, would run what it is told
/// in dom0 itself.
fn parse_target(text: &str) -> Option<&str> {
    let uuid = text.strip_prefix("uuid:")?;
    let uuid = Uuid::parse(uuid).ok().filter(|uuid| uuid.as_str() != policy::DOM0_UUID);
    uuid.is_some().then_some(text)
}

impl Client {
    /// Waits a little for the end, then kills. Returns the exit code unless a signal ended it.
    pub(super) async fn part(&mut self) -> io::Result<Option<i32>> {
        let status = match tokio::time::timeout(FAREWELL, self.child.wait()).await {
            Ok(status) => status?,
            Err(_) => {
                self.child.start_kill()?;
                self.child.wait().await?
            }
        };
        Ok(status.code())
    }
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The first line of ours has not come yet.
    Before,
    /// What comes is the work's.
    Inside,
    /// The last line of ours has come; what follows is dropped.
    After,
    /// The stream ended without its last line.
    Lost,
}

/// One of the two streams that come out of a qube.
pub(super) struct Channel<R> {
    pub(super) stream: Stream,
    pub(super) stage: Stage,
    pub(super) buffer: BytesMut,
    pub(super) markers: Markers,
    source: R,
}

impl<R: AsyncRead + Unpin> Channel<R> {
    fn new(stream: Stream, source: R, mark: &[u8]) -> Self {
        let markers = Markers::new(mark);
        Self { stream, stage: Stage::Before, buffer: BytesMut::new(), markers, source }
    }

    /// True when nothing more is wanted from it.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::After | Stage::Lost)
    }

    /// Reads what is there; 0 is the end. Cancel safe.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        let room = READ_BYTES.saturating_sub(self.buffer.len());
        self.buffer.reserve(room);
        self.source.read_buf(&mut (&mut self.buffer).limit(room)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_uuid_of_a_qube_follows_the_option_and_dom0_never() {
        let qube = "uuid:22222222-b02b-4944-a9e5-437def2fbe2c";
        assert_eq!(parse_target(qube), Some(qube));
        for other in [
            "uuid:00000000-0000-0000-0000-000000000000",
            "00000000-0000-0000-0000-000000000000",
            "22222222-b02b-4944-a9e5-437def2fbe2c",
            "dom0",
            "@adminvm",
            "@dispvm",
            "uuid:dom0",
            "uuid:",
            "",
            "work",
            "-e",
            "uuid:22222222-b02b-4944-a9e5-437def2fbe2c\n",
            "UUID:22222222-b02b-4944-a9e5-437def2fbe2c",
            "uuid:22222222-B02B-4944-a9e5-437def2fbe2c",
            "uuid:@dispvm:22222222-b02b-4944-a9e5-437def2fbe2c",
        ] {
            assert_eq!(parse_target(other), None, "{other}");
        }
    }
}
