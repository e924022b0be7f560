//! `diagnose_network`.

use std::net::IpAddr;

use admin_api::{call::vm::PowerState, firewall::HostName};
use contract::{Fault, Power};
use policy::ManagedQube;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    error::Error,
    handle::Reader,
    run::Reached,
    service::{Observe, Service},
    services::{
        firewall_decision::Decision,
        network::{Dns, Interface, Route, dns, interfaces, routes},
        network_hops::{Asked, Hop, nameservers, walk},
        network_verdict::{Facts, Held, Told, conclude},
    },
    times::seconds_since_1970,
};

/// The service.
#[derive(Debug)]
pub struct NetworkDiagnose;

/// Where the connection should go.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// An IP address or a DNS name.
    pub host: String,
    /// The TCP port, 1 to 65535.
    pub port: u32,
}

/// What stands between the qube and the port.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// In one sentence: what stops the connection, or that nothing found stops it.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "text")))]
    pub verdict: String,
    /// The call that mends it; null when there is none that you may make.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "text")))]
    pub next: Option<NextCall>,
    /// What else was found.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "text")))]
    pub also: Vec<String>,
    /// The qube, its netvm, that one's netvm, and so on, as far as you may know them.
    pub hops: Vec<Hop>,
    /// What the qube's firewall rules do with the connection, for each address of the host. Those of
    /// its netvms stand in hops.
    pub firewall: Vec<Decision>,
    /// What the qube itself sees; null when nobody looked there.
    pub inside: Option<Inside>,
    /// Why nobody looked there; null when somebody did.
    #[cfg_attr(feature = "schema", schemars(extend("x-qube" = "text")))]
    pub note: Option<String>,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NextCall {
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// What the qube itself sees.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Inside {
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name servers.
    pub dns: Dns,
    /// The first addresses that the host resolves to there, at most 8.
    pub addresses: Vec<String>,
    /// Whether the host resolves to an address; null when that was not tried.
    pub resolves: Option<bool>,
    /// What became of a connection to the port.
    pub connection: Connection,
    /// What the qube says of a connection that failed.
    pub said: Option<String>,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Connection {
    /// It was made, and closed at once.
    Connected,
    /// The host, or a firewall in its name, refused it.
    Refused,
    /// There was no answer within 5 s.
    TimedOut,
    /// It failed otherwise, as it does when a firewall of Qubes rejects it.
    Failed,
    /// It was not tried, or its end is not known.
    #[default]
    NotTried,
}

/// The most addresses of a host that are looked at.
const ADDRESSES: usize = 8;
/// The characters that are kept of what a qube says.
const SAID_CHARS: usize = 300;

impl Service for NetworkDiagnose {
    const NAME: &str = "NetworkDiagnose";
    const TOOL: Option<&str> = Some("diagnose_network");
    const TITLE: &str = "Find what stops a connection";
    const SUMMARY: &str = "Find out why a qube (virtual machine) cannot reach a TCP port of a host: walks its chain of netvms as far as your scope allows, tells which firewall rule of the qube or of a netvm decides, and with the power exec tries addresses, routes, name resolution and the connection from inside the running qube and its running netvms. Ends with a verdict and the next call to make.";
    const POWER: Power = Power::See;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const OPEN_WORLD: bool = true;
    const LONG: bool = true;
    type On = ManagedQube;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    async fn handle(
        qube: ManagedQube,
        request: Request,
        host: Reader<'_>,
    ) -> Result<Response, Error> {
        let goal = Endpoint::parse(&request)?;
        let state = host.state(&qube).await?;
        let properties = host.properties(&qube).await?;
        let mut way = walk(&qube, &state, &properties, host).await?;
        let rules = host.rules(&qube).await?;
        let note = if state != PowerState::Running {
            Some(format!("the qube is not running (its state is {state})"))
        } else if !qube.holds(Power::Exec) {
            Some("you do not hold the power exec over this qube".to_owned())
        } else {
            None
        };
        let own = async {
            match note {
                Some(_) => Ok::<_, Error>(None),
                None => Ok(Some(look(&host.reach(&qube, &goal.host, goal.port).await?))),
            }
        };
        let (inside, ()) = tokio::join!(own, way.try_from_netvms(&goal.host, goal.port, host));
        let inside = inside?;
        let addresses = goal.addresses(inside.as_ref());
        let asked = Asked {
            name: goal.name(),
            addresses: &addresses,
            port: goal.port,
            now: seconds_since_1970(),
        };
        let (firewall, by_dns) = asked.judge(&rules, &nameservers(&properties));
        way.judge(asked);
        let told = conclude(&Facts {
            qube: Held::of(&qube),
            host: &goal.host,
            port: goal.port,
            hops: &way.hops,
            netvms: &way.netvms,
            mender: mender(&qube, &way.hops, host).await.as_deref(),
            firewall: &firewall,
            by_dns: by_dns.as_ref(),
            inside: inside.as_ref(),
            note: note.as_deref(),
        });
        let Told { verdict, next, also } = told;
        Ok(Response { verdict, next, also, hops: way.hops, firewall, inside, note })
    }
}

/// A TCP port of a host, named strictly.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    /// An address, or a DNS name in lower case.
    host: String,
    address: Option<IpAddr>,
    port: u16,
}

impl Endpoint {
    fn parse(request: &Request) -> Result<Self, Fault> {
        let port = u16::try_from(request.port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| Fault::bad_request("port must be 1 to 65535"))?;
        if let Ok(address) = request.host.parse::<IpAddr>() {
            return Ok(Self { host: address.to_string(), address: Some(address), port });
        }
        let host = parse_dns_name(&request.host).ok_or_else(|| {
            Fault::bad_request("host must be an IP address or a DNS name, without a port or a path")
        })?;
        Ok(Self { host, address: None, port })
    }

