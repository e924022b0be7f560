//! The log on a disk: what is found when anything is done to it.

use std::{fs, path::PathBuf};

use proptest::prelude::*;

use super::{
    chain::Head,
    entry::Entry,
    log::{Log, Places, SIZE, Size},
    verify::{Broken, VerifyError, Whole, verify},
};

struct Scene {
    folder: tempfile::TempDir,
    places: Places,
    size: Size,
}

const SMALL: Size = Size { file_bytes: 1200, files: 4 };

impl Scene {
    fn new(size: Size) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            log: folder.path().join("log/audit.jsonl"),
            head: folder.path().join("lib/audit-head"),
        };
        Self { folder, places, size }
    }

    fn open(&self) -> Log {
        Log::open(self.places.clone(), self.size).unwrap()
    }

    fn write(&self, lines: usize) -> Head {
        let mut log = self.open();
        (0..lines).map(|_| log.append(&entry()).unwrap()).last().unwrap_or(Head::EMPTY)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.places.log).unwrap()
    }

    fn set(&self, text: &str) {
        fs::write(&self.places.log, text).unwrap();
    }

    fn lines(&self) -> Vec<String> {
        self.log().split_inclusive('\n').map(str::to_owned).collect()
    }

    fn found(&self) -> Result<Whole, Broken> {
        verify(&self.places).map_err(|error| match error {
            VerifyError::Broken(broken) => broken,
            VerifyError::Read(path, error) => panic!("{path:?}: {error}"),
        })
    }

    fn bad_line(&self) -> usize {
        match self.found().unwrap_err() {
            Broken::NotALine { at }
            | Broken::Changed { at, .. }
            | Broken::Missing { at, .. }
            | Broken::Order { at, .. }
            | Broken::HeadLost { at, .. } => at.line,
            other @ (Broken::CutTail { .. } | Broken::NoHead) => panic!("{other}"),
        }
    }
}

fn entry() -> Entry {
    let mut entry =
        Entry { agent: "salt-bridge".into(), service: "VmExec".into(), ..Entry::default() };
    entry.end("ok", "");
    entry
}

#[test]
fn a_log_that_nobody_touched_holds_over_daemons_and_files() {
    let scene = Scene::new(SMALL);
    assert_eq!(scene.found().map(|whole| whole.lines), Ok(0));
    for _ in 0..5 {
        scene.write(9);
    }
    let whole = scene.found().unwrap();
    assert_eq!(whole.last, 45);
    assert!(whole.first > 1, "the oldest was dropped");
    assert_eq!(whole.lines, whole.last - whole.first + 1);
    assert_eq!(scene.places.files().unwrap().len(), 4);
    for path in scene.places.files().unwrap() {
        assert!(fs::metadata(path).unwrap().len() <= 1200);
    }
}

#[test]
fn two_daemons_at_once_write_one_chain() {
    let scene = Scene::new(SMALL);
    let (mut one, mut other) = (scene.open(), scene.open());
    for _ in 0..20 {
        one.append(&entry()).unwrap();
        other.append(&entry()).unwrap();
    }
    assert_eq!(scene.found().unwrap().last, 40);
}

#[test]
fn an_edited_line_is_named() {
    let scene = Scene::new(SIZE);
    scene.write(6);
    let whole = scene.lines();
    for place in 0..6 {
        let mut lines = whole.clone();
        lines[place] = lines[place].replace("salt-bridge", "malt-bridge");
        scene.set(&lines.concat());
        assert_eq!(scene.bad_line(), place + 1);
        lines[place] = whole[place].replacen("prev\":\"", "prev\":\"0", 1);
        scene.set(&lines.concat());
        assert_eq!(scene.bad_line(), place + 1);
    }
}

#[test]
fn deleted_and_exchanged_and_doubled_lines_are_named() {
    let scene = Scene::new(SIZE);
    scene.write(6);
    let whole = scene.lines();
    for place in 0..5 {
        let mut lines = whole.clone();
        lines.remove(place);
        scene.set(&lines.concat());
        assert_eq!(scene.bad_line(), place + 1);
        let mut lines = whole.clone();
        lines.swap(place, place + 1);
        scene.set(&lines.concat());
        assert_eq!(scene.bad_line(), place + 1);
        let mut lines = whole.clone();
        lines.insert(place, whole[place].clone());
        scene.set(&lines.concat());
        assert_eq!(scene.bad_line(), place + 2);
    }
}

