//! qubesd against recordings of the real one: the same requests get the same replies.

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use salt_bridge_sim::{Population, Resident};
use serde_json::Value;

use super::machine::Machine;

/// The qubes that were there when the recordings were made.
fn population() -> Population {
    let net =
        |name: &str, label| Resident::app(name, label).running().with("provides_network", "True");
    let services = ["servicevm", "service.qubes-firewall", "service.clocksync"];
    let sys_net =
        net("sys-net", "red").with("netvm", "").with("maxmem", "0").with("virt_mode", "hvm");
    let sys_net = services.into_iter().fold(sys_net, |qube, name| qube.feature(name, "1"));
    Population::of(vec![
        Resident::template("fedora-42"),
        Resident::template("debian-13"),
        sys_net,
        net("sys-firewall", "orange").with("netvm", "sys-net"),
        Resident::app("salt-bridge", "purple").running(),
        Resident::app("work", "blue").running(),
        Resident::app("vault", "black").with("netvm", ""),
        Resident::app("personal", "yellow"),
        Resident::app("dev", "green"),
        Resident::app("test", "gray"),
        Resident::app("dvm", "red").with("template_for_dispvms", "True"),
        Resident::standalone("mcp-control", "purple").running().with("netvm", "sys-firewall"),
        Resident::template("ai-debian-13"),
        Resident::app("ai-vm-1", "gray"),
    ])
    .with("default_dispvm", "dvm")
}

/// What differs from host to host: UUIDs, numbers of domains and disposables, times, sizes.
fn leveled(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(reply);
    let mut words: Vec<String> = Vec::new();
    // The property of whose line of `GetAll` this is a part.
    let mut key = String::new();
    for line in text.split_inclusive(['\n', ' ']) {
        let word = line.trim_end();
        let value = word.rsplit('=').next().unwrap_or_default();
        let uuid = value.len() == 36 && value.matches('-').count() == 4;
        let changing = uuid || word.starts_with("cputime=") || word.starts_with("usage=");
        if changing {
            words.push(line.replace(value, "*"));
        } else if matches!(key.as_str(), "xid" | "start_time")
            && word != "-1"
            && !word.contains('=')
            && !word.is_empty()
        {
            words.push(line.replace(word, "*"));
        } else {
            words.push(line.to_owned());
        }
        if !word.contains('=') {
            word.clone_into(&mut key);
        }
    }
    words.concat()
}

fn recorded(file: &str) -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../admin-api/tests/transcripts");
    let text = fs::read_to_string(PathBuf::from(folder).join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn bytes(record: &Value, key: &str) -> Option<Vec<u8>> {
    record.get(key)?.as_str().map(|text| STANDARD.decode(text).unwrap())
}

/// Replays a file, and tells the numbers of the records that got another reply.
fn replay(file: &str) -> Vec<u64> {
    let machine = Machine::with(|options| options.population = population());
    let mut different = Vec::new();
    for record in recorded(file) {
        let (Some(request), Some(reply)) =
            (bytes(&record, "request_b64"), bytes(&record, "reply_b64"))
        else {
            continue;
        };
        // Streams do not end, and a destination by UUID is another qube here.
        let other =
            request.starts_with(b"admin.Events") || request.windows(5).any(|part| part == b"uuid:");
        if record["shutdown_write"] != true || other {
            continue;
        }
        if leveled(&machine.qubesd(&request)) != leveled(&reply) {
            different.push(record["n"].as_u64().unwrap());
        }
    }
    different
}

/// The recordings leave out some of the requests that changed something; what a record shows of
/// such a change cannot come here.
#[test]
fn requests_get_the_replies_that_were_recorded() {
    // A pause is left out.
    assert_eq!(replay("01-list-state.jsonl"), [14, 15]);
    assert_eq!(replay("03-tag.jsonl"), [0; 0]);
    // The templates of that system had more features.
    assert_eq!(replay("04-feature.jsonl"), [2]);
    // A label is left out that a qube had.
    assert_eq!(replay("08-label.jsonl"), [21, 23]);
    // The creation of a qube is left out.
    assert_eq!(replay("12-protocol-errors.jsonl"), [36]);
}

#[test]
fn properties_get_the_replies_that_were_recorded() {
    let helpless = |number: &u64| {
        let record = recorded("02-property.jsonl")
            .into_iter()
            .find(|record| record["n"] == *number)
            .unwrap();
        let request = bytes(&record, "request_b64").unwrap();
        !String::from_utf8_lossy(&request).contains("property.Help+")
    };
    let different: Vec<u64> = replay("02-property.jsonl").into_iter().filter(helpless).collect();
    // Times of start and numbers of domains, and three changes that are left out.
    assert_eq!(different, [88, 102, 137, 151, 300, 320, 357, 364]);
}

#[test]
fn firewalls_are_answered_and_stored_as_recorded() {
    let machine = Machine::start();
    let folder =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../admin-api/tests/transcripts/firewall-xml");
    let stored = machine.host.root().join("var/lib/qubes/appvms/work/firewall.xml");
    let mut tried = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "set") {
            continue;
        }
        let set = fs::read(&path).unwrap();
        // What expires has another answer at another time.
        if String::from_utf8_lossy(&set).contains("expire=") {
            continue;
        }
        tried += 1;
        let request = [b"admin.vm.firewall.Set+ dom0 name work\0", set.as_slice()].concat();
        assert_eq!(machine.qubesd(&request), b"0\0", "{}", path.display());
        let get = fs::read_to_string(path.with_extension("get")).unwrap();
        assert_eq!(machine.admin("admin.vm.firewall.Get+", "work"), format!("0\0{get}"));
        let xml = fs::read_to_string(path.with_extension("xml")).unwrap();
        assert_eq!(fs::read_to_string(&stored).unwrap(), xml, "{}", path.display());
    }
    assert!(tried > 10, "{tried} rule sets");
}
