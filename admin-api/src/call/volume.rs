//! Volumes of qubes: `admin.vm.volume.*`.

use super::{Call, ReplyError, boolean, lines, nothing, number, text, value};
use crate::{Destination, PoolName, Request, Revision, VolumeName};

/// The reply of `admin.vm.volume.Info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// The pool in which it lies.
    pub pool: PoolName,
    /// Its identity in that pool.
    pub vid: String,
    /// Its size in bytes.
    pub size: u64,
    /// How many bytes it takes.
    pub usage: u64,
    /// Whether the qube can write to it.
    pub rw: bool,
    /// The volume from which it is made at every start.
    pub source: Option<String>,
    /// Whether what the qube writes outlives its shutdown.
    pub save_on_stop: bool,
    /// Whether it is made anew at every start.
    pub snap_on_start: bool,
    /// How many older states are kept; -1 where the pool does not say.
    pub revisions_to_keep: i64,
    /// Whether its source has changed since it was made.
    pub is_outdated: bool,
}

/// What `clone_from` gives and `clone_to` takes, once: a permission to copy one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneToken(String);

impl CloneToken {
    /// Reads a token.
    pub fn parse(text: &str) -> Result<Self, ReplyError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(Self(text.to_owned()));
        }
        Err(ReplyError::value("a token", text))
    }

    /// The token as it travels.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn request(method: &'static str, destination: Destination, volume: &VolumeName) -> Request {
    Request::new(method, destination).argument(volume.as_str())
}

fn flag(found: bool) -> &'static str {
    if found { "True" } else { "False" }
}

/// The names of a qube's volumes.
pub fn list(destination: Destination) -> Call<Vec<VolumeName>> {
    Call::new(Request::new("admin.vm.volume.List", destination), lines)
}

/// What a volume is.
pub fn info(destination: Destination, volume: &VolumeName) -> Call<VolumeInfo> {
    Call::new(request("admin.vm.volume.Info", destination, volume), |content| {
        let text = text(content)?;
        let get = |key| value(text.lines(), key);
        let is = |key| boolean(key, get(key)?);
        Ok(VolumeInfo {
            pool: PoolName::parse(get("pool")?)?,
            vid: get("vid")?.to_owned(),
            size: number("size", get("size")?)?,
            usage: number("usage", get("usage")?)?,
            rw: is("rw")?,
            source: get("source").ok().filter(|source| !source.is_empty()).map(str::to_owned),
            save_on_stop: is("save_on_stop")?,
            snap_on_start: is("snap_on_start")?,
            revisions_to_keep: number("revisions_to_keep", get("revisions_to_keep")?)?,
            is_outdated: get("is_outdated").is_ok_and(|found| found == "True"),
        })
    })
}

/// The older states of a volume.
pub fn snapshots(destination: Destination, volume: &VolumeName) -> Call<Vec<Revision>> {
    Call::new(request("admin.vm.volume.ListSnapshots", destination, volume), lines)
}

/// Makes a volume larger, to this many bytes. Some pools make it smaller, too.
pub fn resize(destination: Destination, volume: &VolumeName, bytes: u64) -> Call<()> {
    let request = request("admin.vm.volume.Resize", destination, volume);
    Call::new(request.payload(bytes.to_string()), nothing)
}

/// Puts an older state in place of the present one. The qube must be halted.
pub fn revert(destination: Destination, volume: &VolumeName, revision: &Revision) -> Call<()> {
    let request = request("admin.vm.volume.Revert", destination, volume);
    Call::new(request.payload(revision.to_string()), nothing)
}

/// Says how many older states to keep.
pub fn set_revisions_to_keep(
    destination: Destination,
    volume: &VolumeName,
    number: u32,
) -> Call<()> {
    let request = request("admin.vm.volume.Set.revisions_to_keep", destination, volume);
    Call::new(request.payload(number.to_string()), nothing)
}

/// Says whether the qube can write to a volume.
pub fn set_rw(destination: Destination, volume: &VolumeName, rw: bool) -> Call<()> {
    let request = request("admin.vm.volume.Set.rw", destination, volume);
    Call::new(request.payload(flag(rw)), nothing)
}

