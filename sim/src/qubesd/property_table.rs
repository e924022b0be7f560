//! The properties of qubes: names, types, order, and which class has which.
//!
//! From recorded answers of `admin.vm.property.GetAll`.

use super::Class;

/// How a value is written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Str,
    Int,
    Bool,
    Label,
    Vm,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Str => "str",
            Self::Int => "int",
            Self::Bool => "bool",
            Self::Label => "label",
            Self::Vm => "vm",
        }
    }
}

/// What setting a property does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setter {
    /// The value is read by its type.
    Plain,
    /// An exception says that it cannot be set.
    ReadOnly,
    /// qubesd closes without a reply.
    Never,
}

/// One property.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Property {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) setter: Setter,
    /// A value counts as set, even where nobody set it.
    pub(crate) given: bool,
}

const fn of(name: &'static str, kind: Kind) -> Property {
    Property { name, kind, setter: Setter::Plain, given: false }
}

const fn read_only(name: &'static str, kind: Kind) -> Property {
    Property { name, kind, setter: Setter::ReadOnly, given: false }
}

const fn never(name: &'static str, kind: Kind) -> Property {
    Property { name, kind, setter: Setter::Never, given: true }
}

/// Every property, in the order in which qubesd lists them.
const ALL: [Property; 52] = [
    of("auto_cleanup", Kind::Bool),
    of("autostart", Kind::Bool),
    of("backup_timestamp", Kind::Int),
    of("debug", Kind::Bool),
    of("default_user", Kind::Str),
    of("devices_denied", Kind::Str),
    never("dispid", Kind::Int),
    read_only("dns", Kind::Str),
    read_only("gateway", Kind::Str),
    read_only("gateway6", Kind::Str),
    read_only("icon", Kind::Str),
    of("include_in_backups", Kind::Bool),
    of("installed_by_rpm", Kind::Bool),
    of("ip", Kind::Str),
    of("ip6", Kind::Str),
    read_only("is_preload", Kind::Bool),
    of("kernel", Kind::Str),
    of("keyboard_layout", Kind::Str),
    read_only("klass", Kind::Str),
    of("label", Kind::Label),
    of("mac", Kind::Str),
    of("maxmem", Kind::Int),
    of("memory", Kind::Int),
    never("name", Kind::Str),
    of("provides_network", Kind::Bool),
    never("qid", Kind::Int),
    of("qrexec_timeout", Kind::Int),
    of("shutdown_timeout", Kind::Int),
    read_only("start_time", Kind::Str),
    of("stubdom_mem", Kind::Int),
    read_only("stubdom_uuid", Kind::Str),
    read_only("stubdom_xid", Kind::Int),
    of("template_for_dispvms", Kind::Bool),
    read_only("updateable", Kind::Bool),
    never("uuid", Kind::Str),
    of("vcpus", Kind::Int),
    of("virt_mode", Kind::Str),
    read_only("visible_gateway", Kind::Str),
    read_only("visible_gateway6", Kind::Str),
    read_only("visible_ip", Kind::Str),
    read_only("visible_ip6", Kind::Str),
    read_only("visible_netmask", Kind::Str),
    read_only("xid", Kind::Int),
    of("appvm_default_bootmode", Kind::Str),
    of("audiovm", Kind::Vm),
    of("bootmode", Kind::Str),
    of("default_dispvm", Kind::Vm),
    of("guivm", Kind::Vm),
    of("kernelopts", Kind::Str),
    of("management_dispvm", Kind::Vm),
    of("netvm", Kind::Vm),
    of("template", Kind::Vm),
];

/// What dom0 has of them.
const ADMIN: [&str; 12] = [
    "devices_denied",
    "icon",
    "include_in_backups",
    "keyboard_layout",
    "klass",
    "label",
    "maxmem",
    "name",
    "qid",
    "updateable",
    "uuid",
    "default_dispvm",
];

/// The properties of a class, in qubesd's order.
pub(crate) fn properties(class: Class) -> impl Iterator<Item = Property> {
    ALL.into_iter().filter(move |property| has(class, property.name)).map(move |property| {
        let named = matches!(property.name, "name" | "qid" | "uuid");
        if class == Class::Admin && named {
            Property { given: false, ..property }
        } else {
            property
        }
    })
}

/// The property of a class by its name.
pub(crate) fn property(class: Class, name: &str) -> Option<Property> {
    properties(class).find(|property| property.name == name)
}

fn has(class: Class, name: &str) -> bool {
    match (class, name) {
        (Class::Admin, name) => ADMIN.contains(&name),
        (class, "auto_cleanup" | "dispid" | "is_preload") => class == Class::Disposable,
        (class, "appvm_default_bootmode") => class == Class::Template,
        (class, "template_for_dispvms") => matches!(class, Class::App | Class::Standalone),
        (class, "template") => matches!(class, Class::App | Class::Disposable),
        (_, _) => true,
    }
}

/// The properties of the system as a whole, in qubesd's order.
pub(crate) const SYSTEM: [Property; 20] = [
    of("check_updates_vm", Kind::Bool),
    of("clockvm", Kind::Vm),
    of("default_audiovm", Kind::Vm),
    of("default_dispvm", Kind::Vm),
    of("default_guivm", Kind::Vm),
    of("default_kernel", Kind::Str),
    of("default_netvm", Kind::Vm),
    of("default_pool", Kind::Str),
    of("default_pool_kernel", Kind::Str),
    of("default_pool_private", Kind::Str),
    of("default_pool_root", Kind::Str),
    of("default_pool_volatile", Kind::Str),
    of("default_qrexec_timeout", Kind::Int),
    of("default_shutdown_timeout", Kind::Int),
    of("default_template", Kind::Vm),
    of("management_dispvm", Kind::Vm),
    of("maxmem", Kind::Int),
    of("no_cpus", Kind::Int),
    of("stats_interval", Kind::Int),
    of("updatevm", Kind::Vm),
];
