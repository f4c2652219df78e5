//! Opening a log: what a crash left is told apart from what someone did to it.
//!
//! Lines below the signing floor must lead to its root; if not, the log was tampered with. Above it,
//! lines count while they can be read and have the right number. The first one that does not is the
//! end of an interrupted write when no whole entry follows it: it is kept under `evidence/`, cut off,
//! and an entry says so. Otherwise it is damage that someone must look at.

use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::index::Index;
use super::nodes::write_hashes;
use super::shared::{Condition, Rest, Shared};
use super::writer::Writer;
use super::{AppendError, FloorProblem, OpenError, Opened, Options, Recovered};
use crate::forest::BLOCK_LEAVES;
use crate::guard::Guard;
use crate::heads::{Found, Heads};
use crate::line::LINE_BYTES_MAX;
use crate::scan::{Examined, LeafCursor, Span, TORN_BYTES_MAX, examine};
use crate::storage::rewrite::{BAD_PREFIX, LOST_PREFIX, UNSIGNED_PREFIX};
use crate::storage::{LockError, Part, Sealed, Small, Storage};
use crate::tree::{Compact, EMPTY_ROOT};
use crate::verify::{Damage, DamageKind};
use crate::{Checkpoint, Clock, Event, HeadError, Hybrid, Line, Origin, SignedHead};

/// What the names of pieces that were cut off begin with.
const TORN_PREFIX: &str = "torn-";

/// Recovers the log and makes its writer, which is not running yet.
pub(super) fn recover(
    storage: Arc<dyn Storage>,
    options: Options,
    (clock, guard): (Arc<dyn Clock>, Guard),
) -> Result<(Arc<Shared>, Writer, Opened), OpenError> {
    let origin = Origin::of(&options.node, options.epoch);
    let key = options.key.verifying_key();
    let dir_error = |source| io_error("read", &options.dir, source);
    let heads = Heads::load(&*storage, &origin, &key).map_err(dir_error)?;
    let floor = check_heads(&heads, &options)?;

    let survey = survey(&*storage, &heads, floor.as_ref())
        .map_err(|source| io_error("read", &options.log_path, source))?;
    let closed = heads.is_closed(&*storage).map_err(dir_error)?;
    let without_heads = heads.top().is_none();
    let beyond = match without_heads && options.held {
        true => None,
        false => heads.beyond(&survey.examined, closed),
    };
    refuse_damage(&survey.examined, beyond, &options)?;
    let adopted = survey.examined.lines - floor.as_ref().map_or(0, |floor| floor.checkpoint.size);
    cut_torn_end(&*storage, &survey.examined)
        .map_err(|source| io_error("cut the unfinished end of", &options.log_path, source))?;
    complete_derived(&*storage, &survey, &origin);
    let found = Seen::of(&survey);
    let shared = share(storage, options, (clock, guard), survey)?;
    let dir_unwritten = |source| io_error("write", &shared.options.dir, source);
    if (without_heads && found.lines == 0) || !shared.options.held {
        shared.storage.claim().map_err(dir_unwritten)?;
    }
    let floor = match floor {
        Some(floor) => floor,
        None => sign_first_floor(&shared)?,
    };
    let any = floor.checkpoint.size > 0 || found.lines > 0;
    let floor_was_missing = heads.floor == Found::Absent && any;
    if floor_was_missing {
        // What is written from now on stands behind the end that a last run has marked.
        unmark_closed(&shared)?;
        write_floor(&shared, &floor)?;
    }
    let mut writer = Writer::new(Arc::clone(&shared), found.hybrid, &floor);
    if found.from_blocks {
        writer.scrub_soon();
    }
    if floor.checkpoint.size > 0 {
        writer.republish(floor.clone(), &heads.checkpoint);
    }
    if closed {
        unmark_closed(&shared)?;
    }
    let recovered = write_about_recovery(&shared, &mut writer, adopted)?;
    super::redact::finish(&shared, &mut writer)?;
    let opened = Opened {
        size: shared.size.load(Ordering::Acquire),
        head: Some(floor).filter(|floor| floor.checkpoint.size > 0),
        recovered,
        hashes_rebuilt: found.hashes_rebuilt,
        floor_was_missing,
    };
    Ok((shared, writer, opened))
}

/// What is still to be known of a survey when the log has it.
struct Seen {
    lines: u64,
    hybrid: Hybrid,
    from_blocks: bool,
    hashes_rebuilt: bool,
}

impl Seen {
    fn of(survey: &Survey) -> Self {
        Self {
            lines: survey.examined.lines,
            hybrid: survey.hybrid,
            from_blocks: survey.from_blocks,
            hashes_rebuilt: !survey.hashes_fit && survey.examined.good_bytes > 0,
        }
    }
}

