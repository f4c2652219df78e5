//! Members and strangers who take more than is theirs.

mod common;

use std::time::Duration;

use common::knock::Knock;
use common::{Node, Plan, collect, eventually, pair, quic, request, secret, tcp};
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::core::muxing::SubstreamBox;
use libp2p::identity::Keypair;
use openfang_id::Transport;
use openfang_mesh::MeshEvent;
use openfang_ofp::call::{CallId, REQUEST_BYTES_MAX};
use openfang_ofp::exchange::QUESTION_BODY_MAX;
use openfang_ofp::gate::Epoch;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

const CALL: &str = "/ofp/call/1";
const AUDIT: &str = "/ofp/audit/1";

/// Sends so much of a frame of this length. `false` when the other side no longer takes it.
async fn begin_frame(
    knock: &mut Knock,
    stream: &mut SubstreamBox,
    announced: usize,
    sent: usize,
) -> bool {
    let mut bytes = u32::try_from(announced)
        .expect("short")
        .to_be_bytes()
        .to_vec();
    bytes.resize(4 + sent, 1);
    let said = knock.drive(async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    });
    // Who is not read from is held back.
    let said = tokio::time::timeout(Duration::from_secs(5), said).await;
    matches!(said, Ok(Ok(())))
}

/// Whether the other side still waits for the rest: it has not ended the substream in a moment.
async fn is_waited_for(knock: &mut Knock, stream: &mut SubstreamBox) -> bool {
    let mut rest = [0; 64];
    let read = knock.drive(stream.read(&mut rest));
    tokio::time::timeout(Duration::from_millis(200), read)
        .await
        .is_err()
}

async fn answers(node: &Node, to: &Node, id: u8) {
    let reply = node.mesh.call(to.id(), request(id, "hello")).await;
    let (_, ended) = collect(reply.expect("a reply")).await;
    assert_eq!(ended, Ok("hello".to_owned()));
}

