//! Merging: whatever the order, every node ends with the same.

use proptest::prelude::*;

use super::{Bus, record, sign, told};
use crate::roster::{Event, In, LinkId, SignedRecord};

/// Signed once: origin 1 to 3, small versions, and a few that claim the same version twice.
fn some_records() -> Vec<SignedRecord> {
    let mut all = Vec::new();
    for origin in 1..4 {
        for (incarnation, sequence) in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)] {
            all.push(sign(origin, record(origin, incarnation, sequence)));
        }
        let mut other = record(origin, 2, 2);
        other.software = "another".to_owned();
        all.push(sign(origin, other));
    }
    all
}

fn offer(bus: &mut Bus, link: LinkId, record: &SignedRecord) {
    let bytes = told(record);
    bus.tell(0, In::Frame { link, bytes });
}

fn held(bus: &Bus) -> Vec<[u8; 32]> {
    (1..4)
        .map(|of| {
            let record = bus.states[0].record(&bus.id(of));
            *record.expect("a record").hash()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        order in Just((0..18).chain(0..18).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let records = some_records();
        let mut bus = Bus::new(1);
        for origin in 1..4 {
            bus.connect_stranger(0, origin);
        }
        let link = bus.connect_stranger(0, 9);
        let mut before: Vec<Option<SignedRecord>> = vec![None; 4];
        for at in order {
            offer(&mut bus, link, &records[at]);
            // A version never goes back, after any prefix of any order.
            for (of, before) in before.iter_mut().enumerate().skip(1) {
                let now = bus.states[0].record(&bus.id(of)).cloned();
                if let (Some(before), Some(now)) = (before.as_ref(), now.as_ref()) {
                    prop_assert!(now.precedence(before).is_ge());
                }
                *before = now;
            }
        }
        let winners: Vec<[u8; 32]> = (0..3)
            .map(|origin| {
                let of = &records[origin * 6..origin * 6 + 6];
                let winner = of.iter().max_by(|a, b| a.precedence(b));
                *winner.expect("six of each").hash()
            })
            .collect();
        prop_assert_eq!(held(&bus), winners);
    }
}

#[test]
fn of_two_records_of_one_version_all_keep_the_one_with_the_lower_hash() {
    let one = sign(1, record(1, 1, 1));
    let mut other = record(1, 1, 1);
    other.software = "another".to_owned();
    let other = sign(1, other);
    let lower = if one.hash() < other.hash() {
        &one
    } else {
        &other
    };
    for order in [[&one, &other], [&other, &one]] {
        let mut bus = Bus::new(1);
        for origin in 1..4 {
            bus.connect_stranger(0, origin);
        }
        let link = bus.connect_stranger(0, 9);
        for record in order {
            offer(&mut bus, link, record);
        }
        let held = bus.states[0].record(&bus.id(1)).expect("a record");
        assert_eq!(held.hash(), lower.hash());
        let node = bus.id(1);
        let told = bus.take_events(0);
        assert!(told.contains(&Event::RecordEquivocation { node }));
    }
}
