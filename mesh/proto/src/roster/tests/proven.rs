//! Evidence between nodes: believed by all, whoever brings it; and what does not prove itself is not.

use std::time::Duration;

use openfang_audit::cosign::{Cosigner, Role};
use openfang_audit::evidence::{Evidence, EvidenceKind};
use openfang_audit::note::{Note, Verifier};
use openfang_audit::tree::{leaf_hash, root_of};
use openfang_audit::{Checkpoint, Hash, Origin, SignedHead};

use super::{Bus, keys, record, sign};
use crate::heads::{HeadView, Proof, Why};
use crate::roster::{Event, In, Key, Known, Liveness, Offence, wire};

/// A head of node `of` that the node has cosigned itself at a time; entries from `fork` on are
/// another story.
fn head(of: u8, size: u64, fork: u64, time: u64) -> SignedHead {
    let keys = keys(of);
    let leaves: Vec<Hash> = (0..size)
        .map(|at| leaf_hash(format!("{at} {}", at >= fork).as_bytes()))
        .collect();
    let checkpoint = Checkpoint {
        origin: Origin::of(&keys.node_id(), 1),
        size,
        root: root_of(&leaves),
    };
    let cosigner = Cosigner::of(&keys.node_id(), Role::Witness, keys.witness.clone());
    let line = cosigner.cosign(&(&checkpoint).into(), time);
    let mut head = SignedHead::sign(checkpoint, &keys.log);
    let mut note: Note = head.note.parse().expect("a note");
    note.add(line.expect("a time")).expect("room");
    head.note = note.to_string();
    head
}

/// Evidence that node `of` has signed two roots.
fn evidence(of: u8) -> Evidence {
    let keys = keys(of);
    let origin = Origin::of(&keys.node_id(), 1);
    let key = Verifier::new(origin.as_str(), keys.log.verifying_key()).expect("a name");
    let [one, other] = [99, 4].map(|fork| head(of, 9, fork, 1).note.parse().expect("a note"));
    Evidence::equivocation(&key, &one, &other).expect("evidence")
}

fn frames(of: u8, bytes: &[u8]) -> Vec<u8> {
    let proof: Proof = bytes.into();
    let mut frames = wire::proofs(&[(Key::of(&keys(of).node_id()), proof)]);
    frames.pop().expect("a frame")
}

/// Which of the first nodes hold node `of` for convicted.
fn convinced(bus: &Bus, of: usize) -> Vec<usize> {
    let knows = |at: &usize| {
        let view = bus.states[*at].view();
        view.node(&bus.id(of))
            .is_some_and(|node| node.convicted.is_some())
    };
    (0..bus.states.len()).filter(knows).collect()
}

fn convictions(events: &[Event]) -> usize {
    let convicted = |event: &&Event| matches!(event, Event::Convicted { .. });
    events.iter().filter(convicted).count()
}

#[test]
fn evidence_convicts_for_everyone_the_accused_included_whoever_brings_it() {
    let mut bus = Bus::mesh(32);
    let evidence = evidence(1);
    // One that is no node of the mesh brings it to one node.
    let link = bus.connect_stranger(7, 200);
    let bytes = frames(1, &evidence.to_bytes());
    bus.tell(7, In::Frame { link, bytes });
    bus.pass(Duration::from_secs(5));
    assert_eq!(convinced(&bus, 1), (0..32).collect::<Vec<_>>());
    for at in 0..32 {
        let view = bus.states[at].view();
        let node = view.node(&bus.id(1)).expect("known");
        let conviction = node.convicted.expect("convicted");
        assert_eq!(conviction.evidence, evidence.id());
        let why = Why::TwoRoots;
        assert!(matches!(node.head, HeadView::Inconsistent { why: held, .. } if held == why));
        assert_eq!(convictions(&bus.take_events(at)), 1, "node {at}");
    }
    // All agree, and nothing more is said of it.
    bus.sent.clear();
    bus.pass(Duration::from_secs(20));
    let quiet = bus.sent.iter().all(|kind| matches!(kind, 1 | 6));
    assert!(quiet, "{:?}", bus.sent);
}

#[test]
fn who_comes_later_hears_of_it_and_a_restart_forgets_nothing() {
    let mut bus = Bus::new(4);
    bus.connect(0, 1);
    bus.connect(1, 2);
    bus.connect(2, 0);
    bus.pass(Duration::from_secs(1));
    let file = evidence(1).to_bytes();
    bus.tell(0, In::AddEvidence(vec![b"rubbish".to_vec(), file.clone()]));
    bus.pass(Duration::from_secs(2));
    assert_eq!(convinced(&bus, 1), [0, 1, 2]);
    for at in [0, 1, 2] {
        bus.connect(3, at);
    }
    bus.pass(Duration::from_secs(5));
    assert_eq!(convinced(&bus, 1), [0, 1, 2, 3]);
    // With its roster gone, the file waits for the record of the accused.
    bus.restart(0, 2, Known::default());
    bus.tell(0, In::AddEvidence(vec![file]));
    assert_eq!(convinced(&bus, 1), [1, 2, 3], "node 0 knows of no node 1");
    bus.connect(1, 0);
    assert!(convinced(&bus, 1).contains(&0));
}

