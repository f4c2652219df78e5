//! Attacks that have worked on servers of this kind, each tried on this one.

use std::io;
use std::sync::{Arc, Mutex};

use axum::http::Method;
use serde_json::json;

use crate::node::{ELSEWHERE, KEY, KEYED, KEYLESS, start};

/// An empty credential must not equal a key that is not there.
#[tokio::test]
async fn an_empty_credential_opens_nothing() {
    for setup in [KEYED, KEYLESS] {
        let node = start(setup).await;
        let ask = || node.get("/api/agents").from(ELSEWHERE);
        for answer in [
            ask().header("x-api-key", "").send().await,
            ask().header("authorization", "Bearer ").send().await,
            ask().header("authorization", "Bearer").send().await,
            ask().header("authorization", "").send().await,
            node.get("/api/agents?token=").from(ELSEWHERE).send().await,
            node.get("/api/agents?key=").from(ELSEWHERE).send().await,
            node.get("/api/agents/echo/ws?token=")
                .from(ELSEWHERE)
                .send()
                .await,
        ] {
            assert!(
                matches!(answer.status.as_u16(), 401 | 403),
                "{}",
                answer.text()
            );
        }
    }
}

/// Behind a proxy every client of the internet comes from loopback.
#[tokio::test]
async fn a_proxy_passes_no_trust_on_and_cannot_end_the_node() {
    for setup in [KEYED, KEYLESS] {
        let node = start(setup).await;
        for (name, value) in [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-real-ip", "203.0.113.9"),
            ("forwarded", "for=203.0.113.9"),
            ("via", "1.1 caddy"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "127.0.0.1"),
        ] {
            let shutdown = node.request(Method::POST, "/api/shutdown");
            let answer = shutdown.header(name, value).send().await;
            assert!(matches!(answer.status.as_u16(), 401 | 403), "{name}");
        }
        assert!(!node.shutdown.is_cancelled());
    }
}

/// No route runs tools for whoever asks.
#[tokio::test]
async fn there_is_no_route_around_the_policy() {
    let node = start(KEYED).await;
    let answer = node
        .post("/mcp", &json!({"method": "tools/call"}))
        .send()
        .await;
    answer.is_error(404, "no_route");
    let answer = node.post("/mcp", &json!({})).from(ELSEWHERE).send().await;
    answer.is_error(401, "key_required");
}

/// A name of the attacker's that resolves to this machine.
#[tokio::test]
async fn a_rebound_name_is_turned_away() {
    for setup in [KEYED, KEYLESS] {
        let node = start(setup).await;
        for host in ["evil.example", "evil.example:4200", "localhost:9999", ""] {
            let answer = node.get("/api/agents").host(host).send().await;
            answer.is_error(421, "foreign_host");
        }
    }
    let node = start(KEYED).await;
    let answer = node
        .get("/api/agents")
        .host("evil.example")
        .key()
        .send()
        .await;
    answer.is_ok();
}

/// A page of the attacker's that opens a WebSocket to this machine.
#[tokio::test]
async fn a_foreign_page_opens_no_socket() {
    let node = start(KEYLESS).await;
    node.echo("echo").await;
    for origin in ["http://evil.example", "null", "http://localhost:8081"] {
        let ask = node.get("/api/agents/echo/ws").header("origin", origin);
        ask.send().await.is_error(403, "origin_refused");
    }
    let ask = node
        .get("/api/agents")
        .header("sec-fetch-site", "cross-site");
    ask.send().await.is_error(403, "origin_refused");
    let form = node
        .request(Method::POST, "/api/shutdown")
        .header("origin", "http://evil.example")
        .header("content-type", "text/plain");
    form.send().await.is_error(403, "origin_refused");
    assert!(!node.shutdown.is_cancelled());
}

/// A session cookie is no credential here.
#[tokio::test]
async fn a_cookie_opens_nothing() {
    let node = start(KEYED).await;
    let ask = node.get("/api/agents").from(ELSEWHERE);
    let answer = ask
        .header("cookie", &format!("openfang_session={KEY}"))
        .send()
        .await;
    answer.is_error(401, "key_required");
}

/// The log is not streamed to anyone.
#[tokio::test]
async fn the_log_is_for_those_with_the_key() {
    let node = start(KEYED).await;
    let answer = node.get("/api/logs/stream").from(ELSEWHERE).send().await;
    answer.is_error(401, "key_required");
    let answer = node.get("/api/audit/recent").from(ELSEWHERE).send().await;
    answer.is_error(401, "key_required");
}

