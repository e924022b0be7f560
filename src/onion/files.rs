//! The files that `onion setup` writes: the lines for tor, and what lets tor's user reach the hardened
//! server.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{OnionError, plain};

/// The socket of the unit that `harden` writes.
pub(super) const SOCKET: &str = "/run/salt-bridge-mcp/mcp.sock";
/// What the drop-in of that unit is, from the folder of units.
const DROP_IN: &str = "salt-bridge-mcp.socket.d/onion.conf";
/// The list of what bind-dirs keeps of an AppVM, where there is a folder for it.
const KEPT: &str = "qubes-bind-dirs.d/41-salt-bridge-onion.conf";

/// Where files go.
#[derive(Debug, clap::Args)]
pub(super) struct Places {
    /// Write the lines to this file, which torrc is made to include, instead of printing them
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// The file that tor reads
    #[arg(long, value_name = "FILE", default_value = "/etc/tor/torrc", requires = "write")]
    torrc: PathBuf,
    /// The folder of systemd's units, for what lets tor's group connect to the hardened server
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system", requires = "write")]
    units: PathBuf,
    /// The folder of this qube's own configuration, where it is an AppVM
    #[arg(long, value_name = "DIR", default_value = "/rw/config", requires = "write")]
    config: PathBuf,
}

impl Places {
    /// Writes what tor needs to serve from `folder` and to reach `mcp`, and says what to do next. The
    /// text itself where nothing is to be written.
    pub(super) fn put(self, folder: &Path, mcp: &Path, text: String) -> Result<String, OnionError> {
        let Some(path) = &self.write else { return Ok(text) };
        let mut kept = vec![path.as_path(), &self.torrc, folder];
        write(path, text)?;
        include(&self.torrc, path)?;
        let drop_in = self.units.join(DROP_IN);
        if mcp == Path::new(SOCKET) {
            let group = group_of(folder)?;
            let text = format!(
                "# Written by `salt-bridge onion setup`: tor brings clients, and each needs a token.\n\
                 [Socket]\nSocketGroup={group}\nSocketMode=0660\n"
            );
            write(&drop_in, text)?;
            kept.extend(drop_in.parent());
        }
        if self.config.is_dir() {
            let mut text = String::from("# What `salt-bridge onion` needs outlives a restart.\n");
            for path in kept {
                text.push_str(&format!("binds+=( '{}' )\n", plain(path)?));
            }
            write(&self.config.join(KEPT), text)?;
        }
        Ok(format!(
            "wrote {}; to put it into effect, here or by restarting the qube:\n  \
             sh /rw/config/rc.local.d/40-salt-bridge.rc; systemctl restart tor\n\
             `onion show` tells the addresses then\n",
            path.display()
        ))
    }
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> OnionError {
    let path = path.to_path_buf();
    move |source| OnionError::Io { path, source }
}

fn write(path: &Path, text: String) -> Result<(), OnionError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(named(folder))?;
    }
    fs::write(path, text).map_err(named(path))
}

/// Has torrc include the file, unless it does.
fn include(torrc: &Path, path: &Path) -> Result<(), OnionError> {
    let line = format!("%include {}", plain(path)?);
    let text = match fs::read_to_string(torrc) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(named(torrc))?,
    };
    if text.lines().any(|known| known.trim() == line) {
        return Ok(());
    }
    let begin = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut file =
        fs::OpenOptions::new().append(true).create(true).open(torrc).map_err(named(torrc))?;
    writeln!(file, "{begin}{line}").map_err(named(torrc))
}

/// The name of the group of tor's folder, which is the one that tor keeps: it gives up all others.
fn group_of(folder: &Path) -> Result<String, OnionError> {
    let gid = fs::metadata(folder).map_err(named(folder))?.gid().to_string();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number == gid).then(|| name.to_owned())
    });
    Ok(name.unwrap_or(gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tors_group_is_let_in_and_torrc_includes_the_lines_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::write(at("torrc"), "SocksPort 0").unwrap();
        fs::create_dir(at("config")).unwrap();
        for _ in 0..2 {
            let places = Places {
                write: Some(at("torrc.d/x.conf")),
                torrc: at("torrc"),
                units: at("units"),
                config: at("config"),
            };
            places.put(folder.path(), Path::new(SOCKET), "lines\n".into()).unwrap();
        }
        let include = format!("SocksPort 0\n%include {}\n", at("torrc.d/x.conf").display());
        assert_eq!(fs::read_to_string(at("torrc")).unwrap(), include);
        let drop_in = fs::read_to_string(at("units").join(DROP_IN)).unwrap();
        let group = group_of(folder.path()).unwrap();
        assert!(drop_in.contains(&format!("\n[Socket]\nSocketGroup={group}\nSocketMode=0660\n")));
        let kept = fs::read_to_string(at("config").join(KEPT)).unwrap();
        assert_eq!(kept.matches("binds+=").count(), 4, "{kept}");
    }

    #[test]
    fn another_socket_is_its_owners_business() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let places = Places {
            write: Some(at("x.conf")),
            torrc: at("torrc"),
            units: at("units"),
            config: at("none"),
        };
        places.put(folder.path(), Path::new("/run/other.sock"), "lines\n".into()).unwrap();
        assert!(!at("units").exists() && !at("none").exists());
    }
}
