//! Files in pieces: written behind a known length, moved to their place, fetched and told by digest.

use std::os::unix::fs::{MetadataExt, symlink};

use sha2::{Digest, Sha256};

use super::*;
use crate::run::{
    DirectoryMake, FileFailure, FileMove, FileRange, FileRead, FileWrite, FileWritten,
};

const PART: FileWrite<'static> = FileWrite {
    path: b"part",
    mode: None,
    append: false,
    create_only: false,
    if_sha256: None,
    if_length: None,
    modified: None,
};
const MOVE: FileMove<'static> =
    FileMove { from: b"part", to: b"file", mode: None, create_only: false, modified: None };
const DIRECTORY: DirectoryMake<'static> =
    DirectoryMake { path: b"dir/deep/", mode: None, create_only: false, modified: None };

async fn piece(qube: &Qube, at: u64, content: &[u8]) -> Result<FileWritten, FileFailure> {
    let behind = (at > 0).then_some(at);
    let file = FileWrite { append: behind.is_some(), if_length: behind, ..PART };
    let never = CancellationToken::new();
    qube.runner().write_file(place(20.0), file, body_of(content), &never).await
}

async fn moved(qube: &Qube, file: FileMove<'_>) -> Result<FileWritten, FileFailure> {
    let moved = qube.runner().move_file(place(20.0), file, &CancellationToken::new()).await;
    assert_no_leftovers(qube.home());
    moved
}

async fn made(qube: &Qube, directory: DirectoryMake<'_>) -> Result<FileWritten, FileFailure> {
    qube.runner().make_directory(place(20.0), directory, &CancellationToken::new()).await
}

async fn fetch(qube: &Qube, range: FileRange<'_>) -> Result<(FileRead, Vec<u8>), FileFailure> {
    let (mut kept, never) = (Kept::default(), CancellationToken::new());
    let read = qube.runner().read_file(place(20.0), range, &mut kept, &never).await?;
    Ok((read, kept.stdout))
}

fn assert_no_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert!(!name.starts_with(".salt-bridge"), "{name}");
    }
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn pieces_go_behind_the_length_that_was_expected_and_nowhere_else() {
    block_on(async {
        let qube = Qube::new();
        let whole = pattern(200_000);
        for (from, to) in [(0, 5), (5, 100_000), (100_000, 100_001), (100_001, 200_000)] {
            let at = from.try_into().unwrap();
            piece(&qube, at, &whole[from..to]).await.unwrap();
        }
        assert!(fs::read(qube.home().join("part")).unwrap() == whole);
        for wrong in [1, 199_999, 200_001] {
            let failure = piece(&qube, wrong, b"x").await.unwrap_err();
            let expected = FileFailure::Length { actual: Some(200_000) };
            assert_eq!(failure.to_string(), expected.to_string());
            assert!(matches!(failure, FileFailure::Length { actual: Some(200_000) }));
        }
        assert!(fs::read(qube.home().join("part")).unwrap() == whole);
        assert!(piece(&qube, 0, b"new").await.is_ok());
        assert_eq!(fs::read(qube.home().join("part")).unwrap(), b"new");
        fs::remove_file(qube.home().join("part")).unwrap();
        let missing = piece(&qube, 3, b"x").await;
        assert!(matches!(missing, Err(FileFailure::Length { actual: None })), "{missing:?}");
        assert!(!qube.home().join("part").exists());
        qube.assert_empty();
    });
}

#[test]
fn a_finished_file_takes_its_place_with_what_the_place_had_before() {
    block_on(async {
        let qube = Qube::new();
        let (part, file) = (qube.home().join("part"), qube.home().join("file"));
        fs::write(&part, b"one").unwrap();
        let written =
            moved(&qube, FileMove { mode: Some(0o640), modified: Some(77), ..MOVE }).await;
        let written = written.unwrap();
        assert!(written.created && written.path.ends_with(b"/file") && !part.exists());
        let now = fs::metadata(&file).unwrap();
        assert_eq!((now.mode() & 0o7777, now.mtime()), (0o640, 77));
        fs::write(&part, b"two").unwrap();
        let inode = fs::metadata(&part).unwrap().ino();
        assert!(!moved(&qube, MOVE).await.unwrap().created);
        let now = fs::metadata(&file).unwrap();
        assert_eq!((now.mode() & 0o7777, now.ino()), (0o640, inode));
        assert!(now.mtime() > 1_000_000 && fs::read(&file).unwrap() == b"two");
    });
}

#[test]
fn a_file_is_moved_into_another_folder_and_behind_a_link() {
    block_on(async {
        let qube = Qube::new();
        fs::create_dir(qube.home().join("parts")).unwrap();
        fs::write(qube.home().join("parts/p\n"), b"content").unwrap();
        let file = FileMove { from: b"parts/p\n", to: b"new/er/it's\n", ..MOVE };
        assert!(moved(&qube, file).await.unwrap().created);
        assert_no_leftovers(&qube.home().join("new/er"));
        assert_eq!(fs::read(qube.home().join("new/er/it's\n")).unwrap(), b"content");
        assert!(!qube.home().join("parts/p\n").exists());
        symlink("new/er/it's\n", qube.home().join("link")).unwrap();
        fs::write(qube.home().join("part"), b"other").unwrap();
        assert!(!moved(&qube, FileMove { to: b"link", ..MOVE }).await.unwrap().created);
        assert!(qube.home().join("link").is_symlink());
        assert_eq!(fs::read(qube.home().join("new/er/it's\n")).unwrap(), b"other");
    });
}