/// Keys in the query stand in logs and histories: a plain route does not take them.
#[tokio::test]
async fn a_key_in_the_query_opens_no_plain_route() {
    let node = start(KEYED).await;
    for name in ["token", "key", "api_key", "access_token"] {
        let path = format!("/api/agents?{name}={KEY}");
        let answer = node.get(&path).from(ELSEWHERE).send().await;
        let body = answer.is_error(401, "key_required");
        assert!(
            body["hint"]
                .as_str()
                .is_some_and(|hint| hint.contains("WebSocket"))
        );
    }
}

/// Two copies of a header: proxies and servers may each believe another one.
#[tokio::test]
async fn a_header_that_stands_twice_is_not_chosen_from() {
    let node = start(KEYED).await;
    let twice = || node.get("/api/agents").from(ELSEWHERE).key();
    let answer = twice().header("authorization", "Bearer other").send().await;
    answer.is_error(400, "ambiguous_request");
    let answer = twice().header("host", "127.0.0.1:4200").send().await;
    answer.is_error(400, "ambiguous_request");
    let answer = twice().header("x-api-key", "other").send().await;
    answer.is_error(401, "invalid_key");
}

/// Another spelling of a path is another path, and is not public.
#[tokio::test]
async fn a_path_in_disguise_is_not_public() {
    let node = start(KEYED).await;
    for path in [
        "/api/%68ealth",
        "/api/health/",
        "//api/health",
        "/api/health/../agents",
        "/api/health%2f..%2fagents",
        "/api//health",
        "/API/HEALTH",
        "/api/health;x",
        "/favicon.ico/..%2fapi/agents",
        "/./api/health",
        "/%2e%2e/api/agents",
    ] {
        let answer = node.get(path).from(ELSEWHERE).send().await;
        assert!(
            matches!(answer.status.as_u16(), 401 | 429),
            "{path}: {}",
            answer.text()
        );
        node.get(path).send().await.is_error(404, "no_route");
    }
    node.echo("echo").await;
    for id in [
        "%2e%2e", "..", "a%2fb", "%00", "echo%0a", "%ff", "echo%40", "%20", "a%3fb",
    ] {
        let answer = node.get(&format!("/api/agents/{id}")).send().await;
        answer.is_error(400, "invalid_agent");
    }
    let answer = node.get("/api/agents/%65cho").send().await;
    assert_eq!(
        answer.is_ok()["name"],
        "echo",
        "an encoded letter is that letter"
    );
}

/// A method that changes nothing must not reach a route that does.
#[tokio::test]
async fn other_methods_do_nothing() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    for verb in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"] {
        let method: Method = verb.parse().expect("a method");
        let answer = node.request(method.clone(), "/api/shutdown").send().await;
        assert_eq!(answer.status.as_u16(), 405, "{verb}");
        assert_eq!(answer.header("allow"), Some("POST"), "{verb}");
        let answer = node
            .request(method, "/api/shutdown")
            .from(ELSEWHERE)
            .send()
            .await;
        assert!(matches!(answer.status.as_u16(), 401 | 429), "{verb}");
    }
    assert!(!node.shutdown.is_cancelled());
    let answer = node.request(Method::HEAD, "/api/agents/echo").send().await;
    assert_eq!((answer.status.as_u16(), answer.bytes.len()), (200, 0));
    let override_ = node
        .get("/api/agents/echo")
        .header("x-http-method-override", "DELETE");
    override_.send().await.is_ok();
    node.get("/api/agents/echo").send().await.is_ok();
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is traced of a request holds no key, however the key came.
#[tokio::test]
async fn no_key_reaches_the_traces() {
    let captured = Captured::default();
    let sink = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || sink.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let node = start(KEYED).await;
    let ws = format!("/api/agents/echo/ws?key={KEY}");
    node.get(&ws).from(ELSEWHERE).send().await;
    node.get(&format!("/api/agents?token={KEY}"))
        .from(ELSEWHERE)
        .send()
        .await;
    node.get("/api/agents")
        .from(ELSEWHERE)
        .key()
        .send()
        .await
        .is_ok();
    let wrong = node.get("/api/agents").from(ELSEWHERE);
    wrong
        .header("x-api-key", "canary-of-a-mistyped-key")
        .send()
        .await;
    let text = String::from_utf8(captured.0.lock().expect("not poisoned").clone()).expect("text");
    assert!(
        text.contains("/api/agents/{id}/ws"),
        "the template is traced: {text}"
    );
    assert!(!text.contains(KEY), "{text}");
    assert!(!text.contains("canary"), "{text}");
    assert!(!text.contains("token="), "{text}");
}
