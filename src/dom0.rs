//! Calls of dom0's services, each naming its qube the way its listing says.

use rmcp::model::JsonObject;
use tokio::sync::watch;

use crate::{
    addresses::{Addresses, Known, LISTING_SERVICE},
    arguments::{Call, Request},
    catalogue::Row,
    qrexec::{Address, CallError, Qrexec},
    reply::{Receiver, Reply, ReplyError},
};

/// The way to dom0.
#[derive(Debug)]
pub(crate) struct Dom0 {
    qrexec: Qrexec,
    addresses: Addresses,
}

impl Dom0 {
    /// One that makes its calls so, and knows no addresses yet.
    pub(crate) fn new(qrexec: Qrexec) -> Self {
        Self { qrexec, addresses: Addresses::default() }
    }

    /// Makes a call. `news` is told how far it is. Dropping this ends the call in dom0 too.
    pub(crate) async fn call(
        &self,
        row: &Row,
        call: Call,
        news: &watch::Sender<String>,
    ) -> Result<Reply, CallError> {
        let mut reply = Reply::default();
        self.receive(row, call, news, &mut reply).await?;
        if row.spec.service == LISTING_SERVICE {
            self.addresses.remember(&reply);
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
