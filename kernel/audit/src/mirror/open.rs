//! Opening a copy: what a crash left is told apart from what was durable.
//!
//! Every entry is written together with its leaf hash, in different files, so that an entry whose hash
//! fits was written whole. Up to the complete head the blocks are taken as they stand when they lead to
//! its root; behind it every entry is hashed again. What does not fit is cut off and can be uploaded
//! again: the complete head stays, so that nothing older than it is ever cosigned.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use super::write::parse_ahead;
use super::{
    Ahead, BLOCK_BYTES, CompleteError, Mirror, MirrorHead, MirrorPart, MirrorStore, Staged,
    bundle_of, encode_block, parse_complete, read_full,
};
use crate::Hash;
use crate::forest::{BLOCK_LEAVES, BLOCK_LEVEL, Forest, Grow as _};
use crate::tile::split_entry;
use crate::tree::leaf_hash;

/// How much is read at a time: several of the longest entries.
const CHUNK_BYTES: usize = 1 << 18;

/// What was found when a copy was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorOpened {
    /// The first entry that is not there.
    pub next_entry: u64,
    /// Whether entries below the complete head are gone or were spoilt. They are not served and can be
    /// uploaded again.
    pub damaged: bool,
}

/// Why a copy cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum MirrorOpenError {
    /// A file cannot be read or written.
    #[error("the copy of a log cannot be read")]
    Io(#[from] io::Error),
    /// What was cosigned last is not known any more. The mirror's key must not be used for this log.
    #[error("the complete head of the copy is damaged")]
    Complete(#[from] CompleteError),
}

/// What one pass over the files brought.
struct Survey {
    tree: Forest,
    ends: Vec<u64>,
    entries_end: u64,
    /// Whether the root at the size of the complete head was seen and fits.
    fits: bool,
}

impl<S: MirrorStore> Mirror<S> {
    /// Opens the copy of a log, or begins one. The head that the witness accepted last is to be
    /// offered again ([`Mirror::offer`]).
    ///
    /// # Errors
    /// When a file cannot be read or written, or the complete head is damaged.
    pub fn open(
        store: S,
        origin: &str,
        quota_bytes: u64,
    ) -> Result<(Self, MirrorOpened), MirrorOpenError> {
        let complete = match store.load_head()? {
            Some(bytes) => Some(parse_complete(&bytes)?),
            None => None,
        };
        let survey = survey(&store, complete.as_ref())?;
        let size = survey.tree.size();
        let damaged = !survey.fits;
        if damaged {
            tracing::error!(
                log.origin = origin,
                entries = size,
                "the copy of a log is damaged; what is left of it can be completed again"
            );
        }
        let mut mirror = Self {
            pending: complete.iter().cloned().collect(),
            origin: origin.to_owned(),
            quota_bytes,
            complete,
            tree: survey.tree,
            ends: survey.ends,
            entries_end: survey.entries_end,
            staged: Staged::default(),
            ahead: BTreeMap::new(),
            failed: false,
            block: Mutex::new(None),
            store,
        };
        mirror.tidy()?;
        mirror.find_ahead()?;
        let next_entry = mirror.next_entry();
        Ok((
            mirror,
            MirrorOpened {
                next_entry,
                damaged,
            },
        ))
    }

    /// Makes the files as long as what was found, and the blocks what they should be.
    fn tidy(&self) -> io::Result<()> {
        let cut = |part, len| match self.store.len(part)? {
            there if there > len => self.store.cut(part, len),
            _ => Ok(()),
        };
        cut(MirrorPart::Entries, self.entries_end)?;
        cut(MirrorPart::Hashes, self.next_entry() * Hash::BYTES as u64)?;
        let mut blocks = Vec::with_capacity(self.ends.len() * BLOCK_BYTES);
        for (index, end) in (0..).zip(&self.ends) {
            let root = self.tree.upper(BLOCK_LEVEL, index);
            let root = root.ok_or(io::ErrorKind::InvalidData)?;
            blocks.extend_from_slice(&encode_block(*end, &root));
        }
        let mut there = vec![0; blocks.len()];
        read_full(&self.store, MirrorPart::Blocks, 0, &mut there)?;
        if there != blocks {
            self.store.write_at(MirrorPart::Blocks, 0, &blocks)?;
        }
        cut(MirrorPart::Blocks, blocks.len() as u64)
    }

    /// Lists the bundles that came early, and drops those that are of no use any more.
    fn find_ahead(&mut self) -> io::Result<()> {
        for bundle in self.store.list_ahead()? {
            let bytes = self.store.load_ahead(bundle)?.unwrap_or_default();
            match parse_ahead(&bytes) {
                Some(found) if bundle >= bundle_of(self.next_entry()) => {
                    let ahead = Ahead {
                        entries: found.len(),
                        bytes: bytes.len() as u64,
                    };
                    self.ahead.insert(bundle, ahead);
                }
                Some(_) | None => self.store.drop_ahead(bundle)?,
            }
        }
        Ok(())
    }
}

fn survey<S: MirrorStore>(store: &S, complete: Option<&MirrorHead>) -> io::Result<Survey> {
    let Some(head) = complete else {
        let mut survey = Survey::empty();
        survey.scan(store, None)?;
        survey.fits = true;
        return Ok(survey);
    };
    let mut survey = load_blocks(store, bundle_of(head.size))?;
    survey.scan(store, Some(head))?;
    if survey.fits {
        return Ok(survey);
    }
    tracing::warn!("the blocks of a mirrored log do not fit and are computed again");
    let mut survey = Survey::empty();
    survey.scan(store, Some(head))?;
    if !survey.fits && survey.tree.size() >= head.size {
        // Every entry has its hash, and yet the root differs: there is no telling which ones are good.
        survey = Survey::empty();
    }
    Ok(survey)
}

/// Reads the records of the first full bundles, as far as they make sense.
fn load_blocks<S: MirrorStore>(store: &S, count: u64) -> io::Result<Survey> {
    let mut survey = Survey::empty();
    let there = store.len(MirrorPart::Blocks)? / BLOCK_BYTES as u64;
    let count = usize::try_from(count.min(there)).map_err(|_large| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; count * BLOCK_BYTES];
    read_full(store, MirrorPart::Blocks, 0, &mut bytes)?;
    let entries_len = store.len(MirrorPart::Entries)?;
    for record in bytes.chunks_exact(BLOCK_BYTES) {
        let (Some(end), Some(root)) = (record.first_chunk(), record.last_chunk()) else {
            break;
        };
        let end = u64::from_be_bytes(*end);
        if end <= survey.entries_end || end > entries_len {
            break;
        }
        survey.tree.push_block(Hash::from_bytes(*root));
        survey.ends.push(end);
        survey.entries_end = end;
    }
    Ok(survey)
}

impl Survey {
    fn empty() -> Self {
        Self {
            tree: Forest::default(),
            ends: Vec::new(),
            entries_end: 0,
            fits: false,
        }
    }

    /// Goes on behind what is known, as long as entries and hashes fit together.
    fn scan<S: MirrorStore>(&mut self, store: &S, known: Option<&MirrorHead>) -> io::Result<()> {
        let mut entries = Cursor::new(store, MirrorPart::Entries, self.entries_end);
        let mut hashes = Cursor::new(
            store,
            MirrorPart::Hashes,
            self.tree.size() * Hash::BYTES as u64,
        );
        self.compare(known);
        loop {
            entries.fill()?;
            hashes.fill()?;
            let Some((entry, _rest)) = split_entry(entries.rest()) else {
                return Ok(());
            };
            let leaf = leaf_hash(entry);
            if hashes.rest().first_chunk() != Some(leaf.as_bytes()) {
                return Ok(());
            }
            let length = 2 + entry.len();
            entries.used += length;
            hashes.used += Hash::BYTES;
            self.entries_end += length as u64;
            self.tree.push(leaf);
            if self.tree.size().is_multiple_of(BLOCK_LEAVES as u64) {
                self.ends.push(self.entries_end);
            }
            self.compare(known);
        }
    }

    fn compare(&mut self, known: Option<&MirrorHead>) {
        if let Some(head) = known
            && head.size == self.tree.size()
        {
            self.fits = head.root == self.tree.root();
        }
    }
}

/// Reads a file from a place on.
struct Cursor<'a, S> {
    store: &'a S,
    part: MirrorPart,
    offset: u64,
    buffer: Vec<u8>,
    used: usize,
    ended: bool,
}

impl<'a, S: MirrorStore> Cursor<'a, S> {
    fn new(store: &'a S, part: MirrorPart, offset: u64) -> Self {
        Self {
            store,
            part,
            offset,
            buffer: Vec::new(),
            used: 0,
            ended: false,
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Sees to it that the longest entry is there, unless the file ends.
    fn fill(&mut self) -> io::Result<()> {
        const ENOUGH: usize = 2 + u16::MAX as usize;
        if self.ended || self.rest().len() >= ENOUGH {
            return Ok(());
        }
        self.buffer.drain(..self.used);
        self.used = 0;
        let start = self.buffer.len();
        self.buffer.resize(start + CHUNK_BYTES, 0);
        let read = read_full(
            self.store,
            self.part,
            self.offset,
            &mut self.buffer[start..],
        )?;
        self.buffer.truncate(start + read);
        self.offset += read as u64;
        self.ended = read < CHUNK_BYTES;
        Ok(())
    }
}
