//! The state of a witness in a file.
//!
//! One file, `heads`, holds all logs: a line that says what it is, the key it belongs to, and records,
//! of which the last one of a log counts. A batch of changes is one append and one `fdatasync`,
//! however many logs it touches. When most of the file is outdated it is written anew beside the old
//! one, synced, and renamed over it. A record is
//!
//! ```text
//! head TIME BYTES SUM     (first 4 bytes of the SHA-256 of this line before the last space)
//! NOTE                    (so many bytes, ends in a line feed)
//! sum SUM                 (first 8 bytes of the SHA-256 of the record before this line)
//! ```
//!
//! The end of the file may be torn: what is not complete was never answered for, and is cut off. A
//! complete record that is wrong is damage, and the store does not open.
//!
//! A second file, the binding, lies outside the directory, beside the key. It says that the key has
//! begun to cosign. A key that is bound and whose state is gone must never sign again: it would
//! forget what it has promised, so the store does not open either.

mod disk;
mod record;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use self::disk::{Disk, FsDisk, Name};
use self::record::Scanned;
use super::store::{Advanced, Change, State, StoreError, Table, WitnessStore};
use crate::Hash;
use crate::cosign::{CosignerKey, LogName};
use crate::storage::LockError;

/// The file is written anew when it is longer than this and than four times what counts in it.
const HEADS_BYTES_MIN: u64 = 1 << 20;
/// See [`HEADS_BYTES_MIN`].
const GROWTH_MAX: u64 = 4;

/// The state of a witness in a directory, held by this process alone.
#[derive(Debug)]
pub struct FileStore {
    store: Store<FsDisk>,
}

/// Why the state of a witness cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// Another process holds it, or a directory cannot be made.
    #[error("the state of the witness in {dir}: {source}")]
    Lock {
        /// Where.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: LockError,
    },
    /// A file cannot be read or written.
    #[error("the state of the witness cannot be read or written")]
    Io(#[from] io::Error),
    /// The key has cosigned before, and what it has cosigned is gone. Nobody can say any more what it
    /// has promised: it needs a new key.
    #[error("the witness key has cosigned before and its state is gone: it must not sign again")]
    StateLost,
    /// The state, or the binding, is the one of another key.
    #[error("the state belongs to another witness key: {bound}")]
    OtherKey {
        /// Which, as it is written there.
        bound: String,
    },
    /// The state is damaged.
    #[error("the state of the witness is damaged at byte {at}")]
    Damaged {
        /// Where.
        at: u64,
    },
}

impl FileStore {
    /// Opens the state of a key, or begins it for a key that has never cosigned. `binding` is the path
    /// of the file that remembers that the key has begun: outside of `dir`, so that the two are not
    /// lost together.
    ///
    /// # Errors
    /// When it is held by another process, cannot be read, is damaged, belongs to another key, or is
    /// gone although the key has cosigned before.
    pub fn open(
        dir: &Path,
        binding: &Path,
        key: &CosignerKey,
        holder: &str,
    ) -> Result<Self, StoreOpenError> {
        let disk = FsDisk::open(dir, binding, holder).map_err(|source| StoreOpenError::Lock {
            dir: dir.to_owned(),
            source,
        })?;
        let store = Store::open(disk, key)?;
        Ok(Self { store })
    }

    /// Tells whether the state of a key in a directory is damaged. One that is not there is not.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_damaged(dir: &Path, key: &CosignerKey) -> io::Result<bool> {
        let Some(bytes) = disk::read(&dir.join("heads"))? else {
            return Ok(false);
        };
        let scanned = Scanned::read(&bytes, &key.to_string());
        Ok(matches!(scanned, Err(StoreOpenError::Damaged { .. })))
    }

    /// Returns the names of the logs that it knows.
    #[must_use]
    pub fn logs(&self) -> Vec<LogName> {
        let inner = self.store.inner();
        let names = inner.table.states().map(|state| &state.head().origin);
        names.cloned().collect()
    }
}

impl WitnessStore for FileStore {
    fn load(&self, origin: &LogName) -> Result<Option<State>, StoreError> {
        self.store.load(origin)
    }

    fn find(&self, id: &Hash) -> Result<Option<State>, StoreError> {
        self.store.find(id)
    }

    fn advance(&self, changes: &[Change]) -> Result<Vec<Advanced>, StoreError> {
        self.store.advance(changes)
    }
}

/// The same on any disk.
struct Store<D> {
    inner: Mutex<Inner<D>>,
}

struct Inner<D> {
    disk: D,
    table: Table,
    key: CosignerKey,
    /// The length of the file, and of what counts in it.
    len: u64,
    live: u64,
    /// See [`HEADS_BYTES_MIN`].
    len_min: u64,
    poisoned: bool,
}

