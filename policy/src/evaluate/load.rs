//! Reads policy files in the order in which qrexec does, with what they include.

use std::collections::{BTreeMap, BTreeSet};

use contract::limits::{POLICY_FILES, POLICY_INCLUDE_DEPTH};

use super::rule::{Place, Rule, RuleError, Subject, is_of_argument, is_space, split};

/// Where the operator's policy lies.
const POLICY_DIR: &str = "/etc/qubes/policy.d";
/// Policy until the next boot. A file here hides the one of the same name in [`POLICY_DIR`].
const RUNTIME_DIR: &str = "/run/qubes/policy.d";
/// Policy in the form of Qubes 4.0, read where a file says `!compat-4.0`.
const COMPAT_DIR: &str = "/etc/qubes-rpc/policy";
const SUFFIX: &str = ".policy";

/// The texts of policy files by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFiles {
    texts: BTreeMap<String, String>,
}

impl PolicyFiles {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file. A path without a leading `/` lies below `/etc/qubes/policy.d`; files below
    /// `/run/qubes/policy.d` and `/etc/qubes-rpc/policy` count too.
    pub fn insert(&mut self, path: &str, text: impl Into<String>) {
        self.texts.insert(resolve(POLICY_DIR, path), text.into());
    }

    /// The text of a file.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.texts.get(&resolve(POLICY_DIR, path)).map(String::as_str)
    }

    /// The files directly in a folder: name and path.
    fn within(&self, folder: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts.keys().filter_map(move |path| {
            let name = path.strip_prefix(folder)?.strip_prefix('/')?;
            (!name.contains('/')).then_some((name, path.as_str()))
        })
    }
}

impl<P: AsRef<str>, T: Into<String>> FromIterator<(P, T)> for PolicyFiles {
    fn from_iter<I: IntoIterator<Item = (P, T)>>(files: I) -> Self {
        let mut all = Self::new();
        for (path, text) in files {
            all.insert(path.as_ref(), text);
        }
        all
    }
}

/// Why the policy as a whole is void. qrexec then refuses every call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct PolicyError {
    /// Where.
    pub place: Place,
    /// What.
    #[source]
    pub problem: PolicyProblem,
}

/// What makes a policy void.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyProblem {
    /// A line that cannot be read.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A file name with characters that policy files do not have.
    #[error("a policy file's name has lower-case letters, digits, `_`, `.` and `-` only")]
    FileName,
    /// A line that begins with `!` and an unknown word.
    #[error("`{0}` is not a directive")]
    UnknownDirective(String),
    /// A directive with too few or too many words.
    #[error("`{0}` has too few or too many words")]
    DirectiveWords(String),
    /// Something is included that is not there.
    #[error("`{0}` is not there")]
    Missing(String),
    /// Files include one another without end, or more of them than are read.
    #[error("too many files are included")]
    TooManyFiles,
}

/// Reads all files into rules, in order.
pub(super) fn load(files: &PolicyFiles) -> Result<Vec<Rule>, PolicyError> {
    let mut loader = Loader { files, rules: Vec::new(), read: 0 };
    // By name across both folders; the runtime folder comes first and hides the other.
    let mut order: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for folder in [RUNTIME_DIR, POLICY_DIR] {
        for (name, path) in policy_files(files, folder)? {
            order.entry(name).or_insert((folder, path));
        }
    }
    for (folder, path) in order.into_values() {
        loader.read_file(folder, path, 0, &start(path))?;
    }
    Ok(loader.rules)
}

/// The files of a folder that are policy.
fn policy_files<'a>(
    files: &'a PolicyFiles,
    folder: &str,
) -> Result<Vec<(&'a str, &'a str)>, PolicyError> {
    let is_policy = |name: &str| name.ends_with(SUFFIX) && !name.starts_with('.');
    let found: Vec<_> = files.within(folder).filter(|(name, _)| is_policy(name)).collect();
    let odd = |name: &str| {
        !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b))
    };
    match found.iter().find(|(name, _)| odd(name)) {
        Some((_, path)) => {
            Err(PolicyError { place: start(path), problem: PolicyProblem::FileName })
        }
        None => Ok(found),
    }
}

fn start(path: &str) -> Place {
    Place { file: path.into(), line: None }
}

struct Loader<'a> {
    files: &'a PolicyFiles,
    rules: Vec<Rule>,
    read: usize,
}

impl<'a> Loader<'a> {
    /// The lines that are no comments, with their places.
    fn open(
        &mut self,
        path: &str,
        depth: usize,
        from: &Place,
    ) -> Result<Vec<(&'a str, Place)>, PolicyError> {
        let fault = |problem| PolicyError { place: from.clone(), problem };
        let (path, text) = self
            .files
            .texts
            .get_key_value(path)
            .ok_or_else(|| fault(PolicyProblem::Missing(path.into())))?;
        self.read += 1;
        if self.read > POLICY_FILES || depth > POLICY_INCLUDE_DEPTH {
            return Err(fault(PolicyProblem::TooManyFiles));
        }
        Ok(lines(text)
            .enumerate()
            .map(|(number, line)| (line.trim_matches(is_space), number))
            .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
            .map(|(line, number)| (line, Place { file: path.clone(), line: Some(number + 1) }))
            .collect())
    }

