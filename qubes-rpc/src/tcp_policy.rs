//! The root helper that writes `qubes.ConnectTCP` policy, and how the daemon asks it.
//!
//! It accepts nothing but a change, two names and a port. It does not take the daemon's word for
//! anything: it reads the operator's file and asks qubesd itself.

use std::{
    fs::{self, File},
    io::{self, Write},
    num::NonZeroU16,
    os::unix::fs::PermissionsExt,
    path::Path,
    rc::Rc,
    time::SystemTime,
};

use contract::limits;
use policy::{TcpRule, TcpRules};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Error, chain},
    host::Host,
    journal,
    scope_file::read_scope,
};

/// The longest message, in bytes.
const MESSAGE_BYTES: u64 = 1024;

/// What to do with a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// Let it stand.
    Add,
    /// Let it not stand.
    Remove,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    change: Change,
    source: String,
    target: String,
    port: NonZeroU16,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Reply {
    Changed(bool),
    Refused,
    Failed,
}

/// Asks the helper for a change; true when it changed anything.
pub(crate) async fn ask_helper(socket: &Path, change: Change, rule: &TcpRule) -> io::Result<bool> {
    let request = Request {
        change,
        source: rule.source.to_string(),
        target: rule.target.to_string(),
        port: rule.port,
    };
    let exchange = async {
        #[expect(clippy::disallowed_methods, reason = "the helper's socket, not qubesd's")]
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(&serde_json::to_vec(&request)?).await?;
        stream.shutdown().await?;
        let mut reply = Vec::new();
        stream.take(MESSAGE_BYTES).read_to_end(&mut reply).await?;
        match serde_json::from_slice(&reply)? {
            Reply::Changed(changed) => Ok(changed),
            Reply::Refused => Err(io::Error::other("the helper refused the change")),
            Reply::Failed => Err(io::Error::other("the helper failed; see its journal")),
        }
    };
    timeout(limits::QUBESD, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Serves changes, one after the other, to this user alone.
pub(crate) async fn serve_tcp_policy(
    host: Rc<Host>,
    listener: UnixListener,
    peer: u32,
    stop: CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    journal::say(&format!("accept: {error}"));
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let answered = timeout(limits::QUBESD, answer(&host, stream, peer)).await;
        if let Ok(Err(error)) = answered {
            journal::say(&format!("tcp-policy: {error}"));
        }
    }
}

async fn answer(host: &Host, stream: UnixStream, peer: u32) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != peer && uid != rustix::process::getuid().as_raw() {
        return Err(io::Error::other(format!("uid {uid} may not change policy")));
    }
    let mut reader = BufReader::new(stream);
    let mut message = Vec::new();
    (&mut reader).take(MESSAGE_BYTES).read_until(b'\n', &mut message).await?;
    let reply = match serde_json::from_slice::<Request>(&message) {
        Ok(request) => match change(host, &request).await {
            Ok(Some(changed)) => Reply::Changed(changed),
            Ok(None) => Reply::Refused,
            Err(error) => {
                journal::say(&format!("tcp-policy: {}", chain(&error)));
                Reply::Failed
            }
        },
        Err(error) => {
            journal::say(&format!("tcp-policy: {error}"));
            Reply::Refused
        }
    };
    let mut stream = reader.into_inner();
    stream.write_all(&serde_json::to_vec(&reply)?).await?;
    stream.shutdown().await
}

/// Makes the change; nothing when the operator's file does not allow it.
async fn change(host: &Host, request: &Request) -> Result<Option<bool>, Error> {
    let (Ok(source), Ok(target)) = (request.source.parse(), request.target.parse()) else {
        return Ok(None);
    };
    let rule = TcpRule { source, target, port: request.port };
    let folder = host.paths.policy();
    // Qubes' own policy service takes the same lock.
    let lock = File::open(&folder).map_err(Error::File)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| Error::File(error.into()))?;
    let before = host.read_tcp_rules()?;
    let mut after = TcpRules::default();
    for kept in before.rules() {
        if granted(host, kept).await? {
            after.add(kept.clone());
        }
    }
    let changed = match request.change {
        Change::Add if !granted(host, &rule).await? => return Ok(None),
        Change::Add => after.add(rule),
        Change::Remove => after.remove(&rule),
    };
    if after != before {
        replace(&host.paths.tcp_policy(), &after.render()).map_err(Error::File)?;
    }
    Ok(Some(changed))
}

/// Whether any agent holds the power `net` over both ends now.
async fn granted(host: &Host, rule: &TcpRule) -> Result<bool, Error> {
    let Ok(scope) = read_scope(&host.paths.scope(), host.trusted) else { return Ok(false) };
    let now = SystemTime::now();
    for agent in scope.agents() {
        let Ok(caller) = scope.caller(agent) else { continue };
        if host.net_pair(&caller, rule, now).await?.is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Replaces a file whole, so that a reader finds the old one or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("policy.new");
    let mut file = File::create(&new)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}
