//! Dialing: for ever, with pauses, and never oneself.

use std::time::Duration;

use openfang_id::{PeerAddr, Transport};

use super::bus::addr;
use super::{Bus, keys};
use crate::roster::{CloseReason, DialFailure, Event, In, Known, Liveness, Out, wire};

fn bootstrap(at: u8) -> In {
    let addr = addr(at);
    In::AddBootstrap(vec![PeerAddr { addr, node: None }])
}

#[test]
fn a_bootstrap_address_is_dialed_for_ever_with_growing_pauses() {
    let mut bus = Bus::new(1);
    bus.tell(0, bootstrap(1));
    let mut dialed_at = Vec::new();
    let end = bus.now + Duration::from_secs(600);
    while bus.now < end {
        bus.pass(Duration::from_millis(10));
        if !bus.dials.is_empty() {
            dialed_at.push(bus.now);
            bus.refuse_dials(DialFailure::Refused);
        }
    }
    let pauses = dialed_at.windows(2).map(|pair| pair[1].since(pair[0]));
    let pauses: Vec<Duration> = pauses.collect();
    assert!(dialed_at.len() > 80, "{}", dialed_at.len());
    assert!(
        pauses[..3]
            .iter()
            .all(|pause| *pause <= Duration::from_secs(2))
    );
    assert!(
        pauses
            .iter()
            .all(|pause| *pause <= Duration::from_millis(10_050))
    );
    assert!(
        pauses.iter().max() > Some(&Duration::from_secs(7)),
        "jitter up to the ceiling"
    );
    assert!(
        pauses[10..].iter().min() < Some(&Duration::from_secs(3)),
        "and down"
    );
}

#[test]
fn addresses_of_one_host_and_port_are_dialed_together() {
    let mut bus = Bus::new(1);
    let addrs = PeerAddr::parse_all("10.0.0.1:4200").expect("addresses");
    let other = PeerAddr::parse_all("10.0.0.2:4200").expect("addresses");
    bus.tell(0, In::AddBootstrap([addrs, other].concat()));
    let offered: Vec<usize> = bus.dials.iter().map(|(_, _, addrs)| addrs.len()).collect();
    assert_eq!(offered, vec![2, 2]);
}

#[test]
fn an_address_that_is_taken_back_is_not_dialed_again() {
    let mut bus = Bus::new(1);
    bus.tell(0, bootstrap(1));
    bus.refuse_dials(DialFailure::Gate);
    bus.tell(0, In::DropBootstrap(vec![addr(1)]));
    bus.pass(Duration::from_secs(60));
    assert!(bus.dials.is_empty());
}

#[test]
fn a_node_notices_that_it_dialed_itself_and_never_does_it_again() {
    let mut bus = Bus::new(1);
    bus.tell(0, bootstrap(7));
    bus.refuse_dials(DialFailure::Itself);
    let told = bus.take_events(0);
    assert!(told.contains(&Event::SelfDial { addr: addr(7) }));
    bus.pass(Duration::from_secs(120));
    assert!(bus.dials.is_empty(), "{:?}", bus.dials);
}

#[test]
fn a_lost_peer_is_redialed_at_once_and_then_for_ever() {
    let mut bus = Bus::new(2);
    bus.connect(0, 1);
    bus.pass(Duration::from_secs(10));
    bus.dials.clear();
    bus.kill(1);
    bus.pass(Duration::from_millis(1));
    assert!(bus.dials.iter().any(|(at, ..)| *at == 0));
    bus.refuse_dials(DialFailure::Refused);
    let mut dials = 0;
    for _second in 0..300 {
        bus.pass(Duration::from_secs(1));
        dials += bus.dials.iter().filter(|(at, ..)| *at == 0).count();
        bus.refuse_dials(DialFailure::Timeout);
    }
    assert!(dials > 30, "{dials}");
    assert_eq!(bus.liveness(0, 1), Some(Liveness::Dead));
    // It is there again.
    while !bus.dials.iter().any(|(at, ..)| *at == 0) {
        bus.pass(Duration::from_secs(1));
    }
    bus.dials.retain(|(at, ..)| *at == 0);
    bus.accept_dials();
    assert_eq!(bus.liveness(0, 1), Some(Liveness::Alive));
}

