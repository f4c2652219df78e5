//! Nodes that were there for a moment and are not any more, or never were.

use std::time::Duration;

use super::{Bus, addr, keys, record, sign, told};
use crate::roster::accusation::{Accusation, Doubt};
use crate::roster::wire;
use crate::roster::{DialFailure, Event, In, Key, Known, LinkId, Liveness, SignedRecord};

/// A record that names no address.
fn nowhere(at: u8) -> SignedRecord {
    let mut nowhere = record(at, 1, 1);
    nowhere.addrs = Vec::new();
    sign(at, nowhere)
}

fn say(bus: &mut Bus, at: usize, link: LinkId, record: &SignedRecord) {
    let bytes = told(record);
    bus.tell(at, In::Frame { link, bytes });
}

/// Ends a connection with a farewell.
fn part(bus: &mut Bus, at: usize, link: LinkId) {
    let bytes = wire::bye();
    bus.tell(at, In::Frame { link, bytes });
    bus.tell(at, In::Disconnected { link });
}

/// Lets dials to nodes of the bus succeed, and others fail.
fn answer_dials(bus: &mut Bus) {
    for (at, dial, addrs) in std::mem::take(&mut bus.dials) {
        let count = u8::try_from(bus.states.len()).expect("few nodes");
        match (0..count).find(|to| addr(*to) == addrs[0].addr) {
            Some(to) if usize::from(to) != at => {
                bus.connect_for(at, usize::from(to), dial);
            }
            Some(_) | None => {
                let failed = addrs
                    .into_iter()
                    .map(|addr| (addr.addr, DialFailure::Refused));
                let failures = failed.collect();
                bus.tell(at, In::DialFailed { dial, failures });
            }
        }
    }
}

fn live(bus: &mut Bus, seconds: u64) {
    for _second in 0..seconds {
        bus.pass(Duration::from_secs(1));
        answer_dials(bus);
    }
}

#[test]
fn a_node_that_said_farewell_and_cannot_be_reached_is_dead_after_a_while() {
    for ghost in [nowhere(90), sign(90, record(90, 1, 1))] {
        let mut bus = Bus::mesh(5);
        for at in 0..2 {
            let link = bus.connect_stranger(at, 90);
            say(&mut bus, at, link, &ghost);
            part(&mut bus, at, link);
        }
        live(&mut bus, 20);
        let held = |bus: &Bus, at: usize| bus.states[at].liveness(&keys(90).node_id());
        for at in 0..5 {
            assert_eq!(held(&bus, at), Some(Liveness::Alive), "node {at}");
        }
        live(&mut bus, 150);
        for at in 0..5 {
            assert_eq!(held(&bus, at), Some(Liveness::Dead), "node {at}");
        }
    }
}

#[test]
fn those_without_an_address_live_by_what_others_pass_on() {
    let mut bus = Bus::new(6);
    for at in 2..6 {
        bus.tell(at, In::SetAddrs(Vec::new()));
        bus.connect(at, 0);
        bus.connect(at, 1);
    }
    bus.connect(0, 1);
    live(&mut bus, 1_200);
    let down = |(_, event): &&(usize, Event)| matches!(event, Event::NodeDown { .. });
    assert_eq!(bus.events.iter().find(down), None);
    assert!(!bus.states[2].is_linked(&Key::of(&bus.id(3))));
    assert_eq!(bus.liveness(2, 3), Some(Liveness::Alive));
}

#[test]
fn a_node_with_a_link_finds_a_place_among_those_that_were_met() {
    let mut bus = Bus::mesh(2);
    bus.states[0].config.nodes_max = 20;
    for ghost in 90..130 {
        let link = bus.connect_stranger(0, ghost);
        say(&mut bus, 0, link, &nowhere(ghost));
        part(&mut bus, 0, link);
        bus.pass(Duration::from_millis(10));
    }
    let link = bus.connect_stranger(0, 20);
    say(&mut bus, 0, link, &nowhere(20));
    let held = |bus: &Bus, at: u8| bus.states[0].liveness(&keys(at).node_id());
    assert_eq!(held(&bus, 20), Some(Liveness::Alive));
    assert_eq!(bus.liveness(0, 1), Some(Liveness::Alive));
    assert_eq!(bus.states[0].len(), 20);
    // The longest without news made room.
    assert_eq!(
        (held(&bus, 90), held(&bus, 129)),
        (None, Some(Liveness::Alive))
    );
}

#[test]
fn a_living_node_that_made_room_comes_back_as_it_was() {
    let mut bus = Bus::new(1);
    bus.states[0].config.nodes_max = 10;
    let honest = [20, 21].map(|at| (at, bus.connect_stranger(0, at)));
    let quiet = nowhere(42);
    for (at, link) in honest {
        say(&mut bus, 0, link, &nowhere(at));
        say(&mut bus, 0, link, &quiet);
    }
    let held = |bus: &Bus| bus.states[0].liveness(&keys(42).node_id());
    assert_eq!(held(&bus), Some(Liveness::Alive));
    bus.pass(Duration::from_millis(10));
    for crowd in 90..100 {
        let link = bus.connect_stranger(0, crowd);
        say(&mut bus, 0, link, &nowhere(crowd));
    }
    assert_eq!(held(&bus), None);
    let node = keys(42).node_id();
    assert!(bus.take_events(0).contains(&Event::NodeDown { node }));
    bus.states[0].config.nodes_max = 100;
    for (_, link) in honest {
        say(&mut bus, 0, link, &quiet);
    }
    assert_eq!(held(&bus), Some(Liveness::Alive));
}

