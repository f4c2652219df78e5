//! Who is held for alive, and how fast, and on whose word.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Bus, record, sign, told};
use crate::Instant;
use crate::roster::accusation::{Accusation, Doubt};
use crate::roster::config::{CLOSED_TO_DEAD, KEEP_DEAD};
use crate::roster::{DialFailure, Event, In, Key, Known, Liveness, wire};

#[test]
fn a_node_that_ends_without_a_word_is_suspected_at_once_and_dead_when_it_refuses() {
    let mut bus = Bus::mesh(3);
    bus.kill(2);
    assert_eq!(bus.liveness(0, 2), Some(Liveness::Suspect));
    bus.pass(Duration::from_millis(1));
    assert!(
        bus.dials.iter().any(|(at, ..)| *at == 0),
        "redialed at once"
    );
    bus.refuse_dials(DialFailure::Refused);
    assert_eq!(bus.liveness(0, 2), Some(Liveness::Dead));
    assert_eq!(bus.liveness(1, 2), Some(Liveness::Dead));
}

#[test]
fn a_node_whose_machine_is_gone_is_dead_after_the_time_to_refute() {
    let mut bus = Bus::mesh(3);
    bus.kill(2);
    bus.pass(CLOSED_TO_DEAD - Duration::from_millis(50));
    assert_eq!(bus.liveness(0, 2), Some(Liveness::Suspect));
    bus.pass(Duration::from_millis(100));
    assert_eq!(bus.liveness(0, 2), Some(Liveness::Dead));
    let node = bus.id(2);
    assert!(bus.take_events(0).contains(&Event::NodeDown { node }));
}

#[test]
fn a_connection_that_comes_back_at_once_is_no_death() {
    let mut bus = Bus::mesh(3);
    bus.kill(2);
    bus.pass(Duration::from_millis(1));
    bus.accept_dials();
    bus.pass(Duration::from_secs(5));
    let node = bus.id(2);
    for at in [0, 1] {
        assert_eq!(bus.liveness(at, 2), Some(Liveness::Alive));
        assert!(!bus.take_events(at).contains(&Event::NodeDown { node }));
    }
}

#[test]
fn a_silent_node_is_dead_within_four_seconds_in_a_mesh_of_three() {
    let mut bus = Bus::mesh(3);
    let silent_since = bus.now;
    bus.freeze(2);
    let mut dead_at: Option<Instant> = None;
    while dead_at.is_none() && bus.now < silent_since + Duration::from_secs(10) {
        bus.pass(Duration::from_millis(50));
        let dead = |at| bus.liveness(at, 2) == Some(Liveness::Dead);
        dead_at = (dead(0) && dead(1)).then_some(bus.now);
    }
    let took = dead_at.expect("dead in the end").since(silent_since);
    assert!(took <= Duration::from_secs(4), "{took:?}");
    assert!(
        took >= Duration::from_secs(2),
        "not before it was suspected: {took:?}"
    );
}

#[test]
fn dead_is_not_deleted_and_the_dead_are_forgotten_after_a_day() {
    let mut bus = Bus::mesh(2);
    bus.kill(1);
    bus.pass(Duration::from_secs(2));
    assert_eq!(bus.liveness(0, 1), Some(Liveness::Dead));
    assert!(bus.states[0].record(&bus.id(1)).is_some());
    let old = bus.states[0].record(&bus.id(1)).cloned().expect("a record");
    for _hour in 0..25 {
        bus.now += Duration::from_secs(3_600);
        bus.tell(0, In::Timer);
    }
    assert!(KEEP_DEAD < Duration::from_secs(25 * 3_600));
    assert_eq!(bus.liveness(0, 1), None);
    // Its old record does not come back.
    let link = bus.connect_stranger(0, 9);
    let bytes = told(&old);
    bus.tell(0, In::Frame { link, bytes });
    assert_eq!(bus.liveness(0, 1), None);
    // The node itself does.
    bus.tell(1, In::Timer);
    bus.connect(1, 0);
    bus.pass(Duration::from_secs(1));
    assert_eq!(bus.liveness(0, 1), Some(Liveness::Alive));
}

#[test]
fn a_pause_of_this_node_is_not_held_against_its_peers() {
    let mut bus = Bus::mesh(3);
    bus.take_events(0);
    bus.now += Duration::from_secs(5);
    bus.tell(0, In::Timer);
    let told = bus.take_events(0);
    assert!(
        !told
            .iter()
            .any(|event| matches!(event, Event::NodeSuspected { .. })),
        "{told:?}"
    );
}

