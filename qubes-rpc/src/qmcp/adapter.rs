//! Which row stands behind a service of qubes-mcp, and what the row is asked.

use std::time::Duration;

use bytes::Bytes;
use contract::limits;
use serde_json::{Map, Value, json};

/// A request under the names of qubes-mcp.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    /// The service.
    pub(super) service: &'a str,
    /// The qube at which it is aimed; empty for dom0.
    pub(super) at: &'a str,
    /// What came.
    pub(super) object: Map<String, Value>,
}

impl Asked<'_> {
    /// A text; empty when there is none.
    pub(super) fn text(&self, key: &str) -> &str {
        self.object.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn has(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(|value| !value.is_null())
    }
}

/// The row behind a service.
#[derive(Debug)]
pub(super) struct Adapter {
    /// Its name.
    pub(super) row: &'static str,
    /// The qube that the call is aimed at; none for the scope.
    pub(super) qube: Option<String>,
}

/// The service with a row for each of its actions.
const LIFECYCLE: &str = "qmcp.LifecycleAIManaged";
/// Its actions and their rows.
const ACTIONS: [(&str, &str); 6] = [
    ("kill", "VmKill"),
    ("pause", "VmPause"),
    ("remove", "VmRemove"),
    ("shutdown", "VmShutdown"),
    ("start", "VmStart"),
    ("unpause", "VmUnpause"),
];

/// The classes of devices.
const CLASSES: [&str; 3] = ["block", "mic", "usb"];

/// Which qube a call is about.
#[derive(Clone, Copy, Debug)]
enum Key {
    /// None: the whole scope.
    Scope,
    /// The one in this field.
    Field(&'static str),
    /// The one at which it is aimed.
    Aim,
}

/// The services with one row each.
const ROWS: [(&str, &str, Key); 14] = [
    ("qmcp.AIManagedEvents", "EventWatch", Key::Scope),
    ("qmcp.AttachDeviceAIManaged", "DeviceAttach", Key::Field("frontend")),
    ("qmcp.CloneAIManagedQube", "VmClone", Key::Scope),
    ("qmcp.CopyToAIManaged", "FileCopy", Key::Scope),
    ("qmcp.DetachDeviceAIManaged", "DeviceDetach", Key::Field("frontend")),
    ("qmcp.GetPoolStats", "PoolStats", Key::Scope),
    ("qmcp.GetPropertyAIManaged", "PropertyGet", Key::Field("name")),
    ("qmcp.ListAIManagedQubes", "VmList", Key::Scope),
    ("qmcp.ListAttachedDevicesAIManaged", "DeviceList", Key::Field("name")),
    ("qmcp.RunInAIManaged", "VmExecRoot", Key::Aim),
    ("qmcp.SetFeatureAIManaged", "FeatureSet", Key::Field("name")),
    ("qmcp.SetPropertyAIManaged", "PropertySet", Key::Field("name")),
    ("qmcp.SpawnAIManagedQube", "VmCreate", Key::Scope),
    ("qmcp.SpawnDisposableAIManaged", "DisposableCreate", Key::Scope),
];

/// The row behind a service; for the one with several, that which starts a qube.
pub(super) fn row(service: &str) -> Option<&'static str> {
    if service == LIFECYCLE {
        return Some("VmStart");
    }
    ROWS.iter().find(|(known, ..)| *known == service).map(|(_, row, _)| *row)
}

/// The row, or what is wrong with a request that no row could answer.
pub(super) fn of(asked: &Asked<'_>) -> Result<Adapter, String> {
    if asked.service.contains("Device") && !CLASSES.contains(&asked.text("device_class")) {
        return Err(format!("device_class must be one of: {}", quoted(CLASSES)));
    }
    match asked.service {
        "qmcp.ListAttachedDevicesAIManaged"
            if !["attached", "available", ""].contains(&asked.text("mode")) =>
        {
            return Err("mode must be 'attached' or 'available'".into());
        }
        "qmcp.AttachDeviceAIManaged" => {
            options(asked)?;
        }
        "qmcp.AIManagedEvents" => {
            seconds(asked)?;
        }
        _ => {}
    }
    if let Some((_, row, key)) = ROWS.iter().find(|(known, ..)| *known == asked.service) {
        let qube = match key {
            Key::Scope => None,
            Key::Field(field) => Some(asked.text(field).to_owned()),
            Key::Aim => Some(asked.at.to_owned()),
        };
        return Ok(Adapter { row, qube });
    }
    let action = asked.text("action");
    let row = ACTIONS.iter().find(|(name, _)| *name == action).map(|(_, row)| *row);
    let known = || quoted(ACTIONS.map(|(name, _)| name));
    let row = row.ok_or_else(|| format!("action must be one of: {}", known()))?;
    Ok(Adapter { row, qube: Some(asked.text("name").to_owned()) })
}

