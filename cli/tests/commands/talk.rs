//! Talking to agents.

use std::io::Write as _;
use std::process::Stdio;

use crate::harness::Home;

#[test]
fn an_agent_answers() {
    let home = Home::init();
    let daemon = home.start();
    let answer = home.ok(&["message", "assistant", "hello there"]);
    assert!(answer.contains("hello there"), "{answer}");
    let reply = home.json(&["message", "assistant", "hello", "--json"]);
    assert_eq!(reply["agent_name"], "assistant");
    assert!(reply["audit"].is_string(), "{reply}");
    let streamed = home.ok(&["message", "assistant", "one two", "--stream"]);
    assert!(streamed.contains("one two"), "{streamed}");
    let events = home.ok(&["message", "assistant", "x", "--stream", "--json"]);
    let last = events.lines().last().expect("an event");
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(last["event"], "done");
    home.fails(
        &["message", "nobody", "hello"],
        3,
        &["nobody", "unknown_agent", "openfang agent list"],
    );
    let out = home.fails(&["message", "nobody", "hello", "--json"], 3, &["nobody"]);
    let said: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    assert_eq!(said["code"], "unknown_agent");
    let out = home.fails(
        &["message", "nobody", "hello", "--stream", "--json"],
        3,
        &["nobody"],
    );
    let said: serde_json::Value = serde_json::from_str(&out.stdout).expect("JSON");
    assert_eq!(said["event"], "error");
    assert_eq!(said["data"]["code"], "unknown_agent");
    home.fails(&["message", "a/../b", "hello"], 2, &["points at no agent"]);
    daemon.stop();
}

#[test]
fn the_message_may_come_from_a_pipe() {
    let home = Home::init();
    let daemon = home.start();
    let mut child = home
        .command(&["message", "assistant", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"from a pipe")
        .expect("written");
    let out = child.wait_with_output().expect("ended");
    assert!(
        String::from_utf8_lossy(&out.stdout).contains("from a pipe"),
        "{out:?}"
    );
    let mut child = home
        .command(&["agent", "chat", "assistant"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"first\n\nsecond\n")
        .expect("written");
    let out = child.wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success() && text.contains("first") && text.contains("second"),
        "{text}"
    );
    daemon.stop();
}

#[test]
fn agents_are_made_spawned_listed_and_killed() {
    let home = Home::init();
    let out = home.run(&["agent", "new", "early"]);
    assert!(
        out.stderr.contains("it spawns this agent when it starts"),
        "{out:?}"
    );
    let daemon = home.start();
    let made = home.ok(&["agent", "new", "helper", "--description", "helps"]);
    assert!(made.contains("helper"), "{made}");
    home.fails(
        &["agent", "new", "helper"],
        1,
        &["there is a manifest for helper already"],
    );
    home.fails(
        &["agent", "new", "odd", "--module", "builtin:nope"],
        2,
        &["there is no module", "--module builtin:echo"],
    );
    assert!(!home.file("agents/odd").exists());
    home.write(
        "other.toml",
        "name = \"other\"\nmodule = \"builtin:echo\"\nmodle = 1\n",
    );
    let file = home.file("other.toml");
    let file = file.to_str().expect("text");
    let out = home.run(&["agent", "spawn", file]);
    assert!(
        out.stderr.contains("other.toml:3:1: unknown key `modle`"),
        "{out:?}"
    );
    let out = home.fails(&["agent", "spawn", file], 1, &["other", "duplicate_name"]);
    assert!(!out.stderr.contains(".:"), "{out:?}");
    home.fails(
        &["agent", "new", "other"],
        1,
        &["duplicate_name", "taken back"],
    );
    assert!(!home.file("agents/other").exists());
    let listed = home.json(&["agent", "list", "--local", "--json"]);
    let names: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|agent| agent["name"].as_str())
        .collect();
    assert_eq!(names, ["assistant", "early", "helper", "other"]);
    let table = home.ok(&["agent", "list"]);
    assert!(
        table.starts_with("NAME") && table.lines().count() == 5,
        "{table}"
    );
    home.ok(&["agent", "restart", "other"]);
    home.ok(&["agent", "kill", "other"]);
    home.fails(&["agent", "kill", "other"], 3, &["unknown_agent"]);
    home.write("bad.toml", "name = \"x\"\nmodule = 7\n");
    let bad = home.file("bad.toml");
    home.fails(
        &["agent", "spawn", bad.to_str().expect("text")],
        2,
        &["invalid_manifest"],
    );
    home.fails(&["agent", "spawn", "/nonexistent"], 3, &["/nonexistent"]);
    daemon.stop();
    let log = home.ok(&["audit", "show", "--filter", "agent_delete"]);
    assert!(
        log.contains("other") && !log.contains("node_start"),
        "{log}"
    );
}

#[test]
fn what_an_agent_says_of_itself_makes_no_rows() {
    let home = Home::init();
    let daemon = home.start();
    home.write(
        "sly.toml",
        "name = \"sly\"\nmodule = \"builtin:echo\"\ndescription = \"x\\nadmin  here  running\\t\\u202Ey\"\n",
    );
    let file = home.file("sly.toml");
    home.ok(&["agent", "spawn", file.to_str().expect("text")]);
    let table = home.ok(&["agent", "list"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(!table.contains(['\t', '\u{202e}']), "{table}");
    daemon.stop();
}

#[test]
fn an_agent_that_was_made_and_killed_stays_away() {
    let home = Home::init();
    let has = |table: &str| table.lines().any(|row| row.starts_with("aa "));
    for restarted_between in [false, true] {
        let daemon = home.start();
        home.ok(&["agent", "new", "aa", "--module", "builtin:echo"]);
        let daemon = if restarted_between {
            daemon.stop();
            home.start()
        } else {
            daemon
        };
        home.ok(&["agent", "kill", "aa"]);
        daemon.stop();
        let daemon = home.start();
        let listed = home.ok(&["agent", "list"]);
        assert!(!has(&listed), "{restarted_between}: {listed}");
        home.ok(&[
            "agent",
            "spawn",
            &home.file("agents/aa/agent.toml").display().to_string(),
        ]);
        daemon.stop();
        let daemon = home.start();
        let listed = home.ok(&["agent", "list"]);
        assert!(has(&listed), "it was spawned anew: {listed}");
        home.ok(&["agent", "kill", "aa"]);
        daemon.stop();
        std::fs::remove_dir_all(home.file("agents/aa")).expect("removed");
    }
}
