//! The answering side: one task for every call substream a peer opens.
//!
//! The task reads a request, lets the [`Host`] run it, and writes what comes back, everything that is
//! ready in one write. Every frame is kept in the dedupe window as well. When the connection breaks the
//! task runs the call to its end all the same; a retry on another substream finds the call in the
//! window and is given the same frames.

mod session;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use libp2p::swarm::Stream;
use openfang_id::NodeId;
use openfang_ofp::call::{Failure, Frame};
use openfang_ofp::dedupe::{Key, Window};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::{Host, ShortId};
use session::Session;

/// Call substreams that were opened and not yet taken by the server.
pub(crate) const INBOUND_QUEUE: usize = 256;
/// How much is read at once.
const READ_BYTES: usize = 8 * 1024;
/// How long a cancelled run may take to end; then it is dropped.
const CANCEL_GRACE: Duration = Duration::from_secs(2);
/// What a peer is told when it has too many calls here.
const RETRY_AFTER_MS: u32 = 50;
/// Peers whose use is remembered. Beyond it those that use nothing are forgotten: their rate has
/// recovered within a second.
const LOADS_MAX: usize = 4_096;

/// A call substream a peer has opened.
#[derive(Debug)]
pub(crate) struct InboundCall {
    pub(crate) peer: NodeId,
    pub(crate) stream: Stream,
}

/// What all substreams share.
pub(crate) struct Service {
    host: Arc<dyn Host>,
    clock: Clock,
    calls: Mutex<Calls>,
    peers: Mutex<BTreeMap<NodeId, Arc<Load>>>,
    in_flight_max: u32,
    rate_max: NonZeroU32,
    substreams_max: u32,
    /// For each request, from its first byte to its last.
    arrival: Duration,
    /// The bytes of requests that have begun.
    unfinished: Arc<Budget>,
    closing: AtomicBool,
    /// Calls of all peers that are not answered yet.
    unanswered: AtomicU32,
    answered: Notify,
}

#[derive(Default)]
struct Calls {
    window: Window,
    running: BTreeMap<Key, Arc<Run>>,
}

/// A call that runs now.
#[derive(Default)]
struct Run {
    cancel: CancellationToken,
    /// Woken for every new frame.
    progress: Notify,
}

/// What one peer uses.
struct Load {
    in_flight: AtomicU32,
    substreams: AtomicU32,
    rate: DefaultDirectRateLimiter,
}

/// The right to one open substream.
struct Open(Arc<Load>);

impl Open {
    fn new(load: Arc<Load>, max: u32) -> Option<Self> {
        let before = load.substreams.fetch_add(1, Ordering::Relaxed);
        let open = Self(load);
        (before < max).then_some(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.substreams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to run one call; given back when its answer is written.
struct InFlight {
    service: Arc<Service>,
    load: Arc<Load>,
}

impl InFlight {
    fn new(service: &Arc<Service>, load: &Arc<Load>) -> (Self, u32) {
        let before = load.in_flight.fetch_add(1, Ordering::Relaxed);
        service.unanswered.fetch_add(1, Ordering::SeqCst);
        let place = Self {
            service: Arc::clone(service),
            load: Arc::clone(load),
        };
        (place, before)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.service.unanswered.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.service.answered.notify_waiters();
        }
    }
}

impl Service {
    pub(crate) fn new(host: Arc<dyn Host>, clock: Clock, limits: &crate::Limits) -> Arc<Self> {
        Arc::new(Self {
            host,
            clock,
            calls: Mutex::default(),
            peers: Mutex::default(),
            in_flight_max: limits.calls_in_flight_per_peer,
            rate_max: limits.calls_per_second_per_peer,
            substreams_max: limits.call_substreams_per_peer,
            arrival: limits.request_arrival,
            unfinished: Budget::new(
                limits.unfinished_bytes_per_peer,
                limits.unfinished_bytes_max,
            ),
            closing: AtomicBool::new(false),
            unanswered: AtomicU32::new(0),
            answered: Notify::new(),
        })
    }

    /// Says whether calls are not answered yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.unanswered.load(Ordering::SeqCst) > 0
    }

    /// Takes no more calls, and waits until those that run are answered; cancels them after `grace`.
    pub(crate) async fn drain(&self, grace: Duration) {
        self.closing.store(true, Ordering::SeqCst);
        if timeout(grace, self.all_answered()).await.is_err() {
            let running: Vec<Arc<Run>> = self.lock().running.values().cloned().collect();
            for run in running {
                run.cancel.cancel();
            }
            crate::ignore_gone(timeout(CANCEL_GRACE, self.all_answered()).await);
        }
    }

    async fn all_answered(&self) {
        loop {
            let answered = self.answered.notified();
            if !self.is_busy() {
                return;
            }
            answered.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The roster has forgotten a node.
    pub(crate) fn forget(&self, node: &NodeId) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.remove(node);
    }

    fn load(&self, peer: NodeId) -> Arc<Load> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= LOADS_MAX && !peers.contains_key(&peer) {
            peers.retain(|_, load| Arc::strong_count(load) > 1);
        }
        let load = peers.entry(peer).or_insert_with(|| {
            let quota = Quota::per_second(self.rate_max);
            Arc::new(Load {
                in_flight: AtomicU32::new(0),
                substreams: AtomicU32::new(0),
                rate: RateLimiter::direct(quota),
            })
        });
        Arc::clone(load)
    }

    fn admit(self: &Arc<Self>, load: &Arc<Load>) -> Result<InFlight, Failure> {
        let (place, before) = InFlight::new(self, load);
        if self.closing.load(Ordering::SeqCst) {
            return Err(Failure::ShuttingDown);
        }
        if before >= self.in_flight_max || load.rate.check().is_err() {
            return Err(Failure::Busy {
                retry_after_ms: RETRY_AFTER_MS,
            });
        }
        Ok(place)
    }

    /// Keeps frames for a retry, and ends the run with the last of them.
    fn keep(&self, key: &Key, run: &Run, frames: &[Arc<Frame>]) {
        let now = self.clock.now();
        let mut calls = self.lock();
        for frame in frames {
            if let Err(why) = calls.window.push(key, Arc::clone(frame), now) {
                tracing::warn!(call.id = %key.call, error = %why, "a frame is not kept");
            }
        }
        if frames.last().is_some_and(|frame| frame.is_last()) {
            calls.running.remove(key);
        }
        drop(calls);
        run.progress.notify_waiters();
    }
}

/// Takes call substreams until the queue closes; each is served by a task of its own.
pub(crate) async fn serve(service: Arc<Service>, mut inbound: mpsc::Receiver<InboundCall>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            next = inbound.recv() => match next {
                Some(InboundCall { peer, stream }) => {
                    let Some(open) = Open::new(service.load(peer), service.substreams_max) else {
                        tracing::debug!(peer.id = %ShortId(&peer), "call substream reset: too many are open");
                        continue;
                    };
                    let call = InboundCall { peer, stream };
                    tasks.spawn(Session::new(Arc::clone(&service), call, open).run());
                }
                None => break,
            },
            Some(ended) = tasks.join_next() => {
                if let Err(panicked) = ended && panicked.is_panic() {
                    tracing::error!(error = %panicked, "a call panicked");
                }
            }
        }
    }
    tasks.shutdown().await;
}
