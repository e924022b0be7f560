//! Files: any bytes, any name, any size, and what a write keeps.

use std::{
    fs::{self, Permissions},
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use salt_bridge_sim::McpClient;
use serde_json::{Value, json};

use super::machine::{ERAS, error, ok, on_host};

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What a result of `read_file_in_vm` holds.
fn content(result: &Value) -> Vec<u8> {
    let text = result["content"].as_str().unwrap();
    match result["encoding"].as_str().unwrap() {
        "utf-8" => text.as_bytes().to_vec(),
        "base64" => STANDARD.decode(text).unwrap(),
        other => panic!("encoding {other}"),
    }
}

fn leftovers(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

async fn round_trip(client: &mut McpClient, path: &Value, written: &Value, expected: &[u8]) {
    let mut write = json!({"vm_name": "work"});
    for part in [path, written] {
        write.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
    }
    let result = ok(client, "write_file_in_vm", write).await;
    assert_eq!(result["bytes_written"], expected.len(), "{path}");
    let mut read = json!({"vm_name": "work"});
    read.as_object_mut().unwrap().extend(path.as_object().unwrap().clone());
    let result = ok(client, "read_file_in_vm", read).await;
    assert_eq!(content(&result), expected, "{path}");
    assert_eq!((&result["size"], &result["offset"]), (&json!(expected.len()), &json!(0)), "{path}");
    assert_eq!(result["eof"], true);
}

#[test]
fn every_byte_comes_back_as_it_was_written_in_both_eras() {
    on_host(async |machine| {
        let all: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        for era in ERAS {
            let mut client = McpClient::start(&machine.host, era).await.unwrap();
            let path = json!({"file_path": "deep/er/all.bin"});
            let written = json!({"content": base64(&all), "encoding": "base64"});
            round_trip(&mut client, &path, &written, &all).await;
            assert_eq!(fs::read(machine.home("work").join("deep/er/all.bin")).unwrap(), all);
            for text in
                ["", "\n", "no newline", "x\n\n\n", "a\r\n\tü\u{0}€😀", "-n", "$(id) `id` \\n"]
            {
                let written = json!({"content": text});
                round_trip(&mut client, &json!({"file_path": "text"}), &written, text.as_bytes())
                    .await;
                assert_eq!(fs::read(machine.home("work").join("text")).unwrap(), text.as_bytes());
            }
        }
        let mut left = leftovers(&machine.home("work").join("deep/er"));
        assert_eq!(left.pop().as_deref(), Some("all.bin"));
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn names_of_any_kind_lead_to_the_file_of_exactly_that_name() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let home = machine.home("work");
        for name in [
            "it's",
            "a \"quoted\" name",
            " spaces ",
            "new\nline",
            "ends with newline\n",
            "-rf",
            "--",
            "$HOME",
            "`id`;|&<>*?[]{}!~#",
            "back\\slash",
            "~",
            "ümläut €",
            "\u{1}\u{7f}\t",
            "...",
        ] {
            let written = json!({"content": name});
            round_trip(&mut client, &json!({"file_path": name}), &written, name.as_bytes()).await;
            assert_eq!(fs::read(home.join(name)).unwrap(), name.as_bytes(), "{name:?}");
        }
        let name: &[u8] = b"folder \xff\xfe/\xc3\x28\n'";
        let path = json!({"file_path_base64": base64(name)});
        round_trip(&mut client, &path, &json!({"content": "odd"}), b"odd").await;
        assert_eq!(fs::read(home.join(std::ffi::OsStr::from_bytes(name))).unwrap(), b"odd");
        for bad in [json!(""), json!("a\u{0}b")] {
            let write = json!({"vm_name": "work", "file_path": bad, "content": ""});
            error(&mut client, "write_file_in_vm", write).await;
        }
    });
}

#[test]
fn a_file_larger_than_an_answer_is_read_by_ranges() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        const SIZE: u64 = 5 * 1024 * 1024 + 3;
        ok(&mut client, "exec_in_vm", json!({"vm_name": "work", "command": "touch big"})).await;
        let block: Vec<u8> = (0..=255).collect();
        let mut file = fs::File::create(machine.home("work").join("big")).unwrap();
        for _ in 0..SIZE / 256 {
            file.write_all(&block).unwrap();
        }
        file.write_all(&block[..3]).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let big = fs::read(machine.home("work").join("big")).unwrap();
        let mut got = Vec::new();
        for turn in 1.. {
            let read = json!({"vm_name": "work", "file_path": "big", "offset": got.len()});
            let result = ok(&mut client, "read_file_in_vm", read).await;
            assert_eq!(result["offset"], got.len());
            assert_eq!(result["size"], SIZE);
            got.extend(content(&result));
            if result["eof"] == true {
                assert_eq!(turn, 3);
                break;
            }
            assert_eq!(got.len(), turn * 2 * 1024 * 1024);
        }
        assert!(got == big, "the ranges are the file");
        for (offset, length, expected) in [
            (254, 4, &[254, 255, 0, 1][..]),
            (SIZE - 1, 9, &[2]),
            (SIZE, 1, &[]),
            (SIZE + 9, 1, &[]),
        ] {
            let read =
                json!({"vm_name": "work", "file_path": "big", "offset": offset, "length": length});
            let result = ok(&mut client, "read_file_in_vm", read).await;
            assert_eq!(content(&result), expected, "{offset}");
            assert_eq!(result["eof"], offset + length >= SIZE, "{offset}");
        }
        let proc = json!({"vm_name": "work", "file_path": "/proc/self/status"});
        let result = ok(&mut client, "read_file_in_vm", proc).await;
        assert!(String::from_utf8(content(&result)).unwrap().contains("Pid:"));
    });
}

