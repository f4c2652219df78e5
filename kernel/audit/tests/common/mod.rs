//! What the tests of the log share: keys, a clock, events, and a disk in memory that can fail.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary compiles this module and uses its own part of it"
)]

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openfang_audit::storage::{
    Part, Pending, Reader, SEGMENT_LINES, Sealed, Small, Stamp, Storage,
};
use openfang_audit::tree::{Compact, leaf_hash};
use openfang_audit::{
    AppendError, Clock, Event, Hash, Log, OpenError, Opened, Options, Origin, Public, Seq,
};
use openfang_id::{Keys, NodeSeed, VerifyingKey};

/// The reserve of the disk in memory.
pub const RESERVED: usize = 2_000;
pub const START_MICROS: u64 = 1_795_294_798_000_000;

/// A clock that moves by a fixed step at every look.
#[derive(Debug)]
pub struct TestClock {
    now: AtomicU64,
    step: u64,
    /// By how much it was set forward.
    set: AtomicU64,
}

impl TestClock {
    /// Every look is a second later: a head is due after every batch.
    pub fn fast() -> Arc<Self> {
        Self::with_step(1_000_000)
    }

    /// Time stands still: a head is due only when the log is idle or closed.
    pub fn frozen() -> Arc<Self> {
        Self::with_step(0)
    }

    pub fn with_step(step: u64) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicU64::new(START_MICROS),
            step,
            set: AtomicU64::new(0),
        })
    }

    /// Sets the wall clock forward.
    pub fn set_forward(&self, micros: u64) {
        self.set.fetch_add(micros, Ordering::Relaxed);
        self.now.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn unix_micros(&self) -> u64 {
        self.now.fetch_add(self.step, Ordering::Relaxed)
    }

    fn monotonic_micros(&self) -> u64 {
        self.now.load(Ordering::Relaxed) - self.set.load(Ordering::Relaxed)
    }
}

pub fn keys() -> Keys {
    NodeSeed::from_bytes([1; 32]).keys()
}

pub fn log_key() -> VerifyingKey {
    keys().log.verifying_key()
}

pub fn origin() -> Origin {
    Origin::of(&keys().node_id(), 1)
}

pub fn options(root: &std::path::Path) -> Options {
    Options {
        log_path: root.join("audit.jsonl"),
        dir: root.join("audit.d"),
        node: keys().node_id(),
        key: keys().log,
        boot: 7,
        epoch: 1,
        held: false,
    }
}

pub fn event(number: u64) -> Event {
    Event::node_start(Public::text(&format!("key.{number}")))
}

/// Appends an entry and waits for its answer.
pub fn append(log: &Log, event: Event) -> Result<Seq, AppendError> {
    let (sender, receiver) = sync_channel(1);
    let ack = move |result| sender.send(result).expect("the test waits");
    log.append(event, Box::new(ack))?;
    receiver.recv().expect("every entry is answered")
}

/// Appends entries as fast as the log takes them, and waits for all of them.
pub fn append_all(log: &Log, numbers: std::ops::Range<u64>) {
    let (sender, receiver) = sync_channel(usize::try_from(numbers.end).expect("small"));
    let count = numbers.end - numbers.start;
    for number in numbers {
        let sender = sender.clone();
        let ack = move |result| sender.send(result).expect("the test waits");
        log.append(event(number), Box::new(ack)).expect("queued");
    }
    drop(sender);
    let answers: Vec<_> = receiver.iter().collect();
    assert_eq!(answers.len() as u64, count);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

/// The root over the first lines of a text.
pub fn root_of_lines(text: &[u8], size: u64) -> Option<Hash> {
    let mut range = Compact::default();
    let mut rest = text;
    while range.size() < size {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        range.push(leaf_hash(&rest[..end]));
        rest = &rest[end + 1..];
    }
    Some(range.root())
}

/// What happens at the operation with a certain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and nothing is changed.
    Fails(io::ErrorKind),
    /// Half of it happens; it and everything after it fails, as if the power was cut.
    PowerCut,
}

/// The operations that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    WriteLog,
    SyncLog,
    CutLog,
    WriteHashes,
    CutHashes,
    ReplaceFloor,
    ReplaceCheckpoint,
    ReplaceClosed,
    Keep,
    Settle,
    Seal,
}

