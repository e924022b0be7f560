//! Reading and writing files.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, fs::symlink},
};

use sha2::{Digest, Sha256};

use super::*;
use crate::run::{FileFailure, FileRange, FileRead, FileWrite, FileWritten};

const ODD: [&[u8]; 9] = [
    b"plain",
    b"it's \"quoted\"",
    b"two\nlines",
    b"trailing\n",
    b"-rf",
    b"\xff\xfe",
    b" $(touch x)`y` ",
    b"*?[a]\\n%s",
    b"\x01\x1e: No such file",
];

const PLAIN: FileWrite<'static> = FileWrite {
    path: b"file",
    mode: None,
    append: false,
    create_only: false,
    if_sha256: None,
    if_length: None,
    modified: None,
};

async fn read(
    qube: &Qube,
    path: &[u8],
    offset: u64,
    length: Option<u64>,
) -> Result<(FileRead, Vec<u8>), FileFailure> {
    let (mut kept, never) = (Kept::default(), CancellationToken::new());
    let range = FileRange { path, offset, length, digest: false, watch: false };
    let read = qube.runner().read_file(place(20.0), range, &mut kept, &never).await?;
    assert_eq!(kept.stderr, b"");
    Ok((read, kept.stdout))
}

async fn write(
    qube: &Qube,
    file: FileWrite<'_>,
    content: &[u8],
) -> Result<FileWritten, FileFailure> {
    let body = body_of(content);
    let written =
        qube.runner().write_file(place(20.0), file, body, &CancellationToken::new()).await;
    let left = fs::read_dir(qube.home()).unwrap().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| name.as_bytes().starts_with(b".salt-bridge")).collect();
    assert!(left.is_empty(), "{left:?}");
    written
}

#[test]
fn files_of_any_name_are_written_and_read_back() {
    block_on(async {
        let qube = Qube::new();
        for (n, name) in ODD.into_iter().enumerate() {
            let content = format!("content {n} no newline").into_bytes();
            let path = [b"a/b c/", name].concat();
            let written = write(&qube, FileWrite { path: &path, ..PLAIN }, &content).await.unwrap();
            let absolute = qube.home().join(OsStr::from_bytes(&path));
            let expected = FileWritten {
                path: absolute.as_os_str().as_bytes().to_vec(),
                bytes: body_of(&content).length,
                created: true,
            };
            assert_eq!(written, expected);
            assert_eq!(fs::read(&absolute).unwrap(), content);
            let (_, bytes) = read(&qube, &path, 0, None).await.unwrap();
            assert_eq!(bytes, content);
        }
        qube.assert_empty();
    });
}

#[test]
fn content_is_exact_whether_short_or_long() {
    block_on(async {
        let qube = Qube::new();
        for length in [0, 1, 100, 32 * 1024, 32 * 1024 + 1, 3_000_000] {
            let content = pattern(length);
            let size = body_of(&content).length;
            let written = write(&qube, PLAIN, &content).await.unwrap();
            assert_eq!((written.bytes, written.created), (size, length == 0));
            let (read, bytes) = read(&qube, b"file", 0, None).await.unwrap();
            assert!(bytes == content);
            assert!((read.size, read.bytes) == (size, size) && read.regular && read.eof);
        }
    });
}

#[test]
fn ranges_are_exact_also_far_behind_the_beginning() {
    block_on(async {
        let qube = Qube::new();
        let sparse = fs::File::create(qube.home().join("file")).unwrap();
        let size = 5 << 40;
        sparse.set_len(size).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"0123456789", size - 10).unwrap();
        let (range, bytes) = read(&qube, b"file", size - 8, Some(3)).await.unwrap();
        assert_eq!((range.size, range.eof, &bytes[..]), (size, false, &b"234"[..]));
        let (range, bytes) = read(&qube, b"file", size - 3, Some(3)).await.unwrap();
        assert_eq!((range.eof, &bytes[..]), (true, &b"789"[..]));
        let (range, bytes) = read(&qube, b"file", size - 3, None).await.unwrap();
        assert_eq!((range.eof, &bytes[..]), (true, &b"789"[..]));
        for offset in [size, size + 100, u64::MAX] {
            let (range, bytes) = read(&qube, b"file", offset, Some(u64::MAX)).await.unwrap();
            assert_eq!((range.eof, &bytes[..]), (true, &b""[..]));
        }
        let (range, bytes) = read(&qube, b"file", 5, Some(0)).await.unwrap();
        assert_eq!((range.eof, bytes.len()), (false, 0));
    });
}