/// What the row is asked, once the call is admitted. No command may last longer than the ceiling.
pub(super) fn arguments(
    asked: &Asked<'_>,
    ceiling: Duration,
) -> Result<Map<String, Value>, String> {
    let text = |key: &str| Value::from(asked.text(key));
    let value = asked.object.get("value").cloned().unwrap_or_default();
    Ok(match asked.service {
        "qmcp.GetPropertyAIManaged" => object([("names", json!([asked.text("property")]))]),
        "qmcp.SetPropertyAIManaged" => {
            let value = number(asked.text("property"), value);
            object([("property", text("property")), ("value", value)])
        }
        "qmcp.SetFeatureAIManaged" if value.is_null() => {
            return Err("value must be a string, a number or a boolean".into());
        }
        "qmcp.SetFeatureAIManaged" => object([("feature", text("feature")), ("value", value)]),
        "qmcp.ListAttachedDevicesAIManaged" => object([("class", text("device_class"))]),
        "qmcp.AttachDeviceAIManaged" => {
            let mut device = device(asked)?;
            device.insert("read_only".into(), options(asked)?.into());
            device
        }
        "qmcp.DetachDeviceAIManaged" => device(asked)?,
        "qmcp.AIManagedEvents" => events(asked)?,
        "qmcp.SpawnAIManagedQube" => spawn(asked)?,
        "qmcp.CloneAIManagedQube" => {
            name(asked.text("name"))?;
            object([("source", text("source")), ("name", text("name"))])
        }
        "qmcp.SpawnDisposableAIManaged" => object([("template", text("template"))]),
        "qmcp.RunInAIManaged" => run(asked, ceiling)?,
        "qmcp.CopyToAIManaged" => copy(asked)?,
        _ => Map::new(),
    })
}

/// The time of a command for which none is given, in seconds.
pub(super) const RUN_SECONDS: u64 = 60;

/// The standard input of a command.
pub(super) fn body(asked: &Asked<'_>) -> Bytes {
    match asked.service {
        "qmcp.RunInAIManaged" => Bytes::copy_from_slice(asked.text("stdin").as_bytes()),
        _ => Bytes::new(),
    }
}

/// How long a command may take, in seconds; a part of one counts as a whole.
fn run_seconds(asked: &Asked<'_>, ceiling: Duration) -> u64 {
    let given = asked.object.get("timeout").and_then(Value::as_f64);
    let given = given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let seconds = given.map_or(RUN_SECONDS, |time| {
        time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
    });
    seconds.clamp(1, ceiling.as_secs().max(1))
}

fn run(asked: &Asked<'_>, ceiling: Duration) -> Result<Map<String, Value>, String> {
    let is_line = asked.object.get("shell").and_then(Value::as_bool) == Some(true);
    let command = match (is_line, asked.object.get("cmd")) {
        (_, None | Some(Value::Null)) => return Err("missing 'cmd'".into()),
        (true, Some(line @ Value::String(_))) => ("command", line.clone()),
        (true, Some(_)) => return Err("'cmd' must be a string when shell=true".into()),
        (false, Some(Value::Array(words))) if words.iter().all(Value::is_string) => {
            ("argv", words.clone().into())
        }
        (false, Some(_)) => {
            return Err("'cmd' must be a list of strings (or set shell=true)".into());
        }
    };
    Ok(object([
        command,
        ("timeout_seconds", run_seconds(asked, ceiling).into()),
        ("max_output", limits::OUTPUT_BYTES.into()),
    ]))
}

/// Where the copying program of Qubes puts what a qube receives.
fn copy(asked: &Asked<'_>) -> Result<Map<String, Value>, String> {
    if asked.text("target").is_empty() || asked.text("path").is_empty() {
        return Err("missing 'target' or 'path'".into());
    }
    Ok(object([
        ("source_vm", asked.at.into()),
        ("source_path", asked.text("path").into()),
        ("target_vm", asked.text("target").into()),
        ("target_path", format!("/home/user/QubesIncoming/{}/", asked.at).into()),
        ("recursive", true.into()),
    ]))
}

/// A number that came as text, which qubes-mcp takes as well.
fn number(property: &str, value: Value) -> Value {
    let number = value.as_str().and_then(|text| text.parse::<i64>().ok());
    match number {
        Some(number) if ["memory", "maxmem", "vcpus"].contains(&property) => number.into(),
        Some(_) | None => value,
    }
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Whether the only option there is, `read-only`, is asked for.
fn options(asked: &Asked<'_>) -> Result<bool, String> {
    match asked.object.get("options") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Object(options)) if options.keys().all(|key| key == "read-only") => {
            match options.get("read-only") {
                None => Ok(false),
                Some(Value::Bool(read_only)) => Ok(*read_only),
                Some(Value::String(word)) if ["yes", "no"].contains(&word.as_str()) => {
                    Ok(word == "yes")
                }
                Some(_) => Err("read-only must be 'yes' or 'no'".into()),
            }
        }
        Some(Value::Object(_)) => Err("the only option is 'read-only'".into()),
        Some(_) => Err("options must be an object".into()),
    }
}

