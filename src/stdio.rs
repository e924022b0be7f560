//! The session on standard input and output, from its first line to its end.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use rmcp::{ServiceExt, service::ServerInitializeError, transport::io::stdio_pipes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::server::Server;

/// How long the last answers may take to be written once the client has hung up.
const FAREWELL: Duration = Duration::from_millis(250);

/// Why a session could not be held.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The signals of the process cannot be watched.
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
    /// The client did not begin as MCP begins.
    #[error("the client began the session wrongly")]
    Session(#[source] Box<ServerInitializeError>),
}

/// Serves the client on standard input and output until it hangs up or a signal ends the process.
pub(crate) async fn serve(server: Server) -> Result<(), SessionError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(SessionError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SessionError::Signals)?;
    let (input, output) = stdio_pipes();
    let mut session = pin!(hold(server, input, output, stop.clone()));
    tokio::select! {
        outcome = &mut session => return outcome,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    session.await
}

/// Holds a session until the input ends or `stop` is cancelled; either ends the calls under way.
pub(crate) async fn hold(
    server: Server,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
    stop: CancellationToken,
) -> Result<(), SessionError> {
    let hung_up = server.hung_up();
    let transport = (Watched { input, ended: hung_up.clone() }, output);
    let running = tokio::select! {
        biased;
        running = server.serve_with_ct(transport, stop.clone()) => match running {
            Ok(running) => running,
            Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
                return Ok(());
            }
            Err(error) => return Err(SessionError::Session(Box::new(error))),
        },
        () = stop.cancelled() => return Ok(()),
    };
    let mut ending = pin!(running.waiting());
    tokio::select! {
        biased;
        outcome = &mut ending => drop(outcome),
        () = hung_up.cancelled() => drop(timeout(FAREWELL, ending).await),
        () = stop.cancelled() => drop(timeout(FAREWELL, ending).await),
    }
    Ok(())
}

/// An input that says when it ends: rmcp itself waits 5 s for the calls under way.
struct Watched<R> {
    input: R,
    ended: CancellationToken,
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.input).poll_read(context, buffer);
        if outcome.is_ready() && buffer.filled().len() == before {
            self.ended.cancel();
        }
        outcome
    }
}