#[test]
fn special_files_are_read_as_far_as_they_go() {
    block_on(async {
        let qube = Qube::new();
        let (status, bytes) = read(&qube, b"/proc/self/status", 0, None).await.unwrap();
        assert!(status.size == 0 && status.eof && bytes.starts_with(b"Name:"));
        let (zero, bytes) = read(&qube, b"/dev/zero", 0, Some(70_000)).await.unwrap();
        assert!(!zero.regular && bytes.len() == 70_000);
        let never = CancellationToken::new();
        rustix::fs::mkfifoat(rustix::fs::CWD, qube.home().join("pipe"), rustix::fs::Mode::RWXU)
            .unwrap();
        let range =
            FileRange { path: b"pipe", offset: 0, length: None, digest: false, watch: false };
        let mut kept = Kept::default();
        let failure =
            qube.runner().read_file(place(0.3), range, &mut kept, &never).await.unwrap_err();
        assert!(matches!(failure, FileFailure::TimedOut), "{failure:?}");
        qube.assert_empty();
    });
}

#[test]
fn failures_to_read_have_their_reasons() {
    block_on(async {
        let qube = Qube::new();
        fs::write(qube.home().join("file"), b"").unwrap();
        let failure = |path: &'static [u8]| {
            let qube = &qube;
            async move { read(qube, path, 0, None).await.unwrap_err().to_string() }
        };
        assert_eq!(failure(b"nope: Permission denied").await, "no such file or directory");
        assert_eq!(failure(b"").await, "no such file or directory");
        assert_eq!(failure(b"/etc").await, "is a directory");
        assert_eq!(failure(b"file/x").await, "not a directory");
        symlink("loop", qube.home().join("loop")).unwrap();
        assert_eq!(failure(b"loop").await, "Too many levels of symbolic links");
    });
}

