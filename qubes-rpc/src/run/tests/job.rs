//! Jobs: that they outlive their call, that their output is exact, and that they can be ended.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::run::{JobEnd, JobRange, JobRead, JobStart, JobState, Token};

/// A job in a qube.
struct Job {
    qube: Qube,
    mark: String,
}

const LONG: Duration = Duration::from_secs(3600);

impl Job {
    async fn start(command: Command<'_>, stdin: &[u8], deadline: Duration) -> Self {
        let job = Self { qube: Qube::new(), mark: Token::random().unwrap().as_str().to_owned() };
        job.begin(command, stdin, deadline).await.unwrap();
        job
    }

    async fn begin(
        &self,
        command: Command<'_>,
        stdin: &[u8],
        deadline: Duration,
    ) -> Result<Ended, RunError> {
        let start = JobStart { mark: &self.mark, command: &command, deadline };
        let (mut kept, never) = (Kept::default(), CancellationToken::new());
        let runner = self.qube.runner();
        let ended = runner.start_job(place(60.0), start, body_of(stdin), &mut kept, &never).await;
        assert!(ended.as_ref().is_ok_and(|ended| *ended == Ended::Exit(0)), "{ended:?} {kept:?}");
        ended
    }

    async fn line(line: &str) -> Self {
        Self::start(Command::line(line.as_bytes()), b"", LONG).await
    }

    async fn read(&self, from: i64, wait: u64) -> (JobRead, Vec<u8>) {
        self.range(Stream::Stdout, from, 1 << 20, wait).await.unwrap()
    }

    async fn range(
        &self,
        stream: Stream,
        from: i64,
        length: u64,
        wait: u64,
    ) -> Option<(JobRead, Vec<u8>)> {
        let (mut kept, never) = (Kept::default(), CancellationToken::new());
        let range =
            JobRange { mark: &self.mark, stream, from, length, wait: Duration::from_secs(wait) };
        let read = self.qube.runner().read_job(place(60.0), range, &mut kept, &never).await;
        read.unwrap().map(|read| (read, kept.stdout))
    }

    async fn stop(&self, forget: bool) -> JobState {
        self.qube.runner().stop_job(place(60.0), &self.mark, forget).await.unwrap().state
    }

    fn folder(&self) -> std::path::PathBuf {
        self.qube.home().join(".salt-bridge/jobs").join(&self.mark)
    }
}

