//! What comes out of a qube: the streams between their first and last lines, and the clocks.

use std::{future::pending, time::Duration};

use bytes::Bytes;
use contract::{Stream, limits};
use tokio::{
    io::AsyncRead,
    process::ChildStdin,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Ended, Output, RunError,
    child::{Channel, Client, Stage},
    marker::Piece,
    own_lines::OwnLines,
};

/// After qrexec-client has ended its streams are over when they are silent for this long.
const SILENCE: Duration = Duration::from_millis(300);
/// Pieces below this size, in bytes, are copied.
const SMALL: usize = 8 * 1024;

/// The last line of ours: why the work ended, its exit code, the session of what could not be killed.
#[derive(Debug)]
struct End {
    reason: Reason,
    code: i32,
    left: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Exit,
    TimedOut,
    Cancelled,
    Cut,
    Unready,
}

impl End {
    fn parse_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let reason = match words.next()? {
            "exit" => Reason::Exit,
            "timeout" => Reason::TimedOut,
            "cancelled" => Reason::Cancelled,
            "cut" => Reason::Cut,
            "unready" => Reason::Unready,
            _ => return None,
        };
        let code = words.next()?.parse().ok()?;
        Some(Self { reason, code, left: words.next().map(str::to_owned) })
    }
}

/// What a call came to.
#[derive(Debug)]
pub(super) enum Conclusion {
    /// The work has ended.
    Ended(Ended),
    /// It has ended, but processes of this session are left that its user could not kill.
    Left(Ended, String),
}

/// The state of one call.
#[derive(Debug)]
pub(super) struct Call<'a, O> {
    output: &'a mut O,
    cancel: &'a CancellationToken,
    deadline: Duration,
    /// When the body must have been sent.
    begin: Instant,
    /// When dom0 stops waiting. Moves on while the caller's side is what is waited for.
    limit: Instant,
    /// The pipe is to be closed, which makes the work end; then it has ended like this.
    stopping: Option<Ended>,
    /// Output is dropped.
    gone: bool,
    /// The first line of ours has come on stderr.
    begun: bool,
    /// What stderr held before the work began.
    said: Vec<u8>,
    /// Lines of qrexec-client's among what the work writes to stderr.
    own: Option<OwnLines>,
    end: Option<End>,
}

impl<'a, O: Output> Call<'a, O> {
    pub(super) fn new(
        output: &'a mut O,
        cancel: &'a CancellationToken,
        deadline: Duration,
    ) -> Self {
        let begin = Instant::now() + deadline;
        Self {
            output,
            cancel,
            deadline,
            begin,
            limit: begin + limits::KILL,
            stopping: None,
            gone: false,
            begun: false,
            said: Vec::new(),
            own: None,
            end: None,
        }
    }

