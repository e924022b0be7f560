//! The older program's wire form: JSON fields of its own in, plain text out, around the same rows.

use std::{fmt::Write, time::Duration};

use bytes::Bytes;
use contract::{Fault, limits};
use serde_json::{Map, Value};

use crate::{
    incoming::{Expected, Request},
    service::Entry,
};

/// What an unframed request of this service may be.
pub(crate) fn expected(entry: &Entry) -> Expected {
    let large = entry.name == "VmWriteFile";
    Expected {
        plain_bytes: if large { limits::PLAIN_WRITE_BYTES } else { limits::PLAIN_REQUEST_BYTES },
        silence_is_empty: matches!(
            entry.name,
            "VmList" | "VmStart" | "VmShutdown" | "VmNetworkInfo" | "FirewallList"
        ),
        form_only: false,
    }
}

/// The request under the names that the row uses.
pub(crate) fn parse(entry: &Entry, request: Request, ceiling: Duration) -> Result<Request, Fault> {
    let Request { mut args, mut body, principal } = request;
    match entry.name {
        "VmExec" | "VmExecRoot" => {
            rename(&mut args, "cmd", "command")?;
            // The older program keeps its own time and hangs up.
            args.insert("timeout_seconds".into(), ceiling.as_secs().into());
        }
        "VmReadFile" => rename(&mut args, "path", "file_path")?,
        "VmWriteFile" => {
            rename(&mut args, "path", "file_path")?;
            body = match args.remove("content") {
                Some(Value::String(content)) => Bytes::from(content),
                Some(_) => return Err(Fault::bad_request("content must be a string")),
                None => return Err(Fault::bad_request("content is missing")),
            };
            let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
            if length > limits::BODY_BYTES {
                let most = limits::BODY_BYTES;
                let message = format!("content may have at most {most} bytes");
                return Err(Fault::TooLarge { message });
            }
        }
        _ => {}
    }
    Ok(Request { args, body, principal })
}

fn rename(args: &mut Map<String, Value>, from: &str, to: &str) -> Result<(), Fault> {
    match args.remove(from) {
        Some(value @ Value::String(_)) => {
            args.insert(to.into(), value);
            Ok(())
        }
        Some(_) => Err(Fault::bad_request(format!("{from} must be a string"))),
        None => Err(Fault::bad_request(format!("{from} is missing"))),
    }
}

