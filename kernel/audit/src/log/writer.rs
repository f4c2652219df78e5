//! The one thread that writes: batches of lines, and heads.

mod entry;
mod sign;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub(super) use self::entry::{Command, Entry};
use super::shared::{Rest, Shared, lock};
use super::take_back::Lost;
use super::{Ack, AppendError, CloseError, Flush, Poison};
use crate::clock::StepWatch;
use crate::forest::BLOCK_LEAVES;
use crate::line::{Context, LINE_BYTES_MAX, render};
use crate::storage::{Part, SEGMENT_LINES};
use crate::tree::leaf_hash;
use crate::{Event, Hash, Hybrid, Seq, SignedHead};

/// How many entries may wait: a batch that is being written, and the one after it.
const QUEUE_ENTRIES: usize = 2 * BATCH_ENTRIES_MAX;
/// The most entries of one batch. At 300 bytes each, a larger one is bound by the disk's bandwidth.
const BATCH_ENTRIES_MAX: usize = 4096;
/// The most bytes of one batch.
const BATCH_BYTES_MAX: usize = 2 << 20;
/// The shortest time between two heads while entries arrive.
const HEAD_INTERVAL: Duration = Duration::from_millis(250);
/// How often an idle log looks whether someone else touched the file.
const IDLE_INTERVAL: Duration = Duration::from_secs(60);
/// How often what is not sealed is read again while entries arrive, where that takes a while.
const REREAD_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is looked whether the reserve is there.
const RESERVE_INTERVAL: Duration = Duration::from_secs(60);
/// How often it is tried again to write what is owed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The most entries that are owed: each stands for one that found room.
const OWED_MAX: usize = 1_024;
/// How long the writer waits for the next of the callers it just answered. Callers that wait for
/// their answers come back within microseconds; without the pause half of them would just miss
/// each flush, which takes milliseconds.
const GATHER_PAUSE: Duration = Duration::from_micros(200);
/// How long it waits for all of them together.
const GATHER_TOTAL_MICROS: u64 = 1_000;
/// How many batches at most go without waiting after it was in vain.
const GATHER_SKIP_MAX: u32 = 64;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    node: String,
    pub(super) hybrid: Hybrid,
    /// What is to be done besides writing entries, in the order in which it came.
    jobs: VecDeque<Job>,
    steps: StepWatch,
    /// The last head, as long as it is not shown.
    unshown: Option<SignedHead>,
    /// What may stand in the floor: the last one written, and any whose writing failed half-way.
    floors: Vec<Option<Vec<u8>>>,
    head_micros: u64,
    /// Whether a change of the node, or somebody, waits for a head.
    urgent: bool,
    /// By when lines that were answered already must be on the disk, by the clock that never steps.
    flush_by: Option<u64>,
    reread_micros: u64,
    scrub_micros: Option<u64>,
    reserve_micros: Option<u64>,
    scrub: Option<JoinHandle<()>>,
    waiting: VecDeque<Entry>,
    /// What says of earlier entries that they are not so, and found no room on the disk.
    owed: VecDeque<Entry>,
    text: Vec<u8>,
    leaves: Vec<Hash>,
    /// Where each line of the batch ends, within the batch.
    ends: Vec<u64>,
    batch: Vec<Entry>,
    gather: Gather,
}

/// How many callers are expected back, and whether waiting for them has been worth it.
#[derive(Debug, Default)]
struct Gather {
    expected: usize,
    skip: u32,
    penalty: u32,
}

/// What a handle asks for that is no entry.
enum Job {
    Hold(SyncSender<()>),
    Release,
    TakeBack(Box<Lost>),
}

/// The thread of a writer; it ends with the answer to [`Log::close`](super::Log::close).
pub(super) type Thread = JoinHandle<Result<(), CloseError>>;

