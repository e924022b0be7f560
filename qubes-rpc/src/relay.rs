//! `saltbridged call`: forwards one call to the daemon for people who prefer executable services,
//! and turns its frames into output, errors and exit code. It decides nothing.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use contract::{Fault, Frame, FrameCodec, Kind, RequestLine, SERVICE_PREFIX, limits};
use futures_util::StreamExt;
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_util::codec::FramedRead;

use crate::paths::Paths;

/// What a refused call returns, as qrexec's own programs do.
const REFUSED: u8 = 126;

/// Forwards one call.
pub(crate) async fn relay(
    paths: &Paths,
    service: Option<String>,
    source: Option<String>,
) -> io::Result<ExitCode> {
    let descriptor = descriptor(service, source)?;
    let mut input = Vec::new();
    let most = u64::try_from(limits::REQUEST_LINE_BYTES).unwrap_or(u64::MAX);
    tokio::io::stdin().take(most).read_to_end(&mut input).await?;
    let args: Map<String, Value> =
        if input.trim_ascii().is_empty() { Map::new() } else { serde_json::from_slice(&input)? };
    let line = RequestLine::new(args, 0).render().map_err(io::Error::other)?;
    #[expect(clippy::disallowed_methods, reason = "the daemon's socket, not qubesd's")]
    let stream = UnixStream::connect(paths.qrexec_socket()).await?;
    let (read, mut write) = stream.into_split();
    write.write_all(descriptor.as_bytes()).await?;
    write.write_all(&line).await?;
    let mut frames = FramedRead::new(read, FrameCodec);
    let mut json = Vec::new();
    while let Some(frame) = frames.next().await {
        let Frame { kind, payload } = frame.map_err(io::Error::other)?;
        match kind {
            Kind::Stdout => io::stdout().write_all(&payload)?,
            Kind::Stderr => io::stderr().write_all(&payload)?,
            Kind::Progress => {}
            Kind::Part => json.extend_from_slice(&payload),
            Kind::Result => {
                json.extend_from_slice(&payload);
                return conclude(&json);
            }
            Kind::Fault => {
                let fault: Fault = serde_json::from_slice(&payload)?;
                writeln!(io::stderr(), "{}", fault.sentence())?;
                let refused = fault == Fault::Refused {};
                return Ok(if refused { ExitCode::from(REFUSED) } else { ExitCode::FAILURE });
            }
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// A command's exit code becomes ours; any other result is printed.
fn conclude(json: &[u8]) -> io::Result<ExitCode> {
    let result: Value = serde_json::from_slice(json)?;
    match result.get("exit_code") {
        Some(code) => {
            let code = code.as_u64().and_then(|code| u8::try_from(code).ok());
            Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
        }
        None => {
            io::stdout().write_all(json)?;
            io::stdout().write_all(b"\n")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The announcement that qrexec would send: from the command line, else from the environment.
fn descriptor(service: Option<String>, source: Option<String>) -> io::Result<String> {
    let missing = || io::Error::other("name the service and --source, or be run by qrexec");
    let service = match service {
        Some(service) => format!("{SERVICE_PREFIX}{service}"),
        None => environment("QREXEC_SERVICE_FULL_NAME").ok_or_else(missing)?,
    };
    let source = source.or_else(|| environment("QREXEC_REMOTE_DOMAIN")).ok_or_else(missing)?;
    let target = match environment("QREXEC_REQUESTED_TARGET_TYPE").as_deref() {
        Some("name") => environment("QREXEC_REQUESTED_TARGET"),
        Some(_) | None => None,
    };
    let target = target.unwrap_or_else(|| "dom0".into());
    Ok(format!("{service} {source} name {target}\0"))
}

#[expect(clippy::disallowed_methods, reason = "qrexec tells an executable service who calls so")]
fn environment(key: &str) -> Option<String> {
    std::env::var(key).ok()
}
