//! The qubes that a fresh host has.

use crate::qubesd::{Class, PowerState, Qube, System, device::Offer};

/// The qube in which the agent lives.
pub const AGENT: &str = "salt-bridge";

/// The only kernel of a host.
pub(crate) const KERNEL: &str = "6.12.59-1.fc41";

/// One qube of a population.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    name: String,
    class: Class,
    runs: bool,
    label: &'static str,
    properties: Vec<(&'static str, String)>,
    tags: Vec<String>,
    features: Vec<(&'static str, String)>,
    offers: Vec<Offer>,
}

impl Resident {
    fn new(name: &str, class: Class, label: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            class,
            runs: false,
            label,
            properties: Vec::new(),
            tags: Vec::new(),
            features: Vec::new(),
            offers: Vec::new(),
        }
    }

    /// A qube based on `fedora-42`, which is halted.
    pub fn app(name: &str, label: &'static str) -> Self {
        Self::new(name, Class::App, label).with("template", "fedora-42")
    }

    /// A template, which is halted.
    pub fn template(name: &str) -> Self {
        let qube = Self::new(name, Class::Template, "black").with("netvm", "");
        qube.feature("qrexec", "1").feature("vmexec", "1").feature("os", "Linux")
    }

    /// A qube with a root file system of its own, which is halted.
    pub fn standalone(name: &str, label: &'static str) -> Self {
        Self::new(name, Class::Standalone, label)
    }

    /// The same qube, running.
    #[must_use]
    pub fn running(mut self) -> Self {
        self.runs = true;
        self
    }

    /// The same qube with a property set, instead of what it was set to.
    #[must_use]
    pub fn with(mut self, property: &'static str, value: &str) -> Self {
        self.properties.retain(|(known, _)| *known != property);
        self.properties.push((property, value.to_owned()));
        self
    }

    /// The same qube with a tag.
    #[must_use]
    pub fn tag(mut self, tag: &str) -> Self {
        self.tags.push(tag.to_owned());
        self
    }

    /// The same qube with a feature.
    #[must_use]
    pub fn feature(mut self, name: &'static str, value: &str) -> Self {
        self.features.push((name, value.to_owned()));
        self
    }

    /// The same qube with a device that it offers to others; `about` is what it says of it, as
    /// `KEY='VALUE'` words.
    #[must_use]
    pub fn offers(mut self, class: &'static str, port: &str, about: &str) -> Self {
        self.offers.push(Offer { class, port: port.to_owned(), about: about.to_owned() });
        self
    }
}

/// The qubes of a host, beside dom0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Population {
    residents: Vec<Resident>,
    properties: Vec<(&'static str, String)>,
}

impl Default for Population {
    fn default() -> Self {
        Self::of(vec![
            Resident::template("fedora-42"),
            Resident::template("debian-13"),
            Resident::app("sys-net", "red")
                .running()
                .with("netvm", "")
                .with("provides_network", "True")
                .with("maxmem", "0")
                .with("virt_mode", "hvm")
                .feature("servicevm", "1"),
            Resident::app("sys-firewall", "orange")
                .running()
                .with("netvm", "sys-net")
                .with("provides_network", "True")
                .feature("servicevm", "1"),
            Resident::app("default-dvm", "red").with("template_for_dispvms", "True"),
            Resident::app(AGENT, "purple").running(),
            Resident::app("work", "blue").running(),
            Resident::app("dev", "green"),
            Resident::app("test", "yellow"),
            Resident::app("personal", "yellow"),
            Resident::app("vault", "black").with("netvm", "").with("template", "debian-13"),
            Resident::app("ai-build", "gray").tag("ai-managed").running(),
            Resident::app("ai-test", "gray").tag("ai-managed"),
        ])
    }
}

impl Population {
    /// These qubes and no others, numbered in this order.
    pub fn of(residents: Vec<Resident>) -> Self {
        Self { residents, properties: Vec::new() }
    }

    /// The same population with more qubes.
    #[must_use]
    pub fn and(mut self, residents: impl IntoIterator<Item = Resident>) -> Self {
        self.residents.extend(residents);
        self
    }

    /// The same population with a template and a network for a sandbox (`ai-managed`).
    #[must_use]
    pub fn with_sandbox(self) -> Self {
        self.and([
            Resident::template("ai-debian").tag("ai-managed"),
            Resident::app("ai-net-router", "red")
                .tag("ai-managed")
                .with("netvm", "sys-firewall")
                .with("provides_network", "True"),
        ])
    }

    /// The same population with a property of the system as a whole set.
    #[must_use]
    pub fn with(mut self, property: &'static str, value: &str) -> Self {
        self.properties.push((property, value.to_owned()));
        self
    }

    /// The names of those that run from the start.
    pub(crate) fn running(&self) -> impl Iterator<Item = &str> {
        self.residents
            .iter()
            .filter(|resident| resident.runs)
            .map(|resident| resident.name.as_str())
    }

    /// Puts the qubes into an empty system, halted.
    pub(crate) fn settle(&self, system: &mut System) {
        for (property, value) in [
            ("default_netvm", "sys-firewall"),
            ("default_template", "fedora-42"),
            ("default_dispvm", "default-dvm"),
            ("clockvm", "sys-net"),
            ("updatevm", "sys-firewall"),
            ("default_kernel", KERNEL),
            ("default_pool_kernel", "linux-kernel"),
        ] {
            system.properties.insert(property.to_owned(), value.to_owned());
        }
        for (property, value) in &self.properties {
            system.properties.insert((*property).to_owned(), value.clone());
        }
        for resident in &self.residents {
            let qid = system.take_qid();
            let mut qube = Qube::new(&resident.name, resident.class, qid);
            qube.power = PowerState::Halted;
            qube.properties.insert("label".to_owned(), resident.label.to_owned());
            for (property, value) in &resident.properties {
                qube.properties.insert((*property).to_owned(), value.clone());
            }
            for tag in ["audiovm-dom0", "created-by-dom0", "guivm-dom0"] {
                qube.tags.insert(tag.to_owned());
            }
            qube.tags.extend(resident.tags.iter().cloned());
            qube.features = resident
                .features
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect();
            qube.offers.clone_from(&resident.offers);
            system.insert(qube);
        }
    }
}
