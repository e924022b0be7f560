//! `watch_events`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contract::{Fault, Power, limits};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::{
    error::Error,
    events::{Scoped, ScopedEvents},
    handle::Reader,
    hidden::{NAME_A_QUBE, Names},
    host::Host,
    service::{Observe, Service},
    services::{
        device_list::printable,
        feature_set::is_an_agents,
        property_get::{READABLE, SHOWN_TAG},
    },
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct EventWatch;

/// What to watch for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// For how many seconds, 1 to 120.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 120)))]
    pub seconds: u64,
    /// Only events of this qube; of all in your scope when left out.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub vm_name: Option<String>,
    /// Only these events, such as "domain-start"; "property-set" is every property.
    #[serde(default)]
    pub events: Option<Vec<String>>,
    /// End after this many events; 1000 when left out.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    pub max_events: Option<u64>,
}

/// Something that happened to a qube of your scope.
#[derive(Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shown {
    /// What happened, for example "domain-start" or "property-set:label".
    pub event: String,
    /// The qube it happened to.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "subject")))]
    pub vm_name: String,
    /// The class of the qube; null when it is gone.
    pub class: Option<String>,
    /// When, in seconds since 1970.
    pub time: f64,
    /// The new value of a property or feature, `<out-of-scope>` for a qube you may not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "text")))]
    pub value: Option<Value>,
    /// The tag that came or went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The other qube, where the event has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "name")))]
    pub other_vm: Option<String>,
}

/// What happened meanwhile.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The events in their order.
    pub events: Vec<Shown>,
    /// Why it ended: "time", "max_events", or "disconnected" when Qubes stopped telling.
    pub ended: String,
}

impl Service for EventWatch {
    const NAME: &str = "EventWatch";
    const TOOL: Option<&str> = Some("watch_events");
    const TITLE: &str = "Watch events of qubes";
    const SUMMARY: &str = "Wait and tell what happens to the qubes (virtual machines) of your scope: starts, shutdowns, changes of properties, features and devices. Returns after the given seconds, or after max_events; each event is also told as progress when it comes.";
    const POWER: Power = Power::See;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = View;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _: &Host) -> Result<(), Fault> {
        let (first, last) = (limits::WATCH_SECONDS.start(), limits::WATCH_SECONDS.end());
        if !limits::WATCH_SECONDS.contains(&request.seconds) {
            return Err(Fault::bad_request(format!("seconds must be {first} to {last}")));
        }
        let most = limits::EVENTS;
        if request.max_events.is_some_and(|events| events == 0) || limit(request) > most {
            return Err(Fault::bad_request(format!("max_events must be 1 to {most}")));
        }
        let names = request.events.as_deref().unwrap_or_default();
        if names.len() > limits::PROPERTY_NAMES || names.iter().any(String::is_empty) {
            let most = limits::PROPERTY_NAMES;
            let message = format!("events must be at most {most} names of events");
            return Err(Fault::bad_request(message));
        }
        Ok(())
    }

    async fn handle(view: View, request: Request, host: Reader<'_>) -> Result<Response, Error> {
        let only = match &request.vm_name {
            Some(name) => {
                let named = host.host.named_in_text(view.agent(), name, Power::See).await?;
                Some(named.0.name().to_string())
            }
            None => None,
        };
        let deadline = Instant::now() + Duration::from_secs(request.seconds);
        let mut watch = host.scoped_events(&view).await?;
        let mut events = Vec::new();
        let ended = loop {
            let next = tokio::select! {
                next = timeout_at(deadline, next(&mut watch, &request, only.as_deref())) => next,
                () = host.gone().cancelled() => return Err(Error::Cancelled),
            };
            match next {
                Err(_) => break "time",
                Ok(None) => break "disconnected",
                Ok(Some(Err(error))) => return Err(error),
                Ok(Some(Ok(shown))) => {
                    host.tell(&format!("{} {}", shown.vm_name, shown.event));
                    events.push(shown);
                }
            }
            if events.len() >= limit(&request) {
                break "max_events";
            }
        };
        Ok(Response { events, ended: ended.into() })
    }
}

