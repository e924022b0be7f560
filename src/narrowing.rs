//! What a caller that is limited to some qubes may say and hear of others: nothing. The schemas of the
//! catalogue mark where names of qubes stand; here is the one place that looks at the marks.

use std::collections::{BTreeMap, BTreeSet};

use contract::{Fault, Frame, Kind};
use rmcp::model::JsonObject;
use serde_json::Value;

use crate::{
    caller::Caller,
    qrexec::CallError,
    reply::{Receiver, ReplyError, Step},
};

/// The keyword of the marks.
const KEYWORD: &str = "x-qube";
/// What stands for a qube whose name may not be known; dom0 writes the same.
const OUT_OF_SCOPE: &str = "<out-of-scope>";

/// What a mark says of the value at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    /// The name of a qube.
    Name,
    /// The name of the qube that the object is about. An entry of a list goes with it.
    Subject,
    /// Texts, at any depth, in which names of qubes may stand.
    Text,
    /// A name where this other parameter has one of these values.
    When(String, Vec<String>),
}

/// Where names of qubes stand in a value with a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    own: Option<Mark>,
    fields: BTreeMap<String, Self>,
    items: Option<Box<Self>>,
}

impl Marks {
    /// Takes the marks out of a schema: clients know no such keyword.
    pub(crate) fn take(schema: &mut Value) -> Self {
        let definitions = schema.get("$defs").cloned().unwrap_or_default();
        let marks = Self::read(schema, &definitions);
        strip(schema);
        marks
    }

    fn read(schema: &Value, definitions: &Value) -> Self {
        let mut marks = Self { own: schema.get(KEYWORD).and_then(Mark::parse), ..Self::default() };
        let reference = schema.get("$ref").and_then(Value::as_str);
        if let Some(name) = reference.and_then(|name| name.strip_prefix("#/$defs/")) {
            marks.merge(Self::read(definitions.get(name).unwrap_or(&Value::Null), definitions));
        }
        for branch in ["anyOf", "oneOf", "allOf"] {
            let branches = schema.get(branch).and_then(Value::as_array);
            for branch in branches.into_iter().flatten() {
                marks.merge(Self::read(branch, definitions));
            }
        }
        for (name, field) in
            schema.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            let field = Self::read(field, definitions);
            if field != Self::default() {
                marks.fields.insert(name.clone(), field);
            }
        }
        if let Some(items) = schema.get("items") {
            let items = Self::read(items, definitions);
            marks.items = (items != Self::default()).then(|| Box::new(items));
        }
        marks
    }

    fn merge(&mut self, other: Self) {
        self.own = self.own.take().or(other.own);
        self.fields.extend(other.fields);
        self.items = self.items.take().or(other.items);
    }
}

impl Mark {
    fn parse(value: &Value) -> Option<Self> {
        match (value.as_str(), value.as_object()) {
            (Some("name"), _) => Some(Self::Name),
            (Some("subject"), _) => Some(Self::Subject),
            (Some("text"), _) => Some(Self::Text),
            (_, Some(when)) => {
                let (parameter, values) = when.iter().next()?;
                let values = values.as_array()?.iter().filter_map(Value::as_str);
                Some(Self::When(parameter.clone(), values.map(str::to_owned).collect()))
            }
            _ => None,
        }
    }
}

fn strip(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove(KEYWORD);
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What holds for one call of a caller that is limited to some qubes.
#[derive(Debug)]
pub(crate) struct Narrowing<'c> {
    caller: &'c Caller,
    /// Every name that dom0 may tell this agent, without the caller's own.
    foreign: BTreeSet<String>,
}

impl<'c> Narrowing<'c> {
    /// One for this caller, by a listing of all qubes that this agent may know, with these marks.
    pub(crate) fn new(caller: &'c Caller, listing: &Value, marks: &Marks) -> Self {
        let mut foreign = BTreeSet::new();
        collect(listing, marks, &mut foreign);
        foreign.retain(|name| !caller.may_reach(name) && !is_sign(name));
        Self { caller, foreign }
    }

