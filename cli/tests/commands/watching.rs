//! What `audit show` shows, and goes on showing.

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use crate::harness::{Home, eventually};

/// Nothing here takes nearly as long, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The lines of a command that goes on, and the end of them.
fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1024);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn wait_for(lines: &Receiver<String>, word: &str) -> String {
    loop {
        let line = lines.recv_timeout(DEADLINE);
        let line = line.unwrap_or_else(|why| panic!("{word}: {why}"));
        if line.contains(word) {
            return line;
        }
    }
}

#[test]
fn entries_are_shown_as_they_are_written() {
    let home = Home::init();
    let daemon = home.start();
    let mut watch = home
        .command(&[
            "audit",
            "show",
            "--follow",
            "--filter",
            "message_in,auth_failed",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let lines = lines_of(watch.stdout.take().expect("a pipe"));
    home.ok(&["message", "assistant", "one"]);
    let first = wait_for(&lines, "message_in");
    home.ok(&["message", "assistant", "two"]);
    let second = wait_for(&lines, "message_in");
    assert_ne!(first, second);
    // Across a restart of the node, which closes the log and opens it again.
    daemon.stop();
    let daemon = home.start();
    let (status, _body) = daemon.http("GET", "/api/agents", "authorization: Bearer wrong\r\n");
    assert_eq!(status, 401);
    wait_for(&lines, "auth_failed");
    assert!(watch.try_wait().expect("asked").is_none(), "it goes on");
    let pid = rustix::process::Pid::from_child(&watch);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signalled");
    eventually("it ends when it is interrupted", || {
        watch.try_wait().expect("asked").is_some()
    });
    daemon.stop();
}

#[test]
fn it_ends_when_nobody_reads_any_more() {
    let home = Home::init();
    let daemon = home.start();
    let mut watch = home
        .command(&["audit", "show", "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut reader = BufReader::new(watch.stdout.take().expect("a pipe"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    assert!(line.contains("node_start"), "{line}");
    drop(reader);
    let mut code = None;
    eventually("it ends", || {
        code = watch.try_wait().expect("asked");
        code.is_some()
    });
    assert_eq!(code.and_then(|code| code.code()), Some(0));
    daemon.stop();
}

#[test]
fn a_log_that_is_cut_is_not_followed() {
    let home = Home::init();
    home.start().stop();
    let mut watch = home
        .command(&["audit", "show", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let lines = lines_of(watch.stdout.take().expect("a pipe"));
    wait_for(&lines, "node_start");
    home.write("audit.jsonl", "");
    let out = watch.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("not what was written"), "{said}");
}

#[test]
fn what_is_left_out_is_said_and_time_and_node_choose() {
    let home = Home::init();
    let daemon = home.start();
    let id = home.json(&["status", "--json"])["node"]["id"].clone();
    let id = id.as_str().expect("an id").to_owned();
    daemon.stop();
    let total = home.read("audit.jsonl").lines().count();
    let out = home.run(&["audit", "show", "--limit", "1"]);
    assert_eq!(out.stdout.lines().count(), 1);
    let left = format!("{} older entries are left out", total - 1);
    assert!(out.stderr.contains(&left), "{out:?}");
    let all = |args: &[&str]| {
        let shown = home.ok(&[&["audit", "show"], args].concat());
        shown.lines().count()
    };
    assert_eq!(all(&["--since", "2h"]), total);
    assert_eq!(all(&["--since", "2999-01-01T00:00:00Z"]), 0);
    assert_eq!(all(&["--since", "1999-01-01T00:00:00+01:00"]), total);
    assert_eq!(all(&["--node", &id]), total, "who writes is in every line");
    let other = "12D3KooWHdiAxVd8uMQR1hGWXccidmfCwLqcMpGwR6QcTP6QRMuD";
    assert_eq!(all(&["--node", other]), 0);
    for (args, code, word) in [
        (["--since", "yesterday"], 2, "is no time"),
        (["--filter", "node_start,nonsense"], 2, "auth_failed"),
        (["--node", "no such"], 2, "is no node"),
        (["--node", "somebody"], 5, "no daemon runs"),
    ] {
        home.fails(&[&["audit", "show"], &args[..]].concat(), code, &[word]);
    }
}
