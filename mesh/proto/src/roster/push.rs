//! News is passed on at once: the one who learns it first tells others, each passes it on once.
//!
//! Own news goes to every neighbour. What others said goes, the first time it is heard, to every
//! neighbour as long as there are at most 32; a node with more tells `ln N + 5` random ones, so that
//! about one in 150 is missed, and anti-entropy finds those. It waits some milliseconds for more; in
//! a storm of news it waits longer and goes to fewer, and anti-entropy finds the rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::accusation::Accusation;
use super::config::{BUSY, COALESCE, COALESCE_BUSY, FANOUT_BUSY, FANOUT_FIRST, PUSH_ALL};
use super::links::ONE;
use super::state::State;
use super::timers::Timer;
use super::wire::{self, Standing, Told};
use super::{Key, LinkId, SignedRecord};
use crate::Instant;
use crate::heads::{HeldAlarm, Proof};

/// One piece of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Own,
    Record(Key),
    Accusation { target: Key, accuser: Key },
    Alarm { accused: Key, reporter: Key },
    Proof(Key),
}

/// What is said, and who knows it: whom it came from, and who told it since.
#[derive(Debug, Clone)]
struct Piece {
    said: Said,
    known: Vec<LinkId>,
    /// Whether this node has just begun to vouch for the origin: its neighbours wait for that.
    first: bool,
}

#[derive(Debug, Clone)]
enum Said {
    /// The record as it is when it is sent.
    Record,
    Accusation(Accusation),
    Alarm(HeldAlarm),
    Proof(Proof),
}

/// What waits to be passed on.
#[derive(Debug, Default)]
pub(super) struct News {
    pieces: BTreeMap<Topic, Piece>,
    flushed: Option<Instant>,
    records: Storm,
    claims: Storm,
}

/// Tells a storm of news from a breeze. Accusations and records storm apart: where half a mesh is
/// lost, the few records that change meanwhile are to reach everyone as ever.
#[derive(Debug, Default)]
struct Storm {
    /// News of this second and of the one before, and when this second began.
    counts: (usize, usize),
    second: Instant,
}

impl Storm {
    fn count(&mut self, now: Instant) {
        let seconds = now.since(self.second).as_secs();
        if seconds > 0 {
            let before = if seconds == 1 { self.counts.0 } else { 0 };
            self.counts = (0, before);
            self.second = now;
        }
        self.counts.0 += 1;
    }

    /// Tells whether there is so much news that it matters how often each piece is sent.
    fn rages(&self, now: Instant) -> bool {
        let (this, last) = self.counts;
        let current = now.since(self.second).as_secs() == 0;
        current && this.max(last) >= BUSY
    }
}

impl State {
    pub(super) fn push_own(&mut self) {
        self.push((Topic::Own, Said::Record), None, false);
        self.flush();
    }

    /// Passes on a record; `first` when this node begins to vouch for its origin.
    pub(super) fn push_record(&mut self, key: Key, from: Option<LinkId>, first: bool) {
        self.push((Topic::Record(key), Said::Record), from, first);
    }

    pub(super) fn push_accusation(&mut self, accusation: Accusation, from: Option<LinkId>) {
        let topic = Topic::Accusation {
            target: accusation.target,
            accuser: accusation.accuser,
        };
        self.push((topic, Said::Accusation(accusation)), from, false);
    }

    pub(super) fn push_alarm(&mut self, alarm: HeldAlarm, from: Option<LinkId>) {
        let topic = Topic::Alarm {
            accused: alarm.accused,
            reporter: alarm.reporter,
        };
        self.push((topic, Said::Alarm(alarm)), from, false);
    }

    /// Passes on evidence, to the accused as well.
    pub(super) fn push_proof(&mut self, accused: Key, proof: Proof, from: Option<LinkId>) {
        self.push((Topic::Proof(accused), Said::Proof(proof)), from, false);
    }

    fn push(&mut self, (topic, said): (Topic, Said), from: Option<LinkId>, first: bool) {
        let storm = match topic {
            Topic::Own | Topic::Record(_) => &mut self.news.records,
            Topic::Accusation { .. } | Topic::Alarm { .. } | Topic::Proof(_) => {
                &mut self.news.claims
            }
        };
        storm.count(self.now);
        let pause = if storm.rages(self.now) {
            COALESCE_BUSY
        } else {
            COALESCE
        };
        let known = from.into_iter().collect();
        let before = self.news.pieces.get(&topic);
        let first = first || before.is_some_and(|piece| piece.first);
        let piece = Piece { said, known, first };
        self.news.pieces.insert(topic, piece);
        let after = self.news.flushed.map(|at| at + pause);
        let at = after.unwrap_or(self.now).max(self.now);
        self.timers.set_earlier(Timer::Flush, at);
    }

    /// Notes that a neighbour knows a record that may still wait to be told to it.
    pub(super) fn heard_from(&mut self, key: &Key, link: LinkId) {
        if let Some(piece) = self.news.pieces.get_mut(&Topic::Record(*key)) {
            piece.known.push(link);
        }
    }

