//! The records of all other nodes, what is believed of each, and digests over them.
//!
//! The replicated part is a state-based CRDT: per origin the record that comes first by
//! [`SignedRecord::precedence`], and per life of an origin the set of its accusers (a few of them).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use openfang_id::NodeId;
use sha2::{Digest as _, Sha256};

use super::accusation::{Accusation, Doubt};
use super::bucket::Bucket;
use super::config::FLOORS_MAX;
use super::record::{Life, Version};
use super::wire::{BUCKETS, DIGEST_BYTES, Digest, Entry, Standing};
use super::{Key, Liveness, SignedRecord};
use crate::Instant;
use crate::codec::Writer;

/// Another node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) record: Arc<SignedRecord>,
    pub(super) liveness: Liveness,
    /// Since when the liveness is what it is.
    pub(super) since: Instant,
    /// When the last record or sign of life came.
    pub(super) news: Instant,
    /// Those of the record's life only.
    pub(super) accusations: Vec<Accusation>,
    pub(super) accused_at: Instant,
    /// When this node last accused it.
    pub(super) accused_by_me: Option<Instant>,
    pub(super) lost: Option<Lost>,
    /// Since when it is known from disk, or by words with a doubt, and not heard of otherwise.
    pub(super) unconfirmed: Option<Instant>,
    /// Whether this node has ever had a link with it.
    pub(super) met: bool,
    /// Whether there is only the word of a single neighbour for it.
    pub(super) hearsay: bool,
    /// Who vouches for it, as long as that matters.
    pub(super) vouchers: Vec<Key>,
    /// When it was last reported to sign two records of one version.
    pub(super) equivocated: Option<Instant>,
    /// Limits its records.
    pub(super) records: Bucket,
    /// Limits its accusations and alarms.
    pub(super) claims: Bucket,
    rank: u64,
    stored: u64,
}

/// How the last link to a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) at: Instant,
    pub(super) doubt: Doubt,
    /// Whether it was told to others.
    pub(super) told: bool,
}

impl Node {
    pub(super) fn life(&self) -> Life {
        self.record.record().life()
    }

    /// Tells whether the word of neighbours still makes a difference to it.
    pub(super) fn is_unsure(&self) -> bool {
        self.hearsay || self.unconfirmed.is_some()
    }

    fn standing(&self) -> Standing {
        Standing {
            doubted: !self.accusations.is_empty() || self.unconfirmed.is_some(),
            heard: self.hearsay,
        }
    }

    /// Tells whether it counts as a part of the mesh that is there.
    pub(super) fn is_present(&self) -> bool {
        matches!(self.liveness, Liveness::Alive | Liveness::Suspect) && !self.hearsay
    }
}

/// A node, and in one place with its key what digests are made of and most messages about it are
/// dismissed by: the rest of a thousand nodes is not in any cache.
#[derive(Debug)]
struct Slot {
    version: Version,
    tag: u64,
    hash: [u8; 8],
    standing: Standing,
    node: Box<Node>,
}

impl Slot {
    fn entry(&self, origin: Key) -> Entry {
        Entry {
            origin,
            version: self.version,
            hash: self.hash,
            standing: self.standing,
        }
    }
}

/// All other nodes, and the own record as a part of the digests.
#[derive(Debug, Default)]
pub(super) struct Table {
    nodes: BTreeMap<Key, Slot>,
    own: Option<(Key, Arc<SignedRecord>)>,
    /// Those alive or suspected, by their rank as a link of this node.
    ranked: BTreeSet<(u64, Key)>,
    /// Those for whom there is only the word of a single neighbour.
    hearsay: BTreeSet<Key>,
    alive: usize,
    bytes: usize,
    stored: u64,
    digests: Vec<Option<Digest>>,
    changes: u64,
    floors: BTreeMap<Key, (Version, u64)>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many other nodes are alive, without those of hearsay.
    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    /// Returns how many other nodes are alive or suspected.
    pub(super) fn present(&self) -> usize {
        self.ranked.len()
    }

