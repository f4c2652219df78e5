//! The log's side of witnessing: which head to offer to whom, and what the answers are worth.
//!
//! Nothing is sent here. [`Collector::due`] says what to ask, as bodies of `add-checkpoint` requests
//! without their proofs; [`Collector::on_answer`] takes what came back, as the statuses and bodies of
//! C2SP tlog-witness. A witness is asked about one head at a time, always the newest; one that cannot
//! be reached is asked ever more rarely.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use openfang_id::NodeId;

use crate::SignedHead;
use crate::cosign::CosignerKey;
use crate::note::{Note, NoteError};
use crate::policy::{Strength, quorum_for};

/// How many heads wait for cosignatures: a witness that takes a second is four heads late.
const HEADS_MAX: usize = 16;
/// How long a witness is left alone after a first failure; twice as long after each further one.
const RETRY: Duration = Duration::from_millis(500);
/// The same for one that says to come back later: it may have started or joined this moment.
const RETRY_BUSY: Duration = Duration::from_millis(50);
/// So often that pause stays as it is, before it is doubled.
const BUSY_TRIES: u32 = 8;
/// Come back later: the status of HTTP.
const BUSY: u16 = 503;
/// The longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The longest body of a 409: a decimal number and a line feed.
const SIZE_BYTES_MAX: usize = 20;

/// Gathers the cosignatures of one log.
#[derive(Debug)]
pub struct Collector {
    witnesses: Vec<Slot>,
    /// The newest last.
    heads: VecDeque<Pending>,
    quorum: Option<Cosigned>,
}

/// One witness.
#[derive(Debug)]
struct Slot {
    node: NodeId,
    key: CosignerKey,
    /// What it has cosigned last, as far as is known.
    old: u64,
    /// The size of the head it is being asked about.
    asked: Option<u64>,
    /// Not before this, since the start of the process.
    wait_until: Duration,
    failures: u32,
    last: Standing,
}

/// A head and the cosignatures it has so far.
#[derive(Debug, Clone)]
struct Pending {
    size: u64,
    note: Note,
    by: BTreeMap<NodeId, u64>,
}

/// A head that enough witnesses have cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// How many entries.
    pub size: u64,
    /// The head with all its lines.
    pub note: Note,
    /// Who has cosigned, and when, in POSIX seconds by their clocks.
    pub by: BTreeMap<NodeId, u64>,
}

/// What a witness is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Whom.
    pub node: NodeId,
    /// The size it is believed to have cosigned last; a proof from there to `size` goes with it.
    pub old: u64,
    /// The size of the head.
    pub size: u64,
    /// The head, signed by the log.
    pub note: Note,
}

/// What an answer has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing to act on.
    None,
    /// The newest cosigned head has changed.
    Quorum,
    /// The witness has cosigned a longer log of this name than there is: this one was rolled back, or
    /// there are two.
    Behind {
        /// What it has cosigned.
        latest: u64,
    },
}

/// How it stands with a witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was not asked yet.
    New,
    /// It has cosigned the size that [`Witnessing::witnesses`] tells.
    Cosigned,
    /// It was not reached, or did not answer.
    Unreachable,
    /// It has cosigned a log of this name with so many entries, more than there are.
    Ahead(u64),
    /// It has said no, with this status.
    Refused(u16),
    /// What it has sent is no cosignature of its key under the head.
    Invalid,
}

/// How it stands with one witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessStatus {
    /// Which.
    pub node: NodeId,
    /// Its key.
    pub key: CosignerKey,
    /// What it has cosigned last, as far as is known; 0 for nothing.
    pub size: u64,
    /// How its last answer was.
    pub standing: Standing,
}

/// How it stands with all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witnessing {
    /// The size of the newest head; `None` before the first.
    pub size: Option<u64>,
    /// How many have cosigned the newest head.
    pub cosigned: usize,
    /// How many must.
    pub needed: usize,
    /// What that many of all are worth.
    pub strength: Strength,
    /// Each witness.
    pub witnesses: Vec<WitnessStatus>,
    /// The newest head that enough have cosigned.
    pub quorum: Option<Cosigned>,
}

impl Default for Collector {
    fn default() -> Self {
        Self::new()
    }
}