/// Starts the thread of a writer.
pub(super) fn start(mut writer: Writer) -> io::Result<(SyncSender<Command>, Thread)> {
    let (sender, receiver) = sync_channel(QUEUE_ENTRIES);
    let thread = std::thread::Builder::new()
        .name("audit-log".to_owned())
        .spawn(move || writer.run(&receiver))?;
    Ok((sender, thread))
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, hybrid: Hybrid, floor: &SignedHead) -> Self {
        Self {
            node: shared.options.node.to_string(),
            shared,
            hybrid,
            jobs: VecDeque::new(),
            steps: StepWatch::default(),
            unshown: None,
            floors: vec![Some(floor.note.clone().into_bytes())],
            head_micros: 0,
            urgent: false,
            flush_by: None,
            reread_micros: 0,
            scrub_micros: None,
            reserve_micros: None,
            scrub: None,
            waiting: VecDeque::new(),
            owed: VecDeque::new(),
            text: Vec::new(),
            leaves: Vec::new(),
            ends: Vec::new(),
            batch: Vec::new(),
            gather: Gather::default(),
        }
    }

    /// Has the whole log read soon: what is sealed was taken on the word of its blocks.
    pub(super) fn scrub_soon(&mut self) {
        self.scrub_micros = Some(0);
    }

    /// Writes one entry before the thread runs.
    pub(super) fn append_now(&mut self, event: Event) -> Result<Seq, AppendError> {
        let (sender, receiver) = sync_channel(1);
        let ack: Ack = Box::new(move |result| {
            if sender.send(result).is_err() {
                tracing::debug!("nobody waits for the entry any more");
            }
        });
        let now = self.shared.clock.unix_micros();
        self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let admitted = self.shared.guard.admit(event);
        let when = (now, Flush::AtOnce);
        self.waiting
            .push_back(Entry::new(admitted, when, Some(ack)));
        self.commit();
        receiver.recv().unwrap_or(Err(AppendError::Closed))
    }

    fn run(&mut self, receiver: &Receiver<Command>) -> Result<(), CloseError> {
        let mut open = true;
        while open {
            let mut idle = false;
            let patience = self.patience();
            let flush = self.flush_in();
            let mut flush_now = flush == Some(Duration::ZERO);
            match receiver.recv_timeout(flush.unwrap_or(patience).min(patience)) {
                Ok(command) => open = self.accept(command),
                Err(RecvTimeoutError::Disconnected) => open = false,
                Err(RecvTimeoutError::Timeout) => {
                    flush_now = flush.is_some_and(|flush| flush <= patience);
                    idle = !flush_now;
                }
            }
            open &= self.drain(receiver);
            if open {
                open &= self.gather(receiver);
            }
            self.commit();
            if flush_now && self.flush_by.is_some() {
                // A failure stops the log, which says why.
                let _stopped = self.flush();
            }
            self.work();
            if open && (idle || self.head_is_due()) {
                // The reason is in the log; the entries stay, and it is tried again.
                drop(self.publish(idle));
                self.scrub_when_due();
                self.fill_reserve_when_due();
            }
        }
        while self.drain(receiver) && !self.waiting.is_empty() {
            self.commit();
        }
        self.commit();
        for entry in self.owed.drain(..) {
            entry.answer(Err(AppendError::Closed));
        }
        self.close()
    }

    /// Takes what a handle sent. Returns false when the log is to be closed.
    fn accept(&mut self, command: Command) -> bool {
        match command {
            Command::Append(entry) => self.waiting.push_back(*entry),
            Command::Hold(done) => self.jobs.push_back(Job::Hold(done)),
            Command::Release => self.jobs.push_back(Job::Release),
            Command::TakeBack(lost) => self.jobs.push_back(Job::TakeBack(lost)),
            Command::Close => return false,
        }
        true
    }

    /// Does what is to be done besides writing entries.
    fn work(&mut self) {
        while let Some(job) = self.jobs.pop_front() {
            match job {
                Job::Hold(done) => {
                    self.hold();
                    drop(done);
                }
                Job::Release => self.release(),
                Job::TakeBack(lost) => self.answer_take_back(*lost),
            }
        }
    }

    /// How long to wait for an entry before a head is due, or the file is looked at.
    fn patience(&self) -> Duration {
        let patience = self.patience_with_heads();
        if self.owed.is_empty() {
            patience
        } else {
            patience.min(RETRY_INTERVAL)
        }
    }

    fn patience_with_heads(&self) -> Duration {
        if self.unsigned() == 0 {
            return if lock(&self.shared.rest).doubt {
                REREAD_INTERVAL
            } else {
                IDLE_INTERVAL
            };
        }
        let now = self.shared.clock.unix_micros();
        let since = Duration::from_micros(now.checked_sub(self.head_micros).unwrap_or(u64::MAX));
        HEAD_INTERVAL.saturating_sub(since)
    }

    /// How long lines that were answered may still wait for the disk; `None` when there are none.
    fn flush_in(&self) -> Option<Duration> {
        let by = self.flush_by?;
        let now = self.shared.clock.monotonic_micros();
        Some(Duration::from_micros(by.saturating_sub(now)))
    }

    /// Makes everything that was written durable.
    fn flush(&mut self) -> Result<(), AppendError> {
        self.flush_by = None;
        self.shared.storage.sync_log().map_err(|error| {
            let reason = Poison::Sync(error.kind());
            self.shared.poison(reason);
            AppendError::Poisoned { reason }
        })
    }

    /// Makes the batch that was written durable, now or by when its entries say.
    fn flush_batch(&mut self) -> Result<(), AppendError> {
        let mut within: Option<Duration> = None;
        for entry in &self.batch {
            match entry.flush {
                Flush::AtOnce | Flush::Signed => return self.flush(),
                Flush::Within(time) => within = Some(within.map_or(time, |least| least.min(time))),
            }
        }
        let now = self.shared.clock.monotonic_micros();
        let by = within.map(|time| now.saturating_add(micros(time)));
        self.flush_by = self.flush_by.into_iter().chain(by).min();
        Ok(())
    }

    fn reread_is_due(&self) -> bool {
        let now = self.shared.clock.unix_micros();
        let since = now
            .checked_sub(self.reread_micros)
            .map(Duration::from_micros);
        since.is_none_or(|since| since >= REREAD_INTERVAL)
    }

    /// Takes what is queued. Returns false when the log is to be closed.
    fn drain(&mut self, receiver: &Receiver<Command>) -> bool {
        while self.waiting.len() < BATCH_ENTRIES_MAX {
            match receiver.try_recv() {
                Ok(command) => {
                    if !self.accept(command) {
                        return false;
                    }
                }
                Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => break,
            }
        }
        true
    }

    /// Waits a little for the callers that were just answered. Returns false when the log is to be
    /// closed.
    fn gather(&mut self, receiver: &Receiver<Command>) -> bool {
        let wanted = self.gather.expected.min(BATCH_ENTRIES_MAX);
        let flushed = |entry: &Entry| matches!(entry.flush, Flush::AtOnce | Flush::Signed);
        if !self.waiting.iter().any(flushed) || self.waiting.len() >= wanted {
            return true;
        }
        if self.gather.skip > 0 {
            self.gather.skip -= 1;
            return true;
        }
        let start = self.shared.clock.unix_micros();
        while self.waiting.len() < wanted {
            let waited = self.shared.clock.unix_micros().checked_sub(start);
            if waited.is_none_or(|waited| waited > GATHER_TOTAL_MICROS) {
                break;
            }
            match receiver.recv_timeout(GATHER_PAUSE) {
                Ok(command) => {
                    if !self.accept(command) {
                        return false;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        let gather = &mut self.gather;
        if self.waiting.len() >= wanted {
            gather.penalty = 0;
        } else {
            gather.penalty = (gather.penalty * 2 + 1).min(GATHER_SKIP_MAX);
            gather.skip = gather.penalty;
        }
        true
    }

    /// Writes everything that waits, batch by batch.
    fn commit(&mut self) {
        self.shared
            .in_flight
            .fetch_add(self.owed.len(), Ordering::Relaxed);
        for entry in self.owed.drain(..).rev() {
            self.waiting.push_front(entry);
        }
        while !self.waiting.is_empty() {
            let shared = Arc::clone(&self.shared);
            let mut rest = lock(&shared.rest);
            let result = self.write_batch(&mut rest);
            drop(rest);
            let result = result.or_else(|error| self.write_essential(error));
            shared.set_failing(match result {
                Err(AppendError::Disk { kind }) => Some(kind),
                Ok(_) | Err(_) => None,
            });
            self.answer(result);
        }
    }

    /// Writes what must be written although the disk is full, into the room that is kept for it; what
    /// else was in the batch is refused.
    fn write_essential(&mut self, error: AppendError) -> Result<u64, AppendError> {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        let is_full = matches!(error, AppendError::Disk { kind } if full.contains(&kind));
        if !is_full || !self.batch.iter().any(|entry| entry.event.is_essential()) {
            return Err(error);
        }
        match self.shared.storage.free_reserve() {
            Ok(true) => {}
            Ok(false) => return Err(error),
            Err(why) => {
                tracing::warn!(log.origin = %self.shared.origin, error = %why, "the reserve of the audit log cannot be used");
                return Err(error);
            }
        }
        tracing::error!(log.origin = %self.shared.origin, "the disk is full: the reserve of the audit log is used for its last entries");
        self.reserve_micros = None;
        let batch = std::mem::take(&mut self.batch);
        let (essential, rest): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .partition(|entry| entry.event.is_essential());
        self.batch = rest;
        self.answer(Err(error));
        for entry in essential.into_iter().rev() {
            self.waiting.push_front(entry);
        }
        let shared = Arc::clone(&self.shared);
        let mut rest = lock(&shared.rest);
        self.write_batch(&mut rest)
    }

    /// Keeps room on the disk for the last entries, when there is time.
    fn fill_reserve_when_due(&mut self) {
        let now = self.shared.clock.unix_micros();
        let since = self.reserve_micros.and_then(|last| now.checked_sub(last));
        if since.is_some_and(|since| Duration::from_micros(since) < RESERVE_INTERVAL) {
            return;
        }
        self.reserve_micros = Some(now);
        if let Err(error) = self.shared.storage.fill_reserve() {
            tracing::warn!(log.origin = %self.shared.origin, %error, "there is no room on the disk for the reserve of the audit log");
        }
    }

    fn answer(&mut self, result: Result<u64, AppendError>) {
        self.gather.expected = self.shared.in_flight.load(Ordering::Relaxed);
        let answered = self.batch.len();
        self.shared.in_flight.fetch_sub(answered, Ordering::Relaxed);
        match result {
            Ok(first) => {
                for (seq, entry) in (first..).zip(self.batch.drain(..)) {
                    entry.answer(Ok(Seq(seq)));
                }
            }
            Err(error) => {
                for entry in self.batch.drain(..) {
                    let is_full = matches!(error, AppendError::Disk { .. });
                    if is_full && entry.event.takes_back && self.owed.len() < OWED_MAX {
                        self.owed.push_back(entry);
                    } else {
                        entry.answer(Err(error));
                    }
                }
            }
        }
    }

    /// Writes one batch and makes it durable; returns the number of its first entry.
    fn write_batch(&mut self, rest: &mut Rest) -> Result<u64, AppendError> {
        let shared = Arc::clone(&self.shared);
        let first = shared.size.load(Ordering::Acquire);
        if let Err(error) = shared.look(rest) {
            self.batch.extend(self.waiting.drain(..));
            return Err(AppendError::Disk { kind: error.kind() });
        }
        if let Some(reason) = lock(&shared.condition).poison {
            self.batch.extend(self.waiting.drain(..));
            return Err(AppendError::Poisoned { reason });
        }
        if let Err(error) = self.seal_when_full(rest) {
            self.batch.extend(self.waiting.drain(..));
            return Err(AppendError::Disk { kind: error.kind() });
        }
        self.note_clock_step();
        self.render_batch(first);
        if self.leaves.is_empty() {
            return Ok(first);
        }
        if let Err(error) = self.keep_openings(first) {
            return Err(AppendError::Disk { kind: error.kind() });
        }
        if let Err(error) = write_all(&shared, &self.text) {
            // Whatever part of it was written must not be taken for lines.
            match shared.storage.cut_log(rest.len) {
                Ok(()) => rest.stamp = shared.storage.stamp().ok(),
                Err(undo) => shared.poison(Poison::Undo(undo.kind())),
            }
            return Err(AppendError::Disk { kind: error.kind() });
        }
        if let Err(why) = self.flush_batch() {
            // Nobody may count on these lines, and the next start would take them for what was done.
            if let Err(undo) = shared.storage.cut_log(rest.len) {
                tracing::warn!(log.origin = %shared.origin, error = %undo, "entries that were refused may be in the log at the next start");
            }
            return Err(why);
        }
        self.urgent |= self.batch.iter().any(Entry::is_urgent);
        let start = rest.len;
        rest.doubt = true;
        rest.len += self.text.len() as u64;
        rest.stamp = shared.storage.stamp().ok();
        self.remember(first, start);
        Ok(first)
    }

    /// Makes what the lines of the batch commit to durable, before them.
    fn keep_openings(&self, first: u64) -> io::Result<()> {
        let Some(vault) = self.shared.guard.vault() else {
            return Ok(());
        };
        let entries = (first..).zip(&self.batch);
        let mut openings = entries
            .flat_map(|(seq, entry)| entry.openings.iter().map(move |opening| (seq, opening)))
            .peekable();
        if openings.peek().is_none() {
            return Ok(());
        }
        vault.write(openings)
    }

    /// Puts a full segment aside before the next line is written.
    fn seal_when_full(&mut self, rest: &mut Rest) -> io::Result<()> {
        let shared = &self.shared;
        let size = shared.size.load(Ordering::Acquire);
        let sealed = shared.storage.sealed().lines;
        let Some(first) = sealed.filter(|first| *first <= size) else {
            return Ok(());
        };
        // What may have to make room for lost entries is not sealed.
        let held = shared.held.load(Ordering::Acquire);
        if held || size - first < SEGMENT_LINES || !size.is_multiple_of(BLOCK_LEAVES as u64) {
            return Ok(());
        }
        if self.flush_by.is_some() && self.flush().is_err() {
            return Err(io::Error::other("the lines before are not durable"));
        }
        let shared = &self.shared;
        if rest.doubt {
            shared.reread(rest)?;
        }
        shared.storage.seal(first..size)?;
        rest.base = shared.index().forest.compact();
        rest.base_len = rest.len;
        rest.stamp = Some(shared.storage.stamp()?);
        rest.sealed = Some(shared.storage.sealed_stamp()?);
        Ok(())
    }

    /// Adds the lines that are now durable to the tree, in memory and on disk.
    fn remember(&mut self, first: u64, start: u64) {
        let shared = &self.shared;
        let mut index = shared.index.write().unwrap_or_else(PoisonError::into_inner);
        self.text.clear();
        let blocks = index.full_blocks();
        let begins = std::iter::once(&0).chain(&self.ends);
        for (leaf, begin) in self.leaves.iter().zip(begins) {
            index.push(*leaf, start + begin);
            self.text.extend_from_slice(leaf.as_bytes());
        }
        shared.size.store(index.forest.size(), Ordering::Release);
        drop(index);
        let offset = first * Hash::BYTES as u64;
        let written = shared
            .storage
            .write_derived(Part::Hashes, offset, &self.text)
            .and_then(|()| shared.index().write_blocks(&*shared.storage, blocks));
        if let Err(error) = written {
            tracing::warn!(
                log.origin = %shared.origin,
                %error,
                "leaf hashes were not written; they are computed again when needed"
            );
        }
    }

    /// Has an entry written first when the wall clock was set.
    fn note_clock_step(&mut self) {
        if let Some(step) = self.steps.look(&*self.shared.clock) {
            let now = self.shared.clock.unix_micros();
            self.shared.in_flight.fetch_add(1, Ordering::Relaxed);
            let admitted = self.shared.guard.admit(Event::clock_step(step));
            // An entry of the log itself: nobody waits for it.
            let when = (now, Flush::AtOnce);
            self.waiting.push_front(Entry::new(admitted, when, None));
        }
    }

    /// Writes the lines of the next batch into memory and hashes them.
    fn render_batch(&mut self, first: u64) {
        self.text.clear();
        self.leaves.clear();
        self.ends.clear();
        let sealed = self.shared.storage.sealed().lines.unwrap_or_default();
        let room = match SEGMENT_LINES.checked_sub(first.saturating_sub(sealed)) {
            Some(room) if room > 0 => room,
            // Restored as one file: it is sealed at the end of the next block.
            Some(_) | None => BLOCK_LEAVES as u64 - first % BLOCK_LEAVES as u64,
        };
        let most = BATCH_ENTRIES_MAX.min(usize::try_from(room).unwrap_or(usize::MAX));
        let seen = Hybrid::from_u64(self.shared.hybrid.load(Ordering::Acquire));
        self.hybrid = self.hybrid.max(seen);
        while self.batch.len() < most && self.text.len() < BATCH_BYTES_MAX {
            let Some(entry) = self.waiting.pop_front() else {
                break;
            };
            let hybrid = self.hybrid.next(entry.unix_micros);
            let context = Context {
                seq: first + self.leaves.len() as u64,
                unix_micros: entry.unix_micros,
                hybrid,
                node: &self.node,
                boot: self.shared.options.boot,
            };
            let start = self.text.len();
            render(&mut self.text, context, &entry.event);
            if self.text.len() - start > LINE_BYTES_MAX {
                self.text.truncate(start);
                self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
                entry.answer(Err(AppendError::TooLong));
                continue;
            }
            self.hybrid = hybrid;
            self.leaves.push(leaf_hash(&self.text[start..]));
            self.text.push(b'\n');
            self.ends.push(self.text.len() as u64);
            self.batch.push(entry);
        }
        let last = self.hybrid.to_u64();
        self.shared.hybrid.fetch_max(last, Ordering::AcqRel);
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn write_all(shared: &Shared, text: &[u8]) -> io::Result<()> {
    let mut rest = text;
    while !rest.is_empty() {
        match shared.storage.write_log(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
