//! The waiting room: origins of which a record was heard, and that nobody is known to have met.
//!
//! A record costs its author a key and a signature, so a member could make thousands of nodes that do
//! not exist. Those who wait here take no part in anything: they are not shown, not written to disk,
//! not passed on, not counted, and are no neighbours. They leave when this node has a link with them,
//! or enough of its neighbours vouch for them ([`evidence`](super::evidence)).
//!
//! What they may use is bounded, and shared fairly among those who introduced them: when there is no
//! place, whoever has introduced most loses one. They are tried at the addresses they announce, in
//! turn by introducer; one whose acquaintances cannot be reached is asked ever more rarely.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openfang_id::{NetAddr, NodeId};

use super::bucket::Bucket;
use super::config::{
    PROBE_AGAIN, PROBE_PAUSE, PROBE_PAUSE_MAX, PROBES, PROBES_EACH, RECORDS_PER_ORIGIN,
    STRANGER_KEPT, STRANGERS_BYTES_MAX, STRANGERS_MAX,
};
use super::table::bounds;
use super::wire::{Entry, Standing};
use super::{Key, SignedRecord, Version};
use crate::Instant;

/// The most introducers that are remembered; far more than a node has links.
const INTRODUCERS_MAX: usize = 1_024;

/// The most neighbours that are remembered to vouch for one stranger; fewer are ever needed.
const VOUCHERS_MAX: usize = 64;

/// Someone of whom only a record is known.
#[derive(Debug)]
struct Stranger {
    record: Arc<SignedRecord>,
    introducer: Key,
    came: Instant,
    /// Who vouches for it, and whether without a doubt.
    vouchers: Vec<(Key, bool)>,
    /// When it may be tried next; `None` when it is being tried, or was often enough.
    due: Option<Instant>,
    tries: u32,
    records: Bucket,
}

/// What one neighbour has introduced.
#[derive(Debug, Default)]
struct Introducer {
    count: usize,
    bytes: usize,
    due: BTreeSet<(Instant, Key)>,
    /// How many of its acquaintances were not there, since the last that was.
    failures: u32,
    next: Instant,
    /// Whether its link has ended.
    parted: bool,
}

/// All who wait.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    waiting: BTreeMap<Key, Stranger>,
    introducers: BTreeMap<Key, Introducer>,
    bytes: usize,
    probes: Bucket,
    /// Whose acquaintance was tried last.
    served: Option<Key>,
}

impl Strangers {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the version that is held of a stranger.
    pub(super) fn version(&self, key: &Key) -> Option<Version> {
        self.waiting.get(key).map(|held| held.record.version())
    }

    /// Returns who a stranger is, and where it says it can be reached.
    pub(super) fn dialed_at(&self, key: &Key) -> Option<(NodeId, Vec<NetAddr>)> {
        let record = self.waiting.get(key)?.record.record();
        Some((record.origin, record.addrs.clone()))
    }

    /// Notes that a link with an introducer began or ended. Those of one that is gone make room first.
    pub(super) fn parted(&mut self, introducer: &Key, parted: bool) {
        if let Some(by) = self.introducers.get_mut(introducer) {
            by.parted = parted;
        }
    }

    /// Tells whether there is a place for a record of some size that this neighbour introduces.
    pub(super) fn may_take(&self, introducer: &Key, size: usize) -> bool {
        let own = self.introducers.get(introducer);
        let (count, bytes) = own.map_or((0, 0), |own| (own.count, own.bytes));
        let crowded = self.waiting.len() >= STRANGERS_MAX;
        let large = self.bytes + size > STRANGERS_BYTES_MAX;
        let more = |enough: &dyn Fn(&Introducer) -> bool| {
            let mut others = self.introducers.iter();
            others.any(|(key, other)| {
                key != introducer && ((other.parted && other.count > 0) || enough(other))
            })
        };
        let count_ok = !crowded || more(&|other| other.count > count + 1);
        let bytes_ok = !large || more(&|other| other.bytes > bytes + size);
        count_ok && bytes_ok
    }

