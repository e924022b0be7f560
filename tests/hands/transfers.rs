//! Files between the agent's qube and others.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use super::{
    machine::{Machine, on_host, until},
    terminal::{run, start},
};

const MIB: usize = 1024 * 1024;

/// Bytes of which no two pieces are the same.
fn content(length: usize) -> Vec<u8> {
    (0_u64..)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .take(length)
        .collect()
}

async fn done(machine: &Machine, folder: &Path, arguments: &[&str]) -> Value {
    let told = run(machine, folder, &[arguments, &["--json"]].concat()).await;
    assert_eq!(told.code, 0, "{told:?}");
    serde_json::from_str(&told.stdout).unwrap()
}

fn parts(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().contains("salt-bridge")).count()
}

#[test]
fn an_interrupted_upload_goes_on_where_it_ended() {
    on_host(async |machine| {
        let here = tempfile::tempdir().unwrap();
        let bytes = content(20 * MIB + 7);
        fs::write(here.path().join("big"), &bytes).unwrap();
        let file = fs::File::open(here.path().join("big")).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        let home = machine.home("work");
        let part = home.join("up/.big.salt-bridge-part");
        let mut upload = start(machine, here.path(), &["upload", "big", "work", "up/"]);
        until("a part has arrived", || part.metadata().is_ok_and(|meta| meta.len() > 0));
        upload.kill().await.unwrap();
        until("the call is over", || machine.host.processes("work").unwrap().is_empty());
        assert!(!home.join("up/big").exists());

        let result = done(machine, here.path(), &["upload", "big", "work", "up/"]).await;
        assert!(result["resumed_bytes"].as_u64().unwrap() > 0, "{result}");
        assert_eq!(fs::read(home.join("up/big")).unwrap(), bytes);
        let meta = home.join("up/big").metadata().unwrap();
        assert_eq!((meta.mode() & 0o777, meta.mtime()), (0o640, 1_700_000_000));
        assert_eq!(parts(&home.join("up")), 0);

        let told = run(machine, here.path(), &["upload", "big", "work", "up/"]).await;
        assert!(told.code == 2 && told.stderr.contains("the file exists"), "{told:?}");
        done(machine, here.path(), &["upload", "big", "work", "up/", "--overwrite"]).await;
    });
}

#[test]
fn an_upload_does_not_go_on_behind_other_bytes() {
    on_host(async |machine| {
        let here = tempfile::tempdir().unwrap();
        let bytes = content(9 * MIB);
        fs::write(here.path().join("big"), &bytes).unwrap();
        let home = machine.home("work");
        let left = json!({"vm_name": "work", "file_path": ".big.salt-bridge-part",
            "content": "other bytes"});
        done(machine, here.path(), &["call", "write_file_in_vm", &left.to_string()]).await;
        let result = done(machine, here.path(), &["upload", "big", "work"]).await;
        assert_eq!(result["resumed_bytes"], 0);
        assert_eq!(fs::read(home.join("big")).unwrap(), bytes);
    });
}

#[test]
fn an_interrupted_download_goes_on_only_behind_the_same_bytes() {
    on_host(async |machine| {
        let here = tempfile::tempdir().unwrap();
        let bytes = content(6 * MIB + 1);
        let there = machine.home("work").join("big");
        fs::write(&there, &bytes).unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o744)).unwrap();
        let part = here.path().join(".big.salt-bridge-part");
        for (left, resumed) in [
            (Vec::new(), 0),
            (bytes[..MIB].to_vec(), MIB),
            (bytes.clone(), bytes.len()),
            (b"other bytes".to_vec(), 0),
            ([&bytes[..], b"more"].concat(), 0),
        ] {
            fs::write(&part, &left).unwrap();
            let result = done(machine, here.path(), &["download", "work", "big"]).await;
            assert_eq!(result["resumed_bytes"], resumed, "{} bytes left", left.len());
            assert_eq!(fs::read(here.path().join("big")).unwrap(), bytes);
            let meta = here.path().join("big").metadata().unwrap();
            assert_eq!(meta.mode() & 0o777, 0o744);
            assert_eq!(meta.mtime(), there.metadata().unwrap().mtime());
            let told = run(machine, here.path(), &["download", "work", "big"]).await;
            assert!(told.code == 2 && told.stderr.contains("the file exists"), "{told:?}");
            fs::remove_file(here.path().join("big")).unwrap();
        }
        assert_eq!(parts(here.path()), 0);
        let told = run(machine, here.path(), &["download", "work", "nope"]).await;
        assert!(told.code == 2 && parts(here.path()) == 0, "{told:?}");
    });
}

