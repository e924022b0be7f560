//! The one path: a connection becomes a call, an admitted call reaches its handler, and whatever
//! happens becomes an answer.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    os::fd::AsFd,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use admin_api::QubeName;
use contract::{Fault, limits};
use futures_util::FutureExt;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Admission, NotAdmitted, admit},
    answer::{Answer, CallerGone, Form},
    descriptor::Descriptor,
    error::{Error, chain},
    handle::Call,
    host::Host,
    incoming::{Expected, Incoming, Request, read_request},
    journal::{self, Line},
    plain,
    run::RunError,
    service::Admitted,
};

/// The calls of each agent that are under way.
type Counts = Rc<RefCell<HashMap<QubeName, usize>>>;

/// Accepts calls until `stop`, or until there was nothing to do for `idle`.
pub async fn serve(
    host: Rc<Host>,
    listener: UnixListener,
    idle: Option<Duration>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let counts = Counts::default();
    let mut calls = JoinSet::new();
    loop {
        let nothing_to_do = calls.is_empty();
        let quiet = async {
            match idle {
                Some(idle) if nothing_to_do => sleep(idle).await,
                Some(_) | None => std::future::pending().await,
            }
        };
        let accepted = async {
            // Room is made before a connection is taken.
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = quiet => break,
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
            (permit, connection) = accepted => match connection {
                Ok((stream, _)) => {
                    let (host, counts, stop) = (Rc::clone(&host), Rc::clone(&counts), stop.clone());
                    calls.spawn_local(async move {
                        connection_task(&host, &counts, &stop, stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    journal::say(&format!("accept: {error}"));
                    sleep(limits::ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Calls under way were told to stop; what they run in qubes gets the time to die.
    let ended = async { while calls.join_next().await.is_some() {} };
    if timeout(limits::KILL * 2, ended).await.is_err() {
        journal::say("stopped while calls were under way");
    }
}

async fn connection_task(
    host: &Host,
    counts: &Counts,
    stop: &CancellationToken,
    stream: UnixStream,
) {
    let started = Instant::now();
    let (read, write) = stream.into_split();
    let mut reader = BufReader::with_capacity(16 * 1024, read);
    let id = host.call_id();
    let descriptor = match timeout(limits::REQUEST, read_descriptor(&mut reader)).await {
        Ok(Ok(descriptor)) => descriptor,
        Ok(Err(error)) => return journal::say(&format!("call {id}: {error}")),
        Err(_) => return journal::say(&format!("call {id}: no service descriptor came")),
    };
    let _counted = Counted::new(counts, &descriptor.source);
    let mut call = Call {
        id,
        body: bytes::Bytes::new(),
        answer: Answer::new(Form::Plain, write),
        gone: stop.child_token(),
    };
    let over =
        counts.borrow().get(&descriptor.source).is_some_and(|n| *n > limits::CALLS_PER_AGENT);
    let outcome = if over {
        Outcome::fault(Fault::Busy {}, String::new())
    } else {
        one_call(host, &descriptor, &mut call, &mut reader).await
    };
    let outcome = outcome.deliver(&call).await;
    journal::tell(&Line {
        call: &call.id,
        agent: descriptor.source.as_str(),
        service: &descriptor.service,
        qube: descriptor.untrusted_qube(),
        outcome: outcome.name(),
        detail: &outcome.detail,
        duration_ms: started.elapsed(),
        bytes_out: call.answer.sent(),
    });
    call.answer.close().await;
    if outcome.fault.is_some() {
        // Closing over unread bytes would take the answer from a caller that still writes.
        let (mut rest, mut sink) = (reader.take(limits::DRAIN_BYTES), tokio::io::sink());
        drop(timeout(limits::REQUEST, tokio::io::copy(&mut rest, &mut sink)).await);
    }
}

async fn read_descriptor(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Descriptor> {
    let limit = u64::try_from(limits::DESCRIPTOR_BYTES).unwrap_or(u64::MAX) + 1;
    let mut bytes = Vec::new();
    (&mut *reader).take(limit).read_until(0, &mut bytes).await?;
    if bytes.pop() != Some(0) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Descriptor::parse(&bytes).map_err(io::Error::other)
}

/// What became of a call.
struct Outcome {
    fault: Option<Fault>,
    /// What goes to the caller after the streams.
    last: Vec<u8>,
    detail: String,
}

impl Outcome {
    fn fault(fault: Fault, detail: String) -> Self {
        Self { fault: Some(fault), last: Vec::new(), detail }
    }

    fn name(&self) -> &'static str {
        match &self.fault {
            None => "ok",
            Some(Fault::Refused {}) => "Refused",
            Some(Fault::BadRequest { .. }) => "BadRequest",
            Some(Fault::NotRunning { .. }) => "NotRunning",
            Some(Fault::TimedOut { .. }) => "TimedOut",
            Some(Fault::TooLarge { .. }) => "TooLarge",
            Some(Fault::Busy {}) => "Busy",
            Some(Fault::Failed { .. }) => "Failed",
        }
    }

    async fn deliver(mut self, call: &Call) -> Self {
        let sent = match (&self.fault, call.answer.form()) {
            (Some(fault), _) => call.answer.fault(fault).await,
            (None, Form::Framed) => call.answer.result(std::mem::take(&mut self.last)).await,
            (None, Form::Plain) => call.answer.text(std::mem::take(&mut self.last)).await,
        };
        if let Err(error) = sent
            && self.detail.is_empty()
        {
            self.detail = chain(&error);
        }
        self
    }
}

async fn one_call(
    host: &Host,
    descriptor: &Descriptor,
    call: &mut Call,
    reader: &mut BufReader<OwnedReadHalf>,
) -> Outcome {
    let admission = admit(host, descriptor, SystemTime::now()).await;
    let expected = match &admission {
        Ok(admission) => plain::expected(admission.entry),
        // A refused caller is read only far enough to learn which form it speaks.
        Err(_) => Expected { plain_bytes: limits::PLAIN_REQUEST_BYTES, silence_is_empty: true },
    };
    let Incoming { form, request } = match read_request(reader, expected).await {
        Ok(incoming) => incoming,
        Err(error) => return Outcome::fault(Fault::Refused {}, format!("caller gone: {error}")),
    };
    call.answer.set_form(form);
    let admission = match admission {
        Ok(admission) => admission,
        Err(NotAdmitted::Refused(reason)) => return Outcome::fault(Fault::Refused {}, reason),
        Err(NotAdmitted::Failed(error)) => return failed(Error::Qubesd(error), &call.id),
    };
    let entry = admission.entry;
    let mut asked = serde_json::Map::new();
    let worked = match request.and_then(|request| match form {
        Form::Framed => Ok(request),
        Form::Plain => plain::parse(entry, request, host.ceiling),
    }) {
        Ok(Request { args, body }) => {
            call.body = body;
            if form == Form::Plain {
                asked = args.clone();
            }
            work(host, admission, args, call, reader).await
        }
        Err(fault) => Err(fault.into()),
    };
    match worked {
        Ok(value) => Outcome {
            fault: None,
            detail: String::new(),
            last: match form {
                Form::Framed => serde_json::to_vec(&value).unwrap_or_default(),
                Form::Plain => {
                    plain::render(entry, &asked, descriptor.untrusted_qube(), &value).into_bytes()
                }
            },
        },
        Err(error) => failed(error, &call.id),
    }
}

/// Runs the handler, watches the caller meanwhile, and keeps a panic within the call.
async fn work(
    host: &Host,
    admission: Admission,
    args: serde_json::Map<String, Value>,
    call: &Call,
    reader: &mut BufReader<OwnedReadHalf>,
) -> Result<Value, Error> {
    let Admission { entry, admitted, state } = admission;
    let handler = async {
        if let (true, Admitted::Qube(qube), Some(state)) = (entry.running, &admitted, state) {
            host.make_running(qube, state).await?;
        }
        (entry.run)(admitted, args, host, call).await
    };
    let handler = AssertUnwindSafe(handler).catch_unwind();
    let progress = async {
        let mut ticks = interval(limits::PROGRESS);
        loop {
            ticks.tick().await;
            if call.answer.tell_progress().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let watch = async {
        hang_up(reader, call.answer.form()).await;
        call.gone.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = handler => result.unwrap_or(Err(Error::Panicked)),
        () = progress => Err(Fault::Refused {}.into()),
        () = watch => Err(Fault::Refused {}.into()),
    }
}

/// Resolves when the caller is gone: with the end of a framed caller's input, or when nobody
/// would read a plain caller's answer any more.
async fn hang_up(reader: &mut BufReader<OwnedReadHalf>, form: Form) {
    match form {
        Form::Framed => {
            drop(tokio::io::copy(reader, &mut tokio::io::sink()).await);
        }
        Form::Plain => {
            if let Err(error) = write_closed(reader.get_ref()).await {
                journal::say(&format!("cannot watch a caller: {error}"));
                std::future::pending::<()>().await;
            }
        }
    }
}

/// A second registration of the same socket, because its readiness is cleared here on purpose.
async fn write_closed(read: &OwnedReadHalf) -> io::Result<()> {
    let duplicate = read.as_ref().as_fd().try_clone_to_owned()?;
    let socket = UnixStream::from_std(duplicate.into())?;
    while !socket.ready(Interest::WRITABLE).await?.is_write_closed() {
        // Forgets "writable", so that only the next change wakes this.
        drop(socket.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into())));
    }
    Ok(())
}

/// The one place where an error becomes what the caller is told.
fn failed(error: Error, id: &str) -> Outcome {
    let broken = |message: &str| Fault::Failed { message: message.into(), call: id.into() };
    let fault = match &error {
        Error::Fault(fault) => fault.clone(),
        Error::Qubesd(admin_api::Error::TimedOut) => {
            Fault::TimedOut { message: "qubesd did not answer in time".into() }
        }
        Error::Qubesd(admin_api::Error::Exception(exception)) => {
            broken(&format!("qubesd answered {}", exception.kind))
        }
        Error::Qubesd(admin_api::Error::Empty) => broken("qubesd did not accept the request"),
        Error::Qubesd(_) => broken("qubesd cannot be reached or answers nonsense"),
        Error::Run(error) => broken(told(error)),
        Error::CallerGone(CallerGone(_)) => broken("the caller went away"),
        Error::File(_) => broken("a file in dom0 could not be used"),
        Error::TcpPolicy(_) => broken("the helper that writes qubes.ConnectTCP policy failed"),
        Error::Stored(what) => broken(what),
        Error::Encoding(_) | Error::Panicked => broken("internal error"),
    };
    Outcome::fault(fault, chain(&error))
}

/// What a caller may know of work that could not be run.
fn told(error: &RunError) -> &'static str {
    match error {
        RunError::Missing(_) => "qrexec-client is missing in dom0",
        RunError::Refused { .. } => "qrexec in dom0 refused to reach the qube",
        RunError::NotFound { .. } => "the qube has no service qubes.VMShell",
        RunError::CannotExecute { .. } => "the qube cannot be reached, or has no such user",
        RunError::Vanished { .. } => "the connection to the qube broke before the work ended",
        RunError::Stalled => "the qube does not answer",
        RunError::Unkillable => "a process in the qube could not be killed",
        RunError::Garbled => "the qube answered nonsense",
        RunError::BodyCut => "the body ended early",
        RunError::Unready { .. } => "the qube could not take the request",
        RunError::NulByte(_) => "a NUL cannot be passed to the qube",
        RunError::Io(_) => "the connection to the qube failed",
    }
}

/// Counts a call of an agent as long as it lives.
struct Counted {
    counts: Counts,
    agent: QubeName,
}

impl Counted {
    fn new(counts: &Counts, agent: &QubeName) -> Self {
        *counts.borrow_mut().entry(agent.clone()).or_insert(0) += 1;
        Self { counts: Rc::clone(counts), agent: agent.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.borrow_mut();
        if let Some(count) = counts.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.agent);
            }
        }
    }
}
