//! What an entry must be before what it is about is done.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use futures::poll;
use openfang_audit::collect::{Collector, Cosigned, Witnessing};
use openfang_audit::inquiry::Signing;
use openfang_audit::policy::Strength;
use openfang_audit::{Event, Flush, Hash, Kind, Origin, Seq, SignedHead};
use openfang_id::NodeSeed;
use openfang_kernel::{AuditError, Auditor, Demands, Durability};
use tokio::sync::watch;

use crate::support::Recorder;

/// How it stands with `n` witnesses, of which `k` have to cosign and have cosigned `size` entries.
fn witnessing(k: usize, n: usize, size: Option<u64>) -> Witnessing {
    let keys = NodeSeed::from_bytes([3; 32]).keys();
    let quorum = size.map(|size| {
        let checkpoint = openfang_audit::Checkpoint {
            origin: Origin::of(&keys.node_id(), 1),
            size,
            root: Hash::from_bytes([7; 32]),
        };
        Cosigned {
            size,
            note: SignedHead::sign(checkpoint, &keys.log)
                .note
                .parse()
                .expect("a note"),
            by: BTreeMap::new(),
        }
    });
    Witnessing {
        needed: k,
        strength: Strength::of(k, n),
        quorum,
        ..Collector::new().status()
    }
}

fn auditor(
    (ordinary, changes): (Durability, Durability),
    now: Witnessing,
) -> (Recorder, Auditor, watch::Sender<Witnessing>) {
    let log = Recorder::new();
    let (sender, witnessing) = watch::channel(now);
    let demands = Demands {
        ordinary,
        changes,
        witnessing,
        signing: watch::channel(Signing::Free).1,
    };
    let auditor = Auditor::with(log.clone(), demands);
    (log, auditor, sender)
}

const USUAL: (Durability, Durability) = (Durability::Durable, Durability::Quorum);

