//! `salt-bridge doctor`: whether calls reach dom0, what they may do, and what to do if not.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use contract::WIRE_VERSION;
use serde::Serialize;

use super::{CommandError, print, table};
use crate::{
    cli::{Calls, on_one_thread},
    confinement::Confinement,
    qrexec::CallError,
    reply::ReplyError,
    vms::Vm,
};

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What was looked at.
    check: &'static str,
    /// Whether it is as it should be.
    ok: bool,
    /// What was seen.
    seen: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    to_do: Option<String>,
}

impl Finding {
    fn good(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, ok: true, seen: seen.into(), to_do: None }
    }

    fn bad(check: &'static str, seen: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { check, ok: false, seen: seen.into(), to_do: Some(to_do.into()) }
    }
}

/// Looks at everything and prints what was found. The exit code is 1 when something is wrong.
pub(crate) fn run(arguments: Arguments, calls: Calls) -> Result<ExitCode, CommandError> {
    let program = look_for_program(calls.program());
    let writes = calls.writes();
    let agent = calls.agent()?;
    // As when it serves, so that what is found out here holds there.
    let confinement = writes.confine(None);
    let mut findings = vec![version(agent.tools().len()), program, judge_confinement(confinement)];
    if findings.iter().all(|finding| finding.ok) {
        let began = Instant::now();
        let listed = on_one_thread(agent.vms()).map_err(CommandError::Runtime)?;
        let took = began.elapsed().as_millis();
        findings.push(judge_answer(&listed, took));
        if let Ok(vms) = &listed {
            findings.push(judge_scope(vms));
        }
    }
    let well = findings.iter().all(|finding| finding.ok);
    if arguments.json {
        print(format!("{}\n", serde_json::json!({ "ok": well, "findings": findings })).as_bytes());
    } else {
        print(table::plain(&render(&findings)).as_bytes());
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn version(tools: usize) -> Finding {
    let seen = format!(
        "salt-bridge {}, version {WIRE_VERSION} of the wire to dom0, {tools} tools",
        env!("CARGO_PKG_VERSION")
    );
    Finding::good("version", seen)
}

/// No kernel is at fault: what confinement is there comes on top.
fn judge_confinement(confinement: Confinement) -> Finding {
    let seen = match confinement {
        Confinement::Full => "Landlock: writes only to devices and --transfer-dir, and no TCP port",
        Confinement::Partial => "Landlock, of which this kernel knows a part",
        Confinement::None => "none: this kernel has no Landlock",
        Confinement::Off => "none, by --unconfined",
    };
    Finding::good("confinement", seen)
}

const PROGRAM: &str = "qrexec-client-vm";

fn look_for_program(program: &Path) -> Finding {
    #[expect(clippy::disallowed_methods, reason = "finds what starting the program would find")]
    let path = env::var_os("PATH").unwrap_or_default();
    match find_program(program, &path) {
        Some(found) => Finding::good(PROGRAM, found.display().to_string()),
        None => Finding::bad(
            PROGRAM,
            format!("{} cannot be started", program.display()),
            "Every qube of Qubes OS has it in /usr/bin (package qubes-core-qrexec). Run this in \
             the agent's qube, or name the program with --qrexec-client-vm.",
        ),
    }
}

/// The file that would be started: that of the path, or the first of its name in PATH.
fn find_program(program: &Path, path: &OsStr) -> Option<PathBuf> {
    let starts = |file: &Path| {
        file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return starts(program).then(|| program.to_owned());
    }
    env::split_paths(path).map(|folder| folder.join(program)).find(|file| starts(file))
}

/// What the answer of dom0, or the lack of one, means.
fn judge_answer(listed: &Result<Vec<Vm>, CallError>, took_ms: u128) -> Finding {
    const CHECK: &str = "dom0";
    let Err(error) = listed else {
        return Finding::good(CHECK, format!("answered in {took_ms} ms"));
    };
    let to_do = match error {
        error if error.is_refusal() => {
            "This qube is no agent, its grants have ended, or the operator has paused it. In dom0: \
             `saltbridged status`, then `saltbridged explain THIS-QUBE VmList dom0` says which \
             layer refused."
        }
        CallError::NotInstalled(_) => {
            "Salt Bridge is not installed in dom0, or its socket is down. In dom0: run \
             dom0-install.sh as README.md tells, or `saltbridged doctor`."
        }
        CallError::NotRun(_) | CallError::Cut(_) => {
            "The daemon in dom0 did not answer. In dom0: `saltbridged doctor`, and \
             `journalctl -u 'salt-bridge*'`. If `salt-bridge doctor --unconfined` is answered, \
             qrexec does not work under Landlock here: serve with --unconfined."
        }
        CallError::Frame(_) | CallError::Text(_) => {
            "What answers in dom0 is another program or an older version. In dom0: \
             `saltbridged --version`; install the version that belongs to this one."
        }
        CallError::NotStarted { .. } => "Look at the permissions of qrexec-client-vm.",
        CallError::Reply(ReplyError::Fault(_)) => {
            "In dom0: `saltbridged doctor`, and `saltbridged audit tail` for this call."
        }
        CallError::Reply(ReplyError::TooLong(_) | ReplyError::Json(_) | ReplyError::Local(..)) => {
            "Agent and dom0 are of different versions. In dom0: `saltbridged --version`."
        }
    };
    Finding::bad(CHECK, error.to_string(), to_do)
}

fn judge_scope(vms: &[Vm]) -> Finding {
    const CHECK: &str = "scope";
    if vms.is_empty() {
        return Finding::bad(
            CHECK,
            "no qube",
            "The operator lists qubes for this agent. In dom0: `saltbridged scope add THIS-QUBE \
             QUBE:POWERS`.",
        );
    }
    let qubes: Vec<String> = vms
        .iter()
        .map(|vm| format!("{} ({}): {}", vm.name, vm.state, vm.powers.join(" ")))
        .collect();
    Finding::good(CHECK, qubes.join("\n"))
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let sign = if finding.ok { "ok  " } else { "FAIL" };
        let seen = finding.seen.replace('\n', "\n       ");
        text.push_str(&format!("{sign}   {}: {seen}\n", finding.check));
        if let Some(to_do) = &finding.to_do {
            text.push_str(&format!("       to do: {to_do}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeQrexec;

    #[test]
    fn the_program_is_sought_where_starting_it_would_look() {
        let fake = FakeQrexec::new();
        let folder = fake.path("");
        let (name, path) = (Path::new(PROGRAM), fake.path(PROGRAM));
        assert_eq!(find_program(name, folder.as_os_str()), Some(path.clone()));
        assert_eq!(find_program(&path, OsStr::new("")), Some(path));
        assert_eq!(find_program(name, OsStr::new("/nowhere")), None);
        assert_eq!(find_program(Path::new("/nowhere/x"), folder.as_os_str()), None);
    }

    #[test]
    fn what_dom0_answers_leads_to_what_is_to_be_done() {
        let finding = judge_answer(&Ok(Vec::new()), 7);
        assert_eq!(finding, Finding::good("dom0", "answered in 7 ms"));
        for (error, to_do) in [
            (CallError::refused(), "saltbridged explain"),
            (CallError::NotInstalled("saltbridge.VmList".into()), "dom0-install.sh"),
            (CallError::Cut("ended with 1".into()), "journalctl"),
            (CallError::Text("no".into()), "saltbridged --version"),
        ] {
            let finding = judge_answer(&Err(error), 7);
            assert!(!finding.ok && finding.to_do.as_ref().unwrap().contains(to_do), "{finding:?}");
        }
    }

    #[test]
    fn a_scope_is_told_with_its_powers() {
        assert!(!judge_scope(&[]).ok);
        let vm = Vm {
            name: "work".into(),
            state: "Running".into(),
            powers: vec!["see".into(), "exec".into()],
            ..Vm::default()
        };
        let text = render(&[judge_scope(&[vm.clone(), vm])]);
        assert_eq!(
            text,
            "ok     scope: work (Running): see exec\n       work (Running): see exec\n"
        );
    }
}
