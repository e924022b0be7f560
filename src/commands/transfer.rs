//! `salt-bridge upload` and `salt-bridge download`: files to and from qubes, for people.

use std::{
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

use super::{CommandError, call::failure, complain, print, progress::show_progress, table};
use crate::{
    cli::{Calls, on_one_thread},
    transfer::{Direction, Order, Transfers},
};

/// How files are moved, in both directions.
#[derive(Debug, clap::Args)]
struct Options {
    /// Replace files that are there
    #[arg(long)]
    overwrite: bool,
    /// Take a folder with all that is in it
    #[arg(long, short)]
    recursive: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The arguments of `upload`.
#[derive(Debug, clap::Args)]
pub(crate) struct Upload {
    /// The file or folder here
    local: PathBuf,
    /// The qube
    qube: String,
    /// The path there; with a slash at its end a folder. Without it the home folder of the user
    remote: Option<String>,
    #[command(flatten)]
    options: Options,
}

/// The arguments of `download`.
#[derive(Debug, clap::Args)]
pub(crate) struct Download {
    /// The qube
    qube: String,
    /// The file or folder there
    remote: String,
    /// The path here; without it the name that it has there, in this folder
    local: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

/// Sends.
pub(crate) fn upload(arguments: Upload, calls: Calls) -> Result<ExitCode, CommandError> {
    let Upload { local, qube, remote, options } = arguments;
    let remote = remote
        .unwrap_or_else(|| local.file_name().unwrap_or_default().to_string_lossy().into_owned());
    carry(Direction::Upload, &local, qube, remote, &options, calls)
}

/// Fetches.
pub(crate) fn download(arguments: Download, calls: Calls) -> Result<ExitCode, CommandError> {
    let Download { qube, remote, local, options } = arguments;
    let name = || PathBuf::from(remote.trim_end_matches('/').rsplit('/').next().unwrap_or(""));
    let local = match local {
        None => name(),
        Some(local) if local.is_dir() && !options.recursive => local.join(name()),
        Some(local) => local,
    };
    carry(Direction::Download, &local, qube, remote, &options, calls)
}

fn carry(
    direction: Direction,
    local: &Path,
    qube: String,
    remote: String,
    options: &Options,
    calls: Calls,
) -> Result<ExitCode, CommandError> {
    // A person may name any place: the folder above it is the one that is opened.
    let (folder, name) = split(local);
    let transfers = Transfers::open(&folder)
        .map_err(|source| CommandError::Folder { path: folder.display().to_string(), source })?;
    let order = Order {
        vm_name: qube,
        local_path: name,
        remote_path: remote,
        overwrite: options.overwrite,
        recursive: options.recursive,
    };
    let agent = calls.agent()?;
    let work = show_progress(async |news| transfers.carry(&agent, direction, &order, news).await);
    match on_one_thread(work).map_err(CommandError::Runtime)? {
        Ok(result) if options.json => print(format!("{}\n", serde_json::json!(result)).as_bytes()),
        Ok(result) => print(table::render(&result).as_bytes()),
        Err(error) => {
            complain(format!("salt-bridge: {error}\n").as_bytes());
            return Ok(failure(&error));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The folder of a path, and the name in it.
fn split(path: &Path) -> (PathBuf, String) {
    let name = match path.components().next_back() {
        Some(Component::Normal(name)) => name.to_string_lossy().into_owned(),
        Some(_) | None => String::new(),
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    (folder, name)
}
