//! The WebSocket of an agent: one conversation, one turn at a time.

mod session;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::http::HeaderValue;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::response::{IntoResponse as _, Response};
use openfang_schema::{ErrorCode, ws};

use super::AppState;
use crate::edge::Peer;
use crate::error::ApiError;
use crate::extract::{Agent, Caller, MESSAGE_BODY_BYTES_MAX};
use crate::wire;
use session::Session;

/// `GET /api/agents/{id}/ws`. Of the offered subprotocols only `bearer` is chosen, never the key.
pub(crate) async fn open(
    State(app): AppState,
    Extension(Peer(client)): Extension<Peer>,
    Caller(principal): Caller,
    Agent(agent): Agent,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Ok(not_an_upgrade(&rejection)),
    };
    let found = wire::find(&app.state, &agent)?;
    let guard = app.take_socket(client).ok_or_else(too_many)?;
    let session = Session::new(&app.state, agent, principal, found);
    Ok(upgrade
        .protocols([ws::SUBPROTOCOL])
        .max_message_size(MESSAGE_BODY_BYTES_MAX)
        .max_frame_size(MESSAGE_BODY_BYTES_MAX)
        .on_upgrade(move |socket| async move {
            session.run(socket).await;
            drop(guard);
        }))
}

fn not_an_upgrade(rejection: &WebSocketUpgradeRejection) -> Response {
    let error = ApiError::new(
        ErrorCode::UpgradeRequired,
        format!(
            "This route speaks WebSocket only: {}.",
            rejection.body_text()
        ),
    );
    let mut response = error.into_response();
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

fn too_many() -> ApiError {
    ApiError::new(
        ErrorCode::RateLimited,
        format!(
            "This address has {} WebSockets open, the most it may have.",
            ws::CONNECTIONS_PER_ADDRESS
        ),
    )
    .retry_after(std::time::Duration::from_secs(ws::WINDOW_SECS))
}
