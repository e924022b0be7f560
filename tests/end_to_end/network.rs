//! Firewall rules and ConnectTCP policy, with the files in dom0 that they end up in.

use salt_bridge_sim::{McpClient, Population};
use serde_json::{Value, json};

use super::machine::{ERAS, error, ok, on_host, on_host_with};

const TCP_POLICY: &str = "etc/qubes/policy.d/30-salt-bridge-tcp.policy";

fn rules(result: &Value) -> Vec<&str> {
    result["rules"].as_array().unwrap().iter().map(|rule| rule["rule"].as_str().unwrap()).collect()
}

async fn add(client: &mut McpClient, action: &str, args: &str, position: Option<u32>) -> Value {
    let arguments =
        json!({"vm_name": "work", "action": action, "args": args, "position": position});
    ok(client, "firewall_add", arguments).await
}

#[test]
fn firewall_rules_land_where_they_work_and_only_the_expected_one_is_removed() {
    on_host(async |machine| {
        for era in ERAS {
            let mut client = McpClient::start(&machine.host, era).await.unwrap();
            let list = ok(&mut client, "firewall_list", json!({"vm_name": "work"})).await;
            assert_eq!(rules(&list), ["action=accept"]);
            let added =
                add(&mut client, "drop", "dsthost=192.0.2.1 proto=tcp dstports=443", None).await;
            assert_eq!((&added["number"], &added["shadowed_by"]), (&json!(0), &Value::Null));
            let void = add(&mut client, "drop", "dst4=192.0.2.0/24", Some(2)).await;
            assert_eq!((&void["number"], &void["shadowed_by"]), (&json!(2), &json!(1)));
            let first = "action=drop dst4=192.0.2.1/32 proto=tcp dstports=443-443";
            assert_eq!(rules(&void), [first, "action=accept", "action=drop dst4=192.0.2.0/24"]);
            for (number, rule) in void["rules"].as_array().unwrap().iter().enumerate() {
                assert_eq!(rule["number"], number);
                assert!(rule["action"].is_string());
            }
            let xml = machine.dom0("var/lib/qubes/appvms/work/firewall.xml");
            assert!(xml.contains("192.0.2.1") && xml.contains("192.0.2.0/24"), "{xml}");
            let wrong = json!({"vm_name": "work", "rule_number": 1, "expect": first});
            error(&mut client, "firewall_remove", wrong).await;
            assert_eq!(
                machine.dom0("var/lib/qubes/appvms/work/firewall.xml"),
                xml,
                "nothing changed"
            );
            let right = json!({"vm_name": "work", "rule_number": 0, "expect": first});
            let removed = ok(&mut client, "firewall_remove", right).await;
            assert_eq!(rules(&removed), ["action=accept", "action=drop dst4=192.0.2.0/24"]);
            let last =
                ok(&mut client, "firewall_remove", json!({"vm_name": "work", "rule_number": 1}))
                    .await;
            assert_eq!(rules(&last), ["action=accept"]);
            let list = ok(&mut client, "firewall_list", json!({"vm_name": "work"})).await;
            assert_eq!(rules(&list), ["action=accept"]);
        }
        let kept = machine.host.root().join("var/lib/salt-bridge/firewall");
        assert!(kept.read_dir().unwrap().count() > 0, "the rules before each change are kept");
    });
}

#[test]
fn every_form_of_firewall_arguments_is_understood() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        for (args, rule) in [
            ("", "action=accept"),
            ("10.1.2.3 tcp 22", "action=accept dst4=10.1.2.3/32 proto=tcp dstports=22-22"),
            ("10.1.2.3\t udp  53-54", "action=accept dst4=10.1.2.3/32 proto=udp dstports=53-54"),
            ("2001:db8::1", "action=accept dst6=2001:db8::1/128"),
            ("example.org", "action=accept dsthost=example.org"),
            ("proto=icmp icmptype=8", "action=accept proto=icmp icmptype=8"),
            ("specialtarget=dns", "action=accept specialtarget=dns"),
            ("dst6=2001:db8::/32", "action=accept dst6=2001:db8::/32"),
            ("comment=web dsthost=10.0.0.9", "action=accept dst4=10.0.0.9/32 comment=web"),
        ] {
            let added = add(&mut client, "accept", args, Some(0)).await;
            assert_eq!(rules(&added).first(), Some(&rule), "{args:?}");
        }
        let added = add(&mut client, "drop", "10.9.9.9 expire=+300", Some(0)).await;
        let rule = rules(&added)[0].to_owned();
        let expire = rule.split(' ').find_map(|word| word.strip_prefix("expire=")).expect(&rule);
        let expire = expire.parse::<u64>().expect(&rule);
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((now + 270..=now + 300).contains(&expire), "{rule}");
        error(
            &mut client,
            "firewall_add",
            json!({"vm_name": "work", "action": "accept", "args": "dstports=22"}),
        )
        .await;
    });
}

