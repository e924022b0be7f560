//! What the operator set about the sandbox, in `/etc/salt-bridge/settings.toml`:
//!
//! ```toml
//! [sandbox]
//! default_tier = "full"       # or "see": what a qube with ai-managed alone gives
//! birth_tier = "full"         # or "net", "exec", "see": the most that a new qube gets
//! name_prefix = "ai-"         # what the names of new qubes begin with
//! egress = "ai-net-router"    # the network of new qubes that inherit none
//! pool_cap = 53687091200      # bytes that all persistent volumes of the sandbox have at most
//! private_cap = 21474836480   # bytes that one private volume has at most
//! dump = true                 # files may be copied into qubes with the tag ai-dump
//! ```
//!
//! Without a table `[sandbox]` the files of qubes-mcp in `/etc/qmcp` are read, where there are any.

use std::{io, path::Path, path::PathBuf};

use admin_api::QubeName;
use policy::{SandboxRules, Tier};
use serde::Deserialize;

use crate::{
    paths::Paths,
    scope_file::{ScopeFileError, read_trusted_text},
};

const GIB: u64 = 1 << 30;
/// The longest prefix: more would leave a name little to differ by.
const PREFIX_CHARS: usize = 16;

/// What the operator set about the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The tier of a qube without a tag of a tier.
    pub default_tier: Tier,
    /// The highest tier that a new qube gets.
    pub birth_tier: Tier,
    /// What the name of a new qube begins with.
    pub name_prefix: String,
    /// The network of a new qube that inherits none.
    pub egress: QubeName,
    /// Bytes that the persistent volumes of the sandbox may have together.
    pub pool_cap: u64,
    /// Bytes that one private volume may have.
    pub private_cap: u64,
    /// Whether files may be copied into qubes with the tag `ai-dump`.
    pub dump: bool,
}

impl Sandbox {
    /// What policy needs of it.
    pub const fn rules(&self) -> SandboxRules {
        SandboxRules { default_tier: self.default_tier, dump: self.dump }
    }
}

/// Why the settings cannot be used. Each of these refuses every call.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read or trusted.
    #[error("settings {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: Box<ScopeFileError>,
    },
    /// The file is no TOML, has a key that is not known, or a value that cannot be.
    #[error("settings {path}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What and where.
        #[source]
        error: Box<toml::de::Error>,
    },
    /// A prefix or a name that cannot be one of a qube.
    #[error("settings {path}: {key} cannot be {value:?}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What was found.
        value: String,
    },
}

