//! One qrexec call: one child `qrexec-client-vm`, which dies with the call.

use std::{future::pending, io, path::PathBuf, pin::pin, process::Stdio, time::Duration};

use bytes::BytesMut;
use contract::{Fault, FrameCodec, FrameError, SERVICE_PREFIX, limits};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    time::timeout,
};
use tokio_util::codec::Decoder;

use crate::{
    arguments::{QubeName, Request},
    queue::{Place, Queue},
    reply::{Receiver, ReplyError, Step},
};

/// How long a child may take to end once its answer is complete or broken.
const LINGER: Duration = Duration::from_secs(2);

/// Makes calls.
#[derive(Debug)]
pub(crate) struct Qrexec {
    program: PathBuf,
    queue: Queue,
}

/// Which of the two ways of naming a qube dom0's policy has lines for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A listed qube: dom0 is the target, and the qube is the argument.
    Argument,
    /// A tagged qube: it is the target, and the argument is empty.
    Target,
}

/// What a call is made to, as the two operands of `qrexec-client-vm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    target: String,
    service: String,
}

impl Address {
    /// A service that is aimed at all that the caller may see.
    pub(crate) fn scope(service: &str) -> Self {
        Self { target: "dom0".into(), service: format!("{SERVICE_PREFIX}{service}") }
    }

    /// A service that is aimed at a qube.
    pub(crate) fn qube(service: &str, qube: &QubeName, way: Way) -> Self {
        let qube = qube.as_str();
        match way {
            Way::Argument => {
                Self { target: "dom0".into(), service: format!("{SERVICE_PREFIX}{service}+{qube}") }
            }
            Way::Target => {
                Self { target: qube.into(), service: format!("{SERVICE_PREFIX}{service}+") }
            }
        }
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// dom0 answered so, or qrexec refused.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The child could not be started.
    #[error("{}: {source}", not_started(.program, .source))]
    NotStarted {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// dom0 has no such service.
    #[error(
        "the service {0} is not installed in dom0, or its daemon is not set up; \
         the operator can find out with `saltbridged doctor` in dom0"
    )]
    NotInstalled(String),
    /// dom0 could not start the service.
    #[error("dom0 could not run the service {0}")]
    NotRun(String),
    /// The answer ended too early. Whether the work was done is not known.
    #[error("the connection to dom0 ended before the answer was complete ({0})")]
    Cut(String),
    /// What came is not of this wire.
    #[error("dom0 answered in a form that this version does not know: {0}")]
    Frame(#[source] FrameError),
    /// An older dom0 answered with text.
    #[error("dom0 answered: {0}")]
    Text(String),
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        Self::Reply(ReplyError::Fault(fault))
    }
}

impl CallError {
    /// A refusal, by whomever and for whatever reason.
    pub(crate) fn refused() -> Self {
        Fault::Refused {}.into()
    }

    /// Whether the request was wrong, as when it names a file that is not there.
    pub(crate) fn is_bad_request(&self) -> bool {
        matches!(self, Self::Reply(ReplyError::Fault(Fault::BadRequest { .. })))
    }

    /// Whether this is a refusal.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Reply(ReplyError::Fault(Fault::Refused {})))
    }
}

fn not_started(program: &std::path::Path, source: &io::Error) -> String {
    let place = match program.components().count() {
        1 => " in the directories of PATH",
        _ => "",
    };
    let hint = if source.kind() == io::ErrorKind::NotFound {
        " (every qube of Qubes OS has it; --qrexec-client-vm names another place)"
    } else {
        ""
    };
    format!("cannot start {}{place}{hint}", program.display())
}

/// An answer that did not become complete.
enum Broken {
    /// The stream ended, after some frames or none.
    Ended { heard: bool },
    /// It is no frame; the bytes are what came instead.
    NoFrames(FrameError, Vec<u8>),
    /// A frame ends the call, or says what cannot be.
    Reply(ReplyError),
}

impl Qrexec {
    /// Calls through this program.
    pub(crate) fn new(program: PathBuf) -> Self {
        Self { program, queue: Queue::new() }
    }

