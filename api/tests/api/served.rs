//! The server on a socket: what only a connection can show.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::message::slow;
use crate::node::{KEY, KEYED, Node, Setup, start};

/// A node that answers on a socket.
pub(crate) struct Served {
    pub(crate) node: Node,
    pub(crate) addr: SocketAddr,
    stop: CancellationToken,
    task: JoinSet<Result<(), openfang_api::ServeError>>,
}

pub(crate) async fn serve(setup: Setup) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let node = start(setup).await;
    let stop = CancellationToken::new();
    let mut task = JoinSet::new();
    task.spawn(openfang_api::serve(
        listener,
        node.router.clone(),
        stop.clone(),
    ));
    Served {
        node,
        addr,
        stop,
        task,
    }
}

impl Served {
    /// Ends the server in order, and waits for that.
    pub(crate) async fn stop(mut self) {
        self.node.shutdown.cancel();
        self.stop.cancel();
        let ended = self.task.join_next().await.expect("one task");
        ended.expect("no panic").expect("in order");
    }
}

/// Sends bytes and reads to the end of the connection.
async fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("connected");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_are_answered_on_a_socket() {
    let served = serve(KEYED).await;
    let request = "GET /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = exchange(served.addr, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.ends_with("{\"status\":\"ok\",\"version\":\"0.0.0-test\"}"),
        "{answer}"
    );
    served.stop().await;
}

#[tokio::test]
async fn the_first_page_names_the_port_it_came_from() {
    let served = serve(KEYED).await;
    let request = "GET / HTTP/1.1\r\nHost: 127.0.0.1:4200\r\nConnection: close\r\n\r\n";
    let answer = exchange(served.addr, request.as_bytes()).await;
    assert!(
        answer.contains("http://127.0.0.1:4200/api/agents") && !answer.contains("PORT"),
        "{answer}"
    );
    served.stop().await;
}

