//! Calls of dom0's services, each naming its qube the way its listing says.

use std::sync::Arc;

use rmcp::model::JsonObject;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    addresses::{Addresses, Known, LISTING_SERVICE},
    arguments::{Call, QubeName, Request},
    caller::Caller,
    catalogue::Row,
    qrexec::{Address, CallError, Qrexec},
    reply::{Receiver, Reply, ReplyError},
};

/// What stands in a listing for a qube whose name may not be known; dom0 writes the same.
const OUT_OF_SCOPE: &str = "<out-of-scope>";

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
}

impl Dom0 {
    /// One that makes its calls so, and knows no addresses yet.
    pub(crate) fn new(qrexec: Qrexec) -> Self {
        Self { shared: Arc::new(Shared { qrexec, addresses: Addresses::default() }), caller: None }
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
        if row.spec.service != LISTING_SERVICE {
            self.receive(row, call, news, &mut reply).await?;
            return Ok(reply);
        }
        if self.caller().is_some_and(|caller| !caller.may_list(row)) {
            return Err(CallError::refused());
        }
        self.send(row, call, news, &mut reply).await?;
        self.shared.addresses.remember(&reply);
        match self.caller() {
            Some(caller) if !caller.may_reach_all() => narrow(reply, caller),
            Some(_) | None => Ok(reply),
        }
    }

    /// Makes a call whose answer goes to `receiver` as it comes.
    pub(crate) async fn receive(
        &self,
        row: &Row,
        call: Call,
        news: &watch::Sender<String>,
        receiver: &mut impl Receiver,
    ) -> Result<(), CallError> {
        let qube = call.qube.as_ref().map(QubeName::as_str);
        if self.caller().is_some_and(|caller| !caller.may_call(row, qube)) {
            return Err(CallError::refused());
        }
        self.send(row, call, news, receiver).await
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

/// The qubes of a listing that the caller may reach. Names of others stand nowhere in it.
fn narrow(mut reply: Reply, caller: &Caller) -> Result<Reply, CallError> {
    let mut listing: JsonObject = serde_json::from_slice(&reply.json).map_err(ReplyError::Json)?;
    if let Some(Value::Array(vms)) = listing.get_mut("vms") {
        let reaches = |value: Option<&Value>| {
            value.and_then(Value::as_str).is_some_and(|name| caller.may_reach(name))
        };
        vms.retain(|vm| reaches(vm.get("name")));
        for vm in vms.iter_mut().filter_map(Value::as_object_mut) {
            if vm.get("netvm").is_some_and(Value::is_string) && !reaches(vm.get("netvm")) {
                vm.insert("netvm".into(), OUT_OF_SCOPE.into());
            }
        }
    }
    reply.json = serde_json::to_vec(&listing).map_err(ReplyError::Json)?;
    Ok(reply)
}
