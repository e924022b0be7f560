//! The services of qubes-mcp: JSON in, `{"ok": …}` out, around the same rows as everything else.
//!
//! Most name their qube in the JSON, so policy knows nothing of it: the daemon alone decides, by
//! admitting the qube as it would a call of the row itself. Two are aimed at the qube, and policy
//! hands them to dom0. Only agents whose block of the operator's file says `@compat qmcp` are
//! answered.

mod adapter;
mod answer;
mod request;

use contract::{Fault, Power, limits};
use policy::QMCP_IN_QUBES;
use serde_json::{Map, Value, json};
use tokio::{io::BufReader, net::unix::OwnedReadHalf};

use self::adapter::{Adapter, Asked};
pub use self::request::fuzz_qmcp_request;
use crate::{
    admission::{NotAdmitted, admit},
    agents::Connection,
    answer::Form,
    descriptor::{Descriptor, Target},
    error::{Error, chain},
    handle::Call,
    host::Host,
    outcome::{Outcome, failed},
    pause::is_paused,
    scope_file::read_granted,
    serve::work,
};

/// The services that are answered in dom0.
pub(crate) fn services() -> impl Iterator<Item = &'static str> {
    policy::QMCP_SERVICES.into_iter()
}

/// Whether a call is for one of the adapters.
pub(crate) fn is_adapter(descriptor: &Descriptor) -> bool {
    services().any(|service| service == descriptor.service)
}

/// The row of our own behind a service of qubes-mcp.
pub(crate) fn row(service: &str) -> Option<&'static str> {
    adapter::row(service)
}

/// What every refusal is answered with, whatever the reason.
const NOT_FOUND: &str = "not found";

/// Answers one call.
pub(crate) async fn call(
    host: &Host,
    descriptor: &Descriptor,
    connection: &Connection,
    call: &mut Call,
    reader: &mut BufReader<OwnedReadHalf>,
) -> Outcome {
    call.answer.set_form(Form::Json);
    let may = speaks(host, descriptor);
    let object = request::read(reader).await;
    if connection.count > limits::CALLS_PER_AGENT {
        return refused(Fault::Busy {}, "busy", String::new());
    }
    if let Err(reason) = may {
        return refused(Fault::Refused {}, NOT_FOUND, reason);
    }
    let asked = match object {
        Ok(object) => Asked { service: &descriptor.service, at: aimed_at(descriptor), object },
        Err(fault) => {
            let sentence = fault.sentence();
            return refused(fault, &sentence, String::new());
        }
    };
    match adapted(host, descriptor, &asked, call, reader).await {
        Ok(value) => ok(value),
        Err(Failed::Refused(reason)) => refused(Fault::Refused {}, NOT_FOUND, reason),
        Err(Failed::Request(message)) => {
            refused(Fault::bad_request(message.clone()), &message, String::new())
        }
        Err(Failed::Row(error)) => {
            let outcome = failed(error, &call.id);
            let fault = outcome.fault.unwrap_or(Fault::Refused {});
            let message = match refused_for_its_network(host, descriptor, &asked, &fault).await {
                true => "netvm must reference an ai-managed qube".into(),
                false => answer::told(&asked, &fault, &prefix(host)),
            };
            refused(fault, &message, outcome.detail)
        }
    }
}

/// Why an adapted call has no result.
enum Failed {
    /// For lack of authority; the reason is the operator's.
    Refused(String),
    /// The JSON is not what the service takes.
    Request(String),
    /// The row.
    Row(Error),
}

/// Whether this caller's block says that it speaks so, and holds the sandbox now.
fn speaks(host: &Host, descriptor: &Descriptor) -> Result<(), String> {
    if is_paused(&host.paths) {
        return Err("everything is paused".into());
    }
    let in_qubes = QMCP_IN_QUBES.iter().any(|(service, _)| *service == descriptor.service);
    if (descriptor.target != Target::Dom0) != in_qubes || !descriptor.argument.is_empty() {
        return Err("this service is called otherwise".into());
    }
    let scope = read_granted(&host.paths, host.trusted)
        .map_err(|error| format!("operator's file: {}", chain(&error)))?;
    let speaks = scope
        .block(&descriptor.source)
        .is_some_and(|block| block.speaks_qmcp() && block.holds_sandbox(host.now()));
    if speaks { Ok(()) } else { Err("the caller's block does not say @compat qmcp".into()) }
}

/// The qube at which a call is aimed; empty for dom0.
fn aimed_at(descriptor: &Descriptor) -> &str {
    match &descriptor.target {
        Target::Qube(name) => name.as_str(),
        Target::Dom0 => "",
    }
}

/// The call of the row that stands behind the service.
async fn adapted(
    host: &Host,
    descriptor: &Descriptor,
    asked: &Asked<'_>,
    call: &mut Call,
    reader: &mut BufReader<OwnedReadHalf>,
) -> Result<Value, Failed> {
    let Adapter { row, qube } = adapter::of(asked).map_err(Failed::Request)?;
    let target = match &qube {
        Some(name) => {
            call.record.qube = name.chars().take(64).collect();
            let no_name = |_| Failed::Refused("no name of a qube".into());
            Target::Qube(name.parse().map_err(no_name)?)
        }
        None => Target::Dom0,
    };
    let inner = Descriptor {
        service: row.into(),
        argument: String::new(),
        source: descriptor.source.clone(),
        target,
    };
    let admission = match admit(host, &inner, host.now()).await {
        Ok(admission) => admission,
        Err(NotAdmitted::Refused(reason)) => return Err(Failed::Refused(reason)),
        Err(NotAdmitted::Busy) => return Err(Failed::Row(Fault::Busy {}.into())),
        Err(NotAdmitted::Failed(error)) => return Err(Failed::Row(error.into())),
    };
    let args = adapter::arguments(asked, host.ceiling).map_err(Failed::Request)?;
    call.body = adapter::body(asked);
    host.begin(call, admission.entry, &args).map_err(Failed::Row)?;
    let value = work(host, &inner, admission, args, call, reader).await.map_err(Failed::Row)?;
    answer::result(asked, value, call.answer.take_kept()).map_err(Failed::Request)
}

/// Whether a new qube was refused for its network: its template, the only other qube that such a
/// request names, is in scope.
async fn refused_for_its_network(
    host: &Host,
    descriptor: &Descriptor,
    asked: &Asked<'_>,
    fault: &Fault,
) -> bool {
    asked.service == "qmcp.SpawnAIManagedQube"
        && !asked.text("netvm").is_empty()
        && *fault == (Fault::Refused {})
        && host.named_in_text(&descriptor.source, asked.text("template"), Power::See).await.is_ok()
}

/// With what names of new qubes begin, for the text that says so.
fn prefix(host: &Host) -> String {
    crate::settings::read_settings(&host.paths, host.trusted)
        .map(|settings| settings.name_prefix)
        .unwrap_or_default()
}

fn ok(value: Value) -> Outcome {
    let mut object = Map::from_iter([("ok".to_owned(), Value::Bool(true))]);
    if let Value::Object(more) = value {
        object.extend(more);
    }
    Outcome { fault: None, detail: String::new(), last: line(&object.into()) }
}

fn refused(fault: Fault, message: &str, detail: String) -> Outcome {
    let last = line(&json!({"ok": false, "error": message}));
    Outcome { fault: Some(fault), detail, last }
}

fn line(value: &Value) -> Vec<u8> {
    (value.to_string() + "\n").into_bytes()
}
