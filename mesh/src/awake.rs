//! The mesh while it is on: the swarm, the roster, and the links between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::Swarm;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use openfang_audit::{Hash, SignedHead};
use openfang_id::{Host as AddrHost, NetAddr, NodeId, PeerAddr, SharedSecret};
use openfang_ofp::gate::{Epoch, Secrets};
use openfang_ofp::heads::CannotProve;
use openfang_ofp::roster::{AgentAd, DialId, Ed25519, In, LinkId, ProofTicket, Start, State, View};
use tokio::sync::mpsc;
use tokio::task::{JoinError as TaskError, JoinSet};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::behaviour::{self, Behaviour};
use crate::dialer::Dialer;
use crate::driver::{Base, roster_config};
use crate::joins::{Before, Join, JoinReply};
use crate::links::{self, Link};
use crate::mesh::Status;
use crate::server::{self, Service};
use crate::transport::Keeper;
use crate::{JoinError, Joined, Joining, StartError, swarm};
use crate::{exchange, handler};

/// Sync messages of all peers that wait for the roster; a reader that finds no room waits.
const INBOUND: usize = 256;
/// How often what changes all the time, round trips above all, is shown at most.
const SHOW_EVERY: Duration = Duration::from_millis(250);
/// At most one dial a node in so long is made for a call; the roster dials on its own besides.
const CONNECT_EVERY: Duration = Duration::from_secs(1);

/// The mesh while it is on.
pub(crate) struct Awake {
    pub(crate) base: Arc<Base>,
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) state: State,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) service: Arc<Service>,
    pub(crate) dialer: Dialer,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) by_connection: BTreeMap<ConnectionId, LinkId>,
    pub(crate) links_made: u64,
    pub(crate) joins: Vec<Join>,
    pub(crate) listening: BTreeSet<NetAddr>,
    pub(crate) tasks: JoinSet<Done>,
    pub(crate) connections: TaskTracker,
    pub(crate) from_links: mpsc::Sender<links::Inbound>,
    pub(crate) storing: bool,
    pub(crate) to_store: bool,
    pub(crate) refusals: swarm::Refusals,
    pub(crate) leaving: bool,
    inbound: mpsc::Receiver<links::Inbound>,
    secret: (Epoch, SharedSecret),
    connects: BTreeMap<NodeId, Instant>,
    connects_made: u64,
    changed: bool,
    stale: bool,
    shown_at: Instant,
}

/// What a task of this mesh has done.
pub(crate) enum Done {
    /// A link's reader or writer ended.
    Link(links::Ended),
    /// The node's log has answered.
    Proof(ProofTicket, Result<Vec<Hash>, CannotProve>),
    /// The roster is on disk, or not.
    Stored(std::io::Result<()>),
    /// The incarnation is on disk, or not.
    Incarnation(u64, std::io::Result<()>),
    /// A connection is no longer used.
    Retired(ConnectionId),
    /// Nothing to report.
    Nothing,
}

/// One thing that happened.
#[expect(
    clippy::large_enum_variant,
    reason = "lives on the stack of one turn; boxing would allocate for every event"
)]
enum Turn {
    Swarm(SwarmEvent<behaviour::Event>),
    Message(links::Inbound),
    Done(Result<Done, TaskError>),
    Time,
}

