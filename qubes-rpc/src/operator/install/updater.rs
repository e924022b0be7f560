//! `salt-bridge-update.sh`: a script that holds the program and its digest.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::state::sha256;

const TEMPLATE: &str = include_str!("updater.sh");
/// As `base64` itself breaks lines.
const COLUMNS: usize = 76;

/// The script that installs this program.
pub(crate) fn render_updater(program: &[u8]) -> String {
    let mut script = TEMPLATE
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@SHA256@", &sha256(program));
    let encoded = STANDARD.encode(program);
    for line in encoded.as_bytes().chunks(COLUMNS) {
        script.extend(line.iter().copied().map(char::from));
        script.push('\n');
    }
    script
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        process::{Command, Output, Stdio},
    };

    use super::*;

    /// Runs a script as root would, with `id` saying so.
    #[expect(clippy::disallowed_methods, reason = "the script under test")]
    fn run(script: &str, words: &[&str]) -> Output {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (path, id) = (folder.path().join("update.sh"), folder.path().join("id"));
        fs::write(&path, script).unwrap();
        fs::write(&id, "#!/bin/bash\necho 0\n").unwrap();
        fs::set_permissions(&id, fs::Permissions::from_mode(0o755)).unwrap();
        Command::new("/bin/bash")
            .arg(&path)
            .args(words)
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn program() -> Vec<u8> {
        let mut program = b"#!/bin/bash\nprintf '%s\\n' \"$@\"\nexit 3\n#".to_vec();
        program.extend((0..=255).cycle().take(1000));
        program
    }

    #[test]
    fn the_script_runs_the_program_that_it_holds() {
        let output = run(&render_updater(&program()), &["salt-bridge", "my work", "--dry-run"]);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "install\nsalt-bridge\nmy work\n--dry-run\n"
        );
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn a_damaged_script_runs_nothing() {
        let script = render_updater(&program());
        let cut = script.get(..script.len() - 8).unwrap();
        for damaged in [cut.to_owned(), script.replace("IyEv", "IyEw"), script.clone() + "AAAA\n"] {
            let output = run(&damaged, &["salt-bridge", "work"]);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert!(output.stdout.is_empty());
            assert!(String::from_utf8_lossy(&output.stderr).contains("damaged"));
        }
    }

    #[test]
    fn without_arguments_it_shows_usage() {
        let output = run(&render_updater(&program()), &[]);
        assert_eq!(output.status.code(), Some(2));
    }
}
