//! `saltbridged doctor` on a dom0 in a folder: a healthy one, and one damage after another.

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
        path::Path,
        time::SystemTime,
    };

    use policy::Scope;
    use qubes_rpc::services;
    use serde_json::Value;

    use crate::support::{Dom0, Mood, on_one_thread, write_mode};

    const SCOPE: &str = "\
@agent salt-bridge
work
dev see,lifecycle
quiet see,files:ask
@tag:ai-managed see,exec
@agent vault
work see
";
    const POLICY: &str = "etc/qubes/policy.d/30-salt-bridge.policy";

    /// A dom0 on which everything is as it should be.
    fn healthy() -> Dom0 {
        let dom0 = Dom0::start(SCOPE);
        for folder in ["etc/qubes-rpc", "var/lib/salt-bridge", "usr/local/bin"] {
            fs::create_dir_all(dom0.at(folder)).unwrap();
        }
        let passwd = "root:x:0:0::/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n\
                      salt-bridge:x:990:985::/:/usr/sbin/nologin\n";
        write_mode(&dom0.at("etc/passwd"), passwd, 0o644);
        write_mode(&dom0.at("etc/group"), "root:x:0:\nqubes:x:98:user\n", 0o644);
        write_mode(&dom0.at("usr/bin/saltbridged"), "", 0o755);
        for name in services::names() {
            symlink("/run/salt-bridge/qrexec.sock", dom0.at("etc/qubes-rpc").join(name)).unwrap();
        }
        drop(UnixListener::bind(dom0.at("run/salt-bridge/tcp-policy.sock")).unwrap());
        for (socket, mode) in [("qrexec", 0o660), ("tcp-policy", 0o600)] {
            chmod(&dom0, &format!("run/salt-bridge/{socket}.sock"), mode);
        }
        let stock = "admin.vm.List * @anyvm @anyvm deny\n!include include/empty\n";
        fs::create_dir(dom0.at("etc/qubes/policy.d/include")).unwrap();
        write_mode(&dom0.at("etc/qubes/policy.d/include/empty"), "", 0o664);
        write_mode(&dom0.at("etc/qubes/policy.d/90-default.policy"), stock, 0o664);
        write_policy(&dom0);
        units(&dom0);
        dom0
    }

    /// The units, where a package puts them.
    fn units(dom0: &Dom0) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
        let (to, links) = ("usr/lib/systemd/system", "etc/systemd/system");
        fs::create_dir_all(dom0.at(to)).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            write_mode(&dom0.at(to).join(name), &text, 0o644);
            if let Some((_, target)) = text.trim_end().rsplit_once("WantedBy=") {
                let folder = dom0.at(links).join(format!("{target}.wants"));
                fs::create_dir_all(&folder).unwrap();
                symlink(format!("/{to}/{name}"), folder.join(name)).unwrap();
            }
        }
    }

    fn write_policy(dom0: &Dom0) {
        let scope = Scope::parse(SCOPE).unwrap();
        let text = policy::render_policy(&scope, &services::lines(), SystemTime::now());
        write_mode(&dom0.at(POLICY), &text, 0o664);
    }

    fn chmod(dom0: &Dom0, path: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(dom0.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The exit code and what is printed.
    async fn doctor(dom0: &Dom0, arguments: &[&str]) -> (i32, String) {
        #[expect(clippy::disallowed_methods, reason = "the operator's program itself")]
        let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_saltbridged"));
        let root = dom0.folder.path();
        let output =
            program.arg("--root").arg(root).arg("doctor").args(arguments).output().await.unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }

    /// The findings of this health, each as `what | mend`.
    async fn found(dom0: &Dom0, health: &str) -> Vec<String> {
        let (code, text) = doctor(dom0, &["--json"]).await;
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["healthy"], code == 0, "{text}");
        let findings = report["findings"].as_array().unwrap();
        let of = |finding: &&Value| finding["health"] == health;
        let word =
            |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let line = |f: &Value| format!("{} | {}", word(f, "what"), word(f, "mend"));
        findings.iter().filter(of).map(line).collect()
    }

    /// Damages a healthy dom0 and looks for these words among what is wrong, and for a way to mend.
    fn damage(words: &str, damage: impl FnOnce(&Dom0)) {
        on_one_thread(async {
            let dom0 = healthy();
            damage(&dom0);
            let wrong = found(&dom0, "wrong").await;
            let told = wrong.iter().any(|line| line.contains(words) && !line.ends_with("| "));
            assert!(told, "{words:?} is not among {wrong:#?}");
        });
    }

    #[test]
    fn a_healthy_dom0_has_nothing_wrong() {
        on_one_thread(async {
            let dom0 = healthy();
            let (code, text) = doctor(&dom0, &[]).await;
            assert_eq!(code, 0, "{text}");
            assert!(!text.contains("WRONG"), "{text}");
            assert!(text.contains("qrexec's policy admits all "), "{text}");
            assert_eq!(dom0.changes(), Vec::<String>::new());
        });
    }

    #[test]
    fn what_install_puts_there_is_as_it_should_be() {
        on_one_thread(async {
            let dom0 = healthy();
            for path in ["usr/lib/systemd", "etc/systemd", "etc/qubes-rpc"] {
                fs::remove_dir_all(dom0.at(path)).unwrap();
            }
            for path in [POLICY, "usr/bin/saltbridged", "etc/qubes/salt-bridge-allowed-vms"] {
                fs::remove_file(dom0.at(path)).unwrap();
            }
            fs::create_dir(dom0.at("etc/qubes-rpc")).unwrap();
            #[expect(clippy::disallowed_methods, reason = "the operator's program itself")]
            let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_saltbridged"));
            program.arg("--root").arg(dom0.folder.path());
            program.args(["install", "salt-bridge", "work", "dev:see,files:ask", "--yes"]);
            let output = program.output().await.unwrap();
            assert!(output.status.success(), "{output:?}");
            assert_eq!(found(&dom0, "wrong").await, Vec::<String>::new());
        });
    }

    #[test]
    fn what_belongs_to_others_or_is_missing_is_told() {
        damage("mode 666", |dom0| chmod(dom0, "etc/qubes/salt-bridge-allowed-vms", 0o666));
        damage("salt-bridge-allowed-vms grants nothing", |dom0| {
            fs::remove_file(dom0.at("etc/qubes/salt-bridge-allowed-vms")).unwrap();
        });
        damage("line 2", |dom0| dom0.write_scope("@agent salt-bridge\nwork nothing\n"));
        damage("mode 0666", |dom0| chmod(dom0, POLICY, 0o666));
        damage("mode 0777", |dom0| chmod(dom0, "usr/bin/saltbridged", 0o777));
        damage("mode 0777", |dom0| chmod(dom0, "usr/bin", 0o777));
        damage("saltbridged is not installed", |dom0| {
            fs::remove_file(dom0.at("usr/bin/saltbridged")).unwrap();
        });
        damage("both", |dom0| write_mode(&dom0.at("usr/local/bin/saltbridged"), "", 0o755));
        damage("no qrexec-client", |dom0| {
            fs::remove_file(dom0.at("usr/bin/qrexec-client")).unwrap();
        });
    }

    #[test]
    fn links_sockets_and_what_comes_before_them_are_told() {
        damage("VmExec is missing", |dom0| {
            fs::remove_file(dom0.at("etc/qubes-rpc/saltbridge.VmExec")).unwrap();
        });
        damage("VmExec is no link", |dom0| {
            let path = dom0.at("etc/qubes-rpc/saltbridge.VmExec");
            fs::remove_file(&path).unwrap();
            write_mode(&path, "#!/bin/sh\n", 0o755);
        });
        damage("VmOld is no service", |dom0| {
            write_mode(&dom0.at("etc/qubes-rpc/saltbridge.VmOld"), "", 0o755);
        });
        damage("found by qrexec before", |dom0| {
            fs::create_dir_all(dom0.at("run/qubes-rpc")).unwrap();
            write_mode(&dom0.at("run/qubes-rpc/saltbridge.VmExec+work"), "", 0o755);
        });
        damage("changes how qrexec talks", |dom0| {
            fs::create_dir_all(dom0.at("etc/qubes/rpc-config")).unwrap();
            write_mode(&dom0.at("etc/qubes/rpc-config/saltbridge.VmExec"), "", 0o644);
        });
        damage("qrexec.sock has the mode 0666", |dom0| {
            chmod(dom0, "run/salt-bridge/qrexec.sock", 0o666);
        });
        damage("tcp-policy.sock is missing", |dom0| {
            fs::remove_file(dom0.at("run/salt-bridge/tcp-policy.sock")).unwrap();
        });
        damage("tcp-policy.sock is not a socket", |dom0| {
            fs::remove_file(dom0.at("run/salt-bridge/tcp-policy.sock")).unwrap();
            write_mode(&dom0.at("run/salt-bridge/tcp-policy.sock"), "", 0o600);
        });
    }

    #[test]
    fn units_that_are_missing_changed_or_not_started_are_told() {
        const FOLDER: &str = "usr/lib/systemd/system";
        const LINK: &str = "etc/systemd/system/sockets.target.wants/salt-bridge.socket";
        let remove = |path: &str| {
            let path = path.to_owned();
            move |dom0: &Dom0| fs::remove_file(dom0.at(&path)).unwrap()
        };
        damage("salt-bridge.socket is missing", remove(&format!("{FOLDER}/salt-bridge.socket")));
        damage("salt-bridge.socket does not start at boot", remove(LINK));
        damage("lacks NoNewPrivileges=yes", |dom0| {
            let path = dom0.at(FOLDER).join("salt-bridge.service");
            let text = fs::read_to_string(&path).unwrap();
            write_mode(&path, &text.replace("NoNewPrivileges=yes", "NoNewPrivileges=no"), 0o644);
        });
        damage("can be changed by others", |dom0| {
            chmod(dom0, &format!("{FOLDER}/salt-bridge.service"), 0o666);
        });
        damage("masked", |dom0| {
            symlink("/dev/null", dom0.at("etc/systemd/system/salt-bridge.service")).unwrap();
        });
    }

    #[test]
    fn a_timer_that_does_not_say_when_grants_end_is_told() {
        const TIMER: &str = "etc/systemd/system/salt-bridge-expire.timer";
        const LINK: &str = "etc/systemd/system/timers.target.wants/salt-bridge-expire.timer";
        let ending = || SCOPE.replace("work\n", "work until=2199-01-01T00:00:00Z\n");
        let write = |dom0: &Dom0, time: &str| {
            let scope = Scope::parse(&ending().replace("2199", time)).unwrap();
            let text = policy::render_policy(&scope, &services::lines(), SystemTime::now());
            write_mode(&dom0.at(POLICY), &text, 0o664);
            dom0.write_scope(&ending());
        };
        damage("is not what the ends of grants", |dom0| write(dom0, "2199"));
        damage("is not what the ends of grants", |dom0| {
            write_mode(&dom0.at(TIMER), "[Timer]\nOnCalendar=2199-01-01 00:00:00 UTC\n", 0o644);
        });
        on_one_thread(async {
            let dom0 = healthy();
            write(&dom0, "2199");
            // What doctor says to do.
            #[expect(clippy::disallowed_methods, reason = "the operator's program itself")]
            let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_saltbridged"));
            let refresh = program.arg("--root").arg(dom0.folder.path()).args(["scope", "refresh"]);
            assert!(refresh.status().await.unwrap().success());
            assert_eq!(found(&dom0, "wrong").await, Vec::<String>::new());
            let good = found(&dom0, "good").await;
            assert!(good.iter().any(|line| line.contains("fires at 1 ends")), "{good:#?}");
            fs::remove_file(dom0.at(LINK)).unwrap();
            let wrong = found(&dom0, "wrong").await;
            assert!(wrong[0].contains("does not start at boot"), "{wrong:#?}");
        });
    }

    #[test]
    fn policy_in_the_form_of_qubes_4_0_counts_where_it_is_let() {
        on_one_thread(async {
            let dom0 = healthy();
            fs::create_dir_all(dom0.at("etc/qubes-rpc/policy/include")).unwrap();
            assert_eq!(found(&dom0, "note").await, Vec::<String>::new());
            let line = "salt-bridge work allow\n";
            write_mode(&dom0.at("etc/qubes-rpc/policy/qubes.VMShell"), line, 0o664);
            let notes = found(&dom0, "note").await;
            assert!(notes[0].contains("in the form of Qubes 4.0: qubes.VMShell"), "{notes:#?}");
            assert_eq!(notes.len(), 1, "nothing includes it: {notes:#?}");
            write_mode(&dom0.at("etc/qubes/policy.d/35-compat.policy"), "!compat-4.0\n", 0o664);
            let notes = found(&dom0, "note").await;
            assert!(notes[1].contains("may call qubes.VMShell on work, past"), "{notes:#?}");
        });
    }

    #[test]
    fn the_daemons_user_in_the_group_of_qubes_is_told() {
        damage("salt-bridge is a member of the group qubes", |dom0| {
            write_mode(&dom0.at("etc/group"), "qubes:x:98:salt-bridge,user\n", 0o644);
        });
        damage("cannot read", |dom0| fs::remove_file(dom0.at("etc/group")).unwrap());
    }

    #[test]
    fn policy_that_is_not_what_the_file_means_is_told() {
        damage("is not what the operator's file means", |dom0| {
            dom0.write_scope(&SCOPE.replace("work\n", "work see\n"));
        });
        damage("a policy file has a fault", |dom0| {
            write_mode(&dom0.at("etc/qubes/policy.d/40-bad.policy"), "nonsense\n", 0o664);
        });
        damage("no grant covers", |dom0| {
            let rule = "qubes.ConnectTCP +22 work vault allow\n";
            write_mode(&dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy"), rule, 0o664);
        });
    }

    #[test]
    fn a_tunnel_to_a_qube_that_lost_its_tag_is_told() {
        on_one_thread(async {
            let dom0 = healthy();
            dom0.write_scope(&SCOPE.replace("see,exec\n", "see,exec,net\n"));
            let rule = "qubes.ConnectTCP +22 work ai-one allow\n";
            write_mode(&dom0.at("etc/qubes/policy.d/30-salt-bridge-tcp.policy"), rule, 0o664);
            let told = async || {
                found(&dom0, "wrong").await.iter().any(|line| line.contains("no grant covers"))
            };
            assert!(!told().await);
            dom0.qubesd.untagged.set("ai-one");
            assert!(told().await);
        });
    }

    #[test]
    fn a_line_of_another_file_that_decides_first_is_told() {
        damage("/etc/qubes/policy.d/20-mine.policy:1", |dom0| {
            let line = "saltbridge.VmExec * @anyvm @adminvm allow\n";
            write_mode(&dom0.at("etc/qubes/policy.d/20-mine.policy"), line, 0o664);
        });
        damage(
            "saltbridge.VmExec+work from salt-bridge to dom0 is granted, but qrexec denies",
            |dom0| {
                let line = "* * @anyvm @adminvm deny\n";
                write_mode(&dom0.at("etc/qubes/policy.d/20-mine.policy"), line, 0o664);
            },
        );
    }

    #[test]
    fn what_passes_by_salt_bridge_and_what_asks_is_told() {
        on_one_thread(async {
            let dom0 = healthy();
            let line = "qubes.VMShell * salt-bridge work allow\n";
            write_mode(&dom0.at("etc/qubes/policy.d/40-mine.policy"), line, 0o664);
            let notes = found(&dom0, "note").await;
            assert_eq!(notes.len(), 1, "{notes:#?}");
            assert!(notes[0].contains("may call qubes.VMShell on work, past"), "{notes:#?}");
            let good = found(&dom0, "good").await;
            let asks = "calls of salt-bridge that ask are shown in dom0 | ";
            assert!(good.iter().any(|line| line == asks), "{good:#?}");
        });
    }

    #[test]
    fn a_paused_dom0_is_no_broken_one() {
        on_one_thread(async {
            let dom0 = healthy();
            let text = policy::render_deny_all(&services::lines());
            write_mode(&dom0.at(POLICY), &text, 0o664);
            fs::create_dir(dom0.at("etc/salt-bridge")).unwrap();
            write_mode(&dom0.at("etc/salt-bridge/paused"), "{}", 0o644);
            assert_eq!(found(&dom0, "wrong").await, Vec::<String>::new());
            assert!(found(&dom0, "note").await[0].starts_with("paused"));
            write_policy(&dom0);
            let wrong = found(&dom0, "wrong").await;
            assert!(wrong[0].contains("still admits some"), "{wrong:#?}");
        });
        let deny_all = |dom0: &Dom0| {
            let text = policy::render_deny_all(&services::lines());
            write_mode(&dom0.at(POLICY), &text, 0o664);
        };
        damage("is not what the operator's file means", deny_all);
        damage("an installation was interrupted", |dom0| {
            deny_all(dom0);
            write_mode(&dom0.at("var/lib/salt-bridge/journal"), "{}", 0o600);
        });
    }

    #[test]
    fn a_qubesd_that_does_not_answer_is_told() {
        damage("qubesd does not answer", |dom0| {
            fs::remove_file(dom0.at("var/run/qubesd.sock")).unwrap();
        });
        damage("qubesd does not answer", |dom0| *dom0.qubesd.mood.borrow_mut() = Mood::Silent);
        damage("qubesd does not answer", |dom0| *dom0.qubesd.mood.borrow_mut() = Mood::Garbage);
    }

    #[test]
    fn an_audit_log_that_was_changed_is_told() {
        damage("the audit log does not hold", |dom0| {
            fs::create_dir_all(dom0.at("var/log/salt-bridge")).unwrap();
            chmod(dom0, "var/log/salt-bridge", 0o700);
            write_mode(&dom0.at("var/log/salt-bridge/audit.jsonl"), "{}\n", 0o600);
            write_mode(&dom0.at("var/log/salt-bridge/audit.log"), "{}\n", 0o600);
        });
    }
}