    /// Whether all qubes that these arguments name are the caller's.
    pub(crate) fn lets(&self, arguments: &JsonObject, marks: &Marks) -> bool {
        let own = |value: &Value| match value {
            Value::String(name) => name.is_empty() || self.caller.may_reach(name),
            Value::Array(names) => names
                .iter()
                .all(|name| name.as_str().is_some_and(|name| self.caller.may_reach(name))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => true,
        };
        arguments.iter().all(|(name, value)| {
            match marks.fields.get(name).and_then(|marks| marks.own.as_ref()) {
                Some(Mark::Name | Mark::Subject) => own(value),
                Some(Mark::Text) => {
                    value.as_str().is_none_or(|text| self.narrow_text(text) == text)
                }
                Some(Mark::When(other, values)) => {
                    let other = arguments.get(other).and_then(Value::as_str);
                    other.is_none_or(|other| !values.iter().any(|value| value == other))
                        || own(value)
                }
                None => true,
            }
        })
    }

    /// Leaves out what a result says of other qubes.
    pub(crate) fn narrow(&self, value: &mut Value, marks: &Marks) {
        match marks.own {
            Some(Mark::Name | Mark::Subject) => return self.hide(value),
            Some(Mark::Text | Mark::When(..)) => return self.narrow_texts(value),
            None => {}
        }
        match value {
            Value::Object(fields) => {
                for (name, marks) in &marks.fields {
                    if let Some(field) = fields.get_mut(name) {
                        self.narrow(field, marks);
                    }
                }
            }
            Value::Array(items) => {
                let Some(marks) = &marks.items else { return };
                items.retain(|item| !self.is_of_another(item, marks));
                items.iter_mut().for_each(|item| self.narrow(item, marks));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn is_of_another(&self, item: &Value, marks: &Marks) -> bool {
        marks.fields.iter().any(|(name, marks)| {
            let about = item.get(name).and_then(Value::as_str);
            marks.own == Some(Mark::Subject)
                && about.is_none_or(|name| !self.caller.may_reach(name))
        })
    }

    fn hide(&self, value: &mut Value) {
        match value {
            Value::String(name) if !name.is_empty() && !self.caller.may_reach(name) => {
                OUT_OF_SCOPE.clone_into(name);
            }
            Value::Array(names) => names.iter_mut().for_each(|name| self.hide(name)),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => {}
        }
    }

    fn narrow_texts(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.narrow_text(text),
            Value::Array(items) => {
                items.retain(|item| item.as_str().is_none_or(|text| !self.foreign.contains(text)));
                items.iter_mut().for_each(|item| self.narrow_texts(item));
            }
            Value::Object(fields) => fields.values_mut().for_each(|field| self.narrow_texts(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A text in which no other qube is named. A name ends where none could go on; a full stop or a
    /// dash at the end of a word belongs to the sentence.
    fn narrow_text(&self, text: &str) -> String {
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let mut narrowed = String::with_capacity(text.len());
        for piece in text.split_inclusive(|c| !inside(c)) {
            let (word, rest) = piece.split_at(piece.rfind(inside).map_or(0, |last| last + 1));
            let name = word.trim_end_matches(['.', '-']);
            let end = word.get(name.len()..).unwrap_or_default();
            let whole = self.foreign.contains(word);
            let hidden = whole || self.foreign.contains(name);
            narrowed.push_str(if hidden { OUT_OF_SCOPE } else { name });
            narrowed.push_str(if whole { "" } else { end });
            narrowed.push_str(rest);
        }
        narrowed
    }

    /// An error that names no other qube.
    pub(crate) fn narrow_error(&self, error: CallError) -> CallError {
        let CallError::Reply(ReplyError::Fault(fault)) = error else { return error };
        self.narrow_fault(fault).into()
    }

    fn narrow_fault(&self, fault: Fault) -> Fault {
        match fault {
            Fault::BadRequest { message } => {
                Fault::BadRequest { message: self.narrow_text(&message) }
            }
            Fault::TimedOut { message } => Fault::TimedOut { message: self.narrow_text(&message) },
            Fault::TooLarge { message } => Fault::TooLarge { message: self.narrow_text(&message) },
            Fault::Failed { message, call } => {
                Fault::Failed { message: self.narrow_text(&message), call }
            }
            other @ (Fault::Refused {} | Fault::NotRunning { .. } | Fault::Busy {}) => other,
        }
    }
}

fn is_sign(name: &str) -> bool {
    name.is_empty() || name.starts_with('<')
}

/// Every name of a qube that stands in a value.
fn collect(value: &Value, marks: &Marks, names: &mut BTreeSet<String>) {
    match value {
        Value::String(name) if matches!(marks.own, Some(Mark::Name | Mark::Subject)) => {
            names.insert(name.clone());
        }
        Value::Object(fields) => {
            for (name, marks) in &marks.fields {
                collect(fields.get(name).unwrap_or(&Value::Null), marks, names);
            }
        }
        Value::Array(items) => {
            let marks = marks.items.as_deref();
            marks
                .into_iter()
                .for_each(|marks| items.iter().for_each(|item| collect(item, marks, names)));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A receiver that hears of no other qube while the call is under way.
#[derive(Debug)]
pub(crate) struct Narrowed<'n, R> {
    /// What may be heard; everything where there is none.
    pub(crate) narrowing: Option<&'n Narrowing<'n>>,
    /// Who hears it.
    pub(crate) receiver: &'n mut R,
}

impl<R: Receiver> Receiver for Narrowed<'_, R> {
    fn take(&mut self, frame: &Frame) -> Result<Step, ReplyError> {
        let Some(narrowing) = self.narrowing.filter(|_| frame.kind == Kind::Progress) else {
            return self.receiver.take(frame);
        };
        let mut news: Value = serde_json::from_slice(&frame.payload)?;
        narrowing.narrow_texts(&mut news);
        self.receiver.take(&Frame::new(Kind::Progress, serde_json::to_vec(&news)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{caller::Limits, catalogue::Tools};
    use serde_json::json;

    fn caller(qubes: &[&str]) -> Caller {
        let qubes = Some(qubes.iter().copied().map(str::to_owned).collect());
        Caller::new(None, Limits { tools: None, qubes })
    }

    fn object(value: Value) -> JsonObject {
        let Value::Object(object) = value else { panic!("not an object") };
        object
    }

    fn listing() -> Value {
        json!({"vms": [
            {"name": "work", "netvm": "sys-net", "template": null},
            {"name": "dev", "netvm": "<out-of-scope>", "template": "debian"},
            {"name": "vault", "netvm": null, "template": "debian"}
        ]})
    }

    fn with(test: impl FnOnce(&Tools, &Narrowing<'_>)) {
        let tools = Tools::compiled().unwrap();
        let caller = caller(&["work", "dev"]);
        test(&tools, &Narrowing::new(&caller, &listing(), &tools.row("list_vms").tells));
    }

    fn told(tool: &str, mut value: Value) -> Value {
        with(|tools, narrowing| narrowing.narrow(&mut value, &tools.row(tool).tells));
        value
    }

    #[test]
    fn entries_about_others_are_left_out_and_their_names_hidden() {
        assert_eq!(
            told("list_vms", listing()),
            json!({"vms": [
                {"name": "work", "netvm": "<out-of-scope>", "template": null},
                {"name": "dev", "netvm": "<out-of-scope>", "template": "<out-of-scope>"}
            ]})
        );
        let rules = json!({"changed": false, "rules": [
            {"port": 22, "source": "work", "target": "dev"},
            {"port": 22, "source": "work", "target": "vault"},
            {"port": 22, "source": "vault", "target": "dev"}
        ]});
        let rules = told("connect_tcp_policy", rules);
        assert_eq!(rules["rules"], json!([{"port": 22, "source": "work", "target": "dev"}]));
        let properties = json!({"properties": {"netvm": "sys-net", "label": "red", "qid": 3}});
        let properties = told("vm_properties", properties);
        assert_eq!(
            properties["properties"],
            json!({"netvm": "<out-of-scope>", "label": "red", "qid": 3})
        );
    }

    #[test]
    fn sentences_name_no_other_qube() {
        let told = told(
            "diagnose_network",
            json!({
                "verdict": "sys-net, a netvm on its way out, is not running: Halted.",
                "next": {"tool": "start_vm", "arguments": {"vm_name": "sys-net"}},
                "also": ["work has no default route.", "It ends at vault."],
                "hops": [{"name": "work", "netvm": "sys-net"}, {"name": "sys-net", "netvm": null}],
                "inside": {"said": "vault"}
            }),
        );
        assert_eq!(
            told,
            json!({
                "verdict": "<out-of-scope>, a netvm on its way out, is not running: Halted.",
                "next": {"tool": "start_vm", "arguments": {"vm_name": "<out-of-scope>"}},
                "also": ["work has no default route.", "It ends at <out-of-scope>."],
                "hops": [
                    {"name": "work", "netvm": "<out-of-scope>"},
                    {"name": "<out-of-scope>", "netvm": null}
                ],
                "inside": {"said": "vault"}
            })
        );
        with(|_, narrowing| {
            for text in ["vaulted sys-network", "my-vault work dev", "vault2", ""] {
                assert_eq!(narrowing.narrow_text(text), text);
            }
            assert_eq!(narrowing.narrow_text("(vault)…"), "(<out-of-scope>)…");
        });
    }

    #[test]
    fn every_qube_that_is_named_must_be_the_callers() {
        with(|tools, narrowing| {
            let lets =
                |tool: &str, arguments| narrowing.lets(&object(arguments), &tools.row(tool).asks);
            for (tool, arguments, good) in [
                ("copy_between_vms", json!({"source_vm": "work", "target_vm": "dev"}), true),
                ("copy_between_vms", json!({"source_vm": "work", "target_vm": "vault"}), false),
                ("copy_between_vms", json!({"source_vm": "none", "target_vm": "dev"}), false),
                ("connect_tcp_policy", json!({"action": "list", "source": ""}), true),
                ("connect_tcp_policy", json!({"source": "vault", "target": "dev"}), false),
                ("list_jobs", json!({"vm_name": null}), true),
                ("list_jobs", json!({"vm_name": "vault"}), false),
                ("attach_device", json!({"backend_vm": "sys-usb"}), false),
                ("set_vm_property", json!({"property": "netvm", "value": null}), true),
                ("set_vm_property", json!({"property": "template", "value": "vault"}), false),
                ("set_vm_property", json!({"property": "label", "value": "vault"}), true),
                ("set_vm_feature", json!({"feature": "audiovm", "value": "vault"}), false),
            ] {
                assert_eq!(lets(tool, arguments.clone()), good, "{tool} {arguments}");
            }
        });
    }

    /// A parameter that is added to a service must be marked if it names a qube.
    #[test]
    fn parameters_that_sound_like_qubes_are_marked_and_clients_do_not_see_marks() {
        for tool in Tools::compiled().unwrap().list() {
            let text = serde_json::to_string(&tool).unwrap();
            assert!(!text.contains(KEYWORD), "{}", tool.name);
        }
        let json: Value = serde_json::from_str(include_str!("../contract/catalogue.json")).unwrap();
        for service in json["services"].as_array().unwrap() {
            for (name, field) in service["input"]["properties"].as_object().unwrap() {
                let sounds = name.ends_with("_vm")
                    || ["source", "target", "template", "netvm"].contains(&name.as_str());
                assert!(!sounds || field.get(KEYWORD).is_some(), "{} {name}", service["service"]);
            }
        }
    }
}