    /// Makes a call when there is a place for it, and tells the news of it meanwhile. What is
    /// answered goes to `receiver`.
    ///
    /// Dropping the future ends the call: the child is killed, and dom0 sees the caller hang up.
    pub(crate) async fn call(
        &self,
        address: &Address,
        long: bool,
        request: Request,
        news: &watch::Sender<String>,
        receiver: &mut impl Receiver,
    ) -> Result<(), CallError> {
        let place = self.queue.place(long).await;
        let mut child = self.start(address)?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(CallError::Cut("no pipes".into()));
        };
        let mut sending = pin!(send(stdin, request));
        let mut reading = pin!(read_reply(stdout, news, receiver));
        let mut listening = pin!(read_some(stderr));
        let mut said = None;
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut reading => break outcome,
                text = &mut listening, if said.is_none() => said = Some(text),
                () = &mut sending => {}
            }
        };
        match outcome {
            Ok(reply) => {
                tokio::spawn(see_off(child, place));
                Ok(reply)
            }
            Err(Broken::Reply(error)) => {
                tokio::spawn(see_off(child, place));
                Err(error.into())
            }
            Err(Broken::NoFrames(error, bytes)) => Err(text_of(&bytes, error)),
            Err(Broken::Ended { heard }) => {
                let code = timeout(LINGER, child.wait()).await;
                let said = match said {
                    Some(said) => said,
                    None => timeout(LINGER, listening).await.unwrap_or_default(),
                };
                let code = code.ok().and_then(Result::ok).and_then(|status| status.code());
                Err(explain(address, heard, code, &said))
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where the agent starts a program")]
    fn start(&self, address: &Address) -> Result<Child, CallError> {
        Command::new(&self.program)
            .arg(&address.target)
            .arg(&address.service)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| CallError::NotStarted { program: self.program.clone(), source })
    }
}

/// Writes the request and then holds the pipe open: its end would mean that the caller is gone.
async fn send(mut stdin: ChildStdin, request: Request) {
    let Request { line, body } = request;
    // A service that answers before it has read everything closes the pipe; its answer counts.
    drop(stdin.write_all(&line).await);
    drop(stdin.write_all(&body).await);
    drop(body);
    pending::<()>().await;
}

async fn read_reply(
    mut stdout: ChildStdout,
    news: &watch::Sender<String>,
    receiver: &mut impl Receiver,
) -> Result<(), Broken> {
    let (mut codec, mut bytes) = (FrameCodec, BytesMut::new());
    let mut heard = false;
    loop {
        match codec.decode(&mut bytes) {
            Ok(Some(frame)) => {
                heard = true;
                match receiver.take(&frame).map_err(Broken::Reply)? {
                    Step::More => {}
                    Step::News(line) => drop(news.send_replace(line)),
                    Step::Complete => return Ok(()),
                }
            }
            Ok(None) => {
                bytes.reserve(limits::FRAME_BYTES);
                match stdout.read_buf(&mut bytes).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Err(Broken::Ended { heard }),
                }
            }
            Err(error) => {
                let mut text = if heard { Vec::new() } else { bytes.to_vec() };
                if !heard {
                    let rest = timeout(LINGER, read_some(stdout)).await.unwrap_or_default();
                    text.extend_from_slice(&rest);
                }
                return Err(Broken::NoFrames(error, text));
            }
        }
    }
}

/// Reads to the end and keeps the beginning.
async fn read_some(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let (mut kept, mut chunk) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        let room = limits::MESSAGE_BYTES.saturating_sub(kept.len());
        kept.extend(chunk.iter().take(count.min(room)));
    }
    kept
}

/// Lets a child whose answer is complete end by itself, and frees its place then.
async fn see_off(mut child: Child, place: Place) {
    drop(timeout(LINGER, child.wait()).await);
    drop(place);
}

/// The exit codes of `qrexec-client-vm` that are qrexec's own (`libqrexec-utils.h`) come alone.
fn explain(address: &Address, heard: bool, code: Option<i32>, said: &[u8]) -> CallError {
    let said = String::from_utf8_lossy(said);
    match code {
        Some(126) if !heard => CallError::refused(),
        Some(127) if !heard => CallError::NotInstalled(address.service.clone()),
        Some(125) if !heard => CallError::NotRun(address.service.clone()),
        _ if !heard && said.contains("Request refused") => CallError::refused(),
        code => {
            let mut what = match code {
                Some(code) => format!("qrexec-client-vm ended with {code}"),
                None => "qrexec-client-vm was killed".into(),
            };
            if let Some(line) = said.lines().map(str::trim).rfind(|line| !line.is_empty()) {
                what.push_str(": ");
                what.push_str(line);
            }
            CallError::Cut(what)
        }
    }
}

/// What an answer without frames means: an older dom0 says its errors as text.
fn text_of(bytes: &[u8], error: FrameError) -> CallError {
    let text = String::from_utf8_lossy(bytes);
    match text.lines().next().and_then(|line| line.strip_prefix("ERROR:")) {
        Some(line) => CallError::Text(line.trim().into()),
        None => CallError::Frame(error),
    }
}
