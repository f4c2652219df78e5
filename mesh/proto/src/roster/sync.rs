//! Anti-entropy: neighbours find and mend what news has missed.
//!
//! Every heartbeat carries a digest of the whole roster. Where it differs, one side sends a digest of
//! each of 64 buckets; the other answers with what it holds in those that differ; each then sends the
//! records and accusations the other lacks, those held longest first, one message at a time.

use std::time::Duration;

use super::accusation::Accusation;
use super::config::{
    HEADS_PER_ROUND, QUESTIONS_PER_LINK, SUMMARIES_PER_LINK, SYNC_BACKOFF_MAX, SYNC_EVERY,
    SYNC_PATIENCE, SYNC_SETTLED,
};
use super::state::State;
use super::table::{bucket_of, digest};
use super::timers::Timer;
use super::wire::{self, BUCKETS, Beat, Digest, Digests, ENTRIES_MAX, Entry, Told};
use super::{Key, LinkId};
use crate::Instant;
use crate::codec::Writer;
use crate::heads::HeldAlarm;

/// What a peer's summary shows.
#[derive(Debug, Default)]
struct Difference {
    /// Records it lacks.
    send: Vec<Key>,
    /// Nodes of whose accusations it does not know.
    accuse: Vec<Key>,
    /// Nodes it vouches for, and whether without a doubt.
    vouched: Vec<(Key, bool)>,
    /// The buckets in which it has something for us.
    want: u64,
}

impl State {
    /// Returns the digest over the whole roster.
    pub(super) fn root(&mut self) -> Digest {
        let claims = self.book.alarm_changes() + self.convicted.changes();
        let changes = (self.table.changes(), claims);
        if let Some((at, root)) = self.root
            && at == changes
        {
            return root;
        }
        let root = self.new_root();
        self.root = Some((changes, root));
        root
    }

    fn new_root(&mut self) -> Digest {
        let digests = self.digests();
        let mut bytes = Writer::with_capacity(2_048);
        for bucket in &digests.buckets {
            bytes.raw(bucket);
        }
        bytes.raw(&digests.alarms);
        digest(&bytes.finish(usize::MAX).unwrap_or_default())
    }

    fn digests(&mut self) -> Digests {
        let mut buckets = [Digest::default(); BUCKETS];
        for (at, bucket) in buckets.iter_mut().enumerate() {
            *bucket = self.table.digest(at);
        }
        let mut alarms = Writer::new();
        for (accused, reporter, (is_for_good, size)) in self.book.alarm_ranks() {
            alarms.raw(accused.as_bytes()).raw(reporter.as_bytes());
            alarms.u8(u8::from(is_for_good)).u64(size);
        }
        for key in self.convicted_here() {
            alarms.raw(&[0; 32]).raw(key.as_bytes());
        }
        let alarms = digest(&alarms.finish(usize::MAX).unwrap_or_default());
        Digests { buckets, alarms }
    }

    /// Compares the peer's root with the own one. The dialer starts the first round of a link.
    pub(super) fn on_root(&mut self, id: LinkId, beat: &Beat) {
        let own = self.root();
        let now = self.now;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let sync = &mut link.sync;
        sync.root = Some(beat.root);
        if beat.root == own {
            sync.differs = None;
            sync.idle = 0;
            return;
        }
        sync.differs.get_or_insert(now);
        if sync.last.is_none() && link.dialed {
            self.send_digests(id);
        }
    }

    /// Starts a round with a random neighbour whose roster differs, once every second; and passes
    /// on what was accepted of audit logs.
    pub(super) fn on_sync_timer(&mut self) {
        let low = SYNC_EVERY.mul_f32(0.8);
        let pause = self.rng.between(low, SYNC_EVERY.mul_f32(1.2));
        self.timers.set(Timer::Sync, self.now + pause);
        let due =
            |at: Option<Instant>, after: Duration| at.is_none_or(|at| self.now.since(at) >= after);
        let candidates = self.links.iter().filter(|(_, link)| {
            let sync = &link.sync;
            let settled = sync
                .differs
                .is_some_and(|at| self.now.since(at) >= SYNC_SETTLED);
            let doublings = sync.idle.saturating_sub(SYNC_PATIENCE).min(8);
            let backoff = SYNC_EVERY.mul_f32(0.7).saturating_mul(1 << doublings);
            settled && !link.silent && due(sync.last, backoff.min(SYNC_BACKOFF_MAX))
        });
        let candidates: Vec<LinkId> = candidates.map(|(id, _)| id).collect();
        let at = self.rng.index(candidates.len());
        if let Some(id) = candidates.get(at) {
            self.send_digests(*id);
        }
        self.pass_on_heads();
        self.weigh_hearsay();
    }

