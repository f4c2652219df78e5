//! What is held of every log: the accepted head, the open ones, the question that was asked.

mod alarms;
mod mending;
mod watching;

pub(crate) use mending::FAILED_MAX;

use std::collections::BTreeMap;

use openfang_audit::evidence::{Evidence as Proven, EvidenceKind, Watch};
use openfang_audit::proof::verify_consistency;
use openfang_audit::{Hash, Origin, SignedHead};
use openfang_id::{NodeId, VerifyingKey};

use super::{CannotProve, Evidence, HeadView, HeldAlarm, Why};
use crate::roster::{Key, LogKey};

/// The most heads of one log that wait for a proof; a busy log outruns its proofs now and then.
const OPEN_MAX: usize = 4;
/// How often a question is repeated before it counts as not answered: 30 s.
const UNANSWERED_AFTER: u32 = 7;
/// The most logs: a few more than nodes, because verdicts outlive forgotten nodes.
const LOGS_MAX: usize = 8_192;

/// What a head, an answer or an alarm has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing to tell.
    None,
    /// The head is accepted.
    Accepted(SignedHead),
    /// The log is inconsistent from now on.
    Inconsistent(Why, Evidence),
    /// The log has proved all that was seen of it, and is inconsistent no more.
    Mended(SignedHead),
    /// The node has begun another log.
    Replaced(u32),
}

/// A question to the origin of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) id: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A log of another node.
#[derive(Debug, Clone)]
struct Log {
    node: NodeId,
    key: LogKey,
    accepted: Option<SignedHead>,
    open: Vec<SignedHead>,
    asked: Option<Asked>,
    verdict: Option<(Why, Evidence)>,
    alarms: Vec<Heard>,
    /// What it has not proved when it was asked, or was not asked any more: all of it speaks against it.
    failed: Vec<SignedHead>,
    /// What is to be proved once more, since it has grown.
    doubted: Vec<SignedHead>,
    change: u64,
    /// What its key has signed, while it is not convicted.
    heads: Option<Watch>,
    /// What its node has cosigned of it.
    own: Option<Watch>,
}

/// Which of several alarms of one reporter counts, the highest: whether it is for good, and the size of the
/// largest head of the log that it names. What a log has mended, its later heads are not proved by.
type Rank = (bool, u64);

/// An alarm, and what it names.
#[derive(Debug, Clone)]
struct Heard {
    alarm: HeldAlarm,
    rank: Rank,
    /// The heads that the log has signed and not proved here since.
    unproven: Vec<SignedHead>,
    /// Whether it says more than the log has proved.
    stands: bool,
}

#[derive(Debug, Clone)]
struct Asked {
    question: Question,
    open: SignedHead,
    /// How often it was asked again.
    repeats: u32,
}

/// What is kept of a log on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptLog {
    pub(crate) node: NodeId,
    pub(crate) key: LogKey,
    pub(crate) accepted: Option<SignedHead>,
    pub(crate) verdict: Option<(Why, Evidence)>,
    /// What it has not proved: what speaks against it, and what was still to be asked about.
    pub(crate) failed: Vec<SignedHead>,
    pub(crate) alarms: Vec<HeldAlarm>,
}

/// The logs of all other nodes.
#[derive(Debug, Default)]
pub(crate) struct Book {
    logs: BTreeMap<Key, Log>,
    by_change: BTreeMap<u64, Key>,
    changes: u64,
    questions: u32,
    alarm_changes: u64,
    /// What has proved itself, and was not taken yet.
    found: Vec<(Key, Proven)>,
}

impl Book {
    /// Takes back what was kept on disk.
    pub(crate) fn restore(&mut self, kept: KeptLog) {
        let key = Key::of(&kept.node);
        let mut log = Log {
            node: kept.node,
            key: kept.key,
            accepted: kept.accepted,
            open: Vec::new(),
            asked: None,
            failed: kept.failed,
            verdict: kept.verdict,
            alarms: Vec::new(),
            doubted: Vec::new(),
            change: 0,
            heads: None,
            own: None,
        };
        for alarm in kept.alarms {
            let heard = log.heard(alarm);
            log.alarms.push(heard);
        }
        let found = log.watch();
        self.logs.insert(key, log);
        self.found
            .extend(found.into_iter().map(|found| (key, found)));
        self.touch(&key);
    }

