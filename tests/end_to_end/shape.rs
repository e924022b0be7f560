//! What an agent may make of a qube: properties, features, devices, and that no name from outside
//! its scope comes back.

use salt_bridge_sim::{McpClient, Population, Resident};
use serde_json::{Value, json};

use super::machine::{Machine, error, ok, on_host_with};

/// One listed qube, and a sandbox of which everything may be shaped.
const SCOPE: &str = "\
@agent salt-bridge
work
shaped see,shape
@tag:ai-managed see,exec,files
@tag:ai-full see,lifecycle,exec,root,files,net,shape
";

/// Qubes of the sandbox beside `ai-build` and `ai-test`, and one outside it.
fn residents() -> Vec<Resident> {
    let full = |qube: Resident| qube.tag("ai-managed").tag("ai-full");
    vec![
        full(Resident::template("ai-debian-13")),
        full(Resident::app("ai-full-1", "gray"))
            .with("template", "ai-debian-13")
            .running()
            .offers("block", "sda", "manufacturer='hosted by ai-full-1' serial='USB Flash Drive'")
            .offers("usb", "2-1", "product='Stick' attachment='vault'"),
        full(Resident::app("ai-vm-1", "gray")).running(),
        full(Resident::app("ai-net-router", "red")).with("provides_network", "True"),
        full(Resident::app("ai-dvm", "red")).with("template_for_dispvms", "True"),
        Resident::app("shaped", "green"),
        Resident::app("sys-usb", "red").running().offers("block", "sdb", "serial='secret'"),
    ]
}

fn on_sandbox(test: impl AsyncFnOnce(&Machine, &mut McpClient)) {
    on_host_with(SCOPE, Population::default().and(residents()), async |machine| {
        let mut client = machine.client().await;
        test(machine, &mut client).await;
    });
}

const FOREIGN: [&str; 7] =
    ["sys-firewall", "sys-net", "fedora-42", "default-dvm", "vault", "dom0", "sys-usb"];

/// No name from outside the scope stands in an answer.
fn hides(answer: &Value) {
    let text = answer.to_string();
    for foreign in FOREIGN {
        assert!(!text.contains(foreign), "{foreign} in {text}");
    }
}

#[test]
fn properties_are_shown_without_the_names_of_strangers() {
    on_sandbox(async |_, client| {
        let all = ok(client, "vm_properties", json!({"vm_name": "ai-full-1"})).await;
        hides(&all);
        let properties = &all["properties"];
        for (name, value) in [
            ("name", json!("ai-full-1")),
            ("klass", json!("AppVM")),
            ("template", json!("ai-debian-13")),
            ("netvm", json!("<out-of-scope>")),
            ("default_dispvm", json!("<out-of-scope>")),
            ("guivm", json!("<out-of-scope>")),
            ("label", json!("gray")),
            ("memory", json!(400)),
            ("provides_network", json!(false)),
            ("management_dispvm", json!(null)),
            ("power_state", json!("Running")),
            ("tags", json!(["ai-managed"])),
        ] {
            assert_eq!(properties[name], value, "{name}");
        }
        let set = all["set"].as_array().unwrap();
        assert!(set.contains(&json!("template")) && !set.contains(&json!("memory")));

        let some = json!({"vm_name": "ai-full-1", "names": ["memory", "tags"]});
        let some = ok(client, "vm_properties", some).await;
        assert_eq!(some["properties"], json!({"memory": 400, "tags": ["ai-managed"]}));
        let none = json!({"vm_name": "ai-full-1", "names": ["nosuchprop"]});
        assert!(error(client, "vm_properties", none).await.contains("nosuchprop"));

        // Of a listed qube the direct netvm is shown, and nothing further.
        let listed = ok(client, "vm_properties", json!({"vm_name": "work"})).await;
        assert_eq!(listed["properties"]["netvm"], "sys-firewall");
        assert_eq!(listed["properties"]["template"], "<out-of-scope>");
        assert_eq!(listed["properties"]["tags"], json!([]));
    });
}

#[test]
fn a_property_is_set_within_bounds_and_told_as_qubes_has_it() {
    on_sandbox(async |_, client| {
        for (property, value) in [
            ("label", json!("green")),
            ("memory", json!(500)),
            ("maxmem", json!(0)),
            ("vcpus", json!(1)),
            ("default_dispvm", json!("ai-dvm")),
            ("default_dispvm", json!(null)),
            ("netvm", json!(null)),
        ] {
            let set = json!({"vm_name": "ai-full-1", "property": property, "value": value});
            let answer = ok(client, "set_vm_property", set.clone()).await;
            assert_eq!(
                answer,
                json!({"property": property, "value": value, "changed": true}),
                "{property}"
            );
            assert_eq!(ok(client, "set_vm_property", set).await["changed"], false, "{property}");
        }
        // The template of a qube that runs stays; of a halted one it changes.
        let template = |qube: &str, value: &str| json!({"vm_name": qube, "property": "template", "value": value});
        let told = error(client, "set_vm_property", template("ai-full-1", "ai-debian-13")).await;
        assert!(told.contains("must be halted"), "{told}");
        let answer = ok(client, "set_vm_property", template("shaped", "ai-debian-13")).await;
        assert_eq!(answer["value"], "ai-debian-13");
        let told = error(client, "set_vm_property", template("shaped", "ai-vm-1")).await;
        assert!(told.contains("class TemplateVM"), "{told}");
    });
}

