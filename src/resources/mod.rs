//! What a client can read besides calling tools: the scope, its qubes, their rules and files.

mod changes;
mod uri;

use base64::{Engine, engine::general_purpose::STANDARD};
use rmcp::{
    ErrorData,
    model::{
        JsonObject, ListResourcesResult, ReadResourceResult, Resource, ResourceContents,
        ResourceTemplate,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    agent::{self, Agent},
    qrexec::CallError,
    reply::ReplyError,
    topology::{Topology, render_mermaid, render_svg},
    vms::Vm,
};

pub(crate) use changes::Changes;
pub(crate) use uri::{FILE_TEMPLATE, FIREWALL_TEMPLATE, Place, QUBE_TEMPLATE};

const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";
const MERMAID: &str = "text/vnd.mermaid";

/// The qubes that one page of the list shows.
const PAGE: usize = 100;

/// The services behind the resources that are not the list of qubes.
const FIREWALL_SERVICE: &str = "FirewallList";
const FILE_SERVICE: &str = "VmReadFile";

/// One page of the resources: the fixed ones and one for each qube in scope. `after` is the name
/// of the last qube of the page before.
pub(crate) fn render_list(vms: &[Vm], after: Option<&str>) -> ListResourcesResult {
    let mut resources = Vec::new();
    if after.is_none() {
        resources.push(
            Resource::new("qubes://vms", "vms")
                .with_title("Qubes in scope")
                .with_description("The qubes that you may use, with state, network and powers.")
                .with_mime_type(JSON),
        );
        resources.push(
            Resource::new("qubes://topology", "topology")
                .with_title("Topology")
                .with_description("Who gets the network from whom, as SVG and as Mermaid.")
                .with_mime_type(SVG),
        );
    }
    let mut rest =
        vms.iter().filter(|vm| after.is_none_or(|after| vm.name.as_str() > after)).peekable();
    let page: Vec<&Vm> = rest.by_ref().take(PAGE).collect();
    let more = rest.peek().is_some();
    resources.extend(page.iter().map(|vm| {
        Resource::new(format!("qubes://vm/{}", vm.name), vm.name.clone())
            .with_title(format!("Qube {}", vm.name))
            .with_description(format!("{}, {}", vm.class, vm.state))
            .with_mime_type(JSON)
    }));
    let mut result = ListResourcesResult::with_all_items(resources);
    result.next_cursor = page.last().filter(|_| more).map(|vm| vm.name.clone());
    result
}

/// The forms of addresses that are not listed one by one.
pub(crate) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new(QUBE_TEMPLATE, "qube")
            .with_title("A qube")
            .with_description("State, class, network, label and your powers over it.")
            .with_mime_type(JSON),
        ResourceTemplate::new(FIREWALL_TEMPLATE, "firewall")
            .with_title("Firewall rules of a qube")
            .with_description(
                "The outgoing rules, numbered from 0; the first that matches decides.",
            )
            .with_mime_type(JSON),
        ResourceTemplate::new(FILE_TEMPLATE, "file")
            .with_title("A file in a qube")
            .with_description(
                "A path that begins with / is absolute, another begins in the user's home folder. \
                 At most 2 MiB; read_file_in_vm reads longer files by ranges.",
            ),
    ]
}

/// Why a resource cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The call for it failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The file is longer than a resource may be.
    #[error("the file has {size} bytes; read it by ranges with read_file_in_vm")]
    Long {
        /// Its size.
        size: u64,
    },
}

impl ReadError {
    /// The error as MCP has it. What does not exist and what may not be seen look alike.
    pub(crate) fn render(&self, uri: &str) -> ErrorData {
        let data = Some(json!({ "uri": uri }));
        match self {
            Self::Call(error) if error.is_refusal() => {
                ErrorData::resource_not_found("request refused", data)
            }
            Self::Call(CallError::Reply(ReplyError::Fault(_))) | Self::Long { .. } => {
                ErrorData::invalid_params(self.to_string(), data)
            }
            Self::Call(_) => ErrorData::internal_error(self.to_string(), data),
        }
    }
}

/// Reads a resource.
pub(crate) async fn read(agent: &Agent, place: &Place) -> Result<ReadResourceResult, ReadError> {
    let uri = place.to_string();
    let contents = match place {
        Place::Vms => vec![render_json(&json!({ "vms": agent.vms().await? }), uri)],
        Place::Topology => {
            let topology = Topology::new(agent.vms().await?);
            vec![
                ResourceContents::text(render_svg(&topology), uri.clone()).with_mime_type(SVG),
                ResourceContents::text(render_mermaid(&topology), uri).with_mime_type(MERMAID),
            ]
        }
        Place::Qube(name) => {
            let vms = agent.vms().await?;
            let vm = vms.iter().find(|vm| vm.name == name.as_str());
            vec![render_json(&json!(vm.ok_or_else(CallError::refused)?), uri)]
        }
        Place::Firewall(name) => {
            let rules = agent.ask(FIREWALL_SERVICE, Some(name.clone()), JsonObject::new()).await?;
            vec![render_json(&Value::Object(rules), uri)]
        }
        Place::File(name, path) => {
            let file = agent.ask(FILE_SERVICE, Some(name.clone()), path_argument(path)).await?;
            vec![render_file(agent::parse(file)?, uri)?]
        }
    };
    Ok(ReadResourceResult::new(contents))
}

/// A path as the services of files take it.
pub(crate) fn path_argument(path: &[u8]) -> JsonObject {
    let (name, value) = match str::from_utf8(path) {
        Ok(path) => ("file_path", path.to_owned()),
        Err(_) => ("file_path_base64", STANDARD.encode(path)),
    };
    JsonObject::from_iter([(name.to_owned(), value.into())])
}

fn render_json(value: &Value, uri: String) -> ResourceContents {
    ResourceContents::text(value.to_string(), uri).with_mime_type(JSON)
}

#[derive(Deserialize)]
struct File {
    content: String,
    encoding: String,
    size: u64,
    eof: bool,
}

fn render_file(file: File, uri: String) -> Result<ResourceContents, ReadError> {
    if !file.eof {
        return Err(ReadError::Long { size: file.size });
    }
    Ok(match file.encoding.as_str() {
        "utf-8" => ResourceContents::text(file.content, uri).with_mime_type("text/plain"),
        _ => ResourceContents::blob(file.content, uri).with_mime_type("application/octet-stream"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vms(count: usize) -> Vec<Vm> {
        (0..count).map(|n| Vm { name: format!("q{n:03}"), ..Vm::default() }).collect()
    }

    #[test]
    fn a_long_list_comes_in_pages_that_hold_every_qube_once() {
        let vms = vms(250);
        let (mut cursor, mut seen, mut pages) = (None, Vec::new(), 0);
        loop {
            let page = render_list(&vms, cursor.as_deref());
            seen.extend(page.resources.into_iter().map(|resource| resource.uri));
            pages += 1;
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(pages, 3);
        assert_eq!(seen.len(), 252);
        assert_eq!(seen[..3], ["qubes://vms", "qubes://topology", "qubes://vm/q000"]);
        assert_eq!(seen[251], "qubes://vm/q249");
        assert_eq!(render_list(&vms[..100], None).next_cursor, None);
    }

    #[test]
    fn a_file_that_is_not_whole_is_no_resource() {
        let file = |eof| File { content: "x".into(), encoding: "utf-8".into(), size: 9, eof };
        assert!(render_file(file(true), "u".into()).is_ok());
        let error = render_file(file(false), "u".into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the file has 9 bytes; read it by ranges with read_file_in_vm"
        );
    }
}