/// Makes what all handles of the log share.
fn share(
    storage: Arc<dyn Storage>,
    options: Options,
    (clock, guard): (Arc<dyn Clock>, Guard),
    survey: Survey,
) -> Result<Arc<Shared>, OpenError> {
    let rest = survey
        .rest(&*storage)
        .map_err(|source| io_error("read", &options.log_path, source))?;
    Ok(Arc::new(Shared {
        origin: Origin::of(&options.node, options.epoch),
        clock,
        guard,
        hybrid: AtomicU64::new(survey.hybrid.to_u64()),
        size: AtomicU64::new(survey.index.forest.size()),
        in_flight: AtomicUsize::new(0),
        closing: AtomicBool::new(false),
        held: AtomicBool::new(options.held),
        index: RwLock::new(survey.index),
        blocks: Mutex::default(),
        head: Mutex::new(None),
        listeners: Mutex::new(Vec::new()),
        condition: Mutex::new(Condition::default()),
        rest: Mutex::new(rest),
        storage,
        options,
    }))
}

/// Writes the hashes and blocks that are missing on the disk. They are derived: without them the log
/// is as good, and they are tried again when needed.
pub(super) fn complete_derived(storage: &dyn Storage, survey: &Survey, origin: &Origin) {
    if !survey.hashes_fit
        && let Err(error) = write_hashes(storage, survey.examined.good_bytes)
    {
        tracing::warn!(log.origin = %origin, %error, "the leaf hashes cannot be written");
    }
    let known_blocks = if survey.from_blocks {
        storage.sealed().lines.unwrap_or_default() / BLOCK_LEAVES as u64
    } else {
        0
    };
    if let Err(error) = survey.index.write_blocks(storage, known_blocks) {
        tracing::warn!(log.origin = %origin, %error, "the blocks of the log cannot be written");
    }
}

impl From<LockError> for OpenError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { holder } => Self::Locked { holder },
            LockError::Io { path, source } => Self::Io {
                action: "open",
                path,
                source,
            },
        }
    }
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Returns the floor, when there is no doubt about it.
fn check_heads(heads: &Heads, options: &Options) -> Result<Option<SignedHead>, OpenError> {
    let problem = match (&heads.floor, &heads.checkpoint) {
        (Found::Absent, Found::Absent) => return Ok(None),
        // A backup has no floor. What may have been signed since, others are asked before the next.
        (Found::Absent, Found::Head(published)) if options.held => {
            return Ok(Some(published.clone()));
        }
        // Nor need it have a head: then all of it counts as never signed, and others tell what was.
        (Found::Absent, Found::Bad(_)) if options.held => return Ok(None),
        (Found::Absent, Found::Head(_) | Found::Bad(_)) => FloorProblem::Missing,
        (Found::Bad(HeadError::OtherOrigin), _) => FloorProblem::OtherLog,
        (Found::Bad(_), _) => FloorProblem::Damaged,
        // The published head can be written again from the floor.
        (Found::Head(floor), Found::Absent | Found::Bad(_)) => return Ok(Some(floor.clone())),
        (Found::Head(floor), Found::Head(_)) if heads.agree() => return Ok(Some(floor.clone())),
        (Found::Head(_), Found::Head(_)) => FloorProblem::RolledBack,
    };
    Err(OpenError::Floor {
        path: options.dir.join("floor"),
        problem,
        checkpoint: options.dir.join("checkpoint"),
    })
}

fn unmark_closed(shared: &Shared) -> Result<(), OpenError> {
    let unmarked = shared.storage.replace(Small::Closed, &[]);
    unmarked.map_err(|source| io_error("write", &shared.options.dir, source))
}

fn write_floor(shared: &Shared, floor: &SignedHead) -> Result<(), OpenError> {
    shared
        .storage
        .replace(Small::Floor, floor.note.as_bytes())
        .map_err(|source| io_error("write", &shared.options.dir, source))
}

/// Signs the head of the empty log and makes it the floor, before there is any entry: entries
/// without a floor are never ours.
fn sign_first_floor(shared: &Shared) -> Result<SignedHead, OpenError> {
    let checkpoint = Checkpoint {
        origin: shared.origin.clone(),
        size: 0,
        root: EMPTY_ROOT,
    };
    let floor = SignedHead::sign(checkpoint, &shared.options.key);
    write_floor(shared, &floor)?;
    Ok(floor)
}

