//! The client of qubesd: one connection for every call. The one file that opens its socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::call::Call;
use crate::event::{self, CONNECTION_ESTABLISHED};
use crate::{Destination, Error, Event, EventDecoder, EventItem, Request};

/// How many bytes a reply may have. A thousand qubes are listed in 100 KiB.
pub const REPLY_BYTES: usize = 16 << 20;

const READ_BYTES: usize = 16 << 10;

/// Where qubesd listens. Cheap to clone; holds no connection.
#[derive(Clone, Debug)]
pub struct Client {
    socket: Arc<Path>,
}

impl Client {
    /// A client of the qubesd that listens at this socket, `/run/qubesd.sock` on a real machine.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket: socket.into() }
    }

    /// Makes a call. The deadline covers everything from connecting to the last byte.
    ///
    /// Dropping the future closes the connection; qubesd finishes what it has begun.
    pub async fn call<T>(&self, call: Call<T>, deadline: Duration) -> Result<T, Error> {
        let exchange = async {
            let connection = self.send(&call.request).await?;
            receive(connection).await
        };
        let reply = timeout(deadline, exchange).await.map_err(|_| Error::TimedOut)??;
        call.answer(&reply)
    }

    /// Listens to the events of a qube, or of all when aimed at dom0. Gives the stream once qubesd
    /// has said that it listens: nothing that happens later is missed. The deadline ends there.
    pub async fn events(
        &self,
        destination: Destination,
        deadline: Duration,
    ) -> Result<EventStream, Error> {
        let listen = async {
            let connection = self.send(&event::listen(destination)).await?;
            let mut stream = EventStream { connection, decoder: EventDecoder::new(), early: None };
            let first = stream.next().await?.ok_or(Error::Empty)?;
            stream.early = Some(first).filter(|first| first.name != CONNECTION_ESTABLISHED);
            Ok(stream)
        };
        timeout(deadline, listen).await.map_err(|_| Error::TimedOut)?
    }

    async fn send(&self, request: &Request) -> Result<UnixStream, Error> {
        let bytes = request.encode()?;
        #[expect(clippy::disallowed_methods, reason = "the one place that connects to qubesd")]
        let connection = UnixStream::connect(&self.socket).await;
        let mut connection = connection.map_err(Error::Unreachable)?;
        let written = match connection.write_all(&bytes).await {
            Ok(()) => connection.shutdown().await,
            Err(error) => Err(error),
        };
        match written {
            // It has closed already, perhaps after an answer, which is worth reading.
            Err(error) if !is_closed(&error) => Err(Error::Io(error)),
            Ok(()) | Err(_) => Ok(connection),
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset, io::ErrorKind::NotConnected]
        .contains(&error.kind())
}

async fn receive(mut connection: UnixStream) -> Result<Bytes, Error> {
    let mut reply = BytesMut::new();
    loop {
        reply.reserve(READ_BYTES);
        match connection.read_buf(&mut reply).await {
            Ok(0) => return Ok(reply.freeze()),
            Ok(_) if reply.len() > REPLY_BYTES => return Err(Error::TooLarge),
            Ok(_) => {}
            // How the kernel tells that qubesd closed without reading everything.
            Err(error) if reply.is_empty() && is_closed(&error) => return Err(Error::Empty),
            Err(error) => return Err(Error::Io(error)),
        }
    }
}

/// The events of one connection. Dropping it closes the connection.
#[derive(Debug)]
pub struct EventStream {
    connection: UnixStream,
    decoder: EventDecoder,
    early: Option<Event>,
}

