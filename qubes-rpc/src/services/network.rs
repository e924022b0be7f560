//! What the network tools in a qube printed, as data. Output that cannot be read gives nothing;
//! the caller sees it as it was printed besides.

use serde::{Deserialize, Serialize};

/// The most entries of one kind that are read, so that a hostile qube's few bytes stay a small answer.
const ENTRIES: usize = 1000;
/// The most characters that are kept of the name of a table, which every chain of it repeats.
const TABLE_CHARS: usize = 128;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Interface {
    /// Its name, for example "eth0".
    pub name: String,
    /// "UP", "DOWN" or "UNKNOWN".
    pub state: String,
    /// Its MAC address, where it has one.
    pub mac: Option<String>,
    /// The largest packet, in bytes.
    pub mtu: Option<u64>,
    /// Its addresses with prefix length.
    pub addresses: Vec<String>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Route {
    /// The network, or "default".
    pub destination: String,
    /// The next hop, where there is one.
    pub gateway: Option<String>,
    /// The interface.
    pub interface: Option<String>,
    /// The metric.
    pub metric: Option<u64>,
}

/// Name resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dns {
    /// The name servers, in order.
    pub nameservers: Vec<String>,
    /// The domains that are tried.
    pub search: Vec<String>,
}

/// A chain of a firewall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Chain {
    /// Its table, for example "nat" (iptables) or "ip qubes" (nftables).
    pub table: String,
    /// Its name.
    pub chain: String,
    /// What happens to what no rule matches, where the chain says so.
    pub policy: Option<String>,
    /// Its rules as the tool printed them.
    pub rules: Vec<String>,
}

/// A WireGuard interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WireGuard {
    /// Its name.
    pub name: String,
    /// Its public key.
    pub public_key: Option<String>,
    /// Its peers.
    pub peers: Vec<Peer>,
}

/// A peer of a WireGuard interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Peer {
    /// Its public key.
    pub public_key: String,
    /// Where it is.
    pub endpoint: Option<String>,
    /// What goes to it.
    pub allowed_ips: Option<String>,
    /// When it was heard of last.
    pub latest_handshake: Option<String>,
}

#[derive(Deserialize)]
struct IpLink {
    ifname: String,
    #[serde(default)]
    operstate: String,
    address: Option<String>,
    mtu: Option<u64>,
    #[serde(default)]
    addr_info: Vec<IpAddress>,
}

#[derive(Deserialize)]
struct IpAddress {
    local: String,
    prefixlen: u8,
}

#[derive(Deserialize)]
struct IpRoute {
    dst: String,
    gateway: Option<String>,
    dev: Option<String>,
    metric: Option<u64>,
}

/// Reads `ip -j addr show`.
pub(crate) fn interfaces(json: &str) -> Vec<Interface> {
    let links: Vec<IpLink> = serde_json::from_str(json).unwrap_or_default();
    let interface = |link: IpLink| Interface {
        name: link.ifname,
        state: link.operstate,
        mac: link.address,
        mtu: link.mtu,
        addresses: link
            .addr_info
            .iter()
            .map(|address| format!("{}/{}", address.local, address.prefixlen))
            .collect(),
    };
    links.into_iter().take(ENTRIES).map(interface).collect()
}

/// Reads `ip -j route show`.
pub(crate) fn routes(json: &str) -> Vec<Route> {
    let routes: Vec<IpRoute> = serde_json::from_str(json).unwrap_or_default();
    let route = |route: IpRoute| Route {
        destination: route.dst,
        gateway: route.gateway,
        interface: route.dev,
        metric: route.metric,
    };
    routes.into_iter().take(ENTRIES).map(route).collect()
}

/// Reads `/etc/resolv.conf`.
pub(crate) fn dns(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.nameservers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => dns.search.extend(words.map(str::to_owned)),
            Some(_) | None => {}
        }
    }
    dns
}

/// Reads `iptables -L -n` of this table, or `nft list ruleset`, which names its tables itself.
pub(crate) fn chains(table: &str, text: &str) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut table = table.to_owned();
    for line in text.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("table"), Some(family)) if line.ends_with('{') => {
                let name = words.next().unwrap_or_default();
                table = format!("{family} {name}").chars().take(TABLE_CHARS).collect();
            }
            (Some("Chain" | "chain"), Some(_)) if chains.len() == ENTRIES => break,
            // `Chain INPUT (policy ACCEPT)` of iptables, `chain input {` of nftables.
            (Some("Chain" | "chain"), Some(name)) => chains.push(Chain {
                table: table.clone(),
                chain: name.to_owned(),
                policy: line
                    .split_once("(policy ")
                    .map(|(_, policy)| policy.trim_end_matches(')').to_owned()),
                rules: Vec::new(),
            }),
            (None | Some("target" | "}"), _) => {}
            (Some(_), _) => {
                let Some(chain) = chains.last_mut() else { continue };
                match line.split_once("policy ") {
                    Some((before, policy)) if before.starts_with("type ") => {
                        chain.policy = Some(policy.trim_end_matches(';').to_owned());
                    }
                    Some(_) | None => chain.rules.push(line.to_owned()),
                }
            }
        }
    }
    chains
}

