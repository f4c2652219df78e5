//! The log's side of mirroring: who keeps copies of it, how far each has come, and whether they still
//! have what they say they have.
//!
//! Nothing is sent here. [`Feeder::due`] says whom to ask what: to take a head, to take entries, to
//! show some that nobody could foresee. [`Feeder::on_answer`] takes what came back, as the statuses and
//! bodies of C2SP tlog-mirror, and [`Feeder::on_challenged`] how a challenge went. Each mirror is sent
//! one thing at a time; one that cannot be reached is asked ever more rarely.
//!
//! A mirror that is replaced counts until there are enough copies of the same size without it.

mod slot;

use std::sync::Arc;
use std::time::Duration;

use openfang_id::NodeId;

use self::slot::Slot;
use crate::cosign::{CosignerKey, Role};
use crate::note::{Note, NoteError};
use crate::policy::assign;
use crate::{Checkpoint, Hash, Origin, SignedHead};

/// How many mirrors a log has, where there are enough peers.
pub const MIRRORS: usize = 3;
/// How many mirrors are remembered that were replaced.
const FORMER_MAX: usize = 8;

/// How fast things go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between a complete copy and the next upload to the same mirror.
    pub upload_every: Duration,
    /// Between two challenges of one mirror: this, give or take a half.
    pub challenge_every: Duration,
    /// How long a mirror may be away before another one takes its place: every entry has to be sent
    /// there.
    pub replace_after: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            upload_every: Duration::from_millis(250),
            challenge_every: Duration::from_secs(60),
            replace_after: Duration::from_secs(600),
        }
    }
}

/// Keeps the copies of one log up to date.
#[derive(Debug)]
pub struct Feeder {
    origin: Origin,
    pace: Pace,
    newest: Option<Arc<Head>>,
    candidates: Vec<Candidate>,
    slots: Vec<Slot>,
}

/// A node that could mirror the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub node: NodeId,
    /// What it cosigns with.
    pub key: CosignerKey,
    /// Whether it can be reached now.
    pub reachable: bool,
}

/// A head of the log.
#[derive(Debug)]
struct Head {
    size: u64,
    root: Hash,
    note: Note,
}

/// A head that a mirror has cosigned: it holds every entry under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// How many entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// When, in POSIX seconds by the clock of the mirror.
    pub time: u64,
    /// The head with the signatures of the log and of the mirror.
    pub note: Note,
}

/// What a mirror is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whom.
    pub node: NodeId,
    /// What.
    pub what: What,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Take this head: `add-checkpoint`, with a proof from `old` to `size`.
    Checkpoint {
        /// The size it is believed to have taken last.
        old: u64,
        /// The size of the head.
        size: u64,
        /// The head, signed by the log.
        note: Note,
    },
    /// Take entries: `add-entries`, with as many packages as one request may hold.
    Entries {
        /// The first entry; `end` for a request without packages, which asks where to begin.
        start: u64,
        /// The size of the head that the proofs lead to.
        end: u64,
        /// To be shown again.
        ticket: Vec<u8>,
    },
    /// Show entries under a head that it has cosigned.
    Challenge {
        /// The size of the head.
        size: u64,
        /// Its root.
        root: Hash,
        /// Entries that it could not show before; others are to be drawn.
        again: Vec<u64>,
    },
}

/// What an answer has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing to act on.
    None,
    /// The mirror has cosigned a head: [`Feeder::held`] has changed.
    Held,
    /// The mirror has taken a longer log of this name than there is: this one was rolled back, or there
    /// are two.
    Behind {
        /// What it has taken.
        latest: u64,
    },
}

/// How a challenge went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every entry was shown.
    Shown,
    /// There was no answer, or it was not a good time.
    Unanswered,
    /// One of these entries is missing, or was shown wrongly.
    Wrong(Vec<u64>),
}

/// How it stands with a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was not asked yet.
    New,
    /// Entries are on their way; this one is the next.
    Uploading(u64),
    /// It holds the size that [`MirrorStatus::size`] tells.
    Holding,
    /// It was not reached, or did not answer.
    Unreachable,
    /// It has taken a log of this name with so many entries, more than there are.
    Ahead(u64),
    /// Its copy may not grow, or its disk is full.
    Full,
    /// It has said no, with this status.
    Refused(u16),
    /// What it has sent is no cosignature of its key under the head, or makes no sense.
    Invalid,
}

/// What is known of the entries that a mirror says it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proven {
    /// It was not challenged yet.
    Unasked,
    /// It has shown every entry of the last challenge.
    Shown,
    /// It did not answer the last challenge.
    Unproven,
    /// It could not show an entry, or showed another one, and has not shown it since.
    Failed,
}

