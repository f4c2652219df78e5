//! The sync substreams of one connection: a reader and a writer task.
//!
//! Each side opens one substream of `/ofp/sync/1` and only writes on it: four bytes of length,
//! big-endian, then the message. The writer has a bounded queue, so a peer that does not read cannot
//! hold up the driver: when the queue is full the connection is closed. The reader waits for the
//! driver, so a peer that writes too much is slowed by its own connection.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use libp2p::swarm::{ConnectionId, Stream};
use openfang_id::NodeId;
use openfang_ofp::codec::FrameBuffer;
use openfang_ofp::roster::{FRAME_BYTES_MAX, LinkId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::handler::{Open, Opener, SYNC};

/// How many sync messages may wait for one peer. The roster sends a few a second; a burst is a join,
/// which sends the whole roster in pieces of up to 256 KiB.
const QUEUE: usize = 256;
/// How many bytes of them.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// How many messages of one link may wait for the driver: others are not to wait behind a peer that
/// sends more than it should.
const INBOUND_PER_LINK: usize = 4;
/// What the writer puts together before it writes.
const BATCH_BYTES: usize = 64 * 1024;
/// How much is read at once.
const READ_BYTES: usize = 16 * 1024;
/// Sync messages per second of one peer that are taken without waiting; a thousand records come in
/// far fewer messages.
const MESSAGES_PER_SECOND: u32 = 2_000;
/// How long a peer may take to open the sync substream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection to a member, as the driver keeps it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    pub(crate) connection: ConnectionId,
    pub(crate) reading: bool,
    pub(crate) span: tracing::Span,
    /// `None` once the last message is queued.
    out: Option<mpsc::Sender<Outbound>>,
    /// Bytes that the queue still takes.
    room: Arc<Semaphore>,
    writing: bool,
}

/// A sync message of a peer.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) link: LinkId,
    pub(crate) bytes: Vec<u8>,
    /// A place of the link among those that wait; free when the message was dealt with.
    pub(crate) place: OwnedSemaphorePermit,
}

/// A sync message for a peer, and its share of the queue.
#[derive(Debug)]
pub(crate) struct Outbound {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

/// A reader or writer is done.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) link: LinkId,
    pub(crate) why: EndedWhy,
}

/// Why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndedWhy {
    /// This node closed its direction after the last message.
    #[error("closed")]
    Closed,
    /// The peer opened no substream for sync, or refused ours.
    #[error("no sync substream: {0}")]
    Open(String),
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The peer closed its direction.
    #[error("the peer closed its sync substream")]
    PeerClosed,
    /// The peer broke the framing.
    #[error("{0}")]
    Frame(#[from] openfang_ofp::codec::FrameError),
}

/// The queue of a link is full: the peer does not read.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the peer does not read its sync messages")]
pub(crate) struct Overflow;

impl Link {
    /// Prepares a link and the queue its writer empties.
    pub(crate) fn new(
        peer: NodeId,
        connection: ConnectionId,
        span: tracing::Span,
    ) -> (Self, mpsc::Receiver<Outbound>) {
        let (out, queue) = mpsc::channel(QUEUE);
        let link = Self {
            peer,
            connection,
            reading: false,
            span,
            out: Some(out),
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            writing: true,
        };
        (link, queue)
    }

    /// Queues a message.
    ///
    /// # Errors
    /// When the queue is full or its writer has ended: the connection is to be closed.
    pub(crate) fn send(&self, bytes: Vec<u8>) -> Result<(), Overflow> {
        let Some(out) = &self.out else {
            return Ok(());
        };
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.room).try_acquire_many_owned(len);
        let message = Outbound {
            bytes,
            _share: share.map_err(|_full| Overflow)?,
        };
        out.try_send(message).map_err(|_full_or_ended| Overflow)
    }

    /// Queues nothing more; the writer ends when the queue is written.
    pub(crate) fn finish(&mut self) {
        self.out = None;
    }

    /// The writer has ended.
    pub(crate) fn on_written(&mut self) {
        self.out = None;
        self.writing = false;
    }

    /// Says whether messages may still have to be written.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing
    }
}

