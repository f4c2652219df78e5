//! One call substream: its requests one after another, each answered to the end.

use std::collections::btree_map::Entry;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{AsyncRead as _, AsyncWriteExt as _, FutureExt as _, StreamExt as _};
use libp2p::swarm::Stream;
use openfang_id::NodeId;
use openfang_ofp::call::server::{In, Out};
use openfang_ofp::call::{self, Failure, Frame};
use openfang_ofp::dedupe::{Begin, Key, Replay};
use tokio::time::{Instant, timeout, timeout_at};

use super::{CANCEL_GRACE, InboundCall, Open, READ_BYTES, RETRY_AFTER_MS, Run, Service};
use crate::ShortId;
use crate::budget::Share;

/// The most frames put into one write.
const BATCH_FRAMES: usize = 32;
/// How long a caller may leave an answer unread; then its substream is given up, not the call.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest a call may run, whatever its request says: a day.
const DEADLINE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// An idle substream keeps at most so much room for its next answer.
const IDLE_WIRE_BYTES: usize = 1024;

/// One substream. `stream` is `None` once it is broken; a call in progress goes on without it.
pub(super) struct Session {
    service: Arc<Service>,
    peer: NodeId,
    open: Open,
    stream: Option<Stream>,
    server: call::Server,
    /// What is held of a request that has begun.
    unfinished: Share,
    wire: Vec<u8>,
}

/// Waits for bytes and gives them to the state machine. Room for them is taken for the moment of
/// reading alone: a substream that waits holds none. Cancel-safe.
async fn hear(stream: &mut Stream, server: &mut call::Server) -> Vec<Out> {
    poll_fn(|cx| {
        let mut buffer = [0; READ_BYTES];
        let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
        Poll::Ready(server.handle(match read {
            Ok(0) | Err(_) => In::Closed,
            Ok(len) => In::Bytes(&buffer[..len]),
        }))
    })
    .await
}

/// What came in while a call runs.
enum Incoming {
    Nothing,
    Cancel,
    Lost,
}

impl Session {
    pub(super) fn new(service: Arc<Service>, call: InboundCall, open: Open) -> Self {
        Self {
            unfinished: service.unfinished.share(call.peer),
            service,
            peer: call.peer,
            open,
            stream: Some(call.stream),
            server: call::Server::new(),
            wire: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        while let Some(request) = self.next_request().await {
            self.answer(request).await;
            self.wire.clear();
            self.wire.shrink_to(IDLE_WIRE_BYTES);
        }
    }

    /// Reads until there is a request; `None` when the substream is done with. A request that has
    /// begun must be whole in time and within the budget.
    async fn next_request(&mut self) -> Option<call::Request> {
        let mut whole_by = None;
        loop {
            let stream = self.stream.as_mut()?;
            let heard = hear(stream, &mut self.server);
            let heard = match whole_by {
                Some(whole_by) => timeout_at(whole_by, heard).await,
                None => Ok(heard.await),
            };
            let Ok(outs) = heard else {
                tracing::debug!(peer.id = %ShortId(&self.peer), "call substream reset: its request did not arrive in time");
                return None;
            };
            let mut request = None;
            for out in outs {
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
            if let Err(why) = self.unfinished.hold(self.server.unfinished()) {
                tracing::debug!(peer.id = %ShortId(&self.peer), error = %why, "call substream reset");
                return None;
            }
            if request.is_some() {
                return request;
            }
            whole_by = whole_by.or_else(|| {
                let begun = self.server.unfinished() > 0;
                begun.then(|| Instant::now() + self.service.arrival)
            });
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
        let place = match self.service.admit(&self.open.0) {
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
        let span = tracing::debug_span!("call", call.id = %key.call, peer.id = %ShortId(&key.node));
        let host = &self.service.host;
        let started = span.in_scope(|| host.call(self.peer, request, run.cancel.clone()));
        let mut source = Source::Starting(started);
        let mut unfinished = Unfinished {
            service: Arc::clone(&self.service),
            key: *key,
            run: Some(Arc::clone(run)),
        };
        let mut batch: Vec<Arc<Frame>> = Vec::new();
        let mut cancelled = false;
        loop {
            batch.clear();
            tokio::select! {
                biased;
                () = poll_fn(|cx| span.in_scope(|| source.poll_batch(cx, &mut batch))) => {}
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
            let last = batch.last().is_some_and(|frame| frame.is_last());
            if last {
                unfinished.run = None;
            }
            self.service.keep(key, run, &batch);
            self.reply(&batch).await;
            if last {
                return;
            }
        }
    }

    /// Gives a retry the frames of a call that was asked for before.
    async fn attach(&mut self, key: &Key, run: Option<Arc<Run>>, mut replay: Replay) {
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
        let mut incoming = Incoming::Nothing;
        for out in hear(stream, &mut self.server).await {
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
        if !matches!(timeout(WRITE_TIMEOUT, written).await, Ok(Ok(()))) {
            self.stream = None;
        }
    }
}

/// Ends a run that stops without a last frame, because the host panicked or the node ends: nobody is
/// to wait for it.
struct Unfinished {
    service: Arc<Service>,
    key: Key,
    run: Option<Arc<Run>>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            let ended = Frame::Failure(Failure::Internal);
            self.service.keep(&self.key, &run, &[ended.into()]);
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
