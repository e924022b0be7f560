//! A dom0 in a temporary folder: the daemon in this process, a scripted qubesd, and a
//! `qrexec-client` that runs bash here and counts its calls.

use std::{
    cell::{Cell, RefCell},
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use contract::{Fault, Frame, FrameCodec, Kind, RequestLine};
use futures_util::StreamExt;
use qubes_rpc::{host::Host, paths::Paths, serve::serve};
use serde_json::{Map, Value};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::{JoinHandle, LocalSet},
};
use tokio_util::{codec::FramedRead, sync::CancellationToken};

/// The operator's file of most tests.
pub(crate) const SCOPE: &str = "\
@agent salt-bridge
work see,lifecycle,exec,root,files,net,shape
dev see,lifecycle
quiet see
@tag:ai-managed see,exec
@agent helper
work see
";

/// What the scripted qubesd does with every call.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    /// It answers as a small Qubes would.
    Well,
    /// It closes the connection without a byte.
    Silent,
    /// It answers bytes that are no reply.
    Garbage,
    /// It answers this exception.
    Exception(&'static str),
}

/// The scripted qubesd's state.
#[derive(Debug)]
pub(crate) struct Qubesd {
    /// What it does.
    pub(crate) mood: RefCell<Mood>,
    /// Every method that was called, with its argument and destination.
    pub(crate) calls: RefCell<Vec<String>>,
    /// The firewall rules of every qube.
    pub(crate) rules: RefCell<String>,
    /// Whether it forgets the rules that it is told to store.
    pub(crate) forgets: Cell<bool>,
    /// Whether `dev` runs.
    pub(crate) dev_runs: Cell<bool>,
    /// A qube whose tag `ai-managed` the operator took away.
    pub(crate) untagged: Cell<&'static str>,
    /// Whether those who listen to events are kept, instead of heard out at once.
    pub(crate) keeps_listeners: Cell<bool>,
    listeners: RefCell<Vec<UnixStream>>,
    xml: PathBuf,
}

/// One dom0. Dropping it ends everything.
pub(crate) struct Dom0 {
    /// The folder that stands for `/`.
    pub(crate) folder: tempfile::TempDir,
    /// The scripted qubesd.
    pub(crate) qubesd: Rc<Qubesd>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Dom0 {
    fn drop(&mut self) {
        self.stop.cancel();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What came back of one call.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    /// The JSON result and the bytes of both streams.
    Result(Value, Vec<u8>, Vec<u8>),
    /// A fault.
    Fault(Fault),
    /// A stream that ended without a final frame.
    Cut,
}

/// Runs a test on one thread, as the daemon runs.
pub(crate) fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs");
    });
}