#[test]
fn an_accused_node_that_lives_refutes_it_and_stays_alive() {
    let mut bus = Bus::mesh(3);
    let life = bus.states[0]
        .record(&bus.id(2))
        .expect("a record")
        .record()
        .life();
    let (target, liar) = (Key::of(&bus.id(2)), bus.id(1));
    let crypto = bus.crypto(1);
    let accusation = Accusation::sign(target, life, Doubt::Refused, (&liar, &crypto));
    bus.take_events(2);
    let link = bus.connect(1, 0);
    let bytes = wire::accusations(&[accusation]);
    bus.tell(0, In::Frame { link, bytes });
    bus.pass(Duration::from_secs(1));
    assert_eq!(bus.liveness(0, 2), Some(Liveness::Alive));
    assert!(bus.take_events(2).contains(&Event::Refuted));
    let after = bus.states[0]
        .record(&bus.id(2))
        .expect("a record")
        .record()
        .life();
    assert!(after > life);
}

#[test]
fn a_late_record_is_no_sign_of_life_and_a_refutation_is() {
    let mut bus = Bus::mesh(3);
    bus.kill(2);
    bus.pass(Duration::from_secs(2));
    assert_eq!(bus.liveness(0, 2), Some(Liveness::Dead));
    let held = bus.states[0]
        .record(&bus.id(2))
        .expect("a record")
        .record()
        .clone();
    let link = bus.connect_stranger(0, 9);
    let mut late = held.clone();
    late.version.sequence += 1;
    let bytes = told(&sign(2, late.clone()));
    bus.tell(0, In::Frame { link, bytes });
    assert_eq!(bus.liveness(0, 2), Some(Liveness::Dead));
    late.version.sequence += 1;
    late.refutation += 1;
    let bytes = told(&sign(2, late));
    bus.tell(0, In::Frame { link, bytes });
    assert_eq!(bus.liveness(0, 2), Some(Liveness::Alive));
}

#[test]
fn one_accuser_alone_needs_long_and_three_do_not() {
    let accusers = |count: u8| {
        let mut bus = Bus::new(1);
        let link = bus.connect_stranger(0, 9);
        for at in 1..6 {
            bus.vouch(0, &sign(at, record(at, 1, 1)));
        }
        let target = Key::of(&bus.id(5));
        let life = record(5, 1, 1).life();
        for at in 1..=count {
            let by = bus.id(usize::from(at));
            let crypto = bus.crypto(usize::from(at));
            let accusation = Accusation::sign(target, life, Doubt::Refused, (&by, &crypto));
            let bytes = wire::accusations(&[accusation]);
            bus.tell(0, In::Frame { link, bytes });
        }
        bus.pass(Duration::from_millis(500));
        bus.liveness(0, 5)
    };
    assert_eq!(accusers(0), Some(Liveness::Alive));
    assert_eq!(accusers(1), Some(Liveness::Suspect));
    assert_eq!(accusers(2), Some(Liveness::Suspect));
    assert_eq!(accusers(3), Some(Liveness::Dead));
}

#[test]
fn a_node_known_from_disk_only_is_not_shown_as_alive() {
    let mut first = Bus::mesh(3);
    let known = first.states[0].known();
    assert_eq!(known.records.len(), 2);
    first.restart(0, 2, known);
    assert_eq!(first.liveness(0, 1), Some(Liveness::Suspect));
    // One of them answers, and vouches for the other.
    first.connect(0, 1);
    first.pass(Duration::from_secs(3));
    assert_eq!(first.liveness(0, 1), Some(Liveness::Alive));
    assert_eq!(first.liveness(0, 2), Some(Liveness::Alive));
    // Nobody answers another.
    let known = first.states[0].known();
    let mut alone = Bus::with(vec![known]);
    alone.pass(Duration::from_secs(11));
    assert_eq!(alone.liveness(0, 1), Some(Liveness::Dead));
}

#[test]
fn what_was_known_survives_the_disk() {
    let bus = Bus::mesh(3);
    let known = bus.states[0].known();
    let bytes = known.encode();
    assert_eq!(Known::decode(&bytes, &bus.crypto(0)), Ok(known));
    for cut in 0..bytes.len() {
        assert!(Known::decode(&bytes[..cut], &bus.crypto(0)).is_err());
    }
    // A record that was altered on disk is left out.
    let mut altered = bytes;
    altered[120] ^= 1;
    if let Ok(known) = Known::decode(&altered, &bus.crypto(0)) {
        assert!(known.records.len() < 2);
    }
}

#[test]
fn the_round_trip_is_measured() {
    let mut bus = Bus::mesh(2);
    bus.pass(Duration::from_secs(2));
    let view = bus.states[0].view();
    let link = view.node(&bus.id(1)).and_then(|node| node.link.clone());
    assert_eq!(link.and_then(|link| link.rtt_ms), Some(0));
}
#[test]
fn neighbours_are_told_the_hybrid_clock_and_nobody_is_told_none() {
    let mut bus = Bus::new(2);
    let zero = bus.id(0);
    bus.states[0].set_hybrid(42);
    bus.connect(0, 1);
    bus.pass(Duration::from_secs(2));
    bus.states[0].set_hybrid(43);
    bus.pass(Duration::from_secs(2));
    let told: BTreeSet<_> = bus.hybrids.iter().copied().collect();
    assert_eq!(told, [(1, zero, 42), (1, zero, 43)].into());
}
