//! Commands: their streams, their ends, and that nothing of them is left.

use std::time::Instant;

use sha2::{Digest, Sha256};

use super::{super::child::READ_BYTES, *};

/// Runs a command until it has printed `go`, cancels, and returns how it ended and how long that took.
fn cancelled(command: &str, stdin: &[u8]) -> (Qube, Ended, Kept, Duration) {
    block_on(async {
        let (qube, cancel) = (Qube::new(), CancellationToken::new());
        let mut kept = Kept { cancel: Some(("go", cancel.clone())), ..Kept::default() };
        let started = Instant::now();
        let ended = qube.start(command, 60.0, stdin, &mut kept, &cancel).await.unwrap();
        (qube, ended, kept, started.elapsed())
    })
}

fn timed_out(command: &str) -> (Qube, Kept, Duration) {
    block_on(async {
        let (qube, mut kept, started) = (Qube::new(), Kept::default(), Instant::now());
        let never = CancellationToken::new();
        let ended = qube.start(command, 1.0, b"", &mut kept, &never).await.unwrap();
        assert_eq!(ended, Ended::TimedOut);
        (qube, kept, started.elapsed())
    })
}

#[test]
fn streams_are_apart_and_exact_and_the_code_is_the_commands() {
    block_on(async {
        let qube = Qube::new();
        let result = qube.run("echo out; printf err >&2; printf 'no newline'; exit 3", b"").await;
        assert_eq!(result, (Ended::Exit(3), b"out\nno newline".to_vec(), b"err".to_vec()));
        qube.assert_empty();
        let every_byte: Vec<u8> = (0..=255).collect();
        let result = qube.run("cat; cat <&0 >&2", &every_byte).await;
        assert_eq!(result, (Ended::Exit(0), every_byte, Vec::new()));
    });
}

#[test]
fn every_exit_code_is_passed_on_also_those_of_qrexec() {
    block_on(async {
        let qube = Qube::new();
        for code in [0, 1, 2, 42, 124, 125, 126, 127, 128, 137, 254, 255] {
            let result = qube.run(&format!("exit {code}"), b"").await;
            assert_eq!(result, (Ended::Exit(code), Vec::new(), Vec::new()));
        }
        assert_eq!(qube.run("kill -9 $$", b"").await.0, Ended::Exit(137));
        assert_eq!(qube.run("no-such-command", b"").await.0, Ended::Exit(127));
    });
}

#[test]
fn commands_of_any_bytes_arrive_as_they_are() {
    block_on(async {
        let qube = Qube::new();
        let command = "printf %s 'it'\\''s \"$HOME\" é\n\ttab %d \\n'; false; echo $?";
        let (_, stdout, stderr) = qube.run(command, b"").await;
        assert_eq!(String::from_utf8_lossy(&stdout), "it's \"$HOME\" é\n\ttab %d \\n1\n");
        assert_eq!(stderr, b"");
        let long = format!("echo {}", "x".repeat(60_000));
        assert_eq!(qube.run(&long, b"").await.1.len(), 60_001);
        let (mut kept, never) = (Kept::default(), CancellationToken::new());
        let nul = qube.start("a\0b", 1.0, b"", &mut kept, &never).await;
        assert!(matches!(nul, Err(RunError::NulByte(_))));
    });
}

#[test]
fn stdin_is_exact_whether_short_or_long_read_or_not() {
    block_on(async {
        let qube = Qube::new();
        let tricky = b"}\n\0exit 9\n'\x1e%s\\".repeat(3);
        assert_eq!(qube.run("cat", &tricky).await, (Ended::Exit(0), tricky, Vec::new()));
        let long = pattern(3_000_000);
        let sum: String = Sha256::digest(&long).iter().map(|b| format!("{b:02x}")).collect();
        let (ended, stdout, _) = qube.run("sha256sum", &long).await;
        assert_eq!((ended, stdout), (Ended::Exit(0), format!("{sum}  -\n").into_bytes()));
        assert_eq!(qube.run("head -c 3", &long).await.1, &long[..3]);
        assert_eq!(qube.run("head -c 3", &long[..20_000]).await.1, &long[..3]);
        assert_eq!(qube.run("cat; echo done", b"").await.1, b"done\n");
        qube.assert_empty();
    });
}

