//! What becomes of an error: a status, a stable code, a sentence and a hint.
//!
//! This module and its children are the only place where a fact of the kernel, the mesh or the
//! audit log turns into an HTTP answer. A fault of this node is logged here, once, and told to
//! the caller without its cause.

mod kernel;
mod mesh;

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use openfang_schema::{ErrorBody, ErrorCode, NodeRef};

use crate::auth::Denial;

pub(crate) use kernel::{IN_DOUBT, no_such_agent, not_logged};

/// The type of every body.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Box<ErrorBody>,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self {
            status: status(code),
            body: Box::new(ErrorBody::new(code, error)),
        }
    }

    /// A fault of this node: logged with its cause, told without.
    pub(crate) fn internal(what: &'static str, cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "{what} failed");
        Self::new(
            ErrorCode::Internal,
            format!("{what} failed on this node. The cause is in its log."),
        )
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.body.hint = Some(hint.into());
        self
    }

    pub(crate) fn reason(mut self, reason: impl Into<String>) -> Self {
        self.body.reason = Some(reason.into());
        self
    }

    pub(crate) fn looked_for(mut self, what: impl ToString) -> Self {
        self.body.looked_for = Some(what.to_string());
        self
    }

    pub(crate) fn where_looked(mut self, place: impl ToString) -> Self {
        self.body.where_looked = Some(place.to_string());
        self
    }

    pub(crate) fn candidates(mut self, candidates: Vec<String>) -> Self {
        self.body.candidates = candidates;
        self
    }

    pub(crate) fn node(mut self, id: impl ToString, name: impl ToString) -> Self {
        self.body.node = Some(NodeRef {
            id: id.to_string(),
            name: name.to_string(),
        });
        self
    }

    pub(crate) fn place(mut self, line: u64, column: u64) -> Self {
        self.body.line = Some(line);
        self.body.column = Some(column);
        self
    }

    pub(crate) fn limit(mut self, bytes: usize) -> Self {
        self.body.limit_bytes = u64::try_from(bytes).ok();
        self
    }

    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.body.retry_after_ms = u64::try_from(wait.as_millis()).ok();
        self
    }

    /// Returns what is sent.
    pub(crate) fn into_body(self) -> ErrorBody {
        *self.body
    }

    /// A body that is over its limit.
    pub(crate) fn too_large(what: &str, limit: usize) -> Self {
        Self::new(
            ErrorCode::TooLarge,
            format!("The {what} is larger than {limit} bytes."),
        )
        .limit(limit)
    }

    /// A parameter of the query that the route does not know. What it was set to is not repeated:
    /// it may be a key.
    pub(crate) fn unknown_parameter(name: &str, known: &[&str]) -> Self {
        let shown: String = name.chars().take(64).collect();
        let hint = match known {
            [] => "This route takes none.".to_owned(),
            known => format!("This route takes {}.", known.join(", ")),
        };
        Self::new(
            ErrorCode::InvalidParameter,
            format!("There is no parameter {shown}."),
        )
        .looked_for(shown)
        .hint(hint)
    }

    /// A path nothing answers to.
    pub(crate) fn no_route(path: &str) -> Self {
        Self::new(ErrorCode::NoRoute, "There is no such route.")
            .looked_for(path)
            .hint("docs/API.md lists the routes; paths have no slash at their end.")
    }

    /// A method the route has no use for.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            ErrorCode::MethodNotAllowed,
            "This route does not take that method; the header Allow lists those it takes.",
        )
    }

    /// A change that is not made any more, or was cut.
    pub(crate) fn shutting_down() -> Self {
        Self::stopping("The node is shutting down.")
    }

    /// Something that a node refuses which is stopping. Whether it comes back, it does not know.
    pub(crate) fn stopping(text: impl Into<String>) -> Self {
        Self::new(ErrorCode::ShuttingDown, text)
            .retry_after(STARTS_AGAIN)
            .hint(
                "Ask again in a moment: a node that has got its audit log back from its peers, or begins a new one, starts \
                 again by itself. openfang status tells whether it runs; if not: openfang start.",
            )
    }

    /// Something that needs an awake network.
    pub(crate) fn asleep() -> Self {
        Self::new(
            ErrorCode::NetworkAsleep,
            "The network of this node is asleep: it has no shared secret.",
        )
        .hint("Join with a ticket, or set [network] shared_secret: openfang keygen --network makes one.")
    }
}

