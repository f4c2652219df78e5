//! What the writer and the handles of a log have in common.

use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::index::Index;
use super::nodes::{Blocks, DiskNodes, NodeError};
use super::{AppendError, HeadListener, Health, Options, Poison, ProveError};
use crate::forest::Grow as _;
use crate::guard::Guard;
use crate::line::LINE_BYTES_MAX;
use crate::proof::{BuildError, Nodes as _, build_consistency, build_inclusion};
use crate::scan::{Examined, Known, Span, examine, lines};
use crate::storage::{Part, Stamp, Storage};
use crate::tree::{Compact, leaf_hash};
use crate::verify::{Damage, DamageKind, Report, Source, Verdict, VerifyError, judge};
use crate::{Clock, Hash, Line, Origin, ReadError, SignedHead};

/// The most nodes [`Shared::nodes`] returns: a tile.
const NODES_MAX: u64 = 256;
/// The most entries [`Shared::entries`] returns: a bundle.
const ENTRIES_MAX: u64 = 256;
/// The most entries [`Shared::recent`] returns.
const RECENT_MAX: usize = 10_000;

pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) options: Options,
    pub(super) origin: Origin,
    pub(super) clock: Arc<dyn Clock>,
    /// What entries pass before they are queued.
    pub(super) guard: Guard,
    /// The hybrid clock: the last that was written here or seen of others.
    pub(super) hybrid: AtomicU64,
    /// Durable entries.
    pub(super) size: AtomicU64,
    /// Entries that were queued and not yet answered.
    pub(super) in_flight: AtomicUsize,
    pub(super) closing: AtomicBool,
    /// No head is signed or shown.
    pub(super) held: AtomicBool,
    pub(super) index: RwLock<Index>,
    /// What proofs have asked for.
    pub(super) blocks: Mutex<Blocks>,
    pub(super) head: Mutex<Option<SignedHead>>,
    pub(super) listeners: Mutex<Vec<HeadListener>>,
    pub(super) condition: Mutex<Condition>,
    /// Held while the file of lines is written: whoever holds it sees the file at rest.
    pub(super) rest: Mutex<Rest>,
}

/// What is wrong with the log, if anything.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Condition {
    pub(super) poison: Option<Poison>,
    pub(super) damage: Option<Damage>,
    /// Why the last batch could not be written.
    pub(super) failing: Option<io::ErrorKind>,
}

/// The file of lines as this process left it.
#[derive(Debug)]
pub(super) struct Rest {
    /// `None` when the file must be looked at again.
    pub(super) stamp: Option<Stamp>,
    /// The same of the sealed segments.
    pub(super) sealed: Option<u64>,
    /// Where the durable lines end.
    pub(super) len: u64,
    /// The tree up to the last head.
    pub(super) signed: Compact,
    /// Where the lines under the last head end.
    pub(super) signed_len: u64,
    /// The tree over what is sealed.
    pub(super) base: Compact,
    /// Where the lines begin that are not sealed.
    pub(super) base_len: u64,
    /// Whether lines were written since the file was last read: someone may have written between
    /// the look before and the stamp after.
    pub(super) doubt: bool,
}

