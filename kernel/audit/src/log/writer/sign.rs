//! The heads of the log: when one is due, and in which order it is signed and shown.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::open::write_checkpoint;
use super::super::redact::finish;
use super::{CloseError, Poison, Writer, lock};
use crate::heads::Found;
use crate::scan::lines;
use crate::storage::Small;
use crate::tree::leaf_hash;
use crate::{Checkpoint, SignedHead};

/// How often the whole file is read again.
const SCRUB_INTERVAL: Duration = Duration::from_secs(3600);
/// Up to here it takes less than the flush of a batch, and is done before every head.
const REREAD_BYTES: u64 = 2 << 20;

impl Writer {
    pub(super) fn head_is_due(&self) -> bool {
        self.unsigned() > 0 && (self.urgent || self.patience().is_zero())
    }

    /// How many entries wait for a head; none when the log has stopped.
    pub(super) fn unsigned(&self) -> u64 {
        let held = self.shared.held.load(Ordering::Acquire);
        if held || lock(&self.shared.condition).poison.is_some() {
            return 0;
        }
        let signed = lock(&self.shared.rest).signed.size();
        self.shared.size.load(Ordering::Acquire) - signed
    }

    /// Makes everything durable, signs and publishes a head over it. Looks at the file in any case.
    pub(super) fn publish(&mut self, idle: bool) -> io::Result<()> {
        self.head_micros = self.shared.clock.unix_micros();
        self.urgent = false;
        if self.flush_by.is_some() && self.flush().is_err() {
            // The log has stopped, and says why.
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let mut rest = lock(&shared.rest);
        shared.look_at_all(&mut rest)?;
        if rest.doubt && (self.reread_is_due() || rest.len - rest.base_len <= REREAD_BYTES) {
            shared.reread(&mut rest)?;
            self.reread_micros = self.head_micros;
        }
        let stopped = lock(&shared.condition).poison.is_some();
        let held = shared.held.load(Ordering::Acquire);
        let known = shared.known();
        if held || stopped || known.size == rest.signed.size() {
            return Ok(());
        }
        // A bit that flipped in memory between hashing and signing would be in the head for ever.
        let mut again = rest.signed.clone();
        let end = lines(
            &*shared.storage,
            rest.signed_len,
            rest.len,
            |_offset, bytes| {
                again.push(leaf_hash(bytes));
                ControlFlow::Continue(())
            },
        )?;
        let as_written = end.lines_end == rest.len
            && end.file_end == rest.len
            && again.size() == known.size
            && again.root() == known.root;
        if !as_written {
            rest.stamp = None;
            shared.look(&mut rest)?;
            shared.poison(Poison::NotAsWritten);
            return Ok(());
        }
        let signed_len = rest.len;
        drop(rest);
        let checkpoint = Checkpoint {
            origin: shared.origin.clone(),
            size: known.size,
            root: known.root,
        };
        let head = SignedHead::sign(checkpoint, &shared.options.key);
        self.raise_floor(&head).inspect_err(|error| {
            tracing::warn!(log.origin = %shared.origin, %error, idle, "no head can be signed");
        })?;
        if lock(&shared.condition).poison.is_some() {
            return Ok(());
        }
        let mut rest = lock(&shared.rest);
        rest.signed = again;
        rest.signed_len = signed_len;
        drop(rest);
        write_checkpoint(&shared, &head);
        self.show(head);
        Ok(())
    }

    /// Makes the head the signing floor, if the floor is still the one this process wrote.
    pub(in crate::log) fn raise_floor(&mut self, head: &SignedHead) -> io::Result<()> {
        let found = self.shared.storage.load(Small::Floor)?;
        if !self.floors.contains(&found) {
            self.shared.poison(Poison::FloorChanged);
            return Ok(());
        }
        let note = head.note.clone().into_bytes();
        self.floors = vec![found, Some(note.clone())];
        self.shared.storage.replace(Small::Floor, &note)?;
        self.floors = vec![Some(note)];
        Ok(())
    }

    /// Signs and shows no head from now on, not the last one either.
    pub(super) fn hold(&mut self) {
        self.shared.held.store(true, Ordering::Release);
        if let Some(shown) = lock(&self.shared.head).take() {
            self.unshown = Some(shown);
        }
    }

    /// Shows the last head, and signs from now on.
    pub(in crate::log) fn release(&mut self) {
        if let Err(error) = self.shared.storage.claim() {
            let dir = self.shared.options.dir.display();
            tracing::warn!(%error, %dir, "the next start asks about the audit log again: its floor cannot be written");
        }
        self.shared.held.store(false, Ordering::Release);
        self.head_micros = 0;
        if let Some(head) = self.unshown.take() {
            self.show(head);
        }
        let shared = Arc::clone(&self.shared);
        if let Err(error) = finish(&shared, self) {
            tracing::warn!(%error, "a redaction that was interrupted is not finished: the next one, or the next start, does that");
        }
    }

    /// Makes a head the one that others see; once the log is not held any more.
    pub(in crate::log) fn show(&mut self, head: SignedHead) {
        if self.shared.held.load(Ordering::Acquire) {
            self.unshown = Some(head);
            return;
        }
        *lock(&self.shared.head) = Some(head.clone());
        for listener in lock(&self.shared.listeners).iter() {
            listener(head.clone());
        }
    }

    pub(super) fn scrub_when_due(&mut self) {
        let now = self.shared.clock.unix_micros();
        let last = *self.scrub_micros.get_or_insert(now);
        let since = now.checked_sub(last).map(Duration::from_micros);
        let running = self
            .scrub
            .as_ref()
            .is_some_and(|scrub| !scrub.is_finished());
        if running || since.is_some_and(|since| since < SCRUB_INTERVAL) {
            return;
        }
        self.scrub_micros = Some(now);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("audit-scrub".to_owned());
        match thread.spawn(move || shared.scrub()) {
            Ok(scrub) => self.scrub = Some(scrub),
            Err(error) => tracing::warn!(%error, "the audit log is not read again"),
        }
    }

    pub(super) fn close(&mut self) -> Result<(), CloseError> {
        self.shared.closing.store(true, Ordering::Release);
        let published = self.publish(true);
        if let Some(scrub) = self.scrub.take() {
            scrub
                .join()
                .unwrap_or_else(|_panic| tracing::error!("re-reading the audit log panicked"));
        }
        if let Some(reason) = lock(&self.shared.condition).poison {
            return Err(CloseError::Poisoned { reason });
        }
        published
            .and_then(|()| self.mark_closed())
            .map_err(|error| CloseError::Head { kind: error.kind() })
    }

    /// Says that the log ends at its floor, until someone who holds the log writes on.
    fn mark_closed(&self) -> io::Result<()> {
        let signed = lock(&self.shared.rest).signed.size();
        match self.floors.as_slice() {
            [Some(floor)] if signed == self.shared.size.load(Ordering::Acquire) => {
                self.shared.storage.replace(Small::Closed, floor)
            }
            // What is not under the floor must be found again.
            _ => Ok(()),
        }
    }

    /// Makes the floor the published head, as it may be that a crash came between the two.
    pub(in crate::log) fn republish(&mut self, floor: SignedHead, published: &Found) {
        if *published != Found::Head(floor.clone()) {
            write_checkpoint(&self.shared, &floor);
        }
        self.show(floor);
    }
}