#[test]
fn powers_and_the_folder_bound_what_a_tool_may_move() {
    on_host(async |machine| {
        let outer = tempfile::tempdir().unwrap();
        let here = outer.path().join("transfer");
        fs::create_dir(&here).unwrap();
        fs::write(outer.path().join("secret"), "s").unwrap();
        fs::write(here.join("plain"), "p").unwrap();
        symlink("../secret", here.join("link")).unwrap();
        let folder = here.to_str().unwrap();
        let call = async |tool: &str, vm: &str, local: &str| {
            let arguments =
                json!({"vm_name": vm, "local_path": local, "remote_path": "x"}).to_string();
            let line = ["call", tool, &arguments, "--transfer-dir", folder];
            run(machine, Path::new("/"), &line).await
        };
        assert_eq!(call("upload_to_vm", "work", "plain").await.code, 0);
        assert_eq!(fs::read(machine.home("work").join("x")).unwrap(), b"p");
        for local in ["link", "../secret", "/etc/hostname", "."] {
            for tool in ["upload_to_vm", "download_from_vm"] {
                let told = call(tool, "work", local).await;
                assert_eq!(told.code, 2, "{tool} {local} {told:?}");
            }
        }
        assert_eq!(fs::read(outer.path().join("secret")).unwrap(), b"s");
        // `test` grants see alone, and `vault` is not in scope.
        for vm in ["test", "vault"] {
            assert_eq!(call("upload_to_vm", vm, "plain").await.code, 126);
            assert_eq!(call("download_from_vm", vm, "new").await.code, 126);
        }
        assert!(!here.join("new").exists());
    });
}

#[test]
fn a_folder_is_moved_with_all_that_is_in_it_but_links() {
    on_host(async |machine| {
        let here = tempfile::tempdir().unwrap();
        fs::create_dir_all(here.path().join("tree/a/b")).unwrap();
        for (name, text) in [("tree/one", "1"), ("tree/a/two", "22"), ("tree/a/b/three \u{e9}", "")]
        {
            fs::write(here.path().join(name), text).unwrap();
        }
        symlink("one", here.path().join("tree/link")).unwrap();
        let result = done(machine, here.path(), &["upload", "tree", "work", "-r"]).await;
        assert_eq!(
            (&result["files"], &result["directories"], &result["bytes"], &result["skipped"]),
            (&json!(3), &json!(3), &json!(3), &json!(["tree/link"]))
        );
        let home = machine.home("work");
        assert_eq!(fs::read(home.join("tree/a/two")).unwrap(), b"22");
        assert!(home.join("tree/a/b/three \u{e9}").exists() && !home.join("tree/link").exists());

        symlink("one", home.join("tree/a/link")).unwrap();
        let back = ["download", "work", "tree", "back/again", "-r"];
        fs::create_dir(here.path().join("back")).unwrap();
        let result = done(machine, here.path(), &back).await;
        assert_eq!(
            (&result["files"], &result["directories"], &result["skipped"]),
            (&json!(3), &json!(3), &json!(["tree/a/link"]))
        );
        assert_eq!(fs::read(here.path().join("back/again/a/two")).unwrap(), b"22");
        assert!(here.path().join("back/again/a/b/three \u{e9}").exists());
    });
}
