//! `salt-bridge onion`: tor configuration for two v3 onion services, one for sshd and one for the
//! MCP endpoint, which only clients with a key can find.

mod files;
mod keys;

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Subcommand, ValueEnum};
use contract::PrincipalName;

use self::{
    files::{Places, SOCKET},
    keys::ClientKey,
};
use crate::secret_file::{self, SecretFileError};

pub(crate) use self::keys::parse_hostname;

/// What `onion` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder in which tor keeps the services; it must be tor's user's own
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tor/salt-bridge")]
    folder: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the folders and the lines for torrc, and let tor reach the hardened server
    Setup {
        /// The address of sshd
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:22")]
        ssh: std::net::SocketAddr,
        /// The Unix socket on which `salt-bridge serve` listens
        #[arg(long, value_name = "PATH", default_value = SOCKET)]
        mcp: PathBuf,
        #[command(flatten)]
        places: Places,
    },
    /// Let a client in, and print what goes into the client's ClientOnionAuthDir
    Add {
        /// The service
        service: Service,
        /// The client's name
        client: PrincipalName,
    },
    /// Give a client a new key; the old one is good no more
    Rotate {
        /// The service
        service: Service,
        /// The client's name
        client: PrincipalName,
    },
    /// Let a client in no more
    Revoke {
        /// The service
        service: Service,
        /// The client's name
        client: PrincipalName,
    },
    /// Show the addresses and the clients
    Show,
}

/// One of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Service {
    /// The shell.
    Ssh,
    /// The MCP endpoint.
    Mcp,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OnionError {
    /// A file or folder.
    #[error("{}", .path.display())]
    Io {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key's file.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The kernel gives no random bytes.
    #[error("no random bytes for a key")]
    Random(#[from] rustix::io::Errno),
    /// tor makes the address when it starts with the service.
    #[error("{} holds no address yet: start tor with the lines of `onion setup` first", .0.display())]
    NoAddress(PathBuf),
    /// tor would not read it.
    #[error("{0:?} cannot stand in torrc: only letters, digits and -._/ may be in it")]
    Path(PathBuf),
    /// tor is not there.
    #[error("{} is not there: install tor first, to whose user it belongs", .0.display())]
    NoTor(PathBuf),
    /// The client has a key already.
    #[error("{0} has a key already; `onion rotate` gives it a new one")]
    Known(PrincipalName),
    /// The client has no key.
    #[error("{0} has no key")]
    Unknown(PrincipalName),
    /// The answer cannot be written.
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
}

impl Service {
    const ALL: [Self; 2] = [Self::Ssh, Self::Mcp];

    fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Mcp => "mcp",
        }
    }

    /// The port at which clients find it.
    fn port(self) -> u16 {
        match self {
            Self::Ssh => 22,
            Self::Mcp => 80,
        }
    }

    fn folder(self, all: &Path) -> PathBuf {
        all.join(self.name())
    }

    fn clients(self, all: &Path) -> PathBuf {
        self.folder(all).join("authorized_clients")
    }

    fn key(self, all: &Path, client: &PrincipalName) -> PathBuf {
        self.clients(all).join(format!("{client}.auth"))
    }

    /// The address that tor has made, without `.onion`.
    fn address(self, all: &Path) -> Result<String, OnionError> {
        let path = self.folder(all).join("hostname");
        let content = fs::read_to_string(&path).unwrap_or_default();
        parse_hostname(&content).map(str::to_owned).ok_or(OnionError::NoAddress(path))
    }
}

/// Does it.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, OnionError> {
    let all = arguments.folder.as_path();
    let answer = match arguments.command {
        Command::Setup { ssh, mcp, places } => {
            let text = setup(all, ssh, &mcp)?;
            places.put(all, &mcp, text)?
        }
        Command::Add { service, client } => {
            if service.key(all, &client).exists() {
                return Err(OnionError::Known(client));
            }
            give_key(all, service, &client)?
        }
        Command::Rotate { service, client } => {
            if !service.key(all, &client).exists() {
                return Err(OnionError::Unknown(client));
            }
            give_key(all, service, &client)?
        }
        Command::Revoke { service, client } => revoke(all, service, &client)?,
        Command::Show => show(all)?,
    };
    io::stdout().write_all(answer.as_bytes()).map_err(OnionError::Output)?;
    Ok(ExitCode::SUCCESS)
}

/// The lines for torrc. A service without any key yet lets nobody in: tor leaves client
/// authorisation out when its folder of clients is empty, so a key that nobody has is put there.
fn setup(all: &Path, ssh: std::net::SocketAddr, mcp: &Path) -> Result<String, OnionError> {
    // What is made takes its owner from there.
    if let Some(parent) = all.parent().filter(|parent| !parent.is_dir()) {
        return Err(OnionError::NoTor(parent.into()));
    }
    let mut text = String::from("# Written by `salt-bridge onion setup`.\n");
    for service in Service::ALL {
        let folder = service.folder(all);
        let target = match service {
            Service::Ssh => ssh.to_string(),
            Service::Mcp => format!("unix:{}", plain(mcp)?),
        };
        text.push_str(&format!(
            "HiddenServiceDir {}\nHiddenServiceVersion 3\nHiddenServicePort {} {target}\n",
            plain(&folder)?,
            service.port()
        ));
        make_folder(&service.clients(all))?;
        let nobody = service.clients(all).join("nobody.auth");
        if !nobody.exists() {
            secret_file::create(&nobody, ClientKey::random()?.render_service().as_bytes())?;
            give_to_owner(&nobody, all)?;
        }
    }
    Ok(text)
}

