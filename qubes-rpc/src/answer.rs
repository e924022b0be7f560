//! What goes back to the caller: frames, or the plain text that the older program expects.

use std::{
    cell::{Cell, RefCell},
    io,
};

use bytes::{Buf, Bytes, buf::Chain};
use contract::{Fault, Frame, Kind, Stream, frame::render_header, limits};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::Mutex,
    time::timeout,
};

use crate::cut::Cut;

/// How a caller wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Frames, for callers that sent `"frames"`.
    Framed,
    /// The text of the older program.
    Plain,
    /// One JSON object, for clients of qubes-mcp. Its streams are kept until they are taken.
    Json,
}

/// The caller reads nothing any more.
#[derive(Debug, thiserror::Error)]
#[error("the caller is gone")]
pub struct CallerGone(#[source] pub io::Error);

/// The way back to one caller. Cheap to share within the call's task.
#[derive(Debug)]
pub struct Answer<W> {
    form: Form,
    way: Mutex<Way<W>>,
    cuts: RefCell<Streams<Option<Cut>>>,
    kept: RefCell<Streams<Vec<u8>>>,
    last_line: RefCell<Option<String>>,
    sent: Cell<u64>,
}

/// The way itself.
#[derive(Debug)]
struct Way<W> {
    writer: W,
    /// What is still to be sent of a piece whose sender was dropped half-way. It goes first, so
    /// that a frame never breaks off in the middle.
    rest: Chain<Bytes, Bytes>,
    /// A write failed or took too long, and nobody waits for another.
    lost: bool,
}

/// The characters of a line of output that progress shows.
const LINE_CHARS: usize = 200;

impl<W: AsyncWrite + Unpin> Answer<W> {
    /// An answer of this form over this writer.
    pub fn new(form: Form, writer: W) -> Self {
        Self {
            form,
            way: Mutex::new(Way { writer, rest: Bytes::new().chain(Bytes::new()), lost: false }),
            cuts: RefCell::default(),
            kept: RefCell::default(),
            last_line: RefCell::default(),
            sent: Cell::new(0),
        }
    }

    /// Answers in this form from now on.
    pub fn set_form(&mut self, form: Form) {
        self.form = form;
    }

    /// How the caller is answered.
    pub fn form(&self) -> Form {
        self.form
    }

    /// How many bytes were sent.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Keeps of each stream only the beginning and the end. Plain answers have no limit of ours.
    pub fn keep_ends(&self, characters: u64) {
        if self.form != Form::Plain {
            let bytes = usize::try_from(limits::OUTPUT_BYTES).unwrap_or(usize::MAX);
            let characters = usize::try_from(characters).unwrap_or(bytes).min(bytes);
            let cut = || Some(Cut::new(characters, bytes));
            *self.cuts.borrow_mut() = Streams { stdout: cut(), stderr: cut() };
        }
    }

    /// Sends bytes of a stream, and waits until the caller took them.
    pub async fn bytes(&self, stream: Stream, bytes: Bytes) -> Result<(), CallerGone> {
        self.remember_last_line(&bytes);
        let bytes = match self.cuts.borrow_mut().of(stream) {
            Some(cut) => cut.take(bytes),
            None => bytes,
        };
        self.send_bytes(stream, bytes).await
    }

    async fn send_bytes(&self, stream: Stream, mut bytes: Bytes) -> Result<(), CallerGone> {
        let kind = match stream {
            Stream::Stdout => Kind::Stdout,
            Stream::Stderr => Kind::Stderr,
        };
        match self.form {
            Form::Framed => {
                while !bytes.is_empty() {
                    let payload = bytes.split_to(bytes.len().min(limits::FRAME_BYTES));
                    self.frame(Frame { kind, payload }).await?;
                }
                Ok(())
            }
            Form::Plain => self.write(bytes).await,
            Form::Json => {
                self.kept.borrow_mut().of(stream).extend_from_slice(&bytes);
                Ok(())
            }
        }
    }

    /// What came on the streams of an answer that is one JSON object.
    pub fn take_kept(&self) -> Streams<Vec<u8>> {
        self.kept.take()
    }

    /// Ends the streams. Gives how many bytes came on each, and whether any were left out.
    pub async fn finish_streams(&self) -> Result<(Streams<u64>, bool), CallerGone> {
        let (mut totals, mut truncated) = (Streams::default(), false);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Some(mut cut) = self.cuts.borrow_mut().of(stream).take() else { continue };
            let tail = cut.finish();
            *totals.of(stream) = cut.total();
            if tail.omitted > 0 {
                truncated = true;
                let gap = format!(
                    "\n[... {} bytes left out; raise max_output, or use start_job and read ranges ...]\n",
                    tail.omitted
                );
                self.send_bytes(stream, gap.into()).await?;
            }
            self.send_bytes(stream, tail.bytes).await?;
        }
        Ok((totals, truncated))
    }

    /// Tells the last line of output, if there was a new one since the last time.
    pub async fn tell_progress(&self) -> Result<(), CallerGone> {
        let Some(line) = self.last_line.take() else { return Ok(()) };
        if self.form != Form::Framed {
            return Ok(());
        }
        let progress = serde_json::json!({ "message": line }).to_string();
        self.frame(Frame::new(Kind::Progress, progress)).await
    }

    /// Sends a JSON object as progress; nothing in the plain form.
    pub async fn progress(&self, json: String) -> Result<(), CallerGone> {
        match self.form {
            Form::Framed => self.frame(Frame::new(Kind::Progress, json)).await,
            Form::Plain | Form::Json => Ok(()),
        }
    }

    /// Sends the JSON result, in pieces where it is long. Nothing may follow.
    pub async fn result(&self, json: Vec<u8>) -> Result<(), CallerGone> {
        let mut rest = Bytes::from(json);
        while rest.len() > limits::FRAME_BYTES {
            self.frame(Frame::new(Kind::Part, rest.split_to(limits::FRAME_BYTES))).await?;
        }
        self.frame(Frame::new(Kind::Result, rest)).await
    }

    /// Sends plain text.
    pub async fn text(&self, text: impl Into<Bytes>) -> Result<(), CallerGone> {
        self.write(text.into()).await
    }

    /// Says why there is no result. Nothing may follow.
    pub async fn fault(&self, fault: &Fault) -> Result<(), CallerGone> {
        match self.form {
            Form::Framed => self.frame(Frame::new(Kind::Fault, fault.to_json())).await,
            Form::Plain | Form::Json => {
                let sentence = fault.sentence().replace(['\n', '\r'], " ");
                self.text(format!("ERROR: {sentence}\n")).await
            }
        }
    }

    /// Closes the way back.
    pub async fn close(self) {
        // A caller that is gone needs no farewell.
        drop(self.way.into_inner().writer.shutdown().await);
    }

    async fn frame(&self, frame: Frame) -> Result<(), CallerGone> {
        let header = render_header(frame.kind, frame.payload.len())
            .map_err(|error| CallerGone(io::Error::other(error)))?;
        self.send(Bytes::copy_from_slice(&header), frame.payload).await
    }

    async fn write(&self, bytes: Bytes) -> Result<(), CallerGone> {
        self.send(bytes, Bytes::new()).await
    }

    async fn send(&self, first: Bytes, second: Bytes) -> Result<(), CallerGone> {
        let mut way = self.way.lock().await;
        if way.rest.has_remaining() {
            self.flush(&mut way).await?;
        }
        way.rest = first.chain(second);
        self.flush(&mut way).await
    }

    /// Sends the rest. Dropped half-way it loses nothing.
    async fn flush(&self, way: &mut Way<W>) -> Result<(), CallerGone> {
        if way.lost {
            return Err(CallerGone(io::ErrorKind::NotConnected.into()));
        }
        let before = way.rest.remaining();
        let written =
            timeout(limits::STALLED_READER, way.writer.write_all_buf(&mut way.rest)).await;
        let sent = u64::try_from(before - way.rest.remaining()).unwrap_or(u64::MAX);
        self.sent.set(self.sent.get().saturating_add(sent));
        let error = match written {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        way.lost = true;
        Err(CallerGone(error))
    }

    /// Has this line told as progress, unless a newer one comes before its turn.
    pub fn say(&self, line: &str) {
        *self.last_line.borrow_mut() = Some(line.chars().take(LINE_CHARS).collect());
    }

    fn remember_last_line(&self, bytes: &[u8]) {
        // Only the end of a chunk is looked at, so that fast streams stay fast.
        let start = bytes.len().saturating_sub(4 * LINE_CHARS);
        let text = String::from_utf8_lossy(bytes.get(start..).unwrap_or_default());
        if let Some(line) = text.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            *self.last_line.borrow_mut() = Some(line.chars().take(LINE_CHARS).collect());
        }
    }
}

