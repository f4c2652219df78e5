//! What waits for the writer.

use std::sync::mpsc::SyncSender;

use super::super::take_back::Lost;
use super::{Ack, AppendError, Event, Flush, Seq};

/// What the handles tell the writer.
pub(in crate::log) enum Command {
    Append(Entry),
    /// Dropped when no head is signed any more.
    Hold(SyncSender<()>),
    Release,
    TakeBack(Box<Lost>),
    Close,
}

/// A queued entry. Answered once: with its number, with an error, or with `Closed` when dropped.
pub(in crate::log) struct Entry {
    pub(super) event: Event,
    pub(super) unix_micros: u64,
    pub(super) flush: Flush,
    ack: Option<Ack>,
}

impl Entry {
    pub(in crate::log) fn new(event: Event, (unix_micros, flush): (u64, Flush), ack: Ack) -> Self {
        Self {
            event,
            unix_micros,
            flush,
            ack: Some(ack),
        }
    }

    /// An entry of the log itself: nobody waits for it.
    pub(super) fn own(event: Event, unix_micros: u64) -> Self {
        Self {
            event,
            unix_micros,
            flush: Flush::AtOnce,
            ack: None,
        }
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
