//! Reads what a caller sends: a framed request, or the JSON object of the older program.

use std::io;

use bytes::{Bytes, BytesMut};
use contract::{Fault, RequestLine, RequestLineError, limits};
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout, timeout_at},
};

use crate::answer::Form;

/// A whole request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Its parameters, under the names of its form.
    pub args: Map<String, Value>,
    /// The raw bytes behind a framed request.
    pub body: Bytes,
}

/// A request, and how its sender wants to be answered.
#[derive(Debug)]
pub struct Incoming {
    /// The form in which it came, as far as that could be told.
    pub form: Form,
    /// The request, or what is wrong with it.
    pub request: Result<Request, Fault>,
}

/// What a service expects of an unframed request.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The most bytes of an unframed request.
    pub plain_bytes: usize,
    /// Whether silence stands for an empty request.
    pub silence_is_empty: bool,
}

enum Ended {
    Input,
    Silence,
}

/// Reads one request. An error is a caller that is gone.
pub async fn read_request<R: AsyncRead + Unpin>(
    reader: &mut R,
    expected: Expected,
) -> io::Result<Incoming> {
    let deadline = Instant::now() + limits::REQUEST;
    let limit = expected.plain_bytes.max(limits::REQUEST_LINE_BYTES);
    let mut buffer = BytesMut::new();
    let mut first_line_seen = false;
    loop {
        let before = buffer.len();
        let ended = read_more(reader, &mut buffer, deadline).await?;
        if !first_line_seen
            && let Some(end) = buffer.iter().skip(before).position(|byte| *byte == b'\n')
        {
            first_line_seen = true;
            let line = buffer.get(..=before + end).unwrap_or_default();
            if is_framed(line) {
                let parsed = RequestLine::parse(line);
                drop(buffer.split_to(before + end + 1));
                return Ok(framed(reader, parsed, buffer).await);
            }
        }
        if buffer.len() > limit {
            let message = format!("a request may have at most {limit} bytes");
            let form = if is_framed(&buffer) { Form::Framed } else { Form::Plain };
            return Ok(Incoming { form, request: Err(Fault::TooLarge { message }) });
        }
        match ended {
            None if buffer.ends_with(b"\n") => {
                if let Some(request) = whole_object(&buffer) {
                    return Ok(plain(within(request, buffer.len(), expected)));
                }
            }
            None => {}
            Some(Ended::Silence) if waits_for_more(&buffer, expected, deadline) => {}
            Some(Ended::Silence) if buffer.is_empty() && !expected.silence_is_empty => {
                return Ok(plain(Err(Fault::bad_request("no request arrived"))));
            }
            Some(Ended::Silence | Ended::Input) => {
                if is_framed(&buffer) {
                    let fault = Fault::bad_request("the request line has no end");
                    return Ok(Incoming { form: Form::Framed, request: Err(fault) });
                }
                return Ok(plain(plain_request(&buffer, expected)));
            }
        }
    }
}

/// A caller whose request has to hold something gets the time to send it.
fn waits_for_more(buffer: &[u8], expected: Expected, deadline: Instant) -> bool {
    buffer.is_empty() && !expected.silence_is_empty && Instant::now() < deadline
}

async fn read_more<R: AsyncRead + Unpin>(
    reader: &mut R,
    buffer: &mut BytesMut,
    deadline: Instant,
) -> io::Result<Option<Ended>> {
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
        || serde_json::from_slice::<Map<String, Value>>(line)
            .is_ok_and(|object| object.contains_key("frames"))
}

async fn framed<R: AsyncRead + Unpin>(
    reader: &mut R,
    parsed: Result<RequestLine, RequestLineError>,
    arrived: BytesMut,
) -> Incoming {
    let request = match parsed {
        Ok(line) => read_body(reader, line.body, arrived)
            .await
            .map(|body| Request { args: line.args, body }),
        Err(error @ (RequestLineError::TooLong | RequestLineError::Body(_))) => {
            Err(Fault::TooLarge { message: error.to_string() })
        }
        Err(error @ (RequestLineError::Json(_) | RequestLineError::Version(_))) => {
            Err(Fault::bad_request(error.to_string()))
        }
    };
    Incoming { form: Form::Framed, request }
}

/// Reads the counted bytes; `length` is within its limit, and memory grows only as they arrive.
async fn read_body<R: AsyncRead + Unpin>(
    reader: &mut R,
    length: u64,
    mut body: BytesMut,
) -> Result<Bytes, Fault> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    while body.len() < length {
        match timeout(limits::REQUEST, reader.read_buf(&mut body)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => {
                let arrived = body.len();
                return Err(Fault::bad_request(format!(
                    "the body ended after {arrived} of {length} bytes"
                )));
            }
            Err(_) => return Err(Fault::TimedOut { message: "the body did not arrive".into() }),
        }
    }
    body.truncate(length);
    Ok(body.freeze())
}

fn plain(request: Result<Request, Fault>) -> Incoming {
    Incoming { form: Form::Plain, request }
}

fn whole_object(buffer: &[u8]) -> Option<Request> {
    let args = serde_json::from_slice(buffer).ok()?;
    Some(Request { args, body: Bytes::new() })
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
    let args = serde_json::from_slice(buffer).map_err(|error| {
        Fault::bad_request(format!("the request is not a JSON object: {error}"))
    })?;
    within(Request { args, body: Bytes::new() }, buffer.len(), expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const LIST: Expected = Expected { plain_bytes: 64 * 1024, silence_is_empty: true };
    const EXEC: Expected = Expected { plain_bytes: 64 * 1024, silence_is_empty: false };

    async fn read(pieces: &[&[u8]], close: bool, expected: Expected) -> Incoming {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        for piece in pieces {
            client.write_all(piece).await.unwrap();
        }
        if close {
            client.shutdown().await.unwrap();
        }
        let incoming = read_request(&mut server, expected).await.unwrap();
        drop(client);
        incoming
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
        let write = Expected { plain_bytes: limits::PLAIN_WRITE_BYTES, silence_is_empty: false };
        assert!(read(&[text.as_bytes()], false, write).await.request.is_ok());
    }
}
