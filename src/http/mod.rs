//! `salt-bridge serve`: MCP over Streamable HTTP, for clients outside this qube.
//!
//! The same server as on standard input and output; what is here decides who reaches it.

mod bodies;
mod connections;
mod gate;
mod guests;
mod listener;
mod sessions;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use contract::limits;
use rmcp::{ServerHandler, transport::streamable_http_server::StreamableHttpServerConfig};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::{
    gate::{Door, Gate},
    listener::{ListenError, Listener, Place},
    sessions::Sessions,
};
use crate::{
    caller::Caller,
    cli::{self, AgentError, Calls},
    confinement::Writes,
    log,
    principals::{
        command::Files,
        keys::{self, Keys, KeysError},
    },
    server::Server,
};

/// The port that is listened on unless another is given.
const PORT: u16 = 7325;

/// What `serve` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    reach: Reach,
    #[command(flatten)]
    files: Files,
    /// Let callers use the folder of --transfer-dir, which is in this qube
    #[arg(long)]
    allow_transfers: bool,
}

/// Where the server listens, and to whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Reach {
    /// Listen on this address and port
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "unix",
        default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))]
    listen: SocketAddr,
    /// Listen on this Unix socket instead, for this user alone
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Listen on the Unix socket that systemd hands over; its unit says who may connect
    #[arg(long, conflicts_with_all = ["listen", "unix"])]
    systemd_socket: bool,
    /// Listen on an address that is no loopback address. Nothing is encrypted
    #[arg(long)]
    allow_remote: bool,
    /// A host name by which clients may reach this server besides localhost; may be repeated
    #[arg(long, value_name = "HOST")]
    allow_host: Vec<String>,
    /// An origin from which pages in browsers may reach this server; may be repeated
    #[arg(long, value_name = "SCHEME://HOST:PORT")]
    allow_origin: Vec<String>,
}

/// Why the server could not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The services, or the folder for transfers.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Files of this qube would be offered without having been asked for.
    #[error(
        "--transfer-dir lets callers read and write files of this qube; \
             --allow-transfers says that this is meant"
    )]
    Transfers,
    /// The tokens.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The signals of the process cannot be watched.
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
    /// There is no event loop.
    #[error("no event loop")]
    Runtime(#[source] io::Error),
    /// The folder for the tokens is not known.
    #[error("neither XDG_CONFIG_HOME nor HOME says where tokens are; use --token-file")]
    NoHome,
}

/// Serves until a signal asks for the end.
pub(crate) fn run(arguments: Arguments, calls: Calls) -> Result<ExitCode, ServeError> {
    let Arguments { reach, files, allow_transfers } = arguments;
    if calls.has_transfers() && !allow_transfers {
        return Err(ServeError::Transfers);
    }
    let places = files.places().ok_or(ServeError::NoHome)?;
    let writes = calls.writes();
    if keys::make_token(&places.token)? {
        log::line(&format!("made a token, in {}", places.token.display()));
    }
    let keys = Arc::new(Keys::open(places)?);
    let agent = calls.agent()?;
    let server = move |caller| Server::new(Arc::new(agent.for_caller(caller)));
    let door = Door::Tokens(Arc::clone(&keys));
    cli::on_one_thread(serve(&reach, &writes, door, Some(keys), server))
        .map_err(ServeError::Runtime)??;
    Ok(ExitCode::SUCCESS)
}

/// Serves such handlers there until a signal asks for the end.
async fn serve<H: ServerHandler>(
    reach: &Reach,
    writes: &Writes,
    door: Door,
    keys: Option<Arc<Keys>>,
    server: impl Fn(Arc<Caller>) -> H + Send + Sync + 'static,
) -> Result<(), ServeError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let listener = Listener::bind(&reach.place()?).await?;
    // The socket is removed at the end.
    let socket = reach.unix.as_deref().and_then(Path::parent);
    let socket = socket.map(|folder| if folder == Path::new("") { Path::new(".") } else { folder });
    writes.confine(socket);
    log::line(&format!("listening on {}", listener.render()));
    let stopping = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    };
    tokio::join!(attend(listener, reach, door, keys, server, stop.clone()), stopping);
    Ok(())
}

/// Serves such handlers to who comes in by this door, until `stop` is cancelled.
async fn attend<H: ServerHandler>(
    listener: Listener,
    reach: &Reach,
    door: Door,
    keys: Option<Arc<Keys>>,
    server: impl Fn(Arc<Caller>) -> H + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let sessions = Arc::new(Sessions::new());
    let config = reach.config(listener.address(), &stop);
    let gate = Gate::new(door, server, Arc::clone(&sessions), config);
    let gate = Arc::new(if listener.address().is_none() { gate.with_onions() } else { gate });
    let serving = connections::serve(listener, gate, stop);
    tokio::select! {
        () = serving => {}
        () = watch(keys, &sessions) => {}
    }
}

/// Ends what runs for those whose tokens were taken back. Does not return.
async fn watch(keys: Option<Arc<Keys>>, sessions: &Sessions) {
    let mut ticks = interval(limits::AUTHORITY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(keys) = &keys {
            keys.refresh();
        }
        sessions.close_revoked().await;
    }
}

impl Reach {
    fn place(&self) -> Result<Place, ListenError> {
        match &self.unix {
            Some(path) => Ok(Place::Unix(path.clone())),
            None if self.systemd_socket => Ok(Place::Systemd),
            None => Place::parse(self.listen, self.allow_remote),
        }
    }

    /// Of the hosts only the name counts: a tunnel may have another port at its other end.
    fn config(
        &self,
        address: Option<SocketAddr>,
        stop: &CancellationToken,
    ) -> StreamableHttpServerConfig {
        let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let origins = address.into_iter().flat_map(|address| {
            ["localhost", "127.0.0.1", "[::1]"]
                .map(|host| format!("http://{host}:{}", address.port()))
        });
        let mut config = StreamableHttpServerConfig::default()
            .with_allowed_hosts(own.into_iter().chain(self.allow_host.iter().cloned()))
            .with_allowed_origins(origins.chain(self.allow_origin.iter().cloned()))
            .enforce_origin_validation();
        config.max_request_body_bytes = limits::HTTP_BODY_BYTES;
        config.cancellation_token = stop.child_token();
        config
    }
}

#[cfg(feature = "conformance")]
#[expect(deprecated, reason = "the suite also tries what is of older revisions")]
pub(crate) mod conformance;

#[cfg(test)]
mod tests;
