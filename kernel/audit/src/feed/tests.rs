//! Real mirrors behind a network that loses, mirrors that forget, and mirrors that lie.

use super::*;
use crate::challenge::Demand;
use crate::cosign::{Cosigner, LogName, TreeHead};
use crate::mirror::{
    BeginError, Committed, MemoryMirrorStore, Mirror, MirrorHead, MirrorInfo, Piece, UploadDecoder,
    UploadHeader, build_package, package_ranges,
};
use crate::testing::TestLog;
use crate::tile::Bundle;
use crate::witness::{AddCheckpoint, MemoryStore, Trust, Witness};
use openfang_id::NodeSeed;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const QUOTA: u64 = 1 << 30;

/// A node that mirrors one log.
struct Peer {
    node: NodeId,
    witness: Witness<MemoryStore>,
    mirror: Mirror<MemoryMirrorStore>,
}

impl Peer {
    fn new(seed: u8, log: &TestLog) -> Self {
        let keys = NodeSeed::from_bytes([seed; 32]).keys();
        let node = keys.node_id();
        let cosigner = Cosigner::of(&node, Role::Mirror, keys.mirror);
        let origin = log.origin.as_str();
        let opened = Mirror::open(MemoryMirrorStore::default(), origin, QUOTA);
        Self {
            node,
            witness: Witness::new(cosigner, MemoryStore::default()),
            mirror: opened.expect("a new copy").0,
        }
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            node: self.node,
            key: self.witness.cosigner().public().clone(),
            reachable: true,
        }
    }

    fn answer(&mut self, log: &TestLog, what: &What) -> (u16, Vec<u8>) {
        match what {
            What::Checkpoint { old, size, note } => {
                let proof = log.consistency(*old, *size);
                let proof = if old == size { Vec::new() } else { proof };
                let request = AddCheckpoint::new(*old, proof, note.clone());
                self.checkpoint(log, request.expect("a request").to_string().as_bytes())
            }
            What::Entries { start, end, ticket } => {
                let header = UploadHeader {
                    origin: log.origin.to_string(),
                    start: *start,
                    end: *end,
                    ticket: ticket.clone(),
                };
                self.entries(&packed(log, &header))
            }
            What::Challenge { size, again, .. } => {
                let mut indexes = again.clone();
                indexes.push(size / 2);
                let demand = Demand {
                    size: *size,
                    indexes,
                };
                demand
                    .answer(&self.mirror)
                    .map_or((410, Vec::new()), |body| (200, body))
            }
        }
    }

    fn checkpoint(&mut self, log: &TestLog, body: &[u8]) -> (u16, Vec<u8>) {
        let trusted = |_name: &LogName| Trust::Keys(vec![log.verifier()]);
        if let Err(refusal) = self.witness.add_checkpoint(body, &trusted, 7) {
            return (refusal.status(), refusal.body().into_bytes());
        }
        let note = self.witness.checkpoint(&log.name().id()).expect("read");
        let note = note.expect("it was taken");
        let head: TreeHead = note.text().parse().expect("a head");
        let head = MirrorHead {
            size: head.size,
            root: head.root,
            note: note.to_string(),
        };
        self.mirror.offer(head).expect("it fits");
        (200, Vec::new())
    }

    fn entries(&mut self, body: &[u8]) -> (u16, Vec<u8>) {
        let info = |status, info: &MirrorInfo| (status, info.to_string().into_bytes());
        let mut decoder = UploadDecoder::default();
        let mut rest = body;
        let Ok(Some(Piece::Header(header))) = decoder.feed(&mut rest) else {
            return (400, Vec::new());
        };
        let upload = match self.mirror.begin(&header) {
            Ok(upload) => upload,
            Err(BeginError::Conflict(at)) => return info(409, &at),
            Err(BeginError::NothingPending) => return (422, Vec::new()),
            Err(BeginError::OtherOrigin) => return (404, Vec::new()),
        };
        while let Ok(Some(Piece::Package(package))) = decoder.feed(&mut rest) {
            if self.mirror.stage(&upload, &package).is_err() {
                return (422, Vec::new());
            }
        }
        match self.mirror.commit(&upload).expect("a good disk") {
            Committed::Complete(head) => {
                let note: Note = head.note.parse().expect("a note");
                let lines = note.signatures().iter().map(|line| format!("{line}\n"));
                (200, lines.collect::<String>().into_bytes())
            }
            Committed::Partial(at) => info(202, &at),
            Committed::Overtaken(at) => info(409, &at),
        }
    }
}

