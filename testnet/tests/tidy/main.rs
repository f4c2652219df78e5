//! The rules of the house, checked over `cargo metadata` and the source.
//!
//! Each rule is a function from text or a graph to sentences, with tests beside it that hand it a
//! bad sample; the tests here hand it the repository. A rule that has to give way is changed
//! here, in a commit that says why.

mod graph;
mod house;
mod lexer;
mod source;

use std::process::Command;

use cargo_metadata::{Metadata, MetadataCommand};
use graph::Graph;
use house::Text;

/// The most packages that `Cargo.lock` may hold, ours included. Every one is code that somebody
/// must trust; raise it only in a commit that says what the new one saves.
const PACKAGES_MAX: usize = 460;
/// The one platform this is built for; the answer must not depend on where the test runs.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

#[track_caller]
fn assert_none(problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(house::root().join("Cargo.toml"))
        .other_options(["--locked", "--filter-platform", PLATFORM].map(str::to_owned))
        .exec()
        .expect("cargo metadata answers")
}

fn texts() -> Vec<Text> {
    house::texts(&house::root()).expect("the repository can be read")
}

/// The folder of each member, from the root, and its name.
fn packages(metadata: &Metadata) -> Vec<(String, String)> {
    let folder = |package: &cargo_metadata::Package| {
        let folder = package
            .manifest_path
            .parent()
            .expect("a manifest is in a folder");
        let folder = folder
            .strip_prefix(&metadata.workspace_root)
            .expect("a member is in the house");
        folder.to_string()
    };
    let packages = metadata.workspace_packages();
    packages
        .into_iter()
        .map(|package| (folder(package), package.name.to_string()))
        .collect()
}

#[test]
fn arrows_between_the_crates_point_down() {
    assert_none(&Graph::of(&metadata()).wrong_arrows());
}

#[test]
fn a_technology_is_named_only_by_its_owner() {
    assert_none(&Graph::of(&metadata()).stray_technologies());
}

#[test]
fn pure_crates_reach_no_runtime_socket_clock_or_random_source() {
    // `cargo tree -p` and not the metadata: there, the features that others ask of a shared
    // dependency would count as what the pure crate brings in.
    for package in graph::PURE {
        let output = Command::new(env!("CARGO"))
            .args([
                "tree",
                "--locked",
                "--package",
                package,
                "--edges",
                "normal",
            ])
            .args(["--target", PLATFORM, "--prefix", "depth", "--no-dedupe"])
            .current_dir(house::root())
            .output()
            .expect("cargo runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let tree = String::from_utf8_lossy(&output.stdout);
        assert!(tree.starts_with(&format!("0{package} ")), "{tree}");
        assert_none(&graph::impurities(&tree));
    }
}

#[test]
fn every_source_file_keeps_the_rules() {
    let files = house::sources(&texts(), &packages(&metadata()));
    assert!(
        files.len() > 11,
        "only {} source files were found",
        files.len()
    );
    let problems: Vec<String> = files.iter().flat_map(source::File::problems).collect();
    assert_none(&problems);
}

#[test]
fn no_text_names_a_place_of_one_machine() {
    let problems: Vec<String> = texts().iter().flat_map(house::machine_paths).collect();
    assert_none(&problems);
}

#[test]
fn every_manifest_takes_lints_and_versions_from_the_workspace() {
    let members: Vec<String> = packages(&metadata())
        .into_iter()
        .map(|(folder, _)| format!("{folder}/Cargo.toml"))
        .collect();
    let texts = texts();
    let manifests = texts.iter().filter(|text| members.contains(&text.path));
    assert_none(&manifests.flat_map(house::manifest).collect::<Vec<String>>());
}

#[test]
fn the_lock_file_keeps_the_package_budget() {
    let lock = texts()
        .into_iter()
        .find(|text| text.path == "Cargo.lock")
        .expect("it is committed");
    let packages = house::packages_in(&lock.text);
    assert!(
        packages <= PACKAGES_MAX,
        "Cargo.lock holds {packages} packages, more than {PACKAGES_MAX}: do without the new one, \
         or raise the budget in a commit that says what it saves"
    );
}

#[test]
fn the_architecture_page_has_a_row_for_every_crate() {
    let texts = texts();
    let page = texts
        .iter()
        .find(|text| text.path == "docs/ARCHITECTURE.md")
        .expect("the page is there");
    let missing: Vec<String> = packages(&metadata())
        .into_iter()
        .filter(|(folder, name)| {
            let row = format!("| `{folder}` | {name} |");
            !page.text.lines().any(|line| line.starts_with(&row))
        })
        .map(|(folder, name)| format!("docs/ARCHITECTURE.md: no row `| `{folder}` | {name} |`"))
        .collect();
    assert_none(&missing);
}
