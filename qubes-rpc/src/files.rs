//! What handlers may do with files beyond reading one and writing one.

use contract::limits;

use crate::{
    handle::{Handle, Sink, Writer, qrexec_name},
    run::{DirectoryMake, FileFailure, FileMove, FileRange, FileRead, FileWritten, Place, User},
    service::{Effect, RunningQube},
};

impl<E: Effect> Handle<'_, E> {
    /// Sends a range of any length to the caller as the main stream, for as long as a command may take.
    pub(crate) async fn fetch_file(
        self,
        on: &RunningQube,
        range: FileRange<'_>,
    ) -> Result<FileRead, FileFailure> {
        let RunningQube(qube) = on;
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Default, deadline: self.host.ceiling };
        self.host.runner.read_file(place, range, &mut Sink(self.call), self.gone()).await
    }
}

impl Writer<'_> {
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
