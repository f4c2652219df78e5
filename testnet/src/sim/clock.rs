//! Virtual time: a queue of what happens when, in an order that depends on nothing but the run.
//!
//! The heap holds places in a slab, so that what is moved about is small.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use openfang_ofp::Instant;

/// The queue. Of two things at one moment the one that was scheduled first comes first.
#[derive(Debug)]
pub(super) struct Clock<T> {
    now: Instant,
    order: u64,
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    slab: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Clock<T> {
    /// Starts at a moment that is not zero, so that nothing relies on zero.
    #[must_use]
    pub(super) fn new() -> Self {
        Self {
            now: Instant(1_000_000),
            order: 0,
            queue: BinaryHeap::new(),
            slab: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Returns the present moment.
    #[must_use]
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Schedules something; what is in the past happens next.
    pub(super) fn at(&mut self, at: Instant, what: T) {
        self.order += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            self.slab.len() - 1
        });
        self.slab[place] = Some(what);
        self.queue
            .push(Reverse((at.max(self.now), self.order, place)));
    }

    /// Schedules something after a while.
    pub(super) fn after(&mut self, pause: Duration, what: T) {
        self.at(self.now + pause, what);
    }

    /// Goes on to what is next, if it is not after `end`.
    pub(super) fn next_until(&mut self, end: Instant) -> Option<T> {
        let Some(Reverse((at, _order, place))) = self.queue.peek().copied() else {
            self.now = self.now.max(end);
            return None;
        };
        if at > end {
            self.now = self.now.max(end);
            return None;
        }
        self.queue.pop();
        self.now = at;
        self.free.push(place);
        self.slab.get_mut(place)?.take()
    }
}

impl<T> Default for Clock<T> {
    fn default() -> Self {
        Self::new()
    }
}
