//! Proofs of entries: made on a node, checked by those who have none.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Home, Output, eventually};
use crate::mesh::node;

/// A folder of somebody who has no node: neither a home nor a variable that names one.
struct Elsewhere(tempfile::TempDir);

impl Elsewhere {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), bytes).expect("written");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(name)).expect("read")
    }

    fn run(&self, args: &[&str]) -> Output {
        let out = Command::new(env!("CARGO_BIN_EXE_openfang"))
            .args(args)
            .env_clear()
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .expect("the program runs");
        Output {
            code: out.status.code(),
            stdout: String::from_utf8(out.stdout).expect("text"),
            stderr: String::from_utf8(out.stderr).expect("text"),
        }
    }

    #[track_caller]
    fn check(&self, more: &[&str], code: i32, words: &[&str]) {
        let mut args = vec!["audit", "check", "proof", "--policy", "policy"];
        args.extend(more);
        let out = self.run(&args);
        assert_eq!(out.code, Some(code), "{out:?}");
        for word in words {
            let said = out.stdout.contains(word) || out.stderr.contains(word);
            assert!(said, "{word:?}: {out:?}");
        }
    }

    /// Whether a checker in Python holds the proof for good; `None` without a Python that can run it.
    fn check_in_python(&self) -> Option<(bool, String)> {
        let recent = "import sys; sys.exit(sys.version_info < (3, 9))";
        let there = Command::new("python3").args(["-c", recent]).status();
        if !there.is_ok_and(|status| status.success()) {
            return None;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_proof.py");
        let out = Command::new("python3")
            .arg("-B")
            .arg(script)
            .args(["proof", "policy"])
            .current_dir(self.0.path())
            .output()
            .expect("Python runs");
        let said = [out.stdout, out.stderr].concat();
        Some((
            out.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }
}

/// A node that has run alone.
fn logged() -> Home {
    let home = Home::init();
    let daemon = home.start();
    home.ok(&["message", "assistant", "one"]);
    daemon.stop();
    home
}

fn line(home: &Home, seq: usize) -> String {
    let text = home.read("audit.jsonl");
    text.lines().nth(seq).expect("an entry").to_owned()
}

#[test]
fn an_entry_of_a_node_alone_is_proved_and_said_to_be_signed_by_it_alone() {
    let home = logged();
    let proof = home.run(&["audit", "prove", "2"]);
    assert_eq!(proof.code, Some(0), "{proof:?}");
    assert!(
        proof.stderr.contains("signed by this node alone"),
        "{proof:?}"
    );
    assert!(proof.stdout.starts_with("c2sp.org/tlog-proof@v1\nextra "));
    let there = Elsewhere::new();
    there.write("proof", &proof.stdout);
    let policy = home.run(&["audit", "policy"]);
    assert!(policy.stdout.contains("\nquorum none\n"), "{policy:?}");
    assert!(policy.stderr.contains("no witness"), "{policy:?}");
    there.write("policy", &policy.stdout);
    let words = ["holds: entry 2 of n-", "the policy asks for no witness"];
    there.check(&[], 0, &words);
    there.check(&[], 0, &[&line(&home, 2)]);
    there.check(&["--line", &line(&home, 2)], 0, &["holds"]);
    there.check(&["--line", &line(&home, 1)], 1, &["DOES NOT HOLD"]);
    if let Some((holds, said)) = there.check_in_python() {
        assert!(holds && said.starts_with("2 0"), "{said}");
    }
    // On the machine of the node itself the policy is known.
    let own = home.path().join("own");
    std::fs::write(&own, &proof.stdout).expect("written");
    let own = own.to_str().expect("text");
    assert!(home.ok(&["audit", "check", own]).starts_with("holds"));
    let json = home.json(&["audit", "check", own, "--json"]);
    assert_eq!(json["verdict"], "holds");
    assert_eq!(json["index"], 2);
    assert_eq!(json["line"], line(&home, 2));
    // Elsewhere it is not.
    let out = there.run(&["audit", "check", "proof"]);
    assert_ne!(out.code, Some(0), "{out:?}");
    assert!(out.stderr.contains("no home"), "{out:?}");
}

#[test]
fn a_proof_without_its_line_wants_the_line() {
    let home = logged();
    let there = Elsewhere::new();
    there.write("policy", home.ok(&["audit", "policy"]));
    there.write("proof", home.ok(&["audit", "prove", "0", "--without-line"]));
    there.check(&[], 2, &["does not hold the entry itself", "--line"]);
    there.write("line", format!("{}\n", line(&home, 0)));
    there.check(&["--line", "line"], 0, &["holds: entry 0"]);
    there.write("lines", home.read("audit.jsonl"));
    there.check(&["--line", "lines"], 1, &["DOES NOT HOLD"]);
    there.check(&["--line", "nothing"], 2, &["cannot read nothing"]);
}

#[test]
fn a_proof_is_written_once() {
    let home = logged();
    let out = home.file("x.tlog-proof");
    let args = ["audit", "prove", "1", "--out", out.to_str().expect("text")];
    assert_eq!(home.ok(&args), "");
    assert!(home.read("x.tlog-proof").contains("\nindex 1\n"));
    home.fails(&args, 2, &["x.tlog-proof", "mend: --out"]);
    home.fails(
        &["audit", "prove", "10000"],
        3,
        &["not under a signed head", "mend"],
    );
    let never = Home::init();
    never.fails(&["audit", "prove", "0"], 3, &["no head of this log"]);
}

#[test]
fn whatever_is_done_to_a_proof_is_noticed() {
    let home = logged();
    let there = Elsewhere::new();
    let (policy, proof) = (
        home.ok(&["audit", "policy"]),
        home.ok(&["audit", "prove", "1"]),
    );
    there.write("policy", &policy);
    // A byte of every line, the hashes and the signature among them.
    let mut at = 0;
    for text in proof.split_inclusive('\n') {
        let middle = at + text.len() / 2;
        at += text.len();
        let mut bytes = proof.clone().into_bytes();
        bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
        there.write("proof", &bytes);
        let out = there.run(&["audit", "check", "proof", "--policy", "policy"]);
        assert!(matches!(out.code, Some(1 | 2)), "{text:?}: {out:?}");
    }
    there.write("proof", &proof);
    for (bad, words) in [
        (policy.replace("log ", "leg "), "line 1 of the policy"),
        (policy.replace("quorum none", ""), "no quorum line"),
        ("x".repeat(100_000), "longer than"),
    ] {
        there.write("policy", bad);
        there.check(&[], 2, &[words]);
    }
    // The key of another log.
    let other = logged();
    there.write("policy", other.ok(&["audit", "policy"]));
    there.check(&[], 1, &["not signed by a log of the policy"]);
    there.write("policy", &policy);
    there.write("proof", other.ok(&["audit", "prove", "1"]));
    there.check(&[], 1, &["not signed by a log of the policy"]);
    // What is no proof at all.
    there.write("proof", vec![b'x'; 2_000_000]);
    there.check(&[], 2, &["longer than 1000000 bytes"]);
    std::fs::remove_file(there.0.path().join("proof")).expect("removed");
    std::fs::create_dir(there.0.path().join("proof")).expect("made");
    there.check(&[], 2, &["cannot read proof"]);
}

#[test]
fn nothing_is_proved_of_a_log_that_was_altered() {
    let home = logged();
    let altered = home
        .read("audit.jsonl")
        .replacen("message_in", "message_on", 1);
    home.write("audit.jsonl", &altered);
    home.fails(
        &["audit", "prove", "0"],
        1,
        &["do not lead to the head", "openfang audit verify"],
    );
    std::fs::remove_file(home.file("audit.jsonl")).expect("removed");
    std::fs::create_dir(home.file("audit.jsonl")).expect("made");
    home.fails(&["audit", "prove", "0"], 2, &["audit.jsonl"]);
}

#[test]
fn with_a_witness_the_proof_speaks_against_the_node_itself() {
    let (a, b) = (node("a", true), node("b", false));
    let (daemon_a, daemon_b) = (a.start(), b.start());
    b.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    eventually("there is a witness", || {
        a.run(&["audit", "policy"]).stdout.contains("\nwitness ")
    });
    // It may not have cosigned yet.
    let proof = a.run(&["audit", "prove", "0"]);
    assert_eq!(proof.code, Some(0), "{proof:?}");
    let said = &proof.stderr;
    assert!(
        said.starts_with("cosigned by 1 of the 1 witnesses of the policy of now"),
        "it says by which policy: {said}"
    );
    let there = Elsewhere::new();
    let policy = a.ok(&["audit", "policy"]);
    there.write("policy", &policy);
    there.write("proof", &proof.stdout);
    there.check(&[], 0, &["holds: entry 0", "cosigned by\n  12D3KooW"]);
    if let Some((holds, said)) = there.check_in_python() {
        assert!(holds && said.starts_with("0 1"), "{said}");
    }
    // Without the line of the witness it is below the quorum, which is not the same as false.
    let text = String::from_utf8(there.read("proof")).expect("text");
    let cut: String = text
        .split_inclusive('\n')
        .filter(|line| !(line.starts_with('\u{2014}') && line.contains("/witness ")))
        .collect();
    assert_ne!(cut, text);
    there.write("proof", &cut);
    there.check(&[], 1, &["DOES NOT HOLD: below the quorum"]);
    if let Some((holds, said)) = there.check_in_python() {
        assert!(!holds && said.contains("below the quorum"), "{said}");
    }
    let out = there.run(&["audit", "check", "proof", "--policy", "policy", "--json"]);
    assert!(
        out.stdout.contains("\"verdict\": \"below_quorum\""),
        "{out:?}"
    );
    // Where the cosigned head is damaged it is not used, and that is said.
    a.write("audit.d/cosigned", "x");
    let proof = a.run(&["audit", "prove", "0"]);
    assert_eq!(proof.code, Some(0), "{proof:?}");
    for word in ["is not used", "is damaged", "signed by this node alone"] {
        assert!(proof.stderr.contains(word), "{proof:?}");
    }
    daemon_b.stop();
    daemon_a.stop();
}
