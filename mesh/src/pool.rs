//! The call substreams of every peer: negotiated once, used by one call at a time.
//!
//! Opening a substream costs a negotiation and a task switch on both ends; a call on an idle one costs
//! a write and a read. So finished calls put their substream back. A caller takes one directly from
//! here: the driver is not on the way. Everything is bounded: substreams in use per peer, and calls
//! that wait for one.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead as _, AsyncWriteExt as _};
use libp2p::swarm::{Stream, StreamProtocol};
use openfang_id::{NodeId, Transport};
use openfang_ofp::call;
use openfang_ofp::roster::LinkId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;

use crate::handler::{CALL, EXCHANGE, Open, Opener};

/// Call substreams in use to one peer. Twice as many (both ends call), the two sync substreams and
/// those being closed stay below the 128 of one Yamux connection.
pub(crate) const STREAMS_PER_PEER: usize = 48;
/// What a caller is told when the queue is full.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Requests up to this size are sent as they come: all of one pool fit into what a node holds of the
/// unfinished requests of a peer, with room for one of the largest.
const SMALL_BYTES: usize = 64 * 1024;
/// Larger ones take turns: so many bytes of them are on their way to one peer. If all were sent side
/// by side, none would be whole before the other node has to turn some away.
const LARGE_BYTES: u32 = 1 << 20;
/// How long the end of idle substreams may take.
const RETIRE_TIMEOUT: Duration = Duration::from_millis(250);
/// How much is read at once: small answers come in one read.
const READ_BYTES: usize = 8 * 1024;

/// A negotiated call substream, its end of the protocol, and the connection it runs on.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) stream: Stream,
    pub(crate) client: call::Client,
    link: LinkId,
}

impl Line {
    /// Writes all of it, at once.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Waits for bytes and gives them to the state machine. Room for them is taken for the moment of
    /// reading alone: an idle substream holds none.
    pub(crate) fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Vec<call::client::Out>> {
        let mut buffer = [0; READ_BYTES];
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
        Poll::Ready(self.client.handle(match read {
            Ok(0) | Err(_) => call::client::In::Closed,
            Ok(len) => call::client::In::Bytes(&buffer[..len]),
        }))
    }

    /// Says that the answer to the last call has arrived, so that the other end may forget it.
    async fn retire(mut self) {
        for out in self.client.handle(call::client::In::Retire) {
            if let call::client::Out::Send(bytes) = out {
                crate::ignore_gone(self.write(&bytes).await);
            }
        }
        crate::ignore_gone(self.stream.close().await);
    }
}

/// The right to one substream of a peer, and the substream.
#[derive(Debug)]
pub(crate) struct Lease {
    peer: Arc<Peer>,
    line: Option<Line>,
    _slot: OwnedSemaphorePermit,
}

/// Why there is no substream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoLine {
    /// Too many calls wait already.
    Busy,
    /// There is no connection.
    Unconnected {
        /// What happened last.
        last: String,
    },
    /// The time was up while waiting for a free substream.
    Late,
}

/// All peers that are or were connected.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    waiting_max: usize,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    node: NodeId,
    lines: Mutex<Lines>,
    slots: Arc<Semaphore>,
    /// Bytes of large requests that may be sent.
    large: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
    /// How many connections there are.
    links: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Lines {
    links: Vec<(LinkId, Transport, Opener)>,
    idle: Vec<Line>,
    last: Option<String>,
}

impl Peers {
    pub(crate) fn new(waiting_max: usize) -> Self {
        Self {
            peers: RwLock::default(),
            waiting_max,
        }
    }

    /// Returns a peer that is or was connected, or dialled.
    pub(crate) fn known(&self, node: &NodeId) -> Option<Arc<Peer>> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(node).cloned()
    }

    /// The roster has forgotten a node.
    pub(crate) fn forget(&self, node: &NodeId) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        peers.remove(node);
    }

    /// Returns the peer, made when it was not known here.
    pub(crate) fn peer(&self, node: NodeId) -> Arc<Peer> {
        if let Some(peer) = self.known(&node) {
            return peer;
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let waiting_max = self.waiting_max;
        let made = peers
            .entry(node)
            .or_insert_with(|| Arc::new(Peer::new(node, waiting_max)));
        Arc::clone(made)
    }
}

impl Peers {
    /// Tells every peer that the answers to past calls have arrived, and uses no idle substream again.
    pub(crate) async fn retire(&self) {
        let peers: Vec<Arc<Peer>> = {
            let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
            peers.values().cloned().collect()
        };
        let idle = peers
            .iter()
            .flat_map(|peer| std::mem::take(&mut peer.lock().idle));
        let retired = futures::future::join_all(idle.map(Line::retire));
        crate::ignore_gone(tokio::time::timeout(RETIRE_TIMEOUT, retired).await);
    }
}

