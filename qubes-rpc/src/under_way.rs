//! Calls under way: what the audit log says of them, and what ends them besides their callers.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    time::Duration,
};

use contract::{Fault, limits};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value};
use tokio::time::sleep;

use crate::{
    admission::{NotAdmitted, admit, is_granted},
    audit::Head,
    descriptor::Descriptor,
    error::Error,
    handle::Call,
    host::Host,
    outcome::Outcome,
    pause::is_paused,
    service::Entry,
};

impl Host {
    /// Shows, as long as the file lives, that a call is under way: `pause` waits for its lock. A
    /// daemon that cannot lock works all the same.
    pub(crate) fn show_under_way(&self) -> Option<File> {
        let path = self.paths.calls_lock();
        let open =
            || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(path.parent()?).ok()?;
                open().ok()?
            }
            opened => opened.ok()?,
        };
        flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
        Some(file)
    }

    /// The last thing before an admitted call runs: nothing is paused, and what it asks for is
    /// written down.
    pub(crate) fn begin(
        &self,
        call: &mut Call,
        entry: &Entry,
        args: &Map<String, Value>,
    ) -> Result<(), Error> {
        if is_paused(&self.paths) {
            return Err(Fault::Refused {}.into());
        }
        let body = call.body.len();
        self.audit.intend(&mut call.record, entry, args, body).map_err(Error::Audit)
    }

    /// Writes down what became of a call, before its answer leaves.
    pub(crate) fn end(&self, call: &mut Call, outcome: &Outcome, took: Duration) -> Option<Head> {
        call.record.duration_ms = Some((took.as_secs_f64() * 1e6).round() / 1e3);
        call.record.bytes_out = Some(call.answer.sent());
        let detail = match (call.gone.is_cancelled(), outcome.detail.as_str()) {
            (true, "") => "ended early: the caller hung up, or its authority ended",
            (_, detail) => detail,
        };
        self.audit.tell(&mut call.record, outcome.name(), detail)
    }

    /// Resolves when everything is paused or the grant that a call rests on has ended: by the
    /// operator's file, or by the tags of its qube.
    pub(crate) async fn authority_ends(&self, descriptor: &Descriptor) {
        let by_file = async {
            while !is_paused(&self.paths) && is_granted(self, descriptor, self.now()) {
                sleep(limits::AUTHORITY).await;
            }
        };
        let by_tags = async {
            // Twice, since qubesd says no in the same way when it only fails to answer.
            let mut refusals = 0;
            while refusals < 2 {
                sleep(limits::AUTHORITY_BY_TAGS).await;
                let again = admit(self, descriptor, self.now()).await;
                let is_refused = matches!(again, Err(NotAdmitted::Refused(_)));
                refusals = if is_refused { refusals + 1 } else { 0 };
            }
        };
        tokio::select! {
            () = by_file => {}
            () = by_tags => {}
        }
    }
}