impl<D: Disk> Store<D> {
    fn open(mut disk: D, key: &CosignerKey) -> Result<Self, StoreOpenError> {
        let vkey = key.to_string();
        let bound = match disk.read(Name::Binding)? {
            None => false,
            Some(bytes) if bytes == format!("{vkey}\n").as_bytes() => true,
            Some(bytes) => return Err(other_key(&bytes)),
        };
        let scanned = match disk.read(Name::Heads)? {
            Some(bytes) => {
                let scanned = Scanned::read(&bytes, &vkey)?;
                settle(&mut disk, &scanned)?;
                scanned
            }
            None if bound => return Err(StoreOpenError::StateLost),
            None => {
                let header = record::header(&vkey);
                replace(&mut disk, Name::NewHeads, Name::Heads, &header)?;
                Scanned::read(&header, &vkey)?
            }
        };
        if !bound {
            // Only now: a key without state that is bound would be lost.
            let line = format!("{vkey}\n");
            replace(&mut disk, Name::NewBinding, Name::Binding, line.as_bytes())?;
        }
        let Scanned { table, len, .. } = scanned;
        let live = live(&table, &vkey);
        let inner = Inner {
            disk,
            table,
            key: key.clone(),
            len,
            live,
            len_min: HEADS_BYTES_MIN,
            poisoned: false,
        };
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner<D>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Disk> WitnessStore for Store<D> {
    fn load(&self, origin: &LogName) -> Result<Option<State>, StoreError> {
        let inner = self.inner();
        inner.check()?;
        Ok(inner.table.get(origin).cloned())
    }

    fn find(&self, id: &Hash) -> Result<Option<State>, StoreError> {
        let inner = self.inner();
        inner.check()?;
        Ok(inner.table.find(id).cloned())
    }

    fn advance(&self, changes: &[Change]) -> Result<Vec<Advanced>, StoreError> {
        let mut inner = self.inner();
        inner.check()?;
        let (outcomes, states) = inner.table.plan(changes)?;
        if states.is_empty() {
            return Ok(outcomes);
        }
        let mut bytes = Vec::new();
        for state in &states {
            bytes.extend_from_slice(&record::write(state));
        }
        inner.append(&bytes)?;
        for state in states {
            inner.put(state.clone());
        }
        inner.compact_when_due();
        Ok(outcomes)
    }
}

impl<D: Disk> Inner<D> {
    fn check(&self) -> Result<(), StoreError> {
        if self.poisoned {
            Err(StoreError::Poisoned)
        } else {
            Ok(())
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Err(error) = self.disk.append_heads(bytes) {
            // A part may be there. What is behind it later would not be found.
            if self.disk.cut_heads(self.len).is_err() {
                self.poisoned = true;
            }
            return Err(StoreError::Io(error));
        }
        if let Err(error) = self.disk.sync(Name::Heads) {
            // It may be durable or not, and a second sync may lie about it.
            self.poisoned = true;
            return Err(StoreError::Io(error));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn put(&mut self, state: State) {
        let old = self.table.get(&state.head().origin);
        self.live -= old.map_or(0, record::len);
        self.live += record::len(&state);
        self.table.put(state);
    }

    /// Writes the file anew when it has grown. What was asked for is durable already: a failure before
    /// the new file is in place changes nothing, a later one ends the store.
    fn compact_when_due(&mut self) {
        if self.len <= self.len_min.max(self.live.saturating_mul(GROWTH_MAX)) {
            return;
        }
        let mut bytes = record::header(&self.key.to_string());
        for state in self.table.states() {
            bytes.extend_from_slice(&record::write(state));
        }
        let disk = &mut self.disk;
        let written = disk
            .write(Name::NewHeads, &bytes)
            .and_then(|()| disk.sync(Name::NewHeads));
        if let Err(error) = written {
            tracing::warn!(%error, "the witness state cannot be shortened");
            return;
        }
        let placed = disk
            .rename(Name::NewHeads, Name::Heads)
            .and_then(|()| disk.sync_dir(Name::Heads));
        match placed {
            Ok(()) => self.len = bytes.len() as u64,
            Err(error) => {
                tracing::error!(%error, "the witness state cannot be replaced");
                self.poisoned = true;
            }
        }
    }
}

impl<D: fmt::Debug> fmt::Debug for Store<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Store")
            .field("disk", &inner.disk)
            .field("key", &inner.key.name())
            .field("len", &inner.len)
            .field("poisoned", &inner.poisoned)
            .finish_non_exhaustive()
    }
}

/// Cuts a torn end off, and makes durable what was read: a process that was killed may have written
/// it without waiting for the disk.
fn settle<D: Disk>(disk: &mut D, scanned: &Scanned) -> io::Result<()> {
    if scanned.torn > 0 {
        tracing::warn!(
            torn.bytes = scanned.torn,
            "the end of the witness state was torn and is cut"
        );
        disk.cut_heads(scanned.len)?;
    }
    disk.sync(Name::Heads)?;
    disk.sync_dir(Name::Heads)
}

/// Puts a file in its place, durably.
fn replace<D: Disk>(disk: &mut D, new: Name, name: Name, bytes: &[u8]) -> io::Result<()> {
    disk.write(new, bytes)?;
    disk.sync(new)?;
    disk.rename(new, name)?;
    disk.sync_dir(name)
}

fn live(table: &Table, vkey: &str) -> u64 {
    let records: u64 = table.states().map(record::len).sum();
    records + record::header(vkey).len() as u64
}

fn other_key(bytes: &[u8]) -> StoreOpenError {
    let shown = bytes.get(..bytes.len().min(320)).unwrap_or_default();
    StoreOpenError::OtherKey {
        bound: String::from_utf8_lossy(shown).trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests;
