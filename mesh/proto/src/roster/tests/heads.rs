//! Audit heads between nodes: proved, convicted, reported.

use std::time::Duration;

use openfang_audit::proof::build_consistency;
use openfang_audit::tree::{leaf_hash, root_of};
use openfang_audit::{Checkpoint, Hash, Origin, SignedHead};

use super::{Bus, keys, record, sign, told};
use crate::heads::{Alarm, CannotProve, Evidence, HeadView, Why};
use crate::roster::{Event, In, Key, Known, wire};

/// How long until a node with a single neighbour takes its word.
const LONE: Duration = Duration::from_secs(8);

/// The leaves of a log, `fork` of which differ from everyone else's.
fn leaves(size: u64, fork: u64) -> Vec<Hash> {
    (0..size)
        .map(|at| {
            let forked = fork > 0 && at >= fork;
            leaf_hash(format!("{at} {forked}").as_bytes())
        })
        .collect()
}

fn head(of: u8, leaves: &[Hash]) -> SignedHead {
    let keys = keys(of);
    let checkpoint = Checkpoint {
        origin: Origin::of(&keys.node_id(), 1),
        size: u64::try_from(leaves.len()).expect("few leaves"),
        root: root_of(leaves),
    };
    SignedHead::sign(checkpoint, &keys.log)
}

/// Lets a node answer from a log.
fn answer_from(bus: &mut Bus, at: usize, log: Vec<Hash>) {
    let answer = move |from: u64, to: u64| {
        let have = u64::try_from(log.len()).expect("few leaves");
        if to > have {
            return Err(CannotProve::Behind { have });
        }
        build_consistency(log.as_slice(), from, to).map_err(|_range| CannotProve::Range)
    };
    bus.answers.insert(at, Box::new(answer));
}

/// Node 0 watches the log of node 1; node 2 watches too.
fn watched() -> Bus {
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    bus.connect(1, 2);
    bus.connect(2, 0);
    bus.pass(Duration::from_secs(1));
    bus
}

fn announce(bus: &mut Bus, log: &[Hash]) {
    bus.tell(1, In::SetHead(head(1, log)));
    bus.pass(Duration::from_secs(1));
}

fn view(bus: &Bus, at: usize) -> HeadView {
    let view = bus.states[at].view();
    view.node(&bus.id(1)).expect("node 1").head.clone()
}

fn verdict(bus: &Bus, at: usize) -> Option<Why> {
    match view(bus, at) {
        HeadView::Inconsistent { why, .. } => Some(why),
        HeadView::None
        | HeadView::Unproven { .. }
        | HeadView::Consistent { .. }
        | HeadView::Reported { .. } => None,
    }
}

#[test]
fn a_hidden_head_is_shown_to_nobody_new() {
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    let log = leaves(5, 0);
    answer_from(&mut bus, 1, log.clone());
    announce(&mut bus, &log);
    assert!(matches!(view(&bus, 0), HeadView::Consistent { .. }));
    bus.tell(1, In::HideHead);
    bus.connect(1, 2);
    bus.pass(Duration::from_secs(5));
    assert_eq!(view(&bus, 2), HeadView::None);
    announce(&mut bus, &log);
    assert!(matches!(view(&bus, 2), HeadView::Consistent { .. }));
}

#[test]
fn a_log_that_grows_is_proved_at_every_step() {
    let mut bus = watched();
    for size in [0, 1, 5, 6, 64, 100] {
        let log = leaves(size, 0);
        answer_from(&mut bus, 1, log.clone());
        announce(&mut bus, &log);
        for at in [0, 2] {
            let expected = HeadView::Consistent {
                size,
                root: root_of(&log),
            };
            assert_eq!(view(&bus, at), expected, "size {size}");
        }
    }
    let asked = bus.questions.iter().map(|(_, _, from, to)| (*from, *to));
    let asked: Vec<_> = asked.collect();
    for step in [(1, 5), (5, 6), (6, 64), (64, 100)] {
        assert!(asked.contains(&step), "{step:?} in {asked:?}");
    }
}

