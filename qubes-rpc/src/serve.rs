//! The one path: a connection becomes a call, an admitted call reaches its handler, and whatever
//! happens becomes an answer.

use std::{
    io,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use contract::{Fault, limits};
use futures_util::FutureExt;
use rustix::net::sockopt::set_socket_send_buffer_size;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Admission, NotAdmitted, admit},
    agents::{Agents, Connection},
    answer::{Answer, Form},
    audit,
    births::reap,
    descriptor::Descriptor,
    error::Error,
    handle::Call,
    hang_up::hang_up,
    host::Host,
    incoming::{Expected, Incoming, Request, read_request},
    journal::{self, Line},
    outcome::{Outcome, failed},
    plain, qmcp,
    service::Admitted,
};

/// How much of an answer may wait for its reader, in bytes, so that the two change places less often.
const SEND_BYTES: usize = 1024 * 1024;

/// Accepts calls until `stop`, or until there was nothing to do for `idle`.
pub async fn serve(
    host: Rc<Host>,
    listener: UnixListener,
    idle: Option<Duration>,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let agents = Agents::default();
    let mut calls = JoinSet::new();
    let watched = Rc::clone(&host);
    let watch = AbortOnDrop(tokio::task::spawn_local(async move { watched.watch_jobs().await }));
    let watched = Rc::clone(&host);
    let rules =
        AbortOnDrop(tokio::task::spawn_local(async move { watched.watch_tcp_rules().await }));
    host.births.load();
    let reaper = tokio::task::spawn_local(reap(Rc::clone(&host)));
    loop {
        // A job that runs, and a rule that stands, have to be ended with their grants.
        let nothing_to_do = calls.is_empty();
        let quiet = async {
            match idle {
                Some(idle) if nothing_to_do => {
                    while !host.births.left().is_empty() {
                        sleep(limits::CLOCK).await;
                    }
                    sleep(idle).await;
                }
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
            () = quiet => if !host.has_open_jobs() && !host.has_tcp_rules() { break },
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
            (permit, connection) = accepted => match connection {
                Ok((stream, _)) => {
                    let (host, agents, stop) = (Rc::clone(&host), agents.clone(), stop.clone());
                    calls.spawn_local(async move {
                        connection_task(&host, &agents, &stop, stream).await;
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
    drop((watch, rules));
    // Calls under way were told to stop; what they run in qubes gets the time to die.
    let ended = async { while calls.join_next().await.is_some() {} };
    if timeout(limits::KILL * 2, ended).await.is_err() {
        journal::say("stopped while calls were under way");
    }
    reaper.abort();
}

/// A task that ends with what it serves.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connection_task(
    host: &Host,
    agents: &Agents,
    stop: &CancellationToken,
    stream: UnixStream,
) {
    let started = Instant::now();
    // A kernel that does not give so much gives what it allows.
    let _ = set_socket_send_buffer_size(&stream, SEND_BYTES);
    let (read, write) = stream.into_split();
    let mut reader = BufReader::with_capacity(16 * 1024, read);
    let id = host.call_id();
    let descriptor = match timeout(limits::REQUEST, read_descriptor(&mut reader)).await {
        Ok(Ok(descriptor)) => descriptor,
        Ok(Err(error)) => return journal::say(&format!("call {id}: {error}")),
        Err(_) => return journal::say(&format!("call {id}: no service descriptor came")),
    };
    let connection = agents.connect(&descriptor.source);
    if connection.count > limits::CONNECTIONS_PER_AGENT {
        let agent = &descriptor.source;
        return journal::say(&format!("call {id}: {agent} has too many connections"));
    }
    let _under_way = host.show_under_way();
    let record = audit::Entry::arrived(&id, &descriptor);
    let mut call = Call {
        id,
        body: bytes::Bytes::new(),
        record,
        answer: Answer::new(Form::Plain, write),
        gone: stop.child_token(),
    };
    let outcome = one_call(host, &descriptor, &connection, &mut call, &mut reader).await;
    let head = host.end(&mut call, &outcome, started.elapsed());
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
        audit: head,
    });
    call.answer.close().await;
    if matches!(&outcome.fault, Some(fault) if *fault != (Fault::Busy {})) {
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

/// A caller that is not admitted is read only far enough to learn which form it speaks.
const NOTHING: Expected =
    Expected { plain_bytes: limits::PLAIN_REQUEST_BYTES, silence_is_empty: true, form_only: true };

async fn one_call(
    host: &Host,
    descriptor: &Descriptor,
    connection: &Connection,
    call: &mut Call,
    reader: &mut BufReader<OwnedReadHalf>,
) -> Outcome {
    if qmcp::is_adapter(descriptor) {
        return qmcp::call(host, descriptor, connection, call, reader).await;
    }
    let since = Instant::now();
    let mut admission = if connection.count > limits::CALLS_PER_AGENT {
        Err(NotAdmitted::Busy)
    } else {
        admit(host, descriptor, host.now()).await
    };
    let expected = match &admission {
        Ok(admission) => plain::expected(admission.entry),
        Err(_) => NOTHING,
    };
    let incoming = match read_request(reader, expected, &connection.memory).await {
        Ok(incoming) => incoming,
        Err(error) => return Outcome::fault(Fault::Refused {}, format!("caller gone: {error}")),
    };
    let Incoming { form, request, held: _held } = incoming;
    call.answer.set_form(form);
    if admission.is_ok() && since.elapsed() > limits::ADMISSION {
        // A caller that sent slowly keeps no authority that has ended meanwhile.
        admission = admit(host, descriptor, host.now()).await;
    }
    let admission = match admission {
        Ok(admission) => admission,
        Err(NotAdmitted::Busy) => return Outcome::fault(Fault::Busy {}, String::new()),
        Err(NotAdmitted::Refused(reason)) => return Outcome::fault(Fault::Refused {}, reason),
        Err(NotAdmitted::Failed(error)) => return failed(error.into(), &call.id),
    };
    let answered = admitted_call(host, descriptor, admission, request, call, reader).await;
    call.body = bytes::Bytes::new();
    answered
}

/// Does the work of an admitted call, and renders what comes of it.
async fn admitted_call(
    host: &Host,
    descriptor: &Descriptor,
    admission: Admission,
    request: Result<Request, Fault>,
    call: &mut Call,
    reader: &mut BufReader<OwnedReadHalf>,
) -> Outcome {
    let form = call.answer.form();
    let entry = admission.entry;
    let mut asked = serde_json::Map::new();
    let worked = match request.and_then(|request| match form {
        Form::Framed => Ok(request),
        Form::Plain | Form::Json => plain::parse(entry, request, host.ceiling),
    }) {
        Ok(Request { args, body, principal }) => {
            call.body = body;
            call.record.claimed_principal = principal;
            if form == Form::Plain {
                asked = args.clone();
            }
            match host.begin(call, entry, &args) {
                Ok(()) => work(host, descriptor, admission, args, call, reader).await,
                Err(error) => Err(error),
            }
        }
        Err(fault) => Err(fault.into()),
    };
    let value = match worked {
        Ok(value) => value,
        Err(error) => return failed(error, &call.id),
    };
    let last = match form {
        Form::Framed => serde_json::to_vec(&value).unwrap_or_default(),
        Form::Plain | Form::Json => {
            plain::render(entry, &asked, descriptor.untrusted_qube(), &value).into_bytes()
        }
    };
    if form == Form::Framed && last.len() > limits::RESULT_BYTES {
        let message = format!("a result may have at most {} bytes", limits::RESULT_BYTES);
        return Outcome::fault(Fault::TooLarge { message }, String::new());
    }
    Outcome { fault: None, detail: String::new(), last }
}

/// Runs the handler, watches the caller meanwhile, and keeps a panic within the call.
pub(crate) async fn work(
    host: &Host,
    descriptor: &Descriptor,
    admission: Admission,
    args: serde_json::Map<String, Value>,
    call: &Call,
    reader: &mut BufReader<OwnedReadHalf>,
) -> Result<Value, Error> {
    let Admission { entry, admitted, state } = admission;
    let until = match &admitted {
        Admitted::Qube(qube) => qube.until(),
        Admitted::Scope(_) => None,
    };
    let handler = (entry.run)(admitted, state, args, host, call);
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
        tokio::select! {
            () = hang_up(reader, call.answer.form()) => {}
            () = host.authority_ends(descriptor) => {}
        }
        call.gone.cancel();
        std::future::pending::<()>().await;
    };
    let ended = async {
        match until {
            Some(until) => sleep_until_time(host, until.time()).await,
            None => std::future::pending().await,
        }
        call.gone.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = handler => result.unwrap_or(Err(Error::Panicked)),
        () = progress => Err(Fault::Refused {}.into()),
        () = watch => Err(Fault::Refused {}.into()),
        () = ended => Err(Fault::Refused {}.into()),
    }
}

/// Waits for a moment of the clock, which may be set meanwhile.
async fn sleep_until_time(host: &Host, time: SystemTime) {
    while let Ok(left) = time.duration_since(host.now()) {
        sleep(left.min(limits::CLOCK)).await;
    }
}
