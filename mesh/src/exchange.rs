//! Questions about audit logs, asked and answered: a substream each.
//!
//! What is said is [`openfang_ofp::exchange`]'s affair, what it means the host's. Here the number of
//! questions that are held at once is bounded, for each peer and for all, so that nobody can fill
//! the memory with bodies, and a peer that asks too often is told so.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use libp2p::swarm::Stream;
use openfang_id::NodeId;
use openfang_ofp::codec::{DecodeError, EncodeError, FrameBuffer, FrameError, frame_into};
use openfang_ofp::exchange::{ANSWER_BODY_MAX, Answer, QUESTION_BODY_MAX, Question};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::mesh::Shared;
use crate::pool::NoLine;
use crate::{AskError, CallError, Host, ShortId, client};

/// Questions that were opened and not yet taken.
pub(crate) const INBOUND_QUEUE: usize = 64;
/// Questions of all peers that are held at once: their bodies bound the memory.
pub const QUESTIONS_MAX: usize = 16;
/// Questions of one peer that are held at once.
const QUESTIONS_PER_PEER: usize = 4;
/// Questions per second of one peer: a witness is asked a few times a second for each log, a mirror
/// that restores a log asks for a bundle at a time.
const QUESTIONS_PER_SECOND: u32 = 2_000;
/// For how long a peer that asks nothing is remembered: its rate has recovered by then.
const FORGET: Duration = Duration::from_secs(5);
/// How long a question may take to arrive, and an answer to leave.
const TRAVEL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the host may think.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// How many bytes a length and the fields before a body take at most.
const HEAD_BYTES: usize = 1024;

/// Come back later: the status of HTTP.
const TOO_MANY: u16 = 429;
/// Not a question: the status of HTTP.
const BAD: u16 = 400;
/// No answer in time: the status of HTTP.
const UNAVAILABLE: u16 = 503;

