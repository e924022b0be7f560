//! The table: every service there is. Dispatch, admission, policy, links, the catalogue and the
//! documents are computed from it.

pub mod connect_tcp_policy;
pub mod device;
pub mod device_attach;
pub mod device_detach;
pub mod device_list;
pub mod disposable_create;
pub mod disposable_run;
pub mod disposable_run_root;
pub mod event_watch;
pub mod feature_set;
pub mod file_copy;
pub mod file_edit;
pub mod file_fetch;
pub mod file_list;
pub mod file_search;
pub mod firewall_add;
pub mod firewall_decision;
pub mod firewall_list;
pub mod firewall_remove;
pub mod job_list;
pub mod job_read;
pub mod job_start;
pub mod job_start_root;
pub mod job_stop;
pub mod property_get;
pub mod property_set;
pub mod vm_exec;
pub mod vm_exec_root;
pub mod vm_list;
pub mod vm_network_info;
pub mod vm_read_file;
pub mod vm_shutdown;
pub mod vm_start;
pub mod vm_write_file;

pub(crate) mod command;
mod file_path;
pub mod network;
pub mod network_diagnose;
pub mod network_hops;
mod network_verdict;
pub mod pool_stats;
pub mod rules;
pub mod scope_watch;
pub mod vm_clone;
pub mod vm_create;
pub mod vm_kill;
pub mod vm_pause;
pub mod vm_remove;
pub mod vm_unpause;

use std::time::SystemTime;

use contract::SERVICE_PREFIX;
use policy::{Scope, ServiceLine};

use crate::{
    service::Entry,
    settings::{Sandbox, SettingsError},
};

/// Every service, in the order in which they are shown.
pub const SERVICES: &[Entry] = &[
    Entry::of::<vm_list::VmList>(),
    Entry::of::<vm_start::VmStart>(),
    Entry::of::<vm_shutdown::VmShutdown>(),
    Entry::of::<vm_network_info::VmNetworkInfo>(),
    Entry::of::<vm_exec::VmExec>(),
    Entry::of::<vm_exec_root::VmExecRoot>(),
    Entry::of::<job_start::JobStart>(),
    Entry::of::<job_start_root::JobStartRoot>(),
    Entry::of::<job_read::JobRead>(),
    Entry::of::<job_stop::JobStop>(),
    Entry::of::<job_list::JobList>(),
    Entry::of::<scope_watch::ScopeWatch>(),
    Entry::of::<vm_read_file::VmReadFile>(),
    Entry::of::<vm_write_file::VmWriteFile>(),
    Entry::of::<file_edit::FileEdit>(),
    Entry::of::<file_list::FileList>(),
    Entry::of::<file_search::FileSearch>(),
    Entry::of::<file_copy::FileCopy>(),
    Entry::of::<file_fetch::FileFetch>(),
    Entry::of::<firewall_list::FirewallList>(),
    Entry::of::<firewall_add::FirewallAdd>(),
    Entry::of::<firewall_remove::FirewallRemove>(),
    Entry::of::<connect_tcp_policy::ConnectTcpPolicy>(),
    Entry::of::<network_diagnose::NetworkDiagnose>(),
    Entry::of::<vm_kill::VmKill>(),
    Entry::of::<vm_pause::VmPause>(),
    Entry::of::<vm_unpause::VmUnpause>(),
    Entry::of::<vm_create::VmCreate>(),
    Entry::of::<vm_clone::VmClone>(),
    Entry::of::<vm_remove::VmRemove>(),
    Entry::of::<disposable_run::DisposableRun>(),
    Entry::of::<disposable_run_root::DisposableRunRoot>(),
    Entry::of::<disposable_create::DisposableCreate>(),
    Entry::of::<pool_stats::PoolStats>(),
    Entry::of::<property_get::PropertyGet>(),
    Entry::of::<property_set::PropertySet>(),
    Entry::of::<feature_set::FeatureSet>(),
    Entry::of::<device_list::DeviceList>(),
    Entry::of::<device_attach::DeviceAttach>(),
    Entry::of::<device_detach::DeviceDetach>(),
    Entry::of::<event_watch::EventWatch>(),
];

/// The services as policy needs them.
pub fn lines() -> Vec<ServiceLine<'static>> {
    SERVICES
        .iter()
        .map(|entry| ServiceLine { name: entry.name, power: entry.power, aim: entry.aim })
        .collect()
}

/// The policy that a scope means now under the operator's settings. Settings that cannot be used
/// grant nothing: some lines for other clients reach no daemon that could refuse.
pub(crate) fn render_granted(
    scope: &Scope,
    settings: Result<Sandbox, SettingsError>,
    now: SystemTime,
) -> String {
    match settings {
        Ok(settings) => {
            policy::render_policy(&scope.clone().under(settings.rules()), &lines(), now)
        }
        Err(_) => policy::render_deny_all(&lines()),
    }
}

/// The names of all services, as qrexec knows them.
pub fn names() -> impl Iterator<Item = String> {
    SERVICES.iter().map(|entry| format!("{SERVICE_PREFIX}{}", entry.name))
}
