//! Files from one qube into another, through dom0, which does not look at them.
//!
//! `qfile-agent` of the one qube speaks with `qfile-unpacker` of the other: the bytes of the one are the
//! input of the other, in both directions, so that the agent learns whether all has arrived whole. The
//! unpacker works in a fresh folder beside the place of the copy, and a rename then makes it the copy.
//! Both run without the frame of other work, since their input is the other's output: when a side goes
//! away its pipes end, which ends them, and `timeout` ends what does not notice.

use std::{io, process::ExitStatus, time::Duration};

use contract::limits;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    process::Child,
};
use tokio_util::sync::CancellationToken;

use super::{
    Body, FileFailure, Place, RunError, Runner, Script,
    bash::{render_assignment, render_block},
    call::never_begun,
    child,
    marker::Token,
    own_lines::is_own_line,
    write::flag,
};

/// The most bytes of login scripts that may come before the first line of ours.
const NOISE_BYTES: usize = 64 * 1024;
/// The most bytes that are held of either direction.
const PIECE_BYTES: usize = limits::FRAME_BYTES;
/// What `timeout` returns when the time was over.
const TIMED_OUT: i32 = 124;

/// What is copied where.
#[derive(Clone, Copy, Debug)]
pub struct FileCopy<'a> {
    /// The qube that has it.
    pub from: Place<'a>,
    /// Any bytes but NUL. A relative path is relative to the user's home; a symlink is followed.
    pub source: &'a [u8],
    /// The qube that gets it. Its deadline is that of the smaller steps.
    pub to: Place<'a>,
    /// The path of the copy itself, not of the folder it comes into.
    pub target: &'a [u8],
    /// A directory may be copied, with all below it.
    pub recursive: bool,
    /// What is at the target may be replaced.
    pub overwrite: bool,
}

