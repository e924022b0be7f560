//! The root helper that writes `qubes.ConnectTCP` policy, and how the daemon asks it.
//!
//! It accepts nothing but a change with two names and a port, or the wish that what has ended be
//! withdrawn. It does not take the daemon's word for anything: it reads the operator's file and asks
//! qubesd itself.

use std::{fs::File, io, num::NonZeroU16, path::Path, rc::Rc};

use contract::{Power, limits};
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
    pause::is_paused,
    replace::replace_file,
    scope_file::read_granted,
};

/// The longest message, in bytes.
const MESSAGE_BYTES: u64 = 1024;

/// What the daemon may ask for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    Add(Ends),
    Remove(Ends),
    Prune,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ends {
    source: String,
    target: String,
    port: NonZeroU16,
}

impl Ends {
    fn of(rule: &TcpRule) -> Self {
        let TcpRule { source, target, port } = rule;
        Self { source: source.to_string(), target: target.to_string(), port: *port }
    }

    fn rule(&self) -> Option<TcpRule> {
        let (source, target) = (self.source.parse().ok()?, self.target.parse().ok()?);
        Some(TcpRule { source, target, port: self.port })
    }
}

/// What to do with the rules.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change<'r> {
    /// Let one stand.
    Add(&'r TcpRule),
    /// Let one not stand.
    Remove(&'r TcpRule),
    /// Withdraw those whose grants have ended.
    Prune,
}

/// Why the helper did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    /// It cannot be reached, does not answer, refused or failed.
    #[error("the policy helper")]
    Io(#[from] io::Error),
    /// The agent has as many rules as it may have.
    #[error("there is no room for one more rule")]
    Full,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Reply {
    Changed(bool),
    Full,
    Refused,
    Failed,
}

/// Asks the helper for a change; true when it changed anything.
pub(crate) async fn ask_helper(socket: &Path, change: Change<'_>) -> Result<bool, HelperError> {
    let request = match change {
        Change::Add(rule) => Request::Add(Ends::of(rule)),
        Change::Remove(rule) => Request::Remove(Ends::of(rule)),
        Change::Prune => Request::Prune,
    };
    let exchange = async {
        #[expect(clippy::disallowed_methods, reason = "the helper's socket, not qubesd's")]
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(&serde_json::to_vec(&request).map_err(io::Error::from)?).await?;
        stream.shutdown().await?;
        let mut reply = Vec::new();
        stream.take(MESSAGE_BYTES).read_to_end(&mut reply).await?;
        match serde_json::from_slice(&reply).map_err(io::Error::from)? {
            Reply::Changed(changed) => Ok(changed),
            Reply::Full => Err(HelperError::Full),
            Reply::Refused => Err(io::Error::other("the helper refused the change").into()),
            Reply::Failed => Err(io::Error::other("the helper failed; see its journal").into()),
        }
    };
    let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
    timeout(limits::QUBESD, exchange).await.unwrap_or_else(late)
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
            Ok(reply) => reply,
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

/// Makes the change, as far as the operator's file and qubesd allow it.
async fn change(host: &Host, request: &Request) -> Result<Reply, Error> {
    let (ends, is_new) = match request {
        Request::Add(ends) => (ends, true),
        Request::Remove(ends) => (ends, false),
        Request::Prune => {
            let removed = withdraw_ended(host).await?;
            for rule in &removed {
                journal::say(&format!("withdrawn, since its grant has ended: {rule}"));
            }
            return Ok(Reply::Changed(!removed.is_empty()));
        }
    };
    let Some(rule) = ends.rule() else { return Ok(Reply::Refused) };
    let _lock = lock(host)?;
    // Only under the lock: a pause withdraws all rules under it, and none may come behind that.
    if is_paused(&host.paths) {
        return Ok(Reply::Refused);
    }
    let before = host.read_tcp_rules()?;
    let (mut after, _) = still_granted(host, &before).await?;
    let changed = if is_new {
        match has_room(host, &after, &rule).await? {
            None => return Ok(Reply::Refused),
            Some(false) => return Ok(Reply::Full),
            Some(true) => after.add(rule),
        }
    } else {
        after.remove(&rule)
    };
    write_tcp_rules(host, &before, &after)?;
    Ok(Reply::Changed(changed))
}

/// The lock that Qubes' own policy service takes.
fn lock(host: &Host) -> Result<File, Error> {
    let lock = File::open(host.paths.policy()).map_err(Error::File)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| Error::File(error.into()))?;
    Ok(lock)
}

/// The rules that an agent holds `net` over both ends of, and the others.
async fn still_granted(host: &Host, rules: &TcpRules) -> Result<(TcpRules, Vec<TcpRule>), Error> {
    let (mut kept, mut removed) = (TcpRules::default(), Vec::new());
    for rule in rules.rules() {
        if granted(host, rule).await? {
            kept.add(rule.clone());
        } else {
            removed.push(rule.clone());
        }
    }
    Ok((kept, removed))
}

fn write_tcp_rules(host: &Host, before: &TcpRules, after: &TcpRules) -> Result<(), Error> {
    if after == before {
        return Ok(());
    }
    replace_file(&host.paths.tcp_policy(), after.render().as_bytes(), 0o644).map_err(Error::File)
}

/// Removes the rules whose grants ended; those that it removed.
pub(crate) async fn withdraw_ended(host: &Host) -> Result<Vec<TcpRule>, Error> {
    let _lock = lock(host)?;
    let before = host.read_tcp_rules()?;
    let (after, removed) = still_granted(host, &before).await?;
    write_tcp_rules(host, &before, &after)?;
    Ok(removed)
}

/// Removes all rules; those that there were.
pub(crate) fn withdraw_all(host: &Host) -> Result<Vec<TcpRule>, Error> {
    let _lock = lock(host)?;
    let before = host.read_tcp_rules()?;
    write_tcp_rules(host, &before, &TcpRules::default())?;
    Ok(before.rules().to_vec())
}

/// Puts these rules back, as far as they are granted still; those that are there then.
pub(crate) async fn put_back(host: &Host, rules: Vec<TcpRule>) -> Result<Vec<TcpRule>, Error> {
    let _lock = lock(host)?;
    let before = host.read_tcp_rules()?;
    let mut wanted = before.clone();
    for rule in rules {
        wanted.add(rule);
    }
    let (after, _) = still_granted(host, &wanted).await?;
    write_tcp_rules(host, &before, &after)?;
    Ok(after.rules().to_vec())
}

/// Whether any agent holds the power `net` over both ends now.
async fn granted(host: &Host, rule: &TcpRule) -> Result<bool, Error> {
    Ok(has_room(host, &TcpRules::default(), rule).await?.is_some())
}

/// Whether an agent that holds the power `net` over both ends now may have this rule beside those
/// that stand; nothing where no agent holds it.
async fn has_room(host: &Host, rules: &TcpRules, rule: &TcpRule) -> Result<Option<bool>, Error> {
    let Ok(scope) = read_granted(&host.paths, host.trusted) else { return Ok(None) };
    let now = host.now();
    let mut found = None;
    for agent in scope.agents() {
        let Ok(caller) = scope.caller(agent) else { continue };
        if host.net_pair(&caller, rule, now).await?.is_err() {
            continue;
        }
        let its_own =
            |rule: &&TcpRule| caller.pair(&rule.source, &rule.target, Power::Net, now).is_ok();
        let count = rules.rules().iter().filter(its_own).count();
        if count < limits::TCP_RULES_PER_AGENT || rules.rules().contains(rule) {
            return Ok(Some(true));
        }
        found = Some(false);
    }
    Ok(found)
}
