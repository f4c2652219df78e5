//! Asking a model server over HTTP.

use std::collections::VecDeque;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode, redirect};
use rustls::ClientConfig;
use rustls::crypto::ring;
use tokio::time::{Instant, timeout};

use super::assembly::Assembly;
use super::failure::retry_after;
use super::sse::Parser;
use super::{Failure, Request, Route, clean, wire};
use crate::config::ModelLimits;
use crate::turn::Reply;
use crate::{ModelError, OpenError, entropy};

/// The most bytes of a whole answer, with all that surrounds its text.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most bytes of one event of a stream.
const EVENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The most bytes of an error answer that are read.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// Asks model servers; one for all agents, so that connections are used again.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    limits: ModelLimits,
}

/// A piece of an answer.
#[derive(Debug)]
pub(crate) enum Step {
    /// The next piece of its text; never empty.
    Text(String),
    /// Its end.
    Reply(Reply),
}

impl Client {
    /// Sets TLS up: `ring`, and the root certificates of Mozilla. No proxy, no redirect: a key goes
    /// where it was meant to go.
    pub(crate) fn new(limits: ModelLimits) -> Result<Self, OpenError> {
        let failed = |reason: String| OpenError::Setup {
            what: "TLS",
            reason,
        };
        let roots =
            rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|why| failed(why.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(limits.connect_timeout)
            .build()
            .map_err(|why| failed(why.to_string()))?;
        Ok(Self { http, limits })
    }

    /// Prepares a question; nothing is sent before the first [`Call::next`]. No retry begins after
    /// the deadline.
    pub(crate) fn ask<'a>(
        &'a self,
        route: &'a Route,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Call<'a>, ModelError> {
        let body = wire::body(route, request).map_err(|_unwritable| ModelError::BadReply {
            what: "the question cannot be written",
        })?;
        Ok(Call {
            client: self,
            route,
            body,
            deadline,
            attempt: 1,
            given_out: false,
            reading: None,
        })
    }
}

/// A question on its way.
pub(crate) struct Call<'a> {
    client: &'a Client,
    route: &'a Route,
    body: Vec<u8>,
    deadline: Instant,
    attempt: u32,
    given_out: bool,
    reading: Option<Reading>,
}

struct Reading {
    response: Response,
    parser: Parser,
    events: VecDeque<String>,
    assembly: Assembly,
    bytes: usize,
    ended: bool,
}