#[test]
fn a_body_cut_short_runs_nothing() {
    block_on(async {
        let qube = Qube::new();
        let never = CancellationToken::new();
        for length in [1000, 1_000_000] {
            let body = Body { length, bytes: &b"too short"[..] };
            let mut kept = Kept::default();
            let runner = qube.runner();
            let ended = runner
                .command(place(60.0), &Command::line(b"touch ran"), body, &mut kept, &never)
                .await;
            assert!(matches!(ended, Err(RunError::BodyCut)), "{ended:?}");
        }
        assert!(!qube.home().join("ran").exists());
        qube.assert_empty();
    });
}

#[test]
fn a_body_that_does_not_come_ends_at_the_deadline() {
    block_on(async {
        let qube = Qube::new();
        let never = CancellationToken::new();
        for length in [1000, 1_000_000] {
            let (_open, bytes) = tokio::io::duplex(64);
            let (mut kept, runner) = (Kept::default(), qube.runner());
            let body = Body { length, bytes };
            let ended = runner
                .command(place(0.3), &Command::line(b"touch ran"), body, &mut kept, &never)
                .await;
            assert_eq!(ended.unwrap(), Ended::TimedOut);
        }
        assert!(!qube.home().join("ran").exists());
        qube.assert_empty();
    });
}

#[test]
fn a_forged_last_line_is_output_like_any_other() {
    block_on(async {
        let qube = Qube::new();
        let forged = format!("\u{1e}{} exit 0\n", "0".repeat(32));
        let command = format!("printf '{forged}'; printf '{forged}' >&2; exit 5");
        let result = qube.run(&command, b"").await;
        assert_eq!(result, (Ended::Exit(5), forged.clone().into_bytes(), forged.into_bytes()));
    });
}

#[test]
fn the_command_finds_the_number_nowhere() {
    block_on(async {
        let qube = Qube::new();
        let look = "declare -p nonce format count command grace limit; env; \
            cat /proc/$PPID/environ /proc/$PPID/cmdline /proc/self/environ | tr '\\0' '\\n'";
        let (_, stdout, stderr) = qube.run(look, b"").await;
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(!stdout.contains('\u{1e}') && !stdout.contains("nonce"), "{stdout}");
        assert_eq!(stderr.matches("not found").count(), 6, "{stderr}");
        assert!(stdout.contains("SALT_BRIDGE_CALL="));
    });
}

#[test]
fn variables_that_the_qube_exports_do_not_carry_ours_into_the_command() {
    block_on(async {
        let qube = Qube::with("export nonce=x mark=x command=x SHELLOPTS=allexport; exec bash -a");
        let (_, stdout, _) = qube.run("env", b"").await;
        assert!(!stdout.contains(&0x1e), "{}", String::from_utf8_lossy(&stdout));
    });
}

#[test]
fn what_login_scripts_say_is_not_output() {
    block_on(async {
        let qube = Qube::with("echo welcome; echo warning >&2; exec bash");
        let result = qube.run("echo hi", b"").await;
        assert_eq!(result, (Ended::Exit(0), b"hi\n".to_vec(), Vec::new()));
    });
}

#[test]
fn a_cancelled_command_that_ignores_sigterm_is_dead() {
    let (qube, ended, kept, took) =
        cancelled("trap '' TERM INT HUP; echo go; while :; do sleep 0.1; done", b"");
    assert_eq!((ended, kept.stdout), (Ended::Cancelled, b"go\n".to_vec()));
    assert!(took < Duration::from_secs(5), "{took:?}");
    qube.assert_empty();
}

#[test]
fn a_hang_up_is_seen_behind_an_unread_stdin() {
    for length in [1000, 1 << 20] {
        let (qube, ended, _, took) = cancelled("echo go; sleep 300", &vec![b'x'; length]);
        assert_eq!(ended, Ended::Cancelled);
        assert!(took < Duration::from_secs(5), "{took:?}");
        qube.assert_empty();
    }
}

#[test]
fn a_cancelled_command_takes_its_detached_children_with_it() {
    let (qube, ended, _, took) = cancelled(
        "setsid sleep 301 & setsid bash -c 'trap \"\" TERM; sleep 302; sleep 303' & \
         env -i setsid /bin/sleep 304 & (setsid sleep 305 &); echo go; sleep 306",
        b"",
    );
    assert_eq!(ended, Ended::Cancelled);
    assert!(took < Duration::from_secs(5), "{took:?}");
    qube.assert_empty();
}

