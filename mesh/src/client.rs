//! The calling side: from a request to the pieces of its answer.
//!
//! What is said on a substream is [`openfang_ofp::call::Client`]'s affair. This takes a substream from
//! the [pool](crate::pool), writes and reads, keeps the deadline, takes a call up again when the
//! connection breaks, and takes it back when nobody wants the answer any more. All of it runs in the
//! caller's task.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _};
use openfang_id::NodeId;
use openfang_ofp::call::client::{In, NotSent, Out};
use openfang_ofp::call::{self, CallEncodeError, Failure, Frame};
use openfang_ofp::roster::Liveness;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use crate::driver::Command;
use crate::mesh::{Shared, Status};
use crate::pool::{Lease, NoLine, Peer, RETRY_AFTER};
use crate::{CallError, ShortId};

/// How many calls may wait to be taken back; above, their substreams are reset, and the other node
/// finishes the run for nobody.
pub(crate) const TAKEBACKS: usize = 256;
/// How long the other node has to end a call that was taken back.
const TAKEBACK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a new call waits for a connection to a node that is not known to be dead.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long a call that has begun waits for another connection. A node that was gone for longer has
/// most likely been restarted, and then no longer knows the call.
const RESUME_PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts to take a call up again; doubled up to 1.3 s while they lead nowhere.
const RESUME_PAUSE: Duration = Duration::from_millis(10);
/// How long a call that is taken up again waits for news of the other node.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
/// The last moment the other node can still say that the deadline has passed.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);

/// The answer to a call, piece by piece: chunks, then an end. Ends after the first error. Dropping it
/// takes the call back.
#[must_use = "dropping the reply takes the call back"]
pub struct Reply {
    call: Call,
    state: State,
    ready: VecDeque<Result<Frame, CallError>>,
    begun: Instant,
    resumed: u32,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What a call is, whichever substream it is on.
#[derive(Clone)]
struct Call {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    request: call::Request,
    /// The incarnation of the other node when the request was sent first.
    incarnation: Option<u64>,
    deadline: Instant,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly every call is in the large one, and boxing it would allocate for each"
)]
enum State {
    Waiting(Lease),
    Resuming(BoxFuture<'static, Result<Lease, CallError>>),
    Done,
}

/// A call that nobody waits for any more.
pub(crate) struct Takeback(State);

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply")
            .field("call", &self.call.request.id)
            .field("node", &self.call.peer.node())
            .finish_non_exhaustive()
    }
}

/// Makes a call; returns when its first piece is there.
pub(crate) async fn call(
    shared: Arc<Shared>,
    node: NodeId,
    request: call::Request,
) -> Result<Reply, CallError> {
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(request.deadline_ms.into());
    if shared.closing.is_cancelled() {
        return Err(CallError::ShuttingDown);
    }
    let peer = match shared.peers.known(&node) {
        Some(peer) if peer.is_connected() => peer,
        Some(_) | None => connect(&shared, node, deadline).await?,
    };
    let call = Call {
        incarnation: incarnation(&shared, node),
        shared,
        peer,
        request,
        deadline,
    };
    let lease = call.send().await?;
    let mut reply = Reply {
        call,
        state: State::Waiting(lease),
        ready: VecDeque::new(),
        begun,
        resumed: 0,
        timer: None,
    };
    std::future::poll_fn(|cx| reply.poll_fill(cx)).await;
    match reply.ready.pop_front() {
        Some(Err(why)) => Err(why),
        Some(Ok(frame)) => {
            reply.ready.push_front(Ok(frame));
            Ok(reply)
        }
        None => Ok(reply),
    }
}

/// Waits for a connection to a node that has none.
pub(crate) async fn connect(
    shared: &Shared,
    node: NodeId,
    deadline: Instant,
) -> Result<Arc<Peer>, CallError> {
    if *shared.status.borrow() == Status::Asleep {
        return Err(CallError::Asleep);
    }
    let liveness = shared.view.borrow().node(&node).map(|node| node.liveness);
    let alive = match liveness {
        None | Some(Liveness::Me) => return Err(CallError::UnknownNode { node }),
        Some(Liveness::Dead | Liveness::Left) => false,
        Some(Liveness::Alive | Liveness::Suspect) => true,
    };
    let peer = shared.peers.peer(node);
    if alive {
        // A full queue means the driver is about to look at the connections anyway.
        crate::ignore_gone(shared.commands.try_send(Command::Connect { node }));
        let until = deadline.min(Instant::now() + CONNECT_PATIENCE);
        if peer.connected(until).await {
            return Ok(peer);
        }
    }
    let last = peer.last_error();
    Err(CallError::Unreachable { node, last })
}

