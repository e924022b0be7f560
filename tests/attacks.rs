//! Attacks on the daemon: by the agent, by a managed qube, and by a second agent.

#[cfg(test)]
#[expect(dead_code, reason = "tests/serve.rs uses the rest")]
mod support;

use std::fs;

use contract::limits;
use serde_json::json;
use support::{Answer, Dom0, SCOPE, on_one_thread, write_mode};

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
}
