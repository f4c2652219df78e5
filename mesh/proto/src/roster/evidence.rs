//! Whether a node of which a record was heard is there at all.
//!
//! A node is part of the mesh for this one when the two have a link, or have had one since this one
//! started, or when enough neighbours vouch for it: two, or one in eight of them where there are
//! many, and eight at most. A node vouches for those that are part of the mesh for it; so word of a newcomer spreads from
//! its neighbours to theirs, and one that lies convinces nobody. What was written to disk was part of
//! the mesh before, and needs as many words to count as heard of again.
//!
//! A node with a single neighbour has only its word. It takes that, after a while and for a few
//! nodes, and does not pass it on; when it finds others who do not say the same, it forgets it.

use std::sync::Arc;

use super::config::{
    INTRODUCTIONS, LINKS_MAX, LONE_AFTER, LONE_AGAIN, LONE_WORD_KEPT, LONE_WORD_MAX, PICKS,
    PROBE_AFTER, UNMET_DIALS, UNMET_IN_FLIGHT, VOUCHERS_ENOUGH, VOUCHERS_MIN, VOUCHERS_ONE_IN,
};
use super::record::{RawRecord, RecordError, Version};
use super::state::State;
use super::timers::Timer;
use super::wire::Standing;
use super::{Key, LinkId, Liveness, Offence, Out};
use crate::dial::Target;

/// The fewest nodes that are present before strangers are left to others.
const COMPANY: usize = 2 * PICKS;

impl State {
    /// Takes a record of an origin for which there is no evidence yet. Returns whether it was news.
    pub(super) fn on_stranger(
        &mut self,
        link: LinkId,
        raw: &RawRecord<'_>,
        (key, version): (Key, Version),
        standing: Standing,
    ) -> Result<bool, Offence> {
        let floor = self.table.floor(&key);
        if standing.heard || floor.is_some_and(|floor| version <= floor) {
            return Ok(false);
        }
        let held = self.strangers.version(&key);
        let newer = held.is_none_or(|held| version > held);
        if newer && self.may_hear(link, raw, &key) {
            let signed = match raw.open(None, self.crypto.as_ref()) {
                Ok(signed) => Arc::new(signed),
                Err(RecordError::Decode(_)) => return Err(Offence::Malformed),
                Err(RecordError::Signature) => return Err(Offence::ForgedRecord),
            };
            let Some(peer) = self.peer_of(link) else {
                return Ok(false);
            };
            if held.is_some() {
                self.strangers.replace(&key, signed);
            } else {
                let wait = self.rng.between(PROBE_AFTER.0, PROBE_AFTER.1);
                let due = self.now + self.first_delay(&key) + wait;
                self.strangers.insert(signed, peer, due, self.now);
                self.plan_probe();
            }
        }
        Ok(self.vouched_stranger(&key, link, !standing.doubted))
    }

    /// Tells whether the record of a stranger may be looked at.
    fn may_hear(&mut self, link: LinkId, raw: &RawRecord<'_>, key: &Key) -> bool {
        let now = self.now;
        if self.strangers.version(key).is_some() {
            return self.strangers.may_replace(key, now);
        }
        let Some(from) = self.links.get_mut(link) else {
            return false;
        };
        self.strangers
            .may_take(&Key::of(&from.peer), raw.bytes.len())
            && from.introductions.take(INTRODUCTIONS, now)
    }

    /// Hears a neighbour vouch for a node, surely or with a doubt. Returns whether that was news.
    pub(super) fn vouched(&mut self, key: &Key, link: LinkId, sure: bool) -> bool {
        if self.table.standing(key).is_none() {
            return self.vouched_stranger(key, link, sure);
        }
        let Some(peer) = self.peer_of(link).filter(|peer| peer != key) else {
            return false;
        };
        let news = sure && self.confirmed(key, peer);
        self.word_counts(link, news);
        news
    }

    fn vouched_stranger(&mut self, key: &Key, link: LinkId, sure: bool) -> bool {
        let Some(peer) = self.peer_of(link).filter(|peer| peer != key) else {
            return false;
        };
        let needed = self.vouchers_needed();
        let (news, vouchers) = self.strangers.vouch(key, peer, sure);
        let linked = |(voucher, _sure): &&(Key, bool)| self.links.is_live(voucher);
        if vouchers.len() >= needed && vouchers.iter().filter(linked).count() >= needed {
            return self.admit(key, Some(link));
        }
        self.word_counts(link, news);
        news
    }

