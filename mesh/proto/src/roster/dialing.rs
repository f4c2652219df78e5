//! Connections: made, met, settled, closed; and whom to dial next.

use std::time::Duration;

use openfang_id::{NetAddr, PeerAddr};

use super::accusation::Doubt;
use super::config::{ACCUSE_AGAIN, ALIVE_RECENTLY, LINKS_MAX, PICKS, UNMET_ADDRS, UNMET_TRIES};
use super::state::State;
use super::table::Node;
use super::timers::Timer;
use super::wire::{self, Standing};
use super::{
    CloseReason, Connected, DialFailure, DialId, Event, Key, LinkId, Liveness, Offence, Out,
};
use crate::dial::{BACKOFF_LONG, BACKOFF_MAX, Target};

/// How long a dial may take before it counts as failed without a report.
pub(super) const DIAL_LOST: Duration = Duration::from_secs(60);
/// How long a link must have held for its end to be answered at once.
const STEADY: Duration = Duration::from_secs(5);
/// How long the node with the higher id leaves a new acquaintance to the other.
const YIELD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));
/// Before a target without an address is looked at again; spread, so that not all look at once.
const NO_ADDR: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60));
/// Spreads the first dials of a node that starts.
const START_SPREAD: Duration = Duration::from_millis(50);
/// The longest pause of a dial that found too many others under way.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// Failures that make a target that broke the protocol wait for the longest.
const BLAME: u32 = 6;

impl State {
    pub(super) fn on_connected(&mut self, connected: &Connected) {
        let key = Key::of(&connected.peer);
        if let Some(dial) = connected.dial {
            self.dialer.succeeded(dial, &connected.peer);
        }
        let full = self.links.len() >= LINKS_MAX && !self.shed();
        if key == self.me || self.gone || full {
            self.turn_away(connected, key == self.me);
            return;
        }
        let interval = self.beat_interval();
        self.links.insert(connected, self.now, interval);
        if let (Some(_), Some(addr)) = (connected.dial, &connected.addr) {
            self.dialer.remember(&connected.peer, addr.clone());
            self.persist_soon();
        }
        self.timers.clear(Timer::Dial(Target::Node(key)));
        self.timers.clear(Timer::Dial(Target::Stranger(key)));
        self.event(Event::Linked {
            node: connected.peer,
            link: connected.link,
            dial: connected.dial,
        });
        self.meet(&key, connected.link);
        self.found(&key);
        self.greet(connected.link, &key);
        if self.links.of_peer(&key).len() > 1 {
            self.settle_later(&key);
        }
        if let Some(link) = self.links.get(connected.link) {
            let at = link.silent_at(self.links.loss());
            self.timers.set_earlier(Timer::Silence, at);
        }
    }

    fn turn_away(&mut self, connected: &Connected, is_self: bool) {
        if is_self && let Some(addr) = &connected.addr {
            self.note_self(addr);
        }
        let why = if self.gone {
            CloseReason::Leaving
        } else {
            CloseReason::Surplus
        };
        self.send(connected.link, wire::bye());
        self.out.push(Out::Close {
            link: connected.link,
            why,
        });
    }

    /// Sends what a new neighbour must know first: this node, and whether the neighbour is held for
    /// dead, so that it can refute it.
    fn greet(&mut self, link: LinkId, key: &Key) {
        if let Some(own) = self.table.own().cloned() {
            let (frame, _taken) = wire::records(&[(own.as_ref(), Standing::SURE)]);
            self.send(link, frame);
        }
        let held = self.table.get(key).map(|node| node.accusations.clone());
        if let Some(accusations) = held.filter(|held| !held.is_empty()) {
            self.send(link, wire::accusations(&accusations));
        }
        self.send_beat(link);
        self.send_head(link);
        self.ask(key);
    }

    pub(super) fn on_disconnected(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(id) else {
            return;
        };
        let key = Key::of(&link.peer);
        self.weigh_introducer(&key);
        self.event(Event::Unlinked {
            node: link.peer,
            link: id,
        });
        self.tickets.retain(|_ticket, (of, _)| *of != id);
        let steady = self.now.since(link.since) >= STEADY;
        self.calm(&key, steady);
        if self.gone || self.links.is_live(&key) {
            return;
        }
        if !link.parting {
            self.lose(&key, Doubt::Closed);
            self.judge(&key);
        }
        let attempts = self.dialer.attempts(Target::Node(key));
        let after = match (link.parting, attempts) {
            (false, 0) => Duration::ZERO,
            // It had no use for its own link to this node, which has use for one to it.
            (true, 0) if !self.full && self.is_pick(&key) => {
                self.rng.between(Duration::ZERO, START_SPREAD)
            }
            (true, 0) => self.rng.between(YIELD.0, YIELD.1),
            _tried => {
                let target = Target::Node(key);
                self.dialer.backoff(target, BACKOFF_MAX, &mut self.rng)
            }
        };
        self.redial(link.peer, after);
    }

