//! The ledger of births: a file for every qube that is being made, or that is to be removed.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
};

use admin_api::{QubeName, Uuid};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};

use crate::{
    journal,
    replace::{remove_file, replace_file},
    times::seconds_since_1970,
};

/// What is known of a qube that is being made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// In whose name it is made.
    pub(crate) agent: String,
    /// Its name, where that is known before it is made. No qube had it then.
    pub(crate) name: Option<String>,
    /// Its UUID, once qubesd has told.
    pub(crate) uuid: Option<String>,
    /// The UUID of a disposable's template.
    pub(crate) template: Option<String>,
    /// The UUIDs of the agent's disposables that were there before.
    pub(crate) known: Vec<String>,
    /// How many bytes its persistent volumes will have.
    pub(crate) bytes: u64,
    /// When it was begun, in seconds since 1970.
    pub(crate) since: u64,
}

impl Entry {
    /// A qube of this name.
    pub(crate) fn of_name(agent: &QubeName, name: &QubeName, bytes: u64) -> Self {
        Self {
            agent: agent.to_string(),
            name: Some(name.to_string()),
            uuid: None,
            template: None,
            known: Vec::new(),
            bytes,
            since: seconds_since_1970(),
        }
    }

    /// A disposable of this template, beside those that are there already.
    pub(crate) fn of_disposable(
        agent: &QubeName,
        template: &Uuid,
        known: &[Uuid],
        bytes: u64,
    ) -> Self {
        Self {
            agent: agent.to_string(),
            name: None,
            uuid: None,
            template: Some(template.to_string()),
            known: known.iter().map(ToString::to_string).collect(),
            bytes,
            since: seconds_since_1970(),
        }
    }
}

/// An entry, and whether somebody still works on it.
#[derive(Debug)]
struct Open {
    entry: Entry,
    abandoned: bool,
}

/// The ledger, and the turn that those take who make something.
#[derive(Debug)]
pub(crate) struct Births {
    folder: PathBuf,
    open: RefCell<BTreeMap<String, Open>>,
    /// Held while room is looked for and something is begun.
    pub(crate) turn: Mutex<()>,
    /// Told when an entry was abandoned.
    pub(crate) abandoned: Notify,
}

impl Births {
    /// The ledger in this folder. What a daemon before left there is not read yet.
    pub(crate) fn new(folder: PathBuf) -> Self {
        let (open, turn, abandoned) = (RefCell::default(), Mutex::default(), Notify::new());
        Self { folder, open, turn, abandoned }
    }

