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
        let args = args.as_object().cloned().unwrap_or_default();
        let mut request = format!("saltbridge.{service}+ salt-bridge name {target}\0").into_bytes();
        request.extend_from_slice(&RequestLine::new(args, 0).render().unwrap());
        // A daemon that dies or refuses does not read.
        drop(stream.write_all(&request).await);
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
        sandbox::on_sandbox,
    };
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
}