    /// The name, if the host is not given by its address.
    fn name(&self) -> Option<&str> {
        self.address.is_none().then_some(self.host.as_str())
    }

    /// What the firewall is asked about: the addresses, or the name where nobody resolved it.
    fn addresses(&self, inside: Option<&Inside>) -> Vec<Option<IpAddr>> {
        let resolved = inside.map_or(&[][..], |inside| inside.addresses.as_slice());
        match self.address {
            Some(address) => vec![Some(address)],
            None if resolved.is_empty() => vec![None],
            None => resolved.iter().map(|address| address.parse().ok()).collect(),
        }
    }
}

/// Reads labels of letters, digits, `-` and `_`, of which the last is no number: what looks like
/// an address is one to some resolvers and a name to others.
fn parse_dns_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let label = |label: &str| {
        let plain = |found: char| found.is_ascii_alphanumeric() || matches!(found, '-' | '_');
        (1..=63).contains(&label.len())
            && label.chars().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next()?;
    let number = last.starts_with(|found: char| found.is_ascii_digit())
        && last.chars().all(|found| found.is_ascii_hexdigit() || found == 'x');
    let whole = name.len() <= 253 && name.split('.').all(label) && !number;
    HostName::parse(&name).ok().filter(|_| whole).map(|name| name.as_str().to_owned())
}

/// The first netvm in the chain that does not run and over whose life the caller has power.
async fn mender(qube: &ManagedQube, hops: &[Hop], host: Reader<'_>) -> Option<String> {
    let stopped = |hop: &&Hop| hop.state.as_deref().is_some_and(|state| state != "Running");
    let hop = hops.iter().skip(1).find(stopped)?;
    let admitted = host.host.named_in_text(qube.agent(), &hop.name, Power::Lifecycle).await;
    admitted.is_ok().then(|| hop.name.clone())
}

/// What became of a connection that was tried in a qube.
pub(crate) fn connection(reached: &Reached) -> Connection {
    let refused = reached.connect.contains("Connection refused");
    match reached.connect_exit {
        Some(0) => Connection::Connected,
        Some(124) => Connection::TimedOut,
        Some(_) if refused => Connection::Refused,
        // Without `timeout` nothing was tried.
        Some(_) if !reached.connect.is_empty() => Connection::Failed,
        Some(_) | None => Connection::NotTried,
    }
}

/// Reads what a qube says of its network.
fn look(reached: &Reached) -> Inside {
    let mut all_routes = routes(&reached.routes);
    all_routes.extend(routes(&reached.routes6));
    let mut addresses: Vec<String> = Vec::new();
    let found = reached.addresses.lines().filter_map(|line| line.split_whitespace().next());
    for address in found.filter_map(|word| word.parse::<IpAddr>().ok()) {
        let address = address.to_string();
        if addresses.len() < ADDRESSES && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    let connection = connection(reached);
    let said: String = reached.connect.trim().chars().take(SAID_CHARS).collect();
    Inside {
        interfaces: interfaces(&reached.interfaces),
        routes: all_routes,
        dns: dns(&reached.dns),
        resolves: match reached.addresses_exit {
            Some(0) => Some(!addresses.is_empty()),
            Some(2 | 124) => Some(false),
            Some(_) | None => None,
        },
        addresses,
        connection,
        said: Some(said).filter(|said| !said.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, port: u32) -> Option<String> {
        let parsed = Endpoint::parse(&Request { host: host.into(), port });
        parsed.ok().map(|endpoint| endpoint.host)
    }

    #[test]
    fn a_host_is_an_address_or_a_strict_name() {
        for (host, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("Example.ORG.", "example.org"),
            ("localhost", "localhost"),
            ("a_b.x-1.example", "a_b.x-1.example"),
        ] {
            assert_eq!(endpoint(host, 443).as_deref(), Some(expected), "{host}");
        }
        let long = "a".repeat(64);
        for host in [
            "",
            ".",
            "-x",
            "x-",
            "a..b",
            "a b",
            "a;b",
            "$(id)",
            "a/b",
            "a:1",
            "010.0.0.1",
            "1.2.3",
            "0x7f.1",
            "127.0x1",
            "é.org",
            "fe80::1%eth0",
            "--help",
            "a\nb",
            "a\0b",
            &long,
        ] {
            assert_eq!(endpoint(host, 443), None, "{host}");
        }
        for port in [0, 65_536, u32::MAX] {
            assert_eq!(endpoint("example.org", port), None);
        }
    }

    #[test]
    fn what_a_qube_says_is_read_as_data() {
        let reached = Reached {
            addresses: "192.0.2.1  STREAM a\n192.0.2.1  DGRAM\nrubbish\n2001:db8::1 STREAM\n"
                .into(),
            addresses_exit: Some(0),
            connect: "bash: connect: Connection refused\n".repeat(99),
            connect_exit: Some(1),
            ..Reached::default()
        };
        let inside = look(&reached);
        assert_eq!(inside.addresses, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!((inside.resolves, inside.connection), (Some(true), Connection::Refused));
        assert_eq!(inside.said.unwrap().len(), SAID_CHARS);
        for (exit, connect, expected) in [
            (Some(0), "", Connection::Connected),
            (Some(124), "", Connection::TimedOut),
            (Some(1), "No route to host", Connection::Failed),
            (Some(1), "", Connection::NotTried),
            (None, "", Connection::NotTried),
        ] {
            let reached =
                Reached { connect: connect.into(), connect_exit: exit, ..Reached::default() };
            assert_eq!(look(&reached).connection, expected);
        }
    }
}
