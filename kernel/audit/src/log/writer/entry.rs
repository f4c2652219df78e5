//! What waits for the writer.

use std::sync::mpsc::SyncSender;

use super::super::take_back::Lost;
use super::{Ack, AppendError, Event, Flush, Seq};
use crate::guard::Admitted;
use crate::vault::Opening;

/// What the handles tell the writer.
pub(in crate::log) enum Command {
    Append(Box<Entry>),
    /// Dropped when no head is signed any more.
    Hold(SyncSender<()>),
    Release,
    TakeBack(Box<Lost>),
    Close,
}

/// A queued entry. Answered once: with its number, with an error, or with `Closed` when dropped.
pub(in crate::log) struct Entry {
    pub(super) event: Event,
    pub(super) openings: Box<[Opening]>,
    pub(super) unix_micros: u64,
    pub(super) flush: Flush,
    ack: Option<Ack>,
}

impl Entry {
    /// Without an `ack` it is one of the log itself: nobody waits for it.
    pub(in crate::log) fn new(
        admitted: Admitted,
        (unix_micros, flush): (u64, Flush),
        ack: Option<Ack>,
    ) -> Self {
        Self {
            event: admitted.event,
            openings: admitted.openings,
            unix_micros,
            flush,
            ack,
        }
    }

    /// Tells whether a head over it is signed at once.
    pub(super) fn is_urgent(&self) -> bool {
        self.flush == Flush::Signed || self.event.kind().is_change()
    }

    /// Drops the entry without an answer.
    pub(in crate::log) fn forget(mut self) {
        self.ack = None;
    }

    pub(super) fn answer(mut self, result: Result<Seq, AppendError>) {
        if let Some(ack) = self.ack.take() {
            ack(result);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(ack) = self.ack.take() {
            ack(Err(AppendError::Closed));
        }
    }
}
