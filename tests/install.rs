//! Installation as the operator runs it: the program, and the script that fetches it.

#[cfg(test)]
#[path = "install/hardships.rs"]
mod hardships;

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
        os::unix::{fs::PermissionsExt, net::UnixListener},
        path::{Path, PathBuf},
        process::{Command, Output, Stdio},
        sync::OnceLock,
        thread,
    };

    use tempfile::TempDir;

    const QUBES: &str = "dom0 class=AdminVM state=Running\n\
        salt-bridge class=AppVM state=Running\nwork class=AppVM state=Halted\n\
        dev class=AppVM state=Halted\ndebian-13 class=TemplateVM state=Halted\n";
    const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dom0-install.sh");

    /// An empty root on which a qubesd answers that lists four qubes. It keeps the tags of what the
    /// agent creates in a file, while they are set.
    pub(super) fn dom0() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("var/run");
        fs::create_dir_all(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("qubesd.sock")).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                stream.read_to_end(&mut request).unwrap();
                let request = String::from_utf8(request).unwrap();
                stream.write_all(&answer(&request, &folder.join("created-tags"))).unwrap();
            }
        });
        root
    }

    fn answer(request: &str, tags: &Path) -> Vec<u8> {
        let (call, payload) = request.split_once('\0').unwrap();
        let reply = match call.strip_suffix("+tag-created-vm-with dom0 name salt-bridge") {
            Some("admin.vm.feature.Get") => match fs::read_to_string(tags) {
                Ok(tags) => format!("0\0{tags}"),
                Err(_) => "2\0QubesFeatureNotFoundError\0\0tag-created-vm-with\0".into(),
            },
            Some("admin.vm.feature.Set") => {
                fs::write(tags, payload).unwrap();
                "0\0".into()
            }
            Some("admin.vm.feature.Remove") => {
                fs::remove_file(tags).unwrap();
                "0\0".into()
            }
            _ => {
                assert!(call.starts_with("admin.vm.List"), "{call}");
                format!("0\0{QUBES}")
            }
        };
        reply.into_bytes()
    }

    /// The program without what debuggers need, which is most of it and would be installed too.
    #[expect(clippy::disallowed_methods, reason = "strip comes with the linker")]
    pub(super) fn program() -> &'static Path {
        static PROGRAM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
        let (_, path) = PROGRAM.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let (whole, path) =
                (env!("CARGO_BIN_EXE_saltbridged"), folder.path().join("saltbridged"));
            let stripped = Command::new("strip").arg("-o").arg(&path).arg(whole).status();
            if !stripped.is_ok_and(|status| status.success()) {
                fs::copy(whole, &path).unwrap();
            }
            (folder, path)
        });
        path
    }

    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    pub(super) fn saltbridged(root: &Path, words: &[&str]) -> Output {
        Command::new(program())
            .arg("--root")
            .arg(root)
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub(super) fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// Whether nothing but qubesd's socket is below the root.
    pub(super) fn is_empty(root: &Path) -> bool {
        let count = |path: &Path| fs::read_dir(path).unwrap().count();
        count(root) == 1 && count(&root.join("var")) == 1 && count(&root.join("var/run")) == 1
    }

    #[test]
    fn one_argument_prints_usage_and_changes_nothing() {
        let root = dom0();
        for words in [&["install"][..], &["install", "salt-bridge"]] {
            let output = saltbridged(root.path(), words);
            assert_eq!(output.status.code(), Some(2));
            assert!(text(&output.stderr).contains("Usage"), "{output:?}");
        }
        assert!(is_empty(root.path()));
    }

    #[test]
    fn what_cannot_be_granted_is_wrong_usage() {
        let root = dom0();
        for words in [
            &["salt-bridge", "salt-bridge"][..],
            &["salt-bridge", "work", "work"],
            &["salt-bridge", "work", "work:see"],
            &["salt-bridge", "dom0"],
            &["dom0", "work"],
            &["salt-bridge", "@anyvm"],
            &["salt-bridge", "@adminvm"],
            &["salt-bridge", "work:peek"],
            &["salt-bridge", "work:"],
            &["salt-bridge", "work dev"],
            &["salt-bridge", "work", "--tag", "ai-dump"],
            &["salt-bridge", "work", "--tag", "ai-managed:see:ask"],
        ] {
            let words: Vec<&str> = ["install"].iter().chain(words).copied().collect();
            let output = saltbridged(root.path(), &words);
            assert_eq!(output.status.code(), Some(2), "{words:?} {output:?}");
            assert!(!output.stderr.is_empty());
        }
        assert!(is_empty(root.path()));
    }

    #[test]
    fn qubes_that_are_not_there_are_all_named() {
        let root = dom0();
        let output = saltbridged(root.path(), &["install", "salt-bridge", "work", "nil", "nope"]);
        assert_eq!(output.status.code(), Some(1));
        let told = text(&output.stderr);
        assert!(told.contains("nil") && told.contains("nope"), "{told}");
        assert!(is_empty(root.path()));
    }

    #[test]
    fn without_qubesd_nothing_is_changed() {
        let root = tempfile::tempdir().unwrap();
        let output = saltbridged(root.path(), &["install", "salt-bridge", "work"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("qubesd"), "{output:?}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn adapters_that_are_not_there_are_refused() {
        let root = dom0();
        let words = ["install", "salt-bridge", "work", "--compat", "other"];
        let output = saltbridged(root.path(), &words);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("qmcp"), "{output:?}");
        assert!(is_empty(root.path()));
    }

    #[test]
    fn a_dry_run_shows_every_file_and_changes_nothing() {
        let root = dom0();
        let words = ["install", "salt-bridge", "work", "debian-13:see", "--dry-run"];
        let output = saltbridged(root.path(), &words);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let told = text(&output.stdout);
        for part in [
            "debian-13 is a template",
            "* create /etc/qubes/salt-bridge-allowed-vms",
            "  + @agent salt-bridge",
            "  + debian-13 see",
            "  + saltbridge.VmExec +work salt-bridge @adminvm allow",
            "* create /etc/qubes-rpc/saltbridge.VmExec -> /run/salt-bridge/qrexec.sock",
            "  + ExecStart=/usr/local/bin/saltbridged serve",
            "Nothing was changed.",
        ] {
            assert!(told.contains(part), "{part:?} is not in:\n{told}");
        }
        assert!(is_empty(root.path()));
    }

    #[test]
    fn installed_twice_and_undone() {
        let root = dom0();
        let words = ["install", "salt-bridge", "work", "dev:see,files:ask", "--json"];
        let output = saltbridged(root.path(), &words);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(outcome["changed"], true);
        let policy = root.path().join("etc/qubes/policy.d/30-salt-bridge.policy");
        let shown = saltbridged(root.path(), &["policy"]);
        assert_eq!(fs::read_to_string(&policy).unwrap(), text(&shown.stdout));
        let installed = root.path().join("usr/local/bin/saltbridged");
        assert!(fs::read(&installed).unwrap() == fs::read(program()).unwrap());

        let output = saltbridged(root.path(), &words);
        let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(outcome["changed"], false, "{output:?}");

        let output = saltbridged(root.path(), &["uninstall"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(is_empty(root.path()));
        let output = saltbridged(root.path(), &["uninstall"]);
        assert!(text(&output.stdout).contains("Nothing is installed"), "{output:?}");
    }

    #[test]
    fn the_sandbox_is_told_to_qubesd_and_taken_back() {
        let root = dom0();
        let tags = root.path().join("var/run/created-tags");
        let install = |words: &[&str]| {
            let output = saltbridged(root.path(), &[&["install", "salt-bridge"], words].concat());
            assert!(output.status.success(), "{output:?}");
            text(&output.stdout)
        };
        let told = install(&["--tag", "ai-managed:see", "--dry-run"]);
        assert!(told.contains("* give the tag ai-managed to what salt-bridge creates"), "{told}");
        assert!(is_empty(root.path()));
        install(&["--tag", "ai-managed:see"]);
        assert_eq!(fs::read_to_string(&tags).unwrap(), "ai-managed");
        assert!(install(&["--tag", "ai-managed:see"]).contains("Nothing to change"));
        let told = install(&["work"]);
        assert!(told.contains("* give no longer the tag"), "{told}");
        assert!(!tags.exists());
        install(&["--tag", "ai-managed:see"]);
        assert!(saltbridged(root.path(), &["uninstall"]).status.success());
        assert!(is_empty(root.path()));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_and_nothing_stays() {
        let root = dom0();
        fs::create_dir_all(root.path().join("etc/qubes-rpc/saltbridge.VmExec/mine")).unwrap();
        let output = saltbridged(root.path(), &["install", "salt-bridge", "work"]);
        assert_eq!(output.status.code(), Some(1));
        let told = text(&output.stderr);
        assert!(told.contains("saltbridge.VmExec"), "{told}");
        assert!(told.contains("nothing was changed"), "{told}");
        assert!(!root.path().join("etc/qubes").exists());
        assert!(!root.path().join("var/lib").exists());
    }

    /// Runs the script with stand-ins for `qvm-run`, `sudo` and `id`. What qubes hold is this file.
    #[expect(clippy::disallowed_methods, reason = "the script under test")]
    pub(super) fn script(program: &Path, words: &[&str]) -> (Output, String) {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let stub = |name: &str, body: &str| {
            let path = folder.path().join(name);
            fs::write(&path, format!("#!/bin/bash\n{body}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        stub(
            "qvm-run",
            &format!(
                "echo \"qvm-run $*\" >>{log}; cat {program} || exit 1",
                log = log.display(),
                program = program.display()
            ),
        );
        stub("sudo", &format!("echo \"sudo ${{3##*/}}\" >>{}; shift; exec \"$@\"", log.display()));
        stub("id", "echo 1000");
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
        let output = Command::new("/bin/bash")
            .arg(SCRIPT)
            .args(words)
            .env("PATH", path)
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let left = fs::read_dir(folder.path())
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("tmp")
            })
            .count();
        assert_eq!(left, 0, "the script leaves nothing behind");
        (output, fs::read_to_string(log).unwrap_or_default())
    }

    fn echo() -> &'static Path {
        Path::new("/bin/echo")
    }

    #[test]
    fn the_script_fetches_the_program_and_hands_over_as_root() {
        let words = [
            "salt-bridge",
            "work:see,exec",
            "--tag",
            "ai-managed",
            "--dry-run",
            "dev",
            "--from=store",
            "--path",
            "/home/user/it's here",
        ];
        let (output, log) = script(echo(), &words);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(
            text(&output.stdout),
            "install --tag=ai-managed --dry-run -- salt-bridge work:see,exec dev\n"
        );
        assert_eq!(log, "qvm-run -p store cat -- /home/user/it\\'s\\ here\nsudo install\n");
        let told = text(&output.stderr);
        assert!(told.contains("SHA-256: ") && told.contains("from store:"), "{told}");
    }

    #[test]
    fn the_script_takes_the_program_from_the_agents_qube_unless_told_otherwise() {
        let (output, log) = script(echo(), &["salt-bridge", "work"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(log.starts_with("qvm-run -p salt-bridge cat -- /usr/local/bin/saltbridged\n"));
    }

    #[test]
    fn the_script_shows_usage_for_what_it_does_not_know_and_fetches_nothing() {
        for words in [&[][..], &["salt-bridge"], &["a", "b", "--what"], &["a", "b", "--from"]] {
            let (output, log) = script(echo(), words);
            assert_eq!(output.status.code(), Some(2), "{words:?}");
            assert!(text(&output.stderr).starts_with("Usage: "), "{output:?}");
            assert_eq!(log, "");
        }
        let (output, log) = script(echo(), &["-p", "work"]);
        assert_eq!((output.status.code(), log.as_str()), (Some(2), ""));
        let (output, log) = script(echo(), &["a", "b", "--from", "-x"]);
        assert_eq!((output.status.code(), log.as_str()), (Some(1), ""));
    }

    #[test]
    fn the_script_refuses_what_is_not_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let large = file("large", b"\x7fELF");
        fs::File::options().write(true).open(&large).unwrap().set_len((128 << 20) + 1).unwrap();
        for (program, reason) in [
            (file("empty", b""), "empty"),
            (file("script", b"#!/bin/sh\n"), "no program"),
            (large, "larger"),
            (folder.path().join("missing"), "cannot read"),
        ] {
            let (output, log) = script(&program, &["salt-bridge", "work"]);
            assert_eq!(output.status.code(), Some(1), "{reason}");
            assert!(text(&output.stderr).contains(reason), "{reason}: {output:?}");
            assert!(!log.contains("sudo"), "{reason}");
        }
    }

    #[test]
    fn the_script_refuses_another_digest() {
        let good = saltbridge_digest();
        let (output, _) = script(echo(), &["salt-bridge", "work", "--sha256", &good]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let (output, log) = script(echo(), &["salt-bridge", "work", "--sha256", &"0".repeat(64)]);
        assert_eq!(output.status.code(), Some(1));
        assert!(!log.contains("sudo"));
        let (output, log) = script(echo(), &["salt-bridge", "work", "--sha256", "0123"]);
        assert_eq!((output.status.code(), log.as_str()), (Some(1), ""));
    }

    #[expect(clippy::disallowed_methods, reason = "the digest as the operator gets it")]
    fn saltbridge_digest() -> String {
        let output = Command::new("sha256sum").arg(echo()).output().unwrap();
        text(&output.stdout).split(' ').next().unwrap().to_uppercase()
    }
}
