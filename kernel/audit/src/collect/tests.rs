//! Real witnesses behind a network that loses, and witnesses that lie.

use super::*;
use crate::cosign::Cosigner;
use crate::cosign::{LogName, Role};
use crate::testing::TestLog;
use crate::witness::{AddCheckpoint, MemoryStore, Trust, Witness};
use openfang_id::NodeSeed;
use proptest::prelude::*;

const NOW: Duration = Duration::from_secs(100);

/// Nodes that witness a log.
struct Peers(Vec<(NodeId, Witness<MemoryStore>)>);

impl Peers {
    fn new(count: u8) -> Self {
        let peer = |seed| {
            let keys = NodeSeed::from_bytes([seed; 32]).keys();
            let node = keys.node_id();
            let cosigner = Cosigner::of(&node, Role::Witness, keys.witness);
            (node, Witness::new(cosigner, MemoryStore::default()))
        };
        Self((0..count).map(|at| peer(100 + at)).collect())
    }

    fn keys(&self) -> Vec<(NodeId, CosignerKey)> {
        let peers = self.0.iter();
        peers
            .map(|(node, witness)| (*node, witness.cosigner().public().clone()))
            .collect()
    }

    /// Lets a witness answer an offer.
    fn ask(&self, log: &TestLog, offer: &Offer) -> (u16, Vec<u8>) {
        let proof = log.consistency(offer.old, offer.size);
        let request = AddCheckpoint::new(offer.old, proof, offer.note.clone());
        let body = request.expect("a request").to_string();
        let peer = self.0.iter().find(|(node, _)| *node == offer.node);
        let (_, witness) = peer.expect("a witness that exists");
        let trusted = |name: &LogName| {
            if *name == log.name() {
                Trust::Keys(vec![log.verifier()])
            } else {
                Trust::Unknown
            }
        };
        match witness.add_checkpoint(body.as_bytes(), &trusted, 7) {
            Ok(accepted) => (200, accepted.to_string().into_bytes()),
            Err(refusal) => (refusal.status(), refusal.body().into_bytes()),
        }
    }
}

fn head(log: &TestLog, size: u64) -> SignedHead {
    SignedHead {
        checkpoint: log.note(size).text().parse().expect("a checkpoint"),
        note: log.note(size).to_string(),
    }
}

fn answer(collector: &mut Collector, offer: &Offer, (status, body): (u16, &[u8])) -> Step {
    collector.on_answer((&offer.node, offer.size), (status, body), NOW)
}

/// Asks all who are due, until nobody is.
fn round(collector: &mut Collector, log: &TestLog, peers: &Peers) -> Vec<Step> {
    let mut steps = Vec::new();
    loop {
        let due = collector.due(NOW);
        if due.is_empty() {
            return steps;
        }
        for offer in due {
            let (status, body) = peers.ask(log, &offer);
            steps.push(answer(collector, &offer, (status, &body)));
        }
    }
}

#[test]
fn three_of_four_are_enough_and_the_fourth_is_told() {
    let (log, peers) = (TestLog::new(1, 40), Peers::new(4));
    let mut collector = Collector::new();
    collector.set_witnesses(peers.keys());
    assert_eq!(collector.due(NOW), [], "there is nothing to cosign");
    for size in [3, 9, 40] {
        collector.on_head(&head(&log, size));
        let steps = round(&mut collector, &log, &peers);
        let reached = steps.iter().filter(|step| **step == Step::Quorum).count();
        assert_eq!(reached, 2, "with the third, and anew with the fourth");
        let status = collector.status();
        assert_eq!((status.cosigned, status.needed), (4, 3));
        assert_eq!(status.strength, Strength::Prevents { liars: 1 });
        let quorum = status.quorum.expect("a quorum");
        assert_eq!((quorum.size, quorum.by.len()), (size, 4));
        for (_, key) in peers.keys() {
            assert_eq!(key.verify(&quorum.note), Ok(7));
        }
        assert_eq!(quorum.note.verify(&log.verifier()), Ok(()));
    }
    assert_eq!(collector.next(), None);
}

