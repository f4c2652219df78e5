//! Peers, state, tickets, and joining over real sockets of this machine.

use openfang_id::SharedSecret;
use openfang_schema::{Liveness, Peer, PeerAuditState, PeerState, PeersReply};
use serde_json::{Value, json};

use crate::node::{KEYED, Node, Setup, start};

const LISTENING: Setup = Setup {
    listen: true,
    ..KEYED
};

async fn join(node: &Node, body: &Value) -> crate::node::Answer {
    node.post("/api/network/join", body).key().send().await
}

#[tokio::test]
async fn a_sleeping_network_says_so_and_how_to_wake_it() {
    let node = start(KEYED).await;
    let mut status = node.get("/api/network/status").send().await.is_ok();
    let hint = status["hint"].take();
    assert!(
        hint.as_str().is_some_and(|it| it.contains("openfang join")),
        "{hint}"
    );
    assert_eq!(
        status,
        json!({
            "enabled": false, "state": "asleep", "node_id": node.id.to_string(),
            "node_name": "node-1", "listen_address": "", "listen_addresses": [],
            "connected_peers": 0, "total_peers": 0, "hint": null,
        })
    );
    let peers = node.get("/api/peers").send().await.is_ok();
    assert_eq!(peers, json!({"peers": [], "total": 0}));
    let ticket = node.get("/api/network/ticket").key().send().await;
    ticket.is_error(409, "network_asleep");
    let body = join(&node, &json!({"addr": "127.0.0.1:9"})).await;
    body.is_error(409, "network_asleep");
}

#[tokio::test]
async fn what_cannot_be_joined_is_refused_before_anything_is_tried() {
    let node = start(KEYED).await;
    join(&node, &json!({})).await.is_error(400, "invalid_body");
    let both = json!({"ticket": "ofp1x", "addr": "127.0.0.1:9"});
    join(&node, &both).await.is_error(400, "invalid_body");
    let with_secret = json!({"ticket": "ofp1x", "secret": "s"});
    join(&node, &with_secret)
        .await
        .is_error(400, "invalid_body");
    join(&node, &json!({"ticket": "canary"}))
        .await
        .is_error(400, "invalid_ticket");
    join(&node, &json!({"addr": "nowhere"}))
        .await
        .is_error(400, "invalid_parameter");
    let weak = json!({"addr": "127.0.0.1:9", "secret": "canary-secret"});
    let answer = join(&node, &weak).await;
    answer.is_error(400, "invalid_secret");
    assert!(
        !answer.text().contains("canary"),
        "a secret is not repeated"
    );
    assert!(node.logged("config_change").is_empty(), "nothing was tried");
}

#[tokio::test]
async fn a_network_that_is_switched_off_stays_off() {
    let node = start(Setup {
        network: false,
        ..LISTENING
    })
    .await;
    let body = json!({"addr": "127.0.0.1:9", "secret": "b7d1c3a95e8f42061b7d1c3a95e8f4206"});
    let answer = join(&node, &body).await;
    answer.is_error(409, "network_disabled");
    let ticket = node.get("/api/network/ticket").key().send().await;
    ticket.is_error(409, "network_disabled");
    let status = node.get("/api/network/status").send().await.is_ok();
    assert_eq!(status["state"], "asleep");
    let hint = status["hint"].as_str().expect("what to do");
    assert!(hint.contains("network.enabled = true"), "{hint}");
    assert!(node.logged("config_change").is_empty(), "nothing was tried");
}

