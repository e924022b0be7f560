//! Attacks on the daemon: by the agent, by a managed qube, and by a second agent.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use crate::support::{Answer, Dom0, SCOPE, on_one_thread, write_mode};
use contract::{Fault, limits};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const REFUSED: Answer = Answer::Fault(Fault::Refused {});
const TCP: &str = "saltbridge.ConnectTcpPolicy+ salt-bridge name dom0";
const WRITE: &str = "saltbridge.VmWriteFile+work salt-bridge name dom0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_without_one_whole_character_does_not_pass_the_limit() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let command = "head -c 3000000 /dev/zero | tr '\\0' '\\200'";
            let answer = dom0.call("VmExec", "work", json!({"command": command})).await;
            let Answer::Result(result, stdout, _) = answer else { panic!("{answer:?}") };
            assert_eq!(result["stdout_bytes"].as_u64(), Some(3_000_000));
            assert!(stdout.len() < 40_000, "{}", stdout.len());
        });
    }

    #[test]
    fn a_qube_that_lies_about_its_network_does_not_fill_dom0() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let tools = dom0.at("tools");
            fs::create_dir(&tools).unwrap();
            let lie = "#!/bin/bash\nprintf 'table ip %065536d {\\n' 0\n\
                       for _ in {1..8000}; do echo 'chain b'; done\n";
            write_mode(&tools.join("nft"), lie, 0o755);
            let client = format!(
                "#!/bin/bash\nexec env -i PATH=\"{}:$PATH\" HOME=/ bash\n",
                tools.display()
            );
            write_mode(&dom0.at("usr/bin/qrexec-client"), &client, 0o755);
            let answer = dom0.call("VmNetworkInfo", "work", json!({})).await;
            let Answer::Result(result, ..) = answer else { panic!("{answer:?}") };
            let length = result.to_string().len();
            assert!(length < limits::RESULT_BYTES, "{length}");
            assert!(result["firewall"].as_array().is_some_and(|chains| chains.len() >= 1000));
        });
    }

    #[test]
    fn a_caller_that_sends_slowly_keeps_no_authority_that_has_ended_meanwhile() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let list = "saltbridge.FirewallList+work salt-bridge name dom0";
            let mut stream = dom0.connect(list, b"").await;
            while dom0.qubesd.calls.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            dom0.write_scope("@agent salt-bridge\ndev\n");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "ERROR: request refused\n");
        });
    }

    #[test]
    fn one_agent_cannot_take_the_place_of_another_and_hears_that_dom0_is_busy() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let mut held = Vec::new();
            for _ in 0..limits::CALLS_PER_AGENT {
                held.push(dom0.connect(WRITE, b"{\"frames\":1,\"body\":9}\n").await);
            }
            let busy = dom0.call("VmList", "", json!({})).await;
            assert_eq!(busy, Answer::Fault(Fault::Busy {}));
            for _ in 0..limits::CONNECTIONS {
                held.push(dom0.connect(WRITE, b"").await);
            }
            let list = "saltbridge.VmList+ helper name dom0";
            assert!(matches!(dom0.framed(list, json!({}), b"").await, Answer::Result(..)));
        });
    }

    #[test]
    fn long_requests_of_one_agent_wait_for_one_another() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let body = vec![b'x'; 1 << 20];
            let write = |name: usize| {
                let (dom0, body) = (&dom0, &body);
                async move {
                    let args = json!({"file_path": format!("f{name}")});
                    dom0.framed(WRITE, args, body).await
                }
            };
            let answers = futures_util::future::join_all((0..48).map(write)).await;
            assert!(answers.iter().all(|answer| matches!(answer, Answer::Result(..))));
        });
    }

    #[test]
    fn a_foreign_qube_and_a_missing_one_take_the_same_questions() {
        on_one_thread(async {
            let dom0 = Dom0::start("@agent salt-bridge\nwork\n@tag:ai-managed net\n");
            let mut asked = Vec::new();
            for target in ["vault", "nosuch"] {
                for (source, target) in [(target, "work"), ("work", target)] {
                    dom0.qubesd.calls.borrow_mut().clear();
                    let args =
                        json!({"action": "add", "source": source, "target": target, "port": 22});
                    assert_eq!(dom0.framed(TCP, args, b"").await, REFUSED, "{source} {target}");
                    let methods: Vec<String> = (dom0.qubesd.calls.borrow().iter())
                        .map(|call| call.split(' ').next().unwrap_or_default().to_owned())
                        .collect();
                    asked.push(methods);
                }
            }
            assert_eq!((&asked[0], &asked[1]), (&asked[2], &asked[3]));
        });
    }

    #[test]
    fn a_fault_that_quotes_what_was_sent_still_fits_its_frame() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let args = format!("a b c {}", "\\".repeat(30_000));
            let answer =
                dom0.call("FirewallAdd", "work", json!({"action": "drop", "args": args})).await;
            assert!(matches!(answer, Answer::Fault(Fault::BadRequest { .. })), "{answer:?}");
        });
    }

    #[test]
    fn many_small_changes_do_not_take_the_operators_own_rules_out_of_reach() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            dom0.qubesd.rules.replace("action=accept comment=mine\naction=drop\n".into());
            for _ in 0..60 {
                let args = json!({"action": "drop", "args": "10.0.0.1", "position": 0});
                dom0.call("FirewallAdd", "work", args).await;
                dom0.call("FirewallRemove", "work", json!({"rule_number": 0})).await;
            }
            let kept = fs::read_dir(dom0.at("var/lib/salt-bridge/firewall/work")).unwrap();
            let mut kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
            kept.sort();
            assert_eq!(kept.len(), 100);
            assert!(!fs::read_to_string(&kept[0]).unwrap().contains("10.0.0.1"));
            assert!(
                fs::metadata(&kept[0]).unwrap().modified().unwrap()
                    <= fs::metadata(&kept[1]).unwrap().modified().unwrap()
            );
        });
    }

    #[test]
    fn an_agent_cannot_fill_the_policy_that_every_call_reads() {
        on_one_thread(async {
            let dom0 = Dom0::start("@agent salt-bridge\nwork net\ndev net\n");
            let rules: String = (1..=limits::TCP_RULES_PER_AGENT)
                .map(|port| format!("qubes.ConnectTCP +{port}  work  dev  allow\n"))
                .collect();
            let path = dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
            let all_but_one = rules.split_once('\n').unwrap().1;
            write_mode(&path, all_but_one, 0o644);
            let _helper = dom0.start_helper();
            let add = |port| {
                let args =
                    json!({"action": "add", "source": "work", "target": "dev", "port": port});
                dom0.framed(TCP, args, b"")
            };
            // Both find room for one more, and only one of them gets it.
            let (one, other) = tokio::join!(add(6000), add(6001));
            let full = |answer: &Answer| matches!(answer, Answer::Fault(Fault::TooLarge { .. }));
            assert!(full(&one) != full(&other), "{one:?} {other:?}");
            let there = fs::read_to_string(&path).unwrap();
            assert_eq!(there.matches(" allow\n").count(), limits::TCP_RULES_PER_AGENT);
        });
    }

    #[test]
    fn a_rule_is_withdrawn_when_its_qube_loses_the_tag_or_is_gone() {
        for event in ["domain-tag-delete:ai-managed", "domain-delete"] {
            on_one_thread(async {
                let rule = "qubes.ConnectTCP +22  work  ai-one  allow\n";
                let dom0 = Dom0::start("@agent salt-bridge\nwork net\n@tag:ai-managed net\n");
                let path = dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
                let there = || fs::read_to_string(&path).unwrap().contains(rule);
                // Whether the daemon looks at tags after it has begun to listen.
                let watches = || {
                    let calls = dom0.qubesd.calls.borrow();
                    let last = |method| calls.iter().rposition(|call| call.starts_with(method));
                    last("admin.Events").is_some_and(|at| last("admin.vm.tag.List") > Some(at))
                };
                dom0.qubesd.keeps_listeners.set(true);
                let _helper = dom0.start_helper();
                let args =
                    json!({"action": "add", "source": "work", "target": "ai-one", "port": 22});
                let answer = dom0.framed(TCP, args, b"").await;
                assert!(matches!(answer, Answer::Result(..)) && there(), "{answer:?}");
                while !watches() {
                    tokio::task::yield_now().await;
                }
                dom0.qubesd.untagged.set("ai-one");
                dom0.qubesd.tell(event, "ai-one").await;
                while there() {
                    tokio::task::yield_now().await;
                }
            });
        }
    }

    #[test]
    fn a_rule_that_waited_for_the_lock_does_not_come_behind_a_pause() {
        on_one_thread(async {
            let dom0 = std::rc::Rc::new(Dom0::start("@agent salt-bridge\nwork net\ndev net\n"));
            let helper = dom0.start_helper();
            let policy = fs::File::open(dom0.at("etc/qubes/policy.d")).unwrap();
            rustix::fs::flock(&policy, rustix::fs::FlockOperation::LockExclusive).unwrap();
            let calling = std::rc::Rc::clone(&dom0);
            let call = tokio::task::spawn_local(async move {
                let args = json!({"action": "add", "source": "work", "target": "dev", "port": 22});
                calling.framed(TCP, args, b"").await
            });
            let waits = format!(" {} ", helper.id().unwrap());
            let is_waiting = |line: &str| line.contains("-> FLOCK") && line.contains(&waits);
            while !fs::read_to_string("/proc/locks").unwrap().lines().any(is_waiting) {
                tokio::task::yield_now().await;
            }
            fs::create_dir_all(dom0.at("etc/salt-bridge")).unwrap();
            write_mode(&dom0.at("etc/salt-bridge/paused"), "{}", 0o644);
            drop(policy);
            assert!(matches!(call.await.unwrap(), Answer::Fault(_)));
            // The helper does one thing after the other, so that it has ended with the rule.
            #[expect(clippy::disallowed_methods, reason = "the helper's socket")]
            let connection =
                tokio::net::UnixStream::connect(dom0.at("run/salt-bridge/tcp-policy.sock")).await;
            let mut connection = connection.unwrap();
            connection.write_all(b"\"prune\"\n").await.unwrap();
            let mut said = String::new();
            connection.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "{\"changed\":false}");
            assert!(!dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy").exists());
        });
    }

    #[test]
    fn a_rule_that_lost_its_grant_while_no_daemon_ran_is_withdrawn_when_one_starts() {
        on_one_thread(async {
            let dom0 = Dom0::start("@agent salt-bridge\nwork net\n@tag:ai-managed net\n");
            dom0.qubesd.untagged.set("ai-one");
            let path = dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
            write_mode(&path, "qubes.ConnectTCP +22  work  ai-one  allow\n", 0o644);
            // The daemon of this dom0 begins when this waits for the first time.
            let _helper = dom0.start_helper();
            while fs::read_to_string(&path).unwrap().contains("allow") {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_question_that_the_operator_wants_to_be_asked_is_not_taken_away() {
        on_one_thread(async {
            let dom0 = Dom0::start("@agent salt-bridge\nwork net\ndev net\n");
            for (file, action) in [("30-user", "ask"), ("30-user", "deny"), ("90-mine", "deny")] {
                let path = dom0.at(&format!("etc/qubes/policy.d/{file}.policy"));
                write_mode(&path, &format!("qubes.ConnectTCP * work @anyvm {action}\n"), 0o644);
                let args = json!({"action": "add", "source": "work", "target": "dev", "port": 22});
                let answer = dom0.framed(TCP, args, b"").await;
                let Answer::Fault(Fault::BadRequest { message }) = answer else {
                    panic!("{action}: {answer:?}");
                };
                assert!(message.contains("operator"), "{message}");
            }
        });
    }

    #[test]
    fn a_command_does_not_outlive_its_grant() {
        on_one_thread(async {
            let soon = SystemTime::now() + Duration::from_secs(2);
            let until = policy::Until::from_time(soon).unwrap();
            let dom0 = Dom0::start(&format!("@agent salt-bridge\nwork exec until={until}\n"));
            let args = json!({"command": "echo $$ > pid; sleep 1000", "timeout_seconds": 3000});
            let answer = dom0.call("VmExec", "work", args).await;
            assert_eq!(answer, Answer::Fault(Fault::Refused {}));
            let pid = fs::read_to_string(dom0.at("pid")).unwrap();
            assert!(!std::path::Path::new("/proc").join(pid.trim()).exists());
            assert!(SystemTime::now() >= until.time());
        });
    }
}