    /// Notes whether rounds with a neighbour bring something.
    fn word_counts(&mut self, link: LinkId, news: bool) {
        if news && let Some(link) = self.links.get_mut(link) {
            link.sync.idle = 0;
        }
    }

    /// Hears a neighbour vouch for a node that is known from disk, or from one other only.
    fn confirmed(&mut self, key: &Key, peer: Key) -> bool {
        let needed = self.vouchers_needed().min(self.links.peers().max(1));
        let Some(node) = self.table.get_mut(key).filter(|node| node.is_unsure()) else {
            return false;
        };
        if node.hearsay && needed == 1 || node.vouchers.contains(&peer) {
            return false;
        }
        if node.vouchers.len() < LINKS_MAX {
            node.vouchers.push(peer);
        }
        let vouchers = node.vouchers.clone();
        let linked = vouchers.iter().filter(|peer| self.links.is_live(peer));
        if linked.count() >= needed {
            self.is_sure(key);
        }
        true
    }

    /// Notes that there is evidence enough for a node.
    fn is_sure(&mut self, key: &Key) {
        let hearsay = self.table.get(key).is_some_and(|node| node.hearsay);
        self.table.set_hearsay(key, false);
        self.table.set_unconfirmed(key, None);
        if let Some(node) = self.table.get_mut(key) {
            node.vouchers = Vec::new();
            node.lost = None;
        }
        self.judge(key);
        self.dials_dirty = true;
        if hearsay {
            self.push_record(*key, None, true);
        }
    }

    /// Notes that this node has a link with another: there is no better evidence.
    pub(super) fn meet(&mut self, key: &Key, link: LinkId) {
        self.weigh_introducer(key);
        self.strangers.met(key, self.now);
        self.admit(key, Some(link));
        if let Some(node) = self.table.get_mut(key) {
            node.met = true;
            self.is_sure(key);
        }
    }

    /// Notes whether a neighbour is still there to speak for those it has introduced.
    pub(super) fn weigh_introducer(&mut self, key: &Key) {
        let parted = !self.has_link(key);
        self.strangers.parted(key, parted);
    }

    /// Makes a stranger a part of the mesh. Returns whether there was a place for it.
    fn admit(&mut self, key: &Key, link: Option<LinkId>) -> bool {
        let Some((record, sure)) = self.strangers.remove(key) else {
            return false;
        };
        self.clear_probe(key);
        let met = self.has_link(key);
        if !self.place(&record, met) {
            return false;
        }
        // Those who vouch may know that it was there and doubt that it is: then it has to show up.
        if !met && sure.len() < self.vouchers_needed().min(self.links.peers()) {
            self.table.set_unconfirmed(key, Some(self.now));
            if let Some(node) = self.table.get_mut(key) {
                node.vouchers = sure;
            }
        }
        self.stored(key, link, (true, true));
        true
    }

    /// Returns how many neighbours must vouch for a node.
    pub(super) fn vouchers_needed(&self) -> usize {
        (self.links.peers() / VOUCHERS_ONE_IN).clamp(VOUCHERS_MIN, VOUCHERS_ENOUGH)
    }

    /// Believes the only neighbour there is, or no longer, now that there are others or it is gone.
    pub(super) fn weigh_hearsay(&mut self) {
        let gone = self.believed.filter(|teller| !self.has_link(teller));
        if self.links.peers() > 1 {
            self.accompanied = Some(self.now);
        }
        if self.links.peers() > 1 || gone.is_some() {
            let since = *self.company.get_or_insert(self.now);
            if self.now.since(since) >= LONE_WORD_KEPT {
                self.forget_hearsay();
                self.believed = None;
            }
            return;
        }
        self.company = None;
        let first = self.links.iter().next();
        let first = first.map(|(_, link)| (Key::of(&link.peer), link.since));
        let Some((only, since)) = first else {
            return;
        };
        let left = |at| self.now.since(at) < LONE_AGAIN;
        if self.now.since(since) < LONE_AFTER || self.accompanied.is_some_and(left) {
            return;
        }
        self.believed = Some(only);
        let room = LONE_WORD_MAX.saturating_sub(self.table.hearsay().len());
        let told: Vec<Key> = self.strangers.vouched_by(&only).take(room).collect();
        for key in told {
            self.admit_hearsay(&key);
        }
    }

