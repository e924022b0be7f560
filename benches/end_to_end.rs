//! Salt Bridge on a simulated host, measured from the agent's client to a command in a qube.
//! `cargo bench -p salt-bridge-sim --bench end_to_end`, with `-- --short` in about half a minute; a word
//! behind `--` (`tools`, `at-once`, `streams`, `memory`, `starts`, `many`) measures that part alone.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a program that measures, for people"
)]

#[path = "../tests/proof/shim.rs"]
mod shim;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use salt_bridge_sim::{Daemon, Host, HostOptions, Population, Resident, population::AGENT};
use serde_json::{Value, json};

use crate::shim::{Shim, outcome};

const SCOPE: &str = "@agent salt-bridge\nwork\ndev\n";
const POLICY: &str = "\
bench.Empty * salt-bridge @adminvm allow
bench.Cat * salt-bridge @adminvm allow
";
/// What the older program needed for one call on the same kind of host, where it was recorded, with
/// the empty call and the bare command of that host, in milliseconds.
const OLDER: [(&str, u32); 6] = [
    ("list_vms", 165),
    ("exec_in_vm", 205),
    ("read_file_in_vm", 230),
    ("write_file_in_vm", 205),
    ("firewall_list", 210),
    ("firewall_add", 210),
];

/// How much is measured.
struct Extent {
    /// Calls of each kind.
    calls: usize,
    /// Streams of each kind.
    streams: u32,
    /// The MiB that pass as one stream.
    stream: u32,
    /// The MiB that are read through the agent.
    read: u32,
}

/// What `vm_network_info` runs in a qube that has no firewall of its own.
const NETWORK_PROGRAMS: &str = "ip -4 addr show; ip -j addr show; ip -4 route show; \
    ip -j route show; ip -6 -j route show";