    fn pass_on_heads(&mut self) {
        let links = self.links.ids();
        let at = self.rng.index(links.len());
        let Some(id) = links.get(at).copied() else {
            return;
        };
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        let peer = Key::of(&link.peer);
        let mut mark = link.heads_mark;
        let news: Vec<_> = self
            .book
            .accepted_since(mark)
            .take(HEADS_PER_ROUND)
            .inspect(|(change, _, _)| mark = *change)
            .filter(|(_, origin, _)| *origin != peer)
            .map(|(_, origin, note)| (origin, note))
            .collect();
        link.heads_mark = mark;
        if !news.is_empty() {
            let frame = wire::heads(news.into_iter());
            self.send(id, frame);
        }
    }

    pub(super) fn send_digests(&mut self, id: LinkId) {
        let frame = wire::digests(&self.digests());
        let now = self.now;
        if let Some(link) = self.links.get_mut(id) {
            link.sync.last = Some(now);
            self.send(id, frame);
        }
    }

    pub(super) fn on_digests(&mut self, id: LinkId, theirs: &Digests) {
        if !self.may_ask(id) {
            return;
        }
        let ours = self.digests();
        let pairs = ours.buckets.iter().zip(&theirs.buckets);
        let differs = pairs
            .enumerate()
            .filter(|(_, (ours, theirs))| ours != theirs);
        let mask = differs.fold(0, |mask, (at, _)| mask | (1_u64 << at));
        if ours.alarms != theirs.alarms {
            let alarms: Vec<HeldAlarm> = self.book.alarms().cloned().collect();
            for frame in wire::alarms(&alarms) {
                self.send(id, frame);
            }
            self.send_convicted(id, false);
        }
        if mask != 0 {
            self.send_summary(id, mask, false);
        }
    }

    /// Takes a token of a peer that asks for work.
    pub(super) fn may_ask(&mut self, id: LinkId) -> bool {
        let now = self.now;
        let link = self.links.get_mut(id);
        link.is_some_and(|link| link.questions.take(QUESTIONS_PER_LINK, now))
    }

    /// Sends what is held in some buckets, as many of them as one message takes.
    fn send_summary(&mut self, id: LinkId, mask: u64, reply: bool) {
        let (covered, entries) = self.told_of(mask, ENTRIES_MAX);
        self.send(id, wire::summary(reply, covered, &entries));
    }

    /// Returns what is told of some buckets in `max` entries, and of which of them.
    pub(super) fn told_of(&self, mask: u64, max: usize) -> (u64, Vec<Entry>) {
        let mut entries: Vec<Entry> = Vec::new();
        let mut covered = 0;
        for bucket in buckets_of(mask) {
            let mut held: Vec<Entry> = self.table.entries(bucket).collect();
            let (sure, room) = (held.len(), max - entries.len());
            // A bucket that someone has stuffed must not keep the others from being told, nor
            // strangers those who are there.
            if sure > room {
                continue;
            }
            held.extend(self.strangers.entries(bucket).take(room - sure));
            if held.len() > sure {
                held.sort_unstable_by_key(|entry| entry.origin);
            }
            entries.extend(held);
            covered |= 1 << bucket;
        }
        (covered, entries)
    }

