//! What goes into a qube: the script, the body, and the order of a call.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use contract::{Stream, limits};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::ChildStdin,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Body, Ended, Output, OutputGone, Place, RunError, Script, User,
    bash::{NulByte, render_assignment, render_block, render_format},
    call::{Call, Conclusion},
    child,
    marker::Token,
};

/// The longest body that stands in the script itself, in bytes: a pipe holds it whole, so nothing is spooled.
const INLINE_BODY: u64 = 16 * 1024;
/// What follows a body, and proves that it is whole.
const BODY_END: &[u8] = b".";

/// Runs commands and scripts in qubes.
#[derive(Clone, Debug)]
pub struct Runner {
    program: PathBuf,
}

impl Runner {
    /// A runner that starts this qrexec-client.
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// The qrexec-client.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Runs a script of ours, in a process group of its own. Otherwise as
    /// [`Self::command`].
    pub async fn script<R, O>(
        &self,
        place: Place<'_>,
        script: Script<'_>,
        mut body: Body<R>,
        output: &mut O,
        cancel: &CancellationToken,
    ) -> Result<Ended, RunError>
    where
        R: AsyncRead + Unpin,
        O: Output,
    {
        let (nonce, mark) = (Token::random()?, Token::random()?);
        let begin = Instant::now() + place.deadline;
        let inline = tokio::select! {
            inline = inline_body(&mut body) => inline?,
            () = cancel.cancelled() => return Ok(Ended::Cancelled),
            () = tokio::time::sleep_until(begin) => return Ok(Ended::TimedOut),
        };
        let block = render(script, place, &nonce, &mark, body.length, inline.as_deref())?;
        let mut client = child::start(&self.program, place, line_start(&nonce).as_bytes())?;
        let feed = feed(client.stdin.take(), block, (inline.is_none()).then_some(body));
        let mut call = Call::new(output, cancel, place.deadline);
        let run = call.run(&mut client, feed).await;
        let status = client.part().await?;
        match call.conclude(&client, run, status)? {
            Conclusion::Ended(ended) => Ok(ended),
            Conclusion::Left(ended, session) => {
                let whole = match ended {
                    Ended::Exit(_) => false,
                    Ended::TimedOut | Ended::Cancelled => true,
                };
                self.sweep(place, &session, mark.as_str(), whole).await.map(|()| ended)
            }
        }
    }

    /// Kills as root what the user of the work could not kill: of what the kernel shows to come from
    /// the work with this mark the group of this number, or all of it.
    pub(super) async fn sweep(
        &self,
        place: Place<'_>,
        session: &str,
        mark: &str,
        whole: bool,
    ) -> Result<(), RunError> {
        let place = Place { user: User::Root, deadline: limits::KILL, ..place };
        let script = Script {
            text: include_str!("kill.sh"),
            variables: &[
                ("session", session.as_bytes()),
                ("proof", mark.as_bytes()),
                ("victim", if whole { mark.as_bytes() } else { b"" }),
            ],
        };
        let never = CancellationToken::new();
        match Box::pin(self.script(place, script, Body::empty(), &mut Nobody, &never)).await? {
            Ended::Exit(0) => Ok(()),
            Ended::Exit(_) | Ended::TimedOut | Ended::Cancelled => Err(RunError::Unkillable),
        }
    }
}

/// Drops all output.
struct Nobody;

impl Output for Nobody {
    async fn bytes(&mut self, _stream: Stream, _bytes: Bytes) -> Result<(), OutputGone> {
        Ok(())
    }
}

/// What a line of ours begins with. The control byte keeps plain text from looking like its beginning.
fn line_start(nonce: &Token) -> String {
    format!("\u{1e}{}", nonce.as_str())
}

fn render(
    script: Script<'_>,
    place: Place<'_>,
    nonce: &Token,
    mark: &Token,
    length: u64,
    inline: Option<&[u8]>,
) -> Result<String, NulByte> {
    let mut text = String::new();
    let count = if inline.is_some() { 0 } else { length };
    for (name, value) in [
        ("nonce", line_start(nonce).as_str()),
        ("mark", mark.as_str()),
        ("limit", &place.deadline.as_millis().to_string()),
        ("grace", &limits::KILL_GRACE.as_secs().to_string()),
        ("count", &count.to_string()),
    ] {
        render_assignment(&mut text, name, value.as_bytes())?;
    }
    render_format(&mut text, "format", inline.unwrap_or_default());
    for (name, value) in script.variables {
        render_assignment(&mut text, name, value)?;
    }
    // What only people read does not travel.
    for line in [include_str!("supervise.sh"), script.text].into_iter().flat_map(str::lines) {
        let line = line.trim_start();
        if !line.is_empty() && !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str("main\n");
    Ok(render_block(&text))
}

/// The whole body where it is short; nothing, and nothing read, where it is long.
async fn inline_body<R: AsyncRead + Unpin>(
    body: &mut Body<R>,
) -> Result<Option<Vec<u8>>, RunError> {
    if body.length > INLINE_BODY {
        return Ok(None);
    }
    let mut content = Vec::new();
    (&mut body.bytes).take(body.length).read_to_end(&mut content).await?;
    let whole = u64::try_from(content.len()) == Ok(body.length);
    if whole { Ok(Some(content)) } else { Err(RunError::BodyCut) }
}

/// Sends the script, and the body unless it stands in the script. Returns the pipe, whose end would be the
/// hang-up, unless the body was cut or nobody reads.
async fn feed<R: AsyncRead + Unpin>(
    stdin: Option<ChildStdin>,
    block: String,
    body: Option<Body<R>>,
) -> Option<ChildStdin> {
    let mut stdin = stdin?;
    stdin.write_all(block.as_bytes()).await.ok()?;
    if let Some(body) = body {
        let mut rest =
            tokio::io::BufReader::with_capacity(limits::FRAME_BYTES, body.bytes.take(body.length));
        let copied = tokio::io::copy_buf(&mut rest, &mut stdin).await.ok()?;
        if copied != body.length {
            return None;
        }
        stdin.write_all(BODY_END).await.ok()?;
    }
    Some(stdin)
}