    /// Reads a file of today's form. What it includes lies below `folder`.
    fn read_file(
        &mut self,
        folder: &str,
        path: &str,
        depth: usize,
        from: &Place,
    ) -> Result<(), PolicyError> {
        for (line, place) in self.open(path, depth, from)? {
            if line.starts_with('!') {
                self.follow(folder, line, depth, &place)?;
                continue;
            }
            let rule = Rule::parse(line, place.clone()).map_err(at(&place))?;
            self.rules.push(rule);
        }
        Ok(())
    }

    fn follow(
        &mut self,
        folder: &str,
        line: &str,
        depth: usize,
        place: &Place,
    ) -> Result<(), PolicyError> {
        let words: Vec<&str> = split(line).collect();
        match words.as_slice() {
            ["!include", path] => self.read_file(folder, &resolve(folder, path), depth + 1, place),
            ["!include-dir", path] => self.read_folder(folder, path, depth + 1, place),
            ["!include-service", service, argument, path] => {
                let subject = Subject::parse(service, argument).map_err(at(place))?;
                let path = resolve(folder, path);
                self.read_service(folder, &subject, &path, depth + 1, place)
            }
            ["!compat-4.0"] => self.read_compat(depth + 1, place),
            [] => Ok(()),
            [directive, ..] => {
                let known = ["!include", "!include-dir", "!include-service", "!compat-4.0"];
                let directive = (*directive).to_owned();
                let problem = if known.contains(&directive.as_str()) {
                    PolicyProblem::DirectiveWords(directive)
                } else {
                    PolicyProblem::UnknownDirective(directive)
                };
                Err(PolicyError { place: place.clone(), problem })
            }
        }
    }

    fn read_folder(
        &mut self,
        folder: &str,
        path: &str,
        depth: usize,
        place: &Place,
    ) -> Result<(), PolicyError> {
        let wanted = resolve(folder, path);
        let is_there = self.files.texts.keys().any(|path| path.starts_with(&format!("{wanted}/")));
        if !is_there {
            let problem = PolicyProblem::Missing(wanted);
            return Err(PolicyError { place: place.clone(), problem });
        }
        let files = self.files;
        for (_, path) in policy_files(files, &wanted)? {
            self.read_file(folder, path, depth, place)?;
        }
        Ok(())
    }

    /// Reads a file of the older form, which is about one service.
    fn read_service(
        &mut self,
        folder: &str,
        subject: &Subject,
        path: &str,
        depth: usize,
        from: &Place,
    ) -> Result<(), PolicyError> {
        for (line, place) in self.open(path, depth, from)? {
            let line = line.replace("$include:", "!include ").replace('$', "@").replace(',', " ");
            if line.starts_with('!') {
                match split(&line).collect::<Vec<_>>().as_slice() {
                    ["!include", path] => {
                        let path = resolve(folder, path);
                        self.read_service(folder, subject, &path, depth + 1, &place)?;
                    }
                    words => {
                        let directive = words.first().copied().unwrap_or_default().to_owned();
                        let problem = PolicyProblem::UnknownDirective(directive);
                        return Err(PolicyError { place, problem });
                    }
                }
                continue;
            }
            let rule = Rule::parse_for(subject, &line, place.clone()).map_err(at(&place))?;
            self.rules.push(rule);
        }
        Ok(())
    }

    /// Reads the folder of the older form: by service, then by argument, the file without one
    /// last. A file with an argument denies what it does not allow.
    fn read_compat(&mut self, depth: usize, from: &Place) -> Result<(), PolicyError> {
        let mut order: BTreeSet<(&str, bool, String, &str)> = BTreeSet::new();
        let files = self.files;
        for (name, path) in files.within(COMPAT_DIR) {
            let ignored = [".rpmsave", ".rpmnew", ".swp"].iter().any(|end| name.ends_with(end));
            if ignored || name.starts_with('.') || !is_of_argument(name) {
                continue;
            }
            match name.split_once('+') {
                Some((service, argument)) => {
                    order.insert((service, false, format!("+{argument}"), path))
                }
                None => order.insert((name, true, "*".into(), path)),
            };
        }
        for (service, is_last, argument, path) in order {
            let subject = Subject::parse(service, &argument).map_err(at(&start(path)))?;
            self.read_service(COMPAT_DIR, &subject, path, depth, from)?;
            if is_last {
                continue;
            }
            for line in ["@anyvm @anyvm deny", "@anyvm @adminvm deny"] {
                let place = start(path);
                let rule = Rule::parse_for(&subject, line, place.clone()).map_err(at(&place))?;
                self.rules.push(rule);
            }
        }
        Ok(())
    }
}

fn at(place: &Place) -> impl FnOnce(RuleError) -> PolicyError {
    |error| PolicyError { place: place.clone(), problem: error.into() }
}

/// Lines as Python splits them: `\n`, `\r\n` and `\r` end one.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// The absolute path that a path means in a folder, without `.` and `..`.
fn resolve(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { folder };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
