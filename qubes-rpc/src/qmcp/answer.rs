//! What a row answered, under the names of qubes-mcp.

use contract::Fault;
use serde_json::{Map, Value, json};

use super::{
    NOT_FOUND,
    adapter::{Asked, RUN_SECONDS},
};
use crate::{
    answer::Streams,
    services::{feature_set::is_an_agents, property_set::Settable},
};

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn each<'a>(response: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    response.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A response beside `"ok": true`, with what came on its streams.
pub(super) fn result(
    asked: &Asked<'_>,
    response: Value,
    streams: Streams<Vec<u8>>,
) -> Result<Value, String> {
    Ok(match asked.service {
        "qmcp.ListAIManagedQubes" => {
            let tagged = each(&response, "vms").filter(|vm| text(vm, "address") == "target");
            json!({"qubes": tagged.map(qube).collect::<Vec<_>>()})
        }
        "qmcp.GetPropertyAIManaged" => {
            let value = response.get("properties").and_then(|all| all.get(asked.text("property")));
            json!({"value": value.cloned().unwrap_or_default()})
        }
        "qmcp.SetFeatureAIManaged" => {
            json!({"feature": response.get("feature"), "value": response.get("value")})
        }
        "qmcp.ListAttachedDevicesAIManaged" => json!({"lines": lines(asked, &response)}),
        "qmcp.AIManagedEvents" => {
            let mut told = Map::new();
            told.insert("events".into(), each(&response, "events").map(event).collect());
            if text(&response, "ended") == "disconnected" {
                told.insert("warning".into(), "dispatcher disconnected mid-window".into());
            }
            told.into()
        }
        "qmcp.SpawnAIManagedQube" | "qmcp.CloneAIManagedQube" | "qmcp.SpawnDisposableAIManaged" => {
            json!({"name": response.get("name")})
        }
        "qmcp.GetPoolStats" => json!({
            "ai_managed_bytes_used": response.get("used"),
            "ai_managed_bytes_cap": response.get("cap"),
            "ai_managed_bytes_headroom": response.get("headroom"),
        }),
        "qmcp.RunInAIManaged" if response.get("timed_out") == Some(&true.into()) => {
            let given = asked.object.get("timeout").map(ToString::to_string);
            return Err(format!(
                "timeout after {}s",
                given.unwrap_or_else(|| RUN_SECONDS.to_string())
            ));
        }
        "qmcp.RunInAIManaged" => json!({
            "rc": response.get("exit_code"),
            "stdout": String::from_utf8_lossy(&streams.stdout),
            "stderr": String::from_utf8_lossy(&streams.stderr),
        }),
        "qmcp.CopyToAIManaged" => {
            json!({"target": asked.text("target"), "path": asked.text("path")})
        }
        "qmcp.LifecycleAIManaged"
            if asked.text("action") == "kill" && response.get("changed") == Some(&false.into()) =>
        {
            return Err(ACTION_FAILED.into());
        }
        _ => json!({}),
    })
}

const ACTION_FAILED: &str = "action failed";

fn qube(vm: &Value) -> Value {
    json!({
        "name": vm.get("name"), "klass": vm.get("class"), "label": vm.get("label"),
        "template": vm.get("template"), "power_state": vm.get("state"),
    })
}

fn event(event: &Value) -> Value {
    let tag = event.get("tag").cloned();
    let mut shown = json!({
        "event": event.get("event"), "subject": event.get("vm_name"),
        "subject_klass": event.get("class"), "ts": event.get("time"),
    });
    if let (Some(tag), Some(shown)) = (tag, shown.as_object_mut()) {
        shown.insert("tag".into(), tag);
    }
    shown
}

/// Devices in the form of qubesd's own lines, with their ports.
fn lines(asked: &Asked<'_>, response: &Value) -> Vec<String> {
    let (class, qube) = (asked.text("device_class"), asked.text("name"));
    let identity = |device: &Value| {
        let (port, id) = (text(device, "port"), text(device, "device_id"));
        (format!("{port}:{id}"), format!("device_id='{id}' port_id='{port}' devclass='{class}'"))
    };
    if asked.text("mode") == "available" {
        let offered = each(response, "offered").map(|device| {
            let (place, words) = identity(device);
            let attachment = match text(device, "attached_to") {
                "" => String::new(),
                to => format!(" attachment='{to}'"),
            };
            let (about, uses) = (quote(text(device, "description")), text(device, "interfaces"));
            format!(
                "{place} {words} backend_domain='{qube}' description='{about}'{attachment} \
                 interfaces='{uses}'"
            )
        });
        return offered.collect();
    }
    let attached = each(response, "attached").map(|device| {
        let (place, words) = identity(device);
        let backend = text(device, "backend_vm");
        let read_only = match device.get("read_only") {
            Some(Value::Bool(true)) => "yes",
            Some(_) | None => "no",
        };
        let name = match text(device, "frontend_device") {
            "" => String::new(),
            name => format!(" _frontend-dev='{name}'"),
        };
        format!(
            "{backend}+{place} {words} backend_domain='{backend}' mode='manual' \
             frontend_domain='{qube}' _read-only='{read_only}'{name}"
        )
    });
    attached.collect()
}