impl Call<'_> {
    /// Waits for the next piece; after [`Step::Reply`] there is none. Dropping the call, or this
    /// future, closes the connection.
    pub(crate) async fn next(&mut self) -> Result<Step, ModelError> {
        loop {
            let failure = match self.step().await {
                Ok(step) => {
                    self.given_out = true;
                    return Ok(step);
                }
                Err(failure) => failure,
            };
            let pause = failure
                .pause(self.attempt + 1, &self.client.limits, entropy::unit())
                .filter(|pause| Instant::now() + *pause < self.deadline);
            let Some(pause) = pause.filter(|_| !self.given_out) else {
                return Err(self.scrubbed(failure.error));
            };
            tracing::debug!(
                attempt = self.attempt,
                code = failure.error.code(),
                pause_ms = pause.as_millis(),
                "the model is asked again"
            );
            self.attempt += 1;
            self.reading = None;
            tokio::time::sleep(pause).await;
        }
    }

    async fn step(&mut self) -> Result<Step, Failure> {
        let idle = self.client.limits.idle_timeout;
        loop {
            let Some(reading) = &mut self.reading else {
                let opened = self.open().await?;
                if let Some(step) = self.begin(opened).await? {
                    return Ok(step);
                }
                continue;
            };
            if let Some(event) = reading.events.pop_front() {
                let text = reading.assembly.push(&event)?;
                if !text.is_empty() {
                    return Ok(Step::Text(text));
                }
                reading.ended |= event.trim() == "[DONE]";
            } else if reading.ended {
                let assembly = std::mem::take(&mut reading.assembly);
                return assembly.finish().map(Step::Reply);
            } else {
                reading.fill(idle).await?;
            }
        }
    }

    async fn open(&self) -> Result<Response, Failure> {
        let mut request = self
            .client
            .http
            .post(self.route.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream, application/json")
            .body(self.body.clone());
        if let Some(key) = &self.route.authorization {
            request = request.header(AUTHORIZATION, key.clone());
        }
        let after = self.client.limits.first_byte_timeout;
        let response = timeout(after, request.send())
            .await
            .map_err(|_elapsed| Failure::fatal(ModelError::Idle { after }))?
            .map_err(|why| self.unreachable(&why))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        Err(self.refused(response).await)
    }

    fn unreachable(&self, why: &reqwest::Error) -> Failure {
        if !why.is_connect() {
            return Failure::retryable(ModelError::Cut);
        }
        let mut cause = why.source();
        let mut reason = String::new();
        while let Some(deeper) = cause {
            reason = deeper.to_string();
            cause = deeper.source();
        }
        Failure::retryable(ModelError::Connect {
            host: self.route.host(),
            reason: clean(&reason, 128),
        })
    }

    async fn refused(&self, mut response: Response) -> Failure {
        let status = response.status().as_u16();
        let pause = wished_pause(response.headers());
        let mut body = Vec::new();
        let idle = self.client.limits.idle_timeout;
        while let Ok(Ok(Some(piece))) = timeout(idle, response.chunk()).await {
            let room = ERROR_BYTES_MAX - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if body.len() >= ERROR_BYTES_MAX {
                break;
            }
        }
        Failure::of_status(status, pause, &body, &self.route.model)
    }

    /// Takes the key out of what a server says, should it repeat it.
    fn scrubbed(&self, mut error: ModelError) -> ModelError {
        let key = self
            .route
            .authorization
            .as_ref()
            .and_then(|value| value.to_str().ok());
        let key = key.and_then(|value| value.strip_prefix("Bearer "));
        if let ModelError::Rejected { message, .. } | ModelError::Reported { message } = &mut error
            && let Some(key) = key
        {
            *message = message.replace(key, "[key]");
        }
        error
    }

    /// Looks at the kind of the answer: a stream is read step by step, a whole answer at once.
    async fn begin(&mut self, response: Response) -> Result<Option<Step>, Failure> {
        let kind = response.headers().get(CONTENT_TYPE);
        let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        let mut reading = Reading {
            response,
            parser: Parser::new(EVENT_BYTES_MAX),
            events: VecDeque::new(),
            assembly: Assembly::default(),
            bytes: 0,
            ended: false,
        };
        let mut text = String::new();
        if is_json {
            let body = reading.whole(self.client.limits.idle_timeout).await?;
            text = reading.assembly.whole(&body)?;
            reading.ended = true;
        }
        self.reading = Some(reading);
        Ok((!text.is_empty()).then_some(Step::Text(text)))
    }
}

impl Reading {
    async fn chunk(&mut self, idle: Duration) -> Result<Option<Vec<u8>>, Failure> {
        let piece = timeout(idle, self.response.chunk())
            .await
            .map_err(|_elapsed| Failure::retryable(ModelError::Idle { after: idle }))?
            .map_err(|_broken| Failure::retryable(ModelError::Cut))?;
        let Some(piece) = piece else {
            return Ok(None);
        };
        self.bytes += piece.len();
        if self.bytes > REPLY_BYTES_MAX {
            return Err(too_large(REPLY_BYTES_MAX));
        }
        Ok(Some(piece.to_vec()))
    }

    async fn fill(&mut self, idle: Duration) -> Result<(), Failure> {
        let large = |_too_large| too_large(EVENT_BYTES_MAX);
        match self.chunk(idle).await {
            Ok(Some(piece)) => self.events.extend(self.parser.push(&piece).map_err(large)?),
            Ok(None) => {
                self.events.extend(self.parser.finish().map_err(large)?);
                self.ended = true;
            }
            // A server that has said it all, and neither ends the stream nor says so.
            Err(_) if self.assembly.is_finished() => self.ended = true,
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    async fn whole(&mut self, idle: Duration) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = self.chunk(idle).await? {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

fn too_large(max: usize) -> Failure {
    Failure::fatal(ModelError::TooLarge { max })
}

fn wished_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |value: Option<&reqwest::header::HeaderValue>| {
        value.and_then(|v| v.to_str().ok()).map(str::to_owned)
    };
    let millis = text(headers.get("retry-after-ms"));
    let seconds = text(headers.get(RETRY_AFTER));
    retry_after(millis.as_deref(), seconds.as_deref())
}
