//! Knocking without the secret: what an attacker with a libp2p stack of his own gets to see.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::knock::{Knock, framed};
use common::{Node, Plan, eventually, secret, tcp};
use openfang_id::Transport;
use openfang_mesh::{AddrFailure, JoinError, MeshEvent};
use openfang_ofp::gate::{self, Epoch, Refusal, Secrets};

/// Waits until the node has noted a failed authentication of this kind, and nothing else came of it.
async fn noted(node: &Node, wanted: Refusal) {
    eventually(&format!("{wanted:?} is noted"), || {
        node.host.any_event(
            |event| matches!(event, MeshEvent::AuthFailed { reason, .. } if *reason == wanted),
        )
    })
    .await;
    assert!(
        !node
            .host
            .any_event(|event| matches!(event, MeshEvent::PeerConnected { .. }))
    );
    assert_eq!(node.mesh.view().nodes.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_never_connects_and_both_sides_know_why() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Plan::new(1).start().await;
        let b = Plan::new(2).secret(Some(secret(2))).start().await;
        let joined = b.mesh.join(vec![a.anonymous(transport)], None).await;
        let Err(JoinError::Failed { tried }) = joined else {
            panic!("joined: {joined:?}");
        };
        assert_eq!(tried[0].why, AddrFailure::WrongSecret);
        let (a_id, b_id) = (a.id(), b.id());
        eventually("the dialled one knows", || {
            a.host.any_event(|event| {
                matches!(event, MeshEvent::AuthFailed { node, reason: Refusal::WrongSecret, .. } if *node == b_id)
            })
        })
        .await;
        eventually("the dialler knows", || {
            b.host.any_event(|event| {
                matches!(event, MeshEvent::AuthFailed { node, reason: Refusal::ProofRejected, .. } if *node == a_id)
            })
        })
        .await;
        for node in [&a, &b] {
            assert!(
                !node
                    .host
                    .any_event(|event| matches!(event, MeshEvent::PeerConnected { .. }))
            );
            assert_eq!(node.mesh.view().nodes.len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_protocol_is_reached_past_the_gate() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Plan::new(1).start().await;
        let mut knock = Knock::at(&a, transport).await;
        let mut first = knock.open().await;
        let select = b"\x13/multistream/1.0.0\n\x0c/ofp/call/1\n";
        knock.say(&mut first, select).await;
        let heard = knock.hear_all(&mut first).await;
        assert!(!heard.windows(4).any(|at| at == b"/ofp"), "{heard:?}");
        // The first two bytes are a length of more than any frame has.
        noted(&a, Refusal::Oversize(0x132f)).await;

        // Beside a handshake that hangs, other substreams are not answered either.
        let mut knock = Knock::at(&a, transport).await;
        let mut first = knock.open().await;
        knock.say(&mut first, &[0]).await;
        let mut second = knock.open().await;
        knock.say(&mut second, select).await;
        let heard = knock.hear_all(&mut second).await;
        assert!(heard.is_empty(), "{heard:?}");
        noted(&a, Refusal::Timeout).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_looks_the_same_from_outside() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Plan::new(1).start().await;
        let mut seen = BTreeSet::new();

        let mut knock = Knock::at(&a, transport).await;
        let mut stream = knock.open().await;
        knock
            .say(&mut stream, &framed(b"garbage that is no frame"))
            .await;
        seen.insert(knock.hear_all(&mut stream).await);
        noted(&a, Refusal::Malformed).await;

        let mut knock = Knock::at(&a, transport).await;
        let mut stream = knock.open().await;
        knock.say(&mut stream, &framed(&[1; 513])).await;
        seen.insert(knock.hear_all(&mut stream).await);
        noted(&a, Refusal::Oversize(513)).await;

        let wrong = Secrets::new(Epoch(1), &secret(7));
        let mut knock = Knock::at(&a, transport).await;
        let mut stream = knock.open().await;
        let last = knock.shake(&mut stream, &wrong).await;
        seen.insert(framed(&last));
        noted(&a, Refusal::WrongSecret).await;

        let other_epoch = Secrets::new(Epoch(9), &secret(1));
        let mut knock = Knock::at(&a, transport).await;
        let mut stream = knock.open().await;
        let last = knock.shake(&mut stream, &other_epoch).await;
        seen.insert(framed(&last));
        noted(&a, Refusal::Epoch).await;

        assert_eq!(seen.len(), 1, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_ended_at_the_deadline() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let a = Plan::new(1).start().await;
        let began = tokio::time::Instant::now();
        let mut knock = Knock::at(&a, transport).await;
        let mut stream = knock.open().await;
        // One byte, so that the substream is seen at all.
        knock.say(&mut stream, &[0]).await;
        drop(knock.hear_all(&mut stream).await);
        assert!(began.elapsed() >= gate::DEADLINE);
        noted(&a, Refusal::Timeout).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_hold_their_places_do_not_keep_members_out() {
    let a = Plan::new(1).listen(&[tcp("127.0.0.1:0")]).start().await;
    let mut held = Vec::new();
    for _stranger in 0..24 {
        held.push(Knock::at(&a, Transport::Tcp).await);
    }
    let b = Plan::new(2).secret(None).start().await;
    let joined = b
        .mesh
        .join(
            vec![a.anonymous(Transport::Tcp)],
            Some((Epoch(1), secret(1))),
        )
        .await;
    assert_eq!(joined.expect("joined").node, a.id());
    drop(held);
    let waited = tokio::time::timeout(Duration::from_secs(30), a.shutdown()).await;
    assert!(waited.is_ok());
}
