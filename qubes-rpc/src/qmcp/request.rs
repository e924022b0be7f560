//! The request of a client of qubes-mcp: one JSON object, or nothing.

use bytes::BytesMut;
use contract::{Fault, limits};
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};

/// How deep the JSON may be: an object with lists or objects of plain values.
const DEPTH: usize = 2;

/// Reads an object: to the end of input, or until it is whole and nothing follows for a moment.
pub(super) async fn read<R: AsyncRead + Unpin>(
    reader: &mut R,
) -> Result<Map<String, Value>, Fault> {
    let deadline = Instant::now() + limits::REQUEST;
    let mut buffer = BytesMut::new();
    loop {
        let silence = deadline.min(Instant::now() + limits::PLAIN_SILENCE);
        let more = match timeout_at(silence, reader.read_buf(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => More::Never,
            Ok(Ok(_)) if buffer.ends_with(b"\n") => More::Perhaps,
            Ok(Ok(_)) => More::Surely,
            Err(_) if Instant::now() >= deadline => More::Never,
            Err(_) => More::Perhaps,
        };
        if buffer.len() > limits::PLAIN_REQUEST_BYTES {
            let most = limits::PLAIN_REQUEST_BYTES;
            let message = format!("a request may have at most {most} bytes");
            return Err(Fault::TooLarge { message });
        }
        match more {
            More::Never => return parse(&buffer),
            More::Surely => {}
            More::Perhaps => {
                if let Ok(object) = parse(&buffer) {
                    return Ok(object);
                }
            }
        }
    }
}

/// Whether more of a request will come.
enum More {
    Surely,
    Perhaps,
    Never,
}

fn parse(bytes: &[u8]) -> Result<Map<String, Value>, Fault> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let wrong = |_| Fault::bad_request("invalid JSON input");
    let object: Map<String, Value> = serde_json::from_slice(bytes).map_err(wrong)?;
    let shallow =
        object.len() <= limits::PLAIN_KEYS && object.values().all(|value| depth(value) < DEPTH);
    if shallow { Ok(object) } else { Err(Fault::bad_request("invalid JSON input")) }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Reads whatever it is given; nothing may panic, and what is read is shallow.
pub fn fuzz_qmcp_request(input: &[u8]) {
    if let Ok(object) = parse(input) {
        assert!(object.values().all(|value| depth(value) < DEPTH), "a deep request was read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    async fn read_pieces(pieces: &[&[u8]], close: bool) -> Result<Map<String, Value>, Fault> {
        let (mut client, mut server) = tokio::io::duplex(1 << 17);
        for piece in pieces {
            client.write_all(piece).await.unwrap();
        }
        if close {
            client.shutdown().await.unwrap();
        }
        let read = read(&mut server).await;
        drop(client);
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_an_object_or_nothing_and_ends_with_the_input_a_newline_or_silence() {
        for (bytes, close, keys) in [
            (&b""[..], true, 0),
            (b"", false, 0),
            (b"{\"name\": \"a\"}", true, 1),
            (b"{\"name\": \"a\"}", false, 1),
            (b"{\"name\": \"a\"}\n", false, 1),
            (b"{\n\"options\": {\"read-only\": \"yes\"}, \"events\": [\"a\"]\n}\n", true, 2),
        ] {
            assert_eq!(read_pieces(&[bytes], close).await.unwrap().len(), keys);
        }
        let deep = format!("{}1{}", "[".repeat(9000), "]".repeat(9000));
        for bad in ["[1]", "nonsense", "{\"a\": [[1]]}", "{", deep.as_str()] {
            assert!(read_pieces(&[bad.as_bytes()], true).await.is_err(), "{bad}");
        }
        let long = format!("{{\"name\": \"{}\"}}", "x".repeat(65_536));
        let told = read_pieces(&[long.as_bytes()], true).await.unwrap_err();
        assert!(matches!(told, Fault::TooLarge { .. }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(input in "[\\[\\]{}\":,a-z0-9 ]{0,60}") {
            fuzz_qmcp_request(input.as_bytes());
        }
    }
}