async fn small(seed: u8, change: impl FnOnce(&mut openfang_mesh::Limits)) -> Node {
    let mut plan = Plan::new(seed);
    change(&mut plan.limits);
    plan.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_never_ends_is_given_up() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = small(1, |limits| {
            limits.request_arrival = Duration::from_millis(300)
        })
        .await;
        let keys = Keypair::generate_ed25519();
        let mut knock = Knock::enter(&keys, &a, transport).await;
        let mut idle = knock.open_protocol(CALL).await.expect("open");
        let mut slow = knock.open_protocol(CALL).await.expect("open");
        assert!(begin_frame(&mut knock, &mut slow, 1_000, 10).await);
        assert!(knock.is_ended(&mut slow).await);
        // A substream on which nothing has begun may wait for ever.
        assert!(is_waited_for(&mut knock, &mut idle).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unfinished_requests_of_a_member_have_a_budget() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = small(1, |limits| limits.unfinished_bytes_per_peer = 2 << 20).await;
        let keys = Keypair::generate_ed25519();
        // Over two connections: the budget is the member's.
        let mut held = 0;
        let mut knocks = Vec::new();
        for _connection in 0..2 {
            let mut knock = Knock::enter(&keys, &a, transport).await;
            let mut streams = Vec::new();
            for _stream in 0..4 {
                let mut stream = knock.open_protocol(CALL).await.expect("open");
                let sent = REQUEST_BYTES_MAX - 1;
                if begin_frame(&mut knock, &mut stream, REQUEST_BYTES_MAX, sent).await {
                    streams.push(stream);
                }
            }
            for stream in &mut streams {
                held += usize::from(is_waited_for(&mut knock, stream).await);
            }
            knocks.push((knock, streams));
        }
        assert!((1..=2).contains(&held), "{held}");
        let b = Plan::new(2)
            .bootstrap(vec![a.anonymous(transport)])
            .start()
            .await;
        eventually("linked", || b.is_linked(a.id())).await;
        answers(&b, &a, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unfinished_requests_of_all_members_have_a_budget() {
    let a = small(1, |limits| limits.unfinished_bytes_max = 3 << 20).await;
    let mut held = 0;
    let mut knocks = Vec::new();
    for _member in 0..6 {
        let keys = Keypair::generate_ed25519();
        let mut knock = Knock::enter(&keys, &a, Transport::Tcp).await;
        let mut stream = knock.open_protocol(CALL).await.expect("open");
        let sent = REQUEST_BYTES_MAX - 1;
        if begin_frame(&mut knock, &mut stream, REQUEST_BYTES_MAX, sent).await {
            held += usize::from(is_waited_for(&mut knock, &mut stream).await);
        }
        knocks.push((knock, stream));
    }
    assert!((1..=3).contains(&held), "{held}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_has_so_many_call_substreams_over_all_its_connections() {
    let a = small(1, |limits| limits.call_substreams_per_peer = 5).await;
    let keys = Keypair::generate_ed25519();
    let mut waited_for = 0;
    let mut knocks = Vec::new();
    for _connection in 0..2 {
        let mut knock = Knock::enter(&keys, &a, Transport::Tcp).await;
        for _stream in 0..4 {
            if let Some(mut stream) = knock.open_protocol(CALL).await {
                waited_for += usize::from(is_waited_for(&mut knock, &mut stream).await);
                knocks.push((None, stream));
            }
        }
        let stream = knock.open_protocol("/ofp/sync/1").await.expect("open");
        knocks.push((Some(knock), stream));
    }
    assert_eq!(waited_for, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_sends_and_nobody_reads_is_bounded() {
    let a = Plan::new(1).start().await;
    let mut knock = Knock::at(&a, Transport::Tcp).await;
    let mut first = knock.open().await;
    knock.say(&mut first, &[0]).await;
    // Before the gate nobody reads what is on further substreams.
    let mut taken = 0;
    let mut streams = Vec::new();
    for _stream in 0..100 {
        let mut stream = knock.open().await;
        let said = knock.drive(async {
            stream.write_all(&[7; 250_000]).await?;
            stream.flush().await
        });
        // What the sockets take on both sides is 10 MB at most.
        match tokio::time::timeout(Duration::from_millis(300), said).await {
            Ok(Ok(())) => taken += 1,
            Ok(Err(_)) | Err(_) => break,
        }
        streams.push(stream);
    }
    assert!(taken < 100, "25 MB were taken that nobody reads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_requests_of_an_honest_member_all_arrive() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (a, b) = pair(transport).await;
        let text = "x".repeat(REQUEST_BYTES_MAX - 1_024);
        let mut calls = JoinSet::new();
        for n in 0..48 {
            let (mesh, to) = (a.mesh.clone(), b.id());
            let mut large = request(n, &text);
            large.id = CallId([n + 1; 16]);
            calls.spawn(async move {
                let reply = mesh.call(to, large).await?;
                collect(reply).await.1
            });
        }
        for ended in calls.join_all().await {
            assert_eq!(ended.map(|answer| answer.len()), Ok(text.len()));
        }
        for n in 0..48 {
            assert_eq!(b.host.runs_of(CallId([n + 1; 16])), 1);
        }
    }
}

/// Members who begin so many questions each and send so much of each.
async fn half_questions(
    a: &Node,
    members: usize,
    each: usize,
    sent: usize,
) -> (Vec<(Knock, Vec<SubstreamBox>)>, usize) {
    let mut knocks = Vec::new();
    let mut held = 0;
    for _member in 0..members {
        let keys = Keypair::generate_ed25519();
        let mut knock = Knock::enter(&keys, a, Transport::Tcp).await;
        let mut streams = Vec::new();
        for _question in 0..each {
            let mut stream = knock.open_protocol(AUDIT).await.expect("open");
            if begin_frame(&mut knock, &mut stream, QUESTION_BODY_MAX, sent).await {
                held += usize::from(is_waited_for(&mut knock, &mut stream).await);
            }
            streams.push(stream);
        }
        knocks.push((knock, streams));
    }
    (knocks, held)
}

async fn asks(node: &Node, to: &Node) {
    let asked = openfang_mesh::Question {
        verb: openfang_mesh::Verb::Get,
        path: "/checkpoint".to_owned(),
        body: Vec::new(),
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let answer = node.mesh.ask(to.id(), asked, deadline).await;
    assert_eq!(answer.expect("answered").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_never_end_keep_nobody_from_asking() {
    let (a, b) = pair(Transport::Tcp).await;
    // As many as are answered at once, and more.
    let (knocks, held) = half_questions(&a, 5, 4, 100).await;
    assert_eq!(held, 20);
    asks(&b, &a).await;
    drop(knocks);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_questions_of_all_members_have_a_budget() {
    let (a, b) = pair(Transport::Tcp).await;
    let (knocks, held) = half_questions(&a, 6, 2, 7 << 20).await;
    assert!((1..=9).contains(&held), "{held} of 7 MiB each are held");
    asks(&b, &a).await;
    drop(knocks);
}

/// Passes on what dialers say, and never the answers: handshakes that stay half done, as those whose
/// sender forged its address.
async fn half_handshakes(node: &Node, count: usize) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let target = node.socket(Transport::Quic);
    for _handshake in 0..count {
        let ear = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let mouth = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let addr = ear.local_addr().expect("an address");
        tasks.spawn(async move {
            let mut packet = [0; 2_048];
            while let Ok((len, _from)) = ear.recv_from(&mut packet).await {
                drop(mouth.send_to(&packet[..len], target).await);
            }
        });
        tasks.spawn(async move {
            let keys = Keypair::generate_ed25519();
            drop(Knock::dial(&keys, addr, Transport::Quic).await);
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_handshakes_over_quic_do_not_shut_tcp() {
    let listen = [tcp("127.0.0.1:0"), quic("127.0.0.1:0")];
    let mut plan = Plan::new(1).listen(&listen);
    plan.limits.pending_incoming_max = 8;
    plan.limits.pending_strangers_max = 8;
    let a = plan.start().await;
    let forged = half_handshakes(&a, 24).await;
    let refused = |event: &MeshEvent| matches!(event, MeshEvent::PeerRefused { reason, .. } if reason.starts_with("too many"));
    eventually("QUIC is shut", || a.host.any_event(refused)).await;
    let b = Plan::new(2).secret(None).start().await;
    let joined = b
        .mesh
        .join(
            vec![a.anonymous(Transport::Tcp)],
            Some((Epoch(1), secret(1))),
        )
        .await;
    assert_eq!(joined.expect("joined").node, a.id());
    drop(forged);
}
