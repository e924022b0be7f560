//! The daemon against a scripted qubesd: who is refused, what is refused, and how failures end.

use std::{fs, os::unix::fs as unix};

use crate::support::{Answer, Dom0, Mood, SCOPE, answer, on_one_thread, write_mode};
use contract::{Aim, Fault, Power};
use qubes_rpc::{
    service::{Entry, Service},
    services::{SERVICES, vm_exec::VmExec},
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

const REFUSED: Answer = Answer::Fault(Fault::Refused {});

/// Parameters with which every service works.
fn good(entry: &Entry) -> Value {
    match entry.name {
        "VmExec" | "VmExecRoot" | "JobStart" | "JobStartRoot" => json!({"command": "true"}),
        "JobRead" | "JobStop" => json!({"handle": "00000000000000000000000000000000"}),
        "ScopeWatch" => json!({"seconds": 1}),
        "FileSearch" => json!({"pattern": "x", "file_path": "/etc"}),
        "FileEdit" => json!({"file_path": "/etc/hostname", "old": "x", "new": "y"}),
        "FileCopy" => {
            json!({"source_vm": "work", "source_path": "/etc/hostname", "target_vm": "dev",
                "target_path": "copy"})
        }
        "VmReadFile" | "FileFetch" | "FileList" => json!({"file_path": "/etc/hostname"}),
        "VmWriteFile" => json!({"file_path": "written"}),
        "FirewallAdd" => json!({"action": "drop", "args": "10.0.0.1"}),
        "FirewallRemove" => json!({"rule_number": 0}),
        "ConnectTcpPolicy" => json!({"action": "list"}),
        "VmCreate" => json!({"name": "ai-new", "template": "work"}),
        "VmClone" => json!({"name": "ai-new", "source": "work"}),
        "DisposableCreate" => json!({"template": "work"}),
        "DisposableRun" | "DisposableRunRoot" => json!({"template": "work", "command": "true"}),
        "PropertySet" => json!({"property": "label", "value": "blue"}),
        "FeatureSet" => json!({"feature": "x-test", "value": "1"}),
        "EventWatch" => json!({"seconds": 1}),
        "NetworkDiagnose" => json!({"host": "127.0.0.1", "port": 1}),
        "DeviceList" => json!({"class": "block"}),
        "DeviceAttach" | "DeviceDetach" => {
            json!({"class": "block", "backend_vm": "work", "port": "sda"})
        }
        _ => json!({}),
    }
}

/// Makes the operator's file untrustworthy.
type Spoil<'a> = Box<dyn Fn() + 'a>;

/// How a call of this row names its qube, or nothing.
fn aimed(entry: &Entry, source: &str, qube: &str) -> String {
    let argument = match entry.aim {
        Aim::Qube => qube,
        Aim::Scope => "",
    };
    format!("saltbridge.{}+{argument} {source} name dom0", entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_authority_is_refused_with_the_same_bytes_whatever_the_reason() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            for entry in SERVICES {
                let name = entry.name;
                let mut descriptors = vec![
                    aimed(entry, "vault", "work"),
                    aimed(entry, "work", "work"),
                    format!("saltbridge.{name}+ salt-bridge name vault"),
                    format!("saltbridge.{name}+work salt-bridge name work"),
                    format!("saltbridge.{name}+work salt-bridge name ai-one"),
                    format!("saltbridge.{name}+ salt-bridge name work"),
                    format!("saltbridge.Not{name}+work salt-bridge name dom0"),
                ];
                let foreign =
                    ["vault", "nosuch", "salt-bridge", "ai-one", "dom0", "DOM0", "Domain-0"];
                let odd = ["@adminvm", "uuid:00000000-0000-0000-0000-000000000000", "a+b", "-"];
                for argument in foreign.into_iter().chain(odd) {
                    descriptors.push(format!("saltbridge.{name}+{argument} salt-bridge name dom0"));
                }
                if entry.aim == Aim::Qube {
                    descriptors.push(format!("saltbridge.{name}+ salt-bridge name dom0"));
                }
                for descriptor in descriptors {
                    assert_eq!(
                        dom0.framed(&descriptor, good(entry), b"").await,
                        REFUSED,
                        "{descriptor}"
                    );
                    assert_eq!(
                        dom0.plain(&descriptor, "{}").await,
                        "ERROR: request refused\n",
                        "{descriptor}"
                    );
                }
            }
            assert_eq!((dom0.runs(), dom0.changes()), (0, Vec::new()));
        });
    }

    #[test]
    fn a_power_that_is_not_granted_is_refused() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            for entry in SERVICES.iter().filter(|entry| entry.aim == Aim::Qube) {
                if entry.power != Power::See {
                    let quiet = aimed(entry, "salt-bridge", "quiet");
                    assert_eq!(dom0.framed(&quiet, good(entry), b"").await, REFUSED, "{quiet}");
                }
            }
            assert_eq!(dom0.call("VmExec", "dev", json!({"command": "id"})).await, REFUSED);
            assert_eq!((dom0.runs(), dom0.changes()), (0, Vec::new()));
        });
    }

    #[test]
    fn an_operators_file_that_cannot_be_trusted_refuses_everything() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let path = dom0.at("etc/qubes/salt-bridge-allowed-vms");
            let list = "saltbridge.VmList+ salt-bridge name dom0";
            assert!(matches!(dom0.framed(list, json!({}), b"").await, Answer::Result(..)));
            let aside = dom0.at("aside");
            let spoilt: [(&str, Spoil<'_>); 9] = [
                ("missing", Box::new(|| fs::remove_file(&path).unwrap())),
                ("world-writable", Box::new(|| write_mode(&path, SCOPE, 0o646))),
                ("group-writable", Box::new(|| write_mode(&path, SCOPE, 0o664))),
                ("empty", Box::new(|| write_mode(&path, "", 0o644))),
                ("without agent", Box::new(|| write_mode(&path, "work\n", 0o644))),
                (
                    "with one bad line",
                    Box::new(|| write_mode(&path, "@agent salt-bridge\nwork\n?\n", 0o644)),
                ),
                (
                    "not UTF-8",
                    Box::new(|| fs::write(&path, b"@agent salt-bridge\nwork\n#\xff\n").unwrap()),
                ),
                (
                    "a symlink",
                    Box::new(|| {
                        write_mode(&aside, SCOPE, 0o644);
                        fs::remove_file(&path).unwrap();
                        unix::symlink(&aside, &path).unwrap();
                    }),
                ),
                (
                    "a folder",
                    Box::new(|| {
                        fs::remove_file(&path).unwrap();
                        fs::create_dir(&path).unwrap();
                    }),
                ),
            ];
            for (what, spoil) in spoilt {
                spoil();
                for entry in SERVICES {
                    let descriptor = aimed(entry, "salt-bridge", "work");
                    let answer = dom0.framed(&descriptor, good(entry), b"").await;
                    assert_eq!(answer, REFUSED, "{what}: {descriptor}");
                }
            }
            assert_eq!((dom0.runs(), dom0.changes()), (0, Vec::new()));
        });
    }

    #[test]
    fn a_grant_ends_with_the_next_call_after_the_file_says_so() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            assert!(matches!(
                dom0.call("FirewallList", "work", json!({})).await,
                Answer::Result(..)
            ));
            dom0.write_scope("@agent salt-bridge\nwork see until=2020-01-01T00:00:00Z\n");
            assert_eq!(dom0.call("FirewallList", "work", json!({})).await, REFUSED);
        });
    }

    #[test]
    fn a_tagged_qube_is_reached_by_target_and_only_with_the_tags_powers() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let exec = "saltbridge.VmExec+ salt-bridge name ai-one";
            let ran = dom0.framed(exec, json!({"command": "echo hi"}), b"").await;
            assert!(matches!(ran, Answer::Result(_, stdout, _) if stdout == b"hi\n"));
            let root = "saltbridge.VmExecRoot+ salt-bridge name ai-one";
            assert_eq!(dom0.framed(root, json!({"command": "id"}), b"").await, REFUSED);
        });
    }

    #[test]
    fn unknown_parameters_and_wrong_types_are_refused_and_change_nothing() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            for entry in SERVICES {
                let mut args = good(entry);
                args["nonsense"] = json!(1);
                let answer = dom0.framed(&aimed(entry, "salt-bridge", "work"), args, b"").await;
                let Answer::Fault(Fault::BadRequest { message }) = answer else {
                    panic!("{}: {answer:?}", entry.name);
                };
                assert!(message.contains("nonsense"), "{message}");
            }
            for (service, args) in [
                ("VmExec", json!({})),
                ("VmExec", json!({"command": 1})),
                ("VmExec", json!({"command": " "})),
                ("VmExec", json!({"command": "id", "timeout_seconds": 0})),
                ("VmExec", json!({"command": "id", "timeout_seconds": 3601})),
                ("VmExec", json!({"command": "id", "timeout_seconds": -1})),
                ("VmExec", json!({"command": "id", "max_output": 2_097_153})),
                ("VmReadFile", json!({})),
                ("VmReadFile", json!({"file_path": "/x", "length": 0})),
                ("VmReadFile", json!({"file_path": "/x", "length": 2_097_153})),
                ("VmReadFile", json!({"file_path": "/x", "offset": -1})),
                ("VmReadFile", json!({"file_path": "/x\u{0}y"})),
                ("VmReadFile", json!({"file_path": "/x", "file_path_base64": "L3g="})),
                ("VmWriteFile", json!({"file_path": "/x", "mode": "9"})),
                ("VmWriteFile", json!({"file_path": "/x", "if_sha256": "12"})),
                ("VmShutdown", json!({"timeout_seconds": 601})),
                ("FirewallAdd", json!({"action": "reject"})),
                ("FirewallAdd", json!({"action": "drop", "position": 2})),
                ("FirewallAdd", json!({"action": "drop", "args": "proto=tcp dstports=65536"})),
                ("FirewallAdd", json!({"action": "drop", "args": "proto=tcp dstports=0"})),
                ("FirewallRemove", json!({"rule_number": 1})),
                ("FirewallRemove", json!({"rule_number": -1})),
                ("FirewallRemove", json!({"rule_number": 0, "expect": "action=drop"})),
            ] {
                let answer = dom0.call(service, "work", args.clone()).await;
                let bad = matches!(answer, Answer::Fault(Fault::BadRequest { .. }));
                assert!(bad, "{service} {args}: {answer:?}");
            }
            let tcp = "saltbridge.ConnectTcpPolicy+ salt-bridge name dom0";
            for port in [0, 65_536] {
                let args =
                    json!({"action": "add", "source": "work", "target": "dev", "port": port});
                let answer = dom0.framed(tcp, args, b"").await;
                assert!(matches!(answer, Answer::Fault(Fault::BadRequest { .. })), "{answer:?}");
            }
            assert_eq!((dom0.runs(), dom0.changes()), (0, Vec::new()));
        });
    }

    #[test]
    fn oversize_and_truncated_requests_are_refused_and_change_nothing() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let exec = "saltbridge.VmExec+work salt-bridge name dom0";
            let long =
                format!("{{\"frames\":1,\"args\":{{\"command\":\"{}\"}}}}\n", "x".repeat(65_536));
            let stream = dom0.connect(exec, long.as_bytes()).await;
            assert!(matches!(answer(stream).await, Answer::Fault(Fault::TooLarge { .. })));
            let bad_utf8 = b"{\"frames\":1,\"args\":{\"command\":\"\xff\"}}\n";
            let stream = dom0.connect(exec, bad_utf8).await;
            assert!(matches!(answer(stream).await, Answer::Fault(Fault::BadRequest { .. })));
            let write = "saltbridge.VmWriteFile+work salt-bridge name dom0";
            let cut = b"{\"frames\":1,\"body\":9,\"args\":{\"file_path\":\"cut\"}}\nabc";
            let mut stream = dom0.connect(write, cut).await;
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
            assert!(matches!(answer(stream).await, Answer::Fault(Fault::BadRequest { .. })));
            assert!(!dom0.at("cut").exists());
            assert_eq!(dom0.runs(), 0);
        });
    }

    #[test]
    fn a_broken_qubesd_is_told_as_broken_and_its_words_stay_in_dom0() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            for mood in [
                Mood::Garbage,
                Mood::Exception("QubesNoSuchPropertyError"),
                Mood::Exception("SomethingNew"),
                Mood::Silent,
            ] {
                *dom0.qubesd.mood.borrow_mut() = mood.clone();
                for entry in SERVICES.iter().filter(|entry| entry.aim == Aim::Qube) {
                    let answer =
                        dom0.framed(&aimed(entry, "salt-bridge", "work"), good(entry), b"").await;
                    let Answer::Fault(fault) = &answer else { panic!("{mood:?}: {answer:?}") };
                    assert!(!fault.to_json().contains("vault"), "{fault:?}");
                    // To the first question a refusal by qubesd means that there is no such qube.
                    let failed = matches!(fault, Fault::Failed { .. } | Fault::Refused {});
                    assert!(failed, "{}: {fault:?}", entry.name);
                }
            }
            fs::remove_file(dom0.at("var/run/qubesd.sock")).unwrap();
            for entry in SERVICES.iter().filter(|entry| entry.aim == Aim::Qube) {
                let answer =
                    dom0.framed(&aimed(entry, "salt-bridge", "work"), good(entry), b"").await;
                assert!(matches!(answer, Answer::Fault(Fault::Failed { .. })), "{answer:?}");
            }
            assert_eq!(dom0.runs(), 0);
        });
    }

    #[test]
    fn a_command_returns_its_code_and_both_streams_byte_for_byte() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let command = "printf 'a\\0\\377'; printf e >&2; exit 3";
            let Answer::Result(result, stdout, stderr) =
                dom0.call("VmExec", "work", json!({"command": command})).await
            else {
                panic!("no result");
            };
            assert_eq!(
                (result["exit_code"].as_i64(), result["timed_out"].as_bool()),
                (Some(3), Some(false))
            );
            assert_eq!((stdout, stderr), (b"a\0\xff".to_vec(), b"e".to_vec()));
            let uuid = "uuid:00000000-0000-4000-8000-000000000002";
            assert!(fs::read_to_string(dom0.at("calls")).unwrap().contains(&format!("-d {uuid} ")));
        });
    }

    #[test]
    fn long_output_keeps_its_ends_and_says_how_much_is_missing() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let args = json!({"command": "seq 1 100000", "max_output": 100});
            let Answer::Result(result, stdout, _) = dom0.call("VmExec", "work", args).await else {
                panic!("no result");
            };
            let text = String::from_utf8(stdout).unwrap();
            assert!(text.starts_with("1\n2\n3\n") && text.ends_with("\n99999\n100000\n"), "{text}");
            assert!(text.contains("588795 bytes left out"), "{text}");
            assert_eq!(result["stdout_bytes"].as_u64(), Some(588_895));
            assert_eq!(result["truncated"].as_bool(), Some(true));
        });
    }

    #[test]
    fn a_command_past_its_time_is_dead_and_its_output_so_far_is_returned() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let command = "echo $$ > pid; echo early; sleep 1000";
            let args = json!({"command": command, "timeout_seconds": 1});
            let Answer::Result(result, stdout, _) = dom0.call("VmExec", "work", args).await else {
                panic!("no result");
            };
            assert_eq!(
                (result["exit_code"].as_i64(), result["timed_out"].as_bool()),
                (None, Some(true))
            );
            assert_eq!(stdout, b"early\n");
            let pid = fs::read_to_string(dom0.at("pid")).unwrap();
            assert!(!std::path::Path::new("/proc").join(pid.trim()).exists());
        });
    }

    #[test]
    fn a_caller_that_hangs_up_takes_its_command_with_it() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let exec = "saltbridge.VmExec+work salt-bridge name dom0";
            for request in [
                "{\"frames\":1,\"args\":{\"command\":\"echo $$; sleep 1000\"}}\n",
                "{\"cmd\":\"echo $$; sleep 1000\"}\n",
            ] {
                let mut stream = dom0.connect(exec, request.as_bytes()).await;
                let mut pid = String::new();
                while !pid.ends_with('\n') {
                    let byte = stream.read_u8().await.unwrap();
                    pid.extend(byte.is_ascii_digit().then_some(char::from(byte)));
                    pid.extend((byte == b'\n').then_some('\n'));
                }
                let pid = pid.trim_start_matches(|c: char| !c.is_ascii_digit()).trim().to_owned();
                drop(stream);
                let process = std::path::Path::new("/proc").join(&pid);
                while process.exists() {
                    tokio::task::yield_now().await;
                }
            }
        });
    }

    #[test]
    fn a_halted_qube_is_started_only_by_who_may_start_it() {
        on_one_thread(async {
            let dom0 = Dom0::start("@agent salt-bridge\ndev see,exec\n");
            let args = json!({"command": "true"});
            assert_eq!(
                dom0.call("VmExec", "dev", args.clone()).await,
                Answer::Fault(Fault::NotRunning { state: "Halted".into() })
            );
            assert_eq!(dom0.changes(), Vec::<String>::new());
            dom0.write_scope("@agent salt-bridge\ndev see,exec,lifecycle\n");
            assert!(matches!(dom0.call("VmExec", "dev", args).await, Answer::Result(..)));
            assert!(dom0.changes()[0].starts_with("admin.vm.Start+"));
        });
    }

    #[test]
    fn start_and_shutdown_say_whether_they_changed_anything() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            for (service, state, changed) in [
                ("VmStart", "Running", true),
                ("VmStart", "Running", false),
                ("VmShutdown", "Halted", true),
                ("VmShutdown", "Halted", false),
            ] {
                let expected = json!({"state": state, "changed": changed});
                let answer = dom0.call(service, "dev", json!({})).await;
                assert_eq!(answer, Answer::Result(expected, Vec::new(), Vec::new()), "{service}");
            }
        });
    }

    #[test]
    fn a_new_rule_goes_before_the_one_that_would_make_it_void() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let add = |args: Value| dom0.call("FirewallAdd", "work", args);
            let Answer::Result(first, ..) =
                add(json!({"action": "drop", "args": "10.0.0.1"})).await
            else {
                panic!("no result");
            };
            assert_eq!((first["number"].as_u64(), first["shadowed_by"].as_u64()), (Some(0), None));
            let last = json!({"action": "drop", "args": "10.0.0.2", "position": 2});
            let Answer::Result(last, ..) = add(last).await else { panic!("no result") };
            assert_eq!((last["number"].as_u64(), last["shadowed_by"].as_u64()), (Some(2), Some(1)));
            let kept = fs::read_dir(dom0.at("var/lib/salt-bridge/firewall/work")).unwrap().count();
            assert_eq!(kept, 2);
            let removed = json!({"rule_number": 2, "expect": "action=drop dsthost=10.0.0.2"});
            let Answer::Result(removed, ..) = dom0.call("FirewallRemove", "work", removed).await
            else {
                panic!("no result");
            };
            assert_eq!(removed["rules"].as_array().unwrap().len(), 2);
        });
    }

    #[test]
    fn what_qubesd_stored_is_held_against_what_was_asked() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            dom0.qubesd.forgets.set(true);
            let answer = dom0.call("FirewallAdd", "work", json!({"action": "drop"})).await;
            let Answer::Fault(Fault::Failed { message, .. }) = answer else {
                panic!("{answer:?}");
            };
            assert!(message.contains("not as asked"), "{message}");
        });
    }

    #[test]
    fn the_list_shows_what_is_in_scope_and_asks_about_nothing_else() {
        on_one_thread(async {
            let dom0 = Dom0::start("@agent salt-bridge\nwork\nquiet see\n");
            let list = "saltbridge.VmList+ salt-bridge name dom0";
            let Answer::Result(result, ..) = dom0.framed(list, json!({}), b"").await else {
                panic!("no result");
            };
            let names: Vec<_> =
                result["vms"].as_array().unwrap().iter().map(|vm| vm["name"].clone()).collect();
            assert_eq!(names, ["quiet", "work"]);
            let calls = dom0.qubesd.calls.borrow().clone();
            let others = ["vault", "dev", "ai-one", " dom0", "000000000005"];
            assert!(!calls.iter().any(|call| others.iter().any(|o| call.contains(o))), "{calls:?}");
            dom0.write_scope(SCOPE);
            let Answer::Result(result, ..) = dom0.framed(list, json!({}), b"").await else {
                panic!("no result");
            };
            let text = result.to_string();
            assert!(text.contains("ai-one") && !text.contains("vault"), "{text}");
        });
    }

    #[test]
    fn the_older_program_is_answered_in_its_own_form() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let at = |service: &str| format!("saltbridge.{service}+work salt-bridge name dom0");
            let list = dom0.plain("saltbridge.VmList+ salt-bridge name dom0", "").await;
            assert!(list.contains("work|Running|AppVM|sys-firewall|10.137.0.6|blue\n"), "{list}");
            let exec = dom0.plain(&at("VmExec"), "{\"cmd\": \"echo a; echo b >&2; exit 3\"}").await;
            assert!(exec.contains("a\n") && exec.contains("b\n"), "{exec}");
            assert!(exec.ends_with("\nEXIT CODE: 3"), "{exec}");
            let write = "{\"path\": \"n.txt\", \"content\": \"x\\n\\n\"}";
            assert_eq!(
                dom0.plain(&at("VmWriteFile"), write).await,
                "OK: Written to n.txt in work\n"
            );
            assert_eq!(fs::read(dom0.at("n.txt")).unwrap(), b"x\n\n");
            assert_eq!(dom0.plain(&at("VmReadFile"), "{\"path\": \"n.txt\"}").await, "x\n\n");
            let missing = dom0.plain(&at("VmReadFile"), "{\"path\": \"/no/such\"}").await;
            assert!(missing.starts_with("ERROR: ") && missing.ends_with('\n'), "{missing}");
            assert_eq!(dom0.plain(&at("VmStart"), "").await, "");
            let add =
                "{\"action\": \"accept\", \"args\": \"dsthost=10.0.0.1 proto=tcp dstports=443\"}";
            assert_eq!(dom0.plain(&at("FirewallAdd"), add).await, "");
            let table = dom0.plain(&at("FirewallList"), "").await;
            assert!(table.contains("0   accept  10.0.0.1/32  tcp       443      -"), "{table}");
            assert_eq!(dom0.plain(&at("FirewallRemove"), "{\"rule_number\": 0}").await, "");
            for bad in ["not json\n", "{\"x\": 1}", "", "[]"] {
                let told = dom0.plain(&at("VmExec"), bad).await;
                assert!(
                    told.starts_with("ERROR: bad request: ") && told.lines().count() == 1,
                    "{told}"
                );
            }
        });
    }

    #[test]
    fn a_service_without_required_fields_answers_after_silence() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let list = "saltbridge.VmList+ salt-bridge name dom0";
            let mut stream = dom0.connect(list, b"").await;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.contains("work|Running|"), "{text}");
        });
    }

    #[test]
    fn no_running_program_fails_as_such_and_leaves_the_daemon_well() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let client = dom0.at("usr/bin/qrexec-client");
            for code in [125, 126, 127, 1] {
                write_mode(&client, &format!("#!/bin/sh\nexit {code}\n"), 0o755);
                for entry in SERVICES.iter().filter(|entry| entry.running) {
                    let work = aimed(entry, "salt-bridge", "work");
                    let answer = dom0.framed(&work, good(entry), b"").await;
                    assert!(
                        matches!(answer, Answer::Fault(Fault::Failed { .. })),
                        "{code}: {answer:?}"
                    );
                }
            }
            fs::remove_file(&client).unwrap();
            let args = json!({"command": "id"});
            let Answer::Fault(Fault::Failed { message, call }) =
                dom0.call(VmExec::NAME, "work", args).await
            else {
                panic!("no fault");
            };
            assert!(message.contains("qrexec-client") && call.contains('-'), "{message} {call}");
            assert!(matches!(
                dom0.call("FirewallList", "work", json!({})).await,
                Answer::Result(..)
            ));
        });
    }
}