/// The response as the older program's text. `request` holds the parameters, `qube` the target.
pub(crate) fn render(
    entry: &Entry,
    request: &Map<String, Value>,
    qube: &str,
    response: &Value,
) -> String {
    match entry.name {
        "VmList" => lines(response, "vms", vm_line),
        "FirewallList" => firewall_table(response),
        "ConnectTcpPolicy" => tcp(request, response),
        "VmNetworkInfo" => network(response),
        "VmWriteFile" => format!("OK: Written to {} in {qube}\n", text(request, "file_path")),
        "VmExec" | "VmExecRoot" => match response.get("exit_code").and_then(Value::as_i64) {
            Some(0) => String::new(),
            Some(code) => format!("\nEXIT CODE: {code}"),
            None => "\nERROR: the command was killed at the time limit\n".into(),
        },
        _ => String::new(),
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// One line for each object of an array.
fn lines(response: &Value, array: &str, line: impl Fn(&Map<String, Value>) -> String) -> String {
    let objects = response.get(array).and_then(Value::as_array).into_iter().flatten();
    objects.filter_map(Value::as_object).map(|object| line(object) + "\n").collect()
}

fn vm_line(vm: &Map<String, Value>) -> String {
    let shown = |key: &&str| match text(vm, key) {
        "" => "-",
        text => text,
    };
    ["name", "state", "class", "netvm", "ip", "label"]
        .iter()
        .map(shown)
        .collect::<Vec<_>>()
        .join("|")
}

fn tcp_line(rule: &Map<String, Value>) -> String {
    let port = rule.get("port").and_then(Value::as_u64).unwrap_or_default();
    let (source, target) = (text(rule, "source"), text(rule, "target"));
    format!("qubes.ConnectTCP +{port}  {source}  {target}  allow")
}

fn tcp(request: &Map<String, Value>, response: &Value) -> String {
    let changed = response.get("changed").and_then(Value::as_bool).unwrap_or_default();
    match (text(request, "action"), changed) {
        ("add", true) => format!("OK: Added {}\n", tcp_line(request)),
        ("add", false) => "Rule already exists\n".into(),
        ("remove", true) => "OK: Removed rule\n".into(),
        ("remove", false) => "Rule not found\n".into(),
        _ => lines(response, "rules", tcp_line),
    }
}

const COLUMNS: [&str; 9] = [
    "NO",
    "ACTION",
    "HOST",
    "PROTOCOL",
    "PORT(S)",
    "SPECIAL TARGET",
    "ICMP TYPE",
    "EXPIRE",
    "COMMENT",
];

fn firewall_table(response: &Value) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    let rules = response.get("rules").and_then(Value::as_array).into_iter().flatten();
    for rule in rules.filter_map(Value::as_object) {
        let shown = |keys: &[&str]| {
            let value = keys.iter().find_map(|key| rule.get(*key));
            match value {
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
                None => "-".into(),
            }
        };
        rows.push([
            shown(&["number"]),
            shown(&["action"]),
            shown(&["dst4", "dst6", "dsthost"]),
            shown(&["proto"]),
            shown(&["dstports"]),
            shown(&["specialtarget"]),
            shown(&["icmptype"]),
            shown(&["expire"]),
            shown(&["comment"]),
        ]);
    }
    let mut widths = [0; COLUMNS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for row in &rows {
        let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        table.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        table.push('\n');
    }
    table
}

const HEADINGS: [(&str, &str); 6] = [
    ("Interfaces", "interfaces"),
    ("Routes", "routes"),
    ("DNS", "dns"),
    ("WireGuard", "wireguard"),
    ("iptables (nat)", "iptables-nat"),
    ("iptables (filter)", "iptables-filter"),
];

fn network(response: &Value) -> String {
    let mut page = "=== Qubes Properties ===\n".to_owned();
    let empty = Map::new();
    let properties = response.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    for key in ["netvm", "ip", "visible_ip", "dns", "provides_network"] {
        let value = match properties.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(true)) => "True".into(),
            Some(Value::Bool(false)) => "False".into(),
            Some(Value::Array(words)) => {
                words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            // A property without a value is shown as nothing.
            _ => String::new(),
        };
        push(&mut page, format_args!("{key}: {value}\n"));
    }
    page.push_str("\n=== In-VM Network State ===\n");
    if let Some(note) = response.get("note").and_then(Value::as_str) {
        push(&mut page, format_args!("{note}\n"));
        return page;
    }
    let raw = response.get("raw").and_then(Value::as_object).unwrap_or(&empty);
    for (index, (heading, key)) in HEADINGS.into_iter().enumerate() {
        let between = if index == 0 { "" } else { "\n" };
        let printed = match text(raw, key) {
            "" if key == "wireguard" => "No WireGuard interfaces or wg not installed",
            printed => printed.trim_end_matches('\n'),
        };
        push(&mut page, format_args!("{between}--- {heading} ---\n{printed}\n"));
    }
    page
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = page.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::services::SERVICES;

    fn entry(name: &str) -> &'static Entry {
        SERVICES.iter().find(|entry| entry.name == name).unwrap()
    }

    fn rendered(name: &str, request: Value, response: Value) -> String {
        render(entry(name), request.as_object().unwrap(), "work", &response)
    }

    #[test]
    fn the_fields_of_the_older_program_become_those_of_the_row() {
        let parsed = |name: &str, args: Value| {
            let args = args.as_object().unwrap().clone();
            let request = Request { args, ..Request::default() };
            parse(entry(name), request, Duration::from_secs(3600))
        };
        let exec = parsed("VmExec", json!({"cmd": "id"})).unwrap();
        assert_eq!(Value::Object(exec.args), json!({"command": "id", "timeout_seconds": 3600}));
        let write = parsed("VmWriteFile", json!({"path": "/x", "content": "a\n"})).unwrap();
        assert_eq!(Value::Object(write.args), json!({"file_path": "/x"}));
        assert_eq!(&write.body[..], b"a\n");
        for (name, args) in [
            ("VmExec", json!({"x": 1})),
            ("VmExec", json!({"cmd": 1})),
            ("VmReadFile", json!({})),
            ("VmWriteFile", json!({"path": "/x"})),
            ("VmWriteFile", json!({"path": "/x", "content": ["a"]})),
        ] {
            assert!(parsed(name, args.clone()).is_err(), "{name} {args}");
        }
    }

    #[test]
    fn a_list_is_a_line_for_each_qube() {
        let vms = json!({"vms": [{"name": "dev", "state": "Halted", "class": "AppVM",
            "netvm": null, "ip": "10.137.0.8", "label": "purple"}]});
        assert_eq!(rendered("VmList", json!({}), vms), "dev|Halted|AppVM|-|10.137.0.8|purple\n");
    }

    #[test]
    fn the_firewall_is_the_table_that_was_recorded() {
        let rules = json!({"rules": [
            {"number": 0, "action": "accept"},
            {"number": 1, "action": "accept", "dst4": "10.0.0.1/32", "proto": "tcp", "dstports": "443"},
        ]});
        let table = "\
NO  ACTION  HOST         PROTOCOL  PORT(S)  SPECIAL TARGET  ICMP TYPE  EXPIRE  COMMENT
0   accept  -            -         -        -               -          -       -
1   accept  10.0.0.1/32  tcp       443      -               -          -       -
";
        assert_eq!(rendered("FirewallList", json!({}), rules), table);
    }

    #[test]
    fn connect_tcp_answers_are_those_that_were_recorded() {
        let rule = json!({"action": "add", "source": "work", "target": "dev", "port": 22});
        let done = |changed: bool| json!({"rules": [rule], "changed": changed});
        let line = "qubes.ConnectTCP +22  work  dev  allow\n";
        assert_eq!(
            rendered("ConnectTcpPolicy", rule.clone(), done(true)),
            format!("OK: Added {line}")
        );
        assert_eq!(
            rendered("ConnectTcpPolicy", rule.clone(), done(false)),
            "Rule already exists\n"
        );
        assert_eq!(rendered("ConnectTcpPolicy", json!({"action": "list"}), done(false)), line);
        let remove = json!({"action": "remove"});
        assert_eq!(rendered("ConnectTcpPolicy", remove.clone(), done(true)), "OK: Removed rule\n");
        assert_eq!(rendered("ConnectTcpPolicy", remove, done(false)), "Rule not found\n");
    }

    #[test]
    fn an_exit_code_is_told_only_when_it_is_not_zero() {
        assert_eq!(rendered("VmExec", json!({}), json!({"exit_code": 0})), "");
        assert_eq!(rendered("VmExec", json!({}), json!({"exit_code": 3})), "\nEXIT CODE: 3");
        let written = rendered("VmWriteFile", json!({"file_path": "/a"}), json!({}));
        assert_eq!(written, "OK: Written to /a in work\n");
        assert_eq!(rendered("VmStart", json!({}), json!({"state": "Running"})), "");
    }
}