impl Dom0 {
    /// A dom0 with this operator's file.
    pub(crate) fn start(scope: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in [
            "etc/qubes/policy.d",
            "var/run",
            "var/lib/qubes/appvms/work",
            "run/salt-bridge",
            "usr/bin",
        ] {
            fs::create_dir_all(at(path)).unwrap();
        }
        let client = format!(
            "#!/bin/bash\ncd \"${{0%/*}}/../..\" && echo \"$*\" >> {}\nexec env -i PATH=\"$PATH\" HOME={} bash\n",
            at("calls").display(),
            folder.path().display()
        );
        write_mode(&at("usr/bin/qrexec-client"), &client, 0o755);
        let qubesd = Rc::new(Qubesd {
            mood: RefCell::new(Mood::Well),
            calls: RefCell::default(),
            rules: RefCell::new("action=accept\n".into()),
            forgets: Cell::new(false),
            dev_runs: Cell::new(false),
            untagged: Cell::new(""),
            keeps_listeners: Cell::new(false),
            listeners: RefCell::default(),
            xml: at("var/lib/qubes/appvms/work/firewall.xml"),
        });
        let mut dom0 = Self { folder, qubesd, stop: CancellationToken::new(), tasks: Vec::new() };
        dom0.write_scope(scope);
        let listener = UnixListener::bind(dom0.at("var/run/qubesd.sock")).unwrap();
        let qubesd = Rc::clone(&dom0.qubesd);
        dom0.tasks.push(tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let qubesd = Rc::clone(&qubesd);
                tokio::task::spawn_local(async move { qubesd.answer(stream).await });
            }
        }));
        let paths = Paths::below(dom0.folder.path());
        let uid = rustix::process::getuid().as_raw();
        let host = Rc::new(Host::new(paths, uid, Duration::from_secs(3600), None));
        let listener = UnixListener::bind(dom0.at("run/salt-bridge/qrexec.sock")).unwrap();
        let stop = dom0.stop.clone();
        dom0.tasks.push(tokio::task::spawn_local(serve(host, listener, None, stop)));
        dom0
    }

    /// A path below the folder.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Replaces the operator's file.
    pub(crate) fn write_scope(&self, scope: &str) {
        write_mode(&self.at("etc/qubes/salt-bridge-allowed-vms"), scope, 0o644);
    }

    /// Starts the helper that writes `qubes.ConnectTCP` policy. It listens when this returns, and
    /// nothing else has gone on meanwhile.
    pub(crate) fn start_helper(&self) -> tokio::process::Child {
        let socket = self.at("run/salt-bridge/tcp-policy.sock");
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_saltbridged"));
        program.arg("--root").arg(self.folder.path()).args(["tcp-policy", "--listen"]);
        let helper = program.arg(&socket).kill_on_drop(true).spawn().unwrap();
        #[expect(clippy::disallowed_methods, reason = "the helper's socket")]
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            std::thread::yield_now();
        }
        helper
    }

    /// How often something was run in a qube.
    pub(crate) fn runs(&self) -> usize {
        fs::read_to_string(self.at("calls")).unwrap_or_default().lines().count()
    }

    /// The methods that qubesd was asked to change something by.
    pub(crate) fn changes(&self) -> Vec<String> {
        let looks = ["List", "Get", "GetAll", "CurrentState"];
        let calls = self.qubesd.calls.borrow();
        let method = |call: &&String| {
            let method = call.split('+').next().unwrap_or_default();
            !looks.iter().any(|look| method.ends_with(&format!(".{look}")))
        };
        calls.iter().filter(method).cloned().collect()
    }

    /// Sends a descriptor and bytes; the write side stays open.
    pub(crate) async fn connect(&self, descriptor: &str, bytes: &[u8]) -> UnixStream {
        #[expect(clippy::disallowed_methods, reason = "a caller's end of the daemon's socket")]
        let mut stream = UnixStream::connect(self.at("run/salt-bridge/qrexec.sock")).await.unwrap();
        stream.write_all(descriptor.as_bytes()).await.unwrap();
        stream.write_all(b"\0").await.unwrap();
        // A daemon that refuses may close before it has read everything.
        drop(stream.write_all(bytes).await);
        stream
    }

    /// One framed call.
    pub(crate) async fn framed(&self, descriptor: &str, args: Value, body: &[u8]) -> Answer {
        let args: Map<String, Value> = args.as_object().unwrap().clone();
        let length = u64::try_from(body.len()).unwrap();
        let mut request = RequestLine::new(args, length).render().unwrap();
        request.extend_from_slice(body);
        answer(self.connect(descriptor, &request).await).await
    }

    /// One call by the agent `salt-bridge` on a listed qube.
    pub(crate) async fn call(&self, service: &str, qube: &str, args: Value) -> Answer {
        self.framed(&format!("saltbridge.{service}+{qube} salt-bridge name dom0"), args, b"").await
    }

    /// One unframed call: the whole text that comes back.
    pub(crate) async fn plain(&self, descriptor: &str, request: &str) -> String {
        let mut stream = self.connect(descriptor, request.as_bytes()).await;
        stream.shutdown().await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }
}

/// Reads frames until the last.
pub(crate) async fn answer(stream: UnixStream) -> Answer {
    // The write half lives on: its end would be a hang-up.
    let (read, _write) = stream.into_split();
    let mut frames = FramedRead::new(read, FrameCodec);
    let (mut stdout, mut stderr, mut json) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(Ok(Frame { kind, payload })) = frames.next().await {
        match kind {
            Kind::Stdout => stdout.extend_from_slice(&payload),
            Kind::Stderr => stderr.extend_from_slice(&payload),
            Kind::Progress => {}
            Kind::Part => json.extend_from_slice(&payload),
            Kind::Result => {
                json.extend_from_slice(&payload);
                return Answer::Result(serde_json::from_slice(&json).unwrap(), stdout, stderr);
            }
            Kind::Fault => return Answer::Fault(serde_json::from_slice(&payload).unwrap()),
        }
    }
    Answer::Cut
}

