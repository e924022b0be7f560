//! What this process can do, apart from how it is asked: by MCP, or by a person.

use std::sync::Arc;

use contract::Fault;
use rmcp::model::{JsonObject, Tool};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{
    addresses::LISTING_SERVICE,
    answer,
    arguments::{Call, QubeName, Request},
    batch,
    caller::Caller,
    catalogue::{Named, Row, Tools},
    dom0::Dom0,
    qrexec::{CallError, Qrexec},
    reply::{Receiver, ReplyError},
    transfer::{Direction, Transfers},
    vms::{Listing, Vm},
};

/// The tools, and the way to dom0.
#[derive(Debug)]
pub(crate) struct Agent {
    tools: Arc<Tools>,
    dom0: Dom0,
    transfers: Option<Arc<Transfers>>,
}

/// What a tool's name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    /// What dom0 does.
    Service(Named<'a>),
    /// What this side does by itself with dom0's services for files.
    Transfer(&'a Transfers, Direction),
}

impl Found<'_> {
    /// The tool as MCP lists it.
    pub(crate) fn tool(&self) -> &Tool {
        match self {
            Self::Service(named) => named.tool(),
            Self::Transfer(transfers, direction) => transfers.tool(*direction),
        }
    }
}

impl Agent {
    /// One with these tools, whose calls are made so.
    pub(crate) fn new(tools: Tools, qrexec: Qrexec) -> Self {
        let dom0 = Dom0::new(&tools, qrexec);
        Self { tools: Arc::new(tools), dom0, transfers: None }
    }

    /// The same with tools that move files to and from a folder of this qube.
    pub(crate) fn with_transfers(self, transfers: Transfers) -> Self {
        Self { transfers: Some(Arc::new(transfers)), ..self }
    }

    /// The same for this caller, within its limits.
    pub(crate) fn for_caller(&self, caller: Arc<Caller>) -> Self {
        Self {
            tools: Arc::clone(&self.tools),
            dom0: self.dom0.for_caller(caller),
            transfers: self.transfers.clone(),
        }
    }

    /// The tools as MCP lists them.
    pub(crate) fn tools(&self) -> Vec<Tool> {
        let mut tools = self.tools.list();
        tools.extend(self.transfers.iter().flat_map(|transfers| transfers.tools()).cloned());
        tools
    }

    /// What the tool with this name stands for.
    pub(crate) fn find(&self, tool: &str) -> Option<Found<'_>> {
        let own = || {
            let transfers = self.transfers.as_ref()?;
            let directions = [Direction::Upload, Direction::Download];
            let direction = directions.into_iter().find(|way| transfers.tool(*way).name == tool)?;
            Some(Found::Transfer(transfers, direction))
        };
        self.tools.by_tool(tool).map(Found::Service).or_else(own)
    }

    /// The row of a service, if this version knows it.
    pub(crate) fn row(&self, service: &str) -> Option<&Row> {
        self.tools.by_service(service)
    }

    /// Calls a tool. `news` is told how far it is. Dropping this ends the call in dom0 too.
    pub(crate) async fn run(
        &self,
        found: Found<'_>,
        arguments: JsonObject,
        news: &watch::Sender<String>,
    ) -> Result<JsonObject, CallError> {
        let tool = &found.tool().name;
        if self.dom0.caller().is_some_and(|caller| !caller.may_use(tool)) {
            return Err(CallError::refused());
        }
        match found {
            Found::Transfer(transfers, direction) => {
                transfers.run(self, direction, arguments, news).await
            }
            Found::Service(Named::One(row)) => {
                let call = Call::parse(row, arguments)?;
                answer::render_reply(&row.spec, self.dom0.call(row, call, news).await?)
            }
            Found::Service(Named::Batch(row, tool)) => {
                let calls = Call::parse_batch(row, &tool.input_schema, arguments)?;
                Ok(batch::run(&self.dom0, row, calls, news).await)
            }
        }
    }

    /// Calls a service with arguments that are known to fit it.
    pub(crate) async fn ask(
        &self,
        service: &str,
        qube: Option<QubeName>,
        arguments: JsonObject,
    ) -> Result<JsonObject, CallError> {
        let call = Call { qube, request: Request::new(arguments, Vec::new())? };
        self.make(service, call).await
    }

    /// The same with raw bytes behind the arguments.
    pub(crate) async fn send(
        &self,
        service: &str,
        qube: QubeName,
        arguments: JsonObject,
        body: Vec<u8>,
    ) -> Result<JsonObject, CallError> {
        let call = Call { qube: Some(qube), request: Request::new(arguments, body)? };
        self.make(service, call).await
    }

    async fn make(&self, service: &str, call: Call) -> Result<JsonObject, CallError> {
        let row = self.row(service).ok_or_else(|| unknown(service))?;
        let (news, _nobody) = watch::channel(String::new());
        answer::render_reply(&row.spec, self.dom0.call(row, call, &news).await?)
    }

    /// Calls a service whose answer goes to `receiver` as it comes.
    pub(crate) async fn receive(
        &self,
        service: &str,
        call: Call,
        receiver: &mut impl Receiver,
    ) -> Result<(), CallError> {
        let row = self.row(service).ok_or_else(|| unknown(service))?;
        let (news, _nobody) = watch::channel(String::new());
        self.dom0.receive(row, call, &news, receiver).await
    }

    /// The qubes in scope.
    pub(crate) async fn vms(&self) -> Result<Vec<Vm>, CallError> {
        let listing = self.ask(LISTING_SERVICE, None, JsonObject::new()).await?;
        let listing: Listing = parse(listing)?;
        Ok(listing.vms)
    }
}

/// A result as a type.
pub(crate) fn parse<T: DeserializeOwned>(result: JsonObject) -> Result<T, CallError> {
    Ok(serde_json::from_value(result.into()).map_err(ReplyError::Json)?)
}

fn unknown(service: &str) -> CallError {
    Fault::bad_request(format!("this version has no service {service}")).into()
}