impl Awake {
    /// Binds the ports and starts the roster.
    pub(crate) async fn start(
        base: Arc<Base>,
        start: Start,
        secret: (Epoch, SharedSecret),
    ) -> Result<Self, StartError> {
        let keeper = Keeper::new(
            base.config.keys.node_id(),
            Secrets::new(secret.0, &secret.1),
        );
        let (calls, inbound_calls) = mpsc::channel(server::INBOUND_QUEUE);
        let (exchanges, inbound_exchanges) = mpsc::channel(exchange::INBOUND_QUEUE);
        let streams = handler::Inbound { calls, exchanges };
        let connections = TaskTracker::new();
        let (swarm, listening, early) =
            swarm::bind(&base.config, &keeper, streams, connections.clone()).await?;
        let crypto = Box::new(Ed25519(base.config.keys.identity.clone()));
        let state = State::new(roster_config(&base.config), crypto, start, base.clock.now());
        let service = Service::new(Arc::clone(&base.host), base.clock, &base.config.limits);
        let mut tasks = JoinSet::new();
        let served = server::serve(Arc::clone(&service), inbound_calls);
        tasks.spawn(async move {
            served.await;
            Done::Nothing
        });
        let answered = exchange::serve(Arc::clone(&base.host), inbound_exchanges);
        tasks.spawn(async move {
            answered.await;
            Done::Nothing
        });
        let (from_links, inbound) = mpsc::channel(INBOUND);
        base.tell.secret.send_replace(Some(secret.clone()));
        let mut awake = Self {
            base,
            swarm,
            state,
            keeper,
            service,
            dialer: Dialer::default(),
            links: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            links_made: 0,
            joins: Vec::new(),
            listening,
            tasks,
            connections,
            from_links,
            storing: false,
            to_store: false,
            refusals: swarm::Refusals::default(),
            leaving: false,
            inbound,
            secret,
            connects: BTreeMap::new(),
            connects_made: 0,
            changed: true,
            stale: false,
            shown_at: Instant::now(),
        };
        awake.on_listening();
        let bootstrap = awake.base.config.bootstrap.clone();
        awake.tell_roster(In::AddBootstrap(bootstrap));
        for event in early {
            awake.on_swarm_event(event);
        }
        Ok(awake)
    }

    /// Waits for one thing to happen and deals with it. Cancel-safe: what was not dealt with waits.
    pub(crate) async fn turn(&mut self) {
        let wake_at = self.wake_at();
        let turn = tokio::select! {
            event = self.swarm.select_next_some() => Turn::Swarm(event),
            Some(message) = self.inbound.recv() => Turn::Message(message),
            Some(done) = self.tasks.join_next() => Turn::Done(done),
            () = tokio::time::sleep_until(wake_at) => Turn::Time,
        };
        match turn {
            Turn::Swarm(event) => self.on_swarm_event(event),
            Turn::Message(links::Inbound { link, bytes, place }) => {
                if self.links.contains_key(&link) {
                    self.tell_roster(In::Frame { link, bytes });
                }
                drop(place);
            }
            Turn::Done(Ok(done)) => self.on_done(done),
            Turn::Done(Err(panicked)) => {
                tracing::error!(error = %panicked, "a task of the mesh panicked");
            }
            Turn::Time => self.on_time(),
        }
    }

    fn wake_at(&self) -> Instant {
        let roster = self.state.deadline().map(|at| self.base.clock.at(at));
        let shown = self.stale.then(|| self.shown_at + SHOW_EVERY);
        let joins = self.joins.iter().map(Join::deadline).min();
        let times = [roster, shown, joins, self.dialer.deadline()];
        let next = times.into_iter().flatten().min();
        next.unwrap_or_else(|| Instant::now() + Duration::from_secs(60))
    }

    fn on_time(&mut self) {
        let now = self.base.clock.now();
        if self.state.deadline().is_some_and(|at| at <= now) {
            self.tell_roster(In::Timer);
        }
        for progress in self.dialer.on_timer(&mut self.swarm) {
            self.on_dial_progress(progress);
        }
    }

    /// Gives the roster an event and carries out what it wants.
    pub(crate) fn tell_roster(&mut self, event: In) {
        self.state.set_hybrid(self.base.host.hybrid());
        let outs = self.state.handle(event, self.base.clock.now());
        self.stale = true;
        for out in outs {
            self.carry_out(out);
        }
    }

    /// The view has changed in a way that others wait for.
    pub(crate) fn mark_changed(&mut self) {
        self.changed = true;
    }

