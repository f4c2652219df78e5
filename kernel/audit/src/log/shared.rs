//! What the writer and the handles of a log have in common.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::nodes::{DiskNodes, NodeError};
use super::{AppendError, ConsistencyError, HeadListener, Health, Options, Poison};
use crate::forest::{Forest, Grow as _};
use crate::line::LINE_BYTES_MAX;
use crate::mirror::LineIndex;
use crate::proof::{BuildError, build_consistency};
use crate::scan::{Examined, Known, examine};
use crate::storage::{Part, Stamp, Storage};
use crate::tree::Compact;
use crate::verify::{Damage, DamageKind, Report, Source, Verdict, VerifyError, judge};
use crate::{Clock, Hash, Line, Origin, ReadError, SignedHead};

/// The most entries [`Shared::recent`] returns.
const RECENT_MAX: usize = 10_000;

pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) options: Options,
    pub(super) origin: Origin,
    pub(super) clock: Arc<dyn Clock>,
    /// Durable entries.
    pub(super) size: AtomicU64,
    /// Entries that were queued and not yet answered.
    pub(super) in_flight: AtomicUsize,
    pub(super) closing: AtomicBool,
    pub(super) forest: RwLock<Forest>,
    pub(super) head: Mutex<Option<SignedHead>>,
    pub(super) listeners: Mutex<Vec<HeadListener>>,
    pub(super) condition: Mutex<Condition>,
    /// Held while the file of lines is written: whoever holds it sees the file at rest.
    pub(super) rest: Mutex<Rest>,
    /// Where the lines stand, as far as bundles were asked for.
    pub(super) index: Mutex<LineIndex>,
}

/// What is wrong with the log, if anything.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Condition {
    pub(super) poison: Option<Poison>,
    pub(super) damage: Option<Damage>,
}

/// The file of lines as this process left it.
#[derive(Debug)]
pub(super) struct Rest {
    /// `None` when the file must be looked at again.
    pub(super) stamp: Option<Stamp>,
    /// Where the durable lines end.
    pub(super) len: u64,
    /// The tree up to the last head.
    pub(super) signed: Compact,
    /// Where the lines under the last head end.
    pub(super) signed_len: u64,
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
            (None, None) => Health::Ok,
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

    fn inspect(&self, rest: &mut Rest, stamp: Stamp) -> io::Result<()> {
        let reopened = if stamp.linked {
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
        let known = self.known();
        let signed = rest.signed.size();
        let mut signed_len = (signed == 0).then_some(0);
        let mut tree = Compact::default();
        let examined = examine(&*self.storage, u64::MAX, &[known], &mut tree, |passing| {
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
            }
            None => self.poison(Poison::FileChanged),
        }
        Ok(())
    }

    /// Returns what the file must lead to.
    pub(super) fn known(&self) -> Known {
        let forest = self.forest.read().unwrap_or_else(PoisonError::into_inner);
        Known {
            size: forest.size(),
            root: forest.root(),
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
        let examined = examine(&*self.storage, until, &[known], &mut tree, |_passing| {
            if self.closing.load(Ordering::Relaxed) {
                ended = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        match examined {
            Ok(_) if ended => {}
            Ok(examined) => {
                if let Some(damage) = found_damage(&examined, known) {
                    self.set_damage(Some(damage));
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
        self.look(&mut rest)
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
        Ok(report)
    }

    pub(super) fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, ConsistencyError> {
        if from == 0 || from > to {
            return Err(ConsistencyError::Range);
        }
        let have = self.size.load(Ordering::Acquire);
        if to > have {
            return Err(ConsistencyError::Behind { have });
        }
        let mut rest = lock(&self.rest);
        self.look(&mut rest).map_err(ConsistencyError::Io)?;
        if let Some(damage) = lock(&self.condition).damage {
            return Err(ConsistencyError::Damaged {
                seq: damage.first_bad_seq,
            });
        }
        match self.build_consistency(from, to) {
            Err(BuildError::Nodes(NodeError::Stale)) => {
                self.rebuild_hashes(&rest).map_err(ConsistencyError::Io)?;
            }
            built => return built.map_err(consistency_error),
        }
        self.build_consistency(from, to).map_err(consistency_error)
    }

    fn build_consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, BuildError<NodeError>> {
        let forest = self.forest.read().unwrap_or_else(PoisonError::into_inner);
        build_consistency(&DiskNodes::new(&forest, &*self.storage), from, to)
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
        let forest = self.forest.read().unwrap_or_else(PoisonError::into_inner);
        let nodes = DiskNodes::new(&forest, &*self.storage);
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

fn read_exactly(storage: &dyn Storage, from: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match storage.read_at(Part::Log, from + filled as u64, &mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(())
}

fn consistency_error(error: BuildError<NodeError>) -> ConsistencyError {
    match error {
        BuildError::Range => ConsistencyError::Range,
        BuildError::Nodes(NodeError::Io(error)) => ConsistencyError::Io(error),
        BuildError::Nodes(NodeError::Stale) => ConsistencyError::Damaged { seq: None },
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
