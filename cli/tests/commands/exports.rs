//! The log as a directory, recomputed from its bytes by code that shares nothing with the library.

use std::path::Path;
use std::process::Command;

use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};

use crate::harness::{Home, eventually};
use crate::mesh::node;

/// RFC 6962, 2.1, as it stands there.
fn mth(leaves: &[Vec<u8>]) -> [u8; 32] {
    match leaves {
        [] => Sha256::digest(b"").into(),
        [one] => Sha256::new()
            .chain_update([0])
            .chain_update(one)
            .finalize()
            .into(),
        more => {
            let mut k = 1;
            while k * 2 < more.len() {
                k *= 2;
            }
            let (left, right) = more.split_at(k);
            Sha256::new()
                .chain_update([1])
                .chain_update(mth(left))
                .chain_update(mth(right))
                .finalize()
                .into()
        }
    }
}

/// Reads the entries of a directory with fewer than 256 of them; returns them with size and root of its
/// checkpoint.
fn read(dir: &Path) -> (Vec<Vec<u8>>, usize, [u8; 32]) {
    let note = std::fs::read_to_string(dir.join("checkpoint")).expect("a checkpoint");
    let mut lines = note.lines().skip(1);
    let size: usize = lines.next().expect("a size").parse().expect("a number");
    let root = BASE64.decode(lines.next().expect("a root").as_bytes());
    let root = root.expect("base64").try_into().expect("32 bytes");
    assert!((1..256).contains(&size), "{size}");
    let bundle = dir.join(format!("tile/entries/000.p/{size}"));
    let bundle = std::fs::read(bundle).expect("a bundle");
    let mut rest = bundle.as_slice();
    let mut entries = Vec::new();
    while let [high, low, more @ ..] = rest {
        let length = usize::from(*high) * 256 + usize::from(*low);
        let (entry, behind) = more.split_at(length);
        entries.push(entry.to_vec());
        rest = behind;
    }
    assert!(rest.is_empty());
    (entries, size, root)
}

fn check(dir: &Path, log: &str) {
    let (entries, size, root) = read(dir);
    assert_eq!(entries.len(), size);
    for (entry, line) in entries.iter().zip(log.lines()) {
        assert_eq!(entry, line.as_bytes(), "the lines as they are");
    }
    assert_eq!(mth(&entries), root);
    let tile = std::fs::read(dir.join(format!("tile/0/000.p/{size}"))).expect("a tile");
    let leaves: Vec<u8> = entries
        .iter()
        .flat_map(|entry| mth(std::slice::from_ref(entry)))
        .collect();
    assert_eq!(tile, leaves);
}

/// Whether a checker in Python is content; `None` without a Python that can run it.
fn check_in_python(dir: &Path, policy: &str) -> Option<(bool, String)> {
    let recent = "import sys; sys.exit(sys.version_info < (3, 6))";
    let there = Command::new("python3").args(["-c", recent]).status();
    if !there.is_ok_and(|status| status.success()) {
        return None;
    }
    let vkey = policy.split_whitespace().nth(1).expect("log VKEY");
    let script = "../kernel/audit/tests/check_tlog.py";
    let out = Command::new("python3")
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .arg(dir)
        .arg(vkey)
        .output()
        .expect("Python runs");
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Some((out.status.success(), said))
}

fn logged() -> Home {
    let home = Home::init();
    let daemon = home.start();
    home.ok(&["message", "assistant", "one"]);
    daemon.stop();
    home
}

#[test]
fn an_exported_directory_is_what_the_documents_say() {
    let home = logged();
    let out = home.file("tlog");
    let args = [
        "audit",
        "export",
        "--format",
        "tlog",
        "--out",
        out.to_str().expect("text"),
    ];
    let done = home.run(&args);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.stderr.contains("signed by this node alone"),
        "{done:?}"
    );
    check(&out, &home.read("audit.jsonl"));
    let policy = home.ok(&["audit", "policy"]);
    if let Some((content, said)) = check_in_python(&out, &policy) {
        assert!(content, "{said}");
    }
    home.fails(&args, 2, &["is not empty", "mend: --out"]);
    home.fails(&["audit", "export", "--format", "tlog"], 2, &["--out"]);
    let file = home.file("file");
    std::fs::write(&file, "x").expect("written");
    let onto_file = [
        "audit",
        "export",
        "--format",
        "tlog",
        "--out",
        file.to_str().expect("text"),
    ];
    home.fails(&onto_file, 2, &["cannot write"]);
    // A tile that is changed is found.
    let tile = std::fs::read_dir(out.join("tile/0/000.p")).expect("a folder");
    let tile = tile.flatten().next().expect("a tile").path();
    let mut bytes = std::fs::read(&tile).expect("read");
    bytes[40] ^= 1;
    std::fs::write(&tile, bytes).expect("written");
    if let Some((content, said)) = check_in_python(&out, &policy) {
        assert!(!content && said.contains("differs"), "{said}");
    }
}

#[test]
fn a_tampered_log_is_not_exported_as_a_directory_and_nothing_is_left() {
    let home = logged();
    let altered = home
        .read("audit.jsonl")
        .replacen("message_in", "message_on", 1);
    home.write("audit.jsonl", &altered);
    let out = home.file("tlog");
    let path = out.to_str().expect("text");
    home.fails(
        &["audit", "export", "--format", "tlog", "--out", path],
        1,
        &["not as it was signed", "openfang audit verify"],
    );
    let left = std::fs::read_dir(&out).expect("the folder").count();
    assert_eq!(left, 0);
    let never = Home::init();
    let out = never.file("tlog");
    let path = out.to_str().expect("text");
    never.fails(
        &["audit", "export", "--format", "tlog", "--out", path],
        3,
        &["no signed head"],
    );
}

#[test]
fn the_lines_go_into_a_file_that_does_not_exist_yet() {
    let home = logged();
    let out = home.file("copy.jsonl");
    let path = out.to_str().expect("text");
    assert_eq!(home.ok(&["audit", "export", "--out", path]), "");
    assert_eq!(home.read("copy.jsonl"), home.read("audit.jsonl"));
    home.fails(
        &["audit", "export", "--out", path],
        2,
        &["copy.jsonl", "mend"],
    );
    let array = home.file("copy.json");
    let path = array.to_str().expect("text");
    home.ok(&["audit", "export", "--format", "json", "--out", path]);
    let read: serde_json::Value = serde_json::from_str(&home.read("copy.json")).expect("JSON");
    assert_eq!(read[0]["ev"], "node_start");
}

#[test]
fn a_directory_stands_under_the_cosigned_head() {
    let (a, b) = (node("a", true), node("b", false));
    let (daemon_a, daemon_b) = (a.start(), b.start());
    b.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    eventually("a head is cosigned", || a.file("audit.d/cosigned").exists());
    let out = a.file("tlog");
    let report = a.json(&[
        "audit",
        "export",
        "--format",
        "tlog",
        "--json",
        "--out",
        out.to_str().expect("text"),
    ]);
    assert_eq!(report["cosigned"], true, "{report}");
    let note = std::fs::read_to_string(out.join("checkpoint")).expect("a checkpoint");
    assert!(note.contains("/witness "), "{note}");
    check(&out, &a.read("audit.jsonl"));
    daemon_b.stop();
    daemon_a.stop();
}
