//! The audit log, judged from its files.

use crate::harness::Home;

/// A home with a log of some entries, and its node stopped.
fn logged() -> Home {
    let home = Home::init();
    let daemon = home.start();
    for text in ["one", "two", "three"] {
        home.ok(&["message", "assistant", text]);
    }
    daemon.stop();
    home
}

#[test]
fn a_flipped_byte_is_named_and_ends_with_1() {
    let home = logged();
    let report = home.json(&["audit", "verify", "--json"]);
    assert_eq!(report["verdict"], "intact");
    let entries = report["entries"].as_u64().expect("a number");
    assert!(entries >= 9, "{report}");
    let mut bytes = std::fs::read(home.file("audit.jsonl")).expect("read");
    let third = bytes
        .iter()
        .enumerate()
        .filter(|(_at, byte)| **byte == b'\n')
        .nth(1)
        .map(|(at, _byte)| at)
        .expect("lines");
    bytes[third + 12] ^= 1;
    std::fs::write(home.file("audit.jsonl"), &bytes).expect("written");
    let out = home.run(&["audit", "verify"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(
        out.stdout.contains("TAMPERED") && out.stdout.contains("entry 2"),
        "{out:?}"
    );
    let out = home.run(&["audit", "verify", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    assert_eq!(report["first_bad_seq"], 2);
    let out = home.run(&["audit", "show"]);
    assert_eq!(
        out.code,
        Some(1),
        "what is shown is not to be trusted: {out:?}"
    );
    assert!(out.stderr.contains("TAMPERED"), "{out:?}");
    home.fails(&["start"], 1, &["mend: "]);
}

#[test]
fn a_cut_log_is_tampered_with() {
    let home = logged();
    let text = home.read("audit.jsonl");
    let half: String = text
        .lines()
        .take(3)
        .map(|line| format!("{line}\n"))
        .collect();
    home.write("audit.jsonl", &half);
    assert_eq!(home.run(&["audit", "verify"]).code, Some(1));
    std::fs::remove_file(home.file("audit.jsonl")).expect("removed");
    assert_eq!(home.run(&["audit", "verify"]).code, Some(1));
}

#[test]
fn an_unreadable_log_ends_with_2() {
    let home = logged();
    std::fs::remove_file(home.file("audit.jsonl")).expect("removed");
    std::fs::create_dir(home.file("audit.jsonl")).expect("a folder in its place");
    home.fails(&["audit", "verify"], 2, &["audit.jsonl", "mend: "]);
    home.fails(&["audit", "show"], 2, &["audit.jsonl"]);
}

#[test]
fn entries_are_shown_and_exported_as_they_are() {
    let home = logged();
    let text = home.read("audit.jsonl");
    assert_eq!(home.ok(&["audit", "export"]), text);
    let array = home.json(&["audit", "export", "--format", "json"]);
    let array = array.as_array().expect("an array");
    assert_eq!(array.len(), text.lines().count());
    assert_eq!(array[0]["ev"], "node_start");
    let shown = home.ok(&[
        "audit",
        "show",
        "--filter",
        "message_in",
        "--limit",
        "2",
        "--json",
    ]);
    assert_eq!(shown.lines().count(), 2);
    for line in shown.lines() {
        assert!(text.contains(line) && line.contains("message_in"), "{line}");
    }
    let of_agent = home.ok(&["audit", "show", "--agent", "assistant"]);
    assert!(
        of_agent.contains("agent_create") && !of_agent.contains("node_start"),
        "{of_agent}"
    );
    home.fails(
        &["audit", "show", "--agent", "nope"],
        3,
        &["no agent is called so", "openfang agent list"],
    );
    // It is there, and has done nothing of that kind.
    let none = home.ok(&[
        "audit",
        "show",
        "--agent",
        "assistant",
        "--filter",
        "auth_failed",
    ]);
    assert_eq!(none, "");
    home.fails(
        &["audit", "show", "--filter", "nonsense"],
        2,
        &["auth_failed"],
    );
}

#[test]
fn a_log_is_verified_while_the_node_writes_it() {
    let home = Home::init();
    let daemon = home.start();
    home.ok(&["message", "assistant", "one"]);
    assert!(home.ok(&["audit", "verify"]).starts_with("intact: "));
    home.ok(&["message", "assistant", "two"]);
    assert!(
        home.ok(&["audit", "show", "--filter", "message_in"])
            .lines()
            .count()
            >= 2
    );
    daemon.stop();
}

#[test]
fn what_happens_at_the_door_is_logged() {
    let home = Home::init();
    let daemon = home.start();
    let (status, _body) = daemon.http("GET", "/api/agents", "authorization: Bearer wrong\r\n");
    assert_eq!(status, 401);
    daemon.stop();
    let log = home.ok(&["audit", "show", "--filter", "auth_failed|api_key"]);
    assert!(log.contains("auth_failed"), "{log}");
}

#[test]
fn a_log_that_was_removed_whole_is_not_an_empty_one() {
    let fresh = Home::init();
    let empty = fresh.json(&["audit", "verify", "--json"]);
    assert_eq!(empty["verdict"], "empty", "no log was ever begun");
    let home = logged();
    std::fs::remove_file(home.file("audit.jsonl")).expect("removed");
    std::fs::remove_dir_all(home.file("audit.d")).expect("removed");
    let out = home.run(&["audit", "verify"]);
    assert_eq!(out.code, Some(1), "{out:?}");
    assert!(
        out.stdout.contains("TAMPERED: the file is missing"),
        "{out:?}"
    );
    for args in [&["audit", "show"][..], &["audit", "export"]] {
        let out = home.run(args);
        assert_eq!(out.code, Some(1), "{out:?}");
        assert!(out.stderr.contains("the file is missing"), "{out:?}");
    }
}