#[test]
fn no_property_leads_out_of_the_scope() {
    on_sandbox(async |machine, client| {
        let before = machine.host.events().len();
        let refused = error(
            client,
            "set_vm_property",
            json!({"vm_name": "vault", "property": "label", "value": "red"}),
        )
        .await;
        for (property, value) in [
            ("template", "fedora-42"),
            ("template", "no-such-qube"),
            ("template", "dom0"),
            ("template", "salt-bridge"),
            ("default_dispvm", "default-dvm"),
            ("default_dispvm", "no-such-qube"),
            ("default_dispvm", "@adminvm"),
            ("default_dispvm", "uuid:00000000-0000-0000-0000-000000000000"),
        ] {
            let set = json!({"vm_name": "shaped", "property": property, "value": value});
            assert_eq!(error(client, "set_vm_property", set).await, refused, "{property} {value}");
        }
        for (qube, property, value) in [
            ("ai-full-1", "netvm", json!("ai-net-router")),
            ("ai-full-1", "netvm", json!("sys-firewall")),
            ("ai-full-1", "netvm", json!("nosuch")),
            ("ai-net-router", "netvm", json!(null)),
            ("ai-full-1", "label", json!("nolabel")),
            ("ai-full-1", "memory", json!(1)),
            ("ai-full-1", "memory", json!(1_000_000)),
            ("ai-full-1", "vcpus", json!(0)),
            ("ai-debian-13", "template_for_dispvms", json!(true)),
            ("ai-debian-13", "template", json!("ai-debian-13")),
        ] {
            let set = json!({"vm_name": qube, "property": property, "value": value});
            hides(&error(client, "set_vm_property", set).await.into());
        }
        // Without the power shape nothing can be set, whatever the request.
        for qube in ["work", "ai-build"] {
            let set = json!({"vm_name": qube, "property": "label", "value": "red"});
            assert_eq!(error(client, "set_vm_property", set).await, refused, "{qube}");
        }
        let events = machine.host.events().since(before);
        assert!(events.iter().all(|event| !event.name.starts_with("property-")), "{events:?}");
    });
}

#[test]
fn features_are_the_agents_own_or_name_a_qube_of_its_scope() {
    on_sandbox(async |machine, client| {
        for (feature, value, kept, changed) in [
            ("x-test", json!("abc"), json!("abc"), true),
            ("x-test", json!("abc"), json!("abc"), false),
            ("x-test", json!(true), json!("1"), true),
            ("x-test", json!(false), json!(""), true),
            ("x-test", json!(null), json!(null), true),
            ("x-test", json!(null), json!(null), false),
            ("guivm", json!("ai-vm-1"), json!("ai-vm-1"), true),
        ] {
            let set = json!({"vm_name": "ai-full-1", "feature": feature, "value": value});
            let expected = json!({"feature": feature, "value": kept, "changed": changed});
            assert_eq!(ok(client, "set_vm_feature", set).await, expected);
        }
        let before = machine.host.events().len();
        let mut told = Vec::new();
        for value in ["sys-net", "nosuch", "dom0", "salt-bridge"] {
            let set = json!({"vm_name": "ai-full-1", "feature": "audiovm", "value": value});
            told.push(error(client, "set_vm_feature", set).await);
        }
        told.dedup();
        assert_eq!(told.len(), 1, "{told:?}");
        for feature in ["internal", "tag-created-vm-with", "deferred-netvm-original", "net.fake-ip"]
        {
            let set = json!({"vm_name": "ai-full-1", "feature": feature, "value": "1"});
            let told = error(client, "set_vm_feature", set).await;
            assert!(told.contains("operator's"), "{told}");
        }
        assert_eq!(machine.host.events().since(before), []);
    });
}

#[test]
fn a_device_is_listed_attached_for_reading_and_detached() {
    on_sandbox(async |_, client| {
        let list = |qube: &str, class: &str| json!({"vm_name": qube, "class": class});
        let offered = ok(client, "list_devices", list("ai-full-1", "block")).await;
        assert_eq!(
            offered["offered"],
            json!([{
                "port": "sda", "device_id": ":None", "interfaces": "b******",
                "description": "hosted by ai-full-1, USB Flash Drive", "attached_to": null,
            }])
        );
        // A backend that claims to have lent a device to a stranger learns nothing of it.
        let usb = ok(client, "list_devices", list("ai-full-1", "usb")).await;
        assert_eq!(usb["offered"][0]["attached_to"], "<out-of-scope>");

        let sda = json!({
            "vm_name": "ai-vm-1", "class": "block", "backend_vm": "ai-full-1", "port": "sda",
        });
        let mut read_only = sda.clone();
        read_only["read_only"] = json!(true);
        let attached = ok(client, "attach_device", read_only).await;
        let device = json!({
            "backend_vm": "ai-full-1", "port": "sda", "device_id": ":None", "read_only": true,
            "frontend_device": "xvdi",
        });
        assert_eq!(attached, json!({ "device": device }));
        let there = ok(client, "list_devices", list("ai-vm-1", "block")).await;
        assert_eq!(there["attached"], json!([device]));
        let told = error(client, "attach_device", sda.clone()).await;
        assert!(told.contains("attached already"), "{told}");
        assert_eq!(ok(client, "detach_device", sda.clone()).await, json!({"detached": true}));
        let told = error(client, "detach_device", sda).await;
        assert!(told.contains("not attached"), "{told}");
    });
}