/// Lets time pass with heartbeats from nodes that the test plays.
fn beat(bus: &mut Bus, links: &[(usize, LinkId)], seconds: u32) {
    for second in 0..seconds {
        for (at, link) in links {
            let beat = wire::Beat {
                counter: second + 1,
                echo: 0,
                held_ms: 0,
                interval_ms: 1_000,
                hlc: 0,
                root: [7; 16],
            };
            let bytes = wire::beat(&beat);
            bus.tell(*at, In::Frame { link: *link, bytes });
        }
        live(bus, 1);
    }
}

#[test]
fn a_crowd_that_comes_at_once_does_not_choose_the_neighbours() {
    let mut bus = Bus::mesh(4);
    live(&mut bus, 60);
    let mut links = Vec::new();
    for crowd in 90..200 {
        let link = bus.connect_stranger(0, crowd);
        say(&mut bus, 0, link, &nowhere(crowd));
        links.push((0, link));
    }
    assert!(!bus.states[0].full);
    beat(&mut bus, &links, 60);
    for other in 1..4 {
        assert!(bus.states[0].is_linked(&Key::of(&bus.id(other))), "{other}");
    }
}

#[test]
fn those_that_left_confirm_no_accusation_and_an_accused_node_has_time_to_answer() {
    for (leave, soon) in [(true, false), (false, true)] {
        let mut bus = Bus::new(1);
        for at in [20, 21] {
            let link = bus.connect_stranger(0, at);
            say(&mut bus, 0, link, &nowhere(at));
            say(&mut bus, 0, link, &nowhere(42));
        }
        let node = keys(42).node_id();
        let life = bus.states[0].record(&node).expect("it").record().life();
        let mut all = Vec::new();
        for at in 90..93_u8 {
            let link = bus.connect_stranger(0, at);
            let mut own = nowhere(at).record().clone();
            own.left = leave;
            say(&mut bus, 0, link, &sign(at, own));
            let by = (&keys(at).node_id(), &bus.crypto(at.into()) as _);
            all.push(Accusation::sign(Key::of(&node), life, Doubt::Refused, by));
        }
        let link = bus.connect_stranger(0, 22);
        let bytes = wire::accusations(&all);
        bus.tell(0, In::Frame { link, bytes });
        let held = |bus: &Bus| bus.states[0].liveness(&node);
        assert_eq!(held(&bus), Some(Liveness::Suspect));
        bus.pass(Duration::from_millis(250));
        assert_eq!(held(&bus), Some(Liveness::Suspect));
        bus.pass(Duration::from_millis(250));
        assert_eq!(held(&bus) == Some(Liveness::Dead), soon, "left: {leave}");
    }
}

#[test]
fn what_the_only_neighbour_said_is_forgotten_when_it_is_gone() {
    let mut bus = Bus::new(2);
    let liar = bus.connect_stranger(0, 9);
    for fake in 90..150 {
        say(&mut bus, 0, liar, &nowhere(fake));
    }
    beat(&mut bus, &[(0, liar)], 7);
    assert_eq!(bus.states[0].len(), 60);
    bus.tell(0, In::Disconnected { link: liar });
    bus.connect(0, 1);
    live(&mut bus, 13);
    let fakes = |bus: &Bus| {
        let there = |fake: &u8| bus.states[0].record(&keys(*fake).node_id()).is_some();
        (90..150).filter(there).count()
    };
    assert_eq!(fakes(&bus), 0);
    assert_eq!(bus.liveness(0, 1), Some(Liveness::Alive));
}

#[test]
fn after_a_restart_those_that_were_met_are_reached_among_many_that_never_were() {
    let mut bus = Bus::mesh(2);
    let liars = [240, 241].map(|at| bus.connect_stranger(0, at));
    for crowd in 60..=220 {
        for link in liars {
            say(&mut bus, 0, link, &sign(crowd, record(crowd, 1, 1)));
        }
    }
    let known = bus.states[0].known();
    assert!(known.records.len() > 150);
    assert!(known.met.contains(&bus.id(1)) && known.met.len() < 5);
    let back = Known::decode(&known.encode(), &bus.crypto(0)).expect("what was written");
    assert_eq!(back, known);
    bus.restart(0, 2, back);
    bus.dials.clear();
    // Nobody answers, and nobody refuses: what is under way stays there.
    bus.pass(Duration::from_secs(80));
    let to = |bus: &Bus, at: u8| {
        let dials = bus.dials.iter();
        dials
            .filter(|(by, _, addrs)| *by == 0 && addrs[0].addr == addr(at))
            .count()
    };
    let crowd: usize = (60..=220).map(|at| to(&bus, at)).sum();
    assert!(
        (1..=40).contains(&crowd),
        "{crowd} dials to nodes never met"
    );
    assert!(to(&bus, 1) > 0);
}

#[test]
fn a_crowd_that_only_one_node_has_met_is_gone_within_minutes() {
    let mut bus = Bus::mesh(3);
    for ghost in 90..200 {
        let link = bus.connect_stranger(0, ghost);
        say(&mut bus, 0, link, &nowhere(ghost));
        part(&mut bus, 0, link);
    }
    assert!(!bus.states[0].full);
    live(&mut bus, 180);
    assert!(bus.states[0].full);
    assert_eq!(bus.states[0].present(), 3);
}
