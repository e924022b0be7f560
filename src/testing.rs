//! A stand-in for qrexec, and a real MCP client on the other end of a pipe.

use std::{fs, os::unix::fs::symlink, path::PathBuf, sync::Arc};

use contract::{Frame, FrameCodec, Kind};
use tempfile::TempDir;
use tokio_util::codec::Encoder;

use crate::{agent::Agent, catalogue::Tools, qrexec::Qrexec, server::Server};

/// A few services, written by hand in the form of the real catalogue.
pub(crate) fn tools() -> Tools {
    Tools::parse(include_str!("testdata/catalogue.json")).unwrap()
}

/// A folder in which each call finds a script that answers it.
pub(crate) struct FakeQrexec {
    folder: TempDir,
}

impl FakeQrexec {
    /// One that refuses every call, as qrexec does.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A link to a file that nobody has open for writing: a fresh copy could be "busy".
        symlink(
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/testdata/qrexec-client-vm"),
            folder.path().join("qrexec-client-vm"),
        )
        .unwrap();
        Self { folder }
    }

    /// A file in the folder, which scripts see as `$dir/NAME`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Answers calls of `service`, with its argument, to `target` with a shell script.
    pub(crate) fn script(&self, target: &str, service: &str, script: &str) -> &Self {
        fs::write(self.path(&format!("{target}.saltbridge.{service}")), script).unwrap();
        self
    }

    /// Lays frames down for scripts to print with `cat`.
    pub(crate) fn frames(&self, name: &str, frames: &[(Kind, &[u8])]) -> &Self {
        fs::write(self.path(name), bytes(frames)).unwrap();
        self
    }

    /// Answers calls with these frames.
    pub(crate) fn answer(&self, target: &str, service: &str, frames: &[(Kind, &[u8])]) -> &Self {
        let name = format!("answer.{target}.{service}");
        self.frames(&name, frames);
        self.script(target, service, &format!("head -n 1 > /dev/null; cat \"$dir/{name}\""))
    }

    /// The calls that were made: target and service of each.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// A server that makes its calls here.
    pub(crate) fn server(&self) -> Server {
        Server::new(Arc::new(Agent::new(tools(), self.qrexec())))
    }

    /// The same without MCP.
    pub(crate) fn qrexec(&self) -> Qrexec {
        Qrexec::new(self.path("qrexec-client-vm"))
    }
}

/// Frames as bytes.
pub(crate) fn bytes(frames: &[(Kind, &[u8])]) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    for (kind, payload) in frames {
        FrameCodec.encode(Frame::new(*kind, payload.to_vec()), &mut bytes).unwrap();
    }
    bytes.to_vec()
}