/// A copy that has arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCopied {
    /// Its absolute path.
    pub path: Vec<u8>,
    /// How many bytes went through dom0.
    pub bytes: u64,
    /// Nothing was there before.
    pub created: bool,
}

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyFailure {
    /// The qube that has it does not give it.
    #[error("source")]
    Source(#[source] FileFailure),
    /// The qube that gets it does not take it.
    #[error("target")]
    Target(#[source] FileFailure),
}

impl Runner {
    /// Copies a file, or a directory with all below it; modes and times stay. Either the whole copy
    /// stands at its place in the end, or what stood there before, and nothing else of it is left.
    pub async fn copy_files(
        &self,
        copy: FileCopy<'_>,
        progress: &mut impl FnMut(u64),
        cancel: &CancellationToken,
    ) -> Result<FileCopied, CopyFailure> {
        let token = Token::random().map_err(|error| CopyFailure::Target(lost(error)))?;
        let step = async |text, cancel: &CancellationToken| {
            let script = Script {
                text,
                variables: &[
                    ("target", copy.target),
                    ("token", token.as_str().as_bytes()),
                    ("overwrite", flag(copy.overwrite)),
                ],
            };
            self.written(copy.to, script, Body::empty(), cancel).await
        };
        let never = CancellationToken::new();
        let work = async {
            let prepare = concat!(include_str!("copy_arrange.sh"), include_str!("copy_prepare.sh"));
            step(prepare, cancel).await.map_err(CopyFailure::Target)?;
            let bytes = self.transfer(copy, &token, progress, cancel).await?;
            let place = concat!(include_str!("copy_arrange.sh"), include_str!("copy_place.sh"));
            let placed = step(place, cancel).await.map_err(CopyFailure::Target)?;
            Ok(FileCopied { path: placed.path, bytes, created: placed.created })
        };
        let copied = work.await;
        if copied.is_err() {
            let discard = concat!(include_str!("copy_arrange.sh"), include_str!("copy_discard.sh"));
            // The copy's own failure is what counts; a qube that is gone cannot be tidied.
            let _tidied = step(discard, &never).await;
        }
        copied
    }

    async fn transfer(
        &self,
        copy: FileCopy<'_>,
        token: &Token,
        progress: &mut impl FnMut(u64),
        cancel: &CancellationToken,
    ) -> Result<u64, CopyFailure> {
        let deadline = copy.from.deadline;
        let seconds = deadline.as_secs().max(1).to_string();
        let variables = [
            ("path", copy.source),
            ("recursive", flag(copy.recursive)),
            ("seconds", seconds.as_bytes()),
        ];
        let source = End::start(self, copy.from, include_str!("copy_from.sh"), &variables);
        let mut source = source.map_err(CopyFailure::Source)?;
        let variables = [
            ("target", copy.target),
            ("token", token.as_str().as_bytes()),
            ("seconds", seconds.as_bytes()),
        ];
        let text = concat!(include_str!("copy_arrange.sh"), include_str!("copy_to.sh"));
        let target = End::start(self, copy.to, text, &variables);
        let mut target = target.map_err(CopyFailure::Target)?;
        let stopped = |failure: FileFailure| Err(CopyFailure::Source(failure));
        tokio::select! {
            ended = connect(&mut source, &mut target, progress) => ended,
            () = cancel.cancelled() => stopped(FileFailure::Cancelled),
            () = tokio::time::sleep(deadline.saturating_add(limits::KILL)) => {
                stopped(FileFailure::TimedOut)
            }
        }
    }
}

fn lost(error: io::Error) -> FileFailure {
    FileFailure::Run(RunError::Io(error))
}

/// One of the two programs.
struct End {
    child: Child,
    block: String,
    mark: Vec<u8>,
}

impl End {
    /// Starts qrexec-client; the script is sent by [`connect`].
    fn start(
        runner: &Runner,
        place: Place<'_>,
        text: &str,
        variables: &[(&'static str, &[u8])],
    ) -> Result<Self, FileFailure> {
        let nonce = Token::random().map_err(lost)?;
        let nonce = format!("\u{1e}{}", nonce.as_str());
        let mut script = String::new();
        for (name, value) in variables.iter().chain([&("nonce", nonce.as_bytes())]) {
            render_assignment(&mut script, name, value).map_err(RunError::NulByte)?;
        }
        for line in text.lines().map(str::trim_start) {
            if !line.is_empty() && !line.starts_with('#') {
                script.push_str(line);
                script.push('\n');
            }
        }
        let child = child::start_bare(runner.program(), place)?;
        Ok(Self { child, block: render_block(&script), mark: format!("{nonce} ready\n").into() })
    }
}

/// Connects both, and waits until both have ended. How many bytes went forward.
async fn connect(
    source: &mut End,
    target: &mut End,
    progress: &mut impl FnMut(u64),
) -> Result<u64, CopyFailure> {
    let taken =
        |child: &mut Child| Some((child.stdin.take()?, child.stdout.take()?, child.stderr.take()?));
    let broken = || lost(io::ErrorKind::BrokenPipe.into());
    let (source_pid, target_pid) = (source.child.id(), target.child.id());
    let (mut source_in, mut source_out, source_err) =
        taken(&mut source.child).ok_or_else(|| CopyFailure::Source(broken()))?;
    let (mut target_in, mut target_out, target_err) =
        taken(&mut target.child).ok_or_else(|| CopyFailure::Target(broken()))?;
    // A child that does not take its script shows in how it ends.
    let _sent = source_in.write_all(source.block.as_bytes()).await;
    let _sent = target_in.write_all(target.block.as_bytes()).await;
    let forward = async {
        let begun = pass(&mut source_out, &mut target_in, &source.mark, progress).await;
        drop((source_out, target_in));
        begun
    };
    let backward = async {
        let begun = pass(&mut target_out, &mut source_in, &target.mark, &mut |_| {}).await;
        drop((target_out, source_in));
        begun
    };
    let (sent, answered, source_said, target_said, source_end, target_end) = tokio::join!(
        forward,
        backward,
        said(source_err, source_pid),
        said(target_err, target_pid),
        source.child.wait(),
        target.child.wait(),
    );
    let code = |status: io::Result<ExitStatus>| status.ok().and_then(|status| status.code());
    let (source_end, target_end) = (code(source_end), code(target_end));
    // What is not there before anything begins says more than that the other side then broke off.
    if answered.is_none() {
        return Err(CopyFailure::Target(not_begun(target_end, &target_said)));
    }
    let Some(bytes) = sent else {
        return Err(CopyFailure::Source(not_begun(source_end, &source_said)));
    };
    match (source_end, target_end) {
        (Some(0), Some(0)) => Ok(bytes),
        (Some(TIMED_OUT), _) | (_, Some(TIMED_OUT)) => {
            Err(CopyFailure::Source(FileFailure::TimedOut))
        }
        (_, Some(0)) => Err(CopyFailure::Source(ended(source_end, &source_said))),
        // The agent repeats what the unpacker answers, and knows the file's name.
        (_, _) if target_said.is_empty() => {
            Err(CopyFailure::Target(ended(target_end, &source_said)))
        }
        (_, _) => Err(CopyFailure::Target(ended(target_end, &target_said))),
    }
}

/// Passes on what comes behind the mark; nothing where it does not come.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mark: &[u8],
    progress: &mut impl FnMut(u64),
) -> Option<u64> {
    let mut buffer = Vec::with_capacity(PIECE_BYTES);
    let behind = loop {
        if from.read_buf(&mut buffer).await.ok()? == 0 || buffer.len() > NOISE_BYTES {
            return None;
        }
        if let Some(at) = memchr::memmem::find(&buffer, mark) {
            break at + mark.len();
        }
    };
    buffer.drain(..behind);
    let mut bytes = 0_u64;
    loop {
        if to.write_all(&buffer).await.is_err() {
            return Some(bytes);
        }
        bytes = bytes.saturating_add(u64::try_from(buffer.len()).unwrap_or(u64::MAX));
        progress(bytes);
        buffer.clear();
        let room = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
        match (&mut *from).take(room).read_buf(&mut buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Some(bytes),
        }
    }
}

/// The end of what a program says on standard error, without what qrexec-client itself says there.
async fn said(mut stderr: impl AsyncRead + Unpin, client: Option<u32>) -> String {
    let (mut kept, mut piece) = (Vec::new(), vec![0; limits::MESSAGE_BYTES]);
    while let Ok(count @ 1..) = stderr.read(&mut piece).await {
        kept.extend_from_slice(piece.get(..count).unwrap_or_default());
        let surplus = kept.len().saturating_sub(limits::MESSAGE_BYTES);
        kept.drain(..surplus);
    }
    let text = String::from_utf8_lossy(&kept);
    let is_said = |line: &&str| !line.is_empty() && !is_own_line(line, client);
    let line = text.lines().map(str::trim).rfind(is_said).unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(300).collect()
}

fn not_begun(status: Option<i32>, said: &str) -> FileFailure {
    match status {
        Some(1) => FileFailure::parse_message(said),
        status => never_begun(status, said.to_owned()).into(),
    }
}

fn ended(status: Option<i32>, said: &str) -> FileFailure {
    let message = match (status, said) {
        (Some(code), "") => format!("the copying program ended with {code}"),
        (None, "") => "the copying program was killed".to_owned(),
        (_, said) => said.to_owned(),
    };
    FileFailure::Other { message }
}

/// The time of the smaller steps of a copy.
pub const COPY_STEP: Duration = limits::FILE;
