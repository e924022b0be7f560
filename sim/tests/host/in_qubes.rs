//! Commands and services in qubes.

use super::machine::{Machine, output, script, told};

const SHELL: &str = "DEFAULT:QUBESRPC qubes.VMShell dom0";

#[test]
fn a_command_in_a_running_qube_keeps_its_streams_and_its_code_apart() {
    let machine = Machine::start();
    let input = "echo out; echo err >&2; exit 3\n";
    let answer = told(&mut machine.qrexec_client("work", SHELL), input);
    assert_eq!(answer, (3, "out\n".to_owned(), "err\n".to_owned()));
    let uuid = format!("uuid:{}", machine.host.uuid("work").unwrap());
    let answer =
        told(&mut machine.qrexec_client(&uuid, "user:nogui:QUBESRPC qubes.VMShell dom0"), input);
    assert_eq!(answer, (3, "out\n".to_owned(), "err\n".to_owned()));
}

#[test]
fn a_qube_sees_itself_alone() {
    let machine = Machine::start();
    if !machine.isolated() {
        return;
    }
    let input = "hostname; pwd; ps -e -o pid= | wc -l; cat /etc/hostname; echo $HOME\n";
    let (code, text, _) = told(&mut machine.qrexec_client("work", SHELL), input);
    // Its init, the shell, and the two of the pipe.
    assert_eq!((code, text.as_str()), (0, "work\n/home/user\n4\nwork\n/home/user\n"));
    let command = "user:ls /home/user; ls /tmp; touch /usr/x /home/user/y /tmp/z";
    assert_eq!(told(&mut machine.qrexec_client("work", command), "").1, "");
    assert!(machine.host.layout().qube_root("work").join("home/user/y").exists());
    assert!(!machine.host.layout().qube_root("work").join("usr/x").exists());
    assert!(!std::path::Path::new("/usr/x").exists());
}

#[test]
fn the_user_part_of_the_command_line_chooses_the_user() {
    let machine = Machine::start();
    let whom = |user: &str| told(&mut machine.qrexec_client("work", &format!("{user}:id -u")), "");
    assert_eq!(whom("root").0, 0);
    assert_eq!(whom("DEFAULT").1, whom("user").1);
    if machine.host.mode() == salt_bridge_sim::Mode::Root {
        assert_eq!((whom("root").1, whom("user").1), ("0\n".to_owned(), "1000\n".to_owned()));
    }
    let (code, stdout, stderr) = whom("nouser");
    assert_eq!((code, stdout.as_str()), (125, ""));
    assert!(stderr.contains("user nouser does not exist"), "{stderr}");
}

#[test]
fn exit_codes_are_those_of_qrexec() {
    let machine = Machine::start();
    let code = |qube: &str, command: &str| told(&mut machine.qrexec_client(qube, command), "").0;
    assert_eq!(code("work", "user:exit 9"), 9);
    assert_eq!(code("work", "user:kill -KILL $$"), 137);
    assert_eq!(code("work", "user:QUBESRPC no.Such dom0"), 127);
    assert_eq!(code("work", "user:QUBESRPC qubes.VMExec+id dom0"), 0);
    assert_eq!(code("work", "user:QUBESRPC qubes.VMExec+no--such dom0"), 127);
    assert_eq!(code("work", "root:QUBESRPC qubes.VMExec+sh+--c+exit-205 dom0"), 5);
    let (code, _, stderr) = told(&mut machine.qrexec_client("vault", "user:id"), "");
    assert_eq!(code, 125);
    assert!(stderr.contains("/var/run/qubes/qrexec.vault: No such file"), "{stderr}");
    assert_eq!(told(&mut machine.qrexec_client("nosuch", "user:id"), "").0, 125);
    assert_eq!(machine.host.power_state("vault").unwrap().to_string(), "Halted");
}

#[test]
fn a_service_of_the_qubes_own_is_run() {
    let machine = Machine::start();
    let service = machine.host.layout().qube_root("work").join("etc/qubes-rpc/test.Echo");
    script(&service, "#!/bin/sh\necho \"$1 $QREXEC_REMOTE_DOMAIN\"; cat\n");
    let mut client = machine.qrexec_client("work", "DEFAULT:QUBESRPC test.Echo+a+b dom0");
    assert_eq!(told(&mut client, "x").1, "a+b dom0\nx");
}

