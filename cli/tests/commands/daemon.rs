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
fn a_hangup_drains_a_node_and_ends_no_node_in_the_background() {
    let home = Home::init();
    let mut daemon = home.start();
    daemon.signal(Signal::HUP);
    // A terminal that closes hangs up more than once: that is no second wish.
    daemon.signal(Signal::HUP);
    assert_eq!(daemon.ended().code(), Some(0));
    let log = home.ok(&["audit", "show", "--filter", "node_stop"]);
    assert!(log.contains("SIGHUP"), "{log}");
    let stop = Detached(&home);
    home.ok(&["start", "--detach"]);
    let pid = home.json(&["status", "--json"])["pid"].clone();
    let raw = pid.as_i64().and_then(|pid| i32::try_from(pid).ok());
    let process = rustix::process::Pid::from_raw(raw.expect("a pid")).expect("a pid");
    rustix::process::kill_process(process, Signal::HUP).expect("signalled");
    home.ok(&["message", "assistant", "still there?"]);
    assert_eq!(home.json(&["status", "--json"])["pid"], pid);
    drop(stop);
}

#[test]
fn a_node_that_shall_ends_with_its_input() {
    let home = Home::init();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = home.command(&["start", "--until-stdin-closes"]);
    let mut daemon = home.start_as(command.stdin(reader));
    drop(command);
    home.ok(&["message", "assistant", "hello"]);
    drop(writer);
    // Asking as well is not asking twice.
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().code(), Some(0));
}

#[test]
fn a_full_disk_under_the_log_ends_no_node() {
    let home = Home::init();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("there is /dev/full");
    let mut command = home.command(&["start"]);
    let mut daemon = home.start_as(command.stderr(full));
    home.ok(&["message", "assistant", "hello"]);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().code(), Some(0));
}

#[test]
fn a_node_writes_no_core_file() {
    let home = Home::init();
    let daemon = home.start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid()));
    let limits = limits.expect("limits");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("a limit");
    let words: Vec<&str> = core.split_whitespace().skip(4).collect();
    assert_eq!(words, ["0", "0", "bytes"], "{core}");
    daemon.stop();
}

#[test]
fn restart_stops_no_node_that_could_not_start_again() {
    let home = Home::init();
    let daemon = home.start();
    let before = home.read("config.toml");
    home.write("config.toml", &format!("{before}\nnonsense = 1\n"));
    home.fails(&["restart"], 64, &["nonsense"]);
    home.write("config.toml", &before);
    home.mode("node.key", 0o644);
    home.fails(&["restart"], 1, &["chmod 600"]);
    home.mode("node.key", 0o600);
    home.mode("", 0o755);
    home.fails(&["restart"], 1, &["chmod 700"]);
    home.mode("", 0o700);
    assert_eq!(home.json(&["status", "--json"])["pid"], daemon.pid());
    daemon.stop();
}

#[test]
fn everything_a_node_makes_is_its_owners_alone() {
    let home = Home::empty();
    home.ok(&["init", "--quick", "--network"]);
    // The shell's umask lets everybody do everything.
    let mut shell = std::process::Command::new("sh");
    let open = home.command(&[]);
    shell
        .args(["-c", "umask 000; exec \"$0\" start"])
        .arg(open.get_program())
        .env_clear()
        .envs(
            open.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let daemon = home.start_as(&mut shell);
    home.ok(&["agent", "new", "helper"]);
    home.ok(&["message", "assistant", "hello"]);
    let mut folders = vec![home.path().to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("listed") {
            let path = entry.expect("an entry").path();
            let data = std::fs::metadata(&path).expect("there");
            let mode = std::os::unix::fs::PermissionsExt::mode(&data.permissions());
            // Made by this test.
            if path.ends_with("stderr") {
                continue;
            }
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
            seen += 1;
            if data.is_dir() {
                folders.push(path);
            }
        }
    }
    assert!(seen > 12, "{seen}");
    for name in ["data/openfang.db", "mesh/incarnation", "audit.jsonl"] {
        assert!(home.file(name).exists(), "{name}");
    }
    daemon.stop();
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
            "# listen_addr = \"0.0.0.0:4201\"",
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
fn a_malformed_key_is_named_and_not_left_out() {
    let home = Home::init().set("OPENFANG_API_KEY", "");
    let daemon = home.start();
    let home = home.set("OPENFANG_API_KEY", "ofk1_wrong");
    for args in [
        &["status"][..],
        &["peers"],
        &["agent", "list"],
        &["agent", "kill", "assistant"],
        &["message", "assistant", "hello"],
        &["ticket"],
    ] {
        let out = home.fails(args, 64, &["environment OPENFANG_API_KEY", "mend: "]);
        assert!(!out.stderr.contains("ofk1_wrong"), "{out:?}");
        assert_eq!(out.stdout, "", "{args:?}");
    }
    let home = home.set("OPENFANG_API_KEY", "");
    let config = home.read("config.toml");
    let start = config.find("api_key = ").expect("a key");
    let end = start + config[start..].find('\n').expect("a line");
    let bad = format!("{}api_key = \"short\"{}", &config[..start], &config[end..]);
    home.write("config.toml", &bad);
    home.fails(
        &["status"],
        64,
        &["config.toml:", "`api_key` is not usable"],
    );
    home.write("config.toml", &config);
    home.ok(&["status"]);
    let home = home.set("OPENFANG_API_KEY", "ofk1_wrong");
    let out = home.run(&["stop"]);
    assert_eq!(out.code, Some(0), "it can be ended all the same: {out:?}");
    assert!(out.stderr.contains("sending SIGTERM"), "{out:?}");
    home.fails(&["restart"], 64, &["environment OPENFANG_API_KEY"]);
    drop(daemon);
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