#[tokio::test]
async fn the_peer_of_a_socket_is_known() {
    let served = serve(KEYED).await;
    // The router was told 127.0.0.1:4200; the socket is on loopback, so that its Host decides.
    let own = "GET /api/version HTTP/1.1\r\nHost: 127.0.0.1:4200\r\nConnection: close\r\n\r\n";
    let answer = exchange(served.addr, own.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let foreign = "GET /api/version HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let answer = exchange(served.addr, foreign.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    let absolute = "GET http://evil.example/api/version HTTP/1.1\r\nHost: 127.0.0.1:4200\r\n\
                    Connection: close\r\n\r\n";
    let answer = exchange(served.addr, absolute.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    let old = "GET /api/version HTTP/1.0\r\nHost: 127.0.0.1:4200\r\n\r\n";
    let answer = exchange(served.addr, old.as_bytes()).await;
    assert!(answer.contains(" 401 "), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn smuggled_lengths_are_refused() {
    let served = serve(KEYED).await;
    let both = "POST /api/agents HTTP/1.1\r\nHost: 127.0.0.1:4200\r\nContent-Length: 4\r\n\
                Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n\
                GET /api/status HTTP/1.1\r\nHost: 127.0.0.1:4200\r\n\r\n";
    let answer = exchange(served.addr, both.as_bytes()).await;
    assert_eq!(
        answer.matches("HTTP/1.1 ").count(),
        1,
        "one answer: {answer}"
    );
    assert!(!answer.contains("\"uptime_seconds\""), "{answer}");
    let twice = "GET /api/health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\
                 Content-Length: 5\r\nConnection: close\r\n\r\n";
    let answer = exchange(served.addr, twice.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn a_head_has_at_most_32_kib() {
    let served = serve(KEYED).await;
    let head = |bytes: usize| {
        let start = "GET /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: ";
        let end = "\r\n\r\n";
        format!(
            "{start}{}{end}",
            "x".repeat(bytes - start.len() - end.len())
        )
    };
    let answer = exchange(served.addr, head(32 * 1024).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = exchange(served.addr, head(32 * 1024 + 1).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    for bytes in [40_000, 1_000_000] {
        let mut stream = TcpStream::connect(served.addr).await.expect("connected");
        // The server may close before everything is sent; either way it does not answer with success.
        let sent = stream.write_all(head(bytes).as_bytes()).await;
        let mut answer = [0; 12];
        let read = stream.read(&mut answer).await;
        assert!(sent.is_err() || read.is_err() || &answer[..12] != b"HTTP/1.1 200");
    }
    served.stop().await;
}

/// Sends a request and reads the answer.
async fn ask(stream: &mut TcpStream, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut heard = String::new();
    let whole = |heard: &str| {
        let (head, body) = heard.split_once("\r\n\r\n")?;
        let length = head.split_once("content-length: ")?.1.lines().next()?;
        Some(body.len() >= length.parse().ok()?)
    };
    while whole(&heard) != Some(true) {
        let mut bytes = [0; 4_096];
        let len = stream.read(&mut bytes).await?;
        if len == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        heard.push_str(&String::from_utf8_lossy(&bytes[..len]));
    }
    Ok(heard)
}

#[tokio::test]
async fn connections_without_a_key_do_not_keep_the_owner_out() {
    let served = serve(KEYED).await;
    let health = "GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut first = TcpStream::connect(served.addr).await.expect("connected");
    let mut held = Vec::new();
    for _silent in 0..300 {
        held.push(TcpStream::connect(served.addr).await.expect("connected"));
    }
    let mut rest = [0; 1];
    let ended = first.read(&mut rest).await.unwrap_or(0);
    assert_eq!(ended, 0, "the oldest went");
    let mut stream = TcpStream::connect(served.addr).await.expect("connected");
    let answer = ask(&mut stream, health).await.expect("answered");
    assert!(answer.contains("connection: close"), "{answer}");
    let keyed =
        format!("GET /api/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    let mut owner = TcpStream::connect(served.addr).await.expect("connected");
    for _request in 0..2 {
        let answer = ask(&mut owner, &keyed).await.expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
        for _more in 0..150 {
            let mut stream = TcpStream::connect(served.addr).await.expect("connected");
            ask(&mut stream, health).await.expect("answered");
            held.push(stream);
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn a_connection_that_shows_no_key_is_closed_after_a_silence() {
    let served = serve(KEYED).await;
    let keyed =
        format!("GET /api/version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    let mut owner = TcpStream::connect(served.addr).await.expect("connected");
    ask(&mut owner, &keyed).await.expect("answered");
    let wrong = "GET /api/version HTTP/1.1\r\nHost: x\r\nX-API-Key: x\r\n\r\n";
    let mut silent = TcpStream::connect(served.addr).await.expect("connected");
    let mut half = TcpStream::connect(served.addr).await.expect("connected");
    half.write_all(&wrong.as_bytes()[..20]).await.expect("sent");
    let mut refused = TcpStream::connect(served.addr).await.expect("connected");
    ask(&mut refused, wrong).await.expect("answered");
    // Longer than strangers may be silent, and shorter than friends.
    let patience = Duration::from_secs(20);
    for stream in [&mut silent, &mut half, &mut refused] {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(patience, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "closed");
    }
    let answer = ask(&mut owner, &keyed).await.expect("still open");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    served.stop().await;
}

/// What a node does when it is told to stop: the turns have ten seconds, and the API as long as they.
#[tokio::test]
async fn a_stream_that_is_cut_at_the_end_is_told_so() {
    let mut served = serve(KEYED).await;
    let model = slow(&served.node).await;
    let body = "{\"message\":\"hello\"}";
    let request = format!(
        "POST /api/agents/slow/message/stream HTTP/1.1\r\nHost: 127.0.0.1:4200\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(served.addr).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let (mut asked, _) = model.accept().await.expect("asked");
    let chunk = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
                 data: {\"choices\":[{\"delta\":{\"content\":\"begun\"}}]}\n\n";
    asked.write_all(chunk.as_bytes()).await.expect("sent");
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("begun") {
        let read = stream.read_buf(&mut heard).await.expect("open");
        assert!(read > 0, "{}", String::from_utf8_lossy(&heard));
    }
    served.node.shutdown.cancel();
    served.stop.cancel();
    let grace = Duration::from_secs(10);
    let (ended, ()) = tokio::join!(stream.read_to_end(&mut heard), served.node.end_turns(grace));
    let heard = String::from_utf8_lossy(&heard).into_owned();
    assert!(ended.is_ok() && heard.contains("event: error"), "{heard}");
    served.stop().await;
}

#[tokio::test]
async fn a_stop_lets_the_running_request_end_and_closes_the_connection() {
    let served = serve(KEYED).await;
    served.node.echo("echo").await;
    let mut stream = TcpStream::connect(served.addr).await.expect("connected");
    let body = "{\"message\":\"hello\"}";
    let head = format!(
        "POST /api/agents/echo/message HTTP/1.1\r\nHost: 127.0.0.1:4200\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    // The handler is running once it asks for the body.
    let mut first = vec![0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream
        .read_exact(&mut first)
        .await
        .expect("asked for the body");
    served.stop.cancel();
    stream.write_all(body.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .await
        .expect("read to the end");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    served.stop().await;
}

#[tokio::test]
async fn a_stopped_server_takes_no_connection() {
    let served = serve(KEYED).await;
    let addr = served.addr;
    served.stop().await;
    assert!(TcpStream::connect(addr).await.is_err());
}
