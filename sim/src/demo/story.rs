//! What the demo shows, in order.

use serde_json::{Value, json};

use super::{Answer, Demo, DemoError};

type Told = Result<(), DemoError>;

/// Tells the whole story.
pub(super) async fn tell(demo: &mut Demo) -> Told {
    looking(demo).await?;
    refusals(demo).await?;
    commands(demo).await?;
    files(demo).await?;
    firewall(demo).await?;
    network(demo).await?;
    sandbox(demo).await
}

fn names(answer: &Answer) -> Vec<&str> {
    let vms = answer.value.get("vms").and_then(Value::as_array).into_iter().flatten();
    vms.filter_map(|vm| vm.get("name")?.as_str()).collect()
}

async fn looking(demo: &mut Demo) -> Told {
    demo.chapter("What the agent sees, and starting a qube");
    demo.call("list_vms", json!({}), "lists the qubes in scope and no other", |answer| {
        let names = names(answer);
        ["work", "dev", "test"].iter().all(|name| names.contains(name))
            && !names.iter().any(|name| ["vault", "personal", "sys-net", "dom0"].contains(name))
    })
    .await?;
    let dev = json!({"vm_name": "dev"});
    let what = "starts a halted qube";
    demo.call("start_vm", dev.clone(), what, |answer| answer.has("changed", true)).await?;
    let what = "leaves a running qube alone";
    demo.call("start_vm", dev, what, |answer| answer.has("changed", false)).await?;
    Ok(())
}

async fn refusals(demo: &mut Demo) -> Told {
    demo.chapter("What is out of reach: a qube that is not listed, one that does not exist, dom0");
    let mut answers = Vec::new();
    for name in ["vault", "no-such-qube", "dom0", "salt-bridge"] {
        let arguments = json!({"vm_name": name, "command": "id"});
        let what = "refuses what is out of scope";
        let answer = demo.call("exec_in_vm", arguments, what, |answer| answer.is_error).await?;
        answers.push(answer.text());
    }
    if answers.iter().any(|answer| Some(answer) != answers.first()) {
        let what = "every refusal has the same words";
        return Err(DemoError::Surprise { what, answer: answers.join(" / ") });
    }
    demo.remark("Four times the same words: the agent cannot even tell which of them exist.");
    let arguments = json!({"vm_name": "test", "command": "id"});
    let what = "refuses a power that was not granted";
    demo.call("exec_in_vm", arguments, what, |answer| answer.is_error).await?;
    Ok(())
}

async fn commands(demo: &mut Demo) -> Told {
    demo.chapter("Commands");
    let command = "hostname; id -un; echo to stderr >&2; exit 3";
    let arguments = json!({"vm_name": "work", "command": command});
    demo.call("exec_in_vm", arguments, "gives exit code and both streams apart", |answer| {
        answer.has("exit_code", 3) && answer.has("stderr", "to stderr\n")
    })
    .await?;
    let arguments = json!({"vm_name": "work", "command": "id -u"});
    let what = "runs as root without sudo";
    demo.call("exec_in_vm_root", arguments, what, |answer| answer.has("stdout", "0\n")).await?;
    let command = "echo begun; sleep 98765 & sleep 98765";
    let arguments = json!({"vm_name": "work", "command": command, "timeout_seconds": 1});
    demo.call("exec_in_vm", arguments, "ends at its time limit with the output so far", |answer| {
        answer.has("timed_out", true) && answer.has("stdout", "begun\n")
    })
    .await?;
    let command = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 9876[5]'";
    let arguments = json!({"vm_name": "work", "command": command});
    let what = "is dead in the qube, with its children";
    demo.call("exec_in_vm", arguments, what, |answer| answer.has("stdout", "0\n")).await?;
    let arguments = json!({"vm_name": "work", "command": "seq 1 200000"});
    demo.call("exec_in_vm", arguments, "keeps both ends of long output", |answer| {
        answer.has("truncated", true) && answer.text().contains("200000\\n")
    })
    .await?;
    Ok(())
}