#[test]
fn a_replaced_file_keeps_its_mode_and_gets_a_new_time() {
    block_on(async {
        let qube = Qube::new();
        let path = qube.home().join("file");
        fs::write(&path, b"old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
        let old = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
        fs::File::open(&path).unwrap().set_modified(old).unwrap();
        let before = fs::metadata(&path).unwrap();
        let written = write(&qube, PLAIN, b"new").await.unwrap();
        let after = fs::metadata(&path).unwrap();
        assert!(!written.created && after.ino() != before.ino());
        assert_eq!(after.mode() & 0o777, 0o751);
        assert!(after.modified().unwrap() > old + Duration::from_secs(1000));
        write(&qube, FileWrite { mode: Some(0o600), ..PLAIN }, b"x").await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        write(&qube, FileWrite { path: b"new", mode: Some(0o6640), ..PLAIN }, b"").await.unwrap();
        assert_eq!(fs::metadata(qube.home().join("new")).unwrap().mode() & 0o777, 0o640);
    });
}

#[test]
fn a_symlink_stays_one_and_its_target_is_written() {
    block_on(async {
        let qube = Qube::new();
        fs::create_dir(qube.home().join("d")).unwrap();
        symlink("d/target\n", qube.home().join("link")).unwrap();
        for (content, created) in [(b"one", true), (b"two", false)] {
            let written =
                write(&qube, FileWrite { path: b"link", ..PLAIN }, content).await.unwrap();
            assert_eq!(written.created, created);
            assert!(written.path.ends_with(b"/d/target\n"));
            assert_eq!(fs::read(qube.home().join("d/target\n")).unwrap(), content);
            assert!(qube.home().join("link").is_symlink());
        }
        symlink("nowhere/file", qube.home().join("dangling")).unwrap();
        let failure =
            write(&qube, FileWrite { path: b"dangling", ..PLAIN }, b"").await.unwrap_err();
        assert!(matches!(failure, FileFailure::NotFound), "{failure:?}");
        symlink("loop", qube.home().join("loop")).unwrap();
        assert!(write(&qube, FileWrite { path: b"loop", ..PLAIN }, b"").await.is_err());
    });
}

#[test]
fn appending_appends() {
    block_on(async {
        let qube = Qube::new();
        let append = FileWrite { append: true, ..PLAIN };
        assert!(write(&qube, append, b"one\n").await.unwrap().created);
        let long = vec![b'x'; 100_000];
        assert!(!write(&qube, append, &long).await.unwrap().created);
        write(&qube, append, b"").await.unwrap();
        let all = fs::read(qube.home().join("file")).unwrap();
        assert!(all.len() == 100_004 && all.starts_with(b"one\nxx"));
    });
}

#[test]
fn what_exists_is_not_created() {
    block_on(async {
        let qube = Qube::new();
        let create = FileWrite { create_only: true, ..PLAIN };
        assert!(write(&qube, create, b"first").await.unwrap().created);
        let failure = write(&qube, create, b"second").await.unwrap_err();
        assert!(matches!(failure, FileFailure::Exists), "{failure:?}");
        assert_eq!(fs::read(qube.home().join("file")).unwrap(), b"first");
        symlink("nowhere", qube.home().join("link")).unwrap();
        let link = FileWrite { path: b"link", ..create };
        assert!(matches!(write(&qube, link, b"").await, Err(FileFailure::Exists)));
    });
}

#[test]
fn a_changed_file_is_not_replaced_and_its_digest_is_told() {
    block_on(async {
        let qube = Qube::new();
        let hex = |content: &[u8]| -> String {
            Sha256::digest(content).iter().map(|byte| format!("{byte:02X}")).collect()
        };
        let (old, new) = (hex(b"old"), hex(b"new"));
        let missing = write(&qube, FileWrite { if_sha256: Some(&old), ..PLAIN }, b"new").await;
        assert!(matches!(missing, Err(FileFailure::Changed { actual: None })), "{missing:?}");
        fs::write(qube.home().join("file"), b"old").unwrap();
        write(&qube, FileWrite { if_sha256: Some(&old), ..PLAIN }, b"new").await.unwrap();
        let changed = write(&qube, FileWrite { if_sha256: Some(&old), ..PLAIN }, b"x").await;
        let Err(FileFailure::Changed { actual: Some(actual) }) = changed else {
            panic!("{changed:?}")
        };
        assert_eq!(actual, new.to_lowercase());
        assert_eq!(fs::read(qube.home().join("file")).unwrap(), b"new");
    });
}

#[test]
fn a_body_cut_short_changes_nothing_and_leaves_nothing() {
    block_on(async {
        let qube = Qube::new();
        fs::write(qube.home().join("file"), b"old").unwrap();
        for (append, length) in [(false, 1000), (false, 1_000_000), (true, 1000), (true, 1_000_000)]
        {
            let body = Body { length, bytes: &b"short"[..] };
            let file = FileWrite { append, ..PLAIN };
            let never = CancellationToken::new();
            let failure =
                qube.runner().write_file(place(20.0), file, body, &never).await.unwrap_err();
            assert!(matches!(failure, FileFailure::Run(RunError::BodyCut)), "{failure:?}");
        }
        let names: Vec<_> =
            fs::read_dir(qube.home()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read(qube.home().join("file")).unwrap(), b"old");
        qube.assert_empty();
    });
}

#[test]
fn devices_and_pipes_are_written_through() {
    block_on(async {
        let qube = Qube::new();
        let null = FileWrite { path: b"/dev/null", ..PLAIN };
        assert!(!write(&qube, null, b"gone").await.unwrap().created);
        let full = write(&qube, FileWrite { path: b"/dev/full", ..PLAIN }, b"x").await;
        assert!(matches!(full, Err(FileFailure::NoSpace)), "{full:?}");
        rustix::fs::mkfifoat(rustix::fs::CWD, qube.home().join("pipe"), rustix::fs::Mode::RWXU)
            .unwrap();
        let (file, never) = (FileWrite { path: b"pipe", ..PLAIN }, CancellationToken::new());
        let body = Body { length: 1, bytes: &b"x"[..] };
        let failure = qube.runner().write_file(place(0.3), file, body, &never).await.unwrap_err();
        assert!(matches!(failure, FileFailure::TimedOut), "{failure:?}");
        qube.assert_empty();
    });
}

#[test]
fn failures_to_write_have_their_reasons() {
    block_on(async {
        let qube = Qube::new();
        fs::write(qube.home().join("plain"), b"").unwrap();
        let failure = |path: &'static [u8]| {
            let qube = &qube;
            async move { write(qube, FileWrite { path, ..PLAIN }, b"x").await.unwrap_err().to_string() }
        };
        assert_eq!(failure(b"/etc").await, "is a directory");
        assert_eq!(failure(b"new/").await, "is a directory");
        assert_eq!(failure(b"").await, "is a directory");
        assert_eq!(failure(b"plain/x").await, "not a directory");
        assert_eq!(failure(b"/proc/nope/x").await, "no such file or directory");
    });
}

