//! The WebSocket, over a real socket of this machine.

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::Response;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::node::{KEY, Setup};
use crate::served::{Served, serve};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Opened = Result<(Socket, Response<Option<Vec<u8>>>), Error>;

/// A node where requests of this machine need the key, so that each way to bring it is seen to work.
const STRICT: Setup = Setup {
    require_local: true,
    ..crate::node::KEYED
};

async fn open(served: &Served, path: &str, headers: &[(&'static str, &str)]) -> Opened {
    let url = format!("ws://{}{path}", served.addr);
    let mut request = url.into_client_request().expect("a request");
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, value.parse().expect("a header"));
    }
    connect_async(request).await
}

async fn open_keyed(served: &Served) -> Socket {
    let path = format!("/api/agents/echo/ws?key={KEY}");
    let (mut socket, _) = open(served, &path, &[]).await.expect("let in");
    let hello = read(&mut socket).await;
    assert_eq!(hello["type"], "connected");
    socket
}

async fn read(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.expect("open").expect("readable") {
            Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
            Message::Ping(_) | Message::Pong(_) => {}
            other @ (Message::Binary(_) | Message::Close(_) | Message::Frame(_)) => {
                panic!("unexpected: {other:?}")
            }
        }
    }
}

/// Reads to the end of a turn and returns its messages.
async fn read_turn(socket: &mut Socket) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let message = read(socket).await;
        let over = message["type"] == "typing" && message["state"] == "stop";
        all.push(message);
        if over {
            return all;
        }
    }
}

async fn say(socket: &mut Socket, text: impl Into<String>) {
    let text: String = text.into();
    socket.send(Message::Text(text.into())).await.expect("sent");
}

fn status(result: Opened) -> u16 {
    match result {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("no answer: {other}"),
        Ok(_) => 101,
    }
}

#[tokio::test]
async fn the_key_is_taken_in_four_ways_and_never_echoed() {
    let served = serve(STRICT).await;
    served.node.echo("echo").await;
    let path = "/api/agents/echo/ws";
    let bearer = format!("Bearer {KEY}");
    let offer = format!("bearer, {KEY}");
    for (query, headers) in [
        (format!("?key={KEY}"), vec![]),
        (format!("?token={KEY}"), vec![]),
        (String::new(), vec![("authorization", bearer.as_str())]),
        (String::new(), vec![("x-api-key", KEY)]),
    ] {
        let opened = open(&served, &format!("{path}{query}"), &headers).await;
        let (_, response) = opened.expect("let in");
        assert_eq!(response.headers().get("sec-websocket-protocol"), None);
    }
    let opened = open(&served, path, &[("sec-websocket-protocol", &offer)]).await;
    let (_, response) = opened.expect("let in");
    assert_eq!(response.headers()["sec-websocket-protocol"], "bearer");
    for (name, value) in response.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        assert!(!value.contains(KEY), "{name}");
    }
    assert_eq!(status(open(&served, path, &[]).await), 401);
    let wrong = open(
        &served,
        path,
        &[("sec-websocket-protocol", "bearer, nokey")],
    )
    .await;
    assert_eq!(status(wrong), 401);
    let ghost = open(&served, &format!("/api/agents/ghost/ws?key={KEY}"), &[]).await;
    assert_eq!(status(ghost), 404);
    let foreign = [
        ("origin", "http://evil.example"),
        ("authorization", bearer.as_str()),
    ];
    assert_eq!(status(open(&served, path, &foreign).await), 403);
    served.stop().await;
}

#[tokio::test]
async fn a_conversation_follows_the_documented_messages() {
    let served = serve(STRICT).await;
    let id = served.node.echo("echo").await;
    let path = format!("/api/agents/echo/ws?key={KEY}");
    let (mut socket, _) = open(&served, &path, &[]).await.expect("let in");
    let here = json!({"id": served.node.id.to_string(), "name": "node-1"});
    assert_eq!(
        read(&mut socket).await,
        json!({"type": "connected", "agent_id": id, "agent_name": "echo", "node": here})
    );
    say(&mut socket, json!({"type": "ping"}).to_string()).await;
    assert_eq!(read(&mut socket).await, json!({"type": "pong"}));
    for text in [
        json!({"type": "message", "content": "hello"}).to_string(),
        "plain hello".to_owned(),
        "{not json, hello".to_owned(),
    ] {
        say(&mut socket, text).await;
        let turn = read_turn(&mut socket).await;
        assert_eq!(turn[0], json!({"type": "typing", "state": "start"}));
        let text: String = turn
            .iter()
            .filter(|message| message["type"] == "text_delta")
            .map(|message| message["content"].as_str().expect("a text"))
            .collect();
        let response = &turn[turn.len() - 2];
        assert_eq!(response["type"], "response");
        assert_eq!(response["content"], text);
        assert!(text.contains("hello"), "{text}");
        assert_eq!(response["node"], here);
    }
    say(&mut socket, json!({"type": "dance"}).to_string()).await;
    let error = read(&mut socket).await;
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("error"), &json!("invalid_body"))
    );
    served.stop().await;
}

