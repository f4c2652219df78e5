//! One node of the mesh.

use std::collections::BTreeMap;
use std::time::Duration;

use openfang_audit::evidence::Evidence;

use super::bucket::Bucket;
use super::config::{
    BEAT, BEAT_LARGE, FORGET_EVERY, FULL_MESH_NODES, FULL_MESH_SLACK, PERSIST_AFTER, ROVE_MAX,
    ROVE_MIN, SYNC_EVERY, TRIM_EVERY,
};
use super::links::Links;
use super::own::Own;
use super::push::News;
use super::rng::mix;
use super::store::Equivocations;
use super::strangers::Strangers;
use super::table::Table;
use super::timers::{Timer, Timers};
use super::wire::{Digest, Frame};
use super::{
    Config, Crypto, Event, In, Key, Known, LinkId, Liveness, NodeView, Offence, Out, ProofTicket,
    Rng, SignedRecord, Start, View, wire,
};
use crate::Instant;
use crate::dial::Dialer;
use crate::heads::{Book, Convicted, HeadView};

/// How late a timer must be before it means that this node itself stood still.
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// The roster of one node: who is there, what they run, who lives. See the [module](super).
pub struct State {
    pub(super) config: Config,
    pub(super) crypto: Box<dyn Crypto>,
    pub(super) rng: Rng,
    pub(super) me: Key,
    pub(super) now: Instant,
    pub(super) started: Instant,
    pub(super) unix_ms: u64,
    pub(super) own: Own,
    pub(super) table: Table,
    pub(super) strangers: Strangers,
    pub(super) links: Links,
    pub(super) dialer: Dialer,
    pub(super) book: Book,
    pub(super) convicted: Convicted,
    /// Evidence against nodes that are not known yet, by what their names begin with.
    pub(super) unclaimed: BTreeMap<String, Evidence>,
    pub(super) timers: Timers,
    pub(super) news: News,
    pub(super) out: Vec<Out>,
    /// Whether this node keeps links to all others.
    pub(super) full: bool,
    /// Since when it does not.
    pub(super) large_since: Option<Instant>,
    /// Whether someone may have to be dialed who was not before.
    pub(super) dials_dirty: bool,
    /// Whether this node has left.
    pub(super) gone: bool,
    pub(super) tickets: BTreeMap<ProofTicket, (LinkId, u32)>,
    pub(super) ticket_numbers: u64,
    /// The last root, and what had changed until then.
    pub(super) root: Option<((u64, u64), Digest)>,
    /// Since when this node has had other neighbours than the only one that it believed.
    pub(super) company: Option<Instant>,
    /// When this node last had several neighbours.
    pub(super) accompanied: Option<Instant>,
    /// The only neighbour that it believed.
    pub(super) believed: Option<Key>,
    /// Limits dials to nodes that this one has never met.
    pub(super) unmet_dials: Bucket,
    /// Limits reports.
    pub(super) equivocations: Equivocations,
    /// The hybrid clock of the own audit log.
    pub(super) hlc: u64,
    rank_seed: u64,
}

impl State {
    /// Makes the roster of a node that has just started. The first [`State::deadline`] is `now`.
    #[must_use]
    pub fn new(config: Config, crypto: Box<dyn Crypto>, start: Start, now: Instant) -> Self {
        let mut rng = Rng::new(start.seed);
        let mut state = Self {
            me: Key::of(&config.me),
            config,
            crypto,
            now,
            started: now,
            unix_ms: start.unix_ms,
            own: Own::new(start.incarnation),
            table: Table::default(),
            strangers: Strangers::default(),
            links: Links::default(),
            dialer: Dialer::default(),
            book: Book::default(),
            convicted: Convicted::default(),
            unclaimed: BTreeMap::new(),
            timers: Timers::default(),
            news: News::default(),
            out: Vec::new(),
            full: true,
            large_since: None,
            dials_dirty: true,
            gone: false,
            tickets: BTreeMap::new(),
            ticket_numbers: 0,
            root: None,
            company: None,
            accompanied: None,
            believed: None,
            unmet_dials: Bucket::default(),
            equivocations: Equivocations::default(),
            hlc: 0,
            rank_seed: rng.bits(),
            rng,
        };
        state.timers.set(Timer::Publish, now);
        let beat = state.rng.between(Duration::ZERO, BEAT);
        state.timers.set(Timer::Beat, now + beat);
        let sync = state.rng.between(Duration::ZERO, SYNC_EVERY);
        state.timers.set(Timer::Sync, now + sync);
        state.timers.set(Timer::Trim, now + TRIM_EVERY);
        state.timers.set(Timer::Forget, now + FORGET_EVERY);
        state.rove_later();
        state.recall(start.known);
        state
    }

