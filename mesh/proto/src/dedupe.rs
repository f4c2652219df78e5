//! What was asked already: a request id runs once, and a retry gets the answer of the first run.
//!
//! [`Window`] belongs to the answering node. A request that arrives is [begun](Window::begin): either
//! it is fresh and must be run, or it ran or is running and its frames are replayed. Every frame of
//! a run is [pushed](Window::push) before or after it is sent. When the caller has the whole answer
//! the call is [forgotten](Window::acknowledge); otherwise it is kept for [`KEPT`].
//!
//! At most once, whatever happens: when memory is short the *frames* of the oldest answers are
//! dropped, never the knowledge that a call ran; when even that fills, new calls are turned away
//! ([`Begin::Full`]) instead of old ones forgotten. One node can fill only its own share.
//!
//! Pure: no clock; it holds nothing over a restart, so a retry that spans one may run again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use openfang_id::NodeId;

use crate::Instant;
use crate::call::{CallId, Frame};

/// The most calls that are remembered.
pub const ENTRIES_MAX: usize = 4_096;
/// The most calls of one node that are remembered: a quarter, so that no node shuts out the others.
pub const ENTRIES_PER_NODE_MAX: usize = ENTRIES_MAX / 4;
/// The most bytes of frames that are kept for a replay.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most bytes of frames that are kept of one call; beyond them the first are dropped.
pub const BYTES_PER_CALL_MAX: usize = 2 * 1024 * 1024;
/// How long a call is remembered after its last frame, unless the caller says that it has it.
pub const KEPT: Duration = Duration::from_secs(600);

/// Which call of which node. The node is the one the connection proved, never one named in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Who asks.
    pub node: NodeId,
    /// What it calls the call.
    pub call: CallId,
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// It was never seen: run it. It is now remembered as running.
    Fresh,
    /// It runs or ran: send these frames, and if it is still running, those that follow.
    Attach(Replay),
    /// It ran, or runs, but the frames the caller needs are no longer kept.
    AlreadyRan,
    /// Nothing more can be remembered, so nothing more may run.
    Full {
        /// When the oldest call is forgotten, at the latest.
        retry_after: Duration,
    },
}

/// The frames of a call from some number on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The frames.
    pub frames: Vec<Arc<Frame>>,
    /// The number of the frame after them: where to go on.
    pub next: u32,
    /// Whether more will come.
    pub running: bool,
}

/// Why a frame is not part of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// No such call was begun, or it was forgotten.
    #[error("the call was not begun")]
    Unknown,
    /// The call has had its last frame.
    #[error("the call has ended")]
    Ended,
    /// The call has more frames than can be counted.
    #[error("the call has more frames than can be counted")]
    Count,
}

/// The calls a node remembers.
#[derive(Debug, Default)]
pub struct Window {
    calls: BTreeMap<Key, Call>,
    /// Every ended call, by when it ended.
    ended: BTreeMap<(Instant, u64), Key>,
    /// The ended calls that still have frames, oldest first.
    replayable: BTreeMap<u64, Key>,
    per_node: BTreeMap<NodeId, usize>,
    bytes: usize,
    count: u64,
}

#[derive(Debug, Default)]
struct Call {
    frames: VecDeque<Arc<Frame>>,
    /// The number of the first frame that is kept.
    first: u32,
    /// The number of the next frame.
    next: u32,
    bytes: usize,
    ended: Option<(Instant, u64)>,
}

