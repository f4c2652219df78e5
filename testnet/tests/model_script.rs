//! What `testnet/model/serve.sh` says when it cannot work. That it works is shown by the demo with
//! a model, which needs its packages.

use std::path::Path;
use std::process::{Command, Output};

/// Settings of pip under which no package can be had.
const NO_REGISTRY: [(&str, &str); 2] = [("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", "")];

fn serve(cache: &Path, arguments: &[&str]) -> Output {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/model/serve.sh"))
        .args(arguments)
        .arg("--cache")
        .arg(cache)
        .envs(NO_REGISTRY)
        .output()
        .expect("bash runs the script")
}

#[track_caller]
fn check(cache: &Path, arguments: &[&str], code: i32, says: &str) {
    let output = serve(cache, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.contains(says), "{error}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let cache = tempfile::tempdir().expect("a folder can be made");
    check(cache.path(), &["serve"], 2, "usage:");
    check(cache.path(), &["run"], 2, "usage:");
    check(cache.path(), &["setup", "--port"], 2, "usage:");
}

#[test]
fn nothing_runs_before_it_is_set_up() {
    let cache = tempfile::tempdir().expect("a folder can be made");
    let port_file = cache.path().join("port");
    let port_file = port_file.to_str().expect("a temporary path is text");
    check(cache.path(), &["check"], 5, "run serve.sh setup");
    check(
        cache.path(),
        &["run", "--port-file", port_file],
        5,
        "run serve.sh setup",
    );
    assert!(!Path::new(port_file).exists());
}

#[test]
fn another_file_in_the_place_of_the_model_is_refused() {
    let cache = tempfile::tempdir().expect("a folder can be made");
    let model = cache.path().join("SmolLM2-135M-Instruct.Q4_1.gguf");
    std::fs::write(model, b"GGUF, but not that one").expect("a file can be written");
    check(cache.path(), &["check"], 5, "is not the right file");
}

#[test]
fn packages_that_cannot_be_had_have_an_exit_code_of_their_own() {
    let cache = tempfile::tempdir().expect("a folder can be made");
    check(cache.path(), &["setup"], 3, "model: ");
    assert!(
        !cache
            .path()
            .join("SmolLM2-135M-Instruct.Q4_1.gguf")
            .exists()
    );
}
