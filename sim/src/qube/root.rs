//! The folder that a qube sees as `/`, and how a process enters it.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
};

use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_remount};

use super::{Mode, Setup, USER_ID};
use crate::role::{QFILE_AGENT, QFILE_UNPACKER};

/// Folders that every qube has of its own.
const FOLDERS: [&str; 20] = [
    "home/user",
    "root",
    "tmp",
    "rw",
    "run",
    "etc/qubes-rpc",
    "var/tmp",
    "var/log",
    "var/lib",
    "var/cache",
    "dev/pts",
    "dev/shm",
    "proc",
    "sys",
    "usr",
    "opt",
    "mnt",
    "media",
    "srv",
    ".host/etc",
];
/// Folders that are links on most machines, and that a qube shares with the machine.
const SHARED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// Files that are the qube's own, and not the machine's.
const OWN: [&str; 8] =
    ["passwd", "group", "hostname", "hosts", "resolv.conf", "mtab", "qubes-rpc", "machine-id"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Where the programs of Qubes lie, since a qube's `/usr` is the machine's.
pub(super) const PROGRAMS: &str = "opt/qubes";
/// Folders that are empty after each start.
const VOLATILE: [&str; 2] = ["tmp", "run"];

/// Makes the folder of a qube, where it is not yet there, and empties what does not outlive a
/// start.
pub(crate) fn create(setup: &Setup) -> io::Result<()> {
    let root = &setup.root;
    for folder in VOLATILE {
        match fs::remove_dir_all(root.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder))?;
    }
    for folder in ["tmp", "var/tmp", "dev/shm"] {
        fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o1777))?;
    }
    let user = if setup.mode == Mode::Root { USER_ID } else { 0 };
    if setup.mode == Mode::Root {
        for folder in ["home/user", "rw"] {
            chown(root.join(folder), Some(USER_ID), Some(USER_ID))?;
        }
    }
    let etc = root.join("etc");
    let users = format!(
        "root:x:0:0:root:/root:/bin/bash\nuser:x:{user}:{user}:user:/home/user:/bin/bash\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    );
    fs::write(etc.join("passwd"), users)?;
    fs::write(etc.join("group"), format!("root:x:0:\nqubes:x:98:user\nuser:x:{user}:\n"))?;
    fs::write(etc.join("hostname"), format!("{}\n", setup.name))?;
    fs::write(etc.join("hosts"), format!("127.0.0.1 localhost {}\n", setup.name))?;
    let servers: &[&str] =
        if setup.network.is_some() { &["10.139.1.1", "10.139.1.2"] } else { &[] };
    let servers = servers.iter().map(|server| format!("nameserver {server}\n"));
    fs::write(etc.join("resolv.conf"), servers.collect::<String>())?;
    for device in DEVICES {
        fs::write(root.join("dev").join(device), [])?;
    }
    fs::create_dir_all(root.join(PROGRAMS))?;
    for name in [QFILE_AGENT, QFILE_UNPACKER] {
        let program = root.join(PROGRAMS).join(name);
        match setup.mode {
            Mode::Plain => link_once(std::env::current_exe()?, &program)?,
            Mode::Root | Mode::UserNamespace => fs::write(program, [])?,
        }
    }
    for (link, target) in [
        ("dev/fd", "/proc/self/fd"),
        ("dev/stdin", "/proc/self/fd/0"),
        ("dev/stdout", "/proc/self/fd/1"),
        ("dev/stderr", "/proc/self/fd/2"),
        ("etc/mtab", "/proc/self/mounts"),
        ("var/run", "../run"),
    ] {
        link_once(target, &root.join(link))?;
    }
    borrow(root)
}

/// Links to the machine's own settings and programs, through folders that the init mounts.
fn borrow(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir("/etc")?.flatten() {
        let name = entry.file_name();
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        link_once(Path::new("/.host/etc").join(&name), &root.join("etc").join(&name))?;
    }
    for name in SHARED {
        let real = Path::new("/").join(name);
        match fs::read_link(&real) {
            Ok(target) => link_once(target, &root.join(name))?,
            Err(_) if real.is_dir() => fs::create_dir_all(root.join(name))?,
            Err(_) => {}
        }
    }
    Ok(())
}

fn link_once(target: impl AsRef<Path>, link: &Path) -> io::Result<()> {
    match symlink(target, link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes the folder this process' `/`. Called by the init, in mount and process namespaces of its
/// own.
pub(super) fn enter(setup: &Setup) -> io::Result<()> {
    let root = &setup.root;
    read_only("/usr", &root.join("usr"), setup.mode)?;
    read_only("/etc", &root.join(".host/etc"), setup.mode)?;
    for name in SHARED {
        let target = root.join(name);
        if !target.is_symlink() && target.is_dir() {
            read_only(&format!("/{name}"), &target, setup.mode)?;
        }
    }
    let own = std::env::current_exe()?;
    for name in [QFILE_AGENT, QFILE_UNPACKER] {
        mount_bind(&own, root.join(PROGRAMS).join(name))?;
    }
    for name in ["nix", "gnu"] {
        if Path::new("/").join(name).is_dir() {
            fs::create_dir_all(root.join(name))?;
            read_only(&format!("/{name}"), &root.join(name), setup.mode)?;
        }
    }
    for device in DEVICES {
        mount_bind(Path::new("/dev").join(device), root.join("dev").join(device))?;
    }
    let safe = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("proc", root.join("proc"), "proc", safe | MountFlags::NODEV, None)?;
    // A qube without these two lacks little: terminals of its own, and what the kernel tells.
    let _ =
        mount("devpts", root.join("dev/pts"), "devpts", safe, Some(c"newinstance,ptmxmode=0666"));
    let _ = mount("sysfs", root.join("sys"), "sysfs", safe | MountFlags::RDONLY, None);
    rustix::process::chroot(root)?;
    std::env::set_current_dir("/")
}

/// Shows a folder of the machine without letting it be changed: with the power of root a qube
/// would otherwise change the machine itself.
fn read_only(source: &str, target: &Path, mode: Mode) -> io::Result<()> {
    mount_bind_recursive(source, target)?;
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    match mount_remount(target, flags, "") {
        // In a user namespace flags of the machine's own mount may be locked, and the machine's
        // files belong to somebody else anyway.
        Err(_) if mode == Mode::UserNamespace => Ok(()),
        result => Ok(result?),
    }
}