#[test]
fn what_a_terminal_could_act_on_is_replaced_on_request() {
    let machine = Machine::start();
    let mut client = machine.qrexec_client("work", "user:printf 'a\\033[31mb\\n'");
    assert_eq!(told(client.arg("-t"), ""), (0, "a_[31mb\n".to_owned(), String::new()));
}

#[test]
fn sixty_four_mebibytes_pass_both_ways_unchanged() {
    let machine = Machine::start();
    let bytes: Vec<u8> = (0..64u32 << 18).flat_map(u32::to_le_bytes).collect();
    let answer = output(&mut machine.qrexec_client("work", "user:cat"), &bytes);
    assert_eq!(answer.status.code(), Some(0));
    assert!(answer.stdout == bytes, "{} bytes came back", answer.stdout.len());
}

#[test]
fn many_calls_at_once_do_not_mix() {
    let machine = Machine::start();
    std::thread::scope(|scope| {
        for number in 0..32 {
            let machine = &machine;
            scope.spawn(move || {
                let input = format!("echo {number}; exit {number}\n");
                let answer = told(&mut machine.qrexec_client("work", SHELL), &input);
                assert_eq!(answer, (number, format!("{number}\n"), String::new()));
            });
        }
    });
}

#[test]
fn a_command_line_of_sixty_thousand_bytes_passes() {
    let machine = Machine::start();
    let command = format!("user:true {}", "x".repeat(60_000));
    assert_eq!(
        told(&mut machine.qrexec_client("work", &command), ""),
        (0, String::new(), String::new())
    );
}

#[test]
fn policy_lets_one_qube_into_another_and_starts_it_or_not() {
    let machine = Machine::start();
    let policy = "\
qubes.VMShell * salt-bridge work allow
qubes.VMShell * salt-bridge dev allow user=root
qubes.VMShell * salt-bridge personal allow autostart=no
qubes.VMShell * salt-bridge @dispvm allow
qubes.VMShell * salt-bridge test ask
qubes.VMShell * salt-bridge salt-bridge allow
";
    machine.host.set_policy("30-test.policy", policy).unwrap();
    let shell =
        |target: &str| told(&mut machine.call(target, "qubes.VMShell"), "echo $USER; exit 4\n");
    let refused = (126, String::new(), "Request refused\n".to_owned());
    assert_eq!(shell("work"), (4, "user\n".to_owned(), String::new()));
    assert_eq!(shell("dev"), (4, "root\n".to_owned(), String::new()));
    assert_eq!(machine.host.power_state("dev").unwrap().to_string(), "Running");
    for target in ["personal", "vault", "test", "nosuchvm", "salt-bridge"] {
        assert_eq!(shell(target), refused, "{target}");
    }
    machine.host.set_consent(salt_bridge_sim::Consent::Given);
    assert_eq!(shell("test").0, 4);
    let before = machine.host.events().len();
    assert_eq!(shell("@dispvm"), (4, "user\n".to_owned(), String::new()));
    super::machine::until("the disposable is gone", || {
        machine.host.events().since(before).iter().any(|event| event.name == "domain-delete")
    });
}

#[test]
fn without_namespaces_commands_run_in_the_qubes_own_home() {
    let machine = Machine::with(|options| options.mode = Some(salt_bridge_sim::Mode::Plain));
    let home = machine.host.layout().qube_root("work").join("home/user");
    let input = "pwd; echo $HOME $TMPDIR; echo kept >file; exit 3\n";
    let (code, text, _) = told(&mut machine.qrexec_client("work", SHELL), input);
    let shown = home.display();
    let temporary = machine.host.layout().qube_root("work").join("tmp");
    assert_eq!((code, text), (3, format!("{shown}\n{shown} {}\n", temporary.display())));
    assert_eq!(std::fs::read_to_string(home.join("file")).unwrap(), "kept\n");
    assert_eq!(told(&mut machine.qrexec_client("work", "user:kill -TERM $$"), "").0, 143);
}