/// Writes a file and sets its mode.
pub(crate) fn write_mode(path: &std::path::Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The qubes: name, class, UUID.
pub(crate) const QUBES: [(&str, &str, &str); 6] = [
    ("salt-bridge", "AppVM", "00000000-0000-4000-8000-000000000001"),
    ("work", "AppVM", "00000000-0000-4000-8000-000000000002"),
    ("dev", "AppVM", "00000000-0000-4000-8000-000000000003"),
    ("quiet", "AppVM", "00000000-0000-4000-8000-000000000004"),
    ("vault", "AppVM", "00000000-0000-4000-8000-000000000005"),
    ("ai-one", "AppVM", "00000000-0000-4000-8000-000000000006"),
];

impl Qubesd {
    async fn answer(&self, mut stream: UnixStream) {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).await.unwrap();
        let end = request.iter().position(|byte| *byte == 0).unwrap();
        let head = String::from_utf8(request[..end].to_vec()).unwrap();
        let payload = String::from_utf8(request[end + 1..].to_vec()).unwrap();
        let words: Vec<&str> = head.split(' ').collect();
        let (call, destination) = (words[0], words[3]);
        self.calls.borrow_mut().push(format!("{call} {destination}"));
        let reply = match *self.mood.borrow() {
            Mood::Well => self.reply(call, destination, &payload),
            Mood::Silent => Vec::new(),
            Mood::Garbage => b"\xff\xfe nonsense".to_vec(),
            Mood::Exception(kind) => format!("2\0{kind}\0\0about vault\0").into_bytes(),
        };
        // The daemon may have given up already.
        drop(stream.write_all(&reply).await);
        if call.starts_with("admin.Events") && self.keeps_listeners.get() {
            self.listeners.borrow_mut().push(stream);
        }
    }

    /// Tells all who listen of something that happened to a qube.
    pub(crate) async fn tell(&self, event: &str, qube: &str) {
        let mut listeners = self.listeners.take();
        for listener in &mut listeners {
            let event = format!("1\0\0{event}\0vm\0{qube}\0\0");
            drop(listener.write_all(event.as_bytes()).await);
        }
        self.listeners.replace(listeners);
    }

    fn tags(&self, name: &str) -> &'static str {
        let is_tagged = name.starts_with("ai-") && name != self.untagged.get();
        if is_tagged { "ai-managed\n" } else { "created-by-dom0\n" }
    }

    fn reply(&self, call: &str, destination: &str, payload: &str) -> Vec<u8> {
        let name = destination.strip_prefix("uuid:").map_or(destination, |uuid| {
            QUBES.iter().find(|qube| qube.2 == uuid).map_or("", |qube| qube.0)
        });
        let (method, argument) = call.split_once('+').unwrap();
        let state = |name: &str| match name {
            "dev" if !self.dev_runs.get() => "Halted",
            "quiet" => "Halted",
            _ => "Running",
        };
        let line = |(name, class, uuid): &(&str, &str, &str)| {
            format!("{name} class={class} state={} uuid={uuid}\n", state(name))
        };
        let content = match method {
            "admin.vm.List" if name == "dom0" => QUBES.iter().map(line).collect(),
            "admin.vm.List" => match QUBES.iter().find(|qube| qube.0 == name) {
                Some(qube) => line(qube),
                None => return b"2\0QubesVMNotFoundError\0\0No such domain\0".to_vec(),
            },
            "admin.vm.CurrentState" => {
                format!("mem=0 mem_static_max=0 cputime=0 power_state={}", state(name))
            }
            "admin.vm.Start" => {
                self.dev_runs.set(true);
                String::new()
            }
            "admin.vm.Shutdown" => {
                self.dev_runs.set(false);
                String::new()
            }
            "admin.vm.tag.List" => self.tags(name).into(),
            "admin.vm.property.GetAll" => "ip default=True type=str 10.137.0.6\n\
                 label default=False type=label blue\n\
                 netvm default=True type=vm sys-firewall\n\
                 provides_network default=True type=bool False\n"
                .into(),
            "admin.vm.property.Get" if argument == "guivm" => "default=True type=vm dom0".into(),
            "admin.vm.feature.Get" if argument == "tag-created-vm-with" => "ai-managed".into(),
            "admin.vm.property.Get" if argument == "label" => {
                "default=False type=label blue".into()
            }
            "admin.vm.property.Set" | "admin.vm.feature.Set" => String::new(),
            "admin.vm.feature.List" => "x-test\n".into(),
            "admin.vm.feature.Get" => "1".into(),
            "admin.vm.device.block.Available" | "admin.vm.device.block.Attached" => {
                "work+sda::None device_id=':None' port_id='sda' backend_domain='work'\n".into()
            }
            "admin.vm.device.block.Attach" | "admin.vm.device.block.Detach" => String::new(),
            "admin.vm.firewall.Get" => self.rules.borrow().clone(),
            "admin.vm.firewall.Set" if self.forgets.get() => String::new(),
            "admin.vm.firewall.Set" => {
                let rules = admin_api::firewall::parse_rules(payload).unwrap();
                fs::write(&self.xml, admin_api::firewall_xml::render(&rules).unwrap()).unwrap();
                *self.rules.borrow_mut() = admin_api::firewall::render_rules(&rules);
                String::new()
            }
            "admin.Events" => return b"1\0\0connection-established\0\0".to_vec(),
            other => panic!("the scripted qubesd does not know {other}+{argument}"),
        };
        [b"0\0", content.as_bytes()].concat()
    }
}
