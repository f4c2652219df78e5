//! What stands behind the last signed entry and is no part of the log.
//!
//! Nothing was ever signed of it, and so no copy can mend it: it is set aside, whole, and cut off. What an
//! interrupted write leaves is no affair of this; the next start of the log cuts it off by itself.

use std::io;
use std::ops::{ControlFlow, Range};

use openfang_id::VerifyingKey;

use crate::heads::{Found, Heads};
use crate::scan::{Known, Passing, Span, TORN_BYTES_MAX, examine};
use crate::storage::Reader;
use crate::tree::Compact;
use crate::{Checkpoint, Origin};

/// Bytes behind the last entry that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The number that an entry in their place would have.
    pub seq: u64,
    /// Where they are among the bytes of all lines.
    pub bytes: Range<u64>,
    /// Why they are no part of the log.
    pub why: NoPart,
}

/// Why bytes are no part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPart {
    /// The log was ended in order, under a head that it has signed, and they were written after that.
    AfterTheEnd,
    /// They begin with a line that is no entry, or not the next one, and no write that was cut short leaves
    /// that.
    Damaged,
}

/// Looks for bytes that have to be cut off; `None` when there are none, or when the entries that the
/// signing floor covers are damaged or the floor is missing, which comes first.
///
/// # Errors
/// When a file cannot be read.
pub fn behind<R: Reader + ?Sized>(
    local: &R,
    origin: &Origin,
    key: &VerifyingKey,
) -> io::Result<Option<Behind>> {
    let heads = Heads::load(local, origin, key)?;
    let Found::Head(floor) = &heads.floor else {
        return Ok(None);
    };
    let size = floor.checkpoint.size;
    let mut signed_end = 0;
    let mut tree = Compact::default();
    let examined = examine(local, Span::ALL, &heads.known(), &mut tree, |passing| {
        if passing.seq < size {
            signed_end = passing.offset + passing.bytes.len() as u64 + 1;
        }
        ControlFlow::Continue(())
    });
    let examined = match examined {
        Ok(examined) => examined,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why),
    };
    if examined.damage.is_some() {
        return Ok(None);
    }
    let end = examined.good_bytes + examined.torn_bytes;
    if heads.is_closed(local)? && end > signed_end {
        return Ok(Some(Behind {
            seq: size,
            bytes: signed_end..end,
            why: NoPart::AfterTheEnd,
        }));
    }
    let damaged = examined.corrupt.is_some() || examined.torn_bytes > TORN_BYTES_MAX;
    Ok(damaged.then_some(Behind {
        seq: examined.lines,
        bytes: examined.good_bytes..end,
        why: NoPart::Damaged,
    }))
}

/// Counts the entries, when they lead to the head, if there is one, and each of them has its number; `None`
/// when they do not.
///
/// # Errors
/// When a file cannot be read.
pub fn standing<R: Reader + ?Sized>(
    local: &R,
    head: Option<&Checkpoint>,
) -> io::Result<Option<u64>> {
    let known = head.map(|head| Known {
        size: head.size,
        root: head.root,
    });
    let known: Vec<Known> = known.into_iter().collect();
    let mut tree = Compact::default();
    let all = |_passing: Passing<'_>| ControlFlow::Continue(());
    let examined = examine(local, Span::ALL, &known, &mut tree, all)?;
    let is_good = examined.damage.is_none() && examined.corrupt.is_none();
    Ok(is_good.then_some(examined.lines))
}
