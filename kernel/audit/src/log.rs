//! The append-only log of one node.
//!
//! [`Log::open`] takes the directory, recovers what a crash left, and starts the one writer thread.
//! Everything that is appended goes through it: it writes a batch with one `write` and one
//! `fdatasync`, and only then acknowledges. Heads are signed from time to time, after the new lines
//! were read back from the file and hashed a second time.

mod error;
mod index;
mod nodes;
mod open;
mod redact;
mod shared;
mod take_back;
mod tiles;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openfang_id::{NodeId, SigningKey};

use crate::guard::Guard;
use crate::storage::{FsStorage, Storage};
use crate::verify::{Report, VerifyError};
use crate::{Clock, Event, Hash, Hybrid, Line, Origin, ReadError, Seq, SignedHead};

pub use error::{AppendError, CloseError, FloorProblem, OpenError, Poison, ProveError};
pub use redact::{Erase, REASON_BYTES_MAX, RedactError, Redacted};
use shared::{Shared, lock};
pub use take_back::{AgreeError, TakeBackError, TakenBack};
pub use tiles::ServeError;
use writer::{Command, Entry, Thread};

/// What a log is opened with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file of lines.
    pub log_path: PathBuf,
    /// The directory beside it: lock, signing floor, checkpoint, leaf hashes, evidence.
    pub dir: PathBuf,
    /// The node that writes.
    pub node: NodeId,
    /// The key that signs the heads.
    pub key: SigningKey,
    /// Which run of the node this is: a random number.
    pub boot: u64,
    /// The epoch of the log: part of its name. It grows when a log cannot be continued.
    pub epoch: u32,
    /// Whether entries are taken, and no head is signed or shown before [`Log::release`]: others may
    /// know a longer log of this name.
    pub held: bool,
}

/// What was found when the log was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// How many entries there are, including one that tells of a repair.
    pub size: u64,
    /// The last head that was signed.
    pub head: Option<SignedHead>,
    /// What was cut off at the end, if anything.
    pub recovered: Vec<Recovered>,
    /// Whether the leaf hashes were missing or stale and had to be computed again.
    pub hashes_rebuilt: bool,
    /// Whether the signing floor was missing and the published head took its place: only when the log
    /// is held.
    pub floor_was_missing: bool,
}

/// An end of the log that was never finished, cut off and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256, in lower hexadecimal digits.
    pub sha256: String,
    /// Where they are kept.
    pub kept: PathBuf,
}

/// How the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Ok,
    /// The file is not what was written. Nothing old can be proved; entries are taken unless the log
    /// has stopped as well.
    Damaged {
        /// The first bad entry, where it can be named.
        first_bad_seq: Option<u64>,
    },
    /// The last batch could not be written; what comes is tried again.
    Failing {
        /// What the disk said.
        kind: std::io::ErrorKind,
    },
    /// No entry is taken any more.
    Poisoned {
        /// Why.
        reason: Poison,
    },
}

/// When an entry is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// When it is on the disk.
    AtOnce,
    /// As [`Flush::AtOnce`]; and a head over it is signed at once, because somebody waits for that.
    Signed,
    /// When the operating system has it; it is on the disk this much later at most, and before any head
    /// over it is signed. A machine that loses its power in between loses it.
    Within(Duration),
}

/// Called with the number of an entry when it is as safe as was asked for ([`Flush`]), or with the
/// reason why it is not.
pub type Ack = Box<dyn FnOnce(Result<Seq, AppendError>) + Send>;
/// Called with each head after it was published.
pub type HeadListener = Box<dyn Fn(SignedHead) + Send + Sync>;

/// A handle to an open log; cheap to clone. When the last one goes without [`Log::close`], the writer
/// closes the log by itself, some time later.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

/// The durable entries of an open log, as tiles, bundles and nodes; made by [`Log::tiles`].
#[derive(Clone)]
pub struct LogTiles {
    shared: Arc<Shared>,
    size: u64,
}

struct Inner {
    shared: Arc<Shared>,
    sender: SyncSender<Command>,
    writer: Mutex<Option<Thread>>,
}

impl Log {
    /// Opens a log on the file system, or begins one.
    ///
    /// # Errors
    /// When it is in use, was tampered with, or cannot be read or written.
    pub fn open(options: Options, clock: Arc<dyn Clock>) -> Result<(Self, Opened), OpenError> {
        Self::open_guarded(options, clock, |_dir| Ok(Guard::default()))
    }

