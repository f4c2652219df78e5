//! What a member of the mesh that lies can do: little.

use std::time::Duration;

use super::{Bus, keys, record, sign, told};
use crate::roster::accusation::{Accusation, Doubt};
use crate::roster::record::Life;
use crate::roster::table::bucket_of;
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

#[test]
fn an_accusation_of_this_node_in_anothers_name_cuts_the_link() {
    let mut bus = Bus::new(2);
    bus.connect(0, 1);
    let link = bus.connect_stranger(0, 9);
    let me = Key::of(&bus.id(0));
    let life = bus.states[0].record(&bus.id(0)).expect("a record");
    let life = life.record().life();
    let pretended = bus.id(1);
    let forged = Accusation::sign(me, life, Doubt::Refused, (&pretended, &bus.crypto(9)));
    // One of someone who is not known here says nothing about its bearer.
    let unknown = bus.id(7);
    let other = Accusation::sign(me, life, Doubt::Refused, (&unknown, &bus.crypto(9)));
    let told = offer(&mut bus, link, wire::accusations(&[other]));
    assert!(!offended(&told, Offence::ForgedClaim), "{told:?}");
    let told = offer(&mut bus, link, wire::accusations(&[forged; 100]));
    assert!(offended(&told, Offence::ForgedClaim), "{told:?}");
    assert!(bus.states[0].links.get(link).is_none());
    assert_eq!(bus.liveness(0, 1), Some(Liveness::Alive));
}

#[test]
fn small_summaries_do_not_make_a_node_send_its_roster_again_and_again() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 9);
    for origin in 20..60 {
        bus.vouch(0, &sign(origin, record(origin, 1, 1)));
    }
    let empty = wire::summary(false, u64::MAX, &[]);
    let ask = |bus: &mut Bus| {
        let bytes = empty.clone();
        let outs = bus.states[0].handle(In::Frame { link, bytes }, bus.now);
        let len = |out: &Out| {
            if let Out::Send { bytes, .. } = out {
                bytes.len()
            } else {
                0
            }
        };
        outs.iter().map(len).sum::<usize>()
    };
    let once = ask(&mut bus);
    assert!(once > 0, "it does answer");
    let often: usize = (0..1_000).map(|_nth| ask(&mut bus)).sum();
    assert!(often <= 20 * once, "{often} bytes, {once} at first");
    bus.pass(Duration::from_secs(1));
    assert!(ask(&mut bus) > 0, "it answers again after a while");
}

#[test]
fn one_peer_that_feigns_loss_does_not_slow_what_is_noticed() {
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    bus.connect(0, 2);
    let link = bus.connect_stranger(0, 9);
    for counter in (0..40).map(|nth| nth * 40 + 1) {
        bus.pass(Duration::from_millis(500));
        let beat = wire::Beat {
            counter,
            echo: 0,
            held_ms: 0,
            interval_ms: 500,
            hlc: 0,
            root: [7; 16],
        };
        let bytes = wire::beat(&beat);
        bus.tell(0, In::Frame { link, bytes });
    }
    assert_eq!(bus.states[0].links.loss(), 0);
}

#[test]
fn a_stuffed_bucket_keeps_no_other_from_being_told() {
    let mut bus = Bus::new(1);
    for origin in 20..90 {
        bus.vouch(0, &sign(origin, record(origin, 1, 1)));
    }
    let state = &bus.states[0];
    let sizes: Vec<usize> = (0..64)
        .map(|at| state.told_of(1 << at, 1_000).1.len())
        .collect();
    let most = sizes.iter().copied().max().expect("buckets");
    assert!(most >= 2, "{sizes:?}");
    let (covered, entries) = state.told_of(u64::MAX, most - 1);
    assert!(!entries.is_empty() && entries.len() < most);
    for (at, size) in sizes.into_iter().enumerate() {
        let told = entries
            .iter()
            .filter(|entry| bucket_of(&entry.origin) == at);
        let is_covered = covered & (1 << at) != 0;
        assert_eq!(
            told.count(),
            if is_covered { size } else { 0 },
            "whole or not at all"
        );
        assert!(size < most || !is_covered);
    }
    let (covered, all) = state.told_of(u64::MAX, 1_000);
    assert_eq!(
        (covered, all.len()),
        (u64::MAX, state.len() + 1),
        "this node among them"
    );
}
