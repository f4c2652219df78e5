//! A home that is put back from a backup, among peers that know what came after it.

use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Daemon, Home, eventually};
use crate::mesh::node;
use crate::verdicts::{alone, verify};

/// Copies a home as an operator does it: files with new numbers.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status()
        .expect("cp");
    assert!(status.success());
}

/// Returns how many entries of the log witnesses have cosigned.
fn cosigned(home: &Home) -> usize {
    let note = std::fs::read_to_string(home.file("audit.d/cosigned")).unwrap_or_default();
    let size = note.lines().nth(1).and_then(|size| size.parse().ok());
    size.unwrap_or_default()
}

/// Lets a peer cosign the log of a home, and returns a backup of the home, which is stopped.
fn backup_of(home: &Home, peer: &Home) -> (TempDir, Daemon) {
    let (daemon, daemon_of_peer) = (home.start(), peer.start());
    peer.ok(&["join", home.ok(&["ticket"]).trim_end()]);
    eventually("a head is cosigned", || cosigned(home) > 0);
    daemon.stop();
    let backup = tempfile::tempdir().expect("a folder");
    copy(home.path(), backup.path());
    (backup, daemon_of_peer)
}

/// Tells whether the only peer of a home has cosigned and copied so many entries of its log.
fn is_replicated(home: &Home, entries: usize) -> bool {
    let status = home.json(&["audit", "witness", "status", "--json"]);
    let is_whole = status["mirroring"]["complete"] == 1 && status["state"] == "complete";
    is_whole && cosigned(home) >= entries
}

