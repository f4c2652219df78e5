//! Lost entries, taken back into an open log.
//!
//! A log that was wiped, or put back from a backup, is shorter than heads it has signed, which its
//! peers know. As long as it is held ([`Options::held`](super::Options)) it signs nothing, so its end
//! can make room: the entries that were signed once come back from a copy
//! ([`restore`](crate::restore)), those that stood in their place and were never signed are set aside
//! and written about, and the log goes on behind the head that it had signed last.
//!
//! Whatever ends half-way leaves a log that can be opened and held, and the same once more.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};

use super::nodes::{DiskNodes, NodeError};
use super::open::{
    complete_derived, keep_unsigned, survey, write_about_recovery, write_checkpoint,
};
use super::shared::{Rest, Shared, lock};
use super::writer::{Command, Writer, write_all};
use super::{Log, OpenError, Poison, ProveError, Recovered};
use crate::heads::Heads;
use crate::line::LINE_BYTES_MAX;
use crate::proof::{BuildError, subtree_root};
use crate::restore::Restored;
use crate::scan::lines;
use crate::tile::{TileError, TileNodes, TileSource};
use crate::tree::{Compact, leaf_hash};
use crate::{Checkpoint, Event, Hash, SignedHead};

/// How many bytes are written at a time.
const WRITE_BYTES: usize = 4 << 20;
/// How many leaves are compared at a time: a tile.
const LEAVES_AT_ONCE: u64 = 256;

/// What was taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBack {
    /// The entries that were lost.
    pub entries: Range<u64>,
    /// What stood in their place and was never signed.
    pub set_aside: Vec<Recovered>,
}

/// Why a log cannot be compared with a copy of it.
#[derive(Debug, thiserror::Error)]
pub enum AgreeError<E> {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ProveError),
    /// The copy cannot be read.
    #[error("the copy of the log: {0}")]
    Copy(#[source] TileError<E>),
    /// What was signed here is not what was signed there: the log has two histories.
    #[error("the {size} entries that are signed here are not those of the copy")]
    TwoHistories {
        /// How many entries are signed here.
        size: u64,
    },
}