#[test]
fn a_job_outlives_its_call_and_its_output_and_code_are_kept() {
    block_on(async {
        let job =
            Job::line("mkfifo go; echo begun; echo wrong >&2; read line <go; echo $line; exit 3")
                .await;
        let (read, bytes) = job.read(0, 60).await;
        assert_eq!((read.state, bytes), (JobState::Running, b"begun\n".to_vec()));
        assert!(!job.qube.processes().is_empty());
        fs::write(job.qube.home().join("go"), "went on\n").unwrap();
        let (read, bytes) = job.read(-100, 60).await;
        assert!(matches!(read.state, JobState::Ended(JobEnd::Exit(3), at) if at > 1_700_000_000));
        assert_eq!((read.stdout_bytes, read.stderr_bytes, read.begin), (14, 6, 0));
        assert_eq!(bytes, b"begun\nwent on\n");
        let (read, bytes) = job.range(Stream::Stderr, 2, 3, 0).await.unwrap();
        assert_eq!((read.begin, bytes), (2, b"ong".to_vec()));
        job.qube.assert_empty();
        assert_eq!(job.stop(false).await, read.state);
        assert_eq!(fs::metadata(job.folder()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(job.stop(true).await, read.state);
        assert!(!job.folder().exists());
        assert_eq!(job.range(Stream::Stdout, 0, 9, 0).await, None);
    });
}

#[test]
fn a_job_has_its_folder_variables_input_and_mask_and_nothing_of_ours_but_the_mark() {
    block_on(async {
        let (argv, env) = (
            [
                "bash",
                "-c",
                "pwd; echo $A; umask; cat; ls /proc/self/fd | tr '\\n' ' '; env | grep -c SALT",
            ]
            .map(str::to_owned),
            ["A=it's".to_owned()],
        );
        let command = Command { program: Program::Argv(&argv), cwd: b"/", env: &env };
        for stdin in [b"in\n".to_vec(), [&b"x".repeat(100_000)[..], b"\n"].concat()] {
            let job = Job::start(command, &stdin, LONG).await;
            let (_, bytes) = job.read(-200_000, 60).await;
            let text = String::from_utf8(bytes).unwrap();
            let rest = text.strip_prefix("/\nit's\n").unwrap();
            let rest = rest.replace(&"x".repeat(100_000), "in");
            assert_eq!(rest, "0022\nin\n0 1 2 3 1\n");
            job.qube.assert_empty();
        }
    });
}

#[test]
fn of_much_output_the_first_and_the_last_pieces_are_kept_and_counted_exactly() {
    block_on(async {
        let job = Job::line("seq 1 5000000").await;
        let (read, bytes) = job.read(-20, 60).await;
        assert_eq!(read.stdout_bytes, 38_888_896);
        assert!(bytes.ends_with(b"4999999\n5000000\n"));
        let (_, first) = job.read(0, 0).await;
        assert!(first.starts_with(b"1\n2\n3\n") && first.len() == 1 << 20);
        let piece = i64::try_from(contract::limits::JOB_PIECE_BYTES).unwrap();
        let (read, later) = job.read(piece + 5, 0).await;
        let expected = 38_888_896 / contract::limits::JOB_PIECE_BYTES - 6;
        assert_eq!(read.begin, expected * contract::limits::JOB_PIECE_BYTES);
        assert_eq!(later.len(), 1 << 20);
        let kept: u64 = fs::read_dir(job.folder())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(kept <= contract::limits::JOB_PIECE_BYTES * contract::limits::JOB_PIECES + 4096);
        job.qube.assert_empty();
    });
}

#[test]
fn a_stopped_job_is_dead_with_its_children_whatever_they_do() {
    block_on(async {
        let command = "trap '' TERM HUP; echo go; (setsid sleep 98765 &); sleep 98765 & sleep 98765; sleep 98765";
        let job = Job::line(command).await;
        job.read(0, 60).await;
        let state = job.stop(false).await;
        assert!(matches!(state, JobState::Ended(JobEnd::Stopped, _)), "{state:?}");
        job.qube.assert_empty();
        assert_eq!(job.read(0, 0).await.1, b"go\n");
    });
}

#[test]
fn a_job_that_is_stopped_before_its_first_program_begins_is_dead() {
    block_on(async {
        let mark = Token::random().unwrap().as_str().to_owned();
        let job = Job { qube: never_begins(), mark };
        let env = ["A=b".to_owned()];
        job.begin(before_its_program(&env), b"", LONG).await.unwrap();
        assert!(matches!(job.stop(false).await, JobState::Ended(JobEnd::Stopped, _)));
        job.qube.assert_empty();
    });
}

#[test]
fn a_job_ends_at_its_deadline() {
    block_on(async {
        let job =
            Job::start(Command::line(b"echo go; sleep 98765"), b"", Duration::from_secs(1)).await;
        let (read, bytes) = job.read(-100, 60).await;
        assert!(matches!(read.state, JobState::Ended(JobEnd::TimedOut, _)), "{read:?}");
        assert_eq!(bytes, b"go\n");
        job.qube.assert_empty();
    });
}

#[test]
fn a_job_whose_guard_was_killed_is_lost_and_can_still_be_stopped() {
    block_on(async {
        let job = Job::line("echo go; exec sleep 98765").await;
        job.read(0, 60).await;
        let guard = fs::read_to_string(job.folder().join("guard")).unwrap();
        let pid: i32 = guard.split(' ').next().unwrap().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let (read, _) = job.read(-1, 60).await;
        assert_eq!(read.state, JobState::Lost);
        assert_eq!(job.stop(false).await, JobState::Lost);
        job.qube.assert_empty();
    });
}

#[test]
fn a_job_that_was_never_begun_is_stopped_already_and_a_missing_folder_hides_none() {
    block_on(async {
        let mark = Token::random().unwrap().as_str().to_owned();
        let job = Job { qube: Qube::new(), mark };
        assert_eq!(job.stop(false).await, JobState::Lost);
        job.begin(Command::line(b"echo go; sleep 98765"), b"", LONG).await.unwrap();
        job.read(0, 60).await;
        fs::remove_dir_all(job.folder()).unwrap();
        job.stop(true).await;
        for _ in 0..2000 {
            if !job.qube.processes().iter().any(|line| line.contains("98765")) {
                break;
            }
            std::thread::yield_now();
        }
        assert!(!job.qube.processes().iter().any(|line| line.contains("98765")));
    });
}

#[test]
fn several_jobs_are_told_apart_by_their_marks() {
    block_on(async {
        let one = Job::line("echo one").await;
        one.read(-1, 60).await;
        let marks = [one.mark.clone(), "0".repeat(32)];
        let states = one.qube.runner().job_states(place(60.0), &marks).await.unwrap();
        assert_eq!(states.len(), 2);
        assert_eq!((&states[0].0, states[0].1.stdout_bytes), (&one.mark, 4));
        assert!(matches!(states[0].1.state, JobState::Ended(JobEnd::Exit(0), _)));
        assert_eq!(states[1].1.state, JobState::Lost);
    });
}

#[test]
fn what_a_job_detached_goes_on_and_does_not_keep_its_end_back() {
    block_on(async {
        let command = "mkfifo go; setsid sh -c '>apart; read x <go; echo late' & \
                       until [ -e apart ]; do :; done; echo done";
        let job = Job::line(command).await;
        let (read, bytes) = job.read(-100, 60).await;
        assert!(matches!(read.state, JobState::Ended(JobEnd::Exit(0), _)), "{read:?}");
        assert_eq!(bytes, b"done\n");
        fs::write(job.qube.home().join("go"), "x\n").unwrap();
        job.qube.assert_empty();
        assert_eq!(job.read(0, 0).await.1, b"done\nlate\n");
    });
}

/// A process that is not the job's, in a session of its own.
async fn stranger(qube: &Qube, seconds: u32) -> i32 {
    let (ended, stdout, _) = qube
        .run(&format!("setsid sleep {seconds} >/dev/null 2>&1 & echo $!; sleep 0.1"), b"")
        .await;
    assert_eq!(ended, Ended::Exit(0));
    String::from_utf8(stdout).unwrap().trim().parse().unwrap()
}

fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn root_kills_what_comes_from_a_job_and_nothing_that_its_user_names() {
    block_on(async {
        let qube = helpless();
        let other = stranger(&qube, 98764).await;
        let mark = Token::random().unwrap().as_str().to_owned();
        let job = Job { qube, mark };
        let command = "echo go; (setsid sleep 98765 &); env -i sleep 98765; true";
        job.begin(Command::line(command.as_bytes()), b"", LONG).await.unwrap();
        job.read(0, 60).await;
        let path = job.folder().join("guard");
        let guard = fs::read_to_string(&path).unwrap();
        let (front, _) = guard.trim().rsplit_once(' ').unwrap();
        fs::write(path, format!("{front} {other}\n")).unwrap();
        job.stop(false).await;
        assert!(lives(other), "a process that the user named was killed by root");
        kill(other);
        // Its guard could not end the clock that it started, but root could.
        job.qube.assert_empty();
    });
}

#[test]
fn root_ends_the_rest_of_a_group_only_where_it_comes_from_the_work() {
    block_on(async {
        let qube = helpless();
        let other = stranger(&qube, 98763).await;
        let runner = qube.runner();
        let mark = Token::random().unwrap();
        for whole in [false, true] {
            runner.sweep(place(60.0), &other.to_string(), mark.as_str(), whole).await.unwrap();
            assert!(lives(other));
        }
        kill(other);
        qube.assert_empty();
    });
}
