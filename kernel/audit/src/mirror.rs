//! Copies of the logs of others, kept so that they can be restored. C2SP tlog-mirror.
//!
//! A [`Mirror`] holds one log. The witness beside it accepts a head, which [`Mirror::offer`] makes
//! *pending*; the log then uploads [`Package`]s, each with a proof that it belongs to the tree of that
//! head, and nothing is stored before its proof was checked. When everything up to the pending size
//! is durable, [`Mirror::commit`] says so, and whoever holds the mirror's key may cosign the head. That
//! *complete* head never goes back.
//!
//! What is stored is served as tiles and bundles ([`TileSource`](crate::tile::TileSource)). On the log's
//! side [`build_package`] and [`LineIndex`] make the packages. Neither sockets nor keys are used here.

mod complete;
mod info;
mod lines;
mod open;
mod package;
mod read;
mod scrub;
mod store;
mod wire;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use crate::Hash;
use crate::forest::{BLOCK_LEAVES, Forest};

pub use complete::{CompleteError, parse_complete};
pub use info::{MIRROR_INFO_TYPE, MirrorInfo, MirrorInfoError};
pub use lines::{LineIndex, LinesError};
pub use open::{MirrorOpenError, MirrorOpened};
pub use package::{PackageError, build_package};
pub use read::MirrorReadError;
pub use scrub::MendError;
pub use store::{
    FsMirrorStore, KeptHead, MemoryMirrorStore, MirrorPart, MirrorStore, kept_heads, origin_dir,
};
pub use wire::{
    Ended, ORIGIN_BYTES_MAX, Package, Piece, TICKET_BYTES_MAX, UploadDecoder, UploadHeader,
    WireError, package_ranges,
};
pub use write::{BeginError, CommitError, Committed, OfferError, StageError, Upload};

/// The most packages of one request: 8,192 entries.
pub const PACKAGES_MAX: usize = 32;
/// The most bundles that are kept although those in front of them are missing.
pub const AHEAD_BUNDLES_MAX: usize = 256;
/// How many pending heads an upload may end at: a busy log has several a second.
pub const PENDING_HEADS_KEPT: usize = 8;
/// The longest note of a head that is kept.
pub const NOTE_BYTES_MAX: usize = 1 << 16;

/// A head of the mirrored log that somebody else checked: the witness in front of the mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorHead {
    /// How many entries it covers.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// The signed note, with the signature of the log.
    pub note: String,
}

/// The copy of one log.
#[derive(Debug)]
pub struct Mirror<S> {
    store: S,
    origin: String,
    quota_bytes: u64,
    /// Everything up to its size was durable once and led to its root.
    complete: Option<MirrorHead>,
    /// The smallest first, all with different sizes.
    pending: Vec<MirrorHead>,
    /// The tree over the durable entries.
    tree: Forest,
    /// Where the entries of each full bundle end.
    ends: Vec<u64>,
    /// Where the durable entries end.
    entries_end: u64,
    staged: Staged,
    /// The bundles that came early, and how much of each.
    ahead: BTreeMap<u64, Ahead>,
    /// An operation failed and could not be undone.
    failed: bool,
    /// The full block of leaf hashes that was read last.
    block: Mutex<Option<(u64, Vec<Hash>)>>,
}

/// What was written behind the durable entries and is not durable yet.
#[derive(Debug, Default)]
struct Staged {
    leaves: Vec<Hash>,
    ends: Vec<u64>,
    bytes: u64,
    /// Bundles that are not ahead any more once this is durable.
    absorbed: Vec<u64>,
}

/// A bundle that came early.
#[derive(Debug, Clone, Copy)]
struct Ahead {
    entries: u16,
    bytes: u64,
}

impl<S: MirrorStore> Mirror<S> {
    /// Returns the name of the log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the last head that was complete: the one to serve, with the mirror's cosignature. When
    /// [`Self::next_entry`] is below its size, entries were lost since, and it is not to be served.
    pub fn complete(&self) -> Option<&MirrorHead> {
        self.complete.as_ref()
    }

    /// Returns the largest head that uploads may end at.
    pub fn pending(&self) -> Option<&MirrorHead> {
        self.pending.last()
    }

    /// Returns the index of the first entry that is not durable. It only grows, except when the store
    /// lost or spoilt entries.
    pub fn next_entry(&self) -> u64 {
        self.tree.size()
    }

    /// Returns how many bytes are taken on the disk, files that came early included.
    pub fn bytes(&self) -> u64 {
        let leaves = self.tree.size() + self.staged.leaves.len() as u64;
        let blocks = (self.ends.len() + self.staged.ends.len()) as u64;
        let ahead: u64 = self.ahead.values().map(|ahead| ahead.bytes).sum();
        self.entries_end
            + self.staged.bytes
            + leaves * Hash::BYTES as u64
            + blocks * BLOCK_BYTES as u64
            + ahead
    }

    /// Says where an upload can go on. The ticket is empty: the pending heads are remembered.
    pub fn info(&self) -> MirrorInfo {
        MirrorInfo {
            size: self.pending().map_or(0, |head| head.size),
            next_entry: self.next_entry(),
            ticket: Vec::new(),
        }
    }

    /// Returns the store.
    pub fn store(&self) -> &S {
        &self.store
    }
}

/// The length of a record of [`MirrorPart::Blocks`].
const BLOCK_BYTES: usize = 8 + Hash::BYTES;

/// Writes one record of [`MirrorPart::Blocks`].
fn encode_block(end: u64, root: &Hash) -> [u8; BLOCK_BYTES] {
    let mut record = [0; BLOCK_BYTES];
    record[..8].copy_from_slice(&end.to_be_bytes());
    record[8..].copy_from_slice(root.as_bytes());
    record
}

/// Returns the number of the bundle that an entry is in.
fn bundle_of(index: u64) -> u64 {
    index / BLOCK_LEAVES as u64
}

/// Reads until the buffer is full or the file ends; returns how much was read.
fn read_full<S: MirrorStore + ?Sized>(
    store: &S,
    part: MirrorPart,
    offset: u64,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match store.read_at(part, offset + filled as u64, &mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
