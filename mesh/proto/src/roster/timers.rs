//! When what is due: timers as values, each kind at most once.

use std::collections::{BTreeMap, BTreeSet};

use super::Key;
use crate::Instant;
use crate::dial::Target;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Pass on the news that has gathered.
    Flush,
    /// Publish the own record.
    Publish,
    /// Refute an accusation.
    Refute,
    /// Send heartbeats.
    Beat,
    /// Look for silent links.
    Silence,
    /// Decide whether a node lives.
    Judge(Key),
    /// Dial.
    Dial(Target),
    /// Try to reach a stranger.
    Probe,
    /// Close surplus connections to a peer.
    Settle(Key),
    /// Start a round of anti-entropy.
    Sync,
    /// Announce the own head.
    Head,
    /// Ask for a proof again.
    Proof(Key),
    /// Close links nobody wants.
    Trim,
    /// Look at a node without a link.
    Rove,
    /// Forget nodes that are long gone.
    Forget,
    /// Write to disk.
    Persist,
}

/// The timers of one state.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<Timer, Instant>,
    queue: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Sets a timer, or moves it.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(before) = self.due.insert(timer, at) {
            self.queue.remove(&(before, timer));
        }
        self.queue.insert((at, timer));
    }

    /// Sets a timer unless it is due before.
    pub(super) fn set_earlier(&mut self, timer: Timer, at: Instant) {
        if self.due.get(&timer).is_none_or(|before| *before > at) {
            self.set(timer, at);
        }
    }

    /// Takes a timer back.
    pub(super) fn clear(&mut self, timer: Timer) {
        if let Some(before) = self.due.remove(&timer) {
            self.queue.remove(&(before, timer));
        }
    }

    /// Tells whether a timer is set.
    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.due.contains_key(&timer)
    }

    /// Returns when the first timer is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _timer)| *at)
    }

    /// Takes the first timer that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.clear(timer);
        Some(timer)
    }
}