    /// Shows the view when there is something new.
    pub(crate) fn publish(&mut self) {
        let now = Instant::now();
        let due = self.stale && now >= self.shown_at + SHOW_EVERY;
        if !self.changed && !due {
            return;
        }
        (self.changed, self.stale, self.shown_at) = (false, false, now);
        let view = self.state.view();
        for join in std::mem::take(&mut self.joins) {
            match linked(&view, &join) {
                Some(joined) => join.succeed(joined),
                None => self.joins.push(join),
            }
        }
        self.swarm
            .behaviour_mut()
            .admission_mut()
            .set_known(known_ips(&view));
        self.base.tell.view.send_if_modified(|shown| {
            let differs = **shown != view;
            if differs {
                *shown = Arc::new(view);
            }
            differs
        });
    }

    pub(crate) fn set_agents(&mut self, agents: Vec<AgentAd>) {
        self.tell_roster(In::SetAgents(agents));
        self.mark_changed();
    }

    pub(crate) fn set_head(&mut self, head: Option<SignedHead>) {
        self.tell_roster(head.map_or(In::HideHead, In::SetHead));
    }

    /// The addresses this node listens on have changed.
    pub(crate) fn on_listening(&mut self) {
        let listen: Vec<NetAddr> = self.listening.iter().cloned().collect();
        let reachable = crate::addrs::reachable(&listen);
        self.tell_roster(In::SetAddrs(reachable.clone()));
        self.mark_changed();
        self.base
            .tell
            .status
            .send_replace(Status::Awake { listen, reachable });
    }

    /// Dials a node for a call, unless that was done a moment ago.
    pub(crate) fn connect(&mut self, node: NodeId) {
        let now = Instant::now();
        let recently = |at: &Instant| now < *at + CONNECT_EVERY;
        if self.connects.get(&node).is_some_and(recently) {
            return;
        }
        self.connects.retain(|_, at| recently(at));
        self.connects.insert(node, now);
        let view = self.state.view();
        let Some(known) = view.node(&node) else {
            return;
        };
        let addrs: Vec<PeerAddr> = (known.record.record().addrs.iter())
            .map(|addr| PeerAddr {
                addr: addr.clone(),
                node: Some(node),
            })
            .collect();
        if addrs.is_empty() {
            return;
        }
        // Counted down from the top: the roster counts its dials up from zero.
        self.connects_made += 1;
        let dial = DialId(u64::MAX - self.connects_made);
        let progress = self.dialer.start(&mut self.swarm, dial, addrs);
        self.on_dial_progress(progress);
    }

    /// Takes another secret, when nobody is connected with the present one. Returns the present one
    /// when it was another.
    pub(crate) fn change_secret(
        &mut self,
        secret: (Epoch, SharedSecret),
    ) -> Result<Option<(Epoch, SharedSecret)>, JoinError> {
        let same = self.secret.0 == secret.0 && self.secret.1.expose() == secret.1.expose();
        if same {
            return Ok(None);
        }
        if !self.links.is_empty() {
            return Err(JoinError::OtherNetwork);
        }
        Ok(Some(self.use_secret(secret)))
    }

    fn use_secret(&mut self, secret: (Epoch, SharedSecret)) -> (Epoch, SharedSecret) {
        self.keeper.set_secrets(Secrets::new(secret.0, &secret.1));
        self.base.tell.secret.send_replace(Some(secret.clone()));
        std::mem::replace(&mut self.secret, secret)
    }

    /// Begins a join.
    pub(crate) fn join(
        &mut self,
        addrs: Vec<PeerAddr>,
        reply: (JoinReply, Joining),
        before: Before,
    ) {
        let join = Join::new(addrs.clone(), reply, before);
        if let Some(joined) = linked(&self.state.view(), &join) {
            return join.succeed(joined);
        }
        self.joins.push(join);
        self.tell_roster(In::AddBootstrap(addrs));
    }

    /// A connection stands: ends the joins it answers.
    pub(crate) fn on_joined(&mut self, joined: &Joined) {
        for join in std::mem::take(&mut self.joins) {
            match join.matching(joined).cloned() {
                Some(asked) => join.succeed(Joined {
                    addr: asked,
                    ..joined.clone()
                }),
                None => self.joins.push(join),
            }
        }
    }