fn limit(request: &Request) -> usize {
    let asked = request.max_events.map(usize::try_from);
    asked.map_or(limits::EVENTS, |asked| asked.unwrap_or(usize::MAX))
}

/// The next event that is asked for; none when qubesd tells no more.
async fn next(
    watch: &mut ScopedEvents<'_>,
    request: &Request,
    only: Option<&str>,
) -> Option<Result<Shown, Error>> {
    loop {
        let scoped = match watch.next().await {
            Ok(Some(scoped)) => scoped,
            // A stream that ends, however it ends, tells no more.
            Ok(None) | Err(Error::Qubesd(_)) => return None,
            Err(error) => return Some(Err(error)),
        };
        if only.is_some_and(|only| only != scoped.subject) {
            continue;
        }
        match show(&scoped, watch.names()).await {
            Ok(Some(shown)) if is_wanted(&shown, request) => return Some(Ok(shown)),
            Ok(Some(_) | None) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Whether an event is one of those asked for, by its whole name or by what stands before the `:`.
fn is_wanted(shown: &Shown, request: &Request) -> bool {
    let Some(wanted) = &request.events else { return true };
    wanted.iter().any(|wanted| {
        let rest = shown.event.strip_prefix(wanted.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    })
}

/// An event as its agent may read it: what follows the `:` in its name, and its details, only where
/// it is known what they hold.
async fn show(scoped: &Scoped, names: &mut Names<'_>) -> Result<Option<Shown>, Error> {
    let event = &scoped.untrusted;
    let (base, suffix) = event.name.split_once(':').unwrap_or((&event.name, ""));
    let word = |found: char| found.is_ascii_alphanumeric() || found == '-';
    if base.is_empty() || base.len() > 64 || !base.chars().all(word) {
        return Ok(None);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut shown = Shown {
        event: base.to_owned(),
        vm_name: scoped.subject.clone(),
        class: scoped.class.clone(),
        time: now.as_secs_f64(),
        value: None,
        tag: None,
        other_vm: None,
    };
    let whole = || format!("{base}:{suffix}");
    match base {
        // A tag says how far others trust a qube, which is none of the agent's concern.
        "domain-tag-add" | "domain-tag-delete" if suffix != SHOWN_TAG => return Ok(None),
        "domain-tag-add" | "domain-tag-delete" => shown.tag = Some(suffix.to_owned()),
        _ if base.starts_with("property-") && READABLE.contains(&suffix) => {
            shown.event = whole();
            shown.value = match event.get("newvalue") {
                Some(value) => Some(property(&scoped.subject, suffix, value, names).await?),
                None => None,
            };
        }
        _ if base.starts_with("domain-feature-") && is_an_agents(suffix) => {
            shown.event = whole();
            shown.value = match event.get("value") {
                Some(value) if suffix.contains('-') => Some(printable(value).into()),
                Some(value) => Some(names.show(value).await?.into()),
                None => None,
            };
        }
        _ if base.starts_with("device-") && DEVICES.contains(&suffix) => {
            shown.event = whole();
            let device = event.get("device").unwrap_or_default();
            if let Some((backend, _)) = device.split_once(':') {
                shown.other_vm = Some(names.show(backend).await?);
            }
        }
        "net-domain-connect" => {
            if let Some(other) = event.get("vm") {
                shown.other_vm = Some(names.show(other).await?);
            }
        }
        _ => {}
    }
    Ok(Some(shown))
}

/// The classes of devices of which events may tell.
const DEVICES: [&str; 4] = ["block", "usb", "mic", "pci"];

/// The new value of a property, as an event writes it.
async fn property(
    of: &str,
    name: &str,
    value: &str,
    names: &mut Names<'_>,
) -> Result<Value, Error> {
    if !NAME_A_QUBE.contains(&name) {
        return Ok(printable(value).into());
    }
    Ok(match value {
        "" | "None" => Value::Null,
        netvm if name == "netvm" && names.lists(of) => printable(netvm).into(),
        other => names.show(other).await?.into(),
    })
}
