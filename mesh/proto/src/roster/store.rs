//! What happens to a record that arrives.

use std::sync::Arc;

use super::accusation::{Accusation, Doubt};
use super::config::{
    EQUIVOCATION_AGAIN, EQUIVOCATION_EVERY, EQUIVOCATIONS_AT_ONCE, KEEP_DEAD, RECORDS_BYTES_MAX,
    RECORDS_PER_ORIGIN,
};
use super::record::{RawRecord, RecordError, Version};
use super::state::State;
use super::timers::Timer;
use super::wire::{self, Standing};
use super::{Event, Key, LinkId, Liveness, Offence, SignedRecord};
use crate::Instant;
use crate::heads::Step;

impl State {
    pub(super) fn on_records(
        &mut self,
        link: LinkId,
        more: bool,
        records: &[(Standing, RawRecord<'_>)],
    ) {
        let mut stored = false;
        for (standing, raw) in records {
            match self.on_record(link, raw, *standing) {
                Ok(news) => stored |= news,
                Err(offence) => {
                    self.offend(link, offence);
                    return;
                }
            }
        }
        if stored && let Some(link) = self.links.get_mut(link) {
            link.sync.idle = 0;
        }
        if more && stored {
            self.send_digests(link);
        }
    }

    /// Takes one record. Returns whether it was stored.
    fn on_record(
        &mut self,
        link: LinkId,
        raw: &RawRecord<'_>,
        standing: Standing,
    ) -> Result<bool, Offence> {
        let (key, version) = raw.peek().map_err(|_short| Offence::Malformed)?;
        if key == self.me {
            self.on_own_record(link, raw, version);
            return Ok(false);
        }
        match self.table.standing(&key) {
            None if !self.has_link(&key) => {
                return self.on_stranger(link, raw, (key, version), standing);
            }
            Some(held) if held != Standing::SURE && !standing.heard => {
                self.vouched(&key, link, !standing.doubted);
            }
            Some(_) | None => {}
        }
        if !self.is_wanted(&key, version, raw) {
            self.heard_from(&key, link);
            return Ok(false);
        }
        let known = self.table.get(&key).map(|node| node.id);
        let signed = match raw.open(known, self.crypto.as_ref()) {
            Ok(signed) => signed,
            Err(RecordError::Decode(_)) => return Err(Offence::Malformed),
            Err(RecordError::Signature) => return Err(Offence::ForgedRecord),
        };
        if self.table.get(&key).is_some() {
            return Ok(self.replace(&key, signed, link));
        }
        if self.table.floor(&key).is_some_and(|floor| version <= floor) {
            self.call_back(link, &signed);
            return Ok(false);
        }
        Ok(self.add(signed, link))
    }

    /// Tells from its first bytes whether a record can be news, so that most cost no more.
    fn is_wanted(&self, key: &Key, version: Version, raw: &RawRecord<'_>) -> bool {
        let Some((held, tag)) = self.table.held(key) else {
            let floor = self.table.floor(key);
            return floor.is_none_or(|floor| version > floor) || self.has_link(key);
        };
        let differs = version == held && raw.tag() != tag;
        let node = self.table.get(key);
        let may = || node.is_some_and(|node| node.records.has(RECORDS_PER_ORIGIN, self.now));
        (version > held || differs) && may()
    }

    /// Takes the first record of a node that this one has a link with.
    fn add(&mut self, signed: SignedRecord, link: LinkId) -> bool {
        let key = Key::of(&signed.record().origin);
        let placed = self.place(&Arc::new(signed), true);
        if placed {
            self.stored(&key, Some(link), (true, true));
        }
        placed
    }

    /// Finds a place for the first record of a node; for one with a link others make room.
    pub(super) fn place(&mut self, record: &Arc<SignedRecord>, met: bool) -> bool {
        let size = record.bytes().len();
        let key = Key::of(&record.record().origin);
        let full = |state: &Self| {
            state.table.len() >= state.config.nodes_max
                || state.table.bytes() + size > RECORDS_BYTES_MAX
        };
        while full(self) {
            if !self.make_room(&key, met) {
                return false;
            }
        }
        self.table.raise(&key);
        let rank = self.rank(&key);
        self.table.insert(record.clone(), rank, self.now);
        if let Some(node) = self.table.get_mut(&key) {
            node.met = met;
        }
        true
    }

    fn replace(&mut self, key: &Key, signed: SignedRecord, link: LinkId) -> bool {
        let Some(node) = self.table.get_mut(key) else {
            return false;
        };
        let held = node.record.clone();
        if !node.records.take(RECORDS_PER_ORIGIN, self.now) {
            return false;
        }
        if signed.bytes() == held.bytes() {
            return false;
        }
        let linked = self.has_link(key);
        if signed.version() == held.version() {
            self.on_equivocation(key);
        }
        if signed.precedence(&held).is_le() {
            return false;
        }
        let grown = signed.bytes().len().saturating_sub(held.bytes().len());
        while self.table.bytes() + grown > RECORDS_BYTES_MAX {
            if !self.make_room(key, linked) {
                return false;
            }
        }
        let agents_changed = signed.record().agents != held.record().agents;
        let restarted = signed.version().incarnation > held.version().incarnation;
        self.table.replace(key, Arc::new(signed), self.now);
        self.stored(key, Some(link), (agents_changed, false));
        let up = self.table.get(key).map(|node| node.liveness) == Some(Liveness::Alive);
        if restarted && up {
            self.announce_up(key);
        }
        true
    }

    /// Tells once in a long while that a node signs two records of one version.
    fn on_equivocation(&mut self, key: &Key) {
        let now = self.now;
        let Some(node) = self.table.get_mut(key) else {
            return;
        };
        let told = node
            .equivocated
            .is_some_and(|at| now.since(at) < EQUIVOCATION_AGAIN);
        if !told && self.equivocations.take(now) {
            node.equivocated = Some(now);
            let node = node.id;
            self.event(Event::RecordEquivocation { node });
        }
    }

    /// Does what follows when a record was stored: `first` when its origin was no part of the mesh.
    pub(super) fn stored(
        &mut self,
        key: &Key,
        link: Option<LinkId>,
        (agents_changed, first): (bool, bool),
    ) {
        let Some(node) = self.table.get(key) else {
            return;
        };
        let hearsay = node.hearsay;
        let (id, version) = (node.id, node.record.version());
        let record = node.record.record();
        let (log, cosigners) = (record.log, record.cosigners);
        self.event(Event::Recorded { node: id, version });
        self.judge(key);
        if agents_changed {
            self.event(Event::AgentsChanged { node: id });
        }
        if let Some(log) = log {
            let step = self.book.pin(id, log);
            let news = step != Step::None;
            self.on_step(key, step);
            if news {
                self.ask(key);
            }
        }
        self.book.set_witness_key(key, cosigners.witness);
        self.claim_evidence(key, &id);
        self.convict_found();
        if !hearsay {
            self.push_record(*key, link, first);
        }
        self.dials_dirty = true;
        self.persist_soon();
    }

    /// Answers a node that was forgotten and comes back with the version it left with: everyone
    /// holds that for old. An accusation makes it begin another life.
    fn call_back(&mut self, link: LinkId, signed: &SignedRecord) {
        let record = signed.record();
        let direct = self
            .links
            .get(link)
            .is_some_and(|link| link.peer == record.origin);
        if direct {
            let by = (&self.config.me, self.crypto.as_ref());
            let key = Key::of(&record.origin);
            let accusation = Accusation::sign(key, record.life(), Doubt::Silent, by);
            self.send(link, wire::accusations(&[accusation]));
        }
    }

    /// Drops one node for another: the one that is gone longest, of those never met first; for one
    /// with a link also one without, of which nothing was heard for longest. Returns whether there
    /// was one.
    fn make_room(&mut self, keep: &Key, linked: bool) -> bool {
        let gone = |liveness| matches!(liveness, Liveness::Dead | Liveness::Left);
        let nodes = self.table.iter().filter(|(key, _)| *key != keep);
        let nodes =
            nodes.filter(|(key, node)| gone(node.liveness) || (linked && !self.has_link(key)));
        let first = nodes.min_by_key(|(_, node)| {
            if gone(node.liveness) {
                (false, node.met, node.since)
            } else {
                (true, false, node.news)
            }
        });
        let Some((key, node)) = first else {
            return false;
        };
        let (key, id, gone) = (*key, node.id, gone(node.liveness));
        if gone {
            self.forget(&key, id);
        } else {
            self.drop_living(&key, id);
        }
        true
    }

    /// Drops a node that may be there: it may come back as it is.
    pub(super) fn drop_living(&mut self, key: &Key, id: openfang_id::NodeId) {
        self.event(Event::NodeDown { node: id });
        self.table.drop_node(key);
        self.forgotten(key, id);
    }

    pub(super) fn on_forget_timer(&mut self) {
        let gone = |liveness| matches!(liveness, Liveness::Dead | Liveness::Left);
        let old = |since| self.now.since(since) >= KEEP_DEAD;
        let nodes = self.table.iter();
        let expired: Vec<_> = nodes
            .filter(|(_, node)| gone(node.liveness) && old(node.since))
            .map(|(key, node)| (*key, node.id))
            .collect();
        for (key, id) in expired {
            self.forget(&key, id);
        }
        self.strangers.expire(self.now);
        let again = self.now + super::config::FORGET_EVERY;
        self.timers.set(Timer::Forget, again);
    }

    fn forget(&mut self, key: &Key, id: openfang_id::NodeId) {
        self.table.forget(key);
        self.forgotten(key, id);
    }

    /// Does what follows when a node was dropped.
    pub(super) fn forgotten(&mut self, key: &Key, id: openfang_id::NodeId) {
        self.dialer.forget(key);
        self.timers.clear(Timer::Judge(*key));
        self.timers
            .clear(Timer::Dial(crate::dial::Target::Node(*key)));
        self.event(Event::NodeForgotten { node: id });
        self.persist_soon();
    }
}

/// Counts reports of origins that sign two records of one version.
#[derive(Debug, Default)]
pub(super) struct Equivocations {
    told: u32,
    at: Instant,
}

impl Equivocations {
    /// Tells whether there may be one more.
    fn take(&mut self, now: Instant) -> bool {
        while self.told > 0 && now.since(self.at) >= EQUIVOCATION_EVERY {
            self.told -= 1;
            self.at += EQUIVOCATION_EVERY;
        }
        if self.told == 0 {
            self.at = now;
        }
        let may = self.told < EQUIVOCATIONS_AT_ONCE;
        self.told += u32::from(may);
        may
    }
}