    /// Forgets an introducer that is gone, and all it has introduced, when there are too many.
    fn limit_introducers(&mut self, new: &Key) {
        let many = self.introducers.len() >= INTRODUCERS_MAX;
        if !many || self.introducers.contains_key(new) {
            return;
        }
        let parted = self.introducers.iter().filter(|(_, by)| by.parted);
        let Some(first) = parted.min_by_key(|(_, by)| by.count).map(|(key, _)| *key) else {
            return;
        };
        let of = self.waiting.iter();
        let of = of.filter(|(_, stranger)| stranger.introducer == first);
        for key in of.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.remove(&key);
        }
        self.introducers.remove(&first);
    }

    /// Lets a stranger in; whoever has introduced most makes room. Returns whether it found a place.
    pub(super) fn insert(
        &mut self,
        record: Arc<SignedRecord>,
        introducer: Key,
        due: Instant,
        now: Instant,
    ) -> bool {
        let size = record.bytes().len();
        while self.is_full(size) {
            if !self.may_take(&introducer, size) || !self.evict(&introducer) {
                return false;
            }
        }
        self.limit_introducers(&introducer);
        let key = Key::of(&record.record().origin);
        self.bytes += size;
        let by = self.introducers.entry(introducer).or_default();
        by.count += 1;
        by.bytes += size;
        let due = (!record.record().addrs.is_empty()).then_some(due);
        by.due.extend(due.map(|due| (due, key)));
        let stranger = Stranger {
            record,
            introducer,
            came: now,
            vouchers: Vec::new(),
            due,
            tries: 0,
            records: Bucket::default(),
        };
        self.waiting.insert(key, stranger);
        true
    }

    fn is_full(&self, size: usize) -> bool {
        self.waiting.len() >= STRANGERS_MAX || self.bytes + size > STRANGERS_BYTES_MAX
    }

    /// Sends away one of those whom another neighbour has introduced: of one whose link has ended, or
    /// else of the one who takes most.
    fn evict(&mut self, except: &Key) -> bool {
        let crowded = self.waiting.len() >= STRANGERS_MAX;
        let others = self.introducers.iter().filter(|(key, _)| *key != except);
        let share = |by: &Introducer| if crowded { by.count } else { by.bytes };
        let most = others.max_by_key(|(_, by)| (by.parted && by.count > 0, share(by)));
        let Some(heaviest) = most.map(|(key, _)| *key) else {
            return false;
        };
        let of = self.waiting.iter();
        let of = of.filter(|(_, stranger)| stranger.introducer == heaviest);
        let last = of.max_by_key(|(key, stranger)| (stranger.came, **key));
        let last = last.map(|(key, _)| *key);
        last.is_some_and(|key| self.remove(&key).is_some())
    }

    /// Tells whether another record of a stranger may be looked at.
    pub(super) fn may_replace(&mut self, key: &Key, now: Instant) -> bool {
        let held = self.waiting.get_mut(key);
        held.is_some_and(|held| held.records.take(RECORDS_PER_ORIGIN, now))
    }

    /// Keeps a newer record of a stranger, if there is room for it.
    pub(super) fn replace(&mut self, key: &Key, record: Arc<SignedRecord>) {
        let Some(held) = self.waiting.get_mut(key) else {
            return;
        };
        let (old, new) = (held.record.bytes().len(), record.bytes().len());
        if record.precedence(&held.record).is_le() || self.bytes - old + new > STRANGERS_BYTES_MAX {
            return;
        }
        held.record = record;
        self.bytes = self.bytes - old + new;
        if let Some(by) = self.introducers.get_mut(&held.introducer) {
            by.bytes = by.bytes - old + new;
        }
    }

    /// Takes a stranger out; returns its record, and who vouches for it without a doubt.
    pub(super) fn remove(&mut self, key: &Key) -> Option<(Arc<SignedRecord>, Vec<Key>)> {
        let stranger = self.waiting.remove(key)?;
        let size = stranger.record.bytes().len();
        self.bytes -= size;
        if let Some(by) = self.introducers.get_mut(&stranger.introducer) {
            by.count -= 1;
            by.bytes -= size;
            if let Some(due) = stranger.due {
                by.due.remove(&(due, *key));
            }
            if by.count == 0 && by.failures == 0 {
                self.introducers.remove(&stranger.introducer);
            }
        }
        let sure = stranger.vouchers.into_iter();
        let sure = sure.filter(|(_, sure)| *sure).map(|(key, _)| key);
        Some((stranger.record, sure.collect()))
    }

    /// Notes that a neighbour vouches for a stranger. Returns whether that is news, and all who vouch
    /// for it, each with whether it does without a doubt.
    pub(super) fn vouch(&mut self, key: &Key, by: Key, sure: bool) -> (bool, &[(Key, bool)]) {
        let Some(held) = self.waiting.get_mut(key) else {
            return (false, &[]);
        };
        let vouchers = &mut held.vouchers;
        let known = vouchers.iter_mut().find(|(voucher, _)| *voucher == by);
        let news = known.is_none();
        if let Some((_, before)) = known {
            *before = sure;
        } else {
            if vouchers.len() >= VOUCHERS_MAX {
                vouchers.remove(0);
            }
            vouchers.push((by, sure));
        }
        (news, vouchers)
    }

    /// Returns those for whom one neighbour vouches.
    pub(super) fn vouched_by(&self, by: &Key) -> impl Iterator<Item = Key> {
        let by = *by;
        let waiting = self.waiting.iter();
        waiting
            .filter(move |(_, held)| held.vouchers.iter().any(|(voucher, _)| *voucher == by))
            .map(|(key, _)| *key)
    }

    /// Returns what is told of those who wait in a bucket, so that nobody sends them again.
    pub(super) fn entries(&self, bucket: usize) -> impl Iterator<Item = Entry> {
        let (low, high) = bounds(bucket);
        let waiting = self.waiting.range(low..=high);
        waiting.map(|(key, held)| Entry::of(*key, &held.record, Standing::HEARD))
    }

    /// Chooses whom to try next, in turn by introducer; it is then being tried.
    pub(super) fn next_probe(&mut self, now: Instant) -> Option<Key> {
        if !self.probes.has(PROBES, now) {
            return None;
        }
        let may = |(key, by): (&Key, &Introducer)| {
            let (due, stranger) = by.due.first()?;
            (*due <= now && by.next <= now).then_some((*key, *due, *stranger))
        };
        let after = |served: Key| {
            let later = self.introducers.range(served..);
            later.filter(move |(key, _)| **key > served).find_map(may)
        };
        let turn = self.served.and_then(after);
        let (introducer, due, key) = turn.or_else(|| self.introducers.iter().find_map(may))?;
        self.probes.take(PROBES, now);
        self.served = Some(introducer);
        if let Some(by) = self.introducers.get_mut(&introducer) {
            by.due.remove(&(due, key));
        }
        if let Some(stranger) = self.waiting.get_mut(&key) {
            stranger.due = None;
        }
        Some(key)
    }

    /// Returns when there may be someone to try.
    pub(super) fn probe_at(&self, now: Instant) -> Option<Instant> {
        let due = |by: &Introducer| by.due.first().map(|(due, _)| (*due).max(by.next));
        let first = self.introducers.values().filter_map(due).min()?;
        Some(first.max(self.probes.ready(PROBES, now)))
    }

    /// Notes that a stranger was not there.
    pub(super) fn failed(&mut self, key: &Key, now: Instant) {
        let Some(stranger) = self.waiting.get_mut(key) else {
            return;
        };
        stranger.tries += 1;
        let again = stranger.tries < PROBES_EACH;
        let due = again.then(|| now + PROBE_AGAIN * stranger.tries);
        let before = std::mem::replace(&mut stranger.due, due);
        if let Some(by) = self.introducers.get_mut(&stranger.introducer) {
            by.failures = by.failures.saturating_add(1);
            let pause = PROBE_PAUSE.saturating_mul(1 << by.failures.min(16));
            by.next = now + pause.min(PROBE_PAUSE_MAX);
            if let Some(before) = before {
                by.due.remove(&(before, *key));
            }
            by.due.extend(due.map(|due| (due, *key)));
        }
    }

    /// Puts off a stranger that could not be tried.
    pub(super) fn put_off(&mut self, key: &Key, until: Instant) {
        if let Some(stranger) = self.waiting.get_mut(key)
            && stranger.due.is_none()
            && let Some(by) = self.introducers.get_mut(&stranger.introducer)
        {
            stranger.due = Some(until);
            by.due.insert((until, *key));
        }
    }

    /// Notes that a stranger was there: its introducer speaks of those who are.
    pub(super) fn met(&mut self, key: &Key, now: Instant) {
        let introducer = self.waiting.get(key).map(|stranger| stranger.introducer);
        let by = introducer.and_then(|introducer| self.introducers.get_mut(&introducer));
        if let Some(by) = by {
            // Not all at once: one that exists must not open the door to a thousand that do not.
            by.failures /= 2;
            by.next = now;
        }
    }

    /// Forgets those who have waited in vain.
    pub(super) fn expire(&mut self, now: Instant) {
        let waiting = self.waiting.iter();
        let old: Vec<Key> = waiting
            .filter(|(_, stranger)| now.since(stranger.came) >= STRANGER_KEPT)
            .map(|(key, _)| *key)
            .collect();
        for key in old {
            self.remove(&key);
        }
        let long = |since: Instant| now.since(since) >= Duration::from_secs(600);
        self.introducers
            .retain(|_, by| by.count > 0 || !long(by.next));
    }
}