impl Window {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many calls are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Says whether no call is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns how many bytes of frames are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns when the next call is forgotten: see [`Window::expire`].
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.ended.keys().next().map(|(at, _nr)| *at + KEPT)
    }

    /// Takes a request in: `resume_from` is the number of chunks the caller already has.
    pub fn begin(&mut self, key: Key, resume_from: u32, now: Instant) -> Begin {
        self.expire(now);
        if let Some(call) = self.calls.get(&key) {
            return match call.replay(resume_from) {
                Some(replay) => Begin::Attach(replay),
                None => Begin::AlreadyRan,
            };
        }
        let of_node = self.per_node.get(&key.node).copied().unwrap_or(0);
        if self.calls.len() >= ENTRIES_MAX || of_node >= ENTRIES_PER_NODE_MAX {
            let retry_after = self.deadline().map_or(KEPT, |deadline| deadline - now);
            return Begin::Full { retry_after };
        }
        self.calls.insert(key, Call::default());
        *self.per_node.entry(key.node).or_default() += 1;
        Begin::Fresh
    }

    /// Adds a frame of a running call; an [`End`](Frame::End) or [`Failure`](Frame::Failure) ends it.
    /// A call whose first frame says that it was [turned away](crate::call::Failure::is_turned_away)
    /// did not run and is forgotten, so that a retry may.
    ///
    /// # Errors
    /// When the call is not running. Nothing was changed.
    pub fn push(&mut self, key: &Key, frame: Arc<Frame>, now: Instant) -> Result<(), PushError> {
        let call = self.calls.get_mut(key).ok_or(PushError::Unknown)?;
        if call.ended.is_some() {
            return Err(PushError::Ended);
        }
        let turned_away = matches!(&*frame, Frame::Failure(why) if why.is_turned_away());
        if turned_away && call.next == 0 {
            self.forget(key);
            return Ok(());
        }
        let next = call.next.checked_add(1).ok_or(PushError::Count)?;
        let (bytes, is_last) = (frame.bytes_held(), frame.is_last());
        call.next = next;
        call.frames.push_back(frame);
        call.bytes += bytes;
        self.bytes += bytes;
        while call.bytes > BYTES_PER_CALL_MAX && call.frames.len() > 1 {
            self.bytes -= call.drop_first();
        }
        self.make_room(key);
        if is_last {
            self.end(key, now);
        }
        Ok(())
    }

    /// Returns the frames of a call from number `from` on, or `None` when they are not kept.
    #[must_use]
    pub fn replay(&self, key: &Key, from: u32) -> Option<Replay> {
        self.calls.get(key)?.replay(from)
    }

    /// Forgets an ended call: the caller has its answer. A running one stays.
    pub fn acknowledge(&mut self, key: &Key) {
        if self.calls.get(key).is_some_and(|call| call.ended.is_some()) {
            self.forget(key);
        }
    }

    /// Forgets a call that was begun and then not run at all, so that a retry may run.
    pub fn withdraw(&mut self, key: &Key) {
        let untouched = |call: &Call| call.ended.is_none() && call.next == 0;
        if self.calls.get(key).is_some_and(untouched) {
            self.forget(key);
        }
    }

    /// Forgets the calls that ended [`KEPT`] ago.
    pub fn expire(&mut self, now: Instant) {
        while let Some((&(at, _nr), &key)) = self.ended.first_key_value() {
            if at + KEPT > now {
                break;
            }
            self.forget(&key);
        }
    }

    fn end(&mut self, key: &Key, now: Instant) {
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        self.count += 1;
        call.ended = Some((now, self.count));
        self.ended.insert((now, self.count), *key);
        self.replayable.insert(self.count, *key);
    }

    /// Drops the frames of the oldest answers; and if that is not enough, the first of this call.
    fn make_room(&mut self, key: &Key) {
        while self.bytes > BYTES_MAX {
            let freed = match self.replayable.pop_first() {
                Some((_nr, oldest)) => self.calls.get_mut(&oldest).map(Call::drop_all),
                None => self
                    .calls
                    .get_mut(key)
                    .filter(|call| !call.frames.is_empty())
                    .map(Call::drop_first),
            };
            match freed {
                Some(freed) => self.bytes -= freed,
                None => break,
            }
        }
    }

    fn forget(&mut self, key: &Key) {
        let Some(call) = self.calls.remove(key) else {
            return;
        };
        self.bytes -= call.bytes;
        if let Some(ended) = call.ended {
            self.ended.remove(&ended);
            self.replayable.remove(&ended.1);
        }
        if let Some(count) = self.per_node.get_mut(&key.node) {
            *count -= 1;
            if *count == 0 {
                self.per_node.remove(&key.node);
            }
        }
    }
}

#[cfg(test)]
impl Window {
    /// Counts calls and bytes anew, and checks that the indexes agree.
    fn counted(&self) -> (usize, usize) {
        let ended = self.calls.values().filter(|call| call.ended.is_some());
        assert_eq!(ended.count(), self.ended.len());
        assert_eq!(self.per_node.values().sum::<usize>(), self.calls.len());
        assert!(self.replayable.len() <= self.ended.len());
        let frames = self.calls.values().flat_map(|call| &call.frames);
        let bytes = frames.map(|frame| frame.bytes_held()).sum();
        (self.calls.len(), bytes)
    }
}

impl Call {
    fn replay(&self, from: u32) -> Option<Replay> {
        if from < self.first || from > self.next {
            return None;
        }
        let running = self.ended.is_none();
        if !running && from == self.next {
            return None;
        }
        let skipped = usize::try_from(from - self.first).ok()?;
        Some(Replay {
            frames: self.frames.iter().skip(skipped).cloned().collect(),
            next: self.next,
            running,
        })
    }

    /// Drops the first frame and returns its bytes.
    fn drop_first(&mut self) -> usize {
        let Some(frame) = self.frames.pop_front() else {
            return 0;
        };
        let bytes = frame.bytes_held();
        self.first += 1;
        self.bytes -= bytes;
        bytes
    }

    /// Drops every frame and returns their bytes.
    fn drop_all(&mut self) -> usize {
        self.frames.clear();
        self.first = self.next;
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests;