    /// Notes that a neighbour knows an accusation that may still wait to be told to it.
    pub(super) fn accused_by(&mut self, accusation: &Accusation, link: LinkId) {
        let topic = Topic::Accusation {
            target: accusation.target,
            accuser: accusation.accuser,
        };
        if let Some(piece) = self.news.pieces.get_mut(&topic) {
            piece.known.push(link);
        }
    }

    /// Sends all that has gathered.
    pub(super) fn flush(&mut self) {
        self.timers.clear(Timer::Flush);
        if self.gone {
            return;
        }
        let pieces: Vec<(Topic, Piece)> =
            std::mem::take(&mut self.news.pieces).into_iter().collect();
        if pieces.is_empty() {
            return;
        }
        self.news.flushed = Some(self.now);
        let mut links = self.links.ids();
        let (many, few) = self.fanout(links.len());
        let first = links.len().min(many.max(FANOUT_FIRST));
        self.rng.choose(&mut links, first);
        // Neighbours often get the same: what was encoded for one is kept for the next.
        let mut last: (Vec<usize>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
        for (at, link) in links.into_iter().enumerate() {
            let wanted = self.wanted_by(link, &pieces, [at < many, at < few, at < first]);
            if wanted.is_empty() {
                continue;
            }
            if wanted != last.0 {
                let frames = self.encode(wanted.iter().filter_map(|at| pieces.get(*at)));
                last = (wanted, frames);
            }
            for frame in last.1.clone() {
                self.send(link, frame);
            }
        }
    }

    /// Returns to how many random neighbours records go, and to how many accusations.
    fn fanout(&self, links: usize) -> (usize, usize) {
        let nodes = self.present();
        // ln(n) is about 0.7 log2(n); one more neighbour does no harm.
        let log2 = usize::try_from(nodes.ilog2() + 1).unwrap_or(usize::MAX);
        let reliable = (log2 * 7).div_ceil(10) + 5;
        let through = ONE.saturating_sub(self.links.loss()).max(ONE / 4);
        let one = usize::try_from(ONE).unwrap_or(usize::MAX);
        let enough = |storm: &Storm| {
            let base = if storm.rages(self.now) {
                FANOUT_BUSY
            } else {
                reliable
            };
            (base * one).div_ceil(usize::try_from(through).unwrap_or(one))
        };
        let many = enough(&self.news.records);
        let many = if self.news.records.rages(self.now) {
            many
        } else if links <= PUSH_ALL {
            links
        } else {
            // A neighbour with few links hears of little where all others choose among many.
            many.max(links / 2)
        };
        (many.min(links), enough(&self.news.claims).min(links))
    }

    /// Returns which pieces go to a neighbour: own ones always, records and alarms to many,
    /// accusations to few, because each is one of several; nothing goes to those who know it, and no
    /// record to its origin.
    fn wanted_by(
        &self,
        link: LinkId,
        pieces: &[(Topic, Piece)],
        [many, few, first]: [bool; 3],
    ) -> Vec<usize> {
        let Some(peer) = self.links.get(link).map(|link| Key::of(&link.peer)) else {
            return Vec::new();
        };
        let wanted = |(topic, piece): &(Topic, Piece)| {
            let chosen = match topic {
                Topic::Own => true,
                Topic::Record(key) => (many || (first && piece.first)) && *key != peer,
                Topic::Accusation { target, .. } => few || *target == peer,
                Topic::Alarm { .. } | Topic::Proof(_) => many,
            };
            chosen && !piece.known.contains(&link)
        };
        let indexed = pieces.iter().enumerate();
        indexed
            .filter(|(_at, piece)| wanted(piece))
            .map(|(at, _piece)| at)
            .collect()
    }

    fn encode<'a>(&self, pieces: impl Iterator<Item = &'a (Topic, Piece)>) -> Vec<Vec<u8>> {
        let mut records: Vec<(Arc<SignedRecord>, Standing)> = Vec::new();
        let mut accusations = Vec::new();
        let mut alarms = Vec::new();
        let mut proofs = Vec::new();
        for (topic, piece) in pieces {
            match (&piece.said, topic) {
                (Said::Accusation(accusation), _) => accusations.push(*accusation),
                (Said::Alarm(alarm), _) => alarms.push(alarm.clone()),
                (Said::Proof(proof), Topic::Proof(accused)) => {
                    proofs.push((*accused, Proof::clone(proof)));
                }
                (Said::Proof(_), _) => {}
                (Said::Record, Topic::Record(key)) => {
                    records.extend(self.table.told(key));
                }
                (Said::Record, _own) => {
                    let own = self.table.own().cloned();
                    records.extend(own.map(|own| (own, Standing::SURE)));
                }
            }
        }
        let mut frames = Vec::new();
        let told = records.iter();
        let mut left: Vec<Told<'_>> = told
            .map(|(record, standing)| (record.as_ref(), *standing))
            .collect();
        while !left.is_empty() {
            let (frame, taken) = wire::records(&left);
            frames.push(frame);
            left.drain(..taken.max(1));
        }
        if !accusations.is_empty() {
            frames.push(wire::accusations(&accusations));
        }
        frames.extend(wire::alarms(&alarms));
        frames.extend(wire::proofs(&proofs));
        frames
    }
}