/// A substream on which a peer asks something.
#[derive(Debug)]
pub(crate) struct InboundExchange {
    pub(crate) peer: NodeId,
    pub(crate) stream: Stream,
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Encode(#[from] EncodeError),
    #[error("the substream ended early")]
    Ended,
}

/// What one peer uses.
struct Load {
    places: Arc<Semaphore>,
    rate: DefaultDirectRateLimiter,
    asked: Instant,
}

impl Load {
    fn new() -> Self {
        let rate = NonZeroU32::new(QUESTIONS_PER_SECOND).unwrap_or(NonZeroU32::MIN);
        Self {
            places: Arc::new(Semaphore::new(QUESTIONS_PER_PEER)),
            rate: RateLimiter::direct(Quota::per_second(rate)),
            asked: Instant::now(),
        }
    }
}

/// Answers questions until the queue closes; each in a task of its own.
pub(crate) async fn serve(host: Arc<dyn Host>, mut inbound: mpsc::Receiver<InboundExchange>) {
    let mut tasks = JoinSet::new();
    let mut peers: BTreeMap<NodeId, Load> = BTreeMap::new();
    let places = Arc::new(Semaphore::new(QUESTIONS_MAX));
    loop {
        tokio::select! {
            next = inbound.recv() => {
                let Some(InboundExchange { peer, stream }) = next else {
                    break;
                };
                peers.retain(|other, load| *other == peer || load.is_used());
                let load = peers.entry(peer).or_insert_with(Load::new);
                let taken = load
                    .take()
                    .and_then(|own| Some((own, Arc::clone(&places).try_acquire_owned().ok()?)));
                let host = Arc::clone(&host);
                tasks.spawn(async move {
                    let done = match taken {
                        Some(places) => {
                            let done = answer(host, peer, stream).await;
                            drop(places);
                            done
                        }
                        None => timeout(TRAVEL_TIMEOUT, send(stream, &Answer::status(TOO_MANY)))
                            .await
                            .unwrap_or(Err(Fault::Ended)),
                    };
                    if let Err(why) = done {
                        tracing::debug!(peer.id = %ShortId(&peer), error = %why, "question not answered");
                    }
                });
            }
            Some(ended) = tasks.join_next() => {
                if let Err(panicked) = ended && panicked.is_panic() {
                    tracing::error!(error = %panicked, "an answer panicked");
                }
            }
        }
    }
    tasks.shutdown().await;
}

impl Load {
    fn take(&mut self) -> Option<OwnedSemaphorePermit> {
        self.asked = Instant::now();
        self.rate.check().ok()?;
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Whether the peer asks or has asked lately: what it uses must not be forgotten.
    fn is_used(&self) -> bool {
        self.places.available_permits() < QUESTIONS_PER_PEER || self.asked.elapsed() < FORGET
    }
}

async fn answer(host: Arc<dyn Host>, peer: NodeId, mut stream: Stream) -> Result<(), Fault> {
    let mut frames = Question::buffer();
    let frame = timeout(TRAVEL_TIMEOUT, receive(&mut stream, &mut frames)).await;
    let frame = frame.map_err(|_elapsed| Fault::Ended)??;
    let answer = match Question::decode(&frame) {
        Ok(question) => {
            drop(frame);
            let answer = timeout(ANSWER_TIMEOUT, host.answer(peer, question)).await;
            answer.unwrap_or_else(|_elapsed| Answer::status(UNAVAILABLE))
        }
        Err(why) => {
            tracing::warn!(peer.id = %ShortId(&peer), error = %why, "not a question");
            Answer::status(BAD)
        }
    };
    let sent = timeout(TRAVEL_TIMEOUT, send(stream, &answer)).await;
    sent.unwrap_or(Err(Fault::Ended))
}

async fn send(mut stream: Stream, answer: &Answer) -> Result<(), Fault> {
    let mut wire = Vec::new();
    frame_into(&mut wire, &answer.encode()?, HEAD_BYTES + ANSWER_BODY_MAX)?;
    stream.write_all(&wire).await?;
    stream.close().await?;
    Ok(())
}

/// Reads one frame.
async fn receive(stream: &mut Stream, frames: &mut FrameBuffer) -> Result<Vec<u8>, Fault> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Err(Fault::Ended);
        }
        if let Some(frame) = frames.feed(&mut &buffer[..len])? {
            return Ok(frame);
        }
    }
}

/// Asks a node, and waits for the answer until `deadline`.
pub(crate) async fn ask(
    shared: Arc<Shared>,
    node: NodeId,
    question: Question,
    deadline: Instant,
) -> Result<Answer, AskError> {
    if shared.closing.is_cancelled() {
        return Err(AskError::ShuttingDown);
    }
    let mut wire = Vec::new();
    question
        .encode()
        .and_then(|frame| frame_into(&mut wire, &frame, HEAD_BYTES + QUESTION_BODY_MAX))
        .map_err(|why| AskError::TooLarge { why })?;
    drop(question);
    let unreachable = |last: String| AskError::Unreachable { node, last };
    let peer = match shared.peers.known(&node) {
        Some(peer) if peer.is_connected() => peer,
        Some(_) | None => client::connect(&shared, node, deadline)
            .await
            .map_err(|why: CallError| unreachable(why.to_string()))?,
    };
    let exchange = async {
        let mut stream = peer.open_exchange().await.map_err(|why| match why {
            NoLine::Unconnected { last } => unreachable(last),
            NoLine::Busy | NoLine::Late => AskError::TimedOut,
        })?;
        let carried = async {
            stream.write_all(&wire).await?;
            stream.close().await?;
            drop(wire);
            let mut frames = Answer::buffer();
            let frame = receive(&mut stream, &mut frames).await?;
            Ok::<_, Fault>(Answer::decode(&frame)?)
        };
        carried.await.map_err(|why| AskError::Lost {
            node,
            last: why.to_string(),
        })
    };
    let asked = timeout_at(deadline, exchange).await;
    asked.unwrap_or(Err(AskError::TimedOut))
}