    /// Takes out the joins that have failed and undoes them. Says whether the mesh is to sleep again;
    /// the joins are to be answered after that.
    pub(crate) fn failed_joins(&mut self) -> (Vec<Join>, bool) {
        let now = Instant::now();
        let (over, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.joins)
            .into_iter()
            .partition(|join| join.is_over(now));
        self.joins = waiting;
        let mut sleep = false;
        for join in &over {
            let kept = &self.base.config.bootstrap;
            let forget: Vec<NetAddr> = join
                .addrs()
                .filter(|addr| !kept.contains(addr))
                .map(|addr| addr.addr.clone())
                .collect();
            match &join.before {
                Before::Asleep => sleep = self.links.is_empty() && self.joins.is_empty(),
                Before::Awake(Some(secret)) if self.links.is_empty() => {
                    self.use_secret(secret.clone());
                }
                Before::Awake(_) => {}
            }
            self.tell_roster(In::DropBootstrap(forget));
        }
        (over, sleep)
    }

    /// Leaves the mesh and ends everything. In order: take no more calls, let running calls end, say
    /// farewell, write what is queued, close the connections, store the roster, end the tasks. The
    /// farewell comes after the calls because the others close their connections when they hear it.
    pub(crate) async fn leave(mut self: Box<Self>, grace: Duration) {
        let service = Arc::clone(&self.service);
        self.leaving = true;
        let busy = service.is_busy();
        let drained = service.drain(grace);
        self.run_until(drained).await;
        if busy {
            // A connection that ends takes with it what the other end has received and not yet read.
            self.run_until(tokio::time::sleep(READ_GRACE)).await;
        }
        self.tell_roster(In::Leave);
        self.publish();
        self.base.peers.retire().await;
        for link in self.links.values_mut() {
            link.finish();
        }
        let until = Instant::now() + FLUSH_TIMEOUT;
        while self.links.values().any(Link::is_writing) && Instant::now() < until {
            self.run_until(tokio::time::sleep(FLUSH_POLL)).await;
        }
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            crate::ignore_gone(self.swarm.disconnect_peer_id(peer));
        }
        let connections = self.connections.clone();
        connections.close();
        let closed = tokio::time::timeout(FLUSH_TIMEOUT, connections.wait());
        self.run_until(async { crate::ignore_gone(closed.await) })
            .await;
        if let Err(why) = self.base.disk.store_known(&self.state.known()) {
            tracing::warn!(error = %why, "the roster could not be stored");
        }
        self.tasks.shutdown().await;
    }

    /// Goes on with everything else while something is waited for.
    async fn run_until(&mut self, done: impl Future<Output = ()>) {
        let mut done = std::pin::pin!(done);
        loop {
            tokio::select! {
                () = &mut done => return,
                () = self.turn() => {}
            }
        }
    }
}

/// How long callers have to read the last answers before their connections are closed.
const READ_GRACE: Duration = Duration::from_millis(250);
/// How long the last messages may take to be written, and connections to be closed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is looked whether they are.
const FLUSH_POLL: Duration = Duration::from_millis(5);

/// Finds the member that a join has asked for among those that are connected: by its id, by the
/// address of the connection, or by an address it announces.
fn linked(view: &View, join: &Join) -> Option<Joined> {
    view.nodes.iter().find_map(|node| {
        let link = node.link.as_ref()?;
        let asked = join.addrs().find(|asked| {
            let announced = || node.record.record().addrs.contains(&asked.addr);
            match asked.node {
                Some(expected) => expected == node.id,
                None => link.addr.as_ref() == Some(&asked.addr) || announced(),
            }
        })?;
        Some(Joined {
            node: node.id,
            transport: link.transport,
            addr: asked.clone(),
        })
    })
}

/// Returns the addresses of members, whose connections have places of their own.
fn known_ips(view: &View) -> BTreeSet<std::net::IpAddr> {
    let addrs = view.nodes.iter().flat_map(|node| {
        let linked = node.link.iter().filter_map(|link| link.addr.as_ref());
        node.record.record().addrs.iter().chain(linked)
    });
    addrs
        .filter_map(|addr| match &addr.host {
            AddrHost::Ip(ip) => Some(*ip),
            AddrHost::Name(_) => None,
        })
        .collect()
}
