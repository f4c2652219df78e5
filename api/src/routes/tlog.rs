//! The audit log for those who check it: tiles, proofs and consistency, as the documents of C2SP have them.

use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse as _;
use data_encoding::BASE64;
use openfang_audit::note::Note;
use openfang_audit::proof::verify_inclusion;
use openfang_audit::tile::{TilePath, TileSource as _};
use openfang_audit::tlog_proof::TlogProof;
use openfang_audit::tree::leaf_hash;
use openfang_audit::{Checkpoint, Log, ProveError, ServeError};
use openfang_schema::{AuditConsistency, ErrorCode};
use serde::Deserialize;

use super::audit::{PLAIN, blocking, damaged, log};
use super::{Answer, AppState, ok};
use crate::error::ApiError;
use crate::extract::{Parameter, Parameters, Params, is_whole};
use crate::headers::IMMUTABLE;
use crate::state::State as Given;
use crate::wire::signing;

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// `GET /api/audit/tile/…`: a tile or a bundle. The prefix of the log, as C2SP tlog-tiles calls it, is
/// `/api/audit`, where the checkpoint is.
pub(crate) async fn tile(State(app): AppState, Path(path): Path<String>) -> Answer {
    let log = log(&app.state)?;
    let path: TilePath = format!("tile/{path}")
        .parse()
        .map_err(|why| no_tile().hint(format!("{why}.")))?;
    let found = blocking(move || log.tiles().tile(&path)).await?;
    match found {
        Ok(Some(bytes)) => {
            let headers = [(CONTENT_TYPE, OCTETS), (CACHE_CONTROL, IMMUTABLE)];
            Ok((headers, bytes).into_response())
        }
        Ok(None) | Err(ServeError::Range) => Err(no_tile()),
        Err(error) => Err(unserved(&error)),
    }
}

/// `GET /api/audit/proof/{seq}`: the entry under the newest cosigned head that covers it, else under the
/// newest that is signed.
pub(crate) async fn proof(State(app): AppState, Path(seq): Path<String>) -> Answer {
    let log = log(&app.state)?;
    let seq: u64 = seq.parse().map_err(|_not_a_number| {
        ApiError::new(
            ErrorCode::InvalidParameter,
            "The number of an entry is a decimal number.",
        )
    })?;
    let note = covering(&app.state, &log, seq).ok_or_else(|| uncovered(&app.state, &log, seq))?;
    let made = blocking(move || prove(&log, seq, note)).await?;
    let text = made?.to_string();
    Ok(([(CONTENT_TYPE, PLAIN)], text).into_response())
}

/// The parameters of `consistency`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConsistencyParams {
    from: u64,
    to: u64,
}

impl Parameters for ConsistencyParams {
    const PARAMETERS: &'static [Parameter] = &[SIZE, Parameter { name: "to", ..SIZE }];
}

const SIZE: Parameter = Parameter {
    name: "from",
    required: true,
    wanted: "a whole number of entries, 1 or more",
    is_good: is_whole,
};

/// `GET /api/audit/consistency?from=&to=`
pub(crate) async fn consistency(
    State(app): AppState,
    Params(params): Params<ConsistencyParams>,
) -> Answer {
    let log = log(&app.state)?;
    let ConsistencyParams { from, to } = params;
    let origin = log.origin().to_string();
    let proof = blocking(move || log.consistency(from, to)).await?;
    let proof = proof.map_err(|error| unproved(&error))?;
    ok(&AuditConsistency {
        origin,
        from,
        to,
        proof: proof
            .iter()
            .map(|hash| BASE64.encode(hash.as_bytes()))
            .collect(),
    })
}

/// Returns the head that a proof of an entry is made under.
fn covering(state: &Given, log: &Log, seq: u64) -> Option<Note> {
    let cosigned = state.witnessing.borrow().quorum.clone();
    let cosigned = cosigned.filter(|head| head.size > seq);
    cosigned.map(|head| head.note).or_else(|| {
        let head = log.head().filter(|head| head.checkpoint.size > seq)?;
        head.note.parse().ok()
    })
}

fn prove(log: &Log, seq: u64, note: Note) -> Result<TlogProof, ApiError> {
    let head: Checkpoint = note
        .text()
        .parse()
        .map_err(|error| ApiError::internal("Reading the signed head", &error))?;
    let hashes = log.inclusion(seq, head.size);
    let hashes = hashes.map_err(|error| unproved(&error))?;
    let bundle = log.tiles().entries(seq, seq + 1);
    let bundle = bundle.map_err(|error| unserved(&error))?;
    let line = bundle.iter().next().unwrap_or_default();
    // What leaves here is checked as whoever gets it will.
    if verify_inclusion(seq, head.size, &leaf_hash(line), &hashes, &head.root).is_err() {
        return Err(damaged(seq));
    }
    let proof = TlogProof::new(seq, hashes, note).map(|proof| proof.with_extra(line));
    proof.ok_or_else(|| ApiError::internal("Writing the proof", &"the head has no place in it"))
}

fn no_tile() -> ApiError {
    ApiError::new(
        ErrorCode::NoRoute,
        "The audit log has no such tile or bundle.",
    )
}

/// An entry that is there is covered when the log is signed again.
fn uncovered(state: &Given, log: &Log, seq: u64) -> ApiError {
    let not_now = signing::not_now(state).filter(|_| seq < log.size());
    not_now.unwrap_or_else(|| not_covered(seq, log.size()))
}

/// An entry that is not there yet, or too new to be proved.
fn not_covered(seq: u64, size: u64) -> ApiError {
    let refuse = |text| ApiError::new(ErrorCode::Unprocessable, text).reason("not_covered");
    if seq >= size {
        let last = size.saturating_sub(1);
        return refuse(format!(
            "There is no entry {seq}: the audit log has {size}."
        ))
        .hint(format!(
            "Ask for one of 0 to {last}; GET /api/audit/recent shows the latest."
        ));
    }
    refuse(format!(
        "Entry {seq} of {size} is under no signed head of the audit log yet."
    ))
    .hint(
        "Ask again: a new entry is covered within a second, once the log is signed; GET /api/audit/witnesses tells \
         whether it is.",
    )
}

fn unserved(error: &ServeError) -> ApiError {
    match error {
        ServeError::Damaged { first_seq } => damaged(*first_seq),
        ServeError::Range => no_tile(),
        ServeError::Io(error) => ApiError::internal("Reading the audit log", error),
    }
}

fn unproved(error: &ProveError) -> ApiError {
    match error {
        ProveError::Behind { have } => ApiError::new(
            ErrorCode::Unprocessable,
            format!("The audit log has {have} entries, and cannot prove anything about more."),
        )
        .reason("behind"),
        ProveError::Damaged { seq } => damaged(seq.unwrap_or_default()),
        ProveError::Range => ApiError::new(
            ErrorCode::InvalidParameter,
            "from must be 1 or more, and at most as large as to.",
        ),
        ProveError::Io(error) => ApiError::internal("Reading the audit log", error),
    }
}