fn packed(log: &TestLog, header: &UploadHeader) -> Vec<u8> {
    let leaves = log.leaves(header.end);
    let mut body = Vec::new();
    header.encode(&mut body).expect("a header");
    for (start, end) in package_ranges(header.start, header.end).take(2) {
        let range = usize::try_from(start).expect("small")..usize::try_from(end).expect("small");
        let mut entries = Bundle::default();
        for entry in &log.entries[range] {
            entries.push(entry).expect("room");
        }
        let package = build_package(leaves.as_slice(), start, entries, header.end);
        let package = package.expect("a package");
        package.encode(&mut body).expect("short enough");
    }
    body
}

fn head(log: &TestLog, size: u64) -> SignedHead {
    let note = log.note(size);
    SignedHead {
        checkpoint: note.text().parse().expect("a checkpoint"),
        note: note.to_string(),
    }
}

/// A log of some entries, a feeder with its head, and nodes that could mirror it.
struct World {
    log: TestLog,
    feeder: Feeder,
    peers: Vec<Peer>,
    now: Duration,
}

impl World {
    fn new(entries: usize, peers: u8) -> Self {
        let log = TestLog::new(1, entries);
        let peers: Vec<Peer> = (0..peers).map(|at| Peer::new(100 + at, &log)).collect();
        let mut world = Self {
            feeder: Feeder::new(log.origin.clone(), Pace::default()),
            peers,
            log,
            now: Duration::ZERO,
        };
        world.show(|_peer| true);
        world.sign();
        world
    }

    fn show(&mut self, reachable: impl Fn(&NodeId) -> bool) {
        let candidates = self.peers.iter().map(|peer| Candidate {
            reachable: reachable(&peer.node),
            ..peer.candidate()
        });
        self.feeder.set_candidates(candidates.collect(), self.now);
    }

    fn sign(&mut self) {
        let size = self.log.entries.len() as u64;
        self.feeder.on_head(&head(&self.log, size));
    }

    fn answer(&mut self, ask: &Ask) -> Step {
        let peer = self.peers.iter_mut().find(|peer| peer.node == ask.node);
        let (status, body) = peer.expect("a peer").answer(&self.log, &ask.what);
        if let What::Challenge { size, root, again } = &ask.what {
            let mut indexes = again.clone();
            indexes.push(size / 2);
            let demand = Demand {
                size: *size,
                indexes,
            };
            let outcome = match demand.check(root, &body) {
                Ok(()) => Outcome::Shown,
                Err(_why) => Outcome::Wrong(demand.indexes),
            };
            self.feeder.on_challenged(&ask.node, outcome, self.now, 0);
            return Step::None;
        }
        self.feeder.on_answer(ask, Some((status, &body)), self.now)
    }

    /// Lets time pass, and answers everything.
    fn run(&mut self, seconds: u64) {
        let end = self.now + SECOND * u32::try_from(seconds).expect("not long");
        while self.now < end {
            for ask in self.feeder.due(self.now) {
                self.answer(&ask);
            }
            self.now += SECOND / 4;
        }
    }

    fn sizes(&self) -> Vec<u64> {
        let mirrors = self.feeder.status().mirrors;
        mirrors.iter().map(|mirror| mirror.size).collect()
    }

    fn slot(&self, node: NodeId) -> MirrorStatus {
        let mirrors = self.feeder.status().mirrors;
        let found = mirrors.into_iter().find(|mirror| mirror.node == node);
        found.expect("a mirror")
    }
}

#[test]
fn a_log_is_copied_to_three_and_again_as_it_grows() {
    let mut world = World::new(1_300, 5);
    world.run(3);
    let status = world.feeder.status();
    assert_eq!((status.complete, status.replicated), (3, 1_300));
    assert!(
        status
            .mirrors
            .iter()
            .all(|mirror| mirror.standing == Standing::Holding && mirror.time == Some(7))
    );
    for (_, key, held) in world.feeder.held() {
        assert_eq!(key.verify(&held.note), Ok(7));
        assert_eq!(held.note.verify(&world.log.verifier()), Ok(()));
        assert_eq!(held.root, world.log.head(1_300).root);
    }
    world.log.grow(1, "one more");
    world.sign();
    assert_eq!(world.feeder.status().complete, 0);
    world.run(3);
    assert_eq!(world.sizes(), [1_301; 3]);
    assert_eq!(
        world.feeder.next().map(|next| next > world.now),
        Some(true),
        "only challenges are left"
    );
}

