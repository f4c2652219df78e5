//! The bytes of the file of states.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{StoreOpenError, Table, other_key};
use crate::checkpoint::parse_decimal;
use crate::cosign::TIME_MAX;
use crate::witness::{REQUEST_BYTES_MAX, State};

const MAGIC: &str = "openfang witness state v1\n";
const SUM_BYTES: usize = 8;
/// `sum `, the hexadecimal digits and a line feed.
const SUM_LINE_BYTES: usize = 4 + 2 * SUM_BYTES + 1;
/// The sum of the first line: a wrong length must not look like a torn record.
const HEAD_SUM_BYTES: usize = 4;
/// The longest first line of a record: two numbers of at most 19 digits and a sum.
const HEAD_LINE_BYTES_MAX: usize = 5 + 19 + 1 + 19 + 1 + 2 * HEAD_SUM_BYTES + 1;

/// What a file of states holds.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) table: Table,
    /// How many bytes of it are whole.
    pub(super) len: u64,
    /// How many bytes behind them are not.
    pub(super) torn: u64,
}

/// What stands at a place of the file.
enum Found {
    /// A record of so many bytes.
    Record(State, usize),
    /// The beginning of one.
    Torn,
    Damaged,
}

pub(super) fn header(vkey: &str) -> Vec<u8> {
    format!("{MAGIC}{vkey}\n").into_bytes()
}

pub(super) fn write(state: &State) -> Vec<u8> {
    let note = state.note().to_string();
    let first = format!("head {} {}", state.version().time, note.len());
    let first_sum = hex_sum(first.as_bytes(), HEAD_SUM_BYTES);
    let mut record = format!("{first} {first_sum}\n{note}").into_bytes();
    let sum = sum_line(&record);
    record.extend_from_slice(sum.as_bytes());
    record
}

pub(super) fn len(state: &State) -> u64 {
    write(state).len() as u64
}

impl Scanned {
    pub(super) fn read(bytes: &[u8], vkey: &str) -> Result<Self, StoreOpenError> {
        let header = header(vkey);
        if !bytes.starts_with(&header) {
            return Err(match bytes.strip_prefix(MAGIC.as_bytes()) {
                Some(rest) => {
                    let line = rest.split(|byte| *byte == b'\n').next();
                    other_key(line.unwrap_or_default())
                }
                None => StoreOpenError::Damaged { at: 0 },
            });
        }
        let mut table = Table::default();
        let mut at = header.len();
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let (state, len) = match find(rest) {
                Found::Record(state, len) => (state, len),
                Found::Torn => break,
                Found::Damaged => return Err(StoreOpenError::Damaged { at: at as u64 }),
            };
            let old = table.get(&state.head().origin);
            if old.is_some_and(|old| !old.version().may_become(&state.version())) {
                return Err(StoreOpenError::Damaged { at: at as u64 });
            }
            table.put(state);
            at += len;
        }
        Ok(Self {
            table,
            len: at as u64,
            torn: (bytes.len() - at) as u64,
        })
    }
}

fn find(rest: &[u8]) -> Found {
    // Some file systems leave zeros where the power was cut.
    if rest.iter().all(|byte| *byte == 0) {
        return Found::Torn;
    }
    let first = &rest[..rest.len().min(HEAD_LINE_BYTES_MAX)];
    let Some(end) = first.iter().position(|byte| *byte == b'\n') else {
        return if rest.len() < HEAD_LINE_BYTES_MAX {
            Found::Torn
        } else {
            Found::Damaged
        };
    };
    let Some((time, note_len)) = head_line(&rest[..end]) else {
        return Found::Damaged;
    };
    let sum_at = end + 1 + note_len;
    let Some(record) = rest.get(..sum_at + SUM_LINE_BYTES) else {
        return Found::Torn;
    };
    let (body, stated) = record.split_at(sum_at);
    if stated != sum_line(body).as_bytes() {
        return Found::Damaged;
    }
    let note = std::str::from_utf8(&body[end + 1..]).ok();
    let state = note
        .and_then(|note| note.parse().ok())
        .and_then(|note| State::new(note, time).ok());
    match state {
        Some(state) => Found::Record(state, record.len()),
        None => Found::Damaged,
    }
}

/// Reads `head TIME BYTES SUM`.
fn head_line(line: &[u8]) -> Option<(u64, usize)> {
    let line = std::str::from_utf8(line).ok()?;
    let (first, stated) = line.rsplit_once(' ')?;
    if stated != hex_sum(first.as_bytes(), HEAD_SUM_BYTES) {
        return None;
    }
    let (time, len) = first.strip_prefix("head ")?.split_once(' ')?;
    let time = parse_decimal(time).filter(|time| *time <= TIME_MAX)?;
    let len = parse_decimal(len).and_then(|len| usize::try_from(len).ok())?;
    (len <= REQUEST_BYTES_MAX).then_some((time, len))
}

fn sum_line(record: &[u8]) -> String {
    format!("sum {}\n", hex_sum(record, SUM_BYTES))
}

fn hex_sum(bytes: &[u8], len: usize) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes)[..len])
}
