//! Messages of the sync stream: each comes back from its bytes, and from no others.

use std::sync::Arc;

use openfang_audit::Hash;
use openfang_audit::proof::PROOF_HASHES_MAX;

use super::{keys, record, sign};
use crate::heads::{Alarm, CannotProve, Evidence, Question, Why};
use crate::roster::accusation::{Accusation, Doubt};
use crate::roster::wire::{self, Beat, Digests, Entry, FRAME_BYTES_MAX, Frame, Standing};
use crate::roster::{Ed25519, Key, Rng, Version, check_frame};

fn check(bytes: &[u8], expected: &Frame<'_>) {
    assert_eq!(Frame::decode(bytes).as_ref(), Ok(expected));
    for cut in 0..bytes.len() {
        assert!(check_frame(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let longer = [bytes, &[0]].concat();
    assert!(check_frame(&longer).is_err(), "something behind");
}

fn entry(first: u8) -> Entry {
    let mut origin = [7; 32];
    origin[0] = first;
    Entry {
        origin: Key::from_bytes(origin),
        version: Version {
            incarnation: 3,
            sequence: 4,
        },
        hash: [5; 8],
        standing: Standing {
            doubted: first == 0,
            heard: first == 1,
        },
    }
}

#[test]
fn small_messages_come_back_from_their_bytes() {
    let beat = Beat {
        counter: 1,
        echo: 2,
        held_ms: 3,
        interval_ms: 500,
        hlc: 7,
        root: [9; 16],
    };
    check(&wire::beat(&beat), &Frame::Beat(beat));
    let digests = Digests {
        buckets: [[8; 16]; 64],
        alarms: [7; 16],
    };
    check(&wire::digests(&digests), &Frame::Digests(Box::new(digests)));
    let question = Question {
        id: 1,
        from: 2,
        to: 3,
    };
    check(&wire::ask(question), &Frame::Ask(question));
    check(&wire::bye(), &Frame::Bye);
    let key = Key::from_bytes([3; 32]);
    let heads = [(key, "note")];
    check(
        &wire::heads(heads.into_iter()),
        &Frame::Heads(heads.to_vec()),
    );
}

#[test]
fn answers_come_back_from_their_bytes() {
    let answers = [
        Ok(vec![Hash::from_bytes([1; 32]); PROOF_HASHES_MAX]),
        Ok(Vec::new()),
        Err(CannotProve::Behind { have: 1 }),
        Err(CannotProve::Damaged { first_bad: 2 }),
        Err(CannotProve::Range),
        Err(CannotProve::Later),
    ];
    for answer in answers {
        let bytes = wire::answer(7, &answer);
        check(&bytes, &Frame::Answer { id: 7, answer });
    }
}

#[test]
fn summaries_come_back_and_have_one_order() {
    let entries = vec![entry(0), entry(1), entry(255)];
    let bytes = wire::summary(true, 5, &entries);
    let frame = Frame::Summary {
        reply: true,
        mask: 5,
        entries,
    };
    check(&bytes, &frame);
    for wrong in [[entry(1), entry(0)], [entry(1), entry(1)]] {
        assert!(check_frame(&wire::summary(true, 5, &wrong)).is_err());
    }
}

#[test]
fn what_is_known_of_an_origin_has_four_forms() {
    let summary = wire::summary(false, 1, &[entry(2)]);
    let record = sign(0, record(0, 1, 1));
    let (records, _) = wire::records(&[(&record, Standing::SURE)]);
    // The last byte of an entry, and the first of a record behind kind, more and number.
    for (bytes, at) in [(&summary, summary.len() - 1), (&records, 4)] {
        for standing in 0..=u8::MAX {
            let mut bytes = bytes.clone();
            bytes[at] = standing;
            assert_eq!(check_frame(&bytes).is_ok(), standing < 4, "{standing}");
        }
    }
}

#[test]
fn claims_come_back_from_their_bytes_and_verify() {
    let crypto = Ed25519(keys(0).identity);
    let me = keys(0).node_id();
    let target = Key::of(&keys(1).node_id());
    let life = record(1, 1, 1).life();
    for doubt in [Doubt::Silent, Doubt::Closed, Doubt::Refused] {
        let accusation = Accusation::sign(target, life, doubt, (&me, &crypto));
        assert!(accusation.verify(&me, &crypto));
        let bytes = wire::accusations(&[accusation]);
        check(&bytes, &Frame::Accusations(vec![accusation]));
    }
    for why in [
        Why::TwoRoots,
        Why::Behind { have: 1 },
        Why::Damaged { first_bad: 2 },
        Why::NoProof,
        Why::WrongProof,
        Why::OtherLog,
    ] {
        let alarm = Alarm::sign(target, (&me, &crypto), (why, &Evidence::default()));
        assert!(alarm.verify(&me, &crypto));
        let frames = wire::alarms(&[Arc::new(alarm.clone())]);
        assert_eq!(frames.len(), 1);
        check(&frames[0], &Frame::Alarms(vec![alarm]));
    }
}

#[test]
fn the_longest_record_fits_one_message() {
    let mut long = record(0, 1, 1);
    long.agents = (0..100)
        .map(|at| {
            let mut agent = super::ad(at);
            agent.description = "x".repeat(1_024);
            agent.tools = vec!["y".repeat(64); 20];
            agent
        })
        .collect();
    long.agents.sort_by_key(|agent| agent.id);
    let long = sign(0, long);
    assert!(long.bytes().len() > 200 * 1024);
    let (bytes, taken) = wire::records(&[(&long, Standing::SURE), (&long, Standing::HEARD)]);
    assert_eq!(taken, 1);
    assert!(bytes.len() <= FRAME_BYTES_MAX);
    match Frame::decode(&bytes) {
        Ok(Frame::Records { more, records }) => {
            assert!(more);
            assert_eq!(records.len(), 1);
            assert_eq!(records[0].0, Standing::SURE);
        }
        other => panic!("expected records: {other:?}"),
    }
}

#[test]
fn the_generator_is_the_published_one() {
    // The reference outputs of xoshiro256++ for the state 1, 2, 3, 4.
    let mut seed = [0; 32];
    for (at, byte) in [(7, 1), (15, 2), (23, 3), (31, 4)] {
        seed[at] = byte;
    }
    let mut rng = Rng::new(seed);
    let drawn = [(); 6].map(|()| rng.bits());
    let expected = [
        41_943_041,
        58_720_359,
        3_588_806_011_781_223,
        3_591_011_842_654_386,
        9_228_616_714_210_784_205,
        9_973_669_472_204_895_162,
    ];
    assert_eq!(drawn, expected);
}