/// Why lost entries were not taken back.
#[derive(Debug, thiserror::Error)]
pub enum TakeBackError {
    /// Heads may have been signed since the log was opened. Nothing was changed.
    #[error("the audit log signs already: lost entries can only be taken back before")]
    NotHeld,
    /// The log was closed, or has stopped. Nothing was changed, unless it has stopped for this.
    #[error("the audit log has ended")]
    Closed,
    /// The lines do not follow those of the log, or do not lead to the head. Nothing was changed.
    #[error("the restored entries do not lead to the head that was signed")]
    NotTheLog,
    /// Entries that must make room are sealed. Nothing was changed.
    #[error("entries from {seq} on were never signed and cannot make room: they are sealed")]
    Sealed {
        /// The first of them.
        seq: u64,
    },
    /// A file cannot be read or written. When it was the log that could not be written, it has stopped.
    #[error("the audit log, or the file of restored entries, cannot be read or written")]
    Io(#[from] io::Error),
    /// The entries are back, and what happened could not be written about.
    #[error("what was taken back cannot be written about")]
    Unwritten(#[source] Box<OpenError>),
}

/// A request to the writer.
pub(super) struct Lost {
    restored: Restored,
    head: Checkpoint,
    answer: SyncSender<Result<TakenBack, TakeBackError>>,
}

/// Where restored lines go.
struct Place {
    /// The first entry that is not there.
    seq: u64,
    /// Where it has to begin.
    offset: u64,
    /// How much of the file of restored lines stands before it.
    skip: u64,
}

impl Log {
    /// Returns how many entries the log has in common with a copy under a trusted head. Blocks.
    ///
    /// # Errors
    /// When either cannot be read, or what is signed differs.
    pub fn agreement<S: TileSource>(
        &self,
        nodes: &TileNodes<S>,
    ) -> Result<u64, AgreeError<S::Error>> {
        let shared = &self.inner.shared;
        let (signed, root) = {
            let rest = lock(&shared.rest);
            (rest.signed.size(), rest.signed.root())
        };
        let differ = AgreeError::TwoHistories { size: signed };
        if signed > nodes.size() {
            return Err(differ);
        }
        let theirs = subtree_root(nodes, 0, signed).map_err(|error| match error {
            BuildError::Range => AgreeError::Copy(TileError::Range),
            BuildError::Nodes(error) => AgreeError::Copy(error),
        })?;
        if theirs != root {
            return Err(differ);
        }
        let end = self.size().min(nodes.size());
        let mut at = signed;
        while at < end {
            let next = (at + LEAVES_AT_ONCE).min(end);
            for ours in shared.nodes(0, at..next)? {
                if nodes.hash(0, at).map_err(AgreeError::Copy)? != ours {
                    return Ok(at);
                }
                at += 1;
            }
        }
        Ok(at)
    }

    /// Takes lost entries back, which lead to a head that this log has signed once. Whether it has is for
    /// the caller to check ([`SignedHead::open`]). The log stays held. Blocks; entries that are appended
    /// meanwhile wait.
    ///
    /// # Errors
    /// When they do not fit, or a file cannot be read or written.
    pub fn take_back(
        &self,
        restored: Restored,
        head: Checkpoint,
    ) -> Result<TakenBack, TakeBackError> {
        let (answer, answered) = sync_channel(1);
        let lost = Lost {
            restored,
            head,
            answer,
        };
        let command = Command::TakeBack(Box::new(lost));
        let sent = self.inner.sender.send(command);
        sent.map_err(|_writer_is_gone| TakeBackError::Closed)?;
        answered.recv().unwrap_or(Err(TakeBackError::Closed))
    }
}

impl Writer {
    pub(super) fn answer_take_back(&mut self, lost: Lost) {
        let taken = self.take_back(&lost.restored, &lost.head);
        // Who asked may have gone.
        drop(lost.answer.send(taken));
    }

    fn take_back(
        &mut self,
        restored: &Restored,
        head: &Checkpoint,
    ) -> Result<TakenBack, TakeBackError> {
        let shared = Arc::clone(&self.shared);
        if !shared.held.load(Ordering::Acquire) {
            return Err(TakeBackError::NotHeld);
        }
        let mut rest = lock(&shared.rest);
        shared.look_at_all(&mut rest)?;
        let condition = *lock(&shared.condition);
        if condition.poison.is_some() || condition.damage.is_some() {
            return Err(TakeBackError::Closed);
        }
        if head.origin != shared.origin || head.size < rest.signed.size() {
            return Err(TakeBackError::NotTheLog);
        }
        let place = place_of(&shared, &rest, restored, head)?;
        if place.seq < shared.storage.sealed().lines.unwrap_or(u64::MAX) {
            return Err(TakeBackError::Sealed { seq: place.seq });
        }
        if place.offset < rest.len {
            keep_unsigned(&*shared.storage, place.seq, place.offset..rest.len)?;
        }
        self.replace_end(&mut rest, (&place, restored), head)
            .inspect_err(|error| shared.poison(Poison::Undo(error.kind())))?;
        drop(rest);
        let entries = place.seq..head.size;
        let written = write_about_recovery(&shared, self, 0);
        let set_aside = written.map_err(|why| TakeBackError::Unwritten(Box::new(why)))?;
        if !entries.is_empty() {
            self.append_now(Event::log_restored(&entries))
                .map_err(|_why| TakeBackError::Closed)?;
        }
        tracing::warn!(
            log.origin = %shared.origin,
            first = entries.start,
            end = entries.end,
            "lost entries of the audit log are back, from copies of it"
        );
        Ok(TakenBack { entries, set_aside })
    }

    /// Writes the restored lines over the end of the log, makes their head the floor, and learns the log anew.
    fn replace_end(
        &mut self,
        rest: &mut Rest,
        (place, restored): (&Place, &Restored),
        head: &Checkpoint,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        shared.storage.cut_log(place.offset)?;
        let mut file = File::open(&restored.path)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(place.skip))?;
        let mut chunk = Vec::with_capacity(WRITE_BYTES);
        loop {
            chunk.clear();
            let part = WRITE_BYTES as u64;
            if (&mut file).take(part).read_to_end(&mut chunk)? == 0 {
                break;
            }
            write_all(&shared, &chunk)?;
        }
        shared.storage.sync_log()?;
        let signed = SignedHead::sign(head.clone(), &shared.options.key);
        self.raise_floor(&signed)?;
        if lock(&shared.condition).poison.is_some() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        write_checkpoint(&shared, &signed);
        self.learn_anew(rest, &signed)?;
        self.show(signed);
        Ok(())
    }

    /// Reads the log as when it is opened.
    fn learn_anew(&mut self, rest: &mut Rest, floor: &SignedHead) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let key = shared.options.key.verifying_key();
        let heads = Heads::load(&*shared.storage, &shared.origin, &key)?;
        let found = survey(&*shared.storage, &heads, Some(floor))?;
        let examined = &found.examined;
        let whole = examined.damage.is_none()
            && examined.corrupt.is_none()
            && examined.torn_bytes == 0
            && examined.lines == floor.checkpoint.size;
        if !whole {
            return Err(io::ErrorKind::InvalidData.into());
        }
        complete_derived(&*shared.storage, &found, &shared.origin);
        *rest = found.rest(&*shared.storage)?;
        self.hybrid = self.hybrid.max(found.hybrid);
        shared
            .size
            .store(found.index.forest.size(), Ordering::Release);
        *shared.index.write().unwrap_or_else(PoisonError::into_inner) = found.index;
        Ok(())
    }
}