/// Reads `wg show`.
pub(crate) fn wireguard(text: &str) -> Vec<WireGuard> {
    let mut interfaces: Vec<WireGuard> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.trim().split_once(": ") else { continue };
        let value = value.to_owned();
        if key == "interface" {
            if interfaces.len() == ENTRIES {
                break;
            }
            interfaces.push(WireGuard { name: value, public_key: None, peers: Vec::new() });
            continue;
        }
        let Some(interface) = interfaces.last_mut() else { continue };
        match (key, interface.peers.last_mut()) {
            ("peer", _) => interface.peers.push(Peer { public_key: value, ..Peer::default() }),
            ("public key", None) => interface.public_key = Some(value),
            ("endpoint", Some(peer)) => peer.endpoint = Some(value),
            ("allowed ips", Some(peer)) => peer.allowed_ips = Some(value),
            ("latest handshake", Some(peer)) => peer.latest_handshake = Some(value),
            _ => {}
        }
    }
    interfaces
}

/// Reads whatever it is given as each tool's output and asserts that little stays little.
pub fn fuzz_network(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let chains = chains("filter", text);
    assert!(interfaces(text).len() <= ENTRIES, "too many interfaces");
    assert!(routes(text).len() <= ENTRIES, "too many routes");
    assert!(wireguard(text).len() <= ENTRIES, "too many WireGuard interfaces");
    assert!(chains.len() <= ENTRIES, "too many chains");
    assert!(chains.iter().all(|chain| chain.table.chars().count() <= TABLE_CHARS), "a long table");
    let dns = dns(text);
    let kept = dns.nameservers.iter().chain(&dns.search).map(String::len).sum::<usize>();
    assert!(kept <= text.len(), "more than was there");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn interfaces_and_routes_are_read_from_json() {
        let json = r#"[{"ifname":"eth0","operstate":"UP","mtu":1500,"address":"00:16:3e:5e:6c:00",
            "addr_info":[{"family":"inet","local":"10.137.0.6","prefixlen":32}]}]"#;
        let found = interfaces(json);
        assert_eq!(
            (found[0].name.as_str(), found[0].addresses[0].as_str()),
            ("eth0", "10.137.0.6/32")
        );
        let found = routes(r#"[{"dst":"default","gateway":"10.138.0.1","dev":"eth0","flags":[]}]"#);
        assert_eq!(found[0].gateway.as_deref(), Some("10.138.0.1"));
        assert_eq!((interfaces("no json"), routes("")), (Vec::new(), Vec::new()));
    }

    #[test]
    fn both_kinds_of_firewall_give_chains() {
        let iptables = "Chain INPUT (policy ACCEPT)\ntarget     prot opt source               destination         \nDROP       all  --  10.0.0.1             0.0.0.0/0           \n\nChain OUTPUT (policy DROP)\n";
        let found = chains("filter", iptables);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].policy.as_deref(), found[0].rules.len()), (Some("ACCEPT"), 1));
        let nft = "table ip qubes {\n\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t\tct state established accept\n\t}\n}\n";
        let found = chains("nftables", nft);
        assert_eq!((found[0].table.as_str(), found[0].chain.as_str()), ("ip qubes", "input"));
        assert_eq!(found[0].policy.as_deref(), Some("drop"));
        assert_eq!(found[0].rules, ["ct state established accept"]);
    }

    #[test]
    fn wireguard_and_dns_are_read_line_by_line() {
        let found = wireguard(
            "interface: wg0\n  public key: abc=\n\npeer: def=\n  endpoint: 192.0.2.1:51820\n  allowed ips: 0.0.0.0/0\n",
        );
        assert_eq!(found[0].public_key.as_deref(), Some("abc="));
        assert_eq!(found[0].peers[0].endpoint.as_deref(), Some("192.0.2.1:51820"));
        let found = dns("# x\nnameserver 10.139.1.1\nsearch a b\n");
        assert_eq!((found.nameservers, found.search.len()), (vec!["10.139.1.1".to_owned()], 2));
    }

    #[test]
    fn few_bytes_of_a_hostile_qube_stay_a_small_answer() {
        let nft = format!("table ip {} {{\n{}", "a".repeat(64 * 1024), "chain b\n".repeat(8192));
        let found = chains("nftables", &nft);
        assert_eq!((found.len(), found[0].table.len()), (ENTRIES, TABLE_CHARS));
        let links = format!("[{}]", vec!["{\"ifname\":\"\"}"; 9000].join(","));
        assert_eq!(interfaces(&links).len(), ENTRIES);
        let found = routes(&format!("[{}]", vec!["{\"dst\":\"\"}"; 9000].join(",")));
        assert_eq!(found.len(), ENTRIES);
        assert_eq!(wireguard(&"interface: a\n".repeat(9000)).len(), ENTRIES);
    }

    proptest! {
        #[test]
        fn no_output_makes_a_reader_panic(words in prop::collection::vec(
            prop::sample::select(vec![
                "[", "{", "\"ifname\":\"e\"", "\"dst\":\"d\"", "}", "]", ",", "\n", " ", "table", "ip",
                "Chain", "chain", "x", "(policy ", ")", "type ", "policy ", ";", "interface: ", "peer: ",
                "endpoint: ", "nameserver", "search", "é",
            ]),
            0..40,
        )) {
            fuzz_network(words.concat().as_bytes());
        }
    }
}
