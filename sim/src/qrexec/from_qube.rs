//! Calls from a qube: what policy says about them, and where they go.

use std::{fs, io, path::Path, sync::Arc};

use policy::evaluate::{Decision, Policy, PolicyFiles, Request, System, SystemQube};

use super::{
    Connection, dom0_service,
    into_qube::{self, Origin},
};
use crate::{
    host::{Consent, Shared},
    qubesd::{self, PowerState, lifecycle},
};

/// The longest name of a service with its argument, in bytes (`MAX_SERVICE_NAME_LEN`).
const SERVICE_BYTES: usize = 65_000;
/// Where policy lies in dom0, as the evaluator names it.
const POLICY_FOLDERS: [&str; 4] = [
    "/etc/qubes/policy.d",
    "/etc/qubes/policy.d/include",
    "/run/qubes/policy.d",
    "/etc/qubes-rpc/policy",
];

/// A call as the caller wrote it, made harmless as qrexec does.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// The calling qube.
    pub(super) source: &'a str,
    /// The target.
    pub(super) target: String,
    /// The service and its argument, with `+` even where the argument is empty.
    pub(super) service: String,
}

/// A call that policy or its target's absence refuses: all look alike.
pub(super) fn refused() -> Connection {
    Connection::exit(126, "Request refused\n")
}

/// `qrexec-client-vm TARGET SERVICE+ARGUMENT`, called in the source.
pub(super) async fn from_qube(
    shared: &Arc<Shared>,
    source: &str,
    target: &str,
    service: &str,
) -> Connection {
    if service.len() > SERVICE_BYTES {
        return refused();
    }
    let mut service = harmless(service, "+");
    if !service.contains('+') {
        service.push('+');
    }
    let asked = Asked { source, target: harmless(target, "@:"), service };
    let Some((target, user)) = decide(shared, &asked) else { return refused() };
    let user = user.as_deref().unwrap_or("DEFAULT");
    if target == "dom0" {
        return dom0_service::connect(shared, &asked).await;
    }
    if let Some(template) = target.strip_prefix("@dispvm:") {
        return match lifecycle::disposable(shared, template, source).await {
            Ok(name) => run(shared, &name, user, &asked, true).await,
            Err(_failure) => refused(),
        };
    }
    let name = {
        let system = shared.system();
        let found = qubesd::resolve(&target, &system).ok().filter(|name| name != source);
        let Some(name) = found else { return refused() };
        name
    };
    match lifecycle::start(shared, &name).await {
        Ok(()) => run(shared, &name, user, &asked, false).await,
        Err(_failure) => refused(),
    }
}

async fn run(
    shared: &Arc<Shared>,
    name: &str,
    user: &str,
    asked: &Asked<'_>,
    disposable: bool,
) -> Connection {
    let origin = Origin { source: asked.source, service: &asked.service };
    into_qube::run_service(shared, name, user, &origin, disposable).await
}

/// What qrexec lets through; everything else becomes `_`.
fn harmless(text: &str, more: &str) -> String {
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric() || b"_-.".contains(&byte) || more.as_bytes().contains(&byte)
    };
    text.bytes().map(|byte| if allowed(byte) { char::from(byte) } else { '_' }).collect()
}

/// The target and the user, if policy lets the call through.
fn decide(shared: &Shared, asked: &Asked<'_>) -> Option<(String, Option<String>)> {
    // Policy that cannot be read is policy that does not parse: every call is refused.
    let policy = Policy::parse(&read_policy(&shared.layout.root()).ok()?).ok()?;
    let system = describe(&shared.system());
    let request = Request::of(&asked.service, asked.source, &asked.target);
    match policy.evaluate(&request, &system).decision {
        Decision::Allow { target, user, .. } => Some((target, user)),
        Decision::Ask { targets, default_target, user, .. } => match shared.consent() {
            Consent::Refused => None,
            Consent::Given => Some((default_target.or_else(|| targets.into_iter().next())?, user)),
        },
        Decision::Deny { .. } => None,
    }
}

/// Whether policy lets a call through without asking, as qubesd wants to know for its lists.
pub(crate) fn permits(
    shared: &Shared,
    system: &qubesd::System,
    service: &str,
    source: &str,
    target: &str,
) -> bool {
    let policy =
        read_policy(&shared.layout.root()).ok().and_then(|files| Policy::parse(&files).ok());
    let request = Request::of(service, source, target);
    policy.is_some_and(|policy| {
        let decision = policy.evaluate(&request, &describe(system)).decision;
        matches!(decision, Decision::Allow { .. })
    })
}

/// The policy files that are installed.
fn read_policy(root: &Path) -> io::Result<PolicyFiles> {
    let mut files = PolicyFiles::new();
    for folder in POLICY_FOLDERS {
        let entries = match fs::read_dir(root.join(folder.trim_start_matches('/'))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_file() {
                files.insert(&path, fs::read_to_string(entry.path())?);
            }
        }
    }
    Ok(files)
}

/// The qubes as qrexec's policy sees them.
fn describe(system: &qubesd::System) -> System {
    let qube = |qube: &qubesd::Qube| SystemQube {
        class: qube.class.as_str().to_owned(),
        uuid: qube.uuid.clone(),
        tags: qube.tags.iter().cloned().collect(),
        template_for_dispvms: system.value(qube, "template_for_dispvms") == "True",
        default_dispvm: Some(system.value(qube, "default_dispvm")).filter(|name| !name.is_empty()),
        running: qube.power == PowerState::Running,
        guivm: Some(system.value(qube, "guivm")).filter(|name| !name.is_empty()),
        internal: qube.feature("internal").is_some_and(|value| !value.is_empty()),
    };
    system.all().map(|known| (known.name.clone(), qube(known))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qrexec_does_not_let_through_becomes_an_underscore() {
        assert_eq!(harmless("rigtest.Env+sp ace", "+"), "rigtest.Env+sp_ace");
        assert_eq!(harmless("bad/name", "+"), "bad_name");
        assert_eq!(harmless("@dispvm:a", "@:"), "@dispvm:a");
        assert_eq!(harmless("é", "+"), "__");
    }
}
