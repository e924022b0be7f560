//! What qrexec-client itself can do wrong.

use super::*;

fn error_of(program: &str) -> RunError {
    block_on(async {
        let qube = Qube::with(program);
        let never = CancellationToken::new();
        let mut kept = Kept::default();
        let error = qube.start("echo hi", 0.3, b"", &mut kept, &never).await.unwrap_err();
        assert_eq!(kept.stdout, b"");
        error
    })
}

#[test]
fn the_codes_of_qrexec_before_a_first_line_are_its_own() {
    let error = error_of("echo 'no such file' >&2; exit 125");
    assert!(matches!(&error, RunError::CannotExecute { message } if message == "no such file"));
    let error = error_of("echo 'Request refused' >&2; exit 126");
    assert!(matches!(&error, RunError::Refused { message } if message == "Request refused"));
    let error = error_of("exit 127");
    assert!(matches!(&error, RunError::NotFound { message } if message.is_empty()));
}

#[test]
fn an_end_without_the_last_line_is_no_end_whatever_the_code() {
    assert!(matches!(error_of("exit 0"), RunError::Vanished { status: Some(0), .. }));
    assert!(matches!(error_of("kill -9 $$"), RunError::Vanished { status: None, .. }));
    assert!(matches!(error_of("head -c 100 >/dev/null; exit 3"), RunError::Vanished { .. }));
}

#[test]
fn a_program_that_is_not_there_is_missing() {
    block_on(async {
        let never = CancellationToken::new();
        let runner = Runner::new("/nonexistent/qrexec-client".into());
        let mut kept = Kept::default();
        let error = runner
            .command(place(1.0), &Command::line(b"true"), Body::empty(), &mut kept, &never)
            .await;
        assert!(matches!(error, Err(RunError::NotStarted(_))));
    });
}

#[test]
fn a_frame_killed_by_its_own_command_vanished() {
    block_on(async {
        let qube = Qube::new();
        let mut kept = Kept::default();
        let never = CancellationToken::new();
        let command = "echo out; kill -9 $PPID; exit 0";
        let error = qube.start(command, 60.0, b"", &mut kept, &never).await.unwrap_err();
        assert!(matches!(error, RunError::Vanished { .. }), "{error:?}");
        assert_eq!(kept.stdout, b"out\n");
    });
}

#[test]
fn silence_is_given_up_after_the_deadline_and_the_time_to_kill() {
    block_on(async {
        tokio::time::pause();
        let qube = Qube::with("exec sleep 600");
        let never = CancellationToken::new();
        let error = qube.start("true", 1.0, b"", &mut Kept::default(), &never).await.unwrap_err();
        assert!(matches!(error, RunError::Stalled), "{error:?}");
        qube.assert_empty();
    });
}

#[test]
fn what_qrexec_client_itself_says_meanwhile_is_not_the_commands() {
    block_on(async {
        let log = "2026-11-22 07:14:11.123 qrexec-client[$$]: process_io.c:9:f: vchan closed";
        let qube = Qube::with(&format!(
            r#"bash <&0 & {{ wait $!; }} 2>/dev/null; echo "{log}" >&2; exit 255"#
        ));
        let mut kept = Kept::default();
        let never = CancellationToken::new();
        let command = "echo one >&2; kill -9 $PPID; sleep 0.1";
        let error = qube.start(command, 60.0, b"", &mut kept, &never).await.unwrap_err();
        assert!(matches!(error, RunError::Vanished { .. }), "{error:?}");
        assert_eq!(String::from_utf8_lossy(&kept.stderr), "one\n");
    });
}
