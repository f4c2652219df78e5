//! Who lives: heartbeats, silence, accusations, and the verdict over each node.

use std::time::Duration;

use super::accusation::{Accusation, Doubt};
use super::config::{
    CLAIMS_PER_NODE, CLOSED_TO_DEAD, CLOSED_TO_TOLD, CONFIRMATIONS, REFUSED_TO_DEAD,
    SILENT_TO_DEAD_MAX, SILENT_TO_DEAD_MIN, UNCONFIRMED_TO_DEAD,
};
use super::links::ONE;
use super::state::State;
use super::table::{Lost, Node};
use super::timers::Timer;
use super::wire::{self, Beat};
use super::{CloseReason, Event, Key, LinkId, Liveness, Offence, Out};
use crate::Instant;

/// How much longer than one interval of the mesh a suspicion lasts at least, in halves.
const MIN_PER_INTERVAL: (u32, u32) = (3, 2);

impl State {
    /// Sends a heartbeat on every link.
    pub(super) fn on_beat_timer(&mut self) {
        self.links.measure();
        let interval = self.beat_interval();
        let told = (self.root(), self.hlc);
        let now = self.now;
        let beats = self.links.iter_mut();
        let beats = beats.map(|(id, link)| (id, wire::beat(&link.beat(told, interval, now))));
        for (link, bytes) in beats.collect::<Vec<_>>() {
            self.send(link, bytes);
        }
        self.timers.set(Timer::Beat, now + interval);
    }

    pub(super) fn send_beat(&mut self, id: LinkId) {
        let interval = self.beat_interval();
        let told = (self.root(), self.hlc);
        let now = self.now;
        if let Some(link) = self.links.get_mut(id) {
            let beat = link.beat(told, interval, now);
            self.send(id, wire::beat(&beat));
        }
    }

    pub(super) fn on_beat(&mut self, id: LinkId, beat: &Beat) {
        let now = self.now;
        if let Some(link) = self.links.get_mut(id) {
            link.on_beat(beat, now);
            if beat.hlc != 0 {
                let (peer, hlc) = (link.peer, beat.hlc);
                self.out.push(Out::Hybrid { peer, hlc });
            }
        }
        self.on_root(id, beat);
    }