#[test]
fn two_heads_make_evidence_that_all_take_over_and_the_roster_on_disk_makes_it_again() {
    let mut bus = Bus::mesh(4);
    for fork in [99, 4] {
        bus.tell(1, In::SetHead(head(1, 9, fork, 5)));
        bus.pass(Duration::from_secs(1));
    }
    bus.pass(Duration::from_secs(3));
    assert_eq!(convinced(&bus, 1), [0, 1, 2, 3]);
    let known = bus.states[0].known();
    bus.restart(0, 2, known);
    assert!(convinced(&bus, 1).contains(&0));
    assert_eq!(convictions(&bus.take_events(0)), 2, "one in each run");
}

#[test]
fn going_back_is_proved_by_the_own_cosignatures_of_the_log() {
    let mut bus = Bus::mesh(4);
    bus.tell(1, In::SetHead(head(1, 20, 99, 100)));
    bus.pass(Duration::from_secs(1));
    bus.tell(1, In::SetHead(head(1, 12, 99, 160)));
    bus.pass(Duration::from_secs(3));
    assert_eq!(convinced(&bus, 1), [0, 1, 2, 3]);
    let view = bus.states[3].view();
    let conviction = view.node(&bus.id(1)).and_then(|node| node.convicted);
    assert_eq!(conviction.expect("it").kind, EvidenceKind::Cosigner);
}

#[test]
fn an_old_head_that_comes_again_convicts_nobody() {
    let mut bus = Bus::mesh(4);
    for size in [5, 9, 20] {
        bus.tell(1, In::SetHead(head(1, size, 99, 100 + size)));
        bus.pass(Duration::from_secs(1));
    }
    let link = bus.connect_stranger(0, 200);
    let of = Key::of(&bus.id(1));
    for size in [9, 5, 7] {
        let old = head(1, size, 99, 100 + size);
        let bytes = wire::heads([(of, old.note.as_str())].into_iter());
        bus.tell(0, In::Frame { link, bytes });
    }
    bus.pass(Duration::from_secs(5));
    assert!(convinced(&bus, 1).is_empty());
}

#[test]
fn evidence_that_proves_nothing_convicts_nobody_and_cuts_its_bearer_off() {
    let good = String::from_utf8(evidence(1).to_bytes()).expect("text");
    let one = head(1, 9, 99, 1).note.replace('\n', "\\n");
    let only_log = |note: &str| {
        let lines: Vec<&str> = note.split("\\n").take(5).collect();
        format!("{}\\n", lines.join("\\n"))
    };
    let one = only_log(&one);
    let twice = {
        let start = good.split("\"a\":").next().expect("a beginning").to_owned();
        format!("{start}\"a\":\"{one}\",\"b\":\"{one}\"}}")
    };
    let forged = [
        good.replacen("\\n9\\n", "\\n8\\n", 1),
        good.replacen("equivocation", "fork", 1),
        format!(" {good}"),
        String::new(),
        twice,
    ];
    for bytes in forged {
        let mut bus = Bus::mesh(2);
        let link = bus.connect_stranger(0, 200);
        let frame = frames(1, bytes.as_bytes());
        bus.tell(0, In::Frame { link, bytes: frame });
        let node = keys(200).node_id();
        let offence = Offence::ForgedEvidence;
        let told = bus.take_events(0);
        assert!(
            told.contains(&Event::Violation { node, offence }),
            "{bytes}"
        );
        assert!(convinced(&bus, 1).is_empty());
    }
}

#[test]
fn a_file_of_a_byte_too_many_is_no_message() {
    let mut bus = Bus::mesh(2);
    let link = bus.connect_stranger(0, 200);
    let mut bytes = vec![11, 0, 1];
    bytes.extend_from_slice(bus.id(1).as_bytes());
    bytes.extend_from_slice(&4_097_u16.to_be_bytes());
    bytes.extend(std::iter::repeat_n(b'x', 4_097));
    bus.tell(0, In::Frame { link, bytes });
    let (node, offence) = (keys(200).node_id(), Offence::Malformed);
    assert!(
        bus.take_events(0)
            .contains(&Event::Violation { node, offence })
    );
}

