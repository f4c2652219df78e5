//! A client of the HTTP API that knows nothing but the API.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::Value;

/// No request of a testnet may take longer.
const REQUEST_LIMIT: Duration = Duration::from_secs(120);

/// The answer of a node.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body; `Null` where it was no JSON.
    pub body: Value,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection, or it was lost.
    #[error("{0}")]
    Transport(#[from] reqwest::Error),
    /// The TLS library does not work.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The answer is not what the API documents.
    #[error("{method} {path} answered {status}: {body}")]
    Unexpected {
        /// Method of the request.
        method: &'static str,
        /// Path of the request.
        path: String,
        /// HTTP status.
        status: u16,
        /// What came.
        body: String,
    },
    /// A stream that ended before its last event.
    #[error("the stream of {path} ended early: {detail}")]
    Cut {
        /// Path of the request.
        path: String,
        /// What came last.
        detail: String,
    },
}

/// What a streamed answer was made of.
#[derive(Debug, Clone, Default)]
pub struct Streamed {
    /// The text, chunk by chunk.
    pub chunks: Vec<String>,
    /// The data of the last event.
    pub done: Value,
    /// From the request to the first chunk.
    pub first_chunk: Option<Duration>,
}

/// Talks to one node.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl Client {
    /// Makes a client of the node that listens at `address` (`127.0.0.1:4200`).
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new(address: &str, key: &str) -> Result<Self, ApiError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(no_tls()?)
            .no_proxy()
            .timeout(REQUEST_LIMIT)
            .build()?;
        Ok(Self {
            http,
            base: format!("http://{address}"),
            key: key.to_owned(),
        })
    }

    /// Returns where the node listens, as a URL.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks, and returns whatever is answered.
    ///
    /// # Errors
    /// When nothing is.
    pub async fn send(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, ApiError> {
        let verb = reqwest::Method::from_bytes(method.as_bytes()).unwrap_or(reqwest::Method::GET);
        let mut request = self
            .http
            .request(verb, format!("{}{path}", self.base))
            .bearer_auth(&self.key);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok(Reply {
            status,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
        })
    }

    /// Asks, and accepts a success only.
    ///
    /// # Errors
    /// When anything else is answered.
    pub async fn ok(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let reply = self.send(method, path, body).await?;
        if (200..300).contains(&reply.status) {
            return Ok(reply.body);
        }
        Err(ApiError::Unexpected {
            method,
            path: path.to_owned(),
            status: reply.status,
            body: reply.body.to_string(),
        })
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// When anything but a success is answered.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.ok("GET", path, None).await
    }

    /// Sends a message to an agent and reads the answer as it is streamed.
    ///
    /// # Errors
    /// When the request is refused, an error event comes, or the stream ends without `done`.
    pub async fn stream(&self, agent: &str, message: &str) -> Result<Streamed, ApiError> {
        let path = format!("/api/agents/{agent}/message/stream");
        let started = now();
        let response = self
            .http
            .post(format!("{}{path}", self.base))
            .bearer_auth(&self.key)
            .json(&serde_json::json!({ "message": message }))
            .send()
            .await?;
        let status = response.status().as_u16();
        if status != 200 {
            let body = response.text().await?;
            return Err(ApiError::Unexpected {
                method: "POST",
                path,
                status,
                body,
            });
        }
        let mut out = Streamed::default();
        let mut pending = String::new();
        let mut bytes = response.bytes_stream();
        while let Some(part) = bytes.next().await {
            pending.push_str(&String::from_utf8_lossy(&part?));
            while let Some(end) = pending.find("\n\n") {
                let event: String = pending.drain(..end + 2).collect();
                match take_event(&event, &mut out, started) {
                    Taken::More => {}
                    Taken::Last => return Ok(out),
                    Taken::Failed(detail) => return Err(ApiError::Cut { path, detail }),
                }
            }
        }
        Err(ApiError::Cut {
            path,
            detail: pending,
        })
    }
}

/// A testnet speaks plain HTTP to this machine: a client that trusts no certificate is enough.
fn no_tls() -> Result<rustls::ClientConfig, ApiError> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?;
    Ok(versions
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

/// What an event was.
enum Taken {
    More,
    Last,
    Failed(String),
}

/// Reads one server-sent event (WHATWG HTML §9.2).
fn take_event(event: &str, out: &mut Streamed, started: Instant) -> Taken {
    let field = |name: &str| {
        let lines = event.lines().filter_map(|line| line.strip_prefix(name));
        lines
            .map(|value| value.trim_start().to_owned())
            .collect::<Vec<_>>()
            .join("\n")
    };
    let data: Value = serde_json::from_str(&field("data:")).unwrap_or(Value::Null);
    match field("event:").as_str() {
        "chunk" => {
            out.first_chunk.get_or_insert_with(|| started.elapsed());
            out.chunks
                .push(data["content"].as_str().unwrap_or_default().to_owned());
            Taken::More
        }
        "done" => {
            out.done = data;
            Taken::Last
        }
        "error" => Taken::Failed(data.to_string()),
        _other => Taken::More,
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client of a real server measures real time"
)]
fn now() -> Instant {
    Instant::now()
}