fn plain(path: &Path) -> Result<&str, OnionError> {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/');
    let text = path.to_str().filter(|text| text.starts_with('/') && text.chars().all(inside));
    text.ok_or_else(|| OnionError::Path(path.into()))
}

/// Makes what is missing of a folder, for the owner of what was there.
fn make_folder(folder: &Path) -> Result<(), OnionError> {
    if folder.is_dir() {
        return Ok(());
    }
    let named = |source| OnionError::Io { path: folder.into(), source };
    if let Some(parent) = folder.parent() {
        make_folder(parent)?;
    }
    fs::DirBuilder::new().mode(0o700).create(folder).map_err(named)?;
    match folder.parent() {
        Some(parent) => give_to_owner(folder, parent),
        None => Ok(()),
    }
}

/// What root makes for tor must be tor's.
fn give_to_owner(path: &Path, of: &Path) -> Result<(), OnionError> {
    let named = |source| OnionError::Io { path: path.into(), source };
    let owner = fs::metadata(of).map_err(named)?;
    let own = fs::metadata(path).map_err(named)?;
    if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) {
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).map_err(named)?;
    }
    Ok(())
}

fn give_key(all: &Path, service: Service, client: &PrincipalName) -> Result<String, OnionError> {
    let address = service.address(all)?;
    let key = ClientKey::random()?;
    let path = service.key(all, client);
    secret_file::replace(&path, key.render_service().as_bytes())?;
    give_to_owner(&path, all)?;
    let named = |source| OnionError::Io { path: path.clone(), source };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(named)?;
    Ok(format!(
        "# {client}.auth_private, for the client's ClientOnionAuthDir. Reload tor here.\n{}",
        key.render_client(&address)
    ))
}

fn revoke(all: &Path, service: Service, client: &PrincipalName) -> Result<String, OnionError> {
    let path = service.key(all, client);
    match fs::remove_file(&path) {
        Ok(()) => {
            Ok("Restart tor here: a client that has found the service keeps its way until then.\n"
                .into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(OnionError::Unknown(client.clone()))
        }
        Err(source) => Err(OnionError::Io { path, source }),
    }
}

fn show(all: &Path) -> Result<String, OnionError> {
    let mut text = String::new();
    for service in Service::ALL {
        let address = match service.address(all) {
            Ok(address) => format!("{address}.onion"),
            Err(_) => "no address yet".into(),
        };
        let folder = service.clients(all);
        let mut clients = Vec::new();
        let named = |source| OnionError::Io { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(named)? {
            let name = entry.map_err(named)?.file_name();
            clients.extend(
                name.to_str().and_then(|name| name.strip_suffix(".auth")).map(str::to_owned),
            );
        }
        clients.retain(|client| client != "nobody");
        clients.sort();
        text.push_str(&format!("{}\t{address}\tclients: {}\n", service.name(), clients.join(" ")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PrincipalName {
        PrincipalName::parse(text).unwrap()
    }

    #[test]
    fn both_services_are_closed_before_the_first_client() {
        let folder = tempfile::tempdir().unwrap();
        let all = folder.path().join("tor");
        let text = setup(&all, "127.0.0.1:22".parse().unwrap(), Path::new("/run/x.sock"));
        let text = text.unwrap();
        assert!(text.contains("HiddenServicePort 22 127.0.0.1:22\n"), "{text}");
        assert!(text.contains("HiddenServicePort 80 unix:/run/x.sock\n"), "{text}");
        for service in Service::ALL {
            let keys = fs::read_dir(service.clients(&all)).unwrap().count();
            assert_eq!(keys, 1);
            assert_eq!(fs::metadata(service.folder(&all)).unwrap().mode() & 0o777, 0o700);
        }
        assert!(setup(&all, "127.0.0.1:22".parse().unwrap(), Path::new("/a b")).is_err());
        let nowhere = folder.path().join("no/tor");
        let text = setup(&nowhere, "127.0.0.1:22".parse().unwrap(), Path::new("/run/x.sock"));
        assert!(matches!(text, Err(OnionError::NoTor(_))));
    }

    #[test]
    fn a_client_gets_a_key_a_new_one_and_none() {
        let folder = tempfile::tempdir().unwrap();
        let all = folder.path();
        setup(all, "127.0.0.1:22".parse().unwrap(), Path::new("/run/x.sock")).unwrap();
        assert!(matches!(
            give_key(all, Service::Mcp, &name("laptop")),
            Err(OnionError::NoAddress(_))
        ));
        let address = "b".repeat(56);
        fs::write(Service::Mcp.folder(all).join("hostname"), format!("{address}.onion\n")).unwrap();
        let one = give_key(all, Service::Mcp, &name("laptop")).unwrap();
        assert!(one.contains(&format!("\n{address}:descriptor:x25519:")), "{one}");
        let path = Service::Mcp.key(all, &name("laptop"));
        let first = fs::read_to_string(&path).unwrap();
        let two = give_key(all, Service::Mcp, &name("laptop")).unwrap();
        assert_ne!(one, two);
        assert_ne!(fs::read_to_string(&path).unwrap(), first);
        assert!(show(all).unwrap().contains("clients: laptop\n"));
        revoke(all, Service::Mcp, &name("laptop")).unwrap();
        assert!(matches!(revoke(all, Service::Mcp, &name("laptop")), Err(OnionError::Unknown(_))));
    }
}
