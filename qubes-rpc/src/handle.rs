//! What a handler may do: nothing but what stands here, and only to qubes it has authority over.

use std::{marker::PhantomData, time::Duration};

use admin_api::{
    call::{self, property::PropertyValue, vm::PowerState},
    firewall::Rule,
};
use bytes::Bytes;
use contract::{Stream, limits};
use policy::{Class, ManagedQube};
use tokio::net::unix::OwnedWriteHalf;
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{Answer, CallerGone, Form, Streams},
    audit,
    error::Error,
    host::{Host, destination},
    run::{
        Body, Ended, FileFailure, FileRange, FileRead, FileWrite, FileWritten, Output, OutputGone,
        Part, Place, Reached, RunError, User,
    },
    service::{Change, Effect, Observe, RunningQube},
    services::command::ParsedCommand,
    settings::{Sandbox, read_settings},
};

/// What belongs to one call.
#[derive(Debug)]
pub struct Call {
    pub(crate) id: String,
    pub(crate) body: Bytes,
    /// What the audit log is told.
    pub(crate) record: audit::Entry,
    pub(crate) answer: Answer<OwnedWriteHalf>,
    /// Cancelled when the caller hangs up.
    pub(crate) gone: CancellationToken,
}

/// The one way from a handler to the host. `E` fixes whether it can change anything.
#[derive(Clone, Copy, Debug)]
pub struct Handle<'h, E> {
    pub(crate) host: &'h Host,
    pub(crate) call: &'h Call,
    effect: PhantomData<E>,
}

/// The handle of a service that looks.
pub type Reader<'h> = Handle<'h, Observe>;
/// The handle of a service that changes something.
pub type Writer<'h> = Handle<'h, Change>;

impl<'h, E: Effect> Handle<'h, E> {
    pub(crate) fn new(host: &'h Host, call: &'h Call, effect: PhantomData<E>) -> Self {
        Self { host, call, effect }
    }

    /// Whether the caller is the older program, whose limits are its own.
    pub(crate) fn is_plain(self) -> bool {
        self.call.answer.form() == Form::Plain
    }

    /// The bytes behind the request.
    pub(crate) fn body(self) -> Bytes {
        self.call.body.clone()
    }

    /// Resolves when the caller hangs up.
    pub(crate) fn gone(self) -> &'h CancellationToken {
        &self.call.gone
    }

    /// Has this line told as progress, unless a newer one comes before its turn.
    pub(crate) fn tell(self, line: &str) {
        self.call.answer.say(line);
    }

    /// Keeps of the streams only the beginning and the end.
    pub(crate) fn keep_ends(self, characters: u64) {
        self.call.answer.keep_ends(characters);
    }

    /// Ends the streams; how many bytes came on each, and whether any were left out.
    pub(crate) async fn finish_streams(self) -> Result<(Streams<u64>, bool), CallerGone> {
        self.call.answer.finish_streams().await
    }

    /// The power state of a qube.
    pub(crate) async fn state(self, qube: &ManagedQube) -> Result<PowerState, Error> {
        self.host.state(qube).await
    }

    /// All properties of a qube, by name.
    pub(crate) async fn properties(
        self,
        qube: &ManagedQube,
    ) -> Result<Vec<(String, PropertyValue)>, Error> {
        let call = call::property::get_all(destination(qube));
        let all = self.host.qubesd.call(call, limits::QUBESD).await?;
        Ok(all.into_iter().map(|(name, property)| (name.to_string(), property.value)).collect())
    }

    /// The firewall rules of a qube, as qubesd has them.
    pub(crate) async fn rules(self, qube: &ManagedQube) -> Result<Vec<Rule>, Error> {
        Ok(self.host.qubesd.call(call::firewall::get(destination(qube)), limits::QUBESD).await?)
    }
}

impl<E: Effect> Handle<'_, E> {
    /// Sends a range of a file to the caller as the main stream.
    pub(crate) async fn read_file(
        self,
        on: &RunningQube,
        range: FileRange<'_>,
        deadline: Duration,
    ) -> Result<FileRead, FileFailure> {
        let RunningQube(qube) = on;
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Default, deadline };
        let mut sink = Sink(self.call);
        self.host.runner.read_file(place, range, &mut sink, &self.call.gone).await
    }

    /// Asks a running qube how its network is, as root.
    pub(crate) async fn network_state(self, qube: &ManagedQube) -> Result<Vec<Part>, Error> {
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Root, deadline: limits::COMMAND_DEFAULT };
        Ok(self.host.runner.network_state(place, &self.call.gone).await?)
    }

    /// Has a running qube connect to a port, as its user.
    pub(crate) async fn reach(
        self,
        qube: &ManagedQube,
        host: &str,
        port: u16,
    ) -> Result<Reached, Error> {
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Default, deadline: limits::COMMAND_DEFAULT };
        Ok(self.host.runner.reach(place, host, port, &self.call.gone).await?)
    }

    /// The older program sets no limit; its files come in one piece.
    pub(crate) fn file_deadline(self) -> Duration {
        if self.is_plain() { self.host.ceiling } else { limits::FILE }
    }
}