#[test]
fn a_process_that_starts_anew_learns_what_was_cosigned() {
    let (log, peers) = (TestLog::new(1, 40), Peers::new(1));
    let mut before = Collector::new();
    before.set_witnesses(peers.keys());
    before.on_head(&head(&log, 9));
    round(&mut before, &log, &peers);
    let mut collector = Collector::new();
    collector.set_witnesses(peers.keys());
    collector.on_head(&head(&log, 30));
    assert_eq!(
        round(&mut collector, &log, &peers),
        [Step::None, Step::Quorum]
    );
    assert_eq!(collector.status().strength, Strength::Detects);
}

#[test]
fn a_log_that_was_rolled_back_is_told_so() {
    let (log, peers) = (TestLog::new(1, 40), Peers::new(1));
    let mut before = Collector::new();
    before.set_witnesses(peers.keys());
    before.on_head(&head(&log, 40));
    round(&mut before, &log, &peers);
    let mut collector = Collector::new();
    collector.set_witnesses(peers.keys());
    collector.on_head(&head(&log, 30));
    let steps = round(&mut collector, &log, &peers);
    assert_eq!(steps, [Step::Behind { latest: 40 }]);
    let status = collector.status();
    assert_eq!(status.quorum, None);
    assert_eq!(status.witnesses[0].standing, Standing::Ahead(40));
}

#[test]
fn a_witness_that_answers_nonsense_is_asked_ever_more_rarely() {
    let (log, peers) = (TestLog::new(1, 40), Peers::new(1));
    let other = TestLog::new(2, 40);
    let mut foreign = Collector::new();
    foreign.set_witnesses(peers.keys());
    foreign.on_head(&head(&other, 5));
    let theirs = foreign.due(NOW).pop().expect("an offer");
    let (status, of_another) = peers.ask(&other, &theirs);
    assert_eq!(status, 200);
    let lies: [(u16, &[u8]); 9] = [
        (200, b""),
        (200, b"nothing"),
        (200, &of_another),
        (200, b"\xff\xfe"),
        (409, b"7"),
        (409, b"007\n"),
        (409, b"99999999999999999999999999\n"),
        (500, b""),
        (599, b"x"),
    ];
    for lie in lies {
        let mut collector = Collector::new();
        collector.set_witnesses(peers.keys());
        collector.on_head(&head(&log, 30));
        let mut now = NOW;
        for nth in 0..8_u32 {
            let offer = collector.due(now).pop().expect("an offer");
            let step = collector.on_answer((&offer.node, offer.size), lie, now);
            assert_eq!(step, Step::None, "{lie:?}");
            assert_eq!(collector.due(now), []);
            let next = collector.next().expect("another try");
            let pause = (RETRY * 2_u32.pow(nth)).min(RETRY_MAX);
            assert_eq!(next, now + pause);
            now = next;
        }
        assert_eq!(collector.status().cosigned, 0);
    }
}

#[test]
fn a_witness_that_is_busy_is_asked_again_soon_and_not_for_ever() {
    let (log, peers) = (TestLog::new(1, 40), Peers::new(1));
    let mut collector = Collector::new();
    collector.set_witnesses(peers.keys());
    collector.on_head(&head(&log, 30));
    let (mut now, mut pauses) = (NOW, Vec::new());
    for _nth in 0..120 {
        let offer = collector.due(now).pop().expect("an offer");
        collector.on_answer((&offer.node, offer.size), (503, b""), now);
        let next = collector.next().expect("another try");
        pauses.push(next - now);
        now = next;
    }
    assert!(pauses[0] < RETRY && pauses[..8].iter().all(|pause| *pause == pauses[0]));
    assert!(pauses.is_sorted() && pauses.last() == Some(&RETRY_MAX));
}

#[test]
fn two_sizes_by_turns_are_believed_once() {
    let (log, peers) = (TestLog::new(1, 40), Peers::new(1));
    let mut collector = Collector::new();
    collector.set_witnesses(peers.keys());
    collector.on_head(&head(&log, 30));
    let mut asked = 0;
    for body in [b"1\n", b"2\n"].into_iter().cycle() {
        let Some(offer) = collector.due(NOW).pop() else {
            break;
        };
        asked += 1;
        answer(&mut collector, &offer, (409, body));
    }
    assert_eq!(asked, 2);
}