/// One of something for each stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams<T> {
    /// That of standard output.
    pub stdout: T,
    /// That of standard error.
    pub stderr: T,
}

impl<T> Streams<T> {
    fn of(&mut self, stream: Stream) -> &mut T {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::FrameCodec;
    use tokio::{io::AsyncReadExt, time::Instant};
    use tokio_util::codec::Decoder;

    #[tokio::test(start_paused = true)]
    async fn a_frame_whose_sender_was_dropped_half_way_is_finished_before_the_next() {
        let (mut caller, dom0) = tokio::io::duplex(8);
        let answer = Answer::new(Form::Framed, dom0);
        let cut = answer.bytes(Stream::Stdout, Bytes::from_static(b"0123456789"));
        assert!(timeout(std::time::Duration::from_millis(1), cut).await.is_err());
        let rest = async {
            answer.result(b"{}".to_vec()).await.unwrap();
            answer.close().await;
        };
        let mut wire = Vec::new();
        let (read, ()) = tokio::join!(caller.read_to_end(&mut wire), rest);
        let mut wire = bytes::BytesMut::from(&wire[..read.unwrap()]);
        let mut next = || FrameCodec.decode(&mut wire).unwrap().unwrap();
        assert_eq!(next(), Frame::new(Kind::Stdout, &b"0123456789"[..]));
        assert_eq!(next(), Frame::new(Kind::Result, &b"{}"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_reads_nothing_is_waited_for_once() {
        let (_caller, dom0) = tokio::io::duplex(8);
        let answer = Answer::new(Form::Framed, dom0);
        let since = Instant::now();
        assert!(answer.bytes(Stream::Stdout, Bytes::from_static(b"0123456789")).await.is_err());
        assert!(answer.fault(&Fault::Refused {}).await.is_err());
        assert_eq!(since.elapsed(), limits::STALLED_READER);
    }
}
