//! Directories, searches, edits, pieces, and copies from qube to qube.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use salt_bridge_sim::{McpClient, Population, Resident};
use serde_json::{Value, json};

use super::machine::{SCOPE, becomes, error, ok, on_host, on_host_with, until};

/// No copy leaves anything of its own in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Makes a file in a qube as its user does.
async fn make(client: &mut McpClient, path: &str, content: &str) {
    let write = json!({"vm_name": "work", "file_path": path, "content": content});
    ok(client, "write_file_in_vm", write).await;
}

async fn shell(client: &mut McpClient, qube: &str, command: &str) {
    let ran = ok(client, "exec_in_vm", json!({"vm_name": qube, "command": command})).await;
    assert_eq!(ran["exit_code"], 0, "{ran}");
}

#[test]
fn a_directory_is_listed_searched_and_a_file_in_it_edited() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        make(&mut client, "src/main.rs", "fn main() {\n    old();\n}\n").await;
        make(&mut client, "src/two\nlines", "old news\n").await;
        shell(&mut client, "work", "chmod 751 src/main.rs").await;
        let list =
            ok(&mut client, "list_dir_in_vm", json!({"vm_name": "work", "file_path": "src"}));
        let list = list.await;
        let entries = list["entries"].as_array().unwrap();
        let told: Vec<_> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
        assert_eq!((told, &list["total"]), (vec!["main.rs", "two\nlines"], &json!(2)));
        assert_eq!((&entries[0]["mode"], &entries[0]["size"]), (&json!("0751"), &json!(25)));
        let search =
            json!({"vm_name": "work", "file_path": "src", "pattern": "old\\(", "glob": "*.rs"});
        let found = ok(&mut client, "search_in_vm", search).await;
        assert_eq!(found["matches"], 1);
        assert_eq!(
            (&found["lines"][0]["line"], &found["lines"][0]["text"]),
            (&json!(2), &json!("    old();"))
        );
        let none = json!({"vm_name": "work", "file_path": "src", "pattern": "zzz"});
        assert_eq!(ok(&mut client, "search_in_vm", none).await["lines"], json!([]));
        let edit = json!({"vm_name": "work", "file_path": "src/main.rs", "edits": [
            {"old": "old", "new": "new"}, {"old": "new();\n}", "new": "new();\n    more();\n}"}]});
        let edited = ok(&mut client, "edit_file_in_vm", edit).await;
        assert_eq!(edited["replacements"], 2);
        let path = machine.home("work").join("src/main.rs");
        assert_eq!(fs::read_to_string(&path).unwrap(), "fn main() {\n    new();\n    more();\n}\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o751);
        assert!(edited["excerpt"].as_str().unwrap().contains("+    more();\n"));
        let again =
            json!({"vm_name": "work", "file_path": "src/main.rs", "old": "()", "new": "(1)"});
        let refused = error(&mut client, "edit_file_in_vm", again).await;
        assert!(refused.contains("3 times, not 1, on lines 1, 2, 3"), "{refused}");
        let stale = json!({"vm_name": "work", "file_path": "src/main.rs", "old": "more", "new": "less",
            "if_sha256": "0".repeat(64)});
        let refused = error(&mut client, "edit_file_in_vm", stale).await;
        assert!(refused.contains(edited["sha256"].as_str().unwrap()), "{refused}");
    });
}

#[test]
fn a_file_is_written_in_pieces_and_moved_to_its_place() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let write = |more: Value| {
            let mut write = json!({"vm_name": "work", "file_path": "part"});
            write.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            write
        };
        ok(&mut client, "write_file_in_vm", write(json!({"content": "one ", "offset": 0}))).await;
        ok(&mut client, "write_file_in_vm", write(json!({"content": "two", "offset": 4}))).await;
        let wrong = write(json!({"content": "x", "offset": 4}));
        let refused = error(&mut client, "write_file_in_vm", wrong).await;
        assert!(refused.contains("has 7 bytes"), "{refused}");
        let place =
            write(json!({"content": "", "offset": 7, "move_to": "deep/file", "mode": "0640",
            "modified": 1_000_000, "create_only": true}));
        let moved = ok(&mut client, "write_file_in_vm", place).await;
        assert_eq!(moved["created"], true);
        let file = machine.home("work").join("deep/file");
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o640, 1_000_000));
        assert_eq!(fs::read(file).unwrap(), b"one two");
        assert!(!machine.home("work").join("part").exists());
    });
}

#[test]
fn a_tree_is_copied_whole_with_its_modes_and_nothing_is_overwritten_unasked() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        make(&mut client, "tree/deep/it's", "content").await;
        let rest = "cd tree && ln -s \"deep/it's\" link && chmod 750 deep/* && chmod 555 deep";
        shell(&mut client, "work", rest).await;
        let copy = |more: Value| {
            let mut copy = json!({"source_vm": "work", "source_path": "tree", "target_vm": "dev",
                "target_path": "new/copy"});
            copy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            copy
        };
        let refused = error(&mut client, "copy_between_vms", copy(json!({}))).await;
        assert!(refused.contains("recursive"), "{refused}");
        let tree = ok(&mut client, "copy_between_vms", copy(json!({"recursive": true}))).await;
        assert_eq!(
            (&tree["path"], &tree["created"]),
            (&json!("/home/user/new/copy"), &json!(true))
        );
        let new = machine.home("dev").join("new");
        assert_eq!(fs::read(new.join("copy/deep/it's")).unwrap(), b"content");
        assert_eq!(fs::metadata(new.join("copy/deep/it's")).unwrap().mode() & 0o7777, 0o750);
        assert_eq!(fs::metadata(new.join("copy/deep")).unwrap().mode() & 0o7777, 0o555);
        assert_eq!(fs::read_link(new.join("copy/link")).unwrap(), Path::new("deep/it's"));
        let again = error(&mut client, "copy_between_vms", copy(json!({"recursive": true}))).await;
        assert!(again.contains("target_path exists"), "{again}");
        let over = copy(json!({"recursive": true, "overwrite": true}));
        assert_eq!(ok(&mut client, "copy_between_vms", over).await["created"], false);
        let into = copy(json!({"source_path": "tree/deep/it's", "target_path": "new/"}));
        ok(&mut client, "copy_between_vms", into).await;
        assert_eq!(names(&new), ["copy", "it's"]);
        let missing = copy(json!({"source_path": "nope"}));
        let missing = error(&mut client, "copy_between_vms", missing).await;
        assert!(missing.contains("target_path exists"), "{missing}");
        let missing = copy(json!({"source_path": "nope", "target_path": "new/nope"}));
        let missing = error(&mut client, "copy_between_vms", missing).await;
        assert!(missing.contains("no such file"), "{missing}");
        assert_eq!(names(&new), ["copy", "it's"]);
    });
}