fn device(asked: &Asked<'_>) -> Result<Map<String, Value>, String> {
    let class = asked.text("device_class");
    let place = match asked.text("device_id") {
        "" if class == "mic" => "mic",
        "" => return Err("device_id is required".into()),
        place => place,
    };
    let (port, device_id) = match place.split_once(':') {
        Some((port, device_id)) => (port, Some(device_id)),
        None => (place, None),
    };
    Ok(object([
        ("class", class.into()),
        ("backend_vm", asked.text("backend").into()),
        ("port", port.into()),
        ("device_id", device_id.into()),
    ]))
}

/// The duration, held within its bounds as qubes-mcp does; a part of a second counts as a whole.
fn seconds(asked: &Asked<'_>) -> Result<u64, String> {
    let (first, last) = (*limits::WATCH_SECONDS.start(), *limits::WATCH_SECONDS.end());
    let wrong = || format!("duration must be a number in [{first}, {last}]");
    let number = asked.object.get("duration").and_then(Value::as_number).ok_or_else(wrong)?;
    let number = number.as_f64().filter(|number| number.is_finite()).ok_or_else(wrong)?;
    // Counted up to, since numbers change their kind nowhere in this program.
    let whole = (first..last)
        .find(|whole| u32::try_from(*whole).is_ok_and(|whole| f64::from(whole) >= number));
    Ok(whole.unwrap_or(last))
}

fn events(asked: &Asked<'_>) -> Result<Map<String, Value>, String> {
    let mut arguments = object([("seconds", seconds(asked)?.into())]);
    match asked.object.get("qube") {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) => drop(arguments.insert("vm_name".into(), name.clone().into())),
        Some(_) => return Err("qube must be a string or null".into()),
    }
    match asked.object.get("events") {
        None | Some(Value::Null) => {}
        Some(Value::Array(names))
            if names.iter().all(|name| name.as_str().is_some_and(|name| !name.is_empty())) =>
        {
            drop(arguments.insert("events".into(), names.clone().into()));
        }
        Some(_) => return Err("events must be a list of non-empty strings or null".into()),
    }
    Ok(arguments)
}

/// The classes that can be made.
const KINDS: [&str; 3] = ["AppVM", "DispVM", "DispVMTemplate"];
/// The colours.
const LABELS: [&str; 8] = ["black", "blue", "gray", "green", "orange", "purple", "red", "yellow"];

fn spawn(asked: &Asked<'_>) -> Result<Map<String, Value>, String> {
    let or = |key: &str, default: &str| match asked.has(key) {
        true => asked.text(key).to_owned(),
        false => default.to_owned(),
    };
    let (kind, label) = (or("klass", "AppVM"), or("label", "red"));
    name(asked.text("name"))?;
    if !KINDS.contains(&kind.as_str()) {
        return Err(format!("klass must be one of: {}", quoted(KINDS)));
    }
    if !LABELS.contains(&label.as_str()) {
        return Err(format!("label must be one of: {}", quoted(LABELS)));
    }
    let mut arguments = object([
        ("name", asked.text("name").into()),
        ("template", asked.text("template").into()),
        ("class", kind.into()),
        ("label", label.into()),
    ]);
    match asked.object.get("netvm") {
        None => {}
        Some(Value::Null) => drop(arguments.insert("offline".into(), true.into())),
        Some(netvm) => drop(arguments.insert("netvm".into(), netvm.clone())),
    }
    match asked.object.get("private_size") {
        None | Some(Value::Null) => {}
        Some(size) if size.is_u64() => drop(arguments.insert("private_size".into(), size.clone())),
        Some(_) => return Err("private_size must be an integer number of bytes".into()),
    }
    Ok(arguments)
}

/// The grammar of qubes-mcp for new names, which is narrower than that of Qubes.
fn name(name: &str) -> Result<(), String> {
    let is_fine = (1..=31).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|found| found.is_ascii_alphanumeric() || found == '-');
    if is_fine {
        return Ok(());
    }
    Err("name must be alphanumeric + dashes, 1-31 chars, starting with alphanumeric".into())
}

/// A list as Python shows it.
fn quoted<const N: usize>(words: [&str; N]) -> String {
    format!("[{}]", words.map(|word| format!("'{word}'")).join(", "))
}
