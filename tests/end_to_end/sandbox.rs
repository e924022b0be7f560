//! Qubes that an agent makes, shapes and destroys: through MCP, policy and the daemon.

use admin_api::{Client, Destination, call};
use salt_bridge_sim::{Host, HostOptions, Population, Resident};
use serde_json::{Value, json};
use std::time::Duration;

use super::machine::{Machine, error, ok, until};

/// The operator's file: a sandbox and a listed qube.
const SCOPE: &str = "@agent salt-bridge\nwork\n@tag:ai-managed\n";

/// A template, an egress, a qube of each tier, and strangers.
pub(crate) fn population() -> Population {
    let tagged = |name: &str, tags: &[&str]| {
        let qube = Resident::app(name, "gray").with("template", "ai-debian");
        tags.iter().fold(qube.tag("ai-managed").with("netvm", "ai-net-router"), |q, t| q.tag(t))
    };
    Population::default().and([
        Resident::template("ai-debian").tag("ai-managed"),
        Resident::template("ai-low").tag("ai-managed").tag("ai-exec"),
        Resident::app("ai-net-router", "red")
            .tag("ai-managed")
            .with("netvm", "sys-firewall")
            .with("provides_network", "True"),
        tagged("ai-full", &["ai-full"]),
        tagged("ai-exec", &["ai-exec"]),
        tagged("ai-dvm", &[]).with("template_for_dispvms", "True"),
        tagged("ai-off", &[]).with("netvm", ""),
        tagged("ai-leak", &[]).with("netvm", "sys-firewall"),
        tagged("sink", &["ai-dump"]),
        Resident::app("ai-foreign", "red"),
        Resident::app("dvm", "red").with("template_for_dispvms", "True"),
    ])
}

/// Runs a test on a host with a sandbox.
pub(crate) fn on_sandbox(
    population: Population,
    scope: &str,
    stamped: bool,
    test: impl AsyncFnOnce(&Machine),
) {
    let dir = tempfile::Builder::new().prefix("sb").tempdir().unwrap();
    let options = HostOptions::new(dir.path().join("h"), env!("CARGO_BIN_EXE_salt-bridge-sim"));
    let host = Host::start(HostOptions { population, ..options }).unwrap();
    host.install(scope).unwrap();
    let machine = Machine::of(host, dir);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        if stamped {
            let name = "tag-created-vm-with".parse().unwrap();
            let agent = Destination::parse("salt-bridge").unwrap();
            let set = call::feature::set(agent, &name, "ai-managed");
            qubesd(&machine).call(set, Duration::from_secs(5)).await.unwrap();
        }
        tokio::time::timeout(Duration::from_secs(600), test(&machine)).await.expect("it hangs");
    });
}

/// The host's qubesd, as dom0 itself asks it.
pub(crate) fn qubesd(machine: &Machine) -> Client {
    Client::new(machine.host.layout().qubesd_socket())
}

/// The names of all qubes there are.
pub(crate) async fn names(machine: &Machine) -> Vec<String> {
    let all = call::vm::list(Destination::Dom0);
    let all = qubesd(machine).call(all, Duration::from_secs(5)).await.unwrap();
    all.into_iter().map(|line| line.name).collect()
}

async fn tags(machine: &Machine, qube: &str) -> Vec<String> {
    let list = call::tag::list(Destination::parse(qube).unwrap());
    let tags = qubesd(machine).call(list, Duration::from_secs(5)).await.unwrap();
    tags.iter().map(ToString::to_string).filter(|tag| tag.starts_with("ai-")).collect()
}

async fn property(machine: &Machine, qube: &str, name: &str) -> String {
    let get = call::property::get(Destination::parse(qube).unwrap(), &name.parse().unwrap());
    qubesd(machine).call(get, Duration::from_secs(5)).await.unwrap().value.to_string()
}