#[test]
fn two_roots_for_one_size_convict_a_log_for_good_and_everyone_can_check_it() {
    let mut bus = watched();
    announce(&mut bus, &leaves(10, 0));
    announce(&mut bus, &leaves(10, 5));
    assert_eq!(verdict(&bus, 0), Some(Why::TwoRoots));
    let told = bus.take_events(0);
    let mut evidence = None;
    for event in told {
        if let Event::Inconsistent { evidence: held, .. } = event {
            evidence = Some(held);
        }
    }
    let evidence = evidence.expect("evidence");
    let roots = [evidence.accepted, evidence.offending].map(|head| {
        let head = head.expect("both notes");
        let key = keys(1).log.verifying_key();
        let origin = Origin::of(&bus.id(1), 1);
        let opened = SignedHead::open(&head.note, &origin, &key).expect("signed by the log");
        (opened.checkpoint.size, opened.checkpoint.root)
    });
    assert_eq!(roots[0].0, roots[1].0);
    assert_ne!(roots[0].1, roots[1].1);
    // Later heads, however good, are not accepted any more.
    answer_from(&mut bus, 1, leaves(20, 0));
    announce(&mut bus, &leaves(20, 0));
    assert_eq!(verdict(&bus, 0), Some(Why::TwoRoots));
    assert!(
        !bus.take_events(0)
            .iter()
            .any(|event| matches!(event, Event::HeadAccepted { .. }))
    );
}

#[test]
fn a_log_that_cannot_prove_that_it_grew_is_convicted_by_its_own_answer() {
    let check = |answer: Result<Vec<Hash>, CannotProve>, why: Option<Why>| {
        let mut bus = watched();
        announce(&mut bus, &leaves(10, 0));
        let given = answer.clone();
        bus.answers
            .insert(1, Box::new(move |_from, _to| given.clone()));
        announce(&mut bus, &leaves(20, 0));
        assert_eq!(verdict(&bus, 0), why, "{answer:?}");
    };
    check(
        Err(CannotProve::Behind { have: 3 }),
        Some(Why::Behind { have: 3 }),
    );
    check(
        Err(CannotProve::Damaged { first_bad: 4 }),
        Some(Why::Damaged { first_bad: 4 }),
    );
    check(Err(CannotProve::Range), Some(Why::NoProof));
    check(Ok(Vec::new()), Some(Why::WrongProof));
    check(
        Ok(vec![Hash::from_bytes([1; 32]); 5]),
        Some(Why::WrongProof),
    );
    check(Err(CannotProve::Later), None);
}

#[test]
fn a_fork_is_convicted_although_its_sizes_differ() {
    let mut bus = watched();
    announce(&mut bus, &leaves(10, 0));
    answer_from(&mut bus, 1, leaves(20, 5));
    announce(&mut bus, &leaves(20, 5));
    assert_eq!(verdict(&bus, 0), Some(Why::WrongProof));
}

#[test]
fn a_log_that_comes_back_shorter_is_convicted() {
    let mut bus = watched();
    answer_from(&mut bus, 1, leaves(20, 0));
    announce(&mut bus, &leaves(20, 0));
    let known = bus.states[1].known();
    bus.restart(1, 2, known);
    answer_from(&mut bus, 1, leaves(10, 0));
    bus.connect(1, 0);
    announce(&mut bus, &leaves(10, 0));
    assert_eq!(verdict(&bus, 0), Some(Why::Behind { have: 10 }));
}

fn is_consistent(bus: &Bus, at: usize, of: u64) -> bool {
    matches!(view(bus, at), HeadView::Consistent { size, .. } if size == of)
}

/// Node 1 is damaged when it is asked about 20 entries, and nodes 0 and 2 have seen it.
fn damaged() -> Bus {
    let mut bus = watched();
    announce(&mut bus, &leaves(10, 0));
    bus.answers.insert(
        1,
        Box::new(|_from, _to| Err(CannotProve::Damaged { first_bad: 4 })),
    );
    announce(&mut bus, &leaves(20, 0));
    for at in [0, 2] {
        assert_eq!(verdict(&bus, at), Some(Why::Damaged { first_bad: 4 }));
    }
    bus
}

