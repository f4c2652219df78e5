//! Runs the tour of the README as it is written, in a network namespace of its own.
//!
//! The tour uses the ports that a user would get. A namespace keeps them apart from whatever runs on
//! this machine; where namespaces cannot be made, the test says so and the tour is not run.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

const README: &str = include_str!("../../README.md");
const FENCE: &str = "```sh tour\n";

/// The commands of all blocks that are marked as part of the tour.
fn tour() -> String {
    let blocks = README.split(FENCE).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tools of this machine are found by its PATH"
)]
fn in_namespace(script: &str, home: &Path) -> std::io::Result<Output> {
    let bin = home.join("bin");
    std::fs::create_dir_all(&bin)?;
    symlink(env!("CARGO_BIN_EXE_openfang"), bin.join("openfang"))?;
    let path = format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    Command::new("unshare")
        .args([
            "--map-root-user",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
        ])
        .arg(format!(
            "set -euxo pipefail\nip link set lo up\ncd {}\n{script}",
            home.display()
        ))
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .output()
}

fn namespaces_work(home: &Path) -> bool {
    std::fs::create_dir_all(home).is_ok()
        && in_namespace("true", home).is_ok_and(|output| output.status.success())
        && std::fs::remove_dir_all(home.join("bin")).is_ok()
}

#[test]
fn the_tour_of_the_readme_works_as_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("home");
    if !namespaces_work(&home) {
        println!(
            "left out: this machine cannot make a network namespace (unshare and ip are needed)"
        );
        return;
    }
    let output = in_namespace(&tour(), &home).expect("bash runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let said = format!("{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    for expected in [
        "Hello, who are you?",
        "Hello over HTTP",
        "Hello from the first node",
        "helper",
    ] {
        assert!(
            stdout.contains(expected),
            "{expected:?} is missing:\n{said}"
        );
    }
    let copy = std::fs::read_to_string(home.join("audit-copy.jsonl")).expect("the export");
    assert!(copy.lines().count() > 5, "{copy}");
}

#[test]
fn every_block_of_commands_in_the_readme_is_run_by_something() {
    // Two blocks are not part of the tour: the two commands, which are what runs this test and the
    // demo, and the build.
    let plain: Vec<&str> = README
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(plain.len(), 2, "{plain:?}");
    assert!(plain[0].contains("openfang-testnet -- demo") && plain[0].contains("./test"));
    assert!(plain[1].contains("cargo build --release -p openfang"));
    assert!(README.matches(FENCE).count() >= 6);
}
