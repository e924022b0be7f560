//! Where the server listens: a loopback address, a Unix socket, one that systemd made, or any address
//! if that is asked for.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
};

use listenfd::ListenFd;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};

use super::gate::PATH;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An address that only this qube reaches.
    Loopback(SocketAddr),
    /// An address that others may reach.
    Remote(SocketAddr),
    /// A socket in the file system, for its owner alone.
    Unix(PathBuf),
    /// The Unix socket that systemd hands over; its unit says who may connect.
    Systemd,
}

/// Why nothing listens there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// It was not asked for aloud.
    #[error(
        "{0} is no loopback address: whoever reaches it could try tokens; \
         --allow-remote listens there all the same, without encryption"
    )]
    NotLoopback(SocketAddr),
    /// Something else is there.
    #[error("{} is there and is no socket that nobody listens on", .0.display())]
    Occupied(PathBuf),
    /// This was not started for a socket.
    #[error("systemd hands no Unix socket over: start this by a .socket unit (systemd.socket(5))")]
    NoSocket,
    /// What systemd hands over is of no use.
    #[error("what systemd hands over is not one Unix socket to listen on")]
    HandedOver(#[source] io::Error),
    /// The address cannot be had.
    #[error("cannot listen on {place}")]
    Bind {
        /// The address or path.
        place: String,
        /// Why.
        source: io::Error,
    },
}

impl Place {
    /// The address, if it is a loopback one or others are allowed.
    pub(crate) fn parse(address: SocketAddr, allow_remote: bool) -> Result<Self, ListenError> {
        if address.ip().is_loopback() {
            Ok(Self::Loopback(address))
        } else if allow_remote {
            Ok(Self::Remote(address))
        } else {
            Err(ListenError::NotLoopback(address))
        }
    }
}

/// A stream of either kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Listens.
#[derive(Debug)]
pub(crate) enum Listener {
    /// On an address.
    Tcp(TcpListener),
    /// On a socket in the file system, which is removed at the end.
    Unix(UnixListener, SocketFile),
    /// On systemd's socket, which stays.
    Systemd(UnixListener),
}

/// Removes the socket when it goes away.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

impl Listener {
    /// Begins to listen.
    pub(crate) async fn bind(place: &Place) -> Result<Self, ListenError> {
        let failed = |place: String| move |source| ListenError::Bind { place, source };
        match place {
            Place::Loopback(address) | Place::Remote(address) => {
                let listener = TcpListener::bind(address).await;
                Ok(Self::Tcp(listener.map_err(failed(address.to_string()))?))
            }
            Place::Unix(path) => {
                clear(path)?;
                let named = || path.display().to_string();
                let listener = UnixListener::bind(path).map_err(failed(named()))?;
                let file = SocketFile(path.clone());
                // Connecting takes the right to write; the folder should be closed to others too.
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))
                    .map_err(failed(named()))?;
                Ok(Self::Unix(listener, file))
            }
            Place::Systemd => handed_over().map(Self::Systemd),
        }
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener, _) | Self::Systemd(listener) => {
                Ok(Box::new(listener.accept().await?.0))
            }
        }
    }

    /// Where clients reach it.
    pub(crate) fn render(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}{PATH}"),
                Err(error) => error.to_string(),
            },
            Self::Unix(_, SocketFile(path)) => path.display().to_string(),
            Self::Systemd(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "systemd's socket".into(), |path| path.display().to_string())
            }
        }
    }

    /// The address that was taken, where it is one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) | Self::Systemd(_) => None,
        }
    }
}

fn handed_over() -> Result<UnixListener, ListenError> {
    let listener = ListenFd::from_env().take_unix_listener(0).map_err(ListenError::HandedOver)?;
    let listener = listener.ok_or(ListenError::NoSocket)?;
    listener.set_nonblocking(true).map_err(ListenError::HandedOver)?;
    UnixListener::from_std(listener).map_err(ListenError::HandedOver)
}

/// Removes a socket that a server left behind which did not end in order.
fn clear(path: &Path) -> Result<(), ListenError> {
    let Ok(data) = fs::symlink_metadata(path) else { return Ok(()) };
    if !data.file_type().is_socket() || is_served(path) {
        return Err(ListenError::Occupied(path.into()));
    }
    fs::remove_file(path)
        .map_err(|source| ListenError::Bind { place: path.display().to_string(), source })
}

#[expect(clippy::disallowed_methods, reason = "asks whether a server of ours is there already")]
fn is_served(path: &Path) -> bool {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::ConnectionRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_reach_has_to_be_asked_for() {
        for (text, loopback) in [
            ("127.0.0.1:1", true),
            ("127.1.2.3:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.137.0.9:1", false),
            ("[::ffff:127.0.0.1]:1", false),
        ] {
            let address = text.parse().unwrap();
            assert_eq!(Place::parse(address, false).is_ok(), loopback, "{text}");
            let kind = matches!(Place::parse(address, true), Ok(Place::Loopback(_)));
            assert_eq!(kind, loopback, "{text}");
        }
    }

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_goes_with_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mcp.sock");
        let place = Place::Unix(path.clone());
        let listener = Listener::bind(&place).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(Listener::bind(&place).await, Err(ListenError::Occupied(_))));
        drop(listener);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(Listener::bind(&place).await.is_ok(), "a socket left behind is taken over");
        fs::write(&path, "").unwrap();
        assert!(matches!(Listener::bind(&place).await, Err(ListenError::Occupied(_))));
    }
}
