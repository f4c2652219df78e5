//! A message and its answer, in one piece and as a stream.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::node::{Answer, KEYED, Node, start};

const MESSAGE: &str = "/api/agents/echo/message";
const STREAM: &str = "/api/agents/echo/message/stream";

/// The events of a stream: name and data.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let text = answer.text();
    let blocks = text
        .split("\n\n")
        .filter(|block| block.starts_with("event: "));
    blocks
        .map(|block| {
            let mut lines = block.lines();
            let name = lines.next().and_then(|line| line.strip_prefix("event: "));
            let data = lines.next().and_then(|line| line.strip_prefix("data: "));
            let data = serde_json::from_str(data.expect("data")).expect("JSON");
            (name.expect("a name").to_owned(), data)
        })
        .collect()
}

#[tokio::test]
async fn a_message_is_answered() {
    let node = start(KEYED).await;
    let id = node.echo("echo").await;
    let answer = node
        .post(MESSAGE, &json!({"message": "hello"}))
        .send()
        .await;
    let mut body = answer.is_ok();
    let response = body["response"].take();
    assert!(
        response.as_str().is_some_and(|it| it.contains("hello")),
        "{response}"
    );
    let audit = body["audit"].take();
    assert!(
        audit
            .as_str()
            .is_some_and(|it| it.contains(".openfang.mesh/audit/0#")),
        "{audit}"
    );
    assert_eq!(
        body,
        json!({
            "response": null, "input_tokens": 0, "output_tokens": 0, "iterations": 1,
            "agent_id": id, "agent_name": "echo", "audit": null,
            "node": {"id": node.id.to_string(), "name": "node-1"},
        })
    );
}

#[tokio::test]
async fn a_message_is_logged_in_and_out_on_every_way_in() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    node.post(MESSAGE, &json!({"message": "a"}))
        .send()
        .await
        .is_ok();
    node.settle_log().await;
    let plain = (
        node.logged("message_in").len(),
        node.logged("message_out").len(),
    );
    node.post(STREAM, &json!({"message": "b"}))
        .key()
        .send()
        .await;
    node.settle_log().await;
    let both = (
        node.logged("message_in").len(),
        node.logged("message_out").len(),
    );
    assert!(plain.0 >= 1, "a message is logged");
    assert_eq!(
        both,
        (2 * plain.0, 2 * plain.1),
        "a stream is logged the same"
    );
    let users: Vec<_> = node
        .logged("message_in")
        .into_iter()
        .map(|line| line.user)
        .collect();
    assert_eq!(users[0].as_deref(), Some("api:loopback"));
    assert_eq!(users[users.len() - 1].as_deref(), Some("api:key"));
    let lines = node.logged("message_in");
    assert!(
        lines.iter().all(|line| !line.raw.contains("\"b\"")),
        "no content in the log"
    );
}

#[tokio::test]
async fn a_stream_is_chunks_and_a_last_event_with_the_whole() {
    let node = start(KEYED).await;
    let id = node.echo("echo").await;
    let answer = node.post(STREAM, &json!({"message": "hello"})).send().await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    let events = events(&answer);
    let (last, chunks) = events.split_last().expect("events");
    assert!(!chunks.is_empty());
    let mut text = String::new();
    for (name, data) in chunks {
        assert_eq!(name, "chunk");
        assert_eq!(data["done"], false);
        text.push_str(data["content"].as_str().expect("a text"));
    }
    assert_eq!(last.0, "done");
    assert_eq!(last.1["done"], true);
    assert_eq!(
        last.1["usage"],
        json!({"input_tokens": 0, "output_tokens": 0})
    );
    assert_eq!(last.1["response"], text);
    assert_eq!(last.1["agent_id"], id);
}

#[tokio::test]
async fn an_error_before_the_first_event_is_a_plain_one() {
    let node = start(KEYED).await;
    let ghost = node.post(
        "/api/agents/ghost/message/stream",
        &json!({"message": "hi"}),
    );
    ghost.send().await.is_error(404, "unknown_agent");
    // An agent whose model has no key fails before it says anything.
    let toml = "name = \"mute\"\nmodule = \"builtin:chat\"\n";
    let spawned = node
        .post("/api/agents", &json!({"manifest_toml": toml}))
        .key()
        .send()
        .await;
    assert_eq!(spawned.status.as_u16(), 201, "{}", spawned.text());
    for path in [
        "/api/agents/mute/message",
        "/api/agents/mute/message/stream",
    ] {
        let answer = node.post(path, &json!({"message": "hi"})).send().await;
        let body = answer.is_error(502, "model_failed");
        assert_eq!(body["reason"], "model_no_key");
    }
}

/// An agent whose model takes a request and never answers, and the socket of that model.
pub(crate) async fn slow(node: &Node) -> TcpListener {
    let model = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = model.local_addr().expect("an address");
    let toml = format!(
        "name = \"slow\"\nmodule = \"builtin:chat\"\n[model]\nprovider = \"here\"\n\
         model = \"m\"\nbase_url = \"http://{addr}/v1\"\n"
    );
    let spawned = node
        .post("/api/agents", &json!({"manifest_toml": toml}))
        .key();
    let spawned = spawned.send().await;
    assert_eq!(spawned.status.as_u16(), 201, "{}", spawned.text());
    model
}