    /// Learns the key with which a node cosigns the heads of its own log.
    pub(crate) fn set_witness_key(&mut self, key: &Key, witness: Option<[u8; 32]>) {
        let Some(log) = self.logs.get_mut(key) else {
            return;
        };
        let found = log.watch_own(witness);
        self.found
            .extend(found.into_iter().map(|found| (*key, found)));
    }

    /// Takes what has proved itself since the last time.
    pub(crate) fn take_found(&mut self) -> Vec<(Key, Proven)> {
        std::mem::take(&mut self.found)
    }

    /// Returns the key of the log of a node.
    pub(crate) fn log_key(&self, key: &Key) -> Option<LogKey> {
        self.logs.get(key).map(|log| log.key)
    }

    /// Takes note that a node is convicted, and, when it is by its log, that nothing more has to be
    /// found out about that.
    pub(crate) fn convicted(&mut self, key: &Key, evidence: &Proven) {
        let why = match evidence.kind() {
            EvidenceKind::Equivocation => Why::TwoRoots,
            EvidenceKind::Fork => Why::Fork,
            EvidenceKind::Cosigner => return,
        };
        let Some(log) = self.logs.get_mut(key) else {
            return;
        };
        log.heads = None;
        let [accepted, offending] = evidence
            .notes()
            .map(|note| log.open_note(&note.to_string()));
        let shown = Evidence {
            accepted,
            offending,
        };
        self.convict(key, why, shown);
    }