fn refuse_damage(
    examined: &Examined,
    beyond: Option<Damage>,
    options: &Options,
) -> Result<(), OpenError> {
    let (log_path, dir) = (options.log_path.clone(), options.dir.clone());
    if let Some(Damage {
        kind: DamageKind::Head,
        ..
    }) = beyond
    {
        return Err(OpenError::Floor {
            path: dir.join("floor"),
            problem: FloorProblem::Missing,
            checkpoint: dir.join("checkpoint"),
        });
    }
    if let Some(damage) = examined.damage.or(beyond) {
        return Err(OpenError::Tampered {
            damage,
            log_path,
            dir,
        });
    }
    if examined.corrupt.is_some() || examined.torn_bytes > TORN_BYTES_MAX {
        return Err(OpenError::Corrupt {
            seq: examined.lines,
            log_path,
            dir,
        });
    }
    Ok(())
}

/// What one pass over the file brought.
pub(super) struct Survey {
    pub(super) examined: Examined,
    pub(super) index: Index,
    /// The tree over what is sealed.
    base: Compact,
    signed: Compact,
    signed_len: u64,
    hashes_fit: bool,
    pub(super) hybrid: Hybrid,
    /// Whether the sealed lines were not read: their blocks lead to the floor.
    from_blocks: bool,
}

impl Survey {
    /// Returns the file of lines as it was found, at rest.
    pub(super) fn rest(&self, storage: &dyn Storage) -> io::Result<Rest> {
        let sealed = storage.sealed_stamp();
        Ok(Rest {
            stamp: Some(storage.stamp()?),
            sealed: sealed.ok(),
            len: self.examined.good_bytes,
            signed: self.signed.clone(),
            base: self.base.clone(),
            base_len: storage.sealed().bytes,
            // Between the survey and the stamp someone may have written.
            doubt: true,
            signed_len: self.signed_len,
        })
    }
}

/// Reads what is not sealed, when the blocks of the rest lead to the floor; otherwise everything.
pub(super) fn survey(
    storage: &dyn Storage,
    heads: &Heads,
    floor: Option<&SignedHead>,
) -> io::Result<Survey> {
    let sealed = storage.sealed();
    let lines = sealed.lines.unwrap_or_default();
    if lines > 0
        && floor.is_some_and(|floor| floor.checkpoint.size >= lines)
        && let Some(index) = Index::of_sealed(storage, sealed)?
    {
        let survey = survey_from(storage, heads, floor, (index, sealed))?;
        if survey.examined.damage.is_none() {
            return Ok(survey);
        }
    }
    let nothing = (Index::default(), Sealed::default());
    survey_from(storage, heads, floor, nothing)
}

fn survey_from(
    storage: &dyn Storage,
    heads: &Heads,
    floor: Option<&SignedHead>,
    (mut index, before): (Index, Sealed),
) -> io::Result<Survey> {
    let floor_size = floor.map_or(0, |floor| floor.checkpoint.size);
    let span = Span {
        seq: index.forest.size(),
        offset: before.bytes,
        until: u64::MAX,
    };
    let mut forest = std::mem::take(&mut index.forest);
    let mut cursor = LeafCursor::at(storage, span.seq);
    let mut hashes_fit = true;
    let mut signed = forest.compact();
    let mut signed_len = span.offset;
    let mut base = signed.clone();
    let sealed = storage.sealed().lines.unwrap_or_default();
    let mut last = Vec::new();
    let examined = examine(storage, span, &heads.known(), &mut forest, |passing| {
        index.note(passing.seq, passing.offset);
        hashes_fit = hashes_fit && matches!(cursor.next(), Ok(Some(leaf)) if leaf == passing.leaf);
        if passing.seq < sealed {
            base.push(passing.leaf);
        }
        if passing.seq < floor_size {
            signed.push(passing.leaf);
            signed_len = passing.offset + passing.bytes.len() as u64 + 1;
        }
        last.clear();
        last.extend_from_slice(passing.bytes);
        ControlFlow::Continue(())
    })?;
    // Hashes of lines that are not there any more would name the wrong lines later.
    hashes_fit = hashes_fit && matches!(cursor.next(), Ok(None));
    if last.is_empty() && span.offset > 0 {
        last = last_line(storage, span.offset)?;
    }
    index.forest = forest;
    Ok(Survey {
        examined,
        index,
        base,
        from_blocks: span.seq > 0,
        signed,
        signed_len,
        hashes_fit,
        hybrid: Line::parse(&last).map_or(Hybrid::default(), |line| line.hlc),
    })
}

/// Reads the line that ends at an offset.
fn last_line(storage: &dyn Storage, end: u64) -> io::Result<Vec<u8>> {
    let span = end.min((LINE_BYTES_MAX + 2) as u64);
    let mut text = vec![0; usize::try_from(span).unwrap_or_default()];
    super::shared::read_exactly(storage, end - span, &mut text)?;
    text.pop();
    let start = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
    Ok(text.split_off(start))
}