#[test]
fn a_log_that_proves_all_that_was_seen_of_it_is_consistent_again() {
    let mut bus = damaged();
    bus.take_events(0);
    // As long as it is damaged nothing changes, however often it is asked.
    announce(&mut bus, &leaves(22, 0));
    assert_eq!(verdict(&bus, 0), Some(Why::Damaged { first_bad: 4 }));
    let told = bus.take_events(0);
    assert!(told.is_empty(), "one verdict, one event: {told:?}");
    answer_from(&mut bus, 1, leaves(25, 0));
    announce(&mut bus, &leaves(25, 0));
    bus.pass(Duration::from_secs(5));
    for at in [0, 2] {
        assert!(is_consistent(&bus, at, 25), "{:?}", view(&bus, at));
    }
    let told = bus.take_events(0);
    let mended = |event: &&Event| matches!(event, Event::Mended { .. });
    assert_eq!(told.iter().filter(mended).count(), 1, "{told:?}");
    // The alarms are still there, and say nothing any more; also after a restart, when it has grown.
    let bytes = bus.states[0].known().encode();
    let known = Known::decode(&bytes, &bus.crypto(0)).expect("what was written");
    bus.restart(0, 2, known);
    bus.connect(0, 1);
    answer_from(&mut bus, 1, leaves(30, 0));
    announce(&mut bus, &leaves(30, 0));
    bus.pass(Duration::from_secs(5));
    assert!(is_consistent(&bus, 0, 30), "{:?}", view(&bus, 0));
    // What happens again is found again.
    answer_from(&mut bus, 1, leaves(5, 0));
    announce(&mut bus, &leaves(40, 0));
    assert_eq!(verdict(&bus, 0), Some(Why::Behind { have: 5 }));
}

#[test]
fn a_log_that_proves_its_growth_and_not_the_head_that_was_seen_stays_inconsistent() {
    let mut bus = damaged();
    // The head of 20 entries is none of what it grows by now.
    answer_from(&mut bus, 1, leaves(25, 15));
    announce(&mut bus, &leaves(25, 15));
    bus.pass(Duration::from_secs(5));
    for at in [0, 2] {
        assert_eq!(verdict(&bus, at), Some(Why::Damaged { first_bad: 4 }));
    }
    answer_from(&mut bus, 1, leaves(30, 15));
    announce(&mut bus, &leaves(30, 15));
    bus.pass(Duration::from_secs(5));
    assert_eq!(verdict(&bus, 0), Some(Why::Damaged { first_bad: 4 }));
    // And two roots of one size are for good, whatever was held against it before.
    announce(&mut bus, &leaves(30, 0));
    assert_eq!(verdict(&bus, 0), Some(Why::TwoRoots));
    answer_from(&mut bus, 1, leaves(35, 15));
    announce(&mut bus, &leaves(35, 15));
    bus.pass(Duration::from_secs(5));
    assert_eq!(verdict(&bus, 0), Some(Why::TwoRoots));
}

#[test]
fn no_head_that_failed_while_a_log_was_inconsistent_is_forgotten() {
    let mut bus = damaged();
    // Another history is shown while the first verdict stands, and not proved either.
    announce(&mut bus, &leaves(30, 15));
    answer_from(&mut bus, 1, leaves(40, 0));
    announce(&mut bus, &leaves(40, 0));
    bus.pass(Duration::from_secs(5));
    announce(&mut bus, &leaves(40, 0));
    bus.pass(Duration::from_secs(5));
    assert_eq!(verdict(&bus, 0), Some(Why::Damaged { first_bad: 4 }));
    // Nor after a restart of who has seen it.
    let bytes = bus.states[0].known().encode();
    let known = Known::decode(&bytes, &bus.crypto(0)).expect("what was written");
    bus.restart(0, 2, known);
    bus.connect(0, 1);
    for size in [50, 60] {
        answer_from(&mut bus, 1, leaves(size, 0));
        announce(&mut bus, &leaves(size, 0));
        bus.pass(Duration::from_secs(5));
    }
    assert_eq!(verdict(&bus, 0), Some(Why::Damaged { first_bad: 4 }));
}

#[test]
fn a_log_that_stays_damaged_is_not_asked_without_end() {
    let mut bus = damaged();
    bus.questions.clear();
    bus.pass(Duration::from_secs(60));
    assert!(bus.questions.is_empty(), "{:?}", bus.questions);
    for size in 21..31 {
        announce(&mut bus, &leaves(size, 0));
    }
    bus.pass(Duration::from_secs(10));
    assert!(bus.questions.len() <= 40, "{}", bus.questions.len());
}

#[test]
fn a_log_that_was_put_back_and_is_whole_again_is_consistent() {
    let mut bus = watched();
    answer_from(&mut bus, 1, leaves(20, 0));
    announce(&mut bus, &leaves(20, 0));
    answer_from(&mut bus, 1, leaves(10, 0));
    announce(&mut bus, &leaves(10, 0));
    assert_eq!(verdict(&bus, 0), Some(Why::Behind { have: 10 }));
    answer_from(&mut bus, 1, leaves(23, 0));
    announce(&mut bus, &leaves(23, 0));
    bus.pass(Duration::from_secs(5));
    assert!(is_consistent(&bus, 0, 23), "{:?}", view(&bus, 0));
}

