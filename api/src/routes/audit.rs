//! The audit log: the latest entries, and whether the file is what was written.

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use openfang_audit::{Log, ReadError};
use openfang_kernel::Principal;
use openfang_schema::{AuditRecent, ErrorCode};
use serde::Deserialize;

use super::{Answer, AppState, ok, redact};
use crate::error::ApiError;
use crate::extract::{Caller, Parameter, Parameters, Params, is_whole};
use crate::state::State as Given;
use crate::wire;

pub(super) const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Entries that are given when nobody says how many.
const ENTRIES: usize = 50;
/// The most entries of one answer.
const ENTRIES_MAX: usize = 1000;

/// The parameters of `recent`; `n` and `limit` mean the same.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecentParams {
    n: Option<usize>,
    limit: Option<usize>,
    #[serde(default)]
    reveal: bool,
}

impl Parameters for RecentParams {
    const PARAMETERS: &'static [Parameter] = &[
        ENTRIES_WANTED,
        Parameter {
            name: "limit",
            ..ENTRIES_WANTED
        },
        Parameter {
            name: "reveal",
            required: false,
            wanted: "true or false",
            is_good: |text| matches!(text, "true" | "false"),
        },
    ];
}

const ENTRIES_WANTED: Parameter = Parameter {
    name: "n",
    required: false,
    wanted: "a whole number, 1 to 1000",
    is_good: is_whole,
};

impl RecentParams {
    fn wanted(&self) -> Result<usize, ApiError> {
        let refuse = |text: String| Err(ApiError::new(ErrorCode::InvalidParameter, text));
        match (self.n, self.limit) {
            (Some(_), Some(_)) => refuse("n and limit mean the same: give one of them.".to_owned()),
            (Some(wanted), None) | (None, Some(wanted)) if !(1..=ENTRIES_MAX).contains(&wanted) => {
                refuse(format!("n must be 1 to {ENTRIES_MAX}, not {wanted}."))
            }
            (wanted, other) => Ok(wanted.or(other).unwrap_or(ENTRIES)),
        }
    }
}

/// `GET /api/audit/recent`
pub(crate) async fn recent(
    State(app): AppState,
    Caller(principal): Caller,
    Params(params): Params<RecentParams>,
) -> Answer {
    let log = log(&app.state)?;
    let wanted = params.wanted()?;
    if params.reveal && principal != Principal::api_key() {
        return Err(redact::only_with_the_key(&app.state));
    }
    let head = log.head();
    let total = log.size();
    let reading = log.clone();
    let lines = blocking(move || reading.recent(wanted))
        .await?
        .map_err(unread)?;
    let (lines, revealed) = if params.reveal {
        redact::reveal(log, lines).await?
    } else {
        (lines, Vec::new())
    };
    let mut revealed = revealed.into_iter();
    let entry = |line| wire::audit_entry(line, revealed.next());
    ok(&AuditRecent {
        entries: lines.into_iter().map(entry).collect(),
        total,
        tip_hash: head
            .as_ref()
            .map(|head| head.checkpoint.root.to_string())
            .unwrap_or_default(),
        checkpoint: head.map(|head| head.note),
    })
}

/// `GET /api/audit/verify`: reads and hashes the whole file, one request at a time.
pub(crate) async fn verify(State(app): AppState) -> Answer {
    let log = log(&app.state)?;
    let turn = app.verifying.lock().await;
    let report = blocking(move || log.verify()).await?;
    drop(turn);
    let report = report.map_err(|error| ApiError::internal("Reading the audit log", &error))?;
    ok(&wire::audit_verify(&report.verdict))
}

/// `GET /api/audit/checkpoint`: the newest head that enough witnesses have cosigned; without one, the
/// newest that the log has signed.
pub(crate) async fn checkpoint(State(app): AppState) -> Answer {
    let log = log(&app.state)?;
    let cosigned = app.state.witnessing.borrow().quorum.clone();
    let note = cosigned.map(|head| head.note.to_string());
    let note = note.or_else(|| log.head().map(|head| head.note));
    match note {
        Some(note) => Ok(([(CONTENT_TYPE, PLAIN)], note).into_response()),
        None => Err(wire::signing::not_now(&app.state).unwrap_or_else(no_head)),
    }
}

fn no_head() -> ApiError {
    ApiError::new(
        ErrorCode::Unprocessable,
        "No head of the audit log is signed yet.",
    )
    .reason("no_head")
    .hint("The first one follows the first entry within a second.")
}

/// `GET /api/audit/witnesses`
pub(crate) async fn witnesses(State(app): AppState) -> Answer {
    drop(log(&app.state)?);
    let status = app.state.witnessing.borrow().clone();
    ok(&wire::audit_witnesses(&app.state, status))
}

/// `GET /api/audit/mirrors`
pub(crate) async fn mirrors(State(app): AppState) -> Answer {
    drop(log(&app.state)?);
    let status = app.state.mirroring.borrow().clone();
    ok(&wire::audit_mirrors(&app.state, status))
}

pub(super) fn log(state: &Given) -> Result<Log, ApiError> {
    state.audit.clone().ok_or_else(|| {
        ApiError::new(ErrorCode::Unprocessable, "This node keeps no audit log.")
            .reason("audit_off")
            .hint("[audit] enabled in config.toml switches it on.")
    })
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|panicked| ApiError::internal("Reading the audit log", &panicked))
}

/// A damaged entry is a finding, not a fault of the API: it is told.
fn unread(error: ReadError) -> ApiError {
    match error {
        ReadError::Damaged { seq } => damaged(seq),
        ReadError::Io { .. } => ApiError::internal("Reading the audit log", &error),
    }
}

pub(super) fn damaged(seq: u64) -> ApiError {
    ApiError::new(
        ErrorCode::Internal,
        format!("Entry {seq} of the audit log is not what was written."),
    )
    .reason("audit_damaged")
    .hint("GET /api/audit/verify says more.")
}
