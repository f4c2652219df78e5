//! An audit log that can fail.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use openfang_audit::{Ack, AppendError, Event, Flush, Kind, Origin, Seq};
use openfang_id::NodeSeed;
use openfang_kernel::Sink;

/// An audit log in memory, which refuses the kinds it is told to.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<RecorderInner>);

struct RecorderInner {
    origin: Origin,
    events: Mutex<Vec<Event>>,
    flushes: Mutex<Vec<Flush>>,
    refused: Mutex<Vec<Kind>>,
    /// Why no head is signed, when none is.
    full: Mutex<Option<ErrorKind>>,
    /// Answers that wait, once they are to.
    waiting: Mutex<Option<Vec<(Ack, Seq)>>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let node = NodeSeed::from_bytes([9; 32]).keys().node_id();
        Self(Arc::new(RecorderInner {
            origin: Origin::of(&node, 1),
            events: Mutex::default(),
            flushes: Mutex::default(),
            refused: Mutex::default(),
            full: Mutex::default(),
            waiting: Mutex::default(),
        }))
    }

    pub(crate) fn refuse(&self, kind: Kind) {
        self.0.refused.lock().expect("no panic").push(kind);
    }

    /// From now on no head is signed.
    pub(crate) fn sign_nothing(&self, why: ErrorKind) {
        *self.0.full.lock().expect("no panic") = Some(why);
    }

    /// From now on entries are written and not answered, up to [`Recorder::answer`].
    pub(crate) fn keep_waiting(&self) {
        *self.0.waiting.lock().expect("no panic") = Some(Vec::new());
    }

    /// Answers what waits, and from now on everything at once.
    pub(crate) fn answer(&self) {
        let waiting = self.0.waiting.lock().expect("no panic").take();
        for (ack, seq) in waiting.into_iter().flatten() {
            ack(Ok(seq));
        }
    }

    /// How each entry was to be flushed.
    pub(crate) fn flushes(&self) -> Vec<Flush> {
        self.0.flushes.lock().expect("no panic").clone()
    }

    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.0
            .events
            .lock()
            .expect("no panic")
            .iter()
            .map(Event::kind)
            .collect()
    }

    /// Everything that was written, as text.
    pub(crate) fn text(&self, kind: Kind) -> Vec<String> {
        let events = self.0.events.lock().expect("no panic");
        events
            .iter()
            .filter(|event| event.kind() == kind)
            .map(|event| format!("{event:?}"))
            .collect()
    }
}

impl Sink for Recorder {
    fn append(&self, event: Event, flush: Flush, ack: Ack) -> Result<(), AppendError> {
        if self
            .0
            .refused
            .lock()
            .expect("no panic")
            .contains(&event.kind())
        {
            return Err(AppendError::Full);
        }
        let mut events = self.0.events.lock().expect("no panic");
        events.push(event);
        self.0.flushes.lock().expect("no panic").push(flush);
        let seq = Seq(events.len() as u64 - 1);
        drop(events);
        if let Some(waiting) = &mut *self.0.waiting.lock().expect("no panic") {
            waiting.push((ack, seq));
            return Ok(());
        }
        ack(Ok(seq));
        Ok(())
    }

    fn origin(&self) -> &Origin {
        &self.0.origin
    }

    fn has_signed(&self, _seq: Seq) -> bool {
        self.failing().is_none()
    }

    fn failing(&self) -> Option<ErrorKind> {
        *self.0.full.lock().expect("no panic")
    }
}