fn quote(text: &str) -> String {
    text.replace('\'', "\\'")
}

/// What is told of a call that was admitted and has no result. A refusal behind admission is about
/// another qube that the request named.
pub(super) fn told(asked: &Asked<'_>, fault: &Fault, prefix: &str) -> String {
    match fault {
        Fault::Refused {} => refusal(asked),
        Fault::BadRequest { message } => wrong(asked, message, prefix),
        Fault::NotRunning { .. } => failure(asked).into(),
        Fault::TooLarge { message } if message.contains("private volume") => {
            "private size exceeds per-qube limit".into()
        }
        Fault::TimedOut { message } | Fault::TooLarge { message } => message.clone(),
        Fault::Busy {} => "busy".into(),
        Fault::Failed { message, call } => format!("{message} (call {call} in dom0's journal)"),
    }
}

fn refusal(asked: &Asked<'_>) -> String {
    match asked.service {
        "qmcp.SetPropertyAIManaged" => {
            let property = asked.text("property");
            format!("cross-ref property '{property}' must reference an ai-managed qube")
        }
        "qmcp.SetFeatureAIManaged" => {
            let feature = asked.text("feature");
            format!("cross-VM feature '{feature}' must reference an ai-managed qube")
        }
        "qmcp.SpawnAIManagedQube" => "template must reference an ai-managed qube".into(),
        _ => NOT_FOUND.into(),
    }
}

fn wrong(asked: &Asked<'_>, message: &str, prefix: &str) -> String {
    let value_is_null = asked.object.get("value").is_none_or(Value::is_null);
    match asked.service {
        "qmcp.GetPropertyAIManaged" => {
            format!("property '{}' does not exist", asked.text("property"))
        }
        "qmcp.SetPropertyAIManaged" if !is_settable(asked.text("property")) => {
            "property not settable".into()
        }
        "qmcp.SetPropertyAIManaged" if asked.text("property") == "netvm" && !value_is_null => {
            "netvm change is operator-only; null (disconnect) is permitted".into()
        }
        "qmcp.SetPropertyAIManaged" if asked.text("property") == "netvm" => message.to_owned(),
        "qmcp.SetFeatureAIManaged" if !is_an_agents(asked.text("feature")) => {
            format!("feature '{}' is operator-only", asked.text("feature"))
        }
        "qmcp.SpawnAIManagedQube" | "qmcp.CloneAIManagedQube" => born(asked, message, prefix),
        "qmcp.SpawnDisposableAIManaged" if message.contains("DispVMTemplate") => format!(
            "template '{}' must have template_for_dispvms=True to be a DispVM source",
            asked.text("template")
        ),
        "qmcp.AIManagedEvents" | "qmcp.CopyToAIManaged" | "qmcp.RunInAIManaged" => {
            message.to_owned()
        }
        _ => failure(asked).into(),
    }
}

/// Why a qube was not made.
fn born(asked: &Asked<'_>, message: &str, prefix: &str) -> String {
    let name = asked.text("name");
    if !name.starts_with(prefix) {
        return format!(
            "name must start with '{prefix}' \u{2014} that namespace is reserved for AI-created qubes"
        );
    }
    if message.contains("already") {
        return format!("qube '{name}' already exists");
    }
    if message.contains("DispVMTemplate") {
        let template = asked.text("template");
        return format!(
            "template '{template}' must have template_for_dispvms=True to be a DispVM source"
        );
    }
    if message.starts_with("netvm") {
        return "netvm must reference an ai-managed qube".into();
    }
    message.to_owned()
}

fn is_settable(property: &str) -> bool {
    serde_json::from_value::<Settable>(property.into()).is_ok()
}

const fn failure(asked: &Asked<'_>) -> &'static str {
    match asked.service.as_bytes() {
        b"qmcp.SetPropertyAIManaged" | b"qmcp.SetFeatureAIManaged" => "set failed",
        b"qmcp.AttachDeviceAIManaged" => "attach failed",
        b"qmcp.DetachDeviceAIManaged" => "detach failed",
        _ => ACTION_FAILED,
    }
}
