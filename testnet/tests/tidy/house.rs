//! The repository as files: which there are, what their manifests say, and what no text may hold.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::source::File;

/// Folders with what is made or found here, not written: builds, fuzz corpora.
const NOT_OURS: [&str; 5] = ["target", ".git", "corpus", "artifacts", "node_modules"];
/// Places that exist on one machine only. In two parts, since this file is checked as well.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/opt/car", "go-tools"),
];

/// A text file of the repository.
#[derive(Debug)]
pub(crate) struct Text {
    /// From the root.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let testnet = Path::new(env!("CARGO_MANIFEST_DIR"));
    testnet
        .parent()
        .expect("testnet is a folder of the repository")
        .to_owned()
}

/// Every text file below a folder, in the order of their paths.
pub(crate) fn texts(root: &Path) -> io::Result<Vec<Text>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                // What is not UTF-8 is no text.
                let Ok(text) = fs::read_to_string(entry.path()) else {
                    continue;
                };
                let path = entry.path();
                let path = path
                    .strip_prefix(root)
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                found.push(Text { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// The Rust files among them, each with the package of the innermost folder that has one.
/// `packages` pairs folders (from the root) with names.
pub(crate) fn sources(texts: &[Text], packages: &[(String, String)]) -> Vec<File> {
    let rust = texts.iter().filter(|text| text.path.ends_with(".rs"));
    let mut files: Vec<File> = rust
        .map(|text| {
            let holders = packages.iter().filter(|(folder, _)| {
                text.path
                    .strip_prefix(folder.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
            });
            let package = holders.max_by_key(|(folder, _)| folder.len());
            File::new(
                &text.path,
                package.map_or("", |(_, name)| name),
                text.text.clone(),
            )
        })
        .collect();
    let tests: Vec<String> = files.iter().flat_map(File::test_files).collect();
    files
        .iter_mut()
        .filter(|file| tests.contains(&file.path))
        .for_each(File::set_test);
    files
}

/// Lines that name a place of one machine.
pub(crate) fn machine_paths(text: &Text) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.text.lines().enumerate() {
        for place in MACHINE_PATHS {
            // `https://host/work/…` and `home/work/…` are other things.
            let named = line.match_indices(place).any(|(at, _)| {
                !line
                    .split_at(at)
                    .0
                    .ends_with(|c: char| c.is_alphanumeric() || "._-/~}".contains(c))
            });
            if named {
                found.push(format!(
                    "{}:{}: names {place}, a place of one machine",
                    text.path,
                    number + 1
                ));
            }
        }
    }
    found
}

/// What a member's manifest must have: the lints of the workspace, and no version of its own.
pub(crate) fn manifest(text: &Text) -> Vec<String> {
    let mut found = Vec::new();
    let mut section = "";
    let mut linted = false;
    for line in text.text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[lints]" && line == "workspace = true" {
            linted = true;
        } else if section.ends_with("dependencies]")
            && line.contains('=')
            && !line.starts_with('#')
            && !line.contains("workspace = true")
        {
            found.push(format!(
                "{}: `{line}` does not take its version from the workspace",
                text.path
            ));
        }
    }
    if !linted {
        found.push(format!(
            "{}: does not take the lints of the workspace",
            text.path
        ));
    }
    found
}

/// How many packages a lock file holds.
pub(crate) fn packages_in(lock: &str) -> usize {
    lock.lines().filter(|line| *line == "[[package]]").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, text: &str) -> Text {
        Text {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_machine_path_is_found_at_its_line() {
        let bad = text(
            "docs/A.md",
            concat!("good\nsee /wo", "rk/main/x and (/ro", "ot/.cargo)\n"),
        );
        let found = machine_paths(&bad);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found
                .iter()
                .all(|sentence| sentence.starts_with("docs/A.md:2: names /"))
        );
    }

    #[test]
    fn a_path_that_only_looks_so_is_not() {
        let good = text(
            "docs/A.md",
            concat!("https://host/wo", "rk/x, ~/wo", "rk/x, $HOME/wo", "rk/y\n"),
        );
        assert_eq!(machine_paths(&good), Vec::<String>::new());
    }

    #[test]
    fn a_manifest_with_its_own_version_or_lints_is_found() {
        let good = "[lints]\nworkspace = true\n[dependencies]\na.workspace = true\n\
                    b = { workspace = true, features = [\"c\"] }\n[[bin]]\nname = \"x\"\n";
        assert_eq!(manifest(&text("a/Cargo.toml", good)), Vec::<String>::new());
        let bad = "[dependencies]\na.workspace = true\n[dev-dependencies]\nb = \"1\"\n";
        assert_eq!(
            manifest(&text("a/Cargo.toml", bad)),
            [
                "a/Cargo.toml: `b = \"1\"` does not take its version from the workspace",
                "a/Cargo.toml: does not take the lints of the workspace",
            ]
        );
    }

    #[test]
    fn packages_of_a_lock_file_are_counted() {
        assert_eq!(
            packages_in("version = 4\n\n[[package]]\nname = \"a\"\n\n[[package]]\n"),
            2
        );
    }

    #[test]
    fn a_file_belongs_to_the_innermost_package() {
        let packages = [
            ("mesh".to_owned(), "outer".to_owned()),
            ("mesh/proto".to_owned(), "inner".to_owned()),
        ];
        let texts = [
            text(
                "mesh/proto/src/lib.rs",
                "//! A.\n#[cfg(test)]\nmod fixtures;\n",
            ),
            text("mesh/proto/src/fixtures.rs", "//! A.\nfn a() { dbg!(); }\n"),
            text("mesh/src/lib.rs", "//! A.\n"),
            text("meshed/lib.rs", "//! A.\n"),
        ];
        let files = sources(&texts, &packages);
        let packages: Vec<&str> = files.iter().map(|file| file.package.as_str()).collect();
        assert_eq!(packages, ["inner", "inner", "outer", ""]);
        assert!(files.iter().all(|file| file.problems().is_empty()));
    }

    #[test]
    fn the_walk_sees_this_file_and_no_build() {
        let found = texts(&root()).expect("the repository can be read");
        assert!(
            found
                .iter()
                .any(|text| text.path == "testnet/tests/tidy/house.rs")
        );
        assert!(found.iter().all(|text| !text.path.starts_with("target/")));
    }
}
