//! Listing directories and searching files.

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, fs::symlink},
};

use super::*;
use crate::run::{
    DirectoryEntry, DirectoryList, DirectoryListing, FileFailure, FileSearch, Found, FoundLine,
};

const ALL: DirectoryList<'static> = DirectoryList { path: b".", depth: 1, offset: 0, limit: 100 };
const ANY: FileSearch<'static> = FileSearch {
    path: b".",
    pattern: b"needle",
    fixed: false,
    ignore_case: false,
    glob: b"",
    context: 0,
    offset: 0,
    limit: 100,
};

async fn list(qube: &Qube, list: DirectoryList<'_>) -> Result<DirectoryListing, FileFailure> {
    qube.runner().list_directory(place(20.0), list, &CancellationToken::new()).await
}

async fn search(qube: &Qube, search: FileSearch<'_>) -> Result<Found, FileFailure> {
    let found = qube.runner().search_files(place(20.0), search, &CancellationToken::new()).await;
    qube.assert_empty();
    found
}

fn paths(listing: &DirectoryListing) -> Vec<String> {
    listing.entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

#[test]
fn entries_of_any_name_and_kind_are_told_with_what_they_are() {
    block_on(async {
        let qube = Qube::new();
        let names: [&[u8]; 7] =
            [b" a b ", b"-rf", b".hidden", b"two\nlines\n", b"\xff\xfe", b"it's", b"d"];
        for name in &names[..6] {
            fs::write(qube.home().join(OsStr::from_bytes(name)), b"12345").unwrap();
        }
        fs::create_dir(qube.home().join("d")).unwrap();
        fs::write(qube.home().join("d/inner"), b"").unwrap();
        symlink("no where\n", qube.home().join("link")).unwrap();
        let file = qube.home().join("it's");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
        let old = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
        fs::File::open(&file).unwrap().set_modified(old).unwrap();
        let listing = list(&qube, ALL).await.unwrap();
        assert_eq!((listing.total, listing.entries.len(), listing.unreadable), (8, 8, false));
        let mut sorted: Vec<&[u8]> = names.to_vec();
        sorted.push(b"link");
        sorted.sort_unstable();
        let told: Vec<&[u8]> = listing.entries.iter().map(|entry| &entry.path[..]).collect();
        assert_eq!(told, sorted);
        let find = |name: &[u8]| listing.entries.iter().find(|entry| entry.path == name).unwrap();
        let expected = DirectoryEntry {
            path: b"it's".into(),
            kind: b'f',
            size: 5,
            mode: 0o4751,
            modified: 1_000_000,
            target: Vec::new(),
        };
        assert_eq!(*find(b"it's"), expected);
        assert_eq!((find(b"link").kind, &find(b"link").target[..]), (b'l', &b"no where\n"[..]));
        assert_eq!(find(b"d").kind, b'd');
    });
}

#[test]
fn a_list_goes_as_deep_as_asked_and_comes_in_pages() {
    block_on(async {
        let qube = Qube::new();
        fs::create_dir_all(qube.home().join("a/b/c")).unwrap();
        fs::write(qube.home().join("a/b/file"), b"").unwrap();
        symlink("a", qube.home().join("z")).unwrap();
        let deep = DirectoryList { depth: 3, ..ALL };
        assert_eq!(
            paths(&list(&qube, deep).await.unwrap()),
            ["a", "a/b", "a/b/c", "a/b/file", "z"]
        );
        let two = DirectoryList { depth: 2, ..ALL };
        assert_eq!(paths(&list(&qube, two).await.unwrap()), ["a", "a/b", "z"]);
        let page = list(&qube, DirectoryList { offset: 2, limit: 2, ..deep }).await.unwrap();
        assert_eq!((paths(&page), page.total), (vec!["a/b/c".into(), "a/b/file".into()], 5));
        let behind = list(&qube, DirectoryList { offset: 5, ..deep }).await.unwrap();
        assert_eq!((behind.entries.len(), behind.total), (0, 5));
        let linked = list(&qube, DirectoryList { path: b"z", ..ALL }).await.unwrap();
        assert_eq!(paths(&linked), ["b"]);
        fs::create_dir(qube.home().join("empty")).unwrap();
        let empty = list(&qube, DirectoryList { path: b"empty/", ..ALL }).await.unwrap();
        assert_eq!((empty.entries.len(), empty.total), (0, 0));
        let failure = |path: &'static [u8]| {
            let qube = &qube;
            async move { list(qube, DirectoryList { path, ..ALL }).await.unwrap_err().to_string() }
        };
        assert_eq!(failure(b"nope").await, "no such file or directory");
        assert_eq!(failure(b"a/b/file").await, "not a directory");
    });
}

#[test]
fn long_names_are_cut_off_a_page_that_says_how_many_there_are() {
    block_on(async {
        let qube = Qube::new();
        let deep = ["x".repeat(250), "y".repeat(250), "z".repeat(250)].join("/");
        let deep = qube.home().join(deep);
        fs::create_dir_all(&deep).unwrap();
        for number in 0..500 {
            fs::write(deep.join(format!("{number}")), b"").unwrap();
        }
        let listing = list(&qube, DirectoryList { depth: 9, limit: 1000, ..ALL }).await.unwrap();
        assert_eq!(listing.total, 503);
        assert!((100..503).contains(&listing.entries.len()), "{}", listing.entries.len());
    });
}

