//! A whole run: real states, a virtual clock, a seeded network, and someone who breaks things.

use std::time::Duration;

use openfang_id::{NetAddr, PeerAddr, Transport};
use openfang_ofp::Instant;
use openfang_ofp::roster::{CloseReason, Connected, DialFailure, DialId, In, LinkId, Out, Rng};

use super::clock::Clock;
use super::invariants::{Violation, Watch, converged, linked};
use super::model::{Model, Run};
use super::net::{DIAL_TIMEOUT, Delivery, Fate, Net};
use super::probe::{Kind, Probes};
use super::scenario::{Action, Scenario};
use super::sybil::Sybil;

/// How many of the first nodes all others know at the start.
const BOOTSTRAP_NODES: usize = 3;
/// Between two looks at whether all agree.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// Between two such looks at a thousand nodes: a million pairs.
const POLL_EVERY_LARGE: Duration = Duration::from_millis(250);
/// How long after the end nodes may take to agree.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most events a machine that hangs keeps for later.
const BACKLOG_MAX: usize = 10_000;
/// Between two looks of a liar at who has not heard its lies.
const LIE_EVERY: Duration = Duration::from_millis(500);
/// How often a node may dial addresses that were made up.
const VAIN_DIALS_MAX: u64 = 64;
/// How long a process takes to end after its farewell.
const FAREWELL: Duration = Duration::from_millis(100);

/// Something that will happen.
#[derive(Debug)]
enum What {
    Timer {
        at: usize,
    },
    Frame {
        to: usize,
        link: LinkId,
        bytes: Vec<u8>,
    },
    Connected {
        at: usize,
        starts: u64,
        connected: Connected,
    },
    DialFailed {
        at: usize,
        starts: u64,
        dial: DialId,
        failures: Vec<(NetAddr, DialFailure)>,
    },
    Closed {
        at: usize,
        link: LinkId,
    },
    Stored {
        at: usize,
        starts: u64,
        incarnation: u64,
    },
    Exit {
        at: usize,
        starts: u64,
    },
    Action(Action),
    Poll,
    Lie,
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    /// Messages.
    pub(super) messages: u64,
    /// Their bytes, without any framing below.
    pub(super) bytes: u64,
}

/// Why a run failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// An invariant does not hold.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// Not everyone has learnt of a change.
    #[error("{0}")]
    Unseen(String),
}

/// A run.
#[derive(Debug)]
pub(super) struct World {
    /// What is true.
    pub(super) model: Model,
    /// What was measured.
    pub(super) probes: Probes,
    /// What must hold.
    pub(super) watch: Watch,
    /// All that was sent.
    pub(super) sent: Traffic,
    /// What was sent while nothing happened, and for how long that was.
    pub(super) quiet: (Traffic, Duration),
    /// How many events there were.
    pub(super) steps: u64,
    clock: Clock<What>,
    net: Net,
    rng: Rng,
    no_false_deaths: bool,
    backlog: Vec<(usize, What)>,
    quiet_since: Option<(Instant, Traffic)>,
    healed_at: Option<Instant>,
    joined_at: Option<Instant>,
    polling: bool,
    sybil: Option<Sybil>,
}

impl World {
    /// Makes nodes that will start as the scenario says, with `loss` of 65,536 messages lost.
    #[must_use]
    pub(super) fn new(nodes: usize, loss: u32, real_crypto: bool, mut rng: Rng) -> Self {
        let clock: Clock<What> = Clock::new();
        let now = clock.now();
        Self {
            model: Model::new(nodes, real_crypto, &mut rng, now),
            probes: Probes::default(),
            watch: Watch::new(nodes),
            sent: Traffic::default(),
            quiet: (Traffic::default(), Duration::ZERO),
            steps: 0,
            net: Net::new(nodes, loss, Rng::new(rng.seed())),
            rng,
            clock,
            no_false_deaths: false,
            backlog: Vec::new(),
            quiet_since: None,
            healed_at: None,
            joined_at: None,
            polling: false,
            sybil: None,
        }
    }