    /// Reads what a daemon before left: nobody works on that any more.
    pub(crate) fn load(&self) {
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return journal::say(&format!("ledger of births: {error}")),
        };
        for path in files.flatten().map(|file| file.path()) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let Some(name) = name else { continue };
            if name.starts_with('.') {
                // Was being written: what it was to precede has not been begun.
                drop(fs::remove_file(&path));
                continue;
            }
            let read = fs::read(&path).map_err(|error| error.to_string());
            match read.and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string())) {
                Ok(entry) => {
                    self.open.borrow_mut().insert(name, Open { entry, abandoned: true });
                }
                Err(error) => journal::say(&format!("ledger of births: {name}: {error}")),
            }
        }
    }

    /// Writes an entry down, on the disk, before anything is made.
    pub(crate) fn begin(&self, id: &str, entry: Entry) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.write(id, &entry)?;
        self.open.borrow_mut().insert(id.into(), Open { entry, abandoned: false });
        Ok(())
    }

    /// Adds the UUID of what was made.
    pub(crate) fn resolve(&self, id: &str, uuid: &Uuid) -> io::Result<()> {
        let mut changed = Vec::new();
        for (other, open) in self.open.borrow_mut().iter_mut() {
            if other == id {
                open.entry.uuid = Some(uuid.to_string());
            } else if open.entry.uuid.is_none() && open.entry.name.is_none() {
                // What is known to be this one cannot be the one that is still looked for.
                open.entry.known.push(uuid.to_string());
            } else {
                continue;
            }
            changed.push((other.clone(), open.entry.clone()));
        }
        changed.iter().try_for_each(|(id, entry)| self.write(id, entry))
    }

    /// Removes an entry: the qube is whole, or gone.
    pub(crate) fn end(&self, id: &str) -> io::Result<()> {
        remove_file(&self.folder.join(id))?;
        self.open.borrow_mut().remove(id);
        Ok(())
    }

    /// Nobody works on it any more: what was made is to be removed.
    pub(crate) fn abandon(&self, id: &str) {
        if let Some(open) = self.open.borrow_mut().get_mut(id) {
            open.abandoned = true;
        }
        self.abandoned.notify_one();
    }

    /// The entries that nobody works on.
    pub(crate) fn left(&self) -> Vec<String> {
        let open = self.open.borrow();
        open.iter().filter(|(_, open)| open.abandoned).map(|(id, _)| id.clone()).collect()
    }

    /// An entry.
    pub(crate) fn get(&self, id: &str) -> Option<Entry> {
        self.open.borrow().get(id).map(|open| open.entry.clone())
    }

    /// Whether a qube is not whole yet, or not gone yet: no call may reach it.
    pub(crate) fn hides(&self, name: &str, uuid: Option<&Uuid>) -> bool {
        let uuid = uuid.map(Uuid::as_str);
        self.open.borrow().values().any(|Open { entry, .. }| match (&entry.uuid, &entry.name) {
            (Some(known), _) => Some(known.as_str()) == uuid,
            (None, Some(known)) => known == name,
            (None, None) => false,
        })
    }

    /// In whose name a qube of this name is being made.
    pub(crate) fn maker_of(&self, name: &QubeName) -> Option<String> {
        let open = self.open.borrow();
        let mut entries = open.values().map(|open| &open.entry);
        let found = entries.find(|entry| entry.name.as_deref() == Some(name.as_str()));
        found.map(|entry| entry.agent.clone())
    }

    /// The bytes that are promised to what is being made.
    pub(crate) fn promised(&self) -> u64 {
        self.open.borrow().values().map(|open| open.entry.bytes).fold(0, u64::saturating_add)
    }

    /// Whether the bytes of this qube are promised.
    pub(crate) fn promises(&self, uuid: &Uuid) -> bool {
        let open = self.open.borrow();
        open.values().any(|open| open.entry.uuid.as_deref() == Some(uuid.as_str()))
    }

    fn write(&self, id: &str, entry: &Entry) -> io::Result<()> {
        replace_file(&self.folder.join(id), &serde_json::to_vec(entry)?, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(place: u8) -> Uuid {
        Uuid::parse(&format!("00000000-0000-0000-0000-{place:012}")).unwrap()
    }

    #[test]
    fn entries_outlive_the_daemon_and_hide_what_they_name_until_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("births");
        let (agent, name) = (QubeName::parse("a").unwrap(), QubeName::parse("ai-x").unwrap());
        let births = Births::new(at.clone());
        births.load();
        births.begin("1-1", Entry::of_name(&agent, &name, 7)).unwrap();
        births.begin("1-2", Entry::of_disposable(&agent, &uuid(9), &[uuid(1)], 5)).unwrap();
        assert!(births.hides("ai-x", Some(&uuid(2))) && births.maker_of(&name).is_some());
        births.resolve("1-1", &uuid(2)).unwrap();
        assert!(births.hides("renamed", Some(&uuid(2))) && !births.hides("ai-x", Some(&uuid(3))));
        assert_eq!((births.promised(), births.left()), (12, Vec::new()));
        fs::write(at.join(".1-3.tmp"), "half").unwrap();
        fs::write(at.join("1-4"), "garbage").unwrap();
        let next = Births::new(at.clone());
        next.load();
        assert_eq!(next.left(), ["1-1", "1-2"]);
        assert_eq!(next.get("1-2").unwrap().known, [uuid(1), uuid(2)].map(|u| u.to_string()));
        next.end("1-1").unwrap();
        assert!(!next.hides("ai-x", Some(&uuid(2))));
        births.abandon("1-2");
        assert_eq!(births.left(), ["1-2"]);
        assert!(!at.join("1-1").exists() && !at.join(".1-3.tmp").exists());
    }
}
