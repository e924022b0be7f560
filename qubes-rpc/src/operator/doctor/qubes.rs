//! What qubesd says of the qubes, as far as policy and the operator's file need it.

use std::io;

use admin_api::{
    Client, Destination, PropertyName, QubeName,
    call::{
        self,
        vm::{ListedQube, PowerState},
    },
};
use contract::limits;
use futures_util::{StreamExt, TryStreamExt, stream};
use policy::{
    Block, Consent, Scope, Target,
    evaluate::{System, SystemQube},
};

use super::report::Report;
use crate::{
    error::chain,
    operator::install::{SANDBOX, gives_sandbox_tag, is_sandboxed},
    paths::Paths,
};

const AREA: &str = "qubes";

/// Asks qubesd for all qubes. Nothing when it does not answer, which is then a finding.
pub(super) fn inspect(paths: &Paths, scope: Option<&Scope>, report: &mut Report) -> Option<System> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asked = match runtime {
        Ok(runtime) => runtime.block_on(ask(&Client::new(paths.qubesd()), scope)),
        Err(error) => Err(error.into()),
    };
    match asked {
        Ok(system) => {
            report.good(AREA, format!("qubesd answers and knows {} qubes", system.iter().count()));
            if let Some(scope) = scope {
                inspect_scope(scope, &system, report);
                inspect_created(scope, paths, report);
            }
            Some(system)
        }
        Err(error) => {
            let mend = "see: systemctl status qubesd; until it answers no call succeeds";
            report.wrong(AREA, format!("qubesd does not answer: {}", chain(&error)), mend);
            None
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("cannot start")]
    Runtime(#[from] io::Error),
    #[error(transparent)]
    Qubesd(#[from] admin_api::Error),
}

async fn ask(client: &Client, scope: Option<&Scope>) -> Result<System, AskError> {
    let listed = client.call(call::vm::list(Destination::Dom0), limits::QUBESD).await?;
    let asks = |name: &QubeName| {
        let block = scope.and_then(|scope| scope.block(name));
        block.is_some_and(|block| block.grants().iter().any(|grant| grant.powers.any_ask()))
    };
    let qubes: Vec<Option<(String, SystemQube)>> = stream::iter(&listed)
        .map(|qube| async move {
            let Some(name) = qube.qube() else { return Ok(None) };
            let mut known = known(qube);
            let tags = call::tag::list(Destination::Qube(name.clone()));
            match client.call(tags, limits::QUBESD).await {
                Ok(tags) => known.tags = tags.iter().map(ToString::to_string).collect(),
                // It vanished after it was listed.
                Err(admin_api::Error::Exception(_) | admin_api::Error::Empty) => return Ok(None),
                Err(error) => return Err(error),
            }
            if asks(&name) {
                known.guivm = gui_qube(client, &name).await?;
            }
            Ok((name.to_string(), known).into())
        })
        .buffered(limits::QUESTIONS_AT_ONCE)
        .try_collect()
        .await?;
    let mut system: System = qubes.into_iter().flatten().collect();
    let dom0 = SystemQube { class: "AdminVM".into(), running: true, ..SystemQube::default() };
    system.insert("dom0", dom0);
    Ok(system)
}

fn known(qube: &ListedQube) -> SystemQube {
    SystemQube {
        class: qube.class.to_string(),
        uuid: qube.uuid.as_ref().map(ToString::to_string).unwrap_or_default(),
        running: qube.state == PowerState::Running,
        ..SystemQube::default()
    }
}

async fn gui_qube(client: &Client, name: &QubeName) -> Result<Option<String>, admin_api::Error> {
    let Ok(property) = "guivm".parse::<PropertyName>() else { return Ok(None) };
    let get = call::property::get(Destination::Qube(name.clone()), &property);
    match client.call(get, limits::QUBESD).await {
        Ok(property) => Ok(property.value.as_vm().map(ToOwned::to_owned)),
        Err(admin_api::Error::Exception(_) | admin_api::Error::Empty) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the qubes of the operator's file are there, and can be asked about.
fn inspect_scope(scope: &Scope, system: &System, report: &mut Report) {
    for block in scope.blocks() {
        let agent = block.agent();
        if system.get(agent.as_str()).is_none() {
            report.note(
                AREA,
                format!("the agent {agent} does not exist; a new qube of that name would be it"),
                "remove its block from the operator's file, or create the qube",
            );
        }
        for grant in block.grants() {
            let Target::Qube(name) = &grant.target else { continue };
            match system.get(name.as_str()) {
                None => report.note(
                    AREA,
                    format!("{name}, granted to {agent}, does not exist; a new qube of that name would be granted"),
                    format!("run: saltbridged scope remove {name} --agent {agent}"),
                ),
                Some((_, qube)) if qube.class == "TemplateVM" => report.note(
                    AREA,
                    format!("{name}, granted to {agent}, is a template: what changes there reaches every qube built from it"),
                    "",
                ),
                Some((_, qube)) if qube.uuid.is_empty() => report.wrong(
                    AREA,
                    format!("qubesd tells no UUID of {name}, so that every call on it is refused"),
                    "Qubes OS R4.3 is needed",
                ),
                Some(_) => {}
            }
        }
        let asks = |consent: Consent| consent == Consent::Ask;
        let asks = block.grants().iter().any(|grant| grant.powers.iter().any(|(_, how)| asks(how)));
        if asks {
            inspect_prompt(agent, system, report);
        }
    }
}

/// Whether what an agent creates is in the sandbox that it is granted.
fn inspect_created(scope: &Scope, paths: &Paths, report: &mut Report) {
    for agent in scope.blocks().iter().filter(|block| is_sandboxed(block)).map(Block::agent) {
        match gives_sandbox_tag(paths, agent) {
            Ok(true) => {
                report.good(AREA, format!("what {agent} creates gets the tag {SANDBOX}"));
            }
            Ok(false) => report.note(
                AREA,
                format!("what {agent} creates does not get the tag {SANDBOX}, so that it is out of its reach"),
                format!("run: qvm-features {agent} tag-created-vm-with {SANDBOX}"),
            ),
            Err(error) => {
                let mend = "see: systemctl status qubesd";
                report.wrong(AREA, chain(&error), mend);
            }
        }
    }
}

/// qrexec asks on the screen of the caller's GUI qube, and refuses without one.
fn inspect_prompt(agent: &QubeName, system: &System, report: &mut Report) {
    let Some((_, qube)) = system.get(agent.as_str()) else { return };
    let runs = |name: &str| system.get(name).is_some_and(|(_, qube)| qube.running);
    match qube.guivm.as_deref() {
        Some(gui) if runs(gui) => {
            report.good(AREA, format!("calls of {agent} that ask are shown in {gui}"));
        }
        Some(gui) => report.wrong(
            AREA,
            format!("{agent} has powers that ask, and its GUI qube {gui} does not run"),
            format!("run: qvm-start {gui}"),
        ),
        None => report.wrong(
            AREA,
            format!(
                "{agent} has powers that ask, and no GUI qube, so that these calls are refused"
            ),
            format!("run: qvm-prefs {agent} guivm dom0; or grant the powers without :ask"),
        ),
    }
}
