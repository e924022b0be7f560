//! `disk_budget`.

use contract::{Fault, Power};
use serde::Serialize;

use crate::{
    error::Error,
    handle::Reader,
    service::{Nothing, Observe, Service},
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct PoolStats;

/// The disk space of the sandbox.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// How many bytes the persistent volumes of the sandbox have, with those being made.
    pub used: u64,
    /// How many they may have.
    pub cap: u64,
    /// How many are left.
    pub headroom: u64,
    /// How many bytes the private volume of one qube may have.
    pub private_cap: u64,
    /// What each qube of your scope has of them.
    pub vms: Vec<Share>,
}

/// The share of one qube.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Share {
    /// Its name.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "subject")))]
    pub name: String,
    /// The bytes of its persistent volumes.
    pub bytes: u64,
}

impl Service for PoolStats {
    const NAME: &str = "PoolStats";
    const TOOL: Option<&str> = Some("disk_budget");
    const TITLE: &str = "Disk space of the sandbox";
    const SUMMARY: &str = "Tell how much disk space the qubes (virtual machines) of the sandbox have, how much they may have, and what is left for create_vm and clone_vm. Counted are the sizes of volumes that outlive a shutdown, not how full they are.";
    const POWER: Power = Power::Shape;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    type On = View;
    type Effect = Observe;
    type Request = Nothing;
    type Response = Response;

    async fn handle(view: View, _: Nothing, host: Reader<'_>) -> Result<Response, Error> {
        let refused = |_| Error::Fault(Fault::Refused {});
        let _birthright = view.caller().and_then(|c| c.birth(view.now())).map_err(refused)?;
        let (settings, budget) = (host.sandbox()?, host.budget().await?);
        let mut vms = Vec::new();
        for (name, bytes) in &budget.qubes {
            if host.sees(&view, name).await? {
                vms.push(Share { name: name.to_string(), bytes: *bytes });
            }
        }
        let (used, cap) = (budget.used(), settings.pool_cap);
        let headroom = cap.saturating_sub(used);
        Ok(Response { used, cap, headroom, private_cap: settings.private_cap, vms })
    }
}