#[test]
fn a_command_that_is_cancelled_before_its_first_program_begins_is_dead() {
    block_on(async {
        let (qube, cancel) = (never_begins(), CancellationToken::new());
        let mut kept = Kept { cancel: Some(("go", cancel.clone())), ..Kept::default() };
        let env = ["A=b".to_owned()];
        let (runner, command) = (qube.runner(), before_its_program(&env));
        let ended = runner.command(place(60.0), &command, Body::empty(), &mut kept, &cancel).await;
        assert_eq!(ended.unwrap(), Ended::Cancelled);
        qube.assert_empty();
    });
}

#[test]
fn two_hundred_children_are_dead() {
    let (qube, ended, ..) = cancelled("for i in {1..200}; do sleep 400 & done; echo go; wait", b"");
    assert_eq!(ended, Ended::Cancelled);
    qube.assert_empty();
}

#[test]
fn a_deadline_kills_what_ignores_sigterm_and_what_is_stopped() {
    let (qube, kept, took) = timed_out("printf partial; trap '' TERM; while :; do sleep 0.1; done");
    assert_eq!(kept.stdout, b"partial");
    assert!(took < Duration::from_secs(6), "{took:?}");
    qube.assert_empty();
    let (qube, _, took) = timed_out("kill -STOP $$");
    assert!(took < Duration::from_secs(6), "{took:?}");
    qube.assert_empty();
}

#[test]
fn what_is_left_in_the_background_is_killed_after_a_normal_end() {
    block_on(async {
        let qube = Qube::new();
        let result = qube.run("sleep 305 & (sleep 306 &); echo hi; exit 5", b"").await;
        assert_eq!(result, (Ended::Exit(5), b"hi\n".to_vec(), Vec::new()));
        qube.assert_empty();
    });
}