    fn admit_hearsay(&mut self, key: &Key) {
        let Some((record, sure)) = self.strangers.remove(key) else {
            return;
        };
        self.clear_probe(key);
        if !self.place(&record, false) {
            return;
        }
        self.table.set_hearsay(key, true);
        if sure.is_empty() {
            self.table.set_unconfirmed(key, Some(self.now));
        }
        self.stored(key, None, (true, false));
    }

    fn forget_hearsay(&mut self) {
        for key in self.table.hearsay().clone() {
            let Some((node, liveness)) = self.table.get(&key).map(|node| (node.id, node.liveness))
            else {
                continue;
            };
            if liveness == Liveness::Dead {
                self.table.drop_node(&key);
                self.forgotten(&key, node);
            } else {
                self.drop_living(&key, node);
            }
        }
    }

    /// Tells whether strangers are to be tried: everyone is to be linked, or too few are known.
    fn wants_strangers(&self) -> bool {
        !self.gone && (self.full || self.present() < COMPANY)
    }

    /// Sees to it that strangers are tried when their time comes.
    pub(super) fn plan_probe(&mut self) {
        if self.wants_strangers()
            && let Some(at) = self.strangers.probe_at(self.now)
        {
            self.timers.set_earlier(Timer::Probe, at.max(self.now));
        }
    }

    pub(super) fn on_probe_timer(&mut self) {
        if !self.wants_strangers() {
            return;
        }
        while let Some(key) = self.strangers.next_probe(self.now) {
            self.probe(&key);
        }
        self.plan_probe();
    }

    /// Tries one stranger, in a large mesh: whoever introduced it may be its only acquaintance.
    pub(super) fn probe_one(&mut self) {
        if let Some(key) = self.strangers.next_probe(self.now) {
            self.probe(&key);
        }
    }

    fn probe(&mut self, key: &Key) {
        let Some((id, announced)) = self.strangers.dialed_at(key) else {
            return;
        };
        let mut addrs = self.dialer.addrs_of(&id, &announced);
        self.few_of(&mut addrs);
        let target = Target::Stranger(*key);
        if addrs.is_empty() || self.dialer.is_flying(target) {
            return;
        }
        if self.dialer.is_full() || self.dialer.probes_full() {
            self.strangers
                .put_off(key, self.now + super::config::PROBE_PAUSE);
            return;
        }
        let dial = self.dialer.start(target);
        let lost = self.now + super::dialing::DIAL_LOST;
        self.timers.set(Timer::Dial(target), lost);
        self.out.push(Out::Dial { dial, addrs });
    }

    /// Tells whether a dial is within what is spent on nodes that were never met, so that there is
    /// always room for those that were and for bootstrap addresses.
    pub(super) fn may_dial(&mut self, target: Target) -> bool {
        let Target::Node(key) = target else {
            return true;
        };
        if !self.is_unmet(&key) {
            return true;
        }
        let unmet = |target: &Target| matches!(target, Target::Node(key) if self.is_unmet(key));
        let flying = self.dialer.flying().filter(unmet).count();
        flying < UNMET_IN_FLIGHT && self.unmet_dials.take(UNMET_DIALS, self.now)
    }

    /// Takes note that a stranger was not where it said.
    pub(super) fn on_stranger_missed(&mut self, key: &Key) {
        self.clear_probe(key);
        self.strangers.failed(key, self.now);
        self.plan_probe();
    }

    fn clear_probe(&mut self, key: &Key) {
        let target = Target::Stranger(*key);
        self.timers.clear(Timer::Dial(target));
        self.dialer.calm(target);
    }

    fn peer_of(&self, link: LinkId) -> Option<Key> {
        self.links.get(link).map(|link| Key::of(&link.peer))
    }
}