#[derive(Debug, Clone, Default)]
pub struct Disk {
    pub log: Vec<u8>,
    /// How much of the log survives a power cut for certain.
    pub durable: usize,
    pub hashes: Vec<u8>,
    pub blocks: Vec<u8>,
    /// Where each sealed segment ends: its bytes and its entries.
    pub segments: Vec<(usize, u64)>,
    /// How many bytes of lines were read.
    pub read: usize,
    pub floor: Option<Vec<u8>>,
    pub checkpoint: Option<Vec<u8>>,
    pub closed: Option<Vec<u8>>,
    pub pending: BTreeMap<String, Vec<u8>>,
    pub settled: BTreeMap<String, Vec<u8>>,
    /// Counts the changes of the log, as the time of its last change would.
    pub changes: i64,
    pub ops: Vec<Op>,
    /// Fails the operation with this number, counted over all kinds.
    pub at: Option<(usize, Fault)>,
    /// Fails every operation of a kind.
    pub always: Option<(Op, io::ErrorKind)>,
    /// The most bytes one write takes.
    pub write_max: Option<usize>,
    /// Spoils a byte at this place of whatever is written next.
    pub flip_next_write: Option<usize>,
    /// Spoils a byte at this place of the log while it is flushed, as another process may.
    pub flip_at_sync: Option<usize>,
    /// Bytes left on the disk.
    pub space: Option<usize>,
    /// Bytes that are taken for the last entries.
    pub reserve: Option<usize>,
    pub dead: bool,
}

/// A disk in memory.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    disk: Arc<Mutex<Disk>>,
}

impl Memory {
    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn open(&self, clock: Arc<dyn Clock>) -> Result<(Log, Opened), OpenError> {
        let options = options(&PathBuf::from("/memory"));
        Log::open_on(Arc::new(self.clone()), options, clock)
    }

    /// Opens the log so that it signs nothing.
    pub fn open_held(&self, clock: Arc<dyn Clock>) -> Result<(Log, Opened), OpenError> {
        let mut options = options(&PathBuf::from("/memory"));
        options.held = true;
        Log::open_on(Arc::new(self.clone()), options, clock)
    }

