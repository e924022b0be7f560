//! Sending: pieces behind one another into a part file, which the last piece moves into place.

use std::{
    fs::{File, Metadata},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    sync::Arc,
};

use rmcp::model::JsonObject;
use rustix::fs::FileType;

use super::{
    Done, MOST_DIRECTORIES, PIECE_BYTES, Transfer, WRITE_SERVICE, digest, local::Inside,
    local_error, part_of, refuse, unchanged,
};
use crate::{qrexec::CallError, resources::path_argument};

/// A local file that is being sent.
struct Source<'s> {
    path: &'s Inside,
    file: Arc<File>,
    meta: Metadata,
}

impl Source<'_> {
    async fn piece(&self, offset: u64) -> Result<Vec<u8>, CallError> {
        let length = PIECE_BYTES.min(self.meta.len().saturating_sub(offset));
        let (file, length) = (Arc::clone(&self.file), usize::try_from(length).unwrap_or(0));
        let read = move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        };
        let outcome = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other);
        outcome.and_then(|read| read).map_err(|error| local_error(self.path, &error))
    }
}

impl Transfer<'_> {
    /// Sends one file.
    pub(super) async fn upload(
        &self,
        from: &Inside,
        to: &[u8],
        done: &mut Done,
    ) -> Result<(), CallError> {
        let file = self.folder.read(from).map_err(|error| local_error(from, &error))?;
        let meta = file.metadata().map_err(|error| local_error(from, &error))?;
        if meta.is_dir() {
            return Err(refuse(format!(
                "{} is a folder: give recursive=true",
                from.as_path().display()
            )));
        }
        if !meta.is_file() {
            return Err(refuse(format!("{} is no plain file", from.as_path().display())));
        }
        let source = Source { path: from, file: Arc::new(file), meta };
        let size = source.meta.len();
        if size <= PIECE_BYTES {
            let content = source.piece(0).await?;
            self.write(to, self.place(&source), content).await?;
        } else {
            done.resumed = done.resumed.saturating_add(self.upload_pieces(&source, to).await?);
        }
        done.files = done.files.saturating_add(1);
        done.bytes = done.bytes.saturating_add(size);
        self.tell(&from.as_path().to_string_lossy(), size, size);
        Ok(())
    }

    /// Sends a long file; how much of it was there already.
    async fn upload_pieces(&self, source: &Source<'_>, to: &[u8]) -> Result<u64, CallError> {
        if !self.overwrite && self.look(to, Some(0)).await?.is_some() {
            return Err(refuse(
                "the file exists; nothing was written (overwrite=true replaces it)",
            ));
        }
        let (part, size) = (part_of(to), source.meta.len());
        let resumed = self.sent(source, &part).await?;
        let mut offset = resumed;
        loop {
            let piece = source.piece(offset).await?;
            let next = offset.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            let mut arguments = JsonObject::from_iter([("offset".to_owned(), offset.into())]);
            if next >= size {
                let same = unchanged(&source.file, &source.meta);
                if !same.map_err(|error| local_error(source.path, &error))? {
                    return Err(refuse("the file changed while it was sent; call again"));
                }
                arguments.extend(self.place(source));
                arguments.extend(move_to(to));
            }
            self.write(&part, arguments, piece).await?;
            offset = next;
            self.tell(&source.path.as_path().to_string_lossy(), offset, size);
            if offset >= size {
                return Ok(resumed);
            }
        }
    }

    /// How much of this file an interrupted upload has left in the part file.
    async fn sent(&self, source: &Source<'_>, part: &[u8]) -> Result<u64, CallError> {
        let Some(found) = self.look(part, None).await? else { return Ok(0) };
        if !found.regular || found.changed || found.size > source.meta.len() {
            return Ok(0);
        }
        let own = digest(&source.file, found.size).await;
        let own = own.map_err(|error| local_error(source.path, &error))?;
        Ok(if own.is_some() && own == found.sha256 { found.size } else { 0 })
    }

    /// What the file is to be in its place.
    fn place(&self, source: &Source<'_>) -> JsonObject {
        JsonObject::from_iter([
            ("mode".to_owned(), format!("{:04o}", source.meta.mode() & 0o777).into()),
            ("modified".to_owned(), source.meta.mtime().into()),
            ("create_only".to_owned(), (!self.overwrite).into()),
        ])
    }

    async fn write(
        &self,
        path: &[u8],
        mut arguments: JsonObject,
        content: Vec<u8>,
    ) -> Result<(), CallError> {
        arguments.extend(path_argument(path));
        self.agent.send(WRITE_SERVICE, self.qube.clone(), arguments, content).await.map(drop)
    }

    /// Sends a folder with all that is in it.
    pub(super) async fn upload_tree(
        &self,
        from: &Inside,
        to: &[u8],
        done: &mut Done,
    ) -> Result<(), CallError> {
        match self.folder.kind(from).map_err(|error| local_error(from, &error))? {
            Some(FileType::Directory) => {}
            Some(_) | None => return self.upload(from, to, done).await,
        }
        let mut folders = vec![(from.clone(), to.to_vec())];
        while let Some((folder, to)) = folders.pop() {
            done.directories = done.directories.saturating_add(1);
            if done.directories > MOST_DIRECTORIES {
                return Err(refuse(format!("there are more than {MOST_DIRECTORIES} folders")));
            }
            let made = JsonObject::from_iter([("directory".to_owned(), true.into())]);
            self.write(&to, made, Vec::new()).await?;
            let entries = self.folder.entries(&folder);
            for entry in entries.map_err(|error| local_error(&folder, &error))? {
                let to = [&to[..], b"/", entry.path.name().as_bytes()].concat();
                match entry.kind {
                    FileType::Directory => folders.push((entry.path, to)),
                    FileType::RegularFile => self.upload(&entry.path, &to, done).await?,
                    FileType::Symlink
                    | FileType::Fifo
                    | FileType::Socket
                    | FileType::CharacterDevice
                    | FileType::BlockDevice
                    | FileType::Unknown => {
                        done.skipped.push(entry.path.as_path().to_string_lossy().into_owned());
                    }
                }
            }
        }
        Ok(())
    }
}

fn move_to(path: &[u8]) -> JsonObject {
    let named = |(name, value): (String, _)| (name.replace("file_path", "move_to"), value);
    path_argument(path).into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_place_is_named_as_the_path_is() {
        assert_eq!(json!(move_to(b"/a")), json!({"move_to": "/a"}));
        assert_eq!(json!(move_to(b"\xff")), json!({"move_to_base64": "/w=="}));
    }
}
