//! Whether a qube reaches a TCP port, tried from within it.

use bytes::Bytes;
use contract::Stream;
use tokio_util::sync::CancellationToken;

use super::{Body, Output, OutputGone, Place, RunError, Runner, Script};

/// The most bytes that are kept of one part; the rest is dropped.
const PART_BYTES: usize = 64 * 1024;
/// The words that stand for the parts in the script, in its order.
const PARTS: [&str; 8] = [
    "interfaces",
    "routes",
    "routes6",
    "dns",
    "addresses",
    "addresses-exit",
    "connect",
    "connect-exit",
];

/// What the programs in the qube printed, at most 64 KiB each; empty where one is missing or was not
/// reached before the deadline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// `ip -j addr show`.
    pub interfaces: String,
    /// `ip -j route show`.
    pub routes: String,
    /// `ip -6 -j route show`.
    pub routes6: String,
    /// `/etc/resolv.conf`.
    pub dns: String,
    /// `getent ahosts`.
    pub addresses: String,
    /// Its exit code: 0 when it found something, 2 when not, 124 after 5 s.
    pub addresses_exit: Option<i32>,
    /// What bash says of the connection.
    pub connect: String,
    /// 0 when it was made, 124 when there was no answer within 5 s; none when it was not tried.
    pub connect_exit: Option<i32>,
}

impl Runner {
    /// Looks at the network of a qube and connects to a port, at most 5 s each for the name and
    /// the connection, which is closed at once. `host` must not begin with a dash.
    ///
    /// After a deadline or a cancellation what was complete or begun by then is returned.
    /// Cancellation as in [`Self::command`].
    pub async fn reach(
        &self,
        place: Place<'_>,
        host: &str,
        port: u16,
        cancel: &CancellationToken,
    ) -> Result<Reached, RunError> {
        let port = port.to_string();
        let script = Script {
            text: include_str!("reach.sh"),
            variables: &[("host", host.as_bytes()), ("port", port.as_bytes())],
        };
        let mut parts = Parts(Vec::new());
        self.script(place, script, Body::empty(), &mut parts, cancel).await?;
        Ok(Reached {
            interfaces: parts.text("interfaces"),
            routes: parts.text("routes"),
            routes6: parts.text("routes6"),
            dns: parts.text("dns"),
            addresses: parts.text("addresses"),
            addresses_exit: parts.text("addresses-exit").parse().ok(),
            connect: parts.text("connect"),
            connect_exit: parts.text("connect-exit").parse().ok(),
        })
    }
}

/// Collects the parts.
#[derive(Debug)]
struct Parts(Vec<(&'static str, Vec<u8>)>);

impl Parts {
    fn text(&self, name: &str) -> String {
        let part = self.0.iter().find(|(part, _)| *part == name);
        part.map_or(String::new(), |(_, text)| String::from_utf8_lossy(text).into_owned())
    }
}

impl Output for Parts {
    async fn bytes(&mut self, stream: Stream, bytes: Bytes) -> Result<(), OutputGone> {
        if let (Stream::Stdout, Some((_, text))) = (stream, self.0.last_mut()) {
            let room = PART_BYTES.saturating_sub(text.len());
            text.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
        }
        Ok(())
    }

    fn note(&mut self, _stream: Stream, line: &[u8]) {
        // A hostile qube can write our lines as often as it likes; memory must not follow.
        if self.0.len() >= PARTS.len() {
            return;
        }
        let name = line.strip_prefix(b"part ");
        let known = PARTS.into_iter().filter(|part| name == Some(part.as_bytes()));
        self.0.extend(known.map(|part| (part, Vec::new())));
    }
}