async fn files(demo: &mut Demo) -> Told {
    demo.chapter("Files, byte for byte");
    // Every byte there is, in base64.
    let content = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZHSElKS0xNTk9QUVJTVFVWV1hZWltcXV5fYGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6e3x9fn+AgYKDhIWGh4iJiouMjY6PkJGSk5SVlpeYmZqbnJ2en6ChoqOkpaanqKmqq6ytrq+wsbKztLW2t7i5uru8vb6/wMHCw8TFxsfIycrLzM3Oz9DR0tPU1dbX2Nna29zd3t/g4eLj5OXm5+jp6uvs7e7v8PHy8/T19vf4+fr7/P3+/w==";
    let path = "demo/it's a \"file\".bin";
    let arguments = json!({
        "vm_name": "work", "file_path": path, "content": content, "encoding": "base64",
    });
    demo.call("write_file_in_vm", arguments, "writes any bytes under any name", |answer| {
        answer.has("bytes_written", 256) && answer.has("created", true)
    })
    .await?;
    let arguments = json!({"vm_name": "work", "file_path": path});
    demo.call("read_file_in_vm", arguments, "reads the same bytes back", |answer| {
        answer.has("content", content) && answer.has("encoding", "base64")
    })
    .await?;
    let arguments =
        json!({"vm_name": "work", "file_path": path, "content": "x", "create_only": true});
    let what = "does not overwrite when told so";
    demo.call("write_file_in_vm", arguments, what, |answer| answer.is_error).await?;
    let arguments = json!({"vm_name": "work", "file_path": "/proc/no/such", "content": "x"});
    let what = "reports a failed write as failed";
    demo.call("write_file_in_vm", arguments, what, |answer| answer.is_error).await?;
    Ok(())
}

async fn firewall(demo: &mut Demo) -> Told {
    demo.chapter("Firewall");
    let arguments = json!({"vm_name": "test"});
    demo.call("firewall_list", arguments, "shows the one rule of a fresh qube", |answer| {
        answer.value.pointer("/rules/0/rule") == Some(&json!("action=accept"))
    })
    .await?;
    let arguments = json!({
        "vm_name": "test", "action": "drop", "args": "dsthost=192.0.2.1 proto=tcp dstports=443", "position": 1,
    });
    demo.call(
        "firewall_add",
        arguments,
        "tells that an earlier rule makes this one void",
        |answer| answer.has("number", 1) && answer.has("shadowed_by", 0),
    )
    .await?;
    let arguments = json!({"vm_name": "test", "action": "drop", "args": "dsthost=192.0.2.2"});
    demo.call("firewall_add", arguments, "puts a rule where it works", |answer| {
        answer.has("number", 0) && answer.has("shadowed_by", Value::Null)
    })
    .await?;
    let arguments =
        json!({"vm_name": "test", "rule_number": 1, "expect": "action=drop dst4=192.0.2.2/32"});
    let what = "removes nothing when another rule stands there";
    demo.call("firewall_remove", arguments, what, |answer| answer.is_error).await?;
    let arguments =
        json!({"vm_name": "test", "rule_number": 0, "expect": "action=drop dst4=192.0.2.2/32"});
    demo.call("firewall_remove", arguments, "removes the expected rule", |answer| {
        answer.value.get("rules").and_then(Value::as_array).is_some_and(|rules| rules.len() == 2)
    })
    .await?;
    Ok(())
}