#[test]
fn what_cannot_be_moved_in_one_step_stays_where_it_is() {
    block_on(async {
        let qube = Qube::new();
        let part = qube.home().join("part");
        let missing = moved(&qube, MOVE).await;
        assert!(matches!(missing, Err(FileFailure::NotFound)), "{missing:?}");
        fs::write(&part, b"new").unwrap();
        fs::write(qube.home().join("file"), b"old").unwrap();
        fs::create_dir(qube.home().join("dir")).unwrap();
        let exists = moved(&qube, FileMove { create_only: true, ..MOVE }).await;
        assert!(matches!(exists, Err(FileFailure::Exists)), "{exists:?}");
        let over = moved(&qube, FileMove { to: b"dir", ..MOVE }).await;
        assert!(matches!(over, Err(FileFailure::IsDirectory)), "{over:?}");
        let from = moved(&qube, FileMove { from: b"dir", ..MOVE }).await;
        assert!(matches!(from, Err(FileFailure::IsDirectory)), "{from:?}");
        let shm = Path::new("/dev/shm");
        if fs::metadata(shm).unwrap().dev() != fs::metadata(qube.home()).unwrap().dev() {
            let target = tempfile::tempdir_in(shm).unwrap();
            let to = target.path().join("file");
            let to = to.to_str().unwrap().as_bytes();
            let far = moved(&qube, FileMove { to, ..MOVE }).await;
            assert!(matches!(far, Err(FileFailure::OtherFileSystem)), "{far:?}");
            assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
        }
        assert_eq!(fs::read(&part).unwrap(), b"new");
        assert_eq!(fs::read(qube.home().join("file")).unwrap(), b"old");
        let fresh = FileMove { to: b"fresh", create_only: true, ..MOVE };
        assert!(moved(&qube, fresh).await.unwrap().created && !part.exists());
    });
}

#[test]
fn a_directory_is_made_once_and_may_be_there_already() {
    block_on(async {
        let qube = Qube::new();
        let deep = qube.home().join("dir/deep");
        let first = made(&qube, DirectoryMake { mode: Some(0o700), ..DIRECTORY }).await.unwrap();
        assert!(first.created && first.path.ends_with(b"/dir/deep"));
        assert_eq!(fs::metadata(&deep).unwrap().mode() & 0o7777, 0o700);
        let again = DirectoryMake { mode: Some(0o555), modified: Some(-5), ..DIRECTORY };
        assert!(!made(&qube, again).await.unwrap().created);
        let now = fs::metadata(&deep).unwrap();
        assert_eq!((now.mode() & 0o7777, now.mtime()), (0o555, -5));
        let only = made(&qube, DirectoryMake { create_only: true, ..DIRECTORY }).await;
        assert!(matches!(only, Err(FileFailure::Exists)), "{only:?}");
        fs::write(qube.home().join("file"), b"").unwrap();
        for path in [&b"file"[..], b"file/x"] {
            let failure = made(&qube, DirectoryMake { path, ..DIRECTORY }).await;
            assert!(matches!(failure, Err(FileFailure::NotDirectory)), "{failure:?}");
        }
    });
}

#[test]
fn a_range_is_told_by_its_digest_and_by_what_the_file_system_says() {
    block_on(async {
        let qube = Qube::new();
        let whole = pattern(3_000_000);
        let path = qube.home().join("file");
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
        let old = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
        fs::File::open(&path).unwrap().set_modified(old).unwrap();
        for (offset, length) in [(0, None), (0, Some(5)), (1_234_567, Some(1_000_000)), (7, None)] {
            let range = FileRange { path: b"file", offset, length, digest: true, watch: true };
            let (told, nothing) = fetch(&qube, range).await.unwrap();
            let from = usize::try_from(offset).unwrap();
            let to = length.map_or(whole.len(), |length| from + usize::try_from(length).unwrap());
            assert_eq!(told.sha256, Some(hex(&whole[from..to])));
            assert_eq!((nothing.len(), told.size, told.changed), (0, 3_000_000, false));
            assert_eq!((told.mode, told.modified), (0o4751, 1_000_000));
            assert_eq!(told.eof, to == whole.len());
            let range = FileRange { digest: false, ..range };
            let (_, bytes) = fetch(&qube, range).await.unwrap();
            assert!(bytes == whole[from..to]);
        }
        let range =
            FileRange { path: b"/dev/full", offset: 0, length: Some(1), digest: true, watch: true };
        assert_eq!(fetch(&qube, range).await.unwrap().0.sha256, Some(hex(b"\0")));
        qube.assert_empty();
    });
}

#[test]
fn a_file_that_changes_while_it_is_fetched_is_told_as_changed() {
    block_on(async {
        let qube = Qube::new();
        let path = qube.home().join("file");
        fs::write(&path, pattern(8_000_000)).unwrap();
        struct Meddler<'a>(&'a Path, u64);
        impl Output for Meddler<'_> {
            async fn bytes(&mut self, _stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
                if self.1 == 0 {
                    let file = fs::OpenOptions::new().append(true).open(self.0).unwrap();
                    std::io::Write::write_all(&mut &file, b"more").unwrap();
                }
                self.1 += u64::try_from(bytes.len()).unwrap();
                Ok(())
            }
        }
        let range = FileRange {
            path: b"file",
            offset: 0,
            length: Some(8_000_000),
            digest: false,
            watch: true,
        };
        let (mut meddler, never) = (Meddler(&path, 0), CancellationToken::new());
        let read = qube.runner().read_file(place(20.0), range, &mut meddler, &never).await.unwrap();
        assert!(read.changed && read.bytes == 8_000_000 && meddler.1 == 8_000_000);
    });
}
