//! Why a language model gave no usable answer.

use std::time::Duration;

/// A failed request to a model server. Never holds a key or a prompt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// No server address is known for the provider.
    #[error(
        "no server is known for provider {provider:?}: give a base_url, or use one of {}",
        crate::provider::names()
    )]
    UnknownProvider {
        /// As the manifest or the configuration has it.
        provider: String,
    },
    /// No model is named, neither by the agent nor by the node.
    #[error("no model is named: set [default_model] in config.toml, or [model] in the manifest")]
    NoModel,
    /// The server address is not an http or https address.
    #[error("base_url {url:?} is not an http:// or https:// address")]
    BadAddress {
        /// The address.
        url: String,
    },
    /// The provider needs a key and none is set.
    #[error("no key for {provider}: set {variable} in the environment of the node")]
    NoKey {
        /// Which provider.
        provider: String,
        /// Where the key belongs.
        variable: String,
    },
    /// The manifest would have the key of one provider sent to the server of another.
    #[error(
        "the key in {variable} is not sent to {host}: it belongs to another server; the node's configuration can allow it"
    )]
    KeyNotForHost {
        /// Which key.
        variable: String,
        /// Where it would have gone.
        host: String,
    },
    /// The server cannot be reached: no route, nobody listens, TLS fails, the name is unknown.
    #[error("cannot reach the model server at {host}: {reason}")]
    Connect {
        /// Host and port.
        host: String,
        /// What failed.
        reason: String,
    },
    /// The server does not accept the key (401, 403).
    #[error("the model server does not accept the key (HTTP {status})")]
    Unauthorized {
        /// The HTTP status.
        status: u16,
    },
    /// The server does not know the model, or the address is not that of a chat API (404).
    #[error("the model server has no model {model:?} at that address (HTTP 404)")]
    NotFound {
        /// The model.
        model: String,
    },
    /// The server asks for fewer requests (429), after all retries.
    #[error("the model server asks for fewer requests (HTTP 429)")]
    RateLimited {
        /// When it will answer again, if it says so.
        retry_after: Option<Duration>,
    },
    /// The conversation is longer than the model can read.
    #[error(
        "the conversation is longer than the model can read: lower max_history_messages, or start a new session"
    )]
    ContextTooLong,
    /// The server refuses the request (another 4xx).
    #[error("the model server refuses the request (HTTP {status}): {message}")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// What it says, at most 256 characters, without the key.
        message: String,
    },
    /// The server failed (5xx), after all retries.
    #[error("the model server failed (HTTP {status})")]
    Server {
        /// The HTTP status.
        status: u16,
    },
    /// The server reported a failure in the middle of its answer.
    #[error("the model server broke off its answer: {message}")]
    Reported {
        /// What it says, at most 256 characters, without the key.
        message: String,
    },
    /// The answer is not what the protocol says.
    #[error("the model server's answer cannot be read: {what}")]
    BadReply {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The connection ended before the answer did.
    #[error("the model server's answer was cut off")]
    Cut,
    /// Nothing came for too long.
    #[error("nothing came from the model server for {} s", .after.as_secs())]
    Idle {
        /// How long.
        after: Duration,
    },
    /// The answer is larger than any answer.
    #[error("the model server's answer is larger than {max} bytes")]
    TooLarge {
        /// The most that is read.
        max: usize,
    },
    /// The model said nothing and called no tool.
    #[error("the model gave an empty answer")]
    Empty,
}

impl ModelError {
    /// Returns the stable word for it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownProvider { .. } => "model_unknown_provider",
            Self::NoModel => "model_not_set",
            Self::BadAddress { .. } => "model_bad_address",
            Self::NoKey { .. } => "model_no_key",
            Self::KeyNotForHost { .. } => "model_key_not_for_host",
            Self::Connect { .. } => "model_unreachable",
            Self::Unauthorized { .. } => "model_unauthorized",
            Self::NotFound { .. } => "model_not_found",
            Self::RateLimited { .. } => "model_rate_limited",
            Self::ContextTooLong => "model_context_too_long",
            Self::Rejected { .. } => "model_rejected",
            Self::Server { .. } => "model_server_error",
            Self::Reported { .. } => "model_reported_error",
            Self::BadReply { .. } => "model_bad_reply",
            Self::Cut => "model_cut_off",
            Self::Idle { .. } => "model_idle",
            Self::TooLarge { .. } => "model_reply_too_large",
            Self::Empty => "model_empty_reply",
        }
    }
}
