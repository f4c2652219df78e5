//! The connections of a node: who is at the other end, how far away, how reliable, how silent.

use std::collections::BTreeMap;
use std::time::Duration;

use openfang_id::{NetAddr, NodeId, Transport};

use super::bucket::Bucket;
use super::config::{BEATS_MISSED, BEATS_MISSED_MAX};
use super::wire::{Beat, Digest};
use super::{Connected, Key, LinkId, LinkView};
use crate::Instant;

/// The whole of a fraction in 16 bits.
pub(super) const ONE: u32 = 1 << 16;
/// Over how many heartbeats losses are averaged.
const LOSS_SAMPLES: u32 = 32;
/// How many heartbeats a link must have carried before it is trusted to be regular.
const SAMPLES_MIN: u32 = 4;
/// How many intervals a young link may be silent.
const BEATS_MISSED_YOUNG: u32 = 6;
/// The shortest and longest interval a peer may announce.
const INTERVAL_MS: (u16, u16) = (100, 2_000);
/// How many sent heartbeats are remembered to measure the round trip.
const SENT_MAX: usize = 8;
/// How many heartbeats in a row may be lost once in a million times, by the share that is lost in
/// sixteenths: ln(1e-6) / ln(share).
const BEATS_BY_LOSS: [u32; 9] = [3, 5, 7, 9, 10, 12, 14, 17, 20];

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: NodeId,
    pub(super) dialed: bool,
    pub(super) addr: Option<NetAddr>,
    pub(super) transport: Transport,
    pub(super) since: Instant,
    /// When anything last came.
    pub(super) heard: Instant,
    pub(super) silent: bool,
    /// The peer has announced that it closes this connection, and lives on.
    pub(super) parting: bool,
    pub(super) rtt_ms: Option<u32>,
    pub(super) sync: Sync,
    /// Limits new origins that the peer introduces.
    pub(super) introductions: Bucket,
    /// Limits digests and questions of the peer.
    pub(super) questions: Bucket,
    /// Limits its summaries.
    pub(super) summaries: Bucket,
    /// Limits evidence that it brings.
    pub(super) evidence: Bucket,
    /// Up to where the peer was told of accepted heads.
    pub(super) heads_mark: u64,
    beats: Beats,
}

/// What anti-entropy knows of a link.
#[derive(Debug, Default)]
pub(super) struct Sync {
    /// The peer's last root, and since when it differs from the own.
    pub(super) root: Option<Digest>,
    pub(super) differs: Option<Instant>,
    pub(super) last: Option<Instant>,
    /// Rounds in a row that brought nothing.
    pub(super) idle: u32,
}

#[derive(Debug)]
struct Beats {
    sent: u32,
    sent_at: [(u32, Instant); SENT_MAX],
    last: u32,
    last_at: Instant,
    interval_ms: u32,
    samples: u32,
    loss: u32,
    gap_ms: u32,
    spread_ms: u32,
}

impl Link {
    fn new(connected: &Connected, now: Instant, interval: Duration) -> Self {
        let interval_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        Self {
            peer: connected.peer,
            dialed: connected.dial.is_some(),
            addr: connected.addr.clone(),
            transport: connected.transport,
            since: now,
            heard: now,
            silent: false,
            parting: false,
            rtt_ms: None,
            sync: Sync::default(),
            introductions: Bucket::default(),
            questions: Bucket::default(),
            summaries: Bucket::default(),
            evidence: Bucket::default(),
            heads_mark: 0,
            beats: Beats {
                sent: 0,
                sent_at: [(0, now); SENT_MAX],
                last: 0,
                last_at: now,
                interval_ms,
                samples: 0,
                loss: 0,
                gap_ms: interval_ms,
                spread_ms: 0,
            },
        }
    }

    /// Makes the next heartbeat.
    pub(super) fn beat(
        &mut self,
        (root, hlc): (Digest, u64),
        interval: Duration,
        now: Instant,
    ) -> Beat {
        let beats = &mut self.beats;
        beats.sent = beats.sent.wrapping_add(1);
        let slot = usize::try_from(beats.sent).unwrap_or(0) % SENT_MAX;
        beats.sent_at[slot] = (beats.sent, now);
        let millis = |duration: Duration| u16::try_from(duration.as_millis()).unwrap_or(u16::MAX);
        Beat {
            counter: beats.sent,
            echo: beats.last,
            held_ms: millis(now.since(beats.last_at)),
            interval_ms: millis(interval),
            hlc,
            root,
        }
    }

    /// Takes a heartbeat of the peer.
    pub(super) fn on_beat(&mut self, beat: &Beat, now: Instant) {
        self.measure_round_trip(beat, now);
        let beats = &mut self.beats;
        // A counter that does not grow says nothing: heartbeats of one stream come in order.
        if beat.counter <= beats.last {
            return;
        }
        let missed = if beats.last == 0 {
            0
        } else {
            beat.counter - beats.last - 1
        };
        let (least, most) = INTERVAL_MS;
        beats.interval_ms = u32::from(beat.interval_ms.clamp(least, most));
        for _lost in 0..missed.min(LOSS_SAMPLES) {
            beats.sample_loss(ONE);
        }
        beats.sample_loss(0);
        if beats.last != 0 {
            beats.sample_gap(now);
        }
        beats.last = beat.counter;
        beats.last_at = now;
    }

