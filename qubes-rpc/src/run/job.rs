//! Jobs: commands that outlive the call that started them, and what a qube says of them.
//!
//! All that a qube says is its own word: it can lie about its jobs, and about nothing else.

use std::time::Duration;

use bytes::Bytes;
use contract::{Stream, limits};
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use super::{
    Body, Command, Ended, Output, OutputGone, Place, RunError, Runner, Script, bash::render_words,
};

/// The most lines of ours that one script about jobs writes.
const NOTES: usize = limits::JOBS_PER_AGENT + 8;

/// A job that is to be started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobStart<'a> {
    /// The mark of its processes and the name of its folder: 32 hexadecimal digits.
    pub(crate) mark: &'a str,
    /// What it runs.
    pub(crate) command: &'a Command<'a>,
    /// After this it is killed.
    pub(crate) deadline: Duration,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobEnd {
    /// It returned this code.
    Exit(i32),
    /// It was killed at its deadline.
    TimedOut,
    /// It was stopped.
    Stopped,
}

/// What a qube says of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobState {
    /// It runs.
    Running,
    /// It has ended like this, so many seconds after 1970.
    Ended(JobEnd, u64),
    /// Nobody knows how it ended: its qube or its guard went away.
    Lost,
}

impl JobState {
    /// From the words of our scripts.
    fn parse(words: &str) -> Option<Self> {
        let mut words = words.split(' ');
        let (state, code, at) = (words.next()?, words.next(), words.next());
        let at = || at?.parse().ok();
        Some(match state {
            "running" => Self::Running,
            "exit" => Self::Ended(JobEnd::Exit(code?.parse().ok()?), at()?),
            "timeout" => Self::Ended(JobEnd::TimedOut, at()?),
            "stopped" => Self::Ended(JobEnd::Stopped, at()?),
            "lost" | "missing" => Self::Lost,
            _ => return None,
        })
    }
}

/// Which part of a job's output is wanted, and how long it is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobRange<'a> {
    /// The job's mark.
    pub(crate) mark: &'a str,
    /// Of this stream.
    pub(crate) stream: Stream,
    /// From this byte on; negative, so many bytes before the end.
    pub(crate) from: i64,
    /// At most so many bytes.
    pub(crate) length: u64,
    /// How long to wait for a byte at `from`, or, where that is negative, for the end.
    pub(crate) wait: Duration,
}

/// What was found of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobRead {
    /// How it is.
    pub(crate) state: JobState,
    /// How many bytes came on standard output so far.
    pub(crate) stdout_bytes: u64,
    /// How many bytes came on standard error so far.
    pub(crate) stderr_bytes: u64,
    /// Where the bytes that were sent begin.
    pub(crate) begin: u64,
}

/// What became of stopping a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// How it is now.
    pub(crate) state: JobState,
}

const fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    }
}

fn piece() -> String {
    limits::JOB_PIECE_BYTES.to_string()
}

impl Runner {
    /// Starts a job. It runs when this returns a success; after any failure it may.
    ///
    /// A folder that cannot be entered is noted as `cwd`, and nothing is run.
    pub(crate) async fn start_job<R, O>(
        &self,
        place: Place<'_>,
        job: JobStart<'_>,
        body: Body<R>,
        output: &mut O,
        cancel: &CancellationToken,
    ) -> Result<Ended, RunError>
    where
        R: AsyncRead + Unpin,
        O: Output,
    {
        let rendered = job.command.render()?;
        let (seconds, piece) = (job.deadline.as_secs().to_string(), piece());
        let kept = limits::JOB_PIECES.to_string();
        let minutes = (limits::JOB_KEPT.as_secs() / 60).to_string();
        let mut variables = vec![
            ("job", job.mark.as_bytes()),
            ("seconds", seconds.as_bytes()),
            ("segment", piece.as_bytes()),
            ("kept", kept.as_bytes()),
            ("minutes", minutes.as_bytes()),
        ];
        variables.extend(rendered.variables());
        let text = concat!(
            include_str!("command.sh"),
            include_str!("job.sh"),
            include_str!("job_start.sh")
        );
        self.script(place, Script { text, variables: &variables }, body, output, cancel).await
    }

    /// Reads a range of a job's output into `output`. Nothing is known of a job whose folder is gone.
    pub(crate) async fn read_job<O: Output>(
        &self,
        place: Place<'_>,
        range: JobRange<'_>,
        output: &mut O,
        cancel: &CancellationToken,
    ) -> Result<Option<JobRead>, RunError> {
        let piece = piece();
        let (from, length) = (range.from.to_string(), range.length.to_string());
        let seconds = range.wait.as_secs().to_string();
        let script = Script {
            text: concat!(include_str!("job.sh"), include_str!("job_read.sh")),
            variables: &[
                ("job", range.mark.as_bytes()),
                ("segment", piece.as_bytes()),
                ("stream", name(range.stream).as_bytes()),
                ("from", from.as_bytes()),
                ("length", length.as_bytes()),
                ("seconds", seconds.as_bytes()),
            ],
        };
        let place = Place { deadline: limits::JOB_LOOK + range.wait, ..place };
        let mut notes = Notes { output, lines: Vec::new() };
        let ended = self.script(place, script, Body::empty(), &mut notes, cancel).await;
        if notes.find("missing").is_some() {
            return Ok(None);
        }
        ended?;
        let number = |words: &str, at: usize| words.split(' ').nth(at)?.parse().ok();
        let read = || {
            let (state, sizes) = (notes.find("state ")?, notes.find("sizes ")?);
            Some(JobRead {
                state: JobState::parse(state)?,
                stdout_bytes: number(sizes, 0)?,
                stderr_bytes: number(sizes, 1)?,
                begin: number(notes.find("range ")?, 0)?,
            })
        };
        read().map(Some).ok_or(RunError::Garbled)
    }

