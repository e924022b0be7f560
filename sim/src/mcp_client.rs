//! A real MCP client of the agent on a simulated host, for the demo and for tests.

use std::{collections::BTreeSet, io};

use rmcp::{
    ClientHandler, ClientServiceExt, Peer, RoleClient,
    model::{
        CallToolRequestParams, CallToolResult, ProgressNotificationParam, ProtocolVersion, Tool,
    },
    service::{
        ClientInitializeError, ClientLifecycleMode, NotificationContext, RunningService,
        ServiceError,
    },
};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::{Host, spawn};

/// The MCP revisions that differ in how a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Era {
    /// 2025-11-25, with `initialize`.
    Legacy,
    /// 2026-07-28, without.
    Modern,
}

/// Why there is no session, or no answer in it.
#[derive(Debug, thiserror::Error)]
pub enum McpError {
    /// The agent could not be started.
    #[error("cannot start the agent")]
    Start(#[source] io::Error),
    /// The session did not begin.
    #[error("the session did not begin")]
    Begin(#[source] Box<ClientInitializeError>),
    /// The call has no answer.
    #[error("the call has no answer")]
    Call(#[source] Box<ServiceError>),
}

#[derive(Debug)]
struct Client {
    progress: mpsc::UnboundedSender<ProgressNotificationParam>,
}

impl ClientHandler for Client {
    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        // A session that ends wants no more of it.
        drop(self.progress.send(progress));
    }
}

/// A session with the agent, a process of its own that ends with this.
#[derive(Debug)]
pub struct McpClient {
    client: RunningService<RoleClient, Client>,
    progress: mpsc::UnboundedReceiver<ProgressNotificationParam>,
    /// Killed when dropped.
    _agent: tokio::process::Child,
    /// The tools that were called.
    called: BTreeSet<String>,
}

impl McpClient {
    /// Starts the agent of this host and begins a session with it.
    pub async fn start(host: &Host, era: Era) -> Result<Self, McpError> {
        let layout = host.layout();
        let mut agent =
            spawn::agent(&layout.program("salt-bridge"), &layout.program("qrexec-client-vm"))
                .map_err(McpError::Start)?;
        let (Some(input), Some(output)) = (agent.stdout.take(), agent.stdin.take()) else {
            return Err(McpError::Start(io::ErrorKind::BrokenPipe.into()));
        };
        let mode = match era {
            Era::Legacy => ClientLifecycleMode::Initialize,
            Era::Modern => ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            },
        };
        let (sender, progress) = mpsc::unbounded_channel();
        let client = Client { progress: sender }
            .serve_with_lifecycle((input, output), mode)
            .await
            .map_err(|error| McpError::Begin(Box::new(error)))?;
        Ok(Self { client, progress, _agent: agent, called: BTreeSet::new() })
    }

    /// The tools that the agent offers.
    pub async fn tools(&self) -> Result<Vec<Tool>, McpError> {
        self.client.list_all_tools().await.map_err(|error| McpError::Call(Box::new(error)))
    }

    /// Calls a tool.
    pub async fn call(
        &mut self,
        tool: &str,
        arguments: Map<String, Value>,
    ) -> Result<CallToolResult, McpError> {
        self.called.insert(tool.to_owned());
        let parameters = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let answer = self.client.call_tool(parameters).await;
        answer.map_err(|error| McpError::Call(Box::new(error)))
    }

    /// The other side of the session, for calls at the same time and calls that are cancelled.
    pub fn peer(&self) -> Peer<RoleClient> {
        self.client.peer().clone()
    }

    /// The next report of how far a call is; nothing when the session has ended.
    pub async fn progress(&mut self) -> Option<ProgressNotificationParam> {
        self.progress.recv().await
    }

    /// The tools that were called so far.
    pub fn called(&self) -> &BTreeSet<String> {
        &self.called
    }
}
