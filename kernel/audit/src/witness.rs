//! A witness: it cosigns heads of logs that only grow, and remembers what it has cosigned. C2SP
//! tlog-witness.
//!
//! [`Witness::add_checkpoint`] takes the body of an `add-checkpoint` request, from wherever it came,
//! and answers with a cosignature or with a [`Refusal`], which knows its HTTP status and body. State
//! is kept in a [`WitnessStore`]: it is durable before the cosignature exists, and it is moved by
//! compare-and-swap, so that no order of requests makes the witness contradict itself.
//!
//! Beyond the specification: a log that is new here must begin with `old 0`; requests are refused with
//! 429 when too many are about one log at once, and with 503 while the clock is behind the last
//! cosignature or the state cannot be written.

mod file;
mod refusal;
mod request;
mod store;

use std::collections::BTreeSet;
use std::fmt;

pub use file::{FileStore, StoreOpenError};
pub use refusal::{Reason, Refusal};
pub use request::{AddCheckpoint, REQUEST_BYTES_MAX, RequestError};
pub use store::{Advanced, Change, MemoryStore, State, StoreError, Version, WitnessStore};

use crate::Hash;
use crate::cosign::{Cosigner, LogName, TIME_MAX, TreeHead};
use crate::evidence::Evidence;
use crate::note::{Note, NoteError, Signature, Verifier};
use crate::proof::verify_consistency;
use crate::tree::EMPTY_ROOT;

/// How often the requests of one batch that are in each other's way are tried again.
const ROUNDS_MAX: usize = 8;

/// What a witness holds of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It knows nothing of it.
    Unknown,
    /// These keys sign its heads. More than one while a key is being replaced.
    Keys(Vec<Verifier>),
    /// It has equivocated: nothing of it is cosigned any more.
    Frozen,
}

/// Tells what is held of a log.
pub type Trusted<'a> = dyn Fn(&LogName) -> Trust + 'a;

/// A cosigner with a memory.
#[derive(Debug)]
pub struct Witness<S> {
    cosigner: Cosigner,
    store: S,
}

/// A head that was cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What was cosigned.
    pub head: TreeHead,
    /// When, in POSIX seconds.
    pub time: u64,
    /// The cosignatures.
    pub lines: Vec<Signature>,
}

/// A request that is in order as far as that can be told without state.
struct Checked {
    request: AddCheckpoint,
    keys: Vec<Verifier>,
    /// The note with the lines of its log only: this is what is kept.
    note: Note,
}

impl fmt::Display for Accepted {
    /// Writes the body of the answer: the signature lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl<S: WitnessStore> Witness<S> {
    /// Makes a witness. The store must be the one of this key: see [`FileStore::open`].
    #[must_use]
    pub fn new(cosigner: Cosigner, store: S) -> Self {
        Self { cosigner, store }
    }

    /// Returns the cosigner.
    #[must_use]
    pub fn cosigner(&self) -> &Cosigner {
        &self.cosigner
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Answers one request at a time in POSIX seconds. When this returns a cosignature, what it says
    /// is durable.
    ///
    /// # Errors
    /// When the head is not cosigned: why, what to answer, and evidence if there is any.
    pub fn add_checkpoint(
        &self,
        request: &[u8],
        trusted: &Trusted<'_>,
        now: u64,
    ) -> Result<Accepted, Refusal> {
        let mut answers = self.add_checkpoints(&[request], trusted, now);
        answers
            .pop()
            .unwrap_or_else(|| Err(Reason::Overloaded.into()))
    }

    /// Answers several requests, in their order, and writes the state of all of them at once: they
    /// share the time the disk takes.
    pub fn add_checkpoints(
        &self,
        requests: &[&[u8]],
        trusted: &Trusted<'_>,
        now: u64,
    ) -> Vec<Result<Accepted, Refusal>> {
        let checked: Vec<_> = requests
            .iter()
            .map(|request| check(request, trusted))
            .collect();
        let mut answers: Vec<Option<Result<Accepted, Refusal>>> = Vec::new();
        let mut waiting = Vec::new();
        for (at, outcome) in checked.into_iter().enumerate() {
            match outcome {
                Ok(checked) => {
                    answers.push(None);
                    waiting.push((at, checked));
                }
                Err(refusal) => answers.push(Some(Err(refusal))),
            }
        }
        for _round in 0..ROUNDS_MAX {
            if waiting.is_empty() {
                break;
            }
            waiting = self.round(waiting, now, |at, answer| answers[at] = Some(answer));
        }
        let busy = || Err(Reason::Overloaded.into());
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(busy))
            .collect()
    }

    /// Answers one request a log, and returns those that are to be tried again.
    fn round(
        &self,
        requests: Vec<(usize, Checked)>,
        now: u64,
        mut answer: impl FnMut(usize, Result<Accepted, Refusal>),
    ) -> Vec<(usize, Checked)> {
        let mut again = Vec::new();
        let mut moved = Vec::new();
        let mut changes = Vec::new();
        let mut logs = BTreeSet::new();
        for (at, checked) in requests {
            if !logs.insert(checked.request.head().origin.clone()) {
                again.push((at, checked));
                continue;
            }
            match self.decide(&checked, now) {
                Ok(Some(change)) => {
                    changes.push(change);
                    moved.push((at, checked));
                }
                Ok(None) => answer(at, self.cosign(&checked, now)),
                Err(refusal) => answer(at, Err(refusal)),
            }
        }
        if changes.is_empty() {
            return again;
        }
        match self.store.advance(&changes) {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for (at, checked) in moved {
                    match outcomes.next() {
                        Some(Advanced::Yes) => answer(at, self.cosign(&checked, now)),
                        // Someone else was faster: look again at what there is now.
                        Some(Advanced::Conflict) => again.push((at, checked)),
                        None => answer(at, Err(Reason::Store.into())),
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "the state of the witness cannot be written");
                for (at, _) in moved {
                    answer(at, Err(Reason::Store.into()));
                }
            }
        }
        again.sort_unstable_by_key(|(at, _)| *at);
        again
    }