#[test]
fn a_mirror_that_is_dismissed_holds_nothing_and_is_sent_nothing() {
    let mut world = World::new(300, 4);
    world.run(3);
    assert_eq!(world.feeder.status().complete, 3);
    let bad = world.feeder.status().mirrors[0].node;
    assert!(world.feeder.dismiss(|node| *node == bad));
    assert!(!world.feeder.dismiss(|node| *node == bad), "it is gone");
    let status = world.feeder.status();
    assert_eq!((status.complete, status.replicated), (2, 0));
    assert!(world.feeder.held().all(|(node, ..)| *node != bad));
    // As its caller does it, whoever is seen.
    world.log.grow(1, "more");
    world.sign();
    world.show(|_peer| true);
    world.feeder.dismiss(|node| *node == bad);
    let asks = world.feeder.due(world.now);
    assert!(!asks.is_empty());
    assert!(asks.iter().all(|ask| ask.node != bad), "{asks:?}");
    for ask in asks {
        world.answer(&ask);
    }
    world.run(3);
    let status = world.feeder.status();
    assert_eq!(
        (status.complete, status.replicated),
        (3, 301),
        "another one came"
    );
    assert!(status.mirrors.iter().all(|mirror| mirror.node != bad));
}

#[test]
fn the_pace_of_uploads_is_kept() {
    let mut world = World::new(10, 1);
    let mut uploads = 0;
    for _sixteenth in 0..160 {
        world.log.grow(1, "more");
        world.sign();
        for ask in world.feeder.due(world.now) {
            uploads += usize::from(matches!(ask.what, What::Checkpoint { .. }));
            while let Step::None = world.answer(&ask) {
                let Some(ask) = world.feeder.due(world.now).pop() else {
                    break;
                };
                if world.answer(&ask) == Step::Held {
                    break;
                }
            }
        }
        world.now += SECOND / 16;
    }
    assert!((36..=44).contains(&uploads), "{uploads} in ten seconds");
}

#[test]
fn an_upload_goes_on_where_it_stopped() {
    let mut world = World::new(2_000, 1);
    let node = world.peers[0].node;
    let mut sent = Vec::new();
    let mut lost = false;
    while world.sizes() != [2_000] {
        for ask in world.feeder.due(world.now) {
            if let What::Entries { start, end, .. } = &ask.what {
                if *start == 1_024 && !lost {
                    lost = true;
                    world.feeder.on_answer(&ask, None, world.now);
                    assert_eq!(world.slot(node).standing, Standing::Unreachable);
                    continue;
                }
                if start < end {
                    sent.push(*start);
                }
            }
            world.answer(&ask);
        }
        world.now += SECOND / 4;
    }
    assert_eq!(sent, [0, 512, 1_024, 1_536]);
}

#[test]
fn a_mirror_that_forgot_its_entries_or_its_head_is_filled_again() {
    let mut world = World::new(900, 1);
    world.run(2);
    world.peers[0].mirror.clear();
    world.log.grow(10, "more");
    world.sign();
    world.run(3);
    assert_eq!(world.sizes(), [910]);
    assert_eq!(world.peers[0].mirror.next_entry(), 910);
    // It begins anew, with another key.
    let fresh = Peer::new(100, &world.log);
    world.peers[0].mirror = fresh.mirror;
    let keys = NodeSeed::from_bytes([7; 32]).keys();
    let cosigner = Cosigner::of(&world.peers[0].node, Role::Mirror, keys.mirror);
    world.peers[0].witness = Witness::new(cosigner, MemoryStore::default());
    world.show(|_| true);
    assert_eq!(
        world.sizes(),
        [0],
        "what it said with the old key counts no more"
    );
    world.run(3);
    assert_eq!(world.sizes(), [910]);
}