fn incarnation(shared: &Shared, node: NodeId) -> Option<u64> {
    let view = shared.view.borrow();
    let node = view.node(&node)?;
    Some(node.record.version().incarnation)
}

impl Call {
    /// Takes a substream and sends the request on it.
    async fn send(&self) -> Result<Lease, CallError> {
        let leased = self.peer.lease(self.deadline).await;
        let mut lease = leased.map_err(|why| match why {
            NoLine::Busy => CallError::Busy {
                retry_after: RETRY_AFTER,
            },
            NoLine::Late => CallError::TimedOut,
            NoLine::Unconnected { last } => CallError::Unreachable {
                node: self.peer.node(),
                last,
            },
        })?;
        for out in lease.line().client.handle(In::Call(&self.request)) {
            match out {
                // A broken connection shows itself when the answer is read.
                Out::Send(bytes) => {
                    let written = self.peer.write_request(lease.line(), &bytes);
                    let written = tokio::time::timeout_at(self.deadline, written).await;
                    crate::ignore_gone(written.map_err(|_elapsed| CallError::TimedOut)?);
                }
                Out::NotSent(why) => {
                    lease.give_back();
                    return Err(not_sent(why));
                }
                Out::Chunk(_)
                | Out::End(_)
                | Out::Failure(_)
                | Out::Closed
                | Out::Lost(_)
                | Out::Violated(_) => {}
            }
        }
        Ok(lease)
    }

    /// Finds another connection and asks for the rest of the answer. `nth`: how often that was done.
    async fn resume(self, mut last: String, nth: u32) -> Result<Lease, CallError> {
        let node = self.peer.node();
        let mut pause = match nth {
            0 => Duration::ZERO,
            _more => RESUME_PAUSE.saturating_mul(1 << nth.min(7)),
        };
        loop {
            tokio::time::sleep_until(self.deadline.min(Instant::now() + pause)).await;
            pause = RESUME_PAUSE;
            let until = self.deadline.min(Instant::now() + RESUME_PATIENCE);
            if !self.peer.connected(until).await {
                if Instant::now() >= self.deadline {
                    return Err(CallError::TimedOut);
                }
                return Err(CallError::Lost { node, last });
            }
            if self.is_other_run().await {
                let last = "the node was restarted".to_owned();
                return Err(CallError::Lost { node, last });
            }
            match self.send().await {
                Ok(lease) => return Ok(lease),
                Err(CallError::Unreachable { last: why, .. }) => last = why,
                Err(CallError::Busy { retry_after }) => pause = retry_after,
                Err(other) => return Err(other),
            }
            if Instant::now() >= self.deadline {
                return Err(CallError::TimedOut);
            }
        }
    }

    /// Says whether the node has been restarted since the request was sent first: then it knows
    /// nothing of it, and asking again could run it twice. A node shows its record before its first
    /// heartbeat is answered, so that is waited for.
    async fn is_other_run(&self) -> bool {
        let node = self.peer.node();
        let mut view = self.shared.view.clone();
        let settled = view.wait_for(|view| {
            let link = view.node(&node).and_then(|node| node.link.as_ref());
            link.is_some_and(|link| link.rtt_ms.is_some())
        });
        let until = self.deadline.min(Instant::now() + SETTLE_PATIENCE);
        crate::ignore_gone(tokio::time::timeout_at(until, settled).await);
        incarnation(&self.shared, node) != self.incarnation
    }
}