    /// Compares a request with the state. Returns the change that must be durable before it is
    /// cosigned, if any.
    fn decide(&self, checked: &Checked, now: u64) -> Result<Option<Change>, Refusal> {
        let head = checked.request.head();
        let state = self.store.load(&head.origin).map_err(|error| {
            tracing::error!(%error, "the state of the witness cannot be read");
            Reason::Store
        })?;
        let evidence = state
            .as_ref()
            .and_then(|state| equivocation(checked, state));
        grows(&checked.request, state.as_ref()).map_err(|reason| Refusal {
            reason,
            evidence: evidence.map(Box::new),
        })?;
        if now > TIME_MAX {
            return Err(Reason::Clock.into());
        }
        let version = state.as_ref().map(State::version);
        if let Some(version) = version {
            if now < version.time {
                return Err(Reason::Clock.into());
            }
            let wanted = Version {
                size: head.size,
                root: head.root,
                time: now,
            };
            if version == wanted {
                return Ok(None);
            }
        }
        let new = State::new(checked.note.clone(), now).map_err(|_parsed| Reason::Store)?;
        Ok(Some(Change {
            expected: version,
            new,
        }))
    }

    fn cosign(&self, checked: &Checked, now: u64) -> Result<Accepted, Refusal> {
        let head = checked.request.head();
        let line = self.cosigner.cosign(head, now).ok_or(Reason::Clock)?;
        Ok(Accepted {
            head: head.clone(),
            time: now,
            lines: vec![line],
        })
    }

    /// Returns the latest head of a log that was cosigned, with the lines of the log and of this
    /// witness: what `GET <hex>/checkpoint` shows, where the id is the SHA-256 of the name of the log.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn checkpoint(&self, id: &Hash) -> Result<Option<Note>, StoreError> {
        let Some(state) = self.store.find(id)? else {
            return Ok(None);
        };
        let mut note = state.note().clone();
        // Made anew from what is durable: the signature is the same, bit by bit.
        let Some(line) = self.cosigner.cosign(state.head(), state.version().time) else {
            return Ok(None);
        };
        Ok(note.add(line).is_ok().then_some(note))
    }
}

/// Checks everything that can be checked without state, in the order of the specification.
fn check(request: &[u8], trusted: &Trusted<'_>) -> Result<Checked, Refusal> {
    let request = AddCheckpoint::parse(request).map_err(Reason::Malformed)?;
    let head = request.head();
    let keys = match trusted(&head.origin) {
        Trust::Unknown => return Err(Reason::UnknownLog.into()),
        Trust::Frozen => return Err(Reason::Frozen.into()),
        Trust::Keys(keys) => keys,
    };
    let note = signed_by_log(request.note(), &keys).map_err(Reason::Untrusted)?;
    if request.old() > head.size {
        return Err(Reason::OldTooLarge.into());
    }
    Ok(Checked {
        request,
        keys,
        note,
    })
}

/// Returns the note with the lines of the given keys. At least one must be there, and all of those
/// that are there must hold.
fn signed_by_log(note: &Note, keys: &[Verifier]) -> Result<Note, NoteError> {
    for key in keys {
        match note.verify(key) {
            Ok(()) | Err(NoteError::UnknownKey) => {}
            Err(error) => return Err(error),
        }
    }
    let is_own = |line: &&Signature| {
        let of = |key: &Verifier| line.is_of(key.name(), key.key_id());
        keys.iter().any(of)
    };
    note.with_only(is_own).ok_or(NoteError::UnknownKey)
}

/// Checks that the log has only grown since the state, in the order of the specification.
fn grows(request: &AddCheckpoint, state: Option<&State>) -> Result<(), Reason> {
    let (head, old, proof) = (request.head(), request.old(), request.proof());
    let latest = state.map_or(0, |state| state.head().size);
    if old != latest {
        return Err(Reason::Conflict { latest });
    }
    if head.size == 0 && head.root != EMPTY_ROOT {
        return Err(Reason::EmptyRoot);
    }
    if old == 0 {
        // Every tree begins with the empty one, and there is nothing to prove.
        return if proof.is_empty() {
            Ok(())
        } else {
            Err(Reason::ProofFromNothing)
        };
    }
    let Some(state) = state else {
        return Err(Reason::Conflict { latest });
    };
    let known = state.head();
    if head.size == known.size && head.root != known.root {
        return Err(Reason::OtherRoot);
    }
    verify_consistency(old, &known.root, head.size, &head.root, proof).map_err(Reason::Inconsistent)
}

/// Returns what proves that the log has signed two roots for one size, if it has.
fn equivocation(checked: &Checked, state: &State) -> Option<Evidence> {
    let (head, known) = (checked.request.head(), state.head());
    if head.size != known.size || head.root == known.root {
        return None;
    }
    let mut keys = checked.keys.iter();
    keys.find_map(|key| Evidence::equivocation(key, state.note(), &checked.note).ok())
}

#[cfg(test)]
mod tests;