#[test]
fn a_mirror_that_holds_more_than_there_is_is_told_of() {
    let mut world = World::new(900, 1);
    world.run(2);
    let key = world.peers[0].candidate().key;
    let node = world.peers[0].node;
    let kept = world.feeder.held().next().expect("held").2.note.to_string();
    let kept = SignedHead {
        note: kept,
        ..head(&world.log, 900)
    };
    let mut feeder = Feeder::new(world.log.origin.clone(), Pace::default());
    feeder.remember(node, key, &kept).expect("cosigned");
    world.feeder = feeder;
    world.log.entries.truncate(500);
    world.show(|_| true);
    world.sign();
    let ask = world.feeder.due(world.now).pop().expect("it is asked");
    assert_eq!(world.answer(&ask), Step::Behind { latest: 900 });
    assert_eq!(world.slot(node).standing, Standing::Ahead(900));
    assert_eq!(world.slot(node).size, 900);
}

#[test]
fn what_is_remembered_must_be_cosigned() {
    let mut world = World::new(20, 2);
    let (a, b) = (world.peers[0].candidate(), world.peers[1].candidate());
    let unsigned = world
        .feeder
        .remember(a.node, a.key.clone(), &head(&world.log, 20));
    assert_eq!(unsigned, Err(NoteError::UnknownKey));
    world.run(2);
    let mut held = world.feeder.held();
    let note = held
        .find(|(node, ..)| **node == b.node)
        .expect("held")
        .2
        .note
        .clone();
    drop(held);
    let of_b = SignedHead {
        note: note.to_string(),
        ..head(&world.log, 20)
    };
    let mut feeder = Feeder::new(world.log.origin.clone(), Pace::default());
    assert_eq!(
        feeder.remember(a.node, a.key, &of_b),
        Err(NoteError::UnknownKey)
    );
    assert_eq!(feeder.remember(b.node, b.key, &of_b), Ok(()));
}

#[test]
fn a_lie_is_no_cosignature_and_is_asked_for_ever_more_rarely() {
    let mut world = World::new(20, 1);
    let node = world.peers[0].node;
    let mut tries = 0;
    for _quarter in 0..4 * 600 {
        for ask in world.feeder.due(world.now) {
            let answer: &[u8] = match &ask.what {
                What::Checkpoint { .. } => b"",
                What::Entries { .. } => b"a line of nobody\n",
                What::Challenge { .. } => panic!("nothing is held"),
            };
            tries += usize::from(matches!(ask.what, What::Entries { .. }));
            world.feeder.on_answer(&ask, Some((200, answer)), world.now);
        }
        world.now += SECOND / 4;
    }
    assert_eq!(world.slot(node).standing, Standing::Invalid);
    assert_eq!(world.sizes(), [0]);
    assert!((10..30).contains(&tries), "{tries} in ten minutes");
}

#[test]
fn a_mirror_that_never_gets_on_is_not_asked_for_ever() {
    let mut world = World::new(2_000, 1);
    for (status, text) in [
        (202, "2000\n0\n\n"),
        (409, "2000\n0\n\n"),
        (409, "1999\n5\n\n"),
        (202, "nonsense"),
    ] {
        let mut asked = 0;
        while asked < 200 {
            let due = world.feeder.due(world.now);
            if due.is_empty() {
                break;
            }
            for ask in due {
                asked += 1;
                let (status, body) = match &ask.what {
                    What::Checkpoint { .. } => (200, b"".as_slice()),
                    What::Entries { .. } | What::Challenge { .. } => (status, text.as_bytes()),
                };
                world
                    .feeder
                    .on_answer(&ask, Some((status, body)), world.now);
            }
        }
        assert!(
            asked < 40,
            "{asked} questions at once after {status} {text:?}"
        );
        world.now += Duration::from_secs(120);
    }
}

#[test]
fn a_full_mirror_is_told_of_and_the_others_go_on() {
    let mut world = World::new(600, 2);
    let full = world.peers[0].node;
    for _quarter in 0..20 {
        for ask in world.feeder.due(world.now) {
            if ask.node == full && matches!(ask.what, What::Entries { .. }) {
                world.feeder.on_answer(&ask, Some((507, b"")), world.now);
            } else {
                world.answer(&ask);
            }
        }
        world.now += SECOND / 4;
    }
    assert_eq!(world.slot(full).standing, Standing::Full);
    let status = world.feeder.status();
    assert_eq!((status.complete, status.replicated), (1, 0));
}

