//! The daemon from start to end, and what keeps it from starting.

use std::net::TcpListener;

use rustix::process::Signal;

use crate::harness::{Home, eventually};

#[test]
fn a_node_starts_serves_and_ends() {
    let home = Home::init();
    let mut daemon = home.start();
    assert!(
        daemon.ready.contains("network asleep: no shared secret"),
        "{}",
        daemon.ready
    );
    let (status, body) = daemon.http("GET", "/api/health", "");
    assert_eq!((status, body.contains("\"ok\"")), (200, true), "{body}");
    let said: serde_json::Value = serde_json::from_str(&home.read("daemon.json")).expect("JSON");
    assert_eq!(said["pid"], daemon.pid());
    assert_eq!(said["listen_addr"], daemon.listen.to_string());
    let status = home.json(&["status", "--json"]);
    assert_eq!(status["status"], "running");
    assert_eq!(status["network_enabled"], false);
    let text = home.ok(&["status"]);
    assert!(text.contains("network  asleep"), "{text}");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().code(), Some(0));
    assert!(!home.file("daemon.json").exists());
    let out = home.fails(&["status"], 5, &["openfang start"]);
    assert!(out.stdout.contains("stopped"), "{out:?}");
    let log = home.ok(&["audit", "show"]);
    assert!(
        log.contains("node_start") && log.contains("node_stop"),
        "{log}"
    );
    assert!(home.ok(&["audit", "verify"]).starts_with("intact: "));
}

#[test]
fn an_interrupt_ends_it_too_and_it_comes_back_as_itself() {
    let home = Home::init();
    let mut daemon = home.start();
    let before = home.json(&["status", "--json"]);
    let agents = home.json(&["agent", "list", "--json"]);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().code(), Some(0));
    let daemon = home.start();
    let after = home.json(&["status", "--json"]);
    assert_eq!(before["node"], after["node"]);
    let again = home.json(&["agent", "list", "--json"]);
    assert_eq!(agents[0]["id"], again[0]["id"]);
    assert_eq!(again.as_array().map(Vec::len), Some(1), "{again}");
    daemon.stop();
}

#[test]
fn a_killed_node_starts_again_with_its_log_intact() {
    let home = Home::init();
    let mut daemon = home.start();
    home.ok(&["message", "assistant", "hello"]);
    daemon.signal(Signal::KILL);
    daemon.ended();
    home.fails(&["agent", "list"], 5, &["no daemon runs", "openfang start"]);
    let daemon = home.start();
    home.ok(&["message", "assistant", "again"]);
    daemon.stop();
    assert!(home.ok(&["audit", "verify"]).starts_with("intact: "));
}

#[test]
fn a_second_daemon_of_a_home_is_refused() {
    let home = Home::init();
    let daemon = home.start();
    let pid = format!("(pid {})", daemon.pid());
    home.fails(
        &["start"],
        1,
        &["held by another openfang daemon", &pid, "openfang stop"],
    );
    home.fails(
        &["start", "--detach"],
        1,
        &["held by another openfang daemon"],
    );
    home.ok(&["status"]);
    daemon.stop();
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let home = Home::init().set("OPENFANG_LISTEN", &address);
    home.fails(
        &["start"],
        1,
        &[&address, "in use by another process", "mend: "],
    );
    assert!(!home.file("daemon.json").exists());
    drop(taken);
    home.start().stop();
    assert!(
        home.ok(&["audit", "verify"]).starts_with("intact: "),
        "the failed start left a whole log"
    );
}

#[test]
fn a_port_of_the_mesh_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let home = Home::empty();
    home.ok(&["init", "--quick", "--network"]);
    let config = home.read("config.toml");
    home.write(
        "config.toml",
        &config.replace(
            "# listen_addr = \"127.0.0.1:4200\"",
            &format!("listen_addr = \"{address}\""),
        ),
    );
    home.fails(
        &["start"],
        1,
        &["in use by another process", "network.listen_addr"],
    );
}

#[test]
fn a_changed_configuration_is_logged_by_its_keys() {
    let home = Home::init();
    home.start().stop();
    home.start().stop();
    let shown = || home.ok(&["audit", "show", "--filter", "config_change"]);
    assert_eq!(shown(), "", "nothing has changed");
    let config = home.read("config.toml");
    home.write(
        "config.toml",
        &config
            .replace("log_level = \"info\"", "log_level = \"debug\"")
            .replace("[audit]", "[audit]\nhash_algorithm = \"sha256\""),
    );
    home.start().stop();
    home.start().stop();
    let log = shown();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains("target=config.toml: audit.hash_algorithm log_level"),
        "{log}"
    );
}

