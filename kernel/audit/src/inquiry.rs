//! What others know of the own log, asked before its first signature.
//!
//! A log that was wiped, or put back from a backup, looks like one that has grown little. Whoever
//! signs a second history of it proves itself a liar; so its peers are asked first which heads of it
//! they have seen. They cannot lie about that, other than by silence: every head carries the
//! signature of the log.
//!
//! Who would know is what the log wrote down about its witnesses ([`Inquiry::set_sworn`]); only where
//! nothing of that is left it is guessed from who is there today. A node that knows no head of the log
//! says so, and that is no word that there was none: it may be new here, or have forgotten.
//!
//! Nothing is sent here. [`Inquiry::due`] says whom to ask, [`Inquiry::on_answer`] takes the notes
//! that came back, [`Inquiry::is_done`] tells when enough have answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openfang_id::{NodeId, VerifyingKey};

use crate::cosign::{Role, TreeHead};
use crate::note::Note;
use crate::policy::{assign, quorum_for};
use crate::{Checkpoint, Origin, SignedHead};

/// The most notes of one answer that are looked at: a witness knows one head of each epoch.
pub const NOTES_MAX: usize = 16;
/// How long to wait for links where there is no reason to doubt the log.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer is left alone after a first failure; twice as long after each further one.
const RETRY: Duration = Duration::from_millis(500);
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// After so many failures a peer counts as one that cannot be reached.
const FAILURES_MAX: u32 = 3;

/// Whether silence is taken for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The log and its floor are there: who cannot be reached is not waited for for long.
    None,
    /// Something is missing: everybody must have answered, those who are known and those who have witnessed
    /// the log. A few are not enough: while others were away, fewer were a quorum, and a single head that
    /// one node has seen convicts a log that does not lead to it.
    Reasonable,
}

/// Whether the own log is signed, and what keeps it from that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    /// Peers are asked what they know of it.
    Asking {
        /// How many of those who would witness it have answered.
        answered: usize,
        /// How many must.
        needed: usize,
    },
    /// Everybody must say what it knows of it, and some have not: nothing but them is waited for.
    Waiting {
        /// How many have answered.
        answered: usize,
        /// How many must.
        needed: usize,
        /// Who has not: those who are known, and those who have witnessed it.
        silent: Vec<NodeId>,
    },
    /// Peers know a head that it does not lead to, and nobody who can be reached has its entries.
    Behind {
        /// The size of that head.
        size: u64,
        /// Who has not been heard of.
        silent: Vec<NodeId>,
    },
    /// What was lost is being fetched.
    Restoring {
        /// How many entries are there.
        done: u64,
        /// How many there will be.
        total: u64,
    },
    /// It has signed two histories. It signs nothing more.
    Contradicted {
        /// The size of the head that others know.
        size: u64,
    },
    /// Nothing does.
    Free,
}

/// Whom the log knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acquaintance {
    /// Every other node of the mesh that has not left, and whether it can be reached.
    pub nodes: BTreeMap<NodeId, bool>,
    /// Whether there should be others that are not known yet.
    pub more: bool,
}

/// What others know of one log.
#[derive(Debug)]
pub struct Inquiry {
    node: NodeId,
    key: VerifyingKey,
    epoch: u32,
    doubt: Doubt,
    /// How many witnesses a log has where there are enough nodes.
    witnesses: usize,
    /// Who has witnessed it, as far as it wrote that down.
    sworn: BTreeSet<NodeId>,
    patience: Duration,
    more: bool,
    peers: BTreeMap<NodeId, Peer>,
    /// By epoch and size.
    heads: BTreeMap<(u32, u64), Vec<Known>>,
}

/// A head of the log, and who knows it.
#[derive(Debug)]
struct Known {
    head: Checkpoint,
    by: BTreeSet<NodeId>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Peer {
    reachable: bool,
    asking: bool,
    answered: bool,
    failures: u32,
    wait_until: Duration,
}

impl Peer {
    /// Whether nothing more is to be expected of it now.
    fn is_settled(&self) -> bool {
        self.answered || !self.reachable || self.failures >= FAILURES_MAX
    }
}

impl Inquiry {
    /// Begins to ask about a log of a node, which has `witnesses` witnesses where there are enough nodes.
    #[must_use]
    pub fn new(
        (node, key): (NodeId, VerifyingKey),
        epoch: u32,
        doubt: Doubt,
        witnesses: usize,
    ) -> Self {
        Self {
            node,
            key,
            epoch,
            doubt,
            witnesses,
            sworn: BTreeSet::new(),
            patience: PATIENCE,
            more: false,
            peers: BTreeMap::new(),
            heads: BTreeMap::new(),
        }
    }