impl Collector {
    /// Starts without witnesses and heads.
    #[must_use]
    pub fn new() -> Self {
        Self {
            witnesses: Vec::new(),
            heads: VecDeque::new(),
            quorum: None,
        }
    }

    /// Takes who witnesses the log from now on. What is known of those who stay is kept; they may be enough
    /// without those who left.
    pub fn set_witnesses(&mut self, witnesses: Vec<(NodeId, CosignerKey)>) -> Step {
        let mut before = std::mem::take(&mut self.witnesses);
        let mut kept = |node: &NodeId, key: &CosignerKey| {
            let same = |slot: &Slot| slot.node == *node && slot.key == *key;
            let at = before.iter().position(same)?;
            Some(before.swap_remove(at))
        };
        self.witnesses = witnesses
            .into_iter()
            .map(|(node, key)| kept(&node, &key).unwrap_or_else(|| Slot::new(node, key)))
            .collect();
        let known = self.quorum.as_ref().map(|quorum| quorum.size);
        let newer = self.heads.iter().rev().map(|pending| pending.size);
        let newer: Vec<_> = newer
            .take_while(|size| known.is_none_or(|known| *size > known))
            .collect();
        newer
            .into_iter()
            .map(|size| self.look_for_quorum(size))
            .find(|step| *step != Step::None)
            .unwrap_or(Step::None)
    }

    /// Returns the key of a witness.
    #[must_use]
    pub fn key_of(&self, node: &NodeId) -> Option<&CosignerKey> {
        let of = |slot: &&Slot| slot.node == *node;
        self.witnesses.iter().find(of).map(|slot| &slot.key)
    }

    /// Takes the newest head of the log.
    pub fn on_head(&mut self, head: &SignedHead) {
        let Ok(note) = head.note.parse::<Note>() else {
            return;
        };
        let size = head.checkpoint.size;
        self.heads.retain(|pending| pending.size < size);
        if self.heads.len() >= HEADS_MAX {
            self.heads.pop_front();
        }
        self.heads.push_back(Pending {
            size,
            note,
            by: BTreeMap::new(),
        });
    }

    /// Returns whom to ask now, and notes that they are being asked.
    pub fn due(&mut self, now: Duration) -> Vec<Offer> {
        let Some(newest) = self.heads.back() else {
            return Vec::new();
        };
        let wanting = self.witnesses.iter_mut().filter(|slot| slot.wants(newest));
        let due = wanting.filter(|slot| slot.wait_until <= now);
        due.map(|slot| {
            slot.asked = Some(newest.size);
            Offer {
                node: slot.node,
                old: slot.old.min(newest.size),
                size: newest.size,
                note: newest.note.clone(),
            }
        })
        .collect()
    }