async fn is_busy(node: &Node) -> bool {
    let body = node.get("/api/agents/slow").send().await.is_ok();
    body["is_inferencing"].as_bool().expect("a truth")
}

/// Sends until the model has been asked, and gives back what is still under way.
macro_rules! until_asked {
    ($model:expr, $sent:expr) => {
        tokio::select! {
            asked = $model.accept() => asked.expect("asked").0,
            _ = $sent => panic!("answered before the model was asked"),
        }
    };
}

#[tokio::test]
async fn a_caller_who_goes_away_cancels_the_turn() {
    let node = start(KEYED).await;
    let model = slow(&node).await;
    for path in [
        "/api/agents/slow/message",
        "/api/agents/slow/message/stream",
    ] {
        let mut sent = Box::pin(node.post(path, &json!({"message": "hi"})).send_open());
        let _asked = until_asked!(model, &mut sent);
        assert!(is_busy(&node).await);
        drop(sent);
        while is_busy(&node).await {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_caller_with_an_idempotency_key_may_go_away() {
    let node = start(KEYED).await;
    let model = slow(&node).await;
    let body = json!({"message": "hi", "idempotency_key": "a"});
    let path = "/api/agents/slow/message";
    let mut sent = Box::pin(node.post(path, &body).send_open());
    let mut asked = until_asked!(model, &mut sent);
    drop(sent);
    // The turn is still there to be answered, and whoever asks again is given the answer.
    let again = node.post(path, &body).send();
    let answer = "data: {\"choices\":[{\"delta\":{\"content\":\"late\"},\
                  \"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    asked.write_all(head.as_bytes()).await.expect("sent");
    asked.write_all(answer.as_bytes()).await.expect("sent");
    assert_eq!(again.await.is_ok()["response"], "late");
}

#[tokio::test]
async fn a_stream_begins_without_its_first_event_when_that_takes_long() {
    let node = start(KEYED).await;
    let model = slow(&node).await;
    let ask = node.post("/api/agents/slow/message/stream", &json!({"message": "hi"}));
    let mut sent = Box::pin(ask.send_open());
    let _asked = until_asked!(model, &mut sent);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    let response = sent.await;
    assert_eq!(response.status().as_u16(), 200);
    let mut body = response.into_body().into_data_stream();
    let first = body.next().await.expect("an event").expect("bytes");
    let first = String::from_utf8_lossy(&first).into_owned();
    assert!(
        first.starts_with("event: phase\ndata: {\"phase\":\"waiting\""),
        "{first}"
    );
}

#[tokio::test]
async fn a_message_with_an_idempotency_key_runs_once() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    let send = |text: &str, key: &str| {
        let ask = node.post(MESSAGE, &json!({ "message": text }));
        ask.header("idempotency-key", key).send()
    };
    let first = send("hello", "a").await.is_ok();
    node.settle_log().await;
    let logged = node.logged("message_in").len();
    assert_eq!(
        send("hello", "a").await.is_ok(),
        first,
        "the same answer, entry and all"
    );
    let streamed = node.post(STREAM, &json!({"message": "hello", "idempotency_key": "a"}));
    let streamed = events(&streamed.send().await);
    let last = &streamed.last().expect("events").1;
    assert_eq!(last["response"], first["response"]);
    assert_eq!(last["audit"], first["audit"]);
    node.settle_log().await;
    assert_eq!(node.logged("message_in").len(), logged, "it ran once");
    // Another key, another text and another caller are other calls.
    send("hello", "b").await.is_ok();
    send("other", "a").await.is_ok();
    let keyed = node.post(MESSAGE, &json!({"message": "hello"})).key();
    keyed.header("idempotency-key", "a").send().await.is_ok();
    node.settle_log().await;
    assert_eq!(node.logged("message_in").len(), 4 * logged);
}

#[tokio::test]
async fn an_idempotency_key_is_checked() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    let post = |body: &Value| node.post(MESSAGE, body);
    let plain = json!({"message": "hi"});
    let named = json!({"message": "hi", "idempotency_key": "a"});
    post(&plain)
        .header("idempotency-key", "a")
        .send()
        .await
        .is_ok();
    post(&named).send().await.is_ok();
    post(&named)
        .header("idempotency-key", "a")
        .send()
        .await
        .is_ok();
    let differing = post(&named).header("idempotency-key", "b");
    differing.send().await.is_error(400, "ambiguous_request");
    let twice = post(&plain).header("idempotency-key", "a");
    let twice = twice.header("idempotency-key", "a");
    twice.send().await.is_error(400, "ambiguous_request");
    let empty = post(&plain).header("idempotency-key", "");
    empty.send().await.is_error(400, "invalid_parameter");
    let long = post(&plain).header("idempotency-key", &"x".repeat(256));
    long.send().await.is_error(400, "invalid_parameter");
}

#[tokio::test]
async fn a_sender_is_bounded() {
    let node = start(KEYED).await;
    node.echo("echo").await;
    let named = json!({"message": "hi", "sender_id": "42", "sender_name": "Ada"});
    node.post(MESSAGE, &named).send().await.is_ok();
    let long = json!({"message": "hi", "sender_name": "x".repeat(300)});
    node.post(MESSAGE, &long)
        .send()
        .await
        .is_error(413, "too_large");
}
