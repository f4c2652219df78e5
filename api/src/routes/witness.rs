//! This node as a witness of logs elsewhere: C2SP tlog-witness, open to everyone.
//!
//! Which logs are cosigned, and whether a head is good, is decided behind [`PublicWitness`](crate::PublicWitness);
//! here bodies are bounded and callers slowed down.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use openfang_audit::witness::AddCheckpoint;
use openfang_mesh::{Question, Verb};
use openfang_schema::ErrorCode;

use super::audit::PLAIN;
use super::{Answer, AppState};
use crate::edge::Peer;
use crate::error::ApiError;
use crate::failures::Client;
use crate::state::App;

/// What is said where a witness answers with a status alone.
const NOT_NOW: &str = "this witness cannot answer now: it is asked too much at once, waits until its own log is \
                       signed, cannot keep its state, or is stopping: try again\n";
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// `POST /witness/add-checkpoint`
pub(crate) async fn add(
    State(app): AppState,
    Extension(Peer(client)): Extension<Peer>,
    request: Request,
) -> Answer {
    allow(&app, client)?;
    let body = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await;
    let body = body.map_err(|_late| {
        ApiError::new(ErrorCode::BodyTimeout, "The body did not arrive in time.")
    })?;
    // A body that is too long is malformed for a witness, and told so (C2SP tlog-witness).
    let body = body.map_err(|_rejection| {
        ApiError::new(
            ErrorCode::InvalidBody,
            "The body broke off, or is longer than a request to a witness can be.",
        )
    })?;
    // Said first, whoever is witnessed here: so that who asks looks in the right place.
    if let Err(why) = AddCheckpoint::parse(&body) {
        return Err(ApiError::new(
            ErrorCode::InvalidBody,
            format!("The body is no request to cosign a head: {why}."),
        )
        .hint("`old <size>`, the lines of a consistency proof, an empty line, and the signed head: C2SP tlog-witness."));
    }
    ask(
        &app,
        Verb::Post,
        "witness/add-checkpoint".to_owned(),
        body.to_vec(),
    )
    .await
}

/// `GET /witness/{id}/checkpoint`: `id` is the SHA-256 of the name of the log, in lower-case hex.
pub(crate) async fn checkpoint(
    State(app): AppState,
    Extension(Peer(client)): Extension<Peer>,
    Path(id): Path<String>,
) -> Answer {
    allow(&app, client)?;
    let plain = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if id.len() != 64 || !id.bytes().all(plain) {
        return Err(unknown());
    }
    ask(
        &app,
        Verb::Get,
        format!("witness/{id}/checkpoint"),
        Vec::new(),
    )
    .await
}

fn allow(app: &App, client: Client) -> Result<(), ApiError> {
    app.strangers.charge(client).map_err(|wait| {
        ApiError::new(
            ErrorCode::RateLimited,
            "This address asks the witness too often.",
        )
        .retry_after(wait)
    })
}

async fn ask(app: &Arc<App>, verb: Verb, path: String, body: Vec<u8>) -> Answer {
    let Some(witness) = &app.state.witness else {
        return Err(unknown());
    };
    let answer = witness.ask(Question { verb, path, body }).await;
    if answer.status == 404 {
        return Err(unknown());
    }
    Ok(relayed(answer))
}

fn unknown() -> ApiError {
    ApiError::new(
        ErrorCode::NoRoute,
        "This node is no witness of such a log, or has not cosigned it yet.",
    )
}

/// Hands on what a witness has answered, which has the statuses of HTTP already.
fn relayed(answer: openfang_mesh::Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    if answer.body.is_empty() && !status.is_success() {
        // A reason in words, as C2SP tlog-witness has it.
        let body = match status {
            StatusCode::SERVICE_UNAVAILABLE => NOT_NOW.to_owned(),
            other => format!("{other}\n"),
        };
        return (status, [(CONTENT_TYPE, PLAIN)], body).into_response();
    }
    let kind = HeaderValue::from_str(&answer.content_type).ok();
    let kind = kind.filter(|kind| !kind.is_empty()).unwrap_or(PLAIN);
    (status, [(CONTENT_TYPE, kind)], answer.body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use openfang_mesh::Answer;

    #[tokio::test]
    async fn every_refusal_has_a_reason_in_words() {
        for (status, words) in [(503, "try again"), (404, "404 Not Found")] {
            let response = relayed(Answer::status(status));
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[CONTENT_TYPE], PLAIN);
            let body = to_bytes(response.into_body(), 1 << 16).await.expect("read");
            let text = String::from_utf8_lossy(&body).into_owned();
            assert!(text.contains(words) && text.ends_with('\n'), "{text}");
        }
        let size = Answer {
            status: 409,
            content_type: "text/x.tlog.size".to_owned(),
            body: b"7\n".to_vec(),
        };
        let response = relayed(size);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/x.tlog.size");
        let body = to_bytes(response.into_body(), 1 << 16).await.expect("read");
        assert_eq!(&body[..], b"7\n");
    }
}