#[test]
fn evidence_by_keys_of_nobody_here_is_passed_over() {
    let mut bus = Bus::mesh(2);
    let link = bus.connect_stranger(0, 200);
    // Two heads that name the log of node 1, by a key that is not its own.
    let origin = Origin::of(&bus.id(1), 1);
    let other = keys(9).log;
    let key = Verifier::new(origin.as_str(), other.verifying_key()).expect("a name");
    let [one, two] = [1, 2].map(|root| {
        let checkpoint = Checkpoint {
            origin: origin.clone(),
            size: 9,
            root: Hash::from_bytes([root; 32]),
        };
        SignedHead::sign(checkpoint, &other)
            .note
            .parse()
            .expect("a note")
    });
    let foreign = Evidence::equivocation(&key, &one, &two).expect("evidence");
    let bytes = frames(1, &foreign.to_bytes());
    bus.tell(0, In::Frame { link, bytes });
    // True evidence about another than the message says, and about one that is no node here.
    for accused in [0, 9] {
        let bytes = frames(accused, &evidence(1).to_bytes());
        bus.tell(0, In::Frame { link, bytes });
    }
    let bytes = frames(9, &evidence(9).to_bytes());
    bus.tell(0, In::Frame { link, bytes });
    bus.pass(Duration::from_secs(3));
    let told = bus.take_events(0);
    let blamed = |event: &Event| matches!(event, Event::Violation { .. } | Event::Convicted { .. });
    assert!(!told.iter().any(blamed), "{told:?}");
    // From the own disk it is not taken either: the log of node 1 has another key.
    bus.tell(0, In::AddEvidence(vec![foreign.to_bytes()]));
    assert!(convinced(&bus, 1).is_empty());
    assert!(convinced(&bus, 0).is_empty());
}

#[test]
fn evidence_against_one_that_has_left_or_died_is_taken() {
    let mut bus = Bus::mesh(4);
    bus.tell(1, In::Leave);
    bus.kill(1);
    bus.pass(Duration::from_secs(2));
    assert_eq!(bus.liveness(0, 1), Some(Liveness::Left));
    bus.freeze(1);
    let bytes = frames(1, &evidence(1).to_bytes());
    let link = bus.connect_stranger(0, 200);
    bus.tell(0, In::Frame { link, bytes });
    bus.pass(Duration::from_secs(3));
    assert_eq!(convinced(&bus, 1), [0, 2, 3]);
}

#[test]
fn a_flood_of_evidence_is_neither_read_nor_answered_nor_passed_on() {
    let mut bus = Bus::mesh(3);
    let link = bus.connect_stranger(0, 200);
    let bytes = frames(1, &evidence(1).to_bytes());
    bus.tell(
        0,
        In::Frame {
            link,
            bytes: bytes.clone(),
        },
    );
    bus.pass(Duration::from_secs(3));
    bus.take_events(0);
    bus.sent.clear();
    for _again in 0..1_000 {
        let bytes = bytes.clone();
        bus.tell(0, In::Frame { link, bytes });
    }
    // Repeated with an altered end, it is not even decoded.
    let bytes = frames(1, b"{}");
    bus.tell(0, In::Frame { link, bytes });
    assert!(bus.sent.iter().all(|kind| *kind != 11), "{:?}", bus.sent);
    assert_eq!(convictions(&bus.take_events(0)), 0);
    // Lists of convicted nodes are answered a few times, each with nothing.
    for _again in 0..1_000 {
        let key = [Key::of(&bus.id(1))];
        let bytes = wire::convicted(false, &key);
        bus.tell(0, In::Frame { link, bytes });
    }
    assert!(!bus.sent.contains(&11));
    // Evidence that convicts nobody here is looked at 64 times.
    let (mut taken, mut cut) = (0, false);
    for number in 100..190 {
        let told = sign(number, record(number, 1, 1));
        bus.vouch(0, &told);
        let bytes = frames(number, &evidence(1).to_bytes());
        bus.tell(0, In::Frame { link, bytes });
        let state = &bus.states[0];
        let spent = state.links.get(link).expect("linked").evidence;
        cut |= !spent.has(crate::roster::config::EVIDENCE_PER_LINK, bus.now);
        taken += usize::from(!cut);
    }
    assert!(taken <= 64, "{taken}");
}

#[test]
fn messages_about_evidence_come_back_from_their_bytes() {
    let file = evidence(1).to_bytes();
    let key = Key::of(&keys(1).node_id());
    let frame = frames(1, &file);
    let expected = wire::Frame::Proofs(vec![(key, file.as_slice())]);
    assert_eq!(wire::Frame::decode(&frame), Ok(expected));
    let mut nodes = [1, 2, 3].map(|at| Key::of(&keys(at).node_id()));
    nodes.sort();
    let frame = wire::convicted(true, &nodes);
    let (reply, sorted) = (true, nodes.to_vec());
    let expected = wire::Frame::Convicted {
        reply,
        nodes: sorted,
    };
    assert_eq!(wire::Frame::decode(&frame), Ok(expected));
    nodes.swap(0, 1);
    assert!(wire::Frame::decode(&wire::convicted(true, &nodes)).is_err());
    for cut in 0..frame.len() {
        assert!(wire::Frame::decode(&frame[..cut]).is_err(), "cut at {cut}");
    }
}