    /// Stops a job with all its processes, as root what its user cannot kill. With `forget` its
    /// output is removed too. A job that has ended, or was never begun, is stopped already.
    pub(crate) async fn stop_job(
        &self,
        place: Place<'_>,
        mark: &str,
        forget: bool,
    ) -> Result<Stopped, RunError> {
        let piece = piece();
        let script = Script {
            text: concat!(include_str!("job.sh"), include_str!("job_stop.sh")),
            variables: &[
                ("job", mark.as_bytes()),
                ("segment", piece.as_bytes()),
                ("forget", if forget { b"1" } else { b"" }),
            ],
        };
        let place = Place { deadline: limits::JOB_LOOK, ..place };
        let mut notes = Notes { output: &mut Nothing, lines: Vec::new() };
        let never = CancellationToken::new();
        match self.script(place, script, Body::empty(), &mut notes, &never).await? {
            Ended::Exit(0) => {}
            Ended::Exit(_) | Ended::TimedOut | Ended::Cancelled => return Err(RunError::Stalled),
        }
        if notes.find("left").is_some() {
            self.sweep(place, "", mark, true).await?;
        }
        let state = notes.find("state ").and_then(JobState::parse).ok_or(RunError::Garbled)?;
        // The guard of a job that root had to kill is still about to write its end.
        let state = if state == JobState::Running { JobState::Lost } else { state };
        Ok(Stopped { state })
    }

    /// How several jobs of one user are, with the sizes of their streams, by mark. Bounded by the
    /// deadline of the place.
    pub(crate) async fn job_states(
        &self,
        place: Place<'_>,
        marks: &[String],
    ) -> Result<Vec<(String, JobRead)>, RunError> {
        let (piece, jobs) = (piece(), render_words(marks)?);
        let script = Script {
            text: concat!(include_str!("job.sh"), include_str!("job_states.sh")),
            variables: &[("job", b""), ("segment", piece.as_bytes()), ("jobs", jobs.as_bytes())],
        };
        let mut notes = Notes { output: &mut Nothing, lines: Vec::new() };
        let never = CancellationToken::new();
        self.script(place, script, Body::empty(), &mut notes, &never).await?;
        let parse = |line: &String| {
            let mut words = line.strip_prefix("job ")?.splitn(4, ' ');
            let mark = words.next().filter(|mark| marks.iter().any(|known| known == mark))?;
            let (stdout_bytes, stderr_bytes) =
                (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let state = JobState::parse(words.next()?)?;
            Some((mark.to_owned(), JobRead { state, stdout_bytes, stderr_bytes, begin: 0 }))
        };
        Ok(notes.lines.iter().filter_map(parse).collect())
    }
}

/// Drops all output.
struct Nothing;

impl Output for Nothing {
    async fn bytes(&mut self, _stream: Stream, _bytes: Bytes) -> Result<(), OutputGone> {
        Ok(())
    }
}

/// Keeps the lines of our scripts, and passes standard output on.
struct Notes<'a, O> {
    output: &'a mut O,
    lines: Vec<String>,
}

impl<O> Notes<'_, O> {
    /// What follows the first line that begins like this.
    fn find(&self, word: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| line.strip_prefix(word))
    }
}

impl<O: Output> Output for Notes<'_, O> {
    async fn bytes(&mut self, stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        match stream {
            Stream::Stdout => self.output.bytes(stream, bytes).await,
            // What tools say in passing is no output of the job.
            Stream::Stderr => Ok(()),
        }
    }

    fn note(&mut self, stream: Stream, line: &[u8]) {
        if stream == Stream::Stderr && self.lines.len() < NOTES {
            self.lines.push(String::from_utf8_lossy(line).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_what_our_scripts_write_and_nothing_else() {
        let parse = JobState::parse;
        assert_eq!(parse("running"), Some(JobState::Running));
        assert_eq!(parse("exit 3 17"), Some(JobState::Ended(JobEnd::Exit(3), 17)));
        assert_eq!(parse("timeout 137 17"), Some(JobState::Ended(JobEnd::TimedOut, 17)));
        assert_eq!(parse("stopped  17"), Some(JobState::Ended(JobEnd::Stopped, 17)));
        assert_eq!((parse("lost"), parse("missing")), (Some(JobState::Lost), Some(JobState::Lost)));
        for odd in ["", "exit", "exit 3", "exit x 17", "exit 3 -1", "Running", "stopped"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