#[test]
fn a_wrong_key_opens_nothing() {
    let home = Home::init();
    let daemon = home.start();
    let wrong = "authorization: Bearer ofk1_wrong\r\n";
    let (status, body) = daemon.http("GET", "/api/agents", wrong);
    assert_eq!(status, 401, "{body}");
    let (status, _body) = daemon.http("POST", "/api/shutdown", "x-forwarded-for: 192.0.2.1\r\n");
    assert_eq!(status, 401, "a proxied request is not local");
    let stranger = home.set("OPENFANG_API_KEY", "0123456789abcdef0123456789abcdef");
    stranger.fails(
        &["agent", "list"],
        4,
        &["invalid_key", "api_key in config.toml"],
    );
    daemon.stop();
}

#[test]
fn stop_waits_until_the_daemon_is_gone() {
    let home = Home::init();
    let mut daemon = home.start();
    let out = home.run(&["stop"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(
        out.stderr
            .contains(&format!("stopped (pid {})", daemon.pid())),
        "{out:?}"
    );
    assert_eq!(daemon.ended().code(), Some(0));
    home.fails(&["stop"], 5, &["no daemon runs"]);
}

#[test]
fn a_daemon_that_cannot_be_asked_is_signalled() {
    let home = Home::init();
    let mut daemon = home.start();
    std::fs::remove_file(home.file("daemon.json")).expect("removed");
    let out = home.run(&["stop"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(out.stderr.contains("sending SIGTERM"), "{out:?}");
    assert_eq!(daemon.ended().code(), Some(0));
}

/// Ends a daemon that is no child of the test.
struct Detached<'a>(&'a Home);

impl Drop for Detached<'_> {
    fn drop(&mut self) {
        drop(self.0.run(&["stop"]));
    }
}

#[test]
fn a_detached_daemon_serves_restarts_and_stops() {
    let home = Home::init();
    let stop = Detached(&home);
    let out = home.run(&["start", "--detach"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(out.stderr.contains("started (pid"), "{out:?}");
    let first = home.json(&["status", "--json"])["pid"].clone();
    let out = home.run(&["restart"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    let second = home.json(&["status", "--json"])["pid"].clone();
    assert_ne!(first, second);
    assert!(home.read("openfang.log").contains("ready"));
    drop(stop);
    home.fails(&["status"], 5, &[]);
    // Restart starts a node that does not run.
    let stop = Detached(&home);
    assert_eq!(home.run(&["restart"]).code, Some(0));
    home.ok(&["status"]);
    drop(stop);
}

#[test]
fn the_supervisor_is_told() {
    let home = Home::init();
    let path = home.file("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("bound");
    let home = home.set("NOTIFY_SOCKET", path.to_str().expect("text"));
    let daemon = home.start();
    let mut buffer = [0; 64];
    let told = socket.recv(&mut buffer).expect("told");
    assert_eq!(&buffer[..told], b"READY=1");
    daemon.stop();
    let told = socket.recv(&mut buffer).expect("told");
    assert_eq!(&buffer[..told], b"STOPPING=1");
}

#[test]
fn logs_are_json_when_nobody_looks_and_hold_no_secret() {
    let home = Home::init();
    home.start().stop();
    let log = home.read("stderr");
    let config = home.read("config.toml");
    let key = config
        .split('"')
        .find(|part| part.starts_with("ofk1_"))
        .expect("a key");
    assert!(!log.contains(key));
    for line in log.lines() {
        let entry: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        assert!(entry["level"].is_string(), "{line}");
    }
    assert!(log.contains("\"stopped\""), "{log}");
}

#[test]
fn a_turn_may_finish_and_a_second_signal_ends_at_once() {
    // A model server that takes the question and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let home = Home::init();
    home.write(
        "agents/assistant/agent.toml",
        &format!(
            "name = \"thinker\"\nmodule = \"builtin:chat\"\n[model]\nprovider = \"custom\"\nmodel = \"m\"\nbase_url = \"http://{address}/v1\"\n"
        ),
    );
    let mut daemon = home.start();
    let mut asking = home
        .command(&["message", "thinker", "hello"])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program runs");
    let (_question, _from) = silent.accept().expect("the model is asked");
    daemon.signal(Signal::TERM);
    eventually("it takes no more connections", || {
        std::net::TcpStream::connect(daemon.listen).is_err()
    });
    assert!(
        home.file("daemon.json").exists(),
        "it is still there: a turn runs"
    );
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().code(), Some(1));
    assert!(!asking.wait().expect("ended").success());
}
