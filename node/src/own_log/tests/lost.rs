//! Entries that nobody, or not everybody, has any more.

use super::*;

#[test]
fn what_everybody_has_lost_ends_the_log_and_what_one_may_have_does_not() {
    run(async {
        let history = History::new(5, 20).await;
        let old = || {
            let old = folder();
            copy(history.old.path(), old.path());
            old
        };
        let peer = Peer::start(2, history.knowledge(false)).await;
        let mut node = Node::start(old(), Found::Whole, &[&peer]).await;
        let last = Some(history.head.checkpoint.clone());
        assert_eq!(node.anew().await, Anew::Next { last });
        drop(node);
        let silent = Knowledge {
            silent: true,
            ..Knowledge::default()
        };
        let other = Peer::start(3, silent).await;
        let mut node = Node::start(old(), Found::Whole, &[&peer, &other]).await;
        eventually("it waits for the other one", || {
            matches!(node.standing(), Signing::Behind { .. })
        })
        .await;
        node.waits().await;
        other.learn(history.knowledge(true));
        let (epoch, found) = (1, Found::Back);
        assert_eq!(node.anew().await, Anew::Follow { epoch, found });
    });
}

#[test]
fn what_is_left_of_a_log_that_ends_is_brought_back_first() {
    run(async {
        let whole = folder();
        let mut stages = Vec::new();
        for by in [5, 10, 10] {
            let (log, _) = open(whole.path(), false);
            grow(&log, by, "entry").await;
            log.close().expect("closed");
            let stage = folder();
            copy(whole.path(), stage.path());
            stages.push(stage);
        }
        let [old, part, last]: [TempDir; 3] = stages.try_into().expect("three");
        let lines = std::fs::read(Home::at(part.path()).audit_log()).expect("readable");
        let (log, opened) = open(part.path(), true);
        let note = opened.head.expect("a head").note;
        let knows_more = Knowledge {
            copy: Some((log, note)),
            ..Knowledge::default()
        };
        let (_log, opened) = open(last.path(), true);
        let head = opened.head.expect("a head");
        let knows_most = Knowledge {
            cosigned: vec![head.note],
            ..Knowledge::default()
        };
        let one = Peer::start(2, knows_most).await;
        let silent = Knowledge {
            silent: true,
            ..Knowledge::default()
        };
        let other = Peer::start(3, silent).await;
        let mut node = Node::start(old, Found::Whole, &[&one, &other]).await;
        eventually("it knows how long the log was", || {
            matches!(node.standing(), Signing::Behind { .. })
        })
        .await;
        other.learn(knows_more);
        let last = Some(head.checkpoint);
        assert_eq!(node.anew().await, Anew::Next { last });
        let now = std::fs::read(node.home.audit_log()).expect("readable");
        assert!(now.starts_with(&lines), "all that anybody has");
    });
}

#[test]
fn what_this_node_wrote_down_itself_is_known_where_no_peer_knows_it() {
    run(async {
        let history = History::new(5, 20).await;
        let old = folder();
        copy(history.old.path(), old.path());
        let cosigned = Home::at(old.path()).cosigned_head();
        files::replace(&cosigned, history.head.note.as_bytes()).expect("written");
        let peer = Peer::start(2, Knowledge::default()).await;
        let mut node = Node::start(old, Found::Whole, &[&peer]).await;
        let last = Some(history.head.checkpoint.clone());
        assert_eq!(node.anew().await, Anew::Next { last }, "nobody has it");
    });
}

#[test]
fn in_doubt_the_first_who_answers_is_not_everybody() {
    run(async {
        let history = History::new(5, 20).await;
        let newcomer = Peer::start(2, Knowledge::default()).await;
        let witness = Peer::start(3, history.knowledge(true)).await;
        let old = folder();
        copy(history.old.path(), old.path());
        let mut node = Node::start(old, Found::Moved, &[&newcomer]).await;
        eventually("the only peer that it knows has been asked", || {
            newcomer.fake.asked() > 0
        })
        .await;
        let joined = newcomer
            .mesh
            .join(vec![witness.addr()], Some(secret()))
            .await;
        joined.expect("joined");
        let (epoch, found) = (1, Found::Back);
        assert_eq!(node.anew().await, Anew::Follow { epoch, found });
        assert!(node.has_all_of(&history));
    });
}

#[test]
fn who_has_left_is_waited_for_where_silence_is_no_answer() {
    run(async {
        let history = History::new(5, 0).await;
        let peer = Peer::start(2, Knowledge::default()).await;
        let silent = Knowledge {
            silent: true,
            ..Knowledge::default()
        };
        let gone = Peer::start(3, silent).await;
        let old = folder();
        copy(history.old.path(), old.path());
        let found = (Found::Whole, true);
        let mut node = Node::start_as(old, found, (&[&peer, &gone], true)).await;
        let left = gone.mesh.node_id();
        gone._owner.shutdown(Duration::from_secs(1)).await;
        eventually("it has left", || {
            let view = node.mesh.view();
            let seen = view.node(&left);
            seen.is_some_and(|seen| seen.liveness == openfang_mesh::Liveness::Left)
        })
        .await;
        eventually(
            "it is waited for all the same",
            || matches!(node.standing(), Signing::Waiting { silent, .. } if silent == [left]),
        )
        .await;
        node.waits().await;
    });
}
