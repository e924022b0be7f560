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
    addresses::{Addresses, Known, LISTING_SERVICE},
    answer,
    arguments::{Call, Request},
    catalogue::{Row, Tools},
    progress,
    qrexec::{Address, CallError, Qrexec},
    reply::{Reply, ReplyError},
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
    qrexec: Qrexec,
    addresses: Addresses,
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
        Self {
            tools,
            config,
            qrexec,
            addresses: Addresses::default(),
            hung_up: CancellationToken::new(),
        }
    }

    /// Ends every call once it is cancelled: the client has hung up.
    pub(crate) fn hung_up(&self) -> CancellationToken {
        self.hung_up.clone()
    }

    async fn call(
        &self,
        row: &Row,
        arguments: JsonObject,
        context: &RequestContext<RoleServer>,
    ) -> CallToolResult {
        let call = match Call::parse(row, arguments) {
            Ok(call) => call,
            Err(fault) => return answer::render_fault(&fault),
        };
        let (news, receiver) = watch::channel(String::new());
        let work = async move {
            // The sender goes away with the work, and that ends the reports.
            let news = news;
            let reply = self.forward(row, call, &news).await?;
            if row.spec.service == LISTING_SERVICE {
                self.addresses.remember(&reply);
            }
            answer::render_reply(&row.spec, reply)
        };
        let (result, ()) = tokio::join!(work, progress::report(context, receiver));
        result.unwrap_or_else(|error| answer::render_error(&error))
    }

    async fn forward(
        &self,
        row: &Row,
        call: Call,
        news: &watch::Sender<String>,
    ) -> Result<Reply, CallError> {
        let (service, long) = (row.spec.service.as_str(), row.spec.long);
        let Some(qube) = call.qube else {
            return self.qrexec.call(&Address::scope(service), long, call.request, news).await;
        };
        let send = async |way, request| {
            let address = Address::qube(service, &qube, way);
            self.qrexec.call(&address, long, request, news).await
        };
        let known = self.addresses.find(&qube, self.list()).await;
        let (Known::Now(way) | Known::Before(way)) = known;
        let outcome = send(way, call.request.clone()).await;
        match (known, outcome) {
            (Known::Before(way), Err(error)) if error.is_refusal() => {
                // The qube may have been listed or tagged anew since.
                match self.addresses.find_anew(&qube, self.list()).await {
                    now if now == way => Err(error),
                    now => send(now, call.request).await,
                }
            }
            (_, outcome) => outcome,
        }
    }

    /// Lists the qubes, to learn how each is named.
    async fn list(&self) -> Result<Reply, CallError> {
        let request = Request::new(JsonObject::new(), Vec::new()).map_err(ReplyError::Fault)?;
        let (news, _nobody) = watch::channel(String::new());
        self.qrexec.call(&Address::scope(LISTING_SERVICE), false, request, &news).await
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        self.config.clone()
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.by_tool(name).map(|row| row.tool.clone())
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
        let Some(row) = self.tools.by_tool(&request.name) else {
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
            result = self.call(row, arguments, &context) => Ok(result.into()),
        }
    }
}

#[cfg(test)]
mod tests;