    /// Takes who has witnessed the log, as it wrote down itself: whoever is there today is no measure then.
    pub fn set_sworn(&mut self, sworn: impl IntoIterator<Item = NodeId>) {
        self.sworn = sworn.into_iter().collect();
    }

    /// Waits so long for links, instead of ten seconds, where there is no reason to doubt the log.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Takes who is known now. What a node has answered is kept.
    pub fn set_known(&mut self, known: &Acquaintance) {
        self.more = known.more;
        let before = std::mem::take(&mut self.peers);
        for (node, reachable) in &known.nodes {
            let mut peer = before.get(node).copied().unwrap_or_default();
            peer.reachable = *reachable;
            self.peers.insert(*node, peer);
        }
    }

    /// Returns whom to ask now, and notes that they are being asked.
    pub fn due(&mut self, now: Duration) -> Vec<NodeId> {
        let wanting = self.peers.iter_mut().filter(|(_, peer)| {
            peer.reachable && !peer.answered && !peer.asking && peer.wait_until <= now
        });
        wanting
            .map(|(node, peer)| {
                peer.asking = true;
                *node
            })
            .collect()
    }

    /// Returns when something is to be done next, if nothing else happens.
    #[must_use]
    pub fn next(&self, now: Duration) -> Option<Duration> {
        let wanting = self.peers.values();
        let wanting = wanting.filter(|peer| peer.reachable && !peer.answered && !peer.asking);
        let patience = (now < self.patience).then_some(self.patience);
        wanting.map(|peer| peer.wait_until).chain(patience).min()
    }

