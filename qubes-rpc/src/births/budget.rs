//! The disk space of the sandbox: what its persistent volumes have, and what is left. The private
//! volume of a disposable counts as long as the disposable is there.

use admin_api::{Destination, QubeName, Tag, VolumeName, call};
use contract::{Fault, limits};
use futures_util::{StreamExt, TryStreamExt, stream};
use policy::{Class, Live, tier::SANDBOX_TAG};

use crate::{error::Error, handle::Handle, host::Host, service::Effect, settings::Sandbox};

/// The disk space of the sandbox, in bytes.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Of each qube of the sandbox, whoever made it.
    pub(crate) qubes: Vec<(QubeName, u64)>,
    /// Promised to what is being made.
    pub(crate) promised: u64,
}

impl Budget {
    /// All of it.
    pub(crate) fn used(&self) -> u64 {
        self.qubes.iter().map(|(_, bytes)| *bytes).fold(self.promised, u64::saturating_add)
    }
}

impl<E: Effect> Handle<'_, E> {
    /// What the sandbox has now.
    pub(crate) async fn budget(self) -> Result<Budget, Error> {
        let host = self.host;
        let all = host.qubesd.call(call::vm::list(Destination::Dom0), limits::QUBESD).await?;
        let names = all.into_iter().filter_map(|line| line.qube().map(|name| (name, line)));
        let qubes: Vec<Option<(QubeName, u64)>> = stream::iter(names)
            .map(|(name, line)| async move {
                let _turn = host.questions.acquire().await;
                let Some(found) = host.complete(&name, line, true).await? else { return Ok(None) };
                if !found.live.tags.iter().any(|tag: &Tag| tag.as_str() == SANDBOX_TAG) {
                    return Ok(None);
                }
                if host.births.promises(&found.live.uuid) {
                    return Ok(None);
                }
                let bytes = host.kept_bytes(found.live).await?;
                Ok::<_, Error>(Some((name, bytes)))
            })
            .buffered(limits::QUESTIONS_AT_ONCE)
            .try_collect()
            .await?;
        let promised = host.births.promised();
        Ok(Budget { qubes: qubes.into_iter().flatten().collect(), promised })
    }

    /// Refuses what has no room. Ask while holding the turn of births.
    pub(crate) async fn make_room(self, bytes: u64, settings: &Sandbox) -> Result<(), Error> {
        let free = settings.pool_cap.saturating_sub(self.budget().await?.used());
        if bytes <= free {
            return Ok(());
        }
        let message =
            format!("the sandbox has {free} bytes left, and this needs {bytes}; see disk_budget");
        Err(Fault::TooLarge { message }.into())
    }
}

impl Host {
    /// The size of the volumes that a qube keeps: until it is removed, or, as a disposable, until it
    /// ends. Zero for one that is gone.
    async fn kept_bytes(&self, qube: Live) -> Result<u64, Error> {
        let is_disposable = qube.class == Class::DispVm;
        let mut bytes: u64 = 0;
        for (name, info) in self.volumes(Destination::Uuid(qube.uuid)).await? {
            if info.save_on_stop || is_disposable && name.as_str() == "private" {
                bytes = bytes.saturating_add(info.size);
            }
        }
        Ok(bytes)
    }

    /// The volumes of a qube, root and private. None of one that is gone.
    pub(crate) async fn volumes(
        &self,
        qube: Destination,
    ) -> Result<Vec<(VolumeName, call::volume::VolumeInfo)>, Error> {
        use admin_api::Error as E;
        let names = match self.qubesd.call(call::volume::list(qube.clone()), limits::QUBESD).await {
            Ok(names) => names,
            Err(E::Exception(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut volumes = Vec::new();
        // What is made anew at every start is no copy of anything.
        for name in
            names.into_iter().filter(|name| !["volatile", "kernel"].contains(&name.as_str()))
        {
            let info = call::volume::info(qube.clone(), &name);
            match self.qubesd.call(info, limits::QUBESD).await {
                Ok(info) => volumes.push((name, info)),
                // A volume that a qube has not, such as the kernel of one that boots its own.
                Err(E::Exception(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(volumes)
    }
}
