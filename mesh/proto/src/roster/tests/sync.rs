//! Anti-entropy: any two rosters become one.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Bus, record, sign};
use crate::roster::wire::{FRAME_BYTES_MAX, Frame};
use crate::roster::{Known, SignedRecord};

/// Records of origins 10 to 29, signed once.
fn pool() -> Vec<[Arc<SignedRecord>; 3]> {
    (10..30)
        .map(|origin| [1, 2, 3].map(|sequence| Arc::new(sign(origin, record(origin, 1, sequence)))))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn two_arbitrary_rosters_become_the_same_within_a_few_rounds(
        choices in proptest::collection::vec((0_usize..4, 0_usize..4), 20),
    ) {
        let pool = pool();
        let mut known = vec![Known::default(), Known::default()];
        for (records, (a, b)) in pool.iter().zip(&choices) {
            known[0].records.extend(records.get(*a).cloned());
            known[1].records.extend(records.get(*b).cloned());
        }
        let mut bus = Bus::with(known);
        bus.connect(0, 1);
        bus.pass(Duration::from_secs(20));
        prop_assert!(bus.agree(0, 1));
        for (records, (a, b)) in pool.iter().zip(&choices) {
            let newest = [*a, *b].into_iter().filter(|at| *at < 3).max();
            let held = bus.states[0].record(&records[0].record().origin);
            prop_assert_eq!(held, newest.map(|at| records[at].as_ref()));
        }
        // Once they agree, nothing is said but heartbeats.
        bus.sent.clear();
        bus.pass(Duration::from_secs(20));
        prop_assert!(bus.sent.iter().all(|kind| *kind == 1), "{:?}", bus.sent);
    }
}

#[test]
fn what_does_not_fit_one_message_comes_in_several() {
    let large = |origin: u8| {
        let mut record = record(origin, 1, 1);
        record.agents = (0..40)
            .map(|at| {
                let mut agent = super::ad(at);
                agent.description = "x".repeat(1_000);
                agent
            })
            .collect();
        record.agents.sort_by_key(|agent| agent.id);
        Arc::new(sign(origin, record))
    };
    let mut known = vec![Known::default(), Known::default()];
    known[0].records = (10..40).map(large).collect();
    let total: usize = known[0]
        .records
        .iter()
        .map(|record| record.bytes().len())
        .sum();
    assert!(total > 4 * FRAME_BYTES_MAX);
    let mut bus = Bus::with(known);
    bus.connect(1, 0);
    bus.pass(Duration::from_secs(8));
    assert!(bus.agree(0, 1));
    assert_eq!(bus.states[1].len(), 31);
}

#[test]
fn a_message_longer_than_the_bound_is_not_read() {
    assert!(Frame::decode(&vec![1; FRAME_BYTES_MAX + 1]).is_err());
}

#[test]
fn a_ladder_of_nodes_learns_what_either_end_does() {
    let mut bus = Bus::new(5);
    for at in 0..4 {
        bus.connect(at, at + 1);
        if at < 3 {
            bus.connect(at, at + 2);
        }
    }
    bus.pass(Duration::from_millis(200));
    for at in 1..5 {
        assert!(bus.agree(0, at), "node {at}");
    }
    bus.tell(0, crate::roster::In::SetAgents(vec![super::ad(7)]));
    bus.pass(Duration::from_millis(200));
    let seen = bus.states[4].record(&bus.id(0)).expect("a record");
    assert_eq!(seen.record().agents.len(), 1);
}