#[test]
fn what_detached_itself_survives_a_normal_end_and_does_not_hold_it_up() {
    block_on(async {
        let (qube, started) = (Qube::new(), Instant::now());
        let command = "setsid sleep 307 & echo $! >pid; while :; do \
            [ \"$(ps -o sid= -p $!)\" -eq $! ] 2>/dev/null && break; done; echo hi";
        let result = qube.run(command, b"").await;
        assert_eq!(result, (Ended::Exit(0), b"hi\n".to_vec(), Vec::new()));
        assert!(started.elapsed() < Duration::from_secs(3));
        assert_eq!(qube.processes(), ["sleep 307 "]);
        let pid = fs::read_to_string(qube.home().join("pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        qube.assert_empty();
    });
}

#[test]
fn a_detached_child_that_floods_the_output_does_not_hold_up_the_end() {
    block_on(async {
        let qube = Qube::new();
        let (ended, stdout, _) = qube.run("(setsid yes &); sleep 0.2; echo hi", b"").await;
        assert_eq!(ended, Ended::Exit(0));
        assert!(String::from_utf8_lossy(&stdout).contains("hi\n"));
        qube.assert_empty();
    });
}

#[test]
fn streams_that_the_command_closes_early_are_no_matter() {
    block_on(async {
        let qube = Qube::new();
        let result = qube.run("exec >&- 2>&-; sleep 0.1; exit 4", b"").await;
        assert_eq!(result, (Ended::Exit(4), Vec::new(), Vec::new()));
        let result = qube.run("trap 'echo int; exit 7' INT; kill -INT $$; sleep 1", b"").await;
        assert_eq!(result, (Ended::Exit(7), b"int\n".to_vec(), Vec::new()));
    });
}

#[test]
fn all_that_was_written_before_the_end_arrives() {
    block_on(async {
        let qube = Qube::new();
        for _ in 0..20 {
            let (_, stdout, stderr) = qube.run("head -c 300000 /dev/zero", b"").await;
            assert_eq!((stdout.len(), stderr.len()), (300_000, 0));
        }
    });
}

/// Counts, and never holds more than it is given.
#[derive(Default)]
struct Counted {
    bytes: usize,
    largest: usize,
}

impl Output for Counted {
    async fn bytes(&mut self, _stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        self.bytes += bytes.len();
        self.largest = self.largest.max(bytes.len());
        Ok(())
    }
}

#[test]
fn a_hundred_million_bytes_pass_in_small_pieces() {
    block_on(async {
        let (qube, mut counted) = (Qube::new(), Counted::default());
        let never = CancellationToken::new();
        let command = "head -c 100000000 /dev/zero";
        let ended = qube.start(command, 60.0, b"", &mut counted, &never).await.unwrap();
        assert_eq!((ended, counted.bytes), (Ended::Exit(0), 100_000_000));
        assert!(counted.largest <= READ_BYTES);
    });
}

/// Takes nothing any more.
struct Gone;

impl Output for Gone {
    async fn bytes(&mut self, _stream: Stream, _bytes: Bytes) -> Result<(), OutputGone> {
        Err(OutputGone)
    }
}

#[test]
fn a_command_whose_output_nobody_takes_is_cancelled() {
    block_on(async {
        let (qube, never) = (Qube::new(), CancellationToken::new());
        let ended = qube.start("yes", 60.0, b"", &mut Gone, &never).await.unwrap();
        assert_eq!(ended, Ended::Cancelled);
        qube.assert_empty();
    });
}

/// Never ready to take anything.
struct Stuck(CancellationToken);

impl Output for Stuck {
    async fn bytes(&mut self, _stream: Stream, _bytes: Bytes) -> Result<(), OutputGone> {
        self.0.cancel();
        std::future::pending().await
    }
}

#[test]
fn a_cancellation_is_seen_while_the_output_is_stuck() {
    block_on(async {
        let (qube, cancel) = (Qube::new(), CancellationToken::new());
        let mut stuck = Stuck(cancel.clone());
        let ended = qube.start("yes", 60.0, b"", &mut stuck, &cancel).await.unwrap();
        assert_eq!(ended, Ended::Cancelled);
        qube.assert_empty();
    });
}

#[test]
fn a_call_that_is_dropped_leaves_nothing() {
    block_on(async {
        let qube = Qube::new();
        let (mut kept, never) = (Kept::default(), CancellationToken::new());
        let ran = qube.home().join("ran");
        let call = qube.start("touch ran; sleep 308", 60.0, b"", &mut kept, &never);
        tokio::select! {
            ended = call => panic!("{ended:?}"),
            () = async { while !ran.exists() { tokio::task::yield_now().await } } => {}
        }
        let dead = async {
            while !qube.processes().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), dead).await.unwrap();
    });
}

#[test]
fn many_calls_at_once_are_not_mixed_up() {
    block_on(async {
        let qube = Qube::new();
        let calls = (0..16).map(|n| {
            let qube = &qube;
            async move { (n, qube.run(&format!("cat; echo {n}; exit {n}"), b"in ").await) }
        });
        for (n, result) in futures_util::future::join_all(calls).await {
            assert_eq!(result, (Ended::Exit(n), format!("in {n}\n").into_bytes(), Vec::new()));
        }
    });
}

#[test]
fn what_the_user_cannot_kill_is_killed_by_root() {
    block_on(async {
        let (qube, never) = (helpless(), CancellationToken::new());
        let mut kept = Kept::default();
        let command = "setsid sleep 309 & echo hi; exec sleep 310";
        let ended = qube.start(command, 0.3, b"", &mut kept, &never).await.unwrap();
        assert_eq!((ended, kept.stdout), (Ended::TimedOut, b"hi\n".to_vec()));
        qube.assert_empty();
        let cancel = CancellationToken::new();
        let mut kept = Kept { cancel: Some(("go", cancel.clone())), ..Kept::default() };
        let ended = qube.start("echo go; exec sleep 312", 60.0, b"", &mut kept, &cancel).await;
        assert_eq!(ended.unwrap(), Ended::Cancelled);
        qube.assert_empty();
        let (ended, stdout, _) = qube.run("sleep 311 & echo hi; exit 3", b"").await;
        assert_eq!((ended, stdout), (Ended::Exit(3), b"hi\n".to_vec()));
        qube.assert_empty();
    });
}

/// Runs a command with these parameters.
async fn with(qube: &Qube, command: Command<'_>) -> (Result<Ended, RunError>, Kept) {
    let (mut kept, never) = (Kept::default(), CancellationToken::new());
    let ended =
        qube.runner().command(place(60.0), &command, Body::empty(), &mut kept, &never).await;
    (ended, kept)
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_program_gets_its_arguments_exactly_and_no_shell_reads_them() {
    block_on(async {
        let qube = Qube::new();
        let words = ["a b", "", "$HOME", "`id`", "it's", "\\n", "*", "-e", "\n", "é\u{1}"];
        let argv = texts(&[&["printf", "<%s>"], &words[..]].concat());
        let command = Command { program: Program::Argv(&argv), ..Command::line(b"") };
        let (ended, kept) = with(&qube, command).await;
        let expected: String = words.iter().map(|word| format!("<{word}>")).collect();
        assert_eq!((ended.unwrap(), kept.stdout), (Ended::Exit(0), expected.into_bytes()));
        assert_eq!(kept.stderr, b"");
        qube.assert_empty();
    });
}

#[test]
fn a_program_that_cannot_be_run_ends_as_bash_says_it() {
    block_on(async {
        let qube = Qube::new();
        fs::write(qube.home().join("plain"), "no program").unwrap();
        for (program, code, said) in [
            ("no-such-program", 127, "exec: no-such-program: not found\n"),
            ("cd", 127, "exec: cd: not found\n"),
            ("./none", 127, "/none: No such file or directory\n"),
            ("./plain", 126, "/plain: Permission denied\n"),
        ] {
            let argv = texts(&[program, "-x"]);
            let command = Command { program: Program::Argv(&argv), ..Command::line(b"") };
            let (ended, kept) = with(&qube, command).await;
            assert_eq!(ended.unwrap(), Ended::Exit(code), "{program}");
            let stderr = String::from_utf8_lossy(&kept.stderr).into_owned();
            assert!(stderr.starts_with("bash: line 1: ") && stderr.contains(said), "{stderr}");
        }
    });
}

#[test]
fn a_command_begins_in_its_folder_with_its_variables() {
    block_on(async {
        let qube = Qube::new();
        for folder in ["a b", "-", "-P", "it's"] {
            fs::create_dir(qube.home().join(folder)).unwrap();
            let env = texts(&["A=x y", "PATH=/nowhere", "UID=5", "B=\n'\\"]);
            let line = b"printf '%s|' \"${PWD##*/}\" \"$A\" \"$PATH\" \"$B\"";
            let command = Command { cwd: folder.as_bytes(), env: &env, ..Command::line(line) };
            let (ended, kept) = with(&qube, command).await;
            let stdout = String::from_utf8_lossy(&kept.stdout).into_owned();
            assert_eq!(stdout, format!("{folder}|x y|/nowhere|\n'\\|"), "{ended:?}");
            assert_eq!((ended.unwrap(), kept.stderr), (Ended::Exit(0), Vec::new()));
        }
        let command = Command { cwd: b"/", ..Command::line(b"pwd; pwd >&2") };
        assert_eq!(with(&qube, command).await.1.stderr, b"/\n");
        qube.assert_empty();
    });
}

#[test]
fn a_folder_that_cannot_be_entered_is_told_and_nothing_is_run() {
    block_on(async {
        let qube = Qube::new();
        fs::write(qube.home().join("file"), "").unwrap();
        for (folder, reason) in
            [("none: x", "cwd No such file or directory"), ("file", "cwd Not a directory")]
        {
            let line = Command::line(b"touch ran");
            let (ended, kept) = with(&qube, Command { cwd: folder.as_bytes(), ..line }).await;
            assert!(matches!(ended, Err(RunError::Unready { .. })), "{ended:?}");
            assert_eq!(kept.notes, [reason]);
            assert!(!qube.home().join("ran").exists());
        }
        qube.assert_empty();
    });
}

#[test]
fn stdin_reaches_a_program_too() {
    block_on(async {
        let (qube, argv, env) = (Qube::new(), texts(&["cat", "-"]), texts(&["A=b"]));
        let command = Command { program: Program::Argv(&argv), cwd: b"/", env: &env };
        for stdin in [&b"it's\0\xff"[..], &pattern(200_000)] {
            let (mut kept, never) = (Kept::default(), CancellationToken::new());
            let runner = qube.runner();
            let ended =
                runner.command(place(60.0), &command, body_of(stdin), &mut kept, &never).await;
            assert!(ended.unwrap() == Ended::Exit(0) && kept.stdout == stdin);
        }
    });
}