#[test]
fn an_answer_to_a_question_that_was_not_asked_changes_nothing() {
    let (log, peers) = (TestLog::new(1, 40), Peers::new(2));
    let mut collector = Collector::new();
    collector.set_witnesses(peers.keys());
    collector.on_head(&head(&log, 30));
    let offer = collector.due(NOW).pop().expect("an offer");
    let (status, body) = peers.ask(&log, &offer);
    let before = collector.status();
    let strange = NodeSeed::from_bytes([9; 32]).keys().node_id();
    for (node, size) in [(strange, 30), (offer.node, 29)] {
        let step = collector.on_answer((&node, size), (status, &body), NOW);
        assert_eq!(step, Step::None);
        assert_eq!(collector.status(), before);
    }
    assert_eq!(answer(&mut collector, &offer, (status, &body)), Step::None);
    let once = collector.status();
    assert_eq!(once.cosigned, 1);
    assert_eq!(answer(&mut collector, &offer, (status, &body)), Step::None);
    assert_eq!(collector.status(), once, "the same answer again");
}

#[test]
fn who_is_no_witness_any_more_does_not_count() {
    let (log, peers) = (TestLog::new(1, 40), Peers::new(4));
    let mut collector = Collector::new();
    collector.set_witnesses(peers.keys()[..2].to_vec());
    collector.on_head(&head(&log, 30));
    let offers = collector.due(NOW);
    let (status, body) = peers.ask(&log, &offers[0]);
    answer(&mut collector, &offers[0], (status, &body));
    collector.set_witnesses(peers.keys()[1..].to_vec());
    assert_eq!(collector.status().cosigned, 0);
    let (status, body) = peers.ask(&log, &offers[1]);
    assert_eq!(
        answer(&mut collector, &offers[1], (status, &body)),
        Step::None
    );
    let status = collector.status();
    assert_eq!((status.cosigned, status.needed), (1, 3));
    assert_eq!(status.quorum, None, "two have cosigned, one of them counts");
}

proptest! {
    #[test]
    fn whatever_gets_lost_a_quorum_is_one(
        events in proptest::collection::vec((0_u8..6, any::<u8>()), 1..60),
        count in 0_u8..6,
    ) {
        let (log, peers) = (TestLog::new(1, 64), Peers::new(count));
        let mut collector = Collector::new();
        collector.set_witnesses(peers.keys());
        let (mut now, mut size, mut quorum) = (NOW, 0, 0);
        for (what, fate) in events {
            now += Duration::from_secs(u64::from(fate % 3));
            if what == 0 {
                size = (size + u64::from(fate % 4)).min(64);
                collector.on_head(&head(&log, size));
            }
            for offer in collector.due(now) {
                let at = (&offer.node, offer.size);
                let (status, body) = peers.ask(&log, &offer);
                match what {
                    1 => collector.on_failure(at, now),
                    2 => drop(collector.on_answer(at, (fate.into(), b""), now)),
                    _ => drop(collector.on_answer(at, (status, &body), now)),
                }
            }
            let status = collector.status();
            prop_assert_eq!(status.witnesses.len(), usize::from(count));
            if let Some(reached) = status.quorum {
                prop_assert!(reached.size >= quorum);
                quorum = reached.size;
                let keys = peers.keys();
                let valid = keys.iter().filter(|(_, key)| key.verify(&reached.note).is_ok());
                prop_assert!(valid.count() >= quorum_for(keys.len()));
                prop_assert_eq!(reached.note.verify(&log.verifier()), Ok(()));
            }
        }
    }

    #[test]
    fn a_body_of_a_conflict_has_one_form(body in "[0-9 +\n]{0,24}") {
        if let Some(latest) = latest_of(body.as_bytes()) {
            prop_assert_eq!(format!("{latest}\n"), body);
        }
    }
}