#[test]
fn what_a_node_reports_of_a_log_that_was_mended_is_heard_again() {
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    let link = bus.connect(1, 2);
    bus.connect(2, 0);
    bus.pass(Duration::from_secs(1));
    announce(&mut bus, &leaves(10, 0));
    for size in [20, 30] {
        bus.answers.insert(
            1,
            Box::new(|_from, _to| Err(CannotProve::Damaged { first_bad: 4 })),
        );
        announce(&mut bus, &leaves(size, 0));
        answer_from(&mut bus, 1, leaves(size + 5, 0));
        announce(&mut bus, &leaves(size + 5, 0));
        bus.pass(Duration::from_secs(5));
        assert!(is_consistent(&bus, 2, size + 5), "{:?}", view(&bus, 2));
    }
    // Node 2 sees it no more, and has the word of node 0 for the third time.
    for at in [1, 2] {
        bus.tell(at, In::Disconnected { link });
    }
    answer_from(&mut bus, 1, leaves(5, 0));
    announce(&mut bus, &leaves(40, 0));
    let behind = Why::Behind { have: 5 };
    assert_eq!(verdict(&bus, 0), Some(behind));
    assert!(
        matches!(view(&bus, 2), HeadView::Reported { why, .. } if why == behind),
        "{:?}",
        view(&bus, 2)
    );
    bus.sent.clear();
    bus.pass(Duration::from_secs(10));
    let quiet = bus.sent.iter().all(|kind| matches!(kind, 1 | 6));
    assert!(quiet, "all hold the same alarm: {:?}", bus.sent);
}

/// Node 1 is damaged, and node 2 has only the word of node 0 for it that there is a node 1.
fn damaged_out_of_sight() -> Bus {
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    bus.connect(2, 0);
    bus.pass(LONE);
    announce(&mut bus, &leaves(10, 0));
    bus.answers.insert(
        1,
        Box::new(|_from, _to| Err(CannotProve::Damaged { first_bad: 2 })),
    );
    announce(&mut bus, &leaves(20, 0));
    bus
}

#[test]
fn what_one_node_has_seen_is_over_for_all_when_the_log_has_proved_it() {
    // Node 2 never asks node 1 itself while it is damaged.
    let mut bus = damaged_out_of_sight();
    bus.pass(Duration::from_secs(3));
    assert!(matches!(view(&bus, 2), HeadView::Reported { .. }));
    answer_from(&mut bus, 1, leaves(25, 0));
    bus.connect(2, 1);
    announce(&mut bus, &leaves(25, 0));
    bus.pass(Duration::from_secs(10));
    answer_from(&mut bus, 1, leaves(26, 0));
    announce(&mut bus, &leaves(26, 0));
    bus.pass(Duration::from_secs(10));
    for at in [0, 2] {
        assert!(is_consistent(&bus, at, 26), "{at}: {:?}", view(&bus, at));
    }
    // The node itself is told of it no longer, too.
    assert!(is_consistent(&bus, 1, 26), "{:?}", view(&bus, 1));
}

#[test]
fn silence_convicts_nobody_and_is_asked_again() {
    let mut bus = watched();
    announce(&mut bus, &leaves(10, 0));
    bus.answers
        .insert(1, Box::new(|_from, _to| Err(CannotProve::Later)));
    bus.questions.clear();
    announce(&mut bus, &leaves(20, 0));
    bus.pass(Duration::from_secs(60));
    let unproven = HeadView::Unproven {
        size: 20,
        accepted: Some(10),
    };
    assert_eq!(view(&bus, 0), unproven);
    let told = bus.take_events(0);
    let unanswered = |event: &&Event| matches!(event, Event::Unanswered { .. });
    assert_eq!(told.iter().filter(unanswered).count(), 1, "{told:?}");
    assert!(bus.questions.len() > 10, "{}", bus.questions.len());
    answer_from(&mut bus, 1, leaves(20, 0));
    bus.pass(Duration::from_secs(10));
    assert!(matches!(
        view(&bus, 0),
        HeadView::Consistent { size: 20, .. }
    ));
}

