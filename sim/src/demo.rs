//! `salt-bridge-sim demo`: a story of tools, called by a real MCP client through the real agent,
//! qrexec policy and daemon, on a fresh host.

mod shown;
mod story;

use std::{io::Write as _, process::ExitCode};

use rmcp::model::CallToolResult;
use serde_json::{Map, Value};

use crate::{Era, Host, HostError, McpClient, McpError};
use shown::Shown;

/// The operator's file of the demo.
pub(crate) const SCOPE: &str = "\
@agent salt-bridge
work
dev
test        see,lifecycle,net
@tag:ai-managed
";

/// Tells the story on this host: success when every tool of it is there and did what it says.
pub fn run(host: &Host) -> Result<ExitCode, HostError> {
    host.set_scope(SCOPE)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(HostError::Runtime)?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let told = match Demo::start(host).await {
            Ok(mut demo) => story::tell(&mut demo).await.map(|()| demo.conclude()),
            Err(error) => Err(error),
        };
        Ok(match told {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("\nThe demo failed: {error}"));
                ExitCode::FAILURE
            }
        })
    })
}

/// Why the demo did not show what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// The client got no answer.
    #[error(transparent)]
    Mcp(#[from] McpError),
    /// The story needs a tool that the agent does not offer.
    #[error("the agent offers no tool {tool:?}")]
    NotOffered {
        /// The tool.
        tool: String,
    },
    /// The answer is not the one that the story promises.
    #[error("{what}; the answer was {answer}")]
    Surprise {
        /// What should be true.
        what: &'static str,
        /// What came.
        answer: String,
    },
}

/// The client, and what it saw.
pub(crate) struct Demo {
    client: McpClient,
    shown: Shown,
}

fn say(text: &str) {
    // Nobody reads on a closed standard output.
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// The columns of a screen that an answer may fill.
const WIDTH: usize = 160;

impl Demo {
    async fn start(host: &Host) -> Result<Self, DemoError> {
        say("Salt Bridge: a simulated Qubes host, the real agent, the real daemon.");
        say(host.mode().sentence());
        say("Simulated qubes are no security boundary.\n\nThe operator's file in dom0:");
        for line in SCOPE.lines() {
            say(&format!("    {line}"));
        }
        let client = McpClient::start(host, Era::Modern).await?;
        let offered = client.tools().await?.into_iter().map(|tool| tool.name.into_owned());
        let shown = Shown::new(offered);
        Ok(Self { client, shown })
    }

    /// Begins a chapter.
    pub(crate) fn chapter(&self, title: &str) {
        say(&format!("\n--- {title}"));
    }

    /// Says what only the story knows.
    pub(crate) fn remark(&self, text: &str) {
        say(&format!("    {text}"));
    }

    /// Calls a tool and shows the answer as an agent would see it; `promise` has to be true of it.
    pub(crate) async fn call(
        &mut self,
        tool: &str,
        arguments: Value,
        what: &'static str,
        promise: impl FnOnce(&Answer) -> bool,
    ) -> Result<Answer, DemoError> {
        say(&format!("\n> {tool} {}", shorten(&arguments.to_string())));
        let row = self.shown.row(tool)?;
        let arguments: Map<String, Value> = arguments.as_object().cloned().unwrap_or_default();
        let answer = Answer::of(self.client.call(tool, arguments).await?);
        let mark = if answer.is_error { "error" } else { "result" };
        say(&format!("  {mark}: {}", shorten(&answer.text())));
        if !promise(&answer) {
            return Err(DemoError::Surprise { what, answer: answer.text() });
        }
        say(&format!("  ok: {what}"));
        row.push(what);
        Ok(answer)
    }

    /// The table of tools, and what the story showed of each.
    fn conclude(&self) {
        say("\nTool                 shown");
        for line in self.shown.lines() {
            say(&line);
        }
        say("\nEverything did what it should. To use this host from Claude Code:");
        say("    claude mcp add salt-bridge -- salt-bridge-sim mcp");
    }
}

/// What a tool answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The tool says that it failed.
    pub(crate) is_error: bool,
    /// The structured result; the text as a string where there is none.
    pub(crate) value: Value,
}

impl Answer {
    fn of(result: CallToolResult) -> Self {
        let is_error = result.is_error.unwrap_or_default();
        let value = result.structured_content.unwrap_or_else(|| {
            let text = result.content.first().and_then(|content| content.as_text());
            Value::String(text.map(|text| text.text.clone()).unwrap_or_default())
        });
        Self { is_error, value }
    }

    /// The answer as one text.
    pub(crate) fn text(&self) -> String {
        self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned)
    }

    /// Whether a field has this value.
    pub(crate) fn has(&self, field: &str, value: impl Into<Value>) -> bool {
        !self.is_error && self.value.get(field) == Some(&value.into())
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    let start: String = text.chars().take(WIDTH).collect();
    format!("{start}... ({} characters)", text.chars().count())
}