    /// Runs a scenario, and then until all agree.
    ///
    /// # Errors
    /// When an invariant does not hold, or something was never known to all.
    pub(super) fn run(&mut self, scenario: &Scenario) -> Result<(), RunError> {
        self.no_false_deaths = scenario.no_false_deaths;
        let begin = self.clock.now();
        let starts = scenario.actions.iter();
        let last_start = starts
            .take_while(|(_, action)| matches!(action, Action::Start(_)))
            .map(|(at, _)| begin + *at)
            .last();
        self.joined_at = last_start;
        for (at, action) in &scenario.actions {
            self.clock.at(begin + *at, What::Action(*action));
        }
        if let Some(at) = last_start {
            self.poll_from(at);
        }
        self.run_until(begin + scenario.length)?;
        let end = self.clock.now() + PATIENCE;
        let mut last = converged(&self.model);
        while last.is_err() && self.clock.now() < end {
            self.run_until(self.clock.now() + self.poll_every())?;
            last = converged(&self.model);
        }
        last?;
        self.check_lies()?;
        match self.probes.unseen().next() {
            None => Ok(()),
            Some(unseen) => Err(RunError::Unseen(unseen)),
        }
    }

    /// Returns how much simulated time has passed.
    #[must_use]
    pub(super) fn elapsed(&self) -> Duration {
        self.clock.now().since(Clock::<What>::new().now())
    }

    fn run_until(&mut self, end: Instant) -> Result<(), Violation> {
        while let Some(what) = self.clock.next_until(end) {
            self.steps += 1;
            self.step(what)?;
        }
        Ok(())
    }

    fn step(&mut self, what: What) -> Result<(), Violation> {
        if let Some(at) = self.hung_target(&what) {
            if self.backlog.len() < BACKLOG_MAX {
                self.backlog.push((at, what));
            }
            return Ok(());
        }
        match what {
            What::Timer { at } => self.on_timer(at),
            What::Frame { to, link, bytes } => self.on_frame(to, link, bytes),
            What::Connected {
                at,
                starts,
                connected,
            } => self.on_connected(at, starts, connected),
            What::DialFailed {
                at,
                starts,
                dial,
                failures,
            } => self.tell_run(at, starts, In::DialFailed { dial, failures }),
            What::Closed { at, link } => self.on_closed(at, link),
            What::Stored {
                at,
                starts,
                incarnation,
            } => self.tell_run(at, starts, In::IncarnationStored(incarnation)),
            What::Exit { at, starts } => {
                if self.model.nodes[at].starts == starts {
                    self.stop(at);
                }
                Ok(())
            }
            What::Action(action) => self.act(action),
            What::Poll => {
                self.poll();
                Ok(())
            }
            What::Lie => {
                self.lie();
                Ok(())
            }
        }
    }

    /// Returns the node that something would happen to, if its machine hangs.
    fn hung_target(&self, what: &What) -> Option<usize> {
        let at = match what {
            What::Timer { at }
            | What::Connected { at, .. }
            | What::DialFailed { at, .. }
            | What::Closed { at, .. }
            | What::Stored { at, .. }
            | What::Exit { at, .. } => *at,
            What::Frame { to, .. } => *to,
            What::Action(_) | What::Poll | What::Lie => return None,
        };
        (self.model.nodes[at].run == Run::Hung).then_some(at)
    }

    fn on_timer(&mut self, at: usize) -> Result<(), Violation> {
        let now = self.clock.now();
        let node = &mut self.model.nodes[at];
        if node.armed != Some(now) {
            return Ok(());
        }
        node.armed = None;
        self.tell(at, In::Timer)
    }

    fn on_frame(&mut self, to: usize, link: LinkId, bytes: Vec<u8>) -> Result<(), Violation> {
        if self.net.is_open(link, to) {
            return self.tell(to, In::Frame { link, bytes });
        }
        // The machine answers for a connection it does not have.
        if let Fate::Arrives(from, arrival) = self.net.reset(link, to, self.clock.now()) {
            self.clock.at(arrival, What::Closed { at: from, link });
        }
        Ok(())
    }

    fn on_connected(
        &mut self,
        at: usize,
        starts: u64,
        connected: Connected,
    ) -> Result<(), Violation> {
        let link = connected.link;
        let node = &self.model.nodes[at];
        let gone = node.state.is_none() || node.starts != starts;
        if gone || !self.net.is_open(link, at) {
            self.close(link, at);
            return Ok(());
        }
        self.tell(at, In::Connected(connected))
    }

    fn on_closed(&mut self, at: usize, link: LinkId) -> Result<(), Violation> {
        if !self.net.is_open(link, at) {
            return Ok(());
        }
        self.net.forget(link, at);
        self.tell(at, In::Disconnected { link })
    }

