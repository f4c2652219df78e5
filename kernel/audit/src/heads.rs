//! The two heads on disk: the signing floor and the published checkpoint.

use std::io;

use openfang_id::VerifyingKey;

use crate::scan::{Examined, Known};
use crate::storage::{Reader, Small};
use crate::verify::{Damage, DamageKind};
use crate::{HeadError, Origin, SignedHead};

/// What stands where a head should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Absent,
    Bad(HeadError),
    Head(SignedHead),
}

/// Both heads, as they were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heads {
    pub(crate) floor: Found,
    pub(crate) checkpoint: Found,
}

impl Heads {
    /// Reads the checkpoint before the floor: the floor is written first, so that a daemon that signs
    /// meanwhile cannot make the checkpoint look newer.
    pub(crate) fn load<R: Reader + ?Sized>(
        reader: &R,
        origin: &Origin,
        key: &VerifyingKey,
    ) -> io::Result<Self> {
        match Self::load_readable(reader, origin, key) {
            (heads, None) => Ok(heads),
            (_, Some(why)) => Err(why),
        }
    }

    /// The same, with one that cannot be read taken for one that is not there, and why it cannot: the lines
    /// can be found to be bad by the other one alone, though not to be good.
    pub(crate) fn load_readable<R: Reader + ?Sized>(
        reader: &R,
        origin: &Origin,
        key: &VerifyingKey,
    ) -> (Self, Option<io::Error>) {
        let mut unread = None;
        let mut load = |small| match reader.load(small) {
            Ok(None) => Found::Absent,
            Ok(Some(bytes)) => {
                let note = String::from_utf8_lossy(&bytes);
                match SignedHead::open(&note, origin, key) {
                    Ok(head) => Found::Head(head),
                    Err(error) => Found::Bad(error),
                }
            }
            Err(why) => {
                unread.get_or_insert(why);
                Found::Absent
            }
        };
        let checkpoint = load(Small::Checkpoint);
        let floor = load(Small::Floor);
        (Self { floor, checkpoint }, unread)
    }

    /// Tells whether neither is damaged, and the published one is not ahead of the floor.
    pub(crate) fn agree(&self) -> bool {
        match (&self.floor, &self.checkpoint) {
            (Found::Bad(_), _) | (_, Found::Bad(_)) => false,
            (Found::Head(floor), Found::Head(published)) => {
                let (floor, published) = (&floor.checkpoint, &published.checkpoint);
                published.size < floor.size || published == floor
            }
            (Found::Absent | Found::Head(_), Found::Absent) | (Found::Absent, Found::Head(_)) => {
                true
            }
        }
    }

    /// Returns the larger one. The floor may be missing from a copy of a log.
    pub(crate) fn top(&self) -> Option<&SignedHead> {
        match (&self.floor, &self.checkpoint) {
            (Found::Head(head), _) | (_, Found::Head(head)) => Some(head),
            (Found::Absent | Found::Bad(_), Found::Absent | Found::Bad(_)) => None,
        }
    }

    /// Tells whether the log was ended in order at the floor, and nothing was written since.
    pub(crate) fn is_closed<R: Reader + ?Sized>(&self, reader: &R) -> io::Result<bool> {
        let Found::Head(floor) = &self.floor else {
            return Ok(false);
        };
        let closed = reader.load(Small::Closed)?;
        Ok(closed.is_some_and(|note| note == floor.note.as_bytes()))
    }

    /// Returns how many entries the log had when it was ended in order the last time; 0 when that is not known.
    pub(crate) fn ended_at<R: Reader + ?Sized>(
        reader: &R,
        origin: &Origin,
        key: &VerifyingKey,
    ) -> io::Result<u64> {
        let closed = reader.load(Small::Closed)?.unwrap_or_default();
        let note = String::from_utf8_lossy(&closed);
        let head = SignedHead::open(&note, origin, key);
        Ok(head.map_or(0, |head| head.checkpoint.size))
    }

    /// Judges what stands behind the last head: entries without any head are not ours, since the
    /// first floor is signed before the first entry, nor is what was added after an orderly end.
    pub(crate) fn beyond(&self, examined: &Examined, closed: bool) -> Option<Damage> {
        let any = examined.lines > 0 || examined.torn_bytes > 0;
        let Some(top) = self.top() else {
            return any.then_some(Damage {
                first_bad_seq: None,
                kind: DamageKind::Head,
            });
        };
        let size = top.checkpoint.size;
        let more = examined.lines > size || examined.torn_bytes > 0;
        (closed && more).then_some(Damage {
            first_bad_seq: Some(size),
            kind: DamageKind::Inserted,
        })
    }

    /// Returns the sizes at which the root is known, the smallest first.
    pub(crate) fn known(&self) -> Vec<Known> {
        let mut known: Vec<_> = [&self.checkpoint, &self.floor]
            .into_iter()
            .filter_map(|found| match found {
                Found::Head(head) => Some(Known {
                    size: head.checkpoint.size,
                    root: head.checkpoint.root,
                }),
                Found::Absent | Found::Bad(_) => None,
            })
            .collect();
        known.dedup();
        known
    }
}
