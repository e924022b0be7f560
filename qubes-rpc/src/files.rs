//! What handlers may do with files beyond reading one and writing one.

use bytes::Bytes;
use contract::{Fault, Stream, limits};
use tokio::time::timeout;

use crate::{
    error::Error,
    handle::{Handle, Writer, qrexec_name},
    run::{
        Body, DirectoryList, DirectoryListing, DirectoryMake, FileFailure, FileMove, FileRange,
        FileSearch, FileWrite, FileWritten, Found, Output, OutputGone, Place, User,
    },
    service::{Effect, RunningQube},
};

impl<E: Effect> Handle<'_, E> {
    /// Part of what a directory holds.
    pub(crate) async fn list_directory(
        self,
        on: &RunningQube,
        list: DirectoryList<'_>,
    ) -> Result<DirectoryListing, FileFailure> {
        let RunningQube(qube) = on;
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Default, deadline: limits::FILE };
        self.host.runner.list_directory(place, list, self.gone()).await
    }

    /// Lines that match in files.
    pub(crate) async fn search_files(
        self,
        on: &RunningQube,
        search: FileSearch<'_>,
    ) -> Result<Found, FileFailure> {
        let RunningQube(qube) = on;
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Default, deadline: limits::FILE };
        self.host.runner.search_files(place, search, self.gone()).await
    }
}

impl Writer<'_> {
    /// A place among the edits that are under way at once, since each holds a file in memory.
    pub(crate) async fn edit_turn(self) -> Result<tokio::sync::SemaphorePermit<'static>, Error> {
        static EDITS: tokio::sync::Semaphore =
            tokio::sync::Semaphore::const_new(limits::EDITS_AT_ONCE);
        match timeout(limits::FILE, EDITS.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Fault::Busy {}.into()),
        }
    }

    /// A whole regular file, where it has at most [`limits::EDIT_BYTES`].
    pub(crate) async fn load_file(
        self,
        on: &RunningQube,
        path: &[u8],
    ) -> Result<Loaded, FileFailure> {
        let RunningQube(qube) = on;
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Default, deadline: limits::EDIT };
        let most = u64::try_from(limits::EDIT_BYTES).unwrap_or(u64::MAX);
        let length = Some(most.saturating_add(1));
        let range = FileRange { path, offset: 0, length, digest: false, watch: false };
        let mut kept = Kept::default();
        let read = self.host.runner.read_file(place, range, &mut kept, self.gone()).await?;
        let fits = kept.0.len() <= limits::EDIT_BYTES;
        Ok(Loaded { content: kept.0, editable: read.regular, fits })
    }

    /// Replaces a file by this content, if it still has the content of this digest.
    pub(crate) async fn store_file(
        self,
        on: &RunningQube,
        path: &[u8],
        digest: &str,
        content: &[u8],
    ) -> Result<FileWritten, FileFailure> {
        let RunningQube(qube) = on;
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Default, deadline: limits::EDIT };
        let file = FileWrite {
            path,
            mode: None,
            append: false,
            create_only: false,
            if_sha256: Some(digest),
            if_length: None,
            modified: None,
        };
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let body = Body { length, bytes: content };
        self.host.runner.write_file(place, file, body, self.gone()).await
    }

    /// Moves a finished file to its place.
    pub(crate) async fn move_file(
        self,
        on: &RunningQube,
        file: FileMove<'_>,
    ) -> Result<FileWritten, FileFailure> {
        let RunningQube(qube) = on;
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Default, deadline: limits::FILE };
        self.host.runner.move_file(place, file, self.gone()).await
    }

    /// Makes a directory.
    pub(crate) async fn make_directory(
        self,
        on: &RunningQube,
        directory: DirectoryMake<'_>,
    ) -> Result<FileWritten, FileFailure> {
        let RunningQube(qube) = on;
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Default, deadline: limits::FILE };
        self.host.runner.make_directory(place, directory, self.gone()).await
    }
}

/// A file that is to be edited.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Its content, or its beginning where it does not fit.
    pub(crate) content: Vec<u8>,
    /// It is a regular file.
    pub(crate) editable: bool,
    /// It has no more than the limit.
    pub(crate) fits: bool,
}

/// Keeps what comes, and a little more than an edit may hold at most.
#[derive(Debug, Default)]
struct Kept(Vec<u8>);

impl Output for Kept {
    async fn bytes(&mut self, _stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        // A qube that sends more than was asked for is not believed to have a file that fits.
        let room = (limits::EDIT_BYTES + 1).saturating_sub(self.0.len());
        self.0.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
        Ok(())
    }
}
