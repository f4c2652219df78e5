//! Calls over real sockets: pieces, ends, errors, limits, taking back.

mod common;

use std::num::NonZeroU32;
use std::time::Duration;

use common::{Node, Plan, collect, eventually, name, pair, request, tcp};
use futures::StreamExt as _;
use openfang_id::{AgentKey, NodeId, NodeSeed, Transport};
use openfang_mesh::{CallError, Limits};
use openfang_ofp::call::{CallId, Failure, REQUEST_BYTES_MAX};
use openfang_ofp::roster::Liveness;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_comes_in_pieces_and_in_order() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (a, b) = pair(transport).await;
        let reply = a.mesh.call(b.id(), request(1, "chunks:200")).await;
        let (chunks, ended) = collect(reply.expect("a reply")).await;
        let expected: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        assert_eq!(chunks, expected);
        assert_eq!(ended, Ok("done".to_owned()));

        let reply = b.mesh.call(a.id(), request(2, "hello")).await;
        let reply = reply.expect("a reply");
        let frames: Vec<_> = reply.collect().await;
        assert_eq!(frames.len(), 1);
        a.shutdown().await;
        b.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_at_once_each_get_their_own_answer() {
    let (a, b) = pair(Transport::Tcp).await;
    let calls = (0..500_u32).map(|n| {
        let (a, b) = (a.mesh.clone(), b.id());
        async move {
            let mut request = request(0, &format!("n{n}"));
            request.id.0[..4].copy_from_slice(&n.to_be_bytes());
            let reply = a.call(b, request).await?;
            let (_, ended) = collect(reply).await;
            assert_eq!(ended, Ok(format!("n{n}")));
            Ok::<_, CallError>(())
        }
    });
    let answered = futures::future::join_all(calls).await;
    assert!(answered.iter().all(Result::is_ok), "{answered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_tell_apart() {
    let (a, b) = pair(Transport::Tcp).await;
    let stranger = NodeSeed::from_bytes([99; 32]).keys().node_id();
    let unknown = a.mesh.call(stranger, request(1, "hello")).await;
    assert_eq!(
        unknown.err(),
        Some(CallError::UnknownNode { node: stranger })
    );
    let mut to_nobody = request(2, "hello");
    to_nobody.agent = AgentKey::Name(name("nobody"));
    let nobody = a.mesh.call(b.id(), to_nobody).await;
    let looked_for = "nobody".to_owned();
    assert_eq!(
        nobody.err(),
        Some(CallError::Failed(Failure::UnknownAgent { looked_for }))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_reply_takes_the_call_back() {
    let (a, b) = pair(Transport::Tcp).await;
    b.host.steps.add_permits(1);
    let reply = a.mesh.call(b.id(), request(1, "step:5")).await;
    let reply = reply.expect("the first piece is there");
    // The first piece is not there yet: the future of the call itself is dropped.
    let call = a.mesh.call(b.id(), request(2, "hang"));
    let dropped = tokio::time::timeout(Duration::from_millis(50), call).await;
    assert!(dropped.is_err());
    eventually("the host was told", || *b.host.cancelled.borrow() == 1).await;
    drop(reply);
    eventually("the run is gone", || b.host.steps.available_permits() == 0).await;
    let again = a.mesh.call(b.id(), request(3, "hello")).await;
    assert_eq!(
        collect(again.expect("a reply")).await.1,
        Ok("hello".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_a_call_on_both_sides() {
    let (a, b) = pair(Transport::Tcp).await;
    let mut late = request(1, "hang");
    late.deadline_ms = 200;
    let began = Instant::now();
    let ended = a.mesh.call(b.id(), late).await;
    assert_eq!(ended.err(), Some(CallError::TimedOut));
    assert!(began.elapsed() >= Duration::from_millis(200));
    eventually("the host was told", || *b.host.cancelled.borrow() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_calls_are_told_to_come_back() {
    let limits = Limits {
        calls_in_flight_per_peer: 2,
        ..Limits::default()
    };
    let mut plan = Plan::new(1).listen(&[tcp("127.0.0.1:0")]);
    plan.limits = limits;
    let a = plan.start().await;
    let mut plan = Plan::new(2)
        .listen(&[tcp("127.0.0.1:0")])
        .bootstrap(vec![a.anonymous(Transport::Tcp)]);
    plan.limits.calls_waiting_per_peer = 4;
    let b = plan.start().await;
    eventually("linked", || b.is_linked(a.id())).await;

    let mesh = b.mesh.clone();
    let node = a.id();
    let held = (0..2).map(|n| {
        let mesh = mesh.clone();
        async move { mesh.call(node, request(n, "hang")).await }
    });
    let mut held = Box::pin(futures::future::join_all(held));
    let refused = async {
        for n in 9.. {
            let third = mesh.call(node, request(n, "hang"));
            match tokio::time::timeout(Duration::from_millis(50), third).await {
                Ok(Err(CallError::Busy { retry_after })) => return retry_after,
                Ok(other) => panic!("{other:?}"),
                // The first two were not there yet.
                Err(_elapsed) => {}
            }
        }
        panic!("never busy");
    };
    let retry_after = tokio::select! {
        retry_after = refused => retry_after,
        ended = &mut held => panic!("{ended:?}"),
    };
    assert!(retry_after > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_calls_too_fast_is_told_to_come_back() {
    let mut plan = Plan::new(1).listen(&[tcp("127.0.0.1:0")]);
    plan.limits.calls_per_second_per_peer = NonZeroU32::new(5).expect("not zero");
    let a = plan.start().await;
    let b = Plan::new(2)
        .bootstrap(vec![a.anonymous(Transport::Tcp)])
        .start()
        .await;
    eventually("linked", || b.is_linked(a.id())).await;
    let mut ends = Vec::new();
    for n in 0..20 {
        ends.push(b.mesh.call(a.id(), request(n, "hello")).await);
    }
    assert!(ends.iter().filter(|end| end.is_ok()).count() >= 5);
    assert!(
        ends.iter()
            .any(|end| matches!(end, Err(CallError::Busy { .. })))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_a_mebibyte_and_a_long_text_is_cut_into_chunks() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (a, b) = pair(transport).await;
        let fits = "x".repeat(REQUEST_BYTES_MAX - 1024);
        let mut large = request(1, "");
        large.message = fits.clone();
        let reply = a.mesh.call(b.id(), large).await.expect("a reply");
        assert_eq!(collect(reply).await.1, Ok(fits));

        let mut larger = request(2, "");
        larger.message = "x".repeat(REQUEST_BYTES_MAX);
        let refused = a.mesh.call(b.id(), larger).await;
        let refused = refused.expect_err("too large");
        assert!(
            matches!(refused, CallError::TooLarge { max, .. } if max == REQUEST_BYTES_MAX),
            "{refused:?}"
        );

        let reply = a.mesh.call(b.id(), request(3, "big:300000")).await;
        let (chunks, ended) = collect(reply.expect("a reply")).await;
        assert!(chunks.len() >= 5, "{}", chunks.len());
        assert!(chunks.iter().all(|chunk| chunk.len() <= 64 * 1024));
        assert_eq!(chunks.concat().len(), 300_000);
        assert_eq!(ended, Ok("done".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_call_asked_twice_runs_once() {
    let (a, b) = pair(Transport::Tcp).await;
    let first = a.mesh.call(b.id(), request(1, "chunks:3")).await;
    // Kept open until the second is answered: the end of a call is what lets its answer be forgotten.
    let mut first = first.expect("a reply");
    let mut second = a
        .mesh
        .call(b.id(), request(1, "chunks:3"))
        .await
        .expect("a reply");
    for reply in [&mut first, &mut second] {
        let mut pieces = 0;
        while let Some(piece) = reply.next().await {
            piece.expect("a piece");
            pieces += 1;
        }
        assert_eq!(pieces, 4);
    }
    assert_eq!(b.host.runs_of(CallId([1; 16])), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_panics_leaves_nobody_waiting() {
    let (a, b) = pair(Transport::Tcp).await;
    let ended = a.mesh.call(b.id(), request(1, "panic")).await;
    assert_eq!(ended.err(), Some(CallError::Failed(Failure::Internal)));
    assert_eq!(b.host.runs_of(CallId([1; 16])), 1);
    let again = a.mesh.call(b.id(), request(2, "hello")).await;
    assert_eq!(
        collect(again.expect("a reply")).await.1,
        Ok("hello".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_calls_may_end_before_a_node_leaves() {
    let (a, b) = pair(Transport::Tcp).await;
    b.host.steps.add_permits(1);
    let mut reply = a
        .mesh
        .call(b.id(), request(1, "step:2"))
        .await
        .expect("a reply");
    assert!(matches!(reply.next().await, Some(Ok(_))));
    let host = b.host.clone();
    let id = b.id();
    let leaving = b.shutdown();
    let answered = async {
        refused_as_closing(&a, id).await;
        host.steps.add_permits(1);
        collect(reply).await
    };
    let (_, (chunks, ended)) = tokio::join!(leaving, answered);
    assert_eq!(
        (chunks, ended),
        (vec!["1".to_owned()], Ok("done".to_owned()))
    );
    eventually("it has left", || a.liveness(id) == Some(Liveness::Left)).await;
}

/// Calls until the node says that it takes no more.
async fn refused_as_closing(a: &Node, id: NodeId) {
    for n in 100.. {
        match a.mesh.call(id, request(n, "hello")).await {
            Ok(_answered) => {}
            Err(why) => {
                assert_eq!(why, CallError::Failed(Failure::ShuttingDown));
                return;
            }
        }
    }
}
