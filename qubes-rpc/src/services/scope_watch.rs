//! `ScopeWatch`: which qubes of the scope something happened to, for the agent's side itself.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, pin::pin, time::Duration};

use contract::{Fault, Power, limits};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval, sleep_until};

use crate::{
    error::Error,
    events::Scoped,
    handle::Reader,
    host::Host,
    service::{Observe, Service},
    view::View,
};

/// The service.
#[derive(Debug)]
pub struct ScopeWatch;

/// For how long.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// For how many seconds, 1 to 3600.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 3600)))]
    pub seconds: u64,
}

/// Why the watch is over.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// "time", or "disconnected" when qubesd tells no more.
    pub ended: String,
}

/// What has happened since it was told last.
#[derive(Debug, Default, Serialize)]
struct News {
    /// The qubes in scope to which something happened.
    changed: BTreeSet<String>,
    /// Whether the list of qubes itself may be another one.
    scope: bool,
}

impl News {
    fn is_some(&self) -> bool {
        self.scope || !self.changed.is_empty()
    }

    fn add(&mut self, scoped: Scoped) {
        let event = scoped.untrusted.name.as_str();
        self.scope |= scoped.class.is_none()
            || event.starts_with("domain-tag-")
            || matches!(event, "domain-add" | "domain-delete" | "property-set:name");
        if scoped.class.is_some() {
            self.changed.insert(scoped.subject);
        }
    }
}

impl Service for ScopeWatch {
    const NAME: &str = "ScopeWatch";
    const TOOL: Option<&str> = None;
    const TITLE: &str = "Watch the scope";
    const SUMMARY: &str = "Stream which qubes of the scope something happened to, and whether the scope itself changed. For the agent's side, which tells its clients what to read again.";
    const POWER: Power = Power::See;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = View;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _: &Host) -> Result<(), Fault> {
        let most = limits::WATCH.as_secs();
        if !(1..=most).contains(&request.seconds) {
            return Err(Fault::bad_request(format!("seconds must be 1 to {most}")));
        }
        Ok(())
    }

    async fn handle(view: View, request: Request, host: Reader<'_>) -> Result<Response, Error> {
        let _place = Place::take(host.host, view.agent().as_str())?;
        let deadline = Instant::now() + Duration::from_secs(request.seconds);
        let mut watch = host.scoped_events(&view).await?;
        let mut ticks = interval(limits::PROGRESS);
        let mut file = stamp(host.host);
        let mut news = News::default();
        let ended = 'watch: loop {
            // One that was dropped half-way could lose an event.
            let mut next = pin!(watch.next());
            let scoped = loop {
                tokio::select! {
                    found = &mut next => match found {
                        Ok(Some(scoped)) => break scoped,
                        Ok(None) | Err(Error::Qubesd(_)) => break 'watch "disconnected",
                        Err(error) => return Err(error),
                    },
                    _ = ticks.tick() => {
                        let now = stamp(host.host);
                        news.scope |= now != file;
                        file = now;
                        if news.is_some() {
                            host.tell_news(&std::mem::take(&mut news)).await?;
                        }
                    }
                    () = sleep_until(deadline) => break 'watch "time",
                    () = host.gone().cancelled() => return Err(Error::Cancelled),
                }
            };
            news.add(scoped);
        };
        if news.is_some() {
            host.tell_news(&news).await?;
        }
        Ok(Response { ended: ended.into() })
    }
}

impl Reader<'_> {
    async fn tell_news(self, news: &News) -> Result<(), Error> {
        let json = serde_json::to_string(news).map_err(Error::Encoding)?;
        Ok(self.call.answer.progress(json).await?)
    }
}

/// What tells the operator's file from the one before: its place, its size and its time.
fn stamp(host: &Host) -> Option<(u64, u64, i64, i64)> {
    let found = fs::symlink_metadata(host.paths.scope()).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// One of the few watches of an agent, until it is dropped.
struct Place<'h> {
    host: &'h Host,
    agent: String,
}

impl<'h> Place<'h> {
    fn take(host: &'h Host, agent: &str) -> Result<Self, Fault> {
        let mut watches = host.watches.borrow_mut();
        let count = watches.entry(agent.to_owned()).or_insert(0);
        if *count >= limits::WATCHES_PER_AGENT {
            return Err(Fault::Busy {});
        }
        *count += 1;
        Ok(Self { host, agent: agent.to_owned() })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut watches = self.host.watches.borrow_mut();
        if let Some(count) = watches.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                watches.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use admin_api::Event;

    #[test]
    fn news_name_what_changed_and_say_when_the_list_is_another_one() {
        let scoped = |name: &str, class: Option<&str>| Scoped {
            subject: "work".into(),
            class: class.map(str::to_owned),
            untrusted: Event::new("work", name),
        };
        let mut news = News::default();
        assert!(!news.is_some());
        news.add(scoped("domain-start", Some("AppVM")));
        news.add(scoped("domain-start", Some("AppVM")));
        assert_eq!(serde_json::to_string(&news).unwrap(), r#"{"changed":["work"],"scope":false}"#);
        for (event, class) in
            [("domain-tag-add:x", Some("AppVM")), ("domain-add", Some("AppVM")), ("x", None)]
        {
            let mut news = News::default();
            news.add(scoped(event, class));
            assert!(news.scope, "{event}");
            assert_eq!(news.changed.is_empty(), class.is_none(), "a qube that left is not named");
        }
    }
}