    /// Returns when someone is to be asked next, if nothing else happens.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let newest = self.heads.back()?;
        let wanting = self.witnesses.iter().filter(|slot| slot.wants(newest));
        wanting.map(|slot| slot.wait_until).min()
    }

    /// Takes the answer of a witness to an offer of a head of `size`.
    pub fn on_answer(
        &mut self,
        (node, size): (&NodeId, u64),
        (status, body): (u16, &[u8]),
        now: Duration,
    ) -> Step {
        let longest = self.heads.back().map_or(size, |newest| newest.size);
        let Some(slot) = asked(&mut self.witnesses, node, size) else {
            return Step::None;
        };
        match status {
            200 => {
                let pending = self.heads.iter_mut().find(|pending| pending.size == size);
                let taken = pending.map(|pending| slot.take(pending, body));
                if let Some(Err(_why)) = taken {
                    slot.fail(Standing::Invalid, now);
                    return Step::None;
                }
                slot.succeed(size);
                self.look_for_quorum(size)
            }
            409 => {
                let Some(latest) = latest_of(body) else {
                    slot.fail(Standing::Invalid, now);
                    return Step::None;
                };
                if latest > longest {
                    slot.fail(Standing::Ahead(latest), now);
                    return Step::Behind { latest };
                }
                // It is believed once, and asked again at once.
                if slot.last == Standing::Refused(409) || latest == slot.old.min(size) {
                    slot.fail(Standing::Refused(409), now);
                }
                slot.last = Standing::Refused(409);
                slot.old = latest;
                Step::None
            }
            status => {
                slot.fail(Standing::Refused(status), now);
                Step::None
            }
        }
    }

    /// Takes note that a witness was not reached, or that there was nothing to offer it.
    pub fn on_failure(&mut self, (node, size): (&NodeId, u64), now: Duration) {
        if let Some(slot) = asked(&mut self.witnesses, node, size) {
            slot.fail(Standing::Unreachable, now);
        }
    }

    /// Tells how it stands.
    #[must_use]
    pub fn status(&self) -> Witnessing {
        let newest = self.heads.back();
        let by = |slot: &&Slot| newest.is_some_and(|newest| newest.by.contains_key(&slot.node));
        let (n, k) = (self.witnesses.len(), quorum_for(self.witnesses.len()));
        let witnesses = self.witnesses.iter().map(|slot| WitnessStatus {
            node: slot.node,
            key: slot.key.clone(),
            size: slot.old,
            standing: slot.last,
        });
        Witnessing {
            size: newest.map(|newest| newest.size),
            cosigned: self.witnesses.iter().filter(by).count(),
            needed: k,
            strength: Strength::of(k, n),
            witnesses: witnesses.collect(),
            quorum: self.quorum.clone(),
        }
    }

    fn look_for_quorum(&mut self, size: u64) -> Step {
        let needed = quorum_for(self.witnesses.len());
        let Some(pending) = self.heads.iter().find(|pending| pending.size == size) else {
            return Step::None;
        };
        // Cosignatures of those who were witnesses and are no more do not count.
        let own = |node: &&NodeId| self.witnesses.iter().any(|slot| slot.node == **node);
        let enough = pending.by.keys().filter(own).count() >= needed;
        let newer = self
            .quorum
            .as_ref()
            .is_none_or(|before| before.size <= size);
        if needed == 0 || !enough || !newer {
            return Step::None;
        }
        self.quorum = Some(Cosigned {
            size,
            note: pending.note.clone(),
            by: pending.by.clone(),
        });
        Step::Quorum
    }
}

impl Slot {
    fn new(node: NodeId, key: CosignerKey) -> Self {
        Self {
            node,
            key,
            old: 0,
            asked: None,
            wait_until: Duration::ZERO,
            failures: 0,
            last: Standing::New,
        }
    }

    fn wants(&self, newest: &Pending) -> bool {
        self.asked.is_none() && !newest.by.contains_key(&self.node)
    }

    fn take(&self, pending: &mut Pending, body: &[u8]) -> Result<(), NoteError> {
        let body = std::str::from_utf8(body).map_err(|_not_text| NoteError::Form)?;
        let time = self.key.collect(&mut pending.note, body)?;
        pending.by.insert(self.node, time);
        Ok(())
    }

    fn succeed(&mut self, size: u64) {
        self.old = size;
        self.failures = 0;
        self.wait_until = Duration::ZERO;
        self.last = Standing::Cosigned;
    }

    fn fail(&mut self, why: Standing, now: Duration) {
        let (first, times) = match why {
            Standing::Refused(BUSY) => (RETRY_BUSY, self.failures / BUSY_TRIES),
            Standing::New
            | Standing::Cosigned
            | Standing::Unreachable
            | Standing::Ahead(_)
            | Standing::Refused(_)
            | Standing::Invalid => (RETRY, self.failures),
        };
        let pause = first.saturating_mul(1 << times.min(16));
        self.failures = self.failures.saturating_add(1);
        self.wait_until = now + pause.min(RETRY_MAX);
        self.last = why;
    }
}

/// Finds who was asked about a size; it is then no longer being asked.
fn asked<'a>(slots: &'a mut [Slot], node: &NodeId, size: u64) -> Option<&'a mut Slot> {
    let of = |slot: &&mut Slot| slot.node == *node && slot.asked == Some(size);
    let slot = slots.iter_mut().find(of)?;
    slot.asked = None;
    Some(slot)
}

/// Reads the body of a 409: a size.
fn latest_of(body: &[u8]) -> Option<u64> {
    let line = body.strip_suffix(b"\n")?;
    let plain =
        !line.is_empty() && line.len() < SIZE_BYTES_MAX && line.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(line).ok().filter(|_| plain)?;
    let padded = text.len() > 1 && text.starts_with('0');
    text.parse().ok().filter(|_| !padded)
}

#[cfg(test)]
mod tests;
