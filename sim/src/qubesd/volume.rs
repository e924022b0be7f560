//! `admin.vm.volume.*`, `admin.pool.*` and notes: as much as it takes to look at them.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, chown, symlink},
    path::Path,
};

use super::{Class, Failure, PowerState, Qube, System, request::Asked, value::truth};
use crate::{host::Shared, population::KERNEL};

type Answer = Result<String, Failure>;

const VOLUMES: [&str; 4] = ["root", "private", "volatile", "kernel"];
const GIB: u64 = 1 << 30;
/// What the pool of a host holds, in bytes.
const POOL_BYTES: u64 = 64 * GIB;

fn denied(what: &str) -> Failure {
    Failure::new("PermissionDenied", format!("Argument not in '{what}'"))
}

fn size(qube: &Qube, volume: &str) -> u64 {
    let default = match volume {
        "private" => 2 * GIB,
        "kernel" => 0,
        _ => 10 * GIB,
    };
    qube.volumes.get(volume).copied().unwrap_or(default)
}

pub(super) fn list(system: &mut System, asked: &Asked) -> Answer {
    let qube = system.require(&asked.destination)?;
    let volumes: &[&str] = if qube.is_admin() { &[] } else { &VOLUMES };
    Ok(volumes.iter().map(|volume| format!("{volume}\n")).collect())
}

fn volume<'a>(qube: &Qube, asked: &'a Asked) -> Result<&'a str, Failure> {
    let known = !qube.is_admin() && VOLUMES.contains(&asked.argument.as_str());
    if known { Ok(&asked.argument) } else { Err(denied(&format!("{} volumes", qube.name))) }
}

pub(super) fn info(system: &mut System, asked: &Asked) -> Answer {
    let qube = system.require(&asked.destination)?;
    let volume = volume(qube, asked)?;
    let (folder, size) = (qube.folder(), size(qube, volume));
    if volume == "kernel" {
        return Ok(format!(
            "pool=linux-kernel\nvid={KERNEL}\nsize={size}\nusage=0\nrw=False\nsource=\n\
             path=/var/lib/qubes/vm-kernels/{KERNEL}/modules.img\nsave_on_stop=False\n\
             snap_on_start=False\nrevisions_to_keep=0\nephemeral=False\nis_outdated=False\n"
        ));
    }
    let own_root = matches!(qube.class, Class::Template | Class::Standalone);
    let template = system.get(&system.value(qube, "template"));
    let source = match (volume, template) {
        ("root", Some(template)) if !own_root => format!("{}/root", template.folder()),
        _ => String::new(),
    };
    let saved = match volume {
        "root" => own_root,
        "private" => qube.class != Class::Disposable,
        _ => false,
    };
    Ok(format!(
        "pool=varlibqubes\nvid={folder}/{volume}\nsize={size}\nusage=0\nrw=True\n\
         source={source}\npath=/var/lib/qubes/{folder}/{volume}-dirty.img\n\
         save_on_stop={}\nsnap_on_start={}\nrevisions_to_keep=1\nephemeral=False\n\
         is_outdated=False\n",
        truth(saved),
        truth(!source.is_empty()),
    ))
}

pub(super) fn resize(system: &mut System, asked: &Asked) -> Answer {
    let text = str::from_utf8(&asked.payload).unwrap_or_default();
    let new = text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let new = new.ok_or_else(|| Failure::protocol("Volume size contains non ASCII digits"))?;
    let qube = system.require_mut(&asked.destination)?;
    let volume = volume(qube, asked)?.to_owned();
    qube.volumes.insert(volume, new);
    Ok(String::new())
}

/// Allows one volume to be copied once.
pub(super) fn clone_from(system: &mut System, asked: &Asked) -> Answer {
    let qube = system.require(&asked.destination)?;
    let volume = volume(qube, asked)?.to_owned();
    let uuid = qube.uuid.clone();
    let token = format!("token{}", system.take_qid());
    system.copies.insert(token.clone(), (uuid, volume));
    Ok(token)
}

/// Copies the volume for which the token was given. Of a private volume what is in the folder of
/// its user goes along.
pub(super) fn clone_to(shared: &Shared, asked: &Asked) -> Answer {
    let system = &mut *shared.system();
    let token = str::from_utf8(&asked.payload).unwrap_or_default();
    let unknown = || Failure::new("QubesVolumeCopyTokenNotFoundError", "Invalid volume copy token");
    let (uuid, from) = system.copies.remove(token).ok_or_else(unknown)?;
    let source = system.all().find(|qube| qube.uuid == uuid).ok_or_else(unknown)?;
    let (bytes, name) = (size(source, &from), source.name.clone());
    let qube = system.require_mut(&asked.destination)?;
    let volume = volume(qube, asked)?.to_owned();
    if qube.power != PowerState::Halted {
        let message = format!("Domain is not powered off: '{}'", qube.name);
        return Err(Failure::new("QubesVMNotHaltedError", message));
    }
    if volume == "private" {
        let folder = |name: &str| shared.layout.qube_root(name).join("home/user");
        copy_folder(&folder(&name), &folder(&qube.name)).map_err(|_| Failure::Empty)?;
    }
    qube.volumes.insert(volume, bytes);
    Ok(String::new())
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &to)?;
            let owner = entry.metadata()?;
            chown(&to, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    let owner = fs::metadata(from)?;
    chown(to, Some(owner.uid()), Some(owner.gid()))
}

pub(super) fn list_pools(_system: &mut System, _asked: &Asked) -> Answer {
    Ok("varlibqubes\nlinux-kernel\n".to_owned())
}

pub(super) fn pool_info(system: &mut System, asked: &Asked) -> Answer {
    match asked.argument.as_str() {
        "varlibqubes" => {
            let used: u64 = system.all().map(|qube| qube.volumes.values().sum::<u64>()).sum();
            Ok(format!(
                "dir_path=/var/lib/qubes\ndriver=file-reflink\nephemeral_volatile=False\n\
                 name=varlibqubes\nrevisions_to_keep=1\nsize={POOL_BYTES}\nusage={used}\n"
            ))
        }
        "linux-kernel" => Ok("dir_path=/var/lib/qubes/vm-kernels\ndriver=linux-kernel\n\
                              name=linux-kernel\nincluded_in=varlibqubes\n"
            .to_owned()),
        _ => Err(denied("pools")),
    }
}

pub(super) fn device_classes(_system: &mut System, _asked: &Asked) -> Answer {
    Ok("usb\nblock\npci\nmic\n".to_owned())
}

pub(super) fn vm_classes(_system: &mut System, _asked: &Asked) -> Answer {
    Ok("AdminVM\nAppVM\nDispVM\nRemoteVM\nStandaloneVM\nTemplateVM\n".to_owned())
}

pub(super) fn get_notes(system: &mut System, asked: &Asked) -> Answer {
    system.require(&asked.destination).map(|qube| qube.notes.clone())
}

pub(super) fn set_notes(system: &mut System, asked: &Asked) -> Answer {
    let text = str::from_utf8(&asked.payload).map_err(|error| {
        let place = error.valid_up_to();
        let byte = asked.payload.get(place).copied().unwrap_or_default();
        Failure::protocol(format!(
            "Unable to sanitise qube notes: 'utf-8' codec can't decode byte 0x{byte:02x} in \
             position {place}: invalid start byte"
        ))
    })?;
    text.clone_into(&mut system.require_mut(&asked.destination)?.notes);
    Ok(String::new())
}
