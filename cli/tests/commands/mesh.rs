//! Two nodes of one mesh.

use crate::harness::{Daemon, Home, eventually};

/// A node whose mesh listens at a free port.
pub(crate) fn node(name: &str, network: bool) -> Home {
    let home = Home::empty();
    if network {
        home.ok(&["init", "--quick", "--network"]);
    } else {
        home.ok(&["init", "--quick"]);
    }
    let config = home.read("config.toml").replace(
        "# node_name = \"laptop\"",
        &format!("node_name = \"{name}\""),
    );
    home.write("config.toml", &config);
    home.write(
        "agents/assistant/agent.toml",
        &format!("name = \"of-{name}\"\nmodule = \"builtin:echo\"\n"),
    );
    home
}

fn sees(home: &Home, name: &str, state: &str) -> bool {
    let reply = home.json(&["peers", "--json"]);
    let peers = reply["peers"].as_array().expect("a list");
    peers
        .iter()
        .any(|peer| peer["node_name"] == name && peer["liveness"] == state)
}

#[test]
fn a_sleeping_node_joins_with_a_ticket_and_stays_joined() {
    let a = node("a", true);
    let b = node("b", false);
    let daemon_a: Daemon = a.start();
    let daemon_b = b.start();
    assert!(
        daemon_a.ready.contains("network awake at /ip4/127.0.0.1/"),
        "{}",
        daemon_a.ready
    );
    b.fails(&["ticket"], 1, &["network_asleep"]);
    let ticket = a.ok(&["ticket"]);
    let out = b.run(&["join", ticket.trim_end()]);
    assert_eq!(out.code, Some(0), "{out:?}");
    let id = a.json(&["status", "--json"])["node"]["id"].clone();
    let id = id.as_str().expect("an id");
    assert!(
        out.stderr.contains("joined: connected to a") && out.stderr.contains(id),
        "{out:?}"
    );
    eventually("each sees the other", || {
        sees(&a, "b", "alive") && sees(&b, "a", "alive")
    });
    eventually("the agents of both are one list", || {
        b.json(&["agent", "list", "--json"])
            .as_array()
            .map(Vec::len)
            == Some(2)
    });
    let reply = b.json(&["message", "of-a", "over the mesh", "--json"]);
    assert_eq!(reply["node"]["name"], "a");
    assert!(
        reply["response"]
            .as_str()
            .is_some_and(|text| text.contains("over the mesh")),
        "{reply}"
    );
    let streamed = b.ok(&["message", "of-a@a", "in pieces", "--stream"]);
    assert!(streamed.contains("in pieces"), "{streamed}");
    b.fails(&["message", "nobody@a", "x"], 3, &["nobody"]);
    assert!(
        a.ok(&["audit", "show", "--filter", "message_in"])
            .contains("cause="),
        "names the entry of b"
    );
    daemon_b.stop();
    eventually("a farewell is seen", || sees(&a, "b", "left"));
    let daemon_b = b.start();
    assert!(
        daemon_b.ready.contains("network awake"),
        "{}",
        daemon_b.ready
    );
    eventually("it is back", || {
        sees(&a, "b", "alive") && sees(&b, "a", "alive")
    });
    let table = b.ok(&["peers"]);
    assert!(
        table.starts_with("NAME") && table.contains("of-a"),
        "{table}"
    );
    daemon_b.stop();
    daemon_a.stop();
    for home in [&a, &b] {
        assert!(home.ok(&["audit", "verify"]).starts_with("intact: "));
    }
}

#[test]
fn a_lost_node_is_named_in_the_error() {
    let a = node("a", true);
    let b = node("b", false);
    let daemon_a = a.start();
    let ticket = a.ok(&["ticket"]);
    b.ok(&["join", ticket.trim_end()]);
    let daemon_b = b.start();
    eventually("joined by the stored ticket", || sees(&a, "b", "alive"));
    drop(daemon_b);
    eventually("the loss is seen", || sees(&a, "b", "dead"));
    a.fails(
        &["message", "of-b", "x"],
        5,
        &["Node b cannot be reached", "openfang peers"],
    );
    daemon_a.stop();
}

