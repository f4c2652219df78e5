//! Questions about audit logs, asked and answered: a substream each.
//!
//! What is said is [`openfang_ofp::exchange`]'s affair, what it means the host's. Here the bytes of
//! questions are bounded from the moment they arrive, for each peer and for all, as is the number
//! that is being answered, so that nobody can fill the memory with bodies; a peer that asks too often
//! is told so. A question takes its place among those that are answered once it is whole: who sends
//! slowly keeps nobody else from asking.

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

use crate::budget::{Budget, OverBudget, Share};
use crate::mesh::Shared;
use crate::pool::NoLine;
use crate::{AskError, CallError, Host, ShortId, client};

/// Questions that were opened and not yet taken.
pub(crate) const INBOUND_QUEUE: usize = 64;
/// Questions of all peers that are answered at once.
pub const QUESTIONS_MAX: usize = 16;
/// Questions of one peer that are answered at once.
const QUESTIONS_PER_PEER: usize = 4;
/// Questions of one peer that are on their way; further ones are reset.
const ARRIVING_PER_PEER: usize = 16;
/// Bytes of questions of one peer, arriving and being answered: two of the largest.
const BYTES_PER_PEER: usize = 2 * QUESTION_BYTES_MAX;
/// The same for all peers.
const BYTES_MAX: usize = 8 * QUESTION_BYTES_MAX;
/// The memory that a question of the largest size takes.
const QUESTION_BYTES_MAX: usize = QUESTION_BODY_MAX + HEAD_BYTES;
/// Questions per second of one peer: a witness is asked a few times a second for each log, a mirror
/// that restores a log asks for a bundle at a time.
const QUESTIONS_PER_SECOND: u32 = 2_000;
/// For how long a peer that asks nothing is remembered: its rate has recovered by then.
const FORGET: Duration = Duration::from_secs(5);
/// How long a question may take to arrive, and an answer to leave.
const TRAVEL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the host may think.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How much is read first, and how much at once after that.
const FIRST_READ_BYTES: usize = 4 * 1024;
const READ_BYTES: usize = 16 * 1024;
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
    #[error("{0}")]
    OverBudget(#[from] OverBudget),
    #[error("the substream ended early")]
    Ended,
}

/// What one peer uses.
struct Load {
    arriving: Arc<Semaphore>,
    places: Arc<Semaphore>,
    rate: DefaultDirectRateLimiter,
    asked: Instant,
}

