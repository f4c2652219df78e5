//! Bodies that are too large, malformed or of another type.

use axum::body::Body;
use axum::http::Method;
use futures::stream;
use serde_json::json;

use crate::node::{KEYED, start};

const MESSAGE: &str = "/api/agents/echo/message";

#[tokio::test]
async fn a_message_has_at_most_64_kib() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    let of = |length: usize| json!({"message": "x".repeat(length)});
    node.post(MESSAGE, &of(64 * 1024)).send().await.is_ok();
    let answer = node.post(MESSAGE, &of(64 * 1024 + 1)).send().await;
    assert_eq!(answer.is_error(413, "too_large")["limit_bytes"], 65_536);
    // The longest spelling of the longest message fits; a body beyond it is not read to its end.
    let spelled = format!("{{\"message\":\"{}\"}}", "\\u0078".repeat(64 * 1024));
    let ask = node.request(Method::POST, MESSAGE);
    let ask = ask.header("content-type", "application/json").body(spelled);
    ask.send().await.is_ok();
    node.post(MESSAGE, &of(1024 * 1024))
        .send()
        .await
        .is_error(413, "too_large");
    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]));
    let ask = node.request(Method::POST, MESSAGE);
    let ask = ask.header("content-type", "application/json");
    let answer = ask.body(Body::from_stream(endless)).send().await;
    answer.is_error(413, "too_large");
}

#[tokio::test]
async fn a_manifest_has_at_most_1_mib() {
    let node = start(KEYED).await;
    let of = |length: usize| {
        let head = "name = \"big\"\nmodule = \"builtin:echo\"\n# ";
        json!({"manifest_toml": format!("{head}{}", "x".repeat(length - head.len()))})
    };
    let answer = node
        .post("/api/agents", &of(1024 * 1024))
        .key()
        .send()
        .await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
    let answer = node
        .post("/api/agents", &of(1024 * 1024 + 1))
        .key()
        .send()
        .await;
    assert_eq!(answer.is_error(413, "too_large")["limit_bytes"], 1_048_576);
    let answer = node
        .post("/api/agents", &of(8 * 1024 * 1024))
        .key()
        .send()
        .await;
    answer.is_error(413, "too_large");
    let answer = node
        .post(
            "/api/network/join",
            &json!({"addr": "x".repeat(256 * 1024)}),
        )
        .key()
        .send()
        .await;
    answer.is_error(413, "too_large");
}

#[tokio::test]
async fn what_is_not_json_is_refused_with_its_place() {
    let node = start(KEYED).await;
    let post = |body: &'static str| {
        node.request(Method::POST, MESSAGE)
            .header("content-type", "application/json; charset=utf-8")
            .body(body)
    };
    let body = post("{\n  \"message\": oops\n}").send().await;
    let body = body.is_error(400, "invalid_body");
    assert_eq!((&body["line"], &body["column"]), (&json!(2), &json!(14)));
    for (text, line, column) in [
        ("", 1, 1),
        ("[]", 1, 1),
        ("\n  [\"hello\", null, null, null]", 2, 3),
    ] {
        let body = post(text).send().await.is_error(400, "invalid_body");
        let place = (&body["line"], &body["column"]);
        assert_eq!(place, (&json!(line), &json!(column)), "{text}");
    }
    for text in [
        "",
        "null",
        "[\"hello\"]",
        "[]",
        "\"hi\"",
        "{\"message\":7}",
        "{}",
        "{\"message\":\"a\"} trailing",
        "{\"message\":\"a\",\"message\":\"b\"}",
        "{\"message\":\"a\",\"attachments\":[]}",
        "{\"message\":\"\"}",
        "{\"message\":\" \\n\"}",
        "{\"message\":\"\\ud800\"}",
    ] {
        post(text).send().await.is_error(400, "invalid_body");
    }
    for (text, words) in [
        (
            "{\"message\":7}",
            "The field \"message\" must be a text, not a number.",
        ),
        ("{}", "The field \"message\" is missing; it must be a text."),
        (
            "{\"message\":\"a\",\"attachments\":[]}",
            "The body has a field \"attachments\", which is not known.",
        ),
        ("null", "The body must be an object, not null."),
    ] {
        let body = post(text).send().await.is_error(400, "invalid_body");
        assert_eq!(body["error"], words, "{text}");
        assert_eq!(body["line"], 1, "{text}");
    }
    let deep = format!("{{\"message\":{}", "[".repeat(100_000));
    let ask = node.request(Method::POST, MESSAGE);
    let ask = ask.header("content-type", "application/json").body(deep);
    ask.send().await.is_error(400, "invalid_body");
}

