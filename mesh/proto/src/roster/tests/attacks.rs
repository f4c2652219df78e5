//! What a member of the mesh that lies can do: little.

use std::time::Duration;

use super::{Bus, keys, record, sign, told};
use crate::roster::accusation::{Accusation, Doubt};
use crate::roster::record::Life;
use crate::roster::{
    CloseReason, Event, In, Key, LinkId, Liveness, Offence, Out, SignedRecord, wire,
};

fn offer(bus: &mut Bus, link: LinkId, bytes: Vec<u8>) -> Vec<Event> {
    bus.take_events(0);
    bus.tell(0, In::Frame { link, bytes });
    bus.take_events(0)
}

fn of(record: &SignedRecord) -> Vec<u8> {
    told(record)
}

fn offended(events: &[Event], offence: Offence) -> bool {
    let node = keys(9).node_id();
    events.contains(&Event::Violation { node, offence })
}

#[test]
fn a_forged_record_is_never_stored_and_its_bearer_is_cut_off() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 9);
    let mut frame = of(&sign(1, record(1, 1, 1)));
    let last = frame.len() - 1;
    frame[last] ^= 1;
    let told = offer(&mut bus, link, frame);
    assert!(offended(&told, Offence::ForgedRecord), "{told:?}");
    assert_eq!(bus.liveness(0, 1), None);
    // The link is gone: even the true record is not taken on it.
    let told = offer(&mut bus, link, of(&sign(1, record(1, 1, 1))));
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn a_record_signed_by_another_node_is_never_stored() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 9);
    let told = offer(&mut bus, link, of(&sign(9, record(1, 1, 1))));
    assert!(offended(&told, Offence::ForgedRecord));
    assert_eq!(bus.liveness(0, 1), None);
}

#[test]
fn a_truncated_message_cuts_the_link_and_changes_nothing() {
    let frame = of(&sign(1, record(1, 1, 1)));
    for cut in (0..frame.len()).step_by(7) {
        let mut bus = Bus::new(1);
        let link = bus.connect_stranger(0, 9);
        let told = offer(&mut bus, link, frame[..cut].to_vec());
        assert!(offended(&told, Offence::Malformed), "{cut}");
        assert_eq!(bus.liveness(0, 1), None);
    }
}

#[test]
fn a_malformed_message_closes_with_its_reason() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 9);
    let bytes = vec![0xff; 10];
    let outs = bus.states[0].handle(In::Frame { link, bytes }, bus.now);
    let why = CloseReason::Violation(Offence::Malformed);
    assert!(outs.contains(&Out::Close { link, why }), "{outs:?}");
}

#[test]
fn a_replayed_older_record_changes_nothing() {
    let mut bus = Bus::new(1);
    bus.connect_stranger(0, 1);
    let link = bus.connect_stranger(0, 9);
    let old = sign(1, record(1, 1, 1));
    let new = sign(1, record(1, 1, 2));
    offer(&mut bus, link, of(&old));
    offer(&mut bus, link, of(&new));
    let told = offer(&mut bus, link, of(&old));
    assert!(told.is_empty(), "{told:?}");
    let held = bus.states[0].record(&bus.id(1)).expect("a record");
    assert_eq!(held.version(), new.version());
}

#[test]
fn a_flood_of_one_origin_is_bounded_and_the_last_word_still_arrives() {
    let mut bus = Bus::new(2);
    bus.connect(0, 1);
    bus.connect_stranger(0, 5);
    let link = bus.connect_stranger(0, 9);
    let mut stored = 0;
    for sequence in 1..=1_000 {
        let told = offer(&mut bus, link, of(&sign(5, record(5, 1, sequence))));
        stored += told
            .iter()
            .filter(|event| matches!(event, Event::Recorded { .. }))
            .count();
    }
    assert!(stored <= 21, "{stored}");
    bus.pass(Duration::from_secs(1));
    let last = sign(5, record(5, 1, 1_001));
    offer(&mut bus, link, of(&last));
    let held = bus.states[0].record(&bus.id(5)).expect("a record");
    assert_eq!(held.version(), last.version());
}

#[test]
fn made_up_identities_do_not_fill_the_memory() {
    let mut bus = Bus::new(1);
    bus.states[0].config.nodes_max = 10;
    for origin in 20..60 {
        bus.vouch(0, &sign(origin, record(origin, 1, 1)));
    }
    assert_eq!(bus.states[0].len(), 10);
}

#[test]
fn an_accusation_in_anothers_name_cuts_the_link() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 9);
    for origin in [1, 2] {
        bus.vouch(0, &sign(origin, record(origin, 1, 1)));
    }
    offer(&mut bus, link, of(&sign(9, record(9, 1, 1))));
    let life = record(2, 1, 1).life();
    let (target, pretended) = (Key::of(&bus.id(2)), bus.id(1));
    let forged = Accusation::sign(target, life, Doubt::Refused, (&pretended, &bus.crypto(9)));
    let told = offer(&mut bus, link, wire::accusations(&[forged]));
    assert!(offended(&told, Offence::ForgedClaim), "{told:?}");
    assert_eq!(bus.liveness(0, 2), Some(Liveness::Alive));
}

#[test]
fn an_accusation_about_a_life_that_was_never_shown_is_ignored() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 9);
    bus.vouch(0, &sign(2, record(2, 1, 1)));
    offer(&mut bus, link, of(&sign(9, record(9, 1, 1))));
    let (target, liar) = (Key::of(&bus.id(2)), bus.id(9));
    for (incarnation, refutation) in [(u64::MAX, 0), (1, u32::MAX), (0, 0)] {
        let life = Life {
            incarnation,
            refutation,
        };
        let accusation = Accusation::sign(target, life, Doubt::Refused, (&liar, &bus.crypto(9)));
        let told = offer(&mut bus, link, wire::accusations(&[accusation]));
        assert!(told.is_empty(), "{told:?}");
    }
    assert_eq!(bus.liveness(0, 2), Some(Liveness::Alive));
}

#[test]
fn a_flood_of_accusations_makes_a_node_refute_at_a_bounded_rate() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 9);
    offer(&mut bus, link, of(&sign(9, record(9, 1, 1))));
    let (me, liar) = (Key::of(&bus.id(0)), bus.id(9));
    let mut refuted = 0;
    for _ms in 0..1_000 {
        bus.now += Duration::from_millis(1);
        let life = bus.states[0]
            .record(&bus.id(0))
            .expect("a record")
            .record()
            .life();
        let accusation = Accusation::sign(me, life, Doubt::Refused, (&liar, &bus.crypto(9)));
        let told = offer(&mut bus, link, wire::accusations(&[accusation]));
        refuted += told
            .iter()
            .filter(|event| **event == Event::Refuted)
            .count();
    }
    assert!((1..=6).contains(&refuted), "{refuted}");
}

#[test]
fn a_peer_that_asks_for_digests_without_end_is_not_answered_without_end() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 9);
    let digests = wire::Digests {
        buckets: [[9; 16]; 64],
        alarms: [0; 16],
    };
    bus.sent.clear();
    for _nth in 0..1_000 {
        offer(&mut bus, link, wire::digests(&digests));
    }
    let answers = bus.sent.iter().filter(|kind| **kind == 4).count();
    assert!(answers <= 16, "{answers}");
}