impl Load {
    fn new() -> Self {
        let rate = NonZeroU32::new(QUESTIONS_PER_SECOND).unwrap_or(NonZeroU32::MIN);
        Self {
            arriving: Arc::new(Semaphore::new(ARRIVING_PER_PEER)),
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
    let budget = Budget::new(BYTES_PER_PEER, BYTES_MAX);
    loop {
        tokio::select! {
            next = inbound.recv() => {
                let Some(InboundExchange { peer, stream }) = next else {
                    break;
                };
                peers.retain(|other, load| *other == peer || load.is_used());
                let load = peers.entry(peer).or_insert_with(Load::new);
                let Ok(arriving) = Arc::clone(&load.arriving).try_acquire_owned() else {
                    tracing::debug!(peer.id = %ShortId(&peer), "question reset: too many arrive");
                    continue;
                };
                let asked = Asked {
                    peer,
                    host: Arc::clone(&host),
                    in_time: load.is_in_time(),
                    arriving,
                    places: [Arc::clone(&load.places), Arc::clone(&places)],
                    held: budget.share(peer),
                };
                tasks.spawn(async move {
                    if let Err(why) = asked.answer(stream).await {
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
    /// Whether the peer asks no more often than it may.
    fn is_in_time(&mut self) -> bool {
        self.asked = Instant::now();
        self.rate.check().is_ok()
    }

    /// Whether the peer asks or has asked lately: what it uses must not be forgotten.
    fn is_used(&self) -> bool {
        self.arriving.available_permits() < ARRIVING_PER_PEER
            || self.places.available_permits() < QUESTIONS_PER_PEER
            || self.asked.elapsed() < FORGET
    }
}

/// One question of a peer.
struct Asked {
    peer: NodeId,
    host: Arc<dyn Host>,
    in_time: bool,
    arriving: OwnedSemaphorePermit,
    /// The peer's own, then all.
    places: [Arc<Semaphore>; 2],
    held: Share,
}

impl Asked {
    async fn answer(mut self, mut stream: Stream) -> Result<(), Fault> {
        let mut rest = Rest::Read;
        let answer = match self.arrival(&mut stream).await {
            Ok(question) => {
                drop(self.arriving);
                let answer = match taken(&self.places) {
                    Some(places) => {
                        let answer = self.host.answer(self.peer, question);
                        let answer = timeout(ANSWER_TIMEOUT, answer).await;
                        drop(places);
                        answer.unwrap_or_else(|_elapsed| Answer::status(UNAVAILABLE))
                    }
                    None => Answer::status(TOO_MANY),
                };
                drop(self.held);
                answer
            }
            Err(Fault::OverBudget(_)) => {
                rest = Rest::Unread;
                Answer::status(TOO_MANY)
            }
            Err(Fault::Decode(why)) => {
                tracing::warn!(peer.id = %ShortId(&self.peer), error = %why, "not a question");
                Answer::status(BAD)
            }
            Err(other) => return Err(other),
        };
        let sent = timeout(TRAVEL_TIMEOUT, send(stream, answer, rest)).await;
        sent.unwrap_or(Err(Fault::Ended))
    }

    /// Waits for the question. What does not come in time or is too much is not waited for.
    async fn arrival(&mut self, stream: &mut Stream) -> Result<Question, Fault> {
        if !self.in_time {
            return Err(OverBudget::Peer.into());
        }
        let frame = receive(stream, Question::buffer(), Some(&mut self.held));
        let frame = timeout(TRAVEL_TIMEOUT, frame).await;
        let frame = frame.map_err(|_elapsed| Fault::Ended)??;
        Ok(Question::decode(&frame)?)
    }
}

/// Takes a place of each kind.
fn taken(places: &[Arc<Semaphore>; 2]) -> Option<[OwnedSemaphorePermit; 2]> {
    let [own, all] = places;
    let own = Arc::clone(own).try_acquire_owned().ok()?;
    let all = Arc::clone(all).try_acquire_owned().ok()?;
    Some([own, all])
}

/// Whether the question was read to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Read,
    Unread,
}

/// Writes the answer. A substream on which the peer still writes is reset after it, not closed: the
/// peer would wait for room for ever.
async fn send(mut stream: Stream, answer: Answer, rest: Rest) -> Result<(), Fault> {
    let frame = answer.encode()?;
    drop(answer);
    let mut wire = Vec::new();
    frame_into(&mut wire, &frame, HEAD_BYTES + ANSWER_BODY_MAX)?;
    drop(frame);
    stream.write_all(&wire).await?;
    match rest {
        Rest::Read => stream.close().await?,
        Rest::Unread => stream.flush().await?,
    }
    Ok(())
}

/// Reads one frame; what has come of it counts, if it is another's to say how long it is.
async fn receive(
    stream: &mut Stream,
    mut frames: FrameBuffer,
    mut held: Option<&mut Share>,
) -> Result<Vec<u8>, Fault> {
    let mut buffer = Vec::new();
    loop {
        // The first bytes say how long it is; most are short.
        let room = if buffer.is_empty() {
            FIRST_READ_BYTES
        } else {
            READ_BYTES
        };
        buffer.resize(room, 0);
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Err(Fault::Ended);
        }
        let frame = frames.feed(&mut &buffer[..len])?;
        let bytes = frame
            .as_ref()
            .map_or_else(|| frames.unfinished(), Vec::capacity);
        if let Some(held) = held.as_deref_mut() {
            held.hold(bytes)?;
        }
        if let Some(frame) = frame {
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
            let asked = async {
                stream.write_all(&wire).await?;
                stream.close().await
            };
            let asked = asked.await;
            drop(wire);
            // Who does not want to hear the whole question may have said so.
            let frame = receive(&mut stream, Answer::buffer(), None).await;
            asked.or_else(|broken| if frame.is_ok() { Ok(()) } else { Err(broken) })?;
            Ok::<_, Fault>(Answer::decode(&frame?)?)
        };
        carried.await.map_err(|why| AskError::Lost {
            node,
            last: why.to_string(),
        })
    };
    let asked = timeout_at(deadline, exchange).await;
    asked.unwrap_or(Err(AskError::TimedOut))
}