    /// Returns what is to be kept on disk.
    pub(crate) fn kept(&self) -> impl Iterator<Item = KeptLog> + '_ {
        self.logs.values().map(|log| KeptLog {
            node: log.node,
            key: log.key,
            accepted: log.accepted.clone(),
            verdict: log.verdict.clone(),
            failed: log.unproven(),
            alarms: log.alarms.iter().map(|heard| heard.alarm.clone()).collect(),
        })
    }

    /// Learns which log a node announces in its record. The first key seen is the one that counts:
    /// it is derived from the same seed as the node's identity and never changes.
    pub(crate) fn pin(&mut self, node: NodeId, announced: LogKey) -> Step {
        let key = Key::of(&node);
        let Some(log) = self.logs.get_mut(&key) else {
            self.make_room();
            self.restore(KeptLog {
                node,
                key: announced,
                accepted: None,
                verdict: None,
                failed: Vec::new(),
                alarms: Vec::new(),
            });
            return Step::None;
        };
        if log.key == announced {
            return Step::None;
        }
        if announced.epoch < log.key.epoch && announced.key == log.key.key {
            // A node that was wiped has yet to learn which of its logs is the last one. Heads of the
            // earlier one count for nothing.
            return Step::None;
        }
        if log.key.key != announced.key {
            let evidence = Evidence {
                accepted: log.accepted.clone(),
                offending: None,
            };
            return self.convict(&key, Why::OtherLog, evidence);
        }
        log.key = announced;
        log.accepted = None;
        log.open.clear();
        log.failed.clear();
        log.doubted.clear();
        log.asked = None;
        log.own = None;
        drop(log.watch());
        Step::Replaced(announced.epoch)
    }

    /// Learns a head: `direct` when its origin announced it, otherwise passed on by a third party.
    pub(crate) fn observe(&mut self, key: &Key, note: &str, direct: bool) -> Step {
        let Some(log) = self.logs.get_mut(key) else {
            return Step::None;
        };
        if log.is_settled() {
            return Step::None;
        }
        // Most come again and again, from one neighbour after another.
        if log.heads().any(|held| held.note == note) {
            return Step::None;
        }
        let Some(head) = log.open_note(note) else {
            return Step::None;
        };
        let found = log.look_at(&head);
        self.found
            .extend(found.into_iter().map(|found| (*key, found)));
        if log.is_convicted() {
            return Step::None;
        }
        if let Some(other) = log.contradicted_by(&head) {
            let evidence = Evidence {
                accepted: Some(other),
                offending: Some(head),
            };
            return self.convict(key, Why::TwoRoots, evidence);
        }
        if log.holds(&head) {
            return Step::None;
        }
        let first = log.accepted.is_none() && direct;
        let from_nothing = log
            .accepted
            .as_ref()
            .is_some_and(|a| a.checkpoint.size == 0);
        if first || from_nothing {
            log.accepted = Some(head.clone());
            self.touch(key);
            return Step::Accepted(head);
        }
        if head.checkpoint.size > 0 || direct {
            log.keep_open(head);
        }
        Step::None
    }

    /// Returns the next question for the origin of a log, and takes it as asked. An unanswered one
    /// is given again.
    pub(crate) fn question(&mut self, key: &Key) -> Option<Question> {
        let log = self.logs.get_mut(key)?;
        if log.is_convicted() {
            return None;
        }
        if let Some(asked) = &mut log.asked {
            asked.repeats = asked.repeats.saturating_add(1);
            return Some(asked.question);
        }
        let accepted = log.accepted.as_ref()?.checkpoint.size;
        let open = log.open.pop().or_else(|| log.doubted.pop())?;
        let size = open.checkpoint.size;
        self.questions = self.questions.wrapping_add(1);
        let question = Question {
            id: self.questions,
            // A log of size 0 has nothing to prove; what is asked is whether it still has the rest.
            from: accepted.min(size).max(1),
            to: accepted.max(size),
        };
        log.asked = Some(Asked {
            question,
            open,
            repeats: 0,
        });
        Some(question)
    }

    /// Returns what a log was asked about, at the moment when it has not answered for long. That is no
    /// verdict: the heads stay unproven.
    pub(crate) fn unanswered(&self, key: &Key) -> Option<Evidence> {
        let log = self.logs.get(key)?;
        let asked = log.asked.as_ref()?;
        (asked.repeats == UNANSWERED_AFTER).then(|| Evidence {
            accepted: log.accepted.clone(),
            offending: Some(asked.open.clone()),
        })
    }

    /// Tells whether an answer is awaited.
    pub(crate) fn awaits(&self, key: &Key) -> bool {
        self.logs.get(key).is_some_and(|log| log.asked.is_some())
    }

    /// Tells whether a question could be asked.
    pub(crate) fn is_open(&self, key: &Key) -> bool {
        self.logs.get(key).is_some_and(|log| {
            let waiting = !log.open.is_empty() || !log.doubted.is_empty();
            let open = log.asked.is_some() || (log.accepted.is_some() && waiting);
            open && !log.is_convicted()
        })
    }

    /// Takes the origin's answer to a question.
    pub(crate) fn answer(
        &mut self,
        key: &Key,
        id: u32,
        answer: Result<Vec<Hash>, CannotProve>,
    ) -> Step {
        let Some(log) = self.logs.get_mut(key) else {
            return Step::None;
        };
        let is_asked = |asked: &mut Asked| asked.question.id == id;
        if answer == Err(CannotProve::Later) {
            return Step::None;
        }
        let Some(asked) = log.asked.take_if(is_asked) else {
            return Step::None;
        };
        let Some(accepted) = log.accepted.clone() else {
            return Step::None;
        };
        let failed = match answer {
            Ok(proof) => (!proves(&accepted, &asked.open, &proof)).then_some(Why::WrongProof),
            Err(CannotProve::Behind { have }) => Some(Why::Behind { have }),
            Err(CannotProve::Damaged { first_bad }) => Some(Why::Damaged { first_bad }),
            Err(CannotProve::Range) => Some(Why::NoProof),
            Err(CannotProve::Later) => None,
        };
        if let Some(why) = failed {
            log.fail(asked.open.clone());
            let evidence = Evidence {
                accepted: Some(accepted),
                offending: Some(asked.open),
            };
            return self.convict(key, why, evidence);
        }
        let has_grown = asked.open.checkpoint.size > accepted.checkpoint.size;
        let head = if has_grown { &asked.open } else { &accepted };
        let head = head.clone();
        log.accepted = Some(head.clone());
        let is_mended = log.proved(&asked.open, has_grown);
        if has_grown {
            self.touch(key);
        }
        match (is_mended, has_grown) {
            (true, _) => Step::Mended(head),
            (false, true) => Step::Accepted(head),
            (false, false) => Step::None,
        }
    }

    /// Returns whose log it is.
    pub(crate) fn node(&self, key: &Key) -> Option<NodeId> {
        self.logs.get(key).map(|log| log.node)
    }

    /// Returns what others may be told of accepted heads: those that changed after `mark`, each
    /// with the mark to continue from.
    pub(crate) fn accepted_since(&self, mark: u64) -> impl Iterator<Item = (u64, Key, &str)> {
        let later = self.by_change.range(mark.saturating_add(1)..);
        later.filter_map(|(change, key)| {
            let head = self.logs.get(key)?.accepted.as_ref()?;
            Some((*change, *key, head.note.as_str()))
        })
    }

    /// Returns what is held of a log.
    pub(crate) fn view(&self, key: &Key) -> HeadView {
        self.logs.get(key).map_or(HeadView::None, Log::view)
    }

    fn convict(&mut self, key: &Key, why: Why, evidence: Evidence) -> Step {
        let Some(log) = self.logs.get_mut(key) else {
            return Step::None;
        };
        let is_news = log.verdict.is_none() || (why.is_for_good() && !log.is_convicted());
        if !is_news {
            return Step::None;
        }
        log.verdict = Some((why, evidence.clone()));
        // Nothing that was seen is forgotten.
        for open in std::mem::take(&mut log.open) {
            log.fail(open);
        }
        log.doubted.clear();
        log.asked = None;
        Step::Inconsistent(why, evidence)
    }

    fn touch(&mut self, key: &Key) {
        let Some(log) = self.logs.get_mut(key) else {
            return;
        };
        self.changes += 1;
        self.by_change.remove(&log.change);
        log.change = self.changes;
        self.by_change.insert(self.changes, *key);
    }

    /// Makes room for one more log by dropping one about which nothing is held.
    fn make_room(&mut self) {
        if self.logs.len() < LOGS_MAX {
            return;
        }
        let holds_nothing = |log: &Log| log.verdict.is_none() && log.alarms.is_empty();
        let clean = self.logs.iter().filter(|(_, log)| holds_nothing(log));
        let oldest = clean.min_by_key(|(_, log)| log.change);
        if let Some((key, change)) = oldest.map(|(key, log)| (*key, log.change)) {
            self.logs.remove(&key);
            self.by_change.remove(&change);
        }
    }
}

