//! What the conformance suite asks of a server, on the HTTP stack of the real one: tools,
//! resources and prompts by which it sees each feature of the protocol. Not in releases.

mod inputs;
mod prompts;
mod resources;
mod tools;

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Parser;
use contract::limits;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult,
        CompletionInfo, GetPromptRequestParams, GetPromptResponse, Implementation,
        ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
        ServerCapabilities, ServerConfig, SetLevelRequestParams, SubscribeRequestParams,
        SubscriptionFilter, Tool, UnsubscribeRequestParams,
    },
    service::{RequestContext, SubscriptionContext, SubscriptionSink},
};
use serde_json::{Map, Value};

use super::{Door, Reach, ServeError, serve};
use crate::{
    caller::{Caller, Limits},
    cli,
    confinement::Writes,
};

/// How long what is listed may be kept, in milliseconds.
const TTL_MS: u64 = 60_000;

/// What `conformance` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Listen on this loopback address and port
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    reach: Reach,
}

/// Serves the suite, which shows no token, until a signal asks for the end.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, ServeError> {
    let listen = arguments.listen.to_string();
    let line = Line::try_parse_from(["conformance", "--listen", &listen]);
    let Line { reach } = line.map_err(|_| ServeError::NoHome)?;
    let caller = Arc::new(Caller::new(None, Limits::default()));
    let fixtures = Arc::new(Fixtures::new());
    let server = move |_: Arc<Caller>| Arc::clone(&fixtures);
    cli::on_one_thread(serve(&reach, &Writes::default(), Door::Open(caller), None, server))
        .map_err(ServeError::Runtime)??;
    Ok(ExitCode::SUCCESS)
}

/// The server of the suite.
struct Fixtures {
    states: inputs::States,
    sinks: Mutex<Vec<SubscriptionSink>>,
}

impl Fixtures {
    fn new() -> Self {
        Self { states: inputs::States::new(), sinks: Mutex::default() }
    }

    /// Takes in one who listens. Those that are gone are forgotten when there are many.
    fn add(&self, sink: SubscriptionSink) {
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if sinks.len() >= limits::HTTP_CONNECTIONS {
            sinks.clear();
        }
        sinks.push(sink);
    }

    /// Those who listen for changes now.
    fn sinks(&self) -> Vec<SubscriptionSink> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An object that stands in this code.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

/// A value that stands in this code, as what it stands for.
fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value)
        .map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

impl ServerHandler for Fixtures {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        let mut config = ServerConfig::new(capabilities);
        config.server_info =
            Implementation::new("salt-bridge-conformance", env!("CARGO_PKG_VERSION"));
        config
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::list().ok()?.into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let result = ListToolsResult::with_all_items(tools::list()?);
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match request.name.strip_prefix("test_input_required_result_") {
            Some(scenario) => inputs::call(&self.states, scenario, &request, &context),
            None => tools::call(self, request, &context).await,
        }
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let result = ListResourcesResult::with_all_items(resources::list()?);
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let result = ListResourceTemplatesResult::with_all_items(resources::templates()?);
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let result = resources::read(&request.uri)?;
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public).into())
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        self.add(context.sink().clone());
        context.cancelled().await;
        Ok(())
    }

    async fn subscribe(
        &self,
        _request: SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(
        &self,
        _request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn set_level(
        &self,
        _request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let result = ListPromptsResult::with_all_items(prompts::list()?);
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(&request)
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let values = ["paris", "park", "party"].map(str::to_owned);
        let fitting = values.into_iter().filter(|value| value.starts_with(&request.argument.value));
        let info = CompletionInfo::with_all_values(fitting.collect())
            .map_err(|error| ErrorData::internal_error(error, None))?;
        Ok(CompleteResult::new(info))
    }
}