/// Locks, whatever happened to the one who held it before.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn refuse_when_stopped(&self) -> Result<(), AppendError> {
        if self.closing.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        match lock(&self.condition).poison {
            Some(reason) => Err(AppendError::Poisoned { reason }),
            None => Ok(()),
        }
    }

    pub(super) fn health(&self) -> Health {
        let condition = *lock(&self.condition);
        match (condition.damage, condition.poison) {
            (Some(damage), _) => Health::Damaged {
                first_bad_seq: damage.first_bad_seq,
            },
            (None, Some(reason)) => Health::Poisoned { reason },
            (None, None) => match condition.failing {
                Some(kind) => Health::Failing { kind },
                None => Health::Ok,
            },
        }
    }

    /// Stops the log. The first reason stays.
    pub(super) fn poison(&self, reason: Poison) {
        let mut condition = lock(&self.condition);
        if condition.poison.is_none() {
            condition.poison = Some(reason);
            tracing::error!(log.origin = %self.origin, %reason, "the audit log has stopped");
        }
    }

    /// Notes whether the last batch could be written.
    pub(super) fn set_failing(&self, failing: Option<io::ErrorKind>) {
        let mut condition = lock(&self.condition);
        if condition.failing == failing {
            return;
        }
        condition.failing = failing;
        match failing {
            Some(kind) => {
                tracing::error!(log.origin = %self.origin, reason = %kind, "the audit log takes no entries");
            }
            None => tracing::warn!(log.origin = %self.origin, "the audit log takes entries again"),
        }
    }

    pub(super) fn set_damage(&self, damage: Option<Damage>) {
        let mut condition = lock(&self.condition);
        if condition.damage == damage {
            return;
        }
        condition.damage = damage;
        match damage {
            Some(damage) => {
                tracing::warn!(log.origin = %self.origin, %damage, "the audit log is damaged");
            }
            None => {
                tracing::warn!(log.origin = %self.origin, "the audit log is whole again");
            }
        }
    }

    /// Looks at the file, and reads all of it when someone else touched it. The file is at rest.
    /// After the log has stopped it may hold more than is durable, and is not looked at any more.
    pub(super) fn look(&self, rest: &mut Rest) -> io::Result<()> {
        if lock(&self.condition).poison.is_some() {
            return Ok(());
        }
        let stamp = self.storage.stamp()?;
        if rest.stamp == Some(stamp) {
            return Ok(());
        }
        self.inspect(rest, stamp)
    }

    /// As [`Self::look`], at the sealed segments too.
    pub(super) fn look_at_all(&self, rest: &mut Rest) -> io::Result<()> {
        if rest.sealed != Some(self.storage.sealed_stamp()?) {
            rest.stamp = None;
        }
        self.look(rest)
    }

    fn inspect(&self, rest: &mut Rest, stamp: Stamp) -> io::Result<()> {
        let same_folder = rest.stamp.is_some_and(|known| known.sealed == stamp.sealed);
        let reopened = if stamp.linked && same_folder {
            Ok(())
        } else {
            self.storage.reopen_log()
        };
        match reopened {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.set_damage(Some(Damage {
                    first_bad_seq: Some(0),
                    kind: DamageKind::Missing,
                }));
                self.poison(Poison::FileChanged);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        // Taken before the file is read: a change in between shows the next time.
        let stamp = self.storage.stamp()?;
        let sealed = self.storage.sealed_stamp()?;
        let known = self.known();
        let signed = rest.signed.size();
        let mut signed_len = (signed == 0).then_some(0);
        let mut tree = Compact::default();
        let examined = examine(&*self.storage, Span::ALL, &[known], &mut tree, |passing| {
            if passing.seq + 1 == signed {
                signed_len = Some(passing.offset + passing.bytes.len() as u64 + 1);
            }
            ControlFlow::Continue(())
        })?;
        let damage = found_damage(&examined, known);
        self.set_damage(damage);
        let whole = examined.lines == known.size && examined.torn_bytes == 0;
        match signed_len.filter(|_len| whole) {
            Some(signed_len) => {
                rest.signed_len = signed_len;
                rest.len = examined.good_bytes;
                rest.stamp = Some(stamp);
                rest.sealed = Some(sealed);
            }
            None => self.poison(Poison::FileChanged),
        }
        Ok(())
    }

    /// Reads again what is not sealed. Whatever was done to it while this process wrote shows here.
    pub(super) fn reread(&self, rest: &mut Rest) -> io::Result<()> {
        let known = self.known();
        let mut again = rest.base.clone();
        let end = lines(&*self.storage, rest.base_len, rest.len, |_offset, bytes| {
            again.push(leaf_hash(bytes));
            ControlFlow::Continue(())
        })?;
        let whole = end.lines_end == rest.len && again.size() == known.size;
        if !whole || again.root() != known.root {
            rest.stamp = None;
            self.look(rest)?;
        }
        rest.doubt = false;
        Ok(())
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the file must lead to.
    pub(super) fn known(&self) -> Known {
        let index = self.index();
        Known {
            size: index.forest.size(),
            root: index.forest.root(),
        }
    }

    /// Reads what is durable now once more, beside the writer. Ends early when the log is closed.
    pub(super) fn scrub(&self) {
        let (known, until) = {
            let rest = lock(&self.rest);
            (self.known(), rest.len)
        };
        let mut tree = Compact::default();
        let mut ended = false;
        let examined = examine(
            &*self.storage,
            Span::until(until),
            &[known],
            &mut tree,
            |_passing| {
                if self.closing.load(Ordering::Relaxed) {
                    ended = true;
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            },
        );
        match examined {
            Ok(_) if ended => {}
            Ok(examined) => {
                if found_damage(&examined, known).is_some() {
                    // It may be whole again by now: whoever holds the file at rest decides.
                    let mut rest = lock(&self.rest);
                    rest.stamp = None;
                    if let Err(error) = self.look(&mut rest) {
                        tracing::warn!(log.origin = %self.origin, %error, "the audit log cannot be read again");
                    }
                }
            }
            Err(error) => {
                tracing::warn!(log.origin = %self.origin, %error, "the audit log cannot be read again");
            }
        }
    }

    pub(super) fn verify(&self) -> Result<Report, VerifyError> {
        let at_least = self.size.load(Ordering::Acquire);
        let key = self.options.key.verifying_key();
        let source = Source {
            log_path: &self.options.log_path,
            dir: &self.options.dir,
            key: &key,
            origin: &self.origin,
        };
        let mut rest = lock(&self.rest);
        self.look_at_all(&mut rest)
            .map_err(|source| VerifyError::Unreadable {
                path: self.options.log_path.clone(),
                source,
            })?;
        drop(rest);
        let report = judge(&*self.storage, source, at_least, |_line| {
            ControlFlow::Continue(())
        })?;
        if let Verdict::Tampered {
            first_bad_seq,
            kind,
        } = report.verdict
            && kind != DamageKind::Head
        {
            self.set_damage(Some(Damage {
                first_bad_seq,
                kind,
            }));
        }
        Ok(self.with_what_is_missing(report))
    }

    /// What was read may be a file that has no name any more, and is gone when this process ends.
    fn with_what_is_missing(&self, report: Report) -> Report {
        let damage = lock(&self.condition).damage;
        let missing = damage.filter(|damage| damage.kind == DamageKind::Missing);
        match (&report.verdict, missing) {
            (Verdict::Empty | Verdict::Intact { .. }, Some(missing)) => Report {
                verdict: Verdict::Tampered {
                    first_bad_seq: missing.first_bad_seq,
                    kind: missing.kind,
                },
                ..report
            },
            (Verdict::Tampered { .. }, _) | (_, None) => report,
        }
    }

    pub(super) fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, ProveError> {
        if from == 0 || from > to {
            return Err(ProveError::Range);
        }
        self.prove(to, |nodes| build_consistency(nodes, from, to))
    }

    pub(super) fn inclusion(&self, seq: u64, size: u64) -> Result<Vec<Hash>, ProveError> {
        if seq >= size {
            return Err(ProveError::Range);
        }
        self.prove(size, |nodes| build_inclusion(nodes, seq, size))
    }

    pub(super) fn nodes(&self, level: u32, span: Range<u64>) -> Result<Vec<Hash>, ProveError> {
        let end = span.end.checked_shl(level).filter(|_end| level < 63);
        let end = end.ok_or(ProveError::Range)?;
        if span.is_empty() || span.end - span.start > NODES_MAX {
            return Err(ProveError::Range);
        }
        self.prove(end, |nodes| {
            let all = span.clone().map(|index| nodes.node(level, index));
            all.collect::<Result<_, _>>().map_err(BuildError::Nodes)
        })
    }

    /// Has something computed from the tree of so many entries, once more when the hashes on disk
    /// turn out to be stale.
    fn prove<T>(
        &self,
        size: u64,
        build: impl Fn(&DiskNodes<'_, dyn Storage>) -> Result<T, BuildError<NodeError>>,
    ) -> Result<T, ProveError> {
        let have = self.size.load(Ordering::Acquire);
        if size > have {
            return Err(ProveError::Behind { have });
        }
        let mut rest = lock(&self.rest);
        self.look_at_all(&mut rest).map_err(ProveError::Io)?;
        if let Some(damage) = lock(&self.condition).damage {
            return Err(ProveError::Damaged {
                seq: damage.first_bad_seq,
            });
        }
        let build = || {
            let index = self.index();
            build(&DiskNodes::new(&index.forest, &*self.storage, &self.blocks))
        };
        match build() {
            Err(BuildError::Nodes(NodeError::Stale)) => {
                self.rebuild_hashes(&rest).map_err(ProveError::Io)?;
            }
            built => return built.map_err(prove_error),
        }
        build().map_err(prove_error)
    }

    /// Reads some lines as they stand, each checked against its leaf hash.
    pub(super) fn entries(&self, span: Range<u64>) -> Result<Vec<Vec<u8>>, ProveError> {
        let count = span.end.saturating_sub(span.start);
        if count == 0 || count > ENTRIES_MAX {
            return Err(ProveError::Range);
        }
        let leaves = self.nodes(0, span.clone())?;
        let (until, start) = {
            let rest = lock(&self.rest);
            (rest.len, self.index().block_of(span.start))
        };
        let (mut seq, offset) = start.ok_or(ProveError::Range)?;
        let mut found = Vec::with_capacity(leaves.len());
        let mut wanted = leaves.iter();
        let mut differs = None;
        lines(&*self.storage, offset, until, |_offset, bytes| {
            let at = seq;
            seq += 1;
            if at < span.start {
                return ControlFlow::Continue(());
            }
            match wanted.next() {
                Some(leaf) if leaf_hash(bytes) == *leaf => {
                    found.push(bytes.to_vec());
                    if seq == span.end {
                        return ControlFlow::Break(());
                    }
                    return ControlFlow::Continue(());
                }
                Some(_) => differs = Some(at),
                None => {}
            }
            ControlFlow::Break(())
        })
        .map_err(ProveError::Io)?;
        if found.len() == leaves.len() {
            return Ok(found);
        }
        let seq = Some(differs.unwrap_or(span.start + found.len() as u64));
        Err(ProveError::Damaged { seq })
    }

    /// Computes the leaf hashes on disk again from the lines.
    pub(super) fn rebuild_hashes(&self, rest: &Rest) -> io::Result<()> {
        tracing::warn!(log.origin = %self.origin, "the leaf hashes on disk are stale and are computed again");
        super::nodes::write_hashes(&*self.storage, rest.len)
    }

    pub(super) fn recent(&self, n: usize) -> Result<Vec<Line>, ReadError> {
        let n = n.min(RECENT_MAX);
        let (size, len) = {
            let rest = lock(&self.rest);
            (self.size.load(Ordering::Acquire), rest.len)
        };
        let io_error = |source| ReadError::Io {
            path: self.options.log_path.clone(),
            source,
        };
        let wanted = (n as u64).min(size);
        let text = self.tail(len, wanted).map_err(io_error)?;
        let index = self.index();
        let nodes = DiskNodes::new(&index.forest, &*self.storage, &self.blocks);
        let mut lines = Vec::new();
        for (seq, bytes) in (size - wanted..size).zip(text.split(|byte| *byte == b'\n')) {
            let damaged = ReadError::Damaged { seq };
            let Ok(line) = Line::parse(bytes) else {
                return Err(damaged);
            };
            let known = match nodes.leaf(seq) {
                Ok(leaf) => leaf == line.leaf,
                // The hashes can be computed again at any time; the number must do until then.
                Err(NodeError::Stale) => true,
                Err(NodeError::Io(source)) => return Err(io_error(source)),
            };
            if !known || line.seq.0 != seq {
                return Err(damaged);
            }
            lines.push(line);
        }
        Ok(lines)
    }

    /// Reads the last lines before an offset.
    fn tail(&self, len: u64, wanted: u64) -> io::Result<Vec<u8>> {
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let mut span = len.min((LINE_BYTES_MAX + 1) as u64);
        loop {
            let start = len - span;
            let mut text = vec![0; usize::try_from(span).unwrap_or(usize::MAX)];
            read_exactly(&*self.storage, start, &mut text)?;
            // One line feed ends each wanted line, and one more stands before the first of them.
            let mut feeds = memchr::memrchr_iter(b'\n', &text);
            let before = usize::try_from(wanted).ok().and_then(|nth| feeds.nth(nth));
            match before {
                Some(before) => return Ok(text.split_off(before + 1)),
                None if span == len => return Ok(text),
                None => span = len.min(span * 4),
            }
        }
    }
}

pub(super) fn read_exactly(storage: &dyn Storage, from: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match storage.read_at(Part::Log, from + filled as u64, &mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(())
}

fn prove_error(error: BuildError<NodeError>) -> ProveError {
    match error {
        BuildError::Range => ProveError::Range,
        BuildError::Nodes(NodeError::Io(error)) => ProveError::Io(error),
        BuildError::Nodes(NodeError::Stale) => ProveError::Damaged { seq: None },
    }
}

/// Whatever is not exactly the known lines is damage to a file that only this process writes.
fn found_damage(examined: &Examined, known: Known) -> Option<Damage> {
    let more = examined.lines > known.size || examined.torn_bytes > 0;
    let appended = more.then_some(Damage {
        first_bad_seq: Some(known.size),
        kind: DamageKind::Inserted,
    });
    examined.damage.or(examined.corrupt).or(appended)
}