#[test]
fn a_copy_needs_files_over_both_qubes_and_not_by_asking() {
    let scope = format!("{SCOPE}asks  see,files:ask\n");
    on_host_with(
        &scope,
        Population::default().and([Resident::app("ro", "gray"), Resident::app("asks", "gray")]),
        async |machine| {
            let mut client = machine.client().await;
            make(&mut client, "file", "content").await;
            for (source, target) in [
                ("work", "test"),
                ("test", "work"),
                ("work", "asks"),
                ("asks", "work"),
                ("work", "vault"),
                ("vault", "work"),
                ("work", "nope"),
                ("work", "dom0"),
                ("@adminvm", "work"),
                ("work", "salt-bridge"),
            ] {
                let copy = json!({"source_vm": source, "source_path": "file", "target_vm": target,
                    "target_path": "copy"});
                let refused = error(&mut client, "copy_between_vms", copy).await;
                assert_eq!(
                    refused,
                    error(&mut client, "start_vm", json!({"vm_name": "nope"})).await
                );
            }
        },
    );
}

#[test]
fn a_copy_whose_caller_is_gone_leaves_nothing_in_either_qube() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        ok(&mut client, "start_vm", json!({"vm_name": "dev"})).await;
        shell(&mut client, "work", "truncate -s 60G big").await;
        shell(&mut client, "dev", "mkdir place").await;
        let place = machine.home("dev").join("place");
        let copy = json!({"source_vm": "work", "source_path": "big", "target_vm": "dev",
            "target_path": "place/big", "timeout_seconds": 2});
        let late = error(&mut client, "copy_between_vms", copy.clone()).await;
        assert!(late.contains("in time"), "{late}");
        assert_eq!(names(&place), [""; 0]);
        let mut copy = copy;
        copy["timeout_seconds"] = json!(600);
        {
            let arguments = super::machine::object(copy);
            let call = client.call("copy_between_vms", arguments);
            let begun = becomes(|| !names(&place).is_empty());
            tokio::select! { _ = call => panic!("60 GB were copied"), () = begun => {} }
        }
        drop(client);
        until("the copy is undone", || names(&place).is_empty());
        let programs = |qube| machine.host.processes(qube).unwrap();
        until("nothing runs", || programs("work").is_empty() && programs("dev").is_empty());
    });
}

#[test]
fn into_a_dump_new_files_are_copied_and_nothing_else_is_done() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        make(&mut client, "file", "content").await;
        machine.host.start_qube("vault").unwrap();
        let copy = |place: &str, overwrite: bool| {
            json!({"source_vm": "work", "source_path": "file", "target_vm": "vault",
                "target_path": place, "overwrite": overwrite})
        };
        let nope = error(&mut client, "start_vm", json!({"vm_name": "nope"})).await;
        let place = "QubesIncoming/work/";
        assert_eq!(error(&mut client, "copy_between_vms", copy(place, false)).await, nope);
        machine.host.set_tag("vault", "ai-dump").unwrap();
        let copied = ok(&mut client, "copy_between_vms", copy(place, false)).await;
        assert_eq!(copied["path"], "/home/user/QubesIncoming/work/file");
        let folder = machine.home("vault").join("QubesIncoming/work");
        assert_eq!(fs::read(folder.join("file")).unwrap(), b"content");
        let again = error(&mut client, "copy_between_vms", copy(place, false)).await;
        assert!(again.contains("exists"), "{again}");
        let over = error(&mut client, "copy_between_vms", copy(place, true)).await;
        assert!(over.contains("overwrite is refused"), "{over}");
        for elsewhere in [
            "x",
            ".config/autostart/x.desktop",
            "QubesIncoming/dev/x",
            "QubesIncoming/work/a/b",
            "QubesIncoming/work/../../x",
            "/home/user/QubesIncoming/work/x",
        ] {
            let refused = error(&mut client, "copy_between_vms", copy(elsewhere, false)).await;
            assert!(refused.contains("QubesIncoming/work/NAME"), "{elsewhere}: {refused}");
        }
        let back = json!({"source_vm": "vault", "source_path": "QubesIncoming/work/file",
            "target_vm": "work", "target_path": "back"});
        assert_eq!(error(&mut client, "copy_between_vms", back).await, nope);
        let read = json!({"vm_name": "vault", "file_path": "QubesIncoming/work/file"});
        assert_eq!(error(&mut client, "read_file_in_vm", read).await, nope);
        machine.host.set_tag("vault", "ai-managed").unwrap();
        let both = copy("QubesIncoming/work/other", false);
        assert_eq!(error(&mut client, "copy_between_vms", both).await, nope);
        assert_eq!(names(&folder), ["file"]);
    });
}
