//! Calls through a program that stands for qrexec-client and hands its stdin to bash, as `qubes.VMShell` does.

mod command;
mod copies;
mod files;
mod job;
mod lists;
mod network;
mod pieces;
mod qrexec;
mod reach;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use bytes::Bytes;
use contract::Stream;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{Body, Command, Ended, Output, OutputGone, Place, Program, RunError, Runner, User};

/// A folder that is the home of a qube, and the program that leads there.
struct Qube {
    home: TempDir,
    program: TempDir,
}

impl Qube {
    fn new() -> Self {
        Self::with(
            r#"[ $# = 3 ] && [ "$1 $2" = "-d uuid:0a11ce00-0000-4000-8000-000000000001" ] || exit 99
               case $3 in "DEFAULT:QUBESRPC qubes.VMShell dom0" | "root:QUBESRPC qubes.VMShell dom0") ;; *) exit 98 ;; esac
               [ "$(env | cut -d= -f1 | sort | tr '\n' ' ')" = "OLDPWD PATH PWD SHLVL _ " ] || exit 97
               exec env --default-signal=INT,QUIT HOME="$PWD" bash"#,
        )
    }

    /// With another program instead, whose folder is the home.
    fn with(program: &str) -> Self {
        let (home, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let path = folder.path().join("qrexec-client");
        let text = format!("#!/bin/bash\ncd '{}' || exit 96\n{program}\n", home.path().display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { home, program: folder }
    }

    fn runner(&self) -> Runner {
        Runner::new(self.program.path().join("qrexec-client"))
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs a command that has a minute, and returns how it ended and its streams.
    async fn run(&self, command: &str, stdin: &[u8]) -> (Ended, Vec<u8>, Vec<u8>) {
        let mut kept = Kept::default();
        let never = CancellationToken::new();
        let ended = self.start(command, 60.0, stdin, &mut kept, &never).await.unwrap();
        (ended, kept.stdout, kept.stderr)
    }

    async fn start(
        &self,
        command: &str,
        seconds: f64,
        stdin: &[u8],
        output: &mut impl Output,
        cancel: &CancellationToken,
    ) -> Result<Ended, RunError> {
        let body = body_of(stdin);
        self.runner()
            .command(place(seconds), &Command::line(command.as_bytes()), body, output, cancel)
            .await
    }

    /// Every process that was started in the qube has its home as its folder.
    fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == self.home()) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        found
    }

    /// Waits until nothing of the qube runs; the kernel takes a moment to bury the dead.
    fn assert_empty(&self) {
        for _ in 0..2000 {
            if self.processes().is_empty() {
                return;
            }
            std::thread::yield_now();
        }
        assert_eq!(self.processes(), Vec::<String>::new());
    }
}

/// The qube's user may kill nothing; root may.
fn helpless() -> Qube {
    Qube::with(
        r#"case $3 in DEFAULT*)
             kill() {
               case $1 in
                 -USR[12] | -URG) builtin kill "$@" ;;
                 *) echo "Operation not permitted" >&2; return 1 ;;
               esac
             }
             export -f kill ;;
           esac
           exec env HOME="$PWD" bash"#,
    )
}

/// Work stays for ever between its fork and its first program, as it may for a moment on a busy machine.
fn never_begins() -> Qube {
    Qube::with(
        r#"hash() { printf go; while :; do :; done; }
           export -f hash
           exec env --default-signal=INT,QUIT HOME="$PWD" bash"#,
    )
}

/// A command with variables: the frame looks for its own programs then, which is where such work stays.
fn before_its_program(env: &[String]) -> Command<'_> {
    Command { env, ..Command::line(b"true") }
}

/// The qube of these tests, as qrexec-client is told.
const QUBE: &str = "uuid:0a11ce00-0000-4000-8000-000000000001";

fn place(seconds: f64) -> Place<'static> {
    Place { qube: QUBE, user: User::Default, deadline: Duration::from_secs_f64(seconds) }
}

fn body_of(content: &[u8]) -> Body<&[u8]> {
    Body { length: content.len().try_into().unwrap(), bytes: content }
}

/// Bytes of every value, in a row that does not repeat with the size of a block.
fn pattern(length: usize) -> Vec<u8> {
    (0..=255).chain(0..=250).cycle().take(length).collect()
}

/// Keeps everything, and cancels when stdout holds a word.
#[derive(Debug, Default)]
struct Kept {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    notes: Vec<String>,
    cancel: Option<(&'static str, CancellationToken)>,
}

impl Output for Kept {
    async fn bytes(&mut self, stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        match stream {
            Stream::Stdout => self.stdout.extend_from_slice(&bytes),
            Stream::Stderr => self.stderr.extend_from_slice(&bytes),
        }
        if let Some((word, cancel)) = &self.cancel
            && String::from_utf8_lossy(&self.stdout).contains(word)
        {
            cancel.cancel();
        }
        Ok(())
    }

    fn note(&mut self, _stream: Stream, line: &[u8]) {
        self.notes.push(String::from_utf8_lossy(line).into_owned());
    }
}

/// Runs a test's future on one thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}