#[test]
fn a_whole_backup_is_signed_no_further_before_those_who_saw_more_have_spoken() {
    let (a, b) = (node("a", true), node("b", false));
    let (backup, daemon_b) = backup_of(&a, &b);

    let daemon_a = a.start();
    assert!(!a.file("audit.doubt").exists(), "it is the same home");
    let before = cosigned(&a);
    a.ok(&["message", "of-a", "more"]);
    eventually("what came after the backup is cosigned", || {
        cosigned(&a) > before
    });
    daemon_a.stop();
    daemon_b.signal(Signal::STOP);
    let late = cosigned(&a);

    // Nothing of it is missing, and it agrees with itself. Written over, as the numbers of files stay.
    copy(backup.path(), a.path());
    // A head that a mirror has cosigned since is not in the backup, and would tell that entries are gone.
    drop(std::fs::remove_dir_all(a.file("audit.d/mirrored")));
    let doubt = ["IN DOUBT: its files are not those", "mend: openfang start"];
    verify(&a, 2, &doubt);
    // Who is in no mesh has nobody to ask.
    let config = a.read("config.toml");
    a.write(
        "config.toml",
        &config.replace("[network]", "[network]\nenabled = false"),
    );
    verify(&a, 0, &["intact: "]);
    a.write("config.toml", &config);
    let daemon_a = a.start();
    assert_eq!(a.read("audit.doubt"), "moved\n");
    a.ok(&["message", "of-a", "what nobody has seen"]);
    let status = a.ok(&["audit", "witness", "status"]);
    assert!(status.contains("asked what they know"), "{status}");
    assert!(!status.contains("mend: "), "it has just begun: {status}");
    let verdict = a.run(&["audit", "verify", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&verdict.stdout).expect("JSON");
    assert!(told["unsigned"].as_u64() > Some(0), "{told}");
    assert!(matches!(verdict.code, Some(1 | 2)), "{verdict:?}");
    assert_eq!(told["standing"], "in_doubt");
    daemon_a.stop();

    // The doubt outlives a restart.
    let daemon_a = a.start();
    assert_eq!(a.read("audit.doubt"), "moved\n");
    daemon_b.signal(Signal::CONT);
    eventually("the log is whole, and goes on", || cosigned(&a) > late);
    eventually("it is in order", || !a.file("audit.doubt").exists());
    for home in [&a, &b] {
        let out = home.run(&["audit", "evidence"]);
        assert_eq!(out.code, Some(0), "{out:?}");
    }
    daemon_a.stop();
    daemon_b.stop();
}

#[test]
fn the_backup_of_a_node_that_never_met_anybody_is_as_good_as_the_home() {
    let home = alone();
    let backup = tempfile::tempdir().expect("a folder");
    copy(home.path(), backup.path());
    copy(backup.path(), home.path());
    verify(&home, 0, &["intact: "]);
}

#[test]
fn a_log_in_doubt_is_not_taken_for_two_histories() {
    let (a, b, c) = (node("a", true), node("b", false), node("c", false));
    let (daemon_a, daemon_b, daemon_c) = (a.start(), b.start(), c.start());
    for peer in [&b, &c] {
        peer.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    }
    let witnesses = || {
        let status = a.json(&["audit", "witness", "status", "--json"]);
        status["witnesses"].as_array().map_or(0, Vec::len)
    };
    eventually("both witness", || witnesses() == 2);
    daemon_a.stop();
    let backup = tempfile::tempdir().expect("a folder");
    copy(a.path(), backup.path());
    let daemon_a = a.start();
    a.ok(&["message", "of-a", "more"]);
    let entries = a.read("audit.jsonl").lines().count();
    eventually("it is cosigned", || cosigned(&a) >= entries);
    daemon_a.stop();
    // One that has seen more answers; the other one is waited for.
    daemon_c.signal(Signal::STOP);
    copy(backup.path(), a.path());
    let daemon_a = a.start();
    let written = || a.read("audit.jsonl").lines().count();
    while written() <= entries + 2 {
        a.ok(&["message", "of-a", "what is not signed"]);
    }
    let ask = ["audit", "verify", "--peers"];
    eventually("b has said what it holds", || {
        a.run(&ask).stdout.contains("witness b (")
    });
    let out = a.run(&ask);
    assert!(!out.stdout.contains("signed twice"), "{out:?}");
    assert!(!out.stdout.contains("away"), "{out:?}");
    assert!(out.code != Some(0), "{out:?}");
    if !out.stdout.contains("the running node says: ") {
        assert_eq!(out.code, Some(2), "{out:?}");
        assert!(out.stdout.starts_with("IN DOUBT"), "{out:?}");
    }
    daemon_c.signal(Signal::CONT);
    eventually("the log is whole, and goes on", || cosigned(&a) > entries);
    for daemon in [daemon_a, daemon_b, daemon_c] {
        daemon.stop();
    }
}

#[test]
fn a_backup_that_was_taken_while_the_node_ran_is_known_to_be_one() {
    let (a, b) = (node("a", true), node("b", false));
    let (daemon_a, daemon_b) = (a.start(), b.start());
    b.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    eventually("a head is cosigned", || cosigned(&a) > 0);
    let backup = tempfile::tempdir().expect("a folder");
    copy(a.path(), backup.path());
    let before = cosigned(&a);
    a.ok(&["message", "of-a", "more"]);
    eventually("what came after the backup is cosigned", || {
        cosigned(&a) > before
    });
    daemon_a.stop();
    // Stopped as usual, it is the same home.
    let daemon_a = a.start();
    assert!(!a.file("audit.doubt").exists());
    daemon_a.stop();
    daemon_b.signal(Signal::STOP);
    let late = cosigned(&a);
    copy(backup.path(), a.path());
    let daemon_a = a.start();
    assert_eq!(a.read("audit.doubt"), "moved\n");
    daemon_b.signal(Signal::CONT);
    eventually("the log is whole, and goes on", || cosigned(&a) > late);
    for home in [&a, &b] {
        let out = home.run(&["audit", "evidence"]);
        assert_eq!(out.code, Some(0), "{out:?}");
    }
    daemon_a.stop();
    daemon_b.stop();
}

#[test]
fn who_is_waited_for_is_named() {
    let (a, b) = (node("a", true), node("b", false));
    let (_backup, daemon_b) = backup_of(&a, &b);
    daemon_b.stop();
    // Moved to another disk: the files are whole, and not known to be those that the node wrote.
    let floor = a.file("audit.d/floor");
    let bytes = std::fs::read(&floor).expect("read");
    std::fs::remove_file(&floor).expect("removed");
    std::fs::write(&floor, bytes).expect("written");
    let daemon_a = a.start();
    assert_eq!(a.read("audit.doubt"), "moved\n");
    check_who_is_silent(&a, &b);
    daemon_a.stop();
}

fn check_who_is_silent(home: &Home, peer: &Home) {
    let seed = openfang_node::keys::load(&peer.file("node.key")).expect("a key");
    let id = seed.keys().node_id().to_string();
    eventually("who is silent is named", || {
        let told = home.json(&["audit", "witness", "status", "--json"]);
        let silent = told["signing"]["silent"].as_array();
        silent.is_some_and(|all| {
            all.iter()
                .any(|one| one.as_str().is_some_and(|one| one.contains(&id)))
        })
    });
    let status = home.ok(&["audit", "witness", "status"]);
    for words in [&id[..], "mend: start the nodes that are named", "0 of 1"] {
        assert!(status.contains(words), "{words}: {status}");
    }
}

#[test]
fn a_log_with_two_histories_is_not_patched_from_one_with_the_other() {
    let (a, b) = (node("a", true), node("b", false));
    let (backup, daemon_b) = backup_of(&a, &b);
    let daemon_a = a.start();
    a.ok(&["message", "of-a", "first"]);
    let entries = a.read("audit.jsonl").lines().count();
    eventually("b has a copy of what came after", || {
        is_replicated(&a, entries)
    });
    daemon_a.stop();

    // The backup goes on alone, and signs something else.
    copy(backup.path(), a.path());
    let config = a.read("config.toml");
    a.write(
        "config.toml",
        &config.replace("[network]", "[network]\nenabled = false"),
    );
    let daemon_a = a.start();
    for text in ["second", "third", "fourth"] {
        a.ok(&["message", "of-a", text]);
    }
    daemon_a.stop();
    a.write("config.toml", &config);
    let lines = a.read("audit.jsonl");
    let told = [
        "two histories",
        "nothing was changed",
        "move audit.jsonl and audit.d away",
    ];
    a.fails(&["audit", "repair", "--from", "b"], 1, &told);
    assert_eq!(a.read("audit.jsonl"), lines);

    // What it says helps.
    for name in ["audit.jsonl", "audit.d"] {
        std::fs::rename(a.file(name), a.file(&format!("{name}.away"))).expect("moved");
    }
    let vault = tempfile::tempdir().expect("a folder");
    copy(&a.file("audit.d.away/vault"), vault.path());
    std::fs::create_dir(a.file("audit.d")).expect("made");
    std::fs::create_dir(a.file("audit.d/vault")).expect("made");
    copy(vault.path(), &a.file("audit.d/vault"));
    let daemon_a = a.start();
    eventually("it goes on as its peer has it", || cosigned(&a) > entries);
    let first = a.ok(&["audit", "show", "--limit", "1000"]);
    assert!(first.contains("log_recovered"), "{first}");
    assert_eq!(a.run(&["audit", "verify"]).code, Some(0));
    daemon_a.stop();
    daemon_b.stop();
}

/// Returns what `home` holds of the audit log of its only peer.
fn state_of_peer(home: &Home) -> String {
    let reply = home.json(&["peers", "--json"]);
    let peers = reply["peers"].as_array().expect("a list");
    let state = peers.iter().map(|peer| peer["audit"]["state"].to_string());
    state.collect()
}

#[test]
fn a_log_that_was_damaged_while_it_ran_is_trusted_again_when_it_is_whole() {
    let (a, b) = (node("a", true), node("b", false));
    let (daemon_a, daemon_b) = (a.start(), b.start());
    b.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    a.ok(&["message", "of-a", "one"]);
    let entries = a.read("audit.jsonl").lines().count();
    eventually("b has a copy", || is_replicated(&a, entries));
    let altered = a
        .read("audit.jsonl")
        .replacen("message_in", "message_on", 1);
    a.write("audit.jsonl", &altered);
    eventually("b is told that it was altered", || {
        a.run(&["message", "of-a", "more"]);
        state_of_peer(&b).contains("inconsistent")
    });
    daemon_a.stop();
    a.ok(&["audit", "repair"]);
    let daemon_a = a.start();
    eventually("b has seen that it is whole", || {
        a.ok(&["message", "of-a", "more"]);
        state_of_peer(&b).contains("\"consistent\"")
    });
    eventually("b cosigns it again", || cosigned(&a) > entries);
    let log = b.ok(&["audit", "show", "--filter", "peer_evidence"]);
    assert!(log.contains("mended"), "{log}");
    daemon_a.stop();
    daemon_b.stop();
}