type Part = (&'static str, fn(&Host, &Extent));

/// What is measured on one host.
const PARTS: [Part; 5] = [
    ("tools", |host, extent| tools(host, extent, &floors(host, extent))),
    ("at-once", |host, _| at_once(host)),
    ("streams", streams),
    ("memory", memory),
    ("starts", starts),
];

fn main() {
    let (options, words): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let wants = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    let extent = if options.iter().any(|option| option == "--short") {
        Extent { calls: 20, streams: 5, stream: 64, read: 64 }
    } else {
        Extent { calls: 200, streams: 60, stream: 256, read: 1024 }
    };
    let folder = tempfile::Builder::new().prefix("sb").tempdir().expect("a folder");
    let host = start(&folder.path().join("h"), Population::default(), SCOPE);
    for (part, measure) in PARTS {
        if wants(part) {
            measure(&host, &extent);
        }
    }
    drop(host);
    if wants("many") {
        many_qubes(folder.path(), &extent);
    }
}

fn start(folder: &Path, population: Population, scope: &str) -> Host {
    let options = HostOptions::new(folder, env!("CARGO_BIN_EXE_salt-bridge-sim"));
    let host = Host::start(HostOptions { population, ..options }).expect("a host");
    host.install(scope).expect("Salt Bridge");
    host.set_policy("20-bench.policy", POLICY).expect("policy");
    host
}

/// What calls take that do nothing of ours.
struct Floor {
    empty: Duration,
    bare: Duration,
}

/// Times in order.
struct Times(Vec<Duration>);

impl Times {
    fn of(count: usize, mut call: impl FnMut()) -> Self {
        call();
        let mut times: Vec<Duration> = (0..count)
            .map(|_| {
                let began = Instant::now();
                call();
                began.elapsed()
            })
            .collect();
        times.sort();
        Self(times)
    }

    fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    fn p99(&self) -> Duration {
        let place = (self.0.len() * 99).div_ceil(100).saturating_sub(1);
        self.0.get(place).copied().unwrap_or_default()
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn program(path: &Path, arguments: &[&str]) -> Child {
    #[expect(clippy::disallowed_methods, reason = "the programs that are measured")]
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("a program")
}

/// Runs a program, gives it this input, and counts what it says.
fn run(path: &Path, arguments: &[&str], input: &[u8]) -> u64 {
    let mut child = program(path, arguments);
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(input).expect("it reads");
    drop(stdin);
    let mut output = child.stdout.take().expect("its output");
    let (mut buffer, mut count) = (vec![0; 1 << 20], 0);
    loop {
        match output.read(&mut buffer).expect("it writes") {
            0 => break,
            read => count += u64::try_from(read).unwrap_or(u64::MAX),
        }
    }
    assert!(child.wait().expect("it ends").success(), "{path:?} {arguments:?}");
    count
}

/// An executable service of dom0.
fn service(host: &Host, name: &str, script: &str) {
    let path = host.root().join("etc/qubes-rpc").join(name);
    fs::write(&path, script).expect("a service");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

fn floors(host: &Host, extent: &Extent) -> Floor {
    service(host, "bench.Empty", "#!/bin/true\n");
    let from_qube = host.layout().program("qrexec-client-vm");
    let into_qube = host.layout().program("qrexec-client");
    let empty = Times::of(extent.calls, || {
        run(&from_qube, &["dom0", "bench.Empty"], b"");
    });
    let bare = Times::of(extent.calls, || {
        run(&into_qube, &["-d", "work", "user:true"], b"");
    });
    println!("{:<34} {:>9} {:>9}", "call (ms)", "median", "p99");
    for (name, times) in [("empty call of dom0", &empty), ("bare qrexec-client", &bare)] {
        println!("{name:<34} {:>9.2} {:>9.2}", ms(times.median()), ms(times.p99()));
    }
    Floor { empty: empty.median(), bare: bare.median() }
}

/// The tools, what each is called with, and whether its work is in a qube.
fn calls() -> Vec<(&'static str, Value, bool)> {
    let tcp = json!({"action": "list"});
    let file = json!({"vm_name": "work", "file_path": "f", "content": "some text\n"});
    vec![
        ("list_vms", json!({}), false),
        ("start_vm", json!({"vm_name": "work"}), false),
        ("firewall_list", json!({"vm_name": "work"}), false),
        ("firewall_add", json!({"vm_name": "work", "action": "accept", "args": "10.0.0.1"}), false),
        ("firewall_remove", json!({"vm_name": "work", "rule_number": 0}), false),
        ("connect_tcp_policy", tcp, false),
        ("exec_in_vm", json!({"vm_name": "work", "command": "true"}), true),
        ("exec_in_vm_root", json!({"vm_name": "work", "command": "true"}), true),
        ("write_file_in_vm", file, true),
        ("read_file_in_vm", json!({"vm_name": "work", "file_path": "f"}), true),
        ("vm_network_info", json!({"vm_name": "work"}), true),
    ]
}

fn tools(host: &Host, extent: &Extent, floor: &Floor) {
    let mut shim = Shim::start(host);
    println!(
        "\n{:<34} {:>9} {:>9} {:>9} {:>14}",
        "tool (ms)", "median", "p99", "our own", "older / ours"
    );
    for (tool, arguments, in_qube) in calls() {
        // Rules are added and removed equally often, and stay few.
        let count = if tool.starts_with("firewall_") { extent.calls.min(50) } else { extent.calls };
        let times = Times::of(count, || {
            shim.call(tool, &arguments).expect(tool);
        });
        let below = if in_qube { floor.empty + floor.bare } else { floor.empty };
        let own = times.median().saturating_sub(below);
        // There an empty call took 3 ms and a bare command 8 ms.
        let older = OLDER.iter().find(|(name, _)| *name == tool).map(|(_, older)| {
            let theirs = f64::from(*older) - if in_qube { 11.0 } else { 3.0 };
            if own.is_zero() { "below floor".into() } else { format!("{:.0} x", theirs / ms(own)) }
        });
        println!(
            "{tool:<34} {:>9.2} {:>9.2} {:>9.2} {:>14}",
            ms(times.median()),
            ms(times.p99()),
            ms(own),
            older.unwrap_or_default()
        );
    }
    let programs = json!({"vm_name": "work", "command": NETWORK_PROGRAMS});
    let times = Times::of(extent.calls, || {
        shim.call("exec_in_vm", &programs).expect("the programs");
    });
    let own = times.median().saturating_sub(floor.empty + floor.bare);
    println!("the programs of vm_network_info by exec_in_vm, above the floor: {:.2} ms", ms(own));
}

/// Calls at once from one client, each with a word of its own in its answer.
fn at_once(host: &Host) {
    const CALLS: u64 = 64;
    let mut shim = Shim::start(host);
    let began = Instant::now();
    for _ in 0..CALLS {
        let command = format!("echo nonce-{}", shim.next());
        shim.send("exec_in_vm", &json!({"vm_name": "work", "command": command}));
    }
    for _ in 0..CALLS {
        let (id, result) = shim.answer();
        let stdout = outcome(result).expect("a result")["stdout"].take();
        assert_eq!(stdout, json!(format!("nonce-{id}\n")), "the answer to another call");
    }
    let took = began.elapsed();
    println!("\n{CALLS} calls at once: no error, no answer mixed up, {:.0} ms in all", ms(took));
}

fn mib_per_second(mib: u32, time: Duration) -> f64 {
    f64::from(mib) / time.as_secs_f64()
}

/// Bytes out of a qube, by our service and by one that only relays, in turns. Which processes share a
/// processor differs from stream to stream, and with it the speed, by more than a factor of two: what
/// is compared is how long all streams of a kind take.
fn streams(host: &Host, extent: &Extent) {
    let client = host.layout().program("qrexec-client-vm");
    let command = format!("head -c {}M /dev/zero", extent.stream);
    let relay = host.layout().program("qrexec-client");
    let script = format!("#!/bin/sh\nexec {} -d work 'user:{command}'\n", relay.display());
    service(host, "bench.Cat", &script);
    let bytes = u64::from(extent.stream) << 20;
    let request = json!({"cmd": command}).to_string();
    let daemon = host.daemon_pid(Daemon::Serve).expect("the daemon");
    let before = processor_ms(daemon);
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..extent.streams {
        for (service, input, times) in
            [("bench.Cat", "", &mut floor), ("saltbridge.VmExec+work", request.as_str(), &mut ours)]
        {
            let began = Instant::now();
            let count = run(&client, &["dom0", service], input.as_bytes());
            times.push(began.elapsed());
            assert_eq!(count, bytes, "{service}");
        }
    }
    let mib = extent.streams * extent.stream;
    let cost = (processor_ms(daemon) - before) / f64::from(mib) * 100.0;
    println!("\n{} streams of {} MiB out of a qube, MiB/s", extent.streams, extent.stream);
    let total = |times: &[Duration]| times.iter().sum::<Duration>();
    for (name, times) in [("relay alone", &floor), ("Salt Bridge", &ours)] {
        let of = |time: Option<&Duration>| mib_per_second(extent.stream, *time.expect("a stream"));
        println!(
            "{name}: {:.0} in all, from {:.0} to {:.0}",
            mib_per_second(mib, total(times)),
            of(times.iter().max()),
            of(times.iter().min())
        );
    }
    println!(
        "ratio {:.0} %; the daemon takes {cost:.1} ms of a processor for 100 MiB",
        100.0 * total(&floor).as_secs_f64() / total(&ours).as_secs_f64()
    );
}

/// The processor time of a process so far, in milliseconds; the kernel counts in hundredths.
fn processor_ms(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// A line of a process' status in KiB, in MiB.
fn status(pid: u32, key: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    kib.parse::<f64>().unwrap_or_default() / 1024.0
}

/// The most memory that daemon and agent ever had, after all that came before and this.
fn memory(host: &Host, extent: &Extent) {
    const CHUNK_MIB: u32 = 2;
    let mut shim = Shim::start(host);
    let make = format!("head -c {CHUNK_MIB}M /dev/urandom > big");
    shim.call("exec_in_vm", &json!({"vm_name": "work", "command": make})).expect("a file");
    let mut passed = 0;
    let began = Instant::now();
    while passed < extent.read {
        let read = json!({"vm_name": "work", "file_path": "big", "length": CHUNK_MIB << 20});
        let read = shim.call("read_file_in_vm", &read).expect("a range");
        assert_eq!(read["size"], json!(CHUNK_MIB << 20));
        passed += CHUNK_MIB;
    }
    let rate = mib_per_second(passed, began.elapsed());
    let daemon = host.daemon_pid(Daemon::Serve).expect("the daemon");
    println!(
        "{passed} MiB through the agent in ranges of {CHUNK_MIB} MiB, as base64: {rate:.0} MiB/s\n\
         most memory so far: daemon {:.1} MiB, agent {:.1} MiB",
        status(daemon, "VmHWM"),
        status(shim.pid(), "VmHWM"),
    );
}

/// From nothing to the first answer.
fn starts(host: &Host, extent: &Extent) {
    let mut most = 0.0_f64;
    let agent = Times::of(extent.calls.min(50), || {
        let mut shim = Shim::start(host);
        shim.ask("tools/list", json!({}));
        let (_, result) = shim.answer();
        assert!(result["tools"].is_array(), "{result}");
        most = most.max(status(shim.pid(), "VmHWM"));
    });
    println!(
        "\nagent, cold start to the first answer: median {:.1} ms, p99 {:.1} ms, {most:.1} MiB",
        ms(agent.median()),
        ms(agent.p99())
    );
    let socket = host.root().join("cold.sock");
    let root = host.root();
    let arguments =
        ["--root", &root.to_string_lossy(), "serve", "--listen", &socket.to_string_lossy()]
            .map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let daemon = Times::of(extent.calls.min(50), || {
        // The socket of the run before is gone already.
        drop(fs::remove_file(&socket));
        let mut daemon = program(&host.layout().program("saltbridged"), &arguments);
        while list(&socket).is_none() {
            std::thread::yield_now();
        }
        daemon.kill().expect("the daemon lives");
        daemon.wait().expect("it ends");
    });
    println!(
        "daemon, cold start to the first answer: median {:.1} ms, p99 {:.1} ms",
        ms(daemon.median()),
        ms(daemon.p99())
    );
}

/// One list, asked of the daemon itself: the length of the answer.
fn list(socket: &Path) -> Option<usize> {
    #[expect(clippy::disallowed_methods, reason = "a caller's end of the daemon's socket")]
    let mut stream = UnixStream::connect(socket).ok()?;
    let call = format!("saltbridge.VmList+ {AGENT} name dom0\0{{\"frames\":1}}\n");
    stream.write_all(call.as_bytes()).expect("the daemon reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the daemon answers");
    assert_eq!(answer.first(), Some(&5), "{}", String::from_utf8_lossy(&answer));
    Some(answer.len())
}

/// The same scope on a small and on a large host, asked of the daemon itself: what the simulated
/// qrexec needs for so many qubes is not ours.
fn many_qubes(folder: &Path, extent: &Extent) {
    println!();
    for qubes in [20, 1000] {
        let names: Vec<String> = (0..qubes).map(|place| format!("qube-{place}")).collect();
        let residents = names.iter().map(|name| Resident::app(name, "red"));
        let template = [Resident::template("fedora-42"), Resident::app(AGENT, "red")];
        let population = Population::of(template.into_iter().chain(residents).collect());
        let listed: String = names.iter().take(10).map(|name| format!("{name}\n")).collect();
        let scope = format!("@agent {AGENT}\n{listed}");
        let host = start(&folder.join(qubes.to_string()), population, &scope);
        let socket = host.root().join("run/salt-bridge/qrexec.sock");
        let times = Times::of(extent.calls, || {
            list(&socket).expect("the daemon");
        });
        println!(
            "list of 10 qubes in scope of {qubes:>4}: median {:.2} ms, p99 {:.2} ms",
            ms(times.median()),
            ms(times.p99())
        );
    }
}
