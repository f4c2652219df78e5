//! The three public pages. They hold nothing about this node that who asks does not know.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::state::App;

const TEXT: &str = "text/plain; charset=utf-8";
const ROOT: &str = "\
openfang: a node of an agent mesh.

This is its HTTP API. GET /api/health says whether it works; everything else
needs the API key, or a request made on the node's own machine:

  curl -H \"Authorization: Bearer $OPENFANG_API_KEY\" http://127.0.0.1:PORT/api/agents

The routes are described in docs/API.md of the source, the commands by openfang --help.
";

/// `GET /`
pub(crate) async fn root(State(app): State<Arc<App>>) -> Response {
    let port = app.state.auth.listen.port().to_string();
    ([(CONTENT_TYPE, TEXT)], ROOT.replace("PORT", &port)).into_response()
}

/// `GET /logo.png`
pub(crate) async fn logo() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `GET /favicon.ico`
pub(crate) async fn favicon() -> StatusCode {
    StatusCode::NO_CONTENT
}