#[tokio::test]
async fn a_sleeping_node_joins_by_ticket_and_both_see_each_other() {
    let first = start(Setup {
        awake: true,
        seed: 2,
        ..LISTENING
    })
    .await;
    let second = start(Setup {
        seed: 3,
        ..LISTENING
    })
    .await;
    let ticket = first.get("/api/network/ticket").key().send().await.is_ok();
    assert_eq!(ticket["node"]["name"], "node-2");
    assert!(
        ticket["addresses"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    );
    let joined = join(&second, &json!({"ticket": ticket["ticket"]}))
        .await
        .is_ok();
    assert_eq!(joined["status"], "joined");
    assert_eq!(joined["node"]["id"], first.id.to_string());
    assert_eq!(joined["node"]["name"], "node-2", "it was waited for");
    assert_eq!(joined["connected_peers"], 1);
    let status = second.get("/api/network/status").send().await.is_ok();
    assert_eq!(
        (&status["enabled"], &status["state"]),
        (&json!(true), &json!("awake"))
    );
    for (node, other) in [(&first, &second), (&second, &first)] {
        let peer = connected_peer(node).await;
        assert_eq!(peer.node_id, other.id.to_string());
        assert_eq!(peer.liveness, Liveness::Alive);
        assert!(peer.authenticated && peer.transport.is_some());
        assert!(peer.connected_at.is_some_and(|at| at.ends_with('Z')));
        assert_eq!(peer.version, "0.0.0-test");
        assert_eq!(peer.audit.state, PeerAuditState::Unproven);
    }
    let kept = second.kept.0.lock().expect("not poisoned").clone();
    assert_eq!(kept.len(), 1, "a join is stored");
    assert!(kept[0].secret.is_some());
    let changes = second.logged("config_change");
    assert_eq!(changes.len(), 1, "and logged");
    assert!(
        !changes[0]
            .raw
            .contains(ticket["ticket"].as_str().expect("a text"))
    );
    assert_eq!(first.logged("config_change").len(), 1, "as is the ticket");
    let itself = json!({"ticket": ticket["ticket"]});
    join(&first, &itself).await.is_error(409, "joined_itself");
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_wrong_secret_is_told_from_an_address_where_nobody_is() {
    let first = start(Setup {
        awake: true,
        seed: 4,
        ..LISTENING
    })
    .await;
    let second = start(Setup {
        seed: 5,
        ..LISTENING
    })
    .await;
    let status = first.get("/api/network/status").send().await.is_ok();
    let addr = status["listen_addresses"][0].as_str().expect("an address");
    let other = SharedSecret::from_random(&[8; 32]);
    let body = json!({"addr": addr, "secret": other.expose()});
    let answer = join(&second, &body).await;
    answer.is_error(403, "wrong_secret");
    assert!(!answer.text().contains(other.expose()));
    assert!(second.kept.0.lock().expect("not poisoned").is_empty());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    let nobody = json!({"addr": format!("/ip4/127.0.0.1/tcp/{port}"), "secret": other.expose()});
    join(&second, &nobody).await.is_error(502, "unreachable");
    second.settle_log().await;
    let told = second.logged("config_change");
    let outcomes: Vec<&str> = told.iter().map(|line| line.outcome.as_str()).collect();
    let failed = "failed: nobody was joined";
    assert_eq!(
        outcomes,
        ["ok", failed, "ok", failed, "ok"],
        "each of the joins, and that it failed; the last is the test's"
    );
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_join_goes_on_when_its_caller_hangs_up() {
    let first = start(Setup {
        awake: true,
        seed: 6,
        ..LISTENING
    })
    .await;
    let second = start(Setup {
        seed: 7,
        ..LISTENING
    })
    .await;
    let ticket = first.get("/api/network/ticket").key().send().await.is_ok();
    let body = json!({"ticket": ticket["ticket"]});
    let mut joining = Box::pin(join(&second, &body));
    // Whoever asked goes away when the entry is there, or a little before.
    while second.logged("config_change").is_empty() {
        assert!(futures::poll!(&mut joining).is_pending());
        tokio::task::yield_now().await;
    }
    drop(joining);
    connected_peer(&second).await;
    let kept = async {
        while second.kept.0.lock().expect("not poisoned").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), kept)
        .await
        .expect("it is stored as well");
    second.stop().await;
    first.stop().await;
}

/// Waits until a node sees one peer with a connection.
async fn connected_peer(node: &Node) -> Peer {
    let mut changed = node.mesh.changed();
    loop {
        let answer = node.get("/api/peers").send().await;
        let reply: PeersReply = serde_json::from_slice(&answer.bytes).expect("peers");
        let connected =
            |peer: &Peer| peer.state == PeerState::Connected && !peer.version.is_empty();
        if let Some(peer) = reply.peers.into_iter().find(connected) {
            return peer;
        }
        changed.changed().await.expect("the mesh lives");
    }
}
