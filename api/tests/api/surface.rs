//! What every answer has in common: headers, CORS, and errors in JSON.

use axum::http::Method;
use openfang_schema::ErrorBody;
use serde_json::json;

use crate::node::{Answer, ELSEWHERE, KEYED, KEYLESS, start};

const ORIGINS: [&str; 5] = [
    "http://127.0.0.1:4200",
    "http://localhost:4200",
    "http://127.0.0.1:8080",
    "http://localhost:8080",
    "http://localhost:3000",
];

#[track_caller]
fn is_secured(answer: &Answer) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        (
            "content-security-policy",
            "default-src 'none'; frame-ancestors 'none'",
        ),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        (
            "strict-transport-security",
            "max-age=31536000; includeSubDomains",
        ),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value));
        assert_eq!(answer.headers.get_all(name).iter().count(), 1, "{name}");
    }
    assert_eq!(answer.header("x-request-id").map(str::len), Some(24));
    assert_eq!(answer.header("vary"), Some("origin"));
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    let stream = "/api/agents/echo/message/stream";
    for answer in [
        node.get("/api/health").send().await,
        node.get("/").send().await,
        node.get("/api/agents").send().await,
        node.get("/api/agents").from(ELSEWHERE).send().await,
        node.get("/api/agents").host("evil.example").send().await,
        node.get("/api/nothing").send().await,
        node.get("/api/agents/ghost").send().await,
        node.get("/api/agents/echo/ws").send().await,
        node.request(Method::PUT, "/api/agents").send().await,
        node.request(Method::POST, "/api/agents").send().await,
        node.post("/api/agents", &json!({})).send().await,
        node.post(stream, &json!({"message": "hi"})).send().await,
    ] {
        is_secured(&answer);
    }
}

#[tokio::test]
async fn request_ids_differ() {
    let node = start(KEYED).await;
    let first = node.get("/api/health").send().await;
    let second = node.get("/api/health").send().await;
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
}

#[tokio::test]
async fn five_origins_may_read_answers_with_a_key_and_without() {
    for setup in [KEYED, KEYLESS] {
        let node = start(setup).await;
        for origin in ORIGINS {
            let answer = node
                .get("/api/health")
                .header("origin", origin)
                .send()
                .await;
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
            assert_eq!(answer.header("access-control-allow-credentials"), None);
            assert_eq!(answer.header("vary"), Some("origin"));
            let preflight = node
                .request(Method::OPTIONS, "/api/agents")
                .from(ELSEWHERE)
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization")
                .send()
                .await;
            assert_eq!(preflight.status.as_u16(), 204);
            assert_eq!(
                preflight.header("access-control-allow-origin"),
                Some(origin)
            );
            let methods = preflight.header("access-control-allow-methods");
            assert_eq!(methods, Some("GET, POST, DELETE"));
            let headers = preflight.header("access-control-allow-headers");
            assert!(headers.is_some_and(|it| it.contains("authorization")));
            is_secured(&preflight);
        }
    }
}

#[tokio::test]
async fn no_other_origin_may_read_answers() {
    let node = start(KEYED).await;
    for origin in ["http://evil.example", "null", "http://localhost:3001", "*"] {
        let answer = node
            .get("/api/health")
            .header("origin", origin)
            .send()
            .await;
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("vary"), Some("origin"));
        let preflight = node
            .request(Method::OPTIONS, "/api/agents")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .send()
            .await;
        assert_eq!(preflight.header("access-control-allow-origin"), None);
        assert!(!preflight.status.is_success());
    }
}

#[tokio::test]
async fn errors_are_json_with_a_code() {
    let node = start(KEYED).await;
    let body = node
        .get("/api/nothing")
        .send()
        .await
        .is_error(404, "no_route");
    assert_eq!(body["looked_for"], "/api/nothing");
    let answer = node.request(Method::PUT, "/api/agents").send().await;
    answer.is_error(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("GET,HEAD,POST"));
    let read: ErrorBody = serde_json::from_slice(&answer.bytes).expect("an error body");
    assert_eq!(read.code, openfang_schema::ErrorCode::MethodNotAllowed);
    let answer = node.get("/api/agents?scope=galaxy").send().await;
    answer.is_error(400, "invalid_parameter");
    let answer = node.get("/api/audit/recent?n=many").send().await;
    answer.is_error(400, "invalid_parameter");
    let answer = node.get("/api/agents/echo/ws").send().await;
    answer.is_error(426, "upgrade_required");
    assert_eq!(answer.header("upgrade"), Some("websocket"));
}

#[tokio::test]
async fn the_pages_say_what_this_is_and_nothing_about_the_node() {
    let node = start(KEYED).await;
    let answer = node.get("/").from(ELSEWHERE).send().await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    let text = answer.text();
    assert!(
        text.contains("docs/API.md") && text.contains("/api/health"),
        "{text}"
    );
    assert!(!text.contains(&node.id.to_string()) && !text.contains("node-1"));
}

#[tokio::test]
async fn a_shutdown_is_answered_and_then_asked_of_the_node() {
    let node = start(KEYED).await;
    let answer = node
        .request(Method::POST, "/api/shutdown")
        .key()
        .send()
        .await;
    assert_eq!(answer.status.as_u16(), 202);
    assert_eq!(answer.json(), json!({"status": "shutting_down"}));
    assert!(node.shutdown.is_cancelled());
    let status = node.get("/api/status").send().await.is_ok();
    assert_eq!(status["status"], "stopping");
}

#[tokio::test]
async fn status_and_version_have_the_documented_fields() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    let status = node.get("/api/status").send().await.is_ok();
    assert_eq!(status["status"], "running");
    assert_eq!(status["version"], "0.0.0-test");
    assert_eq!(status["agent_count"], 1);
    assert_eq!(status["mesh_agent_count"], 1);
    assert_eq!(status["default_provider"], "openai");
    assert_eq!(status["default_model"], "test-model");
    assert_eq!(status["api_listen"], "127.0.0.1:4200");
    assert_eq!(status["network_enabled"], false);
    assert_eq!(status["network"]["state"], "asleep");
    assert_eq!(status["audit"]["state"], "ok");
    assert_eq!(status["agents"][0]["name"], "echo");
    assert_eq!(status["started_at"], "2027-01-15T08:00:00.000000Z");
    assert_eq!(status["node"]["id"], node.id.to_string());
    let version = node.get("/api/version").send().await.is_ok();
    assert_eq!(version["name"], "openfang");
    assert_eq!(version["version"], "0.0.0-test");
    assert_eq!(version["platform"], std::env::consts::OS);
    assert_eq!(version["git_sha"], json!(null));
}