    /// Opens a log as [`Log::open`] does, with what keeps secrets and personal texts out of its lines. `guard` is
    /// called with the folder of the log once that is held; a redaction that was under way is finished.
    ///
    /// # Errors
    /// As [`Log::open`], and when there is no such guard.
    pub fn open_guarded(
        options: Options,
        clock: Arc<dyn Clock>,
        guard: impl FnOnce(&Path) -> io::Result<Guard>,
    ) -> Result<(Self, Opened), OpenError> {
        let holder = format!("pid {} boot {:016x}", std::process::id(), options.boot);
        let storage = FsStorage::open(&options.log_path, &options.dir, &holder)?;
        let guard = guard(&options.dir).map_err(|source| OpenError::Io {
            action: "open the vault in",
            path: options.dir.clone(),
            source,
        })?;
        Self::open_with(Arc::new(storage), options, (clock, guard))
    }

    /// Opens a log on any storage, which this process must hold alone.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_on(
        storage: Arc<dyn Storage>,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Opened), OpenError> {
        Self::open_with(storage, options, (clock, Guard::default()))
    }

    fn open_with(
        storage: Arc<dyn Storage>,
        options: Options,
        around: (Arc<dyn Clock>, Guard),
    ) -> Result<(Self, Opened), OpenError> {
        let (shared, writer, opened) = open::recover(storage, options, around)?;
        let (sender, writer) = writer::start(writer).map_err(|source| OpenError::Io {
            action: "start the writer of",
            path: shared.options.log_path.clone(),
            source,
        })?;
        let inner = Inner {
            shared,
            sender,
            writer: Mutex::new(Some(writer)),
        };
        let log = Self {
            inner: Arc::new(inner),
        };
        Ok((log, opened))
    }

    /// Queues an entry. Never blocks. `ack` is called by the writer, once, when the entry is durable or
    /// has failed; it must neither block nor panic. When this returns an error, it is not called at all.
    ///
    /// # Errors
    /// When the entry was not queued.
    pub fn append(&self, event: Event, ack: Ack) -> Result<(), AppendError> {
        self.append_with(event, Flush::AtOnce, ack)
    }

    /// [`Log::append`], for an entry that need not be on the disk when it is answered.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_with(&self, event: Event, flush: Flush, ack: Ack) -> Result<(), AppendError> {
        let shared = &self.inner.shared;
        shared.refuse_when_stopped()?;
        let admitted = shared.guard.admit(event);
        let when = (shared.clock.unix_micros(), flush);
        let entry = Box::new(Entry::new(admitted, when, Some(ack)));
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        let (command, error) = match self.inner.sender.try_send(Command::Append(entry)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(command)) => (command, AppendError::Full),
            Err(TrySendError::Disconnected(command)) => (command, AppendError::Closed),
        };
        shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Command::Append(entry) = command {
            entry.forget();
        }
        Err(error)
    }

    /// Returns the number of entries that were answered.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.inner.shared.size.load(Ordering::Acquire)
    }

    /// Returns how many entries are under a head that was signed, shown or not.
    #[must_use]
    pub fn signed_size(&self) -> u64 {
        lock(&self.inner.shared.rest).signed.size()
    }

    /// Returns the hybrid clock of this log, to be sent along with what is said to others: not before any
    /// entry that was answered.
    #[must_use]
    pub fn hybrid(&self) -> Hybrid {
        let shared = &self.inner.shared;
        let last = shared.hybrid.load(Ordering::Acquire);
        let now = Hybrid::default().next(shared.clock.unix_micros());
        now.max(Hybrid::from_u64(last))
    }

    /// Takes the hybrid clock of another node: whatever is queued from now on comes after it. Tells whether
    /// it was taken; one that is more than a minute ahead of the wall clock is not.
    pub fn observe(&self, hybrid: Hybrid) -> bool {
        let shared = &self.inner.shared;
        let believable = hybrid.is_believable(shared.clock.unix_micros());
        if believable {
            shared.hybrid.fetch_max(hybrid.to_u64(), Ordering::AcqRel);
        }
        believable
    }

    /// Returns the last published head.
    #[must_use]
    pub fn head(&self) -> Option<SignedHead> {
        lock(&self.inner.shared.head).clone()
    }

    /// Tells whether heads wait for [`Log::release`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.inner.shared.held.load(Ordering::Acquire)
    }

    /// Shows the last head and signs further ones from now on. Later calls do nothing.
    pub fn release(&self) {
        // When the writer has ended, no head is signed any more.
        drop(self.inner.sender.send(Command::Release));
    }

    /// Holds the log again: no head is signed or shown until [`Log::release`]. When this returns, none is
    /// being signed either. Blocks for as long as a batch that is being written takes.
    pub fn hold(&self) {
        let (done, held) = sync_channel(1);
        // When the writer has ended, no head is signed any more.
        if self.inner.sender.send(Command::Hold(done)).is_ok() {
            // It answers by dropping its end.
            held.recv().unwrap_or_default();
        }
    }

    /// Returns the name of the log.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.inner.shared.origin
    }

    /// Returns the number in its name.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.inner.shared.options.epoch
    }

    /// Adds a listener that is called, by the writer, after each head is published. It must not block
    /// and not call back into the log except to append; a handle that it holds keeps the log open.
    pub fn on_head(&self, listener: HeadListener) {
        lock(&self.inner.shared.listeners).push(listener);
    }

    /// Proves that the log of `to` entries begins with that of `from` entries. Blocks: looks at the
    /// file first, and reads it whole when someone else touched it.
    ///
    /// # Errors
    /// When the log is shorter or damaged, or there is nothing to prove.
    pub fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, ProveError> {
        self.inner.shared.consistency(from, to)
    }

    /// Proves that an entry is in the log of `size` entries. Blocks, as [`Log::consistency`].
    ///
    /// # Errors
    /// As [`Log::consistency`].
    pub fn inclusion(&self, seq: u64, size: u64) -> Result<Vec<Hash>, ProveError> {
        self.inner.shared.inclusion(seq, size)
    }

    /// Reads the whole file again and checks it. Blocks for as long as that takes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn verify(&self) -> Result<Report, VerifyError> {
        self.inner.shared.verify()
    }

    /// Returns the last `n` entries, oldest first, each checked against its leaf hash.
    ///
    /// # Errors
    /// When they cannot be read or are not what was written.
    pub fn recent(&self, n: usize) -> Result<Vec<Line>, ReadError> {
        self.inner.shared.recent(n)
    }

    /// Tells how the log is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.inner.shared.health()
    }

    /// Writes what is queued, signs and publishes a last head, ends the writer and releases the lock.
    /// Blocks; not to be called from an `ack` or a listener. Later calls do nothing.
    ///
    /// # Errors
    /// When the log had stopped, or the head could not be written.
    pub fn close(&self) -> Result<(), CloseError> {
        let Some(writer) = lock(&self.inner.writer).take() else {
            return Ok(());
        };
        self.inner.shared.closing.store(true, Ordering::Release);
        // When the writer has ended already, there is nobody to tell.
        drop(self.inner.sender.send(Command::Close));
        let closed = writer.join().unwrap_or(Err(CloseError::Writer));
        self.inner.shared.storage.release();
        closed
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("origin", self.origin())
            .field("size", &self.size())
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zero;

    impl Clock for Zero {
        fn unix_micros(&self) -> u64 {
            0
        }

        fn monotonic_micros(&self) -> u64 {
            0
        }
    }

    #[test]
    fn an_entry_that_is_too_long_takes_no_number() {
        let root = tempfile::TempDir::new().expect("a directory");
        let keys = openfang_id::NodeSeed::from_bytes([1; 32]).keys();
        let options = Options {
            log_path: root.path().join("audit.jsonl"),
            dir: root.path().join("audit.d"),
            node: keys.node_id(),
            key: keys.log,
            boot: 1,
            epoch: 1,
            held: false,
        };
        let (log, _) = Log::open(options, Arc::new(Zero)).expect("a log");
        let append = |event| {
            let (sender, receiver) = sync_channel(1);
            let ack = Box::new(move |result| sender.send(result).expect("the test waits"));
            log.append(event, ack).expect("queued");
            receiver.recv().expect("answered")
        };
        // No constructor makes such an event: this is what stands behind their bounds.
        let mut long = Event::node_start("");
        let text = "x ".repeat(crate::LINE_BYTES_MAX);
        long.target = Some(crate::event::Slot::Open(text.into()));
        long.kind = crate::Kind::Redact;
        assert_eq!(append(Event::node_start("1")), Ok(Seq(0)));
        assert_eq!(append(long), Err(AppendError::TooLong));
        assert_eq!(append(Event::node_start("2")), Ok(Seq(1)));
        log.close().expect("closed");
    }
}
