//! Attacks on the daemon: by the agent, by a managed qube, and by a second agent.

#[cfg(test)]
#[expect(dead_code, reason = "tests/serve.rs uses the rest")]
mod support;

use std::fs;

use contract::{Fault, limits};
use serde_json::json;
use support::{Answer, Dom0, SCOPE, on_one_thread, write_mode};
use tokio::io::AsyncReadExt;

const WRITE: &str = "saltbridge.VmWriteFile+work salt-bridge name dom0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_without_one_whole_character_does_not_pass_the_limit() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let command = "head -c 3000000 /dev/zero | tr '\\0' '\\200'";
            let answer = dom0.call("VmExec", "work", json!({"command": command})).await;
            let Answer::Result(result, stdout, _) = answer else { panic!("{answer:?}") };
            assert_eq!(result["stdout_bytes"].as_u64(), Some(3_000_000));
            assert!(stdout.len() < 40_000, "{}", stdout.len());
        });
    }

    #[test]
    fn a_qube_that_lies_about_its_network_does_not_fill_dom0() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let tools = dom0.at("tools");
            fs::create_dir(&tools).unwrap();
            let lie = "#!/bin/bash\nprintf 'table ip %065536d {\\n' 0\n\
                       for _ in {1..8000}; do echo 'chain b'; done\n";
            write_mode(&tools.join("nft"), lie, 0o755);
            let client = format!(
                "#!/bin/bash\nexec env -i PATH=\"{}:$PATH\" HOME=/ bash\n",
                tools.display()
            );
            write_mode(&dom0.at("usr/bin/qrexec-client"), &client, 0o755);
            let answer = dom0.call("VmNetworkInfo", "work", json!({})).await;
            let Answer::Result(result, ..) = answer else { panic!("{answer:?}") };
            let length = result.to_string().len();
            assert!(length < limits::RESULT_BYTES, "{length}");
            assert!(result["firewall"].as_array().is_some_and(|chains| chains.len() >= 1000));
        });
    }

    #[test]
    fn a_caller_that_sends_slowly_keeps_no_authority_that_has_ended_meanwhile() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let list = "saltbridge.FirewallList+work salt-bridge name dom0";
            let mut stream = dom0.connect(list, b"").await;
            while dom0.qubesd.calls.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            dom0.write_scope("@agent salt-bridge\ndev\n");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "ERROR: request refused\n");
        });
    }

    #[test]
    fn one_agent_cannot_take_the_place_of_another_and_hears_that_dom0_is_busy() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let mut held = Vec::new();
            for _ in 0..limits::CALLS_PER_AGENT {
                held.push(dom0.connect(WRITE, b"{\"frames\":1,\"body\":9}\n").await);
            }
            let busy = dom0.call("VmList", "", json!({})).await;
            assert_eq!(busy, Answer::Fault(Fault::Busy {}));
            for _ in 0..limits::CONNECTIONS {
                held.push(dom0.connect(WRITE, b"").await);
            }
            let list = "saltbridge.VmList+ helper name dom0";
            assert!(matches!(dom0.framed(list, json!({}), b"").await, Answer::Result(..)));
        });
    }

    #[test]
    fn long_requests_of_one_agent_wait_for_one_another() {
        on_one_thread(async {
            let dom0 = Dom0::start(SCOPE);
            let body = vec![b'x'; 1 << 20];
            let write = |name: usize| {
                let (dom0, body) = (&dom0, &body);
                async move {
                    let args = json!({"file_path": format!("f{name}")});
                    dom0.framed(WRITE, args, body).await
                }
            };
            let answers = futures_util::future::join_all((0..48).map(write)).await;
            assert!(answers.iter().all(|answer| matches!(answer, Answer::Result(..))));
        });
    }
}
