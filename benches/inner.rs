//! What the program computes, without qubes: codecs, policy, admission, and `serve` against a qubesd
//! that answers from memory. `cargo bench -p qubes-rpc --bench inner`.
#![expect(clippy::expect_used, reason = "a measurement that cannot be made ends")]

fn main() {
    divan::main();
}

mod codecs {
    use admin_api::{
        Destination, Request,
        call::{Call, vm},
        firewall::{parse_rules, render_rules},
        firewall_xml,
    };
    use bytes::{Bytes, BytesMut};
    use contract::{Frame, FrameCodec, Kind, RequestLine};
    use divan::{Bencher, black_box, counter::BytesCount};
    use qubes_rpc::descriptor::Descriptor;
    use tokio_util::codec::{Decoder, Encoder};

    use super::list;

    /// Frames of this many bytes of payload, 1 MiB in all.
    fn wire(payload: usize) -> (Vec<Frame>, BytesMut) {
        let count = 1024 * 1024 / payload.max(1);
        let frame = Frame::new(Kind::Stdout, Bytes::from(vec![b'x'; payload]));
        let frames = vec![frame; count];
        let mut wire = BytesMut::new();
        for frame in &frames {
            FrameCodec.encode(frame.clone(), &mut wire).expect("a frame");
        }
        (frames, wire)
    }

    #[divan::bench(args = [64, 4096, 65536])]
    fn frames_decode(bencher: Bencher<'_, '_>, payload: usize) {
        let (_, wire) = wire(payload);
        bencher.counter(BytesCount::new(wire.len())).with_inputs(|| wire.clone()).bench_refs(
            |wire| {
                while let Ok(Some(frame)) = FrameCodec.decode(wire) {
                    black_box(frame);
                }
            },
        );
    }

    #[divan::bench(args = [64, 4096, 65536])]
    fn frames_encode(bencher: Bencher<'_, '_>, payload: usize) {
        let (frames, wire) = wire(payload);
        let target = || (frames.clone(), BytesMut::with_capacity(wire.len()));
        bencher.counter(BytesCount::new(wire.len())).with_inputs(target).bench_values(
            |(frames, mut target)| {
                for frame in frames {
                    FrameCodec.encode(frame, &mut target).expect("a frame");
                }
                target
            },
        );
    }

    #[divan::bench]
    fn request_line() -> RequestLine {
        let line = br#"{"frames":1,"body":3,"args":{"command":"cat","timeout_seconds":5}}"#;
        RequestLine::parse(black_box(line)).expect("a request line")
    }

    #[divan::bench]
    fn descriptor() -> Descriptor {
        let line = b"saltbridge.VmExec+work salt-bridge name dom0";
        Descriptor::parse(black_box(line)).expect("a descriptor")
    }

    #[divan::bench]
    fn request_of_qubesd() -> Request {
        let bytes = b"admin.vm.property.Get+netvm dom0 name work\0";
        Request::decode(black_box(bytes)).expect("a request")
    }

    #[divan::bench(args = [20, 1000])]
    fn list_of_qubes(bencher: Bencher<'_, '_>, qubes: usize) {
        let reply = list(qubes);
        let call: Call<_> = vm::list(Destination::Dom0);
        bencher
            .counter(BytesCount::new(reply.len()))
            .bench(|| call.answer(black_box(&reply)).expect("a list"));
    }

    #[divan::bench(args = [1, 100])]
    fn firewall_rules(bencher: Bencher<'_, '_>, rules: usize) {
        let text = "action=accept dst4=10.0.0.1/32 proto=tcp dstports=443-443\n".repeat(rules);
        bencher
            .counter(BytesCount::new(text.len()))
            .bench(|| render_rules(&parse_rules(black_box(&text)).expect("rules")));
    }

    #[divan::bench(args = [1, 100])]
    fn firewall_xml(bencher: Bencher<'_, '_>, rules: usize) {
        let text = "action=accept dst4=10.0.0.1/32 proto=tcp dstports=443-443\n".repeat(rules);
        let xml = firewall_xml::render(&parse_rules(&text).expect("rules")).expect("a file");
        bencher
            .counter(BytesCount::new(xml.len()))
            .bench(|| firewall_xml::parse(black_box(&xml)).expect("rules"));
    }
}

