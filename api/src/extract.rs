//! What a handler is given of a request, checked, or the error that is answered instead.

mod wanted;

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use openfang_id::AgentRef;
use openfang_kernel::Principal;
use openfang_schema::{ErrorCode, MessageRequest, SpawnRequest};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::auth::Access;
use crate::error::ApiError;

use wanted::{Fields, wrong_field, wrong_parameter};
pub(crate) use wanted::{Parameter, Parameters, is_whole};

/// The longest message, in bytes of its text.
pub(crate) const MESSAGE_BYTES_MAX: usize = openfang_schema::ws::MESSAGE_BYTES_MAX;
/// The longest manifest, in bytes of its text.
pub(crate) const MANIFEST_BYTES_MAX: usize = 1024 * 1024;
/// The longest body around a message: JSON may write each byte of it with six characters.
pub(crate) const MESSAGE_BODY_BYTES_MAX: usize = 6 * MESSAGE_BYTES_MAX + 16 * 1024;
/// The longest body around a manifest, where only quotes and line ends are written longer.
pub(crate) const MANIFEST_BODY_BYTES_MAX: usize = 3 * MANIFEST_BYTES_MAX;
/// The longest body of any other route.
pub(crate) const BODY_BYTES_MAX: usize = 128 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest idempotency key, in bytes.
const IDEMPOTENCY_BYTES_MAX: usize = 255;
/// The longest name of a sender, in bytes.
const SENDER_BYTES_MAX: usize = 256;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Who makes the request, as the audit log will have it.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Principal);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        match parts.extensions.get() {
            Some(Access::Key) => Ok(Self(Principal::api_key())),
            Some(Access::Loopback) => Ok(Self(Principal::api_loopback())),
            // A route that acts for somebody is never public; the guard did not run.
            Some(Access::Public) | None => Err(ApiError::internal(
                "Deciding about access",
                &"a protected route was reached without a decision",
            )),
        }
    }
}

/// The agent of the path.
#[derive(Debug, Clone)]
pub(crate) struct Agent(pub(crate) AgentRef);

impl<S: Send + Sync> FromRequestParts<S> for Agent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(text) = <Path<String> as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::new(ErrorCode::InvalidAgent, rejection.body_text()))?;
        let agent = text.parse().map_err(|error| {
            ApiError::new(ErrorCode::InvalidAgent, format!("This is {error}."))
                .looked_for(text.chars().take(200).collect::<String>())
                .hint("An agent is a UUID or a name, or either followed by @ and a node.")
        })?;
        Ok(Self(agent))
    }
}

/// The parameters after the question mark.
#[derive(Debug, Clone)]
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Parameters> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Query(params) = Query::try_from_uri(&parts.uri).map_err(|_rejection| {
            let named = wrong_parameter(&parts.uri, T::PARAMETERS);
            named.unwrap_or_else(|| {
                let what = "The parameters behind the question mark cannot be read.";
                ApiError::new(ErrorCode::InvalidParameter, what)
                    .hint("name=value, with & between two; docs/API.md has those of each route.")
            })
        })?;
        Ok(Self(params))
    }
}

/// A JSON body. The limit of its size is that of the route.
#[derive(Debug, Clone)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Fields> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(
                ApiError::new(ErrorCode::UnsupportedMediaType, "The body must be JSON.")
                    .hint("Send the header Content-Type: application/json."),
            );
        }
        let bytes = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state))
            .await
            .map_err(|_late| {
                ApiError::new(ErrorCode::BodyTimeout, "The body did not arrive in time.")
            })?
            .map_err(|rejection| unread(&rejection))?;
        check_object(&bytes)?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let place = (error.line(), error.column());
            let named = wrong_field(&bytes, T::FIELDS);
            let named = named.map(|named| placed(named, place));
            named.unwrap_or_else(|| malformed(&error))
        })
    }
}

/// Every body is an object. An array of the values in their order would be read as one otherwise.
fn check_object(bytes: &[u8]) -> Result<(), ApiError> {
    let at = bytes.iter().position(|byte| !b" \t\r\n".contains(byte));
    let (before, rest) = bytes.split_at(at.unwrap_or(bytes.len()));
    let Some(b'[') = rest.first() else {
        return Ok(());
    };
    let line_ends = before.iter().filter(|byte| **byte == b'\n').count();
    let column = before
        .iter()
        .rev()
        .take_while(|byte| **byte != b'\n')
        .count()
        + 1;
    Err(unreadable(
        "it is an array, not an object",
        line_ends + 1,
        column,
    ))
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(CONTENT_TYPE).into_iter();
    let essence = all
        .next()
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim());
    all.next().is_none() && essence.is_some_and(|it| it.eq_ignore_ascii_case("application/json"))
}

