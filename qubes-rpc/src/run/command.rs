//! Commands: what is run in a qube, in which folder and with which environment.

use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use super::{
    Body, Ended, Output, Place, RunError, Runner, Script,
    bash::{NulByte, render_words},
};

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub enum Program<'a> {
    /// A command line, by bash.
    Line(&'a [u8]),
    /// A program with its arguments, as they are. The first names it, or a file of `PATH`.
    Argv(&'a [String]),
}

/// A command, and what it is to find when it begins.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// What is run.
    pub program: Program<'a>,
    /// The folder in which it begins; relative to the user's home, which is also where it begins
    /// when this is empty.
    pub cwd: &'a [u8],
    /// Variables of its environment as `NAME=value`, besides those of the user.
    pub env: &'a [String],
}

impl<'a> Command<'a> {
    /// A command line that begins in the user's home.
    pub const fn line(line: &'a [u8]) -> Self {
        Self { program: Program::Line(line), cwd: b"", env: &[] }
    }

    /// The values of the variables that `command.sh` reads.
    pub(super) fn render(&self) -> Result<Rendered<'a>, NulByte> {
        let (line, argv) = match self.program {
            Program::Line(line) => (line, String::new()),
            Program::Argv(argv) => (&b""[..], render_words(argv)?),
        };
        Ok(Rendered { line, argv, env: render_words(self.env)?, cwd: self.cwd })
    }
}

/// A command as values of variables.
#[derive(Debug)]
pub(super) struct Rendered<'a> {
    line: &'a [u8],
    argv: String,
    env: String,
    cwd: &'a [u8],
}

impl Rendered<'_> {
    /// The variables by name.
    pub(super) fn variables(&self) -> [(&'static str, &[u8]); 4] {
        [
            ("command", self.line),
            ("words", self.argv.as_bytes()),
            ("pairs", self.env.as_bytes()),
            ("cwd", self.cwd),
        ]
    }
}

impl Runner {
    /// Runs a command in a session of its own.
    ///
    /// stdin is the body and then the end of input. A folder that cannot be entered is noted as
    /// `cwd`, and nothing is run. Not cancel safe: dropped half-way, the work is killed, but nobody
    /// waits for that. Use `cancel`, after which this returns within [`contract::limits::KILL`] and
    /// a little.
    pub async fn command<R, O>(
        &self,
        place: Place<'_>,
        command: &Command<'_>,
        body: Body<R>,
        output: &mut O,
        cancel: &CancellationToken,
    ) -> Result<Ended, RunError>
    where
        R: AsyncRead + Unpin,
        O: Output,
    {
        let rendered = command.render()?;
        let script = Script { text: include_str!("command.sh"), variables: &rendered.variables() };
        self.script(place, script, body, output, cancel).await
    }
}