impl<E: Effect> Handle<'_, E> {
    /// What the operator set about the sandbox.
    pub(crate) fn sandbox(self) -> Result<Sandbox, Error> {
        Ok(read_settings(&self.host.paths, self.host.trusted)?)
    }
}

impl Writer<'_> {
    /// The power state of a qube that was told to stop: a disposable removes itself then, and one
    /// that is gone has halted.
    pub(crate) async fn state_when_stopped(self, qube: &ManagedQube) -> Result<PowerState, Error> {
        match self.state(qube).await {
            Err(Error::Qubesd(admin_api::Error::Exception(_) | admin_api::Error::Empty))
                if qube.class() == Class::DispVm =>
            {
                Ok(PowerState::Halted)
            }
            state => state,
        }
    }

    /// Has qubesd do something to a qube that was admitted.
    pub(crate) async fn order<T>(
        self,
        call: call::Call<T>,
        deadline: Duration,
    ) -> Result<T, Error> {
        Ok(self.host.qubesd.call(call, deadline).await?)
    }

    /// Runs a command, whose output goes to the caller while it runs.
    pub(crate) async fn command(
        self,
        on: &RunningQube,
        user: User,
        command: &ParsedCommand,
        deadline: Duration,
    ) -> Result<Ended, Error> {
        let RunningQube(qube) = on;
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user, deadline };
        let stdin = self.body();
        let body = Body { length: length(&stdin), bytes: stdin.as_ref() };
        let mut sink = CommandSink { call: self.call, no_folder: None };
        let (runner, gone) = (&self.host.runner, &self.call.gone);
        let ended = runner.command(place, &command.as_command(), body, &mut sink, gone).await;
        match (ended, sink.no_folder) {
            (Err(RunError::Unready { .. }), Some(reason)) => Err(command.no_folder(&reason)),
            (ended, _) => Ok(ended?),
        }
    }

    /// Writes the bytes behind the request to a file.
    pub(crate) async fn write_file(
        self,
        on: &RunningQube,
        file: FileWrite<'_>,
    ) -> Result<FileWritten, FileFailure> {
        let RunningQube(qube) = on;
        let name = qrexec_name(qube);
        let place = Place { qube: &name, user: User::Default, deadline: self.file_deadline() };
        let content = self.body();
        let body = Body { length: length(&content), bytes: content.as_ref() };
        self.host.runner.write_file(place, file, body, &self.call.gone).await
    }

    /// Starts a qube and waits until it runs.
    pub(crate) async fn start(self, qube: &ManagedQube) -> Result<(), Error> {
        self.host.start(qube).await
    }

    /// Asks a qube to shut down; does not wait for it.
    pub(crate) async fn shutdown(self, qube: &ManagedQube, force: bool) -> Result<(), Error> {
        let how = call::lifecycle::Shutdown { wait: false, force };
        let call = call::lifecycle::shutdown(destination(qube), how);
        Ok(self.host.qubesd.call(call, limits::QUBESD).await?)
    }
}

/// Passes what comes out of a qube on to the caller.
pub(crate) struct Sink<'h>(pub(crate) &'h Call);

impl Output for Sink<'_> {
    async fn bytes(&mut self, stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        self.0.answer.bytes(stream, bytes).await.map_err(|_| OutputGone)
    }
}

/// Passes the output of a command on to the caller, and keeps why its folder cannot be entered.
struct CommandSink<'h> {
    call: &'h Call,
    no_folder: Option<String>,
}

impl Output for CommandSink<'_> {
    async fn bytes(&mut self, stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        self.call.answer.bytes(stream, bytes).await.map_err(|_| OutputGone)
    }

    fn note(&mut self, _stream: Stream, line: &[u8]) {
        if let Some(reason) = line.strip_prefix(b"cwd ") {
            self.no_folder = Some(String::from_utf8_lossy(reason).into_owned());
        }
    }
}

/// How qrexec-client is told which qube is meant.
pub(crate) fn qrexec_name(qube: &ManagedQube) -> String {
    format!("uuid:{}", qube.uuid())
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
