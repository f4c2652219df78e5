//! `audit repair`, and what says when it helps.

use crate::harness::{Home, eventually};
use crate::mesh::node;

/// A home with a log of some entries, and its node stopped.
fn logged() -> Home {
    let home = Home::init();
    let daemon = home.start();
    home.ok(&["message", "assistant", "one"]);
    daemon.stop();
    home
}

fn append(home: &Home, text: &str) {
    let log = home.read("audit.jsonl");
    home.write("audit.jsonl", &format!("{log}{text}"));
}

fn alter(home: &Home) {
    let altered = home
        .read("audit.jsonl")
        .replacen("message_in", "message_on", 1);
    home.write("audit.jsonl", &altered);
}

fn remove(home: &Home, names: &[&str]) {
    for name in names {
        std::fs::remove_file(home.file(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

fn is_json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
}

#[test]
fn what_was_written_behind_the_end_is_cut_off_without_peers() {
    let home = logged();
    let good = home.read("audit.jsonl");
    let nothing = home.ok(&["audit", "repair"]);
    assert_eq!(nothing, "nothing is damaged: nothing was changed\n");
    append(&home, "{\"seq\":99}\nrubbish");
    let out = home.run(&["audit", "verify"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(out.stdout.contains("openfang audit repair"), "{out:?}");
    home.fails(&["start"], 1, &["mend: openfang audit repair"]);
    let told = home.json(&["audit", "repair", "--json"]);
    assert_eq!(
        (&told["cut"]["bytes"], &told["exit"]),
        (&18.into(), &0.into())
    );
    let kept = told["cut"]["kept"].as_str().expect("a path");
    let kept = std::fs::read_to_string(format!("{kept}.pending")).expect("kept");
    assert_eq!(kept, "{\"seq\":99}\nrubbish");
    assert_eq!(home.read("audit.jsonl"), good);
    home.start().stop();
    let log = home.ok(&["audit", "show", "--filter", "log_recovered"]);
    assert!(
        log.contains("set 18 bytes of unsigned entries aside"),
        "{log}"
    );
    assert!(home.ok(&["audit", "verify"]).starts_with("intact: "));
}

#[test]
fn a_lonely_node_says_what_a_backup_without_heads_needs() {
    for names in [
        &["audit.d/floor"][..],
        &["audit.d/floor", "audit.d/checkpoint"],
    ] {
        let home = logged();
        let lines = home.read("audit.jsonl");
        remove(&home, names);
        home.fails(
            &["start"],
            1,
            &["floor", "is missing", "openfang audit repair"],
        );
        home.fails(
            &["audit", "repair"],
            1,
            &["in no mesh", "openfang audit repair --accept"],
        );
        let told = home.ok(&["audit", "repair", "--accept"]);
        assert!(told.contains("shown to somebody"), "{told}");
        home.start().stop();
        assert!(home.ok(&["audit", "verify"]).starts_with("intact: "));
        assert!(home.read("audit.jsonl").starts_with(&lines));
    }
}

#[test]
fn what_is_signed_is_not_given_up() {
    let home = logged();
    alter(&home);
    let altered = home.read("audit.jsonl");
    home.fails(
        &["audit", "repair", "--accept"],
        1,
        &["a signing floor that holds", "a line was altered"],
    );
    // Without the floor, the published head still speaks against it.
    remove(&home, &["audit.d/floor"]);
    home.fails(
        &["audit", "repair", "--accept"],
        1,
        &["not taken as they stand"],
    );
    home.fails(&["audit", "repair"], 1, &["backup that verifies"]);
    assert_eq!(home.read("audit.jsonl"), altered);
    assert!(!home.file("audit.d/floor").exists());
    home.fails(&["start"], 1, &["mend: "]);
}

#[test]
fn no_head_that_is_left_is_passed_over() {
    // The witnesses have cosigned a head; nothing else is left of it, and a line was altered.
    let mirrored = "audit.d/mirrored/12D3KooWFMRJk5pQnyvkFyf7J5q8rRHAEJkqU5gTifeJCjZaEicf";
    for (kept, before) in [
        ("audit.d/cosigned", ""),
        (mirrored, "the key of the mirror\n"),
    ] {
        let home = logged();
        std::fs::create_dir_all(home.file("audit.d/mirrored")).expect("made");
        home.write(
            kept,
            &format!("{before}{}", home.read("audit.d/checkpoint")),
        );
        remove(&home, &["audit.d/floor", "audit.d/checkpoint"]);
        alter(&home);
        let altered = home.read("audit.jsonl");
        home.fails(
            &["audit", "repair", "--accept"],
            1,
            &["not those of a head that it has signed"],
        );
        assert_eq!(home.read("audit.jsonl"), altered);
        assert!(!home.file("audit.d/floor").exists(), "{kept}");
    }
}

#[test]
fn a_log_that_is_gone_is_not_taken_for_an_empty_one() {
    let home = logged();
    std::fs::remove_dir_all(home.file("audit.d")).expect("removed");
    remove(&home, &["audit.jsonl"]);
    home.fails(
        &["audit", "repair", "--accept"],
        1,
        &["not taken as they stand"],
    );
    home.start().stop();
    assert_eq!(home.read("audit.epoch").trim(), "2");
}

#[test]
fn a_damaged_published_head_is_made_again_from_the_floor() {
    let home = logged();
    let published = home.read("audit.d/checkpoint");
    home.write("audit.d/checkpoint", "rubbish");
    let out = home.run(&["audit", "verify"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(out.stdout.contains("the published head"), "{out:?}");
    home.ok(&["audit", "repair"]);
    assert_eq!(home.read("audit.d/checkpoint"), published);
    assert!(home.ok(&["audit", "verify"]).starts_with("intact: "));
}

#[test]
fn rubbish_beside_the_log_hides_no_tampering() {
    let home = logged();
    let number = home.read("audit.epoch");
    let verify = |code: i32, words: &[&str]| {
        let out = home.run(&["audit", "verify"]);
        assert_eq!(out.code, Some(code), "{out:?}");
        for word in words {
            assert!(out.stdout.contains(word), "{word:?}: {out:?}");
        }
        let json = home.run(&["audit", "verify", "--json"]);
        assert_eq!(is_json(&json.stdout)["exit"], code, "{json:?}");
    };
    let policy = home.file("audit.d/policy");
    std::fs::write(&policy, b"\xff").expect("written");
    verify(2, &["intact: ", "INCOMPLETE: who has cosigned this log"]);
    home.write("audit.epoch", "rubbish");
    verify(
        2,
        &["intact: ", "INCOMPLETE: the number of the log", "echo 1 > "],
    );
    std::fs::remove_dir_all(home.file("audit.d/evidence")).expect("removed");
    std::fs::write(home.file("audit.d/evidence"), "x").expect("written");
    verify(2, &["intact: ", "cannot list the evidence"]);
    alter(&home);
    verify(1, &["TAMPERED", "INCOMPLETE: the number of the log"]);
    home.fails(
        &["audit", "show"],
        2,
        &["the number of the log cannot be read"],
    );
    home.write("audit.epoch", &number);
    verify(1, &["TAMPERED", "first bad entry"]);
}

#[test]
fn a_wrong_number_leads_nobody_away_from_the_log() {
    let home = logged();
    let lines = home.read("audit.jsonl");
    let floor = home.read("audit.d/floor");
    let mend = format!("echo 1 > {}", home.file("audit.epoch").display());
    let said = ["says 7", "are of number 1", mend.as_str()];
    home.write("audit.epoch", "7\n");
    let out = home.run(&["audit", "verify"]);
    assert_eq!(out.code, Some(2), "{out:?}");
    for word in ["intact: ", "INCOMPLETE: the number of the log is wrong"]
        .iter()
        .chain(&said)
    {
        assert!(out.stdout.contains(word), "{word:?}: {out:?}");
    }
    for args in [
        &["audit", "policy"][..],
        &["audit", "show"],
        &["audit", "prove", "0"],
        &["audit", "witness", "status"],
    ] {
        let out = home.fails(args, 2, &said);
        assert_eq!(out.stdout, "", "{args:?}");
    }
    for args in [
        &["audit", "repair"][..],
        &["audit", "repair", "--accept"],
        &["audit", "redact", "1", "--reason", "asked"],
        &["start"],
    ] {
        home.fails(args, 1, &said);
    }
    assert_eq!(home.read("audit.epoch"), "7\n");
    assert_eq!(home.read("audit.jsonl"), lines);
    assert_eq!(home.read("audit.d/floor"), floor);
    home.write("audit.epoch", "1\n");
    home.start().stop();
    assert!(home.ok(&["audit", "verify"]).starts_with("intact: "));
}

#[test]
fn failures_are_json_for_programs() {
    let home = logged();
    for (args, code) in [
        (&["audit", "check", "/none", "--json"][..], 2),
        (&["audit", "evidence", "verify", "/none", "--json"], 2),
        (&["audit", "show", "--since", "never", "--json"], 2),
        (&["audit", "export", "--out", "/none/x", "--json"], 2),
    ] {
        let out = home.run(args);
        assert_eq!(out.code, Some(code), "{out:?}");
        let told = is_json(&out.stdout);
        assert_eq!(told["exit"], code, "{out:?}");
        assert!(
            told["error"].is_string() && told["hint"].is_string(),
            "{out:?}"
        );
        assert!(out.stderr.starts_with("error: "), "{out:?}");
    }
    home.write("audit.epoch", "x");
    let out = home.run(&["audit", "repair", "--json"]);
    let told = is_json(&out.stdout);
    let error = told["error"].as_str().expect("text");
    assert!(
        !error.contains("mend") && told["hint"].is_string(),
        "{told}"
    );
    // What is exported has stdout for itself.
    let out = home.run(&["audit", "export", "--json"]);
    assert_eq!((out.code, out.stdout.as_str()), (Some(2), ""), "{out:?}");
    assert_eq!(
        is_json(out.stderr.lines().next().expect("a line"))["exit"],
        2
    );
}

#[test]
fn a_proof_without_a_policy_and_without_a_node_says_what_to_give() {
    let home = logged();
    std::fs::write(home.file("proof"), home.ok(&["audit", "prove", "0"])).expect("written");
    let proof = home.file("proof");
    let out = home
        .command(&["audit", "check", proof.to_str().expect("text")])
        .env_remove("OPENFANG_HOME")
        .env_remove("HOME")
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(
        said.contains("no policy was given") && said.contains("--policy FILE"),
        "{said}"
    );
}

#[test]
fn a_home_whose_key_is_gone_is_not_made_another_node() {
    let home = logged();
    let key = home.read("node.key");
    remove(&home, &["node.key"]);
    for args in [&["start"][..], &["init", "--quick"]] {
        let out = home.fails(args, 1, &["put the copy that you keep of node.key back"]);
        assert!(!out.stderr.contains("no key yet"), "{out:?}");
    }
    assert!(!home.file("node.key").exists());
    home.write("node.key", &key);
    home.mode("node.key", 0o600);
    home.start().stop();
}

#[test]
fn where_the_log_cannot_be_is_found_by_the_check() {
    let home = Home::init();
    let with = |path: &str| {
        home.write("config.toml", &format!("[audit]\nlog_path = \"{path}\"\n"));
    };
    for own in ["node.key", "./lock", "audit.d/floor", "mesh/x"] {
        with(own);
        home.fails(
            &["config", "check"],
            64,
            &["config.toml:2:12", "of the node itself"],
        );
    }
    std::fs::create_dir(home.file("logs")).expect("made");
    with("logs");
    home.fails(
        &["config", "check"],
        64,
        &["config.toml:2:12", "is a folder", "logs/audit.jsonl"],
    );
    home.fails(&["start", "--detach"], 64, &["is a folder"]);
    with("config.seen/audit.jsonl");
    home.write("config.seen", "x");
    home.fails(
        &["config", "check"],
        64,
        &["config.toml:2:12", "move it away"],
    );
    with("none/audit.jsonl");
    let out = home.run(&["config", "check"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(
        out.stderr.contains("none of audit.log_path does not exist"),
        "{out:?}"
    );
}

#[test]
fn nothing_found_is_said_and_a_log_is_named_by_its_name() {
    let home = logged();
    let out = home.run(&["audit", "show", "--filter", "auth_failed"]);
    assert_eq!((out.code, out.stdout.as_str()), (Some(0), ""), "{out:?}");
    assert!(out.stderr.contains("fits what was asked for"), "{out:?}");
    let floor = home.read("audit.d/floor");
    let origin = floor.lines().next().expect("a name");
    let total = home.read("audit.jsonl").lines().count();
    let short = origin.split('.').next().expect("a name");
    for name in [origin, short] {
        let shown = home.ok(&["audit", "show", "--node", name]);
        assert_eq!(shown.lines().count(), total, "{name}");
    }
    let other = home.ok(&["audit", "show", "--node", "n-0123456789abcdef"]);
    assert_eq!(other, "");
    let since = home.ok(&["audit", "show", "--since", "2020-01-01 00:00"]);
    assert_eq!(since.lines().count(), total, "UTC where no zone is given");
}

#[test]
fn an_altered_line_is_mended_from_the_copy_that_verify_names() {
    let (a, b) = (node("a", true), node("b", false));
    let (daemon_a, daemon_b) = (a.start(), b.start());
    b.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    a.ok(&["message", "of-a", "one"]);
    eventually("b has a copy", || {
        let status = a.json(&["audit", "witness", "status", "--json"]);
        status["mirroring"]["complete"] == 1 && status["state"] == "complete"
    });
    let status = a.ok(&["audit", "witness", "status"]);
    assert!(
        status.contains("1 of 1 hold everything; 3 copies are wanted"),
        "{status}"
    );
    let own = a.ok(&["audit", "policy"]);
    let own = own.lines().last().expect("a key").trim_start_matches("# ");
    assert!(status.contains(own), "{status}");
    let good = a.read("audit.jsonl");
    daemon_a.stop();
    let whole = a.read("audit.jsonl");
    assert!(whole.starts_with(&good));
    alter(&a);
    let out = a.run(&["audit", "verify"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    for words in [
        "others know what the bad entries were: the head",
        "openfang audit repair",
    ] {
        assert!(out.stdout.contains(words), "{out:?}");
    }
    assert!(
        !out.stdout.contains("replaced"),
        "one line was altered: {out:?}"
    );
    for unknown in ["nobody", ""] {
        let out = a.run(&["audit", "repair", "--from", unknown]);
        assert_eq!(out.code, Some(3), "{out:?}");
        assert!(out.stderr.contains("--from with one of: b"), "{out:?}");
    }
    let out = a.run(&["audit", "repair"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    let waits = |line: &str| line.starts_with("looking for nodes that have a copy");
    assert!(out.stderr.lines().all(waits), "{out:?}");
    assert!(
        out.stdout.contains("differed, in 1 byte: replaced"),
        "{out:?}"
    );
    assert!(
        out.stdout.contains("fetched for it: the entries 0 to "),
        "{out:?}"
    );
    assert_eq!(a.read("audit.jsonl"), whole);
    check_status_of_files(&a);
    check_lost_lines(&a, &whole);
    daemon_b.stop();
    let nothing = a.ok(&["audit", "repair"]);
    assert_eq!(nothing, "nothing is damaged: nothing was changed\n");
    a.fails(
        &["audit", "repair", "--from", "b"],
        5,
        &["the node b does not answer", "openfang start"],
    );
    let daemon_a = a.start();
    let alone = a.ok(&["audit", "witness", "status"]);
    assert!(!alone.contains("complete  none"), "{alone}");
    let out = a.run(&["audit", "verify", "--peers"]);
    assert_eq!(out.code, Some(2), "{out:?}");
    assert!(out.stdout.contains("no answer from b ("), "{out:?}");
    daemon_a.stop();
    let told = a.ok(&["audit", "show", "--filter", "log_recovered", "--limit", "9"]);
    assert!(told.contains("act=restored entries "), "{told}");
}

/// Entries that are missing at the end come back, with an altered one before them, and are counted apart.
fn check_lost_lines(home: &Home, whole: &str) {
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let (last, rest) = lines.split_last().expect("lines");
    home.write("audit.jsonl", &rest.concat());
    let told = home.ok(&["audit", "repair"]);
    let seq = rest.len();
    assert!(
        told.contains(&format!("entry {seq} was missing: put back")),
        "{told}"
    );
    assert_eq!(home.read("audit.jsonl"), whole);
    let altered = rest.concat().replacen("node_start", "node_stark", 1);
    home.write("audit.jsonl", &altered);
    let told = home.ok(&["audit", "repair"]);
    assert!(
        told.contains(&format!(
            "2 of the entries 0 to {seq} differed or were missing"
        )),
        "{told} {last}"
    );
    assert_eq!(home.read("audit.jsonl"), whole);
}

/// Who has cosigned is known without the node, and said to be from its files.
fn check_status_of_files(home: &Home) {
    let kept = home.run(&["audit", "witness", "status"]);
    assert_eq!(kept.code, Some(0), "{kept:?}");
    assert!(kept.stderr.contains("the node does not run"), "{kept:?}");
    assert!(
        kept.stdout.contains("cosigned by 1 of 1, which is enough"),
        "{kept:?}"
    );
    let told = home.json(&["audit", "witness", "status", "--json"]);
    assert_eq!(
        (&told["running"], &told["cosigned"]),
        (&false.into(), &1.into())
    );
}