async fn network(demo: &mut Demo) -> Told {
    demo.chapter("Network, and shutting down");
    let arguments = json!({"vm_name": "work"});
    demo.call(
        "vm_network_info",
        arguments,
        "shows the network from dom0 and from inside",
        |answer| answer.value.pointer("/properties/netvm") == Some(&json!("sys-firewall")),
    )
    .await?;
    let rule =
        |action: &str| json!({"action": action, "source": "work", "target": "dev", "port": 22});
    let what = "lets one qube connect to a port of another";
    demo.call("connect_tcp_policy", rule("add"), what, |answer| answer.has("changed", true))
        .await?;
    let arguments = json!({"action": "add", "source": "work", "target": "vault", "port": 22});
    let what = "refuses an end that is out of scope";
    demo.call("connect_tcp_policy", arguments, what, |answer| answer.is_error).await?;
    let what = "takes it back";
    demo.call("connect_tcp_policy", rule("remove"), what, |answer| answer.has("rules", json!([])))
        .await?;
    let arguments = json!({"vm_name": "dev"});
    let what = "waits until the qube is halted";
    demo.call("shutdown_vm", arguments, what, |answer| answer.has("state", "Halted")).await?;
    Ok(())
}

async fn sandbox(demo: &mut Demo) -> Told {
    demo.chapter("The sandbox: qubes that the agent makes, copies and removes");
    let arguments = json!({"name": "vault-2", "template": "ai-debian"});
    let what = "makes no qube outside of the prefix";
    demo.call("create_vm", arguments, what, |answer| answer.is_error).await?;
    let arguments = json!({"name": "ai-lab", "template": "fedora-42"});
    let what = "makes none from what is out of scope";
    demo.call("create_vm", arguments, what, |answer| answer.is_error).await?;
    let arguments = json!({"name": "ai-lab", "template": "ai-debian"});
    demo.call("create_vm", arguments, "makes a qube with the sandbox's network", |answer| {
        answer.has("netvm", "ai-net-router")
    })
    .await?;
    let arguments = json!({"vm_name": "ai-lab", "command": "echo kept > note; hostname"});
    let what = "works in it at once";
    demo.call("exec_in_vm", arguments, what, |answer| answer.has("stdout", "ai-lab\n")).await?;
    let lab = json!({"vm_name": "ai-lab"});
    let what = "makes it stand still";
    demo.call("pause_vm", lab.clone(), what, |answer| answer.has("state", "Paused")).await?;
    let what = "lets it go on";
    demo.call("unpause_vm", lab.clone(), what, |answer| answer.has("state", "Running")).await?;
    let what = "stops it at once";
    demo.call("kill_vm", lab.clone(), what, |answer| answer.has("state", "Halted")).await?;
    let arguments = json!({"source": "ai-lab", "name": "ai-lab-2", "offline": true});
    let what = "copies it, without a network";
    demo.call("clone_vm", arguments, what, |answer| answer.has("netvm", Value::Null)).await?;
    let arguments = json!({"vm_name": "ai-lab-2", "command": "cat note"});
    let what = "finds in the copy what was in the qube";
    demo.call("exec_in_vm", arguments, what, |answer| answer.has("stdout", "kept\n")).await?;
    disposables(demo).await?;
    let what = "removes it";
    demo.call("remove_vm", lab, what, |answer| answer.has("removed", "ai-lab")).await?;
    let what = "tells what room is left";
    demo.call("disk_budget", json!({}), what, |answer| answer.value.get("headroom").is_some())
        .await?;
    Ok(())
}

async fn disposables(demo: &mut Demo) -> Told {
    let arguments = json!({"name": "ai-dvm", "template": "ai-debian", "class": "DispVMTemplate"});
    let what = "makes a template for disposables";
    demo.call("create_vm", arguments, what, |answer| answer.has("name", "ai-dvm")).await?;
    let arguments = json!({"template": "ai-dvm", "command": "hostname; exit 3"});
    let what = "runs one command in a fresh disposable and destroys it";
    demo.call("run_in_disposable", arguments, what, |answer| answer.has("exit_code", 3)).await?;
    let arguments = json!({"template": "ai-dvm", "command": "id -u"});
    let what = "the same as root";
    demo.call("run_in_disposable_root", arguments, what, |answer| answer.has("stdout", "0\n"))
        .await?;
    demo.call(
        "create_disposable",
        json!({"template": "ai-dvm"}),
        "makes one that stays",
        |answer| answer.value.get("name").is_some(),
    )
    .await?;
    Ok(())
}