/// What qubesd answers to `admin.vm.List` with so many qubes; `work` is the first.
fn list(qubes: usize) -> Vec<u8> {
    let name = |place: usize| if place == 0 { "work".to_owned() } else { format!("qube-{place}") };
    let line = |place: usize| {
        format!(
            "{} class=AppVM state=Running uuid=00000000-0000-4000-8000-{place:012}\n",
            name(place)
        )
    };
    let content: String = (0..qubes).map(line).collect();
    [b"0\0", content.as_bytes()].concat()
}

mod decisions {
    use std::time::SystemTime;

    use admin_api::{QubeName, Uuid};
    use contract::Power;
    use divan::{Bencher, black_box};
    use policy::{
        Address, Class, Live, ManagedQube, Scope,
        evaluate::{Evaluation, Policy, PolicyFiles, Request, System, SystemQube},
        render_policy,
    };
    use qubes_rpc::services::lines;

    fn file(grants: usize) -> String {
        let grants: String = (0..grants).map(|place| format!("qube-{place} see,exec\n")).collect();
        format!("@agent salt-bridge\n{grants}work\n@tag:ai-managed see\n")
    }

    fn policy_of(grants: usize) -> (PolicyFiles, System) {
        let scope = Scope::parse(&file(grants)).expect("a scope");
        let text = render_policy(&scope, &lines(), SystemTime::UNIX_EPOCH);
        let dom0 = SystemQube { class: "AdminVM".into(), ..SystemQube::default() };
        let qube = SystemQube { class: "AppVM".into(), ..SystemQube::default() };
        let system =
            System::from_iter([("dom0", dom0), ("salt-bridge", qube.clone()), ("work", qube)]);
        (PolicyFiles::from_iter([("30-salt-bridge.policy", text)]), system)
    }

    #[divan::bench(args = [10, 1000])]
    fn operators_file(bencher: Bencher<'_, '_>, grants: usize) {
        let text = file(grants);
        bencher.bench(|| Scope::parse(black_box(&text)).expect("a scope"));
    }

    #[divan::bench(args = [10, 1000])]
    fn policy_rendered(bencher: Bencher<'_, '_>, grants: usize) {
        let scope = Scope::parse(&file(grants)).expect("a scope");
        bencher.bench(|| render_policy(black_box(&scope), &lines(), SystemTime::UNIX_EPOCH));
    }

    #[divan::bench(args = [10, 1000])]
    fn policy_parsed(bencher: Bencher<'_, '_>, grants: usize) {
        let (files, _) = policy_of(grants);
        bencher.bench(|| Policy::parse(black_box(&files)).expect("a policy"));
    }

    #[divan::bench(args = [10, 1000])]
    fn policy_evaluated(bencher: Bencher<'_, '_>, grants: usize) {
        let (files, system) = policy_of(grants);
        let policy = Policy::parse(&files).expect("a policy");
        let request = Request::of("saltbridge.VmExec+work", "salt-bridge", "dom0");
        let decide = || -> Evaluation { policy.evaluate(black_box(&request), &system) };
        bencher.bench(decide);
    }

    /// What admission computes: the operator's file, the claim, the authority.
    #[divan::bench(args = [10, 1000])]
    fn admission(bencher: Bencher<'_, '_>, grants: usize) {
        let text = file(grants);
        let name = |text: &str| QubeName::parse(text).expect("a name");
        let (agent, work) = (name("salt-bridge"), name("work"));
        let uuid = Uuid::parse("00000000-0000-4000-8000-000000000002").expect("a UUID");
        let live = Live { name: work.clone(), uuid, class: Class::Other, tags: Vec::new() };
        let admit = || -> ManagedQube {
            let scope = Scope::parse(black_box(&text)).expect("a scope");
            let caller = scope.caller(&agent).expect("an agent");
            let now = SystemTime::UNIX_EPOCH;
            let claim = caller.claim(Address::Argument, &work, Power::Exec, now).expect("a claim");
            claim.manage(live.clone()).expect("authority")
        };
        bencher.bench(admit);
    }
}

mod daemon {
    use std::{fs, os::unix::fs::PermissionsExt, rc::Rc, time::Duration};

