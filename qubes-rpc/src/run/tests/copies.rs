//! Copies between two qubes: their programs stand for those of Qubes, with `tar` for the stream.

use super::*;
use crate::run::{CopyFailure, FileCopied, FileCopy, FileFailure};

/// The qube that has what is copied.
const FROM: &str = "uuid:0a11ce00-0000-4000-8000-0000000000aa";

/// A qube whose programs are these: the agent gets a path, the unpacker a folder.
fn qube(agent: &str, unpacker: &str) -> Qube {
    let qube = Qube::with(r#"PATH=${0%/*}:$PATH; exec env -u _ --default-signal=INT,QUIT bash"#);
    for (name, text) in [("qfile-agent", agent), ("qfile-unpacker", unpacker)] {
        let path = qube.program.path().join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    qube
}

const AGENT: &str =
    r#"cd "${1%/*}" && tar c -- "${1##*/}" && exec 1>&- && read -r said && [ "$said" = whole ]"#;
const UNPACKER: &str = r#"cd "$2" && tar x && echo whole"#;

/// What qrexec-client of dom0 is: it leads to the qube that is named.
struct Two {
    from: Qube,
    to: Qube,
    _dom0: TempDir,
    runner: Runner,
}

fn two(agent: &str, unpacker: &str) -> Two {
    let (from, to) = (qube(agent, "exit 9"), qube("exit 9", unpacker));
    let dom0 = TempDir::new().unwrap();
    let path = dom0.path().join("qrexec-client");
    let client = |qube: &Qube| qube.program.path().join("qrexec-client").display().to_string();
    let text = format!(
        "#!/bin/bash\ncase $2 in {FROM}) exec '{}' \"$@\" ;; *) exec '{}' \"$@\" ;; esac\n",
        client(&from),
        client(&to)
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Two { from, to, _dom0: dom0, runner: Runner::new(path) }
}

impl Two {
    async fn copy(
        &self,
        overwrite: bool,
        seconds: f64,
        cancel: &CancellationToken,
    ) -> Result<FileCopied, CopyFailure> {
        let copy = FileCopy {
            from: Place { qube: FROM, ..place(seconds) },
            source: b"what's\nit",
            to: Place { qube: QUBE, ..place(20.0) },
            target: b"new/copy",
            recursive: true,
            overwrite,
        };
        let copied = self.runner.copy_files(copy, &mut |_| {}, cancel).await;
        let folder = self.to.home().join("new");
        let left = fs::read_dir(folder).into_iter().flatten().flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name().into_string().unwrap()).collect();
        assert!(left.iter().all(|name| name == "copy"), "{left:?}");
        self.from.assert_empty();
        self.to.assert_empty();
        copied
    }

    fn copied(&self) -> std::path::PathBuf {
        self.to.home().join("new/copy")
    }
}

#[test]
fn a_copy_of_any_length_is_exact_and_replaces_only_when_asked() {
    block_on(async {
        let (two, never) = (two(AGENT, UNPACKER), CancellationToken::new());
        let source = two.from.home().join("what's\nit");
        fs::write(&source, pattern(5_000_000)).unwrap();
        let copied = two.copy(false, 20.0, &never).await.unwrap();
        assert!(copied.created && copied.bytes > 5_000_000 && copied.path.ends_with(b"/new/copy"));
        assert!(fs::read(two.copied()).unwrap() == pattern(5_000_000));
        fs::write(&source, b"second").unwrap();
        let exists = two.copy(false, 20.0, &never).await;
        assert!(matches!(exists, Err(CopyFailure::Target(FileFailure::Exists))), "{exists:?}");
        assert!(!two.copy(true, 20.0, &never).await.unwrap().created);
        assert_eq!(fs::read(two.copied()).unwrap(), b"second");
        fs::remove_file(&source).unwrap();
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::write(source.join("sub/file"), b"third").unwrap();
        fs::set_permissions(source.join("sub"), fs::Permissions::from_mode(0o555)).unwrap();
        for _ in 0..2 {
            assert!(!two.copy(true, 20.0, &never).await.unwrap().created);
            assert_eq!(fs::read(two.copied().join("sub/file")).unwrap(), b"third");
        }
        for top in [source, two.copied()] {
            fs::set_permissions(top.join("sub"), fs::Permissions::from_mode(0o755)).unwrap();
        }
    });
}

#[test]
fn whatever_breaks_off_leaves_what_was_there() {
    block_on(async {
        for (agent, unpacker, side) in [
            ("exit 0", UNPACKER, ""),
            ("head -c 100000 /dev/zero; exit 1", UNPACKER, "Source"),
            (AGENT, "exit 1", "Target"),
            (AGENT, "head -c 100 >/dev/null; echo 'x: No space left' >&2; exit 28", "Target"),
            (AGENT, r#"cd "$2" && tar x && echo half"#, "Source"),
            (AGENT, r#"cd "$2" && tar x && touch second && echo whole"#, "Target"),
            ("printf '%0100000d' 1; kill -KILL $$", "cat >/dev/null; exit 3", ""),
        ] {
            let (two, never) = (two(agent, unpacker), CancellationToken::new());
            fs::write(two.from.home().join("what's\nit"), pattern(3_000_000)).unwrap();
            fs::create_dir(two.to.home().join("new")).unwrap();
            fs::write(two.copied(), b"old").unwrap();
            let failure = two.copy(true, 20.0, &never).await.unwrap_err();
            assert!(format!("{failure:?}").starts_with(side), "{agent} {unpacker} {failure:?}");
            assert_eq!(fs::read(two.copied()).unwrap(), b"old");
        }
    });
}

#[test]
fn a_copy_ends_when_it_is_cancelled_and_at_its_deadline() {
    block_on(async {
        let (two, cancel) = (two("cat /dev/zero", "cat >/dev/null"), CancellationToken::new());
        fs::write(two.from.home().join("what's\nit"), b"").unwrap();
        let late = two.copy(false, 1.0, &cancel).await;
        assert!(matches!(late, Err(CopyFailure::Source(FileFailure::TimedOut))), "{late:?}");
        let soon = cancel.clone();
        let cancelled = async {
            while fs::read_dir(two.to.home().join("new")).unwrap().next().is_none() {
                tokio::task::yield_now().await;
            }
            soon.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            copied = two.copy(false, 60.0, &cancel) => {
                let cancelled = matches!(copied, Err(CopyFailure::Source(FileFailure::Cancelled)
                    | CopyFailure::Target(FileFailure::Cancelled)));
                assert!(cancelled, "{copied:?}");
            }
            () = cancelled => {}
        }
    });
}

#[test]
fn a_side_that_cannot_begin_says_why() {
    block_on(async {
        let (two, never) = (two(AGENT, UNPACKER), CancellationToken::new());
        let missing = two.copy(false, 20.0, &never).await;
        assert!(matches!(missing, Err(CopyFailure::Source(FileFailure::NotFound))), "{missing:?}");
        assert_eq!(fs::read_dir(two.to.home().join("new")).unwrap().count(), 0);
    });
}