/// How it stands with one mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorStatus {
    /// Which.
    pub node: NodeId,
    /// Its key.
    pub key: CosignerKey,
    /// The size of the last head it has cosigned; 0 for none.
    pub size: u64,
    /// When it did, in POSIX seconds by its clock.
    pub time: Option<u64>,
    /// How its last answer was.
    pub standing: Standing,
    /// Whether it has been replaced, and counts until there are enough copies without it.
    pub former: bool,
    /// Whether it has what it says it has.
    pub proven: Proven,
}

/// How it stands with all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirroring {
    /// The size of the newest head; `None` before the first.
    pub size: Option<u64>,
    /// How many copies there should be.
    pub wanted: usize,
    /// How many mirrors hold everything under the newest head.
    pub complete: usize,
    /// Up to which size there are as many copies as there should be.
    pub replicated: u64,
    /// Each mirror, those that were replaced last.
    pub mirrors: Vec<MirrorStatus>,
}

impl Mirroring {
    /// How it stands with the mirrors of a log that has none, and no head.
    #[must_use]
    pub fn none() -> Self {
        Self {
            size: None,
            wanted: MIRRORS,
            complete: 0,
            replicated: 0,
            mirrors: Vec::new(),
        }
    }
}

impl Feeder {
    /// Starts without mirrors and heads.
    #[must_use]
    pub fn new(origin: Origin, pace: Pace) -> Self {
        Self {
            origin,
            pace,
            newest: None,
            candidates: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// Takes what a mirror has cosigned before the process began. It counts as replaced until it is
    /// chosen again.
    ///
    /// # Errors
    /// When its cosignature does not hold. That the log has signed the head was checked before.
    pub fn remember(
        &mut self,
        node: NodeId,
        key: CosignerKey,
        head: &SignedHead,
    ) -> Result<(), NoteError> {
        let note: Note = head.note.parse()?;
        let time = key.verify(&note)?;
        let Checkpoint { size, root, .. } = head.checkpoint;
        let mut slot = Slot::new(node, key);
        slot.former = true;
        // Nobody can be reached in the first moment.
        slot.challenge_at = self.pace.challenge_every / 2;
        slot.hold(Held {
            size,
            root,
            time,
            note,
        });
        self.slots.retain(|other| other.node != node);
        self.slots.push(slot);
        self.release();
        Ok(())
    }

    /// Takes who could mirror the log. What is known of those who stay is kept.
    pub fn set_candidates(&mut self, candidates: Vec<Candidate>, now: Duration) {
        self.candidates = candidates;
        for slot in &mut self.slots {
            let there = |other: &Candidate| other.node == slot.node && other.reachable;
            let there = self.candidates.iter().any(there);
            slot.away_since = match slot.away_since {
                _ if there => None,
                Some(since) => Some(since),
                None => Some(now),
            };
        }
        self.choose(now);
    }

    /// Lets go of mirrors that must not be dealt with, whatever they hold: they are sent nothing, and count for
    /// nothing. Tells whether one of them held something.
    pub fn dismiss(&mut self, is_barred: impl Fn(&NodeId) -> bool) -> bool {
        self.candidates
            .retain(|candidate| !is_barred(&candidate.node));
        let before = self.held().count();
        self.slots.retain(|slot| !is_barred(&slot.node));
        self.held().count() < before
    }

    /// Takes the newest head of the log.
    pub fn on_head(&mut self, head: &SignedHead) {
        let Ok(note) = head.note.parse::<Note>() else {
            return;
        };
        let Checkpoint { size, root, .. } = head.checkpoint;
        let grown = self.newest.as_ref().is_none_or(|newest| newest.size < size);
        if grown && size > 0 {
            self.newest = Some(Arc::new(Head { size, root, note }));
        }
    }

    /// Returns whom to ask what now, and notes that they are being asked.
    pub fn due(&mut self, now: Duration) -> Vec<Ask> {
        self.choose(now);
        let newest = self.newest.clone();
        let mut asks = Vec::new();
        for slot in &mut self.slots {
            let node = slot.node;
            let upload = slot.upload(newest.as_ref(), now);
            let challenge = slot.challenge(now);
            let due = upload.into_iter().chain(challenge);
            asks.extend(due.map(|what| Ask { node, what }));
        }
        asks
    }

    /// Returns when someone is to be asked next, if nothing else happens.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let newest = self.newest.as_ref();
        let slots = self.slots.iter();
        let asked = slots.clone().filter_map(|slot| slot.next(newest));
        let assigned = slots.filter(|slot| !slot.former);
        let replaced = assigned.filter_map(|slot| Some(slot.away_since? + self.pace.replace_after));
        asked.chain(replaced).min()
    }

    /// Takes the answer to what was asked, status and body; `None` when there was none.
    pub fn on_answer(&mut self, ask: &Ask, answer: Option<(u16, &[u8])>, now: Duration) -> Step {
        let longest = self.newest.as_ref().map_or(0, |newest| newest.size);
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.node == ask.node) else {
            return Step::None;
        };
        if !slot.is_asked(&ask.what) {
            return Step::None;
        }
        let step = slot.on_answer(&ask.what, answer, (longest, now, &self.pace));
        self.release();
        step
    }