#[test]
fn changes_at_the_same_time_are_all_made() {
    on_host(async |machine| {
        let client = machine.client().await;
        let mut calls = tokio::task::JoinSet::new();
        for number in 1..=12 {
            let peer = client.peer();
            calls.spawn_local(async move {
                let arguments = json!({"vm_name": "work", "action": "drop", "args": format!("192.0.2.{number}")});
                let parameters = rmcp::model::CallToolRequestParams::new("firewall_add")
                    .with_arguments(super::machine::object(arguments));
                super::machine::success(&peer.call_tool(parameters).await.unwrap());
            });
        }
        calls.join_all().await;
        let mut client = client;
        let list = ok(&mut client, "firewall_list", json!({"vm_name": "work"})).await;
        assert_eq!(rules(&list).len(), 13);
    });
}

fn tcp(action: &str, port: u32) -> Value {
    json!({"action": action, "source": "work", "target": "dev", "port": port})
}

#[test]
fn connect_tcp_rules_are_written_as_policy_and_taken_back() {
    on_host(async |machine| {
        for era in ERAS {
            let mut client = McpClient::start(&machine.host, era).await.unwrap();
            let list = ok(&mut client, "connect_tcp_policy", json!({"action": "list"})).await;
            assert_eq!(list, json!({"rules": [], "changed": false}));
            for (port, changed) in [(22, true), (22, false), (65535, true)] {
                let added = ok(&mut client, "connect_tcp_policy", tcp("add", port)).await;
                assert_eq!(added["changed"], changed, "{port}");
            }
            let list = ok(&mut client, "connect_tcp_policy", json!({"action": "list"})).await;
            let rule = |port: u32| json!({"port": port, "source": "work", "target": "dev"});
            assert_eq!(list["rules"], json!([rule(22), rule(65535)]));
            let policy = machine.dom0(TCP_POLICY);
            let lines: Vec<_> = policy
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect();
            for port in [22, 65535] {
                let line = format!("qubes.ConnectTCP +{port} work dev allow");
                assert!(lines.contains(&line), "{policy}");
            }
            for (port, changed) in [(22, true), (22, false), (65535, true)] {
                let removed = ok(&mut client, "connect_tcp_policy", tcp("remove", port)).await;
                assert_eq!(removed["changed"], changed, "{port}");
            }
            let list = ok(&mut client, "connect_tcp_policy", json!({"action": "list"})).await;
            assert_eq!(list["rules"], json!([]));
            assert!(!machine.dom0(TCP_POLICY).contains("+22"));
        }
    });
}

#[test]
fn a_deny_of_the_operator_is_not_overruled_by_adding_a_rule() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        machine.host.set_policy("30-user.policy", "qubes.ConnectTCP +22 work dev deny\n").unwrap();
        error(&mut client, "connect_tcp_policy", tcp("add", 22)).await;
        assert!(!machine.dom0(TCP_POLICY).contains("+22"));
        let added = ok(&mut client, "connect_tcp_policy", tcp("add", 23)).await;
        assert_eq!(added["changed"], true, "another port is another question");
        machine
            .host
            .set_policy("30-user.policy", "qubes.ConnectTCP * @anyvm @anyvm deny\n")
            .unwrap();
        error(&mut client, "connect_tcp_policy", tcp("add", 24)).await;
        assert!(!machine.dom0(TCP_POLICY).contains("+24"));
    });
}

#[test]
fn network_information_of_a_running_and_of_a_halted_qube() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let info = ok(&mut client, "vm_network_info", json!({"vm_name": "work"})).await;
        let properties = &info["properties"];
        assert!(properties["netvm"].is_string() && properties["ip"].is_string(), "{properties}");
        assert_eq!(properties["provides_network"], false);
        assert_eq!(info["note"], Value::Null);
        let halted = ok(&mut client, "vm_network_info", json!({"vm_name": "dev"})).await;
        assert!(halted["properties"]["ip"].is_string());
        assert!(halted["note"].as_str().unwrap().contains("alted"), "{halted}");
        let without = ok(&mut client, "vm_network_info", json!({"vm_name": "test"})).await;
        assert!(without["note"].is_string(), "see alone does not look inside");
    });
}

async fn diagnose(client: &mut McpClient, vm_name: &str, host: &str, port: u32) -> Value {
    let arguments = json!({"vm_name": vm_name, "host": host, "port": port});
    ok(client, "diagnose_network", arguments).await
}

