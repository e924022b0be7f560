//! Fetching: one stream into a part file, which is moved into place when it is whole.

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use contract::{Frame, Kind, limits};
use rmcp::model::JsonObject;
use rustix::fs::FileType;
use serde::Deserialize;

use super::{
    Done, FETCH_SERVICE, Fetched, LIST_SERVICE, MOST_DIRECTORIES, TELL_BYTES, Transfer, digest,
    local::{Inside, set_attributes},
    local_error, part_of, refuse,
};
use crate::{
    agent,
    arguments::{Call, Request},
    qrexec::CallError,
    reply::{Receiver, ReplyError, Step},
    resources::path_argument,
};

/// Writes a stream into a file as it comes.
struct Sink<'s> {
    file: Arc<File>,
    name: String,
    offset: u64,
    /// How long the file will be.
    size: u64,
    told: u64,
    json: Vec<u8>,
    transfer: &'s Transfer<'s>,
}

impl Receiver for Sink<'_> {
    fn take(&mut self, frame: &Frame) -> Result<Step, ReplyError> {
        match frame.kind {
            Kind::Stdout => {
                let written = self.file.write_all_at(&frame.payload, self.offset);
                written.map_err(|error| ReplyError::Local(self.name.clone(), error))?;
                let count = u64::try_from(frame.payload.len()).unwrap_or(u64::MAX);
                self.offset = self.offset.saturating_add(count);
                if self.offset.saturating_sub(self.told) >= TELL_BYTES {
                    self.told = self.offset;
                    self.transfer.tell(&self.name, self.offset, self.size);
                }
                Ok(Step::More)
            }
            Kind::Part | Kind::Result => {
                if self.json.len() + frame.payload.len() > limits::RESULT_BYTES {
                    return Err(ReplyError::TooLong(limits::RESULT_BYTES));
                }
                self.json.extend_from_slice(&frame.payload);
                Ok(if frame.kind == Kind::Result { Step::Complete } else { Step::More })
            }
            Kind::Fault => Err(ReplyError::Fault(serde_json::from_slice(&frame.payload)?)),
            Kind::Stderr | Kind::Progress => Ok(Step::More),
        }
    }
}

/// What `FileList` tells of a folder.
#[derive(Debug, Deserialize)]
struct Listing {
    entries: Vec<Listed>,
    total: u64,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(default, alias = "path")]
    name: String,
    #[serde(default, alias = "path_base64")]
    name_base64: Option<String>,
    kind: String,
    mode: Option<String>,
}

impl Listed {
    fn bytes(&self) -> Vec<u8> {
        let coded = self.name_base64.as_deref().and_then(|coded| STANDARD.decode(coded).ok());
        coded.unwrap_or_else(|| self.name.clone().into_bytes())
    }
}