#[test]
fn a_new_address_of_a_node_does_not_wait_for_a_dial_of_its_old_one() {
    let mut bus = Bus::new(2);
    bus.connect(0, 1);
    bus.pass(Duration::from_secs(10));
    bus.dials.clear();
    bus.kill(1);
    bus.pass(Duration::from_millis(1));
    assert!(bus.dials.iter().any(|(at, ..)| *at == 0), "where it was");
    bus.dials.clear();
    let moved = PeerAddr {
        addr: addr(9),
        node: Some(bus.id(1)),
    };
    bus.tell(0, In::AddBootstrap(vec![moved.clone()]));
    bus.pass(Duration::from_secs(2));
    let mut dialed = bus.dials.iter().flat_map(|(_, _, addrs)| addrs);
    assert!(dialed.any(|addr| *addr == moved), "{:?}", bus.dials);
}

#[test]
fn every_node_known_from_disk_is_dialed() {
    let mut first = Bus::new(4);
    for at in 1..4 {
        first.connect(0, at);
    }
    first.pass(Duration::from_secs(2));
    let known = first.states[0].known();
    let mut bus = Bus::with(vec![known]);
    bus.pass(Duration::from_secs(1));
    let mut dialed: Vec<_> = bus
        .dials
        .iter()
        .filter_map(|(_, _, addrs)| addrs[0].node)
        .collect();
    dialed.sort();
    dialed.dedup();
    let mut all: Vec<_> = (1..4).map(|at| keys(at).node_id()).collect();
    all.sort();
    assert_eq!(dialed, all);
}

#[test]
fn the_address_that_answered_is_offered_and_kept_on_disk() {
    let mut bus = Bus::new(2);
    bus.tell(0, bootstrap(1));
    bus.accept_dials();
    let known: Known = bus.states[0].known();
    assert_eq!(known.addrs, vec![(bus.id(1), vec![addr(1)])]);
}

#[test]
fn two_connections_between_two_nodes_settle_on_the_one_the_lower_dialed() {
    let mut bus = Bus::new(2);
    let by_0 = bus.connect(0, 1);
    let by_1 = bus.connect(1, 0);
    bus.pass(Duration::from_secs(3));
    let lower_is_0 = bus.id(0) < bus.id(1);
    let kept = if lower_is_0 { by_0 } else { by_1 };
    for at in [0, 1] {
        let left: Vec<_> = bus.states[at].links.iter().map(|(id, _)| id).collect();
        assert_eq!(left, vec![kept]);
        assert_eq!(bus.liveness(at, 1 - at), Some(Liveness::Alive));
        let node = bus.id(1 - at);
        assert!(!bus.take_events(at).contains(&Event::NodeSuspected { node }));
    }
    bus.dials.clear();
    bus.pass(Duration::from_secs(20));
    assert!(bus.dials.is_empty(), "what was settled is not dialed again");
}

#[test]
fn new_nodes_of_a_small_mesh_find_each_other_through_one_they_know() {
    let mut bus = Bus::new(4);
    for at in 1..4 {
        bus.tell(at, bootstrap(0));
    }
    for _round in 0..40 {
        bus.accept_dials();
        bus.pass(Duration::from_millis(100));
    }
    for at in 0..4 {
        assert_eq!(bus.states[at].links.len(), 3, "node {at}");
    }
}

#[test]
fn a_node_that_has_left_dials_nobody_and_lets_nobody_in() {
    let mut bus = Bus::new(2);
    bus.connect(0, 1);
    bus.tell(0, In::Leave);
    assert_eq!(bus.states[0].deadline(), None);
    let link = crate::roster::LinkId(77);
    let connected = crate::roster::Connected {
        peer: bus.id(1),
        link,
        dial: None,
        addr: None,
        transport: Transport::Tcp,
    };
    let outs = bus.states[0].handle(In::Connected(connected), bus.now);
    let why = CloseReason::Leaving;
    assert!(outs.contains(&Out::Close { link, why }));
    let bytes = wire::bye();
    assert!(outs.contains(&Out::Send { link, bytes }));
}