/// Writes the messages of the queue until the driver drops it.
pub(crate) async fn write(link: LinkId, opener: Opener, queue: mpsc::Receiver<Outbound>) -> Ended {
    let why = match write_all(opener, queue).await {
        Ok(()) => EndedWhy::Closed,
        Err(why) => why,
    };
    Ended { link, why }
}

async fn write_all(opener: Opener, mut queue: mpsc::Receiver<Outbound>) -> Result<(), EndedWhy> {
    let mut stream = open(opener).await?;
    let mut batch = Vec::new();
    while let Some(message) = queue.recv().await {
        batch.clear();
        put(&mut batch, &message.bytes);
        let mut shares = vec![message];
        while batch.len() < BATCH_BYTES {
            match queue.try_recv() {
                Ok(message) => {
                    put(&mut batch, &message.bytes);
                    shares.push(message);
                }
                Err(_empty_or_closed) => break,
            }
        }
        stream.write_all(&batch).await?;
        stream.flush().await?;
        // Only now is there room for more.
        drop(shares);
    }
    stream.close().await?;
    Ok(())
}

async fn open(opener: Opener) -> Result<Stream, EndedWhy> {
    let (reply, opened) = oneshot::channel();
    let open = Open {
        protocol: SYNC,
        reply,
    };
    let gone = || EndedWhy::Open("the connection ended".to_owned());
    opener.send(open).await.map_err(|_gone| gone())?;
    match tokio::time::timeout(OPEN_TIMEOUT, opened).await {
        Ok(Ok(Ok(stream))) => Ok(stream),
        Ok(Ok(Err(why))) => Err(EndedWhy::Open(why.to_string())),
        Ok(Err(_dropped)) => Err(gone()),
        Err(_elapsed) => Err(EndedWhy::Open("no answer".to_owned())),
    }
}

fn put(batch: &mut Vec<u8>, message: &[u8]) {
    let len = u32::try_from(message.len()).expect("the roster's messages have at most 256 KiB");
    batch.extend_from_slice(&len.to_be_bytes());
    batch.extend_from_slice(message);
}

/// Reads messages and hands them to the driver until the substream ends.
pub(crate) async fn read(link: LinkId, stream: Stream, driver: mpsc::Sender<Inbound>) -> Ended {
    let why = match read_all(link, stream, driver).await {
        Ok(()) => EndedWhy::PeerClosed,
        Err(why) => why,
    };
    Ended { link, why }
}

async fn read_all(
    link: LinkId,
    mut stream: Stream,
    driver: mpsc::Sender<Inbound>,
) -> Result<(), EndedWhy> {
    let rate = NonZeroU32::new(MESSAGES_PER_SECOND).unwrap_or(NonZeroU32::MIN);
    let pace: DefaultDirectRateLimiter = RateLimiter::direct(Quota::per_second(rate));
    let clock = DefaultClock::default();
    let places = Arc::new(Semaphore::new(INBOUND_PER_LINK));
    let mut frames = FrameBuffer::new(FRAME_BYTES_MAX);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            frames.finish()?;
            return Ok(());
        }
        let mut input = &buffer[..len];
        while let Some(bytes) = frames.feed(&mut input)? {
            while let Err(early) = pace.check() {
                tokio::time::sleep(early.wait_time_from(clock.now())).await;
            }
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return Ok(());
            };
            let message = Inbound { link, bytes, place };
            if driver.send(message).await.is_err() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_does_not_read_holds_up_nobody() {
        let peer = openfang_id::NodeSeed::from_bytes([4; 32]).keys().node_id();
        let connection = ConnectionId::new_unchecked(1);
        let (mut link, queue) = Link::new(peer, connection, tracing::Span::none());
        for _message in 0..QUEUE {
            assert!(link.send(vec![1]).is_ok());
        }
        assert!(link.send(vec![1]).is_err());
        drop(queue);
        let (few, queue) = Link::new(peer, connection, tracing::Span::none());
        let largest = || vec![1; FRAME_BYTES_MAX];
        let taken = (0..QUEUE).take_while(|_nth| few.send(largest()).is_ok());
        assert_eq!(taken.count(), QUEUE_BYTES / FRAME_BYTES_MAX);
        drop(queue);
        assert!(link.send(vec![1]).is_err());
        link.finish();
        assert!(
            link.send(vec![1]).is_ok(),
            "what comes after the end is dropped"
        );
    }
}
