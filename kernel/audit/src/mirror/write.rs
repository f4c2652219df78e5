//! Heads and packages on their way into a copy.

use std::io;

use sha2::{Digest as _, Sha256};

use super::complete::encode_complete;
use super::{
    AHEAD_BUNDLES_MAX, Ahead, BLOCK_BYTES, Mirror, MirrorHead, MirrorInfo, MirrorPart,
    MirrorReadError, MirrorStore, NOTE_BYTES_MAX, PACKAGES_MAX, PENDING_HEADS_KEPT, Package,
    Staged, UploadHeader, bundle_of, encode_block,
};
use crate::Hash;
use crate::forest::{BLOCK_LEAVES, BLOCK_LEVEL, Grow as _};
use crate::proof::{ProofError, verify_subtree_consistency};
use crate::tile::Bundle;
use crate::tree::{EMPTY_ROOT, SIZE_MAX, root_of};

/// How many entries one request holds.
const REQUEST_ENTRIES_MAX: u64 = (PACKAGES_MAX * BLOCK_LEAVES) as u64;

/// Why a head does not become pending. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// A larger head is pending or complete.
    #[error("a head of {size} entries is known already")]
    Behind {
        /// Its size.
        size: u64,
    },
    /// The root of this size is known, and it is another one. The log shows two histories.
    #[error("another root is known for this size")]
    Conflict,
    /// A size beyond 2^63 - 1, an empty tree with a root, or a note that is too long.
    #[error("not the head of a log")]
    Form,
}

/// Why an upload cannot begin. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// The request is about another log. HTTP 404.
    #[error("this is the copy of another log")]
    OtherOrigin,
    /// No head was offered yet. HTTP 422.
    #[error("no head is pending")]
    NothingPending,
    /// It does not begin or end where an upload can. HTTP 409, with this.
    #[error("an upload must go on at entry {}", .0.next_entry)]
    Conflict(MirrorInfo),
}

/// Why a package was not stored. What was staged before it stays.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// It holds no entry, or ones of two bundles, or goes beyond the upload. HTTP 422.
    #[error("the package does not hold entries of one bundle of the upload")]
    Range,
    /// The entries are not those of the pending head. HTTP 422.
    #[error("the package is not part of the log: {0}")]
    Proof(#[source] ProofError),
    /// Entries of the same bundle in front of it are missing. HTTP 409.
    #[error("entries in front of the package are missing")]
    Gap,
    /// Too many bundles came early already. HTTP 409.
    #[error("too many bundles came before the ones in front of them")]
    TooFar,
    /// There is no room left for this log. HTTP 507.
    #[error("the copy may take {quota_bytes} bytes")]
    Quota {
        /// How much there is for it.
        quota_bytes: u64,
    },
    /// The store failed. HTTP 503.
    #[error("the package cannot be stored")]
    Store(#[source] MirrorReadError),
    /// An earlier failure could not be undone: open the copy again. HTTP 503.
    #[error("the copy must be opened again")]
    Failed,
}

/// Why staged packages were not made durable. They are gone and can be uploaded again.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The store failed. HTTP 503.
    #[error("the entries cannot be made durable")]
    Store(#[source] io::Error),
    /// The stored entries do not lead to the pending head, although each of them once did: the store
    /// changed them. They were removed. HTTP 503.
    #[error("the stored entries are not those of the log any more")]
    Corrupt,
    /// An earlier failure could not be undone: open the copy again. HTTP 503.
    #[error("the copy must be opened again")]
    Failed,
}

/// An upload that may be staged: the head its packages are checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    head: MirrorHead,
}

/// How far an upload has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// Everything up to this head is durable, and no larger head was complete before: it may be
    /// cosigned now. HTTP 200.
    Complete(MirrorHead),
    /// Entries are missing: go on there. HTTP 202.
    Partial(MirrorInfo),
    /// A larger head has been complete since the upload began. HTTP 409.
    Overtaken(MirrorInfo),
}

