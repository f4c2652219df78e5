//! What an error looks like.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeRef;

macro_rules! codes {
    ($( $(#[doc = $doc:literal])+ $name:ident = $text:literal, )+) => {
        /// What went wrong, as a text that never changes: the one thing a program may decide on.
        /// Each says the HTTP status it comes with.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $( $(#[doc = $doc])+ #[serde(rename = $text)] $name, )+
            /// A code of a newer version.
            #[serde(other, rename = "unknown")]
            Unknown,
        }

        impl ErrorCode {
            /// All codes a server sends.
            pub const ALL: &[Self] = &[$( Self::$name, )+];

            /// Returns the text of the code.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$name => $text, )+
                    Self::Unknown => "unknown",
                }
            }
        }
    };
}

codes! {
    /// 400: the body is not JSON, or lacks a field, or has one too many. With `line` and `column`.
    InvalidBody = "invalid_body",
    /// 400: a value in the path or the query is not of the right form.
    InvalidParameter = "invalid_parameter",
    /// 400: the `{id}` of the path is neither an id nor a name.
    InvalidAgent = "invalid_agent",
    /// 400: the manifest is not a valid agent manifest. With `line` and `column` when known.
    InvalidManifest = "invalid_manifest",
    /// 400: the ticket is damaged or not a ticket.
    InvalidTicket = "invalid_ticket",
    /// 400: the secret is too weak or damaged.
    InvalidSecret = "invalid_secret",
    /// 400: a credential or the host is given twice, so that it is unclear which one counts.
    AmbiguousRequest = "ambiguous_request",
    /// 401: the route needs a key and none was given.
    KeyRequired = "key_required",
    /// 401: the key is not the key.
    InvalidKey = "invalid_key",
    /// 403: no key is configured, so only requests made on this machine are answered.
    LocalOnly = "local_only",
    /// 403: a web page of another origin made the request.
    OriginRefused = "origin_refused",
    /// 403: the agent, its node or its policy refused.
    Refused = "refused",
    /// 404: no such route.
    NoRoute = "no_route",
    /// 404: no such agent. With `looked_for` and `where_looked`.
    UnknownAgent = "unknown_agent",
    /// 404: no such node. With `looked_for`.
    UnknownNode = "unknown_node",
    /// 405: the route exists, for other methods. With the header `Allow`.
    MethodNotAllowed = "method_not_allowed",
    /// 408: the body did not arrive in time.
    BodyTimeout = "body_timeout",
    /// 409: an agent of this name exists on the node.
    DuplicateName = "duplicate_name",
    /// 409: the name fits several agents or nodes. With `candidates`.
    Ambiguous = "ambiguous",
    /// 409: the message was run before, and its answer is no longer kept.
    AlreadyRan = "already_ran",
    /// 409: the agent exists and takes no messages; `reason` and the sentence say why.
    AgentNotRunning = "agent_not_running",
    /// 409: the network sleeps: it has no shared secret.
    NetworkAsleep = "network_asleep",
    /// 409: the network is switched off in the configuration.
    NetworkDisabled = "network_disabled",
    /// 409: the operation is only possible on the node where the agent lives. With `node`.
    NotHere = "not_here",
    /// 409: the ticket or address is that of this node itself.
    JoinedItself = "joined_itself",
    /// 409: this node belongs to another network.
    OtherNetwork = "other_network",
    /// 403: the other node refused the shared secret.
    WrongSecret = "wrong_secret",
    /// 413: the message, the manifest or the body is over its limit. With `limit_bytes`.
    TooLarge = "too_large",
    /// 415: the body is not declared as JSON.
    UnsupportedMediaType = "unsupported_media_type",
    /// 421: the `Host` is not this machine: a foreign name points here (DNS rebinding).
    ForeignHost = "foreign_host",
    /// 422: what was asked for is well formed and cannot be done, such as an unknown module. `reason`
    /// says which.
    Unprocessable = "unprocessable",
    /// 426: the route speaks WebSocket only.
    UpgradeRequired = "upgrade_required",
    /// 429: too many failed attempts from this address. With `Retry-After`.
    TooManyFailures = "too_many_failures",
    /// 429: too many messages or connections. With `Retry-After`.
    RateLimited = "rate_limited",
    /// 500: a fault of this node; the cause is in its log.
    Internal = "internal",
    /// 502: the agent ran and failed; `reason` says how.
    AgentFailed = "agent_failed",
    /// 502: the connection to the agent's node broke after the message had left: it may have run.
    /// A repetition with the same idempotency key is safe.
    CutOff = "cut_off",
    /// 502: the model behind the agent failed; `reason` says how.
    ModelFailed = "model_failed",
    /// 502: the node of the agent cannot be reached. With `node`.
    Unreachable = "unreachable",
    /// 503: the agent has as much to do as it can queue. With `Retry-After`.
    Busy = "busy",
    /// 503: the turn was cut before it ended.
    Cancelled = "cancelled",
    /// 503: the audit log cannot take the entry, so that the action was not done.
    NotLogged = "not_logged",
    /// 503: no head of the audit log can be shown, because it is not signed now: peers are asked what they know of
    /// it. With `Retry-After`; `reason` is the state.
    NotSigned = "not_signed",
    /// 503: the node, or that of the agent, is stopping.
    ShuttingDown = "shutting_down",
    /// 504: no answer in time. With `node`.
    TimedOut = "timed_out",
    /// 508: agents called each other in a loop, or deeper than is allowed.
    TooDeep = "too_deep",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// One sentence for a person. May change.
    pub error: String,
    /// What went wrong, for a program. Does not change.
    pub code: ErrorCode,
    /// A finer word than the code where there is one, such as `model_no_key`. Does not change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What was looked for, as the caller wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_for: Option<String>,
    /// Where it was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub where_looked: Option<String>,
    /// What the name could mean, each as a reference that is not ambiguous.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
    /// The node the error is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeRef>,
    /// Line of the body or manifest, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Column in that line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
    /// The limit that was passed, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// When to try again, in milliseconds; the header `Retry-After` says it in whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorBody {
    /// Makes a body of a code and a sentence.
    #[must_use]
    pub fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            code,
            reason: None,
            hint: None,
            looked_for: None,
            where_looked: None,
            candidates: Vec::new(),
            node: None,
            line: None,
            column: None,
            limit_bytes: None,
            retry_after_ms: None,
        }
    }
}