    /// Returns when both streams are over.
    pub(super) async fn run(
        &mut self,
        client: &mut Client,
        feed: impl Future<Output = Option<ChildStdin>>,
    ) -> Result<(), RunError> {
        let Client { child, stdout, stderr, .. } = client;
        self.own = OwnLines::of(child.id());
        let (mut feed, mut pipe, mut dead) = (Some(Box::pin(feed)), None, false);
        while !(stdout.is_over() && stderr.is_over()) {
            let waits = self.stopping.is_none();
            let sending = waits && feed.is_some();
            let fed = async {
                match feed.as_mut() {
                    Some(feed) => feed.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                filled = stdout.fill(), if !stdout.is_over() => {
                    self.take(stdout, filled?, dead).await?;
                }
                filled = stderr.fill(), if !stderr.is_over() => {
                    self.take(stderr, filled?, dead).await?;
                }
                sent = fed => {
                    feed = None;
                    pipe = sent;
                    self.rewind();
                }
                () = self.cancel.cancelled(), if waits => self.stop(Ended::Cancelled),
                () = sleep_until(self.begin), if sending => self.stop(Ended::TimedOut),
                _ = child.wait(), if !dead => {
                    dead = true;
                    self.limit = Instant::now() + SILENCE;
                }
                () = sleep_until(self.limit) => {
                    return if dead { Ok(()) } else { Err(RunError::Stalled) };
                }
            }
            if self.stopping.is_some() {
                feed = None;
                pipe = None;
            }
        }
        drop(pipe);
        Ok(())
    }

    /// Takes what was just read from one stream.
    async fn take<R: AsyncRead + Unpin>(
        &mut self,
        channel: &mut Channel<R>,
        filled: usize,
        dead: bool,
    ) -> Result<(), RunError> {
        loop {
            match channel.markers.next(&mut channel.buffer).map_err(|_| RunError::Garbled)? {
                Some(Piece::Bytes(bytes)) => self.bytes(channel.stream, channel.stage, bytes).await,
                Some(Piece::Line(line)) => self.line(channel, &line).await,
                None => break,
            }
        }
        if filled == 0 {
            if let Some(rest) = channel.markers.rest(&mut channel.buffer) {
                self.bytes(channel.stream, channel.stage, rest).await;
            }
            if !channel.is_over() {
                self.rest_of(channel.stream).await;
                channel.stage = Stage::Lost;
            }
        }
        if dead {
            self.limit = Instant::now() + SILENCE;
        }
        Ok(())
    }

    async fn line<R>(&mut self, channel: &mut Channel<R>, line: &[u8]) {
        if matches!(channel.stage, Stage::After | Stage::Lost) {
            return;
        }
        let text = String::from_utf8_lossy(line);
        if text == "ready" && channel.stage == Stage::Before {
            channel.stage = Stage::Inside;
            if channel.stream == Stream::Stderr {
                self.begun = true;
                self.rewind();
            }
        } else if let Some(end) = End::parse_line(&text) {
            self.rest_of(channel.stream).await;
            channel.stage = Stage::After;
            if channel.stream == Stream::Stderr {
                self.end = Some(end);
            }
        } else {
            self.output.note(channel.stream, line);
        }
    }

    /// Passes on bytes of the work, and keeps the first of what is said before it.
    async fn bytes(&mut self, stream: Stream, stage: Stage, bytes: Bytes) {
        match stage {
            Stage::Inside => {
                let bytes = match self.own.as_mut().filter(|_| stream == Stream::Stderr) {
                    Some(own) => own.pass(bytes),
                    None => bytes,
                };
                self.deliver(stream, bytes).await;
            }
            Stage::Before if stream == Stream::Stderr => {
                let room = limits::MESSAGE_BYTES.saturating_sub(self.said.len());
                self.said.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
            }
            Stage::Before | Stage::After | Stage::Lost => {}
        }
    }

    /// Passes on what was held back of the work's standard error, at its end.
    async fn rest_of(&mut self, stream: Stream) {
        if let Some(own) = self.own.as_mut().filter(|_| stream == Stream::Stderr) {
            let rest = own.finish();
            self.deliver(stream, rest).await;
        }
    }

    /// Waits for the caller to take the bytes. The caller's time is not the qube's.
    async fn deliver(&mut self, stream: Stream, bytes: Bytes) {
        if self.gone || bytes.is_empty() {
            return;
        }
        // A small piece must not keep the whole buffer alive that it was read into.
        let bytes = if bytes.len() < SMALL { Bytes::copy_from_slice(&bytes) } else { bytes };
        let since = Instant::now();
        let waits = self.stopping.is_none();
        tokio::select! {
            biased;
            taken = self.output.bytes(stream, bytes) => self.gone = taken.is_err(),
            () = self.cancel.cancelled(), if waits => self.gone = true,
            () = sleep_until(self.limit), if !waits => self.gone = true,
        }
        if waits {
            self.limit += since.elapsed();
        }
        if self.gone {
            self.stop(Ended::Cancelled);
        }
    }

    /// The work's own time begins now.
    fn rewind(&mut self) {
        if self.stopping.is_none() {
            self.limit = Instant::now() + self.deadline + limits::KILL;
        }
    }

    fn stop(&mut self, ended: Ended) {
        if self.stopping.is_none() {
            self.stopping = Some(ended);
            self.limit = self.limit.min(Instant::now() + limits::KILL);
        }
    }

    /// What all this came to, with qrexec-client's own exit code.
    pub(super) fn conclude(
        self,
        client: &Client,
        run: Result<(), RunError>,
        status: Option<i32>,
    ) -> Result<Conclusion, RunError> {
        run?;
        let whole = client.stdout.stage == Stage::After && client.stderr.stage == Stage::After;
        let message = String::from_utf8_lossy(&self.said).trim().to_owned();
        let Some(End { reason, code, left }) = self.end.filter(|_| whole) else {
            return match self.stopping {
                _ if self.begun => Err(RunError::Vanished { status, message }),
                Some(ended) => Ok(Conclusion::Ended(ended)),
                None => Err(never_begun(status, message)),
            };
        };
        let ended = match reason {
            Reason::Exit => Ended::Exit(code),
            Reason::TimedOut => Ended::TimedOut,
            Reason::Cancelled => Ended::Cancelled,
            Reason::Cut => self.stopping.ok_or(RunError::BodyCut)?,
            Reason::Unready => return Err(RunError::Unready { message }),
        };
        Ok(match left {
            Some(session) => Conclusion::Left(ended, session),
            None => Conclusion::Ended(ended),
        })
    }
}

/// qrexec's own exit codes, which mean something only where the work has not begun.
pub(super) fn never_begun(status: Option<i32>, message: String) -> RunError {
    match status {
        Some(125) => RunError::CannotExecute { message },
        Some(126) => RunError::Refused { message },
        Some(127) => RunError::NotFound { message },
        _ => RunError::Vanished { status, message },
    }
}