    /// Finds links that are silent for too long, and looks again when the next one may be.
    pub(super) fn on_silence_timer(&mut self) {
        let loss = self.links.loss();
        let now = self.now;
        let mut next: Option<Instant> = None;
        let mut silent = Vec::new();
        for (_id, link) in self.links.iter_mut().filter(|(_, link)| !link.silent) {
            let at = link.silent_at(loss);
            if at <= now {
                link.silent = true;
                silent.push(Key::of(&link.peer));
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        if let Some(next) = next {
            self.timers.set_earlier(Timer::Silence, next);
        }
        for key in silent {
            self.on_silent(&key);
        }
    }

    fn on_silent(&mut self, key: &Key) {
        if self.links.is_live(key) {
            return;
        }
        self.lose(key, Doubt::Silent);
        self.accuse(key, Doubt::Silent);
        self.judge(key);
    }

    /// Hears from a node that was silent.
    pub(super) fn on_heard_again(&mut self, key: &Key) {
        self.timers.set_earlier(Timer::Silence, self.now);
        self.found(key);
    }

    /// Notes that a node is linked: whatever was lost is found.
    pub(super) fn found(&mut self, key: &Key) {
        let now = self.now;
        self.table.set_unconfirmed(key, None);
        if let Some(node) = self.table.get_mut(key) {
            node.lost = None;
            node.news = now;
        }
        self.judge(key);
    }

    /// Notes how the last link to a node ended.
    pub(super) fn lose(&mut self, key: &Key, doubt: Doubt) {
        let at = self.now;
        if let Some(node) = self.table.get_mut(key)
            && node.lost.is_none_or(|lost| lost.doubt < doubt)
        {
            let told = node.lost.is_some_and(|lost| lost.told);
            node.lost = Some(Lost { at, doubt, told });
        }
    }

    /// Accuses a node before all others.
    pub(super) fn accuse(&mut self, key: &Key, doubt: Doubt) {
        let now = self.now;
        let Some(node) = self.table.get_mut(key) else {
            return;
        };
        node.accused_by_me = Some(now);
        if let Some(lost) = &mut node.lost {
            lost.told = true;
        }
        if node.record.record().left {
            return;
        }
        let by = (&self.config.me, self.crypto.as_ref());
        let accusation = Accusation::sign(*key, node.life(), doubt, by);
        if self.table.accuse(accusation, CONFIRMATIONS, now) {
            self.push_accusation(accusation, None);
        }
    }

    pub(super) fn on_accusations(&mut self, link: LinkId, accusations: &[Accusation]) {
        for accusation in accusations {
            let taken = if accusation.target == self.me {
                self.on_accused(accusation)
            } else {
                self.on_accusation(link, accusation)
            };
            if taken.is_err() {
                self.offend(link, Offence::ForgedClaim);
                return;
            }
        }
    }

    /// Takes one accusation: of a known node by a known node, about the present life. One about
    /// another life is outdated, or made up: a life counts only once its own record shows it.
    fn on_accusation(&mut self, link: LinkId, accusation: &Accusation) -> Result<(), ForgedClaim> {
        let key = accusation.target;
        let Some(node) = self.table.get(&key) else {
            return Ok(());
        };
        let held = &node.accusations;
        let known = held
            .iter()
            .any(|a| a.accuser == accusation.accuser && a.doubt >= accusation.doubt);
        let replaces = held.iter().any(|a| a.accuser == accusation.accuser);
        let room = replaces || held.len() < CONFIRMATIONS;
        let relevant = node.life() == accusation.life && !node.record.record().left;
        if known || !room || !relevant || accusation.accuser == self.me {
            self.accused_by(accusation, link);
            return Ok(());
        }
        let accuser = self.table.get_mut(&accusation.accuser);
        let Some(accuser) = accuser.filter(|accuser| !accuser.hearsay) else {
            return Ok(());
        };
        if !accuser.claims.take(CLAIMS_PER_NODE, self.now) {
            return Ok(());
        }
        if !self.claim_holds(accusation) {
            return Err(ForgedClaim);
        }
        if self.table.accuse(*accusation, CONFIRMATIONS, self.now) {
            if let Some(link) = self.links.get_mut(link) {
                link.sync.idle = 0;
            }
            self.push_accusation(*accusation, Some(link));
            self.judge(&key);
        }
        Ok(())
    }

    /// Tells whether the accuser is known and has signed.
    pub(super) fn claim_holds(&self, accusation: &Accusation) -> bool {
        let accuser = self.table.get(&accusation.accuser);
        accuser.is_some_and(|node| accusation.verify(&node.id, self.crypto.as_ref()))
    }

    /// Decides what to believe of a node, and when to decide again.
    pub(super) fn judge(&mut self, key: &Key) {
        let Some(node) = self.table.get(key) else {
            return;
        };
        let (liveness, again) = if node.record.record().left {
            (Liveness::Left, None)
        } else if self.links.is_live(key) {
            (Liveness::Alive, None)
        } else {
            self.verdict(node)
        };
        match again {
            Some(at) => self.timers.set(Timer::Judge(*key), at),
            None => self.timers.clear(Timer::Judge(*key)),
        }
        self.tell_if_due(key);
        let before = self.table.set_liveness(key, liveness, self.now);
        if before != Some(liveness) {
            self.on_verdict(key, liveness);
        }
    }

    /// Weighs what speaks against a node without a live link.
    fn verdict(&self, node: &Node) -> (Liveness, Option<Instant>) {
        let waited = self.stretched(UNCONFIRMED_TO_DEAD);
        let mut dead_at = node.unconfirmed.map(|since| since + waited);
        let mut earlier = |at: Instant| dead_at = Some(dead_at.map_or(at, |dead| dead.min(at)));
        let mut tell_at = None;
        if let Some(lost) = node.lost {
            match lost.doubt {
                Doubt::Refused => earlier(lost.at),
                Doubt::Closed => {
                    earlier(lost.at + CLOSED_TO_DEAD);
                    tell_at = (!lost.told).then(|| lost.at + CLOSED_TO_TOLD);
                }
                Doubt::Silent => {}
            }
        }
        if !node.accusations.is_empty() {
            earlier(node.accused_at + self.patience(node));
        }
        match dead_at {
            None => (Liveness::Alive, None),
            Some(at) if at <= self.now => (Liveness::Dead, None),
            Some(at) => {
                let tell_at = tell_at.filter(|tell| *tell > self.now);
                (Liveness::Suspect, Some(tell_at.unwrap_or(at).min(at)))
            }
        }
    }

    /// Returns how long an accused node has to refute: the longer, the fewer confirm it, and the
    /// more messages get lost on the way.
    fn patience(&self, node: &Node) -> Duration {
        let there = |a: &&Accusation| self.is_there(&a.accuser);
        let count = |least: Doubt| {
            let strong = node.accusations.iter().filter(|a| a.doubt >= least);
            strong.filter(there).count()
        };
        let accusers = count(Doubt::Silent).max(1);
        let counted = self.table.counts_alive(&Key::of(&node.id));
        let others = self.table.alive() - usize::from(counted);
        let needed = CONFIRMATIONS.min(others + 1);
        if count(Doubt::Refused) >= needed {
            return self.stretched(REFUSED_TO_DEAD);
        }
        if count(Doubt::Closed) >= needed {
            return CLOSED_TO_DEAD;
        }
        let (halves, of) = MIN_PER_INTERVAL;
        let least = (self.beat_interval() * halves / of).max(SILENT_TO_DEAD_MIN);
        if accusers >= needed {
            return self.stretched(least);
        }
        let missing = u32::try_from(needed - accusers).unwrap_or(1);
        let all = u32::try_from(needed.saturating_sub(1).max(1)).unwrap_or(1);
        self.stretched(least + (SILENT_TO_DEAD_MAX - least) * missing / all)
    }

    /// Tells whether an accuser is there itself: the word of one that has left, or is dead, is a
    /// reason to ask, but confirms nothing.
    fn is_there(&self, accuser: &Key) -> bool {
        *accuser == self.me || self.table.get(accuser).is_some_and(Node::is_present)
    }

    /// Returns how long something takes that happens by messages, of which some get lost.
    fn stretched(&self, duration: Duration) -> Duration {
        duration * (ONE + 4 * self.links.loss()) / ONE
    }

    /// Tells others of a lost connection that did not come back at once.
    fn tell_if_due(&mut self, key: &Key) {
        let due = self
            .table
            .get(key)
            .and_then(|node| node.lost)
            .is_some_and(|lost| {
                let waited = self.now.since(lost.at) >= CLOSED_TO_TOLD;
                lost.doubt == Doubt::Closed && !lost.told && waited
            });
        if due {
            self.accuse(key, Doubt::Closed);
        }
    }

    fn on_verdict(&mut self, key: &Key, liveness: Liveness) {
        let Some(node) = self.table.get(key).map(|node| node.id) else {
            return;
        };
        self.reconsider_full();
        self.dials_dirty = true;
        match liveness {
            Liveness::Me => {}
            Liveness::Alive => self.announce_up(key),
            Liveness::Suspect => self.event(Event::NodeSuspected { node }),
            Liveness::Dead => {
                self.event(Event::NodeDown { node });
                self.close_all(key, CloseReason::Silent);
                self.dial_later(key);
            }
            Liveness::Left => {
                self.event(Event::NodeLeft { node });
                self.dial_later(key);
            }
        }
    }

    pub(super) fn announce_up(&mut self, key: &Key) {
        if let Some(node) = self.table.get(key) {
            let up = Event::NodeUp {
                node: node.id,
                incarnation: node.record.version().incarnation,
            };
            self.out.push(Out::Event(up));
        }
    }
}

/// An accusation that its author has not signed.
#[derive(Debug)]
pub(super) struct ForgedClaim;