    /// The disk after a power cut: of what was not yet durable, so many bytes are left.
    pub fn after_power_cut(&self, left: usize) -> Self {
        let mut disk = self.disk().clone();
        let end = disk.log.len().min(disk.durable + left);
        disk.log.truncate(end);
        disk.durable = end;
        // Whatever a test adds now was added by a run that did not end in order.
        disk.closed = None;
        disk.at = None;
        disk.dead = false;
        disk.ops.clear();
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// How many bytes a power cut could take or leave.
    pub fn not_durable(&self) -> usize {
        let disk = self.disk();
        disk.log.len() - disk.durable
    }

    /// Counts an operation; tells whether it is to be done in full, by half or not at all.
    fn begin(disk: &mut Disk, op: Op) -> Result<bool, io::Error> {
        if disk.dead {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let number = disk.ops.len();
        disk.ops.push(op);
        if let Some((always, kind)) = disk.always
            && always == op
        {
            return Err(kind.into());
        }
        match disk.at {
            Some((at, Fault::Fails(kind))) if at == number => Err(kind.into()),
            Some((at, Fault::PowerCut)) if at == number => {
                disk.dead = true;
                Ok(false)
            }
            Some(_) | None => Ok(true),
        }
    }
}

fn derived(disk: &mut Disk, part: Part) -> &mut Vec<u8> {
    match part {
        Part::Hashes => &mut disk.hashes,
        Part::Blocks => &mut disk.blocks,
        Part::Log => panic!("lines come from nothing else"),
    }
}

fn cut() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Reader for Memory {
    fn read_at(&self, part: Part, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.disk();
        let bytes = match part {
            Part::Log => &disk.log,
            Part::Hashes => &disk.hashes,
            Part::Blocks => &disk.blocks,
        };
        let start = usize::try_from(offset).expect("small").min(bytes.len());
        let read = buffer.len().min(bytes.len() - start);
        buffer[..read].copy_from_slice(&bytes[start..start + read]);
        if part == Part::Log {
            disk.read += read;
        }
        Ok(read)
    }

    fn sealed(&self) -> Sealed {
        let disk = self.disk();
        Sealed {
            bytes: disk.segments.last().map_or(0, |last| last.0) as u64,
            lines: Some(disk.segments.last().map_or(0, |last| last.1)),
        }
    }

    fn load(&self, small: Small) -> io::Result<Option<Vec<u8>>> {
        let disk = self.disk();
        Ok(match small {
            Small::Floor => disk.floor.clone(),
            Small::Checkpoint => disk.checkpoint.clone(),
            Small::Closed => disk.closed.clone(),
        })
    }
}

impl Storage for Memory {
    fn write_log(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.disk();
        let whole = Self::begin(&mut disk, Op::WriteLog)?;
        let mut taken = bytes.len().min(disk.write_max.unwrap_or(usize::MAX));
        if !whole {
            taken /= 2;
        }
        if let Some(space) = disk.space {
            taken = taken.min(space);
            disk.space = Some(space - taken);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        let start = disk.log.len();
        disk.log.extend_from_slice(&bytes[..taken]);
        if let Some(at) = disk.flip_next_write.take() {
            disk.log[start + at] ^= 1;
        }
        disk.changes += 1;
        if whole { Ok(taken) } else { Err(cut()) }
    }

    fn sync_log(&self) -> io::Result<()> {
        let mut disk = self.disk();
        if !Self::begin(&mut disk, Op::SyncLog)? {
            return Err(cut());
        }
        disk.durable = disk.log.len();
        if let Some(at) = disk.flip_at_sync.take() {
            disk.log[at] ^= 1;
            disk.changes += 1;
        }
        Ok(())
    }

    fn cut_log(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        let whole = Self::begin(&mut disk, Op::CutLog)?;
        if !whole {
            return Err(cut());
        }
        let len = usize::try_from(len).expect("small");
        let freed = disk.log.len() - len;
        disk.space = disk.space.map(|space| space + freed);
        disk.log.truncate(len);
        disk.durable = len;
        disk.changes += 1;
        Ok(())
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let disk = self.disk();
        Ok(Stamp {
            linked: true,
            file: (1, 1),
            len: disk.log.len() as u64,
            modified: (disk.changes, 0),
            changed: (disk.changes, 0),
            sealed: (0, 0),
        })
    }

    fn reopen_log(&self) -> io::Result<()> {
        Ok(())
    }

    fn seal(&self, seqs: Range<u64>) -> io::Result<()> {
        assert_eq!(self.sealed().lines, Some(seqs.start));
        assert!(seqs.end - seqs.start >= SEGMENT_LINES);
        let mut disk = self.disk();
        assert_eq!(
            disk.durable,
            disk.log.len(),
            "only what is durable is sealed"
        );
        let number = disk.ops.len();
        let whole = Self::begin(&mut disk, Op::Seal)?;
        // A power cut in the middle leaves it sealed or not.
        if whole || number.is_multiple_of(2) {
            let end = disk.log.len();
            disk.segments.push((end, seqs.end));
        }
        if whole { Ok(()) } else { Err(cut()) }
    }

    fn fill_reserve(&self) -> io::Result<()> {
        let mut disk = self.disk();
        // Only a disk that can be full has any use for it.
        let Some(space) = disk.space.filter(|_space| disk.reserve.is_none()) else {
            return Ok(());
        };
        let wanted = RESERVED;
        if space < wanted {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.space = Some(space - wanted);
        disk.reserve = Some(wanted);
        Ok(())
    }

    fn free_reserve(&self) -> io::Result<bool> {
        let mut disk = self.disk();
        let Some(freed) = disk.reserve.take() else {
            return Ok(false);
        };
        disk.space = disk.space.map(|space| space + freed);
        Ok(true)
    }

    fn sealed_stamp(&self) -> io::Result<u64> {
        Ok(self.disk().segments.len() as u64)
    }

    fn write_derived(&self, part: Part, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let whole = Self::begin(&mut disk, Op::WriteHashes)?;
        let bytes = if whole {
            bytes
        } else {
            &bytes[..bytes.len() / 2]
        };
        let start = usize::try_from(offset).expect("small");
        let end = start + bytes.len();
        let file = derived(&mut disk, part);
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
        if whole { Ok(()) } else { Err(cut()) }
    }

    fn cut_derived(&self, part: Part, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        Self::begin(&mut disk, Op::CutHashes)?;
        derived(&mut disk, part).truncate(usize::try_from(len).expect("small"));
        Ok(())
    }

    fn replace(&self, small: Small, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let op = match small {
            Small::Floor => Op::ReplaceFloor,
            Small::Checkpoint => Op::ReplaceCheckpoint,
            Small::Closed => Op::ReplaceClosed,
        };
        let number = disk.ops.len();
        let whole = Self::begin(&mut disk, op)?;
        // A power cut in the middle leaves the old one or the new one.
        if whole || number.is_multiple_of(2) {
            let slot = match small {
                Small::Floor => &mut disk.floor,
                Small::Checkpoint => &mut disk.checkpoint,
                Small::Closed => &mut disk.closed,
            };
            *slot = Some(bytes.to_vec());
        }
        if whole { Ok(()) } else { Err(cut()) }
    }

    fn claim(&self) -> io::Result<()> {
        Ok(())
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let whole = Self::begin(&mut disk, Op::Keep)?;
        if !whole {
            return Err(cut());
        }
        disk.pending.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn pending(&self) -> io::Result<Vec<Pending>> {
        let disk = self.disk();
        let pending = disk.pending.iter().map(|(name, bytes)| Pending {
            name: name.clone(),
            bytes: bytes.len() as u64,
        });
        Ok(pending.collect())
    }

    fn settle(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let whole = Self::begin(&mut disk, Op::Settle)?;
        if !whole {
            return Err(cut());
        }
        if let Some(bytes) = disk.pending.remove(name) {
            disk.settled.insert(name.to_owned(), bytes);
        }
        Ok(())
    }

    fn release(&self) {}
}

/// Looks until something holds.
pub fn eventually(holds: impl Fn() -> bool) {
    for _look in 0..30_000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("not within half a minute");
}