    /// Takes the notes that a node has cosigned of the log. Those that the log has not signed are nothing;
    /// who has none does not know.
    pub fn on_answer<'a>(&mut self, node: NodeId, notes: impl Iterator<Item = &'a str>) {
        self.learn(node, notes);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.asking = false;
            peer.answered = true;
        }
    }

    /// Takes notes that are known from elsewhere: a copy, or a file of this node. Tells whether the log
    /// has signed one of them.
    pub fn learn<'a>(&mut self, node: NodeId, notes: impl Iterator<Item = &'a str>) -> bool {
        let mut any = false;
        for note in notes.take(NOTES_MAX) {
            if let Some((epoch, head)) = self.open(note) {
                any = true;
                let known = self.heads.entry((epoch, head.size)).or_default();
                match known.iter_mut().find(|known| known.head == head) {
                    Some(known) => {
                        known.by.insert(node);
                    }
                    None => known.push(Known {
                        head,
                        by: BTreeSet::from([node]),
                    }),
                }
            }
        }
        any
    }

    /// Takes that a node did not answer.
    pub fn on_failure(&mut self, node: &NodeId, now: Duration) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.asking = false;
            let pause = RETRY.saturating_mul(1 << peer.failures.min(8));
            peer.failures = peer.failures.saturating_add(1);
            peer.wait_until = now + pause.min(RETRY_MAX);
        }
    }

    /// Reads a note that the log must have signed; returns its epoch too.
    fn open(&self, note: &str) -> Option<(u32, Checkpoint)> {
        let parsed: Note = note.parse().ok()?;
        let head: TreeHead = parsed.text().parse().ok()?;
        let origin: Origin = head.origin.as_str().parse().ok()?;
        if !origin.belongs_to(&self.node) {
            return None;
        }
        let signed = SignedHead::open(note, &origin, &self.key).ok()?;
        Some((origin.epoch(), signed.checkpoint))
    }

    /// Returns the heads that are known of the log in its epoch, the largest first.
    pub fn heads(&self) -> impl Iterator<Item = (&Checkpoint, &BTreeSet<NodeId>)> {
        let own = self.heads.range((self.epoch, 0)..=(self.epoch, u64::MAX));
        let all = own.rev().flat_map(|(_, heads)| heads);
        all.map(|known| (&known.head, &known.by))
    }

    /// Returns the last epoch that others know, when it is behind that of the log.
    #[must_use]
    pub fn later_epoch(&self) -> Option<u32> {
        let (last, _) = self.heads.last_key_value()?.0;
        (*last > self.epoch).then_some(*last)
    }

    /// Tells whether enough have answered for the log to be signed.
    #[must_use]
    pub fn is_done(&self, now: Duration) -> bool {
        let is_late = now >= self.patience;
        if self.peers.is_empty() {
            let expected = self.more || !self.sworn.is_empty();
            return self.doubt == Doubt::None && (!expected || is_late);
        }
        if !self.peers.values().all(Peer::is_settled) {
            return false;
        }
        let (answered, needed) = self.answered();
        match self.doubt {
            Doubt::None => answered >= needed || is_late,
            Doubt::Reasonable => self.have_all_answered(),
        }
    }

    /// Tells whether everybody has answered, whatever they know: all who are known, and all who have
    /// witnessed the log.
    #[must_use]
    pub fn have_all_answered(&self) -> bool {
        let is_known = |node: &NodeId| self.peers.contains_key(node);
        let all = !self.peers.is_empty() && self.peers.values().all(|peer| peer.answered);
        all && self.sworn.iter().all(is_known)
    }

    /// Returns how many have answered and how many must: in doubt everybody; otherwise of those who would
    /// witness the log so many that every quorum has one of them.
    #[must_use]
    pub fn answered(&self) -> (usize, usize) {
        let has_answered = |node: &&NodeId| self.peers.get(node).is_some_and(|peer| peer.answered);
        if self.doubt == Doubt::Reasonable {
            let all: BTreeSet<&NodeId> = self.peers.keys().chain(&self.sworn).collect();
            let answered = all.iter().copied().filter(has_answered).count();
            return (answered, all.len());
        }
        let known: Vec<NodeId> = self.peers.keys().copied().collect();
        let origin = Origin::of(&self.node, self.epoch);
        let chosen = if self.sworn.is_empty() {
            assign(Role::Witness, &origin, &known, self.witnesses)
        } else {
            self.sworn.iter().copied().collect()
        };
        let answered = chosen.iter().filter(has_answered).count();
        (answered, chosen.len() + 1 - quorum_for(chosen.len()).max(1))
    }

    /// Returns who has witnessed the log, as it wrote down.
    pub fn sworn(&self) -> impl Iterator<Item = &NodeId> {
        self.sworn.iter()
    }

    /// Returns who is known.
    pub fn known(&self) -> impl Iterator<Item = &NodeId> {
        self.peers.keys()
    }

    /// Returns who is waited for where everybody has to answer: those who are known, and those who have
    /// witnessed the log and are known to nobody any more.
    #[must_use]
    pub fn waited_for(&self) -> Vec<NodeId> {
        let is_unknown = |node: &&NodeId| !self.peers.contains_key(node);
        let gone = self.sworn.iter().filter(is_unknown);
        self.silent().chain(gone).copied().collect()
    }

    /// Returns who has not answered.
    pub fn silent(&self) -> impl Iterator<Item = &NodeId> {
        let silent = self.peers.iter().filter(|(_, peer)| !peer.answered);
        silent.map(|(node, _)| node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestLog, keys};

    const SECOND: Duration = Duration::from_secs(1);

    fn node(seed: u8) -> NodeId {
        keys(seed).node_id()
    }

    fn inquiry(doubt: Doubt) -> Inquiry {
        let key = keys(1).log.verifying_key();
        Inquiry::new((node(1), key), 1, doubt, 4)
    }

    fn known(nodes: &[(u8, bool)]) -> Acquaintance {
        let nodes = nodes.iter().map(|(seed, up)| (node(*seed), *up)).collect();
        Acquaintance { nodes, more: false }
    }

    fn note(log: &TestLog, size: u64) -> String {
        log.note(size).to_string()
    }

    #[test]
    fn who_knows_nobody_is_done_at_once_unless_in_doubt() {
        for doubt in [Doubt::None, Doubt::Reasonable] {
            let sure = doubt == Doubt::None;
            let mut asked = inquiry(doubt);
            assert_eq!(asked.is_done(Duration::ZERO), sure);
            assert_eq!(asked.is_done(1_000 * SECOND), sure);
            asked.set_known(&Acquaintance {
                more: true,
                ..Acquaintance::default()
            });
            assert!(!asked.is_done(SECOND), "others are expected");
            assert_eq!(asked.is_done(11 * SECOND), sure);
            assert_eq!(asked.next(SECOND), Some(10 * SECOND));
        }
    }

    #[test]
    fn who_is_waited_for_are_those_who_are_known_and_those_who_have_witnessed() {
        let mut asked = inquiry(Doubt::Reasonable);
        assert!(asked.waited_for().is_empty());
        asked.set_sworn([node(2), node(5)]);
        asked.set_known(&known(&[(2, true), (3, true), (4, false)]));
        asked.on_answer(node(3), [].into_iter());
        let mut waited_for = asked.waited_for();
        waited_for.sort();
        let mut all = vec![node(2), node(4), node(5)];
        all.sort();
        assert_eq!(waited_for, all, "nobody twice");
        let (answered, needed) = asked.answered();
        assert_eq!(needed - answered, all.len());
    }

    #[test]
    fn every_node_that_can_be_reached_is_asked_once() {
        let mut asked = inquiry(Doubt::None);
        asked.set_known(&known(&[(2, true), (3, true), (4, false)]));
        let mut due = asked.due(Duration::ZERO);
        due.sort();
        let mut both = vec![node(2), node(3)];
        both.sort();
        assert_eq!(due, both);
        assert!(asked.due(SECOND).is_empty() && !asked.is_done(SECOND));
        asked.on_answer(node(2), [].into_iter());
        asked.on_failure(&node(3), SECOND);
        assert!(asked.due(SECOND).is_empty());
        assert_eq!(asked.due(2 * SECOND), [node(3)]);
        asked.on_answer(node(3), [].into_iter());
        assert!(asked.is_done(2 * SECOND));
        assert_eq!(asked.silent().copied().collect::<Vec<_>>(), [node(4)]);
        asked.set_known(&known(&[(2, true), (3, true), (4, true)]));
        assert!(!asked.is_done(2 * SECOND), "one more has come");
        for _failure in 0..3 {
            assert_eq!(asked.due(60 * SECOND), [node(4)]);
            asked.on_failure(&node(4), 2 * SECOND);
        }
        assert!(asked.is_done(2 * SECOND), "it does not answer");
    }

    #[test]
    fn in_doubt_everybody_must_have_answered_and_otherwise_one_of_every_quorum() {
        for (nodes, needed) in [(1, 1), (2, 1), (3, 1), (4, 2), (9, 2)] {
            let all: Vec<(u8, bool)> = (2..2 + nodes).map(|seed| (seed, true)).collect();
            let own = note(&TestLog::new(1, 5), 5);
            let mut sure = inquiry(Doubt::None);
            sure.set_known(&known(&all));
            assert_eq!(sure.answered(), (0, needed), "{nodes} nodes");
            let mut asked = inquiry(Doubt::Reasonable);
            asked.set_known(&known(&all));
            for (at, (seed, _)) in all.iter().enumerate() {
                assert_eq!(asked.answered(), (at, all.len()), "{nodes} nodes");
                assert!(!asked.is_done(1_000 * SECOND), "{nodes} nodes");
                asked.on_answer(node(*seed), [own.as_str()].into_iter());
            }
            assert!(asked.is_done(SECOND), "{nodes} nodes");
        }
    }

    #[test]
    fn in_doubt_a_quorum_that_was_one_while_others_were_away_is_not_enough() {
        let old = note(&TestLog::new(1, 9), 5);
        let mut asked = inquiry(Doubt::Reasonable);
        asked.set_sworn([node(2), node(3), node(4), node(5)]);
        // Two of four know what was there before; the other two cosigned more since, and are away.
        asked.set_known(&known(&[(2, true), (3, true), (4, false), (5, false)]));
        for seed in [2, 3] {
            asked.on_answer(node(seed), [old.as_str()].into_iter());
        }
        assert_eq!(asked.answered(), (2, 4));
        assert!(!asked.is_done(100_000 * SECOND));
        let newer = note(&TestLog::new(1, 9), 9);
        asked.set_known(&known(&[(2, true), (3, true), (4, true), (5, true)]));
        for seed in [4, 5] {
            asked.on_answer(node(seed), [newer.as_str()].into_iter());
        }
        assert!(asked.is_done(SECOND));
        assert_eq!(asked.heads().next().map(|(head, _)| head.size), Some(9));
    }

    #[test]
    fn who_knows_nothing_is_no_proof_that_there_was_nothing() {
        let mut asked = inquiry(Doubt::Reasonable);
        asked.set_known(&known(&[(2, true), (3, false)]));
        let other = note(&TestLog::new(2, 5), 5);
        asked.on_answer(node(2), [other.as_str(), "x"].into_iter());
        assert_eq!(asked.answered(), (1, 2), "it does not know");
        assert!(!asked.is_done(1_000 * SECOND), "the other one might");
        let mut without_doubt = inquiry(Doubt::None);
        without_doubt.set_known(&known(&[(2, true), (3, false)]));
        without_doubt.on_answer(node(2), [].into_iter());
        assert!(without_doubt.is_done(SECOND));
        asked.set_known(&known(&[(2, true), (3, true)]));
        asked.on_answer(node(3), [].into_iter());
        assert!(asked.is_done(SECOND), "nobody is left to know");
        // What a copy shows is known, and still no word of a witness.
        let mut asked = inquiry(Doubt::Reasonable);
        asked.set_known(&known(&[(2, true), (3, false)]));
        let own = note(&TestLog::new(1, 5), 5);
        assert!(asked.learn(node(2), [own.as_str()].into_iter()));
        asked.on_answer(node(2), [].into_iter());
        assert!(asked.heads().count() == 1 && !asked.is_done(SECOND));
    }

    #[test]
    fn those_who_have_witnessed_count_and_not_those_who_are_there_today() {
        let own = note(&TestLog::new(1, 5), 5);
        let mut asked = inquiry(Doubt::Reasonable);
        asked.set_sworn([node(2), node(3), node(4), node(5)]);
        asked.set_known(&known(&[(6, true), (7, true), (8, true), (2, true)]));
        for newcomer in [6, 7, 8] {
            asked.on_answer(node(newcomer), [own.as_str()].into_iter());
        }
        asked.on_answer(node(2), [own.as_str()].into_iter());
        assert_eq!(asked.answered(), (4, 7));
        assert!(!asked.is_done(1_000 * SECOND));
        asked.set_known(&known(&[(6, true), (2, true), (3, true)]));
        asked.on_answer(node(3), [own.as_str()].into_iter());
        assert!(!asked.is_done(1_000 * SECOND), "two of four");
        asked.set_known(&known(&[(2, true), (3, true), (4, true), (5, true)]));
        for seed in [4, 5] {
            asked.on_answer(node(seed), [own.as_str()].into_iter());
        }
        assert!(asked.is_done(SECOND), "all of those who have witnessed it");
        // Nobody is there at all: without doubt they are waited for, in doubt for ever.
        for doubt in [Doubt::None, Doubt::Reasonable] {
            let mut asked = inquiry(doubt);
            asked.set_sworn([node(2)]);
            assert!(!asked.is_done(SECOND));
            assert_eq!(asked.is_done(11 * SECOND), doubt == Doubt::None);
            asked.set_known(&known(&[(6, true)]));
            asked.on_answer(node(6), [].into_iter());
            assert!(!asked.is_done(SECOND) && !asked.have_all_answered());
        }
    }

    #[test]
    fn only_what_the_log_has_signed_counts() {
        let mut asked = inquiry(Doubt::Reasonable);
        asked.set_known(&known(&[(2, true), (3, true)]));
        let own = TestLog::new(1, 9);
        let other = TestLog::new(2, 50);
        let mut forged = TestLog::new(1, 99);
        forged.key = keys(2).log;
        let mut later = TestLog::new(1, 4);
        later.origin = Origin::of(&node(1), 3);
        let notes = [
            note(&own, 5),
            note(&other, 50),
            note(&forged, 99),
            "x".to_owned(),
        ];
        asked.on_answer(node(2), notes.iter().map(String::as_str));
        let notes = [note(&own, 9), note(&own, 5)];
        asked.on_answer(node(3), notes.iter().map(String::as_str));
        let found: Vec<_> = asked
            .heads()
            .map(|(head, by)| (head.size, by.len()))
            .collect();
        assert_eq!(found, [(9, 1), (5, 2)]);
        assert_eq!(asked.later_epoch(), None);
        let fork = own.forked_at(2);
        let notes = [note(&fork, 9), note(&later, 4)];
        asked.on_answer(node(2), notes.iter().map(String::as_str));
        let found: Vec<_> = asked.heads().map(|(head, _)| head.size).collect();
        assert_eq!(found, [9, 9, 5], "two roots of one size are both kept");
        assert_eq!(asked.later_epoch(), Some(3));
    }

    #[test]
    fn a_flood_of_notes_is_cut() {
        let mut asked = inquiry(Doubt::None);
        asked.set_known(&known(&[(2, true)]));
        let own = TestLog::new(1, 60);
        let notes: Vec<String> = (1..60).map(|size| note(&own, size)).collect();
        asked.on_answer(node(2), notes.iter().map(String::as_str));
        assert_eq!(asked.heads().count(), NOTES_MAX);
    }
}