#[test]
fn both_ends_of_a_device_are_in_scope_with_the_power_to_shape() {
    on_sandbox(async |machine, client| {
        let attach = |to: &str, class: &str, from: &str, port: &str| json!({"vm_name": to, "class": class, "backend_vm": from, "port": port});
        let before = machine.host.events().len();
        let refused = error(client, "attach_device", attach("vault", "block", "work", "sda")).await;
        for (to, from) in [
            ("ai-vm-1", "sys-usb"),
            ("ai-vm-1", "no-such-qube"),
            ("ai-vm-1", "dom0"),
            ("ai-vm-1", "salt-bridge"),
            ("ai-vm-1", "work"),
            ("ai-vm-1", "ai-build"),
            ("sys-usb", "ai-full-1"),
            ("ai-build", "ai-full-1"),
        ] {
            for tool in ["attach_device", "detach_device"] {
                let told = error(client, tool, attach(to, "block", from, "sda")).await;
                assert_eq!(told, refused, "{tool} {to} {from}");
            }
        }
        for arguments in [
            attach("ai-vm-1", "block", "ai-full-1", "zzz"),
            attach("ai-vm-1", "pci", "ai-full-1", "00_14.0"),
            attach("ai-vm-1", "block", "ai-full-1", "sda _frontend-dev='xvda'"),
            attach("ai-full-1", "block", "ai-full-1", "sda"),
        ] {
            hides(&error(client, "attach_device", arguments).await.into());
        }
        assert_eq!(machine.host.events().since(before), []);
    });
}

#[test]
fn a_device_that_a_stranger_lent_is_shown_without_the_strangers_name() {
    on_sandbox(async |machine, client| {
        machine.host.attach_device("ai-vm-1", "block", "sys-usb", "sdb").unwrap();
        let list = json!({"vm_name": "ai-vm-1", "class": "block"});
        let listed = ok(client, "list_devices", list).await;
        hides(&listed);
        let device = &listed["attached"][0];
        assert_eq!(
            (&device["backend_vm"], &device["port"]),
            (&"<out-of-scope>".into(), &"sdb".into())
        );
        assert_eq!(device["device_id"], json!(null));
    });
}

#[test]
fn events_are_told_of_qubes_in_scope_and_without_the_names_of_others() {
    on_sandbox(async |machine, client| {
        let mut other = machine.client().await;
        let watch = async |client: &mut McpClient, more: Value| {
            let mut arguments = json!({"seconds": 20});
            arguments.as_object_mut().unwrap().extend(super::machine::object(more));
            ok(client, "watch_events", arguments).await
        };
        let work = async {
            // The watch has begun when its first event comes; until then the change is repeated.
            for number in 0.. {
                for qube in ["ai-full-1", "shaped"] {
                    let value = if number % 2 == 0 { "red" } else { "green" };
                    let set = json!({"vm_name": qube, "property": "label", "value": value});
                    ok(&mut other, "set_vm_property", set).await;
                }
                machine.host.set_tag("vault", "ai-secret").unwrap();
                machine.host.set_tag("ai-full-1", "ai-secret").unwrap();
                machine.host.start_qube("personal").unwrap();
                machine.host.kill_qube("personal").unwrap();
                tokio::task::yield_now().await;
            }
        };
        let told = tokio::select! {
            told = watch(client, json!({"max_events": 8})) => told,
            () = work => unreachable!(),
        };
        hides(&told);
        assert_eq!(told["ended"], "max_events");
        let events = told["events"].as_array().unwrap();
        assert_eq!(events.len(), 8);
        for event in events {
            let qube = event["vm_name"].as_str().unwrap();
            assert!(["ai-full-1", "shaped"].contains(&qube), "{event}");
            let name = event["event"].as_str().unwrap();
            assert!(["property-pre-set:label", "property-set:label"].contains(&name), "{event}");
            assert!(["red", "green"].contains(&event["value"].as_str().unwrap()), "{event}");
            assert_eq!(event["class"], "AppVM");
        }
        let refused =
            error(client, "watch_events", json!({"seconds": 1, "vm_name": "vault"})).await;
        for qube in ["no-such-qube", "dom0", "@adminvm", "salt-bridge"] {
            let asked = json!({"seconds": 1, "vm_name": qube});
            assert_eq!(error(client, "watch_events", asked).await, refused);
        }
        let told = watch(client, json!({"seconds": 1, "vm_name": "ai-vm-1"})).await;
        assert_eq!(told, json!({"events": [], "ended": "time"}));
    });
}
