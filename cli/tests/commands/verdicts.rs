//! What `audit verify` ends with: one state, one code, and which wins.

use std::path::Path;

use openfang_audit::evidence::Evidence;
use openfang_audit::note::{Note, Verifier};
use openfang_audit::{Checkpoint, Hash, Origin, SignedHead};
use openfang_id::NodeSeed;

use crate::harness::{Home, Output, eventually};
use crate::mesh::node;

pub(crate) fn verify(home: &Home, code: i32, words: &[&str]) -> Output {
    let out = home.run(&["audit", "verify"]);
    assert_eq!(out.code, Some(code), "{out:?}");
    for word in words {
        let said = out.stdout.contains(word) || out.stderr.contains(word);
        assert!(said, "{word:?}: {out:?}");
    }
    let json = home.run(&["audit", "verify", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(report["exit"], code, "{report}");
    assert_eq!(json.code, Some(code));
    out
}

pub(crate) fn alone() -> Home {
    let home = Home::init();
    let daemon = home.start();
    home.ok(&["message", "assistant", "one"]);
    daemon.stop();
    home
}

fn seed_of(home: &Home) -> NodeSeed {
    openfang_node::keys::load(&home.file("node.key")).expect("a key")
}

/// Evidence against the log of whoever has this seed.
fn equivocation(seed: &NodeSeed) -> Evidence {
    let keys = seed.keys();
    let origin = Origin::of(&keys.node_id(), 1);
    let note = |root: u8| -> Note {
        let checkpoint = Checkpoint {
            origin: origin.clone(),
            size: 3,
            root: Hash::from_bytes([root; 32]),
        };
        let head = SignedHead::sign(checkpoint, &keys.log);
        head.note.parse().expect("a note")
    };
    let key = Verifier::new(origin.as_str(), keys.log.verifying_key()).expect("a key");
    Evidence::equivocation(&key, &note(1), &note(2)).expect("evidence")
}

/// Keeps evidence against the node of a home.
pub(crate) fn convict(home: &Home) {
    keep(home, &equivocation(&seed_of(home)));
}

fn keep(home: &Home, evidence: &Evidence) {
    let folder = home.file("audit.d/evidence");
    std::fs::create_dir_all(&folder).expect("made");
    std::fs::write(folder.join(evidence.file_name()), evidence.to_bytes()).expect("written");
}

fn alter(home: &Home) {
    let altered = home
        .read("audit.jsonl")
        .replacen("message_in", "message_on", 1);
    home.write("audit.jsonl", &altered);
}

#[test]
fn a_node_without_peers_is_not_below_a_quorum() {
    let home = alone();
    verify(&home, 0, &["intact: ", "not witnessed: no peers"]);
    let daemon = home.start();
    let out = home.run(&["audit", "verify", "--peers"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(out.stdout.contains("peers: none"), "{out:?}");
    daemon.stop();
    let out = home.run(&["audit", "verify", "--peers"]);
    assert_eq!(out.code, Some(2), "not asked is not fine: {out:?}");
    assert!(
        out.stdout.contains("INCOMPLETE: the peers were not asked"),
        "{out:?}"
    );
}

#[test]
fn evidence_is_told_whom_it_is_against_and_wins_as_documented() {
    let home = alone();
    keep(&home, &equivocation(&NodeSeed::from_bytes([7; 32])));
    verify(
        &home,
        4,
        &["intact: ", "EVIDENCE against n-", "equivocation"],
    );
    alter(&home);
    // A log that was tampered with says so first, whatever others have done.
    verify(
        &home,
        1,
        &["TAMPERED", "first bad entry", "EVIDENCE against n-"],
    );
    keep(&home, &equivocation(&seed_of(&home)));
    verify(&home, 4, &["TAMPERED", "EVIDENCE against THIS NODE"]);
    std::fs::remove_file(home.file("audit.jsonl")).expect("removed");
    std::fs::create_dir(home.file("audit.jsonl")).expect("made");
    verify(&home, 4, &["cannot read", "EVIDENCE against THIS NODE"]);
    std::fs::remove_dir_all(home.file("audit.d/evidence")).expect("removed");
    verify(&home, 2, &["cannot read"]);
}

#[test]
fn evidence_that_is_damaged_or_gone_is_not_forgotten() {
    let home = alone();
    let evidence = equivocation(&NodeSeed::from_bytes([7; 32]));
    let name = evidence.file_name();
    let path = home.file("audit.d/evidence").join(&name);
    keep(&home, &evidence);
    verify(&home, 4, &["EVIDENCE against n-"]);
    let mut bytes = evidence.to_bytes();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let damaged = ["intact: ", "INCOMPLETE", &name, "is damaged", "mend: "];
    verify(&home, 2, &damaged);
    let list = ["audit", "evidence"];
    home.fails(&list, 2, &["INCOMPLETE", &name, "is damaged", "mend: "]);
    std::fs::remove_file(&path).expect("removed");
    verify(&home, 0, &["intact: "]);
    home.ok(&list);
    tell_of(&home, &evidence);
    let told = "INCOMPLETE: the log tells of evidence against n-";
    let out = home.fails(&list, 2, &[told, &name, "is not there"]);
    assert!(!out.stderr.contains("no evidence is known"), "{out:?}");
    let out = home.fails(&["audit", "evidence", "--json"], 2, &[]);
    let listed: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    assert_eq!(listed["exit"], 2);
    let why = listed["incomplete"].as_str().unwrap_or_default();
    assert!(why.contains(&name), "{listed}");
    let gone = [
        "intact: ",
        "INCOMPLETE: the log tells of evidence against n-",
        &name,
        "is not there",
    ];
    verify(&home, 2, &gone);
    keep(&home, &evidence);
    verify(&home, 4, &["EVIDENCE against n-"]);
}

/// Writes the entry about evidence that a node writes.
fn tell_of(home: &Home, evidence: &Evidence) {
    let keys = seed_of(home).keys();
    let options = openfang_audit::Options {
        log_path: home.file("audit.jsonl"),
        dir: home.file("audit.d"),
        node: keys.node_id(),
        key: keys.log,
        boot: 7,
        epoch: 1,
        held: false,
    };
    let clock = std::sync::Arc::new(openfang_node::clock::MachineClock);
    let (log, _) = openfang_audit::Log::open(options, clock).expect("a log");
    let what = format!("{}, evidence {}", evidence.kind(), evidence.file_name());
    let origin = evidence.origin().as_str().parse().expect("a name");
    let what = openfang_audit::Public::text(&what);
    let event = openfang_audit::Event::peer_evidence(&origin, what);
    log.append(event, Box::new(|done| assert!(done.is_ok(), "{done:?}")))
        .expect("queued");
    log.close().expect("closed");
}

#[test]
fn files_that_prove_nothing_convict_nobody() {
    let home = alone();
    let evidence = equivocation(&NodeSeed::from_bytes([7; 32]));
    let folder = home.file("audit.d/evidence");
    let mut bytes = evidence.to_bytes();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    for (name, bytes) in [
        ("forged.json", bytes),
        ("rubbish.json", b"{}".to_vec()),
        ("long.json", vec![b'x'; 5_000]),
        ("torn-0", b"x".to_vec()),
    ] {
        std::fs::write(folder.join(name), bytes).expect("written");
    }
    std::fs::create_dir(folder.join("folder.json")).expect("made");
    verify(
        &home,
        0,
        &["intact: ", "4 files beside the evidence prove nothing"],
    );
    let list = home.json(&["audit", "evidence", "--json"]);
    assert_eq!(list["evidence"], serde_json::json!([]));
    assert_eq!(list["worthless"].as_array().map(Vec::len), Some(4));
}

#[test]
fn evidence_is_listed_and_checked_anywhere() {
    let home = alone();
    let out = home.run(&["audit", "evidence"]);
    assert!(out.stderr.contains("no evidence is known"), "{out:?}");
    let evidence = equivocation(&seed_of(&home));
    keep(&home, &evidence);
    let table = home.ok(&["audit", "evidence"]);
    assert!(
        table.contains("equivocation") && table.contains(&evidence.file_name()),
        "{table}"
    );
    let file = home.file("audit.d/evidence").join(evidence.file_name());
    let path = file.to_str().expect("text");
    let said = home.ok(&["audit", "evidence", "verify", path]);
    assert!(
        said.starts_with("proves: the log has signed two roots"),
        "{said}"
    );
    std::fs::write(home.file("own"), home.ok(&["audit", "policy"])).expect("written");
    let own = home.file("own");
    let own = own.to_str().expect("text");
    home.ok(&["audit", "evidence", "verify", path, "--policy", own]);
    let other = alone();
    std::fs::write(home.file("other"), other.ok(&["audit", "policy"])).expect("written");
    let policy = home.file("other");
    let policy = policy.to_str().expect("text");
    let out = home.run(&["audit", "evidence", "verify", path, "--policy", policy]);
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(
        out.stdout.contains("DOES NOT CONCERN the policy"),
        "{out:?}"
    );
    check_forged(&home, &evidence.to_bytes());
}

/// Every byte that is changed makes it something that proves nothing, or cannot be read.
fn check_forged(home: &Home, evidence: &[u8]) {
    let path = home.file("forged");
    for at in (0..evidence.len()).step_by(41) {
        let mut bytes = evidence.to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        std::fs::write(&path, bytes).expect("written");
        let out = home.run(&["audit", "evidence", "verify", path.to_str().expect("text")]);
        assert!(matches!(out.code, Some(1 | 2)), "byte {at}: {out:?}");
    }
    std::fs::write(&path, vec![b'x'; 1 << 20]).expect("written");
    let long = ["audit", "evidence", "verify", path.to_str().expect("text")];
    home.fails(&long, 2, &["longer than 4096 bytes"]);
    let folder = home.file("audit.d");
    let folder = [
        "audit",
        "evidence",
        "verify",
        folder.to_str().expect("text"),
    ];
    home.fails(&folder, 2, &["cannot read"]);
}

/// Copies what the log says of itself.
fn copy(from: &Home, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for name in NAMES {
        std::fs::copy(from.file(name), to.join(name.replace('/', "_"))).expect("copied");
    }
}

fn put_back(home: &Home, from: &Path) {
    for name in NAMES {
        std::fs::copy(from.join(name.replace('/', "_")), home.file(name)).expect("copied");
    }
}

const NAMES: [&str; 5] = [
    "audit.jsonl",
    "audit.d/floor",
    "audit.d/checkpoint",
    "audit.d/closed",
    "audit.d/hashes.0",
];

#[test]
fn a_log_that_was_put_back_contradicts_its_witnesses() {
    let (a, b) = (node("a", true), node("b", false));
    let (daemon_a, daemon_b) = (a.start(), b.start());
    b.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    eventually("a head is cosigned", || a.file("audit.d/cosigned").exists());
    daemon_a.stop();
    verify(&a, 0, &["intact: ", "witnessed: the first", "by 1 of 1"]);
    let early = tempfile::tempdir().expect("a folder");
    copy(&a, early.path());
    let daemon_a = a.start();
    a.ok(&["message", "of-a", "more"]);
    let entries = || a.read("audit.jsonl").lines().count();
    eventually("what came after is cosigned too", || {
        let cosigned = a.read("audit.d/cosigned");
        let size = cosigned.lines().nth(1).and_then(|size| size.parse().ok());
        size.is_some_and(|size: usize| size >= entries().saturating_sub(1))
    });
    let out = a.run(&["audit", "verify", "--peers"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(out.stdout.contains("witness b ("), "{out:?}");
    daemon_a.stop();
    let late = tempfile::tempdir().expect("a folder");
    copy(&a, late.path());
    // Everything that this node says of its log, and nothing of what its witnesses say.
    put_back(&a, early.path());
    verify(
        &a,
        1,
        &[
            "TAMPERED",
            "agree with each other",
            "put back to an older state",
        ],
    );
    check_without_the_witnesses(&a, late.path());
    check_two_histories(&a, late.path());
    daemon_b.stop();
}

/// What is said when what was kept of the witnesses is missing or damaged.
fn check_without_the_witnesses(a: &Home, late: &Path) {
    // Without the cosigned head as well: the peers know.
    let cosigned = a.read("audit.d/cosigned");
    std::fs::remove_file(a.file("audit.d/cosigned")).expect("removed");
    std::fs::rename(a.file("audit.d/mirrored"), a.file("mirrored")).expect("moved");
    let doubt = "IN DOUBT: its files are not those that this node wrote";
    verify(
        a,
        2,
        &[
            doubt,
            "mend: openfang start",
            "not shown to be witnessed",
            "or the file was removed",
        ],
    );
    // What its mirrors have cosigned tells it, too.
    std::fs::rename(a.file("mirrored"), a.file("audit.d/mirrored")).expect("moved");
    verify(a, 1, &["TAMPERED", "a head that mirrors have cosigned"]);
    std::fs::rename(a.file("audit.d/mirrored"), a.file("mirrored")).expect("moved");
    let policy = std::fs::File::options()
        .write(true)
        .open(a.file("audit.d/policy"));
    let policy = policy.expect("there");
    let written = policy
        .metadata()
        .and_then(|found| found.modified())
        .expect("known");
    let hour = std::time::Duration::from_secs(3_600);
    policy.set_modified(written - hour).expect("set");
    verify(a, 2, &[doubt, "BELOW QUORUM: there are 1 witnesses"]);
    // A node that cosigned less than it promised is below, which is not tampered.
    a.write("audit.d/cosigned", "x");
    verify(
        a,
        2,
        &[
            doubt,
            "BELOW QUORUM: who has cosigned",
            "mend: openfang start",
        ],
    );
    a.write("audit.d/cosigned", &cosigned);
    // Neither without the policy nor with rubbish in its place: the head alone tells that the log is older.
    let old = [
        "TAMPERED",
        "put back to an older state",
        "mend: openfang start: ",
    ];
    std::fs::remove_file(a.file("audit.d/policy")).expect("removed");
    verify(a, 1, &old);
    a.write("audit.d/policy", "x");
    verify(a, 1, &old);
    put_back(a, late);
    verify(a, 2, &["intact: ", "INCOMPLETE", "line 1 of the policy"]);
    a.fails(
        &["audit", "policy"],
        2,
        &["is damaged", "mend: openfang start"],
    );
    std::fs::remove_file(a.file("audit.d/policy")).expect("removed");
    let gone = ["audit.d/policy is missing", "mend: openfang start"];
    verify(a, 3, &["BELOW QUORUM", gone[0], gone[1]]);
    let out = a.fails(&["audit", "policy"], 2, &gone);
    assert_eq!(out.stdout, "", "no quorum is made up");
    // The start mends it.
    std::fs::remove_file(a.file("audit.d/cosigned")).expect("removed");
    let daemon_a = a.start();
    eventually("both are written again", || {
        a.file("audit.d/cosigned").exists() && a.file("audit.d/policy").exists()
    });
    daemon_a.stop();
    a.ok(&["audit", "policy"]);
    verify(a, 0, &["witnessed: the first"]);
}

#[test]
fn what_the_last_run_found_to_be_doubtful_is_not_intact() {
    let home = alone();
    let json = || {
        let out = home.run(&["audit", "verify", "--json"]);
        serde_json::from_str::<serde_json::Value>(&out.stdout).expect("JSON")
    };
    assert_eq!(
        (&json()["standing"], &json()["floor"]),
        (&"fine".into(), &"there".into())
    );
    for (word, said) in [
        ("gone", "the log was gone"),
        ("rolled back", "put back to an earlier state"),
        ("rubbish", "none of the words"),
    ] {
        home.write("audit.doubt", &format!("{word}\n"));
        let out = verify(&home, 2, &["IN DOUBT: ", said, "mend: openfang join"]);
        assert!(!out.stdout.contains("intact"), "{out:?}");
        assert_eq!(json()["verdict"], "in_doubt");
    }
    // What is known is not hidden by what is not.
    alter(&home);
    verify(&home, 1, &["TAMPERED"]);
}

#[test]
fn a_home_that_was_wiped_never_had_an_empty_log() {
    let home = alone();
    for name in ["audit.jsonl", "audit.epoch"] {
        std::fs::remove_file(home.file(name)).expect("removed");
    }
    std::fs::remove_dir_all(home.file("audit.d")).expect("removed");
    verify(&home, 1, &["TAMPERED", "mend: "]);
    let out = home.run(&["audit", "repair"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(out.stdout.contains("the log is gone"), "{out:?}");
    let new = Home::init();
    verify(&new, 0, &["empty: "]);
}

#[test]
fn rubbish_in_the_place_of_a_head_is_called_damaged() {
    let home = alone();
    for name in ["floor", "checkpoint"] {
        let path = format!("audit.d/{name}");
        let good = home.read(&path);
        for junk in ["", "junk\n", "a\n1\nx\n", &good[..40]] {
            home.write(&path, junk);
            verify(&home, 1, &["TAMPERED", "is damaged"]);
        }
        let json = home.run(&["audit", "verify", "--json"]).stdout;
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let floor = if name == "floor" { "damaged" } else { "there" };
        assert_eq!(json["floor"], floor);
        if name == "checkpoint" {
            home.fails(
                &["audit", "prove", "0"],
                1,
                &["is damaged", "mend: openfang audit repair"],
            );
        }
        home.write(&path, &good);
    }
    verify(&home, 0, &["intact: "]);
}

#[test]
fn a_node_that_keeps_no_log_says_so() {
    let home = Home::with_config("[audit]\nenabled = false\n");
    for args in [
        &["verify"][..],
        &["show"],
        &["policy"],
        &["prove", "0"],
        &["witness", "status"],
    ] {
        let args = [&["audit"], args].concat();
        home.fails(
            &args,
            2,
            &["audit.enabled is false", "mend: audit.enabled = true"],
        );
    }
    let daemon = home.start();
    assert!(
        home.ok(&["status"])
            .contains("audit    off: audit.enabled is false")
    );
    daemon.stop();
    // What was kept before is shown, and said to be that.
    let before = alone();
    before.write("config.toml", "[audit]\nenabled = false\n");
    let out = before.run(&["audit", "verify"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(out.stderr.contains("the one it kept before"), "{out:?}");
}

/// A log that ran on without its mesh and meets it again: whoever asks is told, and what to do.
fn check_two_histories(home: &Home, whole: &Path) {
    let daemon = home.start();
    home.ok(&["message", "of-a", "in the mesh"]);
    let size = |path: &str| {
        let head = home.read(path);
        head.lines()
            .nth(1)
            .and_then(|size| size.parse::<u64>().ok())
    };
    eventually("it is cosigned", || {
        size("audit.d/cosigned") == size("audit.d/floor")
    });
    daemon.stop();
    put_back(home, whole);
    std::fs::remove_dir_all(home.file("audit.d/mirrored")).expect("removed");
    std::fs::remove_file(home.file("audit.d/cosigned")).expect("removed");
    let config = home.read("config.toml");
    home.write(
        "config.toml",
        &config.replace("[network]\n", "[network]\nenabled = false\n"),
    );
    let daemon = home.start();
    for _ in 0..9 {
        home.ok(&["message", "of-a", "alone"]);
    }
    daemon.stop();
    home.write("config.toml", &config);
    let daemon = home.start();
    eventually("its peer contradicts it", || {
        home.json(&["status", "--json"])["audit"]["state"] == "contradicted"
    });
    let said = [
        "TAMPERED",
        "two histories",
        "mend: is another machine running",
    ];
    let out = verify(home, 1, &said);
    assert!(!out.stdout.contains("restart"), "{out:?}");
    let out = home.run(&["status"]);
    assert!(
        out.stderr.contains("mend: is another machine running"),
        "{out:?}"
    );
    let status = home.ok(&["audit", "witness", "status"]);
    assert!(status.contains("not now: CONTRADICTED"), "{status}");
    let (_, health) = daemon.http("GET", "/api/health", "");
    assert!(health.contains("degraded"), "{health}");
    let out = home.run(&["audit", "verify", "--peers"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(
        out.stdout.contains("has another root for the first"),
        "{out:?}"
    );
    daemon.stop();
    // And when the node is stopped.
    verify(
        home,
        1,
        &["TAMPERED", "the last run of the node found", said[2]],
    );
}