impl Peer {
    fn new(node: NodeId, waiting_max: usize) -> Self {
        Self {
            node,
            lines: Mutex::default(),
            slots: Arc::new(Semaphore::new(STREAMS_PER_PEER)),
            large: Semaphore::new(usize::try_from(LARGE_BYTES).unwrap_or(usize::MAX)),
            waiting: AtomicUsize::new(0),
            waiting_max,
            links: watch::channel(0).0,
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// A connection stands.
    pub(crate) fn on_connected(&self, link: LinkId, transport: Transport, opener: Opener) {
        let mut lines = self.lock();
        lines.links.push((link, transport, opener));
        self.links.send_replace(lines.links.len());
    }

    /// A connection is gone, and with it its substreams.
    pub(crate) fn on_disconnected(&self, link: LinkId, why: &str) {
        let mut lines = self.lock();
        lines.links.retain(|(id, ..)| *id != link);
        lines.idle.retain(|line| line.link != link);
        lines.last = Some(why.to_owned());
        self.links.send_replace(lines.links.len());
    }

    /// A connection is about to be closed: its idle substreams are ended properly.
    pub(crate) async fn retire(&self, link: LinkId) {
        let idle = {
            let mut lines = self.lock();
            lines.links.retain(|(id, ..)| *id != link);
            self.links.send_replace(lines.links.len());
            let (retired, kept) = std::mem::take(&mut lines.idle)
                .into_iter()
                .partition::<Vec<_>, _>(|line| line.link == link);
            lines.idle = kept;
            retired
        };
        let retired = futures::future::join_all(idle.into_iter().map(Line::retire));
        crate::ignore_gone(tokio::time::timeout(RETIRE_TIMEOUT, retired).await);
    }

    /// A dial failed.
    pub(crate) fn on_dial_failed(&self, why: &str) {
        self.lock().last = Some(why.to_owned());
    }

    /// Waits until there is a connection; `false` when there is none at `until`.
    pub(crate) async fn connected(&self, until: Instant) -> bool {
        let mut links = self.links.subscribe();
        let waited = tokio::time::timeout_at(until, links.wait_for(|count| *count > 0)).await;
        matches!(waited, Ok(Ok(_)))
    }

    pub(crate) fn is_connected(&self) -> bool {
        *self.links.borrow() > 0
    }

    /// Returns what happened last on the way to this peer.
    pub(crate) fn last_error(&self) -> String {
        let last = self.lock().last.clone();
        last.unwrap_or_else(|| "it was never connected".to_owned())
    }

    /// Takes an idle substream, or opens one. Cancel-safe: a dropped future leaves nothing taken.
    pub(crate) async fn lease(self: &Arc<Self>, until: Instant) -> Result<Lease, NoLine> {
        let slot = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_taken) => self.wait_for_slot(until).await?,
        };
        let idle = self.lock().idle.pop();
        let line = match idle {
            Some(line) => line,
            None => self.open(until).await?,
        };
        Ok(Lease {
            peer: Arc::clone(self),
            line: Some(line),
            _slot: slot,
        })
    }

    async fn wait_for_slot(&self, until: Instant) -> Result<OwnedSemaphorePermit, NoLine> {
        let place = Waiting::enter(&self.waiting, self.waiting_max).ok_or(NoLine::Busy)?;
        let waited = tokio::time::timeout_at(until, Arc::clone(&self.slots).acquire_owned()).await;
        drop(place);
        match waited {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_closed)) => Err(NoLine::Busy),
            Err(_elapsed) => Err(NoLine::Late),
        }
    }

    async fn open(&self, until: Instant) -> Result<Line, NoLine> {
        let Some((link, opener)) = self.preferred() else {
            return Err(NoLine::Unconnected {
                last: self.last_error(),
            });
        };
        match tokio::time::timeout_at(until, open(opener, CALL)).await {
            Ok(Ok(stream)) => Ok(Line {
                stream,
                client: call::Client::new(),
                link,
            }),
            Ok(Err(why)) => Err(why),
            Err(_elapsed) => Err(NoLine::Late),
        }
    }

    /// Opens a substream for one question about audit logs.
    pub(crate) async fn open_exchange(&self) -> Result<Stream, NoLine> {
        match self.preferred() {
            Some((_link, opener)) => open(opener, EXCHANGE).await,
            None => Err(NoLine::Unconnected {
                last: self.last_error(),
            }),
        }
    }

    /// Chooses a connection: TCP first, which answers faster than QUIC where both are direct
    /// (measured, see `docs/BENCHMARKS.md`); the oldest of its kind.
    fn preferred(&self) -> Option<(LinkId, Opener)> {
        let lines = self.lock();
        let tcp = |(_, transport, _): &&(LinkId, Transport, Opener)| *transport == Transport::Tcp;
        let best = lines.links.iter().find(tcp).or_else(|| lines.links.first());
        best.map(|(link, _, opener)| (*link, opener.clone()))
    }

    /// Writes a request; a large one when it is its turn.
    pub(crate) async fn write_request(
        &self,
        line: &mut Line,
        request: &[u8],
    ) -> std::io::Result<()> {
        if request.len() <= SMALL_BYTES {
            return line.write(request).await;
        }
        let bytes = u32::try_from(request.len()).unwrap_or(u32::MAX);
        let turn = self.large.acquire_many(bytes.min(LARGE_BYTES)).await;
        let written = line.write(request).await;
        drop(turn);
        written
    }

    fn put_back(&self, line: Line) {
        let mut lines = self.lock();
        if lines.links.iter().any(|(link, ..)| *link == line.link) {
            lines.idle.push(line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a connection for a substream.
async fn open(opener: Opener, protocol: StreamProtocol) -> Result<Stream, NoLine> {
    let (reply, opened) = oneshot::channel();
    let gone = || NoLine::Unconnected {
        last: "the connection ended".to_owned(),
    };
    let asked = opener.send(Open { protocol, reply }).await;
    asked.map_err(|_gone| gone())?;
    match opened.await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(why)) => Err(NoLine::Unconnected {
            last: why.to_string(),
        }),
        Err(_dropped) => Err(gone()),
    }
}

impl Lease {
    /// Returns the substream.
    pub(crate) fn line(&mut self) -> &mut Line {
        let line = self.line.as_mut();
        line.expect("a lease has its substream until it is given back")
    }

    /// The call is over and the substream stands between two frames: it serves the next. A lease that
    /// is dropped instead resets its substream.
    pub(crate) fn give_back(mut self) {
        if let Some(line) = self.line.take() {
            self.peer.put_back(line);
        }
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, max: usize) -> Option<Self> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let place = Self(count);
        (before < max).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
