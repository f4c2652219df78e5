//! The answering side: one task for every call substream a peer opens.
//!
//! The task reads a request, lets the [`Host`] run it, and writes what comes back, everything that is
//! ready in one write. Every frame is kept in the dedupe window as well. When the connection breaks the
//! task runs the call to its end all the same; a retry on another substream finds the call in the
//! window and is given the same frames.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, StreamExt as _};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use libp2p::swarm::Stream;
use openfang_id::NodeId;
use openfang_ofp::call::server::{In, Out};
use openfang_ofp::call::{self, Failure, Frame};
use openfang_ofp::dedupe::{Begin, Key, Window};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::{Host, ShortId};

/// Call substreams that were opened and not yet taken by the server.
pub(crate) const INBOUND_QUEUE: usize = 256;
/// How much is read at once.
const READ_BYTES: usize = 8 * 1024;
/// The most frames put into one write.
const BATCH_FRAMES: usize = 32;
/// How long a cancelled run may take to end; then it is dropped.
const CANCEL_GRACE: Duration = Duration::from_secs(2);
/// What a peer is told when it has too many calls here.
const RETRY_AFTER_MS: u32 = 50;
/// How long a substream that is refused may take to say what it wanted.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest a call may run, whatever its request says: a day.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

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
    rate: DefaultDirectRateLimiter,
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

    fn load(&self, peer: NodeId) -> Arc<Load> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let load = peers.entry(peer).or_insert_with(|| {
            let quota = Quota::per_second(self.rate_max);
            Arc::new(Load {
                in_flight: AtomicU32::new(0),
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
                Some(call) => {
                    tasks.spawn(Session::new(Arc::clone(&service), call).run());
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

impl InboundCall {
    /// Answers one request with "busy" and closes.
    pub(crate) async fn refuse_busy(self) {
        let refusal = async move {
            let mut stream = self.stream;
            let mut server = call::Server::new();
            let mut buffer = [0; READ_BYTES];
            while server.running().is_none() {
                let len = stream.read(&mut buffer).await?;
                if len == 0 {
                    return Ok::<_, std::io::Error>(());
                }
                server.handle(In::Bytes(&buffer[..len]));
            }
            let busy = Frame::Failure(Failure::Busy {
                retry_after_ms: RETRY_AFTER_MS,
            });
            for out in server.handle(In::Reply(&busy)) {
                if let Out::Send(bytes) = out {
                    stream.write_all(&bytes).await?;
                }
            }
            stream.close().await
        };
        crate::ignore_gone(timeout(REFUSE_TIMEOUT, refusal).await);
    }
}

/// One substream. `stream` is `None` once it is broken; a call in progress goes on without it.
struct Session {
    service: Arc<Service>,
    peer: NodeId,
    load: Arc<Load>,
    stream: Option<Stream>,
    server: call::Server,
    buffer: Box<[u8]>,
    wire: Vec<u8>,
}

/// What came in while a call runs.
enum Incoming {
    Nothing,
    Cancel,
    Lost,
}

impl Session {
    fn new(service: Arc<Service>, call: InboundCall) -> Self {
        Self {
            load: service.load(call.peer),
            service,
            peer: call.peer,
            stream: Some(call.stream),
            server: call::Server::new(),
            buffer: vec![0; READ_BYTES].into(),
            wire: Vec::new(),
        }
    }

    async fn run(mut self) {
        while let Some(request) = self.next_request().await {
            self.answer(request).await;
        }
    }

    /// Reads until there is a request; `None` when the substream is done with.
    async fn next_request(&mut self) -> Option<call::Request> {
        loop {
            let stream = self.stream.as_mut()?;
            let event = match stream.read(&mut self.buffer).await {
                Ok(0) | Err(_) => In::Closed,
                Ok(len) => In::Bytes(&self.buffer[..len]),
            };
            let mut request = None;
            for out in self.server.handle(event) {
                match out {
                    Out::Run(asked) => request = Some(*asked),
                    Out::Received(call) => self.acknowledge(call),
                    Out::Violated(what) => {
                        tracing::warn!(peer.id = %ShortId(&self.peer), error = %what, "call substream reset");
                        return None;
                    }
                    Out::Closed | Out::Lost(_) => return None,
                    Out::Cancel(_) | Out::Send(_) | Out::NotSent(_) => {}
                }
            }
            if request.is_some() {
                return request;
            }
        }
    }

    fn acknowledge(&self, call: call::CallId) {
        let key = Key {
            node: self.peer,
            call,
        };
        self.service.lock().window.acknowledge(&key);
    }

    async fn answer(&mut self, request: call::Request) {
        let begun = Instant::now();
        let id = request.id;
        let key = Key {
            node: self.peer,
            call: id,
        };
        let place = match self.service.admit(&self.load) {
            Ok(place) => place,
            Err(failure) => return self.reply(&[Frame::Failure(failure).into()]).await,
        };
        let (begin, run) = self.begin(&key, request.resume_from);
        match (begin, run) {
            (Begin::Fresh, Some(run)) => self.run_fresh(&key, &run, request).await,
            (Begin::Attach(replay), run) => self.attach(&key, run, replay).await,
            (Begin::AlreadyRan, _) => {
                self.reply(&[Frame::Failure(Failure::AlreadyRan).into()])
                    .await;
            }
            (Begin::Full { .. } | Begin::Fresh, _) => {
                let busy = Failure::Busy {
                    retry_after_ms: RETRY_AFTER_MS,
                };
                self.reply(&[Frame::Failure(busy).into()]).await;
            }
        }
        drop(place);
        tracing::debug!(
            call.id = %id,
            peer.id = %ShortId(&self.peer),
            duration_us = begun.elapsed().as_micros(),
            "call served"
        );
    }

    /// Looks the call up, and registers it as running when it is new.
    fn begin(&self, key: &Key, resume_from: u32) -> (Begin, Option<Arc<Run>>) {
        let now = self.service.clock.now();
        let mut calls = self.service.lock();
        let begin = calls.window.begin(*key, resume_from, now);
        let run = match (&begin, calls.running.entry(*key)) {
            (Begin::Fresh, Entry::Vacant(place)) => Some(Arc::clone(place.insert(Arc::default()))),
            (_, Entry::Occupied(place)) => Some(Arc::clone(place.get())),
            (_, Entry::Vacant(_)) => None,
        };
        (begin, run)
    }

    /// Runs a call to its end, whatever becomes of the substream.
    async fn run_fresh(&mut self, key: &Key, run: &Arc<Run>, request: call::Request) {
        let asked = Duration::from_millis(request.deadline_ms.into());
        let mut deadline = Instant::now() + asked.min(DEADLINE_MAX);
        let mut at_deadline = Failure::TimedOut;
        let started = self
            .service
            .host
            .call(self.peer, request, run.cancel.clone());
        let mut source = Source::Starting(started);
        let mut batch: Vec<Arc<Frame>> = Vec::new();
        let mut cancelled = false;
        loop {
            batch.clear();
            tokio::select! {
                biased;
                () = poll_fn(|cx| source.poll_batch(cx, &mut batch)) => {}
                incoming = self.incoming() => match incoming {
                    Incoming::Nothing => {}
                    Incoming::Lost => self.stream = None,
                    Incoming::Cancel => run.cancel.cancel(),
                },
                () = run.cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    at_deadline = Failure::Cancelled;
                    deadline = deadline.min(Instant::now() + CANCEL_GRACE);
                }
                () = tokio::time::sleep_until(deadline) => {
                    run.cancel.cancel();
                    batch.push(Frame::Failure(at_deadline.clone()).into());
                }
            }
            if batch.is_empty() {
                continue;
            }
            self.service.keep(key, run, &batch);
            self.reply(&batch).await;
            if batch.last().is_some_and(|frame| frame.is_last()) {
                return;
            }
        }
    }

    /// Gives a retry the frames of a call that was asked for before.
    async fn attach(
        &mut self,
        key: &Key,
        run: Option<Arc<Run>>,
        mut replay: openfang_ofp::dedupe::Replay,
    ) {
        let run = run.unwrap_or_default();
        loop {
            self.reply(&replay.frames).await;
            if !replay.running || self.stream.is_none() {
                return;
            }
            let mut progress = std::pin::pin!(run.progress.notified());
            progress.as_mut().enable();
            let next = self.service.lock().window.replay(key, replay.next);
            match next {
                Some(more) if !more.frames.is_empty() => replay = more,
                Some(more) if more.running => {
                    replay = more;
                    tokio::select! {
                        () = progress => {}
                        incoming = self.incoming() => match incoming {
                            Incoming::Nothing => {}
                            Incoming::Lost => self.stream = None,
                            Incoming::Cancel => run.cancel.cancel(),
                        },
                    }
                }
                Some(_) | None => {
                    self.reply(&[Frame::Failure(Failure::AlreadyRan).into()])
                        .await;
                    return;
                }
            }
        }
    }

    /// Waits for something from the peer while its call runs; for ever when it is gone. Cancel-safe.
    async fn incoming(&mut self) -> Incoming {
        let Some(stream) = self.stream.as_mut() else {
            return std::future::pending().await;
        };
        let event = match stream.read(&mut self.buffer).await {
            Ok(0) | Err(_) => In::Closed,
            Ok(len) => In::Bytes(&self.buffer[..len]),
        };
        let mut incoming = Incoming::Nothing;
        for out in self.server.handle(event) {
            match out {
                Out::Cancel(_) => incoming = Incoming::Cancel,
                Out::Lost(_) | Out::Closed | Out::Violated(_) => incoming = Incoming::Lost,
                Out::Run(_) | Out::Received(_) | Out::Send(_) | Out::NotSent(_) => {}
            }
        }
        incoming
    }

    /// Writes frames in one go. A broken substream is given up; the call is not.
    async fn reply(&mut self, frames: &[Arc<Frame>]) {
        self.wire.clear();
        for frame in frames {
            for out in self.server.handle(In::Reply(frame)) {
                match out {
                    Out::Send(bytes) => self.wire.extend_from_slice(&bytes),
                    Out::NotSent(why) => {
                        tracing::error!(peer.id = %ShortId(&self.peer), error = %why, "a frame was not sent");
                    }
                    Out::Run(_)
                    | Out::Cancel(_)
                    | Out::Received(_)
                    | Out::Closed
                    | Out::Lost(_)
                    | Out::Violated(_) => {}
                }
            }
        }
        let Some(stream) = self.stream.as_mut() else {
            return;
        };
        let written = async {
            stream.write_all(&self.wire).await?;
            stream.flush().await
        };
        if written.await.is_err() {
            self.stream = None;
        }
    }
}

/// Where the frames of a run come from.
enum Source {
    Starting(BoxFuture<'static, Result<BoxStream<'static, Frame>, Failure>>),
    Streaming(BoxStream<'static, Frame>),
    Ended,
}

impl Source {
    /// Takes everything that is ready, made to fit; waits only when nothing is.
    fn poll_batch(&mut self, cx: &mut Context<'_>, batch: &mut Vec<Arc<Frame>>) -> Poll<()> {
        while batch.len() < BATCH_FRAMES {
            let frame = match self {
                Self::Starting(started) => match started.poll_unpin(cx) {
                    Poll::Ready(Ok(stream)) => {
                        *self = Self::Streaming(stream);
                        continue;
                    }
                    Poll::Ready(Err(failure)) => Frame::Failure(failure),
                    Poll::Pending => break,
                },
                Self::Streaming(stream) => match stream.poll_next_unpin(cx) {
                    Poll::Ready(Some(frame)) => frame,
                    Poll::Ready(None) => Frame::Failure(Failure::Internal),
                    Poll::Pending => break,
                },
                Self::Ended => break,
            };
            let last = match frame {
                Frame::Chunk(_) => false,
                Frame::End(_) | Frame::Failure(_) => true,
                Frame::Request(_) | Frame::Cancel | Frame::Received => {
                    tracing::error!("the host gave a frame that is no reply");
                    continue;
                }
            };
            batch.extend(frame.fit().into_iter().map(Arc::new));
            if last {
                *self = Self::Ended;
                break;
            }
        }
        if batch.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}