/// The qube's user is nobody where the test may choose, and otherwise whoever runs the test.
fn unprivileged() -> Qube {
    let qube = Qube::with(
        "[ $EUID = 0 ] || exec bash; exec setpriv --reuid=65534 --regid=65534 --clear-groups bash",
    );
    fs::set_permissions(qube.home(), fs::Permissions::from_mode(0o777)).unwrap();
    qube
}

#[test]
fn what_the_user_may_not_do_is_refused() {
    block_on(async {
        let qube = unprivileged();
        fs::create_dir(qube.home().join("closed")).unwrap();
        fs::write(qube.home().join("closed/file"), b"old").unwrap();
        fs::write(qube.home().join("secret"), b"old").unwrap();
        for (name, mode) in [("closed", 0o555), ("closed/file", 0o444), ("secret", 0)] {
            fs::set_permissions(qube.home().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let denied = read(&qube, b"secret", 0, None).await;
        assert!(matches!(denied, Err(FileFailure::PermissionDenied)), "{denied:?}");
        for path in [
            &b"secret"[..],
            b"closed/new",
            b"closed/file",
            b"closed/a/b",
            b"/proc/sys/kernel/ostype",
        ] {
            let denied = write(&qube, FileWrite { path, ..PLAIN }, b"x").await;
            assert!(matches!(denied, Err(FileFailure::PermissionDenied)), "{denied:?}");
        }
        fs::set_permissions(qube.home().join("closed"), fs::Permissions::from_mode(0o755)).unwrap();
    });
}

#[test]
fn a_file_that_cannot_be_replaced_is_written_in_place() {
    block_on(async {
        let qube = unprivileged();
        fs::create_dir(qube.home().join("closed")).unwrap();
        for name in ["closed/file", "foreign"] {
            let path = qube.home().join(name);
            fs::write(&path, b"old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        }
        fs::set_permissions(qube.home().join("closed"), fs::Permissions::from_mode(0o555)).unwrap();
        for name in ["closed/file", "foreign"] {
            for content in [b"new".to_vec(), vec![b'x'; 100_000]] {
                let path = qube.home().join(name);
                let before = fs::metadata(&path).unwrap();
                let file = FileWrite { path: name.as_bytes(), ..PLAIN };
                assert!(!write(&qube, file, &content).await.unwrap().created);
                let after = fs::metadata(&path).unwrap();
                assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
                assert_eq!(fs::read(&path).unwrap(), content);
            }
        }
        fs::set_permissions(qube.home().join("closed"), fs::Permissions::from_mode(0o755)).unwrap();
    });
}