    /// Forgets earlier failures to reach a node once a link has held; counts one that has not.
    fn calm(&mut self, key: &Key, steady: bool) {
        let node = Target::Node(*key);
        let Some(id) = self.table.get(key).map(|node| node.id) else {
            return;
        };
        if steady {
            self.dialer.calm(node);
            for entry in self.dialer.entries_of(&id) {
                self.dialer.calm(entry);
            }
        } else {
            self.dialer.blame(node, 1);
        }
    }

    fn redial(&mut self, peer: openfang_id::NodeId, after: Duration) {
        let at = self.now + after;
        let known = self.table.get(&Key::of(&peer)).is_some();
        if known {
            let target = Target::Node(Key::of(&peer));
            self.timers.set_earlier(Timer::Dial(target), at);
        }
        for entry in self.dialer.entries_of(&peer) {
            // The node's own addresses first; the configured ones in case it has moved.
            let patience = if known { BACKOFF_MAX } else { Duration::ZERO };
            self.timers.set_earlier(Timer::Dial(entry), at + patience);
        }
    }

    /// The peer closes this connection and lives on.
    pub(super) fn on_bye(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id) {
            link.parting = true;
        }
    }

    /// Closes a connection from this end.
    pub(super) fn close(&mut self, id: LinkId, why: CloseReason) {
        let Some(link) = self.links.remove(id) else {
            return;
        };
        if why == CloseReason::Surplus {
            self.send(id, wire::bye());
        }
        self.tickets.retain(|_ticket, (of, _)| *of != id);
        self.out.push(Out::Close { link: id, why });
        self.weigh_introducer(&Key::of(&link.peer));
        self.event(Event::Unlinked {
            node: link.peer,
            link: id,
        });
        self.dials_dirty = true;
    }

    pub(super) fn close_all(&mut self, key: &Key, why: CloseReason) {
        for id in self.links.of_peer(key).to_vec() {
            self.close(id, why);
        }
    }

    /// Closes the connection of a peer that broke the protocol, and leaves it alone for a while.
    pub(super) fn offend(&mut self, id: LinkId, offence: Offence) {
        let Some(peer) = self.links.get(id).map(|link| link.peer) else {
            return;
        };
        self.event(Event::Violation {
            node: peer,
            offence,
        });
        self.close(id, CloseReason::Violation(offence));
        let key = Key::of(&peer);
        self.dialer.blame(Target::Node(key), BLAME);
        self.dial_later(&key);
    }

    /// Tells whether there is a connection to a node, silent or not.
    pub(super) fn has_link(&self, key: &Key) -> bool {
        !self.links.of_peer(key).is_empty()
    }

    pub(super) fn is_linked(&self, key: &Key) -> bool {
        self.links.is_live(key)
    }

    /// Tells whether this node wants a link to another of its own accord.
    fn is_pick(&self, key: &Key) -> bool {
        let count = if self.full { usize::MAX } else { PICKS };
        self.table.is_among(key, count)
    }

    pub(super) fn add_bootstrap(&mut self, addrs: Vec<PeerAddr>) {
        for target in self.dialer.add(addrs) {
            self.timers.set(Timer::Dial(target), self.now);
        }
    }

    pub(super) fn drop_bootstrap(&mut self, addrs: &[NetAddr]) {
        for target in self.dialer.remove(addrs) {
            self.timers.clear(Timer::Dial(target));
        }
    }

    /// Sees to it that everyone who should be linked is dialed, when that may have changed.
    pub(super) fn plan_dials(&mut self) {
        if !std::mem::take(&mut self.dials_dirty) || self.gone {
            return;
        }
        self.plan_probe();
        let count = if self.full { usize::MAX } else { PICKS };
        let picks: Vec<Key> = self.table.ranked().take(count).collect();
        for key in picks {
            let target = Target::Node(key);
            let planned = self.timers.is_set(Timer::Dial(target)) || self.dialer.is_flying(target);
            if planned || self.is_linked(&key) {
                continue;
            }
            let after = self.first_delay(&key);
            self.timers.set(Timer::Dial(target), self.now + after);
        }
    }

    /// Leaves a new acquaintance of a full mesh to the node with the lower id for a moment, so that
    /// not both dial.
    pub(super) fn first_delay(&mut self, key: &Key) -> Duration {
        let node = self.table.get(key);
        let urgent = node.is_some_and(|node| node.lost.is_some() || node.unconfirmed.is_some());
        if self.dialer.attempts(Target::Node(*key)) > 0 {
            let target = Target::Node(*key);
            self.dialer.backoff(target, BACKOFF_MAX, &mut self.rng)
        } else if self.me < *key || urgent || !self.full {
            self.rng.between(Duration::ZERO, START_SPREAD)
        } else {
            self.rng.between(YIELD.0, YIELD.1)
        }
    }

    /// Dials a node that is gone again and again.
    pub(super) fn dial_later(&mut self, key: &Key) {
        let target = Target::Node(*key);
        if !self.dialer.is_flying(target) && !self.timers.is_set(Timer::Dial(target)) {
            self.back_off(target);
        }
    }

    fn back_off(&mut self, target: Target) {
        let pause = match target {
            // Hundreds may be gone at once, and all others dial them too: no haste.
            Target::Node(key) if self.is_far(&key) => {
                self.rng.between(Duration::ZERO, BACKOFF_LONG)
            }
            Target::Node(key) if self.is_unmet(&key) && self.is_tried(target) => {
                self.dialer.backoff(target, BACKOFF_LONG, &mut self.rng)
            }
            Target::Node(_) | Target::Stranger(_) | Target::Entry(_) => {
                self.dialer.backoff(target, BACKOFF_MAX, &mut self.rng)
            }
        };
        self.timers.set(Timer::Dial(target), self.now + pause);
    }

    /// Tells whether this node has never had a link with another, in this run or one before.
    pub(super) fn is_unmet(&self, key: &Key) -> bool {
        self.table.get(key).is_some_and(|node| !node.met)
    }

    /// Tells whether a target was tried often enough to give way to others.
    fn is_tried(&self, target: Target) -> bool {
        self.dialer.attempts(target) >= UNMET_TRIES
    }

    /// Tells whether others are as likely to reach a node: it has left, or is gone from a large mesh
    /// without having been a neighbour.
    fn is_far(&self, key: &Key) -> bool {
        let node = self.table.get(key);
        node.is_some_and(|node| {
            let left = node.liveness == Liveness::Left;
            let gone = node.liveness == Liveness::Dead && !self.full;
            left || (gone && node.lost.is_none())
        })
    }

    pub(super) fn on_dial_timer(&mut self, target: Target) {
        if self.gone {
            return;
        }
        if let Some(dial) = self.dialer.give_up(target) {
            self.after_failure(target, dial);
            return;
        }
        if self.is_needed(target) {
            self.start_dial(target);
        }
    }

    /// Tells whether a target is still to be dialed; one that may be later is looked at again.
    fn is_needed(&mut self, target: Target) -> bool {
        match target {
            Target::Node(key) => {
                let Some(node) = self.table.get(&key) else {
                    return false;
                };
                let gone = matches!(node.liveness, Liveness::Dead | Liveness::Left);
                let gone = gone && (node.met || !self.is_tried(target));
                let lost = node.lost.is_some();
                !self.is_linked(&key) && (gone || lost || self.is_pick(&key))
            }
            Target::Stranger(_) => false,
            Target::Entry(number) => {
                let wait = self.wait_of(number);
                if let Some(wait) = wait {
                    self.timers.set(Timer::Dial(target), self.now + wait);
                }
                wait.is_none() && self.dialer.entry(number).is_some()
            }
        }
    }

    /// Returns how long a bootstrap entry is left alone, if so. It has done its work for now when the node
    /// it leads to is linked, or, in a large mesh, lives and is known to others. While that node is being
    /// dialed, there too, it waits a moment.
    fn wait_of(&self, number: u32) -> Option<Duration> {
        let entry = self.dialer.entry(number)?;
        let wait = |key: &Key, liveness: Liveness| {
            let lives = liveness == Liveness::Alive && !self.full;
            let flying = self.dialer.is_flying_with(Target::Node(*key), entry);
            match lives || self.is_linked(key) {
                true => Some(NO_ADDR.0),
                false => flying.then_some(FULL_PAUSE),
            }
        };
        if let Some(node) = entry.node {
            let key = &Key::of(&node);
            let known = self.table.get(key).map(|node| node.liveness);
            return wait(key, known.unwrap_or(Liveness::Dead));
        }
        let same = self.table.iter().filter(|(_, node)| {
            let mut announced = node.record.record().addrs.iter();
            announced.any(|addr| entry.addrs.iter().any(|known| known.addr == *addr))
        });
        let waits = same.filter_map(|(key, node)| wait(key, node.liveness));
        waits.max()
    }

    pub(super) fn start_dial(&mut self, target: Target) {
        if self.dialer.is_flying(target) {
            return;
        }
        let mut addrs = match target {
            Target::Stranger(_) => return,
            Target::Entry(number) => self.dialer.addrs_of_entry(number),
            Target::Node(key) => self.table.get(&key).map_or_else(Vec::new, |node| {
                self.dialer.addrs_of(&node.id, &node.record.record().addrs)
            }),
        };
        if addrs.is_empty() {
            let pause = self.rng.between(NO_ADDR.0, NO_ADDR.1);
            self.timers.set(Timer::Dial(target), self.now + pause);
            if let Target::Node(key) = target {
                self.on_nowhere(&key);
            }
            return;
        }
        if let Target::Node(key) = target
            && self.is_unmet(&key)
        {
            self.few_of(&mut addrs);
        }
        if self.dialer.is_full() || !self.may_dial(target) {
            let pause = self.rng.between(START_SPREAD, FULL_PAUSE);
            self.timers.set(Timer::Dial(target), self.now + pause);
            return;
        }
        let dial = self.dialer.start(target);
        self.timers.set(Timer::Dial(target), self.now + DIAL_LOST);
        self.out.push(Out::Dial { dial, addrs });
    }

    /// Leaves a few addresses of a node that may not exist.
    pub(super) fn few_of(&mut self, addrs: &mut Vec<PeerAddr>) {
        let few = addrs.len().min(UNMET_ADDRS);
        self.rng.choose(addrs, few);
        addrs.truncate(few);
    }

    pub(super) fn on_dial_failed(&mut self, dial: DialId, failures: &[(NetAddr, DialFailure)]) {
        for (addr, failure) in failures {
            if *failure == DialFailure::Itself {
                self.note_self(addr);
            }
        }
        if let Some(target) = self.dialer.failed(dial) {
            self.after_failure(target, dial);
        }
    }

    fn after_failure(&mut self, target: Target, _dial: DialId) {
        if self.gone {
            return;
        }
        match target {
            Target::Entry(_) => self.back_off(target),
            Target::Stranger(key) => self.on_stranger_missed(&key),
            Target::Node(key) => {
                self.timers.clear(Timer::Dial(target));
                self.on_unreachable(&key);
                self.dials_dirty = true;
                if self.is_needed(target) {
                    self.back_off(target);
                }
            }
        }
    }

    /// Takes a failed dial as evidence: of death for a node that was suspected, as a reason to
    /// doubt for one that others may still reach.
    fn on_unreachable(&mut self, key: &Key) {
        if self.is_linked(key) {
            return;
        }
        let Some(node) = self.table.get(key) else {
            return;
        };
        let heard_of = node.unconfirmed.is_none();
        let doubtful = self.is_doubtful(node);
        match node.liveness {
            Liveness::Suspect => {
                self.lose(key, Doubt::Refused);
                if heard_of {
                    self.accuse(key, Doubt::Refused);
                }
                self.judge(key);
            }
            Liveness::Alive if doubtful => {
                self.accuse(key, Doubt::Refused);
                self.judge(key);
            }
            Liveness::Me | Liveness::Alive | Liveness::Dead | Liveness::Left => {}
        }
    }

    /// Doubts a node that cannot be dialed and has not been heard of for long: whoever lives says
    /// so, and nothing else would ever show that it is gone.
    pub(super) fn on_nowhere(&mut self, key: &Key) {
        let Some(node) = self.table.get(key) else {
            return;
        };
        let alive = node.liveness == Liveness::Alive && !self.is_linked(key);
        if alive && self.is_doubtful(node) {
            self.accuse(key, Doubt::Silent);
            self.judge(key);
        }
    }

    /// Tells whether there has been no sign of life of a node for long, and it was not asked for one.
    fn is_doubtful(&self, node: &Node) -> bool {
        let recent = self.now.since(node.news) < ALIVE_RECENTLY;
        let again = |at| self.now.since(at) >= ACCUSE_AGAIN;
        !recent && node.accused_by_me.is_none_or(again)
    }

    fn note_self(&mut self, addr: &NetAddr) {
        if self.dialer.is_self(addr) {
            self.event(Event::SelfDial { addr: addr.clone() });
        }
    }
}
