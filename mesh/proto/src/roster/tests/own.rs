//! The own record: incarnations, refutations, cutting, twins.

use std::time::Duration;

use super::bus::addr;
use super::{Bus, ad, keys, record, sign, told};
use crate::roster::{AgentAd, Event, In, Known, Liveness, RECORD_BYTES_MAX, Record};

fn own(bus: &Bus, at: usize) -> Record {
    let record = bus.states[at].record(&bus.id(at));
    record.expect("an own record").record().clone()
}

#[test]
fn a_change_is_published_at_once_and_only_once() {
    let mut bus = Bus::new(2);
    bus.connect(0, 1);
    let before = own(&bus, 0).version;
    bus.tell(0, In::SetAgents(vec![ad(3)]));
    let seen = bus.states[1]
        .record(&bus.id(0))
        .expect("a record")
        .record()
        .clone();
    assert_eq!(seen.agents, vec![ad(3)]);
    assert_eq!(seen.version.sequence, before.sequence + 1);
    bus.tell(0, In::SetAgents(vec![ad(3)]));
    assert_eq!(own(&bus, 0).version, seen.version);
}

#[test]
fn many_changes_at_once_become_few_records_that_peers_take() {
    let mut bus = Bus::new(2);
    bus.connect(0, 1);
    for at in 0..100 {
        bus.tell(0, In::SetAgents(vec![ad(at)]));
    }
    bus.pass(Duration::from_secs(1));
    assert!(
        own(&bus, 0).version.sequence <= 22,
        "{:?}",
        own(&bus, 0).version
    );
    let seen = bus.states[1].record(&bus.id(0)).expect("a record");
    assert_eq!(seen.record().agents, vec![ad(99)]);
}

#[test]
fn agents_that_do_not_fit_are_cut_and_it_is_said() {
    let mut bus = Bus::new(1);
    let long = |at: u16| AgentAd {
        id: openfang_id::AgentId::from_bytes(u128::from(at).to_be_bytes()),
        description: "ü".repeat(2_000),
        tools: vec!["tool".repeat(40); 200],
        ..ad(0)
    };
    bus.tell(0, In::SetAgents((0..1_200).map(long).collect()));
    bus.pass(Duration::from_secs(1));
    let told = bus.take_events(0);
    let cut = Event::AgentsCut {
        announced: 1_000,
        agents: 1_200,
    };
    assert!(told.contains(&cut));
    let record = own(&bus, 0);
    assert_eq!(record.agents.len(), 1_000);
    assert!(record.encode().expect("within bounds").len() <= RECORD_BYTES_MAX);
}

#[test]
fn a_node_that_lost_its_disk_goes_above_its_old_incarnation() {
    let mut bus = Bus::new(2);
    bus.connect(0, 1);
    bus.restart(0, 7, Known::default());
    bus.connect(0, 1);
    bus.restart(0, 1, Known::default());
    bus.connect(0, 1);
    bus.pass(Duration::from_secs(3));
    assert_eq!(bus.incarnations, vec![(0, 8)]);
    // Not used before it is stored.
    assert_eq!(own(&bus, 0).version.incarnation, 1);
    bus.tell(0, In::IncarnationStored(8));
    bus.pass(Duration::from_secs(1));
    assert_eq!(own(&bus, 0).version.incarnation, 8);
    let seen = bus.states[1].record(&bus.id(0)).expect("a record");
    assert_eq!(seen.version().incarnation, 8);
    assert_eq!(bus.liveness(1, 0), Some(Liveness::Alive));
}

#[test]
fn a_higher_incarnation_that_this_node_has_not_signed_is_not_believed() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 9);
    let mut made_up = record(0, u64::MAX, 1);
    made_up.addrs = vec![addr(9)];
    let forged = sign(9, made_up);
    let bytes = told(&forged);
    bus.tell(0, In::Frame { link, bytes });
    assert!(bus.incarnations.is_empty());
    let told = bus.take_events(0);
    let node = keys(9).node_id();
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Violation { node: by, .. } if *by == node))
    );
}

#[test]
fn a_second_machine_with_the_same_key_is_noticed() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 9);
    let mut said = 0;
    for incarnation in [10, 20, 30] {
        let twin = sign(0, record(0, incarnation, 1));
        let bytes = told(&twin);
        bus.tell(0, In::Frame { link, bytes });
        assert_eq!(bus.incarnations.pop(), Some((0, incarnation + 1)));
        bus.tell(0, In::IncarnationStored(incarnation + 1));
        let told = bus.take_events(0);
        said += told
            .iter()
            .filter(|event| matches!(event, Event::DuplicateIdentity { .. }))
            .count();
    }
    assert_eq!(said, 1);
    // From here on they do not race at the speed of the network.
    let twin = sign(0, record(0, 40, 1));
    let bytes = told(&twin);
    bus.tell(0, In::Frame { link, bytes });
    assert!(bus.incarnations.is_empty());
}

#[test]
fn a_restart_is_told_as_one() {
    let mut bus = Bus::new(2);
    bus.connect(0, 1);
    bus.take_events(1);
    bus.restart(0, 2, Known::default());
    bus.connect(0, 1);
    let node = bus.id(0);
    let told = bus.take_events(1);
    let up = Event::NodeUp {
        node,
        incarnation: 2,
    };
    assert!(told.contains(&up), "{told:?}");
}

#[test]
fn a_farewell_is_seen_by_all_and_nobody_suspects() {
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    bus.connect(1, 2);
    // Node 2 has only the word of node 1 for node 0.
    bus.pass(Duration::from_secs(8));
    bus.tell(0, In::Leave);
    bus.pass(Duration::from_millis(100));
    assert_eq!(bus.liveness(1, 0), Some(Liveness::Left));
    assert_eq!(bus.liveness(2, 0), Some(Liveness::Left));
    bus.kill(0);
    bus.pass(Duration::from_secs(5));
    assert_eq!(bus.liveness(1, 0), Some(Liveness::Left));
    let told = bus.take_events(1);
    let node = bus.id(0);
    assert!(!told.contains(&Event::NodeSuspected { node }));
    // It comes back with a higher incarnation.
    bus.restart(0, 2, Known::default());
    bus.connect(0, 1);
    assert_eq!(bus.liveness(1, 0), Some(Liveness::Alive));
}
