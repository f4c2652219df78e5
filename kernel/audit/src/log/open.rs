//! Opening a log: what a crash left is told apart from what someone did to it.
//!
//! Lines below the signing floor must lead to its root; if not, the log was tampered with. Above it,
//! lines count while they can be read and have the right number. The first one that does not is the
//! end of an interrupted write when no whole entry follows it: it is kept under `evidence/`, cut off,
//! and an entry says so. Otherwise it is damage that someone must look at.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::nodes::write_hashes;
use super::shared::{Condition, Rest, Shared};
use super::writer::Writer;
use super::{AppendError, FloorProblem, OpenError, Opened, Options, Recovered};
use crate::forest::Forest;
use crate::heads::{Found, Heads};
use crate::mirror::LineIndex;
use crate::scan::{Examined, LeafCursor, examine};
use crate::storage::{LockError, Part, Small, Storage};
use crate::tree::Compact;
use crate::{Clock, Event, HeadError, Hybrid, Line, Origin, SignedHead};

/// The longest end of a log that is cut off. Several times a batch: more is no interrupted write.
const TORN_BYTES_MAX: u64 = 64 << 20;
/// What the names of pieces that were cut off begin with.
const TORN_PREFIX: &str = "torn-";

/// Recovers the log and makes its writer, which is not running yet.
pub(super) fn recover(
    storage: Arc<dyn Storage>,
    options: Options,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<Shared>, Writer, Opened), OpenError> {
    let origin = Origin::of(&options.node, options.epoch);
    let key = options.key.verifying_key();
    let dir_error = |source| io_error("read", &options.dir, source);
    let heads = Heads::load(&*storage, &origin, &key).map_err(dir_error)?;
    let floor = check_heads(&heads, &options)?;

    let survey = survey(&*storage, &heads, floor.as_ref())
        .map_err(|source| io_error("read", &options.log_path, source))?;
    refuse_damage(&survey.examined, &options)?;
    if survey.examined.torn_bytes > 0 {
        cut_torn_end(&*storage, &survey.examined)
            .map_err(|source| io_error("cut the unfinished end of", &options.log_path, source))?;
    }
    let good = survey.examined.good_bytes;
    if !survey.hashes_fit {
        // They are derived: without them the log is as good, and they are tried again when needed.
        if let Err(error) = write_hashes(&*storage, good) {
            tracing::warn!(log.origin = %origin, %error, "the leaf hashes cannot be written");
        }
    }
    let stamp = storage
        .stamp()
        .map_err(|source| io_error("read", &options.log_path, source))?;
    let shared = Arc::new(Shared {
        origin,
        clock,
        size: AtomicU64::new(survey.forest.size()),
        in_flight: AtomicUsize::new(0),
        closing: AtomicBool::new(false),
        forest: RwLock::new(survey.forest),
        head: Mutex::new(None),
        listeners: Mutex::new(Vec::new()),
        condition: Mutex::new(Condition::default()),
        rest: Mutex::new(Rest {
            stamp: Some(stamp),
            len: good,
            signed: survey.signed,
            signed_len: survey.signed_len,
        }),
        index: Mutex::new(LineIndex::default()),
        storage,
        options,
    });
    let mut writer = Writer::new(Arc::clone(&shared), survey.hybrid, floor.as_ref());
    if let Some(floor) = &floor {
        writer.republish(floor.clone(), &heads.checkpoint);
    }
    let recovered = write_about_recovery(&shared, &mut writer)?;
    let opened = Opened {
        size: shared.size.load(Ordering::Acquire),
        head: floor,
        recovered,
        hashes_rebuilt: !survey.hashes_fit && good > 0,
    };
    Ok((shared, writer, opened))
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

fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
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

fn refuse_damage(examined: &Examined, options: &Options) -> Result<(), OpenError> {
    let (log_path, dir) = (options.log_path.clone(), options.dir.clone());
    if let Some(damage) = examined.damage {
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
struct Survey {
    examined: Examined,
    forest: Forest,
    signed: Compact,
    signed_len: u64,
    hashes_fit: bool,
    hybrid: Hybrid,
}

fn survey(storage: &dyn Storage, heads: &Heads, floor: Option<&SignedHead>) -> io::Result<Survey> {
    let floor_size = floor.map_or(0, |floor| floor.checkpoint.size);
    let mut forest = Forest::default();
    let mut cursor = LeafCursor::new(storage);
    let mut hashes_fit = true;
    let mut signed = Compact::default();
    let mut signed_len = 0;
    let mut last = Vec::new();
    let examined = examine(storage, u64::MAX, &heads.known(), &mut forest, |passing| {
        hashes_fit = hashes_fit && matches!(cursor.next(), Ok(Some(leaf)) if leaf == passing.leaf);
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
    Ok(Survey {
        examined,
        forest,
        signed,
        signed_len,
        hashes_fit,
        hybrid: Line::parse(&last).map_or(Hybrid::default(), |line| line.hlc),
    })
}

/// Keeps the unfinished end of the log, then cuts it off. A crash in between leaves both.
fn cut_torn_end(storage: &dyn Storage, examined: &Examined) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(examined.torn_bytes).unwrap_or_default()];
    let mut filled = 0;
    while filled < bytes.len() {
        let at = examined.good_bytes + filled as u64;
        match storage.read_at(Part::Log, at, &mut bytes[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    let sha256 = HEXLOWER.encode(&Sha256::digest(&bytes));
    let name = format!("{TORN_PREFIX}{}-{sha256}", examined.lines);
    storage.keep(&name, &bytes)?;
    storage.cut_log(examined.good_bytes)
}

/// Writes an entry about each piece that was cut off, now or by a run that did not get that far.
fn write_about_recovery(shared: &Shared, writer: &mut Writer) -> Result<Vec<Recovered>, OpenError> {
    let evidence = shared.options.dir.join("evidence");
    let pending = shared
        .storage
        .pending()
        .map_err(|source| io_error("read", &evidence, source))?;
    let mut recovered = Vec::new();
    for piece in pending {
        let Some((_seq, sha256)) = piece
            .name
            .strip_prefix(TORN_PREFIX)
            .and_then(|rest| rest.split_once('-'))
        else {
            continue;
        };
        let event = Event::log_recovered(piece.bytes, sha256);
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
        shared
            .storage
            .settle(&piece.name)
            .map_err(|source| io_error("write", &evidence, source))?;
        tracing::warn!(
            log.origin = %shared.origin,
            bytes = piece.bytes,
            "an unfinished line at the end of the audit log was cut off and kept"
        );
        recovered.push(Recovered {
            bytes: piece.bytes,
            sha256: sha256.to_owned(),
            kept: evidence.join(&piece.name),
        });
    }
    Ok(recovered)
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
