//! Presence needs evidence: a record makes no node, and one that lies convinces nobody.

use std::sync::Arc;
use std::time::Duration;

use openfang_id::{NetAddr, NodeId, NodeSeed, Transport};
use proptest::prelude::*;

use super::{Bus, keys, record, sign, told};
use crate::Instant;
use crate::roster::accusation::{Accusation, Doubt};
use crate::roster::config::{
    EQUIVOCATIONS_AT_ONCE, LONE_AFTER, LONE_WORD_MAX, PROBES_EACH, STRANGERS_BYTES_MAX,
    STRANGERS_MAX,
};
use crate::roster::strangers::Strangers;
use crate::roster::wire::{self, Standing};
use crate::roster::{
    DialFailure, Ed25519, Event, In, Key, LinkId, Liveness, RECORDS_BYTES_MAX, Record,
    SignedRecord, Version,
};

/// A record of a node that does not exist, as high as records get.
fn made_up(number: u32) -> SignedRecord {
    let mut seed = [0xfa; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let keys = NodeSeed::from_bytes(seed).keys();
    let [_, _, high, low] = number.to_be_bytes();
    let record = Record {
        origin: keys.node_id(),
        version: Version {
            incarnation: u64::MAX,
            sequence: u64::MAX,
        },
        refutation: u32::MAX,
        addrs: vec![NetAddr::from_socket(
            Transport::Tcp,
            ([198, 51, high, low], 9).into(),
        )],
        ..record(0, 1, 1)
    };
    SignedRecord::sign(record, &Ed25519(keys.identity)).expect("a record within its bounds")
}

fn mesh(count: u8) -> Bus {
    let mut bus = Bus::new(count);
    for from in 0..usize::from(count) {
        for to in from + 1..usize::from(count) {
            bus.connect(from, to);
        }
    }
    bus.pass(Duration::from_secs(6));
    bus
}

/// Says on a link that these nodes are there.
fn claim(bus: &mut Bus, at: usize, link: LinkId, records: &[SignedRecord]) {
    for part in records.chunks(200) {
        let part: Vec<_> = part.iter().map(|record| (record, Standing::SURE)).collect();
        let (bytes, _) = wire::records(&part);
        bus.tell(at, In::Frame { link, bytes });
    }
}

/// How many dials so far lead to nodes that do not exist; they fail.
fn vain_dials(bus: &mut Bus) -> usize {
    let vain = |addrs: &[openfang_id::PeerAddr]| addrs[0].addr.to_string().contains("198.51.");
    let count = bus.dials.iter().filter(|(_, _, addrs)| vain(addrs)).count();
    bus.refuse_dials(DialFailure::Timeout);
    count
}

#[test]
fn the_records_of_one_liar_make_no_nodes() {
    let mut bus = mesh(3);
    let links: Vec<LinkId> = (0..3).map(|at| bus.connect_stranger(at, 9)).collect();
    let fakes: Vec<SignedRecord> = (0..1_500).map(made_up).collect();
    let before: Vec<usize> = bus.states.iter().map(|state| state.len()).collect();
    bus.take_events(0);
    let mut dials = 0;
    for _second in 0..60 {
        for (at, link) in links.iter().enumerate() {
            claim(&mut bus, at, *link, &fakes);
        }
        bus.pass(Duration::from_secs(1));
        dials += vain_dials(&mut bus);
    }
    for (at, len) in before.into_iter().enumerate() {
        let state = &bus.states[at];
        assert_eq!(state.len(), len, "node {at}");
        assert_eq!(state.known().records.len(), len, "node {at}");
        assert!(state.strangers.len() <= STRANGERS_MAX);
        assert!(state.strangers.bytes() <= STRANGERS_BYTES_MAX);
        assert!(state.full);
        for other in (0..3).filter(|other| *other != at) {
            assert_eq!(bus.liveness(at, other), Some(Liveness::Alive));
            assert!(state.is_linked(&Key::of(&bus.id(other))), "node {at}");
        }
    }
    assert!(dials <= 3 * 32, "{dials} dials to nobody");
    let told = bus.take_events(0);
    let about = |event: &Event| matches!(event, Event::NodeUp { .. } | Event::Recorded { .. });
    assert!(!told.iter().any(about), "{told:?}");
}

#[test]
fn a_node_is_there_when_two_neighbours_say_so_and_not_when_one_does() {
    let mut bus = Bus::new(1);
    let links = [20, 21, 22].map(|peer| bus.connect_stranger(0, peer));
    let record = sign(5, record(5, 1, 1));
    let (heard, _) = wire::records(&[(&record, Standing::HEARD)]);
    let sure = told(&record);
    for (link, bytes, expected) in [
        (links[0], heard.clone(), None),
        (links[0], sure.clone(), None),
        // The same one again, and one that has only heard of it.
        (links[0], sure.clone(), None),
        (links[1], heard, None),
        (links[2], sure, Some(Liveness::Alive)),
    ] {
        bus.tell(0, In::Frame { link, bytes });
        assert_eq!(bus.liveness(0, 5), expected);
    }
    let node = bus.id(5);
    let told = bus.take_events(0);
    assert!(told.contains(&Event::NodeUp {
        node,
        incarnation: 1
    }));
}

#[test]
fn neighbours_that_are_gone_vouch_for_nobody() {
    let mut bus = Bus::new(1);
    let first = bus.connect_stranger(0, 20);
    bus.connect_stranger(0, 22);
    let bytes = told(&sign(5, record(5, 1, 1)));
    let again = bytes.clone();
    bus.tell(0, In::Frame { link: first, bytes });
    bus.tell(0, In::Disconnected { link: first });
    let link = bus.connect_stranger(0, 21);
    bus.tell(0, In::Frame { link, bytes: again });
    assert_eq!(bus.liveness(0, 5), None);
}

#[test]
fn of_many_neighbours_one_in_eight_must_vouch() {
    let mut bus = Bus::new(1);
    let links: Vec<LinkId> = (20..52).map(|peer| bus.connect_stranger(0, peer)).collect();
    let record = sign(5, record(5, 1, 1));
    for (nth, link) in links.into_iter().enumerate().take(4) {
        assert_eq!(bus.liveness(0, 5), None, "{nth} vouch");
        let bytes = told(&record);
        bus.tell(0, In::Frame { link, bytes });
    }
    assert_eq!(bus.liveness(0, 5), Some(Liveness::Alive));
}

#[test]
fn a_link_is_evidence_enough() {
    let mut bus = Bus::new(1);
    let link = bus.connect_stranger(0, 20);
    let bytes = told(&sign(5, record(5, 1, 1)));
    bus.tell(0, In::Frame { link, bytes });
    assert_eq!(bus.liveness(0, 5), None);
    bus.connect_stranger(0, 5);
    assert_eq!(bus.liveness(0, 5), Some(Liveness::Alive));
}

#[test]
fn a_newcomer_vouches_for_nobody_it_has_not_met() {
    let mut bus = mesh(3);
    let fakes: Vec<SignedRecord> = (0..50).map(made_up).collect();
    for at in 0..3 {
        let link = bus.connect_stranger(at, 9);
        claim(&mut bus, at, link, &fakes);
    }
    // Node 2 starts anew, and hears of the fakes before anything else.
    bus.restart(2, 2, crate::roster::Known::default());
    let link = bus.connect_stranger(2, 9);
    claim(&mut bus, 2, link, &fakes);
    bus.connect(2, 0);
    bus.connect(2, 1);
    for _second in 0..30 {
        bus.pass(Duration::from_secs(1));
        vain_dials(&mut bus);
    }
    for at in 0..3 {
        for fake in &fakes {
            assert_eq!(bus.states[at].liveness(&fake.record().origin), None);
        }
        assert_eq!(bus.states[at].len(), 2, "node {at}");
    }
}

#[test]
fn a_stranger_that_is_not_there_is_tried_a_few_times_and_left_alone() {
    let mut bus = mesh(2);
    let link = bus.connect_stranger(0, 9);
    claim(&mut bus, 0, link, &[made_up(1)]);
    let mut dials = 0;
    for _second in 0..290 {
        bus.pass(Duration::from_secs(1));
        dials += vain_dials(&mut bus);
    }
    assert_eq!(dials, usize::try_from(PROBES_EACH).expect("few"));
    assert_eq!(bus.states[0].len(), 1);
}

#[test]
fn an_honest_newcomer_is_tried_although_a_liar_has_filled_the_waiting_room() {
    let mut bus = mesh(2);
    let liar = bus.connect_stranger(0, 9);
    let fakes: Vec<SignedRecord> = (0..1_100).map(made_up).collect();
    claim(&mut bus, 0, liar, &fakes);
    assert_eq!(bus.states[0].strangers.len(), STRANGERS_MAX);
    for _second in 0..30 {
        bus.pass(Duration::from_secs(1));
        vain_dials(&mut bus);
    }
    let newcomer = sign(77, record(77, 1, 1));
    let link = bus.connect_stranger(0, 20);
    claim(&mut bus, 0, link, &[newcomer]);
    bus.pass(Duration::from_secs(3));
    let node = Some(keys(77).node_id());
    let tried = bus.dials.iter().any(|(_, _, addrs)| addrs[0].node == node);
    assert!(tried, "{:?}", bus.dials);
}

#[test]
fn those_whose_acquaintance_is_gone_make_room_for_those_of_neighbours() {
    let mut bus = Bus::new(1);
    let honest = [20, 21].map(|peer| bus.connect_stranger(0, peer));
    let fakes: Vec<SignedRecord> = (0..1_100).map(made_up).collect();
    claim(&mut bus, 0, honest[0], &fakes[..8]);
    for (liar, told) in (30..).zip(fakes[8..].chunks(5)) {
        let link = bus.connect_stranger(0, liar);
        claim(&mut bus, 0, link, told);
        bus.tell(0, In::Disconnected { link });
    }
    assert_eq!(bus.states[0].strangers.len(), STRANGERS_MAX);
    let newcomer = sign(5, record(5, 1, 1));
    for link in honest {
        claim(&mut bus, 0, link, std::slice::from_ref(&newcomer));
    }
    assert_eq!(bus.liveness(0, 5), Some(Liveness::Alive));
}

#[test]
fn the_only_neighbour_is_believed_after_a_while_for_a_few_and_no_longer_than_it_is_the_only_one() {
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    let fakes: Vec<SignedRecord> = (0..200).map(made_up).collect();
    let [link] = bus.states[0].links.ids()[..] else {
        panic!("one link")
    };
    claim(&mut bus, 0, link, &fakes);
    bus.pass(LONE_AFTER - Duration::from_secs(1));
    assert_eq!(bus.states[0].len(), 1);
    bus.pass(Duration::from_secs(3));
    let known = |bus: &Bus, at: usize| bus.states[at].len();
    assert_eq!(known(&bus, 0), 1 + LONE_WORD_MAX);
    assert!(bus.states[0].full);
    assert_eq!(
        bus.states[0].known().records.len(),
        1,
        "not written to disk"
    );
    // Others hear nothing of it.
    bus.connect(0, 2);
    bus.connect(1, 2);
    bus.pass(Duration::from_secs(8));
    assert_eq!(known(&bus, 2), 2);
    bus.pass(Duration::from_secs(5));
    assert_eq!(known(&bus, 0), 2);
}

#[test]
fn who_had_other_neighbours_a_moment_ago_does_not_believe_the_last_one() {
    let mut bus = Bus::new(3);
    bus.connect(0, 1);
    bus.connect(0, 2);
    bus.pass(Duration::from_secs(2));
    let [one, other] = bus.states[0].links.ids()[..] else {
        panic!("two links")
    };
    bus.tell(0, In::Disconnected { link: other });
    let fakes: Vec<SignedRecord> = (0..20).map(made_up).collect();
    claim(&mut bus, 0, one, &fakes);
    for _second in 0..100 {
        bus.pass(Duration::from_secs(1));
        vain_dials(&mut bus);
    }
    assert_eq!(bus.states[0].links.peers(), 1);
    assert_eq!(bus.states[0].len(), 2, "as long as they may come back");
}

#[test]
fn nodes_on_the_word_of_others_never_cost_a_working_link() {
    let mut bus = mesh(3);
    for number in 0..100 {
        bus.vouch(0, &made_up(number));
    }
    assert!(!bus.states[0].full, "two lie together");
    for _second in 0..60 {
        bus.pass(Duration::from_secs(1));
        vain_dials(&mut bus);
    }
    for other in [1, 2] {
        assert!(bus.states[0].is_linked(&Key::of(&bus.id(other))));
        assert_eq!(bus.liveness(0, other), Some(Liveness::Alive));
    }
}

#[test]
fn an_accusation_by_a_node_that_nobody_has_met_is_ignored() {
    let mut bus = mesh(3);
    let link = bus.connect_stranger(0, 9);
    let target = Key::of(&bus.id(1));
    let life = bus.states[0].record(&bus.id(1)).expect("a record");
    let life = life.record().life();
    for at in 20..26 {
        claim(&mut bus, 0, link, &[sign(at, record(at, 1, 1))]);
        let by = keys(at).node_id();
        let crypto = bus.crypto(at.into());
        let accusation = Accusation::sign(target, life, Doubt::Refused, (&by, &crypto));
        let bytes = wire::accusations(&[accusation]);
        bus.tell(0, In::Frame { link, bytes });
    }
    let view = bus.states[0].view();
    assert_eq!(view.nodes.len(), 3);
    assert!(
        bus.states[0]
            .table
            .get(&target)
            .expect("it")
            .accusations
            .is_empty()
    );
}

/// A record of this many bytes, or a few less.
fn large(at: u8, sequence: u64, bytes: usize) -> SignedRecord {
    let mut large = record(at, 1, sequence);
    large.agents = (0..u8::try_from(bytes / 1_200).expect("few agents"))
        .map(|number| {
            let mut agent = super::ad(number);
            agent.description = "x".repeat(1_024);
            agent.tools = vec!["y".repeat(60)];
            agent
        })
        .collect();
    large.agents.sort_by_key(|agent| agent.id);
    sign(at, large)
}

#[test]
fn a_roster_full_of_those_never_met_makes_room_for_neighbours() {
    let mut bus = mesh(2);
    let size = 240_000;
    let mut filled = 0;
    // Two that lie together are believed, up to the bound.
    let liars = [20, 21].map(|liar| bus.connect_stranger(0, liar));
    for number in 0..300_u32 {
        let mut fake = made_up(number).record().clone();
        fake.agents = large(1, 1, size).record().agents.clone();
        let mut seed = [0xfa; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        let crypto = Ed25519(NodeSeed::from_bytes(seed).keys().identity);
        let fake = SignedRecord::sign(fake, &crypto).expect("within its bounds");
        filled += fake.bytes().len();
        for link in liars {
            claim(&mut bus, 0, link, std::slice::from_ref(&fake));
        }
    }
    assert!(filled > RECORDS_BYTES_MAX);
    let held = bus.states[0].table.bytes();
    assert!(held + size > RECORDS_BYTES_MAX, "{filled} {held}");
    let link = bus.connect_stranger(0, 9);
    // A neighbour's record grows, and a new neighbour has a large one.
    let grown = large(1, 50, size);
    claim(&mut bus, 0, link, std::slice::from_ref(&grown));
    let held = |bus: &Bus, of: &NodeId| bus.states[0].record(of).map(|held| held.version());
    assert_eq!(held(&bus, &bus.id(1)), Some(grown.version()));
    let own = bus.connect_stranger(0, 30);
    let newcomer = large(30, 1, size);
    claim(&mut bus, 0, own, std::slice::from_ref(&newcomer));
    assert_eq!(held(&bus, &keys(30).node_id()), Some(newcomer.version()));
    assert!(bus.states[0].table.bytes() <= RECORDS_BYTES_MAX);
}

#[test]
fn two_records_of_one_version_are_reported_once_and_few_in_all() {
    let mut bus = Bus::new(1);
    let mut reports = 0;
    for at in 20..60 {
        let link = bus.connect_stranger(0, at);
        let mut all: Vec<SignedRecord> = Vec::new();
        for number in 0..6 {
            let mut one = record(at, 1, 1);
            one.software = format!("version {number}");
            all.push(sign(at, one));
        }
        claim(&mut bus, 0, link, &all);
        let told = bus.take_events(0);
        let said = |event: &&Event| matches!(event, Event::RecordEquivocation { .. });
        let said = told.iter().filter(said).count();
        assert!(said <= 1, "{said} of one origin");
        reports += said;
    }
    assert_eq!(
        reports,
        usize::try_from(EQUIVOCATIONS_AT_ONCE).expect("few")
    );
}

/// What happens in a waiting room.
#[derive(Debug, Clone)]
enum Step {
    Insert(u32, u8),
    Vouch(u32, u8),
    Remove(u32),
    Probe,
    Fail(u32),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..40_u32, 0..4_u8).prop_map(|(who, by)| Step::Insert(who, by)),
        2 => (0..40_u32, 0..4_u8).prop_map(|(who, by)| Step::Vouch(who, by)),
        1 => (0..40_u32).prop_map(Step::Remove),
        2 => Just(Step::Probe),
        1 => (0..40_u32).prop_map(Step::Fail),
        1 => (1..400_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_waiting_room_keeps_its_books(steps in proptest::collection::vec(step(), 1..200)) {
        let records: Vec<Arc<SignedRecord>> = (0..40).map(|at| Arc::new(made_up(at))).collect();
        let key = |who: u32| Key::of(&records[usize::try_from(who).expect("small")].record().origin);
        let by = |by: u8| Key::of(&keys(by).node_id());
        let mut room = Strangers::default();
        let mut now = Instant(1_000);
        for step in steps {
            match step {
                Step::Insert(who, from) if room.version(&key(who)).is_none() => {
                    let record = records[usize::try_from(who).expect("small")].clone();
                    prop_assert!(room.insert(record, by(from), now, now));
                }
                Step::Insert(..) => {}
                Step::Vouch(who, from) => drop(room.vouch(&key(who), by(from), true)),
                Step::Remove(who) => drop(room.remove(&key(who))),
                Step::Probe => drop(room.next_probe(now)),
                Step::Fail(who) => room.failed(&key(who), now),
                Step::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    room.expire(now);
                }
            }
            let held = (0..40).filter(|who| room.version(&key(*who)).is_some());
            let bytes: usize = held
                .clone()
                .map(|who| records[usize::try_from(who).expect("small")].bytes().len())
                .sum();
            prop_assert_eq!(room.len(), held.count());
            prop_assert_eq!(room.bytes(), bytes);
            // Whoever is due is there.
            prop_assert!(room.probe_at(now).is_none() || room.len() > 0);
        }
    }
}