impl<S: MirrorStore> Mirror<S> {
    /// Makes a head pending that the witness in front of this mirror has accepted: signed by the log,
    /// consistent with every head before. It is not written to the disk: after [`Mirror::open`] the
    /// last one is to be offered again. The same head with another note takes the place of the old one.
    ///
    /// # Errors
    /// When it is smaller than what is known, or contradicts it.
    pub fn offer(&mut self, head: MirrorHead) -> Result<(), OfferError> {
        let empty_fits = head.size > 0 || head.root == EMPTY_ROOT;
        if head.size > SIZE_MAX || !empty_fits || head.note.len() > NOTE_BYTES_MAX {
            return Err(OfferError::Form);
        }
        if let Some(last) = self.pending.last_mut() {
            if head.size < last.size {
                return Err(OfferError::Behind { size: last.size });
            }
            if head.size == last.size {
                return if head.root == last.root {
                    *last = head;
                    Ok(())
                } else {
                    Err(OfferError::Conflict)
                };
            }
        }
        if self.pending.len() == PENDING_HEADS_KEPT {
            self.pending.remove(0);
        }
        self.pending.push(head);
        Ok(())
    }

    /// Begins an upload as its header says.
    ///
    /// # Errors
    /// When it belongs elsewhere, ends at no pending head, or does not go on where entries are missing.
    pub fn begin(&self, header: &UploadHeader) -> Result<Upload, BeginError> {
        if header.origin != self.origin {
            return Err(BeginError::OtherOrigin);
        }
        if self.pending.is_empty() {
            return Err(BeginError::NothingPending);
        }
        let next = self.next_entry();
        let head = self.pending.iter().find(|head| head.size == header.end);
        let complete = self.complete.as_ref().map_or(0, |head| head.size);
        let useless = header.start < header.end
            && header.start.saturating_add(REQUEST_ENTRIES_MAX) <= next.min(header.end);
        match head {
            Some(head) if head.size >= complete && header.start <= next && !useless => {
                Ok(Upload { head: head.clone() })
            }
            Some(head) if head.size >= complete => Err(BeginError::Conflict(MirrorInfo {
                size: head.size,
                ..self.info()
            })),
            Some(_) | None => Err(BeginError::Conflict(self.info())),
        }
    }

    /// Checks a package and writes its entries, as far as they are new. They are durable only after
    /// [`Mirror::commit`]. Packages may come in any order, again, and from several uploads.
    ///
    /// # Errors
    /// When it is not part of the log, cannot be checked yet, or cannot be stored.
    pub fn stage(&mut self, upload: &Upload, package: &Package) -> Result<(), StageError> {
        if self.failed {
            return Err(StageError::Failed);
        }
        let subtree = package.subtree();
        let in_bundle = subtree.len() <= BLOCK_LEAVES as u64;
        if package.entries.is_empty() || !in_bundle || subtree.end > upload.head.size {
            return Err(StageError::Range);
        }
        let mut leaves = self.known_leaves(subtree.start, package.start)?;
        let own = package.entries.leaves();
        leaves.extend_from_slice(&own);
        let head = &upload.head;
        verify_subtree_consistency(
            subtree,
            &root_of(&leaves),
            head.size,
            &head.root,
            &package.proof,
        )
        .map_err(StageError::Proof)?;
        let have = self.staged_size();
        if package.end() <= have {
            return Ok(());
        }
        if package.start > have {
            return self.put_ahead(package);
        }
        let skip = u16::try_from(have - package.start).map_err(|_many| StageError::Range)?;
        self.append(&package.entries, skip, &own)
    }

    /// Makes what was staged durable, and the head of the upload complete when nothing is missing.
    ///
    /// # Errors
    /// When that failed; what was staged is then gone.
    pub fn commit(&mut self, upload: &Upload) -> Result<Committed, CommitError> {
        if self.failed {
            return Err(CommitError::Failed);
        }
        let flushed = self.absorb_ahead().and_then(|()| self.flush());
        if let Err(error) = flushed {
            self.discard();
            return Err(CommitError::Store(error));
        }
        self.finish(&upload.head)
    }

    /// Returns how many entries there will be when everything staged is durable.
    fn staged_size(&self) -> u64 {
        self.next_entry() + self.staged.leaves.len() as u64
    }

