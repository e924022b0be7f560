//! The first process of a qube: qrexec's agent, init, and reaper in one.

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};
use tokio::{
    net::UnixStream,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};

use super::{Mode, Report, Setup, USER_ID, network, process, root};
use crate::{
    spawn::{self, Login},
    wire::{self, Command, Order, User},
};

/// The time that processes get to end by themselves when their qube shuts down.
const SHUTDOWN: Duration = Duration::from_millis(200);
/// The pause between two looks at what still runs.
const LOOK: Duration = Duration::from_millis(5);

/// Runs the init until the host goes away or shuts the qube down.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let setup = arguments.next().and_then(|text| serde_json::from_str(text.to_str()?).ok());
    let result = setup.ok_or_else(|| io::ErrorKind::InvalidInput.into()).and_then(serve);
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve(setup: Setup) -> io::Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    if let Err(error) = prepare(&setup) {
        wire::send(&socket, &Report::Failed(error.to_string()), &[])?;
        return Err(error);
    }
    wire::send(&socket, &Report::Ready, &[])?;
    // Orders wait in the socket meanwhile, so that no command sees half a network.
    if let (Mode::Root | Mode::UserNamespace, Some((address, gateway))) =
        (setup.mode, &setup.network)
    {
        network::configure(address, gateway);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut init = Init::new(setup);
        let result = init.work(&wire::registered(socket)?).await;
        init.end().await;
        result
    });
    runtime.shutdown_background();
    result
}

fn prepare(setup: &Setup) -> io::Result<()> {
    match setup.mode {
        Mode::Root | Mode::UserNamespace => {
            rustix::system::sethostname(setup.name.as_bytes())?;
            root::enter(setup)?;
        }
        // Orphans of the qube come back to this process, so that it finds them at the end.
        Mode::Plain => set_child_subreaper(Some(getpid()))?,
    }
    Ok(())
}

struct Init {
    setup: Setup,
    /// Where the end of each command is told.
    ends: HashMap<i32, std::fs::File>,
    paused: bool,
    /// Commands that came while the qube was paused.
    waiting: Vec<(Command, Vec<OwnedFd>)>,
}

impl Init {
    fn new(setup: Setup) -> Self {
        Self { setup, ends: HashMap::new(), paused: false, waiting: Vec::new() }
    }

    async fn work(&mut self, socket: &UnixStream) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        let mut buffer = Vec::new();
        loop {
            tokio::select! {
                _ = children.recv() => self.reap(),
                received = wire::next::<Order>(socket, &mut buffer) => match received? {
                    Some((order, descriptors)) => {
                        if !self.obey(order, descriptors) {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
            }
        }
    }

    /// False when the qube is to end.
    fn obey(&mut self, order: Order, descriptors: Vec<OwnedFd>) -> bool {
        match order {
            Order::Run(command) if self.paused => self.waiting.push((command, descriptors)),
            Order::Run(command) => self.run(&command, descriptors),
            Order::Pause => {
                self.paused = true;
                process::signal(&members(), Signal::STOP);
            }
            Order::Unpause => {
                self.paused = false;
                process::signal(&members(), Signal::CONT);
                for (command, descriptors) in std::mem::take(&mut self.waiting) {
                    self.run(&command, descriptors);
                }
            }
            Order::Shutdown => return false,
        }
        true
    }

    fn run(&mut self, command: &Command, descriptors: Vec<OwnedFd>) {
        let Ok([stdin, stdout, stderr, end]) = <[OwnedFd; 4]>::try_from(descriptors) else {
            return;
        };
        let mut end = std::fs::File::from(end);
        let (home, temporary) = self.folders(command.user);
        let programs = match self.setup.mode {
            Mode::Root | Mode::UserNamespace => Path::new("/").join(root::PROGRAMS),
            Mode::Plain => self.setup.root.join(root::PROGRAMS),
        };
        let login = Login {
            name: match command.user {
                User::Root => "root",
                User::User => "user",
            },
            id: (self.setup.mode == Mode::Root && command.user == User::User).then_some(USER_ID),
            home: &home,
            programs: &programs,
            temporary: temporary.as_deref(),
        };
        match spawn::in_qube(&login, command, [stdin, stdout, stderr]) {
            Ok(pid) => drop(i32::try_from(pid).map(|pid| self.ends.insert(pid, end))),
            Err(error) => {
                let missing = error.kind() == io::ErrorKind::NotFound;
                // The caller may be gone; then nobody wants to know.
                drop(end.write_all(&[if missing { 127 } else { 125 }]));
            }
        }
    }

    /// The home folder, and where temporary files go if that is not `/tmp`.
    fn folders(&self, user: User) -> (PathBuf, Option<PathBuf>) {
        let home = match user {
            User::Root => "root",
            User::User => "home/user",
        };
        match self.setup.mode {
            Mode::Root | Mode::UserNamespace => (Path::new("/").join(home), None),
            Mode::Plain => (self.setup.root.join(home), Some(self.setup.root.join("tmp"))),
        }
    }

    /// Takes note of every process that has ended. Orphans come here too.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(mut end) = self.ends.remove(&Pid::as_raw(Some(pid))) {
                drop(end.write_all(&[code(status)]));
            }
        }
    }

    /// Asks every process to end, and makes those end that do not.
    async fn end(&mut self) {
        let deadline = Instant::now() + SHUTDOWN;
        let pids = members();
        process::signal(&pids, Signal::TERM);
        process::signal(&pids, Signal::CONT);
        let gone = async {
            while !members().is_empty() {
                self.reap();
                sleep(LOOK).await;
            }
        };
        let in_time = timeout_at(deadline, gone).await.is_ok();
        // With a process namespace the end of this process ends all others.
        if self.setup.mode == Mode::Plain && !in_time {
            for _ in 0..100 {
                let pids = members();
                if pids.is_empty() {
                    break;
                }
                process::signal(&pids, Signal::KILL);
                self.reap();
                sleep(LOOK).await;
            }
        }
        self.reap();
    }
}

fn members() -> Vec<i32> {
    process::descendants(Pid::as_raw(Some(getpid())))
}

fn code(status: WaitStatus) -> u8 {
    let code =
        status.exit_status().or_else(|| status.terminating_signal().map(|number| 128 + number));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