fn vms(list: &Value) -> Vec<&str> {
    list["vms"].as_array().unwrap().iter().filter_map(|vm| vm["name"].as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qube_is_made_used_copied_and_removed() {
        for stamped in [true, false] {
            on_sandbox(population(), SCOPE, stamped, async |machine| {
                let mut client = machine.client().await;
                let made = ok(
                    &mut client,
                    "create_vm",
                    json!({"name": "ai-one", "template": "ai-debian", "private_size": 3_000_000_000_u64}),
                )
                .await;
                assert_eq!(
                    (&made["name"], &made["netvm"]),
                    (&json!("ai-one"), &json!("ai-net-router"))
                );
                assert_eq!(made["powers"].as_array().unwrap().len(), 7);
                assert_eq!(tags(machine, "ai-one").await, ["ai-managed"]);
                assert_eq!(property(machine, "ai-one", "default_dispvm").await, "");
                let list = ok(&mut client, "list_vms", json!({})).await;
                assert!(vms(&list).contains(&"ai-one") && !vms(&list).contains(&"ai-foreign"));
                let run = json!({"vm_name": "ai-one", "command": "echo kept > note; hostname"});
                let ran = ok(&mut client, "exec_in_vm", run).await;
                assert_eq!(ran["stdout"], "ai-one\n");
                let one = json!({"vm_name": "ai-one"});
                let sentence = error(&mut client, "remove_vm", one.clone()).await;
                assert!(sentence.contains("only a halted qube"), "{sentence}");
                ok(&mut client, "pause_vm", one.clone()).await;
                assert_eq!(ok(&mut client, "pause_vm", one.clone()).await["changed"], false);
                ok(&mut client, "unpause_vm", one.clone()).await;
                assert_eq!(ok(&mut client, "kill_vm", one.clone()).await["state"], "Halted");
                assert_eq!(ok(&mut client, "kill_vm", one.clone()).await["changed"], false);
                let copy = json!({"source": "ai-one", "name": "ai-two"});
                let copy = ok(&mut client, "clone_vm", copy).await;
                assert_eq!(
                    (&copy["netvm"], &copy["class"]),
                    (&json!("ai-net-router"), &json!("AppVM"))
                );
                let run = json!({"vm_name": "ai-two", "command": "cat note"});
                assert_eq!(ok(&mut client, "exec_in_vm", run).await["stdout"], "kept\n");
                let budget = ok(&mut client, "disk_budget", json!({})).await;
                let of = |name: &str| {
                    let mut all = budget["vms"].as_array().unwrap().iter();
                    all.find(|vm| vm["name"] == name).unwrap()["bytes"].as_u64().unwrap()
                };
                assert_eq!((of("ai-one"), of("ai-two")), (3_000_000_000, 3_000_000_000));
                assert_eq!(ok(&mut client, "remove_vm", one.clone()).await["removed"], "ai-one");
                assert!(!names(machine).await.contains(&"ai-one".to_owned()));
                assert!(error(&mut client, "remove_vm", one).await.contains("refused"));
            });
        }
    }

    #[test]
    fn what_is_outside_the_sandbox_is_neither_used_nor_told_apart_from_what_is_not_there() {
        on_sandbox(population(), SCOPE, true, async |machine| {
            let mut client = machine.client().await;
            let before = names(machine).await;
            let mut refusals = Vec::new();
            for arguments in [
                json!({"name": "ai-x", "template": "fedora-42"}),
                json!({"name": "ai-x", "template": "nosuch"}),
                json!({"name": "ai-x", "template": "dom0"}),
                json!({"name": "ai-x", "template": "uuid:00000000-0000-0000-0000-000000000000"}),
                json!({"name": "ai-x", "template": "salt-bridge"}),
                json!({"name": "ai-x", "template": "work"}),
                json!({"name": "ai-x", "template": "sink", "class": "DispVM"}),
                json!({"name": "ai-x", "template": "dvm", "class": "DispVM"}),
                json!({"name": "ai-x", "template": "ai-debian", "netvm": "sys-firewall"}),
                json!({"name": "ai-x", "template": "ai-debian", "netvm": "nosuch"}),
                json!({"name": "ai-foreign", "template": "ai-debian"}),
                // A template of a tier that gives no shape.
                json!({"name": "ai-x", "template": "ai-low"}),
            ] {
                refusals.push(error(&mut client, "create_vm", arguments).await);
            }
            for (source, name) in [
                ("vault", "ai-x"),
                ("nosuch", "ai-x"),
                ("work", "ai-x"),
                ("ai-exec", "ai-x"),
                ("ai-off", "ai-foreign"),
            ] {
                refusals.push(
                    error(&mut client, "clone_vm", json!({"source": source, "name": name})).await,
                );
            }
            for template in ["dvm", "nosuch", "sink", "work"] {
                let run = json!({"template": template, "command": "id"});
                refusals.push(error(&mut client, "run_in_disposable", run).await);
            }
            assert!(
                refusals.iter().all(|text| *text == refusals[0] && text.contains("refused")),
                "{refusals:?}"
            );
            // The form of a name is told, without a look at what there is.
            for name in ["vault", "work", "nosuch", "AI-x", "ai-", "ai x", "dom0"] {
                let arguments = json!({"name": name, "template": "ai-debian"});
                let sentence = error(&mut client, "create_vm", arguments).await;
                assert!(sentence.contains("name must begin with ai-"), "{name}: {sentence}");
            }
            let leak = json!({"source": "ai-leak", "name": "ai-x"});
            let sentence = error(&mut client, "clone_vm", leak).await;
            assert!(sentence.contains("no network") && !sentence.contains("sys-firewall"));
            let taken = json!({"name": "ai-off", "template": "ai-debian"});
            assert!(error(&mut client, "create_vm", taken).await.contains("already"));
            assert_eq!(names(machine).await, before);
        });
    }

    #[test]
    fn networks_tiers_and_room_are_kept_at_birth() {
        on_sandbox(population(), SCOPE, true, async |machine| {
            let mut client = machine.client().await;
            let copy = json!({"source": "ai-off", "name": "ai-off-2"});
            assert_eq!(ok(&mut client, "clone_vm", copy).await["netvm"], Value::Null);
            assert_eq!(property(machine, "ai-off-2", "netvm").await, "");
            let copy = json!({"source": "ai-full", "name": "ai-full-2", "offline": true});
            ok(&mut client, "clone_vm", copy).await;
            assert_eq!(tags(machine, "ai-full-2").await, ["ai-full", "ai-managed"]);
            assert_eq!(property(machine, "ai-full-2", "netvm").await, "");
            let dvm =
                json!({"name": "ai-dvm-2", "template": "ai-debian", "class": "DispVMTemplate"});
            ok(&mut client, "create_vm", dvm).await;
            let named = json!({"name": "ai-disp", "template": "ai-dvm-2", "class": "DispVM"});
            ok(&mut client, "create_vm", named).await;
            let run = json!({"vm_name": "ai-disp", "command": "hostname"});
            assert_eq!(ok(&mut client, "exec_in_vm", run).await["stdout"], "ai-disp\n");
            let settings = machine.host.root().join("etc/salt-bridge/settings.toml");
            std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
            let write = |text: &str| std::fs::write(&settings, text).unwrap();
            write("[sandbox]\nprivate_cap = 4000000000\n");
            let big = json!({"name": "ai-big", "template": "ai-debian", "private_size": 4_000_000_001_u64});
            assert!(error(&mut client, "create_vm", big).await.contains("at most 4000000000"));
            write("[sandbox]\npool_cap = 1\n");
            let more = json!({"name": "ai-more", "template": "ai-debian"});
            assert!(error(&mut client, "create_vm", more.clone()).await.contains("0 bytes left"));
            write("[sandbox]\nbirth_tier = \"exec\"\npool_cap = 200000000000\n");
            let low = ok(&mut client, "create_vm", more).await;
            assert_eq!(low["powers"], json!(["see", "exec", "root", "files"]));
            assert_eq!(tags(machine, "ai-more").await, ["ai-exec", "ai-managed"]);
            write("[sandbox]\nsurprise = true\n");
            assert!(error(&mut client, "list_vms", json!({})).await.contains("refused"));
        });
    }

    #[test]
    fn a_command_runs_in_a_disposable_of_which_nothing_is_left() {
        on_sandbox(population(), SCOPE, true, async |machine| {
            let mut client = machine.client().await;
            let before = names(machine).await;
            let run =
                json!({"template": "ai-dvm", "command": "hostname; cat; exit 3", "stdin": "in"});
            let ran = ok(&mut client, "run_in_disposable", run).await;
            assert_eq!(ran["exit_code"], 3);
            assert!(ran["stdout"].as_str().unwrap().starts_with("disp"), "{ran}");
            assert!(ran["stdout"].as_str().unwrap().ends_with("\nin"), "{ran}");
            let run = json!({"template": "ai-dvm", "argv": ["id", "-u"]});
            assert_eq!(ok(&mut client, "run_in_disposable_root", run).await["stdout"], "0\n");
            let run = json!({"template": "ai-dvm", "command": "sleep 98765", "timeout_seconds": 1});
            assert_eq!(ok(&mut client, "run_in_disposable", run).await["timed_out"], true);
            let run = json!({"template": "ai-off", "command": "id"});
            assert!(error(&mut client, "run_in_disposable", run).await.contains("DispVMTemplate"));
            assert_eq!(names(machine).await, before);
            let made = ok(&mut client, "create_disposable", json!({"template": "ai-dvm"})).await;
            let name = made["name"].as_str().unwrap().to_owned();
            let run = json!({"vm_name": name, "command": "hostname"});
            assert_eq!(ok(&mut client, "exec_in_vm", run).await["stdout"], format!("{name}\n"));
            let budget = ok(&mut client, "disk_budget", json!({})).await;
            let shares = budget["vms"].as_array().unwrap();
            let share = shares.iter().find(|share| share["name"] == name.as_str()).unwrap();
            assert_eq!(share["bytes"], 2_u64 << 30);
            ok(&mut client, "kill_vm", json!({"vm_name": name})).await;
            assert_eq!(names(machine).await, before);
        });
    }

    #[test]
    fn an_agent_that_dies_leaves_no_disposable() {
        on_sandbox(population(), SCOPE, true, async |machine| {
            let before = names(machine).await.len();
            let mut call = machine.qrexec("dom0", "saltbridge.DisposableRun+");
            let mut stdin = call.stdin.take().unwrap();
            let request =
                b"{\"frames\":1,\"args\":{\"template\":\"ai-dvm\",\"command\":\"sleep 98765\"}}\n";
            tokio::io::AsyncWriteExt::write_all(&mut stdin, request).await.unwrap();
            while names(machine).await.len() == before {
                tokio::task::yield_now().await;
            }
            call.kill().await.unwrap();
            drop(stdin);
            while names(machine).await.len() != before {
                tokio::task::yield_now().await;
            }
            until("the ledger is empty", || {
                let births = machine.host.root().join("var/lib/salt-bridge/ledger/births");
                std::fs::read_dir(births).is_ok_and(|files| files.count() == 0)
            });
        });
    }

    #[test]
    fn connections_of_a_qube_that_is_gone_are_not_those_of_the_next_one_of_its_name() {
        on_sandbox(population(), SCOPE, true, async |machine| {
            let mut client = machine.client().await;
            let make = json!({"name": "ai-one", "template": "ai-debian"});
            let one = json!({"vm_name": "ai-one"});
            let connect =
                json!({"action": "add", "source": "ai-one", "target": "ai-full", "port": 8080});
            let rules = || machine.dom0("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
            ok(&mut client, "create_vm", make.clone()).await;
            ok(&mut client, "connect_tcp_policy", connect.clone()).await;
            assert!(rules().contains("ai-one"), "{}", rules());
            ok(&mut client, "remove_vm", one).await;
            assert!(!rules().contains("ai-one"), "{}", rules());
            // The operator removes one, of which the daemon hears nothing.
            ok(&mut client, "create_vm", make.clone()).await;
            ok(&mut client, "connect_tcp_policy", connect).await;
            let gone = call::vm::remove(Destination::parse("ai-one").unwrap());
            qubesd(machine).call(gone, Duration::from_secs(5)).await.unwrap();
            assert!(rules().contains("ai-one"), "{}", rules());
            ok(&mut client, "create_vm", make).await;
            assert!(!rules().contains("ai-one"), "{}", rules());
        });
    }
}
