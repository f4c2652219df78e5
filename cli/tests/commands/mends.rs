//! What is said to help does help, and nobody is sent round in a circle.

use rustix::process::Signal;

use crate::harness::{Home, eventually};
use crate::mesh::node;
use crate::verdicts::{alone, convict, verify};

fn remove(home: &Home, names: &[&str]) {
    for name in names {
        std::fs::remove_file(home.file(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// How many entries a signed head is of.
fn size_of(home: &Home, head: &str) -> u64 {
    let note = std::fs::read_to_string(home.file(head)).unwrap_or_default();
    let size = note.lines().nth(1).and_then(|size| size.parse().ok());
    size.unwrap_or_default()
}

#[test]
fn what_stands_twice_at_the_end_is_cut_off_by_the_repair_that_verify_names() {
    let home = alone();
    let good = home.read("audit.jsonl");
    let last = good.lines().last().expect("a line");
    home.write("audit.jsonl", &format!("{good}{last}\n"));
    verify(&home, 1, &["TAMPERED", "openfang audit repair", "cuts off"]);
    home.ok(&["audit", "repair"]);
    assert_eq!(home.read("audit.jsonl"), good);
    // One that stands in the middle is no matter of the end.
    let first = good.lines().next().expect("a line");
    home.write("audit.jsonl", &format!("{first}\n{good}"));
    verify(&home, 1, &["TAMPERED", "backup that verifies"]);
}

#[test]
fn a_head_that_is_missing_is_not_one_that_is_wrong() {
    let home = alone();
    remove(&home, &["audit.d/floor"]);
    let missing = [
        "intact: ",
        "INCOMPLETE: its signing floor is missing",
        "mend: openfang audit repair",
    ];
    verify(&home, 2, &missing);
    home.fails(&["start"], 1, &["is missing"]);
    remove(&home, &["audit.d/checkpoint"]);
    let out = verify(&home, 1, &["TAMPERED: the signed heads are missing"]);
    assert!(!out.stdout.contains("not valid"), "{out:?}");
    let out = home.fails(&["audit", "repair"], 1, &["its signed heads are gone"]);
    assert!(!out.stderr.contains("not valid"), "{out:?}");
}

#[test]
fn a_word_that_no_node_writes_is_shown_as_it_stands() {
    let home = alone();
    home.write("audit.doubt", "junk\n");
    let said = ["IN DOUBT: audit.doubt holds \"junk\"", "none of the words"];
    verify(&home, 2, &said);
}

#[test]
fn a_reserve_that_was_used_tells_of_a_full_disk() {
    let home = alone();
    let out = verify(&home, 0, &["intact: "]);
    assert!(!out.stdout.contains("reserve"), "{out:?}");
    remove(&home, &["audit.d/reserve"]);
    verify(
        &home,
        0,
        &["intact: ", "reserve is not there: the disk was full"],
    );
}

#[test]
fn a_damaged_head_of_a_mirror_is_told() {
    let home = alone();
    std::fs::create_dir_all(home.file("audit.d/mirrored")).expect("made");
    let path = "audit.d/mirrored/12D3KooWFMRJk5pQnyvkFyf7J5q8rRHAEJkqU5gTifeJCjZaEicf";
    home.write(path, &format!("key\n{}", home.read("audit.d/checkpoint")));
    let out = home.run(&["audit", "verify"]);
    assert!(!out.stderr.contains("mirrored"), "{out:?}");
    home.write(path, "key\nrubbish\n");
    let out = home.run(&["audit", "verify"]);
    assert!(
        out.stderr.contains(path) && out.stderr.contains("mend: "),
        "{out:?}"
    );
}

#[test]
fn a_repair_makes_nothing_where_nothing_is() {
    let has_log = |home: &Home| home.file("audit.jsonl").exists() || home.file("audit.d").exists();
    let new = Home::init();
    new.ok(&["audit", "repair"]);
    new.fails(&["audit", "repair", "--accept"], 1, &["mend: "]);
    assert!(!has_log(&new));
    let gone = alone();
    std::fs::remove_dir_all(gone.file("audit.d")).expect("removed");
    remove(&gone, &["audit.jsonl"]);
    let out = gone.run(&["audit", "repair"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    gone.fails(&["audit", "repair", "--accept"], 1, &["mend: "]);
    assert!(!has_log(&gone));
    // The lines alone are gone.
    let cut = alone();
    remove(&cut, &["audit.jsonl"]);
    cut.fails(&["audit", "repair"], 1, &["mend: "]);
    assert!(!cut.file("audit.jsonl").exists());
}

#[test]
fn a_log_that_is_switched_off_says_so_and_how_to_switch_it_on() {
    let home = alone();
    home.write("config.toml", "[audit]\nenabled = false\n");
    let said = ["audit.enabled is false", "mend: audit.enabled = true"];
    let redact = ["audit", "redact", "1", "--reason", "asked"];
    home.fails(&redact, 2, &said);
    let beyond = ["audit", "prove", "9999"];
    home.fails(&beyond, 3, &[said[0]]);
    let daemon = home.start();
    home.fails(&["audit", "witness", "status"], 2, &said);
    let out = home.run(&redact);
    assert_eq!(out.code, Some(2), "{out:?}");
    daemon.stop();
}

#[test]
fn who_is_convicted_is_not_told_that_its_peers_go_on_with_it() {
    let home = alone();
    home.write("audit.doubt", "contradicted\n");
    verify(&home, 1, &["TAMPERED", "mend: is another machine running"]);
    convict(&home);
    let said = [
        "EVIDENCE against THIS NODE",
        "its identity is spent",
        "audit.allow_convicted",
    ];
    let out = verify(&home, 4, &said);
    assert!(
        !out.stdout.contains("it goes on as the peers have it"),
        "{out:?}"
    );
}

#[test]
fn who_is_convicted_is_not_told_to_move_a_log_away_that_is_intact() {
    let home = node("a", true);
    home.start().stop();
    convict(&home);
    let said = [
        "intact: ",
        "EVIDENCE against THIS NODE",
        "audit.allow_convicted",
        "This log goes on as it is",
    ];
    let out = verify(&home, 4, &said);
    assert!(!out.stdout.contains("audit.d away"), "{out:?}");
    let daemon = home.start();
    for args in [&["audit", "witness", "status"][..], &["status"]] {
        let out = home.run(args);
        assert_eq!(out.code, Some(0), "{out:?}");
        let text = format!("{}{}", out.stdout, out.stderr);
        assert!(text.contains("This log goes on as it is"), "{text}");
        assert!(!text.contains("audit.d away"), "{text}");
    }
    daemon.stop();
}

#[test]
fn a_log_that_is_intact_is_not_called_damaged_where_nobody_has_a_copy() {
    let (a, b) = (node("a", true), node("b", false));
    let (daemon_a, daemon_b) = (a.start(), b.start());
    b.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    eventually("they have met", || a.file("audit.d/policy").exists());
    daemon_a.stop();
    daemon_b.stop();
    let out = a.run(&["audit", "repair"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(out.stdout.contains("nothing is damaged"), "{out:?}");
    assert!(!out.stderr.contains("away"), "{out:?}");
    // Who names a copy wants that copy.
    let out = a.run(&["audit", "repair", "--from", "b"]);
    assert_eq!(out.code, Some(5), "{out:?}");
}

#[test]
fn lines_that_were_not_moved_along_are_found() {
    let home = alone();
    let lines = home.read("audit.jsonl");
    let to = home.file("elsewhere.jsonl");
    let config = home.read("config.toml");
    home.write(
        "config.toml",
        &config.replace("[audit]", &format!("[audit]\nlog_path = {to:?}")),
    );
    let (from, to) = (home.file("audit.jsonl"), to);
    let moves = format!("move {} to {}", from.display(), to.display());
    verify(&home, 1, &["TAMPERED", "audit.log_path names", &moves]);
    home.fails(&["start"], 1, &["audit.log_path", &moves]);
    assert!(!to.exists(), "nothing was made");
    std::fs::rename(&from, &to).expect("moved");
    verify(&home, 0, &["intact: "]);
    home.start().stop();
    let now = std::fs::read_to_string(&to).expect("readable");
    assert!(now.starts_with(&lines) && now.len() > lines.len());
}

#[test]
fn what_a_redaction_is_refused_for_is_said_with_what_helps() {
    let home = alone();
    let check = |seq: &str, mend: &str| {
        let args = ["audit", "redact", seq, "--reason", "x", "--json"];
        let out = home.fails(&args, 3, &["mend: ", mend]);
        let said: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
        let hint = said["hint"].as_str().unwrap_or_default();
        assert!(hint.contains(mend), "{said}");
    };
    check("0", "openfang audit show --reveal");
    check("9999", "openfang audit show --limit 1");
    let daemon = home.start();
    check("0", "openfang audit show --reveal");
    check("9999", "openfang audit show --limit 1");
    daemon.stop();
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_not_waited_for() {
    let home = alone();
    let mirror = "audit.d/mirrored/12D3KooWFMRJk5pQnyvkFyf7J5q8rRHAEJkqU5gTifeJCjZaEicf";
    std::fs::create_dir_all(home.file("audit.d/mirrored")).expect("made");
    for name in [
        "audit.d/cosigned",
        "audit.d/policy",
        "audit.epoch",
        "audit.doubt",
        mirror,
    ] {
        let before = std::fs::read(home.file(name)).ok();
        if before.is_some() {
            remove(&home, &[name]);
        }
        let made = std::process::Command::new("mkfifo")
            .arg(home.file(name))
            .status();
        assert!(made.expect("mkfifo").success());
        let out = home.run(&["audit", "verify"]);
        assert_eq!(out.code, Some(2), "{name}: {out:?}");
        assert!(out.stdout.contains("no plain file"), "{name}: {out:?}");
        remove(&home, &[name]);
        if let Some(before) = before {
            std::fs::write(home.file(name), before).expect("written");
        }
    }
    verify(&home, 0, &["intact: "]);
}

#[test]
fn nothing_is_exported_or_proved_of_a_log_that_is_not_signed() {
    let home = node("a", true);
    home.start().stop();
    std::fs::remove_dir_all(home.file("audit.d")).expect("removed");
    remove(&home, &["audit.jsonl"]);
    let daemon = home.start();
    let status = home.ok(&["audit", "witness", "status"]);
    assert!(status.contains("not now: asking"), "{status}");
    assert!(!status.contains("of the 0"), "{status}");
    assert!(!status.contains("mend: "), "{status}");
    let out = home.file("export");
    let out = out.to_str().expect("text");
    let doubt = [
        "no signed head",
        "mend: openfang start, and wait: the log is in doubt",
    ];
    let export = ["audit", "export", "--format", "tlog", "--out", out];
    home.fails(&export, 3, &doubt);
    assert!(!home.file("export").exists());
    let prove = ["audit", "prove", "0", "--wait", "0"];
    home.fails(&prove, 3, &["the log is in doubt"]);
    let (status, body) = daemon.http("GET", "/api/audit/checkpoint", "");
    assert_eq!(status, 503, "{body}");
    daemon.stop();
}

#[test]
fn a_copy_that_is_too_short_is_said_to_be_and_a_floor_is_not_taken_for_lines() {
    let (a, b) = (node("a", true), node("b", false));
    let (daemon_a, daemon_b) = (a.start(), b.start());
    b.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    eventually("b has a copy", || {
        let status = a.json(&["audit", "witness", "status", "--json"]);
        status["mirroring"]["complete"] == 1 && status["state"] == "complete"
    });
    daemon_b.signal(Signal::STOP);
    let before = size_of(&a, "audit.d/floor");
    a.ok(&["message", "of-a", "what b has not"]);
    eventually("it is signed", || size_of(&a, "audit.d/floor") > before);
    daemon_a.stop();
    let good = a.read("audit.jsonl");
    let floor = a.read("audit.d/floor");
    // Who has just met its witnesses has no copy yet.
    let cosigned = a.read("audit.d/cosigned");
    remove(&a, &["audit.d/cosigned"]);
    verify(&a, 3, &["intact: ", "BELOW QUORUM: there are 1 witnesses"]);
    a.write("audit.d/cosigned", &cosigned);
    // A damaged floor: the lines are whole, and nobody says that some are missing.
    a.write("audit.d/floor", "rubbish\n");
    let damaged = [
        "TAMPERED",
        "floor is damaged",
        "makes the damaged head again",
    ];
    let out = verify(&a, 1, &damaged);
    assert!(!out.stdout.contains("than are left"), "{out:?}");
    a.write("audit.d/floor", &floor);
    // A bad entry behind the end of the only copy.
    let (before, behind) = good.rsplit_once("node_stop").expect("it has stopped");
    let bad = format!("{before}node_stoq{behind}");
    a.write("audit.jsonl", &bad);
    daemon_b.signal(Signal::CONT);
    let out = a.run(&["audit", "repair"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    for words in [
        "the copies that can be reached have no more than",
        "and cannot mend it",
        "every other node has answered",
    ] {
        assert!(out.stderr.contains(words), "{words}: {out:?}");
    }
    assert!(!out.stderr.contains("openfang audit verify"), "{out:?}");
    assert_eq!(a.read("audit.jsonl"), bad, "nothing was changed");
    daemon_b.stop();
}
