//! The qubes of a host, as qubesd knows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use admin_api::Event;

use super::{
    EventLog, Failure,
    device::{Attachment, Offer},
};
use crate::qube::Running;

/// The class of a qube.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Admin,
    App,
    Disposable,
    Standalone,
    Template,
}

impl Class {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "AdminVM",
            Self::App => "AppVM",
            Self::Disposable => "DispVM",
            Self::Standalone => "StandaloneVM",
            Self::Template => "TemplateVM",
        }
    }
}

/// Whether a qube runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// It does not run.
    Halted,
    /// It is being started.
    Transient,
    /// It runs.
    Running,
    /// It runs, and its processes are stopped.
    Paused,
    /// It is shutting down.
    Halting,
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Halted => "Halted",
            Self::Transient => "Transient",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Halting => "Halting",
        })
    }
}

/// One qube.
#[derive(Debug)]
pub(crate) struct Qube {
    pub(crate) name: String,
    pub(crate) uuid: String,
    pub(crate) class: Class,
    pub(crate) qid: u32,
    /// Zero while it does not run.
    pub(crate) xid: u32,
    /// Seconds since 1970, while it runs.
    pub(crate) start_time: Option<f64>,
    pub(crate) power: PowerState,
    /// What was set. Everything else has its default.
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) tags: BTreeSet<String>,
    /// In the order in which they were first set.
    pub(crate) features: Vec<(String, String)>,
    pub(crate) notes: String,
    /// Sizes of volumes that were resized, in bytes.
    pub(crate) volumes: BTreeMap<String, u64>,
    /// The devices that it offers to others.
    pub(crate) offers: Vec<Offer>,
    /// The devices that were attached to it.
    pub(crate) attachments: Vec<Attachment>,
    /// It ignores a shutdown, for tests.
    pub(crate) stubborn: bool,
    /// Its processes, while it runs.
    pub(crate) running: Option<Arc<Running>>,
}

impl Qube {
    pub(crate) fn new(name: &str, class: Class, qid: u32) -> Self {
        Self {
            name: name.to_owned(),
            uuid: random_uuid(),
            class,
            qid,
            xid: 0,
            start_time: None,
            power: PowerState::Halted,
            properties: BTreeMap::new(),
            tags: BTreeSet::new(),
            features: Vec::new(),
            notes: String::new(),
            volumes: BTreeMap::new(),
            offers: Vec::new(),
            attachments: Vec::new(),
            stubborn: false,
            running: None,
        }
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.class == Class::Admin
    }

    /// What was set for this property, if anything.
    pub(crate) fn set(&self, property: &str) -> Option<&str> {
        self.properties.get(property).map(String::as_str)
    }

    /// A feature of the qube itself.
    pub(crate) fn feature(&self, name: &str) -> Option<&str> {
        self.features.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Where qubesd keeps its files, beneath `/var/lib/qubes`.
    pub(crate) fn folder(&self) -> String {
        let kind = match self.class {
            Class::Template => "vm-templates",
            Class::Admin | Class::App | Class::Disposable | Class::Standalone => "appvms",
        };
        format!("{kind}/{}", self.name)
    }
}

/// A colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) color: String,
}

/// Everything that qubesd knows.
#[derive(Debug)]
pub(crate) struct System {
    dom0: Qube,
    qubes: BTreeMap<String, Qube>,
    pub(crate) labels: Vec<Label>,
    /// Properties of the system as a whole that were set.
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) events: EventLog,
    /// Volumes that may be copied once: token, then UUID and volume.
    pub(crate) copies: BTreeMap<String, (String, String)>,
    next_xid: u32,
    next_qid: u32,
}

impl System {
    pub(crate) fn new(events: EventLog) -> Self {
        let mut dom0 = Qube::new("dom0", Class::Admin, 0);
        "00000000-0000-0000-0000-000000000000".clone_into(&mut dom0.uuid);
        dom0.power = PowerState::Running;
        dom0.properties.insert("label".to_owned(), "black".to_owned());
        let colors = [
            ("red", "0xcc0000"),
            ("orange", "0xf57900"),
            ("yellow", "0xedd400"),
            ("green", "0x73d216"),
            ("gray", "0x555753"),
            ("blue", "0x3465a4"),
            ("purple", "0x75507b"),
            ("black", "0x000000"),
        ];
        let labels = (1..).zip(colors).map(|(index, (name, color))| Label {
            index,
            name: name.to_owned(),
            color: color.to_owned(),
        });
        Self {
            dom0,
            qubes: BTreeMap::new(),
            labels: labels.collect(),
            properties: BTreeMap::new(),
            events,
            copies: BTreeMap::new(),
            next_xid: 1,
            next_qid: 1,
        }
    }

    /// dom0 first, then by name, as qubesd lists them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Qube> {
        std::iter::once(&self.dom0).chain(self.qubes.values())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Qube> {
        if name == "dom0" { Some(&self.dom0) } else { self.qubes.get(name) }
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Qube> {
        if name == "dom0" { Some(&mut self.dom0) } else { self.qubes.get_mut(name) }
    }

    /// The qube of this name, or the exception that says that there is none.
    pub(crate) fn require(&self, name: &str) -> Result<&Qube, Failure> {
        self.get(name).ok_or_else(|| Failure::no_such_domain(name))
    }

    /// The same, to change it.
    pub(crate) fn require_mut(&mut self, name: &str) -> Result<&mut Qube, Failure> {
        self.get_mut(name).ok_or_else(|| Failure::no_such_domain(name))
    }

    pub(crate) fn insert(&mut self, qube: Qube) {
        self.qubes.insert(qube.name.clone(), qube);
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<Qube> {
        self.qubes.remove(name)
    }

    pub(crate) fn take_xid(&mut self) -> u32 {
        self.next_xid += 1;
        self.next_xid - 1
    }

    pub(crate) fn take_qid(&mut self) -> u32 {
        self.next_qid += 1;
        self.next_qid - 1
    }

    /// Notes an event of this qube; the empty name stands for the system.
    pub(crate) fn emit(&self, subject: &str, name: impl Into<String>, details: &[(&str, &str)]) {
        let event = details
            .iter()
            .fold(Event::new(subject, name), |event, (key, value)| event.detail(*key, *value));
        self.events.push(event);
    }
}

/// A UUID that no other qube has had, so that a qube made anew under an old name is another one.
fn random_uuid() -> String {
    let half = || format!("{:016x}", RandomState::new().hash_one(0));
    let digits = half() + &half();
    let mut parts = [8, 4, 4, 4, 12].into_iter();
    let mut rest = digits.as_str();
    let mut uuid = String::new();
    while let Some((part, tail)) = parts.next().and_then(|length| rest.split_at_checked(length)) {
        if !uuid.is_empty() {
            uuid.push('-');
        }
        uuid.push_str(part);
        rest = tail;
    }
    uuid
}
