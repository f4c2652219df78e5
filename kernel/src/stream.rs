//! The events of a running turn, as its caller sees them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use futures::stream::BoxStream;
use openfang_id::{AgentId, AgentName, NodeId, NodeName};
use tokio::sync::mpsc;

use crate::TurnError;

/// One thing that happened in a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum TurnEvent {
    /// The next piece of the answer, at most [`CHUNK_BYTES_MAX`] bytes.
    Chunk {
        /// The text.
        text: String,
    },
    /// A tool is about to run.
    ToolStart {
        /// Pairs it with its end.
        id: String,
        /// The tool.
        tool: String,
        /// Its arguments as JSON text, cut at [`SHOWN_BYTES_MAX`] bytes.
        input: String,
    },
    /// A tool has ended.
    ToolEnd {
        /// Pairs it with its start.
        id: String,
        /// The tool.
        tool: String,
        /// What the model is told, cut at [`SHOWN_BYTES_MAX`] bytes.
        output: String,
        /// Whether the tool failed or was refused.
        is_error: bool,
    },
    /// The turn is over; the last event.
    Done(TurnDone),
    /// The turn has failed; the last event.
    Failed(TurnError),
}

/// The end of a turn that went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnDone {
    /// The whole answer: the texts of all chunks, one after the other.
    pub response: String,
    /// Tokens the model read, over all requests of the turn; 0 when its server does not say.
    pub input_tokens: u64,
    /// Tokens the model wrote; 0 when its server does not say.
    pub output_tokens: u64,
    /// How often the model was asked; 1 for an agent without a model.
    pub iterations: u32,
    /// The agent that answered.
    pub agent_id: AgentId,
    /// Its name.
    pub agent_name: AgentName,
    /// The node it ran on.
    pub node_id: NodeId,
    /// What that node calls itself.
    pub node_name: NodeName,
    /// The entry of that node's audit log for the message, as `origin#seq`.
    pub cause: Option<String>,
}

/// The longest text of one chunk, in bytes: half of what a chunk of the mesh holds.
pub const CHUNK_BYTES_MAX: usize = 32 * 1024;

/// The most bytes of a tool's input or output that are shown to the caller of a turn.
pub const SHOWN_BYTES_MAX: usize = 16 * 1024;

/// The events of one turn: any number of chunks and tools, then exactly one [`TurnEvent::Done`] or
/// [`TurnEvent::Failed`], then the end. Dropping it cancels the turn.
///
/// Cancel safety: [`TurnStream::next`] loses nothing when it is dropped before it is ready.
pub struct TurnStream {
    source: Source,
    ended: bool,
}

enum Source {
    Channel(mpsc::Receiver<TurnEvent>),
    Stream(BoxStream<'static, TurnEvent>),
}

impl TurnStream {
    /// Makes a stream that is fed from the other end of a bounded channel. When the sender goes
    /// away without a last event, the stream ends with [`TurnError::Cut`].
    #[must_use]
    pub fn channel(capacity: usize) -> (mpsc::Sender<TurnEvent>, Self) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let stream = Self {
            source: Source::Channel(receiver),
            ended: false,
        };
        (sender, stream)
    }

    /// Makes a stream of any other one, with the same promise about its end.
    #[must_use]
    pub fn from_stream(stream: impl Stream<Item = TurnEvent> + Send + 'static) -> Self {
        Self {
            source: Source::Stream(Box::pin(stream)),
            ended: false,
        }
    }

    /// Makes a stream that has ended.
    pub(crate) fn ended() -> Self {
        Self {
            source: Source::Stream(Box::pin(futures::stream::empty())),
            ended: true,
        }
    }

    /// Waits for the next event; `None` after the last.
    pub async fn next(&mut self) -> Option<TurnEvent> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Waits for the end and returns it.
    ///
    /// # Errors
    /// When the turn failed.
    pub async fn finish(mut self) -> Result<TurnDone, TurnError> {
        while let Some(event) = self.next().await {
            match event {
                TurnEvent::Done(done) => return Ok(done),
                TurnEvent::Failed(error) => return Err(error),
                TurnEvent::Chunk { .. }
                | TurnEvent::ToolStart { .. }
                | TurnEvent::ToolEnd { .. } => {}
            }
        }
        Err(TurnError::Cut)
    }
}

impl Stream for TurnStream {
    type Item = TurnEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TurnEvent>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = match &mut self.source {
            Source::Channel(receiver) => receiver.poll_recv(cx),
            Source::Stream(stream) => stream.as_mut().poll_next(cx),
        };
        polled.map(|event| {
            let event = event.unwrap_or(TurnEvent::Failed(TurnError::Cut));
            self.ended = matches!(event, TurnEvent::Done(_) | TurnEvent::Failed(_));
            Some(event)
        })
    }
}

impl fmt::Debug for TurnStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnStream")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &str) -> TurnEvent {
        TurnEvent::Chunk { text: text.into() }
    }

    #[tokio::test]
    async fn a_stream_whose_source_goes_away_ends_with_a_failure() {
        let (sender, mut stream) = TurnStream::channel(4);
        sender.send(chunk("a")).await.expect("open");
        drop(sender);
        assert_eq!(stream.next().await, Some(chunk("a")));
        assert_eq!(stream.next().await, Some(TurnEvent::Failed(TurnError::Cut)));
        assert_eq!(stream.next().await, None);
    }

    #[tokio::test]
    async fn nothing_follows_the_last_event() {
        let failed = TurnEvent::Failed(TurnError::Cancelled);
        let mut stream =
            TurnStream::from_stream(futures::stream::iter([failed.clone(), chunk("late")]));
        assert_eq!(stream.next().await, Some(failed));
        assert_eq!(stream.next().await, None);
    }
}