    fn measure_round_trip(&mut self, beat: &Beat, now: Instant) {
        let sent = self
            .beats
            .sent_at
            .iter()
            .find(|(counter, _)| *counter == beat.echo);
        if let Some((_, at)) = sent.filter(|_| beat.echo != 0) {
            let held = Duration::from_millis(beat.held_ms.into());
            let rtt = now.since(*at).saturating_sub(held);
            self.rtt_ms = u32::try_from(rtt.as_millis()).ok();
        }
    }

    /// Returns the share of heartbeats that get lost, of [`ONE`].
    pub(super) fn loss(&self) -> u32 {
        self.beats.loss
    }

    /// Returns how long the link may be silent, where `loss` is what other links suffer.
    pub(super) fn patience(&self, loss: u32) -> Duration {
        let beats = &self.beats;
        let sixteenth = usize::try_from(beats.loss.max(loss) * 16 / ONE).unwrap_or(usize::MAX);
        let by_loss = BEATS_BY_LOSS.get(sixteenth).copied();
        let mut missed = by_loss.unwrap_or(BEATS_MISSED_MAX).max(BEATS_MISSED);
        if beats.samples < SAMPLES_MIN {
            missed = missed.max(BEATS_MISSED_YOUNG);
        }
        let usual = missed * beats.interval_ms;
        let irregular = beats
            .gap_ms
            .saturating_add(beats.spread_ms.saturating_mul(6));
        let longest = BEATS_MISSED_MAX * beats.interval_ms;
        Duration::from_millis(usual.max(irregular).min(longest).into())
    }

    /// Returns when the link becomes silent unless something comes.
    pub(super) fn silent_at(&self, loss: u32) -> Instant {
        self.heard + self.patience(loss)
    }

    /// Shows it, with the wall clock at its beginning.
    pub(super) fn view(&self, since_ms: u64) -> LinkView {
        LinkView {
            since_ms,
            transport: self.transport,
            addr: self.addr.clone(),
            dialed: self.dialed,
            rtt_ms: self.rtt_ms,
        }
    }
}

impl Beats {
    /// Averages: plainly over the first samples, exponentially afterwards.
    fn sample_loss(&mut self, value: u32) {
        self.samples = self.samples.saturating_add(1);
        let weight = self.samples.min(LOSS_SAMPLES);
        self.loss = (self.loss * (weight - 1) + value) / weight;
    }

    /// Averages gap and deviation as TCP does with round trips (RFC 6298).
    fn sample_gap(&mut self, now: Instant) {
        let gap = u32::try_from(now.since(self.last_at).as_millis()).unwrap_or(u32::MAX);
        let gap = gap.min(60_000);
        let off = gap.abs_diff(self.gap_ms);
        self.spread_ms = (self.spread_ms * 3 + off) / 4;
        self.gap_ms = (self.gap_ms * 7 + gap) / 8;
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, Link>,
    peers: BTreeMap<Key, Vec<LinkId>>,
    /// The median of the loss of all links, of [`ONE`].
    loss: u32,
}

impl Links {
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// Returns with how many nodes there is a connection.
    pub(super) fn peers(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn insert(&mut self, connected: &Connected, now: Instant, interval: Duration) {
        let link = Link::new(connected, now, interval);
        self.links.insert(connected.link, link);
        let of_peer = self.peers.entry(Key::of(&connected.peer)).or_default();
        of_peer.push(connected.link);
    }

    pub(super) fn remove(&mut self, id: LinkId) -> Option<Link> {
        let link = self.links.remove(&id)?;
        let key = &Key::of(&link.peer);
        if let Some(of_peer) = self.peers.get_mut(key) {
            of_peer.retain(|other| *other != id);
            if of_peer.is_empty() {
                self.peers.remove(key);
            }
        }
        Some(link)
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (LinkId, &mut Link)> {
        self.links.iter_mut().map(|(id, link)| (*id, link))
    }

    pub(super) fn ids(&self) -> Vec<LinkId> {
        self.links.keys().copied().collect()
    }

    /// Returns the connections to a node.
    pub(super) fn of_peer(&self, key: &Key) -> &[LinkId] {
        self.peers.get(key).map_or(&[], Vec::as_slice)
    }

    /// Tells whether there is a connection to a node that is not silent.
    pub(super) fn is_live(&self, key: &Key) -> bool {
        let live = |id: &LinkId| self.links.get(id).is_some_and(|link| !link.silent);
        self.of_peer(key).iter().any(live)
    }

    /// Returns the connection to keep and use of all to a node: one that is not silent; of those one
    /// that the node with the lower id has dialed; of those the newest.
    pub(super) fn best(&self, me: &NodeId, key: &Key) -> Option<LinkId> {
        let merit = |id: &LinkId| {
            let link = self.links.get(id)?;
            let lower_dialed = link.dialed == (me < &link.peer);
            Some((!link.silent, lower_dialed, link.since, *id))
        };
        let best = self.of_peer(key).iter().filter_map(merit).max();
        best.map(|(_, _, _, id)| id)
    }

    /// Returns the median of the loss of all links, as of the last [`Links::measure`].
    pub(super) fn loss(&self) -> u32 {
        self.loss
    }

    /// Takes the median of the loss of all links, the lower one of two: no single peer can feign it.
    pub(super) fn measure(&mut self) {
        let mut losses: Vec<u32> = self.links.values().map(Link::loss).collect();
        losses.sort_unstable();
        let middle = losses.len().saturating_sub(1) / 2;
        self.loss = losses.get(middle).copied().unwrap_or_default();
    }

    /// Lets a pause of this node itself not count against its peers.
    pub(super) fn excuse(&mut self, pause: Duration, now: Instant) {
        for link in self.links.values_mut() {
            link.heard = (link.heard + pause).min(now);
        }
    }
}
