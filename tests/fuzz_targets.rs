//! Every decoder that has a function for fuzzing is fuzzed, from seeds of its own.

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        fs,
        path::{Path, PathBuf},
    };

    fn top() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// The sources below a folder.
    fn sources(folder: &Path) -> Vec<String> {
        let mut texts = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                texts.extend(sources(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                // One that vanishes meanwhile belongs to somebody who is writing.
                texts.push(fs::read_to_string(&path).unwrap_or_default());
            }
        }
        texts
    }

    /// The names behind `fuzz_`, each up to the first byte that is of no name.
    fn names<'t>(text: &'t str, before: &'t str) -> impl Iterator<Item = &'t str> {
        text.split(before).skip(1).filter_map(|rest| {
            rest.split(|letter: char| letter != '_' && !letter.is_ascii_alphanumeric()).next()
        })
    }

    #[test]
    fn every_fuzz_function_has_a_target_with_seeds() {
        let mut functions = BTreeSet::new();
        for folder in ["contract", "admin-api", "policy", "qubes-rpc", "."] {
            for text in sources(&top().join(folder).join("src")) {
                for before in ["pub fn fuzz_", "pub async fn fuzz_"] {
                    functions.extend(names(&text, before).map(ToOwned::to_owned));
                }
            }
        }
        assert!(functions.len() >= 20, "only {} functions were found", functions.len());

        let fuzz = top().join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        let mut targets = BTreeMap::new();
        for entry in fs::read_dir(fuzz.join("fuzz_targets")).unwrap() {
            let path = entry.unwrap().path();
            let target = path.file_stem().unwrap().to_string_lossy().into_owned();
            let line = format!("path = \"fuzz_targets/{target}.rs\"\n");
            assert!(manifest.contains(&line), "fuzz/Cargo.toml does not have {target}");
            let seeds = fs::read_dir(fuzz.join("seeds").join(&target));
            assert!(seeds.is_ok_and(|seeds| seeds.count() > 0), "{target} has no seeds");
            let text = fs::read_to_string(&path).unwrap();
            targets.extend(names(&text, "::fuzz_").map(|name| (name.to_owned(), target.clone())));
        }
        for name in functions {
            assert!(targets.remove(&name).is_some(), "no target calls fuzz_{name}");
        }
        targets.remove("target");
        assert_eq!(targets, BTreeMap::new(), "these call what is not there");
    }
}
