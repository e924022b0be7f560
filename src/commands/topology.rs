//! `salt-bridge topology`: the qubes in scope as a picture.

use std::process::ExitCode;

use super::{CommandError, print, table};
use crate::{
    cli::{Calls, on_one_thread},
    topology::{Topology, render_mermaid, render_svg, render_text},
};

/// The arguments of the command.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Draw it as SVG
    #[arg(long, conflicts_with_all = ["mermaid", "json"])]
    svg: bool,
    /// Write it as a Mermaid flowchart
    #[arg(long, conflicts_with = "json")]
    mermaid: bool,
    /// Print the qubes as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the picture.
pub(crate) fn run(arguments: &Arguments, calls: Calls) -> Result<ExitCode, CommandError> {
    let agent = calls.agent()?;
    let vms = on_one_thread(agent.vms()).map_err(CommandError::Runtime)??;
    let text = match arguments {
        Arguments { json: true, .. } => format!("{}\n", serde_json::json!({ "vms": vms })),
        Arguments { svg: true, .. } => render_svg(&Topology::new(vms)),
        Arguments { mermaid: true, .. } => render_mermaid(&Topology::new(vms)),
        Arguments { .. } => table::plain(&render_text(&Topology::new(vms))),
    };
    print(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}