    pub(super) fn on_summary(&mut self, id: LinkId, (reply, mask): (bool, u64), theirs: &[Entry]) {
        let now = self.now;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        if !link.summaries.take(SUMMARIES_PER_LINK, now) {
            return;
        }
        let peer = Key::of(&link.peer);
        let difference = self.compare(&peer, mask, theirs);
        if !reply && let Some(link) = self.links.get_mut(id) {
            link.sync.idle = link.sync.idle.saturating_add(1);
        }
        for (key, sure) in &difference.vouched {
            self.vouched(key, id, *sure);
        }
        if !difference.send.is_empty() {
            let records = self.table.by_age(&difference.send);
            let told = records.iter();
            let records: Vec<Told<'_>> = told
                .map(|(record, standing)| (record.as_ref(), *standing))
                .collect();
            let (frame, _taken) = wire::records(&records);
            self.send(id, frame);
        }
        let accusations: Vec<Accusation> = difference
            .accuse
            .iter()
            .filter_map(|key| self.table.get(key))
            .flat_map(|node| node.accusations.iter().copied())
            .collect();
        if !accusations.is_empty() {
            self.send(id, wire::accusations(&accusations));
        }
        if !reply && difference.want != 0 {
            self.send_summary(id, difference.want, true);
        }
    }

    fn compare(&self, peer: &Key, mask: u64, theirs: &[Entry]) -> Difference {
        let mut difference = Difference::default();
        let mut theirs = theirs.iter().peekable();
        // Both are in ascending order.
        for ours in buckets_of(mask).flat_map(|bucket| self.table.entries(bucket)) {
            while let Some(their) = theirs.next_if(|their| their.origin < ours.origin) {
                self.compare_unknown(&mut difference, peer, their);
            }
            if let Some(their) = theirs.next_if(|their| their.origin == ours.origin) {
                difference.compare(&ours, their);
            } else if !ours.standing.heard {
                let doubted = ours.standing.doubted;
                difference.send.push(ours.origin);
                difference.accuse.extend(doubted.then_some(ours.origin));
            }
        }
        for their in theirs {
            self.compare_unknown(&mut difference, peer, their);
        }
        difference.want &= mask;
        difference
    }

    /// Weighs what a peer tells of an origin that is no part of the mesh here.
    fn compare_unknown(&self, difference: &mut Difference, peer: &Key, their: &Entry) {
        if their.standing.heard {
            return;
        }
        let key = their.origin;
        let held = self.strangers.version(&key);
        let known = held.is_some_and(|held| held >= their.version);
        if held.is_some() {
            difference.vouched.push((key, !their.standing.doubted));
        }
        if !known && self.may_want(&key, their, peer) {
            difference.want |= 1 << bucket_of(&key);
        }
    }

    /// Tells whether a record that a peer has would be taken.
    fn may_want(&self, key: &Key, entry: &Entry, peer: &Key) -> bool {
        let new = self
            .table
            .floor(key)
            .is_none_or(|floor| entry.version > floor);
        self.has_link(key) || (new && self.strangers.may_take(peer, 0))
    }
}

impl Difference {
    /// Compares what both know of one origin.
    fn compare(&mut self, ours: &Entry, theirs: &Entry) {
        let key = ours.origin;
        let bucket = bucket_of(&key);
        // The record that wins is the one all nodes keep: higher version, then lower hash.
        let order = (ours.version.cmp(&theirs.version)).then(theirs.hash.cmp(&ours.hash));
        if order.is_gt() {
            self.send.push(key);
            self.accuse.extend(ours.standing.doubted.then_some(key));
        } else if order.is_lt() {
            self.want |= 1 << bucket;
        } else {
            let (us, them) = (ours.standing, theirs.standing);
            if us.doubted && !them.doubted {
                self.accuse.push(key);
            }
            if !us.doubted && them.doubted || !us.heard && them.heard {
                self.want |= 1 << bucket;
            }
        }
        let unsure = ours.standing.heard || ours.standing.doubted;
        if unsure && !theirs.standing.heard {
            self.vouched.push((key, !theirs.standing.doubted));
        }
    }
}

fn buckets_of(mask: u64) -> impl Iterator<Item = usize> {
    (0..BUCKETS).filter(move |bucket| mask & (1 << bucket) != 0)
}