fn change() -> Event {
    Event::config_change("network.shared_secret")
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_its_quorum() {
    let (log, auditor, witnesses) = auditor(USUAL, witnessing(3, 4, None));
    auditor
        .record(Event::cap_denied(&agent(), "shell"))
        .await
        .expect("on the disk");
    let mut recording = pin!(auditor.record(change()));
    assert!(poll!(&mut recording).is_pending());
    // Entry 1 is in a log of two entries.
    witnesses.send_replace(witnessing(3, 4, Some(1)));
    assert!(poll!(&mut recording).is_pending());
    witnesses.send_replace(witnessing(3, 4, Some(2)));
    assert_eq!(recording.await, Ok(Some(Seq(1))));
    assert_eq!(log.kinds(), [Kind::CapDenied, Kind::ConfigChange]);
}

#[tokio::test(start_paused = true)]
async fn a_change_without_its_quorum_is_refused_and_the_log_says_so() {
    let (log, auditor, _witnesses) = auditor(USUAL, witnessing(3, 4, Some(0)));
    let refused = auditor.record(change()).await;
    let expected = AuditError::NotCosigned {
        seq: Seq(0),
        needed: 3,
        witnesses: 0,
    };
    assert_eq!(refused, Err(expected));
    assert_eq!(log.kinds(), [Kind::ConfigChange, Kind::ConfigChange]);
    let texts = log.text(Kind::ConfigChange);
    assert!(texts[0].contains("outcome: \"ok\""), "{texts:?}");
    for part in ["outcome: \"denied: not cosigned\"", "audit/1#0"] {
        assert!(texts[1].contains(part), "{texts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn witnesses_are_not_to_blame_for_a_head_that_was_not_signed() {
    let (log, auditor, _witnesses) = auditor(USUAL, witnessing(3, 4, Some(0)));
    let kind = std::io::ErrorKind::StorageFull;
    log.sign_nothing(kind);
    let refused = auditor.record(change()).await;
    let expected = AuditError::NotSigned {
        seq: Seq(0),
        kind: Some(kind),
    };
    assert_eq!(refused, Err(expected));
    let said = expected.to_string();
    assert!(said.contains("no storage space"), "{said}");
    let texts = log.text(Kind::ConfigChange);
    assert!(
        texts[1].contains("outcome: \"denied: not signed\""),
        "{texts:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_waits_for_any_more_is_not_left_announced() {
    let (log, auditor, _witnesses) = auditor(USUAL, witnessing(3, 4, None));
    let left = tokio::time::timeout(Duration::from_secs(1), auditor.record(change())).await;
    assert!(left.is_err(), "the caller went away");
    let texts = log.text(Kind::ConfigChange);
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[1].contains("failed: interrupted"), "{texts:?}");
}

#[tokio::test]
async fn a_change_that_is_left_before_its_entry_is_answered_is_told_not_to_be_made() {
    for polled_again in [false, true] {
        let (log, auditor, _witnesses) = auditor(USUAL, witnessing(0, 0, None));
        log.keep_waiting();
        let mut announcing = Box::pin(auditor.announce(change()));
        assert!(poll!(&mut announcing).is_pending());
        if polled_again {
            // Answered, and nobody has looked at the answer.
            log.answer();
            drop(announcing);
        } else {
            drop(announcing);
            log.answer();
        }
        let texts = log.text(Kind::ConfigChange);
        assert_eq!(texts.len(), 2, "{texts:?}");
        for part in ["failed: interrupted", "audit/1#0"] {
            assert!(texts[1].contains(part), "{texts:?}");
        }
    }
}

#[tokio::test]
async fn a_change_is_told_once_when_it_was_made_and_twice_when_it_failed() {
    let (log, auditor, _witnesses) = auditor(USUAL, witnessing(0, 0, None));
    let announced = auditor.announce(change()).await.expect("logged");
    assert_eq!(announced.seq(), Some(Seq(0)));
    assert_eq!(announced.done(), Some(Seq(0)));
    assert_eq!(log.kinds().len(), 1);
    let announced = auditor.announce(change()).await.expect("logged");
    announced.failed("the disk is gone");
    let texts = log.text(Kind::ConfigChange);
    assert!(texts[2].contains("failed: the disk is gone"), "{texts:?}");
    assert!(texts[2].contains("audit/1#1"), "{texts:?}");
    let nowhere = Auditor::disabled().announce(change()).await;
    assert_eq!(nowhere.expect("allowed").done(), None);
}

/// Who says how it stands with the witnesses, and with signing.
type Around = (watch::Sender<Witnessing>, watch::Sender<Signing>);

/// Four witnesses, none of which answers, and a log that is signed or not.
fn in_doubt(now: Signing) -> (Recorder, Auditor, Around) {
    let log = Recorder::new();
    let (sender, signing) = watch::channel(now);
    let (witnesses, witnessing) = watch::channel(witnessing(3, 4, None));
    let demands = Demands {
        ordinary: Durability::Durable,
        changes: Durability::Quorum,
        witnessing,
        signing,
    };
    let auditor = Auditor::with(log.clone(), demands);
    (log, auditor, (witnesses, sender))
}

const ASKING: Signing = Signing::Asking {
    answered: 0,
    needed: 1,
};

#[tokio::test(start_paused = true)]
async fn nothing_is_changed_while_the_log_is_in_doubt_and_the_rest_goes_on() {
    for (now, why) in [
        (ASKING, AuditError::InDoubt),
        (
            Signing::Behind {
                size: 9,
                silent: Vec::new(),
            },
            AuditError::InDoubt,
        ),
        (
            Signing::Restoring { done: 1, total: 9 },
            AuditError::InDoubt,
        ),
        (Signing::Contradicted { size: 9 }, AuditError::Contradicted),
    ] {
        let (log, auditor, _around) = in_doubt(now);
        assert_eq!(auditor.announce(change()).await.map(drop), Err(why));
        assert!(log.kinds().is_empty(), "nor is it announced");
        auditor
            .record(Event::cap_denied(&agent(), "shell"))
            .await
            .expect("what is no change is logged");
        auditor.note(Event::auth_failed("api", "192.0.2.7", "no key"));
        let found = auditor.announce_in_doubt(change()).await;
        let seq = found.expect("what ends the doubt waits for nobody").done();
        assert_eq!(seq, Some(Seq(2)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_a_moment_for_the_log_to_be_signed() {
    let (log, auditor, (_witnesses, signing)) = in_doubt(ASKING);
    let mut announcing = pin!(auditor.announce(change()));
    assert!(poll!(&mut announcing).is_pending());
    assert!(log.kinds().is_empty());
    signing.send_replace(Signing::Free);
    // Now it waits for its witnesses, until they leave it alone.
    assert!(poll!(&mut announcing).is_pending());
    assert_eq!(log.kinds().len(), 1);
    // The log comes into doubt meanwhile: nobody will cosign the entry, and it may have to go.
    signing.send_replace(ASKING);
    assert!(announcing.await.is_err());
    let texts = log.text(Kind::ConfigChange);
    assert!(texts[1].contains("denied: not cosigned"), "{texts:?}");
}

#[tokio::test]
async fn a_change_whose_log_comes_into_doubt_before_it_is_made_is_taken_back() {
    let log = Recorder::new();
    let (sender, signing) = watch::channel(Signing::Free);
    let demands = Demands {
        ordinary: Durability::Durable,
        changes: Durability::Durable,
        witnessing: watch::channel(witnessing(0, 0, None)).1,
        signing,
    };
    let auditor = Auditor::with(log.clone(), demands);
    log.keep_waiting();
    let mut announcing = pin!(auditor.announce(change()));
    assert!(poll!(&mut announcing).is_pending());
    sender.send_replace(ASKING);
    log.answer();
    let refused = announcing.await.map(drop);
    assert_eq!(refused, Err(AuditError::InDoubt));
    let texts = log.text(Kind::ConfigChange);
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(
        texts[1].contains("denied: the log is in doubt"),
        "{texts:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn too_few_witnesses_delay_a_change_and_cannot_prevent_it() {
    for (k, n) in [(1, 1), (3, 3)] {
        let (log, auditor, _witnesses) = auditor(USUAL, witnessing(k, n, None));
        assert_eq!(auditor.record(change()).await, Ok(Some(Seq(0))));
        assert_eq!(log.kinds(), [Kind::ConfigChange], "{k} of {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_witnesses_nobody_is_waited_for() {
    let began = tokio::time::Instant::now();
    let (_log, auditor, _witnesses) = auditor(USUAL, witnessing(0, 0, None));
    assert_eq!(auditor.record(change()).await, Ok(Some(Seq(0))));
    assert_eq!(tokio::time::Instant::now(), began);
}

#[tokio::test(start_paused = true)]
async fn witnesses_that_leave_are_not_waited_for() {
    let (_log, auditor, witnesses) = auditor(USUAL, witnessing(3, 4, None));
    let mut recording = pin!(auditor.record(change()));
    assert!(poll!(&mut recording).is_pending());
    witnesses.send_replace(witnessing(0, 0, None));
    assert_eq!(recording.await, Ok(Some(Seq(0))));
}

#[tokio::test]
async fn what_may_wait_for_the_disk_is_told_so_and_the_rest_is_not() {
    let time = Duration::from_millis(100);
    let modes = (Durability::Interval(time), Durability::Durable);
    let (log, auditor, _witnesses) = auditor(modes, witnessing(3, 4, None));
    auditor
        .record(Event::cap_denied(&agent(), "shell"))
        .await
        .expect("taken");
    auditor.note(Event::rate_limit("api", "127.0.0.1"));
    auditor.record(change()).await.expect("on the disk");
    auditor
        .record(Event::node_stop("SIGTERM"))
        .await
        .expect("on the disk");
    let (later, now) = (Flush::Within(time), Flush::AtOnce);
    assert_eq!(log.flushes(), [later, later, now, now]);
}

#[tokio::test(start_paused = true)]
async fn with_quorum_for_all_only_the_start_and_the_end_of_the_node_go_without() {
    let modes = (Durability::Quorum, Durability::Quorum);
    let (_log, auditor, _witnesses) = auditor(modes, witnessing(3, 4, None));
    let refused = auditor.record(Event::cap_denied(&agent(), "shell")).await;
    assert!(
        matches!(refused, Err(AuditError::NotCosigned { .. })),
        "{refused:?}"
    );
    assert_eq!(
        auditor.record(Event::node_stop("SIGTERM")).await,
        Ok(Some(Seq(2)))
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_witnesses_does_not_wait_for_the_next_head_as_well() {
    let modes = (Durability::Quorum, Durability::Quorum);
    let (log, auditor, _witnesses) = auditor(modes, witnessing(0, 0, None));
    auditor
        .record(Event::cap_denied(&agent(), "shell"))
        .await
        .expect("nobody witnesses");
    auditor.note(Event::rate_limit("api", "127.0.0.1"));
    auditor
        .record(Event::node_stop("SIGTERM"))
        .await
        .expect("on the disk");
    assert_eq!(
        log.flushes(),
        [Flush::Signed, Flush::AtOnce, Flush::AtOnce],
        "the others are signed with what comes"
    );
}

fn agent() -> openfang_id::AgentId {
    openfang_id::AgentId::from_bytes([5; 16])
}
