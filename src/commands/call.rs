//! `salt-bridge call TOOL JSON`: one call of a tool by a person or a script.

use std::{
    io::{self, IsTerminal, Read},
    process::ExitCode,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use contract::{Spec, Stream};
use rmcp::model::JsonObject;
use serde_json::Value;

use super::{CommandError, complain, print, progress::show_progress, table};
use crate::{
    agent::Found,
    catalogue::Named,
    cli::{Calls, on_one_thread},
    qrexec::CallError,
};

const AFTER_HELP: &str = "\
Examples:
  salt-bridge call list_vms
  salt-bridge call exec_in_vm '{\"vm_name\": \"work\", \"command\": \"uname -a\"}'
  salt-bridge call firewall_list '{\"vm_name\": \"work\"}' --json

What a command printed goes to standard output and standard error as it is, everything else is a \
table, or JSON with --json. The exit code is that of the command, where there is one; 126 for a \
refused call, 1 for one that failed, 2 for wrong arguments.";

/// The exit code of a call that was refused, as qrexec has it.
const REFUSED: u8 = 126;
/// The exit code of a call that cannot be made.
const WRONG: u8 = 2;

/// The arguments of the command.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The tool
    tool: String,
    /// Its arguments, a JSON object; - reads them from standard input
    #[arg(default_value = "{}")]
    json: String,
    /// Print the result as JSON
    #[arg(long = "json")]
    as_json: bool,
}

/// Makes the call.
pub(crate) fn run(arguments: Arguments, calls: Calls) -> Result<ExitCode, CommandError> {
    let agent = calls.agent()?;
    let text = match arguments.json.as_str() {
        "-" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(CommandError::Input)?;
            text
        }
        _ => arguments.json,
    };
    let given: JsonObject = serde_json::from_str(&text).map_err(CommandError::Json)?;
    let Some(found) = agent.find(&arguments.tool) else {
        let known = agent.tools().iter().map(|tool| tool.name.to_string()).collect::<Vec<_>>();
        return Err(CommandError::Tool { name: arguments.tool, known: known.join(", ") });
    };
    let work = show_progress(async |news| agent.run(found, given, news).await);
    let outcome = on_one_thread(work).map_err(CommandError::Runtime)?;
    let result = match outcome {
        Ok(result) => result,
        Err(error) => {
            complain(format!("salt-bridge: {error}\n").as_bytes());
            return Ok(failure(&error));
        }
    };
    let code = exit_code(&result);
    if arguments.as_json {
        print(format!("{}\n", Value::Object(result)).as_bytes());
    } else {
        match found {
            Found::Service(Named::One(row)) => show(&row.spec, result),
            Found::Service(Named::Batch(..)) | Found::Transfer(..) => {
                print(table::render(&result).as_bytes());
            }
        }
    }
    Ok(code)
}

/// The exit code of a call without a result.
pub(super) fn failure(error: &CallError) -> ExitCode {
    if error.is_refusal() {
        ExitCode::from(REFUSED)
    } else if error.is_bad_request() {
        ExitCode::from(WRONG)
    } else {
        ExitCode::FAILURE
    }
}

/// That of the command that ran; 1 where it was killed, and where a qube of several failed.
fn exit_code(result: &JsonObject) -> ExitCode {
    if let Some(code) = result.get("exit_code") {
        let code = code.as_u64().and_then(|code| u8::try_from(code).ok());
        return code.map_or(ExitCode::FAILURE, ExitCode::from);
    }
    match result.get("failed").and_then(Value::as_u64) {
        Some(1..) => ExitCode::FAILURE,
        Some(0) | None => ExitCode::SUCCESS,
    }
}

/// Streams of bytes as they are, and the rest as a table, on standard error when there are both.
fn show(spec: &Spec, mut result: JsonObject) {
    for field in &spec.bytes {
        let encoding = result.remove(&field.encoding);
        let Some(Value::String(text)) = result.remove(&field.field) else { continue };
        let bytes = match encoding.as_ref().and_then(Value::as_str) {
            Some("base64") => STANDARD.decode(&text).unwrap_or_else(|_| text.into_bytes()),
            Some(_) | None => text.into_bytes(),
        };
        match field.stream {
            Stream::Stdout => print(&bytes),
            Stream::Stderr => complain(&bytes),
        }
    }
    let rest = table::render(&result);
    match spec.bytes.is_empty() {
        true => print(rest.as_bytes()),
        false if io::stderr().is_terminal() => complain(rest.as_bytes()),
        false => {}
    }
}
