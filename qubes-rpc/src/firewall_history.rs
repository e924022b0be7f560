//! The rule sets that were in force before each change of a firewall, in a folder for each qube.
//!
//! All of them together have a budget, so that no agent fills dom0's disk with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{
    paths::Paths,
    replace::{remove_file, replace_file},
};

/// The rule sets that are kept for each qube: the first of all, and the latest.
const KEPT: usize = 100;
/// The most bytes of disk that all rule sets of all qubes may take.
const BUDGET_BYTES: u64 = 64 << 20;
/// What a file or a folder takes at least, in bytes, and a multiple of what it takes.
const BLOCK_BYTES: u64 = 4096;

/// The kept rule sets of all qubes, as they were when they were looked at.
#[derive(Debug)]
pub(crate) struct History {
    folder: PathBuf,
    budget: u64,
    all: BTreeMap<OsString, Sets>,
}

/// The rule sets of one qube, the oldest first, each with what it takes of the disk.
type Sets = Vec<(PathBuf, u64)>;

fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

fn taken(sets: &Sets) -> u64 {
    sets.iter().map(|(_, bytes)| bytes).sum::<u64>() + BLOCK_BYTES
}

impl History {
    /// Looks at the history below these paths. What others change afterwards is not seen.
    pub(crate) fn read(paths: &Paths) -> io::Result<Self> {
        Self::read_within(paths.firewall_history(), BUDGET_BYTES)
    }

    fn read_within(folder: PathBuf, budget: u64) -> io::Result<Self> {
        let all = read_all(&folder)?;
        Ok(Self { folder, budget, all })
    }

    /// Whether one more rule set of this many bytes fits without another one going.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.all.values().map(taken).sum::<u64>() + needed(bytes) <= self.budget
    }

    /// Forgets the rule sets of all qubes but these.
    pub(crate) fn forget_others(&mut self, qubes: &BTreeSet<String>) -> io::Result<()> {
        let is_other = |name: &OsString| name.to_str().is_none_or(|name| !qubes.contains(name));
        let others: Vec<OsString> =
            self.all.keys().filter(|name| is_other(name)).cloned().collect();
        for name in others {
            fs::remove_dir_all(self.folder.join(&name))?;
            self.all.remove(&name);
        }
        Ok(())
    }

    /// Keeps a rule set of a qube under this name, which begins with the time. Others make room: the
    /// oldest of the qube that takes most, but never the first of a qube.
    ///
    /// # Errors
    /// There is no room, or a file cannot be written or removed.
    pub(crate) fn keep(self, qube: &str, name: &str, xml: &[u8]) -> io::Result<()> {
        let Self { folder, budget, mut all } = self;
        let firsts = all.values().filter_map(|sets| sets.first());
        let least = firsts.map(|(_, bytes)| bytes + BLOCK_BYTES).sum::<u64>();
        if least + needed(xml.len()) > budget {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(sets) = all.get_mut(&OsString::from(qube)) {
            // Many small changes must not take the operator's own rules out of reach.
            while sets.len() >= KEPT {
                drop_oldest(sets)?;
            }
        }
        while all.values().map(taken).sum::<u64>() + needed(xml.len()) > budget {
            let most =
                all.values_mut().filter(|sets| sets.len() > 1).max_by_key(|sets| taken(sets));
            drop_oldest(most.ok_or(io::ErrorKind::StorageFull)?)?;
        }
        let folder = folder.join(qube);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        replace_file(&folder.join(name), xml, 0o600)
    }
}

fn read_all(folder: &Path) -> io::Result<BTreeMap<OsString, Sets>> {
    let mut all = BTreeMap::new();
    let folders = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        folders => folders?,
    };
    for folder in folders {
        let folder = folder?;
        if !folder.file_type()?.is_dir() {
            continue;
        }
        let mut sets = Sets::new();
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                // Was being written when the daemon or the machine ended.
                remove_file(&entry.path())?;
                continue;
            }
            sets.push((entry.path(), on_disk(entry.metadata()?.len())));
        }
        sets.sort();
        all.insert(folder.file_name(), sets);
    }
    Ok(all)
}

/// What a rule set may take, with a folder of its own.
fn needed(bytes: usize) -> u64 {
    on_disk(u64::try_from(bytes).unwrap_or(u64::MAX)).saturating_add(BLOCK_BYTES)
}

/// Removes the second rule set: the first stays.
fn drop_oldest(sets: &mut Sets) -> io::Result<()> {
    if sets.len() < 2 {
        return Ok(());
    }
    let (oldest, _) = sets.remove(1);
    remove_file(&oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A history with room for so many blocks.
    struct Scene {
        root: tempfile::TempDir,
        blocks: u64,
    }

    impl Scene {
        fn new(blocks: u64) -> Self {
            Self { root: tempfile::tempdir().unwrap(), blocks }
        }

        fn folder(&self) -> PathBuf {
            Paths::below(self.root.path()).firewall_history()
        }

        fn read(&self) -> History {
            History::read_within(self.folder(), self.blocks * BLOCK_BYTES).unwrap()
        }

        fn keep(&self, qube: &str, name: &str, xml: &[u8]) -> io::Result<()> {
            self.read().keep(qube, name, xml)
        }
    }

    fn names(history: &Scene, qube: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(history.folder().join(qube)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_rule_sets_of_all_qubes_stay_within_a_budget_and_each_first_one_stays() {
        // Folders and files take a block each.
        let history = Scene::new(10);
        for time in 1..=3 {
            history.keep("quiet", &format!("{time}.xml"), b"rules").unwrap();
        }
        for time in 1..=9 {
            history.keep("busy", &format!("{time}.xml"), b"rules").unwrap();
        }
        assert_eq!(names(&history, "quiet"), ["1.xml", "2.xml", "3.xml"]);
        assert_eq!(names(&history, "busy"), ["1.xml", "7.xml", "8.xml", "9.xml"]);
        history.keep("new", "1.xml", b"rules").unwrap();
        assert_eq!(names(&history, "new"), ["1.xml"]);
        for qube in ["quiet", "busy"] {
            assert_eq!(names(&history, qube)[0], "1.xml");
        }
        let before = names(&history, "busy");
        let large = vec![b'x'; 20 * 4096];
        assert_eq!(
            history.keep("new", "2.xml", &large).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        assert_eq!(names(&history, "busy"), before);
        assert!(before.len() > 1);
    }

    #[test]
    fn qubes_that_are_gone_give_their_room_back() {
        let history = Scene::new(6);
        for qube in ["ai-1", "ai-2", "ai-3"] {
            assert!(history.read().has_room(5));
            history.keep(qube, "1.xml", b"rules").unwrap();
        }
        assert!(!history.read().has_room(5));
        assert!(history.keep("ai-4", "1.xml", b"rules").is_err());
        let mut seen = history.read();
        seen.forget_others(&BTreeSet::from(["ai-2".to_owned()])).unwrap();
        seen.keep("ai-4", "1.xml", b"rules").unwrap();
        assert_eq!(names(&history, "ai-1"), Vec::<String>::new());
        assert_eq!(names(&history, "ai-2"), ["1.xml"]);
    }

    #[test]
    fn a_rule_set_that_was_half_written_is_never_the_first() {
        let history = Scene::new(100);
        let folder = history.folder().join("work");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(".1.xml.0123456789abcdef"), "hal").unwrap();
        for time in 1..=2 {
            history.keep("work", &format!("{time}.xml"), b"rules").unwrap();
        }
        assert_eq!(names(&history, "work"), ["1.xml", "2.xml"]);
    }
}