/// Says whether a volume is encrypted with a key that is forgotten at shutdown.
pub fn set_ephemeral(destination: Destination, volume: &VolumeName, ephemeral: bool) -> Call<()> {
    let request = request("admin.vm.volume.Set.ephemeral", destination, volume);
    Call::new(request.payload(flag(ephemeral)), nothing)
}

/// Empties a volume.
pub fn clear(destination: Destination, volume: &VolumeName) -> Call<()> {
    Call::new(request("admin.vm.volume.Clear", destination, volume), nothing)
}

/// Allows this volume to be copied once.
pub fn clone_from(destination: Destination, volume: &VolumeName) -> Call<CloneToken> {
    Call::new(request("admin.vm.volume.CloneFrom", destination, volume), |content| {
        CloneToken::parse(text(content)?)
    })
}

/// Replaces this volume by a copy of the one for which the token was given.
pub fn clone_to(destination: Destination, volume: &VolumeName, token: &CloneToken) -> Call<()> {
    let request = request("admin.vm.volume.CloneTo", destination, volume);
    Call::new(request.payload(token.0.clone()), nothing)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{sent, work};
    use super::*;

    #[test]
    fn volume_methods_carry_the_volume_as_argument() {
        let volume = VolumeName::parse("private").unwrap();
        let token = CloneToken::parse("iXJwCBSV8YrI2MquNJpRHaz8l3TSVhwR").unwrap();
        let revision = Revision::parse("1").unwrap();
        for (bytes, expected) in [
            (sent(&list(work())), "List+ dom0 name work\0"),
            (sent(&info(work(), &volume)), "Info+private dom0 name work\0"),
            (sent(&snapshots(work(), &volume)), "ListSnapshots+private dom0 name work\0"),
            (
                sent(&resize(work(), &volume, 3_221_225_472)),
                "Resize+private dom0 name work\x003221225472",
            ),
            (sent(&revert(work(), &volume, &revision)), "Revert+private dom0 name work\x001"),
            (
                sent(&set_revisions_to_keep(work(), &volume, 2)),
                "Set.revisions_to_keep+private dom0 name work\x002",
            ),
            (sent(&set_rw(work(), &volume, true)), "Set.rw+private dom0 name work\0True"),
            (
                sent(&set_ephemeral(work(), &volume, false)),
                "Set.ephemeral+private dom0 name work\0False",
            ),
            (sent(&clear(work(), &volume)), "Clear+private dom0 name work\0"),
            (sent(&clone_from(work(), &volume)), "CloneFrom+private dom0 name work\0"),
            (
                sent(&clone_to(work(), &volume, &token)),
                "CloneTo+private dom0 name work\0iXJwCBSV8YrI2MquNJpRHaz8l3TSVhwR",
            ),
        ] {
            assert_eq!(bytes, format!("admin.vm.volume.{expected}"));
        }
        let call = clone_from(work(), &volume);
        assert_eq!(call.answer(b"0\0iXJwCBSV8YrI2MquNJpRHaz8l3TSVhwR").unwrap(), token);
        assert!(call.answer(b"0\0").is_err() && call.answer(b"0\0a b").is_err());
        assert_eq!(snapshots(work(), &volume).answer(b"0\x001\n").unwrap(), [revision]);
    }

    #[test]
    fn a_volume_tells_its_pool_its_size_and_what_becomes_of_it() {
        let reply = b"0\0pool=varlibqubes\nvid=appvms/work/root\nsize=10737418240\nusage=4485120\nrw=True\nsource=vm-templates/fedora-42/root\npath=/x\nsave_on_stop=False\nsnap_on_start=True\nrevisions_to_keep=1\nephemeral=False\nis_outdated=False\n";
        let call = info(work(), &VolumeName::parse("root").unwrap());
        let found = call.answer(reply).unwrap();
        assert_eq!((found.size, found.usage, found.rw), (10_737_418_240, 4_485_120, true));
        assert_eq!(found.source.as_deref(), Some("vm-templates/fedora-42/root"));
        assert!(found.snap_on_start && !found.save_on_stop && !found.is_outdated);
        assert!(call.answer(b"0\0pool=varlibqubes\n").is_err());
    }
}
