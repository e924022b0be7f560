//! What a property is worth: what was set, or its default.

use super::{Class, PowerState, Qube, System};

const DNS: &str = "10.139.1.1 10.139.1.2";

impl System {
    /// The value of a qube's property as qubesd writes it. Unknown properties are empty.
    pub(crate) fn value(&self, qube: &Qube, property: &str) -> String {
        match qube.set(property) {
            Some(value) => value.to_owned(),
            None => self.default(qube, property),
        }
    }

    /// The value that a property has while nobody has set it.
    pub(crate) fn default(&self, qube: &Qube, property: &str) -> String {
        if qube.class == Class::Admin && property == "maxmem" {
            return "4096".to_owned();
        }
        match property {
            "name" => qube.name.clone(),
            "qid" => qube.qid.to_string(),
            "uuid" => qube.uuid.clone(),
            "klass" => qube.class.as_str().to_owned(),
            "xid" if qube.power == PowerState::Halted => "-1".to_owned(),
            "xid" => qube.xid.to_string(),
            "start_time" => qube.start_time.map(|time| format!("{time:.2}")).unwrap_or_default(),
            "icon" => self.icon(qube),
            "updateable" => truth(qube.class != Class::App && qube.class != Class::Disposable),
            "include_in_backups" => truth(qube.class != Class::Disposable),
            "autostart"
            | "debug"
            | "installed_by_rpm"
            | "provides_network"
            | "template_for_dispvms"
            | "auto_cleanup" => truth(false),
            "default_user" => "user".to_owned(),
            "keyboard_layout" => "us++".to_owned(),
            "kernel" => self.system_value("default_kernel"),
            "mac" => "00:16:3e:5e:6c:00".to_owned(),
            "maxmem" => "4000".to_owned(),
            "memory" => "400".to_owned(),
            "vcpus" => "2".to_owned(),
            "virt_mode" => "pvh".to_owned(),
            "qrexec_timeout" => self.system_value("default_qrexec_timeout"),
            "shutdown_timeout" => self.system_value("default_shutdown_timeout"),
            "stubdom_xid" => "-1".to_owned(),
            "audiovm" => self.system_value("default_audiovm"),
            "guivm" => self.system_value("default_guivm"),
            "bootmode" | "appvm_default_bootmode" => "default".to_owned(),
            "default_dispvm" => self.system_value("default_dispvm"),
            "kernelopts" if self.value(qube, "virt_mode") == "hvm" => String::new(),
            "kernelopts" => "swiotlb=2048".to_owned(),
            "management_dispvm" => self.system_value("management_dispvm"),
            "netvm" => self.system_value("default_netvm"),
            _ => self.network(qube, property).unwrap_or_default(),
        }
    }

    /// Addresses follow from the qube's number. A template has none.
    fn network(&self, qube: &Qube, property: &str) -> Option<String> {
        if qube.class == Class::Template {
            return None;
        }
        let provides = self.value(qube, "provides_network") == "True";
        let netvm = self.value(qube, "netvm");
        let netvm = self.get(&netvm);
        let networked = provides || netvm.is_some();
        match property {
            "ip" if !networked => None,
            "ip" => Some(match qube.set("dispid").and_then(|id| id.parse::<u32>().ok()) {
                Some(id) => format!("10.138.{}.{}", (id >> 8) & 0xff, id & 0xff),
                None => format!("10.137.{}.{}", (qube.qid >> 8) & 0xff, qube.qid & 0xff),
            }),
            "visible_ip" => Some(self.value(qube, "ip")),
            "gateway" => provides.then(|| self.value(qube, "ip")),
            "visible_gateway" => netvm.map(|netvm| self.value(netvm, "ip")),
            "visible_netmask" => netvm.map(|_| "255.255.255.255".to_owned()),
            "dns" => networked.then(|| DNS.to_owned()),
            _ => None,
        }
    }

    fn icon(&self, qube: &Qube) -> String {
        let label = self.value(qube, "label");
        let feature = |name| qube.feature(name).is_some_and(|value| !value.is_empty());
        let kind = match qube.class {
            Class::Admin => "adminvm",
            Class::Template => "templatevm",
            Class::Standalone => "standalonevm",
            Class::Disposable => "dispvm",
            Class::App if feature("servicevm") => "servicevm",
            Class::App if self.value(qube, "template_for_dispvms") == "True" => "templatevm",
            Class::App => "appvm",
        };
        format!("{kind}-{label}")
    }

    /// The value of a property of the system as a whole.
    pub(crate) fn system_value(&self, property: &str) -> String {
        match self.properties.get(property) {
            Some(value) => value.clone(),
            None => self.system_default(property).unwrap_or_default(),
        }
    }

    /// The default of a property of the system, where it has one.
    pub(crate) fn system_default(&self, property: &str) -> Option<String> {
        let value = match property {
            "check_updates_vm" => "True",
            "default_audiovm" | "default_guivm" => "dom0",
            "default_kernel" | "default_template" => return None,
            "default_pool"
            | "default_pool_kernel"
            | "default_pool_private"
            | "default_pool_root"
            | "default_pool_volatile" => "varlibqubes",
            "default_qrexec_timeout" | "default_shutdown_timeout" => "60",
            "maxmem" => "24103",
            "no_cpus" => "2",
            "stats_interval" => "3",
            _ => "",
        };
        Some(value.to_owned())
    }

    /// The names of the running qubes that have this one as their network, in order.
    pub(crate) fn connected(&self, name: &str) -> Vec<&str> {
        self.all()
            .filter(|qube| !qube.is_admin() && qube.power != PowerState::Halted)
            .filter(|qube| self.value(qube, "netvm") == name)
            .map(|qube| qube.name.as_str())
            .collect()
    }
}

/// A truth value as Python writes it.
pub(crate) fn truth(value: bool) -> String {
    if value { "True" } else { "False" }.to_owned()
}
