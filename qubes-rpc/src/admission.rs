//! Who may do what, decided for one call: the operator's file, then what qubesd says right now.

use std::{rc::Rc, time::SystemTime};

use admin_api::{QubeName, call::vm::PowerState};
use policy::{Address, Refused};

use crate::{
    descriptor::{Descriptor, Target},
    error::chain,
    host::Host,
    pause::is_paused,
    scope_file::read_granted,
    service::{Admitted, Entry},
    services::SERVICES,
    view::View,
};
use contract::Aim;

/// Why a call is not admitted.
#[derive(Debug)]
pub(crate) enum NotAdmitted {
    /// Too many calls of the agent are under way.
    Busy,
    /// For lack of authority. The reason is the operator's alone.
    Refused(String),
    /// qubesd could not be asked.
    Failed(admin_api::Error),
}

/// An admitted call.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The row of the service.
    pub(crate) entry: &'static Entry,
    /// The authority.
    pub(crate) admitted: Admitted,
    /// The qube's power state when it was admitted.
    pub(crate) state: Option<PowerState>,
}

fn because(refused: Refused) -> NotAdmitted {
    NotAdmitted::Refused(refused.reason().to_string())
}

fn refused(reason: &str) -> NotAdmitted {
    NotAdmitted::Refused(reason.into())
}

/// Decides one call. Nothing about the request itself is known or needed yet.
pub(crate) async fn admit(
    host: &Host,
    descriptor: &Descriptor,
    now: SystemTime,
) -> Result<Admission, NotAdmitted> {
    if is_paused(&host.paths) {
        return Err(refused("everything is paused"));
    }
    let scope = read_granted(&host.paths, host.trusted)
        .map_err(|error| NotAdmitted::Refused(format!("operator's file: {}", chain(&error))))?;
    let entry = SERVICES
        .iter()
        .find(|entry| entry.name == descriptor.service)
        .ok_or_else(|| refused("no such service"))?;
    match entry.aim {
        Aim::Scope => {
            if descriptor.target != Target::Dom0 || !descriptor.argument.is_empty() {
                return Err(refused("this service takes neither argument nor target"));
            }
            let view = View::admit(Rc::new(scope), &descriptor.source, entry.power, now)
                .map_err(because)?;
            Ok(Admission { entry, admitted: Admitted::Scope(view), state: None })
        }
        Aim::Qube => {
            let (address, name) = named(descriptor)?;
            let claim = scope
                .caller(&descriptor.source)
                .and_then(|caller| caller.claim(address, &name, entry.power, now))
                .map_err(because)?;
            let with_tags = !claim.wanted_tags().is_empty();
            let found = host
                .find(&name, with_tags)
                .await
                .map_err(NotAdmitted::Failed)?
                .ok_or_else(|| refused("no such qube"))?;
            let qube = claim.manage(found.live).map_err(because)?;
            Ok(Admission { entry, admitted: Admitted::Qube(qube), state: Some(found.state) })
        }
    }
}

/// Whether the operator's file still grants a call that was admitted.
pub(crate) fn is_granted(host: &Host, descriptor: &Descriptor, now: SystemTime) -> bool {
    let entry = SERVICES.iter().find(|entry| entry.name == descriptor.service);
    let (Some(entry), Ok(scope)) = (entry, read_granted(&host.paths, host.trusted)) else {
        return false;
    };
    let Ok(caller) = scope.caller(&descriptor.source) else { return false };
    match (entry.aim, named(descriptor)) {
        (Aim::Scope, _) => caller.scope_wide(entry.power, now).is_ok(),
        (Aim::Qube, Ok((address, name))) => caller.claim(address, &name, entry.power, now).is_ok(),
        (Aim::Qube, Err(_)) => false,
    }
}

/// The one qube that the call names, by argument or by target but never by both.
fn named(descriptor: &Descriptor) -> Result<(Address, QubeName), NotAdmitted> {
    match (&descriptor.target, descriptor.argument.as_str()) {
        (Target::Qube(name), "") => Ok((Address::Target, name.clone())),
        (Target::Qube(_), _) => Err(refused("a qube is named twice")),
        (Target::Dom0, argument) => argument
            .parse()
            .map(|name| (Address::Argument, name))
            .map_err(|_| refused("the argument is not the name of a qube")),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;
    use crate::paths::Paths;

    #[test]
    fn a_call_without_a_file_a_name_or_a_service_is_granted_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::below(folder.path());
        let own = rustix::process::getuid().as_raw();
        let host = Host::new(paths.clone(), own, Duration::from_secs(1), None);
        let now = SystemTime::now();
        let granted = |call: &str| {
            let line = format!("saltbridge.{call}");
            is_granted(&host, &Descriptor::parse(line.as_bytes()).unwrap(), now)
        };
        assert!(!granted("VmExec+work salt-bridge name dom0"), "there is no file");
        fs::create_dir_all(paths.scope().parent().unwrap()).unwrap();
        fs::write(paths.scope(), "@agent salt-bridge\nwork\n").unwrap();
        assert!(granted("VmExec+work salt-bridge name dom0"));
        assert!(granted("VmList+ salt-bridge name dom0"));
        for line in [
            "VmExec+ salt-bridge name dom0",
            "VmExec+work salt-bridge name work",
            "VmExec+dev salt-bridge name dom0",
            "VmExec+work other name dom0",
            "VmNothing+work salt-bridge name dom0",
        ] {
            assert!(!granted(line), "{line}");
        }
    }
}
