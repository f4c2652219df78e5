//! The audit log: a Merkle tree over JSON lines, its signed heads, and the append-only store.
//!
//! - Pure: [`tree`] and [`proof`] (RFC 6962), [`note`] (C2SP signed-note), [`Checkpoint`] and
//!   [`SignedHead`] (C2SP tlog-checkpoint), [`Event`] and [`Line`] (one JSON object a line).
//! - Copies: [`tile`] (C2SP tlog-tiles), [`mirror`] and [`feed`] (C2SP tlog-mirror), [`challenge`].
//! - For others than the log: [`cosign`] (C2SP tlog-cosignature), [`witness`] (C2SP tlog-witness),
//!   [`policy`] (C2SP tlog-policy), [`tlog_proof`] (C2SP tlog-proof), [`collect`], [`inquiry`] and
//!   [`evidence`].
//! - What may stand in a line: [`Public`], [`Personal`] and [`Secret`] values, [`commit`], the [`guard`] in front of
//!   the queue, and the [`vault`] of what lines commit to.
//! - The store: [`Log`] appends and signs; [`verify`], [`survey`], [`read`] and [`export`] work on the
//!   files alone.
//!
//! It holds no network, no HTTP and no thread pool; the clock and every random number are handed in.
//! A leaf is the exact bytes of a line, so that anyone can check one by hand:
//! `{ printf '\0'; sed -n "$((SEQ + 1))p" audit.jsonl | tr -d '\n'; } | sha256sum`.

mod base64;
pub mod challenge;
mod checkpoint;
mod clock;
pub mod collect;
pub mod commit;
pub mod cosign;
mod event;
pub mod evidence;
pub mod export;
pub mod feed;
mod forest;
pub mod guard;
mod hash;
mod heads;
pub mod inquiry;
mod line;
mod log;
pub mod mirror;
pub mod note;
pub mod policy;
pub mod proof;
pub mod read;
pub mod repair;
pub mod restore;
mod scan;
mod seqs;
pub mod storage;
pub mod survey;
#[cfg(test)]
mod testing;
pub mod tile;
pub mod tlog_proof;
pub mod tree;
mod value;
pub mod vault;
pub mod verify;
pub mod witness;

pub use checkpoint::{
    Checkpoint, CheckpointError, HEAD_BYTES_MAX, HeadError, Origin, OriginError, SignedHead,
    mesh_name,
};
pub use clock::{Clock, Hybrid, rfc3339};
pub use event::{
    Call, Cause, CauseError, Event, Kind, Message, Outcome, Seq, TEXT_BYTES_MAX, UnknownKind,
};
pub use hash::{Hash, HashAlgorithm, HashTextError, UnknownAlgorithm};
pub use line::{Commitments, LINE_BYTES_MAX, Line, LineError};
pub use log::{
    Ack, AgreeError, AppendError, CloseError, Erase, FloorProblem, Flush, HeadListener, Health,
    Log, LogTiles, OpenError, Opened, Options, Poison, ProveError, REASON_BYTES_MAX, Recovered,
    RedactError, Redacted, ServeError, TakeBackError, TakenBack,
};
pub use read::ReadError;
pub use seqs::{SEQS_BYTES_MAX, Seqs};
pub use value::{Field, Personal, Public, Secret, Text};
