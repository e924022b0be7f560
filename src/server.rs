//! The MCP server: lists the tools and forwards their calls. Nothing per service.

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, Implementation,
        JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
        Tool,
    },
    service::RequestContext,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    answer,
    arguments::Call,
    batch,
    catalogue::{Named, Tools},
    dom0::Dom0,
    progress,
    qrexec::{CallError, Qrexec},
};

/// What the model reads about the server as a whole, below 2 KiB, key words first.
const INSTRUCTIONS: &str = "\
Qubes OS: manage qubes (VMs, virtual machines) of this computer: list, start and shut down qubes, \
exec commands as user or root, read and write files, firewall rules, network information, \
ConnectTCP policy.

Call list_vms first: it names the qubes you may use, their state, and the powers you have over \
each (see, lifecycle, exec, root, files, net, shape). Qubes outside that scope do not exist for \
you; do not guess names. dom0 itself can never be a target.

Commands run inside the named qube, not here; paths are paths in that qube. Work on one qube does \
not touch another. A command that ran and failed is a success that carries its exit_code.

Errors: \"request refused\" means the qube is out of scope or you lack the power; dom0 gives no \
reason, asking again does not help, tell the user which qube and power you need. \"bad request\" \
says what to change in the arguments. \"the qube is not running\" means you lack the lifecycle \
power to start it. \"timed out\" and \"too large\" name the limit. \"too many calls\" means try \
again later. \"failed\" carries a call id that the operator finds in dom0's journal.";

/// How long a client may keep the list of tools, in milliseconds: it never changes while we run.
const TOOLS_TTL_MS: u64 = 3_600_000;

/// The server.
#[derive(Debug)]
pub(crate) struct Server {
    tools: Tools,
    config: ServerConfig,
    dom0: Dom0,
    hung_up: CancellationToken,
}

impl Server {
    /// A server with these tools.
    pub(crate) fn new(tools: Tools, qrexec: Qrexec) -> Self {
        let mut config = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        config.server_info = Implementation::new("salt-bridge", env!("CARGO_PKG_VERSION"))
            .with_title("Salt Bridge")
            .with_description(
                "Manages the qubes of this Qubes OS machine that its operator allows.",
            );
        config.instructions = Some(INSTRUCTIONS.into());
        Self { tools, config, dom0: Dom0::new(qrexec), hung_up: CancellationToken::new() }
    }

    /// Ends every call once it is cancelled: the client has hung up.
    pub(crate) fn hung_up(&self) -> CancellationToken {
        self.hung_up.clone()
    }

    async fn call(
        &self,
        named: Named<'_>,
        arguments: JsonObject,
        context: &RequestContext<RoleServer>,
    ) -> CallToolResult {
        let (news, receiver) = watch::channel(String::new());
        let work = async move {
            // The sender goes away with the work, and that ends the reports.
            let news = news;
            self.run(named, arguments, &news).await
        };
        let (result, ()) = tokio::join!(work, progress::report(context, receiver));
        match result {
            Ok(object) => answer::render_object(object),
            Err(error) => answer::render_error(&error),
        }
    }

    async fn run(
        &self,
        named: Named<'_>,
        arguments: JsonObject,
        news: &watch::Sender<String>,
    ) -> Result<JsonObject, CallError> {
        match named {
            Named::One(row) => {
                let call = Call::parse(row, arguments)?;
                answer::render_reply(&row.spec, self.dom0.call(row, call, news).await?)
            }
            Named::Batch(row, tool) => {
                let calls = Call::parse_batch(row, &tool.input_schema, arguments)?;
                Ok(batch::run(&self.dom0, row, calls, news).await)
            }
        }
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        self.config.clone()
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.by_tool(name).map(|named| named.tool().clone())
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut result = ListToolsResult::with_all_items(self.tools.list());
        result.ttl_ms = Some(TOOLS_TTL_MS);
        result.cache_scope = Some(CacheScope::Public);
        Ok(result)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(named) = self.tools.by_tool(&request.name) else {
            let message = format!("there is no tool {:?}", request.name);
            return Err(ErrorData::invalid_params(message, None));
        };
        let arguments = request.arguments.unwrap_or_default();
        tokio::select! {
            biased;
            () = context.ct.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
            () = self.hung_up.cancelled() => {
                Err(ErrorData::internal_error("the input ended before the call was done", None))
            }
            result = self.call(named, arguments, &context) => Ok(result.into()),
        }
    }
}

#[cfg(test)]
mod tests;
