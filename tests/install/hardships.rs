//! Installing where things go wrong or otherwise than usual: a full disk, folders that cannot be
//! written, a person who says no, a pause, a package.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        fs,
        io::{BufRead as _, BufReader, Write as _},
        os::unix::{
            fs::{MetadataExt as _, PermissionsExt as _, chown},
            net::UnixStream,
        },
        path::Path,
        process::{Command, Output, Stdio},
    };

    use crate::tests::{dom0, is_empty, program, saltbridged, script, text};

    const WORDS: [&str; 3] = ["install", "salt-bridge", "work"];
    const POLICY: &str = "etc/qubes/policy.d/30-salt-bridge.policy";

    /// Every file and link below the root, with mode and content.
    fn tree(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
        let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let status = fs::symlink_metadata(&path).unwrap();
                if status.is_dir() {
                    folders.push(path);
                    continue;
                }
                let content = if status.is_symlink() {
                    fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
                } else if status.is_file() {
                    fs::read(&path).unwrap()
                } else {
                    Vec::new()
                };
                found.insert(path.display().to_string(), (status.mode(), content));
            }
        }
        found
    }

    /// Runs a script of bash with the program and its arguments as `$@`.
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    fn bash(lines: &str, root: &Path, words: &[&str], input: &str) -> Output {
        let mut child = Command::new("/bin/bash")
            .args(["-c", lines, "bash"])
            .arg(program())
            .arg("--root")
            .arg(root)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that reads nothing may be gone already.
        drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
        child.wait_with_output().unwrap()
    }

    fn admits(root: &Path) -> bool {
        fs::read_to_string(root.join(POLICY)).is_ok_and(|text| text.contains(" allow"))
    }

    /// Files may not grow beyond so many KiB, and writing more is an error, as on a full disk.
    fn with_room_for(kibibytes: u32) -> String {
        format!("trap '' XFSZ; ulimit -f {kibibytes}; exec \"$@\"")
    }

    #[test]
    fn a_disk_without_room_leaves_nothing_behind() {
        for kibibytes in [0, 1, 4, 64, 1024] {
            let root = dom0();
            let output = bash(&with_room_for(kibibytes), root.path(), &WORDS, "");
            assert_eq!(output.status.code(), Some(1), "{kibibytes} KiB: {output:?}");
            assert!(text(&output.stderr).contains("nothing was changed"), "{output:?}");
            assert!(is_empty(root.path()), "{kibibytes} KiB");
        }
    }

    #[test]
    fn a_disk_without_room_leaves_a_former_installation_as_it_was() {
        let root = dom0();
        assert!(saltbridged(root.path(), &WORDS).status.success());
        let before = tree(root.path());
        let more = ["install", "salt-bridge", "work", "dev", "--tag", "lab"];
        for kibibytes in [0, 1, 4] {
            let output = bash(&with_room_for(kibibytes), root.path(), &more, "");
            assert_eq!(output.status.code(), Some(1), "{kibibytes} KiB: {output:?}");
            assert_eq!(tree(root.path()), before, "{kibibytes} KiB");
        }
        for words in [&["scope", "add", "dev"][..], &["scope", "until", "work", "+1h"]] {
            let output = bash(&with_room_for(0), root.path(), words, "");
            assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
            assert_eq!(tree(root.path()), before, "{words:?}");
        }
        // Undoing needs no more room than it gives back, but for its journal.
        let output = bash(&with_room_for(0), root.path(), &["uninstall"], "");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(tree(root.path()), before);
        assert!(saltbridged(root.path(), &["uninstall"]).status.success());
        assert!(is_empty(root.path()));
    }

    #[test]
    fn killed_for_want_of_room_it_is_recovered() {
        let root = dom0();
        // The signal kills it in the middle of writing the program.
        let output = bash("ulimit -f 64; exec \"$@\"", root.path(), &WORDS, "");
        assert_eq!(output.status.code(), None, "{output:?}");
        assert!(!admits(root.path()));
        let output = saltbridged(root.path(), &["recover", "--json"]);
        assert_eq!(
            text(&output.stdout).trim().replace([' ', '\n'], ""),
            r#"{"recovered":"reverted"}"#
        );
        assert!(is_empty(root.path()));
    }

    /// Gives everything below a folder, and the folder, to a user.
    fn give(path: &Path, uid: u32) {
        chown(path, Some(uid), Some(uid)).unwrap();
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                give(&entry.unwrap().path(), uid);
            }
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_and_all_is_as_before() {
        // Root may write everywhere, so that it is somebody else who tries.
        const NOBODY: u32 = 65_534;
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let run = "if [ \"$(id -u)\" -eq 0 ]; then \
                   exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"; fi; exec \"$@\"";
        let folder = program().parent().unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        for closed in ["etc/qubes-rpc", "etc/qubes/policy.d", "etc/systemd/system", "usr/local"] {
            let root = dom0();
            fs::create_dir_all(root.path().join(closed)).unwrap();
            if is_root {
                give(root.path(), NOBODY);
            }
            let before = tree(root.path());
            let mode = |mode| fs::Permissions::from_mode(mode);
            fs::set_permissions(root.path().join(closed), mode(0o555)).unwrap();
            let output = bash(run, root.path(), &WORDS, "");
            assert_eq!(output.status.code(), Some(1), "{closed}: {output:?}");
            let told = text(&output.stderr);
            assert!(told.contains(closed) && told.contains("nothing was changed"), "{told}");
            assert_eq!(tree(root.path()), before, "{closed}");
            assert!(!root.path().join("var/lib").exists(), "{closed}");
        }
    }

    /// Runs it in a terminal into which a person types.
    const TYPED: &str = "exec script -qec \"$(printf '%q ' \"$@\")\" /dev/null";

    #[test]
    fn a_person_is_asked_and_may_say_no() {
        for (answer, code) in [("n\n", 1), ("\n", 1), ("yess\n", 1), ("Yes\n", 0)] {
            let root = dom0();
            let output = bash(TYPED, root.path(), &WORDS, answer);
            let told = text(&output.stdout);
            assert_eq!(output.status.code(), Some(code), "{answer:?}: {told}");
            assert!(told.contains("Go on? [y/N]"), "{told}");
            assert!(told.contains("+ @agent salt-bridge"), "the list is shown before: {told}");
            if code == 0 {
                assert!(admits(root.path()));
                // So is a person who undoes it.
                let output = bash(TYPED, root.path(), &["uninstall"], "n\n");
                assert_eq!(output.status.code(), Some(1), "{output:?}");
                assert!(admits(root.path()));
                let output = bash(TYPED, root.path(), &["uninstall"], "y\n");
                assert_eq!(output.status.code(), Some(0), "{output:?}");
            } else {
                assert!(told.contains("nothing was changed, as you said"), "{told}");
            }
            assert!(is_empty(root.path()), "{answer:?}");
        }
    }

    #[test]
    fn whoever_said_yes_and_whoever_is_no_person_is_not_asked() {
        for words in [&["--yes"][..], &["--json"]] {
            let root = dom0();
            let output = bash(TYPED, root.path(), &[&WORDS[..], words].concat(), "");
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            assert!(!text(&output.stdout).contains("Go on?"), "{output:?}");
            assert!(admits(root.path()));
        }
        let root = dom0();
        let output = bash("exec \"$@\"", root.path(), &WORDS, "n\n");
        assert!(output.status.success() && admits(root.path()), "{output:?}");
    }

    #[test]
    fn installed_while_paused_it_stays_paused() {
        let root = dom0();
        assert!(saltbridged(root.path(), &WORDS).status.success());
        assert!(saltbridged(root.path(), &["pause"]).status.success());
        assert!(!admits(root.path()));
        let output = saltbridged(root.path(), &["install", "salt-bridge", "work", "dev:see"]);
        assert!(output.status.success(), "{output:?}");
        assert!(text(&output.stdout).contains("paused: everything stays denied"), "{output:?}");
        assert!(!admits(root.path()));
        let list = fs::read_to_string(root.path().join("etc/qubes/salt-bridge-allowed-vms"));
        assert!(list.unwrap().contains("\ndev see\n"));
        assert!(saltbridged(root.path(), &["resume"]).status.success());
        let policy = fs::read_to_string(root.path().join(POLICY)).unwrap();
        assert!(policy.contains("saltbridge.VmList + salt-bridge @adminvm allow"), "{policy}");
        assert!(saltbridged(root.path(), &["pause"]).status.success());
        assert!(saltbridged(root.path(), &["uninstall"]).status.success());
        assert!(is_empty(root.path()), "the pause too is gone");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    fn a_packages_program_is_recognised_and_left_to_the_package() {
        let root = dom0();
        let path = root.path().join("usr/bin/saltbridged");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(program(), &path).unwrap();
        let run = |words: &[&str]| {
            let output = Command::new(&path).arg("--root").arg(root.path()).args(words).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{words:?}: {output:?}");
        };
        run(&WORDS);
        assert!(admits(root.path()));
        assert!(!root.path().join("usr/local").exists());
        assert!(!root.path().join("etc/systemd/system/salt-bridge.service").exists());
        let link = root.path().join("etc/systemd/system/sockets.target.wants/salt-bridge.socket");
        let aim = Path::new("/usr/lib/systemd/system/salt-bridge.socket");
        assert_eq!(fs::read_link(link).unwrap(), aim);
        run(&["uninstall", "--yes"]);
        assert!(path.exists() && !root.path().join("etc").exists());
    }

    #[test]
    fn the_script_installs_the_real_program() {
        let root = dom0();
        let own = format!("--root={}", root.path().display());
        let (output, log) = script(program(), &["salt-bridge", "work", "dev:see", &own, "--yes"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(log.contains("\nsudo "), "{log}");
        assert!(admits(root.path()));
        let installed = root.path().join("usr/local/bin/saltbridged");
        assert!(fs::read(installed).unwrap() == fs::read(program()).unwrap());
        let (output, _) = script(program(), &["salt-bridge", "nope", &own, "--yes"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("there is no qube named nope"), "{output:?}");
        assert!(saltbridged(root.path(), &["uninstall"]).status.success());
        assert!(is_empty(root.path()));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the program under test, and its socket")]
    fn the_helper_knows_its_peer_by_name_from_the_file_alone() {
        let root = dom0();
        let socket = root.path().join("s");
        let listen = ["--listen", socket.to_str().unwrap()];
        let words =
            |name: &'static str| [&["tcp-policy", "--peer-user", name], &listen[..]].concat();
        let output = saltbridged(root.path(), &words("salt-bridge"));
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("cannot read /etc/passwd"), "{output:?}");
        fs::create_dir_all(root.path().join("etc")).unwrap();
        let passwd = "salt-bridge-x:x:1:1::/:/bin/sh\nsalt-bridge:x:990:985::/:/usr/sbin/nologin\n";
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        let output = saltbridged(root.path(), &words("salt"));
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("there is no user salt in"), "{output:?}");
        let mut child = Command::new(program())
            .arg("--root")
            .arg(root.path())
            .args(words("salt-bridge"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(_) => std::thread::yield_now(),
            }
        };
        stream.write_all(b"nonsense\n").unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        assert_eq!(reply, "\"refused\"");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
