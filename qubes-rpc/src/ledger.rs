//! The ledger of jobs: a file for each that dom0 has started or is about to start.
//!
//! A file is written before its job begins, so nothing runs that the ledger does not know, whenever
//! the daemon dies. Files are replaced whole.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown},
    path::PathBuf,
};

use rustix::{
    fs::{Access, OFlags, access},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    paths::Paths,
    replace::{remove_file, replace_file},
};

/// The longest file of one job, in bytes.
const ENTRY_BYTES: u64 = 8 * 1024;
/// The most files that are looked at.
const ENTRIES: usize = 4096;

/// How a job ended, as far as dom0 has heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KnownEnd {
    /// It returned this code.
    Exit(i32),
    /// It was killed at its deadline.
    Timeout,
    /// It was stopped.
    Stopped,
    /// Its qube or its guard went away.
    Lost,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// What its agent calls it by: 32 hexadecimal digits that nobody can guess.
    pub(crate) handle: String,
    /// What its processes and its folder in the qube are called by; never the same.
    pub(crate) mark: String,
    /// Whose it is.
    pub(crate) agent: String,
    /// Where it runs, by name.
    pub(crate) qube: String,
    /// Where it runs.
    pub(crate) uuid: String,
    /// It runs as root.
    pub(crate) root: bool,
    /// The beginning of what it runs, for people.
    pub(crate) command: String,
    /// When it was started, in seconds since 1970.
    pub(crate) started: u64,
    /// How it ended, and when, in seconds since 1970.
    pub(crate) ended: Option<(KnownEnd, u64)>,
    /// It failed to begin, and must not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) doomed: bool,
}

/// All jobs of one dom0.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    folder: PathBuf,
}

/// Whether this is a handle or a mark, and so the name of a file.
fn is_token(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Ledger {
    /// The ledger below these paths.
    pub(crate) fn of(paths: &Paths) -> Self {
        Self { folder: paths.jobs() }
    }

    fn path(&self, handle: &str) -> Option<PathBuf> {
        is_token(handle).then(|| self.folder.join(handle))
    }

    /// The job of this handle. What cannot be read is not there.
    pub(crate) fn read(&self, handle: &str) -> Option<Job> {
        let path = self.path(handle)?;
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).ok()?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut text = Vec::new();
        file.take(ENTRY_BYTES).read_to_end(&mut text).ok()?;
        let job: Job = serde_json::from_slice(&text).ok()?;
        (job.handle == handle && is_token(&job.mark)).then_some(job)
    }

    /// Every job, the oldest first.
    pub(crate) fn all(&self) -> Vec<Job> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let mut jobs: Vec<Job> = entries
            .filter_map(|entry| self.read(entry.ok()?.file_name().to_str()?))
            .take(ENTRIES)
            .collect();
        jobs.sort_by(|a, b| (a.started, &a.handle).cmp(&(b.started, &b.handle)));
        jobs
    }

    /// Fails where jobs may be there that cannot be read.
    pub(crate) fn prove_readable(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(path) = name.to_str().and_then(|name| self.path(name)) else { continue };
            if access(&path, Access::READ_OK) == Err(Errno::ACCESS) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        }
        Ok(())
    }

    /// The jobs that have not ended, as far as dom0 has heard.
    pub(crate) fn open(&self) -> Vec<Job> {
        self.all().into_iter().filter(|job| job.ended.is_none()).collect()
    }

    /// Writes a job down. It lasts when this returns.
    pub(crate) fn write(&self, job: &Job) -> io::Result<()> {
        let path = self.path(&job.handle).ok_or(io::ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        replace_file(&path, &serde_json::to_vec(job)?, 0o600)?;
        // The operator's commands run as root, and the daemon has to read what they write.
        let owner = fs::symlink_metadata(&self.folder)?;
        if fs::symlink_metadata(&path)?.uid() != owner.uid() {
            lchown(&path, Some(owner.uid()), Some(owner.gid()))?;
        }
        Ok(())
    }

    /// Forgets a job.
    pub(crate) fn remove(&self, handle: &str) -> io::Result<()> {
        self.path(handle).map_or(Ok(()), |path| remove_file(&path))
    }
}

/// Reads any bytes as an entry, and asserts that what is understood is written back the same.
pub fn fuzz_ledger_entry(input: &[u8]) {
    if let Ok(job) = serde_json::from_slice::<Job>(input) {
        let again = serde_json::to_vec(&job).ok();
        let again = again.and_then(|text| serde_json::from_slice::<Job>(&text).ok());
        assert!(again.as_ref() == Some(&job), "an entry does not survive being written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn job(handle: &str, started: u64) -> Job {
        Job {
            handle: handle.into(),
            mark: "f".repeat(32),
            agent: "salt-bridge".into(),
            qube: "work".into(),
            uuid: "22222222-b02b-4944-a9e5-437def2fbe2c".into(),
            root: false,
            command: "make".into(),
            started,
            ended: None,
            doomed: false,
        }
    }

    #[test]
    fn what_was_written_is_there_again_and_readable_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(&Paths::below(folder.path()));
        assert_eq!(ledger.all(), []);
        let (late, early) = (job(&"a".repeat(32), 9), job(&"b".repeat(32), 3));
        ledger.write(&late).unwrap();
        ledger.write(&early).unwrap();
        let ended = Job { ended: Some((KnownEnd::Exit(3), 17)), ..early };
        ledger.write(&ended).unwrap();
        assert_eq!(ledger.all(), [ended.clone(), late.clone()]);
        assert_eq!(ledger.open(), [late]);
        let path = Paths::below(folder.path()).jobs().join(&ended.handle);
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o600);
        ledger.remove(&ended.handle).unwrap();
        ledger.remove(&ended.handle).unwrap();
        assert_eq!(ledger.read(&ended.handle), None);
    }

    #[test]
    fn a_ledger_that_cannot_be_read_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::below(folder.path());
        let ledger = Ledger::of(&paths);
        assert!(ledger.prove_readable().is_ok());
        ledger.write(&job(&"a".repeat(32), 1)).unwrap();
        assert!(ledger.prove_readable().is_ok());
        fs::remove_dir_all(paths.jobs()).unwrap();
        fs::write(paths.jobs(), "no folder").unwrap();
        assert!(ledger.prove_readable().is_err());
    }

    #[test]
    fn a_handle_is_no_path_and_odd_files_are_no_jobs() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(&Paths::below(folder.path()));
        let known = job(&"a".repeat(32), 1);
        ledger.write(&known).unwrap();
        let jobs = Paths::below(folder.path()).jobs();
        let handle = |digit: &str| digit.repeat(32);
        fs::write(jobs.join(handle("1")), "{}").unwrap();
        fs::copy(jobs.join(handle("a")), jobs.join(handle("2"))).unwrap();
        std::os::unix::fs::symlink(jobs.join(handle("a")), jobs.join(handle("3"))).unwrap();
        fs::create_dir(jobs.join(handle("4"))).unwrap();
        fs::write(jobs.join(".half"), "{").unwrap();
        assert_eq!(ledger.all(), [known]);
        for odd in ["", "../x", &"A".repeat(32), &format!("../{}", "a".repeat(29))] {
            assert_eq!(ledger.read(odd), None, "{odd}");
            assert!(ledger.remove(odd).is_ok());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_entry_or_none(input in proptest::collection::vec(any::<u8>(), 0..300)) {
            fuzz_ledger_entry(&input);
        }
    }
}
