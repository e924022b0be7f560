//! Reads what a caller sends: a framed request, or the JSON object of the older program.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use contract::{Fault, PrincipalName, RequestLine, RequestLineError, limits};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    time::{Instant, timeout_at},
};

use crate::{
    agents::{Held, Memory},
    answer::Form,
    flat::Flat,
};

/// A whole request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Its parameters, under the names of its form.
    pub args: Map<String, Value>,
    /// The raw bytes behind a framed request.
    pub body: Bytes,
    /// For whom the agent's side says that it makes the call. Nothing is decided by it.
    pub principal: Option<PrincipalName>,
}

/// A request, and how its sender wants to be answered.
#[derive(Debug)]
pub struct Incoming {
    /// The form in which it came, as far as that could be told.
    pub form: Form,
    /// The request, or what is wrong with it.
    pub request: Result<Request, Fault>,
    /// The memory of a long request, given back when this is dropped.
    pub held: Option<Held>,
}

/// What a service expects of an unframed request.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The most bytes of an unframed request.
    pub plain_bytes: usize,
    /// Whether silence stands for an empty request.
    pub silence_is_empty: bool,
    /// Whether the request itself does not matter, because its sender will be refused.
    pub form_only: bool,
}

enum Ended {
    Input,
    Silence,
}

/// Reads one request. An error is a caller that is gone.
pub async fn read_request<R: AsyncRead + Unpin>(
    reader: &mut R,
    expected: Expected,
    memory: &Memory,
) -> io::Result<Incoming> {
    let mut deadline = Instant::now() + limits::REQUEST;
    let limit = expected.plain_bytes.max(limits::REQUEST_LINE_BYTES);
    let mut buffer = BytesMut::new();
    let (mut first_line_seen, mut next_try, mut held) = (false, 0, None);
    loop {
        let before = buffer.len();
        let ended = read_more(reader, &mut buffer, deadline).await?;
        if !first_line_seen
            && let Some(end) = buffer.iter().skip(before).position(|byte| *byte == b'\n')
        {
            first_line_seen = true;
            let line = buffer.get(..=before + end).unwrap_or_default();
            let is_framed = is_framed(line);
            if expected.form_only {
                let form = if is_framed { Form::Framed } else { Form::Plain };
                return Ok(Incoming { form, request: Ok(Request::default()), held });
            }
            if is_framed {
                let parsed = RequestLine::parse(line);
                drop(buffer.split_to(before + end + 1));
                return Ok(framed(reader, parsed, buffer, memory).await);
            }
        }
        if buffer.len() > limit {
            let message = format!("a request may have at most {limit} bytes");
            let framed = !first_line_seen && is_framed(&buffer);
            let form = if framed { Form::Framed } else { Form::Plain };
            return Ok(Incoming { form, request: Err(Fault::TooLarge { message }), held });
        }
        if buffer.len() > limits::REQUEST_LINE_BYTES && held.is_none() {
            // The text and the content that is taken out of it.
            held = memory.take(2 * limit).await;
            if held.is_none() {
                return Ok(plain(Err(Fault::Busy {}), None));
            }
            deadline = Instant::now() + limits::REQUEST;
        }
        match ended {
            None if buffer.ends_with(b"\n") && buffer.len() >= next_try => {
                if let Some(request) = whole_object(&buffer) {
                    return Ok(plain(within(request, buffer.len(), expected), held));
                }
                // A long request that comes line by line is not read again for every line.
                next_try = if buffer.len() < 4096 { 0 } else { buffer.len() + buffer.len() / 8 };
            }
            None => {}
            Some(Ended::Silence) if waits_for_more(&buffer, expected, deadline) => {}
            Some(Ended::Silence) if buffer.is_empty() && !expected.silence_is_empty => {
                return Ok(plain(Err(Fault::bad_request("no request arrived")), held));
            }
            Some(Ended::Silence | Ended::Input) => {
                // The first line decides, whatever comes behind an empty one.
                if !first_line_seen && is_framed(&buffer) {
                    let fault = Fault::bad_request("the request line has no end");
                    return Ok(Incoming { form: Form::Framed, request: Err(fault), held });
                }
                return Ok(plain(plain_request(&buffer, expected), held));
            }
        }
    }
}

/// A caller whose request has to hold something, or has only begun, gets the time to send it.
fn waits_for_more(buffer: &[u8], expected: Expected, deadline: Instant) -> bool {
    let more = if buffer.is_empty() { !expected.silence_is_empty } else { has_only_begun(buffer) };
    more && Instant::now() < deadline
}

