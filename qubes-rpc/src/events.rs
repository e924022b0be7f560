//! The events of the host, as far as they are about qubes of one caller's scope.
//!
//! qubesd tells dom0 everything; this is where all that is about others is dropped.

use std::{collections::BTreeSet, time::Duration};

use admin_api::{Destination, Event, EventStream, QubeName};
use contract::limits;
use tokio::time::Instant;

use crate::{
    error::Error, handle::Handle, hidden::Names, host::Host, service::Effect,
    services::property_get::SHOWN_TAG, view::View,
};

/// The longest that what was decided about names is believed while events come.
const BELIEVED: Duration = limits::AUTHORITY;

/// Events about qubes that a caller sees, or saw until the event.
#[derive(Debug)]
pub(crate) struct ScopedEvents<'h> {
    host: &'h Host,
    agent: QubeName,
    stream: EventStream,
    names: Names<'h>,
    decided: Instant,
    /// Those that were in scope when they were last looked at: what becomes of a qube that is
    /// removed, or leaves the scope, is told to the end.
    seen: BTreeSet<String>,
}

/// An event about a qube in scope. Its details are as qubesd told them, so not to be shown.
#[derive(Debug)]
pub(crate) struct Scoped {
    /// The qube.
    pub(crate) subject: String,
    /// Its class; none when it is gone.
    pub(crate) class: Option<String>,
    /// What qubesd told.
    pub(crate) untrusted: Event,
}

impl<'h, E: Effect> Handle<'h, E> {
    /// The events about qubes of this view, from now on.
    pub(crate) async fn scoped_events(self, view: &View) -> Result<ScopedEvents<'h>, Error> {
        let stream = self.host.qubesd.events(Destination::Dom0, limits::QUBESD).await?;
        // Looked at only after qubesd listens, so that nothing falls in between.
        let seen = self.visible(view).await?;
        Ok(ScopedEvents {
            host: self.host,
            agent: view.agent().clone(),
            stream,
            names: self.host.names(view.agent()),
            decided: Instant::now(),
            seen: seen.iter().map(|seen| seen.qube.name().to_string()).collect(),
        })
    }
}

impl<'h> ScopedEvents<'h> {
    /// The next event about a qube in scope; none when qubesd ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Scoped>, Error> {
        while let Some(event) = self.stream.next().await? {
            let Some(subject) = subject(&event) else { continue };
            let comes_or_goes = event.name.starts_with("domain-tag-")
                || matches!(event.name.as_str(), "domain-add" | "domain-delete");
            if comes_or_goes || self.decided.elapsed() > BELIEVED {
                self.names = self.host.names(&self.agent);
                self.decided = Instant::now();
            }
            if let Some(class) = self.names.class_of(&subject).await? {
                self.seen.insert(subject.clone());
                return Ok(Some(Scoped { subject, class: Some(class), untrusted: event }));
            }
            if !self.seen.contains(&subject) {
                continue;
            }
            // It was in scope. If it still exists, its leaving is the last that is told of it.
            let gone = match subject.parse() {
                Ok(name) => self.host.find(&name, false).await?.is_none(),
                Err(_) => true,
            };
            if !gone || event.name == "domain-delete" {
                self.seen.remove(&subject);
            }
            if gone || event.name == format!("domain-tag-delete:{SHOWN_TAG}") {
                return Ok(Some(Scoped { subject, class: None, untrusted: event }));
            }
        }
        Ok(None)
    }

    /// The names that the caller may know now.
    pub(crate) fn names(&mut self) -> &mut Names<'h> {
        &mut self.names
    }
}

/// The qube that an event is about. Those that tell of a qube's coming and going are the system's,
/// and name it in a detail.
fn subject(event: &Event) -> Option<String> {
    let about = match (event.subject.as_str(), event.name.as_str()) {
        ("", "domain-add" | "domain-delete" | "domain-pre-delete") => event.get("vm")?,
        (subject, _) => subject,
    };
    Some(about.to_owned()).filter(|about| !about.is_empty())
}