impl EventStream {
    /// The next event; `None` when qubesd has closed the stream. It has no deadline of its own, and
    /// dropping the future loses no event.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        if let Some(event) = self.early.take() {
            return Ok(Some(event));
        }
        let mut arrived = BytesMut::with_capacity(READ_BYTES);
        loop {
            match self.decoder.pop()? {
                Some(EventItem::Event(event)) => return Ok(Some(event)),
                Some(EventItem::Exception(exception)) => return Err(Error::Exception(exception)),
                None => {}
            }
            arrived.clear();
            let length = self.connection.read_buf(&mut arrived).await.map_err(Error::Io)?;
            if length == 0 {
                self.decoder.finish()?;
                return Ok(None);
            }
            self.decoder.push(&arrived);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{lifecycle, vm};
    use crate::{Exception, ReplyError};
    use tokio::net::UnixListener;

    const LONG: Duration = Duration::from_secs(20);

    fn work() -> Destination {
        Destination::parse("work").unwrap()
    }

    /// Runs the client against a qubesd that takes one request, sends these pieces and closes.
    fn against<T>(pieces: Vec<Vec<u8>>, client: impl AsyncFnOnce(Client) -> T) -> (Vec<u8>, T) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qubesd.sock");
        runtime.block_on(async {
            let listener = UnixListener::bind(&socket).unwrap();
            let serve = async {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                connection.read_to_end(&mut request).await.unwrap();
                for piece in pieces {
                    // The client may have gone on purpose.
                    if connection.write_all(&piece).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                request
            };
            tokio::join!(serve, client(Client::new(socket.clone())))
        })
    }

    #[test]
    fn a_call_sends_its_request_closes_its_side_and_reads_to_the_end() {
        let pieces =
            vec![b"0".to_vec(), b"\0work class=AppVM st".to_vec(), b"ate=Halted\n".to_vec()];
        let (request, qubes) =
            against(pieces, async |client| client.call(vm::list(work()), LONG).await);
        assert_eq!(request, b"admin.vm.List+ dom0 name work\0");
        assert_eq!(qubes.unwrap()[0].name, "work");
    }

    #[test]
    fn each_failure_is_told_apart() {
        let start =
            async |client: Client| client.call(lifecycle::start(work()), LONG).await.unwrap_err();
        assert!(matches!(against(vec![], start).1, Error::Empty));
        assert!(matches!(against(vec![b"garbage".to_vec()], start).1, Error::Response(_)));
        assert!(matches!(
            against(vec![b"0\0x".to_vec()], start).1,
            Error::Reply(ReplyError::NotEmpty)
        ));
        let error = against(vec![b"2\0QubesException\0\0no\0".to_vec()], start).1;
        assert!(
            matches!(error, Error::Exception(found) if found == Exception::new("QubesException", "no"))
        );
        let flood = vec![vec![b'0'; 1 << 20]; 17];
        assert!(matches!(against(flood, start).1, Error::TooLarge));
    }

    #[test]
    fn nobody_at_the_socket_is_unreachable() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let client = Client::new(folder.path().join("none"));
        let error = runtime.block_on(client.call(lifecycle::start(work()), LONG)).unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)));
    }

    #[test]
    fn a_qubesd_that_never_answers_is_left_at_the_deadline() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("qubesd.sock");
        runtime.block_on(async {
            let _listener = UnixListener::bind(&socket).unwrap();
            let client = Client::new(socket.clone());
            let short = Duration::from_millis(20);
            let error = client.call(lifecycle::start(work()), short).await.unwrap_err();
            assert!(matches!(error, Error::TimedOut));
            let error = client.events(work(), short).await.unwrap_err();
            assert!(matches!(error, Error::TimedOut));
        });
    }

    #[test]
    fn events_come_after_the_one_that_says_that_qubesd_listens() {
        let stream =
            b"1\0\0connection-established\0\x001\0work\0domain-start\0\x002\0E\0\0m\0".to_vec();
        let (request, ()) = against(vec![stream], async |client| {
            let mut events = client.events(Destination::Dom0, LONG).await.unwrap();
            assert_eq!(events.next().await.unwrap(), Some(Event::new("work", "domain-start")));
            assert_eq!(events.next().await.unwrap_err().kind(), Some("E"));
            assert_eq!(events.next().await.unwrap(), None);
        });
        assert_eq!(request, b"admin.Events+ dom0 name dom0\0");
    }

    #[test]
    fn a_stream_of_events_that_is_refused_gives_the_reason() {
        let listen = async |client: Client| client.events(work(), LONG).await.unwrap_err();
        assert!(matches!(against(vec![], listen).1, Error::Empty));
        let error = against(vec![b"2\0QubesVMNotFoundError\0\0no\0".to_vec()], listen).1;
        assert_eq!(error.kind(), Some("QubesVMNotFoundError"));
        let half = vec![b"1\0\0connection-esta".to_vec()];
        assert!(matches!(against(half, listen).1, Error::Event(_)));
    }
}