    use admin_api::{Destination, Request};
    use divan::Bencher;
    use qubes_rpc::{host::Host, paths::Paths, serve::serve};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{UnixListener, UnixStream},
        runtime::Runtime,
        task::LocalSet,
    };
    use tokio_util::sync::CancellationToken;

    use super::list;

    /// A dom0 of sockets in memory: the daemon and a qubesd on this thread.
    struct Dom0 {
        folder: tempfile::TempDir,
        runtime: Runtime,
        tasks: LocalSet,
    }

    /// What qubesd knows of the qubes, and what it answers to everything else.
    struct Answers {
        all: Vec<u8>,
        one: Vec<u8>,
    }

    impl Dom0 {
        fn start(qubes: usize, in_scope: usize) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let at = |path: &str| folder.path().join(path);
            for path in ["etc/qubes", "var/run", "var/lib/salt-bridge", "run/salt-bridge"] {
                fs::create_dir_all(at(path)).expect("a folder");
            }
            let grants: String = (1..in_scope).map(|place| format!("qube-{place}\n")).collect();
            let scope = at("etc/qubes/salt-bridge-allowed-vms");
            fs::write(&scope, format!("@agent salt-bridge\nwork\n{grants}")).expect("a file");
            fs::set_permissions(&scope, fs::Permissions::from_mode(0o644)).expect("a mode");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime");
            let tasks = LocalSet::new();
            let paths = Paths::below(folder.path());
            let guard = runtime.enter();
            let qubesd = UnixListener::bind(at("var/run/qubesd.sock")).expect("a socket");
            let answers = Rc::new(Answers { all: list(qubes), one: list(1) });
            tasks.spawn_local(async move {
                while let Ok((stream, _)) = qubesd.accept().await {
                    tokio::task::spawn_local(answer(Rc::clone(&answers), stream));
                }
            });
            let uid = rustix::process::getuid().as_raw();
            let host = Rc::new(Host::new(paths, uid, Duration::from_secs(3600), None));
            let listener = UnixListener::bind(at("run/salt-bridge/qrexec.sock")).expect("a socket");
            tasks.spawn_local(serve(host, listener, None, CancellationToken::new()));
            drop(guard);
            Self { folder, runtime, tasks }
        }

        /// One call, from the connection to its last byte.
        fn call(&self, descriptor: &str) {
            let socket = self.folder.path().join("run/salt-bridge/qrexec.sock");
            let request = format!("{descriptor}\0{{\"frames\":1}}\n");
            let call = async {
                #[expect(clippy::disallowed_methods, reason = "a caller's end")]
                let mut stream = UnixStream::connect(socket).await.expect("the daemon");
                stream.write_all(request.as_bytes()).await.expect("a request");
                let mut buffer = Vec::new();
                stream.read_to_end(&mut buffer).await.expect("an answer");
                assert_eq!(buffer.first(), Some(&5), "{}", String::from_utf8_lossy(&buffer));
            };
            self.tasks.block_on(&self.runtime, call);
        }
    }

    async fn answer(answers: Rc<Answers>, mut stream: UnixStream) {
        let mut request = Vec::new();
        drop(stream.read_to_end(&mut request).await);
        let asked = Request::decode(&request).expect("a request of ours");
        let of_all = asked.destination == Destination::Dom0;
        let reply: &[u8] = match &*asked.method {
            "admin.vm.List" if of_all => &answers.all,
            "admin.vm.List" => &answers.one,
            "admin.vm.firewall.Get" => b"0\0action=accept\n",
            "admin.vm.property.GetAll" => {
                b"0\0ip default=True type=str 10.137.0.6\n\
                  label default=False type=label blue\n\
                  netvm default=True type=vm sys-firewall\n"
            }
            "admin.vm.CurrentState" => b"0\0mem=0 mem_static_max=0 cputime=0 power_state=Running",
            _ => b"2\0QubesException\0\0unknown\0",
        };
        drop(stream.write_all(reply).await);
    }

    #[divan::bench(args = [(20, 10), (1000, 10)], sample_count = 50)]
    fn list_vms(bencher: Bencher<'_, '_>, (qubes, in_scope): (usize, usize)) {
        let dom0 = Dom0::start(qubes, in_scope);
        bencher.bench_local(|| dom0.call("saltbridge.VmList+ salt-bridge name dom0"));
    }

    #[divan::bench(sample_count = 50)]
    fn firewall_list(bencher: Bencher<'_, '_>) {
        let dom0 = Dom0::start(20, 10);
        bencher.bench_local(|| dom0.call("saltbridge.FirewallList+work salt-bridge name dom0"));
    }

    #[divan::bench(sample_count = 50)]
    fn start_vm_that_runs(bencher: Bencher<'_, '_>) {
        let dom0 = Dom0::start(20, 10);
        bencher.bench_local(|| dom0.call("saltbridge.VmStart+work salt-bridge name dom0"));
    }
}