    /// Takes what happened, gives what is to be done, in order. `now` never goes back.
    pub fn handle(&mut self, event: In, now: Instant) -> Vec<Out> {
        self.now = self.now.max(now);
        self.excuse_pause();
        match event {
            In::Timer => {}
            In::Connected(connected) => self.on_connected(&connected),
            In::Disconnected { link } => self.on_disconnected(link),
            In::Frame { link, bytes } => self.on_frame(link, &bytes),
            In::DialFailed { dial, failures } => self.on_dial_failed(dial, &failures),
            In::SetAgents(agents) => self.set_agents(agents),
            In::SetAddrs(addrs) => self.set_addrs(addrs),
            In::AddEvidence(files) => self.add_evidence(&files),
            In::SetHead(head) => self.set_head(head),
            In::HideHead => self.hide_head(),
            In::AddBootstrap(addrs) => self.add_bootstrap(addrs),
            In::DropBootstrap(addrs) => self.drop_bootstrap(&addrs),
            In::IncarnationStored(incarnation) => self.on_incarnation_stored(incarnation),
            In::Proof { ticket, answer } => self.on_proof(ticket, answer),
            In::Leave => self.leave(),
        }
        while let Some(timer) = self.timers.pop(self.now) {
            self.on_timer(timer);
        }
        self.plan_dials();
        std::mem::take(&mut self.out)
    }

    /// Takes the hybrid clock of the own audit log, to be told with the next heartbeats; 0 tells none.
    pub fn set_hybrid(&mut self, hlc: u64) {
        self.hlc = hlc;
    }

    /// Returns when [`In::Timer`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Returns the mesh as this node sees it: itself, and every node for which there is evidence that
    /// it is there. Before the first [`In::Timer`] this node itself is
    /// missing: it has not signed a record yet.
    #[must_use]
    pub fn view(&self) -> View {
        let own = self.table.own().map(|record| NodeView {
            id: self.config.me,
            record: record.clone(),
            liveness: Liveness::Me,
            link: None,
            head: self.own_head_view(),
            convicted: self.convicted.get(&self.me),
        });
        let others = self.table.iter().map(|(key, node)| NodeView {
            id: node.id,
            record: node.record.clone(),
            liveness: node.liveness,
            link: self.link_view(key),
            head: self.book.view(key),
            convicted: self.convicted.get(key),
        });
        let mut nodes: Vec<NodeView> = own.into_iter().chain(others).collect();
        nodes.sort_by_key(|node| node.id);
        View {
            me: self.config.me,
            nodes,
        }
    }

    /// Returns the record that is held of a node, this one included.
    #[must_use]
    pub fn record(&self, node: &openfang_id::NodeId) -> Option<&SignedRecord> {
        let key = &Key::of(node);
        if *key == self.me {
            return self.table.own().map(AsRef::as_ref);
        }
        self.table.get(key).map(|node| node.record.as_ref())
    }

    /// Returns what is believed of a node; `None` for one that is not known.
    #[must_use]
    pub fn liveness(&self, node: &openfang_id::NodeId) -> Option<Liveness> {
        if Key::of(node) == self.me {
            return Some(Liveness::Me);
        }
        self.table.get(&Key::of(node)).map(|node| node.liveness)
    }