impl Reply {
    /// Returns the next piece; `None` after the end or an error. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Frame, CallError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Makes progress until there is a piece or nothing more to come.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.ready.is_empty() {
            match &mut self.state {
                State::Done => break,
                State::Waiting(lease) => match lease.line().poll_hear(cx) {
                    Poll::Ready(outs) => self.on_outs(outs),
                    Poll::Pending => ready!(self.poll_deadline(cx)),
                },
                State::Resuming(resumed) => match resumed.poll_unpin(cx) {
                    Poll::Ready(Ok(lease)) => self.state = State::Waiting(lease),
                    Poll::Ready(Err(why)) => self.finish(Err(why)),
                    Poll::Pending => ready!(self.poll_deadline(cx)),
                },
            }
        }
        Poll::Ready(())
    }

    /// Ready when the deadline has passed and the call has been ended for it.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = self.call.deadline + DEADLINE_GRACE;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ready!(timer.as_mut().poll(cx));
        self.take_back();
        self.finish(Err(CallError::TimedOut));
        Poll::Ready(())
    }

    fn on_outs(&mut self, outs: Vec<Out>) {
        for out in outs {
            match out {
                Out::Chunk(chunk) => {
                    self.resumed = 0;
                    self.ready.push_back(Ok(Frame::Chunk(chunk)));
                }
                Out::End(end) => {
                    self.give_back();
                    self.finish(Ok(Frame::End(end)));
                }
                Out::Failure(failure) => {
                    self.give_back();
                    self.finish(Err(failed(self.call.peer.node(), failure)));
                }
                Out::Lost(_call) => self.on_lost(),
                Out::Violated(what) => {
                    let what = what.to_string();
                    self.finish(Err(CallError::Protocol { what }));
                }
                Out::Closed | Out::Send(_) | Out::NotSent(_) => {}
            }
        }
    }

    fn on_lost(&mut self) {
        let State::Waiting(mut lease) = std::mem::replace(&mut self.state, State::Done) else {
            return;
        };
        let mut call = self.call.clone();
        call.request.resume_from = lease.line().client.received();
        drop(lease);
        tracing::debug!(
            call.id = %call.request.id,
            peer.id = %ShortId(&call.peer.node()),
            call.received = call.request.resume_from,
            "the connection broke; the call is taken up again"
        );
        let last = call.peer.last_error();
        self.state = State::Resuming(call.resume(last, self.resumed).boxed());
        self.resumed += 1;
    }

    fn give_back(&mut self) {
        if let State::Waiting(lease) = std::mem::replace(&mut self.state, State::Done) {
            lease.give_back();
        }
    }

    fn finish(&mut self, last: Result<Frame, CallError>) {
        tracing::debug!(
            call.id = %self.call.request.id,
            peer.id = %ShortId(&self.call.peer.node()),
            duration_us = self.begun.elapsed().as_micros(),
            ok = last.is_ok(),
            "call ended"
        );
        self.state = State::Done;
        self.ready.push_back(last);
    }

    fn take_back(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Done);
        if !matches!(state, State::Done) {
            crate::ignore_gone(self.call.shared.takebacks.try_send(Takeback(state)));
        }
    }
}

impl Stream for Reply {
    type Item = Result<Frame, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        ready!(self.poll_fill(cx));
        Poll::Ready(self.ready.pop_front())
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// Tells other nodes which calls nobody waits for any more, until the node closes.
pub(crate) async fn take_back_all(mut queue: mpsc::Receiver<Takeback>, closing: CancellationToken) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            next = queue.recv(), if under_way.len() < TAKEBACKS => match next {
                Some(takeback) => under_way.push(tokio::time::timeout(TAKEBACK_TIMEOUT, takeback.run())),
                None => break,
            },
            Some(_done) = under_way.next() => {}
        }
    }
}

impl Takeback {
    /// Cancels, and puts the substream back once the other node has ended the call.
    async fn run(self) {
        let mut lease = match self.0 {
            State::Waiting(lease) => lease,
            State::Resuming(resumed) => match resumed.await {
                Ok(lease) => lease,
                Err(_gone) => return,
            },
            State::Done => return,
        };
        for out in lease.line().client.handle(In::Cancel) {
            if let Out::Send(bytes) = out
                && lease.line().write(&bytes).await.is_err()
            {
                return;
            }
        }
        while !lease.line().client.is_idle() {
            let line = lease.line();
            let outs = std::future::poll_fn(|cx| line.poll_hear(cx)).await;
            let over = |out: &Out| matches!(out, Out::Violated(_) | Out::Closed | Out::Lost(_));
            if outs.iter().any(over) {
                return;
            }
        }
        lease.give_back();
    }
}

fn not_sent(why: NotSent) -> CallError {
    match why {
        NotSent::Encode(CallEncodeError::TooLarge { len, max, .. }) => {
            CallError::TooLarge { bytes: len, max }
        }
        NotSent::Encode(CallEncodeError::Field(field)) => CallError::Invalid {
            what: field.to_string(),
        },
        NotSent::InUse | NotSent::Ended => CallError::Protocol {
            what: why.to_string(),
        },
    }
}

fn failed(node: NodeId, failure: Failure) -> CallError {
    match failure {
        Failure::Busy { retry_after_ms } => CallError::Busy {
            retry_after: Duration::from_millis(retry_after_ms.into()),
        },
        Failure::TimedOut => CallError::TimedOut,
        Failure::AlreadyRan => CallError::Lost {
            node,
            last: "the answer is no longer kept".to_owned(),
        },
        Failure::UnknownAgent { .. }
        | Failure::Refused { .. }
        | Failure::Cancelled
        | Failure::TooLarge { .. }
        | Failure::TooDeep { .. }
        | Failure::AgentFailed { .. }
        | Failure::ShuttingDown
        | Failure::Internal => CallError::Failed(failure),
    }
}
