//! News is passed on at once: the one who learns it first tells others, each passes it on once.
//!
//! Own news goes to every neighbour. What others said goes, the first time it is heard, to every
//! neighbour as long as there are at most 32; a node with more tells `ln N + 5` random ones, so that
//! about one in 150 is missed, and anti-entropy finds those. It waits some milliseconds for more.

use std::sync::Arc;

use super::accusation::Accusation;
use super::config::{COALESCE, PUSH_ALL};
use super::links::ONE;
use super::state::State;
use super::timers::Timer;
use super::{Key, LinkId, SignedRecord, wire};
use crate::Instant;
use crate::heads::HeldAlarm;

/// One piece of news.
#[derive(Debug, Clone)]
enum Item {
    Record(Key),
    Own,
    Accusation(Accusation),
    Alarm(HeldAlarm),
}

/// A piece of news and whom it came from.
#[derive(Debug, Clone)]
struct Piece {
    item: Item,
    from: Option<LinkId>,
}

/// What waits to be passed on.
#[derive(Debug, Default)]
pub(super) struct News {
    pieces: Vec<Piece>,
    flushed: Option<Instant>,
}

impl State {
    pub(super) fn push_own(&mut self) {
        self.news.pieces.push(Piece {
            item: Item::Own,
            from: None,
        });
        self.flush();
    }

    pub(super) fn push_record(&mut self, key: Key, from: Option<LinkId>) {
        self.push(Item::Record(key), from);
    }

    pub(super) fn push_accusation(&mut self, accusation: Accusation, from: Option<LinkId>) {
        self.push(Item::Accusation(accusation), from);
    }

    pub(super) fn push_alarm(&mut self, alarm: HeldAlarm, from: Option<LinkId>) {
        self.push(Item::Alarm(alarm), from);
    }

    fn push(&mut self, item: Item, from: Option<LinkId>) {
        self.news.pieces.push(Piece { item, from });
        let after = self.news.flushed.map(|at| at + COALESCE);
        let at = after.unwrap_or(self.now).max(self.now);
        self.timers.set_earlier(Timer::Flush, at);
    }

    /// Sends all that has gathered.
    pub(super) fn flush(&mut self) {
        self.timers.clear(Timer::Flush);
        if self.gone {
            return;
        }
        let pieces = std::mem::take(&mut self.news.pieces);
        if pieces.is_empty() {
            return;
        }
        self.news.flushed = Some(self.now);
        let mut links = self.links.ids();
        let chosen = self.fanout().min(links.len());
        self.rng.choose(&mut links, chosen);
        // Neighbours often get the same: what was encoded for one is kept for the next.
        let mut last: (Vec<usize>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
        for (at, link) in links.into_iter().enumerate() {
            let wanted = self.wanted_by(link, &pieces, at < chosen);
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

    /// Returns to how many neighbours news of others goes: to all, unless they are very many.
    fn fanout(&self) -> usize {
        if self.links.len() <= PUSH_ALL {
            return PUSH_ALL;
        }
        let nodes = self.present();
        // ln(n) is about 0.7 log2(n); one more neighbour does no harm.
        let log2 = usize::try_from(nodes.ilog2() + 1).unwrap_or(usize::MAX);
        let fanout = (log2 * 7).div_ceil(10) + 5;
        let through = ONE.saturating_sub(self.links.loss()).max(ONE / 4);
        let one = usize::try_from(ONE).unwrap_or(usize::MAX);
        (fanout * one).div_ceil(usize::try_from(through).unwrap_or(one))
    }

    /// Returns which pieces go to a neighbour: own ones always, others when it was chosen; nothing
    /// goes back where it came from, and no record to its origin.
    fn wanted_by(&self, link: LinkId, pieces: &[Piece], chosen: bool) -> Vec<usize> {
        let Some(peer) = self.links.get(link).map(|link| *link.peer.as_bytes()) else {
            return Vec::new();
        };
        let wanted = |piece: &Piece| {
            let fresh = piece.from != Some(link);
            match &piece.item {
                Item::Own => true,
                Item::Record(key) => chosen && fresh && *key != peer,
                Item::Accusation(accusation) => fresh && (chosen || accusation.target == peer),
                Item::Alarm(_) => chosen && fresh,
            }
        };
        let indexed = pieces.iter().enumerate();
        indexed
            .filter(|(_at, piece)| wanted(piece))
            .map(|(at, _piece)| at)
            .collect()
    }

    fn encode<'a>(&self, pieces: impl Iterator<Item = &'a Piece>) -> Vec<Vec<u8>> {
        let mut records: Vec<Arc<SignedRecord>> = Vec::new();
        let mut accusations = Vec::new();
        let mut alarms = Vec::new();
        for piece in pieces {
            match &piece.item {
                Item::Own => records.extend(self.table.own().cloned()),
                Item::Record(key) => {
                    records.extend(self.table.get(key).map(|node| node.record.clone()));
                }
                Item::Accusation(accusation) => accusations.push(*accusation),
                Item::Alarm(alarm) => alarms.push(alarm.clone()),
            }
        }
        let mut frames = Vec::new();
        let mut left: Vec<&SignedRecord> = records.iter().map(AsRef::as_ref).collect();
        while !left.is_empty() {
            let (frame, taken) = wire::records(&left);
            frames.push(frame);
            left.drain(..taken.max(1));
        }
        if !accusations.is_empty() {
            frames.push(wire::accusations(&accusations));
        }
        frames.extend(wire::alarms(&alarms));
        frames
    }
}
