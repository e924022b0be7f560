//! `explain`: which layer decides about a call, by which line, and why.

use std::{io, process::ExitCode, time::SystemTime};

use admin_api::QubeName;
use clap::Args;
use contract::{Aim, SERVICE_PREFIX};
use policy::{
    Address, COMPAT_QMCP, Claim, QMCP_IN_QUBES, Refused, Scope,
    evaluate::{Decision, Policy, PolicyError, Request, System, SystemQube},
};
use serde::Serialize;

use super::{OperatorError, Place, qubesd, scope, shown};
use crate::{
    error::chain,
    host::{Found, Host},
    operator_policy::read_policy,
    pause::is_paused,
    qmcp,
    scope_file::read_scope_text,
    service::Entry,
    services::SERVICES,
};

/// Say whether a call would be allowed, and which line of what decides.
///
/// Reads the policy files that are installed and the operator's file, and asks qubesd about the
/// qubes, without making the call.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The calling qube.
    caller: String,
    /// The service, as VmExec, saltbridge.VmExec or qmcp.LifecycleAIManaged.
    service: String,
    /// The qube that the call is about; dom0 for services that are about none, as VmList.
    target: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    /// The policy files cannot be read.
    #[error("cannot read qrexec's policy")]
    Policy(#[source] io::Error),
    /// There is no such service.
    #[error("there is no service {0}; `saltbridged services` lists them")]
    Service(String),
    /// A name is none.
    #[error("{0:?} is not the name of a qube")]
    Name(String),
}