#[test]
fn a_diagnosis_names_what_stops_a_connection_and_the_call_that_mends_it() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let found = diagnose(&mut client, "work", "127.0.0.1", 9).await;
        let direct = json!({"name": "sys-firewall", "state": null, "netvm": null,
            "in_scope": false, "provides_network": null, "firewall": null, "connection": null});
        assert_eq!(found["hops"][1], direct, "the direct netvm's name, and no more");
        assert!(!found.to_string().contains("sys-net"), "{found}");
        assert_eq!((&found["note"], &found["firewall"][0]["number"]), (&Value::Null, &json!(0)));
        assert_eq!(found["inside"]["connection"], "refused", "{found}");
        assert!(found["verdict"].as_str().unwrap().contains("refuses port 9"), "{found}");

        add(&mut client, "drop", "dst4=192.0.2.0/24", Some(0)).await;
        let found = diagnose(&mut client, "work", "192.0.2.7", 443).await;
        assert!(
            found["verdict"].as_str().unwrap().starts_with("Firewall rule 0 of work"),
            "{found}"
        );
        assert_eq!(found["firewall"][0]["later"], 1, "{found}");
        let next = &found["next"];
        assert_eq!(next["tool"], "firewall_add", "{found}");
        let mended = ok(&mut client, "firewall_add", next["arguments"].clone()).await;
        assert_eq!((&mended["number"], &mended["shadowed_by"]), (&json!(0), &Value::Null));
        let found = diagnose(&mut client, "work", "192.0.2.7", 443).await;
        assert_eq!(found["firewall"][0]["action"], "accept", "{found}");

        let found = diagnose(&mut client, "dev", "example.org", 443).await;
        let next = json!({"tool": "start_vm", "arguments": {"vm_name": "dev"}});
        assert_eq!((&found["next"], &found["inside"]), (&next, &Value::Null), "{found}");
        assert!(found["verdict"].as_str().unwrap().contains("Halted"), "{found}");
        assert_eq!(found["firewall"][0]["address"], Value::Null, "{found}");
        let found = diagnose(&mut client, "test", "example.org", 443).await;
        assert_eq!((&found["next"], &found["inside"]), (&Value::Null, &Value::Null), "{found}");

        for (host, port) in [("$(id)", 1), ("a b", 1), ("-x", 1), ("example.org", 0)] {
            let arguments = json!({"vm_name": "work", "host": host, "port": port});
            error(&mut client, "diagnose_network", arguments).await;
        }
        let foreign = json!({"vm_name": "vault", "host": "example.org", "port": 1});
        error(&mut client, "diagnose_network", foreign).await;
    });
}

#[test]
fn a_chain_is_walked_through_netvms_in_scope_and_ends_behind_them() {
    let scope = "@agent salt-bridge\ndev see\nsys-firewall see,lifecycle,net,exec\n";
    on_host_with(scope, Population::default(), async |machine| {
        let mut client = machine.client().await;
        let found = diagnose(&mut client, "dev", "192.0.2.7", 443).await;
        let hops: Vec<_> = (found["hops"].as_array().unwrap().iter())
            .map(|hop| json!([hop["name"], hop["state"], hop["netvm"], hop["in_scope"]]))
            .collect();
        let expected = [
            json!(["dev", "Halted", "sys-firewall", true]),
            json!(["sys-firewall", "Running", "sys-net", true]),
            json!(["sys-net", null, null, false]),
        ];
        assert_eq!((hops.as_slice(), &found["next"]), (&expected[..], &Value::Null), "{found}");
        let netvm = &found["hops"][1];
        assert_eq!(netvm["provides_network"], true, "{found}");
        assert_eq!(netvm["firewall"][0]["action"], "accept", "{found}");
        assert!(netvm["connection"].is_string(), "it was tried from there: {found}");
        let also = found["also"].to_string();
        assert!(also.contains("sys-firewall, a netvm on its way out, itself"), "{found}");

        // The rules of a netvm hold for what comes through it.
        let rule = json!({"vm_name": "sys-firewall", "action": "drop", "args": "dst4=192.0.2.0/24",
            "position": 0});
        ok(&mut client, "firewall_add", rule).await;
        machine.host.start_qube("dev").unwrap();
        let found = diagnose(&mut client, "dev", "192.0.2.7", 443).await;
        let verdict = found["verdict"].as_str().unwrap();
        assert!(verdict.starts_with("Firewall rule 0 of sys-firewall"), "{found}");
        assert_eq!(found["next"]["tool"], "firewall_add", "{found}");
        assert_eq!(found["next"]["arguments"]["vm_name"], "sys-firewall", "{found}");
        ok(&mut client, "firewall_add", found["next"]["arguments"].clone()).await;
        let found = diagnose(&mut client, "dev", "192.0.2.7", 443).await;
        assert!(!found["verdict"].as_str().unwrap().contains("Firewall rule"), "{found}");
    });
}