#[test]
fn a_wrong_secret_is_refused_and_logged() {
    let a = node("a", true);
    let b = node("b", false).set("S", "fedcba9876543210fedcba9876543210");
    let daemon_a = a.start();
    let daemon_b = b.start();
    let status = a.json(&["status", "--json"]);
    let address = status["network"]["listen_address"]
        .as_str()
        .expect("an address");
    b.fails(
        &["join", address, "--secret-env", "S"],
        4,
        &["wrong_secret"],
    );
    assert!(
        !b.file("network.toml").exists(),
        "a failed join is not kept"
    );
    assert_eq!(
        b.json(&["status", "--json"])["network_enabled"],
        false,
        "it sleeps on"
    );
    daemon_b.stop();
    daemon_a.stop();
    let log = a.ok(&["audit", "show", "--filter", "auth_failed"]);
    assert!(log.contains("act=ofp"), "{log}");
    assert!(a.json(&["audit", "verify", "--json"])["verdict"] == "intact");
}

#[test]
fn a_node_that_is_not_there_is_told_with_what_to_check() {
    let a = node("a", true);
    let daemon = a.start();
    // A name that nobody may ever have (RFC 2606).
    let out = a.fails(
        &["join", "openfang.invalid:1"],
        5,
        &["does not resolve", "check that the other node runs"],
    );
    assert!(
        !out.stderr.contains("Query") && !out.stderr.contains("openfang peers"),
        "{out:?}"
    );
    daemon.stop();
}

#[test]
fn nodes_of_one_name_are_refused_alike_on_all_routes() {
    let (a, b) = (node("vm", true), node("vm", false));
    let echo = "name = \"on-b\"\nmodule = \"builtin:echo\"\n";
    b.write("agents/assistant/agent.toml", echo);
    let daemon_a = a.start();
    let daemon_b = b.start();
    b.ok(&["join", a.ok(&["ticket"]).trim_end()]);
    eventually("each sees the other", || {
        sees(&a, "vm", "alive") && sees(&b, "vm", "alive")
    });
    let id = |home: &Home| {
        let status = home.json(&["status", "--json"]);
        status["node"]["id"].as_str().expect("an id").to_owned()
    };
    let mut ids = [id(&a), id(&b)];
    ids.sort();
    let config = a.read("config.toml");
    let key = config.split('"').nth(1).expect("the key comes first");
    let headers = format!("authorization: Bearer {key}\r\n");
    // One agent of the node that is asked, and one of the other.
    for agent in ["of-vm", "on-b"] {
        let candidates = ids.clone().map(|id| format!("{agent}@{id}"));
        for (method, end) in [("GET", ""), ("DELETE", ""), ("POST", "/restart")] {
            let place = format!("/api/agents/{agent}@vm{end}");
            let (status, body) = daemon_a.http(method, &place, &headers);
            assert_eq!(status, 409, "{method} {place}: {body}");
            for candidate in &candidates {
                assert!(body.contains(candidate), "{method} {place}: {body}");
            }
        }
        let asked = format!("{agent}@vm");
        for args in [
            &["message", &asked, "x"][..],
            &["message", &asked, "x", "--stream"],
        ] {
            let out = a.fails(args, 2, &["ambiguous", "mend: "]);
            for candidate in &candidates {
                assert!(out.stderr.contains(candidate), "{out:?}");
            }
        }
    }
    let exact = format!("on-b@{}", id(&b));
    a.ok(&["message", &exact, "by its id"]);
    let (status, body) = daemon_a.http("GET", &format!("/api/agents/{exact}"), &headers);
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("\"capabilities\":null"),
        "not known here: {body}"
    );
    daemon_b.stop();
    daemon_a.stop();
}