    /// Returns leaf hashes of one bundle, wherever they are.
    fn known_leaves(&self, start: u64, end: u64) -> Result<Vec<Hash>, StageError> {
        if start == end {
            return Ok(Vec::new());
        }
        let count = usize::try_from(end - start).map_err(|_many| StageError::Range)?;
        if end > self.staged_size() {
            let ahead = self.load_ahead(bundle_of(start));
            let mut leaves = ahead.map(|bundle| bundle.leaves()).unwrap_or_default();
            if leaves.len() < count {
                return Err(StageError::Gap);
            }
            leaves.truncate(count);
            return Ok(leaves);
        }
        let durable = self.next_entry();
        let mut leaves = Vec::with_capacity(count);
        if start < durable {
            leaves = self
                .leaves(start, end.min(durable))
                .map_err(StageError::Store)?;
        }
        let from = start.max(durable);
        let staged = self.staged.leaves.iter();
        let skip = usize::try_from(from - durable).unwrap_or(usize::MAX);
        leaves.extend(staged.skip(skip).take(count - leaves.len()));
        Ok(leaves)
    }

    fn reserve(&self, bytes: u64) -> Result<(), StageError> {
        match self.bytes().checked_add(bytes) {
            Some(total) if total <= self.quota_bytes => Ok(()),
            Some(_) | None => Err(StageError::Quota {
                quota_bytes: self.quota_bytes,
            }),
        }
    }

    /// Writes the entries of a bundle behind what is there, but for the first ones.
    fn append(&mut self, bundle: &Bundle, skip: u16, leaves: &[Hash]) -> Result<(), StageError> {
        let bytes = bundle.bytes_from(skip);
        let leaves = &leaves[usize::from(skip)..];
        let size = self.staged_size() + leaves.len() as u64;
        let fills = size.is_multiple_of(BLOCK_LEAVES as u64);
        let derived = leaves.len() * Hash::BYTES + if fills { BLOCK_BYTES } else { 0 };
        self.reserve((bytes.len() + derived) as u64)?;
        let offset = self.entries_end + self.staged.bytes;
        self.store
            .write_at(MirrorPart::Entries, offset, bytes)
            .map_err(|error| StageError::Store(MirrorReadError::Io(error)))?;
        self.staged.bytes += bytes.len() as u64;
        self.staged.leaves.extend_from_slice(leaves);
        if fills {
            self.staged.ends.push(self.entries_end + self.staged.bytes);
        }
        Ok(())
    }

    /// Keeps a package whose predecessors are missing.
    fn put_ahead(&mut self, package: &Package) -> Result<(), StageError> {
        let number = bundle_of(package.start);
        let before = package.start % BLOCK_LEAVES as u64;
        let before = u16::try_from(before).map_err(|_many| StageError::Range)?;
        let known = self.ahead.get(&number).copied();
        let entries = before + package.entries.len();
        if known.is_some_and(|known| known.entries >= entries) {
            return Ok(());
        }
        if known.is_none() && self.ahead.len() >= AHEAD_BUNDLES_MAX {
            return Err(StageError::TooFar);
        }
        let mut bundle = Bundle::default();
        if before > 0 {
            bundle = self.load_ahead(number).ok_or(StageError::Gap)?;
            bundle.truncate(before);
        }
        for entry in package.entries.iter() {
            bundle.push(entry).map_err(|_full| StageError::Range)?;
        }
        let bytes = encode_ahead(&bundle);
        self.reserve(bytes.len() as u64)?;
        self.store
            .put_ahead(number, &bytes)
            .map_err(|error| StageError::Store(MirrorReadError::Io(error)))?;
        let ahead = Ahead {
            entries,
            bytes: bytes.len() as u64,
        };
        self.ahead.insert(number, ahead);
        Ok(())
    }

    /// Reads a bundle that came early. One that cannot be read is as good as none.
    fn load_ahead(&self, number: u64) -> Option<Bundle> {
        self.ahead.get(&number)?;
        match self.store.load_ahead(number) {
            Ok(bytes) => parse_ahead(&bytes.unwrap_or_default()),
            Err(error) => {
                tracing::warn!(log.origin = %self.origin, %error, "a bundle cannot be read");
                None
            }
        }
    }

