//! The file operations of the store, one by one, so that tests can stop between any two of them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::storage::LockError;
use crate::storage::fs::{make_dir, parent_of, sync_dir, take_lock, write_new};

/// The longest file that is read: some hundred thousand heads, many times what a compacted store has.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The files of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    /// The states.
    Heads,
    /// What becomes the states when it is renamed.
    NewHeads,
    /// What says that the key has begun to cosign.
    Binding,
    /// What becomes the binding when it is renamed.
    NewBinding,
}

/// What the store needs of a disk.
pub(super) trait Disk: fmt::Debug + Send {
    /// Reads a whole file; `None` when there is none.
    fn read(&self, name: Name) -> io::Result<Option<Vec<u8>>>;

    /// Makes a file, or makes it anew. It is not durable yet.
    fn write(&mut self, name: Name, bytes: &[u8]) -> io::Result<()>;

    /// Writes at the end of the states. On failure a part may be there.
    fn append_heads(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the states to a length.
    fn cut_heads(&mut self, len: u64) -> io::Result<()>;

    /// Makes the content of a file durable.
    fn sync(&mut self, name: Name) -> io::Result<()>;

    /// Puts a file in the place of another.
    fn rename(&mut self, from: Name, to: Name) -> io::Result<()>;

    /// Makes the names in the directory of a file durable.
    fn sync_dir(&mut self, name: Name) -> io::Result<()>;
}

/// The real one.
#[derive(Debug)]
pub(super) struct FsDisk {
    dir: PathBuf,
    binding: PathBuf,
    /// The states, open for appending once they are written to.
    heads: Option<File>,
    /// Held as long as this lives.
    _lock: File,
}

impl FsDisk {
    pub(super) fn open(dir: &Path, binding: &Path, holder: &str) -> Result<Self, LockError> {
        make_dir(dir)?;
        make_dir(parent_of(binding))?;
        let lock = take_lock(&dir.join("lock"), holder)?;
        Ok(Self {
            dir: dir.to_owned(),
            binding: binding.to_owned(),
            heads: None,
            _lock: lock,
        })
    }

    fn path(&self, name: Name) -> PathBuf {
        match name {
            Name::Heads => self.dir.join("heads"),
            Name::NewHeads => self.dir.join("heads.new"),
            Name::Binding => self.binding.clone(),
            Name::NewBinding => {
                let mut path = self.binding.clone().into_os_string();
                path.push(".new");
                path.into()
            }
        }
    }

    fn heads(&mut self) -> io::Result<&File> {
        let file = match self.heads.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .append(true)
                .mode(0o600)
                .open(self.path(Name::Heads))?,
        };
        Ok(self.heads.insert(file))
    }
}

/// Reads a whole file; `None` when there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

impl Disk for FsDisk {
    fn read(&self, name: Name) -> io::Result<Option<Vec<u8>>> {
        read(&self.path(name))
    }

    fn write(&mut self, name: Name, bytes: &[u8]) -> io::Result<()> {
        write_new(&self.path(name), bytes, false)
    }

    fn append_heads(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.heads()?.write_all(bytes)
    }

    fn cut_heads(&mut self, len: u64) -> io::Result<()> {
        self.heads()?.set_len(len)
    }

    fn sync(&mut self, name: Name) -> io::Result<()> {
        match name {
            Name::Heads => self.heads()?.sync_data(),
            Name::NewHeads | Name::Binding | Name::NewBinding => {
                File::open(self.path(name))?.sync_all()
            }
        }
    }

    fn rename(&mut self, from: Name, to: Name) -> io::Result<()> {
        // The open file would be the old one.
        self.heads = None;
        std::fs::rename(self.path(from), self.path(to))
    }

    fn sync_dir(&mut self, name: Name) -> io::Result<()> {
        sync_dir(parent_of(&self.path(name)))
    }
}
