//! The kernel's way into the audit log: asynchronous, bounded, and never silent.

use std::fmt;
use std::sync::Arc;

use openfang_audit::{Ack, AppendError, Cause, Event, Log, Origin, Seq};
use tokio::sync::{Semaphore, oneshot};

use crate::tasks::ignore_gone;

/// How many entries may wait to become durable: more callers than this wait for a place. Below what
/// the queue of the log holds, so that [`Auditor::note`] finds room beside them.
const WAITING_MAX: usize = 2048;

/// Why an entry is not known to be in the log. What it was about must not be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The log refused it, or could not make it durable.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log went away without an answer.
    #[error("the audit log gave no answer")]
    Lost,
}

/// Where entries go. [`Log`] is the one that counts; tests have others.
pub trait Sink: Send + Sync + 'static {
    /// Queues an entry without blocking; `ack` is called once, when it is durable or has failed.
    ///
    /// # Errors
    /// When it was not queued; `ack` is not called then.
    fn append(&self, event: Event, ack: Ack) -> Result<(), AppendError>;

    /// Returns the name of the log.
    fn origin(&self) -> &Origin;
}

impl Sink for Log {
    fn append(&self, event: Event, ack: Ack) -> Result<(), AppendError> {
        Self::append(self, event, ack)
    }

    fn origin(&self) -> &Origin {
        Self::origin(self)
    }
}

/// Writes entries into the audit log of the node; cheap to clone.
#[derive(Clone)]
pub struct Auditor(Option<Arc<Inner>>);

struct Inner {
    sink: Box<dyn Sink>,
    places: Semaphore,
}

impl Auditor {
    /// For an open log.
    #[must_use]
    pub fn new(sink: impl Sink) -> Self {
        Self(Some(Arc::new(Inner {
            sink: Box::new(sink),
            places: Semaphore::new(WAITING_MAX),
        })))
    }

    /// For a node whose audit log is switched off: everything is allowed, nothing is written.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Writes an entry and waits until it is durable. `None` when the log is switched off.
    ///
    /// Cancel safety: an entry that was queued may become durable although nobody waits for it.
    ///
    /// # Errors
    /// When the entry is not known to be durable: what it is about must not be done.
    pub async fn record(&self, event: Event) -> Result<Option<Seq>, AuditError> {
        let Some(inner) = &self.0 else {
            return Ok(None);
        };
        let place = inner.places.acquire().await;
        let _place = place.map_err(|_closed| AuditError::Lost)?;
        let (answer, result) = oneshot::channel();
        let ack: Ack = Box::new(move |durable| {
            // Whoever waited may have gone away: the entry is written all the same.
            ignore_gone(answer.send(durable));
        });
        inner.sink.append(event, ack)?;
        let seq = result.await.map_err(|_lost| AuditError::Lost)??;
        Ok(Some(seq))
    }

    /// Writes an entry about something that has happened already and cannot be refused any more.
    /// Does not wait; a failure is logged with the kind of the entry.
    pub fn note(&self, event: Event) {
        let Some(inner) = &self.0 else {
            return;
        };
        let kind = event.kind();
        let ack: Ack = Box::new(move |durable| {
            if let Err(why) = durable {
                tracing::error!(audit.ev = %kind, %why, "an entry is not in the audit log");
            }
        });
        if let Err(why) = inner.sink.append(event, ack) {
            tracing::error!(audit.ev = %kind, %why, "an entry is not in the audit log");
        }
    }

    /// Returns how other logs point at an entry of this one.
    #[must_use]
    pub fn cause(&self, seq: Option<Seq>) -> Option<Cause> {
        let inner = self.0.as_ref()?;
        Some(Cause {
            origin: inner.sink.origin().clone(),
            seq: seq?.0,
        })
    }
}

impl fmt::Debug for Auditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(inner) => write!(f, "Auditor({})", inner.sink.origin().as_str()),
            None => f.write_str("Auditor(disabled)"),
        }
    }
}
