//! The handlers, one file for each resource. Each reads its input, asks the kernel, the mesh or the
//! log, and hands the answer to `wire`.

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod fallback;
pub(crate) mod holdings;
pub(crate) mod message;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod page;
pub(crate) mod redact;
pub(crate) mod socket;
pub(crate) mod tlog;
pub(crate) mod witness;

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use crate::error::{ApiError, JSON};
use crate::state::App;

/// What the handlers share.
pub(crate) type AppState = axum::extract::State<Arc<App>>;
/// What a handler gives back.
pub(crate) type Answer = Result<Response, ApiError>;

/// Makes a JSON answer.
fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    json_of_about(0, status, body)
}

/// Makes a JSON answer of about so many bytes: a long one is written without moving it as it grows.
fn json_of_about(bytes: usize, status: StatusCode, body: &impl Serialize) -> Answer {
    let mut out = Vec::with_capacity(bytes);
    serde_json::to_writer(&mut out, body)
        .map_err(|error| ApiError::internal("Writing the answer", &error))?;
    Ok((status, [(CONTENT_TYPE, JSON)], out).into_response())
}

/// Makes a JSON answer with status 200.
fn ok(body: &impl Serialize) -> Answer {
    json(StatusCode::OK, body)
}