#[test]
fn a_stale_head_from_a_third_party_convicts_nobody() {
    let mut bus = watched();
    answer_from(&mut bus, 1, leaves(50, 0));
    announce(&mut bus, &leaves(50, 0));
    let link = bus.connect_stranger(0, 9);
    for size in [1, 7, 49] {
        let old = head(1, &leaves(size, 0));
        let of = Key::of(&bus.id(1));
        let bytes = wire::heads([(of, old.note.as_str())].into_iter());
        bus.tell(0, In::Frame { link, bytes });
    }
    bus.pass(Duration::from_secs(30));
    assert!(matches!(
        view(&bus, 0),
        HeadView::Consistent { size: 50, .. }
    ));
}

#[test]
fn a_fork_that_another_was_shown_is_convicted_here() {
    let mut bus = watched();
    answer_from(&mut bus, 1, leaves(50, 0));
    announce(&mut bus, &leaves(50, 0));
    let link = bus.connect_stranger(0, 9);
    let forked = head(1, &leaves(30, 10));
    let of = Key::of(&bus.id(1));
    let bytes = wire::heads([(of, forked.note.as_str())].into_iter());
    bus.tell(0, In::Frame { link, bytes });
    bus.pass(Duration::from_secs(10));
    assert_eq!(verdict(&bus, 0), Some(Why::WrongProof));
}

#[test]
fn a_verdict_is_gossiped_and_only_its_evidence_is_believed() {
    // Nodes 0 and 1 are linked, node 2 hears of it from node 0 only.
    let mut bus = damaged_out_of_sight();
    assert_eq!(verdict(&bus, 0), Some(Why::Damaged { first_bad: 2 }));
    bus.pass(Duration::from_secs(3));
    let reported = HeadView::Reported {
        accepted: None,
        by: vec![bus.id(0)],
        why: Why::Damaged { first_bad: 2 },
    };
    assert_eq!(view(&bus, 2), reported, "without a proof it is a report");
    // Two notes of one size are a proof for anyone.
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    bus.connect(2, 0);
    bus.pass(LONE);
    announce(&mut bus, &leaves(10, 0));
    announce(&mut bus, &leaves(10, 5));
    bus.pass(Duration::from_secs(3));
    assert_eq!(verdict(&bus, 2), Some(Why::TwoRoots));
}

#[test]
fn when_all_convict_a_log_the_mesh_agrees_on_who_said_so_and_falls_silent() {
    let mut bus = Bus::new(8);
    for from in 0..8 {
        for to in from + 1..8 {
            bus.connect(from, to);
        }
    }
    bus.pass(Duration::from_secs(2));
    announce(&mut bus, &leaves(10, 0));
    announce(&mut bus, &leaves(10, 5));
    bus.pass(Duration::from_secs(10));
    for at in (0..8).filter(|at| *at != 1) {
        assert_eq!(verdict(&bus, at), Some(Why::TwoRoots), "node {at}");
    }
    bus.sent.clear();
    bus.pass(Duration::from_secs(10));
    // Heartbeats, and heads that one was told and another not yet.
    let quiet = bus.sent.iter().all(|kind| matches!(kind, 1 | 6));
    assert!(quiet, "{:?}", bus.sent);
}

#[test]
fn an_alarm_reaches_those_who_come_later() {
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    bus.pass(Duration::from_secs(1));
    announce(&mut bus, &leaves(10, 0));
    announce(&mut bus, &leaves(10, 5));
    bus.connect(2, 0);
    bus.pass(LONE + Duration::from_secs(5));
    assert_eq!(verdict(&bus, 2), Some(Why::TwoRoots));
}

#[test]
fn an_alarm_that_its_reporter_has_not_signed_cuts_the_link() {
    let mut bus = watched();
    let link = bus.connect_stranger(0, 9);
    let why = (Why::Damaged { first_bad: 0 }, &Evidence::default());
    let forged = Alarm::sign(Key::of(&bus.id(1)), (&bus.id(2), &bus.crypto(9)), why);
    bus.take_events(0);
    for bytes in wire::alarms(&[forged.into()]) {
        bus.tell(0, In::Frame { link, bytes });
    }
    let told = bus.take_events(0);
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Violation { .. })),
        "{told:?}"
    );
    assert_eq!(view(&bus, 0), HeadView::None);
}

