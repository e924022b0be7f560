//! The daemon is killed at every step of making something: nothing is left after its restart.
#![expect(clippy::disallowed_methods, reason = "a test is a caller of the daemon")]

use contract::{Frame, FrameCodec, Kind, RequestLine};
use salt_bridge_sim::{Daemon, Host};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};
use tokio_util::codec::Decoder;

/// How a call ended: the kind of its last frame, and all bytes that came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) last: Option<Kind>,
    pub(crate) bytes: Vec<u8>,
}

/// One call by the agent `salt-bridge`, straight to the daemon, as qrexec would deliver it.
pub(crate) async fn call(host: &Host, service: &str, qube: Option<&str>, args: &Value) -> Ended {
    let target = qube.unwrap_or("dom0");
    let socket = host.root().join("run/salt-bridge/qrexec.sock");
    let mut bytes = Vec::new();
    let mut last = None;
    if let Ok(mut stream) = UnixStream::connect(socket).await {
        let line = args.as_object().cloned().unwrap_or_default();
        let (prefix, body) = match service.starts_with("qmcp.") {
            true => ("", args.to_string().into_bytes()),
            false => ("saltbridge.", RequestLine::new(line, 0).render().unwrap()),
        };
        let head = format!("{prefix}{service}+ salt-bridge name {target}\0");
        let request = [head.into_bytes(), body].concat();
        // A daemon that dies or refuses does not read.
        drop(stream.write_all(&request).await);
        if prefix.is_empty() {
            drop(stream.shutdown().await);
        }
        drop(stream.read_to_end(&mut bytes).await);
        let mut rest = bytes::BytesMut::from(&bytes[..]);
        while let Ok(Some(Frame { kind, .. })) = FrameCodec.decode(&mut rest) {
            last = Some(kind);
        }
    }
    Ended { last, bytes }
}

/// Kills the daemon without a warning, and starts it again.
pub(crate) fn kill_and_restart(host: &Host) {
    host.kill_daemon(Daemon::Serve).unwrap();
    host.hold_none();
    host.start_daemon(Daemon::Serve, &[]).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        machine::{becomes, until},
        sandbox::{on_sandbox, qubesd},
    };
    use admin_api::{Destination, call as admin};
    use salt_bridge_sim::{Population, Resident};
    use serde_json::json;

    fn few() -> Population {
        let app = |name: &str| {
            Resident::app(name, "gray")
                .with("template", "ai-debian")
                .tag("ai-managed")
                .with("netvm", "")
        };
        Population::of(vec![
            Resident::app("salt-bridge", "purple").running().with("netvm", ""),
            Resident::template("ai-debian").tag("ai-managed"),
            app("ai-dvm").with("template_for_dispvms", "True"),
            app("ai-one").feature("note", "1"),
        ])
    }

    fn ledger(host: &Host) -> std::path::PathBuf {
        host.root().join("var/lib/salt-bridge/ledger/births")
    }

    /// The entries of the ledger that name something that was made, or all of them.
    fn entries(host: &Host, made: bool) -> usize {
        let files = std::fs::read_dir(ledger(host)).into_iter().flatten().flatten();
        let texts = files.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default());
        texts.filter(|text| !(made && text.contains("\"uuid\":null"))).count()
    }

    #[test]
    fn a_daemon_that_is_killed_at_any_step_of_a_birth_leaves_nothing() {
        for (service, args) in [
            (
                "VmCreate",
                json!({"name": "ai-new", "template": "ai-debian", "offline": true, "private_size": 3_000_000_000_u64}),
            ),
            ("VmClone", json!({"source": "ai-one", "name": "ai-new"})),
            ("DisposableCreate", json!({"template": "ai-dvm"})),
            ("DisposableRun", json!({"template": "ai-dvm", "command": "true"})),
        ] {
            for (done, stamped) in [(false, true), (true, true), (true, false)] {
                on_sandbox(
                    few(),
                    "@agent salt-bridge\n@tag:ai-managed\n",
                    stamped,
                    async |machine| {
                        let host = &machine.host;
                        let before = host.qubes();
                        for step in 0.. {
                            host.hold_call(step, done);
                            let mut call = std::pin::pin!(call(host, service, None, &args));
                            let ended = tokio::select! {
                                ended = &mut call => Some(ended),
                                () = becomes(|| host.is_holding()) => None,
                            };
                            let whole = ended.is_some();
                            if let Some(ended) = ended {
                                assert_eq!(ended.last, Some(Kind::Result), "{service} {step}");
                                assert!(step > 10, "{service} took {step} steps only");
                                assert_eq!(entries(host, false), 0);
                            }
                            kill_and_restart(host);
                            // An entry under which nothing was made stands until it is sure of that.
                            until(&format!("{service} {step} is undone"), || {
                                entries(host, true) == 0 && (whole || host.qubes() == before)
                            });
                            if entries(host, false) > 0 {
                                std::fs::remove_dir_all(ledger(host)).unwrap();
                                kill_and_restart(host);
                            }
                            if whole {
                                break;
                            }
                        }
                    },
                );
            }
        }
    }

    /// What is asked of qubesd before a copy is proven, about the middle of it.
    const MIDDLE: usize = 18;

    #[test]
    fn a_birth_whose_source_is_taken_away_meanwhile_leaves_nothing() {
        let all = "see,lifecycle,exec,root,files,net,shape";
        let with = format!("@agent salt-bridge\nai-listed {all}\n@tag:ai-managed\n");
        let without = "@agent salt-bridge\n@tag:ai-managed\n";
        let listed =
            Resident::app("ai-listed", "gray").with("template", "ai-debian").with("netvm", "");
        let population = few().and([listed]);
        on_sandbox(population, &with, true, async |machine| {
            let host = &machine.host;
            let before = host.qubes();
            let tag = "ai-managed".parse().unwrap();
            let one = || Destination::parse("ai-one").unwrap();
            for (source, by_line) in [("ai-listed", true), ("ai-one", false)] {
                let args = json!({"source": source, "name": "ai-new"});
                host.set_scope(&with).unwrap();
                host.hold_call(MIDDLE, true);
                let mut birth = std::pin::pin!(call(host, "VmClone", None, &args));
                tokio::select! {
                    ended = &mut birth => panic!("{source}: over already: {ended:?}"),
                    () = becomes(|| host.is_holding()) => {}
                }
                let (qubesd, wait) = (qubesd(machine), std::time::Duration::from_secs(5));
                if by_line {
                    host.set_scope(without).unwrap();
                } else {
                    qubesd.call(admin::tag::remove(one(), &tag), wait).await.unwrap();
                }
                host.hold_none();
                assert_eq!(birth.await.last, Some(Kind::Fault), "{source}");
                if !by_line {
                    qubesd.call(admin::tag::set(one(), &tag), wait).await.unwrap();
                }
                until("it is undone", || host.qubes() == before && entries(host, false) == 0);
            }
        });
    }
}