fn unread(rejection: &BytesRejection) -> ApiError {
    if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::new(
            ErrorCode::TooLarge,
            "The body is larger than this route takes.",
        );
    }
    ApiError::new(ErrorCode::InvalidBody, "The body broke off before its end.")
}

/// Says what serde says, and where, without repeating the place in the sentence.
fn malformed(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    unreadable(what, error.line(), error.column())
}

/// Lines and columns count from 1; an empty body ends before its first column, and says so.
fn unreadable(what: &str, line: usize, column: usize) -> ApiError {
    let (line, column) = (line.max(1), column.max(1));
    let error = ApiError::new(
        ErrorCode::InvalidBody,
        format!("The body cannot be read: {what} (line {line}, column {column})."),
    );
    placed(error, (line, column))
}

fn placed(error: ApiError, (line, column): (usize, usize)) -> ApiError {
    let place = |number: usize| u64::try_from(number.max(1)).unwrap_or(u64::MAX);
    error.place(place(line), place(column))
}

/// A message, with its idempotency key from the body or the header.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) text: String,
    pub(crate) sender: Option<String>,
    idempotency_key: Option<String>,
}

impl<S: Send + Sync> FromRequest<S> for Message {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let header = idempotency_header(request.headers())?;
        let Body(body) = Body::<MessageRequest>::from_request(request, state).await?;
        check_text(&body.message)?;
        let idempotency_key = match (header, body.idempotency_key) {
            (Some(header), Some(body)) if header != body => {
                return Err(ApiError::new(
                    ErrorCode::AmbiguousRequest,
                    "The header Idempotency-Key and the field idempotency_key differ.",
                ));
            }
            (header, body) => header.or(body),
        };
        if let Some(key) = &idempotency_key {
            check_idempotency(key)?;
        }
        Ok(Self {
            text: body.message,
            sender: sender(body.sender_id, body.sender_name)?,
            idempotency_key,
        })
    }
}

impl Message {
    /// Names the call: the same for a repetition by the same caller with the same key, to the
    /// same agent, with the same text. A key used for two different texts names two calls, so
    /// that a mistake of the caller loses no message.
    pub(crate) fn call_id(&self, agent: &AgentRef, principal: &Principal) -> Option<[u8; 16]> {
        let key = self.idempotency_key.as_ref()?;
        let agent = agent.to_string();
        let principal = principal.to_string();
        let mut hash = Sha256::new_with_prefix(b"openfang/idempotency/1\0");
        for part in [&principal, &agent, key, &self.text] {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            hash.update(length.to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        Some(id)
    }
}

/// Checks the text of a message, however it came.
pub(crate) fn check_text(text: &str) -> Result<(), ApiError> {
    if text.len() > MESSAGE_BYTES_MAX {
        return Err(ApiError::too_large("message", MESSAGE_BYTES_MAX));
    }
    if text.trim().is_empty() {
        return Err(ApiError::new(
            ErrorCode::InvalidBody,
            "The message is empty.",
        ));
    }
    Ok(())
}

fn idempotency_header(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut all = headers.get_all(IDEMPOTENCY_KEY).into_iter();
    let Some(value) = all.next() else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if all.next().is_none() => Ok(Some(text.to_owned())),
        Ok(_) | Err(_) => Err(ApiError::new(
            ErrorCode::AmbiguousRequest,
            "The header Idempotency-Key stands twice, or is no text.",
        )),
    }
}

fn check_idempotency(key: &str) -> Result<(), ApiError> {
    if key.is_empty() || key.len() > IDEMPOTENCY_BYTES_MAX {
        return Err(ApiError::new(
            ErrorCode::InvalidParameter,
            format!("An idempotency key has 1 to {IDEMPOTENCY_BYTES_MAX} bytes."),
        ));
    }
    Ok(())
}

fn sender(id: Option<String>, name: Option<String>) -> Result<Option<String>, ApiError> {
    let sender = match (name, id) {
        (Some(name), Some(id)) => format!("{name} ({id})"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Ok(None),
    };
    if sender.len() > SENDER_BYTES_MAX {
        return Err(ApiError::too_large("sender", SENDER_BYTES_MAX));
    }
    Ok(Some(sender))
}

/// The text of a manifest.
#[derive(Debug)]
pub(crate) struct ManifestText(pub(crate) String);

impl<S: Send + Sync> FromRequest<S> for ManifestText {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Body(body) = Body::<SpawnRequest>::from_request(request, state).await?;
        if body.manifest_toml.len() > MANIFEST_BYTES_MAX {
            return Err(ApiError::too_large("manifest", MANIFEST_BYTES_MAX));
        }
        Ok(Self(body.manifest_toml))
    }
}