#[test]
fn a_write_replaces_appends_creates_or_refuses_as_it_was_told() {
    on_host(async |machine| {
        let mut client = machine.client().await;
        let path = machine.home("work").join("f");
        let write = |more: Value| {
            let mut write = json!({"vm_name": "work", "file_path": "f"});
            write.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            write
        };
        let first =
            ok(&mut client, "write_file_in_vm", write(json!({"content": "a", "mode": "0640"})))
                .await;
        assert_eq!(first["created"], true);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        let owner = fs::metadata(&path).unwrap().uid();
        fs::set_permissions(&path, Permissions::from_mode(0o751)).unwrap();
        let second = ok(&mut client, "write_file_in_vm", write(json!({"content": "b"}))).await;
        assert_eq!(second["created"], false);
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.uid()), (0o751, owner));
        ok(&mut client, "write_file_in_vm", write(json!({"content": "c", "append": true}))).await;
        assert_eq!(fs::read(&path).unwrap(), b"bc");
        let sentence = error(
            &mut client,
            "write_file_in_vm",
            write(json!({"content": "d", "create_only": true})),
        )
        .await;
        assert!(sentence.contains("exist"), "{sentence}");
        // SHA-256 of "bc", and of something else.
        let sum = "a64a87ea1d65a1d7bc60cec17e0a19f9a02eab0d6d3ea0ba5b8cfdaa3a5a0a25";
        error(&mut client, "write_file_in_vm", write(json!({"content": "d", "if_sha256": sum})))
            .await;
        assert_eq!(fs::read(&path).unwrap(), b"bc");
        let sum =
            json!({"vm_name": "work", "command": "sha256sum < f | cut -c 1-64 | tr -d '\\n'"});
        let sum = ok(&mut client, "exec_in_vm", sum).await["stdout"].clone();
        ok(&mut client, "write_file_in_vm", write(json!({"content": "d", "if_sha256": sum}))).await;
        assert_eq!(fs::read(&path).unwrap(), b"d");
        for (path, word) in [("/proc/no/such", ""), ("f/below", ""), (".", "")] {
            let write = json!({"vm_name": "work", "file_path": path, "content": "x"});
            let sentence = error(&mut client, "write_file_in_vm", write).await;
            assert!(sentence.contains(word), "{sentence}");
        }
        for path in ["/no/such", "f/below", "."] {
            error(&mut client, "read_file_in_vm", json!({"vm_name": "work", "file_path": path}))
                .await;
        }
        let left: Vec<_> = leftovers(&machine.home("work"));
        assert!(left.iter().all(|name| name == "f" || !name.contains("salt")), "{left:?}");
    });
}