/// Whether a JSON object begins here that does not end here.
fn has_only_begun(buffer: &[u8]) -> bool {
    buffer.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<IgnoredAny>(buffer).is_err_and(|error| error.is_eof())
}

/// Silence is also what comes behind the deadline, however fast the caller sends.
async fn read_more<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut BytesMut,
    deadline: Instant,
) -> io::Result<Option<Ended>> {
    if Instant::now() >= deadline {
        return Ok(Some(Ended::Silence));
    }
    let silence = deadline.min(Instant::now() + limits::PLAIN_SILENCE);
    buffer.reserve(16 * 1024);
    match timeout_at(silence, reader.read_buf(buffer)).await {
        Ok(Ok(0)) => Ok(Some(Ended::Input)),
        Ok(Ok(_)) => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(Some(Ended::Silence)),
    }
}

/// Whether this begins as a framed request does; its parser then says what is wrong with it.
fn is_framed(line: &[u8]) -> bool {
    let start = line.trim_ascii_start();
    let key = start.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    key.is_some_and(|rest| rest.starts_with(b"\"frames\""))
        // A longer line would take many times its memory, and is no request line.
        || line.len() <= limits::REQUEST_LINE_BYTES
            && serde_json::from_slice::<Map<String, Value>>(line)
                .is_ok_and(|object| object.contains_key("frames"))
}

async fn framed<R: AsyncRead + Unpin>(
    reader: &mut R,
    parsed: Result<RequestLine, RequestLineError>,
    arrived: BytesMut,
    memory: &Memory,
) -> Incoming {
    let mut held = None;
    let request = match parsed {
        Ok(line) => read_body(reader, line.body, arrived, memory).await.map(|(body, memory)| {
            held = memory;
            Request { args: line.args, body, principal: line.principal }
        }),
        Err(error @ (RequestLineError::TooLong | RequestLineError::Body(_))) => {
            Err(Fault::TooLarge { message: error.to_string() })
        }
        Err(error @ (RequestLineError::Json(_) | RequestLineError::Version(_))) => {
            Err(Fault::bad_request(error.to_string()))
        }
    };
    Incoming { form: Form::Framed, request, held }
}

/// Reads the counted bytes; `length` is within its limit, and memory grows only as they arrive.
async fn read_body<R: AsyncRead + Unpin>(
    reader: &mut R,
    length: u64,
    mut body: BytesMut,
    memory: &Memory,
) -> Result<(Bytes, Option<Held>), Fault> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let held = if length > limits::REQUEST_LINE_BYTES {
        // A buffer that grows has up to twice the room that it needs.
        Some(memory.take(length.saturating_mul(2)).await.ok_or(Fault::Busy {})?)
    } else {
        None
    };
    let whole = Instant::now() + limits::BODY;
    while body.len() < length {
        let deadline = whole.min(Instant::now() + limits::REQUEST);
        match timeout_at(deadline, reader.read_buf(&mut body)).await {
            Ok(Ok(1..)) if Instant::now() < whole => {}
            Ok(Ok(0) | Err(_)) => {
                let arrived = body.len();
                return Err(Fault::bad_request(format!(
                    "the body ended after {arrived} of {length} bytes"
                )));
            }
            Ok(Ok(_)) | Err(_) => {
                return Err(Fault::TimedOut { message: "the body did not arrive".into() });
            }
        }
    }
    body.truncate(length);
    Ok((body.freeze(), held))
}

fn plain(request: Result<Request, Fault>, held: Option<Held>) -> Incoming {
    Incoming { form: Form::Plain, request, held }
}

fn whole_object(buffer: &[u8]) -> Option<Request> {
    let Flat(args) = serde_json::from_slice(buffer).ok()?;
    Some(Request { args, ..Request::default() })
}

fn within(request: Request, length: usize, expected: Expected) -> Result<Request, Fault> {
    if length > expected.plain_bytes {
        let message = format!("a request may have at most {} bytes", expected.plain_bytes);
        return Err(Fault::TooLarge { message });
    }
    Ok(request)
}

fn plain_request(buffer: &[u8], expected: Expected) -> Result<Request, Fault> {
    if buffer.trim_ascii().is_empty() {
        return Ok(Request::default());
    }
    let Flat(args) = serde_json::from_slice(buffer).map_err(|error| {
        Fault::bad_request(format!("the request is not a JSON object: {error}"))
    })?;
    within(Request { args, ..Request::default() }, buffer.len(), expected)
}