/// Finds where restored lines differ from the log, and checks that with them it leads to the head.
fn place_of(
    shared: &Shared,
    rest: &Rest,
    restored: &Restored,
    head: &Checkpoint,
) -> Result<Place, TakeBackError> {
    let size = shared.size.load(Ordering::Acquire);
    let signed = rest.signed.size();
    if restored.first > size || restored.end != head.size {
        return Err(TakeBackError::NotTheLog);
    }
    let index = shared.index();
    let ours = DiskNodes::new(&index.forest, &*shared.storage, &shared.blocks);
    let mut tree = rest.signed.clone();
    // What is signed and stands before the restored lines was compared by the caller of restore; here
    // the root of the whole decides.
    for seq in signed..restored.first {
        tree.push(leaf(&ours, seq)?);
    }
    let mut place = None;
    let (mut seq, mut bytes) = (restored.first, 0);
    let mut file = BufReader::with_capacity(1 << 18, File::open(&restored.path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut file).take(LINE_BYTES_MAX as u64 + 1);
        if limited.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let text = line.strip_suffix(b"\n").ok_or(TakeBackError::NotTheLog)?;
        let found = leaf_hash(text);
        let same = seq < size && leaf(&ours, seq)? == found;
        if !same && seq < signed {
            return Err(TakeBackError::NotTheLog);
        }
        if !same && place.is_none() {
            place = Some((seq, bytes));
        }
        push_behind(&mut tree, seq, found);
        seq += 1;
        bytes += line.len() as u64;
    }
    drop(index);
    if seq != head.size || tree.root() != head.root {
        return Err(TakeBackError::NotTheLog);
    }
    let (seq, skip) = place.unwrap_or((seq, bytes));
    let offset = offset_of(shared, rest, seq)?;
    Ok(Place { seq, offset, skip })
}

/// Adds the entries that the tree does not have.
fn push_behind(tree: &mut Compact, seq: u64, leaf: Hash) {
    if seq >= tree.size() {
        tree.push(leaf);
    }
}

fn leaf(
    nodes: &DiskNodes<'_, dyn crate::storage::Storage>,
    seq: u64,
) -> Result<Hash, TakeBackError> {
    nodes.leaf(seq).map_err(|error| match error {
        NodeError::Stale => TakeBackError::Io(io::ErrorKind::InvalidData.into()),
        NodeError::Io(error) => TakeBackError::Io(error),
    })
}

/// Returns where an entry begins, or would begin.
fn offset_of(shared: &Shared, rest: &Rest, seq: u64) -> io::Result<u64> {
    if seq >= shared.size.load(Ordering::Acquire) {
        return Ok(rest.len);
    }
    let start = shared.index().block_of(seq);
    let (mut at, offset) = start.ok_or(io::ErrorKind::InvalidData)?;
    let mut found = None;
    lines(&*shared.storage, offset, rest.len, |offset, _bytes| {
        if at == seq {
            found = Some(offset);
            return ControlFlow::Break(());
        }
        at += 1;
        ControlFlow::Continue(())
    })?;
    found.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
