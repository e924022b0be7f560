//! Copying between two qubes: authority over both, for as long as it takes.

use std::{future::pending, rc::Rc, time::Duration};

use admin_api::QubeName;
use contract::{Fault, Power, limits};
use policy::ManagedQube;

use crate::{
    error::Error,
    handle::{Writer, qrexec_name},
    run::{COPY_STEP, CopyFailure, FileCopied, FileCopy, FileFailure, Place, User},
    scope_file::read_granted,
    view::View,
};

/// Two qubes, and what is copied from the one to the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Between<'a> {
    /// The name of the qube that has it.
    pub(crate) source: &'a QubeName,
    /// What, there.
    pub(crate) source_path: &'a [u8],
    /// The name of the qube that gets it.
    pub(crate) target: &'a QubeName,
    /// The path of the copy there.
    pub(crate) target_path: &'a [u8],
    /// Directories too.
    pub(crate) recursive: bool,
    /// What is there may be replaced.
    pub(crate) overwrite: bool,
    /// The longest that it may take.
    pub(crate) deadline: Duration,
}

impl Writer<'_> {
    /// Copies from one qube into another. Both must be the caller's, now and until the end.
    pub(crate) async fn copy_between(
        self,
        view: &View,
        between: Between<'_>,
    ) -> Result<Result<FileCopied, CopyFailure>, Error> {
        let (source, target) = self.both_qubes(view, between).await?;
        if target.takes_copies_only() {
            parse_dumped(between)?;
        }
        for qube in [&source, &target] {
            let state = self.state(qube).await?;
            if self.gone().is_cancelled() || !self.holds_both(view, between) {
                return Err(Error::Cancelled);
            }
            self.host.make_running(qube, state).await?;
        }
        let (from, to) = (qrexec_name(&source), qrexec_name(&target));
        let copy = FileCopy {
            from: Place { qube: &from, user: User::Default, deadline: between.deadline },
            source: between.source_path,
            to: Place { qube: &to, user: User::Default, deadline: COPY_STEP },
            target: between.target_path,
            recursive: between.recursive,
            overwrite: between.overwrite,
        };
        let stop = self.gone().child_token();
        let watch = async {
            while self.holds_both(view, between) {
                tokio::time::sleep(limits::AUTHORITY).await;
            }
            stop.cancel();
            pending::<()>().await;
        };
        let mut told = |bytes: u64| self.call.answer.say(&format!("{bytes} bytes copied"));
        tokio::select! {
            copied = self.host.runner.copy_files(copy, &mut told, &stop) => match copied {
                Err(CopyFailure::Source(FileFailure::Cancelled)
                    | CopyFailure::Target(FileFailure::Cancelled)) => Err(Error::Cancelled),
                copied => Ok(copied),
            },
            () = watch => Err(Error::Cancelled),
        }
    }

    async fn both_qubes(
        self,
        view: &View,
        between: Between<'_>,
    ) -> Result<(ManagedQube, ManagedQube), Error> {
        let caller = view.caller().map_err(|_| Fault::Refused {})?;
        let (source, target) = caller
            .pair_to_copy(between.source, between.target, view.now())
            .map_err(|_| Fault::Refused {})?;
        let source = self.host.manage(source).await?.map_err(|_| Fault::Refused {})?;
        let target = self.host.manage(target).await?.map_err(|_| Fault::Refused {})?;
        Ok((source, target))
    }

    /// Whether the operator's file still grants both.
    fn holds_both(self, view: &View, between: Between<'_>) -> bool {
        let Ok(scope) = read_granted(&self.host.paths, self.host.trusted) else {
            return false;
        };
        let now = self.host.now();
        let view = View::admit(Rc::new(scope), view.agent(), Power::Files, now);
        let Ok(view) = view else { return false };
        view.caller()
            .is_ok_and(|caller| caller.pair_to_copy(between.source, between.target, now).is_ok())
    }
}

/// What may come into a qube that only takes copies: a new file or directory in the folder in which
/// Qubes puts copies from the source. Anywhere else a file could be one that the qube runs, and a
/// longer path could lead through a link that was copied before.
fn parse_dumped(between: Between<'_>) -> Result<(), Fault> {
    let folder = format!("QubesIncoming/{}/", between.source);
    let name = between.target_path.strip_prefix(folder.as_bytes()).unwrap_or_default();
    if name.is_empty() || name.contains(&b'/') || name == b"." || name == b".." {
        let message =
            format!("target_vm only takes new files, and only as {folder}NAME in its home");
        return Err(Fault::bad_request(message));
    }
    if between.overwrite {
        return Err(Fault::bad_request("target_vm only takes new files; overwrite is refused"));
    }
    Ok(())
}