/// Reads whatever it is given in one piece and in pieces, and asserts that both give the same.
///
/// An unframed request may be complete at any newline, so of it only the form is told so surely.
pub async fn fuzz_incoming(input: &[u8], piece: usize) {
    let expected = Expected {
        plain_bytes: limits::PLAIN_REQUEST_BYTES,
        silence_is_empty: true,
        form_only: false,
    };
    let read = async |piece: usize| {
        let mut reader = Pieces { rest: input, piece: piece.max(1) };
        read_request(&mut reader, expected, &Memory::new()).await
    };
    let (Ok(whole), Ok(pieces)) = (read(usize::MAX).await, read(piece).await) else { return };
    assert!(whole.form == pieces.form, "the form depends on how a request arrives");
    assert!(
        whole.form == Form::Plain || whole.request == pieces.request,
        "a framed request depends on how it arrives"
    );
}

/// Gives at most so many bytes at once.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let length = this.piece.min(this.rest.len()).min(buffer.remaining());
        let (piece, rest) = this.rest.split_at_checked(length).unwrap_or_default();
        buffer.put_slice(piece);
        this.rest = rest;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    const LIST: Expected =
        Expected { plain_bytes: 64 * 1024, silence_is_empty: true, form_only: false };
    const EXEC: Expected = Expected { silence_is_empty: false, ..LIST };
    const LARGE: Expected = Expected { plain_bytes: limits::PLAIN_WRITE_BYTES, ..EXEC };

    async fn read(pieces: &[&[u8]], close: bool, expected: Expected) -> Incoming {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        for piece in pieces {
            client.write_all(piece).await.unwrap();
        }
        if close {
            client.shutdown().await.unwrap();
        }
        let memory = Memory::new();
        let incoming = read_request(&mut server, expected, &memory).await.unwrap();
        drop(client);
        incoming
    }

    /// A connection that breaks off.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    fn message(incoming: Incoming) -> String {
        incoming.request.unwrap_err().sentence()
    }

    #[tokio::test(start_paused = true)]
    async fn a_framed_request_is_a_line_and_its_counted_bytes() {
        let incoming =
            read(&[b"{\"frames\":1,\"body\":3,", b"\"args\":{\"a\":1}}\nab", b"c"], false, EXEC)
                .await;
        assert_eq!(incoming.form, Form::Framed);
        let request = incoming.request.unwrap();
        assert_eq!((request.args["a"].as_u64(), &request.body[..]), (Some(1), &b"abc"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_plain_request_ends_with_a_newline_with_the_input_or_with_silence() {
        for (bytes, close) in [
            (&b"{\"cmd\":\"id\"}\n"[..], false),
            (b"{\"cmd\":\"id\"}", true),
            (b"{\"cmd\":\"id\"}", false),
            (b"{\n \"cmd\":\"id\"\n}\n", false),
        ] {
            let incoming = read(&[bytes], close, EXEC).await;
            assert_eq!(
                (incoming.form, incoming.request.unwrap().args["cmd"].as_str()),
                (Form::Plain, Some("id"))
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_an_empty_request_only_where_nothing_is_required() {
        assert_eq!(read(&[], false, LIST).await.request, Ok(Request::default()));
        assert_eq!(read(&[], true, EXEC).await.request, Ok(Request::default()));
        let start = Instant::now();
        assert_eq!(message(read(&[], false, EXEC).await), "bad request: no request arrived");
        assert_eq!(start.elapsed(), limits::REQUEST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_with_a_request_is_said_in_its_own_form() {
        let long = format!("{{\"frames\":1,\"args\":{{\"x\":\"{}\"}}}}\n", "y".repeat(65_536));
        for (bytes, form, part) in [
            (&b"{\"frames\":2}\n"[..], Form::Framed, "version 2"),
            (b"{\"frames\":1,\"x\":1}\n", Form::Framed, "unknown field"),
            (b"{\"frames\":1,\"body\":9}\nabc", Form::Framed, "after 3 of 9"),
            (b"{\"frames\":1,\"body\":8388609}\n", Form::Framed, "above the limit"),
            (b"{\"frames\":1", Form::Framed, "no end"),
            (long.as_bytes(), Form::Framed, "longer than"),
            (b"not json\n", Form::Plain, "not a JSON object"),
            (b"{\"cmd\":\"\xff\"}\n", Form::Plain, "not a JSON object"),
            (b"[1]\n", Form::Plain, "not a JSON object"),
        ] {
            let incoming = read(&[bytes], true, EXEC).await;
            assert_eq!(incoming.form, form, "{part}");
            assert!(message(incoming).contains(part), "{part}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_plain_request_above_its_limit_is_refused_whole() {
        let text = format!("{{\"cmd\":\"{}\"}}\n", "y".repeat(65_536));
        assert!(message(read(&[text.as_bytes()], false, EXEC).await).contains("65536"));
        assert!(read(&[text.as_bytes()], false, LARGE).await.request.is_ok());
        let short = Expected { plain_bytes: 5, ..EXEC };
        assert!(message(read(&[b"{\"cmd\":1}\n"], false, short).await).contains("5 bytes"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_sends_on_and_on_gets_one_deadline_and_one_that_breaks_off_none() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let (start, memory) = (Instant::now(), Memory::new());
        let trickle = async {
            loop {
                client.write_all(b"{").await.unwrap();
                tokio::time::sleep(limits::PLAIN_SILENCE / 2).await;
            }
        };
        let incoming = tokio::select! {
            incoming = read_request(&mut server, EXEC, &memory) => incoming.unwrap(),
            () = trickle => unreachable!(),
        };
        assert!(matches!(incoming.request, Err(Fault::BadRequest { .. })));
        assert!(start.elapsed() <= limits::REQUEST + limits::PLAIN_SILENCE);
        assert!(read_request(&mut Broken, EXEC, &memory).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_in_has_one_deadline_for_all_of_it() {
        let (mut client, mut server) = tokio::io::duplex(1 << 16);
        client.write_all(b"{\"frames\":1,\"body\":1000}\n").await.unwrap();
        let (start, memory) = (Instant::now(), Memory::new());
        let trickle = async {
            loop {
                tokio::time::sleep(limits::REQUEST / 2).await;
                client.write_all(b"x").await.unwrap();
            }
        };
        let incoming = tokio::select! {
            incoming = read_request(&mut server, EXEC, &memory) => incoming.unwrap(),
            () = trickle => unreachable!(),
        };
        assert!(matches!(incoming.request, Err(Fault::TimedOut { .. })));
        assert_eq!(start.elapsed(), limits::BODY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_pauses_within_its_object_is_waited_for() {
        for (begin, end, form) in
            [("{\"cmd\":", "\"id\"}\n", Form::Plain), ("{\"fra", "mes\":1}\n", Form::Framed)]
        {
            let (mut client, mut server) = tokio::io::duplex(1 << 16);
            client.write_all(begin.as_bytes()).await.unwrap();
            let slow = async {
                tokio::time::sleep(limits::PLAIN_SILENCE * 3).await;
                client.write_all(end.as_bytes()).await.unwrap();
            };
            let memory = Memory::new();
            let (incoming, ()) = tokio::join!(read_request(&mut server, LIST, &memory), slow);
            let incoming = incoming.unwrap();
            assert_eq!((incoming.form, incoming.request.is_ok()), (form, true), "{begin}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn text_that_would_swell_in_memory_is_no_request() {
        let many: String = (0..1000).map(|key| format!("\"{key}\":1,")).collect();
        for bad in [format!("{{\"a\":[{}1]}}\n", "1,".repeat(1000)), format!("{{{many}\"a\":1}}\n")]
        {
            let told = message(read(&[bad.as_bytes()], true, LARGE).await);
            assert!(told.contains("not a JSON object"), "{told}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_caller_is_read_only_far_enough_to_tell_its_form() {
        let only = Expected { form_only: true, ..LIST };
        let start = Instant::now();
        for (bytes, form) in [
            (&b"{\"frames\":1,\"body\":8388608}\n"[..], Form::Framed),
            (b"{\n", Form::Plain),
            (b"\n", Form::Plain),
        ] {
            assert_eq!(read(&[bytes], false, only).await.form, form);
        }
        assert_eq!(start.elapsed(), std::time::Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn behind_an_empty_line_no_request_is_framed() {
        for piece in [1, usize::MAX] {
            fuzz_incoming(b"\n {\"frames\":1,\"body\":2}\n{", piece).await;
        }
        let incoming = read(&[b"\n{\"frames\":1}\n{"], true, EXEC).await;
        assert_eq!(incoming.form, Form::Plain);
    }

    proptest! {
        #[test]
        fn a_request_does_not_depend_on_how_it_arrives(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "{", "}", "\"frames\":1", ",", "\"body\":3", "\"args\":{}", "\"cmd\":\"id\"", "\n",
                    "{\"frames\":1,\"body\":2}\n", "abc", " ", "\u{e9}",
                ]),
                0..12,
            ),
            length in 1..20usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(fuzz_incoming(pieces.concat().as_bytes(), length));
        }
    }
}