/// Keeps the unfinished end of the log, then cuts it off. A crash in between leaves both.
fn cut_torn_end(storage: &dyn Storage, examined: &Examined) -> io::Result<()> {
    if examined.torn_bytes == 0 {
        return Ok(());
    }
    let end = examined.good_bytes..examined.good_bytes + examined.torn_bytes;
    keep_end(storage, (TORN_PREFIX, examined.lines), end.clone())?;
    storage.cut_log(end.start)
}

/// Keeps entries that were never signed, from one on, which is about to be cut off with all behind it.
pub(super) fn keep_unsigned(storage: &dyn Storage, seq: u64, bytes: Range<u64>) -> io::Result<()> {
    if bytes.end - bytes.start > TORN_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    keep_end(storage, (UNSIGNED_PREFIX, seq), bytes)
}

fn keep_end(
    storage: &dyn Storage,
    (prefix, seq): (&str, u64),
    range: Range<u64>,
) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or_default()];
    let mut filled = 0;
    while filled < bytes.len() {
        let at = range.start + filled as u64;
        match storage.read_at(Part::Log, at, &mut bytes[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    let sha256 = HEXLOWER.encode(&Sha256::digest(&bytes));
    storage.keep(&format!("{prefix}{seq}-{sha256}"), &bytes)
}

/// Writes an entry about each piece that was cut off, now or by a run that did not get that far.
pub(super) fn write_about_recovery(
    shared: &Shared,
    writer: &mut Writer,
    adopted: u64,
) -> Result<Vec<Recovered>, OpenError> {
    if adopted > 0 {
        append(shared, writer, Event::log_adopted(adopted))?;
        tracing::warn!(
            log.origin = %shared.origin,
            entries = adopted,
            "the last run ended before its last entries were signed: they are kept"
        );
    }
    let evidence = shared.options.dir.join("evidence");
    let pending = shared
        .storage
        .pending()
        .map_err(|source| io_error("read", &evidence, source))?;
    let mut recovered = Vec::new();
    for piece in pending {
        let part_of = |prefix| piece.name.strip_prefix(prefix)?.split_once('-');
        let (event, sha256) = if let Some((_seq, sha256)) = part_of(TORN_PREFIX) {
            (Event::log_recovered(piece.bytes, sha256), sha256)
        } else if let Some((_seq, sha256)) = part_of(UNSIGNED_PREFIX) {
            (Event::log_set_aside(piece.bytes, sha256), sha256)
        } else if let Some((_seq, sha256)) = part_of(BAD_PREFIX) {
            (Event::log_mended(piece.bytes, sha256), sha256)
        } else if let Some(seqs) = part_of(LOST_PREFIX).and_then(seqs_of) {
            (Event::log_restored(&seqs), "")
        } else {
            continue;
        };
        append(shared, writer, event)?;
        shared
            .storage
            .settle(&piece.name)
            .map_err(|source| io_error("write", &evidence, source))?;
        if sha256.is_empty() {
            tracing::warn!(log.origin = %shared.origin, what = piece.name, "entries that were missing are back from copies");
            continue;
        }
        tracing::warn!(
            log.origin = %shared.origin,
            bytes = piece.bytes,
            "lines that are no part of the audit log any more were cut off and kept"
        );
        recovered.push(Recovered {
            bytes: piece.bytes,
            sha256: sha256.to_owned(),
            kept: evidence.join(&piece.name),
        });
    }
    Ok(recovered)
}

/// Reads which entries came back, from the name of what was noted about that.
fn seqs_of((first, end): (&str, &str)) -> Option<Range<u64>> {
    let seqs = first.parse().ok()?..end.parse().ok()?;
    (!seqs.is_empty()).then_some(seqs)
}

pub(super) fn append(shared: &Shared, writer: &mut Writer, event: Event) -> Result<(), OpenError> {
    writer.append_now(event).map_err(|error| {
        let kind = match error {
            AppendError::Disk { kind } => kind,
            AppendError::Full
            | AppendError::Poisoned { .. }
            | AppendError::Closed
            | AppendError::TooLong => io::ErrorKind::Other,
        };
        io_error("write", &shared.options.log_path, kind.into())
    })?;
    Ok(())
}

/// Makes the published head what the floor says; used by [`Writer::republish`].
pub(super) fn write_checkpoint(shared: &Shared, head: &SignedHead) {
    if let Err(error) = shared
        .storage
        .replace(Small::Checkpoint, head.note.as_bytes())
    {
        tracing::warn!(log.origin = %shared.origin, %error, "the published head cannot be written");
    }
}