    /// Takes how a challenge of a mirror went. The number is random: it keeps the mirror from knowing when
    /// the next one comes.
    pub fn on_challenged(&mut self, node: &NodeId, outcome: Outcome, now: Duration, random: u64) {
        let half = self.pace.challenge_every / 2;
        let spread = u64::try_from(self.pace.challenge_every.as_millis()).unwrap_or(u64::MAX);
        let more = random.checked_rem(spread).unwrap_or_default();
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.node == *node) {
            slot.on_challenged(outcome, now + half + Duration::from_millis(more));
        }
    }

    /// Returns what the mirrors have cosigned last.
    pub fn held(&self) -> impl Iterator<Item = (&NodeId, &CosignerKey, &Held)> {
        let slots = self.slots.iter();
        slots.filter_map(|slot| Some((&slot.node, &slot.key, slot.held.as_ref()?)))
    }

    /// Tells how it stands.
    #[must_use]
    pub fn status(&self) -> Mirroring {
        let size = self.newest.as_ref().map(|newest| newest.size);
        let mut sizes: Vec<u64> = self.held().map(|(_, _, held)| held.size).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let complete = sizes
            .iter()
            .filter(|held| size.is_some_and(|size| **held >= size));
        let mut mirrors: Vec<_> = self.slots.iter().map(Slot::status).collect();
        mirrors.sort_by_key(|mirror| mirror.former);
        Mirroring {
            size,
            wanted: MIRRORS,
            complete: complete.count(),
            replicated: sizes.get(MIRRORS - 1).copied().unwrap_or_default(),
            mirrors,
        }
    }

    /// Chooses who mirrors the log, of those who can be reached or were lately.
    fn choose(&mut self, now: Duration) {
        let stays = |slot: &Slot| {
            let gone = |since: Duration| since + self.pace.replace_after <= now;
            !slot.former && !slot.away_since.is_some_and(gone)
        };
        let eligible = |candidate: &&Candidate| {
            let mut slots = self.slots.iter().filter(|slot| slot.is_of(candidate));
            candidate.reachable || slots.any(stays)
        };
        let eligible: Vec<Candidate> = self.candidates.iter().filter(eligible).cloned().collect();
        let nodes: Vec<NodeId> = eligible.iter().map(|candidate| candidate.node).collect();
        let chosen = assign(Role::Mirror, &self.origin, &nodes, MIRRORS);
        // A mirror with a new key has forgotten what it said with the old one.
        let candidates = &self.candidates;
        self.slots.retain(|slot| {
            let other_key = |other: &Candidate| other.node == slot.node && !slot.is_of(other);
            !candidates.iter().any(other_key)
        });
        for slot in &mut self.slots {
            slot.set_former(!chosen.contains(&slot.node));
        }
        for candidate in eligible {
            let known = self.slots.iter().any(|slot| slot.node == candidate.node);
            if chosen.contains(&candidate.node) && !known {
                self.slots.push(Slot::new(candidate.node, candidate.key));
            }
        }
        self.release();
    }

    /// Forgets those that were replaced and are not needed any more.
    fn release(&mut self) {
        let held = |slot: &Slot| slot.held.as_ref().map_or(0, |held| held.size);
        let assigned = self.slots.iter().filter(|slot| !slot.former);
        let copies: Vec<u64> = assigned.map(held).collect();
        self.slots.retain(|slot| {
            let size = held(slot);
            let enough = copies.iter().filter(|copy| **copy >= size).count() >= MIRRORS;
            !slot.former || (size > 0 && !enough)
        });
        let mut former: Vec<(u64, NodeId)> = Vec::new();
        former.extend(
            self.slots
                .iter()
                .filter(|slot| slot.former)
                .map(|slot| (held(slot), slot.node)),
        );
        former.sort_unstable_by(|a, b| b.cmp(a));
        let surplus: Vec<NodeId> = former
            .into_iter()
            .skip(FORMER_MAX)
            .map(|(_, node)| node)
            .collect();
        self.slots.retain(|slot| !surplus.contains(&slot.node));
    }
}

#[cfg(test)]
mod tests;
