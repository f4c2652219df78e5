//! Who gets in, over every route; the table of single cases is beside `decide`.

use axum::http::{Method, Version};
use serde_json::json;

use crate::node::{ELSEWHERE, KEY, KEYED, KEYLESS, Setup, start};

/// Every route that needs the key, with a method it takes.
pub(crate) const PROTECTED: [(&str, &str); 27] = [
    ("GET", "/api/status"),
    ("GET", "/api/version"),
    ("POST", "/api/shutdown"),
    ("GET", "/api/agents"),
    ("POST", "/api/agents"),
    ("GET", "/api/agents/echo"),
    ("DELETE", "/api/agents/echo"),
    ("POST", "/api/agents/echo/restart"),
    ("POST", "/api/agents/echo/message"),
    ("POST", "/api/agents/echo/message/stream"),
    ("GET", "/api/agents/echo/ws"),
    ("GET", "/api/peers"),
    ("GET", "/api/network/status"),
    ("POST", "/api/network/join"),
    ("GET", "/api/network/ticket"),
    ("GET", "/api/audit/recent"),
    ("GET", "/api/audit/verify"),
    ("GET", "/api/audit/checkpoint"),
    ("GET", "/api/audit/witnesses"),
    ("POST", "/api/audit/redact"),
    ("GET", "/api/audit/mirrors"),
    ("GET", "/api/audit/tile/0/000"),
    ("GET", "/api/audit/proof/0"),
    ("GET", "/api/audit/consistency?from=1&to=2"),
    ("GET", "/api/audit/evidence"),
    ("GET", "/api/audit/peers"),
    ("GET", "/api/nothing"),
];

const PUBLIC: [(&str, u16); 4] = [
    ("/api/health", 200),
    ("/", 200),
    ("/logo.png", 204),
    ("/favicon.ico", 204),
];

fn method(text: &str) -> Method {
    text.parse().expect("a method")
}

#[tokio::test]
async fn every_route_but_four_needs_the_key_from_elsewhere() {
    let node = start(KEYED).await;
    for (at, (verb, path)) in PROTECTED.iter().enumerate() {
        // Each from an address of its own, so that none is told to wait.
        let peer = format!("203.0.113.{at}:1000");
        let answer = node.request(method(verb), path).from(&peer).send().await;
        answer.is_error(401, "key_required");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{path}");
        let wrong = node
            .request(method(verb), path)
            .from(&peer)
            .header("authorization", "Bearer wrong");
        wrong.send().await.is_error(401, "invalid_key");
    }
    for (path, status) in PUBLIC {
        for verb in [Method::GET, Method::HEAD] {
            let answer = node.request(verb, path).from(ELSEWHERE).send().await;
            assert_eq!(answer.status.as_u16(), status, "{path}");
        }
        for verb in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let answer = node.request(verb, path).from(ELSEWHERE).send().await;
            assert_eq!(answer.status.as_u16(), 401, "{path}");
        }
    }
    assert!(!node.shutdown.is_cancelled());
}

#[tokio::test]
async fn without_a_key_only_this_machine_gets_in() {
    let node = start(KEYLESS).await;
    for (at, (verb, path)) in PROTECTED.iter().enumerate() {
        let peer = format!("203.0.113.{at}:1000");
        let answer = node.request(method(verb), path).from(&peer).send().await;
        answer.is_error(403, "local_only");
    }
    node.get("/api/agents").send().await.is_ok();
    let health = node.get("/api/health").from(ELSEWHERE).send().await;
    assert_eq!(
        health.is_ok(),
        json!({"status": "ok", "version": "0.0.0-test"})
    );
}

#[tokio::test]
async fn the_key_opens_from_anywhere_and_this_machine_needs_none_by_default() {
    let node = start(KEYED).await;
    node.get("/api/agents").send().await.is_ok();
    node.get("/api/agents")
        .from(ELSEWHERE)
        .key()
        .send()
        .await
        .is_ok();
    let other = node.get("/api/agents").from(ELSEWHERE);
    other.header("x-api-key", KEY).send().await.is_ok();
    let proxied = node.get("/api/agents").host("agents.example.com");
    let proxied = proxied.header("x-forwarded-for", "203.0.113.9").key();
    proxied.send().await.is_ok();
}