    /// Tells a node something that is meant for one run of it.
    fn tell_run(&mut self, at: usize, starts: u64, event: In) -> Result<(), Violation> {
        if self.model.nodes[at].starts == starts {
            self.tell(at, event)
        } else {
            Ok(())
        }
    }

    /// Tells a node what happened, and does what it wants done.
    fn tell(&mut self, at: usize, event: In) -> Result<(), Violation> {
        let now = self.clock.now();
        let Some(state) = self.model.nodes[at].state.as_mut() else {
            return Ok(());
        };
        let outs = state.handle(event, now);
        let deadline = state.deadline();
        let mut outs = outs.into_iter().peekable();
        while let Some(out) = outs.next() {
            let delivery = match (&out, outs.peek()) {
                (Out::Send { link, .. }, Some(next)) if is_orderly_end(next, *link) => {
                    Delivery::Flushed
                }
                _ => Delivery::Lossy,
            };
            self.carry_out(at, out, delivery)?;
        }
        let node = &mut self.model.nodes[at];
        if let Some(due) = deadline
            && node.armed.is_none_or(|armed| armed > due)
        {
            let due = due.max(now);
            node.armed = Some(due);
            self.clock.at(due, What::Timer { at });
        }
        Ok(())
    }

    fn carry_out(&mut self, at: usize, out: Out, delivery: Delivery) -> Result<(), Violation> {
        let now = self.clock.now();
        match out {
            Out::Send { link, bytes } => self.send(at, (link, bytes), delivery),
            Out::Dial { dial, addrs } => self.dial(at, dial, &addrs),
            Out::Close { link, .. } => self.close(link, at),
            Out::StoreIncarnation(incarnation) => {
                let node = &mut self.model.nodes[at];
                node.store_incarnation(incarnation);
                let starts = node.starts;
                let stored = What::Stored {
                    at,
                    starts,
                    incarnation,
                };
                self.clock.after(Duration::from_millis(5), stored);
            }
            Out::Persist => self.model.nodes[at].persist(),
            Out::Prove { .. } | Out::Hybrid { .. } => {}
            Out::Event(event) => {
                self.probes.on_event(&self.model, at, &event, now);
                let checked = self.watch.check(&self.model, at, &event, now);
                match checked {
                    Err(Violation::FalseDeath { .. }) if !self.no_false_deaths => {}
                    checked => checked?,
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, from: usize, (link, bytes): (LinkId, Vec<u8>), delivery: Delivery) {
        self.sent.messages += 1;
        self.sent.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if let Fate::Arrives(to, arrival) = self.net.send(link, from, delivery, self.clock.now()) {
            self.clock.at(arrival, What::Frame { to, link, bytes });
        }
    }

    fn close(&mut self, link: LinkId, at: usize) {
        if let Fate::Arrives(to, arrival) = self.net.close(link, at, self.clock.now()) {
            self.clock.at(arrival, What::Closed { at: to, link });
        }
    }

    fn dial(&mut self, at: usize, dial: DialId, addrs: &[PeerAddr]) {
        let now = self.clock.now();
        if let Some(sybil) = &mut self.sybil {
            addrs.iter().for_each(|addr| sybil.on_dial(at, &addr.addr));
        }
        let found = addrs
            .iter()
            .find_map(|addr| Some((addr, self.model.listener(&addr.addr)?)));
        let Some((addr, to)) = found else {
            self.fail(at, dial, (addrs, DialFailure::Unreachable), DIAL_TIMEOUT);
            return;
        };
        let round_trip = self.net.latency() + self.net.latency();
        let target = &self.model.nodes[to];
        let failure = match target.run {
            _any if to == at => Some((DialFailure::Itself, round_trip)),
            _any if !self.net.reaches(at, to) => Some((DialFailure::Timeout, DIAL_TIMEOUT)),
            Run::New | Run::Killed | Run::Left => Some((DialFailure::Refused, round_trip)),
            Run::Hung => Some((DialFailure::Timeout, DIAL_TIMEOUT)),
            Run::Up => None,
        };
        if let Some((failure, after)) = failure {
            self.fail(at, dial, (addrs, failure), after);
            return;
        }
        let (link, admitted, accepted) = self.net.connect(at, to, now);
        let end = |peer, dial, addr| Connected {
            peer,
            link,
            dial,
            addr,
            transport: Transport::Quic,
        };
        let here = &self.model.nodes[at];
        let there = &self.model.nodes[to];
        let dialer = What::Connected {
            at,
            starts: here.starts,
            connected: end(there.id, Some(dial), Some(addr.addr.clone())),
        };
        let acceptor = What::Connected {
            at: to,
            starts: there.starts,
            connected: end(here.id, None, None),
        };
        self.clock.at(admitted, dialer);
        self.clock.at(accepted, acceptor);
    }

    fn fail(
        &mut self,
        at: usize,
        dial: DialId,
        (addrs, failure): (&[PeerAddr], DialFailure),
        after: Duration,
    ) {
        let failures = addrs.iter().map(|addr| (addr.addr.clone(), failure));
        let failed = What::DialFailed {
            at,
            starts: self.model.nodes[at].starts,
            dial,
            failures: failures.collect(),
        };
        self.clock.after(after, failed);
    }

    fn act(&mut self, action: Action) -> Result<(), Violation> {
        match action {
            Action::Start(at) => self.start(at),
            Action::Spawn(at) => self.spawn(at),
            Action::Kill(at) => {
                self.kill(at);
                Ok(())
            }
            Action::LoseDisk(at) => {
                self.kill(at);
                self.model.nodes[at].lose_disk();
                Ok(())
            }
            Action::Hang(at) => {
                self.hang(at);
                Ok(())
            }
            Action::Resume(at) => self.resume(at),
            Action::Leave(at) => self.leave(at),
            Action::Partition(below) => {
                for at in 0..below {
                    self.net.set_side(at, 1);
                }
                self.disturb_all();
                Ok(())
            }
            Action::MakeUp(at, count) => {
                self.make_up(at, count);
                Ok(())
            }
            Action::Heal => {
                self.net.heal();
                self.disturb_all();
                self.healed_at = Some(self.clock.now());
                self.poll_from(self.clock.now());
                Ok(())
            }
            Action::QuietBegins => {
                self.quiet_since = Some((self.clock.now(), self.sent));
                Ok(())
            }
            Action::QuietEnds => {
                self.end_quiet();
                Ok(())
            }
        }
    }

    fn start(&mut self, at: usize) -> Result<(), Violation> {
        let now = self.clock.now();
        let node = &mut self.model.nodes[at];
        if matches!(node.run, Run::Up | Run::Hung) {
            return Ok(());
        }
        self.probes.drop_of(&node.id);
        self.watch.restarted(at);
        self.model.start(at, self.rng.seed(), now);
        let bootstrap = (0..BOOTSTRAP_NODES.min(self.model.nodes.len()))
            .filter(|other| *other != at)
            .map(|other| PeerAddr {
                addr: self.model.nodes[other].addr.clone(),
                node: None,
            });
        let bootstrap = bootstrap.collect();
        let node = &self.model.nodes[at];
        let (addrs, agents) = (vec![node.addr.clone()], node.agents.clone());
        self.tell(at, In::SetAddrs(addrs))?;
        self.tell(at, In::SetAgents(agents))?;
        self.tell(at, In::AddBootstrap(bootstrap))
    }

    fn spawn(&mut self, at: usize) -> Result<(), Violation> {
        let node = &mut self.model.nodes[at];
        if node.run != Run::Up {
            return Ok(());
        }
        let mut random = [0; 16];
        random[..8].copy_from_slice(&self.rng.bits().to_be_bytes());
        random[8..].copy_from_slice(&self.rng.bits().to_be_bytes());
        let event = node.spawn(random);
        let kind = Kind::Spawn(node.agents.len());
        // While the mesh is parted nobody can know everything.
        if (0..self.model.nodes.len()).all(|other| self.net.reaches(at, other)) {
            self.probes.start(kind, at, &self.model, self.clock.now());
        }
        self.tell(at, event)
    }

    fn kill(&mut self, at: usize) {
        if self.model.nodes[at].run != Run::Up {
            return;
        }
        self.model.nodes[at].run = Run::Killed;
        self.stop(at);
        let now = self.clock.now();
        self.probes.start(Kind::Kill, at, &self.model, now);
    }

    /// Ends a process; its machine closes its connections.
    fn stop(&mut self, at: usize) {
        self.model.nodes[at].state = None;
        for link in self.net.links_of(at) {
            self.close(link, at);
        }
        self.probes.excuse(at, self.clock.now());
    }

    fn hang(&mut self, at: usize) {
        let node = &mut self.model.nodes[at];
        if node.run != Run::Up {
            return;
        }
        node.run = Run::Hung;
        let now = self.clock.now();
        self.probes.excuse(at, now);
        self.probes.start(Kind::Silence, at, &self.model, now);
    }

    fn resume(&mut self, at: usize) -> Result<(), Violation> {
        let now = self.clock.now();
        let node = &mut self.model.nodes[at];
        if node.run != Run::Hung {
            return Ok(());
        }
        node.run = Run::Up;
        node.steady_since = now;
        node.armed = None;
        self.probes.drop_of(&node.id);
        // What came meanwhile waits in the machine's buffers.
        let (late, still): (Vec<_>, Vec<_>) = std::mem::take(&mut self.backlog)
            .into_iter()
            .partition(|(of, _what)| *of == at);
        self.backlog = still;
        for (_at, what) in late {
            self.step(what)?;
        }
        self.tell(at, In::Timer)
    }

    fn leave(&mut self, at: usize) -> Result<(), Violation> {
        if self.model.nodes[at].run != Run::Up {
            return Ok(());
        }
        self.tell(at, In::Leave)?;
        let node = &mut self.model.nodes[at];
        node.run = Run::Left;
        let starts = node.starts;
        self.probes.excuse(at, self.clock.now());
        self.clock.after(FAREWELL, What::Exit { at, starts });
        Ok(())
    }

    /// A member makes up nodes, and tells everyone from now on.
    fn make_up(&mut self, at: usize, count: usize) {
        let real_crypto = self.model.real_crypto();
        let before = self.sybil.is_some();
        let sybil = self.sybil.get_or_insert_with(|| Sybil::new(at));
        sybil.make_up(count, real_crypto, &mut self.rng);
        if !before {
            self.clock.at(self.clock.now(), What::Lie);
        }
    }

    fn lie(&mut self) {
        let now = self.clock.now();
        self.clock.after(LIE_EVERY, What::Lie);
        let Some(sybil) = &mut self.sybil else {
            return;
        };
        let from = sybil.at;
        for (link, bytes) in sybil.says(&self.net.links_of(from), now) {
            if let Fate::Arrives(to, arrival) = self.net.send(link, from, Delivery::Lossy, now) {
                self.clock.at(arrival, What::Frame { to, link, bytes });
            }
        }
    }

    /// Checks what a lie must not have done.
    fn check_lies(&self) -> Result<(), Violation> {
        let Some(sybil) = &self.sybil else {
            return Ok(());
        };
        let worst = sybil.dials.iter().max_by_key(|(_, dials)| **dials);
        if let Some((at, dials)) = worst.filter(|(_, dials)| **dials > VAIN_DIALS_MAX) {
            let (at, dials) = (*at, *dials);
            return Err(Violation::DialsInVain { at, dials });
        }
        linked(&self.model)
    }

    /// Returns how often at most one node has dialed made-up addresses.
    #[must_use]
    pub(super) fn vain_dials(&self) -> Option<u64> {
        let sybil = self.sybil.as_ref()?;
        Some(sybil.dials.values().copied().max().unwrap_or(0))
    }

    fn disturb_all(&mut self) {
        let now = self.clock.now();
        for node in &mut self.model.nodes {
            node.steady_since = now;
        }
    }

    fn end_quiet(&mut self) {
        if let Some((since, before)) = self.quiet_since.take() {
            let sent = Traffic {
                messages: self.sent.messages - before.messages,
                bytes: self.sent.bytes - before.bytes,
            };
            self.quiet = (sent, self.clock.now().since(since));
        }
    }

    fn poll_every(&self) -> Duration {
        if self.model.nodes.len() > 200 {
            POLL_EVERY_LARGE
        } else {
            POLL_EVERY
        }
    }

    fn poll_from(&mut self, at: Instant) {
        if !std::mem::replace(&mut self.polling, true) {
            self.clock.at(at, What::Poll);
        }
    }

    /// Looks whether all agree, after a heal or the first start.
    fn poll(&mut self) {
        let now = self.clock.now();
        self.polling = false;
        if self.healed_at.is_none() && self.joined_at.is_none() {
            return;
        }
        if converged(&self.model).is_err() {
            self.poll_from(now + self.poll_every());
            return;
        }
        if let Some(at) = self.healed_at.take() {
            self.probes.heal.push(now.0 - at.0);
        }
        if let Some(at) = self.joined_at.take() {
            self.probes.join = Some(now.0 - at.0);
        }
    }
}

/// Tells whether a link is ended in the way that lets its last message through.
fn is_orderly_end(out: &Out, of: LinkId) -> bool {
    let why = CloseReason::Surplus;
    *out == Out::Close { link: of, why }
}