impl Log {
    fn open_note(&self, note: &str) -> Option<SignedHead> {
        let key = VerifyingKey::from_bytes(self.key.key).ok()?;
        SignedHead::open(note, &Origin::of(&self.node, self.key.epoch), &key).ok()
    }

    fn heads(&self) -> impl Iterator<Item = &SignedHead> {
        let asked = self.asked.as_ref().map(|asked| &asked.open);
        self.accepted.iter().chain(asked).chain(&self.open)
    }

    fn contradicted_by(&self, head: &SignedHead) -> Option<SignedHead> {
        let one = &head.checkpoint;
        let other = |held: &&SignedHead| {
            held.checkpoint.size == one.size && held.checkpoint.root != one.root
        };
        self.heads().find(other).cloned()
    }

    fn holds(&self, head: &SignedHead) -> bool {
        self.heads().any(|held| held.checkpoint == head.checkpoint)
    }

    /// Keeps a head until it can be asked about; the largest is asked about first.
    fn keep_open(&mut self, head: SignedHead) {
        self.open.push(head);
        self.open.sort_by_key(|head| head.checkpoint.size);
        if self.open.len() > OPEN_MAX {
            self.open.remove(0);
        }
    }

    fn view(&self) -> HeadView {
        let accepted = self.accepted.as_ref().map(|head| head.checkpoint.size);
        if let Some((why, _evidence)) = &self.verdict {
            return HeadView::Inconsistent {
                why: *why,
                accepted,
            };
        }
        let mut alarms = self.standing_alarms().peekable();
        if let Some(why) = alarms.peek().map(|first| first.why) {
            let reporters = alarms.map(|alarm| alarm.reporter);
            return HeadView::Reported {
                accepted,
                by: reporters
                    .filter_map(|key| NodeId::from_public_key(*key.as_bytes()).ok())
                    .collect(),
                why,
            };
        }
        let seen = self.heads().map(|head| head.checkpoint.size).max();
        match (&self.accepted, seen) {
            (Some(head), Some(size)) if size <= head.checkpoint.size => HeadView::Consistent {
                size: head.checkpoint.size,
                root: head.checkpoint.root,
            },
            (_, Some(size)) => HeadView::Unproven { size, accepted },
            (_, None) => HeadView::None,
        }
    }
}

/// Returns the head that a verdict says was not proved.
/// Tells whether the proof shows that the larger of two heads continues the smaller.
fn proves(one: &SignedHead, other: &SignedHead, proof: &[Hash]) -> bool {
    let (small, large) = if one.checkpoint.size <= other.checkpoint.size {
        (&one.checkpoint, &other.checkpoint)
    } else {
        (&other.checkpoint, &one.checkpoint)
    };
    small.size == 0
        || verify_consistency(small.size, &small.root, large.size, &large.root, proof).is_ok()
}
