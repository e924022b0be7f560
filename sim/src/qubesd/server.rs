//! The socket of qubesd, and the ways in which a test lets it fail.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use admin_api::{Event, Exception, Response, event::CONNECTION_ESTABLISHED};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use super::{Failure, dispatch, request::Asked};
use crate::{host::Shared, qrexec::permits};

/// Of a longer request qubesd cuts the connection.
const REQUEST_BYTES: usize = 65_536;

/// A way in which qubesd fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It closes without one byte.
    Empty,
    /// It answers these bytes, and closes.
    Bytes(Vec<u8>),
    /// It answers with this exception.
    Exception(Exception),
    /// It does what was asked, this much later.
    Late(Duration),
    /// It never answers.
    Silent,
    /// It does what was asked, and closes without one byte.
    DoneButEmpty,
    /// It does what was asked, and never answers.
    DoneButSilent,
}

/// The faults that are on.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// The beginning of a method's name, and what happens to its calls.
    by_method: Mutex<Vec<(String, Fault)>>,
    hold: Mutex<Option<Hold>>,
    met: AtomicUsize,
}

/// One call that is never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    /// How many calls come before it.
    pub(crate) left: usize,
    /// What it asks for is done all the same.
    pub(crate) done: bool,
    /// It has come.
    pub(crate) held: bool,
}

impl Faults {
    /// Holds a call that is still to come, or none.
    pub(crate) fn hold(&self, hold: Option<Hold>) {
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = hold;
    }

    /// Whether the call to hold has come.
    pub(crate) fn is_held(&self) -> bool {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|hold| hold.held)
    }

    /// What becomes of the next call: held or not, and done or not when it is.
    fn next(&self) -> Option<Fault> {
        let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = hold.as_mut().filter(|hold| !hold.held)?;
        if let Some(left) = hold.left.checked_sub(1) {
            hold.left = left;
            return None;
        }
        hold.held = true;
        Some(if hold.done { Fault::DoneButSilent } else { Fault::Silent })
    }

    pub(crate) fn set(&self, method: &str, fault: Option<Fault>) {
        let mut faults = self.by_method.lock().unwrap_or_else(PoisonError::into_inner);
        faults.retain(|(prefix, _)| prefix != method);
        faults.extend(fault.map(|fault| (method.to_owned(), fault)));
    }

    fn of(&self, request: &[u8]) -> Option<Fault> {
        let faults = self.by_method.lock().unwrap_or_else(PoisonError::into_inner);
        let mut faults = faults.iter();
        let (_, fault) = faults.find(|(method, _)| request.starts_with(method.as_bytes()))?;
        self.met.fetch_add(1, Ordering::Relaxed);
        Some(fault.clone())
    }

    /// How many calls a fault has met so far.
    pub(crate) fn met(&self) -> usize {
        self.met.load(Ordering::Relaxed)
    }
}

/// Listens, and answers until the runtime ends.
pub(crate) fn serve(shared: &Arc<Shared>, path: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                // A client that goes away in between is none of qubesd's concern.
                tokio::spawn(async move { drop(connection(&shared, stream).await) });
            }
        }
    });
    Ok(())
}

async fn connection(shared: &Arc<Shared>, mut stream: UnixStream) -> io::Result<()> {
    let mut request = Vec::new();
    let limit = u64::try_from(REQUEST_BYTES).unwrap_or(u64::MAX) + 1;
    (&mut stream).take(limit).read_to_end(&mut request).await?;
    if request.len() > REQUEST_BYTES {
        return Ok(());
    }
    let fault = shared.faults.next().or_else(|| shared.faults.of(&request));
    match &fault {
        None | Some(Fault::DoneButEmpty | Fault::DoneButSilent) => {}
        Some(Fault::Empty) => return Ok(()),
        Some(Fault::Bytes(bytes)) => return stream.write_all(bytes).await,
        Some(Fault::Exception(exception)) => {
            return stream.write_all(&Response::Exception(exception.clone()).encode()).await;
        }
        Some(Fault::Late(delay)) => tokio::time::sleep(*delay).await,
        Some(Fault::Silent) => std::future::pending::<()>().await,
    }
    let asked = Asked::parse(&request, &shared.system());
    let reply = match asked {
        Ok(asked) if asked.method == "admin.Events" => match dispatch::answer(shared, &asked).await
        {
            Ok(_) => return events(shared, stream, &asked).await,
            Err(failure) => failure.encode(),
        },
        Ok(asked) => dispatch::answer(shared, &asked).await.unwrap_or_else(Failure::encode),
        Err(failure) => failure.encode(),
    };
    match fault {
        Some(Fault::DoneButEmpty) => Ok(()),
        Some(Fault::DoneButSilent) => std::future::pending().await,
        None
        | Some(
            Fault::Empty | Fault::Bytes(_) | Fault::Exception(_) | Fault::Late(_) | Fault::Silent,
        ) => stream.write_all(&reply).await,
    }
}

/// Tells every event of a qube, or of all when dom0 is asked, until the client is gone.
async fn events(shared: &Shared, stream: UnixStream, asked: &Asked) -> io::Result<()> {
    let stream = stream.into_std()?;
    // Watched apart, because watching makes the runtime forget that a socket can be written.
    let watched = UnixStream::from_std(stream.try_clone()?)?;
    let mut stream = UnixStream::from_std(stream)?;
    let log = shared.system().events.clone();
    let mut changes = log.changes();
    let mut next = log.len();
    stream.write_all(&Event::new("", CONNECTION_ESTABLISHED).encode()).await?;
    loop {
        for event in log.since(next) {
            next += 1;
            if hears(shared, asked, &event) {
                stream.write_all(&event.encode()).await?;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = gone(&watched) => return Ok(()),
        }
    }
}

/// Whether a listener is told of an event: of its destination, and, where the source is not dom0,
/// as far as policy lets the source.
fn hears(shared: &Shared, asked: &Asked, event: &Event) -> bool {
    if asked.destination != "dom0" && event.subject != asked.destination {
        return false;
    }
    let about = match event.subject.as_str() {
        "" => event.get("vm").unwrap_or("@adminvm"),
        subject => subject,
    };
    let service = format!("admin.Events+{}", event.name.replace(':', "_"));
    asked.source == "dom0" || permits(shared, &shared.system(), &service, &asked.source, about)
}

/// Ends when the client has closed both sides.
async fn gone(stream: &UnixStream) {
    loop {
        match stream.ready(tokio::io::Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => {
                // Forgets that the socket can be written, so that the next change is waited for.
                drop(stream.try_io(tokio::io::Interest::WRITABLE, || {
                    Err::<(), _>(io::ErrorKind::WouldBlock.into())
                }));
            }
            Ok(_) | Err(_) => return,
        }
    }
}
