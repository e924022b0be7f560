//! The operator's commands against a dom0 whose daemon serves calls meanwhile.

#[cfg(test)]
mod tests {
    use std::{fs, process::Output, rc::Rc};

    use contract::Fault;
    use serde_json::{Value, json};

    use crate::support::{Answer, Dom0, Mood, on_one_thread, write_mode};

    const SCOPE: &str = "\
# the operator's own words
@agent salt-bridge
work        # daily work
dev see,lifecycle,net
@agent helper
work see
";
    const RULE: &str = "qubes.ConnectTCP +22  work  dev  allow";
    const LIST: &str = "saltbridge.VmList+ salt-bridge name dom0";

    /// Runs the program on the files of this dom0.
    async fn operator(dom0: &Dom0, arguments: &[&str]) -> Output {
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        tokio::process::Command::new(env!("CARGO_BIN_EXE_saltbridged"))
            .arg("--root")
            .arg(dom0.folder.path())
            .args(arguments)
            .output()
            .await
            .unwrap()
    }

    async fn done(dom0: &Dom0, arguments: &[&str]) -> String {
        let output = operator(dom0, arguments).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn not_done(dom0: &Dom0, arguments: &[&str], code: i32) -> String {
        let output = operator(dom0, arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into()
    }

    async fn as_json(dom0: &Dom0, arguments: &[&str]) -> Value {
        serde_json::from_str(&done(dom0, arguments).await).unwrap()
    }

    fn log(dom0: &Dom0) -> Vec<Value> {
        let text = fs::read_to_string(dom0.at("var/log/salt-bridge/audit.jsonl"));
        let parse = |line: &str| serde_json::from_str(line).unwrap();
        text.unwrap_or_default().lines().map(parse).collect()
    }

    fn policy(dom0: &Dom0) -> String {
        fs::read_to_string(dom0.at("etc/qubes/policy.d/30-salt-bridge.policy")).unwrap_or_default()
    }

    fn tcp(dom0: &Dom0) -> String {
        let path = dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
        fs::read_to_string(path).unwrap_or_default()
    }

    fn scope(dom0: &Dom0) -> String {
        fs::read_to_string(dom0.at("etc/qubes/salt-bridge-allowed-vms")).unwrap()
    }

    /// Starts a command that ends only when it is killed, and waits until it is logged.
    async fn under_way(dom0: &Rc<Dom0>) -> tokio::task::JoinHandle<Answer> {
        let calling = Rc::clone(dom0);
        let call = tokio::task::spawn_local(async move {
            calling.call("VmExec", "work", json!({"command": "sleep 600"})).await
        });
        while dom0.runs() == 0 {
            tokio::task::yield_now().await;
        }
        call
    }

    #[test]
    fn every_call_is_logged_and_changing_ones_before_they_run() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let command = json!({"command": "echo secret-output"});
            assert!(matches!(dom0.call("VmExec", "work", command).await, Answer::Result(..)));
            dom0.framed(LIST, json!({}), b"").await;
            dom0.call("VmExec", "vault", json!({"command": "id"})).await;
            let write = "saltbridge.VmWriteFile+work salt-bridge name dom0";
            dom0.framed(write, json!({"file_path": "written"}), b"secret-content").await;
            let lines = log(&dom0);
            let told: Vec<_> = lines
                .iter()
                .map(|line| {
                    ["phase", "service", "qube", "outcome"]
                        .map(|key| line[key].as_str().unwrap_or_default().to_owned())
                        .join(" ")
                })
                .collect();
            assert_eq!(
                told,
                [
                    "intent VmExec work ",
                    "done VmExec work ok",
                    "done VmList  ok",
                    "done VmExec vault Refused",
                    "intent VmWriteFile work ",
                    "done VmWriteFile work ok",
                ]
            );
            assert_eq!(lines[0]["args"]["command"], "echo secret-output");
            assert_eq!(lines[4]["bytes_in"], 14);
            assert!(!format!("{lines:?}").contains("secret-content"));
            assert!(done(&dom0, &["audit", "verify"]).await.contains("lines 1 to 6"));
            let shown = done(&dom0, &["audit", "show", "--qube", "vault", "--json"]).await;
            assert_eq!(shown.lines().count(), 1);
            let shown = done(&dom0, &["audit", "show", "--since", "-1h", "--outcome", "ok"]).await;
            assert_eq!(shown.lines().count(), 4, "{shown}");
            assert_eq!(done(&dom0, &["audit", "tail", "-n", "2"]).await.lines().count(), 3);
        });
    }

    #[test]
    fn what_policy_denied_is_shown_among_the_calls() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            dom0.framed(LIST, json!({}), b"").await;
            let line = |time: &str, message: &str| {
                json!({"__REALTIME_TIMESTAMP": time, "MESSAGE": message, "_PID": "7"}).to_string()
            };
            let denied =
                |call: &str| format!("qrexec: saltbridge.{call}: denied: denied by policy x:1");
            let saved = [
                line("1000000", &denied("VmExec+vault: salt-bridge -> dom0")),
                line("2000000", "qrexec: saltbridge.VmList+: salt-bridge -> dom0: allowed to dom0"),
                "nonsense".to_owned(),
                line("32503680000000000", &denied("VmStart+: helper -> vault")),
            ];
            let path = dom0.at("saved");
            fs::write(&path, saved.join("\n") + "\n").unwrap();
            let file = format!("--policy-log={}", path.display());
            let show = async |words: &[&str]| {
                let told = done(&dom0, &[&["audit"], words, &[&file, "--json"]].concat()).await;
                let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap();
                told.lines().map(parse).collect::<Vec<_>>()
            };
            let all = show(&["show"]).await;
            let told: Vec<_> =
                all.iter().map(|line| (&line["service"], &line["outcome"])).collect();
            assert_eq!(
                told,
                [
                    (&json!("VmExec"), &json!("Denied")),
                    (&json!("VmList"), &json!("ok")),
                    (&json!("VmStart"), &json!("Denied"))
                ]
            );
            assert_eq!(
                (&all[0]["by"], &all[0]["detail"]),
                (&json!("policy"), &json!("denied by policy x:1"))
            );
            assert_eq!(show(&["show", "--outcome", "denied", "--qube", "vault"]).await.len(), 2);
            assert_eq!(show(&["show", "--agent", "helper"]).await.len(), 1);
            assert_eq!(
                show(&["show", "--since", "-1h", "--until", "2030-01-01T00:00:00Z"]).await.len(),
                1
            );
            assert_eq!(show(&["tail", "-n", "2"]).await, all[1..]);
            assert_eq!(show(&["tail", "-n", "0"]).await, Vec::<Value>::new());
            let table = done(&dom0, &["audit", "show", &file]).await;
            assert!(table.contains("Denied"), "{table}");
            // Below another root the journal is not this machine's.
            let output = operator(&dom0, &["audit", "show"]).await;
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(
                told,
                "without the calls that qrexec's policy denied: the journal is not read with --root\n"
            );
            let output = operator(&dom0, &["audit", "show", "--no-policy"]).await;
            assert!(output.status.success() && output.stderr.is_empty());
            not_done(&dom0, &["audit", "show", "--policy-log=/no/such"], 1).await;
            not_done(&dom0, &["audit", "show", "--no-policy", &file], 2).await;
        });
    }

    #[test]
    fn without_a_log_nothing_changes() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            fs::create_dir_all(dom0.at("var/log")).unwrap();
            fs::write(dom0.at("var/log/salt-bridge"), "in the way").unwrap();
            for (service, args) in [
                ("VmExec", json!({"command": "id"})),
                ("VmStart", json!({})),
                ("FirewallAdd", json!({"action": "drop", "args": "10.0.0.1"})),
            ] {
                let answer = dom0.call(service, "work", args).await;
                assert!(matches!(answer, Answer::Fault(Fault::Failed { .. })), "{answer:?}");
            }
            assert_eq!((dom0.runs(), dom0.changes()), (0, Vec::new()));
            assert!(matches!(dom0.framed(LIST, json!({}), b"").await, Answer::Result(..)));
        });
    }

    #[test]
    fn an_agent_that_knocks_does_not_fill_the_log() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            for _ in 0..200 {
                dom0.call("VmExec", "vault", json!({"command": "id"})).await;
            }
            assert!(log(&dom0).len() < 60);
            dom0.framed(LIST, json!({}), b"").await;
            let dropped: u64 =
                log(&dom0).iter().map(|line| line["dropped"].as_u64().unwrap_or_default()).sum();
            assert!(dropped > 100, "{dropped}");
            done(&dom0, &["audit", "verify"]).await;
        });
    }

    #[test]
    fn a_cut_tail_is_found() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            for _ in 0..3 {
                dom0.framed(LIST, json!({}), b"").await;
            }
            let path = dom0.at("var/log/salt-bridge/audit.jsonl");
            let text = fs::read_to_string(&path).unwrap();
            let cut: String = text.split_inclusive('\n').take(2).collect();
            fs::write(&path, cut).unwrap();
            let told = not_done(&dom0, &["audit", "verify"], 1).await;
            assert!(told.contains("lines 3 to 3 are missing"), "{told}");
        });
    }

    #[test]
    fn a_pause_stops_everything_and_a_resume_brings_it_back() {
        on_one_thread(async {
            let dom0 = Rc::new(Dom0::start(SCOPE));
            done(&dom0, &["scope", "refresh"]).await;
            let granted = policy(&dom0);
            assert!(granted.contains("saltbridge.VmExec +work salt-bridge @adminvm allow"));
            let path = dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
            write_mode(&path, &format!("{RULE}\n"), 0o644);
            let call = under_way(&dom0).await;
            let told = done(&dom0, &["pause"]).await;
            assert!(told.contains("none is under way"), "{told}");
            assert!(
                !matches!(call.await.unwrap(), Answer::Result(value, ..) if value["exit_code"] == 0)
            );
            assert!(!policy(&dom0).contains("allow") && !tcp(&dom0).contains("allow"));
            let refused = Answer::Fault(Fault::Refused {});
            assert_eq!(dom0.framed(LIST, json!({}), b"").await, refused);
            done(&dom0, &["pause"]).await;
            done(&dom0, &["resume"]).await;
            assert!(policy(&dom0) == granted && tcp(&dom0).contains(RULE));
            assert!(matches!(dom0.framed(LIST, json!({}), b"").await, Answer::Result(..)));
        });
    }

    #[test]
    fn a_resume_that_cannot_put_the_rules_back_stays_paused_and_keeps_them() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let path = dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
            write_mode(&path, &format!("{RULE}\n"), 0o644);
            done(&dom0, &["pause"]).await;
            dom0.qubesd.mood.replace(Mood::Garbage);
            let told = not_done(&dom0, &["resume"], 1).await;
            assert!(told.contains("still paused"), "{told}");
            assert!(!policy(&dom0).contains("allow") && !tcp(&dom0).contains("allow"));
            assert_eq!(dom0.framed(LIST, json!({}), b"").await, Answer::Fault(Fault::Refused {}));
            dom0.qubesd.mood.replace(Mood::Well);
            done(&dom0, &["resume"]).await;
            assert!(tcp(&dom0).contains(RULE));
        });
    }

    #[test]
    fn a_change_of_scope_while_paused_does_not_end_the_pause() {
        on_one_thread(async {
            let dom0 = Dom0::start(&SCOPE.replace("@agent helper\nwork see\n", ""));
            let path = dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
            write_mode(&path, &format!("{RULE}\n"), 0o644);
            done(&dom0, &["pause"]).await;
            done(&dom0, &["scope", "add", "quiet", "see"]).await;
            done(&dom0, &["scope", "refresh"]).await;
            assert!(!policy(&dom0).contains("allow"));
            assert!(done(&dom0, &["status", "--json"]).await.contains("\"paused_since\": \"2"));
            done(&dom0, &["resume"]).await;
            assert!(policy(&dom0).contains("saltbridge.VmList + salt-bridge @adminvm allow"));
            assert!(policy(&dom0).contains("+quiet"));
            assert!(tcp(&dom0).contains(RULE));
            assert!(matches!(dom0.framed(LIST, json!({}), b"").await, Answer::Result(..)));
        });
    }

    #[test]
    fn a_scope_that_cannot_be_read_keeps_the_pause() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            done(&dom0, &["pause"]).await;
            dom0.write_scope("nonsense\n");
            not_done(&dom0, &["resume"], 1).await;
            not_done(&dom0, &["scope", "refresh"], 1).await;
            assert!(!policy(&dom0).contains("allow"));
            dom0.write_scope(SCOPE);
            assert_eq!(dom0.framed(LIST, json!({}), b"").await, Answer::Fault(Fault::Refused {}));
        });
    }

    #[test]
    fn scope_commands_change_one_line_and_policy_with_it() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let of = ["--agent", "salt-bridge"];
            let change = async |words: &[&str]| done(&dom0, &[words, &of].concat()).await;
            change(&["scope", "add", "quiet", "see,files:ask", "--until", "+8h"]).await;
            assert!(
                policy(&dom0).contains("saltbridge.VmReadFile +quiet salt-bridge @adminvm ask")
            );
            change(&["scope", "grant", "quiet", "exec"]).await;
            change(&["scope", "until", "quiet", "never"]).await;
            change(&["scope", "revoke", "work", "root"]).await;
            assert_eq!(
                scope(&dom0),
                SCOPE
                    .replace("work        #", "work see,lifecycle,exec,files,net #")
                    .replace("net\n@agent", "net\nquiet see,exec,files:ask\n@agent")
            );
            assert!(!policy(&dom0).contains("VmExecRoot +work"));
            change(&["scope", "remove", "quiet"]).await;
            assert!(!policy(&dom0).contains("+quiet"));
            let rows = as_json(&dom0, &["scope", "show", "--json"]).await;
            assert_eq!(rows.as_array().unwrap().len(), 3);
            assert_eq!(
                rows[2],
                json!({"agent": "helper", "target": "work", "powers": "see",
                "until": null, "ended": false})
            );
            assert!(done(&dom0, &["scope", "show"]).await.trim_start().starts_with("AGENT"));
        });
    }

    #[test]
    fn every_change_of_the_scope_says_what_changed_as_json_too() {
        on_one_thread(async {
            let dom0 = Dom0::start("@agent salt-bridge\nwork see\n");
            let path = dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
            let change = async |words: &[&str]| {
                as_json(&dom0, &[&["scope"], words, &["--json"]].concat()).await
            };
            let row = |target: &str, powers: &str, until: Value| {
                json!({"agent": "salt-bridge", "target": target, "powers": powers,
                    "until": until, "ended": false})
            };
            let work = row("work", "see", Value::Null);
            assert_eq!(
                change(&["add", "dev", "see,net"]).await,
                json!({"agent": "salt-bridge", "target": "dev", "before": null,
                    "after": row("dev", "see,net", Value::Null), "policy": true, "timer": false,
                    "removed_rules": [], "stopped_jobs": [],
                    "scope": [work, row("dev", "see,net", Value::Null)]})
            );
            let granted = change(&["grant", "work", "net"]).await;
            assert_eq!(
                (&granted["before"], &granted["after"]["powers"]),
                (&work, &json!("see,net"))
            );
            let end = "2199-01-01T00:00:00Z";
            let until = change(&["until", "dev", end]).await;
            assert_eq!((&until["after"]["until"], &until["timer"]), (&json!(end), &json!(true)));
            write_mode(&path, &format!("{RULE}\n"), 0o644);
            let refreshed = change(&["refresh"]).await;
            assert_eq!(refreshed["removed_rules"], json!([]));
            assert_eq!((&refreshed["policy"], &refreshed["timer"]), (&json!(false), &json!(false)));
            assert_eq!(refreshed["scope"].as_array().unwrap().len(), 2);
            let revoked = change(&["revoke", "work", "net"]).await;
            assert_eq!(revoked["removed_rules"], json!([RULE]));
            let removed = change(&["remove", "dev"]).await;
            assert_eq!((&removed["after"], &removed["timer"]), (&Value::Null, &json!(true)));
            assert_eq!(removed["scope"], json!([work]));
        });
    }

    #[test]
    fn a_timer_follows_every_end_and_goes_with_the_last() {
        on_one_thread(async {
            let dom0 = Dom0::start("@agent salt-bridge\nwork\ndev see\n");
            let timer = dom0.at("etc/systemd/system/salt-bridge-expire.timer");
            let link = dom0.at("etc/systemd/system/timers.target.wants/salt-bridge-expire.timer");
            let lines = || {
                let text = fs::read_to_string(&timer).unwrap_or_default();
                let ends = text.lines().filter_map(|line| line.strip_prefix("OnCalendar="));
                ends.map(str::to_owned).collect::<Vec<_>>()
            };
            done(&dom0, &["scope", "refresh"]).await;
            assert!(lines().is_empty() && !timer.exists());
            done(&dom0, &["scope", "until", "work", "2199-01-01T00:00:00Z"]).await;
            done(&dom0, &["scope", "until", "dev", "2198-06-01T12:30:01+02:00"]).await;
            assert_eq!(lines(), ["2198-06-01 10:30:01 UTC", "2199-01-01 00:00:00 UTC"]);
            assert!(link.exists() || fs::read_link(&link).is_ok());
            done(&dom0, &["scope", "remove", "dev"]).await;
            assert_eq!(lines(), ["2199-01-01 00:00:00 UTC"]);
            done(&dom0, &["scope", "until", "work", "never"]).await;
            assert!(!timer.exists() && fs::read_link(&link).is_err());
            // An end that has passed needs no timer, and its lines are gone from policy.
            dom0.write_scope("@agent salt-bridge\nwork until=2001-01-01T00:00:00Z\ndev see\n");
            let told = as_json(&dom0, &["scope", "refresh", "--json"]).await;
            assert_eq!((&told["policy"], &told["scope"][0]["ended"]), (&json!(true), &json!(true)));
            assert!(!timer.exists() && !policy(&dom0).contains("+work"));
        });
    }

    #[test]
    fn a_refresh_with_nothing_to_do_writes_nothing() {
        on_one_thread(async {
            use std::os::unix::fs::MetadataExt as _;
            let dom0 = Dom0::start("@agent salt-bridge\nwork until=2199-01-01T00:00:00Z\n");
            done(&dom0, &["scope", "refresh"]).await;
            let timer = "etc/systemd/system/salt-bridge-expire.timer";
            let files = ["etc/qubes/policy.d/30-salt-bridge.policy", timer];
            let inodes = || files.map(|file| fs::metadata(dom0.at(file)).unwrap().ino());
            let before = inodes();
            assert_eq!(done(&dom0, &["scope", "refresh"]).await, "");
            assert_eq!(inodes(), before);
        });
    }

    #[test]
    fn jobs_that_cannot_be_read_are_told_unless_they_are_left_to_the_daemon() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            fs::create_dir_all(dom0.at("var/lib/salt-bridge/ledger")).unwrap();
            fs::write(dom0.at("var/lib/salt-bridge/ledger/jobs"), "no folder").unwrap();
            let told = not_done(&dom0, &["scope", "refresh"], 1).await;
            assert!(told.contains("ledger of jobs"), "{told}");
            done(&dom0, &["scope", "refresh", "--leave-jobs"]).await;
        });
    }

    #[test]
    fn what_cannot_be_granted_changes_nothing() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            for words in [
                &["scope", "add", "nosuch", "see", "--agent", "helper"][..],
                &["scope", "add", "quiet", "see"],
                &["scope", "add", "work", "--agent", "helper"],
                &["scope", "add", "helper", "--agent", "helper"],
                &["scope", "add", "quiet", "--until", "2001-01-01T00:00:00Z", "--agent", "helper"],
                &["scope", "revoke", "dev", "see", "--agent", "helper"],
                &["scope", "remove", "work", "--agent", "nobody"],
            ] {
                not_done(&dom0, words, 1).await;
            }
            for words in [
                &["scope", "add", "dom0"][..],
                &["scope", "add", "quiet", "everything"],
                &["scope", "until", "work", "soon"],
                &["scope"],
            ] {
                not_done(&dom0, words, 2).await;
            }
            assert_eq!((scope(&dom0), policy(&dom0)), (SCOPE.to_owned(), String::new()));
            done(&dom0, &["scope", "add", "nosuch", "see", "--agent", "helper", "--force"]).await;
            assert_eq!(scope(&dom0), format!("{SCOPE}nosuch see\n"));
        });
    }

    #[test]
    fn the_end_of_a_grant_removes_its_tunnels_and_ends_its_calls() {
        on_one_thread(async {
            let dom0 = Rc::new(Dom0::start(SCOPE));
            let path = dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy");
            write_mode(&path, &format!("{RULE}\n"), 0o644);
            done(&dom0, &["scope", "refresh"]).await;
            assert!(tcp(&dom0).contains(RULE));
            let told =
                done(&dom0, &["scope", "revoke", "dev", "net", "--agent", "salt-bridge"]).await;
            assert!(told.contains(&format!("removed: {RULE}")) && !tcp(&dom0).contains(RULE));
            let call = under_way(&dom0).await;
            done(&dom0, &["scope", "remove", "work", "--agent", "salt-bridge"]).await;
            assert!(
                !matches!(call.await.unwrap(), Answer::Result(value, ..) if value["exit_code"] == 0)
            );
        });
    }

    #[test]
    fn explain_names_the_line_of_every_layer() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            done(&dom0, &["scope", "refresh"]).await;
            let explain = async |words: &[&str]| {
                as_json(&dom0, &[&["explain"], words, &["--json"]].concat()).await
            };
            let exec = explain(&["salt-bridge", "VmExec", "work"]).await;
            assert_eq!(exec["allowed"], true, "{exec}");
            assert_eq!(exec["layers"][2]["decides"], "salt-bridge-allowed-vms:3");
            assert!(exec["layers"][3]["why"].as_str().unwrap().contains("Running AppVM"));
            let list = explain(&["salt-bridge", "saltbridge.VmList", "dom0"]).await;
            assert_eq!(list["allowed"], true, "{list}");
            for words in [
                ["salt-bridge", "VmExec", "vault"],
                ["salt-bridge", "VmExec", "dev"],
                ["helper", "VmExec", "work"],
                ["vault", "VmList", "dom0"],
                ["salt-bridge", "VmExec", "salt-bridge"],
            ] {
                let refused = explain(&words).await;
                assert_eq!(refused["allowed"], false, "{refused}");
                assert_eq!(refused["layers"][0]["allows"], false, "{refused}");
            }
            done(&dom0, &["pause"]).await;
            let paused = explain(&["salt-bridge", "VmExec", "work"]).await;
            assert_eq!(
                (&paused["allowed"], &paused["layers"][1]["allows"]),
                (&json!(false), &json!(false))
            );
            not_done(&dom0, &["explain", "salt-bridge", "Nothing", "work"], 1).await;
            let table = done(&dom0, &["explain", "salt-bridge", "VmExec", "work"]).await;
            assert!(table.ends_with("at dom0: REFUSED\n"), "{table}");
        });
    }

    #[test]
    fn a_firewall_comes_back_after_its_difference_was_shown() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let add = json!({"action": "drop", "args": "10.0.0.1"});
            assert!(matches!(dom0.call("FirewallAdd", "work", add).await, Answer::Result(..)));
            let history = as_json(&dom0, &["firewall", "history", "work", "--json"]).await;
            let id = history[0]["id"].as_str().unwrap();
            let told = not_done(&dom0, &["firewall", "restore", "work", id], 1).await;
            assert!(told.contains("- action=drop") && told.contains("--yes"), "{told}");
            assert!(dom0.qubesd.rules.borrow().contains("drop"));
            done(&dom0, &["firewall", "restore", "work", id, "--yes"]).await;
            assert_eq!(*dom0.qubesd.rules.borrow(), "action=accept\n");
            done(&dom0, &["firewall", "restore", "work", id, "--yes"]).await;
            not_done(&dom0, &["firewall", "restore", "work", "../work/x"], 1).await;
            assert_eq!(done(&dom0, &["firewall", "history", "work"]).await.lines().count(), 3);
        });
    }

    #[test]
    fn status_tells_everything_at_one_look() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            dom0.framed(LIST, json!({}), b"").await;
            let status = as_json(&dom0, &["status", "--json"]).await;
            assert_eq!(
                status["agents"][0],
                json!({"name": "salt-bridge", "qubes": 2, "tags": 0, "ended": 0})
            );
            assert_eq!(
                (&status["audit_lines"], &status["daemon_listens"], &status["paused_since"]),
                (&json!(1), &json!(true), &Value::Null)
            );
            assert!(done(&dom0, &["status"]).await.contains("VmList"));
            dom0.write_scope("work\n");
            let told = not_done(&dom0, &["status"], 1).await;
            assert!(told.contains("GRANTS NOTHING"), "{told}");
        });
    }
}
