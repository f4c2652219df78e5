//! What a mirror needs of a disk, as a trait, so that tests can make it fail.

mod fs;
mod memory;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use fs::{FsMirrorStore, KeptHead, kept_heads, origin_dir};
pub use memory::MemoryMirrorStore;

/// The big files of a mirrored log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MirrorPart {
    /// The entries as in bundles, one bundle behind the other.
    Entries,
    /// The leaf hashes, 32 bytes each: the level 0 tiles, one behind the other.
    Hashes,
    /// For each full bundle, where its entries end (8 bytes, big-endian) and its hash in level 1.
    Blocks,
}

/// A disk with the copy of one log, held by this process alone.
pub trait MirrorStore: fmt::Debug + Send + Sync {
    /// Reads some bytes from a place; none at the end.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read_at(&self, part: MirrorPart, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Returns the length of a file.
    ///
    /// # Errors
    /// When it cannot be told.
    fn len(&self, part: MirrorPart) -> io::Result<u64>;

    /// Writes at a place. The bytes need not be durable before [`Self::sync`].
    ///
    /// # Errors
    /// When they were not all written; some may be.
    fn write_at(&self, part: MirrorPart, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written to a file durable.
    ///
    /// # Errors
    /// When the disk does not confirm it.
    fn sync(&self, part: MirrorPart) -> io::Result<()>;

    /// Cuts a file to a length.
    ///
    /// # Errors
    /// When it cannot be cut.
    fn cut(&self, part: MirrorPart, len: u64) -> io::Result<()>;

    /// Reads the complete head; `None` when none was written yet. At most 1 MiB is read.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn load_head(&self) -> io::Result<Option<Vec<u8>>>;

    /// Puts the complete head in the place of the old one, durably, at once or not at all.
    ///
    /// # Errors
    /// When it cannot be written; whether the old or the new one stands is then not known.
    fn replace_head(&self, bytes: &[u8]) -> io::Result<()>;

    /// Keeps a bundle that came before the ones in front of it, durably, at once or not at all.
    ///
    /// # Errors
    /// When it cannot be written; whether it was kept is then not known.
    fn put_ahead(&self, bundle: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads such a bundle; `None` when it is not kept. At most 32 MiB are read.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    fn load_ahead(&self, bundle: u64) -> io::Result<Option<Vec<u8>>>;

    /// Removes such a bundle, if it is kept.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn drop_ahead(&self, bundle: u64) -> io::Result<()>;

    /// Lists such bundles, in whichever order.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn list_ahead(&self) -> io::Result<Vec<u64>>;
}

/// A store behind a pointer is a store.
macro_rules! forward {
    ($pointer:ty) => {
        impl<S: MirrorStore + ?Sized> MirrorStore for $pointer {
            fn read_at(
                &self,
                part: MirrorPart,
                offset: u64,
                buffer: &mut [u8],
            ) -> io::Result<usize> {
                (**self).read_at(part, offset, buffer)
            }

            fn len(&self, part: MirrorPart) -> io::Result<u64> {
                (**self).len(part)
            }

            fn write_at(&self, part: MirrorPart, offset: u64, bytes: &[u8]) -> io::Result<()> {
                (**self).write_at(part, offset, bytes)
            }

            fn sync(&self, part: MirrorPart) -> io::Result<()> {
                (**self).sync(part)
            }

            fn cut(&self, part: MirrorPart, len: u64) -> io::Result<()> {
                (**self).cut(part, len)
            }

            fn load_head(&self) -> io::Result<Option<Vec<u8>>> {
                (**self).load_head()
            }

            fn replace_head(&self, bytes: &[u8]) -> io::Result<()> {
                (**self).replace_head(bytes)
            }

            fn put_ahead(&self, bundle: u64, bytes: &[u8]) -> io::Result<()> {
                (**self).put_ahead(bundle, bytes)
            }

            fn load_ahead(&self, bundle: u64) -> io::Result<Option<Vec<u8>>> {
                (**self).load_ahead(bundle)
            }

            fn drop_ahead(&self, bundle: u64) -> io::Result<()> {
                (**self).drop_ahead(bundle)
            }

            fn list_ahead(&self) -> io::Result<Vec<u64>> {
                (**self).list_ahead()
            }
        }
    };
}

forward!(&S);
forward!(Arc<S>);