    /// Returns how many other nodes are known, whatever is believed of them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Tells whether no other node is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Returns what is to be written to disk.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            records: self
                .table
                .iter()
                .filter(|(_, node)| !node.hearsay)
                .map(|(_, node)| node.record.clone())
                .collect(),
            addrs: self.dialer.good().cloned().collect(),
            met: self
                .table
                .iter()
                .filter(|(_, node)| node.met)
                .map(|(_, node)| node.id)
                .collect(),
            logs: self.book.kept().collect(),
        }
    }

    /// Takes back what was written to disk.
    fn recall(&mut self, known: Known) {
        for log in known.logs {
            self.book.restore(log);
        }
        // What others say of the own log is kept like what they say of any other.
        if let Some(log) = self.config.log {
            self.book.pin(self.config.me, log);
        }
        let witness = self.config.cosigners.witness;
        self.book
            .set_witness_key(&Key::of(&self.config.me), witness);
        for (node, addrs) in known.addrs {
            for addr in addrs.into_iter().rev() {
                self.dialer.remember(&node, addr);
            }
        }
        for record in known.records {
            let id = record.record().origin;
            let key = Key::of(&id);
            if key == self.me || self.table.get(&key).is_some() {
                continue;
            }
            let (log, cosigners) = (record.record().log, record.record().cosigners);
            self.table.insert(record, self.rank(&key), self.now);
            self.table.set_unconfirmed(&key, Some(self.now));
            if let Some(node) = self.table.get_mut(&key) {
                node.met = known.met.contains(&id);
            }
            if let Some(log) = log {
                self.book.pin(id, log);
            }
            self.book.set_witness_key(&key, cosigners.witness);
            self.judge(&key);
        }
        self.out.clear();
        self.convict_found();
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Flush => self.flush(),
            Timer::Publish => self.on_publish_timer(),
            Timer::Refute => self.on_refute_timer(),
            Timer::Beat => self.on_beat_timer(),
            Timer::Silence => self.on_silence_timer(),
            Timer::Judge(key) => self.judge(&key),
            Timer::Dial(target) => self.on_dial_timer(target),
            Timer::Probe => self.on_probe_timer(),
            Timer::Settle(key) => self.on_settle_timer(&key),
            Timer::Sync => self.on_sync_timer(),
            Timer::Head => self.on_head_timer(),
            Timer::Proof(key) => self.ask(&key),
            Timer::Trim => self.on_trim_timer(),
            Timer::Rove => self.on_rove_timer(),
            Timer::Forget => self.on_forget_timer(),
            Timer::Persist => self.out.push(Out::Persist),
        }
    }

    fn on_frame(&mut self, id: LinkId, bytes: &[u8]) {
        let now = self.now;
        let Some(link) = self.links.get_mut(id) else {
            return;
        };
        link.heard = now;
        if std::mem::take(&mut link.silent) {
            let key = Key::of(&link.peer);
            self.on_heard_again(&key);
        }
        let Ok(frame) = Frame::decode(bytes) else {
            self.offend(id, Offence::Malformed);
            return;
        };
        match frame {
            Frame::Beat(beat) => self.on_beat(id, &beat),
            Frame::Records { more, records } => self.on_records(id, more, &records),
            Frame::Digests(digests) => self.on_digests(id, &digests),
            Frame::Summary {
                reply,
                mask,
                entries,
            } => self.on_summary(id, (reply, mask), &entries),
            Frame::Accusations(accusations) => self.on_accusations(id, &accusations),
            Frame::Heads(heads) => self.on_heads(id, &heads),
            Frame::Alarms(alarms) => self.on_alarms(id, alarms),
            Frame::Ask(question) => self.on_ask(id, question),
            Frame::Answer { id: asked, answer } => self.on_answer(id, asked, answer),
            Frame::Bye => self.on_bye(id),
            Frame::Proofs(proofs) => self.on_proofs(id, &proofs),
            Frame::Convicted { reply, nodes } => self.on_convicted(id, reply, &nodes),
        }
    }

    /// Notices that this node stood still: the machine slept, or was too busy. What its peers sent
    /// meanwhile is still on its way, so their silence is not theirs.
    fn excuse_pause(&mut self) {
        let Some(due) = self.timers.next() else {
            return;
        };
        let late = self.now.since(due);
        if late >= PAUSE_MIN {
            self.links.excuse(late, self.now);
        }
    }

    /// Says farewell to all, and falls silent.
    fn leave(&mut self) {
        if self.gone {
            return;
        }
        self.own.left = true;
        self.publish();
        self.flush();
        self.gone = true;
        for link in self.links.ids() {
            self.send(link, wire::bye());
        }
        self.timers = Timers::default();
    }

    pub(super) fn send(&mut self, link: LinkId, bytes: Vec<u8>) {
        self.out.push(Out::Send { link, bytes });
    }

    pub(super) fn event(&mut self, event: Event) {
        self.out.push(Out::Event(event));
    }

    pub(super) fn persist_soon(&mut self) {
        self.timers
            .set_earlier(Timer::Persist, self.now + PERSIST_AFTER);
    }

    /// Returns the number of nodes that are alive or suspected, this one included.
    pub(super) fn present(&self) -> usize {
        self.table.present() + 1
    }

    /// Returns the interval of heartbeats for the present size of the mesh.
    pub(super) fn beat_interval(&self) -> Duration {
        if self.present() <= FULL_MESH_NODES {
            BEAT
        } else {
            BEAT_LARGE
        }
    }

    /// Decides whether this node keeps links to all others, with some slack against flapping.
    pub(super) fn reconsider_full(&mut self) {
        let present = self.present();
        if present <= FULL_MESH_NODES {
            self.full = true;
        } else if present > FULL_MESH_NODES + FULL_MESH_SLACK && self.full {
            self.full = false;
            self.large_since = Some(self.now);
        }
    }

    pub(super) fn rove_later(&mut self) {
        let pause = self.rng.between(ROVE_MIN, ROVE_MAX);
        self.timers.set(Timer::Rove, self.now + pause);
    }

    /// Returns the place of a node among the links this node prefers: its own secret order, so that
    /// links are stable, spread evenly, and nobody can choose to be everyone's neighbour.
    pub(super) fn rank(&self, key: &Key) -> u64 {
        key.as_bytes()
            .chunks_exact(8)
            .fold(self.rank_seed, |rank, word| {
                mix(rank ^ u64::from_be_bytes(word.try_into().unwrap_or_default()))
            })
    }

    fn link_view(&self, key: &Key) -> Option<super::LinkView> {
        let best = self.links.best(&self.config.me, key)?;
        let link = self.links.get(best)?;
        Some(link.view(self.unix_ms_at(link.since)))
    }

    /// The wall clock at a moment, as it went on since this node started.
    pub(super) fn unix_ms_at(&self, moment: Instant) -> u64 {
        let since_start = moment.since(self.started).as_millis();
        self.unix_ms
            .saturating_add(u64::try_from(since_start).unwrap_or(u64::MAX))
    }

    fn own_head_view(&self) -> HeadView {
        let held = self.book.view(&self.me);
        let size = self.own.head.as_ref().map(|head| head.checkpoint.size);
        let stands = match held {
            HeadView::Reported { .. } => !self.book.has_outgrown(&self.me, size),
            HeadView::Inconsistent { .. } => true,
            HeadView::None | HeadView::Unproven { .. } | HeadView::Consistent { .. } => false,
        };
        if stands {
            return held;
        }
        match &self.own.head {
            None => HeadView::None,
            Some(head) => HeadView::Consistent {
                size: head.checkpoint.size,
                root: head.checkpoint.root,
            },
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("me", &self.config.me)
            .field("nodes", &self.table.len())
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}