#[test]
fn verdict_and_accepted_head_survive_a_restart_of_the_watcher() {
    let mut bus = watched();
    answer_from(&mut bus, 1, leaves(20, 0));
    announce(&mut bus, &leaves(20, 0));
    let bytes = bus.states[0].known().encode();
    let known = Known::decode(&bytes, &bus.crypto(0)).expect("what was written");
    bus.restart(0, 2, known);
    bus.connect(0, 1);
    // Truncated while the watcher was away: it remembers.
    answer_from(&mut bus, 1, leaves(10, 0));
    announce(&mut bus, &leaves(10, 0));
    assert_eq!(verdict(&bus, 0), Some(Why::Behind { have: 10 }));
    let bytes = bus.states[0].known().encode();
    let known = Known::decode(&bytes, &bus.crypto(0)).expect("what was written");
    bus.restart(0, 3, known);
    assert_eq!(verdict(&bus, 0), Some(Why::Behind { have: 10 }));
}

#[test]
fn a_head_signed_by_another_key_is_ignored() {
    let mut bus = watched();
    let link = bus.connect_stranger(0, 1);
    let mut foreign = head(1, &leaves(3, 0));
    foreign.note = head(2, &leaves(3, 0)).note;
    let of = Key::of(&bus.id(1));
    let bytes = wire::heads([(of, foreign.note.as_str())].into_iter());
    bus.tell(0, In::Frame { link, bytes });
    assert_eq!(view(&bus, 0), HeadView::None);
}

#[test]
fn an_alarm_of_a_node_that_nobody_has_met_does_not_make_a_log_reported() {
    let mut bus = watched();
    announce(&mut bus, &leaves(10, 0));
    let link = bus.connect_stranger(0, 9);
    let why = (Why::Damaged { first_bad: 0 }, &Evidence::default());
    let accused = Key::of(&bus.id(1));
    for reporter in 20..28 {
        let made_up = told(&sign(reporter, record(reporter, 1, 1)));
        bus.tell(
            0,
            In::Frame {
                link,
                bytes: made_up,
            },
        );
        let by = (&keys(reporter).node_id(), &bus.crypto(reporter.into()) as _);
        for bytes in wire::alarms(&[Alarm::sign(accused, by, why).into()]) {
            bus.tell(0, In::Frame { link, bytes });
        }
    }
    assert!(matches!(view(&bus, 0), HeadView::Consistent { .. }));
    // One of a neighbour does.
    let by = (&bus.id(2), &bus.crypto(2) as _);
    let alarm = Alarm::sign(accused, by, why);
    for bytes in wire::alarms(&[alarm.into()]) {
        bus.tell(0, In::Frame { link, bytes });
    }
    assert!(matches!(view(&bus, 0), HeadView::Reported { .. }));
}

#[test]
fn a_proof_convicts_although_others_have_taken_the_places_of_its_bearer() {
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    bus.connect(0, 2);
    bus.connect(1, 2);
    bus.pass(Duration::from_secs(1));
    announce(&mut bus, &leaves(10, 0));
    // Four members with low keys report something without a proof.
    let accused = Key::of(&bus.id(1));
    let bearer = bus.id(2);
    let low = (10..200_u8).filter(|at| keys(*at).node_id() < bearer);
    let low: Vec<u8> = low.take(4).collect();
    assert_eq!(low.len(), 4);
    let why = (Why::Damaged { first_bad: 0 }, &Evidence::default());
    for at in low {
        let link = bus.connect_stranger(0, at);
        let bytes = told(&sign(at, record(at, 1, 1)));
        bus.tell(0, In::Frame { link, bytes });
        let by = (&keys(at).node_id(), &bus.crypto(at.into()) as _);
        for bytes in wire::alarms(&[Alarm::sign(accused, by, why).into()]) {
            bus.tell(0, In::Frame { link, bytes });
        }
    }
    assert!(matches!(view(&bus, 0), HeadView::Reported { .. }));
    let link = bus.connect_stranger(0, 9);
    let evidence = Evidence {
        accepted: Some(head(1, &leaves(10, 0))),
        offending: Some(head(1, &leaves(10, 5))),
    };
    let by = (&bearer, &bus.crypto(2) as _);
    let alarm = Alarm::sign(accused, by, (Why::TwoRoots, &evidence));
    for bytes in wire::alarms(&[alarm.into()]) {
        bus.tell(0, In::Frame { link, bytes });
    }
    assert_eq!(verdict(&bus, 0), Some(Why::TwoRoots));
}