/// The whole file. What is not known is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[expect(
        dead_code,
        reason = "the audit log reads its own table; here only keys are looked at"
    )]
    audit: Option<WrittenAudit>,
    sandbox: Option<WrittenSandbox>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenAudit {
    #[expect(dead_code, reason = "the audit log reads it")]
    commands: Option<WrittenCommands>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenCommands {
    Text,
    Digest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSandbox {
    default_tier: Option<WrittenDefault>,
    birth_tier: Option<WrittenTier>,
    name_prefix: Option<String>,
    egress: Option<String>,
    pool_cap: Option<u64>,
    private_cap: Option<u64>,
    dump: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenDefault {
    See,
    Full,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenTier {
    See,
    Exec,
    Net,
    Full,
}

impl From<WrittenDefault> for Tier {
    fn from(written: WrittenDefault) -> Self {
        match written {
            WrittenDefault::See => Self::See,
            WrittenDefault::Full => Self::Full,
        }
    }
}

impl From<WrittenTier> for Tier {
    fn from(written: WrittenTier) -> Self {
        match written {
            WrittenTier::See => Self::See,
            WrittenTier::Exec => Self::Exec,
            WrittenTier::Net => Self::Net,
            WrittenTier::Full => Self::Full,
        }
    }
}

/// Reads the operator's settings; a missing file means the defaults, or what qubes-mcp was told.
///
/// # Errors
/// The file cannot be trusted or understood.
pub fn read_settings(paths: &Paths, trusted: u32) -> Result<Sandbox, SettingsError> {
    let path = paths.settings();
    let written = match read_optional(&path, trusted)? {
        Some(text) => toml::from_str::<Written>(&text)
            .map_err(|error| SettingsError::Toml { path: path.clone(), error: Box::new(error) })?,
        None => Written::default(),
    };
    match written.sandbox {
        Some(sandbox) => complete(sandbox, &path),
        None => complete(of_qubes_mcp(&paths.qubes_mcp(), trusted)?, &paths.qubes_mcp()),
    }
}

fn read_optional(path: &Path, trusted: u32) -> Result<Option<String>, SettingsError> {
    match read_trusted_text(path, trusted) {
        Ok(text) => Ok(Some(text)),
        Err(ScopeFileError::Open(error))
            if io::Error::from(error).kind() == io::ErrorKind::NotFound =>
        {
            Ok(None)
        }
        Err(error) => Err(SettingsError::File { path: path.into(), error: Box::new(error) }),
    }
}

fn complete(written: WrittenSandbox, path: &Path) -> Result<Sandbox, SettingsError> {
    let name_prefix = written.name_prefix.unwrap_or_else(|| "ai-".into());
    let wrong =
        |key, value: &str| SettingsError::Value { path: path.into(), key, value: value.into() };
    if name_prefix.len() > PREFIX_CHARS || QubeName::parse(&name_prefix).is_err() {
        return Err(wrong("name_prefix", &name_prefix));
    }
    let egress = written.egress.unwrap_or_else(|| "ai-net-router".into());
    Ok(Sandbox {
        default_tier: written.default_tier.map_or(Tier::Full, Tier::from),
        birth_tier: written.birth_tier.map_or(Tier::Full, Tier::from),
        egress: QubeName::parse(&egress).map_err(|_| wrong("egress", &egress))?,
        name_prefix,
        pool_cap: written.pool_cap.unwrap_or(50 * GIB),
        private_cap: written.private_cap.unwrap_or(20 * GIB),
        dump: written.dump.unwrap_or(true),
    })
}

/// What qubes-mcp was told, a word in each file, behind which `#` begins a comment. What cannot be
/// understood becomes what allows least, as there.
fn of_qubes_mcp(folder: &Path, trusted: u32) -> Result<WrittenSandbox, SettingsError> {
    if !folder.is_dir() {
        return Ok(WrittenSandbox::default());
    }
    let word = |name: &str| -> Result<Option<String>, SettingsError> {
        let text = read_optional(&folder.join(name), trusted)?;
        Ok(text.map(|text| text.split('#').next().unwrap_or_default().trim().to_owned()))
    };
    // There a missing cap forbids to create.
    let bytes = |name| Ok(Some(word(name)?.and_then(|word| word.parse().ok()).unwrap_or(0)));
    Ok(WrittenSandbox {
        default_tier: word("tier-default")?.map(|word| match word.as_str() {
            "full" => WrittenDefault::Full,
            _ => WrittenDefault::See,
        }),
        birth_tier: word("birth-ceiling")?.map(|word| match word.as_str() {
            "ai-full" => WrittenTier::Full,
            "ai-net" => WrittenTier::Net,
            "ai-exec" => WrittenTier::Exec,
            _ => WrittenTier::See,
        }),
        name_prefix: word("name-prefix")?
            .filter(|word| word.len() <= PREFIX_CHARS && QubeName::parse(word).is_ok()),
        egress: word("birth-egress")?.filter(|word| QubeName::parse(word).is_ok()),
        pool_cap: bytes("pool-cap")?,
        private_cap: bytes("private-cap")?,
        dump: None,
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    /// What is read where these files stand.
    fn read(files: &[(&str, &str)]) -> Result<Sandbox, SettingsError> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join("etc").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        read_settings(&Paths::below(root.path()), uid())
    }

    const OURS: &str = "salt-bridge/settings.toml";

    #[test]
    fn what_is_not_set_has_its_default() {
        let all = read(&[]).unwrap();
        assert_eq!((all.default_tier, all.birth_tier, all.dump), (Tier::Full, Tier::Full, true));
        assert_eq!((all.name_prefix.as_str(), all.egress.as_str()), ("ai-", "ai-net-router"));
        assert_eq!((all.pool_cap, all.private_cap), (50 << 30, 20 << 30));
        assert_eq!(read(&[(OURS, "[audit]\ncommands = \"digest\"\n")]).unwrap(), all);
        let text = "[sandbox]\ndefault_tier = \"see\"\npool_cap = 7 # bytes\ndump = false\n";
        let set = read(&[(OURS, text)]).unwrap();
        let expected = Sandbox { default_tier: Tier::See, pool_cap: 7, dump: false, ..all };
        assert_eq!(set, expected);
    }

    #[test]
    fn what_is_not_known_or_cannot_be_is_an_error() {
        for text in [
            "pool_cap = 1\n",
            "[sandbox]\npool-cap = 1\n",
            "[sandbox]\npool_cap = -1\n",
            "[sandbox]\npool_cap = \"1\"\n",
            "[sandbox]\ndefault_tier = \"exec\"\n",
            "[sandbox]\ndefault_tier = \"Full\"\n",
            "[sandbox]\nname_prefix = \"\"\n",
            "[sandbox]\nname_prefix = \"1-\"\n",
            "[sandbox]\nname_prefix = \"a-long-prefix-of-names\"\n",
            "[sandbox]\negress = \"dom0\"\n",
            "[sandbox]\n[sandbox]\n",
            "[audit]\ncommand = \"text\"\n",
            "[sandboxes]\n",
            "[sandbox\n",
        ] {
            assert!(read(&[(OURS, text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn an_installation_of_qubes_mcp_is_taken_over() {
        let files = [
            ("qmcp/pool-cap", "96636764160  # 90 GiB\n"),
            ("qmcp/private-cap", "10737418240\n"),
            ("qmcp/name-prefix", "lab-\n"),
            ("qmcp/birth-egress", "lab-net\n"),
            ("qmcp/tier-default", "ro\n"),
            ("qmcp/birth-ceiling", "ai-exec\n"),
        ];
        let all = read(&files).unwrap();
        assert_eq!((all.pool_cap, all.private_cap), (96_636_764_160, 10_737_418_240));
        assert_eq!((all.name_prefix.as_str(), all.egress.as_str()), ("lab-", "lab-net"));
        assert_eq!((all.default_tier, all.birth_tier), (Tier::See, Tier::Exec));
        // Our own table decides alone.
        let mut both = files.to_vec();
        both.push((OURS, "[sandbox]\n"));
        assert_eq!(read(&both).unwrap(), read(&[]).unwrap());
        let broken = read(&[("qmcp/pool-cap", "much"), ("qmcp/tier-default", "Full")]).unwrap();
        assert_eq!((broken.pool_cap, broken.private_cap), (0, 0));
        assert_eq!(broken.default_tier, Tier::See);
    }

    #[test]
    fn a_file_that_others_may_write_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        fs::create_dir_all(paths.settings().parent().unwrap()).unwrap();
        fs::write(paths.settings(), "").unwrap();
        fs::set_permissions(paths.settings(), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(read_settings(&paths, uid()), Err(SettingsError::File { .. })));
    }
}
