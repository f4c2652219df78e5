//! HTTP to the daemon, by the wire structs of `openfang-schema`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use openfang_id::ApiKey;
use openfang_schema::ErrorBody;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::error::{Exit, Failure};

/// The daemon is on this machine: it accepts at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For everything that does not wait for an agent or another node.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// For what changes the node: that waits up to twelve seconds for its audit log to be signed, and up to ten for
/// the witnesses of the entry.
pub(crate) const CHANGED_WITHIN: Duration = Duration::from_secs(30);

/// A client of one daemon.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    /// Makes a client. Nothing is sent.
    pub(crate) fn new(listen: SocketAddr, key: Option<&ApiKey>) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let text = Zeroizing::new(format!("Bearer {}", key.expose()));
            let mut value = HeaderValue::from_str(&text).map_err(|_not_a_header| {
                Failure::new(
                    Exit::Config,
                    "the API key holds a character that HTTP cannot carry",
                )
                .mend("make one: openfang keygen")
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .tls_backend_preconfigured(tls()?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|why| Failure::new(Exit::Failure, format!("no HTTP client: {why}")))?;
        Ok(Self {
            http,
            base: format!("http://{}", reachable(listen)),
        })
    }

    /// Asks for something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.exchange(self.request(Method::GET, path).timeout(ANSWER_TIMEOUT))
            .await
    }

    /// Ends something.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.exchange(self.request(Method::DELETE, path).timeout(CHANGED_WITHIN))
            .await
    }

    /// Does something and waits for the answer, at most so long.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, Failure> {
        self.exchange(self.request(Method::POST, path).json(body).timeout(timeout))
            .await
    }

    /// Changes something, without a body.
    pub(crate) async fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.exchange(self.request(Method::POST, path).timeout(CHANGED_WITHIN))
            .await
    }

    /// Does something whose answer comes in pieces.
    pub(crate) async fn stream(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<Response, Failure> {
        let request = self.request(Method::POST, path).json(body).timeout(timeout);
        self.send(request).await
    }

    /// Turns what went wrong on the way into a failure.
    pub(crate) fn failure(&self, why: &reqwest::Error) -> Failure {
        if why.is_timeout() && !why.is_connect() {
            let what = format!("no answer from {} in time", self.base);
            return Failure::new(Exit::Timeout, what).mend(
                "a slow agent: openfang message --timeout SECONDS; a node that hangs: openfang restart",
            );
        }
        if why.is_connect() {
            let what = format!("the daemon at {} cannot be reached", self.base);
            return Failure::new(Exit::Unreachable, what).mend(MEND_CONNECT);
        }
        let what = format!("the answer of {} was cut off: {why}", self.base);
        Failure::new(Exit::Unreachable, what).mend(MEND_CUT)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn exchange<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Failure> {
        let response = self.send(request).await?;
        let body = response.bytes().await.map_err(|why| self.failure(&why))?;
        Ok(serde_json::from_slice(&body)?)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|why| self.failure(&why))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.map_err(|why| self.failure(&why))?;
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(Failure::of_api(body)),
            Err(_not_ours) => Err(self.foreign(status)),
        }
    }

    fn foreign(&self, status: StatusCode) -> Failure {
        let what = format!(
            "{} answered {status}, and not as an openfang node does",
            self.base
        );
        Failure::new(Exit::Failure, what).mend("openfang status")
    }
}

/// A node that has its log back, or begins a new one, starts again by itself, in the same process.
const MEND_CONNECT: &str = "try again in a moment: a node that restarts itself does not serve meanwhile; when that goes on: openfang restart";
const MEND_CUT: &str =
    "openfang status tells whether it runs; a node that restarts itself serves again in a moment";

/// The daemon is asked over plain HTTP on this machine; the client wants to be told about TLS all the
/// same, or it would look for certificates at every start.
fn tls() -> Result<rustls::ClientConfig, Failure> {
    let roots = rustls::RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| Failure::new(Exit::Failure, format!("no TLS: {why}")))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// A daemon that listens everywhere is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_listens_everywhere_is_asked_on_loopback() {
        let check = |listen: &str, expected: &str| {
            let listen = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), expected);
        };
        check("0.0.0.0:4200", "127.0.0.1:4200");
        check("[::]:4200", "[::1]:4200");
        check("192.0.2.7:1", "192.0.2.7:1");
    }

    #[test]
    fn the_key_does_not_show() {
        let key = ApiKey::from_random(&[1; 32]);
        let listen = "127.0.0.1:1".parse().expect("an address");
        let client = Client::new(listen, Some(&key)).expect("a client");
        assert!(!format!("{client:?}").contains(key.expose()));
    }
}