/// What one layer says.
#[derive(Debug, Serialize)]
struct Layer {
    layer: &'static str,
    allows: bool,
    /// The deciding line, as FILE:LINE.
    decides: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct Explanation {
    call: String,
    allowed: bool,
    asks: bool,
    layers: Vec<Layer>,
}

/// The call that is explained.
struct Asked {
    caller: QubeName,
    /// As qrexec knows it.
    service: String,
    entry: &'static Entry,
    /// It is one of qubes-mcp, which name their qube otherwise.
    is_qmcp: bool,
    /// Nothing for a service without a qube of its own.
    target: Option<QubeName>,
}

/// Runs the command.
pub(crate) fn run(asked: &Explain, place: &Place) -> Result<ExitCode, OperatorError> {
    let explanation = explain(asked, place)?;
    if asked.json {
        shown::show_json(&explanation)?;
        return Ok(ExitCode::SUCCESS);
    }
    let headings = ["layer", "says", "decided by", "why"];
    shown::show_rows(false, &headings, &explanation.layers, |layer| {
        let says = if layer.allows { "allows" } else { "REFUSES" };
        [layer.layer, says, &layer.decides, &layer.why].map(str::to_owned).into()
    })?;
    let verdict = match (explanation.allowed, explanation.asks) {
        (true, false) => "allowed",
        (true, true) => "allowed, if the operator says yes when asked",
        (false, _) => "REFUSED",
    };
    shown::show_text(&format!("\n{}: {verdict}\n", explanation.call))?;
    Ok(ExitCode::SUCCESS)
}

fn parse(asked: &Explain) -> Result<Asked, ExplainError> {
    let name = |text: &String| text.parse().map_err(|_| ExplainError::Name(text.clone()));
    let adapted = qmcp::row(&asked.service);
    let own = asked.service.strip_prefix(SERVICE_PREFIX).unwrap_or(&asked.service);
    let service = adapted.unwrap_or(own);
    let entry = SERVICES
        .iter()
        .find(|entry| entry.name == service)
        .ok_or_else(|| ExplainError::Service(asked.service.clone()))?;
    let target = match entry.aim {
        Aim::Qube => Some(name(&asked.target)?),
        Aim::Scope => None,
    };
    let is_qmcp = adapted.is_some();
    let full = format!("{SERVICE_PREFIX}{service}");
    let service = if is_qmcp { asked.service.clone() } else { full };
    Ok(Asked { caller: name(&asked.caller)?, service, entry, is_qmcp, target })
}

fn explain(asked: &Explain, place: &Place) -> Result<Explanation, OperatorError> {
    let asked = parse(asked)?;
    let host = place.host();
    let now = SystemTime::now();
    let file = read_scope_text(&place.paths.scope(), place.trusted);
    // A listed qube is called by argument, any other one can only be called as a target.
    let is_listed = asked.target.as_ref().is_some_and(|target| {
        let block = file.as_ref().ok().and_then(|(_, scope)| scope.block(&asked.caller));
        block.is_some_and(|block| block.listed(target).is_some())
    });
    let by_argument = is_listed && !asked.is_qmcp;
    let address = if by_argument { Address::Argument } else { Address::Target };
    // qubes-mcp names most qubes in what it sends, of which policy knows nothing.
    let is_aimed = QMCP_IN_QUBES.iter().any(|(service, _)| *service == asked.service);
    let (argument, aim) = match (&asked.target, address) {
        (None, _) => ("+".to_owned(), "dom0".to_owned()),
        (Some(_), _) if asked.is_qmcp && !is_aimed => ("+".to_owned(), "dom0".to_owned()),
        (Some(target), Address::Argument) => (format!("+{target}"), "dom0".to_owned()),
        (Some(target), Address::Target) => ("+".to_owned(), target.to_string()),
    };
    let call = format!("{}{argument}", asked.service);
    let found = qubesd::wait_for(look(&host, &asked))?;
    let (by_policy, asks) = policy_layer(place, &call, &asked, &aim, &found)?;
    let mut layers = vec![by_policy, pause_layer(place)];
    match &file {
        Ok((text, scope)) => {
            layers.extend(compat_layer(scope, &asked));
            let (layer, claim) = file_layer(text, scope, &asked, address, now);
            layers.push(layer);
            layers.extend(qubesd_layer(&asked, claim, found));
        }
        Err(error) => layers.push(Layer {
            layer: "operator's file",
            allows: false,
            decides: place.paths.scope().display().to_string(),
            why: chain(error),
        }),
    }
    let allowed = layers.iter().all(|layer| layer.allows);
    Ok(Explanation {
        call: format!("{} calls {call} at {aim}", asked.caller),
        allowed,
        asks,
        layers,
    })
}

/// What qubesd says of caller and target.
struct Looked {
    caller: Result<Option<Found>, admin_api::Error>,
    target: Option<Result<Option<Found>, admin_api::Error>>,
}

async fn look(host: &Host, asked: &Asked) -> Looked {
    let target = match &asked.target {
        Some(target) => Some(host.find(target, true).await),
        None => None,
    };
    Looked { caller: host.find(&asked.caller, true).await, target }
}

fn policy_layer(
    place: &Place,
    call: &str,
    asked: &Asked,
    aim: &str,
    found: &Looked,
) -> Result<(Layer, bool), OperatorError> {
    let files = read_policy(&place.paths, &[]).map_err(ExplainError::Policy)?;
    let policy = match Policy::parse(&files) {
        Ok(policy) => policy,
        Err(error) => return Ok((void(&error), false)),
    };
    let mut system = System::new();
    system.insert("dom0", SystemQube { class: "AdminVM".into(), ..SystemQube::default() });
    for (name, found) in
        [(Some(&asked.caller), Some(&found.caller)), (asked.target.as_ref(), found.target.as_ref())]
    {
        if let (Some(name), Some(Ok(Some(found)))) = (name, found) {
            system.insert(name.as_str(), found.system_qube());
        }
    }
    let evaluation = policy.evaluate(&Request::of(call, asked.caller.as_str(), aim), &system);
    let (allows, asks, why) = match evaluation.decision {
        Decision::Allow { target, .. } if target == "dom0" => {
            (true, false, "it may reach dom0".into())
        }
        Decision::Allow { target, .. } => {
            (false, false, format!("it goes to {target}, not to dom0"))
        }
        Decision::Ask { .. } => (true, true, "the operator is asked before every call".into()),
        Decision::Deny { reason, .. } => (false, false, reason.to_string()),
    };
    let decides = evaluation.place.map_or_else(|| "no line".into(), |place| place.to_string());
    Ok((Layer { layer: "qrexec policy", allows, decides, why }, asks))
}

fn void(error: &PolicyError) -> Layer {
    Layer {
        layer: "qrexec policy",
        allows: false,
        decides: error.place.to_string(),
        why: format!("qrexec refuses every call of every qube: {}", error.problem),
    }
}

fn pause_layer(place: &Place) -> Layer {
    let paused = is_paused(&place.paths);
    let decides = place.paths.paused().display().to_string();
    let why = if paused { "everything is paused" } else { "nothing is paused" };
    Layer { layer: "pause", allows: !paused, decides, why: why.into() }
}

/// Whether the block has the line without which no service of qubes-mcp is answered.
fn compat_layer(scope: &Scope, asked: &Asked) -> Option<Layer> {
    let speaks = scope.block(&asked.caller).is_some_and(policy::Block::speaks_qmcp);
    let why = if speaks { "it is answered as qubes-mcp" } else { "it is not there" };
    asked.is_qmcp.then(|| Layer {
        layer: "operator's file",
        allows: speaks,
        decides: COMPAT_QMCP.to_owned(),
        why: why.into(),
    })
}

fn file_layer(
    text: &str,
    scope: &Scope,
    asked: &Asked,
    address: Address,
    now: SystemTime,
) -> (Layer, Option<Claim>) {
    let power = asked.entry.power;
    let decided: Result<Option<Claim>, Refused> =
        scope.caller(&asked.caller).and_then(|caller| match &asked.target {
            Some(target) => caller.claim(address, target, power, now).map(Some),
            None => caller.scope_wide(power, now).map(|_| None),
        });
    let place = scope::deciding_line(text, &asked.caller, asked.target.as_ref());
    let decides = match place {
        Some(line) => format!("salt-bridge-allowed-vms:{line}"),
        None => "no line".into(),
    };
    let (allows, why, claim) = match decided {
        Ok(claim) => (true, format!("{power} is granted"), claim),
        Err(refused) => (false, refused.reason().to_string(), None),
    };
    (Layer { layer: "operator's file", allows, decides, why }, claim)
}

fn qubesd_layer(asked: &Asked, claim: Option<Claim>, found: Looked) -> Option<Layer> {
    let (target, answer) = (asked.target.as_ref()?, found.target?);
    let says = |allows, why: String| {
        Some(Layer { layer: "qubesd now", allows, decides: target.to_string(), why })
    };
    match answer {
        Err(error) => says(false, format!("qubesd cannot be asked: {}", chain(&error))),
        Ok(None) => says(false, "there is no such qube".into()),
        Ok(Some(found)) => {
            let tags: Vec<String> = found.live.tags.iter().map(ToString::to_string).collect();
            let facts = format!(
                "{} {}, uuid {}, tags: {}",
                found.state,
                found.class,
                found.live.uuid,
                if tags.is_empty() { "none".into() } else { tags.join(" ") }
            );
            match claim.map(|claim| claim.manage(found.live)) {
                Some(Err(refused)) => says(false, format!("{}; {facts}", refused.reason())),
                // Refused above already; the facts stand for themselves.
                Some(Ok(_)) | None => says(true, facts),
            }
        }
    }
}