/// How long a start takes at most, mostly.
const STARTS_AGAIN: Duration = Duration::from_secs(3);

/// The one status of each code.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidBody
        | ErrorCode::InvalidParameter
        | ErrorCode::InvalidAgent
        | ErrorCode::InvalidManifest
        | ErrorCode::InvalidTicket
        | ErrorCode::InvalidSecret
        | ErrorCode::AmbiguousRequest => StatusCode::BAD_REQUEST,
        ErrorCode::KeyRequired | ErrorCode::InvalidKey => StatusCode::UNAUTHORIZED,
        ErrorCode::LocalOnly
        | ErrorCode::OriginRefused
        | ErrorCode::Refused
        | ErrorCode::WrongSecret => StatusCode::FORBIDDEN,
        ErrorCode::NoRoute | ErrorCode::UnknownAgent | ErrorCode::UnknownNode => {
            StatusCode::NOT_FOUND
        }
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::DuplicateName
        | ErrorCode::Ambiguous
        | ErrorCode::AlreadyRan
        | ErrorCode::AgentNotRunning
        | ErrorCode::NetworkAsleep
        | ErrorCode::NetworkDisabled
        | ErrorCode::NotHere
        | ErrorCode::JoinedItself
        | ErrorCode::OtherNetwork => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
        ErrorCode::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
        ErrorCode::TooManyFailures | ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::AgentFailed
        | ErrorCode::CutOff
        | ErrorCode::ModelFailed
        | ErrorCode::Unreachable => StatusCode::BAD_GATEWAY,
        ErrorCode::Busy
        | ErrorCode::Cancelled
        | ErrorCode::NotLogged
        | ErrorCode::NotSigned
        | ErrorCode::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::TooDeep => StatusCode::LOOP_DETECTED,
        ErrorCode::Internal | ErrorCode::Unknown | _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let bytes = match serde_json::to_vec(&self.body) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%error, "an error body is not JSON");
                br#"{"error":"Internal error.","code":"internal"}"#.to_vec()
            }
        };
        let mut response = (self.status, [(CONTENT_TYPE, JSON)], bytes).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, BEARER);
        }
        if let Some(wait_ms) = self.body.retry_after_ms {
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(wait_ms.div_ceil(1000).max(1)),
            );
        }
        response
    }
}

impl From<Denial> for ApiError {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Ambiguous => Self::new(
                ErrorCode::AmbiguousRequest,
                "A header that decides about access stands twice in this request.",
            ),
            Denial::KeyRequired => Self::new(
                ErrorCode::KeyRequired,
                "This route needs the API key.",
            )
            .hint("Send the header Authorization: Bearer <key>. A key in the query is accepted by the WebSocket route only."),
            Denial::InvalidKey => Self::new(ErrorCode::InvalidKey, "This is not the API key of this node."),
            Denial::LocalOnly => Self::new(
                ErrorCode::LocalOnly,
                "This node has no API key, so that it answers only requests made directly on its own machine.",
            )
            .hint("openfang keygen makes a key; set it as api_key, restart, and send it as Authorization: Bearer <key>."),
            Denial::ForeignHost => Self::new(
                ErrorCode::ForeignHost,
                "The Host of this request is not this machine, so that it is not trusted without the key.",
            )
            .hint("Use http://127.0.0.1 or http://localhost with the port of the API, or send the key."),
            Denial::OriginRefused => Self::new(
                ErrorCode::OriginRefused,
                "A web page of another origin made this request.",
            ),
        }
    }
}

impl Denial {
    /// The word the audit log has for it.
    pub(crate) fn word(self) -> &'static str {
        let code = match self {
            Self::Ambiguous => ErrorCode::AmbiguousRequest,
            Self::KeyRequired => ErrorCode::KeyRequired,
            Self::InvalidKey => ErrorCode::InvalidKey,
            Self::LocalOnly => ErrorCode::LocalOnly,
            Self::ForeignHost => ErrorCode::ForeignHost,
            Self::OriginRefused => ErrorCode::OriginRefused,
        };
        code.as_str()
    }
}

/// The answer to a client that failed too often.
pub(crate) fn too_many_failures(wait: Duration) -> ApiError {
    ApiError::new(
        ErrorCode::TooManyFailures,
        "Too many requests without the right key came from this address.",
    )
    .retry_after(wait)
}

#[cfg(test)]
mod tests;