    /// Returns those alive or suspected in the order this node prefers them as links.
    pub(super) fn ranked(&self) -> impl Iterator<Item = Key> + '_ {
        self.ranked.iter().map(|(_rank, key)| *key)
    }

    /// Tells whether a node is among the first `count` of [`Table::ranked`].
    pub(super) fn is_among(&self, key: &Key, count: usize) -> bool {
        self.ranked().take(count).any(|ranked| ranked == *key)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Node> {
        self.nodes.get(key).map(|slot| slot.node.as_ref())
    }

    /// Returns version and tag of the record that is held of a node.
    pub(super) fn held(&self, key: &Key) -> Option<(Version, u64)> {
        self.nodes.get(key).map(|slot| (slot.version, slot.tag))
    }

    /// Returns what this node tells others of a node.
    pub(super) fn standing(&self, key: &Key) -> Option<Standing> {
        self.nodes.get(key).map(|slot| slot.standing)
    }

    /// Gives a node to be changed, except for what digests and counts depend on.
    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Node> {
        self.nodes.get_mut(key).map(|slot| slot.node.as_mut())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Node)> {
        let nodes = self.nodes.iter();
        nodes.map(|(key, slot)| (key, slot.node.as_ref()))
    }

    pub(super) fn own(&self) -> Option<&Arc<SignedRecord>> {
        self.own.as_ref().map(|(_key, record)| record)
    }

    pub(super) fn set_own(&mut self, key: Key, record: Arc<SignedRecord>) {
        self.own = Some((key, record));
        self.dirty(&key);
    }

    /// Adds a node that was not known. It counts as dead until it is judged.
    pub(super) fn insert(&mut self, record: Arc<SignedRecord>, rank: u64, now: Instant) {
        let id = record.record().origin;
        let key = Key::of(&id);
        self.bytes += record.bytes().len();
        self.stored += 1;
        let node = Node {
            id,
            record,
            liveness: Liveness::Dead,
            since: now,
            news: now,
            accusations: Vec::new(),
            accused_at: now,
            accused_by_me: None,
            lost: None,
            unconfirmed: None,
            met: false,
            hearsay: false,
            vouchers: Vec::new(),
            equivocated: None,
            records: Bucket::default(),
            claims: Bucket::default(),
            rank,
            stored: self.stored,
        };
        let slot = Slot {
            version: node.record.version(),
            tag: node.record.tag(),
            hash: short_hash(&node.record),
            standing: Standing::SURE,
            node: Box::new(node),
        };
        self.nodes.insert(key, slot);
        self.dirty(&key);
    }

    /// Replaces the record of a node. A new life clears every doubt about the one before.
    pub(super) fn replace(&mut self, key: &Key, record: Arc<SignedRecord>, now: Instant) {
        let Some(slot) = self.nodes.get_mut(key) else {
            return;
        };
        slot.version = record.version();
        slot.tag = record.tag();
        slot.hash = short_hash(&record);
        let node = &mut slot.node;
        let reborn = record.record().life() > node.life();
        self.bytes = self.bytes - node.record.bytes().len() + record.bytes().len();
        self.stored += 1;
        node.record = record;
        node.stored = self.stored;
        node.news = now;
        if reborn {
            node.accusations.clear();
            node.lost = None;
            node.unconfirmed = None;
        }
        self.dirty(key);
    }

    /// Keeps an accusation: a new accuser as long as there are fewer than `most`, or a stronger
    /// reason of a known one. Returns whether it is news.
    pub(super) fn accuse(&mut self, accusation: Accusation, most: usize, now: Instant) -> bool {
        let Some(slot) = self.nodes.get_mut(&accusation.target) else {
            return false;
        };
        let node = &mut slot.node;
        let held = &mut node.accusations;
        if held.is_empty() {
            node.accused_at = now;
        }
        let full = held.len() >= most;
        match held.iter_mut().find(|a| a.accuser == accusation.accuser) {
            Some(known) if known.doubt >= accusation.doubt => return false,
            Some(known) => *known = accusation,
            None if full => return false,
            None => held.push(accusation),
        }
        self.dirty(&accusation.target);
        true
    }

    /// Marks a node as known from disk only, or as heard of.
    pub(super) fn set_unconfirmed(&mut self, key: &Key, since: Option<Instant>) {
        if let Some(node) = self.get_mut(key)
            && node.unconfirmed != since
        {
            node.unconfirmed = since;
            self.dirty(key);
        }
    }

    /// Marks a node as known by the word of a single neighbour, or by more.
    pub(super) fn set_hearsay(&mut self, key: &Key, hearsay: bool) {
        if self.get(key).is_some_and(|node| node.hearsay != hearsay) {
            self.change(key, |node| node.hearsay = hearsay);
            self.dirty(key);
            if hearsay {
                self.hearsay.insert(*key);
            } else {
                self.hearsay.remove(key);
            }
        }
    }

    /// Returns those for whom there is only the word of a single neighbour.
    pub(super) fn hearsay(&self) -> &BTreeSet<Key> {
        &self.hearsay
    }

    /// Records what is believed of a node; returns what was believed before.
    pub(super) fn set_liveness(
        &mut self,
        key: &Key,
        liveness: Liveness,
        now: Instant,
    ) -> Option<Liveness> {
        let before = self.get(key)?.liveness;
        if before != liveness {
            self.change(key, |node| {
                node.liveness = liveness;
                node.since = now;
            });
        }
        Some(before)
    }

    /// Changes what the counts of those who are there depend on.
    fn change(&mut self, key: &Key, change: impl FnOnce(&mut Node)) {
        let Some(slot) = self.nodes.get_mut(key) else {
            return;
        };
        let node = &mut slot.node;
        let count = |node: &Node| {
            let alive = node.liveness == Liveness::Alive && node.is_present();
            (node.is_present(), usize::from(alive))
        };
        let (was_present, was_alive) = count(node);
        change(node);
        let (present, alive) = count(node);
        self.alive = self.alive + alive - was_alive;
        let ranked = (node.rank, *key);
        match (was_present, present) {
            (false, true) => drop(self.ranked.insert(ranked)),
            (true, false) => drop(self.ranked.remove(&ranked)),
            (true, true) | (false, false) => {}
        }
    }

    /// Tells whether a node counts as alive.
    pub(super) fn counts_alive(&self, key: &Key) -> bool {
        let node = self.get(key);
        node.is_some_and(|node| node.liveness == Liveness::Alive && node.is_present())
    }

    /// Drops a node and keeps its version as a floor, so that its old records do not come back.
    pub(super) fn forget(&mut self, key: &Key) {
        let Some(node) = self.drop_node(key) else {
            return;
        };
        if self.floors.len() >= FLOORS_MAX {
            let oldest = self.floors.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.floors.remove(&oldest);
            }
        }
        let floor = (node.record.version(), self.stored);
        self.floors.insert(*key, floor);
    }

    /// Drops a node of which nothing is kept: it may come back as it was.
    pub(super) fn drop_node(&mut self, key: &Key) -> Option<Box<Node>> {
        self.change(key, |node| node.liveness = Liveness::Dead);
        let Slot { node, .. } = self.nodes.remove(key)?;
        self.hearsay.remove(key);
        self.bytes -= node.record.bytes().len();
        self.stored += 1;
        self.dirty(key);
        Some(node)
    }

    /// Returns the last version of a forgotten node.
    pub(super) fn floor(&self, key: &Key) -> Option<Version> {
        self.floors.get(key).map(|(version, _)| *version)
    }

    /// Forgets the floor of a node that is back.
    pub(super) fn raise(&mut self, key: &Key) {
        self.floors.remove(key);
    }

    /// Returns what is held in a bucket, by ascending origin, the own record among it.
    pub(super) fn entries(&self, bucket: usize) -> impl Iterator<Item = Entry> {
        let (low, high) = bounds(bucket);
        let own = self
            .own
            .as_ref()
            .filter(|(key, _)| bucket_of(key) == bucket);
        let own = own.map(|(key, record)| Entry::of(*key, record, Standing::SURE));
        let split = own.map_or(high, |own| own.origin);
        let below = self.nodes.range(low..=split);
        let above = self.nodes.range((Excluded(split), Included(high)));
        let told = |(key, slot): (&Key, &Slot)| slot.entry(*key);
        below.map(told).chain(own).chain(above.map(told))
    }

    /// Returns the digest over a bucket.
    pub(super) fn digest(&mut self, bucket: usize) -> Digest {
        self.digests.resize(BUCKETS, None);
        if let Some(Some(digest)) = self.digests.get(bucket) {
            return *digest;
        }
        let mut bytes = Writer::with_capacity(1_024);
        for entry in self.entries(bucket) {
            entry.digest_into(&mut bytes);
        }
        let digest = digest(&bytes.finish(usize::MAX).unwrap_or_default());
        self.digests[bucket] = Some(digest);
        digest
    }

    /// Returns records that are not older than the peer's, those held longest first.
    pub(super) fn by_age(&self, keys: &[Key]) -> Vec<(Arc<SignedRecord>, Standing)> {
        let own = |key: &Key| {
            let (me, record) = self.own.as_ref()?;
            (me == key).then(|| (0, record.clone(), Standing::SURE))
        };
        let held = |key: &Key| {
            let slot = self.nodes.get(key)?;
            Some((slot.node.stored, slot.node.record.clone(), slot.standing))
        };
        let found = keys.iter().filter_map(|key| own(key).or_else(|| held(key)));
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|(stored, ..)| *stored);
        let found = found.into_iter();
        found
            .map(|(_stored, record, standing)| (record, standing))
            .collect()
    }

    /// Returns a record and how its origin stands.
    pub(super) fn told(&self, key: &Key) -> Option<(Arc<SignedRecord>, Standing)> {
        let slot = self.nodes.get(key)?;
        Some((slot.node.record.clone(), slot.standing))
    }

    /// Returns how often something changed that digests cover.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    fn dirty(&mut self, key: &Key) {
        self.changes += 1;
        if let Some(slot) = self.nodes.get_mut(key) {
            slot.standing = slot.node.standing();
        }
        self.digests.resize(BUCKETS, None);
        self.digests[bucket_of(key)] = None;
    }
}

fn short_hash(record: &SignedRecord) -> [u8; 8] {
    let mut hash = [0; 8];
    hash.copy_from_slice(&record.hash()[..8]);
    hash
}

/// Returns the beginning of the SHA-256 of some bytes.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    let hash = Sha256::digest(bytes);
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&hash[..DIGEST_BYTES]);
    digest
}

/// Returns the bucket an origin falls into: the first six bits of its key.
pub(super) fn bucket_of(key: &Key) -> usize {
    usize::from(key.as_bytes()[0] >> 2)
}

/// Returns the first and the last key of a bucket.
pub(super) fn bounds(bucket: usize) -> (Key, Key) {
    let first = u8::try_from(bucket << 2).unwrap_or(u8::MAX);
    let (mut low, mut high) = ([0; 32], [u8::MAX; 32]);
    low[0] = first;
    high[0] = first | 3;
    (Key::from_bytes(low), Key::from_bytes(high))
}