impl Transfer<'_> {
    /// Fetches one file.
    pub(super) async fn download(
        &self,
        from: &[u8],
        to: &Inside,
        done: &mut Done,
    ) -> Result<(), CallError> {
        let failed = |error: &std::io::Error| local_error(to, error);
        match self.folder.kind(to).map_err(|error| failed(&error))? {
            Some(FileType::RegularFile) if self.overwrite => {}
            None => {}
            Some(_) if self.overwrite => {
                return Err(refuse("there is something else at local_path"));
            }
            Some(_) => {
                return Err(refuse(
                    "the file exists; nothing was fetched (overwrite=true replaces it)",
                ));
            }
        }
        self.folder.make_parents(to).map_err(|error| failed(&error))?;
        let part = to.beside(os_string(part_of(to.name().as_encoded_bytes())));
        let file = Arc::new(self.folder.write(&part).map_err(|error| failed(&error))?);
        let (fetched, resumed) = match self.fetch(from, to, &file).await {
            Ok(fetched) => fetched,
            Err(error) => {
                self.drop_empty(&part, &file);
                return Err(error);
            }
        };
        set_attributes(&file, fetched.mode(), fetched.modified).map_err(|error| failed(&error))?;
        self.folder.rename(&part, to, self.overwrite).map_err(|error| failed(&error))?;
        done.files = done.files.saturating_add(1);
        done.bytes = done.bytes.saturating_add(file.metadata().map_or(0, |meta| meta.len()));
        done.resumed = done.resumed.saturating_add(resumed);
        Ok(())
    }

    /// Brings the part file to the whole file; how much of it was there already.
    async fn fetch(
        &self,
        from: &[u8],
        to: &Inside,
        file: &Arc<File>,
    ) -> Result<(Fetched, u64), CallError> {
        let failed = |error: &std::io::Error| local_error(to, error);
        let meta = file.metadata().map_err(|error| failed(&error))?;
        if !meta.is_file() {
            return Err(refuse("the part file is no plain file"));
        }
        let mut begin = 0;
        let mut size = 0;
        if meta.len() > 0
            && let Some(found) = self.look(from, Some(meta.len())).await?
        {
            size = found.size;
            let own = digest(file, meta.len()).await.map_err(|error| failed(&error))?;
            if found.size >= meta.len() && own.is_some() && own == found.sha256 {
                begin = meta.len();
            }
        }
        file.set_len(begin).map_err(|error| failed(&error))?;
        let mut arguments = path_argument(from);
        arguments.insert("offset".into(), begin.into());
        let call =
            Call { qube: Some(self.qube.clone()), request: Request::new(arguments, Vec::new())? };
        let mut sink = Sink {
            file: Arc::clone(file),
            name: to.as_path().to_string_lossy().into_owned(),
            offset: begin,
            size,
            told: begin,
            json: Vec::new(),
            transfer: self,
        };
        self.agent.receive(FETCH_SERVICE, call, &mut sink).await?;
        let fetched: Fetched = serde_json::from_slice(&sink.json).map_err(ReplyError::Json)?;
        if fetched.changed || !fetched.eof {
            // What is there may be half of one content and half of another.
            file.set_len(0).map_err(|error| failed(&error))?;
            return Err(refuse("the file changed while it was fetched; call again"));
        }
        self.tell(&sink.name, sink.offset, sink.offset);
        Ok((fetched, begin))
    }

    /// A part file that nothing came into is of no use to a later call.
    fn drop_empty(&self, part: &Inside, file: &File) {
        if file.metadata().is_ok_and(|meta| meta.len() == 0) {
            drop(self.folder.remove(part));
        }
    }

    /// Fetches a folder with all that is in it.
    pub(super) async fn download_tree(
        &self,
        from: &[u8],
        to: &Inside,
        done: &mut Done,
    ) -> Result<(), CallError> {
        self.make(to, None, done)?;
        let mut folders = vec![(from.to_vec(), to.clone())];
        while let Some((from, to)) = folders.pop() {
            // A hostile qube could name folders without end.
            if done.directories > MOST_DIRECTORIES {
                return Err(refuse(format!("there are more than {MOST_DIRECTORIES} folders")));
            }
            for entry in self.list(&from).await? {
                let name = entry.bytes();
                let Some(place) = to.below(&name) else {
                    return Err(refuse("the qube names an entry that leads out of its folder"));
                };
                let from = [&from[..], b"/", &name].concat();
                match entry.kind.as_str() {
                    "directory" => {
                        self.make(&place, entry.mode.as_deref(), done)?;
                        folders.push((from, place));
                    }
                    "file" => self.download(&from, &place, done).await?,
                    _ => done.skipped.push(String::from_utf8_lossy(&from).into_owned()),
                }
            }
        }
        Ok(())
    }

    fn make(&self, place: &Inside, mode: Option<&str>, done: &mut Done) -> Result<(), CallError> {
        let mode = mode.and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0o755);
        let made = self.folder.make(place.as_path(), mode & 0o777);
        made.map_err(|error| local_error(place, &error))?;
        done.directories = done.directories.saturating_add(1);
        Ok(())
    }

    /// What a folder in the qube holds.
    async fn list(&self, path: &[u8]) -> Result<Vec<Listed>, CallError> {
        /// The entries of one call.
        const PAGE: u64 = 1000;
        /// The most entries of one folder.
        const MOST_ENTRIES: usize = 1_000_000;
        let mut entries: Vec<Listed> = Vec::new();
        loop {
            let mut arguments: JsonObject = path_argument(path);
            let offset = u64::try_from(entries.len()).unwrap_or(u64::MAX);
            arguments.insert("offset".into(), offset.into());
            arguments.insert("limit".into(), PAGE.into());
            let page = self.agent.ask(LIST_SERVICE, Some(self.qube.clone()), arguments).await?;
            let Listing { entries: page, total } = agent::parse(page)?;
            let end = page.is_empty();
            entries.extend(page);
            if entries.len() > MOST_ENTRIES {
                return Err(refuse(format!("a folder has more than {MOST_ENTRIES} entries")));
            }
            if end || u64::try_from(entries.len()).is_ok_and(|count| count >= total) {
                return Ok(entries);
            }
        }
    }
}

fn os_string(bytes: Vec<u8>) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}
