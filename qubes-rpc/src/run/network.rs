//! What a qube knows of its own network.

use bytes::Bytes;
use contract::Stream;
use tokio_util::sync::CancellationToken;

use super::{Body, Output, OutputGone, Place, RunError, Runner, Script};

/// The most bytes that are kept of one part; the rest is dropped.
const PART_BYTES: usize = 128 * 1024;

/// What a part is about, named by the tool that prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartName {
    /// `ip -4 addr show`.
    Interfaces,
    /// `ip -j addr show`.
    InterfacesJson,
    /// `ip -4 route show`.
    Routes,
    /// `ip -j route show`.
    RoutesJson,
    /// `ip -6 -j route show`.
    Routes6Json,
    /// `/etc/resolv.conf`.
    Dns,
    /// `wg show`, which hides keys.
    WireGuard,
    /// `iptables -t nat -L -n`.
    IptablesNat,
    /// `iptables -t filter -L -n`.
    IptablesFilter,
    /// `nft list ruleset`.
    Nftables,
}

impl PartName {
    /// Every part, in the order of the script.
    pub const ALL: [Self; 10] = [
        Self::Interfaces,
        Self::InterfacesJson,
        Self::Routes,
        Self::RoutesJson,
        Self::Routes6Json,
        Self::Dns,
        Self::WireGuard,
        Self::IptablesNat,
        Self::IptablesFilter,
        Self::Nftables,
    ];

    /// The word that stands for it in the script.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interfaces => "interfaces",
            Self::InterfacesJson => "interfaces-json",
            Self::Routes => "routes",
            Self::RoutesJson => "routes-json",
            Self::Routes6Json => "routes6-json",
            Self::Dns => "dns",
            Self::WireGuard => "wireguard",
            Self::IptablesNat => "iptables-nat",
            Self::IptablesFilter => "iptables-filter",
            Self::Nftables => "nftables",
        }
    }
}

/// One part of the network's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is about.
    pub name: PartName,
    /// What the tool printed, at most 128 KiB; empty where the qube has no such tool.
    pub text: String,
}

impl Runner {
    /// Asks a qube for its network state. Wants [`User::Root`](super::User::Root), for the firewall.
    ///
    /// After a deadline or a cancellation the parts that were complete or begun by then are returned.
    /// Cancellation as in [`Self::command`].
    pub async fn network_state(
        &self,
        place: Place<'_>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Part>, RunError> {
        let mut parts = Parts(Vec::new());
        let script = Script { text: include_str!("network_state.sh"), variables: &[] };
        self.script(place, script, Body::empty(), &mut parts, cancel).await?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(parts.0.into_iter().map(|(name, bytes)| Part { name, text: text(bytes) }).collect())
    }
}

/// Collects the parts.
#[derive(Debug)]
struct Parts(Vec<(PartName, Vec<u8>)>);

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
        if self.0.len() >= PartName::ALL.len() {
            return;
        }
        let name = line.strip_prefix(b"part ");
        self.0.extend(
            PartName::ALL
                .into_iter()
                .filter(|part| name == Some(part.as_str().as_bytes()))
                .map(|part| (part, Vec::new())),
        );
    }
}
