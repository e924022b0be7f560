//! `search_in_vm`.

use contract::{Fault, Power};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    handle::Reader,
    host::Host,
    run,
    service::{Observe, RunningQube, Service},
    services::{
        file_list::text_or_base64,
        file_path::{FilePath, file_error},
    },
};

/// The longest pattern and glob, in bytes.
const PATTERN_BYTES: usize = 4096;

/// The service.
#[derive(Debug)]
pub struct FileSearch;

/// What to search for, and where.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Request {
    /// What a line has to hold: an extended regular expression of grep, up to 4096 bytes.
    pub pattern: String,
    /// The pattern is a plain text, not a regular expression.
    #[serde(default)]
    pub fixed: bool,
    /// Let ASCII letters match their other case.
    #[serde(default)]
    pub ignore_case: bool,
    /// The directory or file to search. A relative path starts in the home folder of the qube's
    /// ordinary user, which "." stands for.
    #[serde(default)]
    pub file_path: String,
    /// Instead of file_path, for names that are not UTF-8: the path's bytes in base64.
    #[serde(default)]
    pub file_path_base64: Option<String>,
    /// Search only files whose name, without its folders, matches, for example "*.rs".
    #[serde(default)]
    pub glob: String,
    /// How many lines before and after each match to return, up to 20.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(range(max = 20)))]
    pub context: u64,
    /// How many matches to leave out first.
    #[serde(default)]
    pub offset: u64,
    /// How many matches to return at most, up to 1000.
    #[serde(default = "default_results")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    pub max_results: u64,
}

const fn default_results() -> u64 {
    50
}

/// A line of a file.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ShownLine {
    /// The absolute path of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Instead of path, where that is not UTF-8: its bytes in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// The number of the line, counted from 1.
    pub line: u64,
    /// The line; what is not UTF-8 in it is shown as U+FFFD.
    pub text: String,
    /// How many bytes of a long line are left out at its end.
    #[serde(skip_serializing_if = "is_zero")]
    pub omitted_bytes: u64,
    /// The line does not match, but stands near one that does.
    #[serde(skip_serializing_if = "is_false")]
    pub context: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What was found.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Response {
    /// The lines that match, and those around them that were asked for.
    pub lines: Vec<ShownLine>,
    /// How many of them match.
    pub matches: u64,
    /// Where there may be more matches: the offset with which to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
    /// Some files could not be read, so that matches may be missing.
    pub incomplete: bool,
    /// The search took too long and was stopped; search a smaller place.
    pub timed_out: bool,
}

impl Service for FileSearch {
    const NAME: &str = "FileSearch";
    const TOOL: Option<&str> = Some("search_in_vm");
    const TITLE: &str = "Search in files of a qube";
    const SUMMARY: &str = "Search the contents of files in a qube (virtual machine), a directory with all below it or one file, for a regular expression or a text. Returns path, number and text of each line that matches; binary files, and links within directories, are left out. No match is an empty list. More matches come with `next_offset`.";
    const POWER: Power = Power::Files;
    const DESTRUCTIVE: bool = false;
    const IDEMPOTENT: bool = true;
    const LONG: bool = true;
    type On = RunningQube;
    type Effect = Observe;
    type Request = Request;
    type Response = Response;

    fn examine(request: &Request, _host: &Host) -> Result<(), Fault> {
        let refuse = |message: String| Err(Fault::bad_request(message));
        FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        for (name, text) in [("pattern", &request.pattern), ("glob", &request.glob)] {
            if text.len() > PATTERN_BYTES || text.contains('\0') {
                return refuse(format!("{name} has at most {PATTERN_BYTES} bytes and no NUL"));
            }
        }
        if request.pattern.is_empty() {
            return refuse("pattern must not be empty".into());
        }
        if request.context > 20 {
            return refuse("context must be at most 20".into());
        }
        if !(1..=1000).contains(&request.max_results) {
            return refuse("max_results must be 1 to 1000".into());
        }
        Ok(())
    }

    async fn handle(
        on: RunningQube,
        request: Request,
        host: Reader<'_>,
    ) -> Result<Response, Error> {
        let path = FilePath::parse(&request.file_path, request.file_path_base64.as_deref())?;
        let search = run::FileSearch {
            path: path.as_bytes(),
            pattern: request.pattern.as_bytes(),
            fixed: request.fixed,
            ignore_case: request.ignore_case,
            glob: request.glob.as_bytes(),
            context: request.context,
            offset: request.offset,
            limit: request.max_results,
        };
        let found = host
            .search_files(&on, search)
            .await
            .map_err(|failure| file_error(failure, "search"))?;
        let next = request.offset.saturating_add(found.matches);
        Ok(Response {
            lines: found.lines.into_iter().map(ShownLine::from).collect(),
            matches: found.matches,
            next_offset: (found.more && found.matches > 0).then_some(next),
            incomplete: found.unreadable,
            timed_out: found.timed_out,
        })
    }
}

impl From<run::FoundLine> for ShownLine {
    fn from(line: run::FoundLine) -> Self {
        let (path, path_base64) = text_or_base64(line.path);
        Self {
            path,
            path_base64,
            line: line.number,
            text: String::from_utf8_lossy(&line.text).into_owned(),
            omitted_bytes: line.omitted,
            context: line.context,
        }
    }
}