#[test]
fn a_cut_tail_is_found_and_stays_found_when_the_daemon_goes_on() {
    let scene = Scene::new(SIZE);
    scene.write(6);
    let lines = scene.lines();
    scene.set(&lines[..4].concat());
    assert_eq!(scene.found(), Err(Broken::CutTail { from: 5, to: 6 }));
    scene.write(3);
    assert_eq!(scene.bad_line(), 5);
    scene.set("");
    assert_eq!(scene.found(), Err(Broken::CutTail { from: 1, to: 9 }));
    fs::remove_file(&scene.places.log).unwrap();
    assert_eq!(scene.found(), Err(Broken::CutTail { from: 1, to: 9 }));
    scene.write(1);
    assert!(matches!(scene.found(), Err(Broken::Missing { from: 1, to: 9, .. })));
}

#[test]
fn an_oldest_file_that_was_not_dropped_by_the_daemon_is_missed() {
    let scene = Scene::new(SMALL);
    scene.write(40);
    let oldest = scene.places.files().unwrap().remove(0);
    fs::remove_file(oldest).unwrap();
    assert!(matches!(scene.found(), Err(Broken::Missing { .. })));
}

#[test]
fn no_file_is_dropped_while_the_next_does_not_say_where_the_log_goes_on() {
    let scene = Scene::new(SMALL);
    scene.write(40);
    let files = scene.places.files().unwrap();
    fs::write(&files[1], "spoilt\n").unwrap();
    let mut log = scene.open();
    let error = (0..40).find_map(|_| log.append(&entry()).err()).unwrap();
    assert!(error.to_string().ends_with("is spoilt; move it away"), "{error}");
    assert!(files.iter().all(|file| file.exists()));
}

#[test]
fn a_lost_head_is_found_and_stays_found() {
    let scene = Scene::new(SIZE);
    scene.write(3);
    fs::remove_file(&scene.places.head).unwrap();
    assert_eq!(scene.found(), Err(Broken::NoHead));
    scene.write(2);
    assert!(matches!(scene.found(), Err(Broken::HeadLost { seq: 4, .. })));
    let scene = Scene::new(SIZE);
    scene.write(3);
    fs::write(&scene.places.head, "nonsense").unwrap();
    assert_eq!(scene.found(), Err(Broken::NoHead));
    scene.write(1);
    assert!(matches!(scene.found(), Err(Broken::HeadLost { seq: 4, .. })));
}

#[test]
fn a_daemon_that_died_between_line_and_head_or_within_a_line_breaks_nothing() {
    let scene = Scene::new(SIZE);
    scene.write(3);
    let head = fs::read(&scene.places.head).unwrap();
    scene.write(1);
    fs::write(&scene.places.head, head).unwrap();
    assert_eq!(scene.found().map(|whole| whole.last), Ok(4));
    scene.write(1);
    assert_eq!(scene.found().map(|whole| whole.last), Ok(5));
    let piece = scene.log() + "{\"seq\":6,\"ti";
    scene.set(&piece);
    assert!(matches!(scene.found(), Err(Broken::NotALine { .. })));
    scene.write(1);
    assert_eq!(scene.found().map(|whole| whole.last), Ok(6));
}

#[test]
fn a_log_that_cannot_be_written_says_so() {
    let scene = Scene::new(SIZE);
    fs::create_dir_all(&scene.places.log).unwrap();
    assert!(Log::open(scene.places.clone(), SIZE).is_err());
    let link = Scene::new(SIZE);
    fs::create_dir_all(link.folder.path().join("log")).unwrap();
    let aim: PathBuf = link.folder.path().join("aim");
    std::os::unix::fs::symlink(aim, &link.places.log).unwrap();
    assert!(Log::open(link.places.clone(), SIZE).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn one_byte_changed_anywhere_is_found(file in 0usize..4, place in any::<prop::sample::Index>(),
        by in 1u8..=255) {
        let scene = Scene::new(SMALL);
        scene.write(12);
        let files = scene.places.files().unwrap();
        let path = &files[file % files.len()];
        let mut bytes = fs::read(path).unwrap();
        let place = place.index(bytes.len());
        bytes[place] = bytes[place].wrapping_add(by);
        fs::write(path, bytes).unwrap();
        prop_assert!(verify(&scene.places).is_err());
    }

    #[test]
    fn one_byte_taken_out_or_a_cut_anywhere_is_found(file in 0usize..4,
        place in any::<prop::sample::Index>(), cut: bool) {
        let scene = Scene::new(SMALL);
        scene.write(12);
        let files = scene.places.files().unwrap();
        let path = &files[file % files.len()];
        let mut bytes = fs::read(path).unwrap();
        let place = place.index(bytes.len());
        if cut {
            bytes.truncate(place);
        } else {
            bytes.remove(place);
        }
        fs::write(path, bytes).unwrap();
        prop_assert!(verify(&scene.places).is_err());
    }
}