/// A plain forwarder on this machine adds nothing that tells its clients from local programs.
#[tokio::test]
async fn what_gives_the_node_away_needs_the_key_on_this_machine_too() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    let powers = [
        ("POST", "/api/shutdown"),
        ("POST", "/api/agents"),
        ("DELETE", "/api/agents/echo"),
        ("POST", "/api/agents/echo/restart"),
        ("POST", "/api/network/join"),
        ("POST", "/api/audit/redact"),
        ("GET", "/api/network/ticket"),
        ("HEAD", "/api/network/ticket"),
    ];
    for (verb, path) in powers {
        let answer = node.request(method(verb), path).send().await;
        assert_eq!(answer.status.as_u16(), 401, "{verb} {path}");
        let keyed = node.request(method(verb), path).key().send().await;
        assert_ne!(keyed.status.as_u16(), 401, "{verb} {path}");
    }
    assert!(node.shutdown.is_cancelled(), "with the key");
    let node = start(KEYLESS).await;
    for (verb, path) in powers {
        let answer = node.request(method(verb), path).send().await;
        assert!(
            !matches!(answer.status.as_u16(), 401 | 403),
            "{verb} {path}"
        );
    }
}

#[tokio::test]
async fn this_machine_can_be_made_to_need_the_key() {
    let node = start(Setup {
        require_local: true,
        ..KEYED
    })
    .await;
    node.get("/api/agents")
        .send()
        .await
        .is_error(401, "key_required");
    node.get("/api/agents").key().send().await.is_ok();
    node.get("/api/health").send().await.is_ok();
    let shutdown = node.request(Method::POST, "/api/shutdown").send().await;
    shutdown.is_error(401, "key_required");
    assert!(!node.shutdown.is_cancelled());
}

#[tokio::test]
async fn a_request_without_a_known_peer_is_not_of_this_machine() {
    use tower::ServiceExt as _;
    let node = start(KEYLESS).await;
    let request = axum::http::Request::get("/api/agents")
        .header("host", "127.0.0.1:4200")
        .body(axum::body::Body::empty())
        .expect("a request");
    let response = node
        .router
        .clone()
        .oneshot(request)
        .await
        .expect("infallible");
    assert_eq!(response.status().as_u16(), 403);
}

#[tokio::test]
async fn an_old_protocol_is_not_trusted_for_its_socket() {
    let node = start(KEYED).await;
    let old = || node.get("/api/agents").version(Version::HTTP_10);
    old().send().await.is_error(401, "key_required");
    old().key().send().await.is_ok();
}

#[tokio::test]
async fn failed_attempts_are_logged_once_and_then_told_to_wait() {
    let node = start(KEYED).await;
    let guess = || {
        let ask = node.get("/api/status").from(ELSEWHERE);
        ask.header("authorization", "Bearer guess")
    };
    for _ in 0..20 {
        guess().send().await.is_error(401, "invalid_key");
    }
    let answer = guess().send().await;
    let body = answer.is_error(429, "too_many_failures");
    assert!(body["retry_after_ms"].as_u64().is_some_and(|ms| ms <= 3000));
    assert!(answer.header("retry-after").is_some());
    // The right key is let through, and other addresses are not concerned.
    node.get("/api/status")
        .from(ELSEWHERE)
        .key()
        .send()
        .await
        .is_ok();
    let other = node.get("/api/status").from("203.0.113.10:1").send().await;
    other.is_error(401, "key_required");
    node.settle_log().await;
    let entries = node.logged("auth_failed");
    assert_eq!(entries.len(), 2, "one for each address, whatever the flood");
    assert_eq!(node.revealed(&entries)[0], "203.0.113.9");
    assert!(entries.iter().all(|line| !line.raw.contains("203.0.113")));
    assert_eq!(entries[0].act.as_deref(), Some("api"));
    assert!(
        entries[0].outcome.contains("invalid_key"),
        "{:?}",
        entries[0]
    );
    assert!(entries.iter().all(|line| !line.raw.contains("guess")));
}

#[tokio::test]
async fn the_use_of_the_key_is_logged_once_for_each_address() {
    let node = start(KEYED).await;
    for _ in 0..3 {
        node.get("/api/status")
            .from(ELSEWHERE)
            .key()
            .send()
            .await
            .is_ok();
        node.get("/api/agents")
            .from("203.0.113.10:1")
            .key()
            .send()
            .await
            .is_ok();
    }
    node.settle_log().await;
    let entries = node.logged("api_key");
    assert_eq!(node.revealed(&entries), ["203.0.113.9", "203.0.113.10"]);
    let seen: Vec<_> = entries.iter().map(|line| line.act.as_deref()).collect();
    assert_eq!(seen, [Some("GET /api/status"), Some("GET /api/agents")]);
}
