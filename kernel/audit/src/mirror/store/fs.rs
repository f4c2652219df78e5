//! A mirror's files in a directory of their own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::super::{MirrorHead, parse_complete};
use super::{MirrorPart, MirrorStore};
use crate::Hash;
use crate::tile::{BUNDLE_BYTES_MAX, read_some};

/// The most that is read of the file of the complete head.
const HEAD_FILE_BYTES_MAX: usize = 1 << 20;
/// The most that is read of a bundle that came early: it and what goes with it.
const AHEAD_BYTES_MAX: usize = BUNDLE_BYTES_MAX + 4096;
/// The file that says up to which head the copy is complete.
const HEAD_FILE: &str = "complete";
/// What the name of a file ends in while it is written.
const NEW_SUFFIX: &str = ".new";

/// The files `entries`, `hashes.0`, `blocks`, `complete` and `ahead/` under one directory.
#[derive(Debug)]
pub struct FsMirrorStore {
    dir: PathBuf,
    entries: File,
    hashes: File,
    blocks: File,
}

impl FsMirrorStore {
    /// Opens the copy of a log below `mirrors`, in a directory named after the hash of its origin, or
    /// begins one. The caller holds the lock of the audit log around it.
    ///
    /// # Errors
    /// When a file or directory cannot be made or opened.
    pub fn open(mirrors: &Path, origin: &str) -> io::Result<Self> {
        let dir = mirrors.join(origin_dir(origin));
        let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        make(&dir)?;
        make(&dir.join("ahead"))?;
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(dir.join(name))
        };
        let store = Self {
            entries: open("entries")?,
            hashes: open("hashes.0")?,
            blocks: open("blocks")?,
            dir,
        };
        store.sweep()?;
        sync_dir(&store.dir)?;
        sync_dir(mirrors)?;
        Ok(store)
    }

    /// Returns the directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Removes what a crash left of files that were being written.
    fn sweep(&self) -> io::Result<()> {
        for dir in [self.dir.clone(), self.dir.join("ahead")] {
            for entry in std::fs::read_dir(dir)? {
                let path = entry?.path();
                let unfinished = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .is_some_and(|name| name.ends_with(NEW_SUFFIX));
                if unfinished {
                    std::fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    }

    fn file(&self, part: MirrorPart) -> &File {
        match part {
            MirrorPart::Entries => &self.entries,
            MirrorPart::Hashes => &self.hashes,
            MirrorPart::Blocks => &self.blocks,
        }
    }

    fn ahead(&self, bundle: u64) -> PathBuf {
        self.dir.join("ahead").join(bundle.to_string())
    }
}

/// Returns the name of the directory of a log: the lower-case hexadecimal SHA-256 of its origin.
#[must_use]
pub fn origin_dir(origin: &str) -> String {
    Hash::from_bytes(Sha256::digest(origin).into()).to_string()
}

/// A file that says up to which head one of the copies below a directory is complete, and whether
/// what it says can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptHead {
    /// The file.
    pub path: PathBuf,
    /// What it says; `None` when it is damaged, so that nobody knows what was cosigned last.
    pub head: Option<MirrorHead>,
}

/// Lists what the copies below `mirrors` say they hold, without opening them. Those that were never
/// complete are left out.
///
/// # Errors
/// When a file or directory cannot be read.
pub fn kept_heads(mirrors: &Path) -> io::Result<Vec<KeptHead>> {
    let entries = match std::fs::read_dir(mirrors) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path().join(HEAD_FILE);
        if let Some(bytes) = read_some(&path, HEAD_FILE_BYTES_MAX)? {
            let head = parse_complete(&bytes).ok();
            found.push(KeptHead { path, head });
        }
    }
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl MirrorStore for FsMirrorStore {
    fn read_at(&self, part: MirrorPart, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file(part).read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn len(&self, part: MirrorPart) -> io::Result<u64> {
        Ok(self.file(part).metadata()?.len())
    }

    fn write_at(&self, part: MirrorPart, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(part).write_all_at(bytes, offset)
    }

    fn sync(&self, part: MirrorPart) -> io::Result<()> {
        self.file(part).sync_data()
    }

    fn cut(&self, part: MirrorPart, len: u64) -> io::Result<()> {
        self.file(part).set_len(len)
    }

    fn load_head(&self) -> io::Result<Option<Vec<u8>>> {
        read_some(&self.dir.join(HEAD_FILE), HEAD_FILE_BYTES_MAX)
    }

    fn replace_head(&self, bytes: &[u8]) -> io::Result<()> {
        put(&self.dir, &self.dir.join(HEAD_FILE), bytes)
    }

    fn put_ahead(&self, bundle: u64, bytes: &[u8]) -> io::Result<()> {
        put(&self.dir.join("ahead"), &self.ahead(bundle), bytes)
    }

    fn load_ahead(&self, bundle: u64) -> io::Result<Option<Vec<u8>>> {
        read_some(&self.ahead(bundle), AHEAD_BYTES_MAX)
    }

    fn drop_ahead(&self, bundle: u64) -> io::Result<()> {
        match std::fs::remove_file(self.ahead(bundle)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn list_ahead(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.dir.join("ahead"))? {
            let name = entry?.file_name();
            found.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        Ok(found)
    }
}

/// Writes a file beside its place, durably, then moves it there.
fn put(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(NEW_SUFFIX);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_dir(dir)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