#[tokio::test]
async fn another_type_of_body_is_refused() {
    let node = start(KEYED).await;
    let text = json!({"message": "hi"}).to_string();
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonp",
        "",
    ] {
        let ask = node.request(Method::POST, MESSAGE);
        let ask = ask.header("content-type", kind).body(text.clone());
        ask.send().await.is_error(415, "unsupported_media_type");
    }
    let bare = node.request(Method::POST, MESSAGE).body(text.clone());
    bare.send().await.is_error(415, "unsupported_media_type");
    let twice = node
        .request(Method::POST, MESSAGE)
        .header("content-type", "application/json")
        .header("content-type", "text/plain");
    let twice = twice.body(text);
    twice.send().await.is_error(415, "unsupported_media_type");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_given_up() {
    let node = start(KEYED).await;
    let never = Body::from_stream(stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let ask = node.request(Method::POST, MESSAGE);
    let ask = ask.header("content-type", "application/json").body(never);
    ask.send().await.is_error(408, "body_timeout");
}

/// serde reads the fields of a struct from an array as well, in their order.
#[tokio::test]
async fn an_array_is_no_body() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    for (path, body) in [
        (MESSAGE, json!(["hello", null, null, null])),
        (
            "/api/agents",
            json!(["name = \"x\"\nmodule = \"builtin:echo\"\n"]),
        ),
        ("/api/network/join", json!([null, "127.0.0.1:9", null])),
    ] {
        let answer = node.post(path, &body).key().send().await;
        answer.is_error(400, "invalid_body");
    }
}

#[tokio::test]
async fn a_parameter_that_is_not_known_is_named() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    for (path, name) in [
        ("/api/agents?scop=local", "scop"),
        ("/api/agents?scope=local&x", "x"),
        ("/api/status?verbose=1", "verbose"),
        ("/api/audit/recent?n=1&count=2", "count"),
        ("/api/agents/echo/ws?session=1", "session"),
    ] {
        let body = node.get(path).send().await;
        let body = body.is_error(400, "invalid_parameter");
        assert_eq!(body["looked_for"], name, "{path}");
    }
    for (path, words) in [
        (
            "/api/agents?scope=galaxy",
            "The parameter scope must be local or mesh.",
        ),
        (
            "/api/audit/recent?n=many",
            "The parameter n must be a whole number, 1 to 1000.",
        ),
        ("/api/audit/recent?n=1&n=2", "The parameter n stands twice."),
        (
            "/api/audit/consistency?from=1",
            "The parameter to is missing; it must be a whole number of entries, 1 or more.",
        ),
        (
            "/api/audit/consistency?from=-1&to=2",
            "The parameter from must be a whole number of entries, 1 or more.",
        ),
    ] {
        let body = node.get(path).send().await;
        let body = body.is_error(400, "invalid_parameter");
        assert_eq!(body["error"], words, "{path}");
    }
    // What it was set to may be a key.
    let answer = node.get("/api/agents?api_key=canary").send().await;
    answer.is_error(400, "invalid_parameter");
    assert!(!answer.text().contains("canary"));
    node.get("/api/agents?").send().await.is_ok();
    node.get("/api/agents?scope=local").send().await.is_ok();
    node.get("/api/health?_=17").send().await.is_ok();
    node.get("/api/nothing?x=1")
        .send()
        .await
        .is_error(404, "no_route");
}