#[test]
fn a_mirror_that_is_replaced_counts_until_there_are_enough_copies() {
    let mut world = World::new(600, 4);
    world.run(3);
    let away = world.feeder.status().mirrors[0].node;
    world.show(|node| *node != away);
    world.run(500);
    assert!(!world.slot(away).former, "it may come back");
    assert_eq!(world.feeder.status().mirrors.len(), 3);
    world.run(120);
    // The fourth has taken its place, and holds as much.
    let status = world.feeder.status();
    assert!(status.mirrors.iter().all(|mirror| mirror.node != away));
    assert_eq!((status.complete, status.mirrors.len()), (3, 3));
    // Now nobody can take the place of the next one.
    let gone = status.mirrors[0].node;
    world.show(|node| *node != away && *node != gone);
    world.run(700);
    assert!(world.slot(gone).former);
    assert_eq!(world.feeder.status().replicated, 600, "it still counts");
    // Back again, it goes on.
    world.show(|_| true);
    world.log.grow(5, "more");
    world.sign();
    world.run(120);
    let status = world.feeder.status();
    assert_eq!(
        (status.complete, status.mirrors.len()),
        (3, 3),
        "{status:?}"
    );
}

#[test]
fn a_failed_challenge_stays_failed_until_the_entry_is_shown() {
    let mut world = World::new(600, 1);
    let node = world.peers[0].node;
    world.run(2);
    assert_eq!(world.slot(node).proven, Proven::Unasked);
    world.run(60);
    assert_eq!(world.slot(node).proven, Proven::Shown);
    let challenge = |world: &mut World| loop {
        let due = world.feeder.due(world.now);
        if let Some(ask) = due
            .into_iter()
            .find(|ask| matches!(ask.what, What::Challenge { .. }))
        {
            return ask;
        }
        world.now += SECOND;
    };
    challenge(&mut world);
    world
        .feeder
        .on_challenged(&node, Outcome::Unanswered, world.now, 5);
    assert_eq!(world.slot(node).proven, Proven::Unproven);
    challenge(&mut world);
    world
        .feeder
        .on_challenged(&node, Outcome::Wrong(vec![3, 4]), world.now, 5);
    assert_eq!(world.slot(node).proven, Proven::Failed);
    let before = world.now;
    challenge(&mut world);
    assert!(world.now - before >= Duration::from_secs(30));
    world
        .feeder
        .on_challenged(&node, Outcome::Unanswered, world.now, u64::MAX);
    assert_eq!(
        world.slot(node).proven,
        Proven::Failed,
        "silence does not mend it"
    );
    let ask = challenge(&mut world);
    assert!(matches!(&ask.what, What::Challenge { again, .. } if *again == [3, 4]));
    world.answer(&ask);
    assert_eq!(world.slot(node).proven, Proven::Shown);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is lost and answered, one thing at a time is asked, and in the end everything is held.
    #[test]
    fn the_copies_are_complete_in_the_end(fates in prop::collection::vec((0_u8..5, any::<u16>(), prop::collection::vec(any::<u8>(), 0..20)), 0..60)) {
        let mut world = World::new(700, 3);
        for (fate, status, body) in fates {
            let due = world.feeder.due(world.now);
            prop_assert_eq!(world.feeder.due(world.now), vec![]);
            for ask in due {
                match fate {
                    0 => { world.feeder.on_answer(&ask, None, world.now); }
                    1 => { world.feeder.on_answer(&ask, Some((status, &body)), world.now); }
                    2 => {
                        world.answer(&ask);
                        world.peers[0].mirror.clear();
                    }
                    _answered => { world.answer(&ask); }
                }
                if let What::Challenge { .. } = ask.what {
                    world.feeder.on_challenged(&ask.node, Outcome::Unanswered, world.now, 1);
                }
            }
            world.log.grow(1, "more");
            world.sign();
            world.now += SECOND;
        }
        world.log.grow(1, "the last");
        world.sign();
        world.run(150);
        let size = world.log.entries.len() as u64;
        prop_assert_eq!(world.sizes(), vec![size; 3]);
    }
}
