//! Questions about audit logs and their answers, over real sockets.

mod common;

use std::time::Duration;

use common::{Plan, eventually, lock, pair};
use openfang_id::{NodeId, NodeSeed, Transport};
use openfang_mesh::{Answer, AskError, Question, Verb};
use openfang_ofp::exchange::QUESTION_BODY_MAX;
use tokio::time::Instant;

fn question(path: &str, body: Vec<u8>) -> Question {
    Question {
        verb: if body.is_empty() {
            Verb::Get
        } else {
            Verb::Post
        },
        path: path.to_owned(),
        body,
    }
}

async fn ask(from: &common::Node, to: NodeId, asked: Question) -> Result<Answer, AskError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    from.mesh.ask(to, asked, deadline).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_answered_and_the_asker_is_known() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (a, b) = pair(transport).await;
        for (from, to) in [(&a, &b), (&b, &a)] {
            let answer = ask(from, to.id(), question("/checkpoint", Vec::new())).await;
            let answer = answer.expect("answered");
            assert_eq!(
                (answer.status, answer.content_type.as_str()),
                (200, "text/plain")
            );
            let expected = format!("{} Get /checkpoint ", from.id().fmt_short());
            assert_eq!(String::from_utf8(answer.body).expect("text"), expected);
        }
        let large = vec![7; QUESTION_BODY_MAX];
        let answer = ask(&a, b.id(), question("/add", large.clone()))
            .await
            .expect("answered");
        assert!(
            answer.body.ends_with(&large),
            "a long body arrives whole, and comes back"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_asked_says_why() {
    let (a, b) = pair(Transport::Tcp).await;
    let too_long = question("/add", vec![0; QUESTION_BODY_MAX + 1]);
    let refused = ask(&a, b.id(), too_long).await;
    assert!(
        matches!(refused, Err(AskError::TooLarge { .. })),
        "{refused:?}"
    );
    let stranger = NodeSeed::from_bytes([99; 32]).keys().node_id();
    let unknown = ask(&a, stranger, question("/", Vec::new())).await;
    assert!(matches!(unknown, Err(AskError::Unreachable { node, .. }) if node == stranger));
    let gone = b.id();
    drop(b.kill());
    eventually("it is named dead", || {
        a.liveness(gone) == Some(openfang_ofp::roster::Liveness::Dead)
    })
    .await;
    let unreachable = ask(&a, gone, question("/", Vec::new())).await;
    assert!(matches!(unreachable, Err(AskError::Unreachable { node, .. }) if node == gone));
    let asleep = Plan::new(5).secret(None).start().await;
    let unreachable = ask(&asleep, gone, question("/", Vec::new())).await;
    assert!(
        matches!(unreachable, Err(AskError::Unreachable { .. })),
        "{unreachable:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_asks_too_much_at_once_is_told_so_and_others_are_served() {
    let (a, b) = pair(Transport::Tcp).await;
    let c = Plan::new(3)
        .bootstrap(vec![b.anonymous(Transport::Tcp)])
        .start()
        .await;
    eventually("c is linked", || c.is_linked(b.id())).await;
    b.host.answers.forget_permits(1_000);
    let mut held = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (mesh, id) = (a.mesh.clone(), b.id());
        let asked = question(&format!("/held/{number}"), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(60);
        held.spawn(async move { mesh.ask(id, asked, deadline).await });
    }
    eventually("four are being answered", || {
        lock(&b.host.questions).len() == 4
    })
    .await;
    let fifth = ask(&a, b.id(), question("/fifth", Vec::new()))
        .await
        .expect("answered");
    assert_eq!(fifth.status, 429);
    let deadline = Instant::now() + Duration::from_millis(50);
    let late = c
        .mesh
        .ask(b.id(), question("/c", Vec::new()), deadline)
        .await;
    assert!(matches!(late, Err(AskError::TimedOut)), "{late:?}");
    b.host.answers.add_permits(1_000);
    for asked in held.join_all().await {
        let answer = asked.expect("answered");
        assert_eq!(answer.status, 200);
    }
    let other = ask(&c, b.id(), question("/c", Vec::new()))
        .await
        .expect("answered");
    assert_eq!(other.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_ends_the_question() {
    let (a, b) = pair(Transport::Tcp).await;
    b.host.answers.forget_permits(1_000);
    let (mesh, id) = (a.mesh.clone(), b.id());
    let deadline = Instant::now() + Duration::from_secs(60);
    let asked = question("/held", Vec::new());
    let mut held = tokio::task::JoinSet::new();
    held.spawn(async move { mesh.ask(id, asked, deadline).await });
    eventually("it is being answered", || {
        lock(&b.host.questions).len() == 1
    })
    .await;
    drop(b.kill());
    let lost = held.join_next().await.expect("one").expect("not cancelled");
    assert!(
        matches!(lost, Err(AskError::Lost { node, .. }) if node == id),
        "{lost:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_question_that_is_too_much_is_answered_so_before_its_end() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let (a, b) = pair(transport).await;
        b.host.answers.forget_permits(1_000);
        let mut held = tokio::task::JoinSet::new();
        for number in 0..2 {
            let (mesh, id) = (a.mesh.clone(), b.id());
            let asked = question(&format!("/held/{number}"), vec![7; QUESTION_BODY_MAX]);
            let deadline = Instant::now() + Duration::from_secs(60);
            held.spawn(async move { mesh.ask(id, asked, deadline).await });
        }
        eventually("two are being answered", || {
            lock(&b.host.questions).len() == 2
        })
        .await;
        let third = ask(&a, b.id(), question("/third", vec![7; QUESTION_BODY_MAX])).await;
        assert_eq!(third.expect("answered").status, 429);
        b.host.answers.add_permits(1_000);
        for asked in held.join_all().await {
            assert_eq!(asked.expect("answered").status, 200);
        }
    }
}
