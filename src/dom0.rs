//! Calls of dom0's services, each naming its qube the way its listing says.

use std::sync::Arc;

use contract::{Fault, RequestLine};
use rmcp::model::JsonObject;
use tokio::sync::watch;

use crate::{
    addresses::{Addresses, Known, LISTING_SERVICE},
    arguments::{Call, QubeName, Request},
    caller::Caller,
    catalogue::{Row, Tools},
    narrowing::{Marks, Narrowed, Narrowing},
    qrexec::{Address, CallError, Qrexec},
    reply::{Receiver, Reply, ReplyError},
};

/// The way to dom0, for one caller or for whoever runs this program.
#[derive(Debug)]
pub(crate) struct Dom0 {
    shared: Arc<Shared>,
    caller: Option<Arc<Caller>>,
}

/// What all callers have in common.
#[derive(Debug)]
struct Shared {
    qrexec: Qrexec,
    addresses: Addresses,
    /// Where names stand in a listing.
    listing: Marks,
}

impl Dom0 {
    /// One that makes its calls so, and knows no addresses yet.
    pub(crate) fn new(tools: &Tools, qrexec: Qrexec) -> Self {
        let listing = tools.by_service(LISTING_SERVICE).map(|row| row.tells.clone());
        let listing = listing.unwrap_or_default();
        Self {
            shared: Arc::new(Shared { qrexec, addresses: Addresses::default(), listing }),
            caller: None,
        }
    }

    /// The same way, for this caller and within its limits.
    pub(crate) fn for_caller(&self, caller: Arc<Caller>) -> Self {
        Self { shared: Arc::clone(&self.shared), caller: Some(caller) }
    }

    /// For whom calls are made.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.caller.as_deref()
    }

    /// Makes a call. `news` is told how far it is. Dropping this ends the call in dom0 too.
    pub(crate) async fn call(
        &self,
        row: &Row,
        call: Call,
        news: &watch::Sender<String>,
    ) -> Result<Reply, CallError> {
        let mut reply = Reply::default();
        let narrowing = self.admit(row, &call).await?;
        self.hear(row, call, news, &mut reply, narrowing.as_ref()).await?;
        if row.spec.service == LISTING_SERVICE {
            self.shared.addresses.remember(&reply);
        }
        if let Some(narrowing) = narrowing {
            let mut result = serde_json::from_slice(&reply.json).map_err(ReplyError::Json)?;
            narrowing.narrow(&mut result, &row.tells);
            reply.json = serde_json::to_vec(&result).map_err(ReplyError::Json)?;
        }
        Ok(reply)
    }

    /// Makes a call whose answer goes to `receiver` as it comes.
    pub(crate) async fn receive(
        &self,
        row: &Row,
        call: Call,
        news: &watch::Sender<String>,
        receiver: &mut impl Receiver,
    ) -> Result<(), CallError> {
        let narrowing = self.admit(row, &call).await?;
        self.hear(row, call, news, receiver, narrowing.as_ref()).await
    }

    /// Refuses what is not within the caller's limits. Of one that is limited to some qubes, tells
    /// what it may hear.
    async fn admit(&self, row: &Row, call: &Call) -> Result<Option<Narrowing<'_>>, CallError> {
        let Some(caller) = self.caller() else { return Ok(None) };
        let qube = call.qube.as_ref().map(QubeName::as_str);
        if !caller.may_call(row, qube) {
            return Err(CallError::refused());
        }
        if caller.may_reach_all() {
            return Ok(None);
        }
        let listed = caller.unless_revoked(Box::pin(self.shared.list())).await?;
        self.shared.addresses.remember(&listed);
        let listing = serde_json::from_slice(&listed.json).map_err(ReplyError::Json)?;
        let narrowing = Narrowing::new(caller, &listing, &self.shared.listing);
        let line = RequestLine::parse(&call.request.line)
            .map_err(|error| Fault::bad_request(error.to_string()))?;
        if !narrowing.lets(&line.args, &row.asks) {
            return Err(CallError::refused());
        }
        Ok(Some(narrowing))
    }

    async fn hear(
        &self,
        row: &Row,
        call: Call,
        news: &watch::Sender<String>,
        receiver: &mut impl Receiver,
        narrowing: Option<&Narrowing<'_>>,
    ) -> Result<(), CallError> {
        let mut receiver = Narrowed { narrowing, receiver };
        let outcome = self.send(row, call, news, &mut receiver).await;
        outcome.map_err(|error| match narrowing {
            Some(narrowing) => narrowing.narrow_error(error),
            None => error,
        })
    }

    /// Makes a call that is within the caller's limits, in the caller's name. What the call keeps
    /// is large, and stands on the heap so that calls of many qubes need no large stack.
    async fn send(
        &self,
        row: &Row,
        mut call: Call,
        news: &watch::Sender<String>,
        receiver: &mut impl Receiver,
    ) -> Result<(), CallError> {
        let Some(caller) = self.caller() else {
            return Box::pin(self.shared.send(row, call, news, receiver)).await;
        };
        if let Some(name) = caller.name() {
            call.request = call.request.for_principal(name)?;
        }
        let sending = Box::pin(self.shared.send(row, call, news, receiver));
        caller.unless_revoked(sending).await
    }
}

impl Shared {
    /// Makes a call, whoever it is for.
    async fn send(
        &self,
        row: &Row,
        call: Call,
        news: &watch::Sender<String>,
        receiver: &mut impl Receiver,
    ) -> Result<(), CallError> {
        let (service, long) = (row.spec.service.as_str(), row.spec.long);
        let Some(qube) = call.qube else {
            let address = Address::scope(service);
            return self.qrexec.call(&address, long, call.request, news, receiver).await;
        };
        let known = self.addresses.find(&qube, self.list()).await;
        let (Known::Now(way) | Known::Before(way)) = known;
        let address = Address::qube(service, &qube, way);
        let outcome = self.qrexec.call(&address, long, call.request.clone(), news, receiver).await;
        match (known, outcome) {
            (Known::Before(way), Err(error)) if error.is_refusal() => {
                // The qube may have been listed or tagged anew since.
                match self.addresses.find_anew(&qube, self.list()).await {
                    now if now == way => Err(error),
                    now => {
                        let address = Address::qube(service, &qube, now);
                        self.qrexec.call(&address, long, call.request, news, receiver).await
                    }
                }
            }
            (_, outcome) => outcome,
        }
    }

    /// Lists the qubes, to learn how each is named.
    async fn list(&self) -> Result<Reply, CallError> {
        let request = Request::new(JsonObject::new(), Vec::new()).map_err(ReplyError::Fault)?;
        let (news, _nobody) = watch::channel(String::new());
        let mut reply = Reply::default();
        let address = Address::scope(LISTING_SERVICE);
        self.qrexec.call(&address, false, request, &news, &mut reply).await?;
        Ok(reply)
    }
}