#[tokio::test]
async fn a_message_with_an_unknown_field_is_refused() {
    let served = serve(STRICT).await;
    served.node.echo("echo").await;
    let mut socket = open_keyed(&served).await;
    for text in [
        "{\"type\":\"ping\",\"id\":1}",
        "{\"type\":\"message\",\"content\":\"hi\",\"session\":\"x\"}",
        "{\"type\":\"message\",\"content\":\"hi\",\"content\":\"ho\"}",
        "{\"type\":\"message\"}",
    ] {
        say(&mut socket, text).await;
        let error = read(&mut socket).await;
        let seen = (&error["type"], &error["code"]);
        assert_eq!(seen, (&json!("error"), &json!("invalid_body")), "{text}");
    }
    say(&mut socket, "{\"type\":\"ping\"}").await;
    assert_eq!(read(&mut socket).await, json!({"type": "pong"}));
    served.stop().await;
}

#[tokio::test]
async fn messages_are_answered_in_their_order() {
    let served = serve(STRICT).await;
    served.node.echo("echo").await;
    let mut socket = open_keyed(&served).await;
    for number in 0..5 {
        say(&mut socket, format!("number {number}")).await;
    }
    for number in 0..5 {
        let turn = read_turn(&mut socket).await;
        let response = &turn[turn.len() - 2]["content"];
        let text = response.as_str().expect("a text");
        assert!(text.contains(&format!("number {number}")), "{text}");
    }
    served.stop().await;
}

#[tokio::test]
async fn messages_are_limited_in_number_and_size() {
    let served = serve(STRICT).await;
    served.node.echo("echo").await;
    let mut socket = open_keyed(&served).await;
    for text in [" ".to_owned(), "x".repeat(64 * 1024 + 1)] {
        say(&mut socket, text).await;
        assert_eq!(read(&mut socket).await["type"], "error");
    }
    for _ in 0..10 {
        say(&mut socket, "hello").await;
        read_turn(&mut socket).await;
    }
    say(&mut socket, "one too many").await;
    let error = read(&mut socket).await;
    assert_eq!(error["code"], "rate_limited");
    assert!(
        error["details"]["retry_after_ms"]
            .as_u64()
            .is_some_and(|ms| ms <= 60_000)
    );
    say(&mut socket, json!({"type": "ping"}).to_string()).await;
    assert_eq!(read(&mut socket).await["type"], "pong", "it stays open");
    say(&mut socket, "x".repeat(1024 * 1024)).await;
    let end = socket.next().await;
    assert!(
        !matches!(end, Some(Ok(Message::Text(_)))),
        "it is closed: {end:?}"
    );
    served.stop().await;
}

#[tokio::test]
async fn an_address_has_at_most_five_connections() {
    let served = serve(STRICT).await;
    served.node.echo("echo").await;
    let path = format!("/api/agents/echo/ws?key={KEY}");
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(open_keyed(&served).await);
    }
    assert_eq!(status(open(&served, &path, &[]).await), 429);
    // A place is free once the server has seen the farewell, which it answers.
    let mut last = sockets.pop().expect("five");
    last.close(None).await.expect("closed");
    while last.next().await.is_some() {}
    loop {
        match status(open(&served, &path, &[]).await) {
            101 => break,
            429 => tokio::task::yield_now().await,
            other => panic!("unexpected status {other}"),
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn an_open_socket_is_told_that_the_node_stops() {
    let served = serve(STRICT).await;
    served.node.echo("echo").await;
    let mut socket = open_keyed(&served).await;
    served.node.shutdown.cancel();
    match socket.next().await {
        Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1001),
        other => panic!("not a farewell: {other:?}"),
    }
    served.stop().await;
}

#[tokio::test]
async fn a_silent_client_is_let_go() {
    let served = serve(STRICT).await;
    served.node.echo("echo").await;
    let mut socket = open_keyed(&served).await;
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(30 * 60 + 1)).await;
    match socket.next().await {
        Some(Ok(Message::Close(Some(frame)))) => {
            assert_eq!(
                (u16::from(frame.code), frame.reason.as_str()),
                (1001, "idle")
            );
        }
        other => panic!("not a farewell: {other:?}"),
    }
    tokio::time::resume();
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_says_goodbye_is_answered() {
    let served = serve(crate::node::KEYED).await;
    served.node.echo("echo").await;
    let mut socket = open_keyed(&served).await;
    let code = CloseCode::Normal;
    let frame = CloseFrame {
        code,
        reason: "done".into(),
    };
    socket.close(Some(frame)).await.expect("sent");
    let answer = socket.next().await.expect("an answer");
    let Ok(Message::Close(Some(answer))) = answer else {
        panic!("no farewell: {answer:?}");
    };
    assert_eq!(answer.code, code);
    assert!(socket.next().await.is_none(), "and then it is over");
}
