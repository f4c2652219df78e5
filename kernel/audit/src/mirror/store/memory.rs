//! A mirror's files in memory, for tests and simulations.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{MirrorPart, MirrorStore};

/// Everything in memory, and gone with it.
#[derive(Debug, Default)]
pub struct MemoryMirrorStore {
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    parts: BTreeMap<MirrorPart, Vec<u8>>,
    head: Option<Vec<u8>>,
    ahead: BTreeMap<u64, Vec<u8>>,
}

impl MemoryMirrorStore {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_large| io::ErrorKind::FileTooLarge.into())
}

impl MirrorStore for MemoryMirrorStore {
    fn read_at(&self, part: MirrorPart, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let files = self.files();
        let bytes = files.parts.get(&part).map_or(&[][..], Vec::as_slice);
        let rest = bytes.get(place(offset)?..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn len(&self, part: MirrorPart) -> io::Result<u64> {
        Ok(self.files().parts.get(&part).map_or(0, Vec::len) as u64)
    }

    fn write_at(&self, part: MirrorPart, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut files = self.files();
        let file = files.parts.entry(part).or_default();
        let start = place(offset)?;
        let end = start + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self, _part: MirrorPart) -> io::Result<()> {
        Ok(())
    }

    fn cut(&self, part: MirrorPart, len: u64) -> io::Result<()> {
        let len = place(len)?;
        self.files().parts.entry(part).or_default().resize(len, 0);
        Ok(())
    }

    fn load_head(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files().head.clone())
    }

    fn replace_head(&self, bytes: &[u8]) -> io::Result<()> {
        self.files().head = Some(bytes.to_vec());
        Ok(())
    }

    fn put_ahead(&self, bundle: u64, bytes: &[u8]) -> io::Result<()> {
        self.files().ahead.insert(bundle, bytes.to_vec());
        Ok(())
    }

    fn load_ahead(&self, bundle: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files().ahead.get(&bundle).cloned())
    }

    fn drop_ahead(&self, bundle: u64) -> io::Result<()> {
        self.files().ahead.remove(&bundle);
        Ok(())
    }

    fn list_ahead(&self) -> io::Result<Vec<u64>> {
        Ok(self.files().ahead.keys().copied().collect())
    }
}
