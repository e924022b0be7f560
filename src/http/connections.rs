//! Takes connections and serves each until it, or the server, ends.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use contract::limits;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::ServerHandler;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::{
    gate::Gate,
    guests::{Guest, Guests},
    listener::{Listener, Stream},
};

/// Serves connections until `stop` is cancelled, and then lets those under way end.
pub(crate) async fn serve<H: ServerHandler>(
    listener: Listener,
    gate: Arc<Gate<H>>,
    stop: CancellationToken,
) {
    let guests = Arc::new(Guests::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                let work = hold(stream, guests.welcome(), Arc::clone(&gate), stop.clone());
                connections.spawn(work);
            }
            // The peer has gone, or there is no descriptor left until others go.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => sleep(limits::ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    let ending = async { while connections.join_next().await.is_some() {} };
    drop(timeout(limits::HTTP_FAREWELL + Duration::from_secs(1), ending).await);
}

/// Serves one connection.
async fn hold<H: ServerHandler>(
    stream: Box<dyn Stream>,
    guest: Guest,
    gate: Arc<Gate<H>>,
    stop: CancellationToken,
) {
    let mut stream = TimeoutStream::new(stream);
    // Whoever does not read what was asked for must not hold it in our memory.
    stream.set_write_timeout(Some(limits::STALLED_READER));
    let guest = Arc::new(guest);
    let cut = guest.cut().clone();
    let service = service_fn(move |request| {
        let (gate, guest) = (Arc::clone(&gate), Arc::clone(&guest));
        async move { Ok::<_, Infallible>(gate.answer(request, &guest).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD)
        .max_headers(limits::HTTP_HEADERS)
        .max_buf_size(limits::HTTP_HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = cut.cancelled() => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(timeout(limits::HTTP_FAREWELL, connection).await);
}