#[test]
fn lines_that_match_are_found_in_files_of_any_name() {
    block_on(async {
        let qube = Qube::new();
        let odd = qube.home().join("two\nlines: 3:");
        fs::create_dir(&odd).unwrap();
        fs::write(odd.join("-x"), b"one\na needle: here\nthree\nneedle\xff again").unwrap();
        fs::write(qube.home().join("binary"), b"needle\0needle\n").unwrap();
        symlink("/etc", qube.home().join("link")).unwrap();
        let found = search(&qube, ANY).await.unwrap();
        let path = [odd.as_os_str().as_bytes(), b"/-x"].concat();
        let told: Vec<_> =
            found.lines.iter().map(|line| (line.number, &line.text[..], line.context)).collect();
        let expected: [(u64, &[u8], bool); 2] =
            [(2, b"a needle: here", false), (4, b"needle\xff again", false)];
        assert_eq!(told, expected);
        // The shell's own folder may be reached through another name.
        assert!(found.lines.iter().all(|line| line.path.ends_with(&path[path.len() - 20..])));
        assert_eq!((found.matches, found.more, found.unreadable), (2, false, false));
        let around = search(&qube, FileSearch { context: 1, limit: 1, ..ANY }).await.unwrap();
        let told: Vec<_> = around.lines.iter().map(|line| (line.number, line.context)).collect();
        assert_eq!((told, around.more), (vec![(1, true), (2, false), (3, true)], true));
        let second = search(&qube, FileSearch { offset: 1, ..ANY }).await.unwrap();
        assert_eq!((second.lines[0].number, second.matches), (4, 1));
    });
}

#[test]
fn a_pattern_is_an_expression_or_a_text_and_never_an_option() {
    block_on(async {
        let qube = Qube::new();
        fs::write(qube.home().join("a.rs"), b"-v --help\nfn main() { a.b }\nAxB\n").unwrap();
        fs::write(qube.home().join("b.txt"), b"a.b\n").unwrap();
        let count = |one: FileSearch<'static>| {
            let qube = &qube;
            async move { search(qube, one).await.unwrap().matches }
        };
        assert_eq!(count(FileSearch { pattern: b"-v", ..ANY }).await, 1);
        assert_eq!(count(FileSearch { pattern: b"a.b", ..ANY }).await, 2);
        assert_eq!(count(FileSearch { pattern: b"a.b", ignore_case: true, ..ANY }).await, 3);
        assert_eq!(count(FileSearch { pattern: b"a.b", glob: b"*.rs", ..ANY }).await, 1);
        assert_eq!(count(FileSearch { pattern: b"main() {", fixed: true, ..ANY }).await, 1);
        assert_eq!(count(FileSearch { pattern: b"^(AxB|zzz)$", ..ANY }).await, 1);
        assert_eq!(count(FileSearch { pattern: b"nothing like it", ..ANY }).await, 0);
        assert_eq!(count(FileSearch { path: b"b.txt", pattern: b"a", ..ANY }).await, 1);
        assert_eq!(count(FileSearch { path: b"/dev/zero", ..ANY }).await, 0);
        let wrong = search(&qube, FileSearch { pattern: b"(", ..ANY }).await;
        assert!(matches!(wrong, Err(FileFailure::Pattern { .. })), "{wrong:?}");
        let missing = search(&qube, FileSearch { path: b"nope", ..ANY }).await;
        assert!(matches!(missing, Err(FileFailure::NotFound)), "{missing:?}");
    });
}

#[test]
fn endless_matches_are_cut_and_leave_no_process() {
    block_on(async {
        let qube = Qube::new();
        let file = fs::File::create(qube.home().join("file")).unwrap();
        for _ in 0..20 {
            std::io::Write::write_all(&mut &file, &b"a needle\n".repeat(100_000)).unwrap();
        }
        let found = search(&qube, ANY).await.unwrap();
        assert_eq!((found.matches, found.more), (100, true));
        let line = vec![b'x'; 5_000_000];
        fs::write(qube.home().join("file"), [b"needle", &line[..]].concat()).unwrap();
        let found = search(&qube, ANY).await.unwrap();
        let FoundLine { text, omitted, .. } = &found.lines[0];
        assert_eq!((text.len(), *omitted), (1000, 4_999_006));
    });
}

#[test]
fn a_search_that_takes_too_long_tells_what_it_found() {
    block_on(async {
        let qube = Qube::with(
            r#"grep() { if [ "$1" != -rIHnsZ ]; then command grep "$@"; else
                 printf '/a\0%s:needle\n' 7; sleep 60; fi; }
               export -f grep; exec env --default-signal=INT,QUIT bash"#,
        );
        let never = CancellationToken::new();
        let found = qube.runner().search_files(place(0.5), ANY, &never).await.unwrap();
        assert!(found.timed_out && found.matches == 1, "{found:?}");
        qube.assert_empty();
    });
}
