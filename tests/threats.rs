//! Every test that docs/threats.md names exists.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    fn top() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// The names of all test functions in the sources below a folder.
    fn collect_tests(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                collect_tests(&path, names);
            } else if name.ends_with(".rs") {
                // One that vanishes meanwhile belongs to somebody who is writing.
                let text = fs::read_to_string(&path).unwrap_or_default();
                let mut after_mark = false;
                for line in text.lines().map(str::trim) {
                    if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                        after_mark = true;
                        continue;
                    }
                    let line = line.strip_prefix("async ").unwrap_or(line);
                    if let (Some(rest), true) = (line.strip_prefix("fn "), after_mark) {
                        names.extend(rest.split('(').next().map(ToOwned::to_owned));
                        after_mark = false;
                    }
                }
            }
        }
    }

    /// The cells of every row, without those of the headings.
    fn rows(page: &str) -> Vec<Vec<&str>> {
        page.lines()
            .filter(|line| line.starts_with("| ") && !line.ends_with("| test |"))
            .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
            .collect()
    }

    #[test]
    fn every_test_that_the_threats_name_exists() {
        let page = fs::read_to_string(top().join("docs/threats.md")).unwrap();
        let mut tests = BTreeSet::new();
        collect_tests(&top(), &mut tests);
        let rows = rows(&page);
        assert!(rows.len() > 70, "only {} rows were found", rows.len());
        for row in rows {
            let [attack, remedy, named] = *row.as_slice() else { panic!("three cells: {row:?}") };
            assert!(!attack.is_empty() && !remedy.is_empty(), "{row:?}");
            for name in named.split(", ") {
                let name = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
                let name = name.unwrap_or_else(|| panic!("no test in {row:?}"));
                assert!(tests.contains(name), "there is no test {name}");
            }
        }
    }
}