    /// Moves bundles that came early behind what is there, while they fit.
    fn absorb_ahead(&mut self) -> io::Result<()> {
        while let Some((&number, _)) = self.ahead.first_key_value() {
            let have = self.staged_size();
            let start = number * BLOCK_LEAVES as u64;
            if start > have {
                return Ok(());
            }
            let bundle = self.load_ahead(number).unwrap_or_default();
            self.ahead.remove(&number);
            self.staged.absorbed.push(number);
            if start + u64::from(bundle.len()) <= have {
                continue;
            }
            let skip = u16::try_from(have - start).unwrap_or(bundle.len());
            match self.append(&bundle, skip, &bundle.leaves()) {
                Ok(()) => {}
                Err(StageError::Store(MirrorReadError::Io(error))) => return Err(error),
                Err(_no_room) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Makes the staged entries durable, and only then counts them.
    fn flush(&mut self) -> io::Result<()> {
        if !self.staged.leaves.is_empty() {
            let size = self.next_entry();
            let mut hashes = Vec::with_capacity(self.staged.leaves.len() * Hash::BYTES);
            for leaf in &self.staged.leaves {
                hashes.extend_from_slice(leaf.as_bytes());
            }
            let offset = size * Hash::BYTES as u64;
            self.store.write_at(MirrorPart::Hashes, offset, &hashes)?;
            self.store.sync(MirrorPart::Entries)?;
            self.store.sync(MirrorPart::Hashes)?;
            let staged = std::mem::take(&mut self.staged.leaves);
            for leaf in staged {
                self.tree.push(leaf);
            }
            let first = self.ends.len();
            self.entries_end += self.staged.bytes;
            self.ends.append(&mut self.staged.ends);
            self.staged.bytes = 0;
            self.write_blocks(first)?;
        }
        for number in std::mem::take(&mut self.staged.absorbed) {
            if let Err(error) = self.store.drop_ahead(number) {
                tracing::warn!(log.origin = %self.origin, %error, "a bundle cannot be removed");
            }
        }
        Ok(())
    }

    fn write_blocks(&self, first: usize) -> io::Result<()> {
        let mut records = Vec::new();
        for (index, end) in (0..).zip(&self.ends).skip(first) {
            let root = self.tree.upper(BLOCK_LEVEL, index);
            let root = root.ok_or(io::ErrorKind::InvalidData)?;
            records.extend_from_slice(&encode_block(*end, &root));
        }
        let offset = (first * BLOCK_BYTES) as u64;
        self.store.write_at(MirrorPart::Blocks, offset, &records)
    }

    /// Forgets what was staged, on the disk as well: a page that could not be written may look written.
    pub(super) fn discard(&mut self) {
        self.staged = Staged::default();
        let lengths = [
            (MirrorPart::Entries, self.entries_end),
            (MirrorPart::Hashes, self.next_entry() * Hash::BYTES as u64),
        ];
        for (part, len) in lengths {
            if let Err(error) = self.store.cut(part, len) {
                tracing::error!(log.origin = %self.origin, %error, "the copy of a log has stopped");
                self.failed = true;
            }
        }
    }

    /// Makes a head complete when nothing of it is missing.
    fn finish(&mut self, head: &MirrorHead) -> Result<Committed, CommitError> {
        let info = MirrorInfo {
            size: head.size,
            ..self.info()
        };
        let size = self.complete.as_ref().map(|complete| complete.size);
        if size.is_some_and(|size| head.size < size) {
            return Ok(Committed::Overtaken(self.info()));
        }
        if self.next_entry() < head.size {
            return Ok(Committed::Partial(info));
        }
        let root = self.root_at(head.size);
        if !root.is_ok_and(|root| root == head.root) {
            tracing::error!(
                log.origin = %self.origin,
                size = head.size,
                "the stored entries of a mirrored log do not lead to its head and are removed"
            );
            self.clear();
            return Err(CommitError::Corrupt);
        }
        if self.complete.as_ref() != Some(head) {
            // What this head stands on is found again only through the blocks.
            self.store
                .sync(MirrorPart::Blocks)
                .and_then(|()| self.store.replace_head(&encode_complete(head)))
                .map_err(CommitError::Store)?;
            self.complete = Some(head.clone());
        }
        Ok(Committed::Complete(head.clone()))
    }
}

/// Writes a bundle that came early: count, entries, and a checksum.
fn encode_ahead(bundle: &Bundle) -> Vec<u8> {
    let mut bytes = bundle.len().to_be_bytes().to_vec();
    bytes.extend_from_slice(bundle.as_bytes());
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// Reads it back; `None` when a byte of it changed.
pub(super) fn parse_ahead(bytes: &[u8]) -> Option<Bundle> {
    let (body, checksum) = bytes.split_last_chunk::<32>()?;
    if *checksum != *Sha256::digest(body) {
        return None;
    }
    let (count, entries) = body.split_first_chunk()?;
    Bundle::parse(entries.to_vec(), u16::from_be_bytes(*count)).ok()
}
